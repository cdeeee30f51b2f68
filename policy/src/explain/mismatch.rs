//! What kept a rule from matching, and its `when` from being met.

use std::fmt;

use serde::Serialize;

use crate::filter::{net_text, range_text};
use crate::key::{FlowKey, Ingress};
use crate::measure::WEEKDAYS;
use crate::policy::Ingresses;
use crate::selector::{Field, TrafficSelector};
use crate::steering::Moment;
use crate::value::protocol_name;
use crate::verb::{Days, SpeedBound, TimeSpan, When};

/// The first field that kept a `match` line from matching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The field.
    pub field: Field,
    /// What the packet has.
    pub found: String,
    /// What the line wants.
    pub wanted: String,
}

impl Mismatch {
    /// Why a line does not match; `None` if it does.
    pub(super) fn of(line: &TrafficSelector, key: &FlowKey, doors: &Ingresses) -> Option<Self> {
        let field = line.first_failure(key)?;
        let ingress = |ingress: &Ingress| doors.name(*ingress).to_owned();
        let (found, wanted) = match field {
            Field::Source => (key.source.to_string(), few(&line.sources, net_text)),
            Field::Destination => (key.destination.to_string(), few(&line.destinations, net_text)),
            Field::Protocol => {
                (protocol_name(key.protocol), few(&line.protocols, |number| protocol_name(*number)))
            }
            Field::SourcePort => (or_none(key.source_port), few(&line.source_ports, range_text)),
            Field::DestinationPort => {
                (or_none(key.destination_port), few(&line.destination_ports, range_text))
            }
            Field::Dscp => (key.dscp.to_string(), few(&line.dscps, u8::to_string)),
            Field::Ingress => (ingress(&key.ingress), few(&line.ingresses, ingress)),
            Field::FlowLabel => (key.flow_label.to_string(), few(&line.flow_labels, range_text)),
            Field::Spi => (or_none(key.spi), few(&line.spis, range_text)),
            Field::IcmpType => (or_none(key.icmp_type), few(&line.icmp_types, range_text)),
            Field::Uid => (or_none(key.uid), few(&line.uids, range_text)),
        };
        Some(Self { field, found, wanted })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.field.word(), self.found, self.wanted)
    }
}

/// Whether a line matches, or would if one field of the packet were another.
pub(super) fn nearly(line: &TrafficSelector, key: &FlowKey) -> bool {
    fn outside<T: PartialOrd>(ranges: &[std::ops::RangeInclusive<T>], value: Option<T>) -> bool {
        !ranges.is_empty()
            && !value.is_some_and(|value| ranges.iter().any(|range| range.contains(&value)))
    }
    let nets = |nets: &[ipnet::IpNet], address: std::net::IpAddr| {
        !nets.is_empty() && !nets.iter().any(|net| net.contains(&address))
    };
    let fails = [
        nets(&line.sources, key.source),
        nets(&line.destinations, key.destination),
        !line.protocols.is_empty() && !line.protocols.contains(&key.protocol),
        outside(&line.source_ports, key.source_port),
        outside(&line.destination_ports, key.destination_port),
        !line.dscps.is_empty() && !line.dscps.contains(&key.dscp),
        !line.ingresses.is_empty() && !line.ingresses.contains(&key.ingress),
        outside(&line.flow_labels, Some(key.flow_label)),
        outside(&line.spis, key.spi),
        outside(&line.icmp_types, key.icmp_type),
        outside(&line.uids, key.uid),
    ];
    let failing = fails.into_iter().filter(|fails| *fails).count();
    // A line of one field that fails is about other packets altogether.
    failing == 0 || (failing == 1 && line.fields().iter().count() > 1)
}

/// A condition of a `when` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The vehicle's speed.
    Speed,
    /// Where the vehicle is.
    Position,
    /// Local time of day.
    Time,
    /// The day of the week.
    Day,
}

impl Condition {
    fn word(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Position => "position",
            Self::Time => "time",
            Self::Day => "day",
        }
    }
}

/// The first condition of a `when` line that is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmet {
    /// The condition.
    pub condition: Condition,
    /// What is; `None` if that is not known.
    pub found: Option<String>,
    /// What the line wants.
    pub wanted: String,
}

