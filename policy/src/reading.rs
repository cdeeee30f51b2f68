//! What a program or a file says of a link's radio or of the vehicle: one fact a line.
//!
//! ```text
//! # a name, spaces or `=`, a value with the units of the policy file
//! signal       -71dBm
//! registration home
//! technology   lte
//! ```
//!
//! and of the vehicle
//!
//! ```text
//! speed    50km/h
//! position 48.137154,11.576124
//! ```
//!
//! `unknown` stands for what is not known, like a line that is not there. A text with a fault says
//! nothing at all: half of it might belong to another moment than the other half.

use std::fmt;

use crate::measure;
use crate::radio::{Position, Radio, RadioRegistration, Technology};
use crate::words::advice;

/// Octets that a text may have.
pub const MOST_OCTETS: usize = 4096;

/// Whose facts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadingOf {
    /// A link's radio.
    Radio,
    /// The vehicle.
    Vehicle,
}

/// What a text says; `None` for what it says nothing of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of a link's radio.
    pub radio: Radio,
    /// The vehicle's speed in hundredths of a metre per second.
    pub speed: Option<u32>,
    /// Where the vehicle is.
    pub position: Option<Position>,
}

/// Why a text says nothing, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadingFault {
    /// The line, from 1; 0 for the text as a whole.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl fmt::Display for ReadingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for ReadingFault {}

/// The names of a radio's facts and of the vehicle's.
const RADIO: [&str; 3] = ["signal", "registration", "technology"];
const VEHICLE: [&str; 2] = ["speed", "position"];

