//! ICMPv6 errors: those we send and those that come back (RFC 4443).

use std::net::Ipv6Addr;

use super::ipv6::{Chain, HEADER, Header};
use super::{ICMPV6, pseudo_header_checksum};

/// An error packet, header included, never exceeds this (RFC 4443 §2.4 c).
const MAX_ERROR: usize = 1280;

/// Hop limit of errors of our own.
const HOPS: u8 = 64;

/// An error, as far as we send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// No route to destination.
    NoRoute,
    /// Administratively prohibited.
    Prohibited,
    /// Address unreachable: what becomes of every failure inside a tunnel (RFC 2473 §8.1).
    AddressUnreachable,
    /// Packet too big, with the MTU that fits.
    PacketTooBig {
        /// In octets.
        mtu: u32,
    },
    /// Hop limit exceeded in transit.
    HopLimit,
    /// Erroneous header field.
    ParameterProblem {
        /// Octet of the offending packet.
        pointer: u32,
    },
    /// Unrecognized Next Header type.
    UnknownHeader {
        /// Octet of the offending packet that names it.
        pointer: u32,
    },
}

impl IcmpError {
    fn fields(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::AddressUnreachable => (1, 3, 0),
            Self::PacketTooBig { mtu } => (2, 0, mtu),
            Self::HopLimit => (3, 0, 0),
            Self::ParameterProblem { pointer } => (4, 0, pointer),
            Self::UnknownHeader { pointer } => (4, 1, pointer),
        }
    }

    /// Appends a whole packet that tells `offending`'s source, as far as 1280 octets quote it.
    ///
    /// Appends nothing and returns false if `offending` has no readable header.
    pub fn emit(self, source: Ipv6Addr, offending: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(header) = Header::parse(offending) else { return false };
        let (kind, code, value) = self.fields();
        let quoted = offending;
        let error = Received { kind, code, value, quoted };
        error.write(HOPS, source, header.source, out);
        true
    }
}

/// Whether an error about this packet may be sent at all (RFC 4443 §2.4 e).
///
/// Not about errors and redirects, not about fragments after the first, not to groups and not to
/// sources that are nobody.
pub fn may_answer(packet: &[u8], header: &Header, chain: &Chain) -> bool {
    let error = chain.upper == ICMPV6
        && packet.get(chain.upper_at).is_none_or(|kind| *kind < 128 || *kind == 137);
    let later = chain.fragment.is_some_and(|fragment| fragment.offset != 0);
    !error
        && !later
        && !header.destination.is_multicast()
        && !header.source.is_multicast()
        && !header.source.is_unspecified()
}

/// An error that somebody sent us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'p> {
    /// Type, 1 to 4.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// MTU or pointer.
    pub value: u32,
    /// The packet it is about, as much as was quoted.
    pub quoted: &'p [u8],
}

impl Received<'_> {
    /// Appends a whole packet that passes the error on to `destination`: from whom it came, with
    /// the hops it has left.
    pub fn pass_on(&self, came: &Header, destination: Ipv6Addr, out: &mut Vec<u8>) {
        self.write(came.hop_limit, came.source, destination, out);
    }

    /// Appends a whole packet, as far as 1280 octets quote what it is about.
    fn write(&self, hop_limit: u8, source: Ipv6Addr, destination: Ipv6Addr, out: &mut Vec<u8>) {
        let quoted = &self.quoted[..self.quoted.len().min(MAX_ERROR - HEADER - 8)];
        let start = out.len();
        Header {
            traffic_class: 0,
            flow_label: 0,
            payload_length: (8 + quoted.len()) as u16,
            next_header: ICMPV6,
            hop_limit,
            source,
            destination,
        }
        .emit(out);
        out.extend_from_slice(&[self.kind, self.code, 0, 0]);
        out.extend_from_slice(&self.value.to_be_bytes());
        out.extend_from_slice(quoted);
        let checksum = pseudo_header_checksum(source, destination, ICMPV6, &out[start + HEADER..]);
        out[start + HEADER + 2..][..2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Reads an ICMPv6 error of types 1 to 4 with a right checksum; `None` for everything else.
pub fn parse<'p>(header: &Header, message: &'p [u8]) -> Option<Received<'p>> {
    let (fixed, quoted) = message.split_first_chunk::<8>()?;
    if !(1..=4).contains(&fixed[0])
        || pseudo_header_checksum(header.source, header.destination, ICMPV6, message) != 0
    {
        return None;
    }
    let value = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    Some(Received { kind: fixed[0], code: fixed[1], value, quoted })
}
