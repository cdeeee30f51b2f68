//! What an agent remembers of a mobile's earlier updates, so that none works twice.

use std::time::Duration;

use crate::sequence::is_newer;
use crate::time::{NtpTime, Timestamp};

/// How long the sequence number outlives the last binding (MAX_DELETE_BCE_TIMEOUT, RFC 6275 §12).
pub const MAX_DELETE_BCE_TIMEOUT: Duration = Duration::from_secs(10);

/// How far a timestamp may lie from the agent's time of day (RFC 4285 §5.1).
pub const TIMESTAMP_TOLERANCE: Duration = Duration::from_secs(7);

/// The agent's time of day, which never goes back.
///
/// Timestamps must be later than all accepted before (RFC 4285 §6). If the agent's clock were set
/// back by an hour and it followed, no mobile could register for an hour. Mobiles follow the
/// agent's time whatever it is, so that it runs evenly is worth more than that it is right.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AgentClock {
    last: Option<(Duration, NtpTime)>,
}

impl AgentClock {
    /// The time of day at `now`: the wall clock's, or the one that has run on evenly since the
    /// last call when that is later.
    pub(super) fn read(&mut self, now: Timestamp) -> NtpTime {
        let even = self.last.map(|(at, time)| time.plus(now.monotonic.saturating_sub(at)));
        let time = even.filter(|even| even.is_after(now.wall)).unwrap_or(now.wall);
        self.last = Some((now.monotonic, time));
        time
    }

    /// An earlier run has seen this time of day. If the wall clock was set back since, its mobiles
    /// would have to wait until it has caught up.
    pub(super) fn not_before(&mut self, now: Timestamp, seen: NtpTime) {
        if seen.is_after(self.read(now)) {
            self.last = Some((now.monotonic, seen));
        }
    }
}

/// The guard of one home address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replay {
    /// The last accepted sequence number; with a time, only until then.
    sequence: Option<(u16, Option<Duration>)>,
    /// The last accepted timestamp. Kept for as long as the mobile is served: it is all that
    /// stands between the agent and a replay once the sequence number is forgotten.
    timestamp: Option<NtpTime>,
}

impl Replay {
    /// The number that `sequence` fails to follow; `None` when it is acceptable.
    pub(super) fn out_of_window(&self, now: Duration, sequence: u16) -> Option<u16> {
        match self.sequence {
            Some((_, Some(until))) if until <= now => None,
            Some((last, _)) if !is_newer(sequence, last) => Some(last),
            _ => None,
        }
    }

    /// What must outlive a restart: the sequence number, until when it counts, the timestamp.
    pub(super) fn kept(&self) -> (Option<(u16, Option<Duration>)>, Option<NtpTime>) {
        (self.sequence, self.timestamp)
    }

    /// The guard as an earlier run left it.
    pub(super) fn restored(
        sequence: Option<(u16, Option<Duration>)>,
        timestamp: Option<NtpTime>,
    ) -> Self {
        Self { sequence, timestamp }
    }

    /// Notes an accepted update after which the mobile has bindings.
    pub(super) fn bound(&mut self, sequence: u16) {
        self.sequence = Some((sequence, None));
    }

    /// Notes an accepted update after which the mobile has none.
    pub(super) fn deregistered(&mut self, now: Duration, sequence: u16) {
        // req HA-43, R-HA-13 (RFC 6275 §10.3.2): a late older update finds it and gets 135.
        self.sequence = Some((sequence, Some(now + MAX_DELETE_BCE_TIMEOUT)));
    }

    /// The last binding ended by itself.
    pub(super) fn expired(&mut self, now: Duration) {
        if let Some((sequence, _)) = self.sequence {
            self.deregistered(now, sequence);
        }
    }

    /// Accepts `timestamp` if it is near `wall` and later than all accepted before.
    pub(super) fn accept_timestamp(&mut self, wall: NtpTime, timestamp: NtpTime) -> bool {
        // req SE-03 (RFC 4285 §6).
        let near = timestamp.distance(wall) <= TIMESTAMP_TOLERANCE;
        let later = self.timestamp.is_none_or(|last| timestamp.is_after(last));
        if near && later {
            self.timestamp = Some(timestamp);
        }
        near && later
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_near_and_ever_later() {
        // SE-03.
        let unix = |seconds| NtpTime::from_unix(Duration::from_secs(seconds));
        let mut replay = Replay::default();
        let cases = [
            ("eight seconds slow", 1000, 992, false),
            ("seven seconds slow", 1000, 993, true),
            ("the same again", 1000, 993, false),
            ("earlier", 1000, 992, false),
            ("later", 1000, 1007, true),
            ("eight seconds fast", 1000, 1008, false),
            ("later by the clock, yet not later than the last", 1001, 1007, false),
            ("after that", 1001, 1008, true),
        ];
        for (what, wall, timestamp, accepted) in cases {
            assert_eq!(replay.accept_timestamp(unix(wall), unix(timestamp)), accepted, "{what}");
        }
    }

    #[test]
    fn the_agents_time_is_set_forward_and_never_back() {
        let unix = |seconds| NtpTime::from_unix(Duration::from_secs(seconds));
        let mut clock = AgentClock::default();
        let cases =
            [(0, 1000, 1000), (1, 1001, 1001), (2, 5000, 5000), (3, 1003, 5001), (9, 5008, 5008)];
        for (since, wall, want) in cases {
            let now = Timestamp { monotonic: Duration::from_secs(since), wall: unix(wall) };
            assert_eq!(clock.read(now), unix(want), "{since} s after the start");
        }
    }

    #[test]
    fn a_sequence_number_outlives_its_bindings_by_ten_seconds() {
        // HA-43.
        let at = Duration::from_secs;
        let mut replay = Replay::default();
        assert_eq!(replay.out_of_window(at(0), 7), None);
        replay.bound(7);
        assert_eq!(replay.out_of_window(at(1_000_000), 7), Some(7));
        replay.deregistered(at(100), 8);
        assert_eq!(replay.out_of_window(at(109), 8), Some(8));
        assert_eq!(replay.out_of_window(at(109), 9), None);
        assert_eq!(replay.out_of_window(at(110), 8), None);
    }
}
