//! What `mtun policy apply` and `mtun policy show` answer.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use mtun_policy::{
    Diagnostic, HomeName, InterfaceName, ReturningHome, Role, RouteOptimizationStart, RuleName,
    Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyDocument {
    /// Its name.
    pub name: String,
    /// The role it speaks for.
    pub role: Role,
    /// The file it was read from; `null` if it came as text.
    pub file: Option<PathBuf>,
    /// Its text without the includes; `null` if the daemon did not keep it.
    pub text: Option<String>,
    /// Its rules in the order they are tried.
    pub rules: Vec<RuleDocument>,
    /// What each home of a mobile does about its correspondents and on its home link.
    #[serde(default)]
    pub homes: Vec<PolicyHomeDocument>,
    /// The addresses at which it is a correspondent; empty if it is none.
    #[serde(default)]
    pub correspondent: Vec<Ipv6Addr>,
    /// What `mtun agent` added to it; `null` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<PolicyAdditionsDocument>,
}

/// What `mtun agent` added to the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyAdditionsDocument {
    /// Where it is written down.
    pub file: PathBuf,
    /// Mobiles that may register.
    pub mobiles: usize,
    /// Mobiles and bindings that may not for the time being.
    pub refused: usize,
    /// The text.
    pub text: String,
}

/// What a home says besides its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyHomeDocument {
    /// The home network.
    pub home: HomeName,
    /// What starts route optimization; `null` if it is off.
    pub route_optimization: Option<RouteOptimizationStart>,
    /// What is used while a link is on the home link.
    pub returning_home: ReturningHome,
}

/// One rule of the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleDocument {
    /// The home network.
    pub home: HomeName,
    /// Its name, `default` for the last.
    pub name: RuleName,
    /// The file it stands in.
    pub file: String,
    /// The line it begins on, counted from 1.
    pub line: usize,
    /// What it says at this moment, in words, such as `prefer wwan0 wlan0, else any`.
    pub says: String,
    /// The links that it names, in its order.
    #[serde(default)]
    pub links: Vec<InterfaceName>,
    /// Those that only its `otherwise` leads to.
    #[serde(default)]
    pub otherwise: Vec<InterfaceName>,
}

/// A policy that was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyAppliedDocument {
    /// Its name.
    pub name: String,
    /// The number of its rules, over all homes.
    pub rules: usize,
    /// The number of its tests; all have passed.
    pub tests: usize,
    /// The homes' generation from which it counts.
    pub generation: u64,
    /// Whether any decision changed; a changed comment changes none.
    pub changed: bool,
    /// Its number in the history; `null` from daemons that keep none.
    #[serde(default)]
    pub entry: Option<u64>,
    /// Seconds until it is rolled back if nobody confirms it; `null` if it need not be confirmed.
    #[serde(default)]
    pub confirm_within_seconds: Option<u64>,
}

/// One fault of a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultDocument {
    /// The kind of fault, such as `unknown-node`.
    pub code: String,
    /// `error`, or `warning` for what does not keep the policy from being used.
    pub severity: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The length of what is wrong, in characters.
    pub length: usize,
    /// The text of the line; of a long line only the part around the place.
    pub source_line: String,
    /// How many characters of the line stand before `source_line`.
    #[serde(default)]
    pub source_offset: usize,
}

impl From<Diagnostic> for FaultDocument {
    fn from(fault: Diagnostic) -> Self {
        let severity = match fault.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        Self {
            code: fault.code.to_string(),
            severity: severity.to_owned(),
            message: fault.message,
            help: fault.help,
            file: fault.file,
            line: fault.line,
            column: fault.column,
            length: fault.length,
            source_line: fault.source_line.into(),
            source_offset: fault.source_offset as usize,
        }
    }
}
