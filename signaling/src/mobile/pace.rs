//! How often a mobile may send updates to one agent (req MN-37, R-MN-03).

use std::time::Duration;

/// Most updates in one second, over all BIDs (MAX_UPDATE_RATE, RFC 6275 §11.8, §12).
pub const MAX_UPDATE_RATE: usize = 3;

/// What the rate is measured in.
pub(crate) const PACE_WINDOW: Duration = Duration::from_secs(1);

/// When the last updates left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    sent: [Option<Duration>; MAX_UPDATE_RATE],
}

impl Pace {
    /// From when on the next update may leave.
    pub(crate) fn ready_at(&self) -> Duration {
        self.sent[0].map_or(Duration::ZERO, |oldest| oldest + PACE_WINDOW)
    }

    /// Notes an update that leaves at `now`.
    pub(crate) fn sent(&mut self, now: Duration) {
        self.sent.rotate_left(1);
        self.sent[MAX_UPDATE_RATE - 1] = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_updates_fit_into_any_second() {
        // R-MN-03, MN-37.
        let at = Duration::from_millis;
        let mut pace = Pace::default();
        for now in [0, 100, 900] {
            assert!(pace.ready_at() <= at(now));
            pace.sent(at(now));
        }
        assert_eq!(pace.ready_at(), at(1000));
        pace.sent(at(1000));
        assert_eq!(pace.ready_at(), at(1100));
    }
}
