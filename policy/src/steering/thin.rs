//! Links in three states and no memory: what callers use until they have a [`super::Steering`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::overrides::Override;
use crate::effective::{Effective, Otherwise, Outcome, Says};
use crate::policy::RuleSet;
use crate::terms::Bid;
use crate::verb::{Fallback, Verb};

/// What is known of a link besides its registration.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Nothing speaks against it.
    #[default]
    Up,
    /// An operator wants it to run empty: last choice of every rule.
    Drained,
    /// Not used.
    Down,
}

impl LinkState {
    /// The state that `given wlan0=…` names.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "up" => Some(Self::Up),
            "drained" => Some(Self::Drained),
            "down" => Some(Self::Down),
            _ => None,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drained => "drained",
            Self::Down => "down",
        }
    }
}

/// The state of every link; a link that is not mentioned is up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathFacts {
    links: BTreeMap<Bid, LinkState>,
}

impl PathFacts {
    /// Facts in which every link is up.
    pub fn new() -> Self {
        Self::default()
    }

    /// States what is known of the link of `bid`.
    pub fn set(&mut self, bid: Bid, state: LinkState) {
        self.links.insert(bid, state);
    }

    /// What is known of the link of `bid`.
    pub fn state(&self, bid: Bid) -> LinkState {
        self.links.get(&bid).copied().unwrap_or_default()
    }

    /// The links of which something was stated.
    pub fn iter(&self) -> impl Iterator<Item = (Bid, LinkState)> {
        self.links.iter().map(|(bid, state)| (*bid, *state))
    }

    /// Candidates as they are now: those that are down left out, the drained ones last.
    fn present(&self, bids: &[Bid]) -> Vec<Bid> {
        let with = |state| bids.iter().copied().filter(move |bid| self.state(*bid) == state);
        with(LinkState::Up).chain(with(LinkState::Drained)).collect()
    }

    fn outcome(&self, verb: &Verb) -> Outcome {
        match verb {
            Verb::Block(reply) => Outcome::Block(*reply),
            Verb::Breakout { links, translate } => {
                Outcome::Breakout { links: self.present(links), translate: *translate }
            }
            Verb::Duplicate { links, copies, .. } => {
                Outcome::Copies { links: self.present(links), copies: *copies }
            }
            other => Outcome::Candidates(self.present(&other.links())),
        }
    }
}

impl FromIterator<(Bid, LinkState)> for PathFacts {
    fn from_iter<I: IntoIterator<Item = (Bid, LinkState)>>(facts: I) -> Self {
        Self { links: facts.into_iter().collect() }
    }
}

/// The list that packets are judged by at the time `now`.
///
/// An override whose time has come (`until <= now`) is left out; the caller evaluates again at
/// [`super::next_expiry`].
pub fn evaluate(
    rules: &RuleSet,
    overrides: &[Override],
    facts: &PathFacts,
    now: Duration,
) -> Arc<Effective> {
    let steered = overrides.iter().filter(|steer| now < steer.until).map(|steer| {
        let outcome = Outcome::Candidates(facts.present(&[steer.bid]));
        (steer.head(), Says::plain(outcome, Otherwise::NextRule))
    });
    let says = rules.rules.iter().map(|rule| Says {
        sticky: rule.sticky,
        together: rule.together.as_ref().map(|(number, _)| *number),
        failback: rule.failback.mode,
        ..Says::plain(
            facts.outcome(&rule.verb),
            match &rule.otherwise {
                Fallback::NextRule => Otherwise::NextRule,
                Fallback::Any => Otherwise::Any,
                Fallback::Then(verb) => Otherwise::Then(facts.outcome(verb)),
            },
        )
    });
    Arc::new(Effective {
        overrides: steered.collect(),
        table: rules.table.clone(),
        says: says.collect(),
    })
}
