//! What has come of one mobile's updates, for its operator.

use std::time::Duration;

/// Counts since the start, and when the mobile was last heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// When the last authentic update came, on the monotonic clock.
    pub last_heard: Option<Duration>,
    /// Updates accepted, wholly or in part.
    pub accepted: u64,
    /// Authentic updates refused.
    pub refused: u64,
    /// Updates in its name that nobody with its key had made.
    pub forged: u64,
}

impl Account {
    pub(super) fn accepted(&mut self, now: Duration) {
        self.last_heard = Some(now);
        self.accepted += 1;
    }

    pub(super) fn refused(&mut self, now: Duration, authentic: bool) {
        match authentic {
            true => {
                self.last_heard = Some(now);
                self.refused += 1;
            }
            false => self.forged += 1,
        }
    }
}
