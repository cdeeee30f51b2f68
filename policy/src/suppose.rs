//! What a question may suppose, one by one: `wlan0=down`, `wlan0.rtt=80ms`, `speed=90km/h`,
//! `position=48.137154,11.576124`, `time=23:10`, `day=sat`. The command line and the policy file's own tests share this reader.

use std::time::Duration;

use crate::diagnostic::Code;
use crate::explain::mismatch;
use crate::link::Ratio;
use crate::measure;
use crate::policy::Policy;
use crate::radio::Position;
use crate::steering::{Given, GivenState};
use crate::terms::Bid;
use crate::value::{self, Problem, Read};
use crate::words::advice;

/// One supposition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supposition {
    /// The vehicle's speed in hundredths of a metre per second.
    Speed(u32),
    /// Where the vehicle is.
    Position(Position),
    /// The minute of the local day.
    Minute(u16),
    /// The day of the week, 0 for Monday.
    Weekday(u8),
    /// Something of a link, by its name.
    Link(String, OfLink),
}

/// What is supposed of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfLink {
    /// Its state.
    State(GivenState),
    /// Its smoothed round trip time.
    Rtt(Duration),
    /// Its jitter.
    Jitter(Duration),
    /// Its loss.
    Loss(Ratio),
    /// How much of its rate is used.
    Load(Ratio),
}

/// The words that are no names of links, with an example each.
pub(crate) const WORDS: [(&str, &str); 4] =
    [("speed", "90km/h"), ("position", "48.137154,11.576124"), ("time", "23:10"), ("day", "sat")];

/// What may be supposed of a link besides its state, with an example each.
pub(crate) const FIGURES: [(&str, &str); 4] =
    [("rtt", "80ms"), ("jitter", "5ms"), ("loss", "2%"), ("load", "90%")];

/// Reads `name=value`; whether there is such a link is for the caller to say.
pub(crate) fn supposition(name: &str, value: &str) -> Read<Supposition> {
    Ok(match name {
        "speed" => Supposition::Speed(measure::speed(value)?),
        "position" => Supposition::Position(measure::position(value)?),
        "time" => match measure::time_of_day(value)? {
            1440 => {
                return Err(Problem::new(
                    Code::Range,
                    "the last minute of a day is 23:59",
                    "write 00:00 and the next day",
                ));
            }
            minute => Supposition::Minute(minute),
        },
        "day" => Supposition::Weekday(measure::weekday(value)?),
        link => {
            let figure = link.rsplit_once('.');
            let figure =
                figure.filter(|(_, word)| FIGURES.iter().any(|(figure, _)| figure == word));
            let (link, of_link) = match figure {
                Some((link, "rtt")) => (link, OfLink::Rtt(measure::measured_time(value)?)),
                Some((link, "jitter")) => (link, OfLink::Jitter(measure::measured_time(value)?)),
                Some((link, "loss")) => (link, OfLink::Loss(measure::share(value)?)),
                Some((link, _)) => (link, OfLink::Load(measure::share(value)?)),
                None => (link, OfLink::State(state(value)?)),
            };
            Supposition::Link(value::interface_name(link)?.to_owned(), of_link)
        }
    })
}

/// The unit that a bare number most likely lacks; `None` for what has no unit.
pub(crate) fn usual_unit(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.') {
        _ if name == "speed" => Some("km/h"),
        Some((_, "rtt" | "jitter")) => Some("ms"),
        Some((_, "loss" | "load")) => Some("%"),
        _ => None,
    }
}

fn state(word: &str) -> Read<GivenState> {
    GivenState::from_word(word).ok_or_else(|| {
        let word: String = word.chars().take(64).collect();
        let known = GivenState::ALL.into_iter().map(GivenState::word);
        let help = advice(&word, known, "states");
        Problem::new(Code::Value, format!("`{word}` is not a state of a link"), help)
    })
}

