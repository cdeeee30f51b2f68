//! What has come of one stream, and what waits for what has not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::skew::{Came, Skew};
use crate::wire::CopySequence;

/// Numbers behind the next one of which it is known whether they came. A copy that is later than
/// that counts as one of a packet that was delivered.
const BEHIND: u64 = 2048;

/// A number so far ahead of the next one makes an end of waiting: 20 ms at 50,000 packets a second.
const AHEAD: u64 = 1024;

/// How long packets of a former epoch may be under way, and how long a stream must have made no
/// progress before numbers out of its reach are believed.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Octets that a held packet costs besides its own.
const SLOT: usize = 64;

/// Packets that are to be delivered, in this order.
#[derive(Debug, Default)]
pub(super) struct Ready {
    packets: VecDeque<Vec<u8>>,
    pub octets: usize,
}

impl Ready {
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn push(&mut self, packet: Vec<u8>) {
        // Of a message that was handled when it came, only the place was kept.
        if !packet.is_empty() {
            self.octets += packet.len() + SLOT;
            self.packets.push_back(packet);
        }
    }

    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.pop_front()?;
        self.octets -= packet.len() + SLOT;
        Some(packet)
    }
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is to be delivered, before all that is ready.
    Deliver,
    /// It was kept, and becomes ready later or is ready.
    Held,
    /// It is one of a packet that came already.
    Duplicate,
}

/// What happened to numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Were waited for and given up.
    pub given_up: u64,
    /// Came after they had been given up.
    pub late: u64,
    /// Began a window anew: the stream's first, or another epoch's.
    pub begun: u64,
}

/// How much may be kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// For what waits.
    pub octets: usize,
    /// For what is ready and was not asked for yet.
    pub ready: usize,
    pub hold: Duration,
}

#[derive(Debug)]
struct Held {
    packet: Vec<u8>,
    until: Duration,
}

/// One stream at its receiver.
///
/// Numbers are 64 bits wide here and begin behind the first 2^32, so that nothing wraps around.
#[derive(Debug)]
pub(super) struct Window {
    epoch: u32,
    /// The epoch before, and until when its packets may come.
    former: Option<(u32, Duration)>,
    /// All before it is delivered or given up.
    next: u64,
    /// When `next` last rose.
    advanced: Duration,
    /// Of the numbers behind `next`, whether they were delivered.
    delivered: [u64; BEHIND as usize / 64],
    held: BTreeMap<u64, Held>,
    octets: usize,
    until: Option<Duration>,
    skew: Skew,
}

impl Window {
    /// A window that begins with this packet.
    pub fn new(copy: &CopySequence, now: Duration, tally: &mut Tally) -> Self {
        tally.begun += 1;
        Self {
            epoch: copy.epoch,
            former: None,
            next: first(copy),
            advanced: now,
            delivered: [0; BEHIND as usize / 64],
            held: BTreeMap::new(),
            octets: 0,
            until: None,
            skew: Skew::UNKNOWN,
        }
    }

    /// Octets that are held, with what holding them costs.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// When [`Self::expire`] is due.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Takes a packet. Of a message that is handled as soon as it comes there is only its place.
    pub fn arrive(
        &mut self,
        copy: &CopySequence,
        packet: Option<&[u8]>,
        came: Came,
        room: Room,
        ready: &mut Ready,
        tally: &mut Tally,
    ) -> Arrival {
        let now = came.at;
        if copy.epoch != self.epoch {
            if self.former.is_some_and(|(former, until)| former == copy.epoch && now < until) {
                return Arrival::Duplicate;
            }
            let former = Some((self.epoch, now + UNDER_WAY));
            self.begin(copy, now, ready, tally);
            self.former = former;
        }
        let mut number = self.number(copy.sequence);
        if number < self.next && self.next - number > BEHIND {
            if now.saturating_sub(self.advanced) < UNDER_WAY {
                return Arrival::Duplicate;
            }
            // Nothing like it came for long: the sender, or somebody in its name, counts anew.
            self.begin(copy, now, ready, tally);
            number = self.next;
        }
        if self.has(number) {
            self.skew.again(number, came);
            return Arrival::Duplicate;
        }
        if number < self.next {
            tally.late += 1;
            self.set(number, true);
            return self.hand_on(packet, room, ready);
        }
        self.skew.first(number, came);
        let cost = SLOT + packet.map_or(0, <[u8]>::len);
        if number > self.next && number - self.next < AHEAD && cost <= room.octets {
            let until = now + self.skew.hold(room.hold);
            self.octets += cost;
            self.until = Some(self.until.map_or(until, |earliest| earliest.min(until)));
            let kept = packet.unwrap_or_default().to_vec();
            self.held.insert(number, Held { packet: kept, until });
            return if packet.is_some() { Arrival::Held } else { Arrival::Deliver };
        }
        if number > self.next {
            self.release(number, now, ready, tally);
            self.skip(number, tally);
        }
        let arrival = self.hand_on(packet, room, ready);
        self.step(now);
        self.run(now, ready);
        self.settle();
        arrival
    }

