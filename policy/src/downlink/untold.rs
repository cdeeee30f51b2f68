//! What a home agent cannot be told, and what happens to those packets instead.

use std::fmt;

use serde::Serialize;

use crate::effective::{Otherwise, Outcome, RuleHead, Says};
use crate::policy::Rule;
use crate::selector::TrafficSelector;
use crate::steering::port_cut;
use crate::verb::{Fallback, Scope, Verb};

/// A word of a rule that a home agent cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Untold {
    /// A `set`: a list that may be long.
    Set,
    /// `in`: the door by which a packet came.
    Ingress,
    /// `uid`.
    User,
    /// `icmp-type`.
    IcmpType,
    /// `flow-label`: the other direction has its own.
    FlowLabel,
    /// `spi`: the other direction has its own.
    Spi,
    /// An `exclude` line that looks at one of these.
    Exclude,
    /// `when`.
    When,
    /// `fastest`.
    Fastest,
    /// `cheapest`.
    Cheapest,
    /// `overflow`.
    Overflow,
    /// `block`, or that nothing is sent when none of the links is usable.
    Block,
    /// `breakout`.
    Breakout,
    /// A `balance` whose flows cannot be told apart by the mobile's ports.
    Balance,
    /// `sticky pair` and `sticky host`.
    Sticky,
    /// `together`.
    Together,
    /// `failback`.
    Failback,
    /// Copies that move to other links when one of theirs goes.
    Copies,
    /// The links behind the first, for want of room.
    LaterLinks,
    /// The whole rule, for want of room.
    Room,
}

impl Untold {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Set => "a set",
            Self::Ingress => "`in`",
            Self::User => "`uid`",
            Self::IcmpType => "`icmp-type`",
            Self::FlowLabel => "`flow-label`",
            Self::Spi => "`spi`",
            Self::Exclude => "an `exclude`",
            Self::When => "`when`",
            Self::Fastest => "`fastest`",
            Self::Cheapest => "`cheapest`",
            Self::Overflow => "`overflow`",
            Self::Block => "`block`",
            Self::Breakout => "`breakout`",
            Self::Balance => "this `balance`",
            Self::Sticky => "`sticky`",
            Self::Together => "`together`",
            Self::Failback => "`failback`",
            Self::Copies => "where copies go when a link is lost",
            Self::LaterLinks => "the links behind the first, for want of room",
            Self::Room => "the rule, for want of room",
        }
    }

    /// What the agent does instead.
    pub fn instead(self) -> &'static str {
        match self {
            Self::Set
            | Self::Ingress
            | Self::User
            | Self::IcmpType
            | Self::FlowLabel
            | Self::Spi
            | Self::Exclude
            | Self::Room => "answers to its flows follow the rules behind it",
            Self::When | Self::Fastest | Self::Cheapest | Self::Overflow => {
                "it is told the present choice, again at every change, at most once a second"
            }
            Self::Block => "what is refused here it sends by the rules behind",
            Self::Breakout => "what leaves outside the tunnel is answered outside the tunnel",
            Self::Balance => "answers take the first link of the rule that is usable",
            Self::Sticky | Self::Together => {
                "answers of all its flows move together with a new choice"
            }
            Self::Failback => "unless the agent reflects, answers go back at once, when it is told",
            Self::Copies => "the other copies go on until it is told again",
            Self::LaterLinks => {
                "when the first link is lost, the rules behind it are followed until it is told again"
            }
        }
    }

    /// Whether the agent is told nothing of packets for which this counts.
    fn is_of_packets(self) -> bool {
        matches!(
            self,
            Self::Set
                | Self::Ingress
                | Self::User
                | Self::IcmpType
                | Self::FlowLabel
                | Self::Spi
                | Self::Exclude
                | Self::Room
        )
    }

    /// Whether what the agent does instead is true of packets of which it is told nothing.
    pub(crate) fn counts_untold(self) -> bool {
        self.is_of_packets() || self == Self::Breakout
    }
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How much of a rule the agent is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// All of it.
    Expressed,
    /// Nothing, because what follows it says the same, or because none of its packets come down.
    Implied,
    /// All but this.
    Partly(Vec<Untold>),
    /// Nothing, because of this.
    Not(Vec<Untold>),
}

impl Said {
    /// What is not told.
    pub fn untold(&self) -> &[Untold] {
        match self {
            Self::Expressed | Self::Implied => &[],
            Self::Partly(untold) | Self::Not(untold) => untold,
        }
    }

    /// Adds what is not told either.
    fn insert(untold: &mut Vec<Untold>, more: Vec<Untold>) {
        untold.extend(more);
        untold.sort_unstable();
        untold.dedup();
    }

