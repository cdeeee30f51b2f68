//! A home address and its bindings: what the packet path knows of one mobile at one moment.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtun_policy::{
    Bid, CareOfAddress, Effective, FieldSet, HomeAddress, HomeName, MobileNetworkPrefix, Usable,
};
use smallvec::SmallVec;

use crate::memory::Way;
use crate::settle::is_open;

static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// A number that was never given before.
pub(crate) fn next_stamp() -> u64 {
    NEXT_GENERATION.fetch_add(1, Ordering::Relaxed)
}

/// The way an outer packet leaves: an uplink, or ordinary routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u16);

impl PathId {
    /// Left to the routing table: every path of a home agent. Uplinks have the numbers of their
    /// BIDs, and none of those is zero.
    pub const ROUTED: Self = Self(0);
}

/// One care-of address of one mobile, as far as packets are concerned (RFC 5648 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its number. On a mobile every binding has the BID of its uplink, even if the agent was not
    /// told; at an agent `None` stands for a registration without BID (RFC 6275), of which there
    /// is at most one and then no other.
    pub bid: Option<Bid>,
    /// BID-PRI: the lowest is preferred (RFC 6089 §4.1).
    pub priority: u8,
    /// Where the mobile is.
    pub care_of: CareOfAddress,
    /// How outer packets of this binding leave.
    pub path: PathId,
    /// Whether it may carry packets out: registered and its path in order. A binding that may
    /// not still admits what arrives by it.
    pub usable: bool,
    /// Whether packets can leave by its link outside the tunnel, registered or not.
    pub attached: bool,
    /// Whether its octets cost: no flow stays on it for want of a `failback`.
    pub metered: bool,
    /// Whether this is the home link: its packets leave as they are, with the home address as
    /// their source (RFC 6275 §11.5.5). The care-of address is then the home address.
    pub home_link: bool,
    /// MTU of the outer path in octets; values below 1280 count as 1280.
    pub mtu: u16,
    /// Smoothed round trip time of its path, where measured. A figure for the moment of a move,
    /// not a ground to move: it raises no generation.
    pub rtt: Option<Duration>,
    /// Jitter of that time.
    pub jitter: Option<Duration>,
}

impl Binding {
    /// Whether packets can leave by it: usable, and of a family that can be encapsulated.
    pub fn carries(&self) -> bool {
        self.usable && matches!(self.care_of.0, IpAddr::V6(_))
    }
}

/// Whether copies carry their place in a sequence, by which the other end puts them in order and
/// takes out those that it has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMark {
    /// They do not: both ends of a flow see each packet as often as it arrives.
    #[default]
    Off,
    /// They do: the other end has said that it understands the option.
    On,
}

/// The bindings of one registration: two lie within it, more somewhere else.
pub type Bindings = SmallVec<[Binding; 2]>;

/// One home address, the prefixes that move with it, and where they are at present.
///
/// What every packet reads stands first and in one piece, whether there is one registration or a
/// hundred thousand of which none is near; `benches/downlink.rs` measures packets of ten thousand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Registration {
    /// Rises when decisions may differ. Stamped by
    /// [`BindingTable::with`](crate::BindingTable::with), like `rules` and `consults`; what stands
    /// here before is overwritten.
    pub generation: u64,
    /// The fields of a packet that any of its rules looks at.
    pub consults: FieldSet,
    /// Whether the two ends of its tunnel mark copies. Raises no generation.
    pub copies: CopyMark,
    /// The home agent's address, on both sides; of a mobile that is bound at this node as its
    /// correspondent, our address.
    pub peer: Ipv6Addr,
    /// The care-of addresses. Without any, the home is known and everything to or from it is
    /// dropped: nothing leaks before the first registration.
    pub bindings: Bindings,
    /// The home address.
    pub home_address: HomeAddress,
    /// Rises when the rules of the file are others, whatever they say at present.
    pub rules: u64,
    /// The rules for packets that leave here, as they stand at this moment.
    pub policy: Arc<Effective>,
    /// When it took this shape, on the clock that packets are told the time by. Kept by
    /// [`BindingTable::with`](crate::BindingTable::with) while the generation is.
    pub changed_at: Duration,
    /// Mobile network prefixes; none for a host.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// The home network, for people.
    pub home: HomeName,
}

