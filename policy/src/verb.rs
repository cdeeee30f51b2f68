//! What a rule says: its verb, when it speaks, and how its flows keep to their links.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effective::BlockReply;
use crate::link::Ratio;
use crate::radio::Circle;
use crate::terms::Bid;

/// What a rule does with its packets, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// The first usable link in this order.
    Prefer(Vec<Bid>),
    /// Spread over the links by weight, in 256 buckets.
    Balance(Vec<(Bid, u16)>),
    /// The first link until its load is over `full` of its rate, then new flows to the next.
    Overflow {
        /// The links in order.
        links: Vec<Bid>,
        /// The load that counts as full.
        full: Ratio,
    },
    /// The lowest smoothed round trip time.
    Fastest {
        /// The links.
        links: Vec<Bid>,
        /// By how much a challenger must win, of the present link's time; at least 5 ms.
        margin: Ratio,
    },
    /// The lowest cost among the links that meet the SLA.
    Cheapest {
        /// The links.
        links: Vec<Bid>,
        /// The name of the SLA; `None` asks for nothing.
        sla: Option<String>,
    },
    /// A copy on each of the first `copies` usable links.
    Duplicate {
        /// The links in order.
        links: Vec<Bid>,
        /// How many copies, at least 2.
        copies: u8,
        /// Octets of copies that metered links may carry in a quota period (a month without
        /// quota); obligatory if a link is metered.
        cap: Option<u64>,
    },
    /// Out of the first attached link directly, outside the tunnel.
    Breakout {
        /// The links in order.
        links: Vec<Bid>,
        /// Whether the source becomes the link's own address.
        translate: bool,
    },
    /// Refused.
    Block(BlockReply),
}

impl Verb {
    /// The links it names, in the order of the file.
    pub fn links(&self) -> Vec<Bid> {
        match self {
            Self::Prefer(links)
            | Self::Overflow { links, .. }
            | Self::Fastest { links, .. }
            | Self::Cheapest { links, .. }
            | Self::Duplicate { links, .. }
            | Self::Breakout { links, .. } => links.clone(),
            Self::Balance(weights) => weights.iter().map(|(bid, _)| *bid).collect(),
            Self::Block(_) => Vec::new(),
        }
    }

    /// The word of the policy file.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Prefer(_) => "prefer",
            Self::Balance(_) => "balance",
            Self::Overflow { .. } => "overflow",
            Self::Fastest { .. } => "fastest",
            Self::Cheapest { .. } => "cheapest",
            Self::Duplicate { .. } => "duplicate",
            Self::Breakout { .. } => "breakout",
            Self::Block(_) => "block",
        }
    }
}

/// What is written for the case that nothing is usable, or `when` is unmet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// The next rule is asked.
    #[default]
    NextRule,
    /// Any usable link.
    Any,
    /// Another verb.
    Then(Verb),
}

/// Which flows share one choice of link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Every packet for itself.
    None,
    /// Every flow for itself.
    #[default]
    Flow,
    /// All flows between two addresses.
    Pair,
    /// All flows of one inner address.
    Host,
}

/// `sticky …`: what keeps to a link, and for how long after its last packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sticky {
    /// What keeps to it.
    pub scope: Scope,
    /// How long the choice is remembered without a packet.
    pub lasts: Duration,
}

impl Default for Sticky {
    fn default() -> Self {
        Self { scope: Scope::Flow, lasts: Duration::from_secs(600) }
    }
}

/// When a flow goes back to a link that its rule likes better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailbackMode {
    /// New flows only.
    New,
    /// In a gap between packets, at latest after `move-by`.
    #[default]
    Gap,
    /// With its next packet.
    Now,
    /// Not before its link dies.
    Never,
}

/// `failback …`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failback {
    /// When a flow goes back.
    pub mode: FailbackMode,
    /// How long the better link must have been usable before flows come back to it.
    pub after: Duration,
}

/// One `when` line; its conditions are AND, several lines of a rule are OR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Hash)]
pub struct When {
    /// The vehicle's speed.
    pub speed: Option<SpeedBound>,
    /// Local time of day.
    pub time: Option<TimeSpan>,
    /// Days of the week; of a span over midnight the day on which it began.
    pub days: Option<Days>,
    /// Where the vehicle has to be.
    pub near: Option<Circle>,
}

/// A limit of the vehicle's speed in hundredths of a metre per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpeedBound {
    /// Slower than this.
    Below(u32),
    /// Faster than this.
    Above(u32),
}

/// A part of the day, in minutes since local midnight; `from > until` spans midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TimeSpan {
    /// Its first minute.
    pub from: u16,
    /// The minute after its last.
    pub until: u16,
}

/// Days of the week, bit 0 for Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Days(pub u8);

impl Days {
    /// Whether `weekday` is among them, 0 for Monday.
    pub fn contains(self, weekday: u8) -> bool {
        self.0 >> weekday & 1 != 0
    }
}
