//! Time as the machines see it: handed in, never read.
//!
//! Two clocks, because they answer different questions. The monotonic one runs every timer and
//! never jumps. The wall clock appears only inside the timestamp of the replay protection option
//! (RFC 4285 §6), where it may be wrong by decades: a vehicle without a battery-backed clock
//! starts in 1970.

use std::time::Duration;

/// Seconds between the NTP epoch (1900) and the Unix epoch (1970), RFC 5905 §6.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Time since some fixed point in the life of the process.
    pub monotonic: Duration,
    /// Time of day, as far as this node knows it.
    pub wall: NtpTime,
}

/// A 64-bit NTP timestamp: 32 bits of seconds since 1900, 32 bits of fraction (RFC 4285 §6).
///
/// The seconds wrap in February 2036, so two values are compared by the sign of their
/// difference, right as long as they are less than 68 years apart; there is no `Ord` on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The time that lies `since_unix` after the Unix epoch.
    pub fn from_unix(since_unix: Duration) -> Self {
        let seconds = since_unix.as_secs().wrapping_add(NTP_TO_UNIX);
        let fraction = (u64::from(since_unix.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds << 32 | fraction)
    }

    /// Whole seconds since 1900, modulo 2^32: the high-order half.
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Parts of a second in units of 2^-32 s: the low-order half.
    pub fn fraction(self) -> u32 {
        self.0 as u32
    }

    /// The high-order half of `self` with the low-order half of `other`.
    ///
    /// What a home agent puts into a refusal: its own seconds, the mobile's fraction (RFC 4285 §6).
    pub fn with_fraction_of(self, other: Self) -> Self {
        Self(self.0 & 0xffff_ffff_0000_0000 | other.0 & 0xffff_ffff)
    }

    /// How far `self` lies after `other`, negative when before; the inverse of [`Self::shifted`].
    pub fn offset_from(self, other: Self) -> NtpOffset {
        NtpOffset(self.0.wrapping_sub(other.0) as i64)
    }

    /// This time moved by `offset`.
    pub fn shifted(self, offset: NtpOffset) -> Self {
        Self(self.0.wrapping_add(offset.0 as u64))
    }

    /// The time `span` later.
    pub fn plus(self, span: Duration) -> Self {
        let units = Self::from_unix(span).0.wrapping_sub(Self::from_unix(Duration::ZERO).0);
        Self(self.0.wrapping_add(units))
    }

    /// Whether `self` is later than `other`; false when equal.
    pub fn is_after(self, other: Self) -> bool {
        self.offset_from(other).0 > 0
    }

    /// The distance between the two, whichever comes first.
    pub fn distance(self, other: Self) -> Duration {
        self.offset_from(other).magnitude()
    }
}

/// A signed span between two [`NtpTime`]s, in units of 2^-32 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NtpOffset(pub i64);

impl NtpOffset {
    /// The span without its sign, to the nanosecond below.
    pub fn magnitude(self) -> Duration {
        let units = self.0.unsigned_abs();
        let nanoseconds = ((units & 0xffff_ffff) * 1_000_000_000) >> 32;
        Duration::new(units >> 32, nanoseconds as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unix_epoch_and_the_wrap_of_2036() {
        let cases: &[(&str, Duration, u64)] = &[
            ("1970", Duration::ZERO, 0x83aa_7e80_0000_0000),
            ("half a second later", Duration::from_millis(500), 0x83aa_7e80_8000_0000),
            ("last second of era 0", Duration::from_secs(2_085_978_495), 0xffff_ffff_0000_0000),
            ("first second of era 1", Duration::from_secs(2_085_978_496), 0),
        ];
        for (what, unix, want) in cases {
            assert_eq!(NtpTime::from_unix(*unix), NtpTime(*want), "{what}");
        }
    }

    #[test]
    fn order_holds_across_the_wrap_and_across_half_a_century() {
        let before = NtpTime::from_unix(Duration::from_secs(2_085_978_495));
        let after = NtpTime::from_unix(Duration::from_secs(2_085_978_497));
        assert!(after.is_after(before) && !before.is_after(after) && !after.is_after(after));
        assert_eq!(before.distance(after), Duration::from_secs(2));
        assert_eq!(before.plus(Duration::from_secs(2)), after);

        let lost = NtpTime::from_unix(Duration::from_secs(17));
        let right = NtpTime::from_unix(Duration::from_secs(1_790_000_000));
        let offset = right.offset_from(lost);
        assert!(right.is_after(lost) && offset > NtpOffset(0));
        assert_eq!(lost.shifted(offset), right);
        assert_eq!(right.shifted(lost.offset_from(right)), lost);
    }

    #[test]
    fn a_refusal_carries_the_agents_seconds_and_the_mobiles_fraction() {
        let agent = NtpTime(0x1111_2222_3333_4444);
        let mobile = NtpTime(0x5555_6666_7777_8888);
        assert_eq!(agent.with_fraction_of(mobile), NtpTime(0x1111_2222_7777_8888));
    }
}
