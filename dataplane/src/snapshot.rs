//! What the packet path knows of the world at one moment: who is registered, where, by which rules.
//!
//! A [`Snapshot`] is built once, published behind an `ArcSwap` and never changed. A mobile's
//! binding update list and a home agent's binding cache have the same shape, a [`BindingTable`]:
//! a home address is a mobile network prefix of length 128. The table is cut into shards that
//! versions share, so that one changed registration among a million copies a thousandth of the
//! index and none of the other registrations.
//!
//! The table also stamps generations. A registration's generation rises when what a decision
//! depends on changed (rules, prefixes, the set of usable BIDs and their priorities), and only
//! then: refreshes and moves to another care-of address keep it, so remembered flows stay.
//! Generations are never reused, not even by another registration or another table.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use mtun_policy::{
    Bid, CareOfAddress, Effective, FieldSet, HomeAddress, HomeName, Ingress, MobileNetworkPrefix,
    PrefixTable, Usable,
};

use crate::memory::Way;
use crate::settle::is_open;

/// The way an outer packet leaves: an uplink, or ordinary routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u16);

impl PathId {
    /// Left to the routing table: every path of a home agent.
    pub const ROUTED: Self = Self(u16::MAX);
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

/// One home address, the prefixes that move with it, and where they are at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The home network, for people.
    pub home: HomeName,
    /// The home address.
    pub home_address: HomeAddress,
    /// Mobile network prefixes; none for a host.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// The home agent's address, on both sides.
    pub peer: Ipv6Addr,
    /// The care-of addresses. Without any, the home is known and everything to or from it is
    /// dropped: nothing leaks before the first registration.
    pub bindings: Vec<Binding>,
    /// The rules for packets that leave here, as they stand at this moment.
    pub policy: Arc<Effective>,
    /// When it took this shape, on the clock that packets are told the time by. Kept by
    /// [`BindingTable::with`] while the generation is.
    pub changed_at: Duration,
    /// Rises when decisions may differ. Stamped by [`BindingTable::with`], like those below; what
    /// stands here before is overwritten.
    pub generation: u64,
    /// Rises when the rules of the file are others, whatever they say at present.
    pub rules: u64,
    /// The fields of a packet that any of its rules looks at.
    pub consults: FieldSet,
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
            bindings,
            policy,
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

    /// Whether every decision under `other` would be the same as under `self`.
    fn decides_like(&self, other: &Self) -> bool {
        let judged = |r: &Self| {
            let mut bids: Vec<_> =
                r.bindings.iter().map(|b| (b.bid, b.priority, b.carries(), b.attached)).collect();
            bids.retain(|(_, _, carries, attached)| *carries || *attached);
            bids.sort_unstable();
            bids
        };
        self.peer == other.peer
            && self.prefixes == other.prefixes
            && judged(self) == judged(other)
            && (Arc::ptr_eq(&self.policy, &other.policy) || self.policy == other.policy)
    }
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

/// Cuts of the index. A version copies one cut of a thousandth of the homes, and a thousand
/// pointers.
const SHARDS: usize = 1024;

/// So many prefixes are compared one by one.
const FEW: usize = 8;

type Shard = std::collections::HashMap<Ipv6Addr, Arc<Registration>, ahash::RandomState>;

static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// Registrations by home address and by prefix: the update list or the cache, as packets see it.
#[derive(Clone, Default)]
pub struct BindingTable {
    /// Empty until the first registration.
    shards: Vec<Arc<Shard>>,
    /// Whose each mobile network prefix is.
    prefixes: Arc<PrefixTable<HomeAddress>>,
    /// The same, the longest first, as long as they are few: a mobile has one or two, and to
    /// compare them costs a tenth of a walk down the tree.
    few: Option<Arc<[(Ipv6Net, HomeAddress)]>>,
    hasher: ahash::RandomState,
    len: usize,
}

impl BindingTable {
    /// The registration that `address` belongs to: the home address itself, else the longest
    /// mobile network prefix (RFC 3963 §6.4).
    pub fn lookup(&self, address: IpAddr) -> Option<&Registration> {
        let IpAddr::V6(address) = address else { return None };
        if self.len == 0 {
            return None;
        }
        self.get(HomeAddress(address)).or_else(|| {
            let home_address = match &self.few {
                Some(few) => few.iter().find(|(net, _)| net.contains(&address))?.1,
                None => *self.prefixes.longest_match(address)?.1,
            };
            self.get(home_address)
        })
    }

    /// The registration of exactly this home address.
    pub fn get(&self, home_address: HomeAddress) -> Option<&Registration> {
        let shard = self.shards.get(self.shard_of(home_address))?;
        shard.get(&home_address.0).map(|registration| &**registration)
    }

    /// The next version of the table: with this registration, instead of the one of the same
    /// home address if there is one. What did not change is shared with this version.
    pub fn with(&self, registration: Registration) -> Self {
        let mut next = self.clone();
        next.insert(registration);
        next
    }

