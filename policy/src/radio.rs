//! What a radio tells of itself, beside what is measured of the path behind it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// By what a modem reaches its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Technology {
    /// The second generation: GSM with GPRS and EDGE.
    Gsm,
    /// CDMA 2000 with EV-DO.
    Cdma,
    /// The third generation: UMTS with HSPA.
    Umts,
    /// The fourth generation.
    Lte,
    /// LTE for machines, of about 1 Mbit/s.
    LteM,
    /// The narrow band for things, of some 10 kbit/s.
    NbIot,
    /// The fifth generation.
    Nr,
}

impl Technology {
    /// All of them, the oldest first.
    pub const ALL: [Self; 7] =
        [Self::Gsm, Self::Cdma, Self::Umts, Self::Lte, Self::LteM, Self::NbIot, Self::Nr];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gsm => "gsm",
            Self::Cdma => "cdma",
            Self::Umts => "umts",
            Self::Lte => "lte",
            Self::LteM => "lte-m",
            Self::NbIot => "nb-iot",
            Self::Nr => "nr",
        }
    }

    /// The technology of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }
}

impl fmt::Display for Technology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Several technologies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Technologies(u8);

impl Technologies {
    /// Whether this one is among them.
    pub fn contains(self, technology: Technology) -> bool {
        self.0 >> technology as u8 & 1 != 0
    }
}

impl FromIterator<Technology> for Technologies {
    fn from_iter<T: IntoIterator<Item = Technology>>(all: T) -> Self {
        Self(all.into_iter().fold(0, |bits, it| bits | 1 << it as u8))
    }
}

impl fmt::Display for Technologies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Technology::ALL.into_iter().filter(|it| self.contains(*it));
        f.write_str(&words.map(Technology::word).collect::<Vec<_>>().join(" "))
    }
}

/// Where a modem stands with the networks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RadioRegistration {
    /// With none, and looking for none.
    Idle,
    /// With none, and looking for one.
    Searching,
    /// Refused by the network.
    Denied,
    /// With its own network.
    Home,
    /// With another's network.
    Roaming,
}

impl RadioRegistration {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Idle, Self::Searching, Self::Denied, Self::Home, Self::Roaming];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Searching => "searching",
            Self::Denied => "denied",
            Self::Home => "home",
            Self::Roaming => "roaming",
        }
    }

    /// The registration of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }
}

impl fmt::Display for RadioRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What is known of a link's radio; `None` for what is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Radio {
    /// Signal strength in dBm.
    pub signal: Option<i16>,
    /// Where it stands with the networks around it.
    pub registration: Option<RadioRegistration>,
    /// By what it reaches its network.
    pub technology: Option<Technology>,
}

impl Radio {
    /// Whether it is known to be with another's network.
    pub fn roams(&self) -> bool {
        self.registration == Some(RadioRegistration::Roaming)
    }
}

/// A place on the earth, in millionths of a degree; north and east are positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// From -90,000,000 to 90,000,000.
    pub latitude: i32,
    /// From -180,000,000 to 180,000,000.
    pub longitude: i32,
}

impl Position {
    /// The place at these degrees; `None` beyond what the earth has.
    pub fn from_degrees(latitude: f64, longitude: f64) -> Option<Self> {
        let millionths = |degrees: f64, most: f64| {
            (degrees.abs() <= most).then(|| (degrees * 1e6).round() as i32)
        };
        let (latitude, longitude) = (millionths(latitude, 90.0)?, millionths(longitude, 180.0)?);
        Some(Self { latitude, longitude })
    }

    /// The place that `48.137154,11.576124` names: degrees north, degrees east.
    pub fn from_words(text: &str) -> Option<Self> {
        let (latitude, longitude) = text.split_once(',')?;
        let degrees = |text: &str| text.trim().parse::<f64>().ok();
        Self::from_degrees(degrees(latitude)?, degrees(longitude)?)
    }

    /// How far it is over the ground, in metres, on an earth that is a sphere: right to half a
    /// percent.
    pub fn metres_to(self, other: Self) -> u32 {
        const RADIUS: f64 = 6_371_008.8;
        let ((north, east), (other_north, other_east)) = (self.degrees(), other.degrees());
        let (from, to) = (north.to_radians(), other_north.to_radians());
        let up = ((to - from) / 2.0).sin().powi(2);
        let along = ((other_east - east).to_radians() / 2.0).sin().powi(2);
        let half = (up + from.cos() * to.cos() * along).sqrt().min(1.0).asin();
        // At most half of the way around: 20,015,115 m.
        (2.0 * RADIUS * half).round() as u32
    }

