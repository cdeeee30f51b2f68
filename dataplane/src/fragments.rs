//! Fragments: outer ones are put together, inner ones follow their first.
//!
//! Outer fragments addressed to us are reassembled before anything else is asked (RFC 2473 §7).
//! What is kept is bounded in octets, packets and time, and shared out: no source may hold more
//! than its share, and sources that have proven to be registered push out those that have not,
//! never the other way round. Overlaps kill the packet (RFC 5722).
//!
//! Inner fragments are carried as they are. Only the first one has ports; the others are decided
//! by the first one's key, so that a packet is never torn over two bindings.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::FlowKey;

use crate::packet::Inner;
use crate::reason::DropReason;
use crate::wire::ipv6::{FragmentHeader, HEADER, Header};

/// Bounds of what is kept of incomplete outer packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets, book-keeping included.
    pub octets: usize,
    /// Incomplete packets.
    pub packets: usize,
    /// How long a packet may take to become complete.
    pub age: Duration,
    /// Octets of one source.
    pub octets_per_source: usize,
    /// Incomplete packets of one source.
    pub packets_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            octets: 4 << 20,
            packets: 1000,
            age: Duration::from_secs(1),
            octets_per_source: 512 << 10,
            packets_per_source: 64,
        }
    }
}

/// Fragments of one packet. 1232 octets each are 54 of the largest packet.
const MAX_FRAGMENTS: usize = 128;

/// What one kept fragment costs besides its octets.
const COST: usize = 64;

const CE: u8 = 3;

/// Incomplete outer packets.
#[derive(Debug)]
pub struct Reassembly {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packets: HashMap<PacketId, Partial, ahash::RandomState>,
    octets: usize,
    swept: Duration,
}

type PacketId = (Ipv6Addr, Ipv6Addr, u32);

#[derive(Debug)]
struct Partial {
    since: Duration,
    known: bool,
    /// Everything before the Fragment header, its announcement already replaced.
    head: Option<Vec<u8>>,
    pieces: Vec<(usize, Vec<u8>)>,
    /// Octets of the fragmented part, once the last fragment is here.
    total: Option<usize>,
    congestion: bool,
    /// Overlapped: nothing more of it is taken (RFC 5722 §4).
    dead: bool,
}

impl Partial {
    fn cost(&self) -> usize {
        let head = self.head.as_ref().map_or(0, Vec::len);
        COST + head + self.pieces.iter().map(|(_, piece)| COST + piece.len()).sum::<usize>()
    }
}

impl Reassembly {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Takes one fragment and returns the packet if it is complete now.
    ///
    /// `known` says whether the source has proven to be a registered care-of address or an agent
    /// of ours.
    pub fn add(
        &self,
        packet: &[u8],
        header: &Header,
        fragment: &FragmentHeader,
        known: bool,
        now: Duration,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let piece = packet.get(fragment.at + 8..).unwrap_or_default();
        let end = fragment.offset + piece.len();
        if piece.is_empty()
            || fragment.more && !piece.len().is_multiple_of(8)
            || fragment.at - HEADER + end > usize::from(u16::MAX)
        {
            return Err(DropReason::FragmentMalformed);
        }
        let id = (header.source, header.destination, fragment.identification);
        let mut state = self.lock();
        state.sweep(now, &self.limits);
        if !state.packets.contains_key(&id) {
            state.make_room(&self.limits, header.source, known)?;
        }
        let partial = state.packets.entry(id).or_insert_with(|| Partial {
            since: now,
            known,
            head: None,
            pieces: Vec::new(),
            total: None,
            congestion: false,
            dead: false,
        });
        if partial.dead {
            return Err(DropReason::FragmentOverlap);
        }
        let repeated = partial.pieces.iter().any(|(at, p)| *at == fragment.offset && p == piece);
        if repeated {
            return Ok(None);
        }
        let before = partial.cost();
        let contradicts =
            partial.pieces.iter().any(|(at, p)| *at < end && fragment.offset < at + p.len())
                || partial.total.is_some_and(|total| end > total || !fragment.more)
                || !fragment.more && partial.pieces.iter().any(|(at, p)| at + p.len() > end)
                || partial.pieces.len() == MAX_FRAGMENTS;
        if contradicts {
            partial.dead = true;
            partial.head = None;
            partial.pieces = Vec::new();
            let after = partial.cost();
            state.octets = state.octets - before + after;
            return Err(DropReason::FragmentOverlap);
        }
        if !fragment.more {
            partial.total = Some(end);
        }
        if fragment.offset == 0 {
            let mut head = packet[..fragment.at].to_vec();
            head[fragment.announced_at] = fragment.next_header;
            partial.head = Some(head);
        }
        partial.congestion |= header.traffic_class & CE == CE;
        partial.pieces.push((fragment.offset, piece.to_vec()));
        let (after, held) = (partial.cost(), partial.pieces.iter().map(|(_, p)| p.len()).sum());
        let complete = partial.total == Some(held) && partial.head.is_some();
        // A new packet was counted when room was made for it.
        state.octets = state.octets - before + after;
        if complete {
            let partial = state.packets.remove(&id).expect("it was just changed");
            state.octets -= after;
            return Ok(Some(join(partial)));
        }
        if state.exceeds(&self.limits, header.source) {
            state.remove(&id);
            return Err(DropReason::FragmentLimit);
        }
        Ok(None)
    }

