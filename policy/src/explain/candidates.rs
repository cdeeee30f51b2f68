//! The links that a matching rule names, and what became of each.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Context;
use crate::effective::{Outcome, Ruling, Usable};
use crate::policy::Rule;
use crate::steering::{Bar, Cause, LinkReason, LinkReport, LinkState};
use crate::terms::{Bid, InterfaceName};
use crate::verb::{Fallback, Verb};

/// A link that a matching rule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The link.
    pub interface: InterfaceName,
    /// Its BID.
    pub bid: Bid,
    /// Whether the rule names it only under `otherwise`.
    pub otherwise: bool,
    /// Whether packets can be sent by it.
    pub usable: bool,
    /// What became of it.
    pub verdict: CandidateVerdict,
}

/// What became of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateVerdict {
    /// The flow goes by it.
    Chosen,
    /// The flow goes by it, and this speaks against it.
    ChosenDegraded(LinkReason),
    /// It could be used; another came first.
    NotNeeded,
    /// It could be used, and the flow's bucket is another link's.
    OtherBucket,
    /// It is full, and new flows go elsewhere.
    Full,
    /// Another has a shorter round trip time; holds its own.
    Slower(Option<Duration>),
    /// Another costs less.
    Dearer,
    /// It misses the class of the rule.
    OutOfClass(String),
    /// It is a last choice, and another could be used.
    LastChoice(Bar),
    /// It is not to be used at all.
    Forbidden(Bar),
    /// It is down.
    Down(LinkReason),
    /// It is good again and held back.
    Recovering(LinkReason),
    /// No binding was ever acknowledged for it.
    Unknown,
    /// No binding is registered for it at this moment.
    NotRegistered,
    /// It has no carrier or no address of its own.
    NotAttached,
}

impl CandidateVerdict {
    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::ChosenDegraded(_) => "chosen-degraded",
            Self::NotNeeded => "not-needed",
            Self::OtherBucket => "other-bucket",
            Self::Full => "full",
            Self::Slower(_) => "slower",
            Self::Dearer => "dearer",
            Self::OutOfClass(_) => "out-of-class",
            Self::LastChoice(_) => "last-choice",
            Self::Forbidden(_) => "forbidden",
            Self::Down(_) => "down",
            Self::Recovering(_) => "recovering",
            Self::Unknown => "unknown",
            Self::NotRegistered => "not-registered",
            Self::NotAttached => "not-attached",
        }
    }
}

impl fmt::Display for CandidateVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::ChosenDegraded(reason) => write!(f, "chosen, degraded: {reason}"),
            Self::NotNeeded => f.write_str("not needed"),
            Self::OtherBucket => f.write_str("the flow's bucket is another link's"),
            Self::Full => f.write_str("load full, new flows go elsewhere"),
            Self::Slower(None) => f.write_str("slower"),
            Self::Slower(Some(rtt)) => {
                write!(f, "slower, round trip {:.1} ms", rtt.as_secs_f64() * 1000.0)
            }
            Self::Dearer => f.write_str("dearer"),
            Self::OutOfClass(class) => write!(f, "out of the class `{class}`"),
            Self::LastChoice(bar) | Self::Forbidden(bar) => bar.fmt(f),
            Self::Down(reason) => write!(f, "down: {reason}"),
            Self::Recovering(reason) => write!(f, "recovering: {reason}"),
            Self::Unknown => f.write_str("never registered"),
            Self::NotRegistered => f.write_str("no binding is registered for it"),
            Self::NotAttached => f.write_str("no carrier or no address of its own"),
        }
    }
}

