//! What a node does beyond registering: routes without the home agent, the way home, and what it
//! is to mobiles that talk to it.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Tunnel;

/// Longest lifetime of a binding that return routability protects (RFC 6275 §12,
/// `MAX_RR_BINDING_LIFETIME`).
pub const LONGEST_OPTIMIZED: Duration = Duration::from_secs(420);

/// Whether packets of a rule may go straight to a correspondent, by the rule's own link
/// (RFC 6275 §11.3.1). Until the correspondent holds that link's binding they take the tunnel by
/// the same link, whatever this says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Optimize {
    /// Never: they take the tunnel.
    #[default]
    Never,
    /// If traffic makes it worth it.
    Allowed,
    /// As soon as there is a flow.
    Always,
}

impl fmt::Display for Optimize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Never => "never",
            Self::Allowed => "allowed",
            Self::Always => "always",
        })
    }
}

/// What starts route optimization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RouteOptimizationStart {
    /// Traffic with a correspondent, unless a rule forbids it.
    Traffic,
    /// Only rules that say so.
    Policy,
}

impl fmt::Display for RouteOptimizationStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Traffic => "traffic",
            Self::Policy => "policy",
        })
    }
}

/// `route-optimization …` of a mobile's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RouteOptimizationPlan {
    /// What starts it.
    pub start: RouteOptimizationStart,
    /// The lifetime asked of correspondents: a multiple of 4 s, at most [`LONGEST_OPTIMIZED`].
    pub lifetime: Duration,
    /// Most correspondents at a time.
    pub max_correspondents: usize,
}

impl RouteOptimizationPlan {
    /// What holds for packets of rules that do not say.
    pub fn unsaid(&self) -> Optimize {
        match self.start {
            RouteOptimizationStart::Traffic => Optimize::Allowed,
            RouteOptimizationStart::Policy => Optimize::Never,
        }
    }
}

/// `returning-home …`: what a mobile uses while one of its links is on the home link
/// (RFC 5648 §5.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReturningHome {
    /// The home link only; all bindings end.
    #[default]
    Home,
    /// The home link and the foreign ones at once (the H flag).
    Both,
    /// The foreign links only; the link that is at home is not used.
    Foreign,
}

impl fmt::Display for ReturningHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Home => "home",
            Self::Both => "both",
            Self::Foreign => "foreign",
        })
    }
}

/// `correspondent { … }`: what this node is to mobiles that talk to it (RFC 6275 §9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CorrespondentPlan {
    /// The interface that packets to bound mobiles enter; `None` where a home has one.
    pub tunnel: Option<Tunnel>,
    /// The addresses at which mobiles find it; never empty.
    pub addresses: Vec<Ipv6Addr>,
    /// Longest lifetime that is granted, at most [`LONGEST_OPTIMIZED`].
    pub max_lifetime: Duration,
    /// Whether a mobile may register several care-of addresses (RFC 5648).
    pub multiple_coa: bool,
    /// Most mobiles that have bindings at a time.
    pub max_mobiles: usize,
    /// Most bindings of one mobile at a time.
    pub max_bindings: u16,
}

/// How a node that is no correspondent answers the Mobility Headers of mobiles that take it for
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrangerAnswer {
    /// Nothing is sent.
    #[default]
    Silent,
    /// ICMPv6 Parameter Problem code 1, as a node answers that knows no Mobility Header
    /// (RFC 4443 §3.4): the mobile knows at once (RFC 6275 §11.3.5).
    ParameterProblem,
}