impl Supposition {
    /// Adds it to a question; `bid` is that of the link it names.
    pub(crate) fn put(self, bid: Option<Bid>, given: &mut Given) -> Read<()> {
        fn set<T>(place: &mut Option<T>, value: T) -> Read<()> {
            match place.replace(value) {
                None => Ok(()),
                Some(_) => Err(Problem::new(
                    Code::Duplicate,
                    "the same is supposed twice",
                    "keep one of the two",
                )),
            }
        }
        match (self, bid) {
            (Self::Speed(speed), _) => set(&mut given.speed, speed),
            (Self::Position(position), _) => set(&mut given.position, position),
            (Self::Minute(minute), _) => set(&mut given.minute, minute),
            (Self::Weekday(day), _) => set(&mut given.weekday, day),
            // A link without BID is at a home agent, where nothing is steered.
            (Self::Link(..), None) => Ok(()),
            (Self::Link(_, of_link), Some(bid)) => {
                let link = given.links.entry(bid).or_default();
                match of_link {
                    OfLink::State(state) => set(&mut link.state, state),
                    OfLink::Rtt(rtt) => set(&mut link.rtt, rtt),
                    OfLink::Jitter(jitter) => set(&mut link.jitter, jitter),
                    OfLink::Loss(loss) => set(&mut link.loss, loss),
                    OfLink::Load(load) => set(&mut link.load, load),
                }
            }
        }
    }
}

/// What is supposed, in the words in which it is asked.
pub fn given_words(given: &Given, policy: &Policy) -> Vec<String> {
    let mut words = Vec::new();
    for (bid, link) in &given.links {
        let name = policy.interface_of(*bid);
        let name = name.map_or_else(|| bid.to_string(), |link| link.name.to_string());
        let ms = |time: Duration| format!("{}ms", time.as_secs_f64() * 1000.0);
        let mut add = |figure: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("{name}{figure}={value}")));
        };
        add("", link.state.map(|state| state.to_string()));
        add(".rtt", link.rtt.map(ms));
        add(".jitter", link.jitter.map(ms));
        add(".loss", link.loss.map(|loss| loss.to_string()));
        add(".load", link.load.map(|load| load.to_string()));
    }
    let speed = given.speed.map(|speed| mismatch::kilometres_per_hour(speed).replace(' ', ""));
    words.extend(speed.map(|speed| format!("speed={speed}")));
    words.extend(given.position.map(|position| format!("position={position}")));
    words.extend(given.minute.map(|minute| format!("time={}", mismatch::time_of_day(minute))));
    words.extend(given.weekday.map(|day| format!("day={}", mismatch::weekday(day))));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind() {
        let link = |name: &str, of_link| Supposition::Link(name.to_owned(), of_link);
        let cases = [
            ("speed", "90km/h", Supposition::Speed(2500)),
            (
                "position",
                "48.137154,-11.5",
                Supposition::Position(Position { latitude: 48_137_154, longitude: -11_500_000 }),
            ),
            ("time", "23:10", Supposition::Minute(1390)),
            ("day", "sat", Supposition::Weekday(5)),
            ("wlan0", "over-quota", link("wlan0", OfLink::State(GivenState::OverQuota))),
            ("eth0.5", "down", link("eth0.5", OfLink::State(GivenState::Down))),
            ("eth0.5.rtt", "80ms", link("eth0.5", OfLink::Rtt(Duration::from_millis(80)))),
            ("wlan0.loss", "2.5%", link("wlan0", OfLink::Loss(Ratio(250)))),
        ];
        for (name, value, want) in cases {
            assert_eq!(supposition(name, value), Ok(want), "{name}={value}");
        }
        let wrong = [
            ("speed", "90", Code::Unit),
            ("position", "48.1", Code::Value),
            ("time", "25:00", Code::Range),
            ("time", "24:00", Code::Range),
            ("day", "saturday", Code::Value),
            ("wlan0", "dwon", Code::Value),
            ("wlan0.rtt", "80", Code::Unit),
            ("a b", "up", Code::Value),
        ];
        for (name, value, code) in wrong {
            let found = supposition(name, value).map_err(|problem| problem.code);
            assert_eq!(found, Err(code), "{name}={value}");
        }
    }
}
