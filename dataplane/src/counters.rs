//! What happened, in numbers: per reason, and per rule, binding and direction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use mtun_policy::{Bid, RuleId};

use crate::copies::Tally;
use crate::decide::Encapsulation;
use crate::moves::MoveReason;
use crate::reason::{DropReason, IgnoreReason};

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the other end.
    Out,
    /// From the other end.
    In,
}

/// In which form packets were carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// In the tunnel.
    Tunnel,
    /// Straight between a care-of address and a correspondent (RFC 6275 §9.3.2, §11.3.1).
    Optimized,
    /// As they are, on the home link.
    Plain,
    /// Outside the tunnel by a rule that says so.
    Breakout,
}

impl Form {
    /// The name used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Optimized => "optimized",
            Self::Plain => "plain",
            Self::Breakout => "breakout",
        }
    }
}

impl From<&Encapsulation> for Form {
    fn from(encapsulation: &Encapsulation) -> Self {
        match encapsulation {
            Encapsulation::Tunnel { .. } => Self::Tunnel,
            Encapsulation::Optimized { .. } => Self::Optimized,
            Encapsulation::Plain => Self::Plain,
        }
    }
}

/// One counter of carried packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The rule by which the flow leaves here; `None` if none matched or none was asked yet.
    pub rule: Option<RuleId>,
    /// The binding.
    pub bid: Option<Bid>,
    /// The direction.
    pub direction: Direction,
    /// The form.
    pub form: Form,
    /// Packets.
    pub packets: u64,
    /// Octets of inner packets.
    pub bytes: u64,
}

/// What one link carried of packets that a rule sends in copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyTraffic {
    /// The rule by which the flow leaves here; `None` if none matched or none was asked yet.
    pub rule: Option<RuleId>,
    /// The binding.
    pub bid: Option<Bid>,
    /// The direction. What comes in counts if it is marked as a copy, duplicates included.
    pub direction: Direction,
    /// Outer packets, of fragments each.
    pub packets: u64,
    /// Their octets, headers included.
    pub bytes: u64,
}

/// What became of the order of received copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderCounts {
    /// Packets that were waited for in vain when those behind them were delivered.
    pub given_up: u64,
    /// Of those, packets that came after all and were delivered late.
    pub late: u64,
    /// Streams that began: the first packet ever, or the first after the sender began anew.
    pub begun: u64,
}

/// How many flows left one link for another, for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The link they left.
    pub from: Option<Bid>,
    /// The link they leave by now.
    pub to: Option<Bid>,
    /// Why.
    pub reason: MoveReason,
    /// How many.
    pub count: u64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Every reason, also those that never occurred.
    pub drops: Vec<(DropReason, u64)>,
    /// Every reason, also those that never occurred.
    pub ignores: Vec<(IgnoreReason, u64)>,
    /// Sorted by rule, binding, direction and form.
    pub traffic: Vec<Traffic>,
    /// Moves that occurred, sorted by their links and reason.
    pub moves: Vec<Moves>,
    /// Sorted by rule, binding and direction.
    pub copies: Vec<CopyTraffic>,
    /// Of received copies.
    pub order: OrderCounts,
    /// Inner fragments that left before the first of their packet, and so without its decision.
    pub early_fragments: u64,
    /// Signalling packets handed on.
    pub signalling: u64,
    /// ICMPv6 errors and TCP resets written.
    pub answers: u64,
    /// Probes of mobiles answered.
    pub probes_answered: u64,
}

impl CounterSnapshot {
    /// How often packets were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(r, _)| *r == reason).map_or(0, |(_, count)| *count)
    }

    /// How often packets were ignored for this reason.
    pub fn ignored(&self, reason: IgnoreReason) -> u64 {
        self.ignores.iter().find(|(r, _)| *r == reason).map_or(0, |(_, count)| *count)
    }
}

/// Series of carried packets that are kept apart; more, after very many policies, share one.
const MAX_SERIES: usize = 4096;

/// Pairs of links and reasons of moves that are kept apart; more share one.
const MAX_MOVES: usize = 1024;

type MoveSeries = (Option<Bid>, Option<Bid>, MoveReason);

type CopySeries = (Option<RuleId>, Option<Bid>, Direction);

type Series = (Option<RuleId>, Option<Bid>, Direction, Form);

