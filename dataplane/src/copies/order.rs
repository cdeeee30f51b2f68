//! The windows of everybody who sends copies here, and when each has waited for long enough.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use super::skew::Came;
pub(crate) use super::window::Arrival;
use super::window::{Ready, Room, Tally, Window};
use super::{SWEEP_FROM, Whose};
use crate::counters::Counters;
use crate::wire::CopySequence;
use crate::wire::copy_sequence::STREAMS;

/// Windows of a registration that sent nothing for so long are forgotten.
const IDLE: Duration = Duration::from_secs(600);

/// Bounds of what waits for missing packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nothing waits for longer. It waits for less where the links are known to differ by less.
    pub hold: Duration,
    /// Octets that wait in all.
    pub octets: usize,
    /// And of one registration, so that a mobile cannot take the room of others.
    pub octets_of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hold: Duration::from_millis(50), octets: 16 << 20, octets_of_one: 1 << 20 }
    }
}

/// Puts copies in order.
#[derive(Debug)]
pub(crate) struct Order {
    limits: Limits,
    receivers: Mutex<Receivers>,
    /// When the first of those that wait is due, in nanoseconds: read without the lock.
    until: AtomicU64,
    /// Whether something is ready.
    ready: AtomicBool,
}

#[derive(Debug)]
struct Receivers {
    known: HashMap<Whose, Receiver, ahash::RandomState>,
    sweep_at: usize,
    /// Every window that holds something, by when it is due.
    due: BTreeSet<(Duration, Whose, u16)>,
    ready: Ready,
    /// Octets that wait, those that are ready apart.
    octets: usize,
}

#[derive(Debug)]
struct Receiver {
    windows: [Option<Box<Window>>; STREAMS as usize],
    octets: usize,
    used: Duration,
}

impl Order {
    /// Nothing came yet.
    pub fn new(limits: Limits, hasher: ahash::RandomState) -> Self {
        let receivers = Receivers {
            known: HashMap::with_hasher(hasher),
            sweep_at: SWEEP_FROM,
            due: BTreeSet::new(),
            ready: Ready::default(),
            octets: 0,
        };
        Self {
            limits,
            receivers: Mutex::new(receivers),
            until: AtomicU64::new(u64::MAX),
            ready: AtomicBool::new(false),
        }
    }

    /// Takes a packet of an admitted sender; `None` is a message that is handled when it comes and
    /// takes its place only.
    pub fn arrive(
        &self,
        whose: Whose,
        copy: &CopySequence,
        packet: Option<&[u8]>,
        came: Came,
        counters: &Counters,
    ) -> Arrival {
        let now = came.at;
        let mut receivers = self.lock();
        let Receivers { known, sweep_at, due, ready, octets } = &mut *receivers;
        if known.len() >= *sweep_at && !known.contains_key(&whose) {
            known.retain(|_, it| it.octets > 0 || now.saturating_sub(it.used) < IDLE);
            *sweep_at = SWEEP_FROM.max(known.len() * 2);
        }
        let receiver = known.entry(whose).or_insert_with(|| Receiver {
            windows: [const { None }; STREAMS as usize],
            octets: 0,
            used: now,
        });
        receiver.used = now;
        let mut tally = Tally::default();
        let window = receiver.windows[usize::from(copy.stream % STREAMS)]
            .get_or_insert_with(|| Box::new(Window::new(copy, now, &mut tally)));
        let (before, held) = (window.until(), window.octets());
        let Limits { hold, octets: in_all, octets_of_one } = self.limits;
        let left = in_all.saturating_sub(*octets);
        let of_one = octets_of_one.saturating_sub(receiver.octets);
        let room = Room { octets: left.min(of_one), ready: in_all, hold };
        let arrival = window.arrive(copy, packet, came, room, ready, &mut tally);
        for sum in [octets, &mut receiver.octets] {
            *sum = *sum - held + window.octets();
        }
        reschedule(due, before, window.until(), whose, copy.stream);
        self.show(&receivers);
        drop(receivers);
        counters.order(tally);
        arrival
    }

    /// Takes one packet that is to be delivered now; the next one is to be asked for at once.
    pub fn released(&self, now: Duration, counters: &Counters) -> Option<Vec<u8>> {
        if !self.ready.load(Ordering::Acquire) && nanos(now) < self.until.load(Ordering::Acquire) {
            return None;
        }
        let mut receivers = self.lock();
        let Receivers { known, due, ready, octets, .. } = &mut *receivers;
        let mut tally = Tally::default();
        while let Some(&(at, whose, stream)) = due.first().filter(|(at, ..)| *at <= now) {
            let receiver = known.get_mut(&whose).expect("who waits is known");
            let window = receiver.windows[usize::from(stream)].as_mut().expect("it holds packets");
            let held = window.octets();
            window.expire(now, ready, &mut tally);
            for sum in [&mut *octets, &mut receiver.octets] {
                *sum = *sum - held + window.octets();
            }
            reschedule(due, Some(at), window.until(), whose, stream);
        }
        let packet = ready.pop();
        self.show(&receivers);
        drop(receivers);
        counters.order(tally);
        packet
    }

    /// When [`Self::released`] has something to give; zero if it has already.
    pub fn until(&self) -> Option<Duration> {
        if self.ready.load(Ordering::Acquire) {
            return Some(Duration::ZERO);
        }
        let until = self.until.load(Ordering::Acquire);
        (until != u64::MAX).then(|| Duration::from_nanos(until))
    }

    fn show(&self, receivers: &Receivers) {
        let until = receivers.due.first().map_or(u64::MAX, |(at, ..)| nanos(*at));
        self.until.store(until, Ordering::Release);
        self.ready.store(!receivers.ready.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Receivers> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reschedule(
    due: &mut BTreeSet<(Duration, Whose, u16)>,
    before: Option<Duration>,
    after: Option<Duration>,
    whose: Whose,
    stream: u16,
) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        due.remove(&(before, whose, stream));
    }
    if let Some(after) = after {
        due.insert((after, whose, stream));
    }
}

/// Of a time that never comes, a number that no time reaches.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
