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
//! | correspondent | correspondents | source and destination are a pair that a mobile bound | type 2 routing header to a care-of address |
//! | mobile router | also | ingress is a further source's | outside the tunnel, or not at all |
//!
//! The rules choose the binding. Whether a home address's packet then goes straight to its
//! correspondent instead of through the tunnel, by the same binding, is for what the correspondent
//! holds to say ([`crate::straight`]).
//!
//! Three steps. Whose packet is it; does what is remembered of its flow still hold; else the walk
//! over the rules, and whether the flow keeps the link it has ([`crate::settle`]).
//!
//! Standards: RFC 6275 §9.3.2, §10.4.2, §11.3.1; RFC 3963 §5.5, §6.4; RFC 5648 §6.5; RFC 6089 §4.3, §5.3.6.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, BlockReply, Choice, FlowKey, Origin, RuleId, Ruling};

use crate::groups::GroupKey;
use crate::memory::{Answer, Marks, Memory, Remembered, Way};
use crate::moves::Moved;
use crate::party::{Party, party};
use crate::reason::DropReason;
use crate::registration::{Binding, CopyMark, Present, Registration};
use crate::settle::{Asked, Kept, Settled, Wish, is_open};
use crate::snapshot::Snapshot;
use crate::straight::Straight;
use crate::wire::MOBILITY_HEADER;

/// Which table answered, that is, which end of the tunnel this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The binding update list: this node is the mobile.
    Near,
    /// The binding cache: this node is the home agent, or a correspondent.
    Far,
}

/// What becomes of one inner packet.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'s> {
    /// Neither end is anybody's home.
    Pass,
    /// Into the tunnel.
    Forward(Route<'s>),
    /// Into the tunnel by several bindings, a copy each.
    Replicate(Copies<'s>),
    /// Out of a link directly, outside the tunnel.
    Breakout(Breakout<'s>),
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
    /// That the flow leaves its link with this packet, and why.
    pub moved: Option<Moved>,
    pub(crate) kept: Kept,
    pub(crate) straight: Straight<'s>,
}

/// The ways of the copies of one packet.
///
/// Where the two ends of the tunnel have agreed on marks, every copy has one, and with it goes
/// through the tunnel; the home link, where a packet leaves as it is, then carries a packet alone or
/// not at all. Elsewhere both ends of a flow see each packet as often as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Copies<'s> {
    /// The way of the first copy; its binding counts as the flow's.
    pub first: Route<'s>,
    links: &'s [Bid],
    copies: u8,
}

impl<'s> Copies<'s> {
    fn new(first: Route<'s>, links: &'s [Bid], copies: u8) -> Self {
        // What goes straight leaves the tunnel's other end out, and with it the agreement.
        let first = match first.registration.copies {
            CopyMark::On => first.through_tunnel(),
            CopyMark::Off => first,
        };
        Self { first, links, copies }
    }

    /// Whether each copy says its place in the sequence.
    pub fn mark(&self) -> CopyMark {
        match self.first.encapsulation {
            Encapsulation::Tunnel { .. } => self.first.registration.copies,
            Encapsulation::Optimized { .. } | Encapsulation::Plain => CopyMark::Off,
        }
    }

    /// The way of each copy, the first one's first.
    pub fn routes(&self) -> impl Iterator<Item = Route<'s>> + use<'s> {
        let first = self.first;
        let carries =
            move |bid: &Bid| first.registration.binding(Some(*bid)).filter(|b| b.carries());
        let bindings = self.links.iter().filter_map(carries);
        let (agreed, mark) = (first.registration.copies, self.mark());
        let routes = bindings.take(usize::from(self.copies)).filter_map(move |binding| {
            let encapsulation = first.by(binding)?;
            Some(Route { binding, encapsulation, ..first })
        });
        routes.enumerate().filter_map(move |(place, route)| {
            let marked = matches!(route.encapsulation, Encapsulation::Tunnel { .. });
            let goes = match (agreed, mark) {
                (CopyMark::Off, _) => true,
                (CopyMark::On, CopyMark::On) => marked,
                (CopyMark::On, CopyMark::Off) => place == 0,
            };
            goes.then_some(route)
        })
    }
}

/// A packet that leaves outside the tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Breakout<'s> {
    /// Whose rules said so.
    pub registration: &'s Registration,
    /// The rule.
    pub rule: Option<RuleId>,
    /// Whether the rule's `otherwise` was needed.
    pub otherwise: bool,
    /// The link it leaves by.
    pub binding: &'s Binding,
    /// Whether its source becomes the link's own address.
    pub translate: bool,
    /// That the flow leaves its link with this packet, and why.
    pub moved: Option<Moved>,
    pub(crate) kept: Kept,
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
    /// Straight between a care-of address and a correspondent, past the home agent: not wrapped,
    /// but with other addresses in its header and its own in extension headers (RFC 6275 §6.3,
    /// §6.4).
    Optimized {
        /// Source address in the IPv6 header.
        source: Ipv6Addr,
        /// Destination address in the IPv6 header.
        destination: Ipv6Addr,
        /// For the Home Address option, if this end is the mobile's.
        home_address: Option<Ipv6Addr>,
        /// For the type 2 routing header, if the other end is a mobile's.
        routing_header: Option<Ipv6Addr>,
    },
    /// Not at all: the mobile is on its home link.
    Plain,
}

