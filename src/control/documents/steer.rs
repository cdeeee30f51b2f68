//! What `mtun steer` and its sub-commands show.

use mtun_policy::{Bid, InterfaceName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One override: flows sent by a link by hand, until a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverrideDocument {
    /// What `mtun steer undo` takes.
    pub id: u16,
    /// The filter as it was typed.
    pub filter: String,
    /// The link.
    pub via: InterfaceName,
    /// The binding of that link.
    pub bid: Bid,
    /// Until it ends, in seconds.
    pub remaining_seconds: u64,
    /// Why, as the person wrote it.
    pub reason: Option<String>,
    /// User id of who asked.
    pub uid: Option<u32>,
}

/// An override that was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SteerDocument {
    /// The override.
    #[serde(rename = "override")]
    pub steered: OverrideDocument,
    /// The homes' generation from which it counts.
    pub generation: u64,
}

/// All overrides in force, the last one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SteerListDocument {
    /// The overrides.
    pub overrides: Vec<OverrideDocument>,
}

/// An override that was ended by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SteerUndoDocument {
    /// The override as it stood.
    pub undone: OverrideDocument,
    /// The homes' generation from which it no longer counts.
    pub generation: u64,
}
