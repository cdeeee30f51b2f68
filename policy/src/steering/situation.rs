//! How all links stand together, and what each rule says in that situation.
//!
//! A [`Situation`] holds everything that rules are judged by and nothing that changes without
//! changing them: round trip times are in it only as the leader of a race. Equal situations have
//! equal rules, so nothing is published while the situation stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::buckets;
use super::contest::Terms;
use super::overrides::Override;
use super::standing::Use;
use crate::effective::{Otherwise, Outcome, Says};
use crate::policy::Rule;
use crate::terms::{Bid, ClassName, RuleId};
use crate::verb::{FailbackMode, Fallback, Verb};

/// One link as rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkView {
    pub bid: Bid,
    pub priority: u8,
    pub metered: bool,
    /// Orders links by what their octets cost.
    pub price: u64,
    /// How a tunnel may use it.
    pub tunnel: Use,
    /// How `breakout` may use it.
    pub breakout: Use,
    pub degraded: bool,
    /// Used only because it is the last link.
    pub last_link: bool,
    /// The classes it misses.
    pub misses: BTreeSet<ClassName>,
    /// Flows whose rule asks for at most this `after` may go back to it.
    pub ripe_for: Option<Duration>,
}

impl LinkView {
    fn is_ripe(&self, after: Duration) -> bool {
        self.tunnel == Use::Ordinary
            && !self.last_link
            && self.ripe_for.is_some_and(|ripe_for| after <= ripe_for)
    }
}

/// Everything that rules are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Situation {
    /// The links in the order of the file.
    pub links: Vec<LinkView>,
    /// Who leads each `fastest`.
    pub leaders: BTreeMap<Terms, Bid>,
    /// Which links of each `overflow` are full.
    pub full: BTreeMap<Terms, BTreeSet<Bid>>,
    /// The rules whose `cap` is used up.
    pub capped: BTreeSet<RuleId>,
    /// The rules whose `when` is not met.
    pub unmet: BTreeSet<RuleId>,
    /// Whether the home agent is told the rules, and so how a balance is cut.
    pub told: bool,
}

impl Situation {
    pub fn link(&self, bid: Bid) -> Option<&LinkView> {
        self.links.iter().find(|link| link.bid == bid)
    }

    /// Those of `links` whose tunnels may be used in this way, in the same order.
    pub fn of_use(&self, links: &[Bid], tunnel: Use) -> Vec<Bid> {
        let used = |bid: &Bid| self.link(*bid).is_some_and(|link| link.tunnel == tunnel);
        links.iter().copied().filter(used).collect()
    }

    /// Every link that may be used in this way: the good ones by BID-PRI, then the degraded.
    fn any(&self, tunnel: Use) -> Vec<Bid> {
        let mut links: Vec<&LinkView> =
            self.links.iter().filter(|link| link.tunnel == tunnel).collect();
        links.sort_by_key(|link| (link.degraded, link.priority, link.bid));
        links.into_iter().map(|link| link.bid).collect()
    }

    /// What a rule of the file says.
    ///
    /// Links that are a last choice (drained, over a soft quota) are spoken of only when neither
    /// the verb nor `otherwise` has another; then the verb's own come first.
    pub fn says(&self, rule: &Rule) -> Says {
        let unmet = self.unmet.contains(&rule.id());
        let verb = |tunnel| match unmet {
            true => Outcome::Unmet,
            false => self.outcome(rule, &rule.verb, tunnel),
        };
        let otherwise = |tunnel| match &rule.otherwise {
            Fallback::NextRule => Otherwise::NextRule,
            Fallback::Any => Otherwise::Then(Outcome::Candidates(self.any(tunnel))),
            Fallback::Then(verb) => Otherwise::Then(self.outcome(rule, verb, tunnel)),
        };
        let mut outcome = verb(Use::Ordinary);
        let mut fallback = otherwise(Use::Ordinary);
        let goes_on = matches!(&fallback, Otherwise::Then(then) if !then.links().is_empty());
        if !is_possible(&outcome) && !goes_on {
            outcome = verb(Use::LastChoice);
            if !is_possible(&outcome) {
                fallback = otherwise(Use::LastChoice);
            }
        }
        Says {
            sticky: rule.sticky,
            together: rule.together.as_ref().map(|(number, _)| *number),
            failback: rule.failback.mode,
            ripe: self.ripe(&outcome, &fallback, rule.failback.after),
            settled: self.settled(rule),
            ..Says::plain(outcome, fallback)
        }
    }