/// Where one packet goes, at the time `now`.
///
/// `memory` saves the walk over the rules while nothing that a decision depends on has changed,
/// keeps flows on their links, and tells `reflect` on which binding the flow was last verified.
pub fn decide<'s>(
    snapshot: &'s Snapshot,
    key: &FlowKey,
    now: Duration,
    memory: Memory<'_>,
) -> Decision<'s> {
    decide_for(snapshot, party(snapshot, key), key, now, memory)
}

/// The same for a packet of which is known whose it is.
pub(crate) fn decide_for<'s>(
    snapshot: &'s Snapshot,
    party: Party<'s>,
    key: &FlowKey,
    now: Duration,
    memory: Memory<'_>,
) -> Decision<'s> {
    let (registration, side, origin, bound) = match party {
        Party::Of { registration, side, origin, bound } => (registration, side, origin, bound),
        // TN-06: the far end of this tunnel would send it straight back.
        Party::Hairpin => return Decision::Drop(DropReason::Hairpin),
        Party::Nobody => return Decision::Pass,
    };
    let leave = |settled: Settled<'s>| {
        let straight = match side {
            Side::Near => Straight::near(snapshot, registration, key, settled.rule),
            Side::Far if bound => Straight::Far,
            Side::Far => Straight::No,
        };
        leave(registration, side, settled, straight)
    };
    // req FB-16: signalling of others is not subject to flow policy (RFC 6089 §4.3): one way for
    // all of it.
    if side == Side::Far && key.protocol == MOBILITY_HEADER {
        return match registration.preferred() {
            Some(binding) => {
                let (way, kept) = (Way::Tunnel, Kept::default());
                let (rule, otherwise, moved) = (None, false, None);
                leave(Settled { rule, otherwise, binding, way, moved, kept })
            }
            None => Decision::Drop(DropReason::NoUsableBinding),
        };
    }
    let asked = Asked { registration, side, key, now, memory };
    if let Some(settled) = asked.again() {
        return leave(settled);
    }
    let present = Present(registration);
    let choice = registration.policy.choose(key, origin, &present, memory.last_verified());
    let open = |bid, way| {
        let binding = present.chosen(bid, way);
        binding.expect("the walk chooses among the bindings that are open")
    };
    match choice {
        Choice::Use { rule, bid, otherwise } => {
            let (way, binding) = (Way::Tunnel, open(bid, Way::Tunnel));
            leave(asked.settle(Wish { rule, otherwise, way, binding }))
        }
        Choice::Copies { rule, links, copies, otherwise } => {
            let mut usable = links.iter().filter_map(|bid| registration.binding(Some(*bid)));
            let Some(binding) = usable.find(|binding| binding.carries()) else {
                return Decision::Drop(DropReason::NoUsableBinding);
            };
            let wish = Wish { rule: Some(rule), otherwise, way: Way::Copies, binding };
            match leave(asked.settle(wish)) {
                Decision::Forward(first) => Decision::Replicate(Copies::new(first, links, copies)),
                other => other,
            }
        }
        // Agents serve and do not break out.
        Choice::Breakout { .. } if side == Side::Far => Decision::Drop(DropReason::NoUsableBinding),
        Choice::Breakout { translate: false, .. } if origin == Origin::Home => {
            Decision::Drop(DropReason::Untranslated)
        }
        Choice::Breakout { rule, bid, translate, otherwise } => {
            let way = Way::Breakout { translate };
            let wish = Wish { rule: Some(rule), otherwise, way, binding: open(bid, way) };
            leave(asked.settle(wish))
        }
        Choice::Block { rule, reply, .. } => Decision::Refuse { registration, rule, reply },
        Choice::Nothing(_) => Decision::Drop(match origin {
            Origin::Home => DropReason::NoUsableBinding,
            Origin::Also => DropReason::NeverTunnelled,
        }),
    }
}

impl<'s> Asked<'s, '_> {
    /// What is remembered, if the walk would say the same again.
    fn again(&self) -> Option<Settled<'s>> {
        let flow = self.memory.flow?;
        let answer = flow.still_valid(self.registration, self.key, self.now)?;
        // Which links take the copies is for the rule to say.
        if answer.way == Way::Copies {
            return None;
        }
        let group = answer.identity.and_then(|it| self.group(it, answer.sticky, answer.together));
        let group = match (group, self.memory.groups) {
            (Some(key), Some(groups)) => {
                let known = groups.remembered(&key)?;
                let shared = known.answer_at(self.now)?;
                if (shared.bid, shared.way) != (answer.bid, answer.way) || shared.due.is_some() {
                    return None;
                }
                Some((key, Some(known)))
            }
            _ => None,
        };
        let binding = self.registration.binding(answer.bid)?;
        let Answer { rules, identity, sticky, together, .. } = *answer;
        is_open(binding, answer.way).then_some(Settled {
            rule: answer.rule,
            otherwise: answer.otherwise,
            binding,
            way: answer.way,
            moved: None,
            kept: Kept { rules, identity, sticky, together, due: None, group },
        })
    }
}

