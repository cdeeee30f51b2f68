//! Flow bindings: rules in the form in which a home agent can be told them (RFC 6089, RFC 6088).
//!
//! A [`FlowBinding`] says which packets towards the mobile go to which of its care-of addresses.
//! Its [`BinarySelector`] has one range for each field, as the wire has; a rule of the policy file
//! whose fields have several values becomes several flow bindings. Everything here speaks of
//! packets **to** the mobile as its home agent sees them: source is the correspondent, destination
//! the home address or an address of the mobile network (RFC 6088 §3).

mod text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use serde::{Deserialize, Serialize};

use crate::key::FlowKey;
use crate::selector::TrafficSelector;
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

impl AddressRange {
    /// Whether `address` is in it; never if it is of the other family.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(range), IpAddr::V4(address)) => range.contains(&address),
            (Self::V6(range), IpAddr::V6(address)) => range.contains(&address),
            (Self::V4(_), IpAddr::V6(_)) | (Self::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The fewest prefixes that hold exactly these addresses; none if the range is empty.
    pub fn prefixes(&self) -> Vec<IpNet> {
        match self {
            Self::V4(range) if range.is_empty() => Vec::new(),
            Self::V4(range) => {
                Ipv4Subnets::new(*range.start(), *range.end(), 0).map(IpNet::V4).collect()
            }
            Self::V6(range) if range.is_empty() => Vec::new(),
            Self::V6(range) => {
                Ipv6Subnets::new(*range.start(), *range.end(), 0).map(IpNet::V6).collect()
            }
        }
    }
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

    /// Whether a packet with this key is meant. A packet without a field, such as ports, does not
    /// meet a condition on it.
    pub fn matches(&self, key: &FlowKey) -> bool {
        fn within<T: PartialOrd>(range: &Option<RangeInclusive<T>>, value: Option<T>) -> bool {
            range.as_ref().is_none_or(|range| value.is_some_and(|value| range.contains(&value)))
        }
        let inside = |range: &Option<AddressRange>, address: IpAddr| match range {
            Some(range) => range.contains(address),
            None => match self.version {
                IpVersion::V4 => address.is_ipv4(),
                IpVersion::V6 => address.is_ipv6(),
            },
        };
        inside(&self.source, key.source)
            && inside(&self.destination, key.destination)
            && within(&self.protocol, Some(key.protocol))
            && within(&self.source_port, key.source_port)
            && within(&self.destination_port, key.destination_port)
            && within(&self.dscp, Some(key.dscp))
            && within(&self.flow_label, Some(key.flow_label))
            && within(&self.spi, key.spi)
    }

    /// The same packets in the words of our own rules; ranges of addresses become prefixes.
    ///
    /// The direction stays: both speak of packets to the mobile. A range whose end lies before
    /// its start gives a selector that no packet meets.
    pub fn to_traffic_selector(&self) -> TrafficSelector {
        fn one<T: Clone>(range: &Option<RangeInclusive<T>>) -> Vec<RangeInclusive<T>> {
            range.iter().cloned().collect()
        }
        fn list(range: &Option<RangeInclusive<u8>>, last: u8) -> Vec<u8> {
            range.iter().filter(|range| **range != (0..=last)).cloned().flatten().collect()
        }
        if self.is_empty() {
            // No packet has ends of two families.
            return TrafficSelector {
                sources: vec![IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED))],
                destinations: vec![IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))],
                ..TrafficSelector::default()
            };
        }
        let family = match self.version {
            IpVersion::V4 => IpNet::V4(Ipv4Net::default()),
            IpVersion::V6 => IpNet::V6(Ipv6Net::default()),
        };
        let nets = |range: &Option<AddressRange>| range.as_ref().map(AddressRange::prefixes);
        TrafficSelector {
            sources: nets(&self.source).unwrap_or_else(|| vec![family]),
            destinations: nets(&self.destination).unwrap_or_default(),
            protocols: list(&self.protocol, u8::MAX),
            source_ports: one(&self.source_port),
            destination_ports: one(&self.destination_port),
            dscps: list(&self.dscp, 63),
            flow_labels: one(&self.flow_label),
            spis: one(&self.spi),
            ..TrafficSelector::default()
        }
    }

    /// Whether the end of one of its ranges lies before its start, so that no packet meets it.
    pub fn is_empty(&self) -> bool {
        fn empty<T: PartialOrd>(range: &Option<RangeInclusive<T>>) -> bool {
            range.as_ref().is_some_and(RangeInclusive::is_empty)
        }
        let addresses = [&self.source, &self.destination];
        let no_address = addresses.into_iter().flatten().any(|range| match range {
            AddressRange::V4(range) => range.is_empty(),
            AddressRange::V6(range) => range.is_empty(),
        });
        no_address
            || empty(&self.spi)
            || empty(&self.flow_label)
            || empty(&self.source_port)
            || empty(&self.destination_port)
            || empty(&self.dscp)
            || empty(&self.protocol)
    }
}