impl Reading {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// The first line that cannot be read, with what is wrong and how to mend it.
    pub fn parse(octets: &[u8], of: ReadingOf) -> Result<Self, ReadingFault> {
        let fault = |line, message: String, help: &str| ReadingFault {
            line,
            message,
            help: help.to_owned(),
        };
        if octets.len() > MOST_OCTETS {
            let message = format!("there are more than {MOST_OCTETS} octets");
            return Err(fault(0, message, "one fact a line is all there is to say"));
        }
        let text = std::str::from_utf8(octets).map_err(|error| {
            let before = &octets[..error.valid_up_to()];
            let line = before.iter().filter(|octet| **octet == b'\n').count() + 1;
            fault(line, "this is not UTF-8".to_owned(), "write plain text")
        })?;
        let (mut reading, mut seen) = (Self::default(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = line.find(|it: char| it.is_whitespace() || it == '=').unwrap_or(line.len());
            let (name, behind) = line.split_at(at);
            let value = behind.trim_start();
            let value = value.strip_prefix('=').unwrap_or(value).trim();
            let known = match of {
                ReadingOf::Radio => &RADIO[..],
                ReadingOf::Vehicle => &VEHICLE[..],
            };
            let Some(name) = known.iter().find(|it| **it == name) else {
                return Err(unknown(number, name, of, known));
            };
            if seen.contains(name) {
                return Err(fault(number, format!("`{name}` is said twice"), "keep one of them"));
            }
            seen.push(name);
            if value.is_empty() {
                let help = "write it behind the name, or leave the line out";
                return Err(fault(number, format!("`{name}` has no value"), help));
            }
            if value != "unknown" {
                reading
                    .take(name, value)
                    .map_err(|(message, help)| fault(number, message, &help))?;
            }
        }
        if seen.is_empty() {
            let help = match of {
                ReadingOf::Radio => "write one fact a line, such as `signal -71dBm`",
                ReadingOf::Vehicle => "write one fact a line, such as `speed 50km/h`",
            };
            return Err(fault(0, "there is no fact in it".to_owned(), help));
        }
        Ok(reading)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), (String, String)> {
        let words = |what: &str, known: &[&str]| {
            let short: String = value.chars().take(32).collect();
            let help = advice(&short, known.iter().copied(), "words");
            (format!("`{short}` is no {what}"), help)
        };
        match name {
            "signal" => {
                let read = measure::dbm(&shortened(value));
                self.radio.signal = Some(read.map_err(|it| (it.message, it.help))?);
            }
            "registration" => {
                let known = RadioRegistration::ALL.map(RadioRegistration::word);
                let read = RadioRegistration::from_word(value);
                self.radio.registration = Some(read.ok_or_else(|| words(name, &known))?);
            }
            "technology" => {
                let known = Technology::ALL.map(Technology::word);
                let read = Technology::from_word(value);
                self.radio.technology = Some(read.ok_or_else(|| words(name, &known))?);
            }
            "speed" => {
                let read = measure::speed(&shortened(value));
                self.speed = Some(read.map_err(|it| (it.message, it.help))?);
            }
            _ => self.position = Some(place(value)?),
        }
        Ok(())
    }
}

/// Enough of a value to be known again in a message.
fn shortened(value: &str) -> String {
    value.chars().take(32).collect()
}

fn unknown(line: usize, name: &str, of: ReadingOf, known: &[&str]) -> ReadingFault {
    let name = shortened(name);
    let (others, help) = match of {
        ReadingOf::Radio => (&VEHICLE[..], "name this source under `vehicle` for it"),
        ReadingOf::Vehicle => (&RADIO[..], "name this source under `radio` of a link for it"),
    };
    let elsewhere = others.contains(&name.as_str());
    let help =
        if elsewhere { help.to_owned() } else { advice(&name, known.iter().copied(), "facts") };
    let whose = match of {
        ReadingOf::Radio => "a radio",
        ReadingOf::Vehicle => "the vehicle",
    };
    ReadingFault { line, message: format!("`{name}` is no fact of {whose}"), help }
}

/// Degrees north and east.
fn place(text: &str) -> Result<Position, (String, String)> {
    let help = || "degrees north, a comma, degrees east: `48.137154,11.576124`".to_owned();
    Position::from_words(text)
        .ok_or_else(|| (format!("`{}` is no position", shortened(text)), help()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let text = "# of this moment\n\nsignal = -71dBm\r\nregistration=roaming\n technology\tnr\n";
        let reading = Reading::parse(text.as_bytes(), ReadingOf::Radio).unwrap();
        let radio = Radio {
            signal: Some(-71),
            registration: Some(RadioRegistration::Roaming),
            technology: Some(Technology::Nr),
        };
        assert_eq!(reading, Reading { radio, ..Reading::default() });
        let text = b"speed 90km/h\nposition 48.137154, -11.5";
        let reading = Reading::parse(text, ReadingOf::Vehicle).unwrap();
        let position = Position::from_degrees(48.137_154, -11.5);
        assert_eq!((reading.speed, reading.position), (Some(2500), position));
        let nothing = Reading::parse(b"speed unknown", ReadingOf::Vehicle).unwrap();
        assert_eq!(nothing, Reading::default());
    }

    #[test]
    fn what_cannot_be_read_says_where_and_what_to_mend() {
        use ReadingOf::{Radio, Vehicle};
        let long = vec![b'#'; MOST_OCTETS + 1];
        let cases: [(&[u8], ReadingOf, &str); 14] = [
            (b"", Radio, "there is no fact in it; write one fact a line, such as `signal -71dBm`"),
            (
                b"\n# x\n",
                Vehicle,
                "there is no fact in it; write one fact a line, such as `speed 50km/h`",
            ),
            (b"signal -71", Radio, "line 1: `-71` has no unit; write \"-71dBm\""),
            (
                b"\nsignal loud",
                Radio,
                "line 2: `loud` is not a signal strength; signal strength is written as in \"-70dBm\"",
            ),
            (
                b"signal 99dBm",
                Radio,
                "line 1: `99dBm` is no signal that a radio shows; from \"-200dBm\" to \"50dBm\"",
            ),
            (
                b"signl -71dBm",
                Radio,
                "line 1: `signl` is no fact of a radio; did you mean `signal`?",
            ),
            (
                b"speed 5km/h",
                Radio,
                "line 1: `speed` is no fact of a radio; name this source under `vehicle` for it",
            ),
            (
                b"signal -71dBm",
                Vehicle,
                "line 1: `signal` is no fact of the vehicle; name this source under `radio` of a link for it",
            ),
            (
                b"signal",
                Radio,
                "line 1: `signal` has no value; write it behind the name, or leave the line out",
            ),
            (
                b"signal -71dBm\nsignal -71dBm",
                Radio,
                "line 2: `signal` is said twice; keep one of them",
            ),
            (
                b"technology 4g",
                Radio,
                "line 1: `4g` is no technology; the words here are gsm, cdma, umts, lte, lte-m, nb-iot, nr",
            ),
            (
                b"position 91,0",
                Vehicle,
                "line 1: `91,0` is no position; degrees north, a comma, degrees east: `48.137154,11.576124`",
            ),
            (b"speed 5km/h\nposition \xff", Vehicle, "line 2: this is not UTF-8; write plain text"),
            (
                &long,
                Radio,
                "there are more than 4096 octets; one fact a line is all there is to say",
            ),
        ];
        for (text, of, told) in cases {
            let fault = Reading::parse(text, of).unwrap_err();
            assert_eq!(fault.to_string(), told, "{}", String::from_utf8_lossy(text));
        }
    }
}
