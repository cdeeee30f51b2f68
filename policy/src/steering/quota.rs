//! Octets of a period: what links carried of their `quota`, and rules of their `cap`.
//!
//! A [`Ledger`] is what has to survive a restart; whoever counts writes it down now and then and
//! gives it back with [`super::Steering::restore`]. Periods follow the local calendar. Until the
//! local time is known no period ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calendar::Day;
use super::facts::Admin;
use crate::link::{AtLimit, Period, Quota};
use crate::terms::{InterfaceName, RuleName};

/// Octets counted since the start of a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaState {
    /// The first day of the period; `None` if the date was never known.
    pub start: Option<Day>,
    /// The octets.
    pub octets: u64,
    /// The period before, for a clock that turns out to have been ahead.
    pub earlier: Option<(Day, u64)>,
}

impl QuotaState {
    fn add(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
    }

    /// Goes over to the period that starts on `start`, if that is another one.
    ///
    /// A clock that stands before the period (a machine without one, just started) changes
    /// nothing; one that was ahead and is put back finds what it had counted before.
    fn roll(&mut self, start: Day) {
        match self.start {
            None => self.start = Some(start),
            Some(known) if start > known => {
                let earlier = Some((known, self.octets));
                *self = Self { start: Some(start), octets: 0, earlier };
            }
            Some(known) if start < known => {
                if let Some((before, octets)) = self.earlier.filter(|(day, _)| start >= *day) {
                    self.add(if start == before { octets } else { 0 });
                    *self = Self { start: Some(start), octets: self.octets, earlier: None };
                }
            }
            Some(_) => {}
        }
    }
}

/// Everything that was counted, to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// By link.
    pub links: BTreeMap<InterfaceName, QuotaState>,
    /// Copies on metered links, by rule.
    pub copies: BTreeMap<RuleName, QuotaState>,
    /// What operators want of links, where it is not that they are used as the rules say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub admin: BTreeMap<InterfaceName, Admin>,
}

/// How near its end a quota is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaLevel {
    /// Under the warning.
    #[default]
    Free,
    /// At the warning or over it.
    Warned,
    /// Used up.
    Reached,
}

impl std::fmt::Display for QuotaLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Warned => "at its warning",
            Self::Reached => "used up",
        })
    }
}

/// A quota, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaReport {
    /// The octets of the period so far.
    pub octets: u64,
    /// How many there may be.
    pub limit: u64,
    /// How near the end that is.
    pub level: QuotaLevel,
    /// What happens at the end.
    pub at_limit: AtLimit,
    /// The first day of the period, if the date is known.
    pub start: Option<Day>,
    /// The first day of the next period, if the date is known.
    pub resets: Option<Day>,
}

/// A quota and what was used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meter {
    pub quota: Quota,
    pub state: QuotaState,
    /// The level that was told last.
    pub told: QuotaLevel,
}

impl Meter {
    pub fn new(quota: Quota) -> Self {
        Self { quota, state: QuotaState::default(), told: QuotaLevel::Free }
    }

    pub fn level(&self) -> QuotaLevel {
        match self.state.octets {
            octets if octets >= self.quota.octets => QuotaLevel::Reached,
            octets if octets >= self.quota.warn.of(self.quota.octets) => QuotaLevel::Warned,
            _ => QuotaLevel::Free,
        }
    }

    pub fn add(&mut self, octets: u64) {
        self.state.add(octets);
    }

    /// What was written down earlier, with what was counted meanwhile.
    pub fn restore(&mut self, saved: QuotaState) {
        let counted = self.state.octets;
        let start = self.state.start;
        self.state = saved;
        if let Some(start) = start {
            self.state.roll(start);
        }
        self.add(counted);
        self.told = self.level();
    }

    /// The date is known.
    pub fn roll(&mut self, today: Day) {
        self.state.roll(today.period_start(self.quota.per, self.quota.starts));
    }

    pub fn next_period(&self, today: Day) -> Day {
        today.next_period(self.quota.per, self.quota.starts)
    }

    pub fn report(&self, today: Option<Day>) -> QuotaReport {
        QuotaReport {
            octets: self.state.octets,
            limit: self.quota.octets,
            level: self.level(),
            at_limit: self.quota.at_limit,
            start: self.state.start,
            resets: today.map(|today| self.next_period(today)),
        }
    }
}

/// The meter of a `duplicate` rule's cap; its period is that of a metered link's quota.
pub(super) fn cap_quota(cap: u64, period: Option<&Quota>) -> Quota {
    let (per, starts) = period.map_or((Period::Month, 1), |quota| (quota.per, quota.starts));
    let warn = crate::link::Ratio::WHOLE;
    Quota { octets: cap, per, starts, warn, at_limit: AtLimit::Stop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Ratio;

    fn day(month: u8, day: u8) -> Day {
        Day::from_date(2026, month, day).expect("a date")
    }

    fn monthly() -> Meter {
        Meter::new(Quota {
            octets: 1000,
            per: Period::Month,
            starts: 1,
            warn: Ratio::percent(80),
            at_limit: AtLimit::LastResort,
        })
    }

    #[test]
    fn levels() {
        let cases = [
            (0, QuotaLevel::Free),
            (799, QuotaLevel::Free),
            (800, QuotaLevel::Warned),
            (999, QuotaLevel::Warned),
            (1000, QuotaLevel::Reached),
            (u64::MAX, QuotaLevel::Reached),
        ];
        for (octets, level) in cases {
            let mut meter = monthly();
            meter.add(octets);
            assert_eq!(meter.level(), level, "{octets}");
        }
    }

    #[test]
    fn periods_end_over_a_restart_and_in_spite_of_a_wrong_clock() {
        // The days on which 100 octets each were carried, and what is on the meter at the end.
        let unset = Day(0);
        let cases: &[(&str, &[Day], u64)] = &[
            ("one period", &[day(11, 1), day(11, 22), day(11, 30)], 300),
            ("the next one starts at nothing", &[day(11, 22), day(12, 1)], 100),
            ("the clock was not set at first", &[unset, day(11, 22)], 100),
            ("a restart without clock", &[day(11, 22), unset, day(11, 22)], 300),
            ("a restart without clock over the end", &[day(11, 22), unset, day(12, 1)], 100),
            ("a clock that was ahead", &[day(11, 22), day(12, 24), day(11, 23)], 300),
            ("and back in a later period", &[day(10, 22), day(12, 24), day(11, 23)], 200),
        ];
        for (what, days, want) in cases {
            let mut meter = monthly();
            for today in *days {
                // A restart between any two days.
                let saved = meter.state;
                meter = monthly();
                meter.restore(saved);
                meter.roll(*today);
                meter.add(100);
            }
            assert_eq!(meter.state.octets, *want, "{what}");
        }
    }

    #[test]
    fn what_was_counted_before_the_ledger_was_read_counts() {
        let mut saved = monthly();
        saved.roll(day(11, 22));
        saved.add(700);
        let mut meter = monthly();
        meter.add(50);
        meter.roll(day(11, 23));
        meter.add(60);
        meter.restore(saved.state);
        assert_eq!(meter.state.octets, 810);
        let mut meter = monthly();
        meter.roll(day(12, 1));
        meter.add(60);
        meter.restore(saved.state);
        assert_eq!(meter.state.octets, 60, "the ledger is of the month before");
    }
}
