//! How a walk over the rules ends, in BIDs and in the names of a policy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::effective::{Choice, RuleHead, Usable};
use crate::policy::Policy;
use crate::terms::{Bid, InterfaceName};

/// A way that a flow goes, in BIDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// By this binding, through the tunnel.
    Tunnel(Bid),
    /// A copy by each of these, through the tunnel; two at least, for one is [`Way::Tunnel`].
    Copies(Vec<Bid>),
    /// By this link, outside the tunnel.
    Breakout(Bid),
    /// Refused by a rule.
    Blocked,
    /// Nothing is usable.
    Unreachable,
}

impl Way {
    /// The way of a choice.
    pub fn of(choice: &Choice<'_>, links: &impl Usable) -> Self {
        match choice {
            Choice::Use { bid, .. } => Self::Tunnel(*bid),
            Choice::Copies { links: named, copies, .. } => {
                let usable = named.iter().copied().filter(|bid| links.usable(*bid));
                match usable.take(usize::from(*copies)).collect::<Vec<_>>().as_slice() {
                    [alone] => Self::Tunnel(*alone),
                    bids => Self::Copies(bids.to_vec()),
                }
            }
            Choice::Breakout { bid, .. } => Self::Breakout(*bid),
            Choice::Block { .. } => Self::Blocked,
            Choice::Nothing(_) => Self::Unreachable,
        }
    }

    /// The bindings it goes by.
    pub fn bids(&self) -> &[Bid] {
        match self {
            Self::Tunnel(bid) | Self::Breakout(bid) => std::slice::from_ref(bid),
            Self::Copies(bids) => bids,
            Self::Blocked | Self::Unreachable => &[],
        }
    }

    /// The same in the names of a policy.
    pub fn end(&self, policy: &Policy) -> End {
        let name = |bid: &Bid| {
            let link = policy.interface_of(*bid).map(|link| link.name.clone());
            link.unwrap_or_else(|| InterfaceName::new(format!("bid {bid}")))
        };
        match self {
            Self::Tunnel(bid) => End::Via(name(bid)),
            Self::Copies(bids) => End::Copies(bids.iter().map(name).collect()),
            Self::Breakout(bid) => End::Breakout(name(bid)),
            Self::Blocked => End::Blocked,
            Self::Unreachable => End::Unreachable,
        }
    }
}

/// How a walk over the rules ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// By this link, through the tunnel.
    Via(InterfaceName),
    /// A copy by each of these links, through the tunnel.
    Copies(Vec<InterfaceName>),
    /// By this link, outside the tunnel.
    Breakout(InterfaceName),
    /// Refused by a rule.
    Blocked,
    /// No link is usable.
    Unreachable,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Via(link) => write!(f, "via {link}"),
            Self::Copies(links) => {
                let names: Vec<&str> = links.iter().map(InterfaceName::as_str).collect();
                write!(f, "copies via {}", names.join(" and "))
            }
            Self::Breakout(link) => write!(f, "breakout by {link}"),
            Self::Blocked => f.write_str("blocked"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// The rule behind a choice; the last that matched if nothing was usable.
pub(crate) fn head_of<'e>(choice: &Choice<'e>) -> Option<&'e RuleHead> {
    match choice {
        Choice::Use { rule, .. } | Choice::Nothing(rule) => rule.map(|rule| rule.head),
        Choice::Copies { rule, .. }
        | Choice::Breakout { rule, .. }
        | Choice::Block { rule, .. } => Some(rule.head),
    }
}
