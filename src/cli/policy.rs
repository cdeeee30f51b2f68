//! `mtun policy check|fmt|test|apply|show`.

mod fmt;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mtun_policy::{Policy, Role};
use serde::Serialize;

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::{FaultDocument, PolicyAppliedDocument, PolicyDocument};
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
        Command::Check { file } => return check(file, page),
        Command::Fmt { check, files } => return fmt::run(files, *check, page),
        Command::Test { file } => return test(file, page),
        Command::Apply { file } => {
            // The daemon runs in another directory.
            let file = std::path::absolute(file).map_err(|error| {
                let message = format!("{} is no path of a file: {error}", file.display());
                ControlError::new(ErrorCode::Usage, message)
            })?;
            Request::PolicyApply { source: PolicySource::File(file), confirm_seconds: None }
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

/// A file without faults, its tests passed.
#[derive(Serialize)]
struct CheckDocument {
    kind: &'static str,
    name: String,
    role: Role,
    /// Rules over all homes.
    rules: usize,
    /// Tests; all have passed.
    tests: usize,
    /// What is legal and deserves a look.
    warnings: Vec<FaultDocument>,
}

/// The tests of a file.
#[derive(Serialize)]
struct TestDocument {
    kind: &'static str,
    name: String,
    passed: usize,
    failed: usize,
    tests: Vec<TestResult>,
}

#[derive(Serialize)]
struct TestResult {
    name: String,
    file: String,
    line: usize,
    expectations: usize,
    passed: bool,
    failures: Vec<FaultDocument>,
}

fn check(file: &Path, mut page: Page) -> Result<Answer, ControlError> {
    let policy = load(file)?;
    mtun_policy::check_tests(&policy)?;
    let rules = policy.homes.iter().map(|home| home.rules.rules.len()).sum();
    let (name, role, tests) = (policy.name, policy.role, policy.tests.len());
    let warnings: Vec<_> = policy.warnings.into_iter().map(FaultDocument::from).collect();
    for warning in &warnings {
        super::describe_fault(warning, &mut page);
    }
    let text = format!("{name} ({role}) has no faults: {rules} rules, {tests} tests passed");
    page.sentence(Tone::Good, "policy", &text);
    Ok(Answer::new(
        &CheckDocument { kind: "policy-check", name, role, rules, tests, warnings },
        page,
    ))
}

fn test(file: &Path, mut page: Page) -> Result<Answer, ControlError> {
    let policy = load(file)?;
    let outcomes = mtun_policy::run_tests(&policy);
    let tests: Vec<TestResult> = outcomes
        .into_iter()
        .map(|outcome| TestResult {
            passed: outcome.passed(),
            name: outcome.name,
            file: outcome.file,
            line: outcome.line,
            expectations: outcome.expectations,
            failures: outcome.failures.into_iter().map(FaultDocument::from).collect(),
        })
        .collect();
    for fault in tests.iter().flat_map(|test| &test.failures) {
        super::describe_fault(fault, &mut page);
    }
    for test in &tests {
        let (tone, word) = if test.passed { (Tone::Good, "passed") } else { (Tone::Bad, "FAILED") };
        page.sentence(tone, word, &format!("{} ({}:{})", test.name, test.file, test.line));
    }
    let passed = tests.iter().filter(|test| test.passed).count();
    let failed = tests.len() - passed;
    page.line(&format!("{passed} passed, {failed} failed"));
    let name = policy.name;
    let document = TestDocument { kind: "policy-test", name, passed, failed, tests };
    let answer = Answer::new(&document, page);
    if failed == 0 {
        return Ok(answer);
    }
    let message = format!("{failed} of {} tests failed", passed + failed);
    Ok(answer.failed(ControlError::new(ErrorCode::PolicyFaults, message)))
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

fn applied(document: &PolicyAppliedDocument, page: &mut Page) {
    let PolicyAppliedDocument { name, rules, tests, generation, changed, .. } = document;
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
