//! What `mtun explain` shows: which rule a packet took, and why.

use std::fmt;
use std::net::IpAddr;

use mtun_policy::{Bid, BlockReply, CareOfAddress, Field, HomeName, InterfaceName, RuleName};
use serde::{Deserialize, Serialize};

use super::flows::FlowKeyDocument;

/// The judgement on one flow, with its grounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainDocument {
    /// The flow asked for.
    pub flow: FlowKeyDocument,
    /// The home network it belongs to; `null` if it is not ours.
    pub home: Option<HomeName>,
    /// The home's generation; `null` offline.
    pub generation: Option<u64>,
    /// What was supposed of the links, as typed; empty for the present state.
    pub given: Vec<String>,
    /// Earlier rules and why they did not decide.
    pub passed: Vec<PassedRuleDocument>,
    /// The rule that decided; `null` if none matched.
    pub rule: Option<RuleReference>,
    /// What the rule names, in its order, each with its verdict.
    pub candidates: Vec<CandidateDocument>,
    /// What happens to the flow.
    pub verdict: ExplainVerdict,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReference {
    /// Its name; an override has the name `steer`.
    pub name: RuleName,
    /// The file; `null` for overrides.
    pub file: Option<String>,
    /// The line, counted from 1; `null` for overrides.
    pub line: Option<usize>,
}

impl fmt::Display for RuleReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{} ({file}:{line})", self.name),
            _ => write!(f, "{} (by mtun steer)", self.name),
        }
    }
}

/// A rule that came before the deciding one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedRuleDocument {
    /// The rule.
    pub rule: RuleReference,
    /// The first field that did not match; `null` if it matched and had nothing usable, or if
    /// its `exclude` took the flow out.
    pub field: Option<Field>,
    /// The same in words.
    pub why: String,
}

/// One binding that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateDocument {
    /// The binding.
    pub bid: Bid,
    /// The access link; `null` at a home agent.
    pub link: Option<InterfaceName>,
    /// Whether it can be used.
    pub usable: bool,
    /// Why or why not, in words.
    pub why: String,
}

/// What happens to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ExplainVerdict {
    /// It goes through the tunnel.
    Forward {
        /// By this binding; `null` is one without BID.
        bid: Option<Bid>,
        /// Over this link; `null` at a home agent.
        link: Option<InterfaceName>,
        /// With this outer address of the mobile; `null` offline.
        care_of: Option<CareOfAddress>,
        /// To this outer address; `null` offline.
        peer: Option<IpAddr>,
        /// The wrapping, such as `ipv6-in-ipv6`.
        encapsulation: String,
        /// The router the outer packet is given to; `null` offline and on links without routers.
        next_hop: Option<IpAddr>,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// A rule refuses it.
    Block {
        /// How the sender is told.
        reply: BlockReply,
    },
    /// Nothing usable: it is refused, never sent outside the tunnel.
    NoUsableBinding,
    /// Neither source nor destination belongs to a home network.
    NotOurs,
}
