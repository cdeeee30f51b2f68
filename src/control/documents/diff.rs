//! What `mtun policy diff` shows.

use mtun_policy::{End, HomeName, RuleName};
use serde::{Deserialize, Serialize};

use super::explain::RuleReference;
use super::flows::FlowKeyDocument;

/// What another policy would change; nothing of it is put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiffDocument {
    /// Name of the present policy.
    pub from: String,
    /// Name of the other one.
    pub to: String,
    /// Rules that only the other one has, home by home.
    pub added: Vec<RuleReference>,
    /// Rules that only the present one has.
    pub removed: Vec<RuleReference>,
    /// Rules that both have by name and that mean something else, as the other one has them.
    pub changed: Vec<RuleReference>,
    /// How many rules mean the same in both.
    pub kept: usize,
    /// How many flows were judged.
    pub flows: usize,
    /// How many of them would go another way.
    pub moving: usize,
    /// What those carry, both directions; `null` if no rate is known.
    pub moving_bytes_per_second: Option<u64>,
    /// How many stay on their way, but by another rule.
    pub other_rule: usize,
    /// The flows that would move, by home, rule and way; those that carry most first.
    pub moves: Vec<DiffMoveDocument>,
}

/// Flows that would leave the same way for the same other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffMoveDocument {
    /// The home network.
    pub home: HomeName,
    /// The rule that decides at present; `null` if none does.
    pub rule_before: Option<RuleName>,
    /// The rule that would decide; `null` if none would.
    pub rule: Option<RuleName>,
    /// Their way at present.
    pub from: End,
    /// Their way under the other policy.
    pub to: End,
    /// How many flows.
    pub flows: usize,
    /// What they carry, both directions; `null` if no rate is known.
    pub bytes_per_second: Option<u64>,
    /// The flow that carries most of them.
    pub example: FlowKeyDocument,
}