    /// Latitude and longitude in degrees.
    pub fn degrees(self) -> (f64, f64) {
        (f64::from(self.latitude) / 1e6, f64::from(self.longitude) / 1e6)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (latitude, longitude) = self.degrees();
        write!(f, "{latitude:.6},{longitude:.6}")
    }
}

/// The surroundings of a place, with room at their edge: whoever is in them leaves them further out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Circle {
    /// Its middle.
    pub at: Position,
    /// Who comes as near as this is in, in metres.
    pub enter: u32,
    /// Who is as far as this is out again.
    pub leave: u32,
}

impl Circle {
    /// Whether a vehicle is in it that was, or was not.
    pub fn holds(&self, position: Position, was_in: bool) -> bool {
        let metres = self.at.metres_to(position);
        if was_in { metres < self.leave } else { metres <= self.enter }
    }
}

/// Where facts about a link's radio or about the vehicle come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactSource {
    /// Who tells.
    pub from: FactOrigin,
    /// How often it is asked, of those that are asked.
    pub every: std::time::Duration,
    /// What was told is not known any more after this time without another word.
    pub lost_after: std::time::Duration,
}

/// Who tells facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactOrigin {
    /// ModemManager, of the modem that has the link's interface among its ports, or of the one
    /// with this equipment identifier.
    Modem(Option<String>),
    /// The GPS daemon.
    Gpsd(GpsdPlace),
    /// A program of this name in the directory that the daemon was given.
    Exec(String),
    /// A file of this name there.
    File(String),
}

impl fmt::Display for FactOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Modem(None) => f.write_str("ModemManager"),
            Self::Modem(Some(equipment)) => write!(f, "ModemManager, modem {equipment}"),
            Self::Gpsd(place) => write!(f, "gpsd at {place}"),
            Self::Exec(name) => write!(f, "program {name}"),
            Self::File(name) => write!(f, "file {name}"),
        }
    }
}

/// Where the GPS daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpsdPlace {
    /// At an address and port.
    Tcp(std::net::SocketAddr),
    /// At a socket of this path.
    Unix(std::path::PathBuf),
}

impl fmt::Display for GpsdPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for technology in Technology::ALL {
            assert_eq!(Technology::from_word(technology.word()), Some(technology));
            let one: Technologies = [technology].into_iter().collect();
            for other in Technology::ALL {
                assert_eq!(one.contains(other), one.contains(technology) && other == technology);
            }
        }
        for registration in RadioRegistration::ALL {
            assert_eq!(RadioRegistration::from_word(registration.word()), Some(registration));
        }
        let two: Technologies = [Technology::Nr, Technology::Lte].into_iter().collect();
        assert_eq!(two.to_string(), "lte nr");
    }

    #[test]
    fn distances_over_the_ground() {
        let place = |text| Position::from_words(text).unwrap();
        let cases = [
            ("0,0", "0,0", 0),
            ("0,0", "0,1", 111_195),
            ("0,179.5", "0,-179.5", 111_195),
            ("90,0", "90,137", 0),
            ("90,0", "-90,0", 20_015_115),
            ("48.137154,11.576124", "48.139854,11.576124", 300),
            // Munich to Hamburg, by the great circle.
            ("48.137154,11.576124", "53.550341,10.000654", 612_394),
        ];
        for (from, to, want) in cases {
            for (from, to) in [(from, to), (to, from)] {
                let metres = place(from).metres_to(place(to));
                assert!(
                    metres.abs_diff(want) <= want / 200,
                    "{from} to {to}: {metres}, not {want}"
                );
            }
        }
        for wrong in ["", "48.1", "48.1;11.5", "91,0", "north,east"] {
            assert_eq!(Position::from_words(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn who_is_in_leaves_further_out() {
        let at = Position::from_words("48.137154,11.576124").unwrap();
        let circle = Circle { at, enter: 300, leave: 400 };
        let north = |metres: f64| {
            let (latitude, longitude) = at.degrees();
            Position::from_degrees(latitude + metres / 111_195.0, longitude).unwrap()
        };
        let cases =
            [(0.0, true, true), (295.0, true, true), (350.0, false, true), (405.0, false, false)];
        for (metres, from_outside, from_inside) in cases {
            let found = [false, true].map(|was_in| circle.holds(north(metres), was_in));
            assert_eq!(found, [from_outside, from_inside], "{metres} m");
        }
    }

    #[test]
    fn places_are_on_the_earth() {
        let place = Position::from_degrees(48.137_154, -11.576_124).unwrap();
        assert_eq!((place.latitude, place.longitude), (48_137_154, -11_576_124));
        assert_eq!(place.to_string(), "48.137154,-11.576124");
        for (latitude, longitude) in
            [(90.1, 0.0), (0.0, 180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)]
        {
            assert_eq!(Position::from_degrees(latitude, longitude), None);
        }
    }
}
