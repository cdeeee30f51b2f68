//! The recover hold: how long something that was bad has to be good before it is believed.

use std::time::Duration;

/// A hold that doubles with each relapse and starts anew after a good spell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    base: Duration,
    present: Duration,
    /// When the last bad spell ended; `None` before the first.
    recovered_at: Option<Duration>,
}

impl Hold {
    /// Going bad again within this time of the last recovery is a relapse.
    pub const RELAPSE: Duration = Duration::from_secs(600);

    /// Relapses do not make the hold longer than this.
    pub const LONGEST: Duration = Duration::from_secs(600);

    pub fn new(base: Duration) -> Self {
        Self { base, present: base, recovered_at: None }
    }

    /// The hold that has to pass at present.
    pub fn present(&self) -> Duration {
        self.present
    }

    /// A bad spell begins after a good one.
    pub fn bad(&mut self, now: Duration) {
        let relapsed = self.recovered_at.is_some_and(|at| now.saturating_sub(at) <= Self::RELAPSE);
        self.present = match relapsed {
            true => self.present.saturating_mul(2).min(Self::LONGEST.max(self.base)),
            false => self.base,
        };
    }

    /// The bad spell is over, the hold with it.
    pub fn recovered(&mut self, now: Duration) {
        self.recovered_at = Some(now);
    }

    /// Another base from a new policy; a hold that relapses have made longer stays.
    pub fn rebase(&mut self, base: Duration) {
        if base.is_zero() || self.present == self.base {
            self.present = base;
        }
        self.base = base;
        self.present = self.present.max(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn relapses_double_up_to_ten_minutes() {
        let mut hold = Hold::new(s(30));
        let mut now = s(1000);
        let mut holds = Vec::new();
        for _ in 0..7 {
            hold.bad(now);
            holds.push(hold.present().as_secs());
            now += hold.present();
            hold.recovered(now);
            now += s(600);
        }
        assert_eq!(holds, [30, 60, 120, 240, 480, 600, 600]);
        hold.bad(now + s(1));
        assert_eq!(hold.present(), s(30), "good for more than ten minutes");
    }

    #[test]
    fn holds_of_the_file() {
        let mut off = Hold::new(s(0));
        for at in [1, 2, 3] {
            off.bad(s(at));
            assert_eq!(off.present(), s(0));
            off.recovered(s(at));
        }
        let mut long = Hold::new(s(1200));
        long.bad(s(1));
        long.recovered(s(1201));
        long.bad(s(1202));
        assert_eq!(long.present(), s(1200), "not made shorter");

        let mut hold = Hold::new(s(30));
        hold.bad(s(0));
        hold.recovered(s(30));
        hold.bad(s(31));
        hold.rebase(s(5));
        assert_eq!(hold.present(), s(60), "a reload forgets no relapse");
        hold.rebase(s(90));
        assert_eq!(hold.present(), s(90));
        hold.rebase(s(0));
        assert_eq!(hold.present(), s(0));
    }
}
