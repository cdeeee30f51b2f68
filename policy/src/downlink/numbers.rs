//! FIDs and FID-PRI: unique, and the same as before wherever that can be.
//!
//! A FID stays with its selector, so that only what is new has to be spelled out; what has other
//! BIDs or another place is a modification (RFC 6089 §5.2.2.2). FID-PRI have gaps for what comes
//! between. A number that another flow binding has now is not given away in the same plan: an
//! agent that takes the options of a Binding Update one by one would see it twice.

use std::collections::HashSet;

use super::entry::Entry;
use crate::flow_binding::FlowBinding;
use crate::terms::{FlowId, FlowPriority};

/// Room between one FID-PRI and the next.
const GAP: usize = 16;

/// The entries with their numbers.
pub(super) fn number(entries: &[Entry], before: &[FlowBinding]) -> Vec<FlowBinding> {
    let selectors: Vec<_> = entries.iter().map(|entry| entry.area.selector()).collect();
    let mut kept: Vec<Option<&FlowBinding>> = vec![None; entries.len()];
    let mut taken: HashSet<FlowId> = HashSet::new();
    // First what is the same altogether, then what has other BIDs.
    for same_bids in [true, false] {
        for (at, (entry, selector)) in entries.iter().zip(&selectors).enumerate() {
            if kept[at].is_some() {
                continue;
            }
            let same = |old: &&FlowBinding| {
                old.selector == *selector
                    && (!same_bids || old.bids == entry.bids)
                    && !taken.contains(&old.id)
            };
            if let Some(old) = before.iter().find(same) {
                taken.insert(old.id);
                kept[at] = Some(old);
            }
        }
    }
    let known: HashSet<FlowId> = before.iter().map(|old| old.id).collect();
    let mut free = (1..=u16::MAX).filter_map(FlowId::new).filter(|id| !known.contains(id));
    let old: Vec<Option<u16>> =
        kept.iter().map(|kept| kept.map(|old| old.priority.get())).collect();
    let in_use: HashSet<u16> = before.iter().map(|old| old.priority.get()).collect();
    let priorities = between(&old, &in_use).unwrap_or_else(|| anew(entries.len(), &in_use));
    let named = entries.iter().zip(selectors).zip(kept).zip(priorities);
    named
        .map(|(((entry, selector), kept), priority)| FlowBinding {
            id: kept
                .map(|old| old.id)
                .or_else(|| free.next())
                .expect("a plan and the one before have fewer flow bindings than there are FIDs"),
            priority: FlowPriority::new(priority).expect("no priority is zero"),
            selector,
            bids: entry.bids.clone(),
        })
        .collect()
}

/// Priorities in order that keep as many old ones as can be; `None` if there is no room between.
fn between(old: &[Option<u16>], in_use: &HashSet<u16>) -> Option<Vec<u16>> {
    let stays = longest_rise(old);
    let mut priorities = Vec::with_capacity(old.len());
    let mut at = 0;
    while at < old.len() {
        if stays[at] {
            priorities.push(old[at]?);
            at += 1;
            continue;
        }
        let run = stays[at..].iter().take_while(|stays| !**stays).count();
        let low = usize::from(priorities.last().copied().unwrap_or(0));
        let high = match old.get(at + run) {
            Some(next) => usize::from((*next)?),
            None => low + GAP * (run + 1),
        };
        let free: Vec<u16> = (low + 1..high)
            .map_while(|number| u16::try_from(number).ok())
            .filter(|number| !in_use.contains(number))
            .collect();
        if free.len() < run {
            return None;
        }
        // In the middle of what is free, apart from each other.
        priorities.extend((1..=run).map(|place| free[place * free.len() / (run + 1)]));
        at += run;
    }
    Some(priorities)
}

/// Which of the numbers stand in a longest list that rises.
fn longest_rise(numbers: &[Option<u16>]) -> Vec<bool> {
    // For each number, how long the longest that ends here is, and what stands before it there.
    let mut ends: Vec<(usize, Option<usize>)> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let best = (0..at)
            .filter(|before| numbers[*before].is_some() && numbers[*before] < *number)
            .max_by_key(|before| ends[*before].0);
        ends.push(match number {
            Some(_) => (best.map_or(1, |best| ends[best].0 + 1), best),
            None => (0, None),
        });
    }
    let mut stays = vec![false; numbers.len()];
    let mut next = (0..ends.len()).max_by_key(|at| ends[*at].0).filter(|at| ends[*at].0 > 0);
    while let Some(at) = next {
        stays[at] = true;
        next = ends[at].1;
    }
    stays
}

/// Priorities with gaps, none of which is in use if that can be.
fn anew(count: usize, in_use: &HashSet<u16>) -> Vec<u16> {
    let from = |offset: usize| -> Vec<u16> {
        let numbers = (0..count).map(|place| place * GAP + offset);
        numbers.map(|number| u16::try_from(number).unwrap_or(u16::MAX)).collect()
    };
    let unused = |offset: &usize| from(*offset).iter().all(|number| !in_use.contains(number));
    let offset = (1..=GAP).rev().find(unused).unwrap_or(GAP);
    from(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_stay_where_they_can() {
        let none = || HashSet::new();
        let cases: &[(&[Option<u16>], &[u16])] = &[
            (&[None, None, None], &[16, 32, 48]),
            (&[Some(16), None, Some(32)], &[16, 24, 32]),
            (&[Some(16), Some(32), None], &[16, 32, 48]),
            (&[None, Some(16)], &[8, 16]),
            (&[Some(48), Some(16), Some(32)], &[8, 16, 32]),
        ];
        for (old, want) in cases {
            let got = between(old, &none()).expect("there is room");
            assert_eq!(got, *want, "{old:?}");
        }
        let in_use = HashSet::from([16, 17, 18]);
        assert_eq!(between(&[Some(16), None, None, Some(19)], &in_use), None);
        assert_eq!(anew(3, &HashSet::from([16, 31])), [14, 30, 46]);
    }
}
