//! The checksum of the Mobility Header (RFC 6275 §6.1.1).

use std::net::Ipv6Addr;

use super::common::CHECKSUM;
use super::iana::NEXT_HEADER_MOBILITY;
use crate::machine::Envelope;

/// The value of the Checksum field for `message` between these two addresses.
///
/// The field itself counts as zero, whatever it holds. The addresses are those of the
/// pseudo-header: the home address instead of a source that a Home Address option replaces, and
/// the final destination behind a routing header; [`Envelope`] knows both. A message too short to
/// have the field is summed as it is.
pub fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    internet_checksum(source, destination, NEXT_HEADER_MOBILITY, message, CHECKSUM)
}

/// The internet checksum of an upper-layer message whose field is at `field`, under the IPv6
/// pseudo-header (RFC 8200 §8.1).
pub(super) fn internet_checksum(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    message: &[u8],
    field: usize,
) -> u16 {
    let (before, after) = message.split_at(message.len().min(field));
    // At most 2048 octets of message and 40 of pseudo-header: 64 bits cannot overflow.
    let sum =
        [&source.octets()[..], &destination.octets()[..], before, after.get(2..).unwrap_or(&[])]
            .into_iter()
            .map(words)
            .sum::<u64>()
            + message.len() as u64
            + u64::from(next_header);
    !fold(sum)
}

/// Whether the Checksum field of `message` is right in this packet.
pub fn verify_checksum(envelope: &Envelope, message: &[u8]) -> bool {
    let Some(&[.., c0, c1]) = message.first_chunk::<{ CHECKSUM + 2 }>() else { return false };
    let field = u16::from_be_bytes([c0, c1]);
    is_same(field, checksum(envelope.upper_source(), envelope.upper_destination(), message))
}

/// Whether two checksums are the same number: in one's complement zero has two forms, and a
/// sender may have used either.
pub(super) fn is_same(one: u16, other: u16) -> bool {
    let canonical = |value: u16| if value == u16::MAX { 0 } else { value };
    canonical(one) == canonical(other)
}

/// Sum of the 16-bit words, two at a time as far as that goes, an odd last octet taken as the upper
/// half of its word. What is carried over between the two of a pair comes back in [`fold`].
fn words(octets: &[u8]) -> u64 {
    let (pairs, rest) = octets.as_chunks::<4>();
    let pairs: u64 = pairs.iter().map(|pair| u64::from(u32::from_be_bytes(*pair))).sum();
    let rest = rest.chunks(2);
    let rest =
        rest.map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0)));
    pairs + rest.sum::<u64>()
}

/// The sum in one's complement arithmetic of 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
