//! `mtun policy check|test|apply|show`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::{PolicyAppliedDocument, PolicyDocument};
use crate::control::protocol::PolicySource;
use crate::control::{ControlError, ErrorCode, Request, Response};

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Have the daemon put a file in force, or refuse it whole
    Apply {
        /// The policy file
        file: PathBuf,
    },
    /// The policy in force
    Show,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let mut page = Page::new(screen);
    let request = match command {
        Command::Apply { file } => {
            // The daemon runs in another directory.
            let file = std::path::absolute(file).map_err(|error| {
                let message = format!("{} is no path of a file: {error}", file.display());
                ControlError::new(ErrorCode::Usage, message)
            })?;
            Request::PolicyApply { source: PolicySource::File(file) }
        }
        Command::Show => Request::PolicyShow {},
    };
    let response = daemon.ask(request)?;
    match &response {
        Response::PolicyApplied(document) => applied(document, &mut page),
        Response::Policy(document) => show(document, &mut page),
        _ => return Err(unexpected()),
    }
    Ok(Answer::new(&response, page))
}

fn applied(document: &PolicyAppliedDocument, page: &mut Page) {
    let PolicyAppliedDocument { name, rules, tests, generation, changed } = document;
    let effect = match changed {
        true => format!("decisions changed, generation {generation}"),
        false => format!("no decision changed, still generation {generation}"),
    };
    let text = format!("{name} is in force: {rules} rules, {tests} tests passed, {effect}");
    page.sentence(Tone::Good, "policy", &text);
}

fn show(document: &PolicyDocument, page: &mut Page) {
    let file = document.file.as_ref().map(|file| file.display());
    page.facts(&[
        ("policy", Cell::new(&document.name)),
        ("role", Cell::new(document.role)),
        ("file", Cell::or(file, "none: it came over the control socket")),
    ]);
    let rows: Vec<_> = document
        .rules
        .iter()
        .map(|rule| {
            vec![
                Cell::new(&rule.home),
                Cell::new(&rule.name),
                Cell::new(&rule.says),
                Cell::new(format!("{}:{}", rule.file, rule.line)),
            ]
        })
        .collect();
    page.table(
        &["HOME", "RULE", "SAYS", "AT"],
        &rows,
        "no rules: a home agent follows its mobiles",
    );
}
