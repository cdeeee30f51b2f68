//! The flow bindings of one mobile as its home agent runs them: an [`Effective`] like any other,
//! walked by the same [`Effective::choose`].
//!
//! The first active flow binding that matches decides; several BIDs are a copy to each that is
//! registered; one whose BIDs are all gone says nothing and the next is asked (RFC 6089 §5.3.6).
//! What none of them speaks of goes as [`AgentDefault`] says.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::effective::{Effective, Otherwise, Outcome, RuleHead, Says};
use crate::flow_binding::FlowBinding;
use crate::terms::{RuleId, RuleName};

/// What a home agent does with packets to a mobile that none of its flow bindings speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmatched {
    /// By the binding on which the flow's last verified packet came, else as
    /// [`Unmatched::Preferred`].
    #[default]
    Reflect,
    /// By the usable binding of the lowest BID-PRI (RFC 6089 §5.3.6).
    Preferred,
}

/// What a home agent does beyond what flow bindings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentDefault {
    /// With packets that none speaks of.
    pub unmatched: Unmatched,
    /// Whether `reflect` was negotiated: within the BIDs of a flow binding, and of those right
    /// behind it with the same selector, a flow goes down by the one on which its last verified
    /// packet came up. Flow bindings of several BIDs are copies all the same.
    pub reflect: bool,
}

impl Effective {
    /// The rules of a home agent for one mobile.
    ///
    /// req FB-13, FB-15: in the order of FID-PRI the first active flow binding that matches, a copy
    /// to each of its BIDs; where none does, as `default` says.
    ///
    /// The numbers of the rules are their places; their names say the FID. With `reflect`, flow
    /// bindings of one selector are one rule, named by the first of them.
    pub fn of_flow_bindings(flows: &[FlowBinding], default: AgentDefault) -> Self {
        let groups = groups(flows, default.reflect);
        let rules = (0..RuleId::OVERRIDES - 1).zip(&groups).map(|(place, group)| {
            let first = group[0];
            let outcome = match group.as_slice() {
                [only] => match only.bids.as_slice() {
                    [bid] if default.reflect => Outcome::ReflectWithin(vec![*bid]),
                    [bid] => Outcome::Candidates(vec![*bid]),
                    bids => Outcome::Copies {
                        links: bids.to_vec(),
                        copies: u8::try_from(bids.len()).unwrap_or(u8::MAX),
                    },
                },
                several => Outcome::ReflectWithin(
                    several.iter().flat_map(|flow| flow.bids.clone()).collect(),
                ),
            };
            let name = RuleName::new(format!("flow {}", first.id));
            let selectors = vec![first.selector.to_traffic_selector()];
            (
                head(RuleId(place), name, selectors, &outcome),
                Says::plain(outcome, Otherwise::NextRule),
            )
        });
        let last = u16::try_from(groups.len()).unwrap_or(RuleId::OVERRIDES - 1);
        let outcome = match default.unmatched {
            Unmatched::Reflect => Outcome::Reflect,
            Unmatched::Preferred => Outcome::Candidates(Vec::new()),
        };
        let name = match default.unmatched {
            Unmatched::Reflect => "reflect",
            Unmatched::Preferred => "priority",
        };
        let last = head(RuleId(last), RuleName::new(name), Vec::new(), &outcome);
        Self::new(rules.chain([(last, Says::plain(outcome, Otherwise::Any))]))
    }
}

fn head(
    id: RuleId,
    name: RuleName,
    selectors: Vec<crate::selector::TrafficSelector>,
    outcome: &Outcome,
) -> RuleHead {
    let mut identity = DefaultHasher::new();
    (&selectors, outcome.links(), matches!(outcome, Outcome::Copies { .. })).hash(&mut identity);
    let identity = identity.finish();
    RuleHead { id, name, selectors, exclude: Vec::new(), identity, optimize: None }
}

/// The flow bindings in the order of their FID-PRI; with `reflect`, neighbours of one selector
/// and one BID each together.
pub(super) fn groups(flows: &[FlowBinding], reflect: bool) -> Vec<Vec<&FlowBinding>> {
    let mut ordered: Vec<&FlowBinding> =
        flows.iter().filter(|flow| !flow.bids.is_empty()).collect();
    ordered.sort_by_key(|flow| flow.priority);
    let mut groups: Vec<Vec<&FlowBinding>> = Vec::new();
    for flow in ordered {
        match groups.last_mut() {
            Some(group)
                if reflect
                    && flow.bids.len() == 1
                    && group[0].bids.len() == 1
                    && group[0].selector == flow.selector =>
            {
                group.push(flow);
            }
            _ => groups.push(vec![flow]),
        }
    }
    groups
}
