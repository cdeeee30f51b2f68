//! A user-space wire: copies packets between two TUN devices, with delay, loss and rate.
//!
//! ```text
//!   wwan0 (TUN, mobile router)  <== thread: read, wait, write ==>  air0 (TUN, access router)
//! ```
//!
//! It stands in for netem, which many kernels lack, and for a modem, which has no link layer
//! either. One thread a wire; a packet leaves at its due time to within a fraction of a
//! millisecond when the machine is not overloaded. [`Wire::lateness`] tells how late the latest
//! one was, so that a measurement can say what its instrument added.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::last_error;
use super::tun::Tun;

/// Packets read from one end before the other end and the clock get their turn.
const BURST: usize = 64;

/// What one direction of a wire does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Time every packet spends on the wire.
    pub delay: Duration,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of packets that overtake all others: they spend no time on the wire, 0 to 1.
    pub reorder: f64,
    /// Octets a second, or unlimited.
    pub rate: Option<u64>,
    /// Octets that may wait for their turn when `rate` is set; more are dropped.
    pub queue: usize,
    /// Loses everything without telling anybody.
    pub cut: bool,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            rate: None,
            queue: 1 << 20,
            cut: false,
        }
    }
}

impl Impairment {
    /// Only a delay.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// One of a wire's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first end to the second, by convention away from the mobile.
    Up,
    /// From the second end to the first.
    Down,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written to the other end.
    pub carried: u64,
    /// Lost on purpose: `loss` or `cut`.
    pub lost: u64,
    /// Dropped because the queue was full or the other end was down.
    pub dropped: u64,
}

/// A running wire; ends when dropped.
#[derive(Debug)]
pub struct Wire {
    ends: Arc<[Tun; 2]>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    impairments: Mutex<[Impairment; 2]>,
    counts: Mutex<[Counts; 2]>,
    lateness: AtomicU64,
    stop: AtomicBool,
    wake: OwnedFd,
}

impl Wire {
    /// Joins two devices; both directions begin with `impairment`. `seed` makes losses repeat.
    pub fn join(first: Tun, second: Tun, impairment: Impairment, seed: u64) -> Result<Self> {
        // SAFETY: eventfd makes a descriptor or fails.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if wake < 0 {
            return Err(last_error("eventfd"));
        }
        let shared = Arc::new(Shared {
            impairments: Mutex::new([impairment; 2]),
            counts: Mutex::default(),
            lateness: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            // SAFETY: the descriptor was just made and belongs to nobody else.
            wake: unsafe { OwnedFd::from_raw_fd(wake) },
        });
        let ends = Arc::new([first, second]);
        let copier = Copier {
            ends: ends.clone(),
            shared: shared.clone(),
            lanes: [Lane::default(), Lane::default()],
            random: Random(seed | 1),
        };
        let thread =
            std::thread::Builder::new().name("lab-wire".into()).spawn(move || copier.run())?;
        Ok(Self { ends, shared, thread: Some(thread) })
    }

    /// Changes one direction, from the next packet on.
    pub fn set(&self, direction: Direction, change: impl FnOnce(&mut Impairment)) {
        let mut impairments = self.shared.impairments.lock().expect("no holder panics");
        change(&mut impairments[direction as usize]);
    }

    /// Changes both directions, from the next packet on.
    pub fn set_both(&self, change: impl Fn(&mut Impairment)) {
        self.set(Direction::Up, &change);
        self.set(Direction::Down, &change);
    }

    /// The impairment of one direction.
    pub fn impairment(&self, direction: Direction) -> Impairment {
        self.shared.impairments.lock().expect("no holder panics")[direction as usize]
    }

    /// What became of the packets of one direction.
    pub fn counts(&self, direction: Direction) -> Counts {
        self.shared.counts.lock().expect("no holder panics")[direction as usize]
    }

    /// Takes the carrier of both ends away or gives it back.
    pub fn set_carrier(&self, up: bool) -> Result<()> {
        self.ends.iter().try_for_each(|end| end.set_carrier(up))
    }

    /// The most that a packet was late against its due time since the last call.
    pub fn lateness(&self) -> Duration {
        Duration::from_nanos(self.shared.lateness.swap(0, Ordering::Relaxed))
    }

    /// The descriptors of both ends, to hand them to a process that goes on copying.
    pub fn descriptors(&self) -> [i32; 2] {
        [self.ends[0].descriptor(), self.ends[1].descriptor()]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer holds the eight octets an eventfd takes.
        unsafe { libc::write(self.shared.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet and when it is due at the other end. Ordered by time, then by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Instant,
    number: u64,
    packet: Vec<u8>,
}

/// One direction's packets under way.
#[derive(Debug, Default)]
struct Lane {
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    /// When the last octet admitted so far will have left, at the configured rate.
    busy_until: Option<Instant>,
    /// Sizes and end times of what is still leaving at the configured rate.
    leaving: VecDeque<(Instant, usize)>,
    backlog: usize,
}

impl Lane {
    /// Takes a packet read at `now`; `None` if the queue is full.
    fn admit(
        &mut self,
        now: Instant,
        packet: &[u8],
        impairment: &Impairment,
        overtakes: bool,
    ) -> Option<()> {
        let mut due = now;
        if let Some(rate) = impairment.rate {
            while self.leaving.front().is_some_and(|(end, _)| *end <= now) {
                let (_, size) = self.leaving.pop_front().expect("just seen");
                self.backlog -= size;
            }
            if self.backlog + packet.len() > impairment.queue {
                return None;
            }
            let start = self.busy_until.map_or(now, |busy| busy.max(now));
            let takes = Duration::from_nanos(packet.len() as u64 * 1_000_000_000 / rate.max(1));
            due = start + takes;
            self.busy_until = Some(due);
            self.leaving.push_back((due, packet.len()));
            self.backlog += packet.len();
        }
        if !overtakes {
            due += impairment.delay;
        }
        self.number += 1;
        self.waiting.push(Reverse(Waiting { due, number: self.number, packet: packet.to_vec() }));
        Some(())
    }

    fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.due)
    }

    fn take_due(&mut self, now: Instant) -> Option<Waiting> {
        if self.next_due()? > now {
            return None;
        }
        self.waiting.pop().map(|Reverse(waiting)| waiting)
    }
}

