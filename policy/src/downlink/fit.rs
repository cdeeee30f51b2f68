//! Into the budget: first without loss, then without the links that only `reflect` would use, then
//! without the links behind the first, then without the costliest rules.

use std::collections::{BTreeMap, BTreeSet};

use super::OverBudget;
use super::entry::{self, Entry};
use super::target::DownlinkTarget;
use super::thin::{self, Exact};
use crate::effective::Effective;
use crate::terms::RuleId;

/// How many links of a rule are named, and for which bindings that has to be right, as long as
/// there is room.
const LEVELS: [(usize, Exact); 4] = [
    (usize::MAX, Exact::AllNamed),
    (usize::MAX, Exact::Always),
    (2, Exact::Always),
    (1, Exact::WhileAllAre),
];

/// More groups than this are named by their first links at once.
const MANY: usize = 2 * super::MOST_FLOWS as usize;

/// How many rules are named when there is no room.
const NAMED: usize = 5;

/// What fits.
pub(super) struct Fitted {
    pub entries: Vec<Entry>,
    /// How many links of each rule are named.
    pub depth: usize,
    /// The rules that are not told for want of room.
    pub left_out: BTreeSet<RuleId>,
    pub refused: Option<OverBudget>,
}

/// The entries of all rules, or of those that fit.
pub(super) fn fit(rules: &Effective, target: &DownlinkTarget, budget: u16) -> Fitted {
    let mut left_out: BTreeSet<RuleId> = BTreeSet::new();
    let mut refused: Option<OverBudget> = None;
    loop {
        let (mut groups, crowded) = entry::groups(rules, target, &left_out);
        thin::join(&mut groups, target);
        let mut entries = Vec::new();
        // So many never fit with all their links, and to see that would take long.
        let deepest = if groups.len() > MANY { 1 } else { usize::MAX };
        for (depth, exact) in LEVELS.into_iter().filter(|(depth, _)| *depth <= deepest) {
            entries = shortened(&groups, target, depth, exact);
            if crowded.is_empty() && entries.len() <= usize::from(budget) {
                return Fitted { entries, depth, left_out, refused };
            }
        }
        let mut costs: BTreeMap<RuleId, usize> = crowded;
        let needed = entries.len() + costs.values().sum::<usize>();
        for rule in entries.iter().flat_map(|entry| &entry.rules) {
            *costs.entry(*rule).or_default() += 1;
        }
        let mut costs: Vec<(RuleId, usize)> = costs.into_iter().collect();
        // The costliest first; of equal ones the last of the file.
        costs.reverse();
        costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        refused.get_or_insert_with(|| {
            let name =
                |(id, cost): &(RuleId, usize)| Some((rules.rule(*id)?.head.name.clone(), *cost));
            let costliest = costs.iter().filter_map(name).take(NAMED).collect();
            OverBudget { needed, budget, costliest }
        });
        let mut over = needed.saturating_sub(usize::from(budget)).max(1);
        for (rule, cost) in costs {
            left_out.insert(rule);
            over = over.saturating_sub(cost);
            if over == 0 {
                break;
            }
        }
    }
}

/// The groups as entries of at most `depth` links each, as few as say the same.
fn shortened(
    groups: &[entry::Group],
    target: &DownlinkTarget,
    depth: usize,
    exact: Exact,
) -> Vec<Entry> {
    let each = |group: &entry::Group| {
        let steps = group.steps.iter().take(depth).cloned();
        let (area, rules) = (group.area.clone(), group.rules.clone());
        steps
            .map(move |bids| Entry { area: area.clone(), bids, rules: rules.clone() })
            .collect::<Vec<_>>()
    };
    let mut entries: Vec<Entry> = groups.iter().flat_map(each).collect();
    loop {
        let count = entries.len();
        thin::leave_out(&mut entries, target, exact);
        thin::join(&mut entries, target);
        if entries.len() == count {
            return entries;
        }
    }
}
