//! The lines of a subscription to the mobility socket, and the answer to a message that was sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mtun_policy::InterfaceName;
use mtun_signaling::mobility_socket::{MobilityKind, MobilityMessage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::protocol::VERSION;

/// One line of a subscription that is no event of `mtun monitor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionLine {
    /// [`VERSION`] of the documents.
    pub version: u32,
    /// When, in milliseconds since 1970-01-01 UTC by the machine's clock.
    pub time_ms: u64,
    /// The same on the daemon's own clock, which only runs forward: what `expires_ms` counts on.
    pub clock_ms: u64,
    /// What.
    #[serde(flatten)]
    pub body: SubscriptionBody,
}

/// What a line of a subscription says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionBody {
    /// A fact of the present state.
    State(Box<MobilityMessage>),
    /// The present state is complete; what follows happens from here on.
    Present {
        /// How many facts it had.
        facts: u64,
    },
    /// A message of this moment.
    Message(Box<MobilityMessage>),
    /// This client was too slow. The present state follows, in place of what it knew.
    Overflow {
        /// How many messages and events it missed.
        lost: u64,
    },
}

impl SubscriptionLine {
    /// A line about what was `ago` before this moment, at `clock` on the daemon's clock.
    pub fn new(clock: Duration, ago: Duration, body: SubscriptionBody) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.saturating_sub(ago);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { version: VERSION, time_ms: ms(since), clock_ms: ms(clock), body }
    }
}

/// What became of a message that a client sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDocument {
    /// The message.
    pub message: MobilityKind,
    /// What was done, for people.
    pub done: String,
    /// The link that is this connection's from here on, until it ends; `null` if none is.
    #[serde(default)]
    pub claimed: Option<InterfaceName>,
}
