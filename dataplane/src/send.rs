//! The way out: from an inner packet to what leaves, and by which links.
//!
//! The order is fixed: is it sound, whose flow is it, what is decided, does it fit; and only when
//! all of it is in the buffer is the flow remembered and counted.

use std::net::Ipv6Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mtun_policy::{BlockReply, FlowKey, Ingress};

use crate::answer::Refusal;
use crate::counters::{Direction, Form};
use crate::decide::{Breakout, Copies, Decision, Encapsulation, Route, Side, decide_for};
use crate::encapsulation::{encapsulate, limit_for};
use crate::engine::{Engine, Verdict};
use crate::memory::{Answer, Memory, Remembered};
use crate::moves::MoveRecord;
use crate::mtu::{self, MIN_MTU, inner_mtu, is_too_big, told_mtu};
use crate::optimized::{Cut, straighten};
use crate::packet::Inner;
use crate::party::{Party, party};
use crate::reason::DropReason;
use crate::registration::{Binding, CopyMark, Registration};
use crate::sends::{MOST, Sends};
use crate::snapshot::Snapshot;
use crate::uids;
use crate::wire::icmpv6::IcmpError;
use crate::wire::{self, CopySequence, TunnelOptions};

/// An inner packet on its way out.
pub(crate) struct Leaving<'p> {
    pub inner: Inner,
    pub packet: &'p [u8],
    /// Octets of it, or of the longest of those that it stands for.
    pub length: usize,
    pub key: FlowKey,
    pub now: Duration,
}

/// What a route takes of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// The largest inner packet that needs no fragments.
    pub octets: usize,
    /// The limit that its outer packet must carry.
    pub limit: Option<u8>,
}

