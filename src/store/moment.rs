//! When a record was taken, in a way that a later run of the machine can read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An instant that outlives the process.
///
/// Within one run of the machine the time since it was switched on counts, which no one can set and
/// which goes on while it sleeps. Across runs there is only the time of day (req PS-05): if it was
/// set back meanwhile, no time has passed, so that a lifetime never grows beyond what was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which run of the machine.
    pub boot: [u8; 16],
    /// Since it was switched on.
    pub since_boot: Duration,
    /// Since 1970, as far as the machine knew.
    pub time_of_day: Duration,
}

impl Moment {
    pub(super) const LENGTH: usize = 32;

    /// The present. `ahead` is added to the time of day, in seconds.
    pub fn now(ahead: i64) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shift = Duration::from_secs(ahead.unsigned_abs());
        Self {
            boot: boot_identifier(),
            since_boot: crate::edge::clock::since_boot(),
            time_of_day: match ahead {
                0.. => unix.saturating_add(shift),
                ..0 => unix.saturating_sub(shift),
            },
        }
    }

    /// How much time has passed since `earlier`.
    pub fn since(&self, earlier: &Self) -> Duration {
        match self.boot == earlier.boot {
            true => self.since_boot.saturating_sub(earlier.since_boot),
            false => self.time_of_day.saturating_sub(earlier.time_of_day),
        }
    }

    pub(super) fn octets(&self) -> [u8; Self::LENGTH] {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let mut octets = [0; Self::LENGTH];
        octets[..16].copy_from_slice(&self.boot);
        octets[16..24].copy_from_slice(&milliseconds(self.since_boot).to_be_bytes());
        octets[24..].copy_from_slice(&milliseconds(self.time_of_day).to_be_bytes());
        octets
    }

    pub(super) fn from_octets(octets: &[u8; Self::LENGTH]) -> Self {
        let number = |at: usize| {
            let octets = octets[at..at + 8].try_into().expect("eight octets");
            Duration::from_millis(u64::from_be_bytes(octets))
        };
        Self {
            boot: octets[..16].try_into().expect("sixteen octets"),
            since_boot: number(16),
            time_of_day: number(24),
        }
    }
}

/// All zero if the kernel does not tell: then only a machine without it trusts its boot time.
fn boot_identifier() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = text.trim().replace('-', "");
    u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: u8, since_boot: u64, time_of_day: u64) -> Moment {
        Moment {
            boot: [boot; 16],
            since_boot: Duration::from_secs(since_boot),
            time_of_day: Duration::from_secs(time_of_day),
        }
    }

    #[test]
    fn a_clock_that_was_set_never_makes_a_lifetime_longer() {
        let kept = moment(1, 1000, 1_790_000_000);
        let rows = [
            ("the same run, a minute later", moment(1, 1060, 1_790_000_060), 60),
            ("the clock was set ten years ahead", moment(1, 1060, 2_105_000_000), 60),
            ("the clock was set back to 1970", moment(1, 1060, 5), 60),
            ("another run, five minutes later", moment(2, 20, 1_790_000_300), 300),
            ("another run, the clock lost its battery", moment(2, 20, 5), 0),
        ];
        for (what, now, seconds) in rows {
            assert_eq!(now.since(&kept), Duration::from_secs(seconds), "{what}");
        }
    }

    #[test]
    fn it_reads_back_and_time_goes_on() {
        let first = Moment::now(0);
        assert_ne!(first.boot, [0; 16]);
        let read = Moment::from_octets(&first.octets());
        assert!(first.since(&read) < Duration::from_millis(1), "to the millisecond below");
        assert!(Moment::now(0).since(&first) < Duration::from_secs(60));
        let ahead = Moment::now(3600).time_of_day.saturating_sub(first.time_of_day);
        assert!(ahead >= Duration::from_secs(3600));
    }
}
