//! The words of the field, as types.
//!
//! Every name here is a term of RFC 6275, RFC 3963, RFC 5648 or of the policy file. A value with
//! an unusual range is a type, so that a wrong value cannot be written down.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// Binding identification number: names one of a mobile's care-of addresses (RFC 5648 §2).
///
/// Never zero, so nobody can use zero for "any"; ordered by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Bid(NonZeroU16);

impl Bid {
    /// A BID from its number; `None` for zero, which RFC 5648 §4.3 reserves.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number as it stands on the wire, 1 to 65535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Bid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Flow identification (FID): names one of a mobile's flow bindings (RFC 6089 §4.2).
///
/// Never zero; unique for one mobile at one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct FlowId(NonZeroU16);

impl FlowId {
    /// A FID from its number; `None` for zero, which RFC 6089 §4.2 reserves.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number as it stands on the wire, 1 to 65535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// FID-PRI: the place of a flow binding among those of its mobile, the lowest first
/// (RFC 6089 §4.2).
///
/// Never zero; no two flow bindings of a mobile share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct FlowPriority(NonZeroU16);

impl FlowPriority {
    /// A FID-PRI from its number; `None` for zero, which RFC 6089 §4.2 reserves.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number as it stands on the wire, 1 to 65535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for FlowPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address a mobile keeps wherever it is (RFC 6275 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct HomeAddress(pub Ipv6Addr);

impl fmt::Display for HomeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address a mobile has on the link it visits (RFC 6275 §3.2); either family (RFC 5555).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct CareOfAddress(pub IpAddr);

impl From<Ipv6Addr> for CareOfAddress {
    fn from(address: Ipv6Addr) -> Self {
        Self(IpAddr::V6(address))
    }
}

impl fmt::Display for CareOfAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of the router on the home link that registers mobiles (RFC 6275 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct HomeAgentAddress(pub Ipv6Addr);

impl fmt::Display for HomeAgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prefix that moves with a mobile router (RFC 3963 §2); its host bits are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct MobileNetworkPrefix(#[cfg_attr(feature = "schema", schemars(with = "String"))] Ipv6Net);

impl MobileNetworkPrefix {
    /// A mobile network prefix; `None` if `prefix` has bits set beyond its length.
    pub fn new(prefix: Ipv6Net) -> Option<Self> {
        (prefix.trunc() == prefix).then_some(Self(prefix))
    }

    /// The prefix itself.
    pub fn net(self) -> Ipv6Net {
        self.0
    }

    /// Whether `address` lies inside the prefix.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for MobileNetworkPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// A name from its text.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

name! {
    /// An access link as the policy file and the kernel name it, `wlan0`.
    InterfaceName
}
name! {
    /// A home network as the policy file names it.
    HomeName
}
name! {
    /// A flow rule as the policy file names it; `default` for the last one.
    RuleName
}
name! {
    /// A service level class (`sla`) as the policy file names it.
    ClassName
}
name! {
    /// A security association as the policy file names it.
    SecurityName
}

/// The place of a rule in its rule set; overrides count down from [`RuleId::OVERRIDES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u16);

impl RuleId {
    /// Ids at and above this one belong to `mtun steer` overrides, not to the file.
    pub const OVERRIDES: u16 = 0xf000;

    /// Whether this rule came from `mtun steer`.
    pub fn is_override(self) -> bool {
        self.0 >= Self::OVERRIDES
    }
}

/// What a node does in Mobile IPv6 (RFC 6275 §3.2, RFC 3963 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A host that moves.
    MobileNode,
    /// A router that moves with the network behind it; also a mobile node.
    MobileRouter,
    /// The router on the home link that registers mobiles.
    HomeAgent,
    /// A peer of a mobile.
    Correspondent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MobileNode => "mobile-node",
            Self::MobileRouter => "mobile-router",
            Self::HomeAgent => "home-agent",
            Self::Correspondent => "correspondent",
        })
    }
}

/// How a mobile router names its prefixes to the agent (RFC 3963 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrefixMode {
    /// The agent knows the prefixes; none are sent.
    Implicit,
    /// Every Binding Update carries every prefix.
    Explicit,
}
