//! Local time as a fact, and the calendar behind quota periods and `when`.
//!
//! Whoever knows the clock and the time zone states one [`LocalTime`]; between two statements it
//! is carried on by the monotonic clock. Days are counted from 1 January 1970 of the Gregorian
//! calendar; weekdays from 0 for Monday.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::link::Period;
use crate::radio::{Circle, Position};
use crate::verb::{TimeSpan, When};

const DAY: Duration = Duration::from_secs(86_400);

/// A day of the local calendar: days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub u32);

impl Day {
    /// The last day that is counted, in the year 9999.
    pub const LAST: Self = Self(2_932_896);

    /// The day of a date; `None` if there is no such date between 1970 and 9999.
    pub fn from_date(year: u16, month: u8, day: u8) -> Option<Self> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        if day == 0 || day > days_in_month(year, month) {
            return None;
        }
        // Years that begin in March, so that the leap day is a year's last day.
        let (month, year) = (u32::from(month), u32::from(year) - u32::from(month <= 2));
        let (era, year_of_era) = (year / 400, year % 400);
        let from_march = (month + 9) % 12;
        let day_of_year = (153 * from_march + 2) / 5 + u32::from(day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era).checked_sub(719_468).map(Self)
    }

    /// Year, month and day of the month, both from 1.
    pub fn date(self) -> (u16, u8, u8) {
        let days = self.0.min(Self::LAST.0) + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + u32::from(month <= 2);
        (year as u16, month as u8, day as u8)
    }

    /// The day of the week, 0 for Monday.
    pub fn weekday(self) -> u8 {
        ((self.0 + 3) % 7) as u8
    }

    /// The first day of the period that this day is in; `starts` as in a quota.
    pub fn period_start(self, per: Period, starts: u8) -> Self {
        match per {
            Period::Day => self,
            Period::Week => {
                let first = u32::from(starts.clamp(1, 7) - 1);
                Self(self.0.saturating_sub((u32::from(self.weekday()) + 7 - first) % 7))
            }
            Period::Month => {
                let (year, month, day) = self.date();
                if day >= starts.clamp(1, days_in_month(year, month)) {
                    return month_start(year, month, starts);
                }
                match month {
                    1 => month_start(year.saturating_sub(1), 12, starts),
                    _ => month_start(year, month - 1, starts),
                }
            }
        }
    }

    /// The first day of the period after the one that this day is in.
    pub fn next_period(self, per: Period, starts: u8) -> Self {
        let start = self.period_start(per, starts);
        match per {
            Period::Day => Self(self.0.saturating_add(1)),
            Period::Week => Self(start.0.saturating_add(7)),
            Period::Month => {
                let (year, month, _) = start.date();
                match month {
                    12 => month_start(year.saturating_add(1), 1, starts),
                    _ => month_start(year, month + 1, starts),
                }
            }
        }
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// How many days a month has.
fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// The day of this month on which periods start: its last if it is too short.
fn month_start(year: u16, month: u8, starts: u8) -> Day {
    let day = starts.clamp(1, days_in_month(year, month));
    Day::from_date(year, month, day).unwrap_or(Day(0))
}

/// A moment of the local calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalTime {
    /// The day.
    pub day: Day,
    /// The time since local midnight.
    pub time: Duration,
}

impl LocalTime {
    /// The moment that many seconds after 1970-01-01 00:00 on a clock of the time zone: the
    /// seconds of universal time plus the zone's offset.
    pub fn from_zone(seconds: Duration) -> Self {
        let days = seconds.as_secs() / DAY.as_secs();
        let day = Day(u32::try_from(days).unwrap_or(Day::LAST.0).min(Day::LAST.0));
        Self { day, time: Duration::new(seconds.as_secs() % DAY.as_secs(), seconds.subsec_nanos()) }
    }

    /// The moment `time` later.
    #[must_use]
    pub fn later(self, time: Duration) -> Self {
        let midnight = DAY * self.day.0;
        Self::from_zone(midnight.saturating_add(self.time).saturating_add(time))
    }

    /// How far `other` is from here, in either direction.
    pub fn distance(self, other: Self) -> Duration {
        (DAY * self.day.0 + self.time).abs_diff(DAY * other.day.0 + other.time)
    }

    /// The time until a day begins; zero if it has.
    pub fn until_day(self, day: Day) -> Duration {
        (DAY * day.0).saturating_sub(DAY * self.day.0 + self.time)
    }

    /// The minute since midnight.
    pub fn minute(self) -> u16 {
        (self.time.as_secs() / 60) as u16
    }

    /// The time until the clock shows this minute of the day again, never zero.
    pub fn until_minute(self, minute: u16) -> Duration {
        let at = Duration::from_secs(u64::from(minute) * 60);
        if at > self.time { at - self.time } else { at + DAY - self.time }
    }
}

