//! `mtun policy check` and `mtun policy test`.

use std::path::Path;

use mtun_policy::Role;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::screen::{Page, Tone};
use super::super::{Answer, describe_fault, downlink};
use super::load;
use crate::control::documents::{FaultDocument, RuleDownlinkDocument};
use crate::control::{ControlError, ErrorCode};

/// A file without faults, its tests passed.
#[derive(Serialize, JsonSchema)]
pub(in crate::cli) struct CheckDocument {
    kind: &'static str,
    name: String,
    role: Role,
    /// Rules over all homes.
    rules: usize,
    /// Tests; all have passed.
    tests: usize,
    /// What is legal and deserves a look.
    warnings: Vec<FaultDocument>,
    /// What home agents are told of the rules.
    downlink: Vec<RuleDownlinkDocument>,
}

/// The tests of a file.
#[derive(Serialize, JsonSchema)]
pub(in crate::cli) struct TestDocument {
    kind: &'static str,
    name: String,
    passed: usize,
    failed: usize,
    tests: Vec<TestResult>,
}

#[derive(Serialize, JsonSchema)]
struct TestResult {
    name: String,
    file: String,
    line: usize,
    expectations: usize,
    passed: bool,
    failures: Vec<FaultDocument>,
}

pub(super) fn check(file: &Path, mut page: Page) -> Result<Answer, ControlError> {
    let policy = load(file)?;
    mtun_policy::check_tests(&policy)?;
    let rules = policy.homes.iter().map(|home| home.rules.rules.len()).sum();
    let downlink = crate::daemon::preview_downlink(&policy);
    let (name, role, tests) = (policy.name, policy.role, policy.tests.len());
    let warnings: Vec<_> = policy.warnings.into_iter().map(FaultDocument::from).collect();
    for warning in &warnings {
        describe_fault(warning, &mut page);
    }
    let text = format!("{name} ({role}) has no faults: {rules} rules, {tests} tests passed");
    page.sentence(Tone::Good, "policy", &text);
    downlink::rules(&downlink, &mut page);
    Ok(Answer::new(
        &CheckDocument { kind: "policy-check", name, role, rules, tests, warnings, downlink },
        page,
    ))
}

pub(super) fn test(file: &Path, mut page: Page) -> Result<Answer, ControlError> {
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
        describe_fault(fault, &mut page);
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
