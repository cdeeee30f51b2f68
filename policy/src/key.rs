//! What policy may look at in one packet.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// By which door a packet came to the home-bound interface.
///
/// A small number rather than a name: the packet path compares it, and the table in
/// [`crate::Ingresses`] turns names into numbers once, when the policy is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ingress(pub u8);

impl Ingress {
    /// A socket of this very machine.
    pub const LOCAL: Self = Self(0);
    /// Forwarded, from an interface that no rule names.
    pub const OTHER: Self = Self(1);
    /// The first number for interfaces that rules name.
    pub const FIRST_NAMED: u8 = 2;
}

/// The fields of one inner packet that a rule may consult.
///
/// Ports are absent in packets that have none and in fragments after the first; a selector with
/// ports never matches such a packet by itself (RFC 6088 §3 leaves it open; the flow table makes
/// fragments follow their first). `dscp` holds the upper six bits of the traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Inner source address.
    pub source: IpAddr,
    /// Inner destination address.
    pub destination: IpAddr,
    /// Upper-layer protocol, extension headers skipped.
    pub protocol: u8,
    /// Source port of TCP, UDP, SCTP, DCCP and UDP-Lite.
    pub source_port: Option<u16>,
    /// Destination port of the same.
    pub destination_port: Option<u16>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Where the packet entered.
    pub ingress: Ingress,
}

impl FlowKey {
    /// The key of the same flow's packets in the other direction.
    ///
    /// DSCP and ingress are per direction: the DSCP is kept, the ingress becomes
    /// [`Ingress::LOCAL`].
    pub fn mirrored(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ingress: Ingress::LOCAL,
            ..*self
        }
    }
}