    /// What an operator's order says: by its link while that can be used, else the next rule.
    pub fn override_says(&self, steer: &Override) -> Says {
        let link = self.link(steer.bid).filter(|link| link.tunnel != Use::No);
        let links: Vec<Bid> = link.map(|link| link.bid).into_iter().collect();
        Says {
            failback: FailbackMode::Gap,
            ripe: links.clone(),
            ..Says::plain(Outcome::Candidates(links), Otherwise::NextRule)
        }
    }

    fn outcome(&self, rule: &Rule, verb: &Verb, tunnel: Use) -> Outcome {
        match verb {
            Verb::Prefer(links) => Outcome::Candidates(self.of_use(links, tunnel)),
            Verb::Balance(weights) => {
                let present = self.of_use(&verb.links(), tunnel);
                Outcome::Balance(match buckets::port_cut(rule).filter(|_| self.told) {
                    Some(ports) => buckets::cut(weights, &present, ports),
                    None => buckets::assign(weights, &present),
                })
            }
            Verb::Overflow { links, full } => {
                let full = self.full.get(&(links.clone(), *full));
                let mut links = self.of_use(links, tunnel);
                links.sort_by_key(|bid| full.is_some_and(|full| full.contains(bid)));
                Outcome::Candidates(links)
            }
            Verb::Fastest { links, margin } => {
                let leader = self.leaders.get(&(links.clone(), *margin));
                let mut links = self.of_use(links, tunnel);
                links.sort_by_key(|bid| Some(bid) != leader);
                Outcome::Candidates(links)
            }
            Verb::Cheapest { links, sla } => {
                let mut links = self.of_use(links, tunnel);
                let view = |bid: Bid| self.link(bid).expect("links of this use are known");
                if let Some(class) = sla {
                    links.retain(|bid| !view(*bid).misses.contains(class.as_str()));
                }
                links.sort_by_key(|bid| view(*bid).price);
                Outcome::Candidates(links)
            }
            Verb::Duplicate { links, copies, .. } => {
                let mut links = self.of_use(links, tunnel);
                if self.capped.contains(&rule.id()) {
                    let first = links.first().copied();
                    let free = |bid: Bid| self.link(bid).is_some_and(|link| !link.metered);
                    links.retain(|bid| Some(*bid) == first || free(*bid));
                }
                Outcome::Copies { links, copies: *copies }
            }
            Verb::Breakout { links, translate } => {
                let used = |bid: &Bid| self.link(*bid).is_some_and(|link| link.breakout == tunnel);
                let links = links.iter().copied().filter(used).collect();
                Outcome::Breakout { links, translate: *translate }
            }
            Verb::Block(reply) => Outcome::Block(*reply),
        }
    }

    /// The links that flows may go back to. A copy needs no way back, and a flow that left
    /// outside the tunnel would not survive one.
    fn ripe(&self, outcome: &Outcome, otherwise: &Otherwise, after: Duration) -> Vec<Bid> {
        let otherwise = match otherwise {
            Otherwise::Then(outcome) => Some(outcome),
            Otherwise::NextRule | Otherwise::Any => None,
        };
        let mut ripe = Vec::new();
        for outcome in std::iter::once(outcome).chain(otherwise) {
            if !matches!(outcome, Outcome::Candidates(_) | Outcome::Balance(_)) {
                continue;
            }
            for bid in outcome.links() {
                let is_ripe = self.link(*bid).is_some_and(|link| link.is_ripe(after));
                if is_ripe && !ripe.contains(bid) {
                    ripe.push(*bid);
                }
            }
        }
        ripe
    }

    /// The full links of a rule's `overflow`.
    fn settled(&self, rule: &Rule) -> Vec<Bid> {
        let full = super::contest::verbs(rule).filter_map(|verb| match verb {
            Verb::Overflow { links, full } => self.full.get(&(links.clone(), *full)),
            _ => None,
        });
        full.flatten().copied().collect()
    }
}

/// Whether the walk ends with this.
fn is_possible(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Block(_)) || !outcome.links().is_empty()
}
