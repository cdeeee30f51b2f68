//! Bindings as plain data, seen from both ends.
//!
//! A binding ties a home address to a care-of address for a while (RFC 6275 §4.1). The mobile
//! keeps the ones it asked for in its [`BindingUpdateList`], the home agent the ones it granted
//! in its [`BindingCache`]. Both are keyed by home address and BID (RFC 5648 §3). Sequence
//! numbers, prefixes and the replay guard belong to the home address and not to the single
//! binding, so the cache has two levels: one entry per home address, holding its bindings.
//!
//! Nothing here judges: what may enter the cache is decided in [`crate::agent`], what enters the
//! list in [`crate::mobile`].

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::ops::Bound;
use std::time::Duration;

use mtun_policy::{
    Bid, CareOfAddress, FlowBinding, HomeAddress, HomeAgentAddress, MobileNetworkPrefix,
};

use crate::flow::{PeerExtensions, RegisteredFlow};
use crate::registration::Phase;
use crate::wire::Status;

/// One care-of address that the home agent accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its number; `None` for a binding made without one (plain RFC 6275).
    pub bid: Option<Bid>,
    /// Where the mobile is.
    pub care_of: CareOfAddress,
    /// BID-PRI, lower is better; 0 when the mobile gave none (RFC 6089 §4.1).
    pub priority: u8,
    /// End of its lifetime, on the monotonic clock.
    pub expires: Duration,
}

impl Binding {
    /// Whether packets would be sent otherwise by `other`: anything but the lifetime differs.
    pub fn differs_in_effect(&self, other: &Self) -> bool {
        (self.bid, self.care_of, self.priority) != (other.bid, other.care_of, other.priority)
    }
}

/// All that a home agent holds for one home address; never without a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingCacheEntry {
    /// The mobile's home address.
    pub home_address: HomeAddress,
    /// Whether it registered as a mobile router (RFC 3963 §4.1).
    pub router: bool,
    /// The prefixes forwarded to it; empty for a mobile node.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// Its bindings, ordered by BID; a binding without a BID is alone.
    pub bindings: Vec<Binding>,
    /// Its flow bindings, by rising FID-PRI; their BIDs need not be registered (RFC 6089 §4.3).
    pub flows: Vec<FlowBinding>,
    /// Whether the downlink follows the last verified uplink within a flow binding: agreed with
    /// the mobile.
    pub reflect: bool,
    /// Whether copies carry a sequence and are removed by the receiver: agreed with the mobile.
    pub copies: bool,
}

impl BindingCacheEntry {
    /// Nothing held for this home address.
    pub fn new(home_address: HomeAddress) -> Self {
        Self {
            home_address,
            router: false,
            prefixes: Vec::new(),
            bindings: Vec::new(),
            flows: Vec::new(),
            reflect: false,
            copies: false,
        }
    }

    /// Takes all that the other one holds, in the memory that it has: to give that back, where it
    /// lies among a million others, costs more than to copy.
    fn become_like(&mut self, other: &Self) {
        let Self { home_address, router, prefixes, bindings, flows, reflect, copies } = other;
        self.home_address = *home_address;
        self.router = *router;
        self.prefixes.clone_from(prefixes);
        self.bindings.clone_from(bindings);
        self.flows.clone_from(flows);
        (self.reflect, self.copies) = (*reflect, *copies);
    }

    /// Whether a flow binding counts: one of its BIDs at least is registered (RFC 6089 §4.3).
    pub fn is_active(&self, flow: &FlowBinding) -> bool {
        flow.bids.iter().any(|bid| self.binding(Some(*bid)).is_some())
    }

    /// The binding with this BID, or the one without any for `None`.
    pub fn binding(&self, bid: Option<Bid>) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.bid == bid)
    }

    /// Whether it holds a binding without a BID, which excludes any other (RFC 5648 §6.2).
    pub fn is_plain(&self) -> bool {
        self.bindings.iter().any(|binding| binding.bid.is_none())
    }

    /// The binding by which the mobile is at home while it is abroad as well (RFC 5648 §5.6.3).
    pub fn home_binding(&self) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.care_of.0 == self.home_address.0)
    }

    /// Whether the mobile is at home while it is abroad as well.
    pub fn is_at_home(&self) -> bool {
        self.home_binding().is_some()
    }

    /// When the first of its bindings ends.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.bindings.iter().map(|binding| binding.expires).min()
    }

    /// Whether packets are treated otherwise than under `other`: anything but lifetimes differs.
    pub fn differs_in_effect(&self, other: &Self) -> bool {
        self.router != other.router
            || self.prefixes != other.prefixes
            || self.flows != other.flows
            || (self.reflect, self.copies) != (other.reflect, other.copies)
            || self.bindings.len() != other.bindings.len()
            || self.bindings.iter().zip(&other.bindings).any(|(a, b)| a.differs_in_effect(b))
    }
}

