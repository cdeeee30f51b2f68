//! The two clocks of this machine, read for those who may not.
//!
//! What runs every timer is the time since the machine was switched on (`CLOCK_BOOTTIME`): nobody
//! can set it, and it goes on while the machine sleeps. A lifetime that was granted goes on, too
//! (RFC 6275 §10.3.1, §11.7.1): the agent has deleted the binding of a mobile that slept for longer,
//! and a mobile whose time had stood still would go on sending by it; an agent that slept would
//! keep bindings for longer than it granted them. So what became due in the sleep is due at once
//! after it, and nothing else is moved by it; the [`Alarm`](super::alarm::Alarm) sees to that the
//! owner is woken. `Instant` is no such clock: it stands still meanwhile.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mtun_policy::steering::LocalTime;
use mtun_signaling::time::{NtpTime, Timestamp};

/// Reads both clocks. Copies agree with each other: their monotonic time counts from the same
/// moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Duration,
    start_instant: Instant,
    /// Added to the time of day, in seconds.
    offset: i64,
}

impl Clock {
    /// A clock whose monotonic time starts at zero.
    pub fn start() -> Self {
        Self { start: since_boot(), start_instant: Instant::now(), offset: 0 }
    }

    /// The same clock with a time of day that is off by so many seconds.
    #[must_use]
    pub fn shifted(self, seconds: i64) -> Self {
        Self { offset: self.offset.saturating_add(seconds), ..self }
    }

    /// Time since the start, sleep of the machine included.
    pub fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.start)
    }

    /// This instant on both clocks. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Timestamp {
        Timestamp { monotonic: self.monotonic(), wall: NtpTime::from_unix(self.unix()) }
    }

    fn unix(&self) -> Duration {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shift = Duration::from_secs(self.offset.unsigned_abs());
        match self.offset {
            0.. => wall.saturating_add(shift),
            ..0 => wall.saturating_sub(shift),
        }
    }

    /// The time of day where this machine stands, by the same shifted clock. A time zone that
    /// changes on the disk is noticed.
    pub fn local(&self) -> LocalTime {
        let unix = self.unix();
        let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
        let ahead = offset_from_utc(seconds);
        let local = seconds.saturating_add(ahead).max(0).unsigned_abs();
        LocalTime::from_zone(Duration::new(local, unix.subsec_nanos()))
    }

    /// The instant at which it was started, for those who measure while the machine is awake.
    pub fn started(&self) -> Instant {
        self.start_instant
    }
}

/// Time since the machine was switched on, its sleep included.
pub(crate) fn since_boot() -> Duration {
    let mut told = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut told) };
    assert_eq!(done, 0, "Linux has this clock since 2.6.39");
    let seconds = u64::try_from(told.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(told.tv_nsec).unwrap_or(0))
}

/// How many seconds local time is ahead of universal time at this moment of it.
fn offset_from_utc(unix: i64) -> i64 {
    unsafe extern "C" {
        /// Reads the time zone, anew if it has changed (POSIX; `libc` does not have it).
        safe fn tzset();
    }
    tzset();
    // SAFETY: all zero is a valid `tm`.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to live values of their types.
    match unsafe { libc::localtime_r(&raw const unix, &raw mut local) }.is_null() {
        true => 0,
        false => local.tm_gmtoff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_within_a_day_of_universal_time() {
        let clock = Clock::start();
        let universal = LocalTime::from_zone(clock.unix());
        assert!(clock.local().distance(universal) <= Duration::from_secs(15 * 3600));
        let shifted = clock.shifted(86_400).local();
        let day = shifted.distance(clock.local());
        assert!(day.abs_diff(Duration::from_secs(86_400)) <= Duration::from_secs(2 * 3600));
    }

    #[test]
    fn time_goes_on_and_copies_agree() {
        let clock = Clock::start();
        let copy = clock;
        let (first, second) = (clock.now(), copy.now());
        assert!(first.monotonic <= second.monotonic);
        assert!(second.wall.distance(first.wall) < Duration::from_secs(60));
        assert_eq!(clock.started(), copy.started());
    }

    /// F-09: the clock of the timers is the one that goes on in the machine's sleep, and the time of
    /// day moves none of it.
    #[test]
    fn timers_follow_the_time_since_the_machine_was_switched_on() {
        let clock = Clock::start();
        let (before, reads, after) = (since_boot(), clock.monotonic(), since_boot());
        assert!(before <= clock.start + reads && clock.start + reads <= after);
        let ten_years = 10 * 365 * 86_400;
        for set in [3600, -3600, ten_years, -ten_years] {
            let (earlier, set) = (clock.now(), clock.shifted(set).now());
            assert!(set.monotonic.saturating_sub(earlier.monotonic) < Duration::from_secs(60));
            assert_ne!(set.wall, earlier.wall);
        }
    }
}