impl<U: Usable> Context<'_, U> {
    /// The links a rule names as it was written, those that cannot be used included.
    pub(super) fn candidates(&self, rule: Ruling<'_>, written: Option<&Rule>) -> Vec<Candidate> {
        let Some(written) = written else {
            let links = rule.says.outcome.links().iter();
            return links.map(|bid| self.candidate(*bid, false, rule, None)).collect();
        };
        let mut candidates = Vec::new();
        let mut named = Vec::new();
        // Of a rule whose `when` is not met, what it says otherwise is all that is asked.
        if rule.says.outcome != Outcome::Unmet {
            named = written.verb.links();
            let verb = Some(&written.verb);
            candidates.extend(named.iter().map(|bid| self.candidate(*bid, false, rule, verb)));
        }
        let (links, verb): (Vec<Bid>, _) = match &written.otherwise {
            Fallback::Then(verb) => (verb.links(), Some(verb)),
            Fallback::Any => (self.supposed.links.iter().map(|report| report.bid).collect(), None),
            Fallback::NextRule => (Vec::new(), None),
        };
        // What the verb has already tried is told once, unless it is what `otherwise` took.
        let taken = |bid: &Bid| self.otherwise && self.bids.contains(bid);
        let links = links.into_iter().filter(|bid| !named.contains(bid) || taken(bid));
        candidates.extend(links.map(|bid| self.candidate(bid, true, rule, verb)));
        candidates
    }

    fn candidate(
        &self,
        bid: Bid,
        otherwise: bool,
        rule: Ruling<'_>,
        verb: Option<&Verb>,
    ) -> Candidate {
        let report = self.supposed.links.iter().find(|report| report.bid == bid);
        let interface = report
            .map(|report| report.interface.clone())
            .unwrap_or_else(|| InterfaceName::new(format!("bid {bid}")));
        let outside = matches!(verb, Some(Verb::Breakout { .. }));
        let usable = if outside { self.bindings.attached(bid) } else { self.bindings.usable(bid) };
        let verdict = match report {
            None => CandidateVerdict::NotRegistered,
            Some(report) => {
                let chosen = self.bids.contains(&bid) && self.otherwise == otherwise && usable;
                self.verdict(report, chosen, usable, outside, rule, verb)
            }
        };
        Candidate { interface, bid, otherwise, usable, verdict }
    }

    fn verdict(
        &self,
        report: &LinkReport,
        chosen: bool,
        usable: bool,
        outside: bool,
        rule: Ruling<'_>,
        verb: Option<&Verb>,
    ) -> CandidateVerdict {
        use CandidateVerdict as Is;
        let bid = report.bid;
        let reason = || report.reason.clone();
        if chosen {
            return match report.state {
                LinkState::Degraded if !outside => Is::ChosenDegraded(reason()),
                _ => Is::Chosen,
            };
        }
        match report.bar {
            Some(bar) if bar.forbids() => return Is::Forbidden(bar),
            Some(bar) if usable => return Is::LastChoice(bar),
            _ => {}
        }
        if !usable {
            return match report.state {
                _ if outside && report.reason == LinkReason::Bad(Cause::Roaming) => {
                    Is::Down(reason())
                }
                _ if outside => Is::NotAttached,
                LinkState::Down => Is::Down(reason()),
                LinkState::Recovering { .. } => Is::Recovering(reason()),
                LinkState::Unknown => Is::Unknown,
                LinkState::Up | LinkState::Degraded => Is::NotRegistered,
            };
        }
        match verb {
            Some(Verb::Balance(_)) => Is::OtherBucket,
            Some(Verb::Overflow { .. }) if rule.says.settled.contains(&bid) => Is::Full,
            Some(Verb::Fastest { .. }) => Is::Slower(report.measured.rtt),
            Some(Verb::Cheapest { sla, .. }) => {
                let missed = sla.as_ref().filter(|sla| {
                    let mut classes = report.classes.iter();
                    classes.any(|class| class.class.as_str() == sla.as_str() && !class.met)
                });
                match missed {
                    Some(class) => Is::OutOfClass(class.clone()),
                    None if self.dearer(bid) => Is::Dearer,
                    None => Is::NotNeeded,
                }
            }
            _ => Is::NotNeeded,
        }
    }

    /// Whether a link costs more than the one that was chosen.
    fn dearer(&self, bid: Bid) -> bool {
        let price = |bid: Bid| {
            let link = self.policy.interface_of(bid)?;
            let roams = self.supposed.links.iter().any(|it| it.bid == bid && it.radio.roams());
            Some(link.price(roams))
        };
        self.bids.iter().any(|chosen| price(bid) > price(*chosen))
    }
}