#[derive(Debug, Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// Counters of one engine, raised by packet threads and read by others.
#[derive(Debug)]
pub struct Counters {
    drops: Box<[AtomicU64]>,
    ignores: Box<[AtomicU64]>,
    traffic: RwLock<HashMap<Series, Cell, crate::hashing::RandomState>>,
    moves: Mutex<HashMap<MoveSeries, u64, crate::hashing::RandomState>>,
    copies: Mutex<HashMap<CopySeries, (u64, u64), crate::hashing::RandomState>>,
    given_up: AtomicU64,
    late: AtomicU64,
    begun: AtomicU64,
    early_fragments: AtomicU64,
    signalling: AtomicU64,
    answers: AtomicU64,
    probes_answered: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            drops: zeros(DropReason::ALL.len()),
            ignores: zeros(IgnoreReason::ALL.len()),
            traffic: RwLock::default(),
            moves: Mutex::default(),
            copies: Mutex::default(),
            given_up: AtomicU64::new(0),
            late: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            early_fragments: AtomicU64::new(0),
            signalling: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            probes_answered: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn drop(&self, reason: DropReason) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ignore(&self, reason: IgnoreReason) {
        self.ignores[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn early_fragment(&self) {
        self.early_fragments.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn signalling(&self) {
        self.signalling.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn probe_answered(&self) {
        self.probes_answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, from: Option<Bid>, to: Option<Bid>, reason: MoveReason) {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let series = (from, to, reason);
        let full = moves.len() >= MAX_MOVES && !moves.contains_key(&series);
        *moves.entry(if full { (None, None, reason) } else { series }).or_default() += 1;
    }

    /// Counts outer packets of one copy.
    pub(crate) fn copy(
        &self,
        rule: Option<RuleId>,
        bid: Option<Bid>,
        direction: Direction,
        packets: usize,
        octets: usize,
    ) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let series = (rule, bid, direction);
        let full = copies.len() >= MAX_SERIES && !copies.contains_key(&series);
        let sums = copies.entry(if full { (None, None, direction) } else { series }).or_default();
        sums.0 += packets as u64;
        sums.1 += octets as u64;
    }

    pub(crate) fn order(&self, tally: Tally) {
        if tally == Tally::default() {
            return;
        }
        self.given_up.fetch_add(tally.given_up, Ordering::Relaxed);
        self.late.fetch_add(tally.late, Ordering::Relaxed);
        self.begun.fetch_add(tally.begun, Ordering::Relaxed);
    }

    pub(crate) fn carry(
        &self,
        rule: Option<RuleId>,
        bid: Option<Bid>,
        direction: Direction,
        form: Form,
        octets: usize,
    ) {
        self.carry_many(rule, bid, direction, form, 1, octets as u64);
    }

    pub(crate) fn carry_many(
        &self,
        rule: Option<RuleId>,
        bid: Option<Bid>,
        direction: Direction,
        form: Form,
        packets: u64,
        octets: u64,
    ) {
        let count = |cell: &Cell| {
            cell.packets.fetch_add(packets, Ordering::Relaxed);
            cell.bytes.fetch_add(octets, Ordering::Relaxed);
        };
        let series = (rule, bid, direction, form);
        if let Some(cell) = self.traffic.read().unwrap_or_else(PoisonError::into_inner).get(&series)
        {
            return count(cell);
        }
        let mut traffic = self.traffic.write().unwrap_or_else(PoisonError::into_inner);
        let full = traffic.len() >= MAX_SERIES;
        let series = if full { (None, None, direction, form) } else { series };
        count(traffic.entry(series).or_default());
    }

    /// A copy of all counters. They are read one after the other while packets go on.
    pub fn snapshot(&self) -> CounterSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let traffic = self.traffic.read().unwrap_or_else(PoisonError::into_inner);
        let mut traffic: Vec<_> = traffic
            .iter()
            .map(|(&(rule, bid, direction, form), cell)| Traffic {
                rule,
                bid,
                direction,
                form,
                packets: read(&cell.packets),
                bytes: read(&cell.bytes),
            })
            .collect();
        traffic.sort_unstable_by_key(|t| (t.rule, t.bid, t.direction, t.form));
        let moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moves: Vec<_> = moves
            .iter()
            .map(|(&(from, to, reason), &count)| Moves { from, to, reason, count })
            .collect();
        moves.sort_unstable_by_key(|it| (it.from, it.to, it.reason));
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copies: Vec<_> = copies
            .iter()
            .map(|(&(rule, bid, direction), &(packets, bytes))| CopyTraffic {
                rule,
                bid,
                direction,
                packets,
                bytes,
            })
            .collect();
        copies.sort_unstable_by_key(|it| (it.rule, it.bid, it.direction));
        CounterSnapshot {
            moves,
            copies,
            order: OrderCounts {
                given_up: read(&self.given_up),
                late: read(&self.late),
                begun: read(&self.begun),
            },
            early_fragments: read(&self.early_fragments),
            drops: DropReason::ALL.iter().copied().zip(self.drops.iter().map(read)).collect(),
            ignores: IgnoreReason::ALL.iter().copied().zip(self.ignores.iter().map(read)).collect(),
            traffic,
            signalling: read(&self.signalling),
            answers: read(&self.answers),
            probes_answered: read(&self.probes_answered),
        }
    }
}
