//! What `mtun agent` asks for and shows: the mobiles of a home agent, one by one.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use ipnet::Ipv6Net;
use mtun_policy::{Bid, HomeAddress, HomeName, MobileNetworkPrefix, SecurityName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::BindingDocument;

/// A mobile that is to be served from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentAddition {
    /// The home network; `null` for the one in whose prefix the address lies.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// Its home address.
    pub home_address: Ipv6Addr,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// Prefixes that it may register.
    #[serde(default)]
    pub mobile_networks: Vec<Ipv6Net>,
    /// How many bindings it may hold; as usual for `null`.
    #[serde(default)]
    pub max_bindings: Option<u16>,
    /// How its signaling is protected.
    pub security: AgentSecurity,
    /// Whether this takes the place of what was added for the same address before.
    #[serde(default)]
    pub replace: bool,
}

/// How the signaling of an added mobile is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AgentSecurity {
    /// Not at all: for a lab.
    Unprotected,
    /// By an association that the policy file names.
    Named {
        /// Its name.
        name: String,
    },
    /// By an association of its own, with a key file of the daemon's machine.
    KeyFile {
        /// The mobility SPI, at least 256.
        spi: u32,
        /// `hmac-sha256` or `hmac-sha1`.
        algorithm: String,
        /// An absolute path.
        path: PathBuf,
    },
    /// The same, with a credential that the service manager hands to the daemon.
    KeyCredential {
        /// The mobility SPI, at least 256.
        spi: u32,
        /// `hmac-sha256` or `hmac-sha1`.
        algorithm: String,
        /// Its name.
        name: String,
    },
}

/// The mobiles that a home agent serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentListDocument {
    /// The mobiles, home by home.
    pub mobiles: Vec<AgentMobileDocument>,
}

/// One mobile that a home agent serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentMobileDocument {
    /// The home network.
    pub home: HomeName,
    /// Its home address.
    pub home_address: HomeAddress,
    /// What people call it.
    pub name: Option<String>,
    /// Who allowed it.
    pub allowed_by: AllowedBy,
    /// Where it stands.
    pub state: AgentMobileState,
    /// The association that protects its signaling; `null` is `security none`.
    pub security: Option<SecurityName>,
    /// The prefixes that it may register.
    pub mobile_networks: Vec<MobileNetworkPrefix>,
    /// How many bindings it may hold.
    pub max_bindings: u16,
    /// Bindings that it may not register for the time being.
    pub refused_bids: Vec<Bid>,
    /// What it has bound.
    pub bindings: Vec<BindingDocument>,
    /// How long ago its last authentic Binding Update came; `null` if none has since the start.
    pub last_heard_seconds: Option<u64>,
    /// Binding Updates accepted since the start.
    pub updates_accepted: u64,
    /// Authentic ones refused.
    pub updates_refused: u64,
    /// Binding Updates in its name that nobody with its key had made.
    pub updates_forged: u64,
}

/// Who allowed a mobile to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AllowedBy {
    /// The policy file.
    Policy,
    /// `mtun agent add`.
    Added,
}

impl fmt::Display for AllowedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Policy => "policy file",
            Self::Added => "mtun agent add",
        })
    }
}

/// Where a mobile stands at its home agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentMobileState {
    /// It has a binding.
    Bound,
    /// It has none: it is at home, or silent.
    Unbound,
    /// It may not register for the time being.
    Refused,
}

impl fmt::Display for AgentMobileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bound => "bound",
            Self::Unbound => "not bound",
            Self::Refused => "refused",
        })
    }
}

/// What was done about one mobile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentChangedDocument {
    /// What.
    pub done: AgentChange,
    /// The mobile as it is served now; `null` if it is served no more.
    pub mobile: Option<AgentMobileDocument>,
    /// Its home address.
    pub home_address: HomeAddress,
    /// The binding that was meant; `null` for all.
    pub bid: Option<Bid>,
    /// How many bindings ended by it.
    pub ended: usize,
    /// Where it was written down.
    pub file: PathBuf,
}

/// What may be done about one mobile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentChange {
    /// It may register from now on.
    Added,
    /// It is served no more, or by the word of the policy file only.
    Removed,
    /// It, or one binding, may not register for the time being.
    Revoked,
    /// It may again.
    Permitted,
}

/// A mobile that is being sent to other home agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentSwitchedDocument {
    /// Its home address.
    pub home_address: HomeAddress,
    /// The agents, most preferred first; none for whichever it finds.
    pub agents: Vec<Ipv6Addr>,
    /// Bindings that it has; they are served until they end, and not prolonged.
    pub bindings: usize,
}
