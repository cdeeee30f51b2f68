//! The order of received copies against a naive reading: whatever links do, every packet that came
//! is delivered once, nothing waits for longer than the bound, and what is late is late for a
//! reason.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mtun_dataplane::wire::{CopySequence, Header, TunnelOptions};
use mtun_dataplane::{
    CopyMark, DropReason, IgnoreReason, OrderCounts, OrderLimits, PathId, Registration, Settings,
    Verdict,
};
use proptest::prelude::*;
use support::*;

const MS: Duration = Duration::from_millis(1);
const HOLD: Duration = Duration::from_millis(50);

fn agent_node(order: OrderLimits) -> Node {
    let home = registration(routed(uplinks()), figure_11());
    let home = Registration { copies: CopyMark::On, ..home };
    Node::with(agent_with(home), Settings { order, ..Settings::default() })
}

/// A packet whose payload is its number, `length` octets in all.
fn inner(number: u32, length: usize) -> Vec<u8> {
    let mut packet = udp(HOME, PEER, (1, 9), length);
    packet[48..52].copy_from_slice(&number.to_be_bytes());
    packet
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[48..52].try_into().unwrap())
}

/// An outer packet of the mobile with this place.
fn outer(copy: CopySequence, inner: &[u8]) -> Vec<u8> {
    outer_from(WLAN, copy, inner)
}

/// The same by another of its links.
fn outer_from(care_of: &str, copy: CopySequence, inner: &[u8]) -> Vec<u8> {
    let options = TunnelOptions { limit: None, copy: Some(copy) };
    let mut out = Vec::new();
    Header {
        traffic_class: 0,
        flow_label: 0,
        payload_length: (inner.len() + options.octets()) as u16,
        next_header: 60,
        hop_limit: 9,
        source: v6(care_of),
        destination: v6(AGENT),
    }
    .emit(&mut out);
    options.emit(41, &mut out);
    out.extend_from_slice(inner);
    out
}

fn place(stream: u16, epoch: u32, sequence: u32) -> CopySequence {
    CopySequence { stream, epoch, sequence }
}

/// One end, and what it delivered when.
struct Receiver {
    node: Node,
    delivered: Vec<(Duration, u32)>,
}

impl Receiver {
    fn new(order: OrderLimits) -> Self {
        Self { node: agent_node(order), delivered: Vec::new() }
    }

    fn take(&mut self, now: Duration, outer: &[u8]) -> Verdict {
        self.wake(now);
        let verdict = self.node.engine.inbound(PathId(1), outer, now, &mut self.node.out);
        if verdict == Verdict::Deliver {
            self.delivered.push((now, number_of(&self.node.out)));
        }
        self.drain(now);
        verdict
    }

    fn drain(&mut self, now: Duration) {
        while self.node.engine.released(now, &mut self.node.out) {
            self.delivered.push((now, number_of(&self.node.out)));
        }
    }

    /// What a thread does that sleeps until the engine's deadline.
    fn wake(&mut self, until: Duration) {
        while let Some(at) = self.node.engine.held_until().filter(|at| *at <= until) {
            self.drain(at);
            assert_ne!(self.node.engine.held_until(), Some(at), "nothing comes of a deadline");
        }
    }

    fn order(&self) -> Vec<u32> {
        self.delivered.iter().map(|(_, number)| *number).collect()
    }

    fn counts(&self) -> OrderCounts {
        self.node.engine.counters().snapshot().order
    }

    fn dropped(&self) -> u64 {
        self.node.engine.counters().snapshot().dropped(DropReason::Duplicate)
    }
}

/// What becomes of one packet's copies: after how many milliseconds each comes, if it does.
type Fate = [Option<u16>; 3];