/// What `when` is asked about; `None` for what is not known, which meets no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The vehicle's speed in hundredths of a metre per second.
    pub speed: Option<u32>,
    /// Where the vehicle is.
    pub position: Option<Position>,
    /// The surroundings, of those that rules name, in which it is: with the room at their edges.
    pub inside: BTreeSet<Circle>,
    /// Minute of the local day.
    pub minute: Option<u16>,
    /// Day of the week, 0 for Monday.
    pub weekday: Option<u8>,
}

impl Moment {
    /// Whether any of the `when` lines is met; no line at all is met always.
    pub fn meets(&self, lines: &[When]) -> bool {
        lines.is_empty() || lines.iter().any(|line| self.meets_line(line))
    }

    fn meets_line(&self, line: &When) -> bool {
        use crate::verb::SpeedBound::{Above, Below};
        let speed = line.speed.is_none_or(|bound| match (bound, self.speed) {
            (Below(bound), Some(speed)) => speed < bound,
            (Above(bound), Some(speed)) => speed > bound,
            (_, None) => false,
        });
        let time = line.time.is_none_or(|span| self.minute.is_some_and(|at| within(span, at)));
        let days = line.days.is_none_or(|days| {
            let began_yesterday = match (line.time, self.minute) {
                (Some(span), Some(at)) => span.from >= span.until && at < span.until,
                _ => false,
            };
            let began = self.weekday.map(|day| if began_yesterday { (day + 6) % 7 } else { day });
            began.is_some_and(|day| days.contains(day))
        });
        let near = line.near.is_none_or(|circle| self.inside.contains(&circle));
        speed && time && days && near
    }
}

/// Whether a minute of the day is in a span; one that ends where it begins is the whole day.
fn within(span: TimeSpan, minute: u16) -> bool {
    if span.from < span.until {
        (span.from..span.until).contains(&minute)
    } else {
        minute >= span.from || minute < span.until
    }
}

/// The local time as it was last stated, carried on by the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LocalClock(Option<(Duration, LocalTime)>);

impl LocalClock {
    /// A statement that differs by less is the same time, rounded elsewhere: time must not step
    /// back over a boundary that it has passed.
    const SLACK: Duration = Duration::from_secs(1);

    pub fn state(&mut self, now: Duration, stated: LocalTime) {
        // Whatever was stated, a day has 24 hours and the calendar an end.
        let stated = stated.later(Duration::ZERO);
        let known = self.at(now).is_some_and(|time| time.distance(stated) < Self::SLACK);
        if !known {
            self.0 = Some((now, stated));
        }
    }

    pub fn at(&self, now: Duration) -> Option<LocalTime> {
        self.0.map(|(stated_at, time)| time.later(now.saturating_sub(stated_at)))
    }

