//! From what signaling knows to what packets read: the only translation between the two.
//!
//! A mobile's Binding Update List becomes the registration of its home in `updates`, an agent's
//! Binding Cache one registration per mobile in `cache`. Both are the same shape, because a
//! binding update list and a binding cache are one table read from its two ends. The same two ends
//! has route optimization: what correspondents hold becomes `optimized`, what this node holds as a
//! correspondent `correspondents`. Nothing is judged
//! here; whether a change is one that decisions notice is for the table to say.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_dataplane::{
    Binding, BindingTable, CopyMark, Held, Pair, PathId, Publication, Registration, Snapshot,
};
use mtun_policy::downlink::{AgentDefault, Unmatched};
use mtun_policy::steering::PathFigures;
use mtun_policy::{
    AllowedMobile, Also, Bid, CareOfAddress, Effective, FlowBinding, Home, HomeAddress, HomeName,
    ServedHome,
};
use mtun_signaling::binding::{BindingCacheEntry, BindingUpdateList};
use mtun_signaling::correspondent;

/// The name of what mobiles bound at this node as their correspondent, where a home's is wanted.
pub const CORRESPONDENT: &str = "correspondent";

/// What the daemon knows of an uplink that packets need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathFacts {
    /// Whether steering lets its binding be used.
    pub usable: bool,
    /// Whether a packet can leave by it at this moment.
    pub attached: bool,
    /// Whether its octets cost.
    pub metered: bool,
    /// Largest outer packet in octets.
    pub mtu: u16,
    /// What moves to and from it are judged by.
    pub figures: PathFigures,
}

/// A snapshot that readers hold without locks and one writer replaces.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// An empty snapshot with the homes of this node that have no binding yet, so that what belongs
/// in the tunnel is dropped from the first packet on. `own` are the addresses that take outer
/// packets already.
pub fn initial(
    registrations: impl IntoIterator<Item = Registration>,
    mobile: bool,
    own: Vec<Ipv6Addr>,
) -> Published {
    let table: BindingTable = registrations.into_iter().collect();
    let mut snapshot = Snapshot { own, ..Snapshot::default() };
    match mobile {
        true => snapshot.updates = table,
        false => snapshot.cache = table,
    }
    Arc::new(ArcSwap::from_pointee(snapshot))
}

/// The registration of one home as its mobile sees it.
///
/// `path` tells what is known of the uplink of a BID.
pub fn home(
    home: &Home,
    list: &BindingUpdateList,
    effective: Arc<Effective>,
    path: impl Fn(Bid) -> Option<PathFacts>,
) -> Registration {
    let bindings = list.entries.iter().map(|entry| {
        let facts = path(entry.bid);
        let registered = entry.is_registered();
        Binding {
            bid: Some(entry.bid),
            priority: entry.priority,
            care_of: entry.care_of,
            path: PathId(entry.bid.get()),
            usable: registered && facts.is_some_and(|facts| facts.attached && facts.usable),
            attached: facts.is_some_and(|facts| facts.attached),
            metered: facts.is_some_and(|facts| facts.metered),
            home_link: entry.home_link,
            mtu: facts.map_or(1280, |facts| facts.mtu),
            rtt: facts.and_then(|facts| facts.figures.rtt),
            jitter: facts.and_then(|facts| facts.figures.jitter),
        }
    });
    let registration = Registration::new(
        home.name.clone(),
        home.address,
        home.mobile_networks.iter().map(|network| network.prefix).collect(),
        home.agent.0,
        bindings.collect(),
        effective,
    );
    Registration { copies: marked(list.extensions.copies), ..registration }
}

