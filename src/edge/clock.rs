//! The two clocks of this machine, read for those who may not.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shift = Duration::from_secs(self.offset.unsigned_abs());
        let wall = match self.offset {
            0.. => wall.saturating_add(shift),
            ..0 => wall.saturating_sub(shift),
        };
        Timestamp { monotonic: self.start.elapsed(), wall: NtpTime::from_unix(wall) }
    }

    /// The instant at which [`Timestamp::monotonic`] reads `monotonic`, for timers of the runtime.
    pub fn instant(&self, monotonic: Duration) -> Instant {
        self.start + monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
