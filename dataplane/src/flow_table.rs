//! Remembered decisions: which flows there are, what was decided for them, what they carried.
//!
//! The table is bounded and forgets the flow of a set that was silent longest. It never judges:
//! [`decide`](crate::decide()) is asked for every packet and is handed what is remembered, and a
//! memory of an older generation is simply not used by it.
//!
//! Both directions of a flow are one entry, under the addresses and ports of the packets that
//! leave here through the tunnel. At a home agent, that is how a downlink packet finds the binding on which
//! the flow's last uplink packet came.
//!
//! Locks: one short mutex per shard, held for one lookup in one set of four; no I/O and no other
//! lock under it. Keys are chosen by whoever sends packets, so they are hashed with a secret.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::{Bid, FlowKey, RuleId};

use crate::memory::{Answer, Remembered};

/// What names a flow: the key without what may differ from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowId {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl FlowId {
    fn of(key: &FlowKey) -> Self {
        Self {
            source: key.source,
            destination: key.destination,
            protocol: key.protocol,
            source_port: key.source_port,
            destination_port: key.destination_port,
        }
    }
}

/// One flow, as `mtun flows` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// As packets leave here; of a flow that was only received, the mirrored key.
    pub key: FlowKey,
    /// The rule that chose the way out; `None` if none matched or nothing went out yet.
    pub rule: Option<RuleId>,
    /// The binding of the last packet out.
    pub bid_out: Option<Bid>,
    /// The binding of the last packet in.
    pub bid_in: Option<Bid>,
    /// Octets of inner packets sent.
    pub bytes_out: u64,
    /// Octets of inner packets received.
    pub bytes_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// When the last packet was seen in either direction.
    pub last_seen: Duration,
    /// What [`decide`](crate::decide()) would be handed: the rule's identity, the last move.
    pub memory: Remembered,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: FlowId,
    key: FlowKey,
    memory: Remembered,
    bytes_out: u64,
    bytes_in: u64,
    packets_out: u64,
    packets_in: u64,
}

impl Slot {
    fn new(id: FlowId, key: FlowKey) -> Self {
        Self {
            id,
            key,
            memory: Remembered::default(),
            bytes_out: 0,
            bytes_in: 0,
            packets_out: 0,
            packets_in: 0,
        }
    }

    fn entry(&self) -> FlowEntry {
        FlowEntry {
            key: self.key,
            rule: self.memory.answer.and_then(|answer| answer.rule),
            bid_out: self.memory.answer.and_then(|answer| answer.bid),
            bid_in: self.memory.last_verified,
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            packets_out: self.packets_out,
            packets_in: self.packets_in,
            last_seen: self.memory.last_seen,
            memory: self.memory,
        }
    }
}

/// Slots of a set; a fifth flow with the same hash pushes out the one silent longest.
const WAYS: usize = 4;

/// Locks. More than packet threads will ever be, so that two of them seldom meet.
const SHARDS: usize = 64;

type Set = [Option<Slot>; WAYS];

/// Remembered decisions of one home network.
pub struct FlowTable {
    shards: Vec<Mutex<Vec<Set>>>,
    sets_per_shard: usize,
    hasher: ahash::RandomState,
}

impl FlowTable {
    /// A table for about `capacity` flows, rounded up to whole sets.
    pub fn new(capacity: usize, hasher: ahash::RandomState) -> Self {
        let sets_per_shard = capacity.div_ceil(SHARDS * WAYS).max(1);
        let shards = (0..SHARDS).map(|_| Mutex::new(Vec::new())).collect();
        Self { shards, sets_per_shard, hasher }
    }

    /// How many flows fit.
    pub fn capacity(&self) -> usize {
        self.sets_per_shard * SHARDS * WAYS
    }

    /// What is remembered of the flow of this outbound key.
    pub fn remembered(&self, key: &FlowKey) -> Option<Remembered> {
        self.find(key, |slot| slot.memory)
    }

