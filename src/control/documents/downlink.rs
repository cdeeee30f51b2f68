//! The way down: what a home agent was told of a mobile's rules (RFC 6089), and what it makes of
//! one flow.

use std::fmt;

use mtun_policy::downlink::{RuleDownlink, Said};
use mtun_policy::{Bid, FlowId, FlowPriority, HomeName, InterfaceName, RuleName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::explain::ExplainVerdict;
use super::flows::{FlowKeyDocument, FlowPath};
use super::status::StatusCode;

/// One flow binding, as its mobile or its home agent holds it (RFC 6089 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowBindingDocument {
    /// The home network.
    pub home: HomeName,
    /// Its number, FID.
    pub fid: FlowId,
    /// Its place, FID-PRI: the lowest is asked first.
    pub priority: FlowPriority,
    /// The packets it speaks of, as the agent sees them: towards the mobile.
    pub packets: String,
    /// Where they go: a copy to each of these that is registered.
    pub bids: Vec<Bid>,
    /// Their links, in the same order; empty at a home agent.
    pub links: Vec<InterfaceName>,
    /// The mobile's rule that it carries; `null` at a home agent.
    pub rule: Option<RuleName>,
    /// Where it stands.
    pub state: FlowBindingState,
    /// What the agent answered to it; `null` for no answer yet and at a home agent.
    pub status: Option<StatusCode>,
}

/// Where a flow binding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowBindingState {
    /// It waits for the agent's answer.
    Pending,
    /// The agent holds it, and one of its bindings is registered.
    Active,
    /// The agent holds it and skips it: none of its bindings is registered (RFC 6089 §4.3).
    Inactive,
    /// The agent does not take it; the status says why.
    Refused,
}

impl FlowBindingState {
    /// Whether the agent holds it.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Active | Self::Inactive)
    }
}

impl fmt::Display for FlowBindingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Refused => "refused",
        })
    }
}

/// Whether a home agent takes flow bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowBindingsTaken {
    /// The policy says that it is told nothing.
    Off,
    /// It has not answered yet.
    Unknown,
    /// It does.
    Yes,
    /// It answered without them: it sends by the preferred binding, or by a policy of its own.
    No,
}

impl fmt::Display for FlowBindingsTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "it is told no rules",
            Self::Unknown => "it has not said whether it takes flow bindings",
            Self::Yes => "it takes flow bindings",
            Self::No => "it takes no flow bindings",
        })
    }
}

/// Whether both ends hold the same flow bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DigestState {
    /// The agent's digest was the mobile's at the last acknowledgement.
    Agrees,
    /// It was not: everything is being sent again.
    Differs,
    /// The agent sends none, or has not yet.
    NotCompared,
}

impl fmt::Display for DigestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agrees => "both ends hold the same",
            Self::Differs => "the agent holds something else, and is told everything again",
            Self::NotCompared => "the agent does not say what it holds",
        })
    }
}

/// What a mobile knows of the way down at its home agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DownlinkDocument {
    /// Whether the agent takes flow bindings.
    pub taken: FlowBindingsTaken,
    /// Whether the way down of a flow follows its way up, among the bindings of its entry.
    pub reflect: bool,
    /// Whether copies of `duplicate` are numbered, so that the receiver removes the second.
    pub copies: bool,
    /// Flow bindings that the agent holds.
    pub held: usize,
    /// Flow bindings that wait for its answer.
    pub pending: usize,
    /// Flow bindings that it refused.
    pub refused: usize,
    /// Whether both ends hold the same.
    pub digest: DigestState,
}

/// What the home agent does with a flow's packets to the mobile, by what it acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AtAgentDocument {
    /// The packets as the agent sees them.
    pub flow: FlowKeyDocument,
    /// Whether it takes flow bindings.
    pub taken: FlowBindingsTaken,
    /// Whether both ends hold the same.
    pub digest: DigestState,
    /// The flow bindings that speak of these packets, in the order in which they are asked.
    pub entries: Vec<FlowBindingDocument>,
    /// The one that decides; `null` if none does.
    pub fid: Option<FlowId>,
    /// What happens to the packets.
    pub verdict: ExplainVerdict,
    /// Whether that is the way up; `null` if the flow does not go up by a tunnel.
    pub as_uplink: Option<bool>,
    /// What else decides.
    pub notes: Vec<String>,
}

/// What the home agent is expected to choose for one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowDownDocument {
    /// The way; of several copies the first one's.
    pub path: FlowPath,
    /// The flow binding that says so; `null` for the agent's default.
    pub fid: Option<FlowId>,
    /// Why, in a word: `flow-binding`, `copies`, `follows-uplink` or `default`.
    pub why: String,
}

impl fmt::Display for FlowDownDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.fid {
            Some(fid) => format!("{}, FID {fid}", self.path),
            None => format!("{}, {}", self.path, self.why),
        };
        f.pad(&text)
    }
}

/// What of one rule the home agent is told, and what it does instead of the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleDownlinkDocument {
    /// The home network.
    pub home: HomeName,
    /// The rule.
    pub rule: RuleName,
    /// How much of it: `expressed`, `implied`, `partly` or `not`.
    pub says: String,
    /// Why not all of it; `null` where all of it is.
    pub reason: Option<String>,
    /// What the agent does instead; `null` where it is told all.
    pub instead: Option<String>,
    /// Flow bindings that it takes.
    pub entries: usize,
}

impl RuleDownlinkDocument {
    /// The document of what a rule of a home became.
    pub fn new(home: &HomeName, rule: &RuleDownlink) -> Self {
        let says = match &rule.says {
            Said::Expressed => "expressed",
            Said::Implied => "implied",
            Said::Partly(_) => "partly",
            Said::Not(_) => "not",
        };
        let untold: Vec<_> = rule.says.untold().iter().map(ToString::to_string).collect();
        Self {
            home: home.clone(),
            rule: rule.name.clone(),
            says: says.to_owned(),
            reason: (!untold.is_empty()).then(|| format!("not told: {}", untold.join(", "))),
            instead: rule.instead.clone(),
            entries: rule.entries.len(),
        }
    }
}
