//! The verbs with a memory: which link `fastest` leads with, which links `overflow` finds full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::link::Ratio;
use crate::policy::{Rule, RuleSet};
use crate::terms::Bid;
use crate::verb::{Fallback, Verb};

/// A challenger of `fastest` wins by at least this.
const LEAST_MARGIN: Duration = Duration::from_millis(5);

/// And for so long.
const WIN_FOR: Duration = Duration::from_secs(5);

/// A full link is free again under this load, or under seven eighths of a lower `full`.
const FREE_AGAIN: Ratio = Ratio::percent(70);

/// Links and a ratio: `fastest` and its margin, `overflow` and its `full`. Rules that say the
/// same share one contest.
pub(super) type Terms = (Vec<Bid>, Ratio);

/// Which link leads, and since when others have been beating it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Race {
    pub leader: Option<Bid>,
    winning_since: BTreeMap<Bid, Duration>,
}

impl Race {
    /// Judges the links that may be used, in the order of the rule. A leader that may not be used
    /// is replaced at once. A link without a round trip time loses against one with, and against
    /// an earlier one without.
    pub fn judge(
        &mut self,
        now: Duration,
        margin: Ratio,
        racing: &[Bid],
        rtt: impl Fn(Bid) -> Option<Duration>,
    ) {
        let Some(leader) = self.leader.filter(|leader| racing.contains(leader)) else {
            self.leader = quickest(racing, &rtt);
            self.winning_since.clear();
            return;
        };
        let wins = |bid: Bid| match (rtt(bid), rtt(leader)) {
            (Some(challenger), Some(leader)) => {
                let nanos = u64::try_from(leader.as_nanos()).unwrap_or(u64::MAX);
                let margin = Duration::from_nanos(margin.of(nanos)).max(LEAST_MARGIN);
                challenger.checked_add(margin).is_some_and(|needed| needed <= leader)
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            // Nobody measures: the order of the rule.
            (None, None) => racing.iter().find(|link| [bid, leader].contains(link)) == Some(&bid),
        };
        let challengers: Vec<Bid> =
            racing.iter().copied().filter(|bid| *bid != leader && wins(*bid)).collect();
        self.winning_since.retain(|bid, _| challengers.contains(bid));
        for bid in challengers {
            self.winning_since.entry(bid).or_insert(now);
        }
        let ripe = |bid: &Bid| {
            self.winning_since.get(bid).is_some_and(|since| since.saturating_add(WIN_FOR) <= now)
        };
        let ripe: Vec<Bid> = racing.iter().copied().filter(ripe).collect();
        if let Some(winner) = quickest(&ripe, &rtt) {
            self.leader = Some(winner);
            self.winning_since.clear();
            // Whoever beats the new leader too starts from here.
            self.judge(now, margin, racing, rtt);
        }
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.winning_since.values().map(|since| since.saturating_add(WIN_FOR)).min()
    }
}

/// The lowest round trip time; the first among equals and among those without.
pub(super) fn quickest(links: &[Bid], rtt: impl Fn(Bid) -> Option<Duration>) -> Option<Bid> {
    links.iter().copied().min_by_key(|bid| rtt(*bid).unwrap_or(Duration::MAX))
}

/// Whether a load fills a link that was full or not before.
pub(super) fn is_full(was_full: bool, load: Ratio, full: Ratio) -> bool {
    let free_again = FREE_AGAIN.0.min((u32::from(full.0) * 7 / 8) as u16);
    if was_full { load.0 >= free_again } else { load > full }
}

/// All contests of a rule set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contests {
    pub races: BTreeMap<Terms, Race>,
    /// The full links of every `overflow`.
    pub full: BTreeMap<Terms, BTreeSet<Bid>>,
}

impl Contests {
    pub fn of(rules: &RuleSet) -> Self {
        let mut contests = Self::default();
        for verb in rules.rules.iter().flat_map(verbs) {
            match verb {
                Verb::Fastest { links, margin } => {
                    contests.races.entry((links.clone(), *margin)).or_default();
                }
                Verb::Overflow { links, full } => {
                    contests.full.entry((links.clone(), *full)).or_default();
                }
                _ => {}
            }
        }
        contests
    }

    /// Takes over those that go on under a new policy.
    pub fn adopt(&mut self, old: &Self) {
        for (terms, race) in &mut self.races {
            if let Some(before) = old.races.get(terms) {
                race.clone_from(before);
            }
        }
        for (terms, full) in &mut self.full {
            full.extend(old.full.get(terms).into_iter().flatten());
        }
    }

    /// The load of a link; without one it is not full.
    pub fn loaded(&mut self, bid: Bid, load: Option<Ratio>) {
        for ((links, full), full_links) in &mut self.full {
            let was_full = full_links.contains(&bid);
            let is_full = load.is_some_and(|load| is_full(was_full, load, *full));
            if is_full && links.contains(&bid) {
                full_links.insert(bid);
            } else {
                full_links.remove(&bid);
            }
        }
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.races.values().filter_map(Race::deadline).min()
    }
}

/// The verbs of a rule, `otherwise` included.
pub(super) fn verbs(rule: &Rule) -> impl Iterator<Item = &Verb> {
    let otherwise = match &rule.otherwise {
        Fallback::Then(verb) => Some(verb),
        Fallback::NextRule | Fallback::Any => None,
    };
    std::iter::once(&rule.verb).chain(otherwise)
}
