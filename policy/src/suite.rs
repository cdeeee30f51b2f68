//! The policy file's own tests.
//!
//! Each expectation is judged by [`Effective::choose`](crate::Effective::choose) over the list
//! that [`suppose`] makes of the home's rules and what stands under `given`: the same walk that
//! packets take.

use serde::Serialize;

use crate::diagnostic::{Code, Diagnostic, Faults, Severity};
use crate::effective::Origin;
use crate::end::{End, Way, head_of};
use crate::key::FlowKey;
use crate::mobility::Optimize;
use crate::policy::Policy;
use crate::steering::{Given, suppose};
use crate::terms::{HomeName, RuleName};

/// A place in a text with the line around it, ready to become a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// How many characters are meant.
    pub length: usize,
    /// The text of the line, or of the part around the place.
    pub source_line: Box<str>,
    /// How many characters of the line stand before `source_line`.
    pub source_offset: u32,
}

impl Place {
    /// A diagnostic at this place.
    pub(crate) fn diagnostic(&self, code: Code, message: String, help: String) -> Diagnostic {
        Diagnostic {
            code,
            severity: Severity::Error,
            message,
            help: Some(help),
            file: self.file.clone(),
            line: self.line,
            column: self.column,
            length: self.length,
            source_line: self.source_line.clone(),
            source_offset: self.source_offset,
        }
    }
}

impl From<Diagnostic> for Place {
    fn from(d: Diagnostic) -> Self {
        Self {
            file: d.file,
            line: d.line,
            column: d.column,
            length: d.length,
            source_line: d.source_line,
            source_offset: d.source_offset,
        }
    }
}

/// `test "…" { … }`.
#[derive(Clone, Debug, Serialize)]
pub struct TestCase {
    /// The sentence.
    pub name: String,
    /// Where it stands.
    pub file: String,
    /// Where it stands, from 1.
    pub line: usize,
    /// The home network whose rules judge the flow.
    pub home: HomeName,
    /// The flow.
    #[serde(skip)]
    pub key: FlowKey,
    /// Whose packet it is.
    pub origin: Origin,
    /// What must come out.
    pub expectations: Vec<Expectation>,
}

/// `expect …`.
#[derive(Clone, Debug, Serialize)]
pub struct Expectation {
    /// Where it stands.
    pub place: Place,
    /// What is supposed under `given`.
    pub given: Given,
    /// The rule that must decide.
    pub rule: Option<RuleName>,
    /// How it must end; `None` if that does not matter.
    pub end: Option<End>,
    /// Whether its packets may go straight to the correspondent; `None` if that does not matter.
    pub optimized: Option<bool>,
}

/// What became of a test.
#[derive(Clone, Debug, Serialize)]
pub struct TestOutcome {
    /// The sentence.
    pub name: String,
    /// Where it stands.
    pub file: String,
    /// Where it stands, from 1.
    pub line: usize,
    /// How many expectations it has.
    pub expectations: usize,
    /// One diagnostic for each expectation that does not hold.
    pub failures: Vec<Diagnostic>,
}

impl TestOutcome {
    /// Whether every expectation holds.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Runs every test of the file.
pub fn run_tests(policy: &Policy) -> Vec<TestOutcome> {
    policy.tests.iter().map(|test| run_test(policy, test)).collect()
}

/// The failed expectations of a file, as faults.
pub fn check_tests(policy: &Policy) -> Result<(), Faults> {
    let failures: Vec<Diagnostic> =
        run_tests(policy).into_iter().flat_map(|outcome| outcome.failures).collect();
    if failures.is_empty() { Ok(()) } else { Err(Faults(failures)) }
}

fn run_test(policy: &Policy, test: &TestCase) -> TestOutcome {
    let failures =
        test.expectations.iter().filter_map(|expect| failure(policy, test, expect)).collect();
    TestOutcome {
        name: test.name.clone(),
        file: test.file.clone(),
        line: test.line,
        expectations: test.expectations.len(),
        failures,
    }
}

fn failure(policy: &Policy, test: &TestCase, expect: &Expectation) -> Option<Diagnostic> {
    let home = policy.home(test.home.as_str())?;
    let supposed = suppose(policy, home, &expect.given);
    let choice = supposed.effective.choose(&test.key, test.origin, &supposed, None);
    let head = head_of(&choice);
    let rule = head.map(|head| head.name.clone());
    let way = Way::of(&choice, &supposed);
    let end = way.end(policy);
    let tunnelled = matches!(way, Way::Tunnel(_) | Way::Copies(_));
    let optimize = home.optimize(&test.key, &supposed.effective, head.map(|head| head.id));
    let optimized = tunnelled && optimize != Optimize::Never;
    let rule_holds = expect.rule.as_ref().is_none_or(|wanted| rule.as_ref() == Some(wanted));
    let end_holds = expect.end.as_ref().is_none_or(|wanted| *wanted == end);
    let optimized_holds = expect.optimized.is_none_or(|wanted| wanted == optimized);
    if rule_holds && end_holds && optimized_holds {
        return None;
    }
    let words = |rule: Option<&RuleName>, end: Option<&End>, optimized: Option<bool>| {
        let rule = rule.map(|rule| format!("rule `{rule}`"));
        let optimized = optimized.map(|it| if it { "optimized" } else { "not optimized" }.into());
        let all = [rule, end.map(End::to_string), optimized];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    let wanted = words(expect.rule.as_ref(), expect.end.as_ref(), expect.optimized);
    let found = words(rule.as_ref(), Some(&end), expect.optimized.map(|_| optimized));
    let found = if rule.is_some() { found } else { format!("no rule, {found}") };
    Some(
        expect.place.diagnostic(
            Code::TestFailed,
            format!("test \"{}\" expects {wanted} and gets {found}", test.name),
            "mend the rules or the test; `mtun explain` shows rule by rule why the flow goes there"
                .to_owned(),
        ),
    )
}
