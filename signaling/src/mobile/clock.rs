//! The timestamps of a mobile's updates: the agent's time, always later than the last.

use crate::time::{NtpOffset, NtpTime};

/// Time of day as the agent sees it.
///
/// A vehicle may start in 1970. Its first update earns status 144 with the agent's seconds, from
/// which the offset follows (RFC 4285 §6); its own clock is never touched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessageClock {
    offset: NtpOffset,
    last: Option<NtpTime>,
}

impl MessageClock {
    /// The timestamp of the next update, later than every one since the last correction.
    pub(crate) fn next(&mut self, wall: NtpTime) -> NtpTime {
        let time = wall.shifted(self.offset);
        let next = match self.last {
            // req SE-03 (RFC 4285 §6): strictly increasing, even when the wall clock steps back.
            Some(last) if !time.is_after(last) => NtpTime(last.0.wrapping_add(1)),
            _ => time,
        };
        self.last = Some(next);
        next
    }

    /// Follows the agent's clock; `agent` is the timestamp of an authenticated status 144.
    ///
    /// The seconds are the agent's and the fraction is ours, so the result is right to about a
    /// second, which the tolerance of seven covers. What we sent before may lie in the agent's
    /// future and counts no more: the agent never accepted it.
    pub(crate) fn correct(&mut self, wall: NtpTime, agent: NtpTime) -> NtpOffset {
        self.offset = agent.offset_from(wall);
        self.last = Some(agent);
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn unix(seconds: u64) -> NtpTime {
        NtpTime::from_unix(Duration::from_secs(seconds))
    }

    #[test]
    fn timestamps_increase_while_the_clock_stands_or_steps_back() {
        let mut clock = MessageClock::default();
        let first = clock.next(unix(100));
        let stood = clock.next(unix(100));
        let back = clock.next(unix(90));
        assert!(stood.is_after(first) && back.is_after(stood));
        assert_eq!(clock.next(unix(101)), unix(101));
    }

    #[test]
    fn a_correction_moves_time_forward_and_back() {
        // SE-03: 1970 and 2040 both end at the agent's time.
        let agent = unix(1_790_000_000);
        for lost in [unix(17), unix(2_210_000_000)] {
            let mut clock = MessageClock::default();
            clock.next(lost);
            clock.correct(lost, agent);
            let next = clock.next(lost);
            assert!(next.is_after(agent) && next.distance(agent) < Duration::from_secs(1));
        }
    }
}
