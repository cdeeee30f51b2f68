//! One home network's packet loop without its I/O: bytes in, a verdict and bytes out.
//!
//! [`Engine::outbound`] takes what the home-bound interface gave, [`Engine::inbound`] what the
//! packet sockets saw. Time is an argument; nothing is sent, slept or logged here. Any number of
//! threads may share one engine: the snapshot is read without a lock, and the flow table and the
//! few other stores have short locks of their own, never two at once.
//!
//! The only [`Verdict::Send`] is made from a [`Route`], and a route is always wrapped: a packet
//! with a home source leaves in a tunnel or not at all.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_policy::{BlockReply, FlowKey, Ingress};

use crate::admit::{OuterKey, admit};
use crate::answer::{Answerer, Refusal};
use crate::counters::{Counters, Direction};
use crate::decide::{Decision, Encapsulation, Remembered, Route, Side, decide};
use crate::encapsulation::{decapsulate, encapsulate, limit_for, overhead};
use crate::explain::{Explained, explain};
use crate::flow_table::{FlowEntry, FlowTable};
use crate::fragments::{Firsts, Limits, Reassembly};
use crate::mtu::{self, PathMtus, inner_mtu, is_too_big, told_mtu};
use crate::packet::Inner;
use crate::reason::{DropReason, IgnoreReason};
use crate::snapshot::{PathId, Snapshot};
use crate::verified::VerifiedSources;
use crate::wire::icmpv6::{self, IcmpError};
use crate::wire::{Chain, Header, ICMPV6, IPV6, MOBILITY_HEADER, home_address};

/// What the operator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Hop limit of outer packets.
    pub hop_limit: u8,
    /// Flows remembered.
    pub flows: usize,
    /// ICMPv6 errors and TCP resets per second, in the long run.
    pub answers_per_second: u32,
    /// And at once.
    pub answers_at_once: u32,
    /// Bounds of outer reassembly.
    pub reassembly: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hop_limit: 64,
            flows: 65_536,
            answers_per_second: 1000,
            answers_at_once: 100,
            reassembly: Limits::default(),
        }
    }
}

/// What to do with a packet. `out` is the buffer handed to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `out` holds one outer packet, or its fragments one after the other: see
    /// [`wire::packets`](crate::wire::packets).
    Send {
        /// How they leave.
        path: PathId,
    },
    /// `out` holds a packet for the home-bound interface: what was unwrapped, or an error from
    /// inside the tunnel for the inner source.
    Deliver,
    /// The packet was dropped for this reason, and `out` holds the answer to its source, to be
    /// written into the home-bound interface.
    Answer(DropReason),
    /// `out` holds a Mobility Header for the machines, its checksum not yet looked at.
    Signalling {
        /// Source address of the IPv6 header.
        source: Ipv6Addr,
        /// Destination address of the IPv6 header.
        destination: Ipv6Addr,
        /// From the Home Address option.
        home_address: Option<Ipv6Addr>,
        /// From the type 2 routing header; one of our home addresses.
        routing_header: Option<Ipv6Addr>,
        /// Whether it came through the tunnel, from an admitted sender.
        tunnelled: bool,
    },
    /// An ICMPv6 error about signalling of ours; `out` holds as much of the Mobility Header as
    /// was quoted.
    SignallingFailed {
        /// Where our packet came from.
        source: Ipv6Addr,
        /// Where it was going.
        destination: Ipv6Addr,
        /// ICMPv6 type.
        kind: u8,
        /// ICMPv6 code.
        code: u8,
    },
    /// Not for the tunnel, or not yet.
    Ignore(IgnoreReason),
    /// Dropped.
    Drop(DropReason),
}

/// How long after the last packet of a flow an error about it is believed.
const ERROR_WINDOW: Duration = Duration::from_secs(30);

/// The packet loop of one home network.
#[derive(Debug)]
pub struct Engine {
    snapshot: Arc<ArcSwap<Snapshot>>,
    settings: Settings,
    flows: FlowTable,
    firsts: Firsts,
    reassembly: Reassembly,
    path_mtus: PathMtus,
    verified: VerifiedSources,
    answers: Answerer,
    counters: Counters,
    /// Secret of the outer flow labels.
    labels: ahash::RandomState,
    /// Of the next outer packet that has to be fragmented.
    identification: AtomicU32,
}

