//! The timestamps of a mobile's updates: the agent's time, always later than the last.

use std::time::Duration;

use crate::time::{NtpOffset, NtpTime, Timestamp};

/// Time of day as the agent sees it.
///
/// A vehicle may start in 1970. Its first update earns status 144 with the agent's seconds, from
/// which the offset follows (RFC 4285 §6); its own clock is never touched. When that clock is set
/// later on, by a satellite receiver for one, the timestamps do not jump with it: the wall clock
/// is read once and the monotonic one counts from there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessageClock {
    /// Time of day at some instant of the monotonic clock.
    start: Option<(Duration, NtpTime)>,
    offset: NtpOffset,
    last: Option<NtpTime>,
}

impl MessageClock {
    fn own(&mut self, now: Timestamp) -> NtpTime {
        let (at, time) = *self.start.get_or_insert((now.monotonic, now.wall));
        time.plus(now.monotonic.saturating_sub(at))
    }

    /// The agent's time of day as far as we know it.
    pub(crate) fn reads(&mut self, now: Timestamp) -> NtpTime {
        self.own(now).shifted(self.offset)
    }

    /// The timestamp of the next update, later than every one since the last correction.
    pub(crate) fn next(&mut self, now: Timestamp) -> NtpTime {
        let time = self.own(now).shifted(self.offset);
        let next = match self.last {
            // req SE-03 (RFC 4285 §6): strictly increasing, also within one tick of the clock.
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
    pub(crate) fn correct(&mut self, now: Timestamp, agent: NtpTime) -> NtpOffset {
        self.offset = agent.offset_from(self.own(now));
        self.last = Some(agent);
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(seconds: u64) -> NtpTime {
        NtpTime::from_unix(Duration::from_secs(seconds))
    }

    fn at(since: u64, seconds: u64) -> Timestamp {
        Timestamp { monotonic: Duration::from_secs(since), wall: unix(seconds) }
    }

    #[test]
    fn timestamps_increase_whatever_the_wall_clock_does() {
        let mut clock = MessageClock::default();
        let first = clock.next(at(0, 100));
        let same_tick = clock.next(at(0, 100));
        assert!(same_tick.is_after(first));
        assert_eq!(clock.next(at(1, 90)), unix(101), "it was set back");
        assert_eq!(clock.next(at(2, 1_790_000_000)), unix(102), "it was set right");
    }

    #[test]
    fn a_correction_moves_time_forward_and_back() {
        // SE-03: 1970 and 2040 both end at the agent's time.
        let agent = unix(1_790_000_000);
        for lost in [17, 2_210_000_000] {
            let mut clock = MessageClock::default();
            clock.next(at(5, lost));
            clock.correct(at(5, lost), agent);
            let next = clock.next(at(5, lost));
            assert!(next.is_after(agent) && next.distance(agent) < Duration::from_secs(1));
        }
    }
}
