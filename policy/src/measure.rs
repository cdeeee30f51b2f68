//! Quantities: values with a unit, shares, times of day and days of the week.
//!
//! Every reader is exact: decimal fractions are read as whole numbers of the smallest unit, never
//! as floating point, so a file means the same on every machine.

use std::time::Duration;

use crate::diagnostic::Code;
use crate::link::Ratio;
use crate::radio::Position;
use crate::value::{Problem, Read, article, duration};
use crate::verb::{Days, SpeedBound, TimeSpan};
use crate::words::nearest;

/// A kind of quantity: its units with what they are worth in the smallest one.
struct Kind {
    /// What it is called in messages.
    what: &'static str,
    /// The units.
    units: &'static [(&'static str, u64)],
    /// The unit that a bare number most likely lacks.
    usual: &'static str,
    /// A good value.
    example: &'static str,
    /// The largest value, in the smallest unit.
    most: u64,
    /// The same in words.
    most_words: &'static str,
}

const RATE: Kind = Kind {
    what: "rate",
    units: &[("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)],
    usual: "Mbit/s",
    example: "50Mbit/s",
    most: 1_000_000_000_000,
    most_words: "at most \"1000Gbit/s\"",
};

const OCTETS: Kind = Kind {
    what: "amount of data",
    units: &[
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
    usual: "GB",
    example: "20GB",
    most: 1_000_000_000_000_000,
    most_words: "at most \"1000TB\"",
};

/// Hundredths of a percent.
const SHARE: Kind = Kind {
    what: "share",
    units: &[("%", 100)],
    usual: "%",
    example: "85%",
    most: 10_000,
    most_words: "at most \"100%\"",
};

/// Micrometres a second, rounded to hundredths of a metre afterwards: 1 km/h is no whole number
/// of them.
const SPEED: Kind = Kind {
    what: "speed",
    units: &[("km/h", 277_778), ("m/s", 1_000_000), ("mph", 447_040), ("kn", 514_444)],
    usual: "km/h",
    example: "5km/h",
    most: 500_000_000,
    most_words: "at most \"500m/s\"",
};

/// Metres.
const DISTANCE: Kind = Kind {
    what: "distance",
    units: &[("m", 1), ("km", 1_000), ("mi", 1_609)],
    usual: "m",
    example: "300m",
    most: 1_000_000,
    most_words: "at most \"1000km\"",
};

impl Kind {
    fn problem(&self, code: Code, message: String) -> Problem {
        let units: Vec<&str> = self.units.iter().map(|(unit, _)| *unit).collect();
        let help = format!(
            "{} is a number and its unit, as in \"{}\"; the units are {}",
            self.with_article(),
            self.example,
            units.join(", ")
        );
        Problem::new(code, message, help)
    }

    fn with_article(&self) -> String {
        format!("{} {}", article(self.what), self.what)
    }

    /// The value in the smallest unit.
    fn read(&self, text: &str) -> Read<u64> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(
                self.problem(Code::Value, format!("`{text}` is not {}", self.with_article()))
            );
        }
        if unit.is_empty() {
            let usual = self.usual;
            let mut problem = self.problem(Code::Unit, format!("`{text}` has no unit"));
            problem.help = format!("write \"{text}{usual}\" if {usual} is meant; {}", problem.help);
            return Err(problem);
        }
        let Some((_, factor)) = self.units.iter().find(|(known, _)| *known == unit) else {
            let folded = |known: &&str| known.eq_ignore_ascii_case(unit);
            let known = self.units.iter().map(|(known, _)| *known);
            let near = known.clone().find(folded).or_else(|| nearest(unit, known));
            let mut problem = self
                .problem(Code::Unit, format!("`{unit}` is not a unit of {}", self.with_article()));
            if let Some(near) = near {
                problem.help = format!("did you mean \"{number}{near}\"?");
            }
            return Err(problem);
        };
        let too_much =
            || Problem::new(Code::Range, format!("`{text}` is too much"), self.most_words);
        if whole.len() > 15 || fraction.len() > 6 {
            return Err(if whole.len() > 15 {
                too_much()
            } else {
                Problem::new(
                    Code::Range,
                    format!("`{text}` has more than six digits behind the point"),
                    "round it",
                )
            });
        }
        let scale = 10_u128.pow(u32::try_from(fraction.len()).expect("at most six"));
        let whole: u128 = whole.parse().expect("at most fifteen digits");
        let fraction: u128 = fraction.parse().expect("at most six digits");
        let value = (whole * scale + fraction) * u128::from(*factor) / scale;
        u64::try_from(value).ok().filter(|value| *value <= self.most).ok_or_else(too_much)
    }
}

/// Bits a second.
pub(crate) fn rate(text: &str) -> Read<u64> {
    positive(RATE.read(text)?, text)
}

/// Octets.
pub(crate) fn octets(text: &str) -> Read<u64> {
    positive(OCTETS.read(text)?, text)
}

fn positive(value: u64, text: &str) -> Read<u64> {
    if value == 0 {
        return Err(Problem::new(
            Code::Range,
            format!("`{text}` is nothing"),
            "write more than zero, or leave it out",
        ));
    }
    Ok(value)
}

/// A share of a whole.
pub(crate) fn share(text: &str) -> Read<Ratio> {
    SHARE.read(text).map(|value| Ratio(u16::try_from(value).expect("at most 10,000")))
}

/// Hundredths of a metre a second.
pub(crate) fn speed(text: &str) -> Read<u32> {
    let micrometres = SPEED.read(text)?;
    Ok(u32::try_from((micrometres + 5_000) / 10_000).expect("at most 50,000"))
}

/// Metres.
pub(crate) fn distance(text: &str) -> Read<u32> {
    let metres = DISTANCE.read(text)?;
    if metres < 10 {
        return Err(Problem::new(
            Code::Range,
            "no receiver knows its place that well",
            "at least \"10m\"",
        ));
    }
    Ok(u32::try_from(metres).expect("at most 1,000,000"))
}

/// A place on the earth, `48.137154,11.576124`.
pub(crate) fn position(text: &str) -> Read<Position> {
    Position::from_words(text).ok_or_else(|| {
        Problem::new(
            Code::Value,
            format!("`{}` is no position", text.chars().take(64).collect::<String>()),
            "write degrees north, a comma, degrees east: \"48.137154,11.576124\"",
        )
    })
}

/// A limit of speed, `<5km/h` or `>80km/h`.
pub(crate) fn speed_bound(text: &str) -> Read<SpeedBound> {
    let text = text.trim();
    if let Some(limit) = text.strip_prefix('<') {
        return match speed(limit)? {
            0 => Err(Problem::new(
                Code::Range,
                "nothing is slower than standing still",
                "write speed=\"<5km/h\"",
            )),
            limit => Ok(SpeedBound::Below(limit)),
        };
    }
    if let Some(limit) = text.strip_prefix('>') {
        return speed(limit).map(SpeedBound::Above);
    }
    Err(Problem::new(
        Code::Value,
        format!("`{text}` does not say slower or faster"),
        format!("write speed=\"<{text}\" or speed=\">{text}\""),
    ))
}

/// Signal strength in dBm.
pub(crate) fn dbm(text: &str) -> Read<i16> {
    let text = text.trim();
    let help = "signal strength is written as in \"-70dBm\"";
    let Some(number) = text.strip_suffix("dBm") else {
        return match text.parse::<i16>() {
            Ok(number) => Err(Problem::new(
                Code::Unit,
                format!("`{text}` has no unit"),
                format!("write \"{number}dBm\""),
            )),
            Err(_) => {
                Err(Problem::new(Code::Unit, format!("`{text}` is not a signal strength"), help))
            }
        };
    };
    match number.trim_end().parse::<i16>() {
        Ok(number @ -200..=50) => Ok(number),
        Ok(_) => Err(Problem::new(
            Code::Range,
            format!("`{text}` is no signal that a radio shows"),
            "from \"-200dBm\" to \"50dBm\"",
        )),
        Err(_) => {
            Err(Problem::new(Code::Value, format!("`{text}` is not a signal strength"), help))
        }
    }
}

/// A duration that is compared with a measured time; more than zero.
pub(crate) fn measured_time(text: &str) -> Read<Duration> {
    match duration(text)? {
        Duration::ZERO => Err(Problem::new(
            Code::Range,
            format!("`{text}` is no time at all"),
            "write more than zero, or leave it out",
        )),
        time if time > Duration::from_secs(60) => Err(Problem::new(
            Code::Range,
            format!("`{text}` is longer than any link takes"),
            "at most \"60s\"",
        )),
        time => Ok(time),
    }
}

/// A time of day in minutes since midnight; `24:00` is the end of the day.
pub(crate) fn time_of_day(text: &str) -> Read<u16> {
    let text = text.trim();
    let parts = text.split_once(':').and_then(|(hour, minute)| {
        let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
            (digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse::<u16>().expect("at most two digits"))
        };
        Some((number(hour, 1..=2)?, number(minute, 2..=2)?))
    });
    match parts {
        Some((hour @ 0..=23, minute @ 0..=59)) => Ok(hour * 60 + minute),
        Some((24, 0)) => Ok(24 * 60),
        Some(_) => Err(Problem::new(
            Code::Range,
            format!("`{text}` is no time of day"),
            "from \"00:00\" to \"24:00\"",
        )),
        None => Err(Problem::new(
            Code::Value,
            format!("`{text}` is not a time of day"),
            "a time of day is hours and minutes, as in \"22:00\"",
        )),
    }
}

