//! The header that travels in front of a packet between a TUN or packet socket and us.

use std::ops::Range;

use crate::wire::sums::Sum;

/// Octets of a [`VnetHeader`] as the kernel reads and writes it.
pub(super) const LENGTH: usize = 10;

/// What the kernel says about a packet beside its octets (`struct virtio_net_hdr`).
///
/// A packet straight from a local sender may carry only a partial checksum, and one that was
/// merged on receipt (GRO) may be far larger than the link's MTU. Both are legal input of a TUN as
/// long as this header goes with them, so it is passed through rather than interpreted.
///
/// ```text
/// +--------+--------+-----------------+-----------------+
/// | flags  |gso type|  header length  |     gso size    |
/// +--------+--------+-----------------+-----------------+
/// | checksum start  | checksum offset |   16-bit fields in host order
/// +-----------------+-----------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    header_length: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl VnetHeader {
    /// Of a packet that is complete: its checksum is final and it is one packet, not several.
    pub const COMPLETE: Self = Self {
        flags: 0,
        gso_type: 0,
        header_length: 0,
        gso_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };
    /// The transport checksum covers the pseudo-header only.
    const NEEDS_CHECKSUM: u8 = 1;

    /// Of a packet whose transport header starts at `start` and whose checksum, `offset` octets
    /// into it, covers the pseudo-header only.
    pub const fn partial(start: u16, offset: u16) -> Self {
        Self {
            flags: Self::NEEDS_CHECKSUM,
            checksum_start: start,
            checksum_offset: offset,
            ..Self::COMPLETE
        }
    }

    /// Of a superpacket of TCP over IPv6: octets before its payload, and of payload in each packet
    /// that it stands for. Its checksum is at this place and covers the pseudo-header only.
    pub const fn segments(before: u16, each: u16, (start, offset): (u16, u16)) -> Self {
        /// `VIRTIO_NET_HDR_GSO_TCPV6`.
        const TCP: u8 = 4;
        Self {
            gso_type: TCP,
            header_length: before,
            gso_size: each,
            ..Self::partial(start, offset)
        }
    }

    /// Whether the checksum is at this place, and covers the pseudo-header only.
    pub fn is_partial_at(&self, (start, offset): (u16, u16)) -> bool {
        self.has_partial_checksum()
            && (self.checksum_start, self.checksum_offset) == (start, offset)
    }

    pub(super) fn parse(octets: &[u8; LENGTH]) -> Self {
        let field = |at: usize| u16::from_ne_bytes([octets[at], octets[at + 1]]);
        Self {
            flags: octets[0],
            gso_type: octets[1],
            header_length: field(2),
            gso_size: field(4),
            checksum_start: field(6),
            checksum_offset: field(8),
        }
    }

    pub(super) fn emit(&self) -> [u8; LENGTH] {
        let mut octets = [0; LENGTH];
        octets[0] = self.flags;
        octets[1] = self.gso_type;
        octets[2..4].copy_from_slice(&self.header_length.to_ne_bytes());
        octets[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        octets[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        octets[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        octets
    }

    /// Whether the transport checksum still has to be finished.
    pub fn has_partial_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CHECKSUM != 0
    }

    /// Whether the packet stands for several that were merged.
    pub fn is_superpacket(&self) -> bool {
        self.gso_type != 0
    }

    /// req TN-17: payload octets of each packet that a superpacket stands for; 0 for an ordinary packet.
    pub fn segment_size(&self) -> u16 {
        self.gso_size
    }

    /// Finishes the transport checksum of an ordinary packet, which is complete then. Whether there
    /// was room for it where the header says.
    pub fn finish(&self, packet: &mut [u8]) -> bool {
        if !self.has_partial_checksum() {
            return true;
        }
        let start = usize::from(self.checksum_start);
        let at = start + usize::from(self.checksum_offset);
        // What stands there is the sum of the pseudo-header and counts like any other octets.
        let Some(checksum) = packet.get(start..).map(|it| Sum::of(it).checksum()) else {
            return false;
        };
        match packet.get_mut(at..at + 2) {
            Some(place) => {
                place.copy_from_slice(&checksum);
                true
            }
            None => false,
        }
    }

    /// The header of the same packet without its first `octets`; `None` when the checksum or the
    /// headers that a superpacket repeats would start before what is left.
    pub fn without(&self, octets: usize) -> Option<Self> {
        let octets = u16::try_from(octets).ok()?;
        let mut rest = *self;
        // Only these two facts are input of a TUN; "checksum already verified" is not.
        rest.flags &= Self::NEEDS_CHECKSUM;
        if rest.has_partial_checksum() {
            rest.checksum_start = rest.checksum_start.checked_sub(octets)?;
        } else {
            (rest.checksum_start, rest.checksum_offset) = (0, 0);
        }
        if rest.is_superpacket() {
            rest.header_length = rest.header_length.checked_sub(octets)?;
        } else {
            rest.header_length = 0;
        }
        Some(rest)
    }
}

/// Where a received packet lies in the caller's buffer, and what the kernel said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Counted from the first octet of `packet`.
    pub header: VnetHeader,
    /// The IP packet inside the buffer, link header skipped.
    pub packet: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGED: VnetHeader = VnetHeader {
        flags: 1,
        gso_type: 4,
        header_length: 114,
        gso_size: 1400,
        checksum_start: 94,
        checksum_offset: 16,
    };

    #[test]
    fn parse_and_emit_are_inverse() {
        for header in [VnetHeader::COMPLETE, MERGED] {
            assert_eq!(VnetHeader::parse(&header.emit()), header);
        }
    }

    #[test]
    fn a_partial_checksum_is_finished_in_its_place() {
        let mut packet = [0_u8; 56];
        packet[50..].copy_from_slice(&[0x12, 0x34, 0, 1, 0, 2]);
        assert!(VnetHeader::partial(50, 0).finish(&mut packet));
        // The complement of 0x1234 + 1 + 2.
        assert_eq!(packet[50..52], (!0x1237_u16).to_be_bytes());
        assert!(VnetHeader::COMPLETE.finish(&mut packet));
        for (start, offset) in [(50, 5), (55, 0), (57, 0), (u16::MAX, u16::MAX)] {
            assert!(!VnetHeader::partial(start, offset).finish(&mut packet), "{start} {offset}");
        }
    }

    /// req TN-17.
    #[test]
    fn stripping_moves_the_offsets() {
        let verified = VnetHeader { flags: 2, ..VnetHeader::COMPLETE };
        let partial = VnetHeader::partial(94, 16);
        let cases = [
            ("merged", MERGED, 54, Some((60, 40))),
            ("partial checksum only", partial, 54, Some((0, 40))),
            ("complete", VnetHeader::COMPLETE, 54, Some((0, 0))),
            ("already verified", verified, 54, Some((0, 0))),
            ("more than there is", MERGED, 95, None),
            ("absurdly much", MERGED, 70_000, None),
        ];
        for (what, header, octets, want) in cases {
            let stripped = header.without(octets);
            assert_eq!(stripped.map(|h| (h.header_length, h.checksum_start)), want, "{what}");
            assert!(stripped.is_none_or(|h| h.flags & !1 == 0), "{what}");
        }
    }
}