impl Engine {
    pub(crate) fn send(
        &self,
        ingress: Ingress,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Refusal> {
        let inner = Inner::parse(packet, ingress)?;
        let snapshot = self.snapshot.load();
        inner.check_scope().map_err(|reason| match inner.chain.routing {
            // req TN-13 (RFC 5095 §3): points at the routing type.
            Some(routing) if reason == DropReason::RoutingHeader => {
                let error = IcmpError::ParameterProblem { pointer: routing.at as u32 + 2 };
                Refusal::told(reason, error, self.answer_source(&snapshot, &inner))
            }
            _ => reason.into(),
        })?;
        let mut key = self.firsts.key(&inner, now);
        // req FB-17: a later fragment that keeps its own key is earlier than its first.
        if key == inner.key && inner.fragment.is_some_and(|part| !part.first) {
            self.counters.early_fragment();
        }
        // Whose packet it is and what is remembered of its flow is fetched at the same time: of many
        // mobiles and flows neither is near, and behind the flow's lock one would wait for the other.
        let place = self.flows.place(&key);
        self.flows.approach(&place);
        let party = party(&snapshot, &key);
        party.approach();
        self.catch_up(&key);
        let flow = self.flows.remembered_at(&place);
        key.uid = uids::of(self.uids.as_deref(), &snapshot, &inner, &key, flow.as_ref(), now);
        let leaving = Leaving { inner, packet, length: packet.len(), key, now };
        let decision = self.decided(&snapshot, party, &leaving, flow.as_ref());
        let verdict = match &decision {
            Decision::Forward(route) => {
                let route = fitting(*route, &leaving.inner);
                let room = self.fit(&route, &leaving, CopyMark::Off)?;
                self.wrap(&route, &leaving, room, None, out)?;
                self.count(&snapshot, &route, &leaving);
                Verdict::Send { path: route.binding.path }
            }
            Decision::Replicate(copies) => {
                let sends = self.replicate(&snapshot, copies, &leaving, out)?;
                match sends.first() {
                    Some(path) if sends.len() == 1 => Verdict::Send { path },
                    _ => Verdict::Replicate(sends),
                }
            }
            Decision::Breakout(breakout) => {
                self.break_out(breakout, &leaving, out)?;
                let (rule, bid) = (breakout.rule, breakout.binding.bid);
                self.counters.carry(rule, bid, Direction::Out, Form::Breakout, packet.len());
                Verdict::Breakout { path: breakout.binding.path, translate: breakout.translate }
            }
            Decision::Pass => return Err(DropReason::NotOurs.into()),
            Decision::Drop(reason) => {
                let source = self.answer_source(&snapshot, &leaving.inner);
                return Err(Refusal::told(*reason, IcmpError::NoRoute, source));
            }
            Decision::Refuse { reply, .. } => {
                let source = self.answer_source(&snapshot, &leaving.inner);
                return Err(match reply {
                    BlockReply::Silent => DropReason::Blocked.into(),
                    BlockReply::Icmp => {
                        Refusal::told(DropReason::Blocked, IcmpError::Prohibited, source)
                    }
                    BlockReply::Reset => Refusal::reset(DropReason::Blocked, source),
                });
            }
        };
        let memory = Memory { flow: flow.as_ref(), groups: Some(&self.groups) };
        if let Some(answer) = decision.answer(&leaving.key, memory) {
            let octets = packet.len() as u64;
            self.flows.sent_at(&place, &leaving.key, answer, 1, octets, now);
            self.note_move(&decision, &leaving.key, &answer);
            if let Decision::Forward(route) = &decision {
                let packet = (&leaving.inner, &leaving.key);
                self.install_out(&snapshot, route, packet, flow.as_ref(), &answer, now);
            }
        }
        Ok(verdict)
    }

    /// Appends every copy of a packet, or none.
    fn replicate(
        &self,
        snapshot: &Snapshot,
        copies: &Copies<'_>,
        leaving: &Leaving<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Sends, Refusal> {
        let routes = || copies.routes().take(MOST).map(|it| fitting(it, &leaving.inner));
        let mark = copies.mark();
        let mut rooms = [Room::default(); MOST];
        for (room, route) in rooms.iter_mut().zip(routes()) {
            *room = self.fit(&route, leaving, mark)?;
        }
        // Only now: a number that is drawn and does not leave is a gap at the other end.
        let copy = (mark == CopyMark::On).then(|| {
            let whose = (copies.first.registration.home_address, copies.first.side);
            self.numbers.next(whose, self.flow_label(&leaving.key), leaving.now)
        });
        let mut sends = Sends::none();
        for (room, route) in rooms.into_iter().zip(routes()) {
            let start = out.len();
            self.wrap(&route, leaving, room, copy, out)?;
            sends.push(route.binding.path, out.len());
            self.count(snapshot, &route, leaving);
            let (rule, bid, written) = (route.rule, route.binding.bid, &out[start..]);
            let packets = wire::packets(written).count();
            self.counters.copy(rule, bid, Direction::Out, packets, written.len());
        }
        Ok(sends)
    }

    /// Decides, and settles the flow's group. Of two threads that settle a new group at once the
    /// second decides again, by what the first one settled.
    pub(crate) fn decided<'s>(
        &self,
        snapshot: &'s Snapshot,
        party: Party<'s>,
        leaving: &Leaving<'_>,
        flow: Option<&Remembered>,
    ) -> Decision<'s> {
        let Leaving { key, now, .. } = leaving;
        let memory = Memory { flow, groups: Some(&self.groups) };
        let settled = |decision: &Decision<'_>| {
            let Some((group, before)) = decision.group() else { return true };
            let answer = decision.answer(key, memory).expect("a group's packet leaves");
            self.groups.sent(&group, before.as_ref(), answer, *now)
        };
        let decision = decide_for(snapshot, party, key, *now, memory);
        if settled(&decision) {
            return decision;
        }
        let decision = decide_for(snapshot, party, key, *now, memory);
        settled(&decision);
        decision
    }

    /// Whether a packet may leave by a route, and what fits.
    pub(crate) fn fit(
        &self,
        route: &Route<'_>,
        leaving: &Leaving<'_>,
        mark: CopyMark,
    ) -> Result<Room, Refusal> {
        let Leaving { inner, length, now, .. } = leaving;
        let told = |reason, error| Refusal::told(reason, error, Some(answer_source(route)));
        if inner.header.hop_limit == 0 {
            return Err(told(DropReason::HopLimit, IcmpError::HopLimit));
        }
        let limit = match route.encapsulation {
            Encapsulation::Tunnel { .. } => limit_for(inner).map_err(|reason| {
                let pointer = inner.chain.tunnel_limit.map_or(0, |(_, at)| at as u32);
                told(reason, IcmpError::ParameterProblem { pointer })
            })?,
            Encapsulation::Optimized { .. } | Encapsulation::Plain => None,
        };
        let room = |encapsulation: &Encapsulation, binding: &Binding| {
            let path_mtu = self.path_mtu(encapsulation, binding, *now);
            inner_mtu(path_mtu, encapsulation.overhead(limit, mark))
        };
        let octets = room(&route.encapsulation, route.binding);
        if is_too_big(*length, octets) {
            // The least of all links that may carry, so that the next move needs no second try.
            let bindings = route.registration.bindings.iter().filter(|it| it.carries());
            let rooms = bindings.filter_map(|it| Some(room(&route.by(it)?, it)));
            let mtu = told_mtu(rooms.min().map_or(octets, |least| least.min(octets)));
            return Err(told(DropReason::TooBig, IcmpError::PacketTooBig { mtu }));
        }
        Ok(Room { octets, limit })
    }

    /// Appends the outer packet or its fragments.
    fn wrap(
        &self,
        route: &Route<'_>,
        leaving: &Leaving<'_>,
        room: Room,
        copy: Option<CopySequence>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Leaving { inner, packet, key, now, .. } = leaving;
        let start = out.len();
        let cut = match route.encapsulation {
            Encapsulation::Tunnel { source, destination } => {
                let ends = (source, destination);
                let options = TunnelOptions { limit: room.limit, copy };
                let hop_limit = self.settings.hop_limit;
                let label = self.flow_label(key);
                encapsulate(ends, inner, packet, options, hop_limit, label, out)?;
                Cut::HEADER
            }
            Encapsulation::Optimized { source, destination, .. } => {
                let headers = route.encapsulation.headers();
                straighten(packet, &inner.header, source, destination, &headers, out)?
            }
            Encapsulation::Plain => {
                out.extend_from_slice(packet);
                return Ok(());
            }
        };
        if packet.len() > room.octets {
            let path_mtu = self.path_mtu(&route.encapsulation, route.binding, *now);
            let identification = self.identification.fetch_add(1, Ordering::Relaxed);
            mtu::fragment(out, start, cut, path_mtu, identification);
        }
        Ok(())
    }

    /// The MTU of the outer path of a packet that leaves so by this binding.
    fn path_mtu(&self, encapsulation: &Encapsulation, binding: &Binding, now: Duration) -> u16 {
        match encapsulation.outer() {
            Some((source, destination)) => self.path_mtus.of(source, destination, binding.mtu, now),
            None => binding.mtu.max(MIN_MTU),
        }
    }

    /// Appends the packet as it is. The kernel took one from its hop limit when it forwarded the
    /// packet into the home-bound interface, and takes none for a socket's own packets.
    fn break_out(
        &self,
        breakout: &Breakout<'_>,
        leaving: &Leaving<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let source = Some(breakout.registration.home_address.0);
        if leaving.inner.header.hop_limit == 0 {
            return Err(Refusal::told(DropReason::HopLimit, IcmpError::HopLimit, source));
        }
        let mtu = breakout.binding.mtu.max(MIN_MTU);
        if leaving.packet.len() > usize::from(mtu) {
            let error = IcmpError::PacketTooBig { mtu: mtu.into() };
            return Err(Refusal::told(DropReason::TooBig, error, source));
        }
        out.extend_from_slice(leaving.packet);
        Ok(())
    }

    fn count(&self, snapshot: &Snapshot, route: &Route<'_>, leaving: &Leaving<'_>) {
        let Leaving { inner, packet, key, now, .. } = leaving;
        let form = Form::from(&route.encapsulation);
        self.counters.carry(route.rule, route.binding.bid, Direction::Out, form, packet.len());
        match form {
            Form::Optimized => self.note_straight(route, key, inner.segment(packet), *now),
            Form::Tunnel if route.side == Side::Near && !inner.is_error() => {
                self.note_segment(route, inner, (key, packet), *now);
                self.want(snapshot, route.registration, key, route.rule, *now);
            }
            _ => {}
        }
    }

    /// Notes what a TCP packet that leaves through the tunnel is to be acknowledged by.
    pub(crate) fn note_segment(
        &self,
        route: &Route<'_>,
        inner: &Inner,
        (key, packet): (&FlowKey, &[u8]),
        now: Duration,
    ) {
        // A fast path may see the answers to all but the first.
        let Some(bid) = route.binding.bid.filter(|_| inner.chain.upper == wire::TCP) else {
            return;
        };
        if inner.opens || self.fast.is_none() {
            let path = (bid, route.binding.care_of.0);
            self.conversations.left(path, key, now, || inner.segment(packet));
        }
    }

    /// Notes that the flow left its link, if it did with this decision.
    pub(crate) fn note_move(&self, decision: &Decision<'_>, key: &FlowKey, answer: &Answer) {
        let Some(moved) = decision.moved() else { return };
        self.counters.moved(moved.from, answer.bid, moved.reason);
        self.moves.note(MoveRecord {
            key: *key,
            rule: answer.rule,
            from: moved.from,
            to: answer.bid,
            reason: moved.reason,
            at: moved.at,
        });
    }

    /// Our address in answers about a packet that has no route.
    fn answer_source(&self, snapshot: &Snapshot, inner: &Inner) -> Option<Ipv6Addr> {
        let near = snapshot.updates.lookup(inner.key.source).map(|near| near.home_address.0);
        let far = || snapshot.cache.lookup(inner.key.destination).map(|far| far.peer);
        let also = || snapshot.also.get(&inner.key.ingress).map(|home| home.0);
        near.or_else(far).or_else(also)
    }

    /// Twenty bits, never zero, the same for all packets of a flow (RFC 6438 §3).
    pub(crate) fn flow_label(&self, key: &FlowKey) -> u32 {
        let FlowKey { source, destination, protocol, source_port, destination_port, .. } = *key;
        let flow = (source, destination, protocol, source_port, destination_port);
        ((self.labels.hash_one(flow) >> 20) as u32 & 0x000f_ffff).max(1)
    }
}

/// The way of a packet, through the tunnel if it has headers of its own that do not go with those
/// of a straight one: another source's option, or a route of its own.
pub(crate) fn fitting<'s>(route: Route<'s>, inner: &Inner) -> Route<'s> {
    let chain = &inner.chain;
    let fits = chain.routing.is_none()
        && chain.home_address.is_none()
        && chain.misplaced_home_address.is_none();
    if fits { route } else { route.through_tunnel() }
}

/// Our address in answers about a packet that has a route: the end of the tunnel it enters.
fn answer_source(route: &Route<'_>) -> Ipv6Addr {
    let Registration { home_address, peer, .. } = route.registration;
    match route.side {
        Side::Near => home_address.0,
        Side::Far => *peer,
    }
}