/// The registration of one home as its agent is known to hold it, by what it acknowledged: what
/// its packets to the mobile are judged by. `flows` are the flow bindings that it holds.
pub fn home_at_agent(
    home: &Home,
    list: &BindingUpdateList,
    flows: &[FlowBinding],
    default: AgentDefault,
) -> Registration {
    let held = list.entries.iter().filter(|entry| entry.expires.is_some());
    let bindings = held.map(|entry| Binding {
        bid: Some(entry.bid),
        priority: entry.priority,
        care_of: entry.care_of,
        path: PathId::ROUTED,
        usable: true,
        attached: true,
        metered: false,
        home_link: entry.home_link,
        mtu: 1280,
        rtt: None,
        jitter: None,
    });
    Registration::new(
        home.name.clone(),
        home.address,
        home.mobile_networks.iter().map(|network| network.prefix).collect(),
        home.agent.0,
        bindings.collect(),
        Arc::new(Effective::of_flow_bindings(flows, default)),
    )
}

/// The rules by which a home agent sends to one mobile: what that told it, and for the rest its
/// own (RFC 6089 §5.3.6).
pub fn downlink(entry: Option<&BindingCacheEntry>, unmatched: Unmatched) -> Effective {
    let flows = entry.map_or(&[][..], |entry| &entry.flows);
    let reflect = entry.is_some_and(|entry| entry.reflect);
    Effective::of_flow_bindings(flows, AgentDefault { unmatched, reflect })
}

/// Whether copies are numbered, as both ends agreed.
fn marked(agreed: bool) -> CopyMark {
    if agreed { CopyMark::On } else { CopyMark::Off }
}

/// The registration of one mobile as its home agent sees it; without bindings while the mobile is
/// not registered. `mtu` tells what the way to a care-of address takes, `home_path` leads to the
/// home link, where there is one.
pub fn mobile(
    served: &ServedHome,
    allowed: &AllowedMobile,
    entry: Option<&BindingCacheEntry>,
    effective: Arc<Effective>,
    mtu: impl Fn(CareOfAddress) -> u16,
    home_path: Option<PathId>,
) -> Registration {
    let bindings = entry.map_or_else(Vec::new, |entry| {
        let binding = |it: &mtun_signaling::binding::Binding| {
            let far = far(it, mtu(it.care_of));
            if it.care_of.0 != entry.home_address.0 {
                return far;
            }
            // A mobile that is at home as well gets its packets there as they are (RFC 5648 §6.3).
            let reachable = home_path.is_some();
            let path = home_path.unwrap_or(far.path);
            Binding { path, usable: reachable, attached: reachable, home_link: true, ..far }
        };
        entry.bindings.iter().map(binding).collect()
    });
    let copies = marked(entry.is_some_and(|entry| entry.copies));
    let registration = Registration::new(
        served.name.clone(),
        allowed.address,
        // An allowed prefix that is not registered is the mobile's all the same: what is for it
        // is dropped here and goes nowhere else.
        entry.map_or_else(|| allowed.prefixes.clone(), |entry| entry.prefixes.clone()),
        served.agent.0,
        bindings,
        effective,
    );
    Registration { copies, ..registration }
}

/// The registration of one mobile at this node as its correspondent.
pub fn bound(
    pair: correspondent::Pair,
    entry: &BindingCacheEntry,
    effective: Arc<Effective>,
    mtu: impl Fn(CareOfAddress) -> u16,
) -> Registration {
    Registration::new(
        HomeName::new(CORRESPONDENT),
        pair.home_address,
        Vec::new(),
        pair.correspondent,
        entry.bindings.iter().map(|it| far(it, mtu(it.care_of))).collect(),
        effective,
    )
}

/// A binding as the far end of its care-of address holds it.
fn far(binding: &mtun_signaling::binding::Binding, mtu: u16) -> Binding {
    Binding {
        bid: binding.bid,
        priority: binding.priority,
        care_of: binding.care_of,
        path: PathId::ROUTED,
        usable: true,
        attached: true,
        metered: false,
        home_link: false,
        mtu,
        rtt: None,
        jitter: None,
    }
}

/// A pair of the packet path as the correspondent's machine names it.
pub fn pair_here(pair: Pair) -> correspondent::Pair {
    correspondent::Pair { correspondent: pair.correspondent, home_address: pair.home_address }
}

