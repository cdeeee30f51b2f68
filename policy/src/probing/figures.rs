//! What the answers of one link come to: round trip, jitter, loss.

use std::collections::VecDeque;
use std::time::Duration;

use crate::link::Ratio;
use crate::steering::Measurement;

/// Probes that the share of losses and the percentile are made of.
const WINDOW: usize = 100;

/// With fewer probes than these a share of losses says nothing.
const LEAST: usize = 20;

/// How long the first answers are waited for.
const UNKNOWN: Duration = Duration::from_secs(1);

/// An answer is never late before the round trip and this.
const GRACE: Duration = Duration::from_millis(60);

/// No answer is waited for longer.
const LONGEST: Duration = Duration::from_secs(3);

/// The last round trips and losses of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Smoothed round trip and its mean deviation (RFC 6298 §2).
    smoothed: Option<(Duration, Duration)>,
    trips: VecDeque<Duration>,
    /// Each probe's number, and whether it was answered.
    outcomes: VecDeque<(u64, bool)>,
}

impl Figures {
    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        let Some((trip, deviation)) = self.smoothed else { return UNKNOWN };
        (trip + (deviation * 4).max(GRACE)).min(LONGEST)
    }

    /// A probe was answered after this time.
    pub fn answered(&mut self, sequence: u64, took: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (took, took / 2),
            Some((trip, deviation)) => {
                ((trip * 7 + took) / 8, (deviation * 3 + trip.abs_diff(took)) / 4)
            }
        });
        push(&mut self.trips, took);
        match self.outcomes.iter_mut().find(|(known, _)| *known == sequence) {
            // It was given up.
            Some(outcome) => outcome.1 = true,
            None => push(&mut self.outcomes, (sequence, true)),
        }
    }

    /// A probe was not answered in time.
    pub fn lost(&mut self, sequence: u64) {
        push(&mut self.outcomes, (sequence, false));
    }

    /// The losses of a dead link say nothing of it once it lives again.
    pub fn forget_losses(&mut self) {
        self.outcomes.clear();
    }

    /// All of it, as far as it is known.
    pub fn measurement(&self) -> Measurement {
        Measurement {
            rtt: self.smoothed.map(|(trip, _)| trip),
            rtt_p95: self.percentile(),
            jitter: self.smoothed.map(|(_, deviation)| deviation),
            loss: self.loss(),
        }
    }

    fn percentile(&self) -> Option<Duration> {
        let mut trips: Vec<_> = self.trips.iter().copied().collect();
        let at = (trips.len() * 95).div_ceil(100).checked_sub(1)?;
        Some(*trips.select_nth_unstable(at).1)
    }

    fn loss(&self) -> Option<Ratio> {
        let all = self.outcomes.len();
        let lost = self.outcomes.iter().filter(|(_, answered)| !answered).count();
        // At most 10,000 of 10,000.
        (all >= LEAST).then(|| Ratio((lost * 10_000 / all) as u16))
    }
}

fn push<T>(window: &mut VecDeque<T>, item: T) {
    if window.len() >= WINDOW {
        window.pop_front();
    }
    window.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn figures_of_a_path() {
        let mut figures = Figures::default();
        assert_eq!(figures.measurement(), Measurement::default());
        assert_eq!(figures.patience(), UNKNOWN);
        figures.answered(0, ms(40));
        let first = figures.measurement();
        assert_eq!((first.rtt, first.jitter, first.loss), (Some(ms(40)), Some(ms(20)), None));
        assert_eq!(figures.patience(), ms(120), "four deviations");
        for sequence in 1..=60 {
            figures.answered(sequence, ms(40));
        }
        assert_eq!(figures.measurement().rtt, Some(ms(40)));
        assert!(figures.patience() < ms(101), "the grace: {:?}", figures.patience());
        for sequence in 61..=69 {
            figures.answered(sequence, ms(90));
        }
        assert_eq!(figures.measurement().rtt_p95, Some(ms(90)), "9 of 70 are more than 5 %");
        assert_eq!(figures.measurement().loss, Some(Ratio(0)));
    }

    #[test]
    fn losses_are_shares_of_the_last_hundred() {
        let mut figures = Figures::default();
        for sequence in 0..19 {
            figures.lost(sequence);
        }
        assert_eq!(figures.measurement().loss, None, "too few");
        figures.answered(19, ms(5));
        assert_eq!(figures.measurement().loss, Some(Ratio(9_500)));
        figures.answered(18, ms(500));
        assert_eq!(figures.measurement().loss, Some(Ratio(9_000)), "late, and not lost");
        for sequence in 20..119 {
            figures.answered(sequence, ms(5));
        }
        assert_eq!(figures.measurement().loss, Some(Ratio(0)), "the old ones are out");
        figures.lost(119);
        assert_eq!(figures.measurement().loss, Some(Ratio(100)));
        figures.forget_losses();
        assert_eq!(figures.measurement().loss, None);
        assert!(figures.measurement().rtt.is_some(), "the round trip is known all the same");
    }
}
