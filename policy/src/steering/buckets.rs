//! Which of 256 buckets goes by which link (`balance`).
//!
//! The first draw cuts the buckets at the weights exactly. A bucket whose link is away draws
//! again, by weight and by a hash of its number, until it finds a link that is there. A draw
//! depends on nothing but the rule, so a change moves only buckets whose link went or came back,
//! a link that comes back gets its own again, and every machine draws alike.
//!
//! Where the home agent is told the cut, ranges have to stay few: there the buckets of a link
//! that is away are cut among the others at their weights, side by side.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::effective::{Buckets, PortCut, Spread};
use crate::policy::Rule;
use crate::selector::TrafficSelector;
use crate::terms::Bid;
use crate::verb::Scope;

/// Draws after which a bucket takes the first link that is there.
const DRAWS: u64 = 64;

/// Gives every bucket a link of `present`, which is a part of `weights` in the same order.
pub(super) fn assign(weights: &[(Bid, u16)], present: &[Bid]) -> Buckets {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let at = |mut point: u64| {
        let owner = weights.iter().find(|(_, weight)| {
            let weight = u64::from(*weight);
            let inside = point < weight;
            point = point.saturating_sub(weight);
            inside
        });
        owner.and_then(|(bid, _)| present.iter().position(|there| there == bid))
    };
    let place = |bucket: u64| {
        if total == 0 || present.len() < 2 {
            return 0;
        }
        let draw = |draw: u64| match draw {
            0 => at(bucket * total / 256),
            _ => at(hash(bucket << 32 | draw) % total),
        };
        (0..DRAWS).find_map(draw).unwrap_or(0)
    };
    let mut places = [0; 256];
    for (bucket, slot) in (0..).zip(places.iter_mut()) {
        *slot = u8::try_from(place(bucket)).unwrap_or(0);
    }
    Buckets { links: present.to_vec(), places: Arc::new(places), spread: Spread::Hash }
}

/// Gives every bucket a link of `present`, so that each has few ranges of them.
pub(super) fn cut(weights: &[(Bid, u16)], present: &[Bid], ports: PortCut) -> Buckets {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let here: Vec<(u64, u64)> = present
        .iter()
        .map(|bid| weights.iter().find(|(known, _)| known == bid).map_or(0, |it| u64::from(it.1)))
        .zip(0..)
        .collect();
    let shared: u64 = here.iter().map(|(weight, _)| weight).sum();
    // The place of the link at a point of all present weights.
    let at = |mut point: u64| {
        let inside = |(weight, _): &&(u64, u64)| {
            let inside = point < *weight;
            point = point.saturating_sub(*weight);
            inside
        };
        here.iter().find(inside).map_or(0, |(_, place)| *place)
    };
    let mut places = [0_u8; 256];
    let mut before = 0;
    for (bid, weight) in weights {
        let edge = |point: u64| (point * 256).div_ceil(total.max(1));
        let (from, to) = (edge(before), edge(before + u64::from(*weight)));
        before += u64::from(*weight);
        let own = present.iter().position(|there| there == bid);
        for bucket in from..to.min(256) {
            let place = match own {
                Some(place) => place as u64,
                None => at((bucket - from) * shared / (to - from)),
            };
            places[bucket as usize] = u8::try_from(place).unwrap_or(0);
        }
    }
    let spread = Spread::Ports(ports);
    Buckets { links: present.to_vec(), places: Arc::new(places), spread }
}