/// A part of the day, `22:00-05:00`.
pub(crate) fn time_span(text: &str) -> Read<TimeSpan> {
    let Some((from, until)) = text.split_once('-') else {
        time_of_day(text)?;
        return Err(Problem::new(
            Code::Value,
            format!("`{text}` is a moment, a part of the day is due"),
            "write begin and end: time=\"22:00-05:00\"",
        ));
    };
    let (from, until) = (time_of_day(from)?, time_of_day(until)?);
    if from == until || from == 24 * 60 {
        return Err(Problem::new(
            Code::Range,
            format!("`{text}` holds no minute"),
            "begin and end differ, and a day begins at \"00:00\"",
        ));
    }
    Ok(TimeSpan { from, until })
}

/// Days of the week, Monday first.
pub(crate) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A day of the week, 0 for Monday.
pub(crate) fn weekday(text: &str) -> Read<u8> {
    let text = text.trim();
    let found = WEEKDAYS.iter().position(|day| *day == text);
    found.map(|day| u8::try_from(day).expect("a week has seven days")).ok_or_else(|| {
        let lower = text.to_ascii_lowercase();
        let near = WEEKDAYS.iter().copied().find(|day| lower.starts_with(day));
        let help = match near.or_else(|| nearest(text, WEEKDAYS.into_iter())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the days are {}", WEEKDAYS.join(", ")),
        };
        Problem::new(Code::Value, format!("`{text}` is not a day of the week"), help)
    })
}