    /// Octets kept at present, book-keeping included.
    #[cfg(test)]
    pub fn octets(&self) -> usize {
        self.lock().octets
    }

    /// Incomplete packets at present.
    #[cfg(test)]
    pub fn packets(&self) -> usize {
        self.lock().packets.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets what took too long.
    fn sweep(&mut self, now: Duration, limits: &Limits) {
        // Ten times per lifetime, so that a flood does not pay for a walk with every fragment.
        if now.saturating_sub(self.swept) < limits.age / 10 {
            return;
        }
        self.swept = now;
        self.packets.retain(|_, partial| now.saturating_sub(partial.since) < limits.age);
        self.octets = self.packets.values().map(Partial::cost).sum();
    }

    /// Makes room for one more packet of `source` and counts its bare cost.
    fn make_room(
        &mut self,
        limits: &Limits,
        source: Ipv6Addr,
        known: bool,
    ) -> Result<(), DropReason> {
        let of_source = self.packets.keys().filter(|id| id.0 == source).count();
        if of_source >= limits.packets_per_source {
            self.evict(|id, _| id.0 == source)?;
        } else if self.packets.len() >= limits.packets {
            // Strangers make room for everybody; the known make room for the known only.
            if self.evict(|_, partial| !partial.known).is_err() {
                if !known {
                    return Err(DropReason::FragmentLimit);
                }
                self.evict(|_, _| true)?;
            }
        }
        self.octets += COST;
        Ok(())
    }

    fn exceeds(&self, limits: &Limits, source: Ipv6Addr) -> bool {
        let of_source = self.packets.iter().filter(|(id, _)| id.0 == source);
        self.octets > limits.octets
            || of_source.map(|(_, p)| p.cost()).sum::<usize>() > limits.octets_per_source
    }

    fn evict(&mut self, which: impl Fn(&PacketId, &Partial) -> bool) -> Result<(), DropReason> {
        let oldest = self
            .packets
            .iter()
            .filter(|(id, partial)| which(id, partial))
            .min_by_key(|(_, partial)| partial.since)
            .map(|(id, _)| *id)
            .ok_or(DropReason::FragmentLimit)?;
        self.remove(&oldest);
        Ok(())
    }

    fn remove(&mut self, id: &PacketId) {
        if let Some(partial) = self.packets.remove(id) {
            self.octets -= partial.cost();
        }
    }
}

fn join(mut partial: Partial) -> Vec<u8> {
    let mut packet = partial.head.expect("complete packets have a head");
    partial.pieces.sort_unstable_by_key(|(at, _)| *at);
    for (_, piece) in &partial.pieces {
        packet.extend_from_slice(piece);
    }
    let length = (packet.len() - HEADER) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    if partial.congestion {
        // RFC 3168 §5.3: congestion seen by a part is congestion of the whole.
        packet[1] |= CE << 4;
    }
    packet
}

/// First fragments remembered; a set of four for each of these.
const SETS: usize = 256;

/// How long the other fragments may take (RFC 8200 §4.5).
const FOLLOW: Duration = Duration::from_secs(60);

/// The keys of first fragments, for those that follow.
#[derive(Debug)]
pub struct Firsts {
    sets: Mutex<Vec<[Option<First>; 4]>>,
    hasher: ahash::RandomState,
}

#[derive(Clone, Copy, Debug)]
struct First {
    identification: u32,
    key: FlowKey,
    at: Duration,
}

impl Firsts {
    /// An empty store.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self { sets: Mutex::default(), hasher }
    }

    /// The key to decide by: the packet's own, or for a later fragment the first one's.
    ///
    /// A fragment that overtakes its first is decided without ports.
    pub fn key(&self, inner: &Inner, now: Duration) -> FlowKey {
        let Some(fragment) = inner.fragment else { return inner.key };
        let ends = (inner.key.source, inner.key.destination);
        let same = |first: &First| {
            first.identification == fragment.identification
                && (first.key.source, first.key.destination) == ends
        };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            sets.resize(SETS, [None; 4]);
        }
        let set = &mut sets[self.set_of(ends, fragment.identification)];
        let known = set.iter().position(|slot| slot.as_ref().is_some_and(same));
        if !fragment.first {
            let first = known.and_then(|at| set[at]);
            let first = first.filter(|first| now.saturating_sub(first.at) < FOLLOW);
            return first.map_or(inner.key, |first| first.key);
        }
        let oldest = || (0..4).min_by_key(|at| set[*at].map(|first| first.at));
        let at = known.or_else(oldest).expect("a set has slots");
        set[at] = Some(First { identification: fragment.identification, key: inner.key, at: now });
        inner.key
    }

    fn set_of(&self, ends: (IpAddr, IpAddr), identification: u32) -> usize {
        self.hasher.hash_one((ends, identification)) as usize % SETS
    }
}
