//! Who is heard next, when more is waiting than can be heard at once.
//!
//! [`Turns`] keeps what waits by whom it is from, and those take turns: one item each, then again.
//! So whoever sends a thousand messages delays his own, and another's wait is counted by how many
//! others wait, not by what they sent. Each may have a few items waiting, the first of everybody
//! has room for itself, and all of it is bounded.
//!
//! Items have a rank. If somebody's room is used up, his lowest goes: among updates ranked by
//! their timestamps, what is sent again by whoever overheard it never displaces what is new.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What waits, by whom it is from.
#[derive(Debug)]
pub struct Turns<K, T> {
    bounds: Bounds,
    queues: HashMap<K, VecDeque<(u64, T)>>,
    /// All that have something waiting, in the order of their turns.
    order: VecDeque<K>,
    waiting: usize,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many may have something waiting.
    pub parties: usize,
    /// Items of one of them.
    pub each: usize,
    /// Items of all of them, beyond the first of each.
    pub further: usize,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits.
    Waits,
    /// It waits in the place of one of the same party that ranked lower and is dropped.
    Instead,
    /// Dropped: one of the same rank waits already.
    Again,
    /// Dropped: its party's room is full of what ranks higher.
    Full,
    /// Dropped: there is no room for another party, or for what all have beyond their first.
    Crowded,
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// Nobody waits.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, queues: HashMap::new(), order: VecDeque::new(), waiting: 0 }
    }

    /// Lets an item wait, which is made only if it does. Ranks are compared by the sign of their
    /// difference; with none, items are alike and what comes last is dropped.
    pub fn push(&mut self, party: K, rank: Option<u64>, item: impl FnOnce() -> T) -> Queued {
        let further = self.waiting - self.order.len();
        let Some(queue) = self.queues.get_mut(&party) else {
            if self.order.len() >= self.bounds.parties {
                return Queued::Crowded;
            }
            self.queues.insert(party, VecDeque::from([(rank.unwrap_or(0), item())]));
            self.order.push_back(party);
            self.waiting += 1;
            return Queued::Waits;
        };
        if rank.is_some_and(|rank| queue.iter().any(|(waits, _)| *waits == rank)) {
            return Queued::Again;
        }
        if queue.len() < self.bounds.each && further < self.bounds.further {
            queue.push_back((rank.unwrap_or(0), item()));
            self.waiting += 1;
            return Queued::Waits;
        }
        let full = match queue.len() < self.bounds.each {
            true => Queued::Crowded,
            false => Queued::Full,
        };
        let Some(rank) = rank else { return full };
        let above = |one: u64, two: u64| one.wrapping_sub(two) as i64;
        let lowest = queue.iter().enumerate().min_by_key(|(_, (waits, _))| above(*waits, rank));
        match lowest {
            Some((at, &(waits, _))) if above(rank, waits) > 0 => {
                queue.remove(at);
                queue.push_back((rank, item()));
                Queued::Instead
            }
            _ => full,
        }
    }

    /// The next item, of whoever's turn it is.
    pub fn pop(&mut self) -> Option<(K, T)> {
        let party = self.order.pop_front()?;
        let queue = self.queues.get_mut(&party)?;
        let (_, item) = queue.pop_front()?;
        self.waiting -= 1;
        match queue.is_empty() {
            true => drop(self.queues.remove(&party)),
            false => self.order.push_back(party),
        }
        Some((party, item))
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(turns: &mut Turns<char, u32>) -> Vec<(char, u32)> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    fn turns(parties: usize, each: usize, further: usize) -> Turns<char, u32> {
        Turns::new(Bounds { parties, each, further })
    }

    #[test]
    fn one_item_each_and_then_again() {
        let mut turns = turns(9, 9, 99);
        for item in 0..4 {
            assert_eq!(turns.push('a', None, || item), Queued::Waits);
        }
        turns.push('b', None, || 10);
        turns.push('c', None, || 20);
        turns.push('b', None, || 11);
        let order = drained(&mut turns);
        let want = [('a', 0), ('b', 10), ('c', 20), ('a', 1), ('b', 11), ('a', 2), ('a', 3)];
        assert_eq!(order, want);
        assert!(turns.is_empty() && turns.queues.is_empty());
    }

    #[test]
    fn who_comes_while_another_floods_waits_for_one_of_his() {
        let mut turns = turns(9, 4, 99);
        let mut served = Vec::new();
        for item in 0..1_000 {
            for copy in 0..10 {
                turns.push('a', None, || item * 10 + copy);
            }
            if item % 10 == 0 {
                turns.push('b', None, || item);
            }
            served.extend(turns.pop());
        }
        let of_b: Vec<_> = served.iter().filter(|(party, _)| *party == 'b').collect();
        assert_eq!(of_b.len(), 100, "none was lost, and none waited for a second turn");
        assert!(turns.len() <= 4);
    }

    #[test]
    fn what_ranks_lower_makes_room() {
        let mut turns = turns(9, 3, 99);
        assert_eq!(turns.push('a', Some(50), || 50), Queued::Waits);
        assert_eq!(turns.push('a', Some(50), || 51), Queued::Again);
        assert_eq!(turns.push('a', Some(20), || 20), Queued::Waits);
        assert_eq!(turns.push('a', Some(40), || 40), Queued::Waits);
        assert_eq!(turns.push('a', Some(10), || 10), Queued::Full, "the lowest of all");
        assert_eq!(turns.push('a', Some(60), || 60), Queued::Instead);
        assert_eq!(turns.push('a', None, || 7), Queued::Full);
        assert_eq!(drained(&mut turns), [('a', 50), ('a', 40), ('a', 60)]);
        // Timestamps wrap in 2036.
        for rank in [u64::MAX - 1, u64::MAX, 3] {
            turns.push('a', Some(rank), || 0);
        }
        assert_eq!(turns.push('a', Some(5), || 5), Queued::Instead);
        assert_eq!(turns.queues[&'a'].front().map(|(rank, _)| *rank), Some(u64::MAX));
    }

    #[test]
    fn the_first_of_everybody_has_room_for_itself() {
        let mut turns = turns(3, 8, 2);
        for item in 0..8 {
            let want = if item < 3 { Queued::Waits } else { Queued::Crowded };
            assert_eq!(turns.push('a', None, || item), want);
        }
        assert_eq!(turns.push('b', None, || 10), Queued::Waits);
        assert_eq!(turns.push('b', None, || 11), Queued::Crowded);
        assert_eq!(turns.push('c', None, || 20), Queued::Waits);
        assert_eq!(turns.push('d', None, || 30), Queued::Crowded);
        assert_eq!(turns.len(), 5);
        assert_eq!(drained(&mut turns).len(), 5);
    }
}
