//! The traffic selector: which packets a rule speaks of (the fields of RFC 6088 §3).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::key::{FlowKey, Ingress};

/// One conjunction of conditions; an absent or empty field matches everything.
///
/// A field with several values matches if any of them does. A `match` line of the policy file is
/// one selector; several lines of a rule are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The field of a selector that a packet failed, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
        let in_range = |ranges: &[RangeInclusive<u16>], port: Option<u16>| {
            ranges.is_empty() || port.is_some_and(|port| ranges.iter().any(|r| r.contains(&port)))
        };
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
        } else {
            None
        }
    }

    /// The same words for the opposite direction: the only place where direction is turned round.
    ///
    /// The ingress interface does not exist at the far end and is left out (RFC 6088 has no such
    /// field).
    pub fn mirrored(&self) -> Self {
        Self {
            sources: self.destinations.clone(),
            destinations: self.sources.clone(),
            protocols: self.protocols.clone(),
            source_ports: self.destination_ports.clone(),
            destination_ports: self.source_ports.clone(),
            dscps: self.dscps.clone(),
            ingresses: Vec::new(),
        }
    }
}
