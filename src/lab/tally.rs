//! What became of a stream of numbered packets: the judgement, apart from how they are sent.
//!
//! Times are nanoseconds of one clock. A gap is judged as the network made it: time in which the
//! sender itself did not send (its thread was not scheduled) is taken out, so that a busy machine
//! is not mistaken for a broken tunnel, while packets lost or held by the network count in full.

use std::ops::Range;

use schemars::JsonSchema;
use serde::Serialize;

/// A judged stretch of a stream, one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Tally {
    /// Packets offered.
    pub sent: u64,
    /// Different packets that arrived.
    pub received: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Arrivals of packets that had arrived before.
    pub duplicated: u64,
    /// Packets that arrived after a later one.
    pub reordered: u64,
    /// Longest time between two arrivals, in milliseconds.
    pub longest_gap_ms: f64,
}

/// An arrival: the packet's number and when it came.
pub type Arrival = (u32, u64);

/// Judges the packets of `range`.
///
/// `sent[n]` is when packet `n` was first sent, `offered(n)` whether this direction had it to
/// carry (an echo cannot return what never arrived), `arrivals` is in the order of arrival, and
/// `interval` is the time between two packets as intended, in nanoseconds.
pub fn judge(
    sent: &[u64],
    offered: impl Fn(u32) -> bool,
    arrivals: &[Arrival],
    range: Range<u32>,
    interval: u64,
) -> Tally {
    let mut tally =
        Tally { sent: range.clone().filter(|n| offered(*n)).count() as u64, ..Tally::default() };
    let size = range.len();
    let mut seen = vec![false; size];
    let mut highest = None;
    let mut longest = 0u64;
    // The arrival before the stretch begins the first gap, so that no gap falls between two.
    let mut previous = arrivals
        .iter()
        .copied()
        .filter(|(number, _)| *number < range.start)
        .max_by_key(|(number, _)| *number);
    for &(number, at) in arrivals.iter().filter(|(number, _)| range.contains(number)) {
        let place = (number - range.start) as usize;
        if std::mem::replace(&mut seen[place], true) {
            tally.duplicated += 1;
            continue;
        }
        tally.received += 1;
        if highest.is_some_and(|highest| highest > number) {
            tally.reordered += 1;
        }
        highest = highest.max(Some(number));
        if let Some((before, then)) = previous {
            longest = longest
                .max(at.saturating_sub(then).saturating_sub(stall(sent, before, number, interval)));
        }
        previous = Some((number, at));
    }
    // A stretch whose end never arrived has a gap at least as long as what was sent into it.
    if let (Some((before, _)), Some(last)) = (previous, range.clone().rfind(|n| offered(*n)))
        && last > before
        && let (Some(from), Some(to)) = (sent.get(before as usize), sent.get(last as usize))
    {
        longest = longest
            .max(to.saturating_sub(*from).saturating_sub(stall(sent, before, last, interval)));
    }
    tally.lost = tally.sent.saturating_sub(tally.received);
    tally.longest_gap_ms = (longest / 1000) as f64 / 1000.0;
    tally
}

/// Time between sending `from` and sending `to` in which the sender was not sending at its rate.
fn stall(sent: &[u64], from: u32, to: u32, interval: u64) -> u64 {
    let Some(times) = sent.get(from as usize..=to as usize) else { return 0 };
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).saturating_sub(2 * interval)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn each_fate_of_a_packet_is_told_apart() {
        let sent: Vec<u64> = (0..10).map(|n| n * MS).collect();
        let on_time = |numbers: &[u32]| -> Vec<Arrival> {
            numbers.iter().map(|n| (*n, (u64::from(*n) + 5) * MS)).collect()
        };
        let tally = |sent, received, lost, duplicated, reordered, longest_gap_ms| Tally {
            sent,
            received,
            lost,
            duplicated,
            reordered,
            longest_gap_ms,
        };
        let mut late = on_time(&[0, 1, 3, 4]);
        late.insert(3, (2, 8 * MS));
        let cases: &[(&str, Vec<Arrival>, Range<u32>, Tally)] = &[
            ("all", on_time(&[0, 1, 2, 3, 4]), 0..5, tally(5, 5, 0, 0, 0, 1.0)),
            ("one lost", on_time(&[0, 1, 3, 4]), 0..5, tally(5, 4, 1, 0, 0, 2.0)),
            ("end lost", on_time(&[0, 1]), 0..5, tally(5, 2, 3, 0, 0, 3.0)),
            ("nothing came", Vec::new(), 0..5, tally(5, 0, 5, 0, 0, 0.0)),
            ("one twice", on_time(&[0, 1, 1, 2]), 0..3, tally(3, 3, 0, 1, 0, 1.0)),
            ("one late", late, 0..5, tally(5, 5, 0, 0, 1, 2.0)),
            (
                "the gap began before the stretch",
                on_time(&[0, 4, 5]),
                3..6,
                tally(3, 2, 1, 0, 0, 4.0),
            ),
        ];
        for (what, arrivals, range, want) in cases {
            assert_eq!(judge(&sent, |_| true, arrivals, range.clone(), MS), *want, "{what}");
        }
    }

    #[test]
    fn a_sender_that_slept_makes_no_gap_but_a_loss_while_awake_does() {
        // Packet 2 was sent 50 ms late; the network carried it at once.
        let sent = [0, MS, 51 * MS, 52 * MS, 53 * MS, 54 * MS];
        let arrivals: Vec<Arrival> =
            [(0u32, 5 * MS), (1, 6 * MS), (2, 56 * MS), (5, 59 * MS)].to_vec();
        let tally = judge(&sent, |_| true, &arrivals, 0..6, MS);
        assert_eq!(tally.longest_gap_ms, 3.0, "3 and 4 were lost while the sender was awake");
        assert_eq!(tally.lost, 2);
    }

    #[test]
    fn an_echo_answers_only_for_what_it_was_given() {
        let sent: Vec<u64> = (0..4).map(|n| n * MS).collect();
        let back = [(0, 5 * MS), (2, 7 * MS)];
        let tally = judge(&sent, |n| n != 1, &back, 0..4, MS);
        assert_eq!((tally.sent, tally.received, tally.lost), (3, 2, 1));
    }
}
