//! How much later the other copies of a packet come.

use std::time::Duration;

/// How long a second copy is waited for, until the link that should bring it counts as silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// The least that is waited for a missing packet: packets of one link overtake each other a little
/// where several threads carry them.
const LEAST: Duration = Duration::from_millis(10);

/// The time between the first copy of a packet and another one, measured on one packet at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skew {
    /// The packet that is measured: its number and when its first copy came.
    probe: Option<(u64, Duration)>,
    /// The largest difference of late, falling slowly; `None` before anything is known.
    largest: Option<Duration>,
}

impl Skew {
    pub const UNKNOWN: Self = Self { probe: None, largest: None };

    /// The first copy of a packet came.
    pub fn first(&mut self, number: u64, now: Duration) {
        match self.probe {
            Some((_, at)) if now.saturating_sub(at) < PATIENCE => {}
            // Nothing came of it: one link brings all there is, and nothing is on its way by
            // another.
            Some(_) => *self = Self { probe: Some((number, now)), largest: Some(Duration::ZERO) },
            None => self.probe = Some((number, now)),
        }
    }

    /// Another copy of a packet came.
    pub fn again(&mut self, number: u64, now: Duration) {
        let Some((_, at)) = self.probe.filter(|(probe, _)| *probe == number) else { return };
        let measured = now.saturating_sub(at);
        let largest = self.largest.unwrap_or_default();
        self.largest = Some(measured.max(largest - largest / 8));
        self.probe = None;
    }

    /// How long a missing packet is waited for, at most `most`.
    pub fn hold(&self, most: Duration) -> Duration {
        let Some(largest) = self.largest else { return most };
        (largest + largest / 4 + LEAST).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_millis(50);

    #[test]
    fn waits_as_long_as_the_links_differ() {
        let mut skew = Skew::UNKNOWN;
        assert_eq!(skew.hold(MOST), MOST, "nothing known");
        skew.first(1, Duration::ZERO);
        skew.first(2, MS);
        skew.again(2, 9 * MS);
        assert_eq!(skew.hold(MOST), MOST, "not the packet that is measured");
        skew.again(1, 20 * MS);
        assert_eq!(skew.hold(MOST), 35 * MS);
        skew.first(3, 30 * MS);
        skew.again(3, 130 * MS);
        assert_eq!(skew.hold(MOST), MOST, "bounded");
        for packet in 0..40 {
            let at = 200 * MS + packet * MS;
            skew.first(packet.into(), at);
            skew.again(packet.into(), at);
        }
        assert!(skew.hold(MOST) < 12 * MS, "links that differ no more");
    }

    #[test]
    fn a_silent_link_is_not_waited_for() {
        let mut skew = Skew::UNKNOWN;
        skew.first(1, Duration::ZERO);
        skew.first(2, PATIENCE - MS);
        assert_eq!(skew.hold(MOST), MOST);
        skew.first(3, PATIENCE);
        assert_eq!(skew.hold(MOST), LEAST);
        skew.again(3, PATIENCE + 8 * MS);
        assert_eq!(skew.hold(MOST), 20 * MS, "it is back");
    }
}
