//! The Destination Options header between an outer header and the packet in it (RFC 8200 §4.6).

use super::copy_sequence::{self, CopySequence};
use super::tunnel_limit;

/// What the outer header of a tunnel packet says besides addresses. Without any of it there is no
/// extension header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelOptions {
    /// How often the packet may be wrapped again.
    pub limit: Option<u8>,
    /// Its place among packets that are sent in copies.
    pub copy: Option<CopySequence>,
}

/// Octets of the header with both options in it.
pub const MOST: usize = 24;

/// Octets of the header for a packet with these options.
pub const fn octets(limit: bool, copy: bool) -> usize {
    match (limit, copy) {
        (false, false) => 0,
        (true, false) => tunnel_limit::HEADER,
        (false, true) => copy_sequence::HEADER,
        (true, true) => MOST,
    }
}

impl TunnelOptions {
    /// Octets of the header, if there is one.
    pub fn octets(&self) -> usize {
        octets(self.limit.is_some(), self.copy.is_some())
    }

    /// Appends the header, if there is one. With both options in it:
    ///
    /// ```text
    /// |  Next Header  | Length = 2    | Type = 0x1e   | Length = 12   |
    /// :                   the rest of Copy Sequence                   :
    /// | Type = 4      | Length = 1    |     Limit     | PadN = 1      |
    /// | Length = 3    |       0       |       0       |       0       |
    /// ```
    pub fn emit(&self, next_header: u8, out: &mut Vec<u8>) {
        match (self.copy, self.limit) {
            (None, None) => {}
            (None, Some(limit)) => tunnel_limit::emit(next_header, limit, out),
            (Some(copy), limit) => {
                let units = self.octets() / 8 - 1;
                out.extend_from_slice(&[next_header, units as u8]);
                copy.emit(out);
                if let Some(limit) = limit {
                    out.extend_from_slice(&[tunnel_limit::OPTION, 1, limit, 1, 3, 0, 0, 0]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Chain, DESTINATION_OPTIONS, Header, IPV6};

    const COPY: CopySequence = CopySequence { stream: 7, epoch: 9, sequence: u32::MAX };

    /// Every mixture as octets, and read again by the walk that packets meet.
    #[test]
    fn what_is_written_is_read() {
        let own = [60, 1, 0x1e, 12, 0x6d, 0x74, 0, 7, 0, 0, 0, 9, 255, 255, 255, 255];
        let mut both = own.to_vec();
        both[1] = 2;
        both.extend([4, 1, 3, 1, 3, 0, 0, 0]);
        let cases: [(Option<u8>, Option<CopySequence>, &[u8]); 4] = [
            (None, None, &[]),
            (Some(3), None, &[60, 0, 4, 1, 3, 1, 1, 0]),
            (None, Some(COPY), &own),
            (Some(3), Some(COPY), &both),
        ];
        for (limit, copy, octets) in cases {
            let options = TunnelOptions { limit, copy };
            let mut out = Vec::new();
            options.emit(DESTINATION_OPTIONS, &mut out);
            assert_eq!(out, octets, "{options:?}");
            assert_eq!(out.len(), options.octets(), "{options:?}");
            let next_header = if octets.is_empty() { IPV6 } else { DESTINATION_OPTIONS };
            let mut packet = Vec::new();
            Header {
                traffic_class: 0,
                flow_label: 0,
                payload_length: out.len() as u16,
                next_header,
                hop_limit: 1,
                source: std::net::Ipv6Addr::LOCALHOST,
                destination: std::net::Ipv6Addr::LOCALHOST,
            }
            .emit(&mut packet);
            let start = packet.len();
            options.emit(IPV6, &mut packet);
            let chain = Chain::walk(&packet, next_header).unwrap();
            assert_eq!((chain.upper, chain.upper_at), (IPV6, packet.len()), "{options:?}");
            assert_eq!(chain.copy, copy, "{options:?}");
            assert_eq!(chain.tunnel_limit.map(|(limit, _)| limit), limit, "{options:?}");
            assert!(!chain.unknown_option, "{options:?}");
            // An end that knows neither skips them: the action bits are zero.
            let kinds = [packet.get(start + 2), packet.get(start + 16)];
            assert!(kinds.into_iter().flatten().all(|kind| kind & 0xe0 == 0), "{options:?}");
        }
    }
}
