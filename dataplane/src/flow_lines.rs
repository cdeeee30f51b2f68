//! The memory of a flow table: one cache line for each flow, and behind it whatever is kept of it.
//!
//! ```text
//!  0       8      16      24      32      40      48      56      64
//!  +-------+-------+-------+-------+-------+-------+-------+-------+
//!  |turn   |    source     |  destination  |ports, |gener.,|octets |
//!  |  seen |               |               |prot.  |rule...|       |
//!  +-------+-------+-------+-------+-------+-------+-------+-------+
//! ```
//!
//! A set is four lines. There are as many sets as flows may be kept, so that at most a quarter of
//! the lines is in use, a flow nearly always has the line that its hash prefers, and finding it
//! touches nothing else. When the table is full, the flow that was silent longest among the next
//! four or more goes. Lines that nobody has used yet take no memory.
//!
//! Lines are read without a lock: a writer makes the turn odd, writes, and makes it even again,
//! and a reader that saw the turn change reads again. Writers of a set hold its mutex, which also
//! guards what is kept behind the lines; nothing is done under it but one change, and nobody holds
//! two. Keys are chosen by whoever sends packets, so they are hashed with a secret.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::FlowKey;
use zerocopy::FromZeros;

/// Lines of a set.
const WAYS: usize = 4;

/// Words of a line.
const WORDS: usize = 8;

/// How often a reader that meets a writer tries again before it gives up.
const TURNS: usize = 3;

/// Flows looked up together, so that the memory is waited for once and not for each.
pub(crate) const BURST: usize = 32;

/// What names a flow: the key without what may differ from packet to packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowId([u64; 5]);

impl FlowId {
    /// The last word is never zero, so that an unused line is nobody's.
    const USED: u64 = 1;

    pub(crate) fn of(key: &FlowKey) -> Self {
        let address = |address: IpAddr| match address {
            IpAddr::V6(address) => (address.to_bits(), 1),
            IpAddr::V4(address) => (address.to_bits().into(), 0),
        };
        let (source, source_family) = address(key.source);
        let (destination, destination_family) = address(key.destination);
        let port = |port: Option<u16>| (u64::from(port.unwrap_or(0)), u64::from(port.is_some()));
        let (source_port, has_source_port) = port(key.source_port);
        let (destination_port, has_destination_port) = port(key.destination_port);
        let rest = Self::USED
            | source_family << 1
            | destination_family << 2
            | has_source_port << 3
            | has_destination_port << 4
            | u64::from(key.protocol) << 8
            | source_port << 16
            | destination_port << 32;
        let halves = |bits: u128| ((bits >> 64) as u64, bits as u64);
        let (source, destination) = (halves(source), halves(destination));
        Self([source.0, source.1, destination.0, destination.1, rest])
    }
}

/// What a line tells of a flow besides its name, in two words that only its owner understands.
pub(crate) trait Kept {
    /// The two words.
    fn brief(&self) -> [u64; 2];
}

#[derive(Clone, Copy)]
struct Line<'t>(&'t [AtomicU64; WORDS]);

/// A line as it was at one moment.
#[derive(Clone, Copy)]
struct Copied([u64; WORDS]);

impl Copied {
    fn id(&self) -> FlowId {
        FlowId([self.0[1], self.0[2], self.0[3], self.0[4], self.0[5]])
    }

    fn used(&self) -> bool {
        self.0[5] != 0
    }

