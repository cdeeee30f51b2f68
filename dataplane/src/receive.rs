//! The way in: from an outer packet to what is delivered, handed to the machines or refused.
//!
//! The order is fixed: is it for us, is it whole, what does it carry. A tunnel packet: is the inner
//! packet sound, may it enter, does congestion allow it. A packet that came straight: are its
//! headers in their places, may it enter, is what they turn it into sound
//! ([`crate::receive_straight`]). What is unwrapped may be one of these again, for us again; that is
//! looked into, to a depth. Nothing is remembered of a packet that failed on the way.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, FlowKey, HomeAddress, Ingress, RuleId};

use crate::admit::{Admitted, OuterKey, admit};
use crate::answer::Refusal;
use crate::copies::{Arrival, Came};
use crate::counters::{Direction, Form};
use crate::decide::{Decision, Side, decide};
use crate::encapsulation::decapsulate;
use crate::engine::{Engine, Verdict};
use crate::memory::{Answer, Memory};
use crate::packet::Inner;
use crate::reason::{DropReason, IgnoreReason};
use crate::registration::CopyMark;
use crate::snapshot::Snapshot;
use crate::wire::icmpv6::IcmpError;
use crate::wire::ipv6::HEADER;
use crate::wire::{Chain, HOP_BY_HOP, Header, ICMPV6, IPV6, MOBILITY_HEADER, TCP, home_address};

/// How often a packet for us is looked into, the outermost one included.
const MAX_DEPTH: u8 = 4;

/// A whole packet for us.
pub(crate) struct Arrived<'p> {
    pub snapshot: &'p Snapshot,
    pub packet: &'p [u8],
    pub header: Header,
    pub chain: Chain,
    pub now: Duration,
    /// The tunnel it came by; `None` if it is no inner packet.
    pub tunnel: Option<Tunnel>,
    /// How many packets it is in, itself included.
    pub depth: u8,
}

/// What is known of the tunnel that an inner packet came by.
#[derive(Clone, Copy)]
pub(crate) struct Tunnel {
    /// The binding.
    pub bid: Option<Bid>,
}

