//! One home network's packet loop without its I/O: bytes in, a verdict and bytes out.
//!
//! [`Engine::outbound`] takes what the home-bound interface gave, [`Engine::inbound`] what the
//! packet sockets saw. Time is an argument; nothing is sent, slept or logged here. Any number of
//! threads may share one engine: the snapshot is read without a lock, and the flow table and the
//! few other stores have short locks of their own, never two at once.
//!
//! The only [`Verdict::Send`] is made from a [`Route`](crate::Route). A route never leaves with a
//! home source in its outer header, but on the home link itself ([`Encapsulation::Plain`]).
//! The only way past that is [`Verdict::Breakout`], and [`decide`](crate::decide()) gives it to a
//! home source only if the source is translated.
//!
//! [`Encapsulation::Plain`]: crate::Encapsulation::Plain

use std::net::Ipv6Addr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_policy::{Bid, FlowKey, HomeAddress, Ingress};

use crate::answer::{Answerer, Refusal};
use crate::conversations::{ConversationTimes, Conversations};
use crate::copies::{Limits as OrderLimits, Numbers, Order};
use crate::counters::Counters;
use crate::explain::{Explained, explain};
use crate::fast_path::Fast;
use crate::flow_table::{FlowEntry, FlowTable};
use crate::fragments::Firsts;
use crate::groups::GroupTable;
use crate::memory::Memory;
use crate::moves::{MoveRecord, MoveRing};
use crate::mtu::PathMtus;
use crate::notes::{Notes, RouteNote};
use crate::publication::SpareSnapshot;
use crate::reason::{DropReason, IgnoreReason};
use crate::reassembly::{Limits, Reassembly};
use crate::reevaluate::Reevaluation;
use crate::registration::PathId;
use crate::sends::Sends;
use crate::snapshot::Snapshot;
use crate::uids::Uids;
use crate::verified::VerifiedSources;
use crate::wire::Header;

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
    /// Bounds of what waits for the order of copies.
    pub order: OrderLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hop_limit: 64,
            flows: 65_536,
            answers_per_second: 1000,
            answers_at_once: 100,
            reassembly: Limits::default(),
            order: OrderLimits::default(),
        }
    }
}

