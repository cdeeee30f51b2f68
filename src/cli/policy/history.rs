//! `mtun policy history` and `mtun policy history show`.

use clap::{Args, Subcommand};

use super::super::Answer;
use super::super::daemon::{Daemon, unexpected};
use super::super::duration::{moment, seconds};
use super::super::screen::{Cell, Page, Tone};
use crate::control::documents::{PolicyCause, PolicyEntryState, PolicyHistoryEntry};
use crate::control::{ControlError, ErrorCode, Request, Response};

/// The history, or one policy of it.
#[derive(Debug, Args)]
pub(in crate::cli) struct Command {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The text of one of them, as it was applied, without its includes
    Show {
        /// Its number
        entry: u64,
    },
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    mut page: Page,
) -> Result<Answer, ControlError> {
    let entry = command.action.as_ref().map(|Action::Show { entry }| *entry);
    let response = daemon.ask(Request::PolicyHistory { entry })?;
    let Response::PolicyHistory(document) = &response else { return Err(unexpected()) };
    match (entry, &document.text) {
        (None, _) => {
            let rows: Vec<_> = document.entries.iter().map(row).collect();
            let heads = ["NUMBER", "POLICY", "STATE", "RULES", "IN FORCE SINCE", "BY", "FILE"];
            page.table(&heads, &rows, "no policy was ever in force");
        }
        // As it is, so that it can go into a file.
        (Some(_), Some(text)) => text.lines().for_each(|line| page.line(line)),
        (Some(entry), None) => {
            let message = format!("the text of policy {entry} was not kept");
            return Err(ControlError::new(ErrorCode::NotFound, message));
        }
    }
    Ok(Answer::new(&response, page))
}

fn row(entry: &PolicyHistoryEntry) -> Vec<Cell> {
    let state = match (entry.state, entry.confirm_within_seconds) {
        (PolicyEntryState::InForce, _) => Cell::toned("in force", Tone::Good),
        (PolicyEntryState::Unconfirmed, Some(within)) => {
            Cell::toned(format!("to be confirmed within {}", seconds(within)), Tone::Warning)
        }
        (PolicyEntryState::Unconfirmed, None) => Cell::toned("to be confirmed", Tone::Warning),
        (PolicyEntryState::Replaced, _) => Cell::new("replaced"),
        (PolicyEntryState::RolledBack, _) => Cell::toned("taken back", Tone::Bad),
    };
    let who = match entry.uid {
        Some(uid) => format!("user {uid}"),
        None => "the daemon".to_owned(),
    };
    let by = match entry.cause {
        PolicyCause::Start => format!("{who}, at start"),
        PolicyCause::Apply => who,
        PolicyCause::Rollback => format!("{who}, going back"),
        PolicyCause::Unconfirmed => format!("{who}, nobody confirmed its successor"),
    };
    vec![
        Cell::new(entry.entry),
        Cell::new(&entry.name),
        state,
        Cell::new(entry.rules),
        Cell::new(moment(entry.applied_ms)),
        Cell::new(by),
        Cell::or(entry.file.as_ref().map(|file| file.display()), "none: it came as text"),
    ]
}