/// The home agent's bindings (RFC 6275 §9.1, §10.1). No entry ever makes room for another (req
/// HA-15, RFC 6275 §10.3.1): there is one for each mobile that is served, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingCache {
    entries: HashMap<HomeAddress, BindingCacheEntry>,
    /// Those of the entries.
    order: BTreeSet<HomeAddress>,
}

impl BindingCache {
    /// What is held for `home_address`; `None` when it has no binding.
    pub fn get(&self, home_address: HomeAddress) -> Option<&BindingCacheEntry> {
        self.entries.get(&home_address)
    }

    /// All entries, ordered by home address.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &BindingCacheEntry> {
        let entry = |home_address| self.entries.get(home_address);
        self.order.iter().map(move |it| entry(it).expect("every address in order has an entry"))
    }

    /// The entries beyond a home address, in the same order; all for `None`.
    pub fn beyond(
        &self,
        home_address: Option<HomeAddress>,
    ) -> impl Iterator<Item = &BindingCacheEntry> {
        let from = home_address.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).filter_map(|it| self.entries.get(it))
    }

    /// How many home addresses have bindings.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no home address has a binding.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts `entry` in place of what was held, or removes it when it has no binding left.
    pub(crate) fn put(&mut self, entry: BindingCacheEntry) {
        let home_address = entry.home_address;
        if entry.bindings.is_empty() {
            self.entries.remove(&home_address);
            self.order.remove(&home_address);
        } else if let Some(known) = self.entries.get_mut(&home_address) {
            known.become_like(&entry);
        } else {
            self.entries.insert(home_address, entry);
            self.order.insert(home_address);
        }
    }
}

/// One care-of address in a mobile's Binding Update List (RFC 6275 §11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingUpdateListEntry {
    /// The uplink's number. In single care-of address mode it names the uplink, not a binding.
    pub bid: Bid,
    /// The care-of address; the last one known when the uplink is gone, the home address on the
    /// home link.
    pub care_of: CareOfAddress,
    /// Whether the uplink is on the home link.
    pub home_link: bool,
    /// BID-PRI, lower is better.
    pub priority: u8,
    /// How far its registration has come.
    pub phase: Phase,
    /// Until when the agent holds it; `None` while it is not bound.
    pub expires: Option<Duration>,
    /// The last verdict on it.
    pub last_status: Option<Status>,
    /// Binding Updates sent by this uplink since the agent last answered one of them.
    pub retries: u32,
}

impl BindingUpdateListEntry {
    /// Whether packets may go by it: the agent holds it, also where it refused to extend it for
    /// want of room.
    pub fn is_registered(&self) -> bool {
        match self.phase {
            Phase::Bound | Phase::Refreshing | Phase::AtHome => true,
            Phase::Refused => self.expires.is_some(),
            _ => false,
        }
    }
}

/// What a mobile asked one home agent for (RFC 6275 §11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingUpdateList {
    /// The address that is bound.
    pub home_address: HomeAddress,
    /// The agent that is asked.
    pub peer: HomeAgentAddress,
    /// One entry per uplink that is up or still registered, ordered by BID.
    pub entries: Vec<BindingUpdateListEntry>,
    /// The flow bindings that are wanted, by rising FID-PRI.
    pub flows: Vec<RegisteredFlow>,
    /// What is known of the agent beyond RFC 5648.
    pub extensions: PeerExtensions,
}

impl BindingUpdateList {
    /// A list of nothing: nothing was asked for yet.
    pub fn new(home_address: HomeAddress, peer: HomeAgentAddress) -> Self {
        Self {
            home_address,
            peer,
            entries: Vec::new(),
            flows: Vec::new(),
            extensions: PeerExtensions::default(),
        }
    }
}

/// Whether packets can be routed to `address`: global or unique local unicast (RFC 6275 §3.1).
pub(crate) fn is_routable(address: Ipv6Addr) -> bool {
    !(address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some())
}
