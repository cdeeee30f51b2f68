//! What the packet path knows of the world at one moment: who is registered, where, by which rules.
//!
//! A [`Snapshot`] is built once, published behind an `ArcSwap` and never changed. A mobile's
//! binding update list and a home agent's binding cache have the same shape, a [`BindingTable`]:
//! a home address is a mobile network prefix of length 128. Beside them stand the two tables of
//! route optimization, by pairs of a home address and a correspondent.
//!
//! The table also stamps generations. A registration's generation rises when what a decision
//! depends on changed (rules, prefixes, the set of usable BIDs and their priorities), and only
//! then: refreshes and moves to another care-of address keep it, so remembered flows stay.
//! Generations are never reused, not even by another registration or another table.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use mtun_policy::{HomeAddress, Ingress, MobileNetworkPrefix, PrefixTable};

use crate::pairs::{Held, PairTable};
use crate::registration::Registration;
use crate::sharded::Sharded;

/// So many prefixes are compared one by one.
const FEW: usize = 8;

/// Registrations by home address and by prefix: the update list or the cache, as packets see it.
#[derive(Clone, Default)]
pub struct BindingTable {
    homes: Sharded<HomeAddress, Registration>,
    /// Whose each mobile network prefix is.
    prefixes: Arc<PrefixTable<HomeAddress>>,
    /// The same, the longest first, as long as they are few: a mobile has one or two, and to
    /// compare them costs a tenth of a walk down the tree.
    few: Option<Arc<[(Ipv6Net, HomeAddress)]>>,
}

impl BindingTable {
    /// The registration that `address` belongs to: the home address itself, else the longest
    /// mobile network prefix (RFC 3963 §6.4).
    pub fn lookup(&self, address: IpAddr) -> Option<&Registration> {
        let IpAddr::V6(address) = address else { return None };
        if self.is_empty() {
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
        self.homes.get(&home_address)
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
    pub fn insert(&mut self, registration: Registration) {
        let home_address = registration.home_address;
        let before = self.get(home_address);
        let known = before.map_or_else(Vec::new, |before| before.prefixes.clone());
        let registration = registration.following(before);
        if known != registration.prefixes {
            self.move_prefixes(home_address, &known, &registration.prefixes);
        }
        self.homes.insert(home_address, registration);
    }

    /// The next version of the table: without this home address.
    pub fn without(&self, home_address: HomeAddress) -> Self {
        let mut next = self.clone();
        if let Some(before) = self.get(home_address) {
            next.move_prefixes(home_address, &before.prefixes, &[]);
            next.homes.remove(&home_address);
        }
        next
    }

    /// Every registration, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.homes.iter().map(|(_, registration)| registration)
    }

    /// How many home addresses are registered or configured.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
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
    /// What correspondents hold of this node's home addresses: the binding update list at them.
    pub optimized: PairTable<Held>,
    /// What mobiles bound at this node as their correspondent; the pair's correspondent is our
    /// address, and so is the registration's peer. A pair without bindings that carry is dropped
    /// and not sent to the home address, so what has ended has to be taken out.
    pub correspondents: PairTable<Registration>,
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

    /// Whether `address` is a home address of ours whose home link we are on.
    pub fn is_at_home(&self, address: Ipv6Addr) -> bool {
        let home = self.updates.get(HomeAddress(address));
        home.is_some_and(|home| home.bindings.iter().any(|binding| binding.home_link))
    }
}
