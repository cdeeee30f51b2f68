//! One home network's packet loop without its I/O: bytes in, a verdict and bytes out.
//!
//! [`Engine::outbound`] takes what the home-bound interface gave, [`Engine::inbound`] what the
//! packet sockets saw. Time is an argument; nothing is sent, slept or logged here. Any number of
//! threads may share one engine: the snapshot is read without a lock, and the flow table and the
//! few other stores have short locks of their own, never two at once.
//!
//! The only [`Verdict::Send`] is made from a [`Route`], and a route is always wrapped: a packet
//! with a home source leaves in a tunnel or not at all.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_policy::{BlockReply, FlowKey, Ingress};

use crate::answer::{Answerer, Refusal};
use crate::counters::{Counters, Direction};
use crate::decide::{Decision, Encapsulation, Remembered, Route, Side, decide};
use crate::encapsulation::{encapsulate, limit_for, overhead};
use crate::explain::{Explained, explain};
use crate::flow_table::{FlowEntry, FlowTable};
use crate::fragments::Firsts;
use crate::mtu::{self, PathMtus, inner_mtu, is_too_big, told_mtu};
use crate::packet::Inner;
use crate::reason::{DropReason, IgnoreReason};
use crate::reassembly::{Limits, Reassembly};
use crate::snapshot::{PathId, Snapshot};
use crate::verified::VerifiedSources;
use crate::wire::icmpv6::IcmpError;

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

/// The packet loop of one home network.
#[derive(Debug)]
pub struct Engine {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    settings: Settings,
    pub(crate) flows: FlowTable,
    pub(crate) firsts: Firsts,
    pub(crate) reassembly: Reassembly,
    pub(crate) path_mtus: PathMtus,
    pub(crate) verified: VerifiedSources,
    pub(crate) answers: Answerer,
    pub(crate) counters: Counters,
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
        let snapshot = self.snapshot.load();
        inner.check_scope().map_err(|reason| match inner.chain.routing {
            // req TN-13 (RFC 5095 §3): points at the routing type.
            Some(routing) if reason == DropReason::RoutingHeader => {
                let error = IcmpError::ParameterProblem { pointer: routing.at as u32 + 2 };
                Refusal::told(reason, error, self.answer_source(&snapshot, &inner))
            }
            _ => reason.into(),
        })?;
        let key = self.firsts.key(&inner, now);
        let memory = self.flows.remembered(&key);
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
}

/// Our address in answers about a packet that has a route: the end of the tunnel it enters.
fn answer_source(route: &Route<'_>) -> Ipv6Addr {
    match route.side {
        Side::Near => route.registration.home_address.0,
        Side::Far => route.registration.peer,
    }
}