    /// Puts a registration into a table that is still being built.
    ///
    /// Prefixes are one tree, copied when they change; so an agent does well to list every mobile
    /// it serves from the start, those that are not registered without bindings.
    pub fn insert(&mut self, mut registration: Registration) {
        let home_address = registration.home_address;
        let before = self.get(home_address);
        let next = || NEXT_GENERATION.fetch_add(1, Ordering::Relaxed);
        match before {
            Some(before) if before.decides_like(&registration) => {
                registration.generation = before.generation;
                registration.changed_at = before.changed_at;
            }
            _ => registration.generation = next(),
        }
        let policy = &registration.policy;
        registration.rules = match before {
            Some(before) if before.policy.table == policy.table => before.rules,
            _ => next(),
        };
        registration.consults = match before {
            Some(before) if Arc::ptr_eq(&before.policy, policy) => before.consults,
            _ => consulted(policy),
        };
        let known = before.map_or_else(Vec::new, |before| before.prefixes.clone());
        if known != registration.prefixes {
            self.move_prefixes(home_address, &known, &registration.prefixes);
        }
        if self.shards.is_empty() {
            let empty = Arc::new(Shard::with_hasher(self.hasher.clone()));
            self.shards = vec![empty; SHARDS];
        }
        let shard = self.shard_of(home_address);
        let held =
            Arc::make_mut(&mut self.shards[shard]).insert(home_address.0, Arc::new(registration));
        self.len += usize::from(held.is_none());
    }

    /// The next version of the table: without this home address.
    pub fn without(&self, home_address: HomeAddress) -> Self {
        let mut next = self.clone();
        if let Some(before) = self.get(home_address) {
            next.move_prefixes(home_address, &before.prefixes, &[]);
            let shard = next.shard_of(home_address);
            Arc::make_mut(&mut next.shards[shard]).remove(&home_address.0);
            next.len -= 1;
        }
        next
    }

    /// Every registration, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.shards.iter().flat_map(|shard| shard.values()).map(|registration| &**registration)
    }

    /// How many home addresses are registered or configured.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn shard_of(&self, home_address: HomeAddress) -> usize {
        // The middle bits: the map inside a shard uses the lowest and the highest.
        (self.hasher.hash_one(home_address.0) >> 32) as usize % SHARDS
    }

    /// A prefix that two homes claim stays with the one that came last, and goes with it.
    fn move_prefixes(
        &mut self,
        home_address: HomeAddress,
        from: &[MobileNetworkPrefix],
        to: &[MobileNetworkPrefix],
    ) {
        if from.is_empty() && to.is_empty() {
            return;
        }
        let prefixes = Arc::make_mut(&mut self.prefixes);
        for prefix in from {
            if prefixes.exact(prefix.net()) == Some(&home_address) {
                prefixes.remove(prefix.net());
            }
        }
        for prefix in to {
            prefixes.insert(prefix.net(), home_address).expect("its type has no host bits");
        }
        self.few = (self.prefixes.len() <= FEW).then(|| {
            let nets = self.prefixes.iter().filter_map(|(net, home_address)| match net {
                IpNet::V6(net) => Some((net, *home_address)),
                IpNet::V4(_) => None,
            });
            let mut nets: Vec<_> = nets.collect();
            nets.sort_unstable_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
            nets.into()
        });
    }
}

/// The fields that any of these rules looks at.
fn consulted(policy: &Effective) -> FieldSet {
    let steered = policy.overrides.iter().flat_map(|(head, _)| [&head.selectors, &head.exclude]);
    let selectors = steered.flatten();
    selectors.fold(policy.table.fields(), |all, selector| all.union(selector.fields()))
}

impl std::fmt::Debug for BindingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Registration> for BindingTable {
    fn from_iter<I: IntoIterator<Item = Registration>>(registrations: I) -> Self {
        let mut table = Self::default();
        registrations.into_iter().for_each(|registration| table.insert(registration));
        table
    }
}

/// Everything a packet's fate depends on, frozen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications; a person can see by it that a change has arrived.
    pub generation: u64,
    /// The binding update list: homes of this node.
    pub updates: BindingTable,
    /// The binding cache: homes that this node serves as their home agent.
    pub cache: BindingTable,
    /// The addresses at which this node takes outer packets: care-of addresses of its uplinks,
    /// registered or not yet, and its home agent addresses.
    pub own: Vec<Ipv6Addr>,
    /// Further sources (`also from=…`): whose rules judge a packet that came by this door and has
    /// no home source.
    pub also: BTreeMap<Ingress, HomeAddress>,
}

impl Snapshot {
    /// Whether outer packets to `address` are for this node.
    pub fn is_own(&self, address: Ipv6Addr) -> bool {
        self.own.contains(&address)
    }
}