/// Where the ports of a rule's flows can be cut: `None` if its flows do not stick one by one, or
/// have no or too few ports at the mobile's end.
pub(crate) fn port_cut(rule: &Rule) -> Option<PortCut> {
    if !matches!(rule.sticky.scope, Scope::Flow | Scope::None) {
        return None;
    }
    let lines = &rule.head.selectors;
    let has_ports = |line: &TrafficSelector| {
        line.protocols.is_empty() || line.protocols.iter().any(|it| WITH_PORTS.contains(it))
    };
    if !lines.is_empty() && !lines.iter().any(has_ports) {
        return None;
    }
    if lines.is_empty() || lines.iter().any(|line| line.source_ports.is_empty()) {
        return Some(PortCut::DYNAMIC);
    }
    let ports = || lines.iter().flat_map(|line| &line.source_ports);
    let first = ports().map(|range| *range.start()).min()?;
    let last = ports().map(|range| *range.end()).max()?;
    // Far apart, most of the cut would lie where no flow is.
    let size = |range: &RangeInclusive<u16>| range.len();
    let covered: usize = ports().map(size).sum();
    (covered * 2 > size(&(first..=last))).then(|| PortCut::of(first..=last)).flatten()
}

/// The protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// The finaliser of SplitMix64.
fn hash(word: u64) -> u64 {
    let word = (word.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ (word >> 30);
    let word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bid(number: u16) -> Bid {
        Bid::new(number).expect("not zero")
    }

    fn owners(buckets: &Buckets) -> Vec<Bid> {
        buckets.places.iter().map(|place| buckets.links[usize::from(*place)]).collect()
    }

    fn share(owners: &[Bid], of: Bid) -> usize {
        owners.iter().filter(|owner| **owner == of).count()
    }

    #[test]
    fn weights_fill_the_buckets() {
        let cases: &[(&[u16], &[usize])] = &[
            (&[3, 1], &[192, 64]),
            (&[1, 1, 1], &[86, 85, 85]),
            (&[1], &[256]),
            (&[65_535, 1], &[255, 1]),
            (&[1, 0], &[256, 0]),
            (&[5, 2, 1], &[160, 64, 32]),
        ];
        for (weights, want) in cases {
            let links: Vec<Bid> = (1..).map(bid).take(weights.len()).collect();
            let weights: Vec<_> = links.iter().copied().zip(weights.iter().copied()).collect();
            let owners = owners(&assign(&weights, &links));
            let got: Vec<usize> = links.iter().map(|link| share(&owners, *link)).collect();
            // The cut rounds to a whole bucket.
            assert!(got.iter().zip(*want).all(|(a, b)| a.abs_diff(*b) <= 1), "{weights:?} {got:?}");
        }
    }

    #[test]
    fn only_buckets_of_links_that_went_or_came_move() {
        let weights = [(bid(1), 4), (bid(2), 2), (bid(3), 1), (bid(4), 1)];
        let all: Vec<Bid> = weights.iter().map(|(bid, _)| *bid).collect();
        let part = |set: u8| {
            let chosen = all.iter().zip(0..).filter(|(_, at)| set >> at & 1 != 0);
            chosen.map(|(bid, _)| *bid).collect::<Vec<Bid>>()
        };
        let sets: Vec<Vec<Bid>> = (1..16).map(part).collect();
        for before in &sets {
            for after in &sets {
                let (from, to) =
                    (owners(&assign(&weights, before)), owners(&assign(&weights, after)));
                for (from, to) in from.iter().zip(&to) {
                    let went = !after.contains(from);
                    let came = !before.contains(to);
                    assert!(from == to || went || came, "{before:?} -> {after:?}: {from} -> {to}");
                }
            }
        }
    }

    #[test]
    fn buckets_of_a_link_that_went_go_to_the_others_by_weight() {
        let weights = [(bid(1), 4), (bid(2), 3), (bid(3), 1)];
        let owners = owners(&assign(&weights, &[bid(2), bid(3)]));
        let (second, third) = (share(&owners, bid(2)), share(&owners, bid(3)));
        assert_eq!(second + third, 256);
        assert!((180..=204).contains(&second), "about three quarters: {second}");
    }

    /// The runs of equal neighbours.
    fn runs(owners: &[Bid]) -> usize {
        1 + owners.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[test]
    fn a_cut_that_is_told_has_few_ranges_and_moves_only_what_it_must() {
        let weights = [(bid(1), 3), (bid(2), 2), (bid(3), 1), (bid(4), 2)];
        let all: Vec<Bid> = weights.iter().map(|(bid, _)| *bid).collect();
        let whole = owners(&cut(&weights, &all, PortCut::DYNAMIC));
        assert_eq!(whole, owners(&assign(&weights, &all)), "with all links both cuts are one");
        for set in 1..16_u8 {
            let links = all.iter().zip(0..).filter(|(_, at)| set >> at & 1 != 0);
            let present: Vec<Bid> = links.map(|(bid, _)| *bid).collect();
            let owners = owners(&cut(&weights, &present, PortCut::DYNAMIC));
            for (bucket, (now, first)) in owners.iter().zip(&whole).enumerate() {
                assert!(present.contains(now), "bucket {bucket} of {present:?}");
                assert!(now == first || !present.contains(first), "{bucket} of {present:?}");
            }
            assert!(runs(&owners) <= 1 + 4 * present.len(), "{present:?}: {}", runs(&owners));
            let weight = |link: Bid| weights.iter().find(|it| it.0 == link).map_or(0, |it| it.1);
            let sum: usize = present.iter().map(|link| usize::from(weight(*link))).sum();
            for link in &present {
                let wanted = 256 * usize::from(weight(*link)) / sum;
                let got = share(&owners, *link);
                assert!(got.abs_diff(wanted) <= 5, "{present:?}: {link} {got} not {wanted}");
            }
        }
    }

    #[test]
    fn ports_are_cut_alike_for_packets_and_for_the_agent() {
        let weights = [(bid(1), 3), (bid(2), 2), (bid(3), 1)];
        let cuts = [
            PortCut::DYNAMIC,
            PortCut { first: 5000, last: 5255, round: 256 },
            PortCut { first: 1000, last: 60_123, round: 59_124 },
        ];
        for ports in cuts {
            let buckets = cut(&weights, &[bid(1), bid(2), bid(3)], ports);
            let ranges = buckets.cut();
            let mut next = Some(0);
            for (range, link) in &ranges {
                assert_eq!(Some(*range.start()), next, "{ports:?}: no gap and no overlap");
                next = range.end().checked_add(1);
                for port in range.clone() {
                    assert_eq!(buckets.link(ports.bucket(Some(port))), Some(*link), "{port}");
                }
            }
            assert_eq!(next, None, "up to the last port");
            assert_eq!(buckets.remainder(), Some(bid(1)));
        }
    }

    #[test]
    fn hosts_that_take_their_ports_from_either_range_are_spread() {
        let buckets = cut(&[(bid(1), 3), (bid(2), 1)], &[bid(1), bid(2)], PortCut::DYNAMIC);
        for ports in [32_768..=60_999_u16, 49_152..=65_535] {
            let count = ports.len();
            let first =
                |port: &u16| buckets.link(PortCut::DYNAMIC.bucket(Some(*port))) == Some(bid(1));
            let share = ports.clone().filter(first).count() * 100 / count;
            assert!((72..=79).contains(&share), "{ports:?}: {share} %");
        }
    }

    #[test]
    fn odd_rules() {
        let nothing = assign(&[], &[]);
        assert!(nothing.links.is_empty() && nothing.places.iter().all(|place| *place == 0));
        let weightless = assign(&[(bid(1), 0), (bid(2), 0)], &[bid(1), bid(2)]);
        assert_eq!(share(&owners(&weightless), bid(1)), 256);
        let left = assign(&[(bid(1), 1), (bid(2), 0)], &[bid(2)]);
        assert_eq!(share(&owners(&left), bid(2)), 256);
        let dwarf = assign(&[(bid(1), u16::MAX), (bid(2), 1)], &[bid(2)]);
        assert_eq!(share(&owners(&dwarf), bid(2)), 256);
    }
}
