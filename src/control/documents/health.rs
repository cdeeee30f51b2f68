//! The first line of `mtun status`: is everything well, and if not, why.

use std::fmt;

use mtun_policy::{Bid, HomeName, InterfaceName, RuleName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{BindingDocument, BindingPhase, HomeDocument, LinkDocument, LinkState};

/// Whether what was configured works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// Everything that is not as configured, worst first; empty when the state is `ok`.
    pub reasons: Vec<HealthReason>,
}

/// Health in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Everything that was configured works.
    Ok,
    /// Something does not; the reasons say what.
    Degraded,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
        })
    }
}

/// One thing that is not as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum HealthReason {
    /// No binding of this home can be used: its packets are refused.
    NoUsableBinding {
        /// The home network.
        home: HomeName,
    },
    /// The agent refused a binding.
    BindingRefused {
        /// The home network.
        home: HomeName,
        /// The binding.
        bid: Option<Bid>,
        /// The agent's status, number and name.
        status: String,
    },
    /// A binding waits for its first acknowledgement.
    BindingPending {
        /// The home network.
        home: HomeName,
        /// The binding.
        bid: Option<Bid>,
    },
    /// A link of the file cannot be used.
    LinkUnusable {
        /// The link.
        link: InterfaceName,
        /// Why, one word of the daemon's reasons.
        reason: Option<String>,
    },
    /// A link is used though it is not good.
    LinkDegraded {
        /// The link.
        link: InterfaceName,
        /// Why it is not.
        reason: Option<String>,
    },
    /// The agent refused flow bindings: their packets take the way of what it holds.
    FlowBindingsRefused {
        /// The home network.
        home: HomeName,
        /// How many.
        count: usize,
        /// Its answer to the first of them, number and name.
        status: String,
    },
    /// The rules come to more flow bindings than the agent is to hold: these rules are not told.
    FlowBindingsTooMany {
        /// The home network.
        home: HomeName,
        /// The rules, those that take the most first.
        rules: Vec<RuleName>,
    },
    /// Bindings of mobiles cannot be kept over a restart, so no new one is accepted.
    StoreFailing {
        /// What the disk said.
        message: String,
    },
    /// The last policy that was to be applied was refused; the one before is in force.
    PolicyRefused {
        /// The first of its faults.
        message: String,
    },
}

impl HealthReason {
    /// A number that sorts the worst first.
    fn rank(&self) -> u8 {
        match self {
            Self::NoUsableBinding { .. } => 0,
            Self::BindingRefused { .. } => 1,
            Self::LinkUnusable { .. } => 2,
            Self::BindingPending { .. } => 3,
            Self::LinkDegraded { .. } => 4,
            Self::FlowBindingsRefused { .. } | Self::FlowBindingsTooMany { .. } => 4,
            Self::StoreFailing { .. } => 1,
            Self::PolicyRefused { .. } => 5,
        }
    }
}

impl fmt::Display for HealthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |bid: &Option<Bid>| match bid {
            Some(bid) => format!("BID {bid}"),
            None => "the binding without BID".to_owned(),
        };
        match self {
            Self::NoUsableBinding { home } => write!(f, "home {home} has no usable binding"),
            Self::BindingRefused { home, bid, status } => {
                write!(f, "the agent of home {home} refused {}: {status}", named(bid))
            }
            Self::BindingPending { home, bid } => {
                write!(f, "{} of home {home} waits for its acknowledgement", named(bid))
            }
            Self::LinkUnusable { link, reason: Some(reason) } => {
                write!(f, "link {link} cannot be used: {reason}")
            }
            Self::LinkUnusable { link, reason: None } => write!(f, "link {link} cannot be used"),
            Self::LinkDegraded { link, reason: Some(reason) } => {
                write!(f, "link {link} is used though it is not good: {reason}")
            }
            Self::LinkDegraded { link, reason: None } => {
                write!(f, "link {link} is used though it is not good")
            }
            Self::FlowBindingsRefused { home, count, status } => write!(
                f,
                "the agent of home {home} refused {count} of the flow bindings: {status}; their packets \
                 do not follow the rules on the way down"
            ),
            Self::FlowBindingsTooMany { home, rules } => {
                let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "the agent of home {home} cannot be told all rules, packets to the mobile do not \
                     follow {}",
                    rules.join(", ")
                )
            }
            Self::StoreFailing { message } => {
                write!(f, "bindings cannot be kept, and new ones are refused: {message}")
            }
            Self::PolicyRefused { message } => {
                write!(f, "the last policy was refused, the one before is in force: {message}")
            }
        }
    }
}

impl Health {
    /// Health from its reasons: none is `ok`.
    pub fn new(mut reasons: Vec<HealthReason>) -> Self {
        reasons.sort_by_key(HealthReason::rank);
        let state = if reasons.is_empty() { HealthState::Ok } else { HealthState::Degraded };
        Self { state, reasons }
    }

    /// What links and bindings say of a node's health, with `further` reasons that they cannot
    /// show.
    ///
    /// A home with a home address (a mobile's) needs a usable binding; a link that was drained by
    /// hand is as it was asked to be.
    pub fn judge(
        homes: &[HomeDocument],
        links: &[LinkDocument],
        bindings: &[BindingDocument],
        mut further: Vec<HealthReason>,
    ) -> Self {
        let bound = |home: &HomeName| bindings.iter().any(|b| b.home == *home && b.usable);
        let ours = homes.iter().filter(|home| home.home_address.is_some());
        further.extend(
            ours.filter(|home| !bound(&home.name))
                .map(|home| HealthReason::NoUsableBinding { home: home.name.clone() }),
        );
        further.extend(
            links
                .iter()
                .filter(|link| {
                    use LinkState::{Down, Recovering, Unknown};
                    matches!(link.state, Down | Unknown | Recovering)
                })
                .map(|link| HealthReason::LinkUnusable {
                    link: link.interface.clone(),
                    reason: link.reason.clone(),
                }),
        );
        let degraded = links.iter().filter(|link| link.state == LinkState::Degraded);
        further.extend(degraded.map(|link| HealthReason::LinkDegraded {
            link: link.interface.clone(),
            reason: link.reason.clone(),
        }));
        for binding in bindings {
            let (home, bid) = (binding.home.clone(), binding.bid);
            match binding.phase {
                BindingPhase::Refused => {
                    let status = binding.status.as_ref().map(ToString::to_string);
                    let status = status.unwrap_or_else(|| "no status".to_owned());
                    further.push(HealthReason::BindingRefused { home, bid, status });
                }
                BindingPhase::Registering => {
                    further.push(HealthReason::BindingPending { home, bid });
                }
                // A binding without care-of address is told by its link.
                BindingPhase::Idle
                | BindingPhase::Registered
                | BindingPhase::Refreshing
                | BindingPhase::Deregistering
                | BindingPhase::AtHome => {}
            }
        }
        Self::new(further)
    }
}
