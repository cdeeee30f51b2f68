//! Fewer entries that say the same.
//!
//! Whatever is left out or joined here changes no decision, whichever bindings are registered.
//! That is argued entry by entry, so any order of steps is right:
//!
//! - A packet that comes to an entry has passed all before it. Those of them that hold the
//!   entry's whole area were inactive, so **their BIDs are gone**.
//! - An entry with none but gone BIDs says nothing.
//! - If the entries behind that its packets can come to say the same up to one that holds its
//!   whole area, or up to the end, where the lowest BID-PRI says the same, it may go.
//! - Two entries of one result are one, if their areas together are one, and one of them can pass
//!   all between: those meet it nowhere, or have that result too.

use super::area::Area;
use super::entry::{Entry, Group};
use super::target::DownlinkTarget;
use crate::terms::{Bid, RuleId};

/// How far apart two neighbours may stand.
const NEAR: usize = 64;

/// Longer lists are not thinned to be compared.
const MOST_ESTIMATED: usize = 256;

/// What has an area and a result.
pub(super) trait Piece {
    type Result: PartialEq;
    fn area(&self) -> &Area;
    fn result(&self) -> &Self::Result;
    fn take(&mut self, area: Area, rules: &[RuleId]);
    fn rules(&self) -> &[RuleId];
}

macro_rules! piece {
    ($kind:ty, $field:ident: $result:ty) => {
        impl Piece for $kind {
            type Result = $result;
            fn area(&self) -> &Area {
                &self.area
            }
            fn result(&self) -> &$result {
                &self.$field
            }
            fn take(&mut self, area: Area, rules: &[RuleId]) {
                self.area = area;
                for rule in rules {
                    if !self.rules.contains(rule) {
                        self.rules.push(*rule);
                    }
                }
            }
            fn rules(&self) -> &[RuleId] {
                &self.rules
            }
        }
    };
}

piece!(Group, steps: Vec<Vec<Bid>>);
piece!(Entry, bids: Vec<Bid>);

/// Joins neighbours until none are left.
pub(super) fn join<P: Piece>(pieces: &mut Vec<P>, target: &DownlinkTarget) {
    let mut changed = true;
    while std::mem::take(&mut changed) {
        let mut at = 0;
        while at < pieces.len() {
            match neighbour(pieces, at, target) {
                Some((other, area, up)) => {
                    let gone = pieces.remove(if up { other } else { at });
                    let stays = if up { at } else { other - 1 };
                    let rules = gone.rules().to_vec();
                    pieces[stays].take(area, &rules);
                    changed = true;
                    at = if up { at } else { at + 1 };
                }
                None => at += 1,
            }
        }
    }
}

/// A later piece that can be one with this, both as one, and whether that stands at the place of
/// the first.
fn neighbour<P: Piece>(
    pieces: &[P],
    at: usize,
    target: &DownlinkTarget,
) -> Option<(usize, Area, bool)> {
    let first = &pieces[at];
    let passes = |piece: &P, between: &[P]| {
        between
            .iter()
            .all(|other| other.result() == piece.result() || !other.area().meets(piece.area()))
    };
    let near = (at + 1..pieces.len()).take(NEAR);
    near.filter(|other| pieces[*other].result() == first.result()).find_map(|other| {
        let second = &pieces[other];
        let area = first.area().joined(second.area(), target)?;
        let between = &pieces[at + 1..other];
        if passes(second, between) {
            Some((other, area, true))
        } else if passes(first, between) {
            Some((other, area, false))
        } else {
            None
        }
    })
}

/// For which bindings decisions have to stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    /// Whichever are registered; with `target.reflect` all links of an area are named besides, so
    /// that its flows may go down by each.
    AllNamed,
    /// Whichever are registered.
    Always,
    /// While all are.
    WhileAllAre,
}

/// Leaves out entries without which every decision is the same.
pub(super) fn leave_out(entries: &mut Vec<Entry>, target: &DownlinkTarget, exact: Exact) {
    let order = target.order();
    let certain = target.certain();
    for at in (0..entries.len()).rev() {
        let (before, rest) = entries.split_at(at);
        let (entry, behind) = (&rest[0], &rest[1..]);
        let is_tail = exact == Exact::AllNamed
            && target.reflect
            && entry.bids.len() == 1
            && before.last().is_some_and(|head| head.area == entry.area && head.bids.len() == 1);
        let gone = match exact {
            Exact::AllNamed | Exact::Always => Some(gone(&entry.area, before)),
            Exact::WhileAllAre if before.iter().any(|it| it.area.holds(&entry.area)) => None,
            Exact::WhileAllAre => Some(Vec::new()),
        };
        let needed = gone.is_some_and(|gone| {
            let wanted = left(&entry.bids, &gone);
            let said = || is_said(entry, &wanted, &gone, behind, &order[..], certain);
            !wanted.is_empty() && (is_tail || !said())
        });
        if !needed {
            entries.remove(at);
        }
    }
}

/// About how many entries these groups come to, each named by its first links.
pub(super) fn estimate(groups: &[Group], target: &DownlinkTarget) -> usize {
    let first = |group: &Group| {
        let bids = group.steps.first()?.clone();
        Some(Entry { area: group.area.clone(), bids, rules: Vec::new() })
    };
    let mut entries: Vec<Entry> = groups.iter().filter_map(first).collect();
    if entries.len() <= MOST_ESTIMATED {
        leave_out(&mut entries, target, Exact::WhileAllAre);
        join(&mut entries, target);
    }
    entries.len()
}

/// The BIDs that are gone for every packet that comes to an area behind these entries.
fn gone(area: &Area, before: &[Entry]) -> Vec<Bid> {
    let passed = before.iter().filter(|earlier| earlier.area.holds(area));
    passed.flat_map(|earlier| earlier.bids.iter().copied()).collect()
}

/// Those that are not gone.
fn left(bids: &[Bid], gone: &[Bid]) -> Vec<Bid> {
    let mut left: Vec<Bid> = bids.iter().copied().filter(|bid| !gone.contains(bid)).collect();
    left.sort_unstable();
    left
}

/// Whether what stands behind an entry says the same as it: copies to all that are `wanted`.
fn is_said(
    entry: &Entry,
    wanted: &[Bid],
    gone: &[Bid],
    behind: &[Entry],
    order: &[Bid],
    certain: usize,
) -> bool {
    for later in behind.iter().filter(|later| later.area.meets(&entry.area)) {
        let says = left(&later.bids, gone);
        if says.is_empty() {
            continue;
        }
        if says != wanted {
            return false;
        }
        if later.area.holds(&entry.area) {
            return true;
        }
    }
    let preferred = order.iter().position(|bid| !gone.contains(bid));
    preferred.is_some_and(|place| place < certain && *wanted == [order[place]])
}
