//! What steering is told: facts, each at the moment at which it became known.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calendar::LocalTime;
use super::moves::PathFigures;
use super::overrides::Override;
use crate::link::Ratio;
use crate::radio::{Position, Radio};
use crate::terms::{Bid, RuleId};

/// A fact. Facts about a BID that the policy does not have are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The agent acknowledged the binding of this BID; or it lapsed or was taken back.
    Registered {
        /// Which.
        bid: Bid,
        /// Whether there is an acknowledged binding.
        registered: bool,
    },
    /// A Binding Update for this BID was refused (a status of 128 or more for it).
    Refused {
        /// Which.
        bid: Bid,
    },
    /// The link has a carrier and a care-of address; or one of them is gone.
    Attached {
        /// Which.
        bid: Bid,
        /// Whether packets can leave by it.
        attached: bool,
    },
    /// What was measured in a window of 1 s (longer on a standby link that is probed less often).
    Measured {
        /// Which.
        bid: Bid,
        /// The figures.
        measurement: Measurement,
    },
    /// A probe was answered, or its time is over.
    Probed {
        /// Which.
        bid: Bid,
        /// What became of it.
        probe: ProbeResult,
    },
    /// Something authenticated arrived by this link: nobody may call it dead.
    Heard {
        /// Which.
        bid: Bid,
    },
    /// The radio's signal strength, the rest being as it was.
    Signal {
        /// Which.
        bid: Bid,
        /// In dBm.
        dbm: i16,
    },
    /// All that is known of the link's radio; what is not known speaks neither for it nor against
    /// it.
    Radio {
        /// Which.
        bid: Bid,
        /// What is known.
        radio: Radio,
    },
    /// How much of the link's rate is used, smoothed by whoever counts.
    Load {
        /// Which.
        bid: Bid,
        /// Of the rate in the policy file.
        load: Ratio,
    },
    /// Octets that the link carried since the last such fact: all homes, both directions, outer
    /// headers included.
    Carried {
        /// Which.
        bid: Bid,
        /// How many.
        octets: u64,
    },
    /// Octets of further copies that metered links carried for a `duplicate` rule since the last
    /// such fact, outer headers included.
    Copied {
        /// The rule.
        rule: RuleId,
        /// How many.
        octets: u64,
    },
    /// The vehicle's speed in hundredths of a metre per second; `None` if it is not known.
    Speed(Option<u32>),
    /// Where the vehicle is; `None` if that is not known.
    Position(Option<Position>),
    /// Local time. State it at start, after every step of the clock or change of the time zone,
    /// and about once a minute; between statements the monotonic clock carries it on.
    LocalTime(LocalTime),
    /// What an operator wants of a link.
    Admin {
        /// Which.
        bid: Bid,
        /// What.
        admin: Admin,
    },
    /// An operator sends flows by a certain link for a while.
    Steer(Box<Override>),
    /// An operator takes that back.
    Unsteer(RuleId),
}

/// What a window of time showed of a link's path; `None` for what was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// Round trip time, smoothed (RFC 6298 §2), at the end of the window.
    pub rtt: Option<Duration>,
    /// The 95th percentile of the round trip times; for people.
    pub rtt_p95: Option<Duration>,
    /// Jitter, smoothed: the mean deviation of the round trip time.
    pub jitter: Option<Duration>,
    /// The share of probes or packets lost.
    pub loss: Option<Ratio>,
}

impl Measurement {
    /// Takes over what `newer` measured; the rest stays.
    pub(super) fn update(&mut self, newer: &Self) {
        self.rtt = newer.rtt.or(self.rtt);
        self.rtt_p95 = newer.rtt_p95.or(self.rtt_p95);
        self.jitter = newer.jitter.or(self.jitter);
        self.loss = newer.loss.or(self.loss);
    }

    /// What moves between links are judged by.
    pub fn figures(&self) -> PathFigures {
        PathFigures { rtt: self.rtt, jitter: self.jitter }
    }
}

/// What became of a probe.
///
/// The prober sends one probe after the other and says of each whether it was answered. After the
/// second loss in a row steering asks for a burst ([`super::Notice::BurstWanted`]): five
/// probes, 20 ms apart. Only if all of them are lost too, with nothing heard since the first
/// loss, is the link down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeResult {
    /// It was answered.
    Answered,
    /// It was not answered in time.
    Lost,
    /// It was one of a burst and not answered in time.
    LostInBurst,
}

/// What an operator wants of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Admin {
    /// Use it.
    #[default]
    Open,
    /// Let it run empty: it is the last choice of every rule, and flows leave it for any other
    /// link that their rule allows, in a gap.
    Drained,
    /// Do not use it at all, not even as the last link. It stays registered.
    Held,
}

impl Admin {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Drained => "drained",
            Self::Held => "held",
        }
    }
}

impl std::fmt::Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}
