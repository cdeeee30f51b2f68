//! Whether packets may go straight to the other end, past the home agent, and how each binding
//! wraps them.
//!
//! The rules choose the binding, the other end the wrapping: a packet goes by the same binding
//! whether the correspondent holds it or not. So this is looked up for every packet, and a
//! pair that comes or goes changes no remembered decision.
//!
//! | this node | the other end | away | on the home link |
//! |---|---|---|---|
//! | mobile | holds nothing of it | tunnel | plain |
//! | mobile | holds the binding | Home Address option | plain |
//! | mobile | holds nothing, is bound here | tunnel | type 2 routing header |
//! | mobile | holds the binding, is bound here | both headers | type 2 routing header |
//! | correspondent | is bound here | type 2 routing header | type 2 routing header |
//! | home agent | is bound here | tunnel | plain |
//!
//! Standards: RFC 6275 §6.1, §9.3.2, §11.3.1, §11.5.5; RFC 5648 §6.5.

use std::net::{IpAddr, Ipv6Addr};

use mtun_policy::{FlowKey, Optimize, RuleId};

use crate::decide::{Encapsulation, Side};
use crate::pairs::{Held, Pair};
use crate::registration::{Binding, Registration};
use crate::snapshot::Snapshot;
use crate::wire::{ESP, ICMPV6, MOBILITY_HEADER};

/// What is known of a straight way between the ends of one packet, whatever binding it goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Straight<'s> {
    /// Nothing.
    #[default]
    No,
    /// From one of our home addresses.
    Near {
        /// The other end.
        correspondent: Ipv6Addr,
        /// What it holds of our home address, if the rule lets packets go straight.
        held: Option<&'s Held>,
        /// Itself, if it is a mobile that is bound at us.
        far: Option<&'s Registration>,
    },
    /// Our own packet to a mobile that is bound at us.
    Far,
}

/// Why packets that the rules let go straight take the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStraight {
    /// The source is in a mobile network prefix: for those there is no route optimization.
    NotHomeAddress,
    /// Mobility Headers go the way that their own rules say (RFC 6275 §6.1).
    Signalling,
    /// Neighbours are met on a link, under no other address (RFC 6275 §11.3.1).
    NeighbourDiscovery,
    /// It is protected by an Authentication Header that was computed without the option.
    Authenticated,
    /// The rule, or the home if the rule does not say, wants the tunnel.
    Unwanted,
    /// The correspondent holds nothing of this home address.
    NothingHeld,
    /// The correspondent holds other bindings, not the one that the rule chose, or another
    /// care-of address of it.
    OtherBinding,
}

impl NotStraight {
    /// The name used by `mtun`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotHomeAddress => "not-home-address",
            Self::Signalling => "signalling",
            Self::NeighbourDiscovery => "neighbour-discovery",
            Self::Authenticated => "authenticated",
            Self::Unwanted => "unwanted",
            Self::NothingHeld => "nothing-held",
            Self::OtherBinding => "other-binding",
        }
    }
}

impl std::fmt::Display for NotStraight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl<'s> Straight<'s> {
    /// Of a packet from a home of ours; `rule` chose its binding.
    pub fn near(
        snapshot: &'s Snapshot,
        registration: &'s Registration,
        key: &FlowKey,
        rule: Option<RuleId>,
    ) -> Self {
        if snapshot.optimized.is_empty() && snapshot.correspondents.is_empty() {
            return Self::No;
        }
        let Ok(pair) = pair_of(registration, key) else { return Self::No };
        let held = snapshot.optimized.get(&pair);
        let held = held.filter(|_| registration.policy.optimize(rule) != Optimize::Never);
        let far = snapshot.correspondents.get(&pair.turned());
        Self::Near { correspondent: pair.correspondent, held, far }
    }