/// Days of the week, `mon-fri` or `sat,sun`; a range may go over Sunday.
pub(crate) fn days(text: &str) -> Read<Days> {
    let mut days = 0_u8;
    for piece in text.split(',') {
        let (first, last) = match piece.split_once('-') {
            Some((first, last)) => (weekday(first)?, weekday(last)?),
            None => (weekday(piece)?, weekday(piece)?),
        };
        let length = (last + 7 - first) % 7;
        for day in 0..=length {
            let bit = 1 << ((first + day) % 7);
            if days & bit != 0 {
                let name = WEEKDAYS[usize::from((first + day) % 7)];
                return Err(Problem::new(
                    Code::Duplicate,
                    format!("`{name}` is named twice"),
                    "name each day once",
                ));
            }
            days |= bit;
        }
    }
    Ok(Days(days))
}

/// What 10^9 octets cost in millionths of the currency, from the price of `per` octets.
///
/// `price` is a decimal number as it was written.
pub(crate) fn micros_per_gigabyte(price: &str, per: u64) -> Read<u64> {
    let wrong = |help: &str| Problem::new(Code::Range, format!("`{price}` is no price"), help);
    let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(wrong("a price is a number that is not negative, as in 4.50"));
    }
    if whole.len() > 9 || fraction.len() > 6 {
        return Err(wrong("at most 999999999, with at most six digits behind the point"));
    }
    let micros: u128 = format!("{whole}{fraction:0<6}").parse().expect("at most fifteen digits");
    u64::try_from(micros * 1_000_000_000 / u128::from(per.max(1)))
        .map_err(|_| wrong("name the price of a larger amount: per=\"1GB\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(rate("50Mbit/s"), Ok(50_000_000));
        assert_eq!(rate("0.5 kbit/s"), Ok(500));
        assert_eq!(octets("20GB"), Ok(20_000_000_000));
        assert_eq!(octets("1.5KiB"), Ok(1536));
        assert_eq!(share("0.25%"), Ok(Ratio(25)));
        assert_eq!(share("100%"), Ok(Ratio::WHOLE));
        assert_eq!(speed("5km/h"), Ok(139));
        assert_eq!(speed("90km/h"), Ok(2500));
        assert_eq!(speed_bound("<5km/h"), Ok(SpeedBound::Below(139)));
        assert_eq!(speed_bound(">10m/s"), Ok(SpeedBound::Above(1000)));
        assert_eq!(dbm("-70dBm"), Ok(-70));
        assert_eq!(distance("300m"), Ok(300));
        assert_eq!(distance("1.5km"), Ok(1500));
        assert_eq!(position("-0.5, 11").map(Position::degrees), Ok((-0.5, 11.0)));
        assert_eq!(time_span("22:00-05:00"), Ok(TimeSpan { from: 1320, until: 300 }));
        assert_eq!(time_span("0:00-24:00"), Ok(TimeSpan { from: 0, until: 1440 }));
        assert_eq!(days("mon-fri"), Ok(Days(0b001_1111)));
        assert_eq!(days("sat-mon,wed"), Ok(Days(0b110_0101)));
        assert_eq!(micros_per_gigabyte("4.50", 1_000_000_000), Ok(4_500_000));
        assert_eq!(micros_per_gigabyte("1", 1_000_000), Ok(1_000_000_000));
        assert_eq!(micros_per_gigabyte("0", 1_000_000_000), Ok(0));
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        let cases: &[(Read<u64>, Code)] = &[
            (rate("50"), Code::Unit),
            (rate("50mbit"), Code::Unit),
            (rate("0Mbit/s"), Code::Range),
            (rate("99999999999999999Mbit/s"), Code::Range),
            (rate("1.0000001Mbit/s"), Code::Range),
            (octets("."), Code::Value),
            (octets("-1GB"), Code::Value),
            (octets("20gb"), Code::Unit),
            (octets("9999TB"), Code::Range),
            (share("101%").map(|ratio| u64::from(ratio.0)), Code::Range),
            (share("8").map(|ratio| u64::from(ratio.0)), Code::Unit),
            (speed("5").map(u64::from), Code::Unit),
            (dbm("-70").map(|_| 0), Code::Unit),
            (distance("300").map(u64::from), Code::Unit),
            (distance("9m").map(u64::from), Code::Range),
            (distance("1001km").map(u64::from), Code::Range),
            (position("48.1").map(|_| 0), Code::Value),
            (position("48.1,181").map(|_| 0), Code::Value),
            (dbm("-700dBm").map(|_| 0), Code::Range),
            (time_of_day("25:00").map(u64::from), Code::Range),
            (time_of_day("24:01").map(u64::from), Code::Range),
            (time_of_day("+1:00").map(u64::from), Code::Value),
            (time_of_day("22").map(u64::from), Code::Value),
            (time_span("22:00-22:00").map(|_| 0), Code::Range),
            (time_span("24:00-05:00").map(|_| 0), Code::Range),
            (days("mon,mon").map(|_| 0), Code::Duplicate),
            (days("monday").map(|_| 0), Code::Value),
            (days("").map(|_| 0), Code::Value),
            (micros_per_gigabyte("-1", 1), Code::Range),
            (micros_per_gigabyte("1e9", 1), Code::Range),
            (micros_per_gigabyte("999999999", 1), Code::Range),
        ];
        for (number, (read, want)) in cases.iter().enumerate() {
            assert_eq!(read.as_ref().map_err(|problem| problem.code), Err(*want), "{number}");
        }
    }
}
