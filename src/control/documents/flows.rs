//! What `mtun flows` shows.

use std::fmt;
use std::net::IpAddr;

use mtun_policy::{Bid, FlowKey, HomeName, Ingress, Ingresses, InterfaceName, RuleName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::downlink::FlowDownDocument;

/// The flows that the data plane remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlowsDocument {
    /// The filter as it was typed; `null` for all flows.
    pub filter: Option<String>,
    /// How many flows matched; more than are listed if the request had a limit.
    pub matched: usize,
    /// The flows, those with the most bytes first.
    pub flows: Vec<FlowDocument>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlowDocument {
    /// The home network.
    pub home: HomeName,
    /// The fields of its packets as they leave here.
    pub key: FlowKeyDocument,
    /// The rule that decided; `null` if none matched.
    pub rule: Option<RuleName>,
    /// How packets leave; `null` before the first.
    pub outbound: Option<FlowPath>,
    /// How the last verified packet came in; `null` before the first.
    pub inbound: Option<FlowPath>,
    /// How the home agent sends its packets to the mobile, by what it acknowledged; `null` at an
    /// agent, and for flows that do not go through the tunnel.
    #[serde(default)]
    pub downlink: Option<FlowDownDocument>,
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
    /// What it carried in the last seconds, both directions; `null` if that is not known.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
    /// Its last moves from one way to another, the latest first.
    #[serde(default)]
    pub moves: Vec<MoveDocument>,
}

/// A flow's move from one way to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MoveDocument {
    /// The way it left.
    pub from: FlowPath,
    /// The way it took.
    pub to: FlowPath,
    /// Why, one word such as `link-down`.
    pub reason: String,
    /// How long ago, in seconds.
    pub ago_seconds: f64,
}

/// One direction's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowPath {
    /// The binding; `null` is one without BID.
    pub bid: Option<Bid>,
    /// The access link; `null` at a home agent.
    pub link: Option<InterfaceName>,
    /// Whether it leads outside the tunnel.
    #[serde(default)]
    pub breakout: bool,
    /// Whether it leads straight to the correspondent at this moment, past the home agent.
    #[serde(default)]
    pub straight: bool,
}

impl FlowPath {
    /// Through the tunnel, by this binding and link.
    pub fn tunnel(bid: Option<Bid>, link: Option<InterfaceName>) -> Self {
        Self { bid, link, breakout: false, straight: false }
    }
}

impl fmt::Display for FlowPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.link, self.bid) {
            (Some(link), _) if self.breakout => f.pad(&format!("{link} outside")),
            (Some(link), _) if self.straight => f.pad(&format!("{link} straight")),
            (None, Some(bid)) if self.straight => f.pad(&format!("BID {bid} straight")),
            (Some(link), _) => f.pad(link.as_str()),
            (None, Some(bid)) => f.pad(&format!("BID {bid}")),
            (None, None) => f.pad("no BID"),
        }
    }
}

/// The fields of one flow's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The IPv6 flow label; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_label: Option<u32>,
    /// Security parameter index of ESP and AH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spi: Option<u32>,
    /// Type of an ICMP or ICMPv6 message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// User id of the local socket that sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
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
            flow_label: (key.flow_label != 0).then_some(key.flow_label),
            spi: key.spi,
            icmp_type: key.icmp_type,
            uid: key.uid,
        }
    }

    /// The key again, for a policy with these ingress interfaces; one that no rule names is
    /// [`Ingress::OTHER`].
    pub fn key(&self, ingresses: &Ingresses) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_port: self.source_port,
            destination_port: self.destination_port,
            dscp: self.dscp,
            ingress: ingresses.number(&self.ingress).unwrap_or(Ingress::OTHER),
            flow_label: self.flow_label.unwrap_or(0),
            spi: self.spi,
            icmp_type: self.icmp_type,
            uid: self.uid,
        }
    }

    /// The protocol as people call it.
    pub fn protocol_name(&self) -> String {
        match mtun_policy::protocol_name(self.protocol) {
            number if number.parse::<u8>().is_ok() => format!("protocol {number}"),
            name => name,
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