    /// When the last packet of this outbound key was sent.
    pub(crate) fn last_sent(&self, key: &FlowKey) -> Option<Duration> {
        self.find(key, |slot| slot.memory.last_sent).flatten()
    }

    /// Notes a packet sent, and the answer it was sent by.
    pub fn sent(&self, key: &FlowKey, answer: Answer, octets: usize, now: Duration) {
        self.update(key, |slot| {
            slot.key = *key;
            slot.memory.answer = Some(answer);
            slot.memory.last_seen = now;
            slot.memory.last_sent = Some(now);
            slot.bytes_out += octets as u64;
            slot.packets_out += 1;
        });
    }

    /// Replaces the answer of a flow that is silent, unless a packet changed it meanwhile. Nothing
    /// is counted and the flow stays as old as it is.
    pub(crate) fn resettle(&self, key: &FlowKey, before: &Remembered, answer: Answer) -> bool {
        let id = FlowId::of(key);
        let (shard, set) = self.place(&id);
        let mut shard = lock(&self.shards[shard]);
        let Some(set) = shard.get_mut(set) else { return false };
        let slot = set.iter_mut().flatten().find(|slot| slot.id == id);
        let same = |memory: &Remembered| {
            (memory.answer, memory.last_sent) == (before.answer, before.last_sent)
        };
        match slot.filter(|slot| same(&slot.memory)) {
            Some(slot) => {
                slot.memory.answer = Some(answer);
                true
            }
            None => false,
        }
    }

    /// Notes a packet admitted on a binding; `key` is its own, not the mirrored one. Returns the
    /// rule by which the flow goes out, for the counters.
    pub fn received(
        &self,
        key: &FlowKey,
        bid: Option<Bid>,
        octets: usize,
        now: Duration,
    ) -> Option<RuleId> {
        self.update(&key.mirrored(), |slot| {
            slot.memory.last_verified = bid;
            slot.memory.last_seen = now;
            slot.bytes_in += octets as u64;
            slot.packets_in += 1;
            slot.memory.answer.and_then(|answer| answer.rule)
        })
    }

    /// Every flow remembered, in no promised order.
    pub fn entries(&self) -> Vec<FlowEntry> {
        let mut entries = Vec::new();
        for shard in &self.shards {
            entries.extend(lock(shard).iter().flatten().flatten().map(Slot::entry));
        }
        entries
    }

    fn find<R>(&self, key: &FlowKey, read: impl FnOnce(&Slot) -> R) -> Option<R> {
        let id = FlowId::of(key);
        let (shard, set) = self.place(&id);
        let shard = lock(&self.shards[shard]);
        let slot = shard.get(set)?.iter().flatten().find(|slot| slot.id == id)?;
        Some(read(slot))
    }

    fn update<R>(&self, key: &FlowKey, change: impl FnOnce(&mut Slot) -> R) -> R {
        let id = FlowId::of(key);
        let (shard, set) = self.place(&id);
        let mut shard = lock(&self.shards[shard]);
        if shard.is_empty() {
            shard.resize(self.sets_per_shard, [None; WAYS]);
        }
        let set = &mut shard[set];
        let known = set.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.id == id));
        let at = known.unwrap_or_else(|| {
            // An empty slot sorts before every used one.
            let oldest = (0..WAYS).min_by_key(|at| set[*at].map(|slot| slot.memory.last_seen));
            oldest.expect("a set has slots")
        });
        if known.is_none() {
            set[at] = Some(Slot::new(id, *key));
        }
        change(set[at].as_mut().expect("just found or put there"))
    }

    fn place(&self, id: &FlowId) -> (usize, usize) {
        let hash = self.hasher.hash_one(id);
        ((hash >> 32) as usize % SHARDS, hash as u32 as usize % self.sets_per_shard)
    }
}

fn lock(shard: &Mutex<Vec<Set>>) -> MutexGuard<'_, Vec<Set>> {
    // Whoever panicked under the lock left a set that is at worst out of date.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTable").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
