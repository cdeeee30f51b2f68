//! Outer fragments are put together before anything else is asked (RFC 2473 §7).
//!
//! What is kept is bounded in octets, packets and time, and shared out: no source may hold more
//! than its share, and sources that have proven to be registered push out those that have not,
//! never the other way round (req TN-12). Overlaps kill the packet (req MH-13, RFC 5722).

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    packets: HashMap<PacketId, Partial, crate::hashing::RandomState>,
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
        state.stay_within(&self.limits, &id, known)?;
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
            self.evict_for(known, |_| true)?;
        }
        self.octets += COST;
        Ok(())
    }

    /// After `id` has grown: others make room for it, or it is given up.
    fn stay_within(
        &mut self,
        limits: &Limits,
        id: &PacketId,
        known: bool,
    ) -> Result<(), DropReason> {
        let of_source = self.packets.iter().filter(|(other, _)| other.0 == id.0);
        let mut room = of_source.map(|(_, p)| p.cost()).sum::<usize>() <= limits.octets_per_source;
        while room && self.octets > limits.octets {
            room = self.evict_for(known, |other| other != id).is_ok();
        }
        if room {
            return Ok(());
        }
        self.remove(id);
        Err(DropReason::FragmentLimit)
    }

    /// Strangers make room for everybody, the known for the known only.
    fn evict_for(
        &mut self,
        known: bool,
        which: impl Fn(&PacketId) -> bool,
    ) -> Result<(), DropReason> {
        match self.evict(|id, partial| !partial.known && which(id)) {
            Err(_) if known => self.evict(|id, _| which(id)),
            stranger => stranger,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    /// A fragment from the `source`-th address: packet, header, Fragment header.
    fn piece(
        source: u32,
        identification: u32,
        offset: usize,
        octets: &[u8],
        more: bool,
    ) -> (Vec<u8>, Header, FragmentHeader) {
        let header = Header {
            traffic_class: 0,
            flow_label: 0,
            payload_length: (8 + octets.len()) as u16,
            next_header: 44,
            hop_limit: 64,
            source: Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(source)),
            destination: Ipv6Addr::from(0x2001_0db9_u128 << 96),
        };
        let fragment = FragmentHeader {
            at: 40,
            announced_at: 6,
            next_header: 41,
            offset,
            more,
            identification,
        };
        let mut packet = Vec::new();
        header.emit(&mut packet);
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(octets);
        (packet, header, fragment)
    }

    fn add(
        store: &Reassembly,
        (packet, header, fragment): &(Vec<u8>, Header, FragmentHeader),
        known: bool,
        now: Duration,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        store.add(packet, header, fragment, known, now)
    }

    /// req MH-13, TN-12.
    #[test]
    fn overlaps_kill_the_packet_and_what_follows() {
        type Piece = (usize, usize, bool);
        let cases: [(&str, &[Piece], Piece); 5] = [
            ("same place, other length", &[(0, 16, true)], (0, 8, true)),
            ("into the one before", &[(0, 16, true)], (8, 16, true)),
            ("over the one behind", &[(16, 16, true)], (8, 24, true)),
            ("past the end", &[(16, 4, false)], (24, 8, true)),
            ("two ends", &[(16, 4, false)], (8, 4, false)),
        ];
        for (what, before, last) in cases {
            let store = Reassembly::new(Limits::default());
            for (offset, length, more) in before {
                let taken = add(&store, &piece(1, 1, *offset, &vec![1; *length], *more), true, NOW);
                assert_eq!(taken, Ok(None), "{what}");
            }
            let overlap = piece(1, 1, last.0, &vec![2; last.1], last.2);
            let refused = Err(DropReason::FragmentOverlap);
            assert_eq!(add(&store, &overlap, true, NOW), refused, "{what}");
            let missing = piece(1, 1, 64, &[1; 8], true);
            assert_eq!(add(&store, &missing, true, NOW), refused, "{what}: nothing follows");
            assert_eq!(store.octets(), COST, "{what}: only the memory of its death");
        }
    }

    #[test]
    fn malformed_fragments_are_refused() {
        let store = Reassembly::new(Limits::default());
        let cases = [
            ("empty", piece(1, 1, 0, &[], true)),
            ("not a multiple of eight", piece(1, 1, 0, &[0; 12], true)),
            ("past 65535", piece(1, 1, 65_528, &[0; 8], false)),
        ];
        for (what, fragment) in cases {
            let refused = Err(DropReason::FragmentMalformed);
            assert_eq!(add(&store, &fragment, true, NOW), refused, "{what}");
        }
        assert_eq!((store.packets(), store.octets()), (0, 0));
    }

    #[test]
    fn what_takes_too_long_is_forgotten() {
        let store = Reassembly::new(Limits::default());
        add(&store, &piece(1, 1, 0, &[0; 8], true), true, NOW).unwrap();
        let late = NOW + Duration::from_millis(1001);
        assert_eq!(add(&store, &piece(1, 1, 8, &[0; 8], false), true, late), Ok(None));
        assert_eq!(store.packets(), 1, "a packet of its own, never complete");
    }

    #[test]
    fn tn_12_a_flood_stays_within_its_bounds_and_leaves_the_registered_alone() {
        let limits = Limits { packets: 50, octets: 40_000, ..Limits::default() };
        let store = Reassembly::new(limits);
        let first = piece(7, 1, 0, &[7; 800], true);
        assert_eq!(add(&store, &first, true, NOW), Ok(None));
        for stranger in 0..10_000u32 {
            let flood = piece(1000 + stranger % 500, stranger, 0, &[0; 800], true);
            let _ = add(&store, &flood, false, NOW);
            assert!(store.packets() <= limits.packets);
            assert!(store.octets() <= limits.octets);
        }
        let whole = add(&store, &piece(7, 1, 800, &[7; 4], false), true, NOW).unwrap().unwrap();
        assert_eq!(whole.len(), 40 + 804);
        assert_eq!(Header::parse(&whole).unwrap().payload_length, 804);
        assert_eq!(Header::parse(&whole).unwrap().next_header, 41);
        // The flood does not keep a registered source from beginning something new either.
        for packet in 2..12 {
            let taken = add(&store, &piece(7, packet, 0, &[7; 800], true), true, NOW);
            assert_eq!(taken, Ok(None));
        }
    }

    #[test]
    fn one_source_has_its_share_only() {
        let limits =
            Limits { packets_per_source: 4, octets_per_source: 5_000, ..Limits::default() };
        let store = Reassembly::new(limits);
        for packet in 0..100 {
            add(&store, &piece(1, packet, 0, &[0; 800], true), true, NOW).unwrap();
            assert!(store.packets() <= 4);
        }
        let large = piece(1, 99, 800, &[0; 4000], true);
        assert_eq!(add(&store, &large, true, NOW), Err(DropReason::FragmentLimit));
    }

    #[test]
    fn the_account_is_balanced() {
        let store = Reassembly::new(Limits { packets: 8, ..Limits::default() });
        for round in 0..2000u32 {
            let (source, packet) = (round % 5, round % 11);
            let offset = (round as usize * 7 % 4) * 16;
            let _ = add(
                &store,
                &piece(source, packet, offset, &[1; 24], round % 3 != 0),
                round % 2 == 0,
                NOW,
            );
            let state = store.lock();
            let held: usize = state.packets.values().map(Partial::cost).sum();
            assert_eq!(state.octets, held, "round {round}");
        }
    }

    #[test]
    fn congestion_of_a_part_is_congestion_of_the_whole() {
        let store = Reassembly::new(Limits::default());
        let mut first = piece(1, 1, 0, &[0; 8], true);
        first.1.traffic_class = 3;
        add(&store, &first, true, NOW).unwrap();
        // The head says ECT(0), and one part saw congestion.
        let whole = add(&store, &piece(1, 1, 8, &[0; 8], false), true, NOW).unwrap().unwrap();
        assert_eq!(Header::parse(&whole).unwrap().traffic_class & 3, 3);
    }
}
