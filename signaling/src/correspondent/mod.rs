//! The correspondent's side of route optimization (RFC 6275 §9, RFC 5648 §6).
//!
//! A [`Correspondent`] is any node that a mobile talks to. It answers return routability tests
//! without keeping anything about them, takes Binding Updates from mobiles that passed the test,
//! and says for which mobiles the cache changed; whoever sends packets reads
//! [`Correspondent::bindings`] and puts a type 2 routing header before what goes to a home address
//! in it.
//!
//! ```text
//!   Home Test Init ────► token for the home address     nothing is remembered
//!   Care-of Test Init ─► token for the care-of address  nothing is remembered
//!   Binding Update ────► nonces known? authenticator right? newer? ─► record ─► acknowledgement
//! ```
//!
//! Each of our addresses is a correspondent of its own (RFC 6275 §9.1). What an update must pass
//! is one list of steps in `accept.rs`; before the authenticator is checked, nothing is changed
//! and nothing allocated. One update registers one care-of address (RFC 5648 §6.2), each by its
//! BID. Memory is bounded (`records.rs`), and so is what strangers can make it send ([`crate::shares`]).
//!
//! It keeps no home registrations: whoever is home agent too gives updates for home addresses that
//! it serves to the agent. It checks no Home Address options in packets; it is told about those
//! that fail and answers them.

mod accept;
mod acknowledgement;
mod notice;
mod records;
mod routability;

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, HomeAddress};

pub use notice::{CorrespondentNotice, Ignored};
pub use records::Pair;

use crate::binding::BindingCacheEntry;
use crate::machine::{Envelope, Machine, Transmit};
use crate::return_routability::Nonces;
use crate::seed::Seed;
use crate::shares::Shares;
use crate::time::Timestamp;
use records::{Record, Records};

/// Answers to tests per second and network of the source.
const TESTS_PER_NETWORK: u32 = 100;
/// Refusals and Binding Errors per second and network of the source.
const REFUSALS_PER_NETWORK: u32 = 20;

/// What a correspondent needs to know.
#[derive(Clone, Debug)]
pub struct CorrespondentConfig {
    /// Its own addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// Longest lifetime that is granted; never more than
    /// [`MAX_RR_BINDING_LIFETIME`](crate::return_routability::MAX_RR_BINDING_LIFETIME).
    pub max_lifetime: Duration,
    /// Whether a mobile may register several care-of addresses (else status 166).
    pub multiple_coa: bool,
    /// Most mobiles that may have bindings at a time; twice as many may take memory.
    pub max_mobiles: usize,
    /// Most bindings of one mobile at a time.
    pub max_bindings: u16,
}

/// What may happen to a correspondent.
#[derive(Clone, Debug)]
pub enum CorrespondentEvent {
    /// A Mobility Header arrived.
    Received {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole header.
        message: Vec<u8>,
    },
    /// A packet with a Home Address option arrived whose home address is not bound to its source
    /// (RFC 6275 §9.3.1).
    UnknownBinding {
        /// Its IPv6 source.
        source: Ipv6Addr,
        /// Its IPv6 destination, ours.
        destination: Ipv6Addr,
        /// The address of the option.
        home_address: HomeAddress,
    },
    /// Packets go by this binding, in either direction. Enough to be said once a second.
    Used {
        /// Our address and the mobile's.
        pair: Pair,
        /// The binding.
        bid: Option<Bid>,
    },
    /// A Destination Unreachable quoted a packet that we did send to this care-of address.
    Unreachable {
        /// Our address and the mobile's home address.
        pair: Pair,
        /// The care-of address.
        care_of: CareOfAddress,
    },
    /// The configuration changed. Bindings that it no longer allows end; what is remembered
    /// against replays stays.
    Reconfigure(CorrespondentConfig),
    /// Accept nothing more.
    Stop,
}

/// What a correspondent wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorrespondentOutput {
    /// Send this message.
    Transmit(Transmit),
    /// The bindings of this pair changed. Precedes the acknowledgement that says so.
    Changed {
        /// Our address and the mobile's.
        pair: Pair,
        /// Whether packets are treated otherwise than before; false when only lifetimes changed.
        effective: bool,
    },
    /// Something for the log and the counters.
    Notice(CorrespondentNotice),
}

/// All correspondents of one node, one per address.
#[derive(Debug)]
pub struct Correspondent {
    config: CorrespondentConfig,
    addresses: BTreeSet<Ipv6Addr>,
    nonces: Nonces,
    records: Records,
    /// Answers to tests.
    tests: Shares,
    /// Refusals and Binding Errors.
    refusals: Shares,
    stopped: bool,
    out: VecDeque<CorrespondentOutput>,
}

impl Correspondent {
    /// A correspondent without bindings.
    pub fn new(config: CorrespondentConfig, mut seed: Seed) -> Self {
        Self {
            addresses: config.addresses.iter().copied().collect(),
            config,
            tests: Shares::new(u64::from_be_bytes(seed.draw()), TESTS_PER_NETWORK),
            refusals: Shares::new(u64::from_be_bytes(seed.draw()), REFUSALS_PER_NETWORK),
            nonces: Nonces::new(seed),
            records: Records::default(),
            stopped: false,
            out: VecDeque::new(),
        }
    }

