//! Round trips of packets that go by anyway.
//!
//! Where a TCP segment leaves by a binding and what acknowledges it comes back by the same one, the
//! time between is a round trip of that path and of what lies behind the agent: how long people
//! wait, beside what probes say of the link alone. No packet is made for it and none is held.
//!
//! One segment of each binding is waited for at a time, at most one a second is begun, so that most
//! packets cost one read of memory. A segment that is sent again says nothing (Karn's rule), nor does one
//! whose acknowledgement came by another binding or after three seconds. Where a fast path of the
//! kernel carries decided flows, their acknowledgements are not seen here: then only the first packet of
//! a connection is waited for, whose answer is always seen.
//!
//! Nobody judges links by these figures: two flows go to two places.
//!
//! Standards: RFC 6298 §2, §3.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::{Bid, FlowKey};

use crate::packet::Segment;

/// Bindings that are told apart; those of two BIDs with the same remainder take turns.
const SLOTS: usize = 64;

/// Between the beginnings of two measurements of one binding.
const PACE: Duration = Duration::from_secs(1);

/// An answer after this time answers nothing.
const LONGEST: Duration = Duration::from_secs(3);

/// What is older than this is not known any more.
const BELIEVED: Duration = Duration::from_secs(300);

/// The round trips of conversations by one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationTimes {
    /// Smoothed (RFC 6298 §2).
    pub smoothed: Duration,
    /// Of how many segments.
    pub segments: u64,
    /// When the last of them was acknowledged.
    pub at: Duration,
}

/// The two ends of a connection, as its packets that leave name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    near: (IpAddr, Option<u16>),
    far: (IpAddr, Option<u16>),
}

impl Ends {
    fn of(key: &FlowKey) -> Self {
        let near = (key.source, key.source_port);
        Self { near, far: (key.destination, key.destination_port) }
    }

    fn of_answer(key: &FlowKey) -> Self {
        let Self { near, far } = Self::of(key);
        Self { near: far, far: near }
    }
}

/// A segment that is to be acknowledged.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    ends: Ends,
    /// The sequence number behind it.
    end: u32,
    sent: Duration,
}

/// One binding.
#[derive(Debug, Default)]
struct Slot {
    /// From when on the next segment is waited for, in nanoseconds; read before anything is locked.
    due: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Another care-of address is another path.
    care_of: Option<IpAddr>,
    waiting: Option<Waiting>,
    times: Option<ConversationTimes>,
}

/// The round trips of all bindings of one engine.
#[derive(Debug)]
pub(crate) struct Conversations {
    slots: [Slot; SLOTS],
    /// One bit for each slot that waits.
    waiting: AtomicU64,
}

impl Default for Conversations {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), waiting: AtomicU64::new(0) }
    }
}

impl Conversations {
    /// A TCP packet left by a binding; `segment` is read if it may be of interest.
    pub fn left(
        &self,
        (bid, care_of): (Bid, IpAddr),
        key: &FlowKey,
        now: Duration,
        segment: impl FnOnce() -> Option<Segment>,
    ) {
        let place = place(bid);
        let slot = &self.slots[place];
        let waits = self.waiting.load(Ordering::Relaxed) & 1 << place != 0;
        if !waits && nanoseconds(now) < slot.due.load(Ordering::Relaxed) {
            return;
        }
        let Some(end) = segment().and_then(|segment| segment.end) else { return };
        let ends = Ends::of(key);
        let mut state = slot.lock();
        if let Some(before) = state.waiting {
            let again = before.ends == ends && end.wrapping_sub(before.end).cast_signed() <= 0;
            let over = now.saturating_sub(before.sent) > LONGEST;
            if again || over {
                self.wait(place, &mut state, None);
            }
            if !over {
                return;
            }
        }
        if state.care_of != Some(care_of) {
            *state = State { care_of: Some(care_of), ..State::default() };
        }
        slot.due.store(nanoseconds(now + PACE), Ordering::Relaxed);
        self.wait(place, &mut state, Some(Waiting { ends, end, sent: now }));
    }