fn fate() -> impl Strategy<Value = Fate> {
    let near = prop::option::weighted(0.9, 0..6u16);
    let far = prop::option::weighted(0.8, 20..45u16);
    let wild = prop::option::weighted(0.1, 0..200u16);
    (near, far, wild).prop_map(|(near, far, wild)| [near, far, wild])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_that_came_is_delivered_once_and_in_its_turn(
        fates in prop::collection::vec((0..4u16, fate()), 1..250),
        start in prop_oneof![Just(0u32), Just(u32::MAX - 40), any::<u32>()],
        dead in prop::option::of((0..3usize, 0..250usize, 0..250usize)),
        streams in 1..3u16,
    ) {
        // A millisecond or more between packets; each has a place in one of the streams.
        let mut arrivals: Vec<(Duration, usize, u32, CopySequence)> = Vec::new();
        let mut next = BTreeMap::<u16, u32>::new();
        let mut stream_of = BTreeMap::new();
        let mut sent_at = NOW;
        for (number, (gap, copies)) in fates.iter().enumerate() {
            sent_at += u32::from(*gap) * MS;
            let stream = number as u16 % streams;
            let sequence = next.entry(stream).or_insert(start);
            let copy = place(stream, 77, *sequence);
            *sequence = sequence.wrapping_add(1);
            stream_of.insert(number as u32, stream);
            for (link, delay) in copies.iter().enumerate() {
                let is_dead = dead.is_some_and(|(dead, from, to)| {
                    dead == link && (from..to).contains(&number)
                });
                if let Some(delay) = delay.filter(|_| !is_dead) {
                    arrivals.push((sent_at + u32::from(delay) * MS, link, number as u32, copy));
                }
            }
        }
        arrivals.sort_by_key(|(at, link, number, _)| (*at, *link, *number));
        let mut receiver = Receiver::new(OrderLimits::default());
        let mut first_came = BTreeMap::new();
        for (at, _, number, copy) in &arrivals {
            let is_first = !first_came.contains_key(number);
            first_came.entry(*number).or_insert(*at);
            let verdict = receiver.take(*at, &outer(*copy, &inner(*number, 100)));
            match verdict {
                Verdict::Deliver | Verdict::Ignore(IgnoreReason::CopyHeld) => prop_assert!(is_first),
                Verdict::Drop(DropReason::Duplicate) => prop_assert!(!is_first),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
        receiver.wake(Duration::MAX);

        // Once each, all that came, and no packet that did not.
        let order = receiver.order();
        let once: BTreeSet<u32> = order.iter().copied().collect();
        prop_assert_eq!(once.len(), order.len(), "twice");
        prop_assert_eq!(once.into_iter().collect::<Vec<_>>(),
            first_came.keys().copied().collect::<Vec<_>>(), "lost");
        prop_assert_eq!(receiver.dropped() as usize, arrivals.len() - order.len());
        for (place, (at, number)) in receiver.delivered.iter().enumerate() {
            let came = first_came[number];
            prop_assert!(*at >= came && *at - came <= HOLD, "{} waits {:?}", number, *at - came);
            let same = |other: &&(Duration, u32)| stream_of[&other.1] == stream_of[number];
            // Out of turn only if it came when those behind it could wait no longer.
            for (when, other) in receiver.delivered[..place].iter().filter(same) {
                if other > number {
                    prop_assert!(came >= *when, "{} before {}", other, number);
                }
            }
            // Nothing waits for what is not missing: if it waited, something before it was not
            // there when it came.
            if *at > came {
                let first = receiver.delivered.iter().find(|it| same(it)).unwrap();
                let missing = (first.1..*number).any(|before| {
                    stream_of[&before] == stream_of[number]
                        && first_came.get(&before).is_none_or(|other| *other > came)
                });
                prop_assert!(missing, "{} waits for nothing", number);
            }
        }
        // Late is what came behind one that had a later place; given up is, between the first of a
        // stream and the last, whatever was not delivered before those behind it.
        let (mut late, mut given_up) = (0, 0);
        for stream in 0..streams {
            let of_stream = order.iter().copied().filter(|number| stream_of[number] == stream);
            let turn: Vec<u32> = of_stream.collect();
            let (Some(first), Some(last)) = (turn.first(), turn.iter().max()) else { continue };
            let mut greatest = 0;
            let mut in_turn = 0;
            for number in &turn {
                let is_late = *number < greatest;
                late += u64::from(is_late);
                in_turn += u32::from(!is_late);
                greatest = greatest.max(*number);
            }
            let span = (last - first) / u32::from(streams) + 1;
            given_up += u64::from(span - in_turn);
        }
        let counts = receiver.counts();
        prop_assert_eq!((counts.given_up, counts.late), (given_up, late));
    }

    /// Any places at all, from somebody who may send: bounded memory, nothing lost, nothing twice
    /// that was within reach, and always an end to waiting.
    #[test]
    fn hostile_places_cost_their_sender_only(
        places in prop::collection::vec(
            (0..16u16, 0..3u32, prop_oneof![any::<u32>(), 0..3000u32, (u32::MAX - 9)..=u32::MAX], 0..30u16),
            1..300,
        ),
    ) {
        let limits = OrderLimits { octets: 8000, octets_of_one: 4000, ..OrderLimits::default() };
        let mut receiver = Receiver::new(limits);
        let (mut now, mut came) = (NOW, 0);
        for (number, (stream, epoch, sequence, pause)) in (0..).zip(places) {
            now += u32::from(pause) * MS;
            let packet = outer(place(stream, epoch, sequence), &inner(number, 400));
            match receiver.take(now, &packet) {
                Verdict::Deliver | Verdict::Ignore(IgnoreReason::CopyHeld) => came += 1,
                Verdict::Drop(DropReason::Duplicate) => {}
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
            // What is held: at most so many packets of 400 octets.
            let held = came - receiver.delivered.len();
            prop_assert!(held * 400 <= 4000, "{} held", held);
            if held > 0 {
                let until = receiver.node.engine.held_until();
                prop_assert!(until.is_some_and(|until| until > now && until <= now + HOLD));
            } else {
                prop_assert_eq!(receiver.node.engine.held_until(), None);
            }
        }
        receiver.wake(Duration::MAX);
        prop_assert_eq!(receiver.delivered.len(), came, "everything taken is delivered");
        let once: BTreeSet<_> = receiver.order().into_iter().collect();
        prop_assert_eq!(once.len(), came);
    }
}

/// What one place after another does: (what, places as epoch, sequence and milliseconds, delivered).
#[test]
fn the_window_as_a_table() {
    type Step = (u32, u32, u32);
    let cases: [(&str, &[Step], &[u32]); 9] = [
        ("in order", &[(1, 5, 0), (1, 6, 1), (1, 7, 2)], &[0, 1, 2]),
        ("a gap that fills", &[(1, 5, 0), (1, 7, 1), (1, 8, 2), (1, 6, 3)], &[0, 3, 1, 2]),
        ("a gap that does not", &[(1, 5, 0), (1, 7, 1), (1, 8, 52)], &[0, 1, 2]),
        ("late, after its gap was given up", &[(1, 5, 0), (1, 7, 1), (1, 6, 90)], &[0, 1, 2]),
        ("before the first", &[(1, 5, 0), (1, 4, 1), (1, 4, 2)], &[0, 1]),
        ("around the end of 32 bits", &[(1, u32::MAX, 0), (1, 1, 1), (1, 0, 2)], &[0, 2, 1]),
        // The sender began anew; what is left of its former life is not delivered behind the new.
        ("another epoch", &[(1, 900, 0), (2, 0, 1), (1, 901, 2), (2, 1, 3)], &[0, 1, 3]),
        ("too far ahead to wait for", &[(1, 5, 0), (1, 7, 1), (1, 5000, 2)], &[0, 1, 2]),
        // Somebody in the sender's name claims a far place: a second, and the sender is heard.
        (
            "far ahead and back",
            &[(1, 5, 0), (1, 1 << 30, 1), (1, 6, 2), (1, 7, 500), (1, 8, 1002), (1, 9, 1003)],
            &[0, 1, 4, 5],
        ),
    ];
    for (what, steps, want) in cases {
        let mut receiver = Receiver::new(OrderLimits::default());
        for (number, (epoch, sequence, at)) in (0..).zip(steps) {
            let packet = outer(place(0, *epoch, *sequence), &inner(number, 100));
            receiver.take(NOW + *at * MS, &packet);
        }
        receiver.wake(Duration::MAX);
        assert_eq!(receiver.order(), *want, "{what}");
    }
}

/// A packet whose copies are all lost delays others by the difference of the links and a little.
#[test]
fn the_wait_is_as_long_as_the_links_differ() {
    let mut receiver = Receiver::new(OrderLimits::default());
    let send = |receiver: &mut Receiver, sequence: u32, at: Duration| {
        let packet = outer(place(0, 1, sequence), &inner(sequence, 100));
        receiver.take(NOW + at, &packet);
    };
    // One link eight milliseconds behind the other.
    let mut at = Duration::ZERO;
    for sequence in 0..100 {
        at += 10 * MS;
        send(&mut receiver, sequence, at);
        send(&mut receiver, sequence, at + 8 * MS);
    }
    // One is lost for good.
    at += 20 * MS;
    send(&mut receiver, 101, at);
    assert_eq!(receiver.order().last(), Some(&99));
    let until = receiver.node.engine.held_until().expect("it waits");
    assert_eq!(until, NOW + at + 20 * MS, "eight, a quarter more, and ten");
    receiver.wake(until);
    assert_eq!(receiver.order().last(), Some(&101));
    assert_eq!(receiver.counts(), OrderCounts { given_up: 1, late: 0, begun: 1 });
}

/// Where nothing can be kept, packets go on as they come.
#[test]
fn without_room_order_is_given_up_and_no_packet() {
    let none = OrderLimits { octets: 0, octets_of_one: 0, ..OrderLimits::default() };
    let mut receiver = Receiver::new(none);
    for (number, sequence) in [0, 3, 1, 2, 3, 4].into_iter().enumerate() {
        let packet = outer(place(0, 1, sequence), &inner(number as u32, 100));
        receiver.take(NOW, &packet);
    }
    assert_eq!(receiver.order(), [0, 1, 2, 3, 5], "the second of number three is the fifth");
    assert_eq!(receiver.counts(), OrderCounts { given_up: 2, late: 2, begun: 1 });
    assert_eq!(receiver.node.engine.held_until(), None);
}

/// Mobiles do not wait for each other, nor do they share numbers.
#[test]
fn each_mobile_has_windows_of_its_own() {
    let mut node = agent_node(OrderLimits::default());
    let mut other = registration(Vec::new(), figure_11());
    other.home_address.0 = v6("2001:db8:100::77");
    other.prefixes.clear();
    other.bindings = routed(vec![binding(Some(1), "2001:db8:3::7", PathId(1))]).into();
    other.copies = CopyMark::On;
    let mut snapshot = (*node.snapshot.load_full()).clone();
    snapshot.cache = snapshot.cache.with(other);
    node.snapshot.store(snapshot.into());
    let mut take = |sequence, of_other: bool| {
        let mut packet = outer(place(0, 1, sequence), &inner(sequence, 100));
        if of_other {
            packet[8..24].copy_from_slice(&v6("2001:db8:3::7").octets());
            packet[56 + 8..56 + 24].copy_from_slice(&v6("2001:db8:100::77").octets());
        }
        node.engine.inbound(PathId(1), &packet, NOW, &mut node.out)
    };
    assert_eq!(take(0, false), Verdict::Deliver);
    assert_eq!(take(2, false), Verdict::Ignore(IgnoreReason::CopyHeld));
    assert_eq!(take(0, true), Verdict::Deliver, "the same number of another");
    assert_eq!(take(1, true), Verdict::Deliver);
    assert_eq!(take(0, false), Verdict::Drop(DropReason::Duplicate));
}

/// The faster of two links was silent for two seconds. When it is back it is 15 ms ahead of all that
/// is under way by the other, more than is waited for where one link brings all.
#[test]
fn a_faster_link_that_is_back_disturbs_no_order() {
    let mut receiver = Receiver::new(OrderLimits { hold: HOLD, ..OrderLimits::default() });
    // One packet each 5 ms: by the slow link always, by the fast one at the end only.
    let (packets, back) = (420_u32, 400);
    let mut arrivals: Vec<(Duration, u32, &str)> = Vec::new();
    for number in 0..packets {
        let sent = NOW + number * 5 * MS;
        arrivals.push((sent + 20 * MS, number, WWAN));
        if number >= back {
            arrivals.push((sent + 5 * MS, number, WLAN));
        }
    }
    arrivals.sort();
    for (at, number, care_of) in arrivals {
        receiver.take(at, &outer_from(care_of, place(0, 77, number), &inner(number, 100)));
    }
    assert_eq!(receiver.order(), (0..packets).collect::<Vec<_>>());
    assert_eq!(receiver.counts(), OrderCounts { given_up: 0, late: 0, begun: 1 });
}