    /// How a packet is wrapped by this binding; `None` for a care-of address of a family that
    /// cannot be.
    pub fn by(
        &self,
        side: Side,
        registration: &Registration,
        binding: &Binding,
    ) -> Option<Encapsulation> {
        let IpAddr::V6(care_of) = binding.care_of.0 else { return None };
        let peer = registration.peer;
        let home = registration.home_address.0;
        Some(match (side, *self) {
            (Side::Near, Self::Near { correspondent, far, .. }) if binding.home_link => {
                match far.and_then(there) {
                    Some(there) => Encapsulation::Optimized {
                        source: home,
                        destination: there,
                        home_address: None,
                        routing_header: Some(correspondent),
                    },
                    None => Encapsulation::Plain,
                }
            }
            _ if binding.home_link => Encapsulation::Plain,
            (Side::Near, Self::Near { correspondent, held: Some(held), far })
                if held.takes(binding) =>
            {
                let there = far.and_then(there);
                Encapsulation::Optimized {
                    source: care_of,
                    destination: there.unwrap_or(correspondent),
                    home_address: Some(home),
                    routing_header: there.map(|_| correspondent),
                }
            }
            (Side::Near, _) => Encapsulation::Tunnel { source: care_of, destination: peer },
            (Side::Far, Self::Far) => Encapsulation::Optimized {
                source: peer,
                destination: care_of,
                home_address: None,
                routing_header: Some(home),
            },
            (Side::Far, _) => Encapsulation::Tunnel { source: peer, destination: care_of },
        })
    }
}

/// Whether it is a message of neighbour discovery (RFC 4861 §4).
pub(crate) fn is_neighbours(key: &FlowKey) -> bool {
    key.protocol == ICMPV6 && key.icmp_type.is_some_and(|kind| (133..=137).contains(&kind))
}

/// The pair that a packet of one of our homes belongs to, or why it can belong to none.
pub(crate) fn pair_of(registration: &Registration, key: &FlowKey) -> Result<Pair, NotStraight> {
    let home_address = registration.home_address;
    let (IpAddr::V6(source), IpAddr::V6(correspondent)) = (key.source, key.destination) else {
        return Err(NotStraight::NotHomeAddress);
    };
    if source != home_address.0 {
        return Err(NotStraight::NotHomeAddress);
    }
    // req MN-31, R-CN-09.
    if key.protocol == MOBILITY_HEADER {
        return Err(NotStraight::Signalling);
    }
    if is_neighbours(key) {
        return Err(NotStraight::NeighbourDiscovery);
    }
    // The index that is not ESP's is that of an Authentication Header.
    if key.spi.is_some() && key.protocol != ESP {
        return Err(NotStraight::Authenticated);
    }
    Ok(Pair { home_address, correspondent })
}

/// Why a packet that this rule sent by this binding does not go straight; `None` if it does.
pub(crate) fn why_not(
    snapshot: &Snapshot,
    registration: &Registration,
    binding: &Binding,
    key: &FlowKey,
    rule: Option<RuleId>,
) -> Option<NotStraight> {
    let pair = match pair_of(registration, key) {
        Ok(pair) => pair,
        Err(reason) => return Some(reason),
    };
    // req MN-18.
    if registration.policy.optimize(rule) == Optimize::Never {
        return Some(NotStraight::Unwanted);
    }
    match snapshot.optimized.get(&pair) {
        None => Some(NotStraight::NothingHeld),
        Some(held) if held.bindings.is_empty() => Some(NotStraight::NothingHeld),
        Some(held) if !held.takes(binding) => Some(NotStraight::OtherBinding),
        Some(_) => None,
    }
}

/// Where a mobile is that is bound at us: at its preferred care-of address, as there is no choice
/// of its link in the rules for our own.
fn there(far: &Registration) -> Option<Ipv6Addr> {
    match far.preferred()?.care_of.0 {
        IpAddr::V6(care_of) => Some(care_of),
        IpAddr::V4(_) => None,
    }
}