    pub fn day(&self, now: Duration) -> Option<Day> {
        self.at(now).map(|time| time.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::{Days, SpeedBound};

    fn day(text: &str) -> Day {
        let mut parts = text.split('-').map(|part| part.parse::<u16>().expect("a number"));
        let mut part = || parts.next().expect("three parts");
        let (year, month, day) = (part(), part(), part());
        Day::from_date(year, month as u8, day as u8).expect("a date")
    }

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        assert_eq!(day("1970-01-01"), Day(0));
        assert_eq!(day("2000-03-01"), Day(11_017));
        assert_eq!(day("9999-12-31"), Day::LAST);
        assert_eq!(Day::from_date(2023, 2, 29), None);
        let mut before = Day(0).date();
        for number in 1..=60_000 {
            let date = Day(number).date();
            assert!(date > before, "{date:?} follows {before:?}");
            assert_eq!(Day::from_date(date.0, date.1, date.2), Some(Day(number)));
            before = date;
        }
        assert_eq!(day("2024-02-29").weekday(), 3, "a Thursday");
        assert_eq!(Day(0).weekday(), 3, "a Thursday");
    }

    #[test]
    fn periods_of_quotas() {
        use Period::{Day, Month, Week};
        let cases: &[(&str, Period, u8, &str, &str)] = &[
            ("2026-11-22", Day, 1, "2026-11-22", "2026-11-23"),
            // The 22nd of November 2026 is a Sunday.
            ("2026-11-22", Week, 1, "2026-11-16", "2026-11-23"),
            ("2026-11-22", Week, 7, "2026-11-22", "2026-11-29"),
            ("2026-11-23", Week, 1, "2026-11-23", "2026-11-30"),
            ("2026-11-22", Month, 1, "2026-11-01", "2026-12-01"),
            ("2026-11-22", Month, 23, "2026-10-23", "2026-11-23"),
            ("2026-12-31", Month, 1, "2026-12-01", "2027-01-01"),
            ("2027-01-05", Month, 10, "2026-12-10", "2027-01-10"),
            // Short months: the last day stands in.
            ("2027-02-27", Month, 31, "2027-01-31", "2027-02-28"),
            ("2027-02-28", Month, 31, "2027-02-28", "2027-03-31"),
            ("2027-03-30", Month, 31, "2027-02-28", "2027-03-31"),
            ("2028-02-29", Month, 30, "2028-02-29", "2028-03-30"),
        ];
        for (today, per, starts, start, next) in cases {
            let what = format!("{today} {per:?} starts={starts}");
            assert_eq!(day(today).period_start(*per, *starts), day(start), "{what}");
            assert_eq!(day(today).next_period(*per, *starts), day(next), "{what}");
        }
    }

    #[test]
    fn when_lines() {
        let minute = |hour: u16, minute: u16| hour * 60 + minute;
        let night = TimeSpan { from: minute(22, 0), until: minute(5, 0) };
        let noon = TimeSpan { from: minute(12, 0), until: minute(13, 0) };
        let weekdays = Some(Days(0b001_1111));
        let slow = When { speed: Some(SpeedBound::Below(139)), ..When::default() };
        let fast = When { speed: Some(SpeedBound::Above(2500)), ..When::default() };
        let at_night = When { time: Some(night), days: weekdays, ..When::default() };
        let at_noon = When { time: Some(noon), days: weekdays, ..When::default() };
        let slow_night = When { speed: slow.speed, ..at_night.clone() };
        let workday = When { days: weekdays, ..When::default() };
        let moment =
            |speed, minute, weekday| Moment { speed, minute, weekday, ..Moment::default() };
        let (mon, fri, sat, sun) = (Some(0), Some(4), Some(5), Some(6));
        let at = |hour, min| Some(minute(hour, min));
        let both = vec![slow.clone(), at_night.clone()];
        let [slow, fast, at_noon, at_night, slow_night, workday] =
            [slow, fast, at_noon, at_night, slow_night, workday].map(|line| vec![line]);
        let cases: &[(&str, &[When], Moment, bool)] = &[
            ("no line is met", &[], moment(None, None, None), true),
            ("below", &slow, moment(Some(138), None, None), true),
            ("at the bound is not below", &slow, moment(Some(139), None, None), false),
            ("an unknown speed", &slow, moment(None, None, None), false),
            ("above", &fast, moment(Some(2501), None, None), true),
            ("at the bound is not above", &fast, moment(Some(2500), None, None), false),
            ("the first minute", &at_noon, moment(None, at(12, 0), mon), true),
            ("the last minute", &at_noon, moment(None, at(12, 59), mon), true),
            ("the minute after", &at_noon, moment(None, at(13, 0), mon), false),
            ("another day", &at_noon, moment(None, at(12, 30), sun), false),
            ("an unknown time", &at_noon, moment(None, None, mon), false),
            ("an unknown day", &at_noon, moment(None, at(12, 30), None), false),
            ("Friday night", &at_night, moment(None, at(22, 0), fri), true),
            ("goes on until Saturday morning", &at_night, moment(None, at(4, 59), sat), true),
            ("and ends there", &at_night, moment(None, at(5, 0), sat), false),
            ("Saturday night is none", &at_night, moment(None, at(22, 0), sat), false),
            ("nor its end on Sunday", &at_night, moment(None, at(4, 0), sun), false),
            ("nor Sunday night's end", &at_night, moment(None, at(4, 0), mon), false),
            ("days alone", &workday, moment(None, at(0, 0), mon), true),
            ("days alone, unknown", &workday, moment(None, None, None), false),
            ("conditions are AND", &slow_night, moment(Some(500), at(23, 0), mon), false),
            ("both hold", &slow_night, moment(Some(100), at(23, 0), mon), true),
            ("lines are OR", &both, moment(Some(500), at(23, 0), mon), true),
            ("none holds", &both, moment(Some(500), at(21, 0), mon), false),
        ];
        for (what, lines, moment, want) in cases {
            assert_eq!(moment.meets(lines), *want, "{what}");
        }
    }

    #[test]
    fn local_time_is_carried_on() {
        let mut clock = LocalClock::default();
        let second = Duration::from_secs;
        assert_eq!(clock.at(second(5)), None);
        let stated = LocalTime { day: day("2026-12-31"), time: second(86_399) };
        clock.state(second(100), stated);
        assert_eq!(
            clock.at(second(101)),
            Some(LocalTime { day: day("2027-01-01"), time: second(0) })
        );
        // The same second stated once more, rounded down, does not step back.
        clock.state(
            second(101),
            LocalTime { day: day("2026-12-31"), time: second(86_399) + Duration::from_millis(1) },
        );
        assert_eq!(clock.day(second(101)), Some(day("2027-01-01")));
        // A clock that was set is believed.
        clock.state(second(101), LocalTime { day: day("2026-12-31"), time: second(86_398) });
        assert_eq!(clock.day(second(101)), Some(day("2026-12-31")));
        assert_eq!(stated.until_minute(0), second(1));
        assert_eq!(stated.until_minute(1439), second(86_400 - 59));
        assert_eq!(stated.until_day(day("2027-01-02")), second(86_401));
    }
}
