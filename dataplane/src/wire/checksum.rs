//! The Internet checksum over the IPv6 pseudo-header (RFC 8200 §8.1).

use std::net::Ipv6Addr;

/// The checksum of `payload`, whose own checksum field must be zero, as it stands on the wire.
///
/// Over a payload with its checksum in place the result is zero exactly if it is right.
pub fn pseudo_header_checksum(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    payload: &[u8],
) -> u16 {
    let length = payload.len() as u64;
    let mut sum = u64::from(next_header) + (length >> 16) + (length & 0xffff);
    for octets in [&source.octets()[..], &destination.octets()[..], payload] {
        let mut words = octets.chunks_exact(2);
        sum += words.by_ref().map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u64>();
        if let [last] = words.remainder() {
            sum += u64::from(*last) << 8;
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
