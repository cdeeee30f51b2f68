//! What `mtun link` shows.

use mtun_policy::InterfaceName;
use mtun_policy::steering::Admin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wanted of a link from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkAdminDocument {
    /// The link.
    pub link: InterfaceName,
    /// `open`, `drained` or `held`.
    pub admin: Admin,
    /// What was wanted before.
    pub before: Admin,
    /// The homes' generation from which it counts.
    pub generation: u64,
}
