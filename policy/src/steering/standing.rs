//! From what is known of each link by itself to how it is used, now that all are known.
//!
//! The **last link rule** lives here. Verdicts of probes and figures, and holds, may take links
//! out of use only while another link is good. When none is, one link is used in spite of them,
//! as `degraded`: one that is good again and only held back, else one that answers but is beyond
//! a limit, else the one that fell silent last. It is changed only for a better kind.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::facts::Admin;
use super::link::Standing;
use super::link_state::{Cause, LinkReason, LinkState};
use crate::link::AtLimit;
use crate::terms::{Bid, ClassName};

/// How a link may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Not at all.
    No,
    /// When a rule has no other.
    LastChoice,
    /// As the rules say.
    Ordinary,
}

/// What keeps a link from ordinary use besides its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bar {
    /// An operator wants it to run empty: a last choice.
    Drained,
    /// An operator does not want it used.
    Held,
    /// Its quota is used up: a last choice.
    OverQuota,
    /// Its quota is used up, and it is not used any more.
    Stopped,
}

impl Bar {
    /// What an operator and a quota make together: the stricter of the two.
    pub(super) fn of(admin: Admin, at_limit: Option<AtLimit>) -> Option<Self> {
        match (admin, at_limit) {
            (Admin::Held, _) => Some(Self::Held),
            (_, Some(AtLimit::Stop)) => Some(Self::Stopped),
            (Admin::Drained, _) => Some(Self::Drained),
            (Admin::Open, Some(AtLimit::LastResort)) => Some(Self::OverQuota),
            (Admin::Open, None) => None,
        }
    }

    /// Whether the link is not used at all.
    pub fn forbids(self) -> bool {
        matches!(self, Self::Held | Self::Stopped)
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Drained => "drained by an operator",
            Self::Held => "held by an operator",
            Self::OverQuota => "over its quota, a last resort",
            Self::Stopped => "over its quota, stopped",
        })
    }
}

/// What is known of one link, before the others are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub bid: Bid,
    pub priority: u8,
    pub standing: Standing,
    /// No event speaks against it; verdicts and holds at most.
    pub can_be_sent_by: bool,
    pub attached: bool,
    pub bar: Option<Bar>,
    /// The classes it misses, of those that rules name.
    pub misses: BTreeSet<ClassName>,
    /// Supposed to be degraded, whatever classes there are.
    pub degraded: bool,
}

impl Candidate {
    fn forbidden(&self) -> bool {
        self.bar.is_some_and(Bar::forbids)
    }

    fn is_good(&self) -> bool {
        self.standing == Standing::Good && self.can_be_sent_by && !self.forbidden()
    }

    /// How good a last link it makes, the best first; `None` if it makes none.
    fn as_last_link(&self) -> Option<LastLink> {
        if self.forbidden() || !self.can_be_sent_by {
            return None;
        }
        match self.standing {
            Standing::Unknown | Standing::Good => None,
            Standing::Holding { until, .. } => Some(LastLink::Holding(until)),
            Standing::Bad { cause: Cause::ProbesLost, since } => {
                Some(LastLink::Silent(Reverse(since)))
            }
            Standing::Bad { since, .. } => Some(LastLink::Beyond(Reverse(since))),
        }
    }

    fn tunnel(&self, is_last_link: bool) -> Use {
        if !is_last_link && !self.is_good() { Use::No } else { self.unless_barred() }
    }

    fn unless_barred(&self) -> Use {
        match self.bar {
            None => Use::Ordinary,
            Some(Bar::Drained | Bar::OverQuota) => Use::LastChoice,
            Some(Bar::Held | Bar::Stopped) => Use::No,
        }
    }

    fn state(&self, is_last_link: bool) -> (LinkState, LinkReason) {
        match self.standing {
            Standing::Unknown => (LinkState::Unknown, LinkReason::NeverRegistered),
            Standing::Bad { cause, .. } | Standing::Holding { cause, .. } if is_last_link => {
                (LinkState::Degraded, LinkReason::LastLink(cause))
            }
            Standing::Bad { cause, .. } => (LinkState::Down, LinkReason::Bad(cause)),
            Standing::Holding { cause, until } => {
                (LinkState::Recovering { until }, LinkReason::Holding(cause))
            }
            Standing::Good => match self.misses.first() {
                Some(class) => (LinkState::Degraded, LinkReason::OutOfClass(class.clone())),
                None if self.degraded => (LinkState::Degraded, LinkReason::Supposed),
                None => (LinkState::Up, LinkReason::Good),
            },
        }
    }
}

/// The kinds of last links, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LastLink {
    Holding(Duration),
    Beyond(Reverse<Duration>),
    Silent(Reverse<Duration>),
}

/// How a link is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub tunnel: Use,
    pub breakout: Use,
    pub last_link: bool,
    pub state: LinkState,
    pub reason: LinkReason,
}

/// Judges all links together; `last_link` is the one that was used as such so far.
pub(super) fn judge(candidates: &[Candidate], last_link: &mut Option<Bid>) -> Vec<Verdict> {
    *last_link = choose_last_link(candidates, *last_link);
    let verdict = |candidate: &Candidate| {
        let is_last_link = *last_link == Some(candidate.bid);
        let (state, reason) = candidate.state(is_last_link);
        let breakout = if candidate.attached { candidate.unless_barred() } else { Use::No };
        let tunnel = candidate.tunnel(is_last_link);
        Verdict { tunnel, breakout, last_link: is_last_link, state, reason }
    };
    candidates.iter().map(verdict).collect()
}

fn choose_last_link(candidates: &[Candidate], present: Option<Bid>) -> Option<Bid> {
    if candidates.iter().any(Candidate::is_good) {
        return None;
    }
    let eligible =
        candidates.iter().filter_map(|candidate| Some((candidate.as_last_link()?, candidate)));
    let best = eligible.clone().min_by_key(|(kind, link)| (*kind, link.priority, link.bid))?;
    let same_kind =
        |kind: &LastLink| std::mem::discriminant(kind) == std::mem::discriminant(&best.0);
    let stays =
        eligible.into_iter().find(|(kind, link)| Some(link.bid) == present && same_kind(kind));
    Some(stays.unwrap_or(best).1.bid)
}