struct Copier {
    ends: Arc<[Tun; 2]>,
    shared: Arc<Shared>,
    lanes: [Lane; 2],
    random: Random,
}

impl Copier {
    fn run(mut self) {
        let mut buffer = vec![0; 1 << 16];
        while !self.shared.stop.load(Ordering::Relaxed) {
            for direction in [Direction::Up, Direction::Down] {
                self.read(direction, &mut buffer);
            }
            self.write_due();
            self.wait();
        }
    }

    fn read(&mut self, direction: Direction, buffer: &mut [u8]) {
        let side = direction as usize;
        let impairment = self.shared.impairments.lock().expect("no holder panics")[side];
        let mut counts = Counts::default();
        for _ in 0..BURST {
            // An error here means that the device has gone; the wire then carries nothing.
            let Ok(Some(length)) = self.ends[side].receive(buffer) else { break };
            if impairment.cut || self.random.happens(impairment.loss) {
                counts.lost += 1;
                continue;
            }
            let overtakes = self.random.happens(impairment.reorder);
            let now = Instant::now();
            if self.lanes[side].admit(now, &buffer[..length], &impairment, overtakes).is_none() {
                counts.dropped += 1;
            }
        }
        self.count(side, counts);
    }

    fn write_due(&mut self) {
        for side in 0..2 {
            let mut counts = Counts::default();
            while let Some(waiting) = self.lanes[side].take_due(Instant::now()) {
                let late = Instant::now() - waiting.due;
                self.shared.lateness.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
                if self.ends[1 - side].send(&waiting.packet) {
                    counts.carried += 1;
                } else {
                    counts.dropped += 1;
                }
            }
            self.count(side, counts);
        }
    }

    fn count(&self, side: usize, more: Counts) {
        if more != Counts::default() {
            let mut counts = self.shared.counts.lock().expect("no holder panics");
            counts[side].carried += more.carried;
            counts[side].lost += more.lost;
            counts[side].dropped += more.dropped;
        }
    }

    /// Waits for a packet, for the next due time or for the end.
    fn wait(&self) {
        let due = self.lanes.iter().filter_map(Lane::next_due).min();
        // The upper bound only limits how long a vanished wake-up could matter.
        let wait = due.map_or(Duration::from_millis(200), |due| {
            due.saturating_duration_since(Instant::now())
        });
        let timeout =
            libc::timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
        let descriptors =
            [self.ends[0].descriptor(), self.ends[1].descriptor(), self.shared.wake.as_raw_fd()];
        let mut polled =
            descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: three pollfd and one timespec that outlive the call.
        unsafe { libc::ppoll(polled.as_mut_ptr(), 3, &timeout, std::ptr::null()) };
        if polled.iter().any(|polled| polled.revents & libc::POLLERR != 0) {
            // A device that is down reports an error at once, again and again.
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// A small random source (xorshift64*), so that a seed repeats a run.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn happens(&mut self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (number as f64 / (1u64 << 53) as f64) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_times(lane: &mut Lane, start: Instant) -> Vec<(u8, u128)> {
        std::iter::from_fn(|| lane.take_due(start + Duration::from_secs(60)))
            .map(|waiting| (waiting.packet[0], (waiting.due - start).as_micros()))
            .collect()
    }

    #[test]
    fn delay_rate_and_overtaking_shape_the_due_times() {
        type Case = (&'static str, Impairment, &'static [bool], &'static [(u8, u128)]);
        let delay = Duration::from_millis(10);
        let limited = Impairment { delay, rate: Some(1_000_000), ..Impairment::default() };
        let cases: &[Case] = &[
            (
                "delay alone",
                Impairment::delayed(delay),
                &[false, false],
                &[(0, 10_000), (1, 10_000)],
            ),
            ("1000 octets at 1 MB/s", limited, &[false, false], &[(0, 11_000), (1, 12_000)]),
            (
                "the second overtakes",
                Impairment::delayed(delay),
                &[false, true],
                &[(1, 0), (0, 10_000)],
            ),
        ];
        for (what, impairment, overtakes, want) in cases {
            let mut lane = Lane::default();
            let start = Instant::now();
            for (number, overtakes) in overtakes.iter().enumerate() {
                let packet = [number as u8; 1000];
                assert!(lane.admit(start, &packet, impairment, *overtakes).is_some());
            }
            assert_eq!(due_times(&mut lane, start), *want, "{what}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_drains_again() {
        let impairment = Impairment { rate: Some(1_000_000), queue: 2000, ..Impairment::default() };
        let mut lane = Lane::default();
        let start = Instant::now();
        let mut admit = |now| lane.admit(now, &[0; 1000], &impairment, false).is_some();
        assert_eq!([admit(start), admit(start), admit(start)], [true, true, false]);
        assert!(admit(start + Duration::from_millis(1)), "one packet has left after 1 ms");
    }

    #[test]
    fn the_seed_repeats_the_losses() {
        let draw = |seed| {
            let mut random = Random(seed);
            (0..1000).map(|_| random.happens(0.3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(9));
        let lost = draw(7).into_iter().filter(|lost| *lost).count();
        assert!((230..370).contains(&lost), "{lost} of 1000 at 30 %");
    }
}
