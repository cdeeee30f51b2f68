//! The words for how a link stands: its state, the reason for it, what can speak against it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::terms::ClassName;

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It was never registered.
    #[default]
    Unknown,
    /// In use.
    Up,
    /// In use, though it misses a service level class, or though it should not be in use and is
    /// the last link there is.
    Degraded,
    /// Not used.
    Down,
    /// Good again, and not used before it has been good for its recover hold.
    Recovering {
        /// When that is over.
        until: Duration,
    },
}

impl LinkState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Recovering { .. } => "recovering",
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What speaks against a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No carrier, or no care-of address.
    Detached,
    /// Its Binding Update was refused.
    Refused,
    /// Its binding lapsed or was taken back.
    NoBinding,
    /// Its modem is with another's network, which `usable` forbids.
    Roaming,
    /// Two probes were lost, then all of a burst of five, and nothing was heard meanwhile.
    ProbesLost,
    /// A figure is beyond its `usable` limit.
    Beyond(Figure),
    /// Its access technology is none that `usable` names.
    Technology,
}

impl Cause {
    /// Whether nothing is sent by a link of which this is true: no rule about the last link
    /// helps.
    pub(super) fn is_event(self) -> bool {
        matches!(self, Self::Detached | Self::Refused | Self::NoBinding | Self::Roaming)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detached => f.write_str("no carrier or no care-of address"),
            Self::Refused => f.write_str("the agent refused its binding"),
            Self::NoBinding => f.write_str("its binding is gone"),
            Self::Roaming => f.write_str("it roams, which its policy forbids"),
            Self::ProbesLost => f.write_str("two probes and a burst of five were lost"),
            Self::Beyond(figure) => write!(f, "{figure} is beyond its limit"),
            Self::Technology => {
                f.write_str("its access technology is none of those that are good enough")
            }
        }
    }
}

/// What `usable { … }` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Signal strength.
    Signal,
    /// Smoothed round trip time.
    Rtt,
    /// Jitter.
    Jitter,
    /// Loss.
    Loss,
    /// Speed of the vehicle.
    Speed,
    /// How far the vehicle is from a place.
    Distance,
}

impl Figure {
    pub(super) const ALL: [Self; 6] =
        [Self::Signal, Self::Rtt, Self::Jitter, Self::Loss, Self::Speed, Self::Distance];

    /// Whether it is measured of a path: another care-of address is another path.
    pub(super) fn is_of_path(self) -> bool {
        matches!(self, Self::Rtt | Self::Jitter | Self::Loss)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal => "signal",
            Self::Rtt => "rtt",
            Self::Jitter => "jitter",
            Self::Loss => "loss",
            Self::Speed => "the vehicle's speed",
            Self::Distance => "the vehicle's distance",
        })
    }
}

/// Why a link is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkReason {
    /// No binding was acknowledged so far.
    NeverRegistered,
    /// Nothing speaks against it.
    Good,
    /// It misses this service level class.
    OutOfClass(ClassName),
    /// A question supposes it.
    Supposed,
    /// This speaks against it.
    Bad(Cause),
    /// This spoke against it until a while ago.
    Holding(Cause),
    /// This speaks against it, or did until a while ago, and it is used all the same: it is the
    /// last link.
    LastLink(Cause),
}

impl fmt::Display for LinkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRegistered => f.write_str("never registered"),
            Self::Good => f.write_str("good"),
            Self::Supposed => f.write_str("supposed"),
            Self::OutOfClass(class) => write!(f, "out of the class `{class}`"),
            Self::Bad(cause) => cause.fmt(f),
            Self::Holding(cause) => write!(f, "good again, held back after: {cause}"),
            Self::LastLink(cause) => write!(f, "used as the last link in spite of: {cause}"),
        }
    }
}
