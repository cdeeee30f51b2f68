//! `mtun steer … via … --for …`, `mtun steer list`, `mtun steer undo`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::duration::{self, seconds};
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::OverrideDocument;
use crate::control::{ControlError, ErrorCode, Request, Response};

/// An override, or what to do with those in force.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Example: mtun steer 'proto tcp and dport 22' via wwan0 --for 10m")]
pub(super) struct Command {
    #[command(subcommand)]
    action: Option<Action>,
    /// Which flows, the word `via`, and the link
    #[arg(required = true, value_name = "FILTER via LINK")]
    words: Vec<String>,
    /// For how long: 90s, 10m, 2h
    #[arg(long = "for", required = true, value_parser = duration::parse, value_name = "TIME")]
    lifetime: Option<Duration>,
    /// Why, for those who wonder later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The overrides in force
    List,
    /// End an override now
    Undo {
        /// Its number in `mtun steer list`
        id: u16,
    },
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let mut page = Page::new(screen);
    let request = match &command.action {
        Some(Action::List) => Request::SteerList {},
        Some(Action::Undo { id }) => Request::SteerUndo { id: *id },
        None => request(command)?,
    };
    let response = daemon.ask(request)?;
    match &response {
        Response::SteerList(document) => overrides(&document.overrides, &mut page),
        Response::Steer(document) => {
            let OverrideDocument { id, filter, via, remaining_seconds, .. } = &document.steered;
            let time = seconds(*remaining_seconds);
            page.sentence(
                Tone::Good,
                &format!("override {id}"),
                &format!("'{filter}' via {via} for {time}; `mtun steer undo {id}` ends it"),
            );
        }
        Response::SteerUndo(document) => {
            let OverrideDocument { id, filter, via, .. } = &document.undone;
            let text = format!("'{filter}' via {via} is undone; the rules decide again");
            page.sentence(Tone::Good, &format!("override {id}"), &text);
        }
        _ => return Err(unexpected()),
    }
    Ok(Answer::new(&response, page))
}

fn request(command: &Command) -> Result<Request, ControlError> {
    let usage = || {
        ControlError::new(ErrorCode::Usage, "the words do not end with `via LINK`")
            .help("mtun steer 'proto tcp and dport 22' via wwan0 --for 10m")
    };
    let words = command.words.join(" ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let [filter @ .., "via", link] = words.as_slice() else { return Err(usage()) };
    let lifetime = command.lifetime.ok_or_else(usage)?;
    if filter.is_empty() {
        return Err(usage());
    }
    Ok(Request::Steer {
        filter: filter.join(" "),
        via: (*link).to_owned(),
        seconds: lifetime.as_secs(),
        reason: command.reason.clone(),
    })
}

/// The overrides in force.
pub(super) fn overrides(overrides: &[OverrideDocument], page: &mut Page) {
    let heads = ["OVERRIDE", "FLOWS", "VIA", "STILL FOR", "REASON"];
    let rows: Vec<_> = overrides
        .iter()
        .map(|entry| {
            vec![
                Cell::new(entry.id),
                Cell::new(&entry.filter),
                Cell::new(format!("{} (BID {})", entry.via, entry.bid)),
                Cell::new(seconds(entry.remaining_seconds)),
                Cell::or(entry.reason.as_ref(), "none given"),
            ]
        })
        .collect();
    page.table(&heads, &rows, "no overrides: the rules decide everything");
}
