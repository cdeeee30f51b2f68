//! Times and sizes, typed and printed.

use std::time::Duration;

/// Reads `90s`, `10m`, `2h`, `1d` or several of them, `1h30m`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let help = "say a number with its unit: 90s, 10m, 2h, 1d or 1h30m";
    let mut total: u64 = 0;
    let mut number = String::new();
    let mut units = 0;
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(help.to_owned()),
        };
        let value: u64 = number.parse().map_err(|_| help.to_owned())?;
        total = value
            .checked_mul(unit)
            .and_then(|seconds| total.checked_add(seconds))
            .ok_or("too long")?;
        number.clear();
        units += 1;
    }
    if !number.is_empty() || units == 0 {
        return Err(help.to_owned());
    }
    if total == 0 {
        return Err("at least 1s is needed".to_owned());
    }
    Ok(Duration::from_secs(total))
}

/// Seconds as people say them: the two largest units.
pub(super) fn seconds(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(3);
    let (unit, name) = units[first];
    let mut text = format!("{} {name}", seconds / unit);
    if let Some((next, name)) = units.get(first + 1) {
        let rest = seconds % unit / next;
        if rest > 0 {
            text.push_str(&format!(" {rest} {name}"));
        }
    }
    text
}

/// Octets with a decimal unit.
pub(super) fn bytes(octets: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = octets as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{octets} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A moment as ISO 8601 in UTC with milliseconds.
pub(super) fn moment(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Days to a date of the Gregorian calendar, counted in eras of 400 years from 0000-03-01.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let good = [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800)];
        for (text, want) in good {
            assert_eq!(parse(text), Ok(Duration::from_secs(want)), "{text}");
        }
        let bad = ["", "10", "m", "10x", "-5s", "1h30", "0s", "99999999999999999999s", "5 m"];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("999999999999999999d").is_err());
    }

    #[test]
    fn figures_for_people() {
        let cases = [(0, "0 s"), (59, "59 s"), (420, "7 min"), (5401, "1 h 30 min")];
        for (value, want) in cases {
            assert_eq!(seconds(value), want);
        }
        assert_eq!([bytes(999), bytes(1500), bytes(2_000_000)], ["999 B", "1.5 kB", "2.0 MB"]);
        // Checked with `date -u -d @…`.
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(moment(1_795_317_258_500), "2026-11-22T03:14:18.500Z");
    }
}