impl Registration {
    /// A registration that was never in a table, as old as the clock.
    pub fn new(
        home: HomeName,
        home_address: HomeAddress,
        prefixes: Vec<MobileNetworkPrefix>,
        peer: Ipv6Addr,
        bindings: Vec<Binding>,
        policy: Arc<Effective>,
    ) -> Self {
        Self {
            home,
            home_address,
            prefixes,
            peer,
            // One by one: those that fit lie within.
            bindings: bindings.into_iter().collect(),
            policy,
            copies: CopyMark::Off,
            changed_at: Duration::ZERO,
            generation: 0,
            rules: 0,
            consults: FieldSet::NONE,
        }
    }

    /// The binding of this number, whether usable or not.
    pub fn binding(&self, bid: Option<Bid>) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.bid == bid)
    }

    /// The usable binding of the lowest BID-PRI, ties by lowest BID.
    pub fn preferred(&self) -> Option<&Binding> {
        self.bindings
            .iter()
            .filter(|binding| binding.carries())
            .min_by_key(|binding| (binding.priority, binding.bid))
    }

    /// Whether `address` moves with this registration.
    pub fn owns(&self, address: Ipv6Addr) -> bool {
        self.home_address.0 == address || self.prefixes.iter().any(|p| p.contains(address))
    }

    /// Itself, as the version that follows `before` in a table: with the stamps that say which of
    /// the two differences matter.
    pub(crate) fn following(mut self, before: Option<&Self>) -> Self {
        let next = next_stamp;
        match before {
            Some(before) if before.decides_like(&self) => {
                self.generation = before.generation;
                self.changed_at = before.changed_at;
            }
            _ => self.generation = next(),
        }
        self.rules = match before {
            Some(before) if before.policy.table == self.policy.table => before.rules,
            _ => next(),
        };
        self.consults = match before {
            Some(before) if Arc::ptr_eq(&before.policy, &self.policy) => before.consults,
            _ => consulted(&self.policy),
        };
        self
    }

    /// Whether every decision under `other` would be the same as under `self`.
    fn decides_like(&self, other: &Self) -> bool {
        let seen = |b: &Binding| (b.bid, b.priority, b.carries(), b.attached);
        let judged = |r: &Self| {
            let mut bids: Vec<_> = r.bindings.iter().map(seen).collect();
            bids.retain(|(_, _, carries, attached)| *carries || *attached);
            bids.sort_unstable();
            bids
        };
        // Mostly they stand in the same order.
        let in_order = || self.bindings.iter().map(seen).eq(other.bindings.iter().map(seen));
        self.peer == other.peer
            && self.prefixes == other.prefixes
            && (in_order() || judged(self) == judged(other))
            && (Arc::ptr_eq(&self.policy, &other.policy) || self.policy == other.policy)
    }
}

/// The fields that any of these rules looks at.
fn consulted(policy: &Effective) -> FieldSet {
    let steered = policy.overrides.iter().flat_map(|(head, _)| [&head.selectors, &head.exclude]);
    let selectors = steered.flatten();
    selectors.fold(policy.table.fields(), |all, selector| all.union(selector.fields()))
}

/// The bindings as the walk over the rules sees them.
///
/// A binding without BID answers to no rule that names BIDs, yet it may be the preferred one; the
/// stand-in number it then goes by is one that no named binding has.
pub(crate) struct Present<'r>(pub &'r Registration);

impl<'r> Present<'r> {
    /// The binding that the walk chose.
    pub fn chosen(&self, bid: Bid, way: Way) -> Option<&'r Binding> {
        let named = self.0.bindings.iter().find(|b| b.bid == Some(bid) && is_open(b, way));
        named.or_else(|| {
            let unnamed = self.0.bindings.iter().find(|b| b.bid.is_none() && b.carries())?;
            (self.stand_in() == Some(bid)).then_some(unnamed)
        })
    }

    fn stand_in(&self) -> Option<Bid> {
        (1..=u16::MAX)
            .rev()
            .filter_map(Bid::new)
            .find(|bid| self.0.bindings.iter().all(|binding| binding.bid != Some(*bid)))
    }
}

impl Usable for Present<'_> {
    fn usable(&self, bid: Bid) -> bool {
        self.0.bindings.iter().any(|binding| binding.bid == Some(bid) && binding.carries())
    }

    fn preferred(&self) -> Option<Bid> {
        let binding = self.0.preferred()?;
        binding.bid.or_else(|| self.stand_in())
    }

    fn attached(&self, bid: Bid) -> bool {
        self.0.binding(Some(bid)).is_some_and(|binding| binding.attached)
    }
}
