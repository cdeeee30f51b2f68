//! Which policies were in force, and the answers to confirming one and going back.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last policies that were in force, the present one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyHistoryDocument {
    /// At most ten.
    pub entries: Vec<PolicyHistoryEntry>,
    /// The text of the only entry, if one was asked for, without its includes.
    pub text: Option<String>,
}

/// One policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyHistoryEntry {
    /// Its number; rises with every policy that is put in force.
    pub entry: u64,
    /// Its name.
    pub name: String,
    /// The file it was read from; `null` if it came as text.
    pub file: Option<PathBuf>,
    /// When it was put in force, in milliseconds since 1970-01-01 UTC by the machine's clock.
    pub applied_ms: u64,
    /// User id of who asked; `null` for the daemon itself.
    pub uid: Option<u32>,
    /// How it came to be in force.
    pub cause: PolicyCause,
    /// The number of its rules, over all homes.
    pub rules: usize,
    /// What became of it.
    pub state: PolicyEntryState,
    /// Seconds until it is rolled back if nobody confirms it; `null` if it need not be confirmed.
    pub confirm_within_seconds: Option<u64>,
}

/// How a policy came to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyCause {
    /// The daemon started with it.
    Start,
    /// It was applied.
    Apply,
    /// Its successor was taken back by hand.
    Rollback,
    /// Its successor was not confirmed in time.
    Unconfirmed,
}

/// What became of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyEntryState {
    /// It is in force.
    InForce,
    /// It is in force until its time is over, or for good once it is confirmed.
    Unconfirmed,
    /// Another one followed.
    Replaced,
    /// It was taken back, by hand or because nobody confirmed it.
    RolledBack,
}

/// A policy that was confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyConfirmedDocument {
    /// The policy as it stands in the history.
    pub confirmed: PolicyHistoryEntry,
}

/// An earlier policy that was put in force again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyRolledBackDocument {
    /// What is in force, as it stands in the history.
    pub restored: PolicyHistoryEntry,
    /// What was taken back.
    pub taken_back: PolicyHistoryEntry,
    /// The homes' generation from which it counts.
    pub generation: u64,
}
