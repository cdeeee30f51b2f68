//! The way down: the rules of a home told to its agent as flow bindings (RFC 6089, RFC 6088).
//!
//! ```text
//!   mobile                                              home agent
//!   Effective -- plan --> [FlowBinding] ~~ wire ~~> [FlowBinding] -- of_flow_bindings --> Effective
//! ```
//!
//! [`plan`] takes the rules **as they stand at this moment** and turns their words round, each
//! exactly once and only by [`TrafficSelector::mirrored`](crate::TrafficSelector::mirrored). So a
//! `fastest` is told as its present leader, and whoever calls it calls it again when
//! [`Steering::effective`](crate::Steering::effective) is another list. What the agent does with
//! the answer is [`Effective::of_flow_bindings`](crate::Effective::of_flow_bindings), walked by the
//! same [`Effective::choose`](crate::Effective::choose): for every rule that can be told, the
//! agent's decision for a packet's answer is the mobile's decision for the packet, whichever
//! bindings are usable.
//!
//! # How a rule is told
//!
//! - Its lines are taken apart into areas: one range for each field. Prefixes, ports,
//!   protocols and code points that touch are one range.
//! - A list of links is one flow binding for each link, rising in FID-PRI: one whose BIDs are gone
//!   is skipped. Two BIDs in one flow binding are a copy to each, so only `duplicate` says that.
//! - A `balance` is cut by the mobile's ports, on both ends alike ([`crate::Spread`]).
//! - `exclude` is cut out, or stands before the rule as what its packets get from the rules
//!   behind, whichever is shorter.
//! - What no rule decides goes by the lowest BID-PRI, at every agent; nothing is said of that.
//!
//! Then whatever changes no decision is left out, neighbours are joined, and if there is no room
//! yet, first the links behind the first of each rule are left to the rules behind, then the
//! costliest rules are not told, and the plan says which. FIDs and FID-PRI of an earlier plan are
//! kept wherever they can be.

mod agent;
mod area;
mod entry;
mod fit;
mod numbers;
mod offline;
mod rulebook;
mod target;
mod thin;
pub(crate) mod untold;

use serde::Serialize;

pub use agent::{AgentDefault, Unmatched};
pub use entry::cross_product;
pub use offline::{AtAgent, at_agent};
pub use rulebook::Rulebook;
pub use target::DownlinkTarget;
pub use untold::{Said, Untold};

use crate::effective::Effective;
use crate::flow_binding::FlowBinding;
use crate::policy::{Home, Policy, RuleSet};
use crate::steering::{Given, suppose};
use crate::terms::{FlowId, RuleId, RuleName};

/// How many flow bindings an agent holds for a mobile if nobody says another number.
pub const USUAL_FLOWS: u16 = 64;

/// How many any may hold: so many FIDs fit a Binding Update that names them all.
pub const MOST_FLOWS: u16 = 512;

/// What an agent is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The flow bindings in the order of their FID-PRI; never more than the budget.
    pub bindings: Vec<FlowBinding>,
    /// What each rule became, overrides first, in the order in which they are asked.
    pub rules: Vec<RuleDownlink>,
    /// Set if not every rule that could be told has room.
    pub refused: Option<OverBudget>,
}

impl Plan {
    /// What a rule became.
    pub fn rule(&self, id: RuleId) -> Option<&RuleDownlink> {
        self.rules.iter().find(|rule| rule.rule == id)
    }

    /// With what cannot be told of the rules as they are written: what is told of those is their
    /// present choice.
    pub fn as_written(mut self, rules: &RuleSet) -> Self {
        for told in self.rules.iter_mut().filter(|told| !told.rule.is_override()) {
            let Some(rule) = rules.get(told.rule) else { continue };
            told.says.add(untold::of_written(rule));
            told.instead = told.says.instead();
        }
        self
    }

    /// The flow binding of this FID.
    pub fn binding(&self, id: FlowId) -> Option<&FlowBinding> {
        self.bindings.iter().find(|binding| binding.id == id)
    }
}

/// What the agent is told of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleDownlink {
    /// The rule.
    pub rule: RuleId,
    /// Its name.
    pub name: RuleName,
    /// The flow bindings that speak for it, in order; one may speak for several rules.
    pub entries: Vec<FlowId>,
    /// How much of it that is.
    pub says: Said,
    /// What the agent does instead of what it is not told.
    pub instead: Option<String>,
}

/// More to tell than there is room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverBudget {
    /// How many flow bindings all rules would take, as short as they can be said.
    pub needed: usize,
    /// How many there may be.
    pub budget: u16,
    /// The rules that take most, the costliest first, and how many each.
    pub costliest: Vec<(RuleName, usize)>,
}

/// What the agent of a home is told while every link is registered and up.
pub fn preview(policy: &Policy, home: &Home) -> Plan {
    let bids = policy.interfaces.iter().filter_map(|interface| interface.bid);
    let reflect = home.register.reflect;
    let target = DownlinkTarget { reflect, ..DownlinkTarget::new(policy, home, bids) };
    let rules = suppose(policy, home, &Given::default()).effective;
    plan(&rules, &target, home.register.flow_budget, None).as_written(&home.rules)
}

/// The flow bindings for the rules as they stand, at most `budget` of them (and never more than
/// [`MOST_FLOWS`]).
///
/// `before` is what the agent was told last: what stays the same keeps its FID and its FID-PRI,
/// and what only has other BIDs keeps its FID. What can be told, the agent does down as the mobile
/// does up (req FB-19).
pub fn plan(
    rules: &Effective,
    target: &DownlinkTarget,
    budget: u16,
    before: Option<&Plan>,
) -> Plan {
    let fit::Fitted { entries, depth, left_out, refused } =
        fit::fit(rules, target, budget.min(MOST_FLOWS));
    let bindings = numbers::number(&entries, before.map_or(&[], |plan| &plan.bindings));
    let of_rule = |ruling: crate::effective::Ruling<'_>| {
        let id = ruling.head.id;
        let own = entries.iter().zip(&bindings).filter(|(entry, _)| entry.rules.contains(&id));
        let own: Vec<FlowId> = own.map(|(_, binding)| binding.id).collect();
        let mut untold = untold::of_rule(ruling.head, ruling.says);
        if left_out.contains(&id) {
            untold.push(Untold::Room);
        } else if !own.is_empty() && entry::depth(ruling, target) > depth {
            untold.push(Untold::LaterLinks);
        }
        let says = match (untold.is_empty(), own.is_empty()) {
            (true, true) => Said::Implied,
            (true, false) => Said::Expressed,
            (false, true) => Said::Not(untold),
            (false, false) => Said::Partly(untold),
        };
        let instead = says.instead();
        RuleDownlink { rule: id, name: ruling.head.name.clone(), entries: own, says, instead }
    };
    let rules = rules.rules().map(of_rule).collect();
    Plan { bindings, rules, refused }
}