    /// The same with more that is not told.
    pub(super) fn add(&mut self, more: Vec<Untold>) {
        match self {
            Self::Expressed | Self::Implied if more.is_empty() => {}
            Self::Expressed | Self::Implied => *self = Self::Partly(more),
            Self::Partly(untold) | Self::Not(untold) => Self::insert(untold, more),
        }
    }

    /// What the agent does instead of what it is not told; `None` if it is told all.
    pub fn instead(&self) -> Option<String> {
        let mut sentences: Vec<&str> = Vec::new();
        // Who hears nothing of a rule hears nothing of its choices.
        let nothing =
            matches!(self, Self::Not(untold) if untold.iter().any(|it| it.is_of_packets()));
        for untold in self.untold().iter().filter(|it| !nothing || it.counts_untold()) {
            if !sentences.contains(&untold.instead()) {
                sentences.push(untold.instead());
            }
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}

/// The fields of one line that cannot be told.
pub(super) fn of_line(line: &TrafficSelector) -> Vec<Untold> {
    let looks = [
        (Untold::Set, line.of_set),
        (Untold::Ingress, !line.ingresses.is_empty()),
        (Untold::User, !line.uids.is_empty()),
        (Untold::IcmpType, !line.icmp_types.is_empty()),
        (Untold::FlowLabel, !line.flow_labels.is_empty()),
        (Untold::Spi, !line.spis.is_empty()),
    ];
    looks.into_iter().filter(|(_, looks)| *looks).map(|(untold, _)| untold).collect()
}

/// What of a rule as it is written cannot be told, whatever its links do: conditions, choices that
/// are told as their present result, and words about flows.
pub(crate) fn of_written(rule: &Rule) -> Vec<Untold> {
    let mut untold = Vec::new();
    if !rule.when.is_empty() {
        untold.push(Untold::When);
    }
    let otherwise = match &rule.otherwise {
        Fallback::Then(verb) => Some(verb),
        Fallback::NextRule | Fallback::Any => None,
    };
    for verb in [Some(&rule.verb), otherwise].into_iter().flatten() {
        match verb {
            Verb::Fastest { .. } => untold.push(Untold::Fastest),
            Verb::Cheapest { .. } => untold.push(Untold::Cheapest),
            Verb::Overflow { .. } => untold.push(Untold::Overflow),
            Verb::Block(_) => untold.push(Untold::Block),
            Verb::Breakout { .. } => untold.push(Untold::Breakout),
            Verb::Balance(weights) if weights.len() > 1 && port_cut(rule).is_none() => {
                untold.push(Untold::Balance);
            }
            Verb::Duplicate { links, copies, .. } if links.len() > usize::from(*copies) => {
                untold.push(Untold::Copies);
            }
            Verb::Prefer(_) | Verb::Balance(_) | Verb::Duplicate { .. } => {}
        }
    }
    if matches!(rule.sticky.scope, Scope::Pair | Scope::Host) {
        untold.push(Untold::Sticky);
    }
    if rule.together.is_some() {
        untold.push(Untold::Together);
    }
    untold.dedup();
    untold
}

/// Whether nothing of what a line looks at has to be left out.
pub(super) fn is_told(line: &TrafficSelector) -> bool {
    of_line(line).is_empty()
}

/// What of a rule's packets and of its present outcome cannot be told.
pub(super) fn of_rule(head: &RuleHead, says: &Says) -> Vec<Untold> {
    let mut untold: Vec<Untold> = head.selectors.iter().flat_map(of_line).collect();
    if !head.exclude.iter().all(is_told) {
        untold.extend(head.exclude.iter().flat_map(of_line));
        untold.push(Untold::Exclude);
    }
    let otherwise = match &says.otherwise {
        Otherwise::Then(outcome) => Some(outcome),
        Otherwise::NextRule | Otherwise::Any => None,
    };
    for outcome in [Some(&says.outcome), otherwise].into_iter().flatten() {
        match outcome {
            Outcome::Block(_) => untold.push(Untold::Block),
            Outcome::Breakout { .. } => untold.push(Untold::Breakout),
            Outcome::Balance(buckets) if !buckets.can_be_told() => untold.push(Untold::Balance),
            Outcome::Copies { links, copies } if links.len() > usize::from(*copies) => {
                untold.push(Untold::Copies);
            }
            Outcome::Balance(_)
            | Outcome::Copies { .. }
            | Outcome::Candidates(_)
            | Outcome::Reflect
            | Outcome::ReflectWithin(_)
            | Outcome::Unmet => {}
        }
    }
    untold.sort_unstable();
    untold.dedup();
    untold
}
