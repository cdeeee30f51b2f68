//! Packets that carry a Mobility Header: the layouts of RFC 6275 §9.5.4, §11.7.1.

use std::net::Ipv6Addr;

use super::ipv6::{Chain, Header};
use super::{MOBILITY_HEADER, home_address, type2};

/// What a Mobility Header came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signalling<'p> {
    /// Source address of the IPv6 header.
    pub source: Ipv6Addr,
    /// Destination address of the IPv6 header.
    pub destination: Ipv6Addr,
    /// From the Home Address option.
    pub home_address: Option<Ipv6Addr>,
    /// From the type 2 routing header.
    pub routing_header: Option<Ipv6Addr>,
    /// The Mobility Header, checksum not yet looked at.
    pub message: &'p [u8],
}

/// A whole IPv6 packet around a finished Mobility Header.
///
/// The routing header comes first, then the option (RFC 6275 §6.3). A message longer than an
/// IPv6 packet can hold is cut; the machines never make one.
pub fn signalling_packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hao: Option<Ipv6Addr>,
    rh2: Option<Ipv6Addr>,
    message: &[u8],
) -> Vec<u8> {
    let headers = hao.map_or(0, |_| home_address::HEADER) + rh2.map_or(0, |_| type2::HEADER);
    let message = &message[..message.len().min(usize::from(u16::MAX) - headers)];
    let behind_rh2 = if hao.is_some() { home_address::NEXT_HEADER } else { MOBILITY_HEADER };
    let first = if rh2.is_some() { type2::NEXT_HEADER } else { behind_rh2 };
    let mut out = Vec::with_capacity(40 + headers + message.len());
    Header {
        traffic_class: 0,
        flow_label: 0,
        payload_length: (headers + message.len()) as u16,
        next_header: first,
        hop_limit: 64,
        source,
        destination,
    }
    .emit(&mut out);
    if let Some(address) = rh2 {
        type2::emit(behind_rh2, address, &mut out);
    }
    if let Some(address) = hao {
        home_address::emit(MOBILITY_HEADER, address, &mut out);
    }
    out.extend_from_slice(message);
    out
}

/// Reads a packet that carries a Mobility Header; `None` for every other packet, for fragments
/// and for what is malformed. The inverse of [`signalling_packet`].
pub fn parse_signalling(packet: &[u8]) -> Option<Signalling<'_>> {
    let header = Header::parse(packet)?;
    let packet = packet.get(..header.total_length())?;
    let chain = Chain::walk(packet, header.next_header).ok()?;
    if chain.upper != MOBILITY_HEADER
        || chain.fragment.is_some()
        || chain.misplaced_home_address.is_some()
    {
        return None;
    }
    Some(Signalling {
        source: header.source,
        destination: header.destination,
        home_address: chain.home_address,
        routing_header: match chain.routing {
            None => None,
            Some(routing) => Some(routing.home_address?),
        },
        message: &packet[chain.upper_at..],
    })
}
