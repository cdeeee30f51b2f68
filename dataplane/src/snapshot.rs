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

use mtun_policy::{HomeAddress, Ingress};

use crate::pairs::{Held, PairTable};
use crate::prefix_owners::PrefixOwners;
use crate::registration::{Registration, next_stamp};
use crate::shared_index::SharedIndex;

/// Registrations by home address and by prefix: the update list or the cache, as packets see it.
#[derive(Clone, Default)]
pub struct BindingTable {
    homes: SharedIndex<HomeAddress, Arc<Registration>>,
    /// The lowest and the highest home address that there ever was: what lies outside is looked
    /// for among the prefixes alone.
    range: Option<(HomeAddress, HomeAddress)>,
    /// Whose each mobile network prefix is.
    prefixes: PrefixOwners,
    /// Another one when the same address may be another home's, or the first one's.
    shape: u64,
    /// Another one when an address of a home that stays may be another home's.
    turnover: u64,
}

impl BindingTable {
    /// The registration that `address` belongs to: the home address itself, else the longest
    /// mobile network prefix (RFC 3963 §6.4).
    pub fn lookup(&self, address: IpAddr) -> Option<&Registration> {
        let IpAddr::V6(address) = address else { return None };
        let (lowest, highest) = self.range?;
        let home_address = HomeAddress(address);
        let home = (lowest..=highest).contains(&home_address).then(|| self.get(home_address));
        home.flatten().or_else(|| self.prefixes.longest_match(address))
    }

    /// The registration of exactly this home address.
    pub fn get(&self, home_address: HomeAddress) -> Option<&Registration> {
        self.homes.get(&home_address).map(|registration| &**registration)
    }

    /// The next version of the table: with this registration, instead of the one of the same
    /// home address if there is one. What did not change is shared with this version.
    pub fn with(&self, registration: Registration) -> Self {
        let mut next = self.clone();
        next.insert(registration);
        next
    }

    /// Puts a registration into a table that is still being built. What no other version holds is
    /// changed in place, so that many changes at once cost less than as many versions. Gives it as
    /// it stands in the table.
    pub fn insert(&mut self, registration: Registration) -> &Arc<Registration> {
        let home_address = registration.home_address;
        let before = self.get(home_address);
        let registration = Arc::new(registration.following(before));
        self.put(registration);
        self.homes.get(&home_address).expect("it was just put there")
    }

    /// Puts a registration in as it is.
    fn put(&mut self, registration: Arc<Registration>) {
        let home_address = registration.home_address;
        let before = self.homes.get(&home_address).cloned();
        let known = before.as_deref().map_or(&[][..], |before| &before.prefixes);
        if before.is_none() || known != registration.prefixes {
            self.shape = next_stamp();
            // Of one that is new only what somebody else had changes hands. A prefix that lies around
            // others' leaves theirs to them, as the longest one counts.
            let mut all =
                registration.prefixes.iter().map(|prefix| IpAddr::V6(prefix.net().addr()));
            let is_known = |address| self.lookup(address).is_some();
            if before.is_some() || is_known(home_address.0.into()) || all.any(is_known) {
                self.turnover = self.shape;
            }
        }
        if known == registration.prefixes {
            // A prefix that two homes claim stays with the one that came last, and goes with it.
            for prefix in known {
                if self.prefixes.is_of(*prefix, home_address) {
                    self.prefixes.give(*prefix, registration.clone());
                }
            }
        } else {
            known.iter().for_each(|prefix| self.prefixes.take(*prefix, home_address));
            let all = registration.prefixes.iter();
            all.for_each(|prefix| self.prefixes.give(*prefix, registration.clone()));
        }
        let (lowest, highest) = self.range.unwrap_or((home_address, home_address));
        self.range = Some((lowest.min(home_address), highest.max(home_address)));
        self.homes.insert(home_address, registration);
    }

    /// The next version of the table: without this home address.
    pub fn without(&self, home_address: HomeAddress) -> Self {
        let mut next = self.clone();
        next.remove(home_address);
        next
    }

    /// Takes a home address out, as [`Self::insert`] puts one in.
    pub fn remove(&mut self, home_address: HomeAddress) {
        if let Some(before) = self.homes.get(&home_address).cloned() {
            before.prefixes.iter().for_each(|prefix| self.prefixes.take(*prefix, home_address));
            self.shape = next_stamp();
            self.homes.remove(&home_address);
        }
    }

    /// Becomes what `present` is, which came from this version by these changes.
    fn follow(&mut self, present: &Self, missed: &[CacheChange]) {
        for change in missed {
            match change {
                CacheChange::Put(registration) => self.put(registration.clone()),
                CacheChange::Removed(home_address) => self.remove(*home_address),
            }
        }
        (self.shape, self.turnover) = (present.shape, present.turnover);
    }

    /// Every registration, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.homes.iter().map(|(_, registration)| &**registration)
    }

    /// How many home addresses are registered or configured.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// The same in versions of one table in which every address is the same home's.
    pub(crate) fn shape(&self) -> u64 {
        self.shape
    }

    /// The same in versions in which every address of a home is that home's still, as long as the home
    /// is there.
    pub(crate) fn turnover(&self) -> u64 {
        self.turnover
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
        for registration in registrations {
            table.insert(registration);
        }
        table
    }
}

/// One change of a binding cache, as it came out.
#[derive(Clone, Debug)]
pub(crate) enum CacheChange {
    /// This stands in the table from here on.
    Put(Arc<Registration>),
    /// Nothing stands there for this home address.
    Removed(HomeAddress),
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
    /// Becomes what `present` is, which came from this version by these changes of its cache and
    /// whatever else changed.
    pub(crate) fn follow(&mut self, present: &Self, missed: &[CacheChange]) {
        let Self { generation, updates, cache, optimized, correspondents, own, also } = present;
        self.generation = *generation;
        self.updates.clone_from(updates);
        self.optimized.clone_from(optimized);
        self.correspondents.clone_from(correspondents);
        self.own.clone_from(own);
        self.also.clone_from(also);
        self.cache.follow(cache, missed);
    }

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