    /// A TCP packet came by a binding.
    pub fn came(
        &self,
        bid: Bid,
        key: &FlowKey,
        now: Duration,
        segment: impl FnOnce() -> Option<Segment>,
    ) {
        let mut waiting = self.waiting.load(Ordering::Relaxed);
        if waiting == 0 {
            return;
        }
        let Some(segment) = segment() else { return };
        let ends = Ends::of_answer(key);
        while waiting != 0 {
            let place_of = waiting.trailing_zeros() as usize;
            waiting &= waiting - 1;
            let mut state = self.slots[place_of].lock();
            let Some(sent) = state.waiting.filter(|it| it.ends == ends && segment.answers(it.end))
            else {
                continue;
            };
            self.wait(place_of, &mut state, None);
            let took = now.saturating_sub(sent.sent);
            if place_of == place(bid) && took <= LONGEST && !segment.resets {
                state.note(took, now);
            }
        }
    }

    /// What is known of a binding with this care-of address, and not too old.
    pub fn times(&self, bid: Bid, care_of: IpAddr, now: Duration) -> Option<ConversationTimes> {
        let state = self.slots[place(bid)].lock();
        let times = state.times.filter(|_| state.care_of == Some(care_of))?;
        (now.saturating_sub(times.at) < BELIEVED).then_some(times)
    }

    fn wait(&self, place: usize, state: &mut State, waiting: Option<Waiting>) {
        state.waiting = waiting;
        match waiting {
            Some(_) => self.waiting.fetch_or(1 << place, Ordering::Relaxed),
            None => self.waiting.fetch_and(!(1 << place), Ordering::Relaxed),
        };
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a few assignments; a panic elsewhere cannot leave one half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, took: Duration, at: Duration) {
        self.times = Some(match self.times {
            None => ConversationTimes { smoothed: took, segments: 1, at },
            Some(ConversationTimes { smoothed, segments, .. }) => ConversationTimes {
                smoothed: (smoothed * 7 + took) / 8,
                segments: segments + 1,
                at,
            },
        });
    }
}

fn place(bid: Bid) -> usize {
    usize::from(bid.get()) % SLOTS
}

