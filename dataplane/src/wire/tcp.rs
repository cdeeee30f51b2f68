//! The TCP reset that answers a refused connection (RFC 9293 §3.10.7.1).

use super::ipv6::{HEADER, Header};
use super::{TCP, pseudo_header_checksum};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Appends the reset that answers a segment of the packet whose header is `header`.
///
/// Returns false, and appends nothing, if `segment` is no whole TCP header or a reset itself.
pub fn reset(header: &Header, segment: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(tcp) = segment.first_chunk::<20>() else { return false };
    let flags = tcp[13];
    let data_at = usize::from(tcp[12] >> 4) * 4;
    if flags & RST != 0 || data_at < 20 || data_at > segment.len() {
        return false;
    }
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    // A segment with an acknowledgement names the sequence number we must use; another is
    // acknowledged up to its end instead.
    let (sequence, acknowledgement, answer) = if flags & ACK != 0 {
        (word(8), 0, RST)
    } else {
        let length = (segment.len() - data_at) as u32
            + u32::from(flags & SYN != 0)
            + u32::from(flags & FIN != 0);
        (0, word(4).wrapping_add(length), RST | ACK)
    };
    let start = out.len();
    Header {
        traffic_class: 0,
        flow_label: 0,
        payload_length: 20,
        next_header: TCP,
        hop_limit: 64,
        source: header.destination,
        destination: header.source,
    }
    .emit(out);
    out.extend_from_slice(&[tcp[2], tcp[3], tcp[0], tcp[1]]);
    out.extend_from_slice(&u32::to_be_bytes(sequence));
    out.extend_from_slice(&u32::to_be_bytes(acknowledgement));
    out.extend_from_slice(&[5 << 4, answer, 0, 0, 0, 0, 0, 0]);
    let checksum =
        pseudo_header_checksum(header.destination, header.source, TCP, &out[start + HEADER..]);
    out[start + HEADER + 16..][..2].copy_from_slice(&checksum.to_be_bytes());
    true
}
