//! Where one packet goes: the single policy judgement of the system.
//!
//! The mobile node, the mobile router and the home agent all call [`decide`]; flow table and
//! kernel fast paths only remember its answers. It reads a frozen [`Snapshot`], so one packet
//! never sees half of a change. It sends nothing, logs nothing and takes no lock. The walk over
//! the rules itself is [`Effective::choose`](mtun_policy::Effective::choose), which the policy
//! file's tests and `explain` use too.
//!
//! There is no "if mobile router" and no "if home agent" here: who is asked follows from the
//! table that answers.
//!
//! | who | table that answers | found by | result |
//! |---|---|---|---|
//! | mobile node | updates | source is the home address | tunnel to the home agent |
//! | mobile router | updates | source is in its prefix | tunnel to the home agent |
//! | home agent | cache | destination is a home address or in a prefix | tunnel to a care-of address by that mobile's own rules |
//!
//! Standards: RFC 6275 §10.4.2, §11.3.1; RFC 3963 §5.5, §6.4; RFC 5648 §6.5; RFC 6089 §4.3, §5.3.6.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, BlockReply, Choice, FlowKey, Ingress, Origin, RuleId, Ruling};

use crate::reason::DropReason;
use crate::snapshot::{Binding, Present, Registration, Snapshot};
use crate::wire::MOBILITY_HEADER;

/// Which table answered, that is, which end of the tunnel this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The binding update list: this node is the mobile.
    Near,
    /// The binding cache: this node is the home agent.
    Far,
}

/// What becomes of one inner packet.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'s> {
    /// Neither end is anybody's home.
    Pass,
    /// Into the tunnel.
    Forward(Route<'s>),
    /// Not carried.
    Drop(DropReason),
    /// Refused by a rule, to be answered as the rule says.
    Refuse {
        /// Whose rules refused it.
        registration: &'s Registration,
        /// The rule.
        rule: Ruling<'s>,
        /// How to answer.
        reply: BlockReply,
    },
}

/// The way a packet takes.
#[derive(Clone, Copy, Debug)]
pub struct Route<'s> {
    /// Whose packet it is.
    pub registration: &'s Registration,
    /// Which end of the tunnel this is.
    pub side: Side,
    /// The rule that said so; `None` if no rule matched, or for signalling.
    pub rule: Option<RuleId>,
    /// Whether the rule's `otherwise` was needed.
    pub otherwise: bool,
    /// The binding it goes by.
    pub binding: &'s Binding,
    /// How it is wrapped.
    pub encapsulation: Encapsulation,
}

/// How an inner packet is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// IPv6 in IPv6 (RFC 2473).
    Tunnel {
        /// Outer source.
        source: Ipv6Addr,
        /// Outer destination.
        destination: Ipv6Addr,
    },
}

/// What the flow table remembers of one flow. Only [`decide`] interprets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The last decision to forward, and what it was made for.
    pub answer: Option<Answer>,
    /// The binding on which the flow's last packet in the other direction was admitted.
    pub last_verified: Option<Bid>,
    /// When a packet of the flow was last seen, in either direction.
    pub last_seen: Duration,
}

/// A decision to forward and everything it depends on besides the addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The registration's generation.
    pub generation: u64,
    /// The DSCP of the packet.
    pub dscp: u8,
    /// The door it came by.
    pub ingress: Ingress,
    /// What was verified when the decision was made.
    pub last_verified: Option<Bid>,
    /// The rule.
    pub rule: Option<RuleId>,
    /// Whether its `otherwise` was needed.
    pub otherwise: bool,
    /// The binding.
    pub bid: Option<Bid>,
}

/// Where one packet goes.
///
/// `memory` is what the flow table remembers of the flow with this key's addresses, protocol and
/// ports: it saves the walk over the rules while nothing that a decision depends on has
/// changed, and it tells `reflect` on which binding the flow was last verified.
pub fn decide<'s>(
    snapshot: &'s Snapshot,
    key: &FlowKey,
    memory: Option<&Remembered>,
) -> Decision<'s> {
    let near = snapshot.updates.lookup(key.source);
    let far = || snapshot.cache.lookup(key.destination);
    let (side, registration, back) = match near {
        Some(near) => (Side::Near, near, snapshot.updates.lookup(key.destination)),
        None => match far() {
            Some(far) => (Side::Far, far, snapshot.cache.lookup(key.source)),
            None => return Decision::Pass,
        },
    };
    // TN-06: the far end of this tunnel would send it straight back.
    if back.is_some_and(|back| back.home_address == registration.home_address) {
        return Decision::Drop(DropReason::Hairpin);
    }
    let forward =
        |rule, otherwise, binding: &'s Binding| match encapsulation(side, registration, binding) {
            Some(encapsulation) => Decision::Forward(Route {
                registration,
                side,
                rule,
                otherwise,
                binding,
                encapsulation,
            }),
            None => Decision::Drop(DropReason::NoUsableBinding),
        };
    // Signalling of others is not subject to flow policy (RFC 6089 §4.3): one way for all of it.
    if side == Side::Far && key.protocol == MOBILITY_HEADER {
        return match registration.preferred() {
            Some(binding) => forward(None, false, binding),
            None => Decision::Drop(DropReason::NoUsableBinding),
        };
    }
    if let Some(answer) = memory.and_then(|memory| memory.still_valid(registration, key))
        && let Some(binding) = registration.binding(answer.bid).filter(|b| b.carries())
    {
        return forward(answer.rule, answer.otherwise, binding);
    }
    let present = Present(registration);
    let last_verified = memory.and_then(|memory| memory.last_verified);
    match registration.policy.choose(key, Origin::Home, &present, last_verified) {
        Choice::Use { rule, bid, otherwise } => {
            let binding = present.chosen(bid).expect("the walk chooses among usable bindings");
            forward(rule.map(|rule| rule.head.id), otherwise, binding)
        }
        Choice::Block { rule, reply, .. } => Decision::Refuse { registration, rule, reply },
        // No rule of ours says so yet.
        Choice::Copies { .. } | Choice::Breakout { .. } => {
            Decision::Drop(DropReason::NoUsableBinding)
        }
        Choice::Nothing(_) => Decision::Drop(DropReason::NoUsableBinding),
    }
}

impl Remembered {
    /// The answer, if the same question asked again would be answered alike.
    fn still_valid(&self, registration: &Registration, key: &FlowKey) -> Option<Answer> {
        self.answer.filter(|answer| {
            answer.generation == registration.generation
                && answer.dscp == key.dscp
                && answer.ingress == key.ingress
                && answer.last_verified == self.last_verified
        })
    }
}

impl Route<'_> {
    /// What to remember of this decision, made for `key` with this `memory`.
    pub fn answer(&self, key: &FlowKey, memory: Option<&Remembered>) -> Answer {
        Answer {
            generation: self.registration.generation,
            dscp: key.dscp,
            ingress: key.ingress,
            last_verified: memory.and_then(|memory| memory.last_verified),
            rule: self.rule,
            otherwise: self.otherwise,
            bid: self.binding.bid,
        }
    }
}

/// Near towards the agent, far towards the care-of address; `None` for a family that cannot be
/// encapsulated.
fn encapsulation(
    side: Side,
    registration: &Registration,
    binding: &Binding,
) -> Option<Encapsulation> {
    let IpAddr::V6(care_of) = binding.care_of.0 else { return None };
    let peer = registration.peer;
    Some(match side {
        Side::Near => Encapsulation::Tunnel { source: care_of, destination: peer },
        Side::Far => Encapsulation::Tunnel { source: peer, destination: care_of },
    })
}
