//! How many answers a stranger, or a broken mobile, can make a node send.

use std::time::Duration;

/// A token bucket on a clock that is handed in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Most tokens kept.
    burst: u32,
    /// Time in which one token comes back.
    interval: Duration,
    /// When the bucket is full again; in the past when it is.
    full_at: Duration,
}

impl Budget {
    /// A full bucket of `burst` tokens, one coming back every `interval`.
    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, full_at: Duration::ZERO }
    }

    /// Whether there is a token.
    pub(crate) fn has(&self, now: Duration) -> bool {
        self.full_at.max(now) + self.interval <= now + self.interval * self.burst
    }

    /// Takes a token; false when there is none.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let allowed = self.has(now);
        if allowed {
            self.full_at = self.full_at.max(now) + self.interval;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_per_interval() {
        let at = Duration::from_millis;
        let mut budget = Budget::new(3, at(1000));
        let taken = |budget: &mut Budget, now| (0..9).filter(|_| budget.take(at(now))).count();
        assert_eq!(taken(&mut budget, 0), 3);
        assert_eq!(taken(&mut budget, 999), 0);
        assert_eq!(taken(&mut budget, 1000), 1);
        assert_eq!(taken(&mut budget, 3500), 2);
        assert_eq!(taken(&mut budget, 60_000), 3);
    }
}
