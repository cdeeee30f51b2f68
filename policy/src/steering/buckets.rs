//! Which of 256 buckets goes by which link (`balance`).
//!
//! The first draw cuts the buckets at the weights exactly. A bucket whose link is away draws
//! again, by weight and by a hash of its number, until it finds a link that is there. A draw
//! depends on nothing but the rule, so a change moves only buckets whose link went or came back,
//! a link that comes back gets its own again, and every machine draws alike.

use std::sync::Arc;

use crate::effective::{Buckets, Spread};
use crate::terms::Bid;

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
