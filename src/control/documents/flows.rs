//! What `mtun flows` shows.

use std::fmt;
use std::net::IpAddr;

use mtun_policy::{Bid, FlowKey, HomeName, InterfaceName, RuleName};
use serde::{Deserialize, Serialize};

/// The flows that the data plane remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowsDocument {
    /// The filter as it was typed; `null` for all flows.
    pub filter: Option<String>,
    /// How many flows matched; more than are listed if the request had a limit.
    pub matched: usize,
    /// The flows, those with the most bytes first.
    pub flows: Vec<FlowDocument>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowDocument {
    /// The home network.
    pub home: HomeName,
    /// The fields of its packets, seen from the mobile's side.
    pub key: FlowKeyDocument,
    /// The rule that decided; `null` if none matched.
    pub rule: Option<RuleName>,
    /// How packets leave; `null` before the first.
    pub outbound: Option<FlowPath>,
    /// How the last verified packet came in; `null` before the first.
    pub inbound: Option<FlowPath>,
    /// Octets of inner packets sent.
    pub bytes_out: u64,
    /// Octets of inner packets received.
    pub bytes_in: u64,
    /// Inner packets sent.
    pub packets_out: u64,
    /// Inner packets received.
    pub packets_in: u64,
    /// Seconds since its last packet, in either direction.
    pub idle_seconds: f64,
}

/// One direction's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPath {
    /// The binding; `null` is one without BID.
    pub bid: Option<Bid>,
    /// The access link; `null` at a home agent.
    pub link: Option<InterfaceName>,
}

impl fmt::Display for FlowPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.link, self.bid) {
            (Some(link), _) => f.pad(link.as_str()),
            (None, Some(bid)) => f.pad(&format!("BID {bid}")),
            (None, None) => f.pad("no BID"),
        }
    }
}

/// The fields of one flow's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowKeyDocument {
    /// Upper-layer protocol number.
    pub protocol: u8,
    /// Inner source address.
    pub source: IpAddr,
    /// Inner destination address.
    pub destination: IpAddr,
    /// Source port; `null` for protocols without ports.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// The interface it entered by: `local` for sockets of this machine, `other` for interfaces
    /// that no rule names.
    pub ingress: String,
}

impl FlowKeyDocument {
    /// The document of a key; `ingress` is the name of `key.ingress`.
    pub fn new(key: &FlowKey, ingress: impl Into<String>) -> Self {
        Self {
            protocol: key.protocol,
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            dscp: key.dscp,
            ingress: ingress.into(),
        }
    }

    /// The protocol as people call it.
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            47 => "gre".to_owned(),
            50 => "esp".to_owned(),
            58 => "icmpv6".to_owned(),
            132 => "sctp".to_owned(),
            other => format!("protocol {other}"),
        }
    }

    /// Source address with its port.
    pub fn source_text(&self) -> String {
        endpoint(self.source, self.source_port)
    }

    /// Destination address with its port.
    pub fn destination_text(&self) -> String {
        endpoint(self.destination, self.destination_port)
    }
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (address, None) => address.to_string(),
    }
}

impl fmt::Display for FlowKeyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.source_text(), self.destination_text());
        write!(f, "{} {from} -> {to}", self.protocol_name())
    }
}
