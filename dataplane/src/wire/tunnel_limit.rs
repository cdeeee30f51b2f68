//! The Tunnel Encapsulation Limit: how often a packet may be wrapped again (RFC 2473 §4.1.1, §5.1).

/// Option type.
pub const OPTION: u8 = 4;

/// Octets of a Destination Options header with nothing else in it.
pub const HEADER: usize = 8;

/// Appends a Destination Options header with the option alone.
///
/// ```text
/// |  Next Header  | Length = 0    | Type = 4      | Length = 1    |
/// |     Limit     | PadN = 1      | Length = 1    |       0       |
/// ```
pub fn emit(next_header: u8, limit: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[next_header, 0, OPTION, 1, limit, 1, 1, 0]);
}
