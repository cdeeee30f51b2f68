//! What sources told of radios and of the vehicle.

use std::fmt;

use mtun_policy::{RadioRegistration, Technology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who tells something, and whether he does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceDocument {
    /// Who, such as `ModemManager` or `file wwan0`.
    pub from: String,
    /// Whether he does.
    pub state: SourceState,
    /// Since he last told something, in seconds; `null` if he never has.
    pub told_seconds: Option<u64>,
    /// After so many seconds without a word what he told is not known any more.
    pub lost_after_seconds: u64,
    /// What is wrong and what to mend; `null` if nothing is.
    pub fault: Option<String>,
}

/// Whether a source tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceState {
    /// It has told nothing so far.
    Waiting,
    /// What it told is believed.
    Telling,
    /// It has told nothing for so long that nothing is known any more.
    Lost,
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Telling => "telling",
            Self::Lost => "lost",
        })
    }
}

/// What is known of a link's radio beside its signal strength.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RadioDocument {
    /// Who tells.
    pub source: SourceDocument,
    /// Where its modem stands with the networks around it; `null` if not known.
    pub registration: Option<RadioRegistration>,
    /// By what it reaches its network; `null` if not known.
    pub technology: Option<Technology>,
}

/// What is known of the vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VehicleDocument {
    /// Who tells.
    pub source: SourceDocument,
    /// Its speed; `null` if not known.
    pub speed_kmh: Option<f64>,
    /// Degrees north; `null` if not known.
    pub latitude: Option<f64>,
    /// Degrees east; `null` if not known.
    pub longitude: Option<f64>,
}