    /// Milliseconds since the flow was last seen; right for gaps of up to 24 days. Another thread
    /// may be a little ahead of `now`.
    fn age(&self, now: u32) -> u32 {
        let age = now.wrapping_sub((self.0[0] >> 32) as u32);
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

impl Line<'_> {
    /// The line, or nothing if it is being written over and over.
    fn read(&self) -> Option<Copied> {
        self.read_from(self.0[0].load(Ordering::Acquire))
    }

    /// The same, with its first word read before.
    fn read_from(&self, mut first: u64) -> Option<Copied> {
        for _ in 0..TURNS {
            let mut words = [first; WORDS];
            for (word, kept) in words[1..].iter_mut().zip(&self.0[1..]) {
                *word = kept.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            let again = self.0[0].load(Ordering::Acquire);
            if again == first && first & 1 == 0 {
                return Some(Copied(words));
            }
            first = again;
            std::hint::spin_loop();
        }
        None
    }

    /// Writes the line; the caller holds the mutex of its set.
    fn write(&self, seen: u32, id: FlowId, brief: [u64; 2]) {
        let turn = self.0[0].load(Ordering::Relaxed) as u32;
        self.0[0].store(u64::from(turn | 1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (kept, word) in self.0[1..].iter().zip(id.0.into_iter().chain(brief)) {
            kept.store(word, Ordering::Relaxed);
        }
        let turn = (turn | 1).wrapping_add(1);
        self.0[0].store(u64::from(seen) << 32 | u64::from(turn), Ordering::Release);
    }

    fn clear(&self) {
        self.write(0, FlowId([0; 5]), [0; 2]);
    }
}

/// The lines of all sets, each a line of the processor's cache. What nobody has written takes no
/// memory: an allocation that is aligned is written when it is made, so this one is not, and begins
/// where the first cache line does.
struct Lines {
    words: Box<[AtomicU64]>,
    first: usize,
}

impl Lines {
    fn new(sets: usize) -> Self {
        let words = <[AtomicU64]>::new_box_zeroed_with_elems((sets * WAYS + 1) * WORDS)
            .expect("as much memory as the operator asked for");
        let first = words.as_ptr().align_offset(size_of::<[AtomicU64; WORDS]>());
        assert!(first < WORDS, "numbers lie at multiples of their size");
        Self { words, first }
    }

    fn sets(&self) -> usize {
        self.words.len() / WORDS / WAYS
    }

    fn of(&self, set: usize, way: usize) -> Line<'_> {
        let at = self.first + (set * WAYS + way) * WORDS;
        Line(self.words[at..].first_chunk().expect("one line more than there are in sets"))
    }
}

/// One set of a table: its lines and what is kept behind them.
struct Set<'t, V> {
    lines: [Line<'t>; WAYS],
    kept: &'t Mutex<Behind<V>>,
}

type Behind<V> = [Option<Box<V>>; WAYS];

impl<'t, V> Set<'t, V> {
    fn lock(&self) -> MutexGuard<'t, Behind<V>> {
        // Whoever panicked under the lock left a flow that is at worst out of date.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flows and what is kept of them.
pub(crate) struct FlowLines<V> {
    lines: Lines,
    kept: Box<[Mutex<Behind<V>>]>,
    used: AtomicUsize,
    hasher: ahash::RandomState,
}

/// Where a flow belongs: its set, and the line it prefers there.
#[derive(Clone, Copy, Default)]
struct Home {
    set: usize,
    way: usize,
}

/// A flow, and where it belongs.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    id: FlowId,
    home: Home,
}

impl Home {
    fn ways(self) -> impl Iterator<Item = usize> {
        (0..WAYS).map(move |step| (self.way + step) % WAYS)
    }
}

impl<V: Kept> FlowLines<V> {
    /// Memory for this many flows.
    pub(crate) fn new(capacity: usize, hasher: ahash::RandomState) -> Self {
        let sets = capacity.max(WAYS);
        let lines = Lines::new(sets);
        let kept = (0..sets).map(|_| Mutex::new([const { None }; WAYS])).collect();
        Self { lines, kept, used: AtomicUsize::new(0), hasher }
    }

    fn lines_of(&self, set: usize) -> [Line<'_>; WAYS] {
        std::array::from_fn(|way| self.lines.of(set, way))
    }

    fn set(&self, number: usize) -> Set<'_, V> {
        Set { lines: self.lines_of(number), kept: &self.kept[number] }
    }

    /// How many flows fit.
    pub(crate) fn capacity(&self) -> usize {
        self.lines.sets()
    }

    fn home(&self, id: &FlowId) -> Home {
        let mut hasher = self.hasher.build_hasher();
        id.0.iter().for_each(|word| hasher.write_u64(*word));
        let hash = hasher.finish();
        let set = (u128::from(hash) * self.capacity() as u128) >> 64;
        Home { set: set as usize, way: hash as usize % WAYS }
    }

    /// Where a flow belongs.
    pub(crate) fn place(&self, id: FlowId) -> Place {
        Place { id, home: self.home(&id) }
    }

    /// Reads a word of the line that a flow prefers and one of what is kept behind it. Who does so
    /// and then looks for something else waits for all of that at the same time.
    pub(crate) fn approach(&self, place: &Place) {
        let set = self.set(place.home.set);
        let first = set.lines[place.home.way].0[0].load(Ordering::Relaxed);
        std::hint::black_box((first, set.kept.is_poisoned()));
    }

    /// Reads what is kept of a flow.
    pub(crate) fn read<R>(&self, place: &Place, read: impl FnOnce(&V) -> R) -> Option<R> {
        let Place { id, home } = *place;
        let set = self.set(home.set);
        let kept = set.lock();
        let way = way_of(&set, &id, home)?;
        kept[way].as_deref().map(read)
    }

    /// Changes what is kept of a flow, if it is known.
    pub(crate) fn amend<R>(&self, place: &Place, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let Place { id, home } = *place;
        let set = self.set(home.set);
        let mut kept = set.lock();
        let way = way_of(&set, &id, home)?;
        let value = kept[way].as_deref_mut()?;
        let result = change(value);
        let seen = (set.lines[way].0[0].load(Ordering::Relaxed) >> 32) as u32;
        set.lines[way].write(seen, id, value.brief());
        Some(result)
    }

    /// Changes what is kept of a flow, beginning with `fresh` if it is not known. Allocates only
    /// for flows that find the table neither full nor their set.
    pub(crate) fn update<R>(
        &self,
        place: &Place,
        now: Duration,
        fresh: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        let now = now.as_millis() as u32;
        let Place { id, home } = *place;
        let set = self.set(home.set);
        let mut spare = None;
        let mut kept = set.lock();
        let way = loop {
            if let Some(way) = way_of(&set, &id, home) {
                break way;
            }
            let empty = home.ways().find(|way| kept[*way].is_none());
            let way = empty.or_else(|| oldest(&set, home, now)).expect("a set has lines");
            if kept[way].is_some() || spare.is_some() || self.reserve() {
                break way;
            }
            // Nobody holds two sets: what makes room is taken while this one is open.
            drop(kept);
            spare = self.take_oldest(home.set, now);
            if spare.is_none() {
                // Others took it first; they are about to put theirs in.
                std::hint::spin_loop();
            }
            kept = set.lock();
        };
        let known = kept[way].is_some() && set.lines[way].read().is_some_and(|l| l.id() == id);
        if !known {
            match (&mut kept[way], spare.take()) {
                (Some(value), given_back) => {
                    **value = fresh();
                    spare = given_back;
                }
                (empty, Some(mut value)) => {
                    *value = fresh();
                    *empty = Some(value);
                }
                (empty, None) => *empty = Some(Box::new(fresh())),
            }
        }
        if spare.is_some() {
            self.used.fetch_sub(1, Ordering::Relaxed);
        }
        let value = kept[way].as_deref_mut().expect("just found or put there");
        let result = change(value);
        set.lines[way].write(now, id, value.brief());
        result
    }

    /// Counts one flow more, if there is room.
    fn reserve(&self) -> bool {
        let more = |used| (used < self.capacity()).then_some(used + 1);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Takes out the flow that was silent longest among the next four or more.
    fn take_oldest(&self, from: usize, now: u32) -> Option<Box<V>> {
        let mut found: Option<(u32, usize, usize, FlowId)> = None;
        let mut met = 0;
        for step in 0..self.capacity() {
            let number = (from + step) % self.capacity();
            for (way, line) in self.lines_of(number).iter().enumerate() {
                let Some(line) = line.read().filter(Copied::used) else { continue };
                met += 1;
                if found.is_none_or(|(age, ..)| line.age(now) > age) {
                    found = Some((line.age(now), number, way, line.id()));
                }
            }
            if met >= WAYS {
                break;
            }
        }
        let (_, number, way, id) = found?;
        let set = self.set(number);
        let mut kept = set.lock();
        if set.lines[way].read()?.id() != id {
            return None;
        }
        set.lines[way].clear();
        kept[way].take()
    }

    /// What the lines of these flows tell; `found` is as long as `ids`.
    pub(crate) fn briefs(&self, ids: &[FlowId], found: &mut [Option<[u64; 2]>]) {
        let mut homes = [Home::default(); BURST];
        let mut firsts = [0; BURST];
        for (ids, found) in ids.chunks(BURST).zip(found.chunks_mut(BURST)) {
            // None of these loads waits for another, and by the next loop they are there.
            for ((id, home), first) in ids.iter().zip(&mut homes).zip(&mut firsts) {
                *home = self.home(id);
                let line = self.lines.of(home.set, home.way);
                *first = line.0[0].load(Ordering::Acquire);
            }
            for (at, (id, found)) in ids.iter().zip(found).enumerate() {
                let line = |way| self.lines.of(homes[at].set, way);
                let preferred = line(homes[at].way).read_from(firsts[at]);
                let others = homes[at].ways().skip(1).filter_map(|way| line(way).read());
                let mut all = preferred.into_iter().chain(others);
                *found = all.find(|line| line.id() == *id).map(|line| [line.0[6], line.0[7]]);
            }
        }
    }

    /// Shows every flow, in no promised order.
    pub(crate) fn each(&self, mut show: impl FnMut(&V)) {
        for number in 0..self.capacity() {
            if self.lines_of(number).iter().any(|line| line.0[5].load(Ordering::Relaxed) != 0) {
                self.set(number).lock().iter().flatten().for_each(|value| show(value));
            }
        }
    }
}

/// The line of this flow; the caller holds the mutex, so no line is in the middle of a change.
fn way_of<V>(set: &Set<'_, V>, id: &FlowId, home: Home) -> Option<usize> {
    let is = |way: &usize| {
        let line = set.lines[*way].0;
        (0..id.0.len()).all(|word| line[1 + word].load(Ordering::Relaxed) == id.0[word])
    };
    home.ways().find(is)
}

fn oldest<V>(set: &Set<'_, V>, home: Home, now: u32) -> Option<usize> {
    home.ways().max_by_key(|way| set.lines[*way].read().map_or(0, |line| line.age(now)))
}