    /// What is bound, in the order of the pairs, as of the last event.
    pub fn bindings(&self) -> impl Iterator<Item = (Pair, &BindingCacheEntry)> {
        self.records.iter()
    }

    /// What is bound for one pair; `None` when nothing is.
    pub fn get(&self, pair: Pair) -> Option<&BindingCacheEntry> {
        self.records.bound(pair).map(|record| &record.entry)
    }

    /// How many pairs take memory: those with bindings, and those only remembered against replays.
    pub fn load(&self) -> (usize, usize) {
        (self.records.live(), self.records.remembered())
    }

    fn notice(&mut self, notice: CorrespondentNotice) {
        self.out.push_back(CorrespondentOutput::Notice(notice));
    }

    fn ignore(&mut self, source: Ipv6Addr, reason: Ignored) {
        self.notice(CorrespondentNotice::Ignored { source, reason });
    }

    /// Puts a record back whose bindings were `before`, and says what changed.
    fn put(&mut self, now: Duration, pair: Pair, before: &BindingCacheEntry, record: Record) {
        let changed = *before != record.entry;
        let effective = before.differs_in_effect(&record.entry);
        self.records.put(now, pair, record);
        if changed {
            self.out.push_back(CorrespondentOutput::Changed { pair, effective });
        }
    }

    /// Ends what has run out and asks mobiles to refresh what is about to.
    fn proceed(&mut self, now: Duration) {
        // req R-CN-02 (RFC 6275 §5.2.7): old nonces are not kept.
        self.nonces.expire(now);
        while let Some((pair, mut record)) = self.records.take_due(now) {
            let before = record.entry.clone();
            for binding in record.end(|binding| binding.expires <= now) {
                let home_address = pair.home_address;
                self.notice(CorrespondentNotice::Expired { home_address, bid: binding.bid });
            }
            let due = record.refreshes_due(now);
            self.put(now, pair, &before, record);
            if !due.is_empty() {
                self.ask_for_refresh(pair, &due);
            }
        }
    }

    fn used(&mut self, now: Duration, pair: Pair, bid: Option<Bid>) {
        if let Some(mut record) = self.records.take(pair) {
            record.used(now, bid);
            self.records.put(now, pair, record);
        }
    }

    fn unreachable(&mut self, now: Duration, pair: Pair, care_of: CareOfAddress) {
        let Some(mut record) = self.records.take(pair) else { return };
        let before = record.entry.clone();
        // req CN-65 (RFC 6275 §9.3.4): the packets go by the home agent again.
        if let Some(bid) = record.unreachable(now, care_of) {
            record.end(|binding| binding.bid == bid);
            let home_address = pair.home_address;
            self.notice(CorrespondentNotice::Unreachable { home_address, care_of });
        }
        self.put(now, pair, &before, record);
    }

    fn reconfigure(&mut self, now: Duration, config: CorrespondentConfig) {
        self.addresses = config.addresses.iter().copied().collect();
        self.config = config;
        for pair in self.records.pairs() {
            let Some(mut record) = self.records.take(pair) else { continue };
            let before = record.entry.clone();
            let ours = self.addresses.contains(&pair.correspondent);
            let most = usize::from(self.config.max_bindings);
            let mut kept = 0;
            record.end(|binding| {
                kept += 1;
                let allowed = self.config.multiple_coa || binding.bid.is_none();
                !ours || !allowed || kept > most
            });
            self.put(now, pair, &before, record);
        }
        while self.records.live() > self.config.max_mobiles {
            self.evict(now);
        }
    }

    /// Ends the bindings of the mobile that was not heard of for longest.
    fn evict(&mut self, now: Duration) {
        let Some(pair) = self.records.idlest() else { return };
        let Some(mut record) = self.records.take(pair) else { return };
        let before = record.entry.clone();
        record.end(|_| true);
        self.notice(CorrespondentNotice::Evicted { home_address: pair.home_address });
        self.put(now, pair, &before, record);
    }
}

impl Machine for Correspondent {
    type Event = CorrespondentEvent;
    type Output = CorrespondentOutput;

    fn handle(&mut self, now: Timestamp, event: CorrespondentEvent) {
        let now = now.monotonic;
        self.proceed(now);
        match event {
            CorrespondentEvent::Received { envelope, .. } if self.stopped => {
                self.ignore(envelope.source, Ignored::Stopped);
            }
            CorrespondentEvent::Received { envelope, message } => {
                self.received(now, &envelope, &message);
            }
            CorrespondentEvent::UnknownBinding { source, destination, home_address } => {
                self.unknown_binding(now, source, destination, home_address);
            }
            CorrespondentEvent::Used { pair, bid } => self.used(now, pair, bid),
            CorrespondentEvent::Unreachable { pair, care_of } => {
                self.unreachable(now, pair, care_of);
            }
            CorrespondentEvent::Reconfigure(config) => self.reconfigure(now, config),
            CorrespondentEvent::Stop => self.stopped = true,
        }
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        self.proceed(now.monotonic);
    }

    fn poll(&mut self) -> Option<CorrespondentOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        [self.records.next(), self.nonces.next_expiry()].into_iter().flatten().min()
    }
}
