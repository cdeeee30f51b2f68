//! `mtun policy …`: one file for each thing that is done with policies.

mod change;
mod check;
mod diff;
mod fmt;
mod history;
mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use mtun_policy::Policy;

pub(super) use self::check::{CheckDocument, TestDocument};
pub(super) use self::fmt::FormatDocument;
pub(super) use self::schema::LanguageDocument;

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::duration;
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::{PolicyAdditionsDocument, PolicyDocument, PolicyHomeDocument};
use crate::control::protocol::PolicySource;
use crate::control::{ControlError, ErrorCode, Request, Response};

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Look for every fault of a file and run its tests; needs no daemon
    Check {
        /// The policy file
        file: PathBuf,
    },
    /// Bring files into the one form, comments kept; needs no daemon
    Fmt {
        /// Only say which files are in another form; the exit code is 1 then
        #[arg(long)]
        check: bool,
        /// The policy files, or files that policies include
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run a file's tests and show each; needs no daemon
    Test {
        /// The policy file
        file: PathBuf,
    },
    /// What a file would change for the rules and the flows there are; nothing is put in force
    Diff(diff::Command),
    /// Have the daemon put a file in force, or refuse it whole
    Apply {
        /// The policy file
        file: PathBuf,
        /// Take it back unless it is confirmed within this time, such as 60s
        #[arg(long, value_parser = duration::parse, value_name = "TIME")]
        confirm: Option<Duration>,
    },
    /// Keep the policy that was applied with --confirm
    Confirm,
    /// Put an earlier policy in force again
    Rollback {
        /// Its number in `mtun policy history` [default: the one before the present]
        entry: Option<u64>,
    },
    /// The last policies that were in force
    History(history::Command),
    /// The policy in force
    Show,
    /// The language: every node, property and diagnostic; needs no daemon
    Schema {
        /// As a page in Markdown
        #[arg(long)]
        markdown: bool,
    },
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
    json: bool,
) -> Result<Answer, ControlError> {
    let page = Page::new(screen);
    match command {
        Command::Check { file } => check::check(file, page),
        Command::Fmt { check, files } => fmt::run(files, *check, page),
        Command::Test { file } => check::test(file, page),
        Command::Diff(command) => diff::run(command, daemon, page),
        Command::Apply { file, confirm } => change::apply(file, *confirm, daemon, page, json),
        Command::Confirm => change::confirm(daemon, page),
        Command::Rollback { entry } => change::rollback(*entry, daemon, page),
        Command::History(command) => history::run(command, daemon, page),
        Command::Show => show(daemon, page),
        Command::Schema { markdown } => Ok(schema::run(*markdown, page)),
    }
}

/// Reads a policy file; all its faults at once.
pub(super) fn load(file: &Path) -> Result<Policy, ControlError> {
    // A file that is not there is a slip of the command line, not a fault of the policy.
    if let Err(error) = std::fs::metadata(file) {
        let message = format!("cannot read {}: {error}", file.display());
        return Err(ControlError::new(ErrorCode::Usage, message));
    }
    Ok(mtun_policy::load(file)?)
}

/// The file as the daemon, which runs in another directory, finds it.
fn source(file: &Path) -> Result<PolicySource, ControlError> {
    let file = std::path::absolute(file).map_err(|error| {
        let message = format!("{} is no path of a file: {error}", file.display());
        ControlError::new(ErrorCode::Usage, message)
    })?;
    Ok(PolicySource::File(file))
}

fn show(daemon: &Daemon, mut page: Page) -> Result<Answer, ControlError> {
    let response = daemon.ask(Request::PolicyShow {})?;
    let Response::Policy(document) = &response else { return Err(unexpected()) };
    describe(document, &mut page);
    Ok(Answer::new(&response, page))
}

fn describe(document: &PolicyDocument, page: &mut Page) {
    let file = document.file.as_ref().map(|file| file.display());
    let mut facts = vec![
        ("policy", Cell::new(&document.name)),
        ("role", Cell::new(document.role)),
        ("file", Cell::or(file, "none: it came over the control socket")),
    ];
    for PolicyHomeDocument { home, route_optimization, returning_home } in &document.homes {
        let start = route_optimization.map_or_else(|| "off".to_owned(), |start| start.to_string());
        let says = format!("{home}: route-optimization {start}, returning-home {returning_home}");
        facts.push(("home", Cell::new(says)));
    }
    for address in &document.correspondent {
        facts.push(("correspondent", Cell::new(address)));
    }
    if let Some(added) = &document.added {
        let PolicyAdditionsDocument { file, mobiles, refused, .. } = added;
        let says = format!(
            "{mobiles} mobiles and {refused} refusals by `mtun agent`, in {}",
            file.display()
        );
        facts.push(("added", Cell::toned(says, Tone::Warning)));
    }
    page.facts(&facts);
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
