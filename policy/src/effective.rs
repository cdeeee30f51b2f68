//! The rules as they stand at this moment: what the packet path reads.
//!
//! [`crate::steering`] turns the file's rules and the present path facts into an [`Effective`]
//! list; it is frozen into a snapshot and walked here. [`Effective::choose`] is the only walk
//! over rules in the system: the data plane's `decide`, the policy file's own tests and `explain`
//! all call it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::FlowKey;
use crate::selector::TrafficSelector;
use crate::terms::{Bid, RuleId, RuleName};

/// How a refused packet is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockReply {
    /// Nothing is sent.
    Silent,
    /// ICMPv6 administratively prohibited (RFC 4443 §3.1, code 1), rate limited.
    Icmp,
    /// A TCP reset for TCP, ICMPv6 otherwise; rate limited.
    Reset,
}

/// What a rule says of a packet that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first of these that is usable.
    Candidates(Vec<Bid>),
    /// By the binding that the flow's last verified packet from the mobile came on; without one,
    /// the usable binding of the lowest BID-PRI (RFC 5648 §3, RFC 6089 §5.3.6).
    Reflect,
    /// Refused.
    Block(BlockReply),
}

/// What happens when a rule matched but none of its candidates is usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// The walk goes on with the next rule.
    NextRule,
    /// The usable binding of the lowest BID-PRI.
    Any,
    /// The first usable of these.
    Candidates(Vec<Bid>),
    /// Refused.
    Block(BlockReply),
}

/// One rule of an [`Effective`] list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveRule {
    /// Its place.
    pub id: RuleId,
    /// Its name, for people.
    pub name: RuleName,
    /// Alternatives; an empty list matches every packet.
    pub selectors: Vec<TrafficSelector>,
    /// Packets that are taken out again.
    pub exclude: Vec<TrafficSelector>,
    /// What it says.
    pub outcome: Outcome,
    /// And when that is not possible.
    pub otherwise: Otherwise,
}

impl EffectiveRule {
    /// Whether the rule speaks of packets with this key.
    pub fn matches(&self, key: &FlowKey) -> bool {
        (self.selectors.is_empty() || self.selectors.iter().any(|s| s.matches(key)))
            && !self.exclude.iter().any(|s| s.matches(key))
    }
}

/// An ordered list of rules; the first that matches wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// The rules in the order they are tried.
    pub rules: Vec<EffectiveRule>,
}

/// What the bindings allow at this moment, as far as the walk needs it.
pub trait Usable {
    /// Whether packets can be sent by this binding.
    fn usable(&self, bid: Bid) -> bool;
    /// The usable binding of the lowest BID-PRI, ties by lowest BID; `None` if there is none.
    fn preferred(&self) -> Option<Bid>;
}

/// Where the walk over the rules ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'e> {
    /// By this binding.
    Use {
        /// The rule that said so; `None` if no rule matched and the preferred binding is used.
        rule: Option<&'e EffectiveRule>,
        /// The binding.
        bid: Bid,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// Refused by a rule.
    Block {
        /// The rule that said so.
        rule: &'e EffectiveRule,
        /// How to answer.
        reply: BlockReply,
    },
    /// Nothing usable; holds the last rule that matched.
    Nothing(Option<&'e EffectiveRule>),
}

impl Effective {
    /// The rules of a home agent that was told nothing: every flow goes back the way it came.
    pub fn reflecting() -> Arc<Self> {
        Arc::new(Self {
            rules: vec![EffectiveRule {
                id: RuleId(0),
                name: RuleName::new("reflect"),
                selectors: Vec::new(),
                exclude: Vec::new(),
                outcome: Outcome::Reflect,
                otherwise: Otherwise::Any,
            }],
        })
    }

    /// Walks the rules for one packet.
    ///
    /// `last_verified` is the binding on which the flow's last verified packet in the other
    /// direction arrived; only [`Outcome::Reflect`] reads it. A packet that no rule matches takes
    /// the preferred binding (RFC 6089 §5.3.6).
    pub fn choose(
        &self,
        key: &FlowKey,
        bindings: &impl Usable,
        last_verified: Option<Bid>,
    ) -> Choice<'_> {
        let first_usable = |bids: &[Bid]| bids.iter().copied().find(|bid| bindings.usable(*bid));
        let mut last = None;
        for rule in self.rules.iter().filter(|rule| rule.matches(key)) {
            last = Some(rule);
            let chosen = match &rule.outcome {
                Outcome::Block(reply) => return Choice::Block { rule, reply: *reply },
                Outcome::Candidates(bids) => first_usable(bids),
                Outcome::Reflect => last_verified.filter(|bid| bindings.usable(*bid)),
            };
            if let Some(bid) = chosen {
                return Choice::Use { rule: Some(rule), bid, otherwise: false };
            }
            let fallback = match &rule.otherwise {
                Otherwise::NextRule => continue,
                Otherwise::Block(reply) => return Choice::Block { rule, reply: *reply },
                Otherwise::Any => bindings.preferred(),
                Otherwise::Candidates(bids) => first_usable(bids),
            };
            return match fallback {
                Some(bid) => Choice::Use { rule: Some(rule), bid, otherwise: true },
                None => Choice::Nothing(last),
            };
        }
        match (last, bindings.preferred()) {
            (None, Some(bid)) => Choice::Use { rule: None, bid, otherwise: false },
            _ => Choice::Nothing(last),
        }
    }
}
