//! The two clocks of this machine, read for those who may not.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mtun_policy::steering::LocalTime;
use mtun_signaling::time::{NtpTime, Timestamp};

/// Reads both clocks. Copies agree with each other: their monotonic time counts from the same
/// moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Added to the time of day, in seconds.
    offset: i64,
}

impl Clock {
    /// A clock whose monotonic time starts at zero.
    pub fn start() -> Self {
        Self { start: Instant::now(), offset: 0 }
    }

    /// The same clock with a time of day that is off by so many seconds.
    #[must_use]
    pub fn shifted(self, seconds: i64) -> Self {
        Self { offset: self.offset.saturating_add(seconds), ..self }
    }

    /// Time since the start.
    pub fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    /// This instant on both clocks. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Timestamp {
        Timestamp { monotonic: self.start.elapsed(), wall: NtpTime::from_unix(self.unix()) }
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

    /// The instant at which [`Timestamp::monotonic`] reads `monotonic`, for timers of the runtime.
    pub fn instant(&self, monotonic: Duration) -> Instant {
        self.start + monotonic
    }
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
        assert_eq!(clock.instant(Duration::from_secs(1)), copy.instant(Duration::from_secs(1)));
    }
}
