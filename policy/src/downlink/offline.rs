//! What an agent makes of one flow, by the policy file alone.

use super::{AgentDefault, DownlinkTarget, Plan, Unmatched, plan};
use crate::effective::{Choice, Effective, Origin, Usable};
use crate::flow_binding::FlowBinding;
use crate::key::FlowKey;
use crate::policy::{Home, Policy};
use crate::steering::{Given, suppose};
use crate::terms::{Bid, FlowId};

/// What an agent that takes all it is told does with one flow's packets to the mobile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtAgent {
    /// What it is told.
    pub plan: Plan,
    /// The flow bindings that speak of these packets, in the order in which they are asked.
    pub speaking: Vec<FlowId>,
    /// The one that decides; `None` if none does.
    pub fid: Option<FlowId>,
    /// The bindings by which they come, of copies all of them; empty if nothing can be used.
    pub bids: Vec<Bid>,
}

/// Explains the way down of a flow without a daemon: all is told and taken, and registered is
/// every link that is usable with what is given.
///
/// `key` is that of the packets up, which go by `up`. With `reflect` the agent counts as one of
/// ours, which sends what it was told nothing of back the way it came; else by the lowest BID-PRI.
pub fn at_agent(
    policy: &Policy,
    home: &Home,
    key: &FlowKey,
    given: &Given,
    up: Option<Bid>,
) -> AtAgent {
    let supposed = suppose(policy, home, given);
    let register = &home.register;
    let reflect = register.reflect;
    let plan = match register.flow_bindings && register.multiple_coa {
        true => {
            let bids = policy.interfaces.iter().filter_map(|interface| interface.bid);
            let target = DownlinkTarget { reflect, ..DownlinkTarget::new(policy, home, bids) };
            plan(&supposed.effective, &target, register.flow_budget, None)
        }
        false => Plan::default(),
    };
    let unmatched = if reflect { Unmatched::Reflect } else { Unmatched::Preferred };
    let rules = Effective::of_flow_bindings(&plan.bindings, AgentDefault { unmatched, reflect });
    let down = key.mirrored();
    let bids = match rules.choose(&down, Origin::Home, &supposed, up) {
        Choice::Use { bid, .. } => vec![bid],
        Choice::Copies { links, copies, .. } => {
            let usable = links.iter().copied().filter(|bid| supposed.usable(*bid));
            usable.take(usize::from(copies)).collect()
        }
        Choice::Breakout { .. } | Choice::Block { .. } | Choice::Nothing(_) => Vec::new(),
    };
    let speaking = || plan.bindings.iter().filter(|flow| flow.selector.matches(&down));
    // The first that names the binding: those behind it are not asked.
    let names = |flow: &&FlowBinding| flow.bids.iter().any(|bid| bids.contains(bid));
    let fid = speaking().find(names).map(|flow| flow.id);
    let speaking = speaking().map(|flow| flow.id).collect();
    AtAgent { plan, speaking, fid, bids }
}
