//! What traffic tells those who optimize routes: who is worth it, who uses it, who is cut off.
//!
//! A bounded ring that loses what does not fit: packets never wait for its reader. The same thing
//! is said of a pair once a second at most, as long as its packets go on.

use std::collections::VecDeque;
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mtun_policy::Bid;

use crate::packet::Segment;
use crate::pairs::Pair;

/// Something that traffic tells about a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteNote {
    /// Packets between these ends go through the tunnel though the rules let them go straight,
    /// and the correspondent holds nothing.
    Wanted(Pair),
    /// The same of a flow whose rule wants the straight way as soon as there is a packet.
    WantedAtOnce(Pair),
    /// Packets between these ends go straight, in either direction; said at both ends.
    Used(Pair),
    /// TCP was sent straight by this binding for two seconds, and the first of it was never
    /// acknowledged: something on the way eats packets with these headers.
    Eaten {
        /// The ends.
        pair: Pair,
        /// The binding.
        bid: Option<Bid>,
    },
    /// A router told that a packet that went straight could not be delivered. One of these is
    /// no reason yet to give a binding up (RFC 6275 §9.3.4).
    Unreachable {
        /// The ends.
        pair: Pair,
        /// The binding, the mobile's number of it.
        bid: Option<Bid>,
        /// The care-of address of the packet.
        care_of: Ipv6Addr,
    },
    /// The correspondent answered that it does not know the Home Address option
    /// (RFC 6275 §11.3.5).
    Refused(Pair),
}

/// Notes kept until they are read.
const KEPT: usize = 1024;

/// Subjects whose last note is remembered, and bindings that are watched; of two that fall on the
/// same place the later one counts.
const PLACES: usize = 1024;

/// The part of a word that tells the second: twelve days.
const SECONDS: u64 = (1 << 20) - 1;

/// TCP packets without an acknowledgement, and for how long, until they count as eaten.
const EATEN_PACKETS: u32 = 5;
const EATEN_AFTER: Duration = Duration::from_secs(2);

/// A binding that nobody used for so long is watched anew.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// And one by which everything was eaten: it is tried again later than that.
const FORGOTTEN_EATEN: Duration = Duration::from_secs(10);

/// A TCP connection of a pair: our port and the other.
type Ports = (Option<u16>, Option<u16>);

/// What traffic told and nobody has read yet.
#[derive(Debug)]
pub(crate) struct Notes {
    ring: Mutex<VecDeque<RouteNote>>,
    /// Whether the ring holds anything.
    fresh: AtomicBool,
    /// For each place the last note's hash and the second in which it was said: packets of a pair
    /// that goes on read one word.
    said: Box<[AtomicU64]>,
    watched: Box<[Mutex<Option<Watched>>]>,
    hasher: ahash::RandomState,
}

/// A binding at a correspondent, by which TCP is sent straight.
#[derive(Clone, Copy, Debug)]
struct Watched {
    of: (Pair, Option<Bid>),
    care_of: Ipv6Addr,
    last: Duration,
    /// The first segment that takes sequence numbers, and how many came since then: what was under
    /// way through the tunnel is acknowledged too, and the other end may go on sending.
    first: Option<(Ports, u32, Duration)>,
    packets: u32,
    /// Whether the first segment arrived.
    arrived: bool,
    /// Whether it was said that nothing does.
    eaten: bool,
}

impl Notes {
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self {
            ring: Mutex::default(),
            fresh: AtomicBool::new(false),
            said: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            watched: (0..PLACES).map(|_| Mutex::default()).collect(),
            hasher,
        }
    }

    /// Everything said since the last call, oldest first.
    pub fn drain(&self) -> Vec<RouteNote> {
        self.fresh.store(false, Ordering::Relaxed);
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Whether something was said that nobody has read yet.
    pub fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    /// Whether it would be said now.
    pub fn is_due(&self, note: &RouteNote, now: Duration) -> bool {
        let (place, word) = self.word(note, now);
        place.load(Ordering::Relaxed) != word
    }

    /// Says it, unless it was said in this second.
    pub fn say(&self, note: RouteNote, now: Duration) {
        let (place, word) = self.word(&note, now);
        if place.load(Ordering::Relaxed) == word || place.swap(word, Ordering::Relaxed) == word {
            return;
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() < KEPT {
            ring.push_back(note);
        }
        drop(ring);
        self.fresh.store(true, Ordering::Relaxed);
    }

    /// A TCP packet goes straight by this binding.
    pub fn sent_straight(
        &self,
        pair: Pair,
        (bid, care_of): (Option<Bid>, Ipv6Addr),
        ports: Ports,
        segment: &Segment,
        now: Duration,
    ) {
        let of = (pair, bid);
        let mut place =
            self.watched[self.place(&of)].lock().unwrap_or_else(PoisonError::into_inner);
        let known = place.filter(|it| {
            let kept = if it.eaten { FORGOTTEN_EATEN } else { FORGOTTEN };
            it.of == of && it.care_of == care_of && now.saturating_sub(it.last) < kept
        });
        let (arrived, eaten) = (false, false);
        let fresh = Watched { of, care_of, last: now, first: None, packets: 0, arrived, eaten };
        let mut watched = known.unwrap_or(fresh);
        watched.last = now;
        if watched.first.is_none() {
            watched.first = segment.end.map(|end| (ports, end, now));
        }
        let Some((_, _, since)) = watched.first else {
            *place = Some(watched);
            return;
        };
        watched.packets = watched.packets.saturating_add(1);
        let eaten = !watched.arrived
            && !watched.eaten
            && watched.packets >= EATEN_PACKETS
            && now.saturating_sub(since) >= EATEN_AFTER;
        watched.eaten |= eaten;
        *place = Some(watched);
        drop(place);
        if eaten {
            self.say(RouteNote::Eaten { pair, bid }, now);
        }
    }

    /// A TCP packet came back to a flow that goes straight by this binding.
    pub fn heard(&self, pair: Pair, bid: Option<Bid>, ports: Ports, segment: &Segment) {
        let of = (pair, bid);
        let mut place =
            self.watched[self.place(&of)].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = place.as_mut().filter(|it| it.of == of)
            && let Some((first, end, _)) = watched.first
        {
            watched.arrived |= first == ports && segment.answers(end);
        }
    }

    /// Whether TCP that was sent straight by this binding has been answered.
    pub fn has_arrived(&self, pair: Pair, bid: Option<Bid>) -> bool {
        let of = (pair, bid);
        let place = self.watched[self.place(&of)].lock().unwrap_or_else(PoisonError::into_inner);
        place.is_some_and(|watched| watched.of == of && watched.arrived)
    }

    /// Where a note is remembered, and as what.
    fn word(&self, note: &RouteNote, now: Duration) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(note);
        let second = (now.as_secs() + 1) & SECONDS;
        (&self.said[hash as usize % PLACES], hash & !SECONDS | second)
    }

    fn place(&self, of: &impl Hash) -> usize {
        self.hasher.hash_one(of) as usize % PLACES
    }
}