impl Engine {
    pub(crate) fn receive(
        &self,
        octets: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Refusal> {
        let header = Header::parse(octets).ok_or(DropReason::OuterMalformed)?;
        let snapshot = self.snapshot.load();
        if !snapshot.is_own(header.destination) && !snapshot.is_at_home(header.destination) {
            return Ok(Verdict::Ignore(IgnoreReason::NotToUs));
        }
        // A link may have padded the frame.
        let packet = octets.get(..header.total_length()).ok_or(DropReason::OuterMalformed)?;
        let chain =
            Chain::walk(packet, header.next_header).map_err(|_| DropReason::OuterMalformed)?;
        let snapshot: &Snapshot = &snapshot;
        let (tunnel, depth) = (None, 1);
        let Some(fragment) = chain.fragment.filter(|f| f.offset != 0 || f.more) else {
            let arrived = Arrived { snapshot, packet, header, chain, now, tunnel, depth };
            return self.take(&arrived, out);
        };
        let known = self.verified.contains(header.source)
            || snapshot.updates.iter().any(|near| near.peer == header.source);
        match self.reassembly.add(packet, &header, &fragment, known, now)? {
            None => Ok(Verdict::Ignore(IgnoreReason::FragmentHeld)),
            Some(whole) => {
                let header = Header::parse(&whole).ok_or(DropReason::OuterMalformed)?;
                let chain = Chain::walk(&whole, header.next_header)
                    .map_err(|_| DropReason::OuterMalformed)?;
                if chain.fragment.is_some() {
                    return Err(DropReason::FragmentMalformed.into());
                }
                let packet = &whole[..];
                let arrived = Arrived { snapshot, packet, header, chain, now, tunnel, depth };
                // What could be answered is no packet that anybody sent.
                self.take(&arrived, out).map_err(|refusal| refusal.reason.into())
            }
        }
    }

    /// Takes a whole packet for us.
    fn take(&self, arrived: &Arrived<'_>, out: &mut Vec<u8>) -> Result<Verdict, Refusal> {
        let Arrived { packet, header, chain, .. } = arrived;
        let payload = arrived.payload();
        if let Some(at) = chain.misplaced_home_address {
            // req MH-14: told where. Of hop-by-hop options the kernel has told already.
            let told = !is_hop_by_hop(packet, header, at);
            let error = IcmpError::ParameterProblem { pointer: at as u32 };
            let source = told.then_some(header.destination);
            return Err(Refusal::told(DropReason::HomeAddressOption, error, source));
        }
        match chain.upper {
            MOBILITY_HEADER => self.signalling(arrived, out),
            ICMPV6 if payload.first().is_some_and(|kind| is_discovery(*kind)) => {
                let Some(routing_header) = arrived.our_home()? else {
                    return Ok(Verdict::Ignore(IgnoreReason::NotOurHome));
                };
                out.extend_from_slice(payload);
                Ok(Verdict::Discovery {
                    source: header.source,
                    destination: header.destination,
                    home_address: chain.home_address,
                    routing_header,
                })
            }
            _ if is_straight(chain) => self.receive_straight(arrived, out),
            IPV6 if chain.unknown_option => Err(DropReason::OuterMalformed.into()),
            IPV6 => self.unwrap(arrived, out),
            ICMPV6 => Ok(self.returned(arrived, out)),
            _ => Ok(Verdict::Ignore(IgnoreReason::NotTunnelled)),
        }
    }

    fn signalling(&self, arrived: &Arrived<'_>, out: &mut Vec<u8>) -> Result<Verdict, Refusal> {
        let Arrived { header, chain, .. } = arrived;
        if chain.unknown_option || header.source.is_multicast() {
            return Err(DropReason::OuterMalformed.into());
        }
        if chain.home_address.is_some_and(|address| !home_address::is_routable(address)) {
            return Err(DropReason::HomeAddressOption.into());
        }
        let Some(routing_header) = arrived.our_home()? else {
            return Ok(Verdict::Ignore(IgnoreReason::NotOurHome));
        };
        out.extend_from_slice(arrived.payload());
        Ok(Verdict::Signalling {
            source: header.source,
            destination: header.destination,
            home_address: chain.home_address,
            routing_header,
            tunnelled: arrived.tunnel.is_some(),
        })
    }

    fn unwrap(&self, arrived: &Arrived<'_>, out: &mut Vec<u8>) -> Result<Verdict, Refusal> {
        let Arrived { snapshot, header: outer, now, .. } = arrived;
        let packet = arrived.payload();
        let inner = Inner::parse(packet, Ingress::OTHER)?;
        inner.check_scope()?;
        let ends = OuterKey {
            source: IpAddr::V6(outer.source),
            destination: IpAddr::V6(outer.destination),
        };
        let admitted = admit(snapshot, &ends, &inner.key)?;
        if let Some(verdict) = self.probed(&admitted, outer, &inner, packet, out) {
            return Ok(verdict);
        }
        let home = admitted.registration.home_address.0;
        let to_home = admitted.side == Side::Near && inner.header.destination == home;
        // req TN-13: a type 2 routing header to our home leads to our home or nowhere. One to a node
        // behind us (req NH-20) is that node's: a mobile that visits us is answered by its own agent.
        if admitted.side == Side::Near
            && let Some(routing) = inner.chain.routing.filter(|it| it.segments_left != 0)
        {
            let named = match to_home {
                true => routing.home_address == Some(home),
                false => routing.home_address.is_some(),
            };
            if !named {
                return Err(DropReason::RoutingHeader.into());
            }
        }
        decapsulate(outer, packet, out).map_err(|_| DropReason::Congestion)?;
        if admitted.side == Side::Far {
            self.verified.note(outer.source);
        }
        let bid = admitted.binding.bid;
        let for_us = to_home || snapshot.is_own(inner.header.destination);
        let message = for_us && says_more(&inner);
        let arrival = self.arrive(arrived, &admitted, &inner, (!message).then_some(&*out))?;
        if message {
            return self.look_into(arrived, &inner, Tunnel { bid }, out);
        }
        if let (Side::Near, Some(bid), TCP) = (admitted.side, bid, inner.chain.upper) {
            self.conversations.came(bid, &inner.key, *now, || inner.segment(packet));
        }
        // Within another tunnel it is not what a fast path sees.
        let is_outermost = self.fast.is_some() && arrived.depth == 1;
        let before = is_outermost.then(|| self.flows.remembered(&inner.key.mirrored()));
        let answer = self.note_in(&inner, bid, Form::Tunnel, packet.len(), *now);
        if let Some(before) = before {
            self.install_in(snapshot, (&admitted, outer), &inner, before.as_ref(), *now);
        }
        if to_home {
            self.want_back(arrived, &inner, answer);
        }
        Ok(match arrival {
            Arrival::Held => Verdict::Ignore(IgnoreReason::CopyHeld),
            _ => Verdict::Deliver,
        })
    }

    /// Puts an admitted packet in its place, if it is marked as a copy and that was agreed on.
    fn arrive(
        &self,
        arrived: &Arrived<'_>,
        admitted: &Admitted<'_>,
        inner: &Inner,
        packet: Option<&Vec<u8>>,
    ) -> Result<Arrival, DropReason> {
        let Admitted { registration, side, binding } = *admitted;
        let agreed = arrived.chain.copy.filter(|_| registration.copies == CopyMark::On);
        let Some(copy) = agreed else { return Ok(Arrival::Deliver) };
        let now = arrived.now;
        // req FB-21: what arrives by a link counts for the rule that asks for copies, each of them.
        let rule = self.rule_back(arrived.snapshot, side, &self.firsts.key(inner, now), now);
        let octets = arrived.packet.len();
        self.counters.copy(rule, binding.bid, Direction::In, 1, octets);
        let (whose, packet) = ((registration.home_address, side), packet.map(Vec::as_slice));
        let came = Came { at: now, by: binding.bid };
        match self.order.arrive(whose, &copy, packet, came, &self.counters) {
            Arrival::Duplicate => Err(DropReason::Duplicate),
            arrival => Ok(arrival),
        }
    }

    /// The rule by which packets of our own would answer a received one, where we are the mobile.
    fn rule_back(
        &self,
        snapshot: &Snapshot,
        side: Side,
        key: &FlowKey,
        now: Duration,
    ) -> Option<RuleId> {
        let back = key.mirrored();
        let answer = self.flows.remembered(&back).and_then(|flow| flow.answer);
        match (answer, side) {
            (Some(answer), _) => answer.rule,
            (None, Side::Far) => None,
            (None, Side::Near) => match decide(snapshot, &back, now, Memory::default()) {
                Decision::Forward(route) => route.rule,
                Decision::Replicate(copies) => copies.first.rule,
                _ => None,
            },
        }
    }

    /// Takes an inner packet, at the end of `out`, that is for us and no ordinary data.
    pub(crate) fn look_into(
        &self,
        arrived: &Arrived<'_>,
        inner: &Inner,
        tunnel: Tunnel,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Refusal> {
        let Arrived { snapshot, now, .. } = *arrived;
        if inner.fragment.is_some() {
            // The kernel knows no Mobility Header and would complain to the sender.
            return Err(DropReason::InnerHeaders.into());
        }
        let depth = arrived.depth + 1;
        if depth > MAX_DEPTH {
            return Err(DropReason::Nesting.into());
        }
        let packet = std::mem::take(out);
        let (header, chain, by) = (inner.header, inner.chain, Some(tunnel));
        let within = Arrived { snapshot, packet: &packet, header, chain, now, tunnel: by, depth };
        let verdict = self.take(&within, out);
        let may_be_the_kernels = match chain.upper {
            // A tunnel of somebody else that ends at our home address, not at an address where we
            // take tunnels.
            IPV6 if !is_straight(&chain) => !snapshot.is_own(header.destination),
            ICMPV6 => true,
            _ => false,
        };
        let is_copy = match &verdict {
            Err(refusal) => refusal.reason == DropReason::Duplicate,
            Ok(verdict) => *verdict == Verdict::Ignore(IgnoreReason::CopyHeld),
        };
        let verdict = match verdict {
            Err(_) | Ok(Verdict::Ignore(_)) if may_be_the_kernels && !is_copy => {
                *out = packet;
                self.note_in(inner, tunnel.bid, Form::Tunnel, out.len(), now);
                return Ok(Verdict::Deliver);
            }
            // An answer would have to go through the tunnel.
            Err(refusal) => return Err(refusal.reason.into()),
            Ok(verdict) => verdict,
        };
        if chain.upper == IPV6 {
            self.note_in(inner, tunnel.bid, Form::Tunnel, packet.len(), now);
        }
        Ok(verdict)
    }

    /// Counts a packet that was admitted by a binding, and returns what is remembered of the
    /// answers to it.
    pub(crate) fn note_in(
        &self,
        inner: &Inner,
        bid: Option<Bid>,
        form: Form,
        octets: usize,
        now: Duration,
    ) -> Option<Answer> {
        let key = self.firsts.key(inner, now);
        let answer = self.flows.received(&key, bid, octets, now);
        let rule = answer.and_then(|answer| answer.rule);
        self.counters.carry(rule, bid, Direction::In, form, octets);
        answer
    }
}

impl<'p> Arrived<'p> {
    /// What stands behind the extension headers.
    pub fn payload(&self) -> &'p [u8] {
        &self.packet[self.chain.upper_at..]
    }

    /// The home address that the type 2 routing header leads to; `None` outside if it is none of
    /// ours.
    ///
    /// req MN-32: type 2, one segment left, one of our own home addresses; else silence.
    pub fn our_home(&self) -> Result<Option<Option<Ipv6Addr>>, DropReason> {
        match self.chain.routing {
            Some(routing) if routing.kind == 2 || routing.segments_left != 0 => {
                let address = routing.home_address.ok_or(DropReason::RoutingHeader)?;
                let ours = self.snapshot.updates.get(HomeAddress(address)).is_some();
                Ok(ours.then_some(Some(address)))
            }
            _ => Ok(Some(None)),
        }
    }
}

/// Whether a packet has a header that makes it one of route optimization, or one that leads on.
fn is_straight(chain: &Chain) -> bool {
    chain.home_address.is_some()
        || chain.routing.is_some_and(|it| it.kind == 2 || it.segments_left != 0)
}

/// Whether an octet of a packet is one of its hop-by-hop options.
fn is_hop_by_hop(packet: &[u8], header: &Header, at: usize) -> bool {
    let end = packet.get(HEADER + 1).map_or(0, |units| HEADER + 8 + usize::from(*units) * 8);
    header.next_header == HOP_BY_HOP && at < end
}

/// Whether an inner packet for us is more than data for the kernel.
fn says_more(inner: &Inner) -> bool {
    let chain = &inner.chain;
    matches!(chain.upper, MOBILITY_HEADER | IPV6)
        || chain.home_address.is_some()
        || chain.misplaced_home_address.is_some()
        || chain.routing.is_some_and(|routing| routing.kind == 2)
        || inner.is_error()
        || inner.key.icmp_type.is_some_and(is_discovery)
}

/// Home agent and prefix discovery (RFC 6275 §6.5 to §6.8).
fn is_discovery(kind: u8) -> bool {
    (144..=147).contains(&kind)
}
