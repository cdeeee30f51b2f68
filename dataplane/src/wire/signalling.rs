//! Packets that carry a Mobility Header: the layouts of RFC 6275 §9.5.4, §11.7.1.

use std::net::Ipv6Addr;

use super::icmpv6::{IcmpError, may_answer};
use super::ipv6::{Chain, HEADER, Header};
use super::{ICMPV6, MOBILITY_HEADER, home_address, type2};

/// Where the fixed header names what follows it.
const NEXT_HEADER: usize = 6;

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
    whole_packet(MOBILITY_HEADER, source, destination, hao, rh2, message)
}

/// The same around a finished ICMPv6 message of discovery (RFC 6275 §6.5 to §6.8).
pub fn discovery_packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hao: Option<Ipv6Addr>,
    rh2: Option<Ipv6Addr>,
    message: &[u8],
) -> Vec<u8> {
    whole_packet(ICMPV6, source, destination, hao, rh2, message)
}

fn whole_packet(
    upper: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hao: Option<Ipv6Addr>,
    rh2: Option<Ipv6Addr>,
    message: &[u8],
) -> Vec<u8> {
    let headers = hao.map_or(0, |_| home_address::HEADER) + rh2.map_or(0, |_| type2::HEADER);
    let message = &message[..message.len().min(usize::from(u16::MAX) - headers)];
    let behind_rh2 = if hao.is_some() { home_address::NEXT_HEADER } else { upper };
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
        home_address::emit(upper, address, &mut out);
    }
    out.extend_from_slice(message);
    out
}

/// The answer of a node that knows no Mobility Header to a packet that carries one (RFC 4443 §3.4);
/// `None` if the packet is malformed or must not be answered.
pub fn unknown_header(packet: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(packet)?;
    let chain = Chain::walk(packet, header.next_header).ok()?;
    if chain.upper != MOBILITY_HEADER || !may_answer(packet, &header, &chain) {
        return None;
    }
    // Where the header before the last one names it.
    let (mut pointer, mut next, mut at) = (NEXT_HEADER, header.next_header, HEADER);
    while at < chain.upper_at && next != MOBILITY_HEADER {
        (pointer, next) = (at, packet[at]);
        at += 8 * (1 + usize::from(packet[at + 1]));
    }
    let mut out = Vec::new();
    let error = IcmpError::UnknownHeader { pointer: pointer as u32 };
    error.emit(header.destination, packet, &mut out).then_some(out)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_no_mobility_header_points_at_its_number() {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let (source, destination) = (address("2001:db8:1::7"), address("2001:db8:c::9"));
        let home = Some(address("2001:db8:100::42"));
        for (hao, rh2, pointer) in
            [(None, None, 6), (home, None, 40), (None, home, 40), (home, home, 64)]
        {
            let message = [59, 0, 1, 0, 0, 0, 0, 0];
            let packet = signalling_packet(source, destination, hao, rh2, &message);
            let answer = unknown_header(&packet).unwrap();
            assert_eq!(packet[pointer], MOBILITY_HEADER);
            assert_eq!(answer[40..42], [4, 1]);
            assert_eq!(answer[44..48], (pointer as u32).to_be_bytes());
            assert_eq!(answer[48..], packet, "the whole packet is quoted");
            assert_eq!(Header::parse(&answer).unwrap().destination, source);
        }
        let nobody = signalling_packet(Ipv6Addr::UNSPECIFIED, destination, None, None, &[]);
        assert_eq!(unknown_header(&nobody), None);
        assert_eq!(unknown_header(&[]), None);
    }
}