impl Engine {
    /// An engine that reads whatever is published in `snapshot`.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, settings: Settings) -> Self {
        let secret = ahash::RandomState::new();
        Self {
            snapshot,
            flows: FlowTable::new(settings.flows, secret.clone()),
            firsts: Firsts::new(secret.clone()),
            reassembly: Reassembly::new(settings.reassembly),
            path_mtus: PathMtus::default(),
            verified: VerifiedSources::new(secret.clone()),
            answers: Answerer::new(settings.answers_per_second, settings.answers_at_once),
            counters: Counters::default(),
            identification: AtomicU32::new(secret.hash_one("first identification") as u32),
            labels: ahash::RandomState::new(),
            settings,
        }
    }

    /// Takes a packet from the home-bound interface, which it entered by `ingress`.
    pub fn outbound(
        &self,
        ingress: Ingress,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Verdict {
        out.clear();
        match self.send(ingress, packet, now, out) {
            Ok(path) => Verdict::Send { path },
            Err(refusal) => {
                out.clear();
                self.counters.drop(refusal.reason);
                self.answer(&refusal, packet, now, out)
            }
        }
    }

    /// Takes an outer packet that an uplink received.
    ///
    /// `_path` says on which one. It does not decide: the addresses do, and those of one uplink
    /// may legally arrive on another.
    pub fn inbound(
        &self,
        _path: PathId,
        outer: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Verdict {
        out.clear();
        let verdict = self.receive(outer, now, out).unwrap_or_else(Verdict::Drop);
        match verdict {
            Verdict::Drop(reason) => self.counters.drop(reason),
            Verdict::Ignore(reason) => self.counters.ignore(reason),
            Verdict::Signalling { .. } => self.counters.signalling(),
            _ => return verdict,
        }
        if !matches!(verdict, Verdict::Signalling { .. }) {
            out.clear();
        }
        verdict
    }

    /// The flows remembered at present.
    pub fn flows(&self) -> Vec<FlowEntry> {
        self.flows.entries()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What would happen to a packet with this key, given what is remembered of its flow.
    pub fn explain(&self, key: &FlowKey) -> Explained {
        explain(&self.snapshot.load(), key, self.flows.remembered(key).as_ref())
    }

    fn send(
        &self,
        ingress: Ingress,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<PathId, Refusal> {
        let inner = Inner::parse(packet, ingress)?;
        inner.check_scope()?;
        let key = self.firsts.key(&inner, now);
        let memory = self.flows.remembered(&key);
        let snapshot = self.snapshot.load();
        match decide(&snapshot, &key, memory.as_ref()) {
            Decision::Forward(route) => {
                let path = route.binding.path;
                self.wrap(&route, &inner, packet, &key, now, out)?;
                self.note_sent(&route, &key, memory.as_ref(), packet.len(), now);
                Ok(path)
            }
            Decision::Pass => Err(DropReason::NotOurs.into()),
            Decision::Drop(reason) => {
                let source = self.answer_source(&snapshot, &inner);
                Err(Refusal::told(reason, IcmpError::NoRoute, source))
            }
            Decision::Refuse { reply, .. } => {
                let source = self.answer_source(&snapshot, &inner);
                Err(match reply {
                    BlockReply::Silent => DropReason::Blocked.into(),
                    BlockReply::Icmp => {
                        Refusal::told(DropReason::Blocked, IcmpError::Prohibited, source)
                    }
                    BlockReply::Reset => Refusal::reset(DropReason::Blocked, source),
                })
            }
        }
    }

    /// Appends the outer packet or its fragments.
    fn wrap(
        &self,
        route: &Route<'_>,
        inner: &Inner,
        packet: &[u8],
        key: &FlowKey,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let told = |reason, error| Refusal::told(reason, error, Some(answer_source(route)));
        if inner.header.hop_limit == 0 {
            return Err(told(DropReason::HopLimit, IcmpError::HopLimit));
        }
        let limit = limit_for(inner).map_err(|reason| {
            let pointer = inner.chain.tunnel_limit.map_or(0, |(_, at)| at as u32);
            told(reason, IcmpError::ParameterProblem { pointer })
        })?;
        let Encapsulation::Tunnel { source, destination } = route.encapsulation;
        let path_mtu = self.path_mtus.of(source, destination, route.binding.mtu, now);
        let room = inner_mtu(path_mtu, overhead(limit));
        if is_too_big(packet.len(), room) {
            let mtu = told_mtu(room);
            return Err(told(DropReason::TooBig, IcmpError::PacketTooBig { mtu }));
        }
        let hop_limit = self.settings.hop_limit;
        let label = self.flow_label(key);
        encapsulate(route.encapsulation, inner, packet, limit, hop_limit, label, out)?;
        if packet.len() > room {
            let identification = self.identification.fetch_add(1, Ordering::Relaxed);
            mtu::fragment(out, 0, path_mtu, identification);
        }
        Ok(())
    }

    fn note_sent(
        &self,
        route: &Route<'_>,
        key: &FlowKey,
        memory: Option<&Remembered>,
        octets: usize,
        now: Duration,
    ) {
        self.flows.sent(key, route.answer(key, memory), octets, now);
        self.counters.carry(route.rule, route.binding.bid, Direction::Out, octets);
    }

    fn answer(
        &self,
        refusal: &Refusal,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Verdict {
        match self.answers.write(refusal, packet, now, out) {
            Ok(true) => {
                self.counters.answer();
                Verdict::Answer(refusal.reason)
            }
            Ok(false) => Verdict::Drop(refusal.reason),
            Err(limited) => {
                self.counters.ignore(limited);
                Verdict::Drop(refusal.reason)
            }
        }
    }

    /// Our address in answers about a packet that has no route.
    fn answer_source(&self, snapshot: &Snapshot, inner: &Inner) -> Option<Ipv6Addr> {
        let near = snapshot.updates.lookup(inner.key.source).map(|r| r.home_address.0);
        near.or_else(|| snapshot.cache.lookup(inner.key.destination).map(|r| r.peer))
    }

    /// Twenty bits, never zero, the same for all packets of a flow (RFC 6438 §3).
    fn flow_label(&self, key: &FlowKey) -> u32 {
        let FlowKey { source, destination, protocol, source_port, destination_port, .. } = *key;
        let flow = (source, destination, protocol, source_port, destination_port);
        ((self.labels.hash_one(flow) >> 20) as u32 & 0x000f_ffff).max(1)
    }

    fn receive(
        &self,
        octets: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let header = Header::parse(octets).ok_or(DropReason::OuterMalformed)?;
        let snapshot = self.snapshot.load();
        if !snapshot.is_own(header.destination) {
            return Ok(Verdict::Ignore(IgnoreReason::NotToUs));
        }
        // A link may have padded the frame.
        let packet = octets.get(..header.total_length()).ok_or(DropReason::OuterMalformed)?;
        let chain =
            Chain::walk(packet, header.next_header).map_err(|_| DropReason::OuterMalformed)?;
        let Some(fragment) = chain.fragment.filter(|f| f.offset != 0 || f.more) else {
            return self.receive_whole(&snapshot, packet, &header, &chain, now, out);
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
                    return Err(DropReason::FragmentMalformed);
                }
                self.receive_whole(&snapshot, &whole, &header, &chain, now, out)
            }
        }
    }

    fn receive_whole(
        &self,
        snapshot: &Snapshot,
        packet: &[u8],
        header: &Header,
        chain: &Chain,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let payload = &packet[chain.upper_at..];
        match chain.upper {
            MOBILITY_HEADER => self.signalling(snapshot, header, chain, payload, out),
            _ if chain.home_address.is_some() => Err(DropReason::HomeAddressWithoutBinding),
            _ if chain.routing.is_some_and(|r| r.segments_left != 0) => {
                Err(DropReason::RoutingHeader)
            }
            IPV6 if chain.unknown_option => Err(DropReason::OuterMalformed),
            IPV6 => self.unwrap(snapshot, header, payload, now, out),
            ICMPV6 => Ok(self.returned(snapshot, header, payload, now, out)),
            _ => Ok(Verdict::Ignore(IgnoreReason::NotTunnelled)),
        }
    }

    fn signalling(
        &self,
        snapshot: &Snapshot,
        header: &Header,
        chain: &Chain,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        if chain.unknown_option || header.source.is_multicast() {
            return Err(DropReason::OuterMalformed);
        }
        if chain.misplaced_home_address
            || chain.home_address.is_some_and(|address| !home_address::is_routable(address))
        {
            return Err(DropReason::HomeAddressOption);
        }
        // req MN-32: type 2, one segment left, one of our own home addresses; else silence.
        let routing_header = match chain.routing {
            Some(routing) if routing.kind == 2 || routing.segments_left != 0 => {
                let ours = |address: &Ipv6Addr| {
                    snapshot.updates.get(mtun_policy::HomeAddress(*address)).is_some()
                };
                Some(routing.home_address.filter(ours).ok_or(DropReason::RoutingHeader)?)
            }
            _ => None,
        };
        out.extend_from_slice(message);
        Ok(Verdict::Signalling {
            source: header.source,
            destination: header.destination,
            home_address: chain.home_address,
            routing_header,
            tunnelled: false,
        })
    }

    fn unwrap(
        &self,
        snapshot: &Snapshot,
        outer: &Header,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let inner = Inner::parse(packet, Ingress::OTHER)?;
        inner.check_scope()?;
        let ends = OuterKey {
            source: IpAddr::V6(outer.source),
            destination: IpAddr::V6(outer.destination),
        };
        let admitted = admit(snapshot, &ends, &inner.key)?;
        let home = admitted.registration.home_address.0;
        // req TN-13: a type 2 routing header through the tunnel leads to this home or nowhere.
        if admitted.side == Side::Near
            && inner.chain.routing.is_some_and(|r| r.segments_left != 0)
            && inner.chain.routing.and_then(|r| r.home_address) != Some(home)
        {
            return Err(DropReason::RoutingHeader);
        }
        decapsulate(outer, packet, out).map_err(|_| DropReason::Congestion)?;
        let to_machines = match admitted.side {
            Side::Near => inner.header.destination == home,
            Side::Far => snapshot.is_own(inner.header.destination),
        };
        if inner.key.protocol == MOBILITY_HEADER && to_machines {
            // The kernel knows no Mobility Header and would complain to the sender.
            if inner.fragment.is_some() {
                return Err(DropReason::InnerHeaders);
            }
            let verdict = self.signalling(snapshot, &inner.header, &inner.chain, &[], out)?;
            out.drain(..inner.chain.upper_at);
            let Verdict::Signalling { source, destination, home_address, routing_header, .. } =
                verdict
            else {
                return Ok(verdict);
            };
            return Ok(Verdict::Signalling {
                source,
                destination,
                home_address,
                routing_header,
                tunnelled: true,
            });
        }
        if admitted.side == Side::Far {
            self.verified.note(outer.source);
        }
        let bid = admitted.binding.bid;
        let key = self.firsts.key(&inner, now);
        let rule = self.flows.received(&key, bid, packet.len(), now);
        self.counters.carry(rule, bid, Direction::In, packet.len());
        Ok(Verdict::Deliver)
    }

    /// An ICMPv6 message to one of our own addresses: if it is an error about a packet of ours,
    /// the inner source learns of it (RFC 2473 §8).
    fn returned(
        &self,
        snapshot: &Snapshot,
        header: &Header,
        message: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Verdict {
        let Some(error) = icmpv6::parse(header, message) else {
            return Verdict::Ignore(IgnoreReason::NotTunnelled);
        };
        let Some(quoted) = Header::parse(error.quoted).filter(|q| q.source == header.destination)
        else {
            return Verdict::Ignore(IgnoreReason::ForgedError);
        };
        let Ok(chain) = Chain::walk(error.quoted, quoted.next_header) else {
            return Verdict::Ignore(IgnoreReason::ForgedError);
        };
        if mtu::is_later_fragment(&chain) {
            return Verdict::Ignore(IgnoreReason::ErrorWithoutEffect);
        }
        let rest = &error.quoted[chain.upper_at..];
        match chain.upper {
            IPV6 => match self.relay(snapshot, &error, &quoted, rest, now, out) {
                Ok(()) => {
                    self.counters.answer();
                    Verdict::Deliver
                }
                Err(reason) => Verdict::Ignore(reason),
            },
            MOBILITY_HEADER => {
                out.extend_from_slice(rest);
                Verdict::SignallingFailed {
                    source: quoted.source,
                    destination: quoted.destination,
                    kind: error.kind,
                    code: error.code,
                }
            }
            _ => Verdict::Ignore(IgnoreReason::NotTunnelled),
        }
    }

    /// req TN-08, TN-10: translates an error about an outer packet of ours.
    ///
    /// It is believed only if the quoted packet is one that a live binding would make, of a flow
    /// that was sent by this engine a moment ago.
    fn relay(
        &self,
        snapshot: &Snapshot,
        error: &icmpv6::Received<'_>,
        quoted: &Header,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<(), IgnoreReason> {
        let inner =
            Inner::parse_quoted(packet, Ingress::OTHER).map_err(|_| IgnoreReason::ForgedError)?;
        let key = self.firsts.key(&inner, now);
        let (source, link_mtu) =
            sender(snapshot, quoted, &inner).ok_or(IgnoreReason::ForgedError)?;
        let sent = self.flows.last_sent(&key).ok_or(IgnoreReason::ForgedError)?;
        if now.saturating_sub(sent) > ERROR_WINDOW {
            return Err(IgnoreReason::ForgedError);
        }
        let translated = if error.kind == 2 {
            let ends = (quoted.source, quoted.destination);
            if error.value >= u32::from(self.path_mtus.of(ends.0, ends.1, link_mtu, now)) {
                return Err(IgnoreReason::ErrorWithoutEffect);
            }
            self.path_mtus.learn(ends.0, ends.1, error.value, now);
            let path_mtu = self.path_mtus.of(ends.0, ends.1, link_mtu, now);
            if inner.header.total_length() <= usize::from(mtu::MIN_MTU) {
                return Err(IgnoreReason::ErrorWithoutEffect);
            }
            let wrapped = usize::from(quoted.payload_length) + 40 - inner.header.total_length();
            IcmpError::PacketTooBig { mtu: told_mtu(inner_mtu(path_mtu, wrapped.min(48))) }
        } else {
            IcmpError::AddressUnreachable
        };
        if !icmpv6::may_answer(packet, &inner.header, &inner.chain) {
            return Err(IgnoreReason::ErrorWithoutEffect);
        }
        if !self.answers.allow(now) {
            return Err(IgnoreReason::RateLimited);
        }
        translated.emit(source, packet, out);
        Ok(())
    }
}

/// Our address in answers about a packet that has a route: the end of the tunnel it enters.
fn answer_source(route: &Route<'_>) -> Ipv6Addr {
    match route.side {
        Side::Near => route.registration.home_address.0,
        Side::Far => route.registration.peer,
    }
}

/// Our inner address and the link's MTU, if a live binding of ours sends such a packet.
fn sender(snapshot: &Snapshot, quoted: &Header, inner: &Inner) -> Option<(Ipv6Addr, u16)> {
    let (source, destination) = (IpAddr::V6(quoted.source), IpAddr::V6(quoted.destination));
    let near = snapshot.updates.lookup(inner.key.source).and_then(|near| {
        let binding = near.bindings.iter().find(|b| b.care_of.0 == source)?;
        (IpAddr::V6(near.peer) == destination).then_some((near.home_address.0, binding.mtu))
    });
    near.or_else(|| {
        let far = snapshot.cache.lookup(inner.key.destination)?;
        let binding = far.bindings.iter().find(|b| b.care_of.0 == destination)?;
        (IpAddr::V6(far.peer) == source).then_some((far.peer, binding.mtu))
    })
}
