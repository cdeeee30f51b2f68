//! The traffic selector: which packets a rule speaks of (the fields of RFC 6088 §3).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::key::{FieldSet, FlowKey, Ingress};

/// One conjunction of conditions; an absent or empty field matches everything.
///
/// A field with several values matches if any of them does. A `match` line of the policy file is
/// one selector; several lines of a rule are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrafficSelector {
    /// Source prefixes.
    pub sources: Vec<IpNet>,
    /// Destination prefixes.
    pub destinations: Vec<IpNet>,
    /// Upper-layer protocols.
    pub protocols: Vec<u8>,
    /// Source port ranges, both ends included.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Destination port ranges, both ends included.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// Differentiated services code points.
    pub dscps: Vec<u8>,
    /// Doors by which the packet may have come.
    pub ingresses: Vec<Ingress>,
    /// Flow label ranges, both ends included.
    pub flow_labels: Vec<RangeInclusive<u32>>,
    /// Ranges of security parameter indices, both ends included.
    pub spis: Vec<RangeInclusive<u32>>,
    /// Ranges of ICMP types, both ends included.
    pub icmp_types: Vec<RangeInclusive<u8>>,
    /// Ranges of users, both ends included.
    pub uids: Vec<RangeInclusive<u32>>,
    /// Whether some of its prefixes came from a `set`: a list that may be long, and so is not told
    /// to home agents. It says nothing about packets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_set: bool,
}

/// The field of a selector that a packet failed, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Field {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Upper-layer protocol.
    Protocol,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
    /// DSCP.
    Dscp,
    /// Ingress interface.
    Ingress,
    /// IPv6 flow label.
    FlowLabel,
    /// Security parameter index.
    Spi,
    /// ICMP type.
    IcmpType,
    /// User of a local socket.
    Uid,
}

impl Field {
    /// Every field, in the order in which they are compared.
    pub const ALL: [Self; 11] = [
        Self::Source,
        Self::Destination,
        Self::Protocol,
        Self::SourcePort,
        Self::DestinationPort,
        Self::Dscp,
        Self::Ingress,
        Self::FlowLabel,
        Self::Spi,
        Self::IcmpType,
        Self::Uid,
    ];

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Protocol => "protocol",
            Self::SourcePort => "source port",
            Self::DestinationPort => "destination port",
            Self::Dscp => "DSCP",
            Self::Ingress => "ingress",
            Self::FlowLabel => "flow label",
            Self::Spi => "SPI",
            Self::IcmpType => "ICMP type",
            Self::Uid => "user",
        }
    }
}

impl TrafficSelector {
    /// Whether a packet with this key is meant.
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.first_failure(key).is_none()
    }

    /// The first field, in the order of [`Field`], that keeps the packet from matching.
    pub fn first_failure(&self, key: &FlowKey) -> Option<Field> {
        let within = |nets: &[IpNet], address: IpAddr| {
            nets.is_empty() || nets.iter().any(|net| net.contains(&address))
        };
        fn in_range<T: PartialOrd>(ranges: &[RangeInclusive<T>], value: Option<T>) -> bool {
            ranges.is_empty()
                || value.is_some_and(|value| ranges.iter().any(|r| r.contains(&value)))
        }
        if !within(&self.sources, key.source) {
            Some(Field::Source)
        } else if !within(&self.destinations, key.destination) {
            Some(Field::Destination)
        } else if !self.protocols.is_empty() && !self.protocols.contains(&key.protocol) {
            Some(Field::Protocol)
        } else if !in_range(&self.source_ports, key.source_port) {
            Some(Field::SourcePort)
        } else if !in_range(&self.destination_ports, key.destination_port) {
            Some(Field::DestinationPort)
        } else if !self.dscps.is_empty() && !self.dscps.contains(&key.dscp) {
            Some(Field::Dscp)
        } else if !self.ingresses.is_empty() && !self.ingresses.contains(&key.ingress) {
            Some(Field::Ingress)
        } else if !in_range(&self.flow_labels, Some(key.flow_label)) {
            Some(Field::FlowLabel)
        } else if !in_range(&self.spis, key.spi) {
            Some(Field::Spi)
        } else if !in_range(&self.icmp_types, key.icmp_type) {
            Some(Field::IcmpType)
        } else if !in_range(&self.uids, key.uid) {
            Some(Field::Uid)
        } else {
            None
        }
    }

    /// The same words for the opposite direction: the only place where direction is turned round.
    ///
    /// What the other direction has of its own is left out: the ingress interface and the user
    /// (RFC 6088 has no such fields), the flow label and the SPI. The ICMP type stays, though
    /// a binary traffic selector cannot say it.
    pub fn mirrored(&self) -> Self {
        Self {
            sources: self.destinations.clone(),
            destinations: self.sources.clone(),
            protocols: self.protocols.clone(),
            source_ports: self.destination_ports.clone(),
            destination_ports: self.source_ports.clone(),
            dscps: self.dscps.clone(),
            icmp_types: self.icmp_types.clone(),
            of_set: self.of_set,
            ..Self::default()
        }
    }

    /// The fields that this selector looks at.
    pub fn fields(&self) -> FieldSet {
        let looks = |field: Field| match field {
            Field::Source => !self.sources.is_empty(),
            Field::Destination => !self.destinations.is_empty(),
            Field::Protocol => !self.protocols.is_empty(),
            Field::SourcePort => !self.source_ports.is_empty(),
            Field::DestinationPort => !self.destination_ports.is_empty(),
            Field::Dscp => !self.dscps.is_empty(),
            Field::Ingress => !self.ingresses.is_empty(),
            Field::FlowLabel => !self.flow_labels.is_empty(),
            Field::Spi => !self.spis.is_empty(),
            Field::IcmpType => !self.icmp_types.is_empty(),
            Field::Uid => !self.uids.is_empty(),
        };
        Field::ALL.into_iter().filter(|field| looks(*field)).collect()
    }
}