/// Good for 584 years.
fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use mtun_policy::Ingress;

    use super::*;
    use crate::wire::TCP;

    const NEAR: &str = "2001:db8:100::42";
    const FAR: &str = "2001:db8:c::9";

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn bid(number: u16) -> Bid {
        Bid::new(number).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A packet that leaves from this port.
    fn key(port: u16) -> FlowKey {
        FlowKey {
            source: address(NEAR),
            destination: address(FAR),
            protocol: TCP,
            source_port: Some(port),
            destination_port: Some(80),
            dscp: 0,
            ingress: Ingress::LOCAL,
            flow_label: 5,
            spi: None,
            icmp_type: None,
            uid: None,
        }
    }

    /// One that comes back, with a class and a label of its own.
    fn answer(port: u16) -> FlowKey {
        let FlowKey { source, destination, source_port, destination_port, .. } = key(port);
        FlowKey {
            source: destination,
            destination: source,
            source_port: destination_port,
            destination_port: source_port,
            dscp: 10,
            ingress: Ingress::OTHER,
            flow_label: 9,
            ..key(port)
        }
    }

    fn takes(end: u32) -> Option<Segment> {
        Some(Segment { end: Some(end), acknowledges: None, resets: false })
    }

    fn acknowledges(number: u32) -> Option<Segment> {
        Some(Segment { end: None, acknowledges: Some(number), resets: false })
    }

    const WLAN: &str = "2001:db8:1::7";

    fn left(all: &Conversations, by: u16, port: u16, end: u32, at: u64) {
        all.left((bid(by), address(WLAN)), &key(port), ms(at), || takes(end));
    }

    fn came(all: &Conversations, by: u16, port: u16, number: u32, at: u64) {
        all.came(bid(by), &answer(port), ms(at), || acknowledges(number));
    }

    fn known(all: &Conversations, by: u16, at: u64) -> Option<(u128, u64)> {
        let times = all.times(bid(by), address(WLAN), ms(at))?;
        Some((times.smoothed.as_millis(), times.segments))
    }

    #[test]
    fn what_counts_and_what_does_not() {
        // What leaves and comes: by which binding, from which port, up to which number, when.
        type Step = (bool, u16, u16, u32, u64);
        // The smoothed round trip in milliseconds and of how many.
        type Case<'c> = (&'c str, &'c [Step], Option<(u128, u64)>);
        const OUT: bool = true;
        const IN: bool = false;
        let cases: &[Case] = &[
            ("nothing", &[], None),
            ("a round trip", &[(OUT, 1, 5, 100, 10), (IN, 1, 5, 100, 50)], Some((40, 1))),
            (
                "acknowledged with what came behind it",
                &[(OUT, 1, 5, 100, 10), (OUT, 1, 5, 200, 11), (IN, 1, 5, 200, 51)],
                Some((41, 1)),
            ),
            (
                "what came before it is acknowledged first",
                &[(OUT, 1, 5, 100, 10), (IN, 1, 5, 60, 20), (IN, 1, 5, 100, 60)],
                Some((50, 1)),
            ),
            (
                "numbers that begin anew",
                &[(OUT, 1, 5, 10, 10), (IN, 1, 5, u32::MAX - 10, 20), (IN, 1, 5, 12, 40)],
                Some((30, 1)),
            ),
            (
                "sent again: of which of the two?",
                &[(OUT, 1, 5, 100, 10), (OUT, 1, 5, 100, 210), (IN, 1, 5, 100, 250)],
                None,
            ),
            (
                "another conversation's packet is no repetition",
                &[(OUT, 1, 5, 100, 10), (OUT, 1, 6, 50, 20), (IN, 1, 5, 100, 50)],
                Some((40, 1)),
            ),
            ("by another binding", &[(OUT, 1, 5, 100, 10), (IN, 2, 5, 100, 50)], None),
            (
                "by another binding first",
                &[(OUT, 1, 5, 100, 10), (IN, 2, 5, 100, 50), (IN, 1, 5, 200, 90)],
                None,
            ),
            ("too late", &[(OUT, 1, 5, 100, 10), (IN, 1, 5, 100, 3011)], None),
            (
                "another one after an answer that never came",
                &[(OUT, 1, 5, 100, 10), (OUT, 1, 6, 100, 4000), (IN, 1, 6, 100, 4020)],
                Some((20, 1)),
            ),
            (
                "one a second",
                &[
                    (OUT, 1, 5, 100, 0),
                    (IN, 1, 5, 100, 40),
                    (OUT, 1, 5, 200, 999),
                    (IN, 1, 5, 200, 1010),
                    (OUT, 1, 5, 300, 1011),
                    (IN, 1, 5, 300, 1131),
                ],
                Some((50, 2)),
            ),
        ];
        for (what, steps, want) in cases {
            let all = Conversations::default();
            for (out, by, port, number, at) in *steps {
                match *out {
                    true => left(&all, *by, *port, *number, *at),
                    false => came(&all, *by, *port, *number, *at),
                }
            }
            assert_eq!(known(&all, 1, 5000), *want, "{what}");
            assert_eq!(known(&all, 2, 5000), None, "{what}");
        }
    }

    #[test]
    fn bindings_are_told_apart_and_forgotten() {
        let all = Conversations::default();
        left(&all, 1, 5, 100, 0);
        left(&all, 2, 6, 100, 0);
        came(&all, 2, 6, 100, 30);
        came(&all, 1, 5, 100, 80);
        assert_eq!((known(&all, 1, 100), known(&all, 2, 100)), (Some((80, 1)), Some((30, 1))));
        assert_eq!(all.times(bid(1), address("2001:db8:5::7"), ms(100)), None, "another path");
        assert_eq!(known(&all, 1, 300_080), None, "too long ago");
        // The next segment by another care-of address begins anew.
        let elsewhere = address("2001:db8:5::7");
        all.left((bid(1), elsewhere), &key(5), ms(2000), || takes(300));
        assert_eq!(known(&all, 1, 2000), None);
    }

    #[test]
    fn a_reset_ends_the_waiting() {
        let all = Conversations::default();
        left(&all, 1, 5, 100, 0);
        let reset = Segment { end: None, acknowledges: Some(100), resets: true };
        all.came(bid(1), &answer(5), ms(20), || Some(reset));
        assert_eq!(known(&all, 1, 30), None);
        assert_eq!(all.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_is_not_due_is_not_read() {
        let all = Conversations::default();
        came(&all, 1, 5, 100, 0);
        left(&all, 1, 5, 100, 0);
        came(&all, 1, 5, 100, 20);
        let path = (bid(1), address(WLAN));
        all.left(path, &key(5), ms(500), || panic!("it was read"));
        all.came(bid(1), &answer(5), ms(500), || panic!("it was read"));
    }
}
