//! The flow bindings that a mobile wants its agent to hold (RFC 6089 §5.2).

use mtun_policy::FlowBinding;

use super::MobileNode;
use crate::flow::{FlowState, RegisteredFlow};

/// What is wanted, and what is known of the agent.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// By rising FID-PRI.
    wanted: Vec<FlowBinding>,
}

impl MobileNode {
    /// The policy wants these from here on.
    pub(super) fn flows_changed(&mut self, mut flows: Vec<FlowBinding>) {
        flows.sort_by_key(|flow| flow.priority);
        self.flows = Flows { wanted: flows };
    }

    /// The flow bindings that are wanted and how far they have come.
    pub(super) fn registered_flows(&self) -> Vec<RegisteredFlow> {
        let wanted = self.flows.wanted.iter();
        wanted
            .map(|binding| RegisteredFlow { binding: binding.clone(), state: FlowState::Pending })
            .collect()
    }
}
