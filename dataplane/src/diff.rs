//! What another policy would do to the flows there are: a comparison, nothing is applied.
//!
//! Each flow is decided in both worlds by [`decide`](crate::decide()) with its own memory, as it
//! will be once every pause has come. So a flow that is about to move anyway is not blamed on the
//! new policy, and one that would stay for its stickiness is not said to move. What groups of
//! flows share is not looked at; their flows go by their own memory.

use std::time::Duration;

use mtun_policy::steering::moves::MOVE_BY;
use mtun_policy::{Bid, BlockReply, FlowKey, RuleId, RuleName};

use crate::decide::{Decision, decide};
use crate::flow_table::FlowEntry;
use crate::memory::{Memory, Remembered};
use crate::party::bound;
use crate::reason::DropReason;
use crate::registration::Registration;
use crate::snapshot::Snapshot;

/// A flow that would leave otherwise than it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldMove {
    /// The flow, as its packets leave here.
    pub key: FlowKey,
    /// How it leaves at present.
    pub from: Course,
    /// How it would leave.
    pub to: Course,
    /// Octets it carried so far, both directions.
    pub octets: u64,
    /// When its last packet was seen.
    pub last_seen: Duration,
}

/// How the packets of a flow leave, as far as a comparison goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// The rule that says so; `None` if none matched or none was asked.
    pub rule: Option<(RuleId, RuleName)>,
    /// What it comes to.
    pub end: CourseEnd,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CourseEnd {
    /// By this binding, straight or through the tunnel.
    Tunnel(Option<Bid>),
    /// A copy each by several; this is the first.
    Copies(Option<Bid>),
    /// Outside the tunnel by this link.
    Breakout {
        /// The link.
        bid: Option<Bid>,
        /// Whether the source becomes the link's own address.
        translate: bool,
    },
    /// Refused by the rule.
    Refused(BlockReply),
    /// Dropped.
    Dropped(DropReason),
    /// Neither end is anybody's home.
    NotOurs,
}

/// The flows that would leave otherwise under `new`, in the order given. Flows that never left
/// here are passed over.
pub fn diff(old: &Snapshot, new: &Snapshot, flows: &[FlowEntry], now: Duration) -> Vec<WouldMove> {
    let mut moves = Vec::new();
    for flow in flows.iter().filter(|flow| flow.memory.answer.is_some()) {
        let before = settled(old, flow, now);
        let after = settled(new, flow, now);
        let (from, to) = (end(&before), end(&after));
        if from != to {
            moves.push(WouldMove {
                key: flow.key,
                from: Course { rule: rule(&before), end: from },
                to: Course { rule: rule(&after), end: to },
                octets: flow.bytes_out + flow.bytes_in,
                last_seen: flow.last_seen,
            });
        }
    }
    moves
}

/// What is decided for the flow when every pause has come, it being silent for as long as it is.
fn settled<'s>(snapshot: &'s Snapshot, flow: &FlowEntry, now: Duration) -> Decision<'s> {
    let changed_at = |registration: &Registration| registration.changed_at;
    let near = snapshot.updates.lookup(flow.key.source).map(changed_at);
    let far = || snapshot.cache.lookup(flow.key.destination).or_else(|| bound(snapshot, &flow.key));
    let changed = near.or_else(|| far().map(changed_at));
    let due = flow.memory.answer.and_then(|answer| answer.due).map(|due| due.since);
    let then = now.max(changed.unwrap_or_default().max(due.unwrap_or_default()) + MOVE_BY);
    let later = then - now;
    let memory = Remembered {
        last_seen: flow.memory.last_seen + later,
        last_sent: flow.memory.last_sent.map(|sent| sent + later),
        ..flow.memory
    };
    decide(snapshot, &flow.key, then, Memory::of(&memory))
}

fn end(decision: &Decision<'_>) -> CourseEnd {
    match decision {
        Decision::Forward(route) => CourseEnd::Tunnel(route.binding.bid),
        Decision::Replicate(copies) => CourseEnd::Copies(copies.first.binding.bid),
        Decision::Breakout(out) => {
            CourseEnd::Breakout { bid: out.binding.bid, translate: out.translate }
        }
        Decision::Refuse { reply, .. } => CourseEnd::Refused(*reply),
        Decision::Drop(reason) => CourseEnd::Dropped(*reason),
        Decision::Pass => CourseEnd::NotOurs,
    }
}

fn rule(decision: &Decision<'_>) -> Option<(RuleId, RuleName)> {
    let (registration, id) = match decision {
        Decision::Forward(route) => (route.registration, route.rule?),
        Decision::Replicate(copies) => (copies.first.registration, copies.first.rule?),
        Decision::Breakout(out) => (out.registration, out.rule?),
        Decision::Refuse { rule, .. } => return Some((rule.head.id, rule.head.name.clone())),
        Decision::Pass | Decision::Drop(_) => return None,
    };
    registration.policy.rule(id).map(|rule| (id, rule.head.name.clone()))
}