    /// Gives up what has been waited for until `now`.
    pub fn expire(&mut self, now: Duration, ready: &mut Ready, tally: &mut Tally) {
        let mut due = self.held.iter().filter(|(_, held)| held.until <= now);
        if let Some((&last, _)) = due.next_back() {
            self.release(last, now, ready, tally);
            self.run(now, ready);
        }
        self.settle();
    }

    /// Begins anew with this packet; what is held is delivered.
    fn begin(&mut self, copy: &CopySequence, now: Duration, ready: &mut Ready, tally: &mut Tally) {
        self.release(u64::MAX, now, ready, tally);
        *self = Self { skew: self.skew, ..Self::new(copy, now, tally) };
    }

    /// Delivers what is held up to this number, whatever is missing before it.
    fn release(&mut self, last: u64, now: Duration, ready: &mut Ready, tally: &mut Tally) {
        while let Some(first) = self.held.first_entry().filter(|it| *it.key() <= last) {
            let (number, held) = first.remove_entry();
            self.skip(number, tally);
            self.make_ready(held, now, ready);
        }
    }

    /// Delivers what is held and misses nothing any more.
    fn run(&mut self, now: Duration, ready: &mut Ready) {
        while let Some(held) = self.held.remove(&self.next) {
            self.make_ready(held, now, ready);
        }
    }

    fn make_ready(&mut self, held: Held, now: Duration, ready: &mut Ready) {
        self.octets -= SLOT + held.packet.len();
        ready.push(held.packet);
        self.step(now);
    }

    /// Delivers a packet at once, or behind those that are ready.
    fn hand_on(&self, packet: Option<&[u8]>, room: Room, ready: &mut Ready) -> Arrival {
        match packet {
            Some(packet) if !ready.is_empty() && ready.octets <= room.ready => {
                ready.push(packet.to_vec());
                Arrival::Held
            }
            _ => Arrival::Deliver,
        }
    }

    /// Gives up the numbers before this one.
    fn skip(&mut self, to: u64, tally: &mut Tally) {
        tally.given_up += to - self.next;
        for number in self.next.max(to.saturating_sub(BEHIND))..to {
            self.set(number, false);
        }
        self.next = to;
    }

    fn step(&mut self, now: Duration) {
        self.set(self.next, true);
        self.next += 1;
        self.advanced = now;
    }

    fn settle(&mut self) {
        self.until = self.held.values().map(|held| held.until).min();
    }

    /// The number whose lower half this is and that is nearest to the next one.
    fn number(&self, sequence: u32) -> u64 {
        let ahead = sequence.wrapping_sub(self.next as u32).cast_signed();
        self.next.wrapping_add_signed(ahead.into())
    }

    fn has(&self, number: u64) -> bool {
        match number < self.next {
            true => {
                self.delivered[number as usize % BEHIND as usize / 64] >> (number % 64) & 1 == 1
            }
            false => self.held.contains_key(&number),
        }
    }

    fn set(&mut self, number: u64, delivered: bool) {
        let word = &mut self.delivered[number as usize % BEHIND as usize / 64];
        let bit = 1 << (number % 64);
        *word = if delivered { *word | bit } else { *word & !bit };
    }
}

/// The number that a window begins with.
fn first(copy: &CopySequence) -> u64 {
    (1 << 32) + u64::from(copy.sequence)
}
