//! The type 2 routing header: the home address a packet is meant for (RFC 6275 §6.4).

use std::net::Ipv6Addr;

use super::ROUTING;

/// Routing type.
pub const TYPE: u8 = 2;

/// Octets of the header.
pub const HEADER: usize = 24;

/// The Next Header value that announces it.
pub const NEXT_HEADER: u8 = ROUTING;

/// Reads a routing header; `None` unless it is of type 2, length 2 and has one segment left.
pub fn parse(header: &[u8]) -> Option<Ipv6Addr> {
    let fixed = header.first_chunk::<HEADER>()?;
    if fixed[1..4] != [2, TYPE, 1] {
        return None;
    }
    let octets: [u8; 16] = fixed[8..].try_into().expect("sixteen of twenty-four octets");
    Some(Ipv6Addr::from(octets))
}

/// Appends the header.
///
/// ```text
/// |  Next Header  | Length = 2    | Type = 2      | Segments = 1  |
/// |                            Reserved                           |
/// :                          Home Address                         :
/// ```
pub fn emit(next_header: u8, home_address: Ipv6Addr, out: &mut Vec<u8>) {
    out.extend_from_slice(&[next_header, 2, TYPE, 1, 0, 0, 0, 0]);
    out.extend_from_slice(&home_address.octets());
}
