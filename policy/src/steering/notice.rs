//! What steering tells of itself: notices for `mtun monitor`, reports for `mtun status`.

use std::time::Duration;

use serde::Serialize;

use super::facts::{Admin, Measurement};
use super::link_state::{LinkReason, LinkState};
use super::overrides::Override;
use super::quota::{QuotaLevel, QuotaReport};
use super::standing::Bar;
use crate::link::Ratio;
use crate::radio::Radio;
use crate::terms::{Bid, ClassName, InterfaceName, RuleName};

/// Something happened that somebody may want to know or act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// A link changed its state, or its reason for it.
    LinkState {
        /// Which.
        bid: Bid,
        /// Its state before.
        from: LinkState,
        /// Its state from here on.
        to: LinkState,
        /// Why.
        reason: LinkReason,
    },
    /// An override is over; its flows go back in a gap.
    OverrideEnded {
        /// Which.
        steer: Box<Override>,
        /// Why.
        end: OverrideEnd,
    },
    /// A quota came to its warning or to its end, or a period began.
    Quota {
        /// Whose.
        bid: Bid,
        /// How near its end it is.
        level: QuotaLevel,
        /// The octets of the period so far.
        octets: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The copies of a `duplicate` rule used up its `cap`: metered links carry none until the
    /// period ends.
    CapReached {
        /// Which rule.
        rule: RuleName,
    },
    /// Two probes in a row were lost: five are wanted at once, 20 ms apart.
    BurstWanted {
        /// Of which link.
        bid: Bid,
    },
}

/// Why an override is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverrideEnd {
    /// Its time came.
    Expired,
    /// An operator took it back.
    TakenBack,
    /// Another has its number.
    Replaced,
    /// The policy has no such link any more.
    NoSuchLink,
}

impl std::fmt::Display for OverrideEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "its time is over",
            Self::TakenBack => "taken back",
            Self::Replaced => "replaced by another",
            Self::NoSuchLink => "the policy has no such link",
        })
    }
}

/// A link and all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkReport {
    /// Its BID.
    pub bid: Bid,
    /// Its name.
    pub interface: InterfaceName,
    /// Its state.
    pub state: LinkState,
    /// Why.
    pub reason: LinkReason,
    /// Since when it is in this state, on the monotonic clock.
    pub since: Duration,
    /// Whether there is an acknowledged binding.
    pub registered: bool,
    /// Whether it has a carrier and a care-of address.
    pub attached: bool,
    /// Whether packets may be sent by it.
    pub usable: bool,
    /// What an operator wants of it.
    pub admin: Admin,
    /// What keeps it from ordinary use besides its state.
    pub bar: Option<Bar>,
    /// Its quota.
    pub quota: Option<QuotaReport>,
    /// The classes that rules name.
    pub classes: Vec<ClassReport>,
    /// What was measured last.
    pub measured: Measurement,
    /// What its radio tells.
    pub radio: Radio,
    /// How much of its rate is used.
    pub load: Option<Ratio>,
    /// How long it has to be good after it was bad.
    pub hold: Duration,
}

/// A service level class and whether a link is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassReport {
    /// The class.
    pub class: ClassName,
    /// Whether the link is in it.
    pub met: bool,
    /// When it is again, if every window until then is good.
    pub back_at: Option<Duration>,
}