impl Unmet {
    /// Why a line is not met; `None` if it is.
    pub(super) fn of(line: &When, moment: &Moment) -> Option<Self> {
        let met = |part: When| moment.meets(&[part]);
        if let Some(bound) = line.speed
            && !met(When { speed: line.speed, ..When::default() })
        {
            let (sign, limit) = match bound {
                SpeedBound::Below(limit) => ("<", limit),
                SpeedBound::Above(limit) => (">", limit),
            };
            let wanted = format!("{sign} {}", kilometres_per_hour(limit));
            let found = moment.speed.map(kilometres_per_hour);
            return Some(Self { condition: Condition::Speed, found, wanted });
        }
        if let Some(circle) = line.near
            && !met(When { near: line.near, ..When::default() })
        {
            let wanted = format!("within {} of {}", distance(circle.enter), circle.at);
            let found = moment.position.map(|position| {
                format!("{position}, {} away", distance(circle.at.metres_to(position)))
            });
            return Some(Self { condition: Condition::Position, found, wanted });
        }
        if let Some(span) = line.time
            && !met(When { time: line.time, ..When::default() })
        {
            let found = moment.minute.map(time_of_day);
            return Some(Self { condition: Condition::Time, found, wanted: span_text(span) });
        }
        let days = line.days.filter(|_| !met(When { speed: None, near: None, ..line.clone() }))?;
        let found = moment.weekday.map(|day| match days.contains(day) {
            // Of a span over midnight the day on which it began counts.
            true => format!("{}, where it began", weekday((day + 6) % 7)),
            false => weekday(day).to_owned(),
        });
        Some(Self { condition: Condition::Day, found, wanted: days_text(days) })
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { condition, found, wanted } = self;
        match found {
            Some(found) => write!(f, "{} is {found}, not {wanted}", condition.word()),
            None => write!(f, "{} is not known, and {wanted} is wanted", condition.word()),
        }
    }
}

/// Hundredths of a metre a second as people read them.
pub(crate) fn kilometres_per_hour(speed: u32) -> String {
    let tenths = (u64::from(speed) * 36 + 50) / 100;
    match tenths % 10 {
        0 => format!("{} km/h", tenths / 10),
        rest => format!("{}.{rest} km/h", tenths / 10),
    }
}

/// Metres as people read them.
fn distance(metres: u32) -> String {
    match metres {
        0..1000 => format!("{metres} m"),
        _ => format!("{:.1} km", f64::from(metres) / 1000.0),
    }
}

pub(crate) fn time_of_day(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn span_text(span: TimeSpan) -> String {
    format!("{}-{}", time_of_day(span.from), time_of_day(span.until))
}

pub(crate) fn weekday(day: u8) -> &'static str {
    WEEKDAYS.get(usize::from(day)).copied().unwrap_or("no day")
}

fn days_text(days: Days) -> String {
    let named: Vec<u8> = (0..7).filter(|day| days.contains(*day)).collect();
    match named.as_slice() {
        [first, .., last] if usize::from(last - first) + 1 == named.len() => {
            format!("{}-{}", weekday(*first), weekday(*last))
        }
        few => few.iter().map(|day| weekday(*day)).collect::<Vec<_>>().join(","),
    }
}

fn or_none(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// The first four of a list, and how many more there are.
fn few<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    let shown = values.iter().take(4).map(text).collect::<Vec<_>>().join(", ");
    match values.len().saturating_sub(4) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radio::{Circle, Position};

    #[test]
    fn conditions_in_words() {
        let line = When {
            speed: Some(SpeedBound::Below(139)),
            time: Some(TimeSpan { from: 1320, until: 300 }),
            days: Some(Days(0b001_1111)),
            near: None,
        };
        let moment =
            |speed, minute, weekday| Moment { speed, minute, weekday, ..Moment::default() };
        let cases = [
            (moment(Some(2500), Some(1400), Some(0)), Some("speed is 90 km/h, not < 5 km/h")),
            (moment(None, Some(1400), Some(0)), Some("speed is not known, and < 5 km/h is wanted")),
            (moment(Some(0), Some(720), Some(0)), Some("time is 12:00, not 22:00-05:00")),
            (moment(Some(0), Some(1400), Some(5)), Some("day is sat, not mon-fri")),
            (moment(Some(0), Some(60), Some(0)), Some("day is sun, where it began, not mon-fri")),
            (moment(Some(0), Some(60), Some(5)), None),
        ];
        for (moment, want) in cases {
            let found = Unmet::of(&line, &moment).map(|unmet| unmet.to_string());
            assert_eq!(found.as_deref(), want, "{moment:?}");
            assert_eq!(found.is_none(), moment.meets(std::slice::from_ref(&line)), "{moment:?}");
        }
        let at = Position::from_words("48.0,11.0").unwrap();
        let near = When { near: Some(Circle { at, enter: 300, leave: 400 }), ..When::default() };
        let elsewhere = Moment { position: Position::from_words("48.0,11.1"), ..Moment::default() };
        let found = [Moment::default(), elsewhere].map(|moment| {
            Unmet::of(&near, &moment).map(|unmet| unmet.to_string()).unwrap_or_default()
        });
        assert_eq!(
            found,
            [
                "position is not known, and within 300 m of 48.000000,11.000000 is wanted",
                "position is 48.000000,11.100000, 7.4 km away, not within 300 m of 48.000000,11.000000",
            ]
        );
        assert_eq!(days_text(Days(0b110_0001)), "mon,sat,sun");
    }
}
