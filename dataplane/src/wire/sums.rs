//! Sums of the Internet checksum (RFC 1071), taken while octets are copied.
//!
//! A sum is kept in 64 bits and in the order of this machine, in which it may be taken word by word:
//! ones' complement addition does not care which of two octets comes first as long as it is the
//! same one everywhere. It is folded once, at the end.

/// A sum of 16-bit words under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// That of octets; a last odd one counts as if a zero stood behind it.
    pub fn of(octets: &[u8]) -> Self {
        // Lanes that do not wait for each other; a word of 32 bits is worth its two halves.
        let mut lanes = [0_u64; 8];
        let mut blocks = octets.chunks_exact(32);
        for block in blocks.by_ref() {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum = lanes.iter().fold(Self::default(), |sum, lane| sum.and(Self(*lane)));
        let mut words = blocks.remainder().chunks_exact(2);
        for word in words.by_ref() {
            sum = sum.and(Self(u16::from_ne_bytes([word[0], word[1]]).into()));
        }
        if let [last] = words.remainder() {
            sum = sum.and(Self(u16::from_ne_bytes([*last, 0]).into()));
        }
        sum
    }

    /// That of one number as it stands in a header.
    pub fn of_number(number: u16) -> Self {
        Self(u16::from_ne_bytes(number.to_be_bytes()).into())
    }

    /// Both. The first of octets that follow an odd number of others does not belong here.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + u64::from(carry))
    }

    /// Without this number, which was in it.
    #[must_use]
    pub fn without(self, number: u16) -> Self {
        self.and(Self::of_number(!number))
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    /// The sum itself as it stands in the place of a checksum that is to be finished.
    pub fn octets(self) -> [u8; 2] {
        self.folded().to_ne_bytes()
    }

    /// The checksum as it stands in a header: the complement, and never zero, which means none
    /// in UDP (RFC 8200 §8.1) and is the same number as this one in TCP.
    pub fn checksum(self) -> [u8; 2] {
        match !self.folded() {
            0 => [0xff; 2],
            sum => sum.to_ne_bytes(),
        }
    }

    /// Whether it is that of a packet whose checksum is in its place, and right.
    pub fn is_right(self) -> bool {
        self.folded() == 0xffff
    }
}

/// Appends octets and returns their sum. They are read once: what is summed is what was just
/// copied.
pub fn append_summed(octets: &[u8], out: &mut Vec<u8>) -> Sum {
    // Even, so that sums of parts add up; and small, so that a part is still in the nearest cache.
    const PART: usize = 512;
    octets.chunks(PART).fold(Sum::default(), |sum, part| {
        out.extend_from_slice(part);
        sum.and(Sum::of(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RFC 1071 §1 words it, octet pair by octet pair.
    fn plainly(octets: &[u8]) -> u16 {
        let words = octets
            .chunks(2)
            .map(|it| u64::from(it[0]) << 8 | it.get(1).map_or(0, |it| u64::from(*it)));
        let mut sum: u64 = words.sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn every_length_has_the_checksum_of_the_plain_sum() {
        let octets: Vec<u8> =
            (0..70_000_u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
        for length in (0..200).chain([511, 512, 513, 1023, 1440, 1441, 65_535]) {
            let mut out = vec![7];
            let sum = append_summed(&octets[..length], &mut out);
            assert_eq!(out[1..], octets[..length]);
            assert_eq!(sum.checksum(), plainly(&octets[..length]).to_be_bytes(), "{length}");
        }
    }

    #[test]
    fn numbers_come_and_go() {
        let sum = Sum::of(&[0x12, 0x34, 0xff, 0xff]).and(Sum::of_number(0x0102)).without(0x1234);
        assert_eq!(sum.checksum(), plainly(&[0x01, 0x02]).to_be_bytes());
        assert_eq!(Sum::of(&[0xff, 0xff]).checksum(), [0xff, 0xff], "zero would mean none");
        assert!(Sum::of(&[0xfe, 0xed, 0x01, 0x12]).is_right());
        assert!(!Sum::of(&[0xfe, 0xed, 0x01, 0x13]).is_right());
    }
}
