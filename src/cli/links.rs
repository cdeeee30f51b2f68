//! `mtun links`: the links side by side, with what is known of each.

use super::daemon::{Daemon, unexpected};
use super::duration::{bytes, seconds};
use super::screen::{Cell, Page, Screen, Tone};
use super::{Answer, Exit};
use crate::control::documents::{LinkDocument, LinkState, SourceState};
use crate::control::{ControlError, Request, Response};

pub(super) fn run(daemon: &Daemon, screen: Screen) -> Result<Answer, ControlError> {
    let response = daemon.ask(Request::Overview {})?;
    let Response::Status(document) = &response else { return Err(unexpected()) };
    let heads = [
        "LINK",
        "STATE",
        "FOR",
        "FLAPS",
        "ROUND TRIP",
        "JITTER",
        "LOSS",
        "SIGNAL",
        "PATH",
        "LOAD",
        "QUOTA",
        "CARE-OF ADDRESS",
        "WHY",
    ];
    let rows: Vec<_> = document.links.iter().map(row).collect();
    let mut page = Page::new(screen);
    page.table(&heads, &rows, "no links");
    let down = document.links.iter().any(|link| link.state == LinkState::Down);
    Ok(Answer::new(&response, page).exit(if down { Exit::Degraded } else { Exit::Ok }))
}

fn row(link: &LinkDocument) -> Vec<Cell> {
    let quota = match (&link.quota, link.metered) {
        (Some(quota), _) => {
            format!(
                "{} of {}, {}",
                bytes(quota.used_octets),
                bytes(quota.limit_octets),
                quota.level
            )
        }
        (None, true) => "metered, no limit".to_owned(),
        (None, false) => "not metered".to_owned(),
    };
    vec![
        Cell::new(&link.interface),
        Cell::toned(link.state, tone(link.state)),
        Cell::or(link.since_seconds.map(seconds), "not known"),
        Cell::new(link.flaps),
        round_trips(link),
        Cell::or(link.jitter_ms.map(|ms| format!("{ms:.1} ms")), "not measured"),
        Cell::or(link.loss_ratio.map(|loss| format!("{:.1} %", loss * 100.0)), "not measured"),
        radio(link),
        path(link),
        Cell::or(link.load.map(|load| format!("{} %", load / 100)), "no rate is given"),
        Cell::new(quota),
        match link.home_link {
            true => Cell::new("home link"),
            false => Cell::or(link.care_of, "none"),
        },
        Cell::or(link.reason.as_ref(), "nothing speaks against it"),
    ]
}

/// The smoothed round trip to the agent, what nearly all are within, and that of conversations.
fn round_trips(link: &LinkDocument) -> Cell {
    let within = link.rtt_p95_ms.map(|ms| format!("95 %: {ms:.1} ms"));
    let talk = link.conversation_rtt_ms.map(|ms| format!("TCP: {ms:.1} ms"));
    let more = within.into_iter().chain(talk).collect::<Vec<_>>().join("; ");
    match (link.rtt_ms, more.is_empty()) {
        (Some(ms), true) => Cell::new(format!("{ms:.1} ms")),
        (Some(ms), false) => Cell::new(format!("{ms:.1} ms ({more})")),
        (None, false) => Cell::new(more),
        (None, true) => Cell::or(None::<String>, "not measured yet"),
    }
}

/// What its radio tells.
fn radio(link: &LinkDocument) -> Cell {
    let signal = link.signal_dbm.map(|dbm| format!("{dbm} dBm"));
    let Some(radio) = &link.radio else { return Cell::or(signal, "nobody tells") };
    let mut words: Vec<String> = signal.into_iter().collect();
    words.extend(radio.technology.map(|it| it.to_string()));
    words.extend(radio.registration.map(|it| it.to_string()));
    match (words.is_empty(), radio.source.state) {
        (false, _) => Cell::new(words.join(", ")),
        (true, SourceState::Lost) => Cell::toned("source lost", Tone::Warning),
        (true, _) => Cell::toned("not known", Tone::Warning),
    }
}

/// The largest packet that its path takes, and its interface where that takes more.
fn path(link: &LinkDocument) -> Cell {
    match (&link.path_mtu, link.mtu) {
        (Some(path), Some(mtu)) => Cell::toned(format!("{} of {mtu}", path.octets), Tone::Warning),
        (_, mtu) => Cell::or(mtu, "not known"),
    }
}

/// How good a state is.
pub(super) fn tone(state: LinkState) -> Tone {
    match state {
        LinkState::Up => Tone::Good,
        LinkState::Drained | LinkState::Held | LinkState::Degraded | LinkState::Recovering => {
            Tone::Warning
        }
        LinkState::Down | LinkState::Unknown => Tone::Bad,
    }
}
