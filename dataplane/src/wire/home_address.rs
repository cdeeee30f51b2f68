//! The Home Address option and the header that carries it (RFC 6275 §6.3).

use std::net::Ipv6Addr;

use super::DESTINATION_OPTIONS;

/// Option type; its upper bits make a receiver without Mobile IPv6 complain.
pub const OPTION: u8 = 0xc9;

/// Octets of a Destination Options header with nothing else in it.
pub const HEADER: usize = 24;

/// Reads the option's data: sixteen octets.
pub fn parse(data: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = data.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

/// Appends a Destination Options header with the option alone, aligned at 8n+6.
///
/// ```text
/// |  Next Header  | Length = 2    | PadN = 1      | Length = 2    |
/// |       0       |       0       | Type = 0xc9   | Length = 16   |
/// :                          Home Address                         :
/// ```
pub fn emit(next_header: u8, home_address: Ipv6Addr, out: &mut Vec<u8>) {
    out.extend_from_slice(&[next_header, 2, 1, 2, 0, 0, OPTION, 16]);
    out.extend_from_slice(&home_address.octets());
}

/// Where the option stands in a Destination Options header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Octets before its type.
    pub at: usize,
    /// Whether all else in the header is padding.
    pub alone: bool,
}

/// Finds the option in a whole Destination Options header, or in a hop-by-hop one where it must
/// not be.
pub fn find(header: &[u8]) -> Option<Found> {
    let (mut at, mut found, mut others) = (2, None, false);
    while let Some(&kind) = header.get(at) {
        let length = match kind {
            0 => 1,
            _ => 2 + usize::from(*header.get(at + 1)?),
        };
        match kind {
            0 | 1 => {}
            OPTION if found.is_none() => found = Some(at),
            _ => others = true,
        }
        at += length;
    }
    found.map(|at| Found { at, alone: !others })
}

/// Turns the option that stands at `at` of a header into padding.
pub fn blank(header: &mut [u8], at: usize) {
    if let Some(option) = header.get_mut(at..at + 18) {
        option.fill(0);
        option[..2].copy_from_slice(&[1, 16]);
    }
}

/// The Next Header value that announces it.
pub const NEXT_HEADER: u8 = DESTINATION_OPTIONS;

/// Whether a home address in an option or a type 2 header is unicast and routable.
pub fn is_routable(address: Ipv6Addr) -> bool {
    !(address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some())
}
