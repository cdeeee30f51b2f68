//! Whether a received packet may enter: the mirror of [`decide`](crate::decide()).
//!
//! It reads the tables that routing reads, backwards. At a home agent the outer source must be a
//! registered care-of address of the mobile that owns the inner source; at a mobile the outer
//! source must be the agent, the outer destination one of our care-of addresses, and the inner
//! destination ours. Whatever else arrives in a tunnel is dropped without an answer: an open
//! decapsulator would let anybody forge anybody.
//!
//! Any registered binding admits, also one that carries nothing out at present: packets that
//! were under way when a path failed still count (RFC 5648 §6.5).
//!
//! What comes straight, past the home agent, is admitted by the tables of route optimization: see
//! [`admit_straight`].
//!
//! Standards: RFC 6275 §9.3.1, §10.4.5, §11.3.3; RFC 3963 §5.5, §6.5; RFC 5648 §6.5, §9.3.1.

use std::net::{IpAddr, Ipv6Addr};

use mtun_policy::{FlowKey, HomeAddress};

use crate::decide::Side;
use crate::pairs::Pair;
use crate::reason::DropReason;
use crate::registration::{Binding, Registration};
use crate::snapshot::Snapshot;

/// The two addresses of an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OuterKey {
    /// Who sent it.
    pub source: IpAddr,
    /// To which of our addresses.
    pub destination: IpAddr,
}

/// A packet that may enter, and by whose right.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'s> {
    /// Whose packet it is.
    pub registration: &'s Registration,
    /// Which end of the tunnel this is.
    pub side: Side,
    /// The binding by which it came: a verified sign of life of that care-of address.
    pub binding: &'s Binding,
}

/// Whether a packet with this outer and this inner header may enter.
///
/// The inner addresses' scope was judged before (see [`Inner::check_scope`]); here it is asked
/// who owns them.
///
/// [`Inner::check_scope`]: crate::Inner::check_scope
pub fn admit<'s>(
    snapshot: &'s Snapshot,
    outer: &OuterKey,
    inner: &FlowKey,
) -> Result<Admitted<'s>, DropReason> {
    let far = snapshot.cache.lookup(inner.source);
    let near = snapshot.updates.lookup(inner.destination);
    match (far, near) {
        (None, None) => Err(DropReason::InnerUnknown),
        (Some(far), None) => from_mobile(snapshot, far, outer, inner),
        (None, Some(near)) => from_agent(snapshot, near, outer, inner),
        (Some(far), Some(near)) => from_mobile(snapshot, far, outer, inner)
            .or_else(|_| from_agent(snapshot, near, outer, inner)),
    }
}

/// req TN-01, TN-02, MC-17, HA-63, HA-64, HA-67, NH-12, NH-15, NH-16, NH-17, NH-21: at the home
/// agent.
fn from_mobile<'s>(
    snapshot: &'s Snapshot,
    registration: &'s Registration,
    outer: &OuterKey,
    inner: &FlowKey,
) -> Result<Admitted<'s>, DropReason> {
    if outer.destination != IpAddr::V6(registration.peer) {
        return Err(DropReason::OuterDestination);
    }
    let binding = registration
        .bindings
        .iter()
        .find(|binding| binding.care_of.0 == outer.source)
        .ok_or(DropReason::NotCareOf)?;
    not_both_ends(registration, snapshot.cache.lookup(inner.destination))?;
    Ok(Admitted { registration, side: Side::Far, binding })
}

/// req TN-01, TN-02, MR-12: at the mobile.
fn from_agent<'s>(
    snapshot: &'s Snapshot,
    registration: &'s Registration,
    outer: &OuterKey,
    inner: &FlowKey,
) -> Result<Admitted<'s>, DropReason> {
    if outer.source != IpAddr::V6(registration.peer) {
        return Err(DropReason::NotHomeAgent);
    }
    let binding = registration
        .bindings
        .iter()
        .find(|binding| binding.care_of.0 == outer.destination)
        .ok_or(DropReason::OuterDestination)?;
    not_both_ends(registration, snapshot.updates.lookup(inner.source))?;
    Ok(Admitted { registration, side: Side::Near, binding })
}

/// req TN-06: a packet from a mobile to itself would go round and round, and one that claims our
/// own source cannot come from outside.
fn not_both_ends(
    registration: &Registration,
    other_end: Option<&Registration>,
) -> Result<(), DropReason> {
    match other_end {
        Some(other) if other.home_address == registration.home_address => Err(DropReason::Hairpin),
        _ => Ok(()),
    }
}

/// The addresses of a packet that came straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StraightKey {
    /// Source address of its IPv6 header.
    pub source: Ipv6Addr,
    /// Destination address of its IPv6 header, one of ours.
    pub destination: Ipv6Addr,
    /// From its Home Address option.
    pub home_address: Option<Ipv6Addr>,
    /// From its type 2 routing header.
    pub routing_header: Option<Ipv6Addr>,
}

/// By whose right a packet that came straight may enter.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmittedStraight<'s> {
    /// Our home address to which its type 2 routing header leads, and the binding by whose care-of
    /// address it came; none if it was sent to the home address itself.
    pub near: Option<(&'s Registration, Option<&'s Binding>)>,
    /// Whose Home Address option it has, and the binding from whose care-of address it came.
    pub far: Option<(&'s Registration, &'s Binding)>,
}

/// Why a packet that came straight may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStraightIn {
    /// Its type 2 routing header names no home address of ours.
    NotOurHome,
    /// Its Home Address option names nobody who is bound to its source.
    UnknownBinding,
    /// Dropped.
    Drop(DropReason),
}

/// Whether a packet with a Home Address option, a type 2 routing header or both may enter.
///
/// A routing header leads from one of our care-of addresses to our home address, whatever is
/// registered at present. An option needs a binding that holds this care-of address, be it the
/// correspondent's or the home agent's (RFC 6275 §9.3.1); of several care-of addresses any will do
/// (RFC 5648 §6.5).
pub fn admit_straight<'s>(
    snapshot: &'s Snapshot,
    key: &StraightKey,
) -> Result<AdmittedStraight<'s>, NotStraightIn> {
    let mut admitted = AdmittedStraight::default();
    if let Some(home) = key.routing_header {
        let near = snapshot.updates.get(HomeAddress(home)).ok_or(NotStraightIn::NotOurHome)?;
        let binding = near.bindings.iter().find(|binding| binding.care_of.0 == key.destination);
        if binding.is_none() && key.destination != home {
            return Err(NotStraightIn::Drop(DropReason::OuterDestination));
        }
        admitted.near = Some((near, binding));
    }
    let Some(home_address) = key.home_address.map(HomeAddress) else { return Ok(admitted) };
    if snapshot.updates.lookup(IpAddr::V6(home_address.0)).is_some() {
        // It claims to be us.
        return Err(NotStraightIn::Drop(DropReason::Hairpin));
    }
    let correspondent = key.routing_header.unwrap_or(key.destination);
    let bound = snapshot.correspondents.get(&Pair { home_address, correspondent });
    let served = snapshot.cache.get(home_address).filter(|served| served.peer == correspondent);
    let far = [bound, served].into_iter().flatten().find_map(|far| {
        let binding = far.bindings.iter().find(|binding| binding.care_of.0 == key.source)?;
        Some((far, binding))
    });
    admitted.far = Some(far.ok_or(NotStraightIn::UnknownBinding)?);
    Ok(admitted)
}