/// Publishes what a correspondent holds of a home address. No decision changes with it: the rules
/// choose the binding, this only how its packets are wrapped.
pub fn publish_held(
    published: &impl Publication,
    home_address: HomeAddress,
    correspondent: Ipv6Addr,
    held: Held,
) {
    let pair = Pair { home_address, correspondent };
    published.change(|change| {
        *change.optimized = match held.bindings.is_empty() {
            true => change.optimized.without(&pair),
            false => change.optimized.with(pair, held),
        };
    });
}

/// Publishes what a mobile bound at this node as its correspondent; `None` for nothing any more.
pub fn publish_correspondent(
    published: &impl Publication,
    pair: correspondent::Pair,
    registration: Option<Registration>,
) {
    let pair = Pair { home_address: pair.home_address, correspondent: pair.correspondent };
    published.change(|change| {
        *change.correspondents = match registration {
            Some(registration) => change.correspondents.with(pair, registration),
            None => change.correspondents.without(&pair),
        };
    });
}

/// Publishes a mobile's registration and the doors of its further sources; returns its generation
/// and whether decisions may differ.
pub fn publish_home(
    published: &impl Publication,
    mut registration: Registration,
    also: &[Also],
    own: Vec<Ipv6Addr>,
    now: Duration,
) -> (u64, bool) {
    let home_address = registration.home_address;
    registration.changed_at = now;
    published.change(|change| {
        let generation = |table: &BindingTable| table.get(home_address).map(|it| it.generation);
        let before = generation(change.updates);
        *change.own = own;
        *change.updates = change.updates.with(registration);
        *change.also = also.iter().map(|also| (also.ingress, home_address)).collect();
        let after = generation(change.updates);
        (after.unwrap_or(0), before != after)
    })
}

/// The snapshot that packets would read with another registration of a home; nothing is published.
pub fn supposed(
    present: &Snapshot,
    mut registration: Registration,
    also: &[Also],
    now: Duration,
) -> Snapshot {
    let home_address = registration.home_address;
    registration.changed_at = now;
    let mut other = present.clone();
    other.updates = other.updates.with(registration);
    other.also = also.iter().map(|also| (also.ingress, home_address)).collect();
    other
}

/// Publishes one mobile's registration at its agent, before the acknowledgement leaves: one store,
/// so that no packet takes the old way beside the new one (req HA-60, NH-14; RFC 6275 §10.4.2, RFC
/// 3963 §6.4). What has no meaning beyond its link is nobody's home address and lies in no prefix
/// (req HA-61). `now` is when it changed, if decisions may
/// differ; returns its generation and whether they may.
pub fn publish_mobile(
    published: &impl Publication,
    registration: Registration,
    own: Vec<Ipv6Addr>,
    now: Duration,
) -> (u64, bool) {
    published.change(|change| {
        *change.own = own;
        change.bind(Registration { changed_at: now, ..registration })
    })
}

/// Publishes many mobiles' registrations as one change, which costs less than as many changes;
/// returns the highest of their generations.
pub fn publish_mobiles(
    published: &impl Publication,
    registrations: impl IntoIterator<Item = Registration>,
    own: Vec<Ipv6Addr>,
    now: Duration,
) -> u64 {
    published.change(|change| {
        *change.own = own;
        let stamped = registrations.into_iter().map(|it| Registration { changed_at: now, ..it });
        stamped.map(|it| change.bind(it).0).max().unwrap_or(0)
    })
}

/// Publishes that a home address is nobody's any more.
pub fn withdraw_mobile(
    published: &impl Publication,
    home_address: HomeAddress,
    own: Vec<Ipv6Addr>,
) {
    published.change(|change| {
        *change.own = own;
        change.withdraw(home_address);
    });
}

/// The IPv6 care-of addresses among these.
pub fn ipv6(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Ipv6Addr> {
    let v6 = |address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    addresses.into_iter().filter_map(v6).collect()
}
