//! Remembered decisions: which flows there are, what was decided for them, what they carried.
//!
//! The table is bounded and forgets, of some flows that lie together, the one silent longest. It
//! never judges:
//! [`decide`](crate::decide()) is asked for every packet and is handed what is remembered, and a
//! memory of an older generation is simply not used by it.
//!
//! Both directions of a flow are one entry, under the addresses and ports of the packets that
//! leave here through the tunnel. At a home agent, that is how a downlink packet finds the binding on which
//! the flow's last uplink packet came.
//!
//! How it lies in memory and who locks what is in [`flow_lines`](crate::flow_lines).

use std::collections::VecDeque;
use std::time::Duration;

use mtun_policy::{Bid, FlowKey, RuleId, Scope};

use crate::abi::Course;
use crate::flow_lines::{BURST, FlowId, FlowLines, Kept, Place};
use crate::memory::{Answer, Remembered, Way};
use crate::way_in::WayIn;

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
    key: FlowKey,
    memory: Remembered,
    way_in: WayIn,
    bytes_out: u64,
    bytes_in: u64,
    packets_out: u64,
    packets_in: u64,
}

impl Slot {
    fn new(key: FlowKey) -> Self {
        Self {
            key,
            memory: Remembered::default(),
            way_in: WayIn::default(),
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

impl Kept for Slot {
    fn brief(&self) -> [u64; 2] {
        let answer = self.memory.answer.map_or(0, |answer| {
            let rule = answer.rule.map_or(u16::MAX, |rule| rule.0);
            let bid = answer.bid.map_or(0, Bid::get);
            (answer.generation & u64::from(u32::MAX)) << 32 | u64::from(rule) << 16 | u64::from(bid)
        });
        // The upper half of the octets is for what else the answer holds for.
        let plain = self.memory.answer.is_some_and(|answer| {
            answer.way == Way::Tunnel
                && answer.due.is_none()
                && answer.together.is_none()
                && matches!(answer.sticky.scope, Scope::None | Scope::Flow)
        });
        let marks = u64::from(plain) << 63
            | u64::from(self.key.dscp & 0x3f) << 56
            | u64::from(self.key.ingress.0) << 48;
        [answer, marks | self.bytes_out & OCTETS]
    }
}

/// Octets that a line can tell.
const OCTETS: u64 = (1 << 48) - 1;

/// What one cache line tells of a flow's last answer, for those who look many flows up at once.
///
/// There is one only if the flow goes by one binding of its own and not by a breakout, and no move
/// of it is due. Whether it goes straight or through the tunnel is looked up for every packet and
/// is not said here.
///
/// It holds for the addresses, protocol, ports, DSCP and ingress of the packet that it was given
/// for. Whoever relies on it has to see that the generation is still the registration's and that
/// no rule looks at other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The lower half of the registration's generation.
    pub generation: u32,
    /// The rule; `None` if none matched.
    pub rule: Option<RuleId>,
    /// The binding.
    pub bid: Option<Bid>,
}

impl Glance {
    fn new([answer, marks]: [u64; 2], key: &FlowKey) -> Option<Self> {
        let same = (marks >> 56 & 0x3f) as u8 == key.dscp && (marks >> 48) as u8 == key.ingress.0;
        let rule = (answer >> 16) as u16;
        (same && marks >> 63 != 0).then_some(Self {
            generation: (answer >> 32) as u32,
            rule: (rule != u16::MAX).then_some(RuleId(rule)),
            bid: Bid::new(answer as u16),
        })
    }
}

/// Remembered decisions of one home network.
pub struct FlowTable {
    lines: FlowLines<Slot>,
}

impl FlowTable {
    /// A table for `capacity` flows.
    pub fn new(capacity: usize, hasher: ahash::RandomState) -> Self {
        Self { lines: FlowLines::new(capacity, hasher) }
    }

    /// How many flows fit.
    pub fn capacity(&self) -> usize {
        self.lines.capacity()
    }

    /// Looks up many outbound keys at the price of few waits for memory; `found` is as long as
    /// `keys`, and where it holds nothing [`Self::remembered`] may still know the flow.
    pub fn glance(&self, keys: &[FlowKey], found: &mut [Option<Glance>]) {
        for (keys, found) in keys.chunks(BURST).zip(found.chunks_mut(BURST)) {
            let (mut ids, mut briefs) = ([FlowId::default(); BURST], [None; BURST]);
            for (id, key) in ids.iter_mut().zip(keys) {
                *id = FlowId::of(key);
            }
            self.lines.briefs(&ids[..keys.len()], &mut briefs[..keys.len()]);
            for ((found, brief), key) in found.iter_mut().zip(&briefs).zip(keys) {
                *found = brief.and_then(|brief| Glance::new(brief, key));
            }
        }
    }

    /// Where the flow of this outbound key belongs, for who asks more than once.
    pub(crate) fn place(&self, key: &FlowKey) -> Place {
        self.lines.place(FlowId::of(key))
    }

    /// Begins to fetch what is remembered of a flow from memory.
    pub(crate) fn approach(&self, place: &Place) {
        self.lines.approach(place);
    }

    /// What is remembered of the flow of this outbound key.
    pub fn remembered(&self, key: &FlowKey) -> Option<Remembered> {
        self.remembered_at(&self.place(key))
    }

    /// The same of the flow of this place.
    pub(crate) fn remembered_at(&self, place: &Place) -> Option<Remembered> {
        self.lines.read(place, |slot| slot.memory)
    }

    /// When the last packet of this outbound key was sent.
    pub(crate) fn last_sent(&self, key: &FlowKey) -> Option<Duration> {
        self.find(key, |slot| slot.memory.last_sent).flatten()
    }

    /// Notes a packet sent, and the answer it was sent by.
    pub fn sent(&self, key: &FlowKey, answer: Answer, octets: usize, now: Duration) {
        self.sent_at(&self.place(key), key, answer, 1, octets as u64, now);
    }

    /// The same of packets that were sent at once, by the flow of this place, which is this key's.
    pub(crate) fn sent_at(
        &self,
        place: &Place,
        key: &FlowKey,
        answer: Answer,
        packets: u64,
        octets: u64,
        now: Duration,
    ) {
        let fresh = || Slot::new(*key);
        self.lines.update(place, now, fresh, |slot| {
            slot.key = *key;
            slot.memory.answer = Some(answer);
            slot.memory.last_seen = now;
            slot.memory.last_sent = Some(now);
            slot.bytes_out += octets;
            slot.packets_out += packets;
        });
    }

    /// Replaces the answer of a flow that is silent, unless a packet changed it meanwhile. Nothing
    /// is counted and the flow stays as old as it is.
    pub(crate) fn resettle(&self, key: &FlowKey, before: &Remembered, answer: Answer) -> bool {
        self.lines
            .amend(&self.place(key), |slot| {
                let memory = &mut slot.memory;
                let same = (memory.answer, memory.last_sent) == (before.answer, before.last_sent);
                if same {
                    memory.answer = Some(answer);
                }
                same
            })
            .unwrap_or(false)
    }

    /// Notes a packet admitted on a binding; `key` is its own, not the mirrored one. Returns the
    /// answer by which the flow goes out, for the counters.
    pub fn received(
        &self,
        key: &FlowKey,
        bid: Option<Bid>,
        octets: usize,
        now: Duration,
    ) -> Option<Answer> {
        self.update(&key.mirrored(), now, |slot| {
            let memory = &mut slot.memory;
            slot.way_in.came(memory, bid, now);
            memory.last_seen = now;
            slot.bytes_in += octets as u64;
            slot.packets_in += 1;
            slot.memory.answer
        })
    }

    /// Notes packets that a fast path carried; `key` is that of packets that leave here, the last
    /// of them was `seen` then. Returns the answer by which the flow goes out.
    pub(crate) fn carried(
        &self,
        key: &FlowKey,
        course: Course,
        packets: u64,
        octets: u64,
        seen: Duration,
    ) -> Option<Answer> {
        self.update(key, seen, |slot| {
            let memory = &mut slot.memory;
            memory.last_seen = memory.last_seen.max(seen);
            match course {
                Course::Out => {
                    memory.last_sent = memory.last_sent.max(Some(seen));
                    slot.bytes_out += octets;
                    slot.packets_out += packets;
                }
                Course::In => {
                    memory.verified_at = memory.verified_at.max(seen);
                    slot.bytes_in += octets;
                    slot.packets_in += packets;
                }
            }
            memory.answer
        })
    }

    /// The outbound keys of the flows that were let go and of which `wanted` holds.
    pub(crate) fn keys(&self, wanted: impl Fn(&Answer) -> bool) -> VecDeque<FlowKey> {
        let mut keys = VecDeque::new();
        self.lines.each(|slot| {
            if slot.memory.answer.as_ref().is_some_and(&wanted) {
                keys.push_back(slot.key);
            }
        });
        keys
    }

    /// Every flow remembered, in no promised order.
    pub fn entries(&self) -> Vec<FlowEntry> {
        let mut entries = Vec::new();
        self.lines.each(|slot| entries.push(slot.entry()));
        entries
    }

    fn find<R>(&self, key: &FlowKey, read: impl FnOnce(&Slot) -> R) -> Option<R> {
        self.lines.read(&self.place(key), read)
    }

    fn update<R>(&self, key: &FlowKey, now: Duration, change: impl FnOnce(&mut Slot) -> R) -> R {
        self.lines.update(&self.place(key), now, || Slot::new(*key), change)
    }
}

impl std::fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTable").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
