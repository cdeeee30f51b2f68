//! What policy may look at in one packet.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::selector::Field;

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
    /// The IPv6 flow label, 20 bits; 0 for none and for IPv4.
    pub flow_label: u32,
    /// Security parameter index of ESP and AH.
    pub spi: Option<u32>,
    /// Type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
    /// The user whose local socket sent it; absent for forwarded packets, and where nobody asked
    /// the kernel.
    pub uid: Option<u32>,
}

impl FlowKey {
    /// The key of the same flow's packets in the other direction.
    ///
    /// DSCP, ingress, flow label, SPI and user are per direction: the DSCP is kept, the ingress
    /// becomes [`Ingress::LOCAL`], the others are not known.
    pub fn mirrored(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ingress: Ingress::LOCAL,
            flow_label: 0,
            spi: None,
            uid: None,
            ..*self
        }
    }
}

/// A set of fields of a [`FlowKey`]: what some rules consult, or what a backend can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldSet(u16);

impl FieldSet {
    /// No field.
    pub const NONE: Self = Self(0);
    /// Every field.
    pub const ALL: Self = Self((1 << Field::ALL.len()) - 1);

    /// With one more.
    pub const fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field as u16)
    }

    /// Without one of them.
    pub const fn without(self, field: Field) -> Self {
        Self(self.0 & !(1 << field as u16))
    }

    /// The fields of either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is in the set.
    pub const fn contains(self, field: Field) -> bool {
        self.0 & 1 << field as u16 != 0
    }

    /// Whether all of `other` are in the set.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The fields in it, in the order of [`Field`].
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.contains(*field))
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        fields.into_iter().fold(Self::NONE, Self::with)
    }
}