/// What to do with a packet. `out` is the buffer handed to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `out` holds one packet as it leaves, or its fragments one after the other: see
    /// [`wire::packets`](crate::wire::packets).
    Send {
        /// How they leave.
        path: PathId,
    },
    /// `out` holds several outer packets, copies of one inner packet, each for its own path.
    Replicate(Sends),
    /// `out` holds the packet as it came, to be sent outside the tunnel. It passes the machine's
    /// own output and postrouting hooks, where a translated one gets the link's address.
    Breakout {
        /// The link it leaves by.
        path: PathId,
        /// Whether its source is translated.
        translate: bool,
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
    /// Data with a Home Address option whose home address is not bound to its source: dropped,
    /// and to be answered with a Binding Error (RFC 6275 §9.3.1).
    UnknownBinding {
        /// Where the packet came from.
        source: Ipv6Addr,
        /// The address of the option.
        home_address: Ipv6Addr,
        /// Our address that it was for; that of the type 2 routing header, if it had one.
        destination: Ipv6Addr,
    },
    /// An ICMPv6 message of home agent or prefix discovery (types 144 to 147) to one of our
    /// addresses; `out` holds it, its checksum not yet looked at.
    Discovery {
        /// Source address of the IPv6 header.
        source: Ipv6Addr,
        /// Destination address of the IPv6 header.
        destination: Ipv6Addr,
        /// From the Home Address option.
        home_address: Option<Ipv6Addr>,
        /// From the type 2 routing header; one of our home addresses.
        routing_header: Option<Ipv6Addr>,
    },
    /// A probe of ours was answered, by somebody who saw it.
    Probed {
        /// Whose home agent answered.
        home_address: HomeAddress,
        /// The binding that was asked about.
        bid: Bid,
        /// Its number.
        sequence: u64,
        /// The binding by which the answer came.
        by: Option<Bid>,
    },
    /// A received packet was dropped for this reason, and `out` holds the ICMPv6 error for its
    /// source, to be sent as it is by the path on which the packet came. It comes from the address
    /// to which that packet was sent.
    Reject {
        /// Why.
        reason: DropReason,
        /// How the answer leaves.
        path: PathId,
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
    pub(crate) spare: SpareSnapshot,
    pub(crate) settings: Settings,
    pub(crate) flows: FlowTable,
    pub(crate) groups: GroupTable,
    pub(crate) moves: MoveRing,
    pub(crate) notes: Notes,
    pub(crate) reevaluation: Reevaluation,
    pub(crate) uids: Option<Box<dyn Uids>>,
    pub(crate) fast: Option<Fast>,
    pub(crate) firsts: Firsts,
    pub(crate) reassembly: Reassembly,
    pub(crate) path_mtus: PathMtus,
    pub(crate) verified: VerifiedSources,
    pub(crate) answers: Answerer,
    pub(crate) counters: Counters,
    pub(crate) conversations: Conversations,
    /// Of copies that leave.
    pub(crate) numbers: Numbers,
    /// Of copies that arrive.
    pub(crate) order: Order,
    /// Whoever hands on what may be in an order has it.
    turn: Mutex<()>,
    /// Secret of the outer flow labels.
    pub(crate) labels: ahash::RandomState,
    /// Of the next outer packet that has to be fragmented.
    pub(crate) identification: AtomicU32,
}

impl Engine {
    /// An engine that reads whatever is published in `snapshot`.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, settings: Settings) -> Self {
        let secret = ahash::RandomState::new();
        Self {
            snapshot,
            spare: SpareSnapshot::default(),
            flows: FlowTable::new(settings.flows, secret.clone()),
            groups: GroupTable::new(secret.clone()),
            moves: MoveRing::default(),
            notes: Notes::new(secret.clone()),
            reevaluation: Reevaluation::default(),
            uids: None,
            fast: None,
            firsts: Firsts::new(secret.clone()),
            reassembly: Reassembly::new(settings.reassembly),
            path_mtus: PathMtus::default(),
            verified: VerifiedSources::new(secret.clone()),
            answers: Answerer::new(settings.answers_per_second, settings.answers_at_once),
            counters: Counters::default(),
            conversations: Conversations::default(),
            numbers: Numbers::new(secret.clone(), secret.hash_one("first epoch") as u32),
            order: Order::new(settings.order, secret.clone()),
            turn: Mutex::default(),
            identification: AtomicU32::new(secret.hash_one("first identification") as u32),
            labels: ahash::RandomState::new(),
            settings,
        }
    }

    /// Asks this for the users of local flows, where a rule looks at them.
    #[must_use]
    pub fn with_uids(mut self, uids: Box<dyn Uids>) -> Self {
        self.uids = Some(uids);
        self
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
            Ok(verdict) => verdict,
            Err(refusal) => {
                out.clear();
                self.counters.drop(refusal.reason);
                self.answer(&refusal, packet, now, out)
            }
        }
    }

    /// Takes an outer packet that an uplink received.
    ///
    /// `path` says on which one. It does not decide: the addresses do, and those of one uplink
    /// may legally arrive on another. Answers to malformed packets go back by it.
    pub fn inbound(&self, path: PathId, outer: &[u8], now: Duration, out: &mut Vec<u8>) -> Verdict {
        out.clear();
        let verdict = match self.receive(outer, now, out) {
            Ok(verdict) => verdict,
            Err(refusal) => {
                out.clear();
                self.counters.drop(refusal.reason);
                let packet = outer.get(..length_of(outer)).unwrap_or(outer);
                return match self.answer(&refusal, packet, now, out) {
                    Verdict::Answer(reason) => Verdict::Reject { reason, path },
                    other => other,
                };
            }
        };
        match verdict {
            Verdict::Drop(reason) => self.counters.drop(reason),
            Verdict::Ignore(reason) => self.counters.ignore(reason),
            Verdict::UnknownBinding { .. } => {
                self.counters.drop(DropReason::HomeAddressWithoutBinding);
            }
            Verdict::Signalling { .. } | Verdict::Discovery { .. } => {
                self.counters.signalling();
                return verdict;
            }
            _ => return verdict,
        }
        out.clear();
        verdict
    }

    /// Several threads that hand on what one engine received keep this from before
    /// [`Self::inbound`] until the packet and all that [`Self::released`] gives are handed on, or
    /// packets that were put in order would overtake each other behind it. Only packets that
    /// [may be marked](crate::wire::may_be_marked) are put in an order.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One received packet that waited for others and does so no more, in `out`, to be delivered.
    ///
    /// To be asked for after each [`Self::inbound`], and when [`Self::held_until`] has come, until
    /// there is none.
    pub fn released(&self, now: Duration, out: &mut Vec<u8>) -> bool {
        let Some(packet) = self.order.released(now, &self.counters) else { return false };
        out.clear();
        out.extend_from_slice(&packet);
        true
    }

    /// When [`Self::released`] has something, whatever arrives until then.
    pub fn held_until(&self) -> Option<Duration> {
        self.order.until()
    }

    /// What traffic told about pairs of home addresses and correspondents since the last call,
    /// oldest first. What nobody asked for in time is lost.
    pub fn route_notes(&self) -> Vec<RouteNote> {
        self.notes.drain()
    }

    /// Whether [`Self::route_notes`] has something to tell.
    pub fn has_route_notes(&self) -> bool {
        self.notes.is_fresh()
    }

    /// The flows remembered at present.
    pub fn flows(&self) -> Vec<FlowEntry> {
        self.bring_back();
        self.flows.entries()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        self.bring_back();
        &self.counters
    }

    /// What would happen to a packet with this key now, given what is remembered of its flow.
    pub fn explain(&self, key: &FlowKey, now: Duration) -> Explained {
        self.explain_in(&self.snapshot.load(), key, now)
    }

    /// The same in a supposed world: another snapshot, with what is remembered here.
    pub fn explain_in(&self, snapshot: &Snapshot, key: &FlowKey, now: Duration) -> Explained {
        let flow = self.flows.remembered(key);
        let memory = Memory { flow: flow.as_ref(), groups: Some(&self.groups) };
        explain(snapshot, key, now, memory)
    }

    /// The last moves of flows, oldest first; at most 4096 are kept.
    pub fn moves(&self) -> Vec<MoveRecord> {
        self.moves.records()
    }

    /// What routers on an outer path said that it takes, in octets, while that is believed, and for
    /// how long it will be.
    pub fn learned_mtu(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        now: Duration,
    ) -> Option<(u16, Duration)> {
        self.path_mtus.learned(source, destination, now)
    }

    /// The round trips of conversations by a binding of ours with this care-of address, of late.
    pub fn conversation_times(
        &self,
        bid: Bid,
        care_of: Ipv6Addr,
        now: Duration,
    ) -> Option<ConversationTimes> {
        self.conversations.times(bid, care_of.into(), now)
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
}

/// The octets of a packet without what its link may have padded.
fn length_of(packet: &[u8]) -> usize {
    Header::parse(packet).map_or(0, |header| header.total_length())
}
