//! Whose packet it is: the registration whose rules are asked, and which end of its tunnel this is.
//!
//! The first step of [`decide`](crate::decide()), by itself so that a packet's registration and what
//! is remembered of its flow can be looked for at the same time.

use std::net::IpAddr;

use mtun_policy::{FlowKey, HomeAddress, Origin};

use crate::decide::Side;
use crate::pairs::Pair;
use crate::registration::Registration;
use crate::snapshot::Snapshot;
use crate::straight::is_neighbours;
use crate::wire::MOBILITY_HEADER;

/// Whose packet it is.
#[derive(Clone, Copy)]
pub(crate) enum Party<'s> {
    /// A registration's.
    Of {
        /// Whose rules are asked.
        registration: &'s Registration,
        /// Which end of its tunnel this is.
        side: Side,
        /// Whether it is its own or a further source's.
        origin: Origin,
        /// Whether the mobile is bound at this node as its correspondent.
        bound: bool,
    },
    /// Both its ends are behind the far end of the same tunnel.
    Hairpin,
    /// None of ours.
    Nobody,
}

impl Party<'_> {
    /// Reads what every packet of a registration reads of it. Whoever does so before taking a lock
    /// waits for those lines and for what is behind the lock at the same time, not one after the
    /// other: at an agent of many mobiles none of them is near.
    pub(crate) fn approach(&self) {
        if let Self::Of { registration, .. } = self {
            let last = registration.bindings.last().map(|binding| binding.mtu);
            std::hint::black_box((registration.generation, last));
        }
    }
}

/// Whose packet this is.
pub(crate) fn party<'s>(snapshot: &'s Snapshot, key: &FlowKey) -> Party<'s> {
    let (side, registration, back) = match snapshot.updates.lookup(key.source) {
        Some(near) => (Side::Near, near, snapshot.updates.lookup(key.destination)),
        None => match snapshot.cache.lookup(key.destination) {
            Some(far) => (Side::Far, far, snapshot.cache.lookup(key.source)),
            None => {
                return match bound(snapshot, key) {
                    Some(registration) => {
                        let (side, origin) = (Side::Far, Origin::Home);
                        Party::Of { registration, side, origin, bound: true }
                    }
                    None => also(snapshot, key),
                };
            }
        },
    };
    if back.is_some_and(|back| back.home_address == registration.home_address) {
        return Party::Hairpin;
    }
    Party::Of { registration, side, origin: Origin::Home, bound: false }
}

/// A packet of our own to a mobile that is bound at us. Mobility Headers and neighbour discovery
/// are no such packets: they go to the home address as if nobody had moved (req R-CN-09, RFC 6275
/// §6.1, §9.3.2).
pub(crate) fn bound<'s>(snapshot: &'s Snapshot, key: &FlowKey) -> Option<&'s Registration> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (key.source, key.destination) else {
        return None;
    };
    if key.protocol == MOBILITY_HEADER || is_neighbours(key) {
        return None;
    }
    let home_address = HomeAddress(destination);
    snapshot.correspondents.get(&Pair { home_address, correspondent: source })
}

/// A further source of one of our homes. What is for that home's own network has come astray.
fn also<'s>(snapshot: &'s Snapshot, key: &FlowKey) -> Party<'s> {
    let home = snapshot.also.get(&key.ingress);
    let Some(registration) = home.and_then(|home| snapshot.updates.get(*home)) else {
        return Party::Nobody;
    };
    if snapshot.updates.lookup(key.destination).is_some() {
        return Party::Hairpin;
    }
    Party::Of { registration, side: Side::Near, origin: Origin::Also, bound: false }
}
