//! Who tells of radios and of the vehicle.

use std::time::Duration;

use super::Reader;
use super::plain::{choice, quantity, text};
use crate::diagnostic::Code;
use crate::radio::{FactOrigin, FactSource, GpsdPlace, Technologies, Technology};
use crate::reader::{Node, Value};
use crate::source::Spanned;
use crate::value::{self, Problem, Read};

/// How often somebody is asked who does not tell by himself.
const EVERY: Duration = Duration::from_secs(5);
/// How often it can be.
const EVERY_AT_LEAST: Duration = Duration::from_secs(1);
/// How long what a radio told is believed.
const RADIO_LOST: Duration = Duration::from_secs(30);
/// How long what is told of the vehicle is: it moves.
const VEHICLE_LOST: Duration = Duration::from_secs(10);
/// Longer is nowhere near the present.
const LONGEST: Duration = Duration::from_secs(3600);

impl Reader<'_> {
    /// `radio modem=… | exec=… | file=… every=… lost-after=…`.
    pub(super) fn radio(&mut self, node: &Node) -> Option<Spanned<FactSource>> {
        self.fact_source(node, &["modem", "exec", "file"], RADIO_LOST)
    }

    /// `vehicle gpsd=… | exec=… | file=… every=… lost-after=…`.
    pub(super) fn vehicle(&mut self, node: &Node) -> Option<Spanned<FactSource>> {
        self.fact_source(node, &["gpsd", "exec", "file"], VEHICLE_LOST)
    }

    fn fact_source(
        &mut self,
        node: &Node,
        kinds: &[&str; 3],
        usual: Duration,
    ) -> Option<Spanned<FactSource>> {
        let (node_name, [own, ..]) = (node.name.value.as_str(), kinds);
        let example = match *own {
            "gpsd" => "gpsd=\"[::1]:2947\"",
            _ => "modem=auto",
        };
        let named: Vec<_> = kinds.iter().filter_map(|kind| node.property(kind)).collect();
        match named[..] {
            [] => {
                self.sink.error(
                    node.name.span,
                    Code::Missing,
                    format!("this `{node_name}` does not say who tells"),
                    format!("write {node_name} {example}, exec=\"name\" or file=\"name\""),
                );
                return None;
            }
            [_, second, ..] => self.sink.error(
                second.span,
                Code::Conflict,
                format!("one `{node_name}` has one source"),
                "keep one of them",
            ),
            [_] => {}
        }
        let from = self
            .property(node, "modem", modem)
            .or_else(|| self.property(node, "gpsd", gpsd))
            .or_else(|| self.property(node, "exec", |value| Ok(FactOrigin::Exec(file(value)?))))
            .or_else(|| self.property(node, "file", |value| Ok(FactOrigin::File(file(value)?))));
        let time = |value: &Value| match quantity(value, "s", value::duration)? {
            time if (EVERY_AT_LEAST..=LONGEST).contains(&time) => Ok(time),
            _ => Err(Problem::new(
                Code::Range,
                "facts are asked for and believed for at least a second and at most an hour",
                "from \"1s\" to \"1h\"",
            )),
        };
        let every = self.property(node, "every", time);
        let lost_after = self.property(node, "lost-after", time);
        let from = from?.value;
        if let (Some(every), FactOrigin::Gpsd(_)) = (&every, &from) {
            self.sink.error(
                every.span,
                Code::Conflict,
                "gpsd tells by itself, as often as the receiver does",
                "remove `every`",
            );
        }
        let asked = every.map_or(EVERY, |every| every.value);
        if let Some(lost) = lost_after.as_ref().filter(|lost| lost.value < asked * 2) {
            self.sink.error(
                lost.span,
                Code::Range,
                format!("what is asked for every {} s would be lost between", asked.as_secs()),
                format!("at least \"{}s\", twice `every`", asked.as_secs() * 2),
            );
        }
        // One answer that fails is no loss.
        let usual = if asked > EVERY { usual.max(asked * 6) } else { usual };
        let lost_after = lost_after.map_or(usual, |lost| lost.value);
        Some(Spanned::new(FactSource { from, every: asked, lost_after }, node.span()))
    }

    /// `technology lte nr`.
    pub(super) fn technologies(&mut self, node: &Node) -> Option<Technologies> {
        let mut good = Vec::new();
        for argument in &node.arguments {
            let read = self.value(argument, |value| {
                let word = text(value)?;
                Technology::from_word(word).ok_or_else(|| generation(word))
            });
            good.push(read?.value);
        }
        (!good.is_empty()).then(|| good.into_iter().collect())
    }
}

/// A word that is no technology; generations have names.
fn generation(word: &str) -> Problem {
    let name = match word.to_ascii_lowercase().as_str() {
        "2g" => "gsm",
        "3g" => "umts",
        "4g" => "lte",
        "5g" => "nr",
        _ => return choice(word, "access technology", &Technology::ALL.map(Technology::word)),
    };
    Problem::new(Code::Value, format!("`{word}` is a generation"), format!("write {name}"))
}

fn modem(value: &Value) -> Read<FactOrigin> {
    let named = match value {
        Value::Integer(number) => number.to_string(),
        other => text(other)?.to_owned(),
    };
    let fits =
        (4..=32).contains(&named.len()) && named.bytes().all(|octet| octet.is_ascii_alphanumeric());
    match named.as_str() {
        "auto" => Ok(FactOrigin::Modem(None)),
        _ if fits => Ok(FactOrigin::Modem(Some(named))),
        _ => Err(Problem::new(
            Code::Value,
            format!("`{}` names no modem", named.chars().take(32).collect::<String>()),
            "write modem=auto, or the equipment identifier that `mmcli -m any` shows",
        )),
    }
}

fn gpsd(value: &Value) -> Read<FactOrigin> {
    let place = text(value)?;
    if place.starts_with('/') && place.len() < 108 {
        return Ok(FactOrigin::Gpsd(GpsdPlace::Unix(place.into())));
    }
    let address = place.parse().map_err(|_| {
        Problem::new(
            Code::Value,
            format!("`{}` is no place of gpsd", place.chars().take(64).collect::<String>()),
            "write an address with a port, gpsd=\"[::1]:2947\", or the path of its socket",
        )
    });
    Ok(FactOrigin::Gpsd(GpsdPlace::Tcp(address?)))
}

/// The name of a program or file in the directory for facts; never a path, so that a policy runs
/// and reads nothing but what was put there.
fn file(value: &Value) -> Read<String> {
    let name = text(value)?;
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    if (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain) {
        return Ok(name.to_owned());
    }
    Err(Problem::new(
        Code::Value,
        format!("`{}` is no name of a program or file", name.chars().take(64).collect::<String>()),
        "a plain name of letters, digits, dots and dashes: it is looked for in the daemon's directory for facts",
    ))
}