/// Says how a settled packet leaves.
fn leave<'s>(
    registration: &'s Registration,
    side: Side,
    settled: Settled<'s>,
    straight: Straight<'s>,
) -> Decision<'s> {
    let Settled { rule, otherwise, binding, way, moved, kept } = settled;
    if let Way::Breakout { translate } = way {
        let out = Breakout { registration, rule, otherwise, binding, translate, moved, kept };
        return Decision::Breakout(out);
    }
    match straight.by(side, registration, binding) {
        Some(encapsulation) => Decision::Forward(Route {
            registration,
            side,
            rule,
            otherwise,
            binding,
            encapsulation,
            moved,
            kept,
            straight,
        }),
        None => Decision::Drop(DropReason::NoUsableBinding),
    }
}

impl Decision<'_> {
    /// That the flow leaves its link with this packet, and why.
    pub fn moved(&self) -> Option<Moved> {
        match self {
            Self::Forward(route) => route.moved,
            Self::Replicate(copies) => copies.first.moved,
            Self::Breakout(out) => out.moved,
            Self::Pass | Self::Drop(_) | Self::Refuse { .. } => None,
        }
    }

    /// The group whose choice this is, and what was remembered of it.
    pub(crate) fn group(&self) -> Option<(GroupKey, Option<Remembered>)> {
        match self {
            Self::Forward(route) => route.kept.group,
            Self::Replicate(copies) => copies.first.kept.group,
            Self::Breakout(out) => out.kept.group,
            Self::Pass | Self::Drop(_) | Self::Refuse { .. } => None,
        }
    }

    /// What to remember of a decision to let a packet go, made for `key` with this `memory`.
    pub fn answer(&self, key: &FlowKey, memory: Memory<'_>) -> Option<Answer> {
        let left = match self {
            Self::Forward(route) => Left::of(route, Way::Tunnel),
            Self::Replicate(copies) => Left::of(&copies.first, Way::Copies),
            Self::Breakout(out) => Left {
                registration: out.registration,
                rule: out.rule,
                otherwise: out.otherwise,
                way: Way::Breakout { translate: out.translate },
                bid: out.binding.bid,
                moved: out.moved,
                kept: &out.kept,
            },
            Self::Pass | Self::Drop(_) | Self::Refuse { .. } => return None,
        };
        Some(left.answer(key, memory))
    }
}

impl Route<'_> {
    /// How a packet of the same flow would be wrapped by another binding.
    pub(crate) fn by(&self, binding: &Binding) -> Option<Encapsulation> {
        self.straight.by(self.side, self.registration, binding)
    }

    /// The same way through the tunnel, for a packet whose own headers do not go with those of a
    /// straight one.
    pub(crate) fn through_tunnel(self) -> Self {
        let through = Self { straight: Straight::No, ..self };
        match through.by(self.binding) {
            Some(encapsulation) if self.side == Side::Near => Self { encapsulation, ..through },
            _ => self,
        }
    }

    /// What to remember of this way, made for `key` with this `memory`.
    pub fn answer(&self, key: &FlowKey, memory: Memory<'_>) -> Answer {
        Left::of(self, Way::Tunnel).answer(key, memory)
    }
}

/// What all ways to leave have in common.
struct Left<'d> {
    registration: &'d Registration,
    rule: Option<RuleId>,
    otherwise: bool,
    way: Way,
    bid: Option<Bid>,
    moved: Option<Moved>,
    kept: &'d Kept,
}

impl<'d> Left<'d> {
    fn of(route: &'d Route<'_>, way: Way) -> Self {
        Self {
            registration: route.registration,
            rule: route.rule,
            otherwise: route.otherwise,
            way,
            bid: route.binding.bid,
            moved: route.moved,
            kept: &route.kept,
        }
    }

    fn answer(&self, key: &FlowKey, memory: Memory<'_>) -> Answer {
        let before = memory.flow.and_then(|flow| flow.answer);
        Answer {
            generation: self.registration.generation,
            rules: self.kept.rules,
            marks: Marks::of(key),
            last_verified: memory.last_verified(),
            rule: self.rule,
            identity: self.kept.identity,
            otherwise: self.otherwise,
            way: self.way,
            bid: self.bid,
            sticky: self.kept.sticky,
            together: self.kept.together,
            due: self.kept.due,
            moved: self.moved.or(before.and_then(|answer| answer.moved)),
        }
    }
}
