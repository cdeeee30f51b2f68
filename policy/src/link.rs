//! What the policy file says of an access link besides its name: when it is usable, what it costs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::radio::{Circle, Technologies};

/// A share of a whole in hundredths of a percent, 0 to 10,000.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ratio(pub u16);

impl Ratio {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// A ratio from whole percent; more than 100 counts as 100.
    pub const fn percent(percent: u16) -> Self {
        Self(if percent > 100 { 10_000 } else { percent * 100 })
    }

    /// This share of `amount`, rounded down.
    pub const fn of(self, amount: u64) -> u64 {
        (amount as u128 * self.0 as u128 / 10_000) as u64
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}%", self.0 / 100),
            part if part % 10 == 0 => write!(f, "{}.{}%", self.0 / 100, part / 10),
            part => write!(f, "{}.{part:02}%", self.0 / 100),
        }
    }
}

/// Two limits with room between them: a link becomes good at `enter`, bad at `leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band<T> {
    /// Good from here on.
    pub enter: T,
    /// Bad from here on.
    pub leave: T,
}

/// `usable { … }`: what makes a link good enough, and for how long it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsableWhen {
    /// Signal strength in dBm; more is better.
    pub signal: Option<Band<i16>>,
    /// Smoothed round trip time; less is better.
    pub rtt: Option<Band<Duration>>,
    /// Jitter; less is better.
    pub jitter: Option<Band<Duration>>,
    /// Loss; less is better.
    pub loss: Option<Band<Ratio>>,
    /// Speed of the vehicle in hundredths of a metre per second; less is better.
    pub speed: Option<Band<u32>>,
    /// Where the vehicle has to be.
    pub near: Option<Circle>,
    /// Whether it may be used while its modem is with another's network.
    pub roaming: bool,
    /// The technologies by which it is good enough; `None` for all.
    pub technologies: Option<Technologies>,
    /// The recover hold: how long a link that was down has to be good before it is used again.
    pub hold_up: Duration,
    /// How long a limit has to be exceeded before the link counts as down. Events (carrier,
    /// care-of address, refusal) do not wait.
    pub hold_down: Duration,
}

impl UsableWhen {
    /// The recover hold of a link whose file says nothing.
    pub const RECOVER_HOLD: Duration = Duration::from_secs(30);
}

impl Default for UsableWhen {
    fn default() -> Self {
        Self {
            signal: None,
            rtt: None,
            jitter: None,
            loss: None,
            speed: None,
            near: None,
            roaming: true,
            technologies: None,
            hold_up: Self::RECOVER_HOLD,
            hold_down: Duration::ZERO,
        }
    }
}

/// What the octets of a link cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Millionths of the currency for 10^9 octets.
    pub micros_per_gigabyte: u64,
    /// The same while its modem is with another's network; `None` for no other price there.
    pub roaming_micros_per_gigabyte: Option<u64>,
    /// The currency, `EUR`.
    pub currency: String,
}

/// How often a quota starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// At local midnight.
    Day,
    /// On the day `starts` of the week, 1 for Monday.
    Week,
    /// On the day `starts` of the month; on the last day of a shorter month.
    Month,
}

/// What happens at the end of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AtLimit {
    /// The link is the last choice of every rule (a soft limit).
    LastResort,
    /// The link is not used any more (a hard limit).
    Stop,
}

/// How many octets a link may carry in a period, both directions, outer headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The octets.
    pub octets: u64,
    /// The period.
    pub per: Period,
    /// The day on which it starts, from 1.
    pub starts: u8,
    /// Where a warning is due.
    pub warn: Ratio,
    /// What happens at the end.
    pub at_limit: AtLimit,
}

/// What a flow needs of its link; absent limits are not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sla {
    /// Its name.
    pub name: String,
    /// Largest smoothed round trip time.
    pub rtt: Option<Duration>,
    /// Largest jitter.
    pub jitter: Option<Duration>,
    /// Largest loss.
    pub loss: Option<Ratio>,
}
