//! Flow bindings: rules in the form in which a home agent can be told them (RFC 6089, RFC 6088).
//!
//! A [`FlowBinding`] says which packets towards the mobile go to which of its care-of addresses.
//! Its [`BinarySelector`] has one range for each field, as the wire has; a rule of the policy file
//! whose fields have several values becomes several flow bindings. Everything here speaks of
//! packets **to** the mobile as its home agent sees them: source is the correspondent, destination
//! the home address or an address of the mobile network (RFC 6088 §3).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::terms::{Bid, FlowId, FlowPriority};

/// One flow binding (RFC 6089 §4.2): a selector, the care-of addresses, and its place among the
/// others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowBinding {
    /// Its number.
    pub id: FlowId,
    /// Its place: the first active one that matches decides.
    pub priority: FlowPriority,
    /// The packets it speaks of.
    pub selector: BinarySelector,
    /// Where they go: **a copy to each** of these that is registered (RFC 6089 §5.3.6). While none
    /// is, the flow binding is inactive and skipped. Never empty.
    pub bids: Vec<Bid>,
}

/// The family that a selector speaks of; the traffic selector format of RFC 6088.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpVersion {
    /// Format 1 (RFC 6088 §3.1).
    V4,
    /// Format 2 (RFC 6088 §3.2).
    V6,
}

/// Addresses from the first to the last, both included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AddressRange {
    /// IPv4.
    V4(RangeInclusive<Ipv4Addr>),
    /// IPv6.
    V6(RangeInclusive<Ipv6Addr>),
}

/// A binary traffic selector (RFC 6088 §3): one range for each field that counts, all of which a
/// packet must meet; an absent field matches everything.
///
/// The addresses are of `version`; an IPv4 selector has no flow label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BinarySelector {
    /// The family of the packets.
    pub version: IpVersion,
    /// Source addresses: the correspondent's.
    pub source: Option<AddressRange>,
    /// Destination addresses: the mobile's.
    pub destination: Option<AddressRange>,
    /// Security parameter indices.
    pub spi: Option<RangeInclusive<u32>>,
    /// Flow labels, 20 bits.
    pub flow_label: Option<RangeInclusive<u32>>,
    /// Source ports.
    pub source_port: Option<RangeInclusive<u16>>,
    /// Destination ports.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// Differentiated services code points, 0 to 63.
    pub dscp: Option<RangeInclusive<u8>>,
    /// Upper-layer protocols, extension headers skipped.
    pub protocol: Option<RangeInclusive<u8>>,
}

impl BinarySelector {
    /// The selector that every packet of this family meets.
    pub const fn everything(version: IpVersion) -> Self {
        Self {
            version,
            source: None,
            destination: None,
            spi: None,
            flow_label: None,
            source_port: None,
            destination_port: None,
            dscp: None,
            protocol: None,
        }
    }
}
