//! Packets that go straight: two addresses change places with those in extension headers.
//!
//! On the way out the care-of addresses go into the IPv6 header and the home addresses into a
//! Home Address option and a type 2 routing header; on the way in they come back. Nothing else of
//! the packet changes: it is not a tunnel, so hop limit, traffic class and flow label are the
//! sender's, and the upper layer's checksum was computed with home addresses and is checked with
//! them (RFC 6275 §9.3.1, §11.3.2; req CN-62, CN-63, MN-31, MN-35).
//!
//! ```text
//! out   | IPv6 home -> peer     | hop-by-hop | routing |             | fragment, ESP, ... |
//!       | IPv6 care-of -> peer  | hop-by-hop | routing | type 2, HAO | fragment, ESP, ... |
//! ```
//!
//! Standards: RFC 6275 §6.3, §6.4; RFC 8200 §4.1, §4.5.

use std::net::Ipv6Addr;

use crate::reason::DropReason;
use crate::wire::ipv6::{HEADER, Header};
use crate::wire::{
    DESTINATION_OPTIONS, HOP_BY_HOP, MAX_CHAIN, ROUTING, RoutingHeader, home_address, type2,
};

/// Where the part of a packet begins that may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Octets before it, the IPv6 header included.
    pub at: usize,
    /// Where the Next Header octet that announces it stands.
    pub announced_at: usize,
}

impl Cut {
    /// Behind the IPv6 header: everything that is in a tunnel.
    pub const HEADER: Self = Self { at: HEADER, announced_at: 6 };
}

/// The two extension headers of a packet that goes straight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// For the Home Address option: the source.
    pub home_address: Option<Ipv6Addr>,
    /// For the type 2 routing header: the destination.
    pub routing_header: Option<Ipv6Addr>,
}

impl Headers {
    /// Octets that they add.
    pub fn octets(&self) -> usize {
        let option = self.home_address.map_or(0, |_| home_address::HEADER);
        option + self.routing_header.map_or(0, |_| type2::HEADER)
    }
}

/// Appends the packet with these addresses and headers, and says where it may be cut.
///
/// Appends nothing and says so if the length does not fit an IPv6 packet.
pub fn straighten(
    packet: &[u8],
    header: &Header,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    headers: &Headers,
    out: &mut Vec<u8>,
) -> Result<Cut, DropReason> {
    let length = packet.len() - HEADER + headers.octets();
    let payload_length = u16::try_from(length).map_err(|_| DropReason::Oversize)?;
    let place = place(packet, header.next_header);
    let start = out.len();
    Header { source, destination, payload_length, ..*header }.emit(out);
    out.extend_from_slice(&packet[HEADER..place.at]);
    let mut cut = Cut { at: place.at, announced_at: place.announced_at };
    let next = packet[place.announced_at];
    if let Some(address) = headers.routing_header {
        out[start + cut.announced_at] = type2::NEXT_HEADER;
        cut = Cut { at: cut.at + type2::HEADER, announced_at: cut.at };
        type2::emit(next, address, out);
    }
    if let Some(address) = headers.home_address {
        out[start + cut.announced_at] = home_address::NEXT_HEADER;
        cut = Cut { at: cut.at + home_address::HEADER, announced_at: cut.at };
        home_address::emit(next, address, out);
    }
    out.extend_from_slice(&packet[place.at..]);
    Ok(cut)
}

/// Appends the packet as its sender's upper layers made it: the addresses of these headers in the
/// IPv6 header, and the headers gone. `routing` is where the type 2 routing header stands, if
/// that is one of them.
///
/// An option that shares its header with others becomes padding. The chain has been walked; of
/// one that was not, what can be read is taken.
pub fn restore(
    packet: &[u8],
    header: &Header,
    routing: Option<&RoutingHeader>,
    headers: &Headers,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let source = headers.home_address.unwrap_or(header.source);
    let destination = headers.routing_header.unwrap_or(header.destination);
    Header { source, destination, ..*header }.emit(out);
    let mut announced_at = start + 6;
    let mut at = HEADER;
    let mut next = header.next_header;
    while let Some(piece) = extension(packet, at, next) {
        let is_routing = next == ROUTING
            && headers.routing_header.is_some()
            && routing.is_some_and(|routing| routing.at == at);
        let option = (next == DESTINATION_OPTIONS && headers.home_address.is_some())
            .then(|| home_address::find(piece))
            .flatten();
        if !is_routing && option.is_none_or(|found| !found.alone) {
            out[announced_at] = next;
            announced_at = out.len();
            out.extend_from_slice(piece);
            if let Some(found) = option {
                home_address::blank(&mut out[announced_at..], found.at);
            }
        }
        next = piece[0];
        at += piece.len();
    }
    out[announced_at] = next;
    out.extend_from_slice(packet.get(at..).unwrap_or_default());
    let length = (out.len() - start - HEADER) as u16;
    out[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
}

/// Where the headers go: behind hop-by-hop options and routing headers, before everything else.
fn place(packet: &[u8], first: u8) -> Cut {
    let mut place = Cut::HEADER;
    let (mut at, mut next) = (HEADER, first);
    while let Some(piece) = extension(packet, at, next) {
        if next != DESTINATION_OPTIONS {
            place = Cut { at: at + piece.len(), announced_at: at };
        }
        next = piece[0];
        at += piece.len();
    }
    place
}

/// One of the extension headers behind which a straight packet's own may stand.
fn extension(packet: &[u8], at: usize, kind: u8) -> Option<&[u8]> {
    if !matches!(kind, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) || at > HEADER + MAX_CHAIN {
        return None;
    }
    let rest = packet.get(at..)?;
    rest.get(..8 + usize::from(*rest.get(1)?) * 8)
}
