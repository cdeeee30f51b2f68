//! How much later the other copies of a packet come.

use std::time::Duration;

use mtun_policy::Bid;

/// How long a second copy is waited for, until the link that should bring it counts as silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// The least that is waited for a missing packet: packets of one link overtake each other a little
/// where several threads carry them.
const LEAST: Duration = Duration::from_millis(10);

/// When a packet came, and by which binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub at: Duration,
    pub by: Option<Bid>,
}

/// The time between the first copy of a packet and another one, measured on one packet at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skew {
    /// The packet that is measured: its number and when its first copy came.
    probe: Option<(u64, Duration)>,
    /// The largest difference of late, falling slowly; `None` before anything is known.
    largest: Option<Duration>,
    /// The binding that brings all there is while the others are silent.
    alone: Option<Option<Bid>>,
}

impl Skew {
    pub const UNKNOWN: Self = Self { probe: None, largest: None, alone: None };

    /// The first copy of a packet came.
    pub fn first(&mut self, number: u64, came: Came) {
        self.follow(came);
        match self.probe {
            Some((_, at)) if came.at.saturating_sub(at) < PATIENCE => {}
            // Nothing came of it: one link brings all there is, and nothing is on its way by
            // another.
            Some(_) => {
                let probe = Some((number, came.at));
                *self = Self { probe, largest: Some(Duration::ZERO), alone: Some(came.by) };
            }
            None => self.probe = Some((number, came.at)),
        }
    }

    /// Another copy of a packet came.
    pub fn again(&mut self, number: u64, came: Came) {
        let Some((_, at)) = self.probe.filter(|(probe, _)| *probe == number) else {
            return self.follow(came);
        };
        let measured = came.at.saturating_sub(at);
        let largest = self.largest.unwrap_or_default();
        self.largest = Some(measured.max(largest - largest / 8));
        self.probe = None;
        self.alone = None;
    }

    /// Notes that a link which was silent brings something again. How far it is ahead of the other
    /// one or behind is not known then: a faster link overtakes all that is under way by the slower.
    fn follow(&mut self, came: Came) {
        if self.alone.is_some_and(|by| by != came.by) {
            *self = Self::UNKNOWN;
        }
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

    fn at(at: Duration) -> Came {
        Came { at, by: Bid::new(1) }
    }

    #[test]
    fn waits_as_long_as_the_links_differ() {
        let mut skew = Skew::UNKNOWN;
        assert_eq!(skew.hold(MOST), MOST, "nothing known");
        skew.first(1, at(Duration::ZERO));
        skew.first(2, at(MS));
        skew.again(2, at(9 * MS));
        assert_eq!(skew.hold(MOST), MOST, "not the packet that is measured");
        skew.again(1, at(20 * MS));
        assert_eq!(skew.hold(MOST), 35 * MS);
        skew.first(3, at(30 * MS));
        skew.again(3, at(130 * MS));
        assert_eq!(skew.hold(MOST), MOST, "bounded");
        for packet in 0..40 {
            let now = 200 * MS + packet * MS;
            skew.first(packet.into(), at(now));
            skew.again(packet.into(), at(now));
        }
        assert!(skew.hold(MOST) < 12 * MS, "links that differ no more");
    }

    #[test]
    fn a_silent_link_is_not_waited_for() {
        let mut skew = Skew::UNKNOWN;
        skew.first(1, at(Duration::ZERO));
        skew.first(2, at(PATIENCE - MS));
        assert_eq!(skew.hold(MOST), MOST);
        skew.first(3, at(PATIENCE));
        assert_eq!(skew.hold(MOST), LEAST);
        skew.again(3, at(PATIENCE + 8 * MS));
        assert_eq!(skew.hold(MOST), 20 * MS, "it is back");
    }

    /// The faster of two links was silent for long, and overtakes what is under way by the other.
    #[test]
    fn a_link_that_is_back_may_be_ahead_by_anything() {
        let other = |at| Came { at, by: Bid::new(2) };
        let mut skew = Skew::UNKNOWN;
        skew.first(1, other(Duration::ZERO));
        skew.first(2, other(PATIENCE));
        assert_eq!(skew.hold(MOST), LEAST, "alone");
        skew.first(3, other(PATIENCE + MS));
        assert_eq!(skew.hold(MOST), LEAST, "still alone");
        skew.first(9, at(PATIENCE + 2 * MS));
        assert_eq!(skew.hold(MOST), MOST, "back");
        skew.again(9, other(PATIENCE + 10 * MS));
        assert_eq!(skew.hold(MOST), 20 * MS);
    }
}
