//! `mtun policy apply`, `confirm` and `rollback`.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::super::Answer;
use super::super::daemon::{Daemon, unexpected};
use super::super::duration::seconds;
use super::super::screen::{Page, Tone};
use super::source;
use crate::control::documents::{PolicyAppliedDocument, PolicyHistoryEntry};
use crate::control::{ControlError, Request, Response};

/// Puts a file in force; with `confirm` the daemon takes it back unless somebody confirms it in
/// time. If it is this command that asks somebody, and it dies, the daemon does so at once.
pub(super) fn apply(
    file: &Path,
    confirm: Option<Duration>,
    daemon: &Daemon,
    mut page: Page,
    json: bool,
) -> Result<Answer, ControlError> {
    let confirm_seconds = confirm.map(|time| time.as_secs());
    // With nobody to ask, the verdict comes by another command.
    let detached = json || !stdin().is_terminal() || !stderr().is_terminal();
    let source = source(file)?;
    // Held until somebody has answered: should this command die, the policy is taken back.
    let mut held = daemon.connect()?;
    let response = held.ask(Request::PolicyApply { source, confirm_seconds, detached })?;
    let Response::PolicyApplied(document) = &response else { return Err(unexpected()) };
    applied(document, &mut page);
    let Some(within) = document.confirm_within_seconds else {
        return Ok(Answer::new(&response, page));
    };
    if detached {
        return Ok(Answer::new(&response, page));
    }
    match keep(document, within) {
        Some(true) => self::confirm(daemon, page),
        Some(false) => rollback(None, daemon, page),
        None => {
            page.sentence(Tone::Warning, "policy", "nobody confirmed it; the one before is back");
            Ok(Answer::new(&response, page))
        }
    }
}

fn applied(document: &PolicyAppliedDocument, page: &mut Page) {
    let PolicyAppliedDocument { name, rules, tests, generation, changed, .. } = document;
    let effect = match changed {
        true => format!("decisions changed, generation {generation}"),
        false => format!("no decision changed, still generation {generation}"),
    };
    let text = format!("{name} is in force: {rules} rules, {tests} tests passed, {effect}");
    page.sentence(Tone::Good, "policy", &text);
    if let Some(within) = document.confirm_within_seconds {
        let time = seconds(within);
        page.sentence(
            Tone::Warning,
            "confirm",
            &format!("`mtun policy confirm` within {time}, or the policy before comes back"),
        );
    }
}

/// Asks whether the policy is to stay; `None` if nobody answers in time.
fn keep(document: &PolicyAppliedDocument, within: u64) -> Option<bool> {
    let name = &document.name;
    eprint!("{name} is in force. Keep it? [y/N], within {} ", seconds(within));
    // Nothing can be done about a standard error that is closed.
    let _ = stderr().flush();
    let (answer, answered) = mpsc::channel();
    // Reading cannot be given up, so it is left to a thread that ends with the program.
    std::thread::spawn(move || {
        let mut line = String::new();
        if stdin().read_line(&mut line).is_ok_and(|read| read > 0) {
            // After the time is over nobody listens.
            let _ = answer.send(matches!(line.trim(), "y" | "Y" | "yes"));
        }
    });
    let kept = answered.recv_timeout(Duration::from_secs(within)).ok();
    if kept.is_none() {
        eprintln!();
    }
    kept
}

/// Keeps the policy that waits for it.
pub(super) fn confirm(daemon: &Daemon, mut page: Page) -> Result<Answer, ControlError> {
    let response = daemon.ask(Request::PolicyConfirm {})?;
    let Response::PolicyConfirmed(document) = &response else { return Err(unexpected()) };
    let PolicyHistoryEntry { entry, name, .. } = &document.confirmed;
    page.sentence(Tone::Good, "policy", &format!("{name} (number {entry}) stays in force"));
    Ok(Answer::new(&response, page))
}

/// Puts an earlier policy in force again.
pub(super) fn rollback(
    entry: Option<u64>,
    daemon: &Daemon,
    mut page: Page,
) -> Result<Answer, ControlError> {
    let response = daemon.ask(Request::PolicyRollback { entry })?;
    let Response::PolicyRolledBack(document) = &response else { return Err(unexpected()) };
    let PolicyHistoryEntry { name, .. } = &document.restored;
    let taken = &document.taken_back;
    let text = format!(
        "{name} is in force again, generation {}; {} (number {}) was taken back",
        document.generation, taken.name, taken.entry
    );
    page.sentence(Tone::Good, "policy", &text);
    Ok(Answer::new(&response, page))
}
