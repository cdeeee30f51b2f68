//! What would happen to one packet, and why: the decision itself, in words that can be shown.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{
    Bid, BlockReply, CareOfAddress, FlowKey, HomeAddress, HomeName, RuleId, RuleName,
};

use crate::decide::{Decision, Encapsulation, Route, Side, decide};
use crate::memory::{Due, Memory};
use crate::moves::Moved;
use crate::mtu::{MIN_MTU, inner_mtu};
use crate::party::bound;
use crate::reason::DropReason;
use crate::registration::{CopyMark, PathId, Registration};
use crate::snapshot::Snapshot;
use crate::straight::{NotStraight, why_not};

/// The fate of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Whose packet it is; `None` if nobody's.
    pub registration: Option<ExplainedRegistration>,
    /// What happens to it.
    pub fate: Fate,
    /// The rule that decided; `None` if none matched or none was asked.
    pub rule: Option<(RuleId, RuleName)>,
    /// Whether the rule's `otherwise` was needed.
    pub otherwise: bool,
    /// The binding on which the flow's last packet in the other direction came.
    pub last_verified: Option<Bid>,
    /// The move that the flow would make with this packet, else its last one.
    pub moved: Option<Moved>,
    /// A move that waits for a pause between packets.
    pub due: Option<Due>,
    /// The snapshot's number.
    pub snapshot_generation: u64,
}

/// The registration that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedRegistration {
    /// The home network.
    pub home: HomeName,
    /// The home address.
    pub home_address: HomeAddress,
    /// The home agent.
    pub peer: Ipv6Addr,
    /// Which table it was found in.
    pub side: Side,
    /// Its generation.
    pub generation: u64,
    /// Bindings, usable ones and all.
    pub usable_bindings: usize,
    /// All bindings.
    pub bindings: usize,
}

/// What happens to the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// By a binding: into the tunnel, straight or plain.
    Forwarded {
        /// The binding's number.
        bid: Option<Bid>,
        /// Its care-of address.
        care_of: CareOfAddress,
        /// How the packet is wrapped.
        encapsulation: Encapsulation,
        /// How it leaves.
        path: PathId,
        /// The largest inner packet that fits.
        inner_mtu: usize,
        /// Why a packet of our home goes through the tunnel and not straight; `None` if it goes
        /// straight, or is none.
        not_straight: Option<NotStraight>,
    },
    /// A copy by each of these, the flow's own binding first.
    Replicated(Vec<ExplainedCopy>),
    /// Outside the tunnel.
    BrokenOut {
        /// The link's number.
        bid: Option<Bid>,
        /// How it leaves.
        path: PathId,
        /// Whether its source becomes the link's own address.
        translate: bool,
        /// The largest packet that fits.
        mtu: usize,
    },
    /// Neither end is anybody's home.
    NotOurs,
    /// Dropped.
    Dropped(DropReason),
    /// Refused by the rule.
    Refused(BlockReply),
}

/// One of several copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainedCopy {
    /// The binding's number.
    pub bid: Option<Bid>,
    /// Its care-of address.
    pub care_of: CareOfAddress,
    /// How the packet is wrapped.
    pub encapsulation: Encapsulation,
    /// How it leaves.
    pub path: PathId,
}

/// Asks [`decide`] and writes down what it said; there is no second judgement here.
///
/// The snapshot may be one that was never published, in which something is supposed.
pub fn explain(snapshot: &Snapshot, key: &FlowKey, now: Duration, memory: Memory<'_>) -> Explained {
    let decision = decide(snapshot, key, now, memory);
    let answer = decision.answer(key, memory);
    let found = snapshot
        .updates
        .lookup(key.source)
        .map(|near| (Side::Near, near))
        .or_else(|| snapshot.cache.lookup(key.destination).map(|far| (Side::Far, far)))
        .or_else(|| Some((Side::Far, bound(snapshot, key)?)))
        .or_else(|| {
            let home = snapshot.also.get(&key.ingress)?;
            Some((Side::Near, snapshot.updates.get(*home)?))
        });
    let rule_name = |registration: &Registration, id: RuleId| {
        registration.policy.rule(id).map(|rule| (id, rule.head.name.clone()))
    };
    let named = |route: &Route<'_>| route.rule.and_then(|id| rule_name(route.registration, id));
    let (fate, rule, otherwise) = match decision {
        Decision::Pass => (Fate::NotOurs, None, false),
        Decision::Drop(reason) => (Fate::Dropped(reason), None, false),
        Decision::Refuse { rule, reply, .. } => {
            (Fate::Refused(reply), Some((rule.head.id, rule.head.name.clone())), false)
        }
        Decision::Forward(route) => {
            (forwarded(snapshot, &route, key), named(&route), route.otherwise)
        }
        Decision::Replicate(copies) => {
            let each = copies.routes().map(|route| ExplainedCopy {
                bid: route.binding.bid,
                care_of: route.binding.care_of,
                encapsulation: route.encapsulation,
                path: route.binding.path,
            });
            (Fate::Replicated(each.collect()), named(&copies.first), copies.first.otherwise)
        }
        Decision::Breakout(out) => (
            Fate::BrokenOut {
                bid: out.binding.bid,
                path: out.binding.path,
                translate: out.translate,
                mtu: usize::from(out.binding.mtu.max(MIN_MTU)),
            },
            out.rule.and_then(|id| rule_name(out.registration, id)),
            out.otherwise,
        ),
    };
    Explained {
        registration: found.map(|(side, registration)| ExplainedRegistration {
            home: registration.home.clone(),
            home_address: registration.home_address,
            peer: registration.peer,
            side,
            generation: registration.generation,
            usable_bindings: registration.bindings.iter().filter(|b| b.carries()).count(),
            bindings: registration.bindings.len(),
        }),
        fate,
        rule,
        otherwise,
        last_verified: memory.last_verified(),
        moved: answer.and_then(|answer| answer.moved),
        due: answer.and_then(|answer| answer.due),
        snapshot_generation: snapshot.generation,
    }
}

fn forwarded(snapshot: &Snapshot, route: &Route<'_>, key: &FlowKey) -> Fate {
    let Route { registration, binding, rule, .. } = *route;
    let tunnelled =
        matches!((route.side, route.encapsulation), (Side::Near, Encapsulation::Tunnel { .. }));
    let not_straight =
        tunnelled.then(|| why_not(snapshot, registration, binding, key, rule)).flatten();
    Fate::Forwarded {
        bid: binding.bid,
        care_of: binding.care_of,
        encapsulation: route.encapsulation,
        path: binding.path,
        inner_mtu: inner_mtu(binding.mtu, route.encapsulation.overhead(None, CopyMark::Off)),
        not_straight,
    }
}
