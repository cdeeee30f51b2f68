//! Optimized routes, by the pair of a home address and a correspondent.
//!
//! The two tables are read from the two ends of a route: a mobile knows what a correspondent
//! holds of it ([`Held`]), a correspondent what a mobile bound at it (a
//! [`Registration`], for which there are rules as for any other).

use std::net::Ipv6Addr;
use std::sync::Arc;

use mtun_policy::{Bid, HomeAddress};

use crate::registration::{Binding, Registration};
use crate::shared_index::SharedIndex;

/// The two ends of one optimized route, as the mobile's end names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The mobile's home address.
    pub home_address: HomeAddress,
    /// The other end; its home address if it is mobile too.
    pub correspondent: Ipv6Addr,
}

impl Pair {
    /// The same ends as the other one names them, if it is mobile too.
    pub(crate) fn turned(&self) -> Self {
        let home_address = HomeAddress(self.correspondent);
        Self { home_address, correspondent: self.home_address.0 }
    }
}

/// What a correspondent holds of one home address of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Each binding that it acknowledged and that has not run out.
    pub bindings: Vec<HeldBinding>,
}

/// One binding at a correspondent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBinding {
    /// Its number; `None` at a correspondent that knows only one care-of address.
    pub bid: Option<Bid>,
    /// The care-of address from which it takes our packets.
    pub care_of: Ipv6Addr,
}

impl Held {
    /// Whether packets that leave by this binding are taken: the correspondent looks for their
    /// source among the care-of addresses it holds (RFC 6275 §9.3.1; RFC 5648 §6.5).
    pub fn takes(&self, binding: &Binding) -> bool {
        self.bindings.iter().any(|held| {
            (held.bid.is_none() || held.bid == binding.bid) && binding.care_of.0 == held.care_of
        })
    }
}

/// What stands in a [`PairTable`].
pub trait PairEntry {
    /// Itself as what follows `before` under the same pair.
    #[must_use]
    fn following(self, before: Option<&Self>) -> Self;
}

impl PairEntry for Held {
    fn following(self, _before: Option<&Self>) -> Self {
        self
    }
}

impl PairEntry for Registration {
    /// Stamped as in a [`BindingTable`](crate::BindingTable).
    fn following(self, before: Option<&Self>) -> Self {
        Self::following(self, before)
    }
}

/// Entries by pair. Versions share what did not change, as those of a
/// [`BindingTable`](crate::BindingTable) do.
pub struct PairTable<T> {
    entries: SharedIndex<Pair, Arc<T>>,
}

impl<T> PairTable<T> {
    /// The entry of exactly this pair.
    pub fn get(&self, pair: &Pair) -> Option<&T> {
        self.entries.get(pair).map(|entry| &**entry)
    }

    /// The next version of the table: without this pair.
    #[must_use]
    pub fn without(&self, pair: &Pair) -> Self {
        let mut next = self.clone();
        next.entries.remove(pair);
        next
    }

    /// Every pair and its entry, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&Pair, &T)> {
        self.entries.iter().map(|(pair, entry)| (pair, &**entry))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T: PairEntry> PairTable<T> {
    /// The next version of the table: with this entry, instead of the one of the same pair if
    /// there is one.
    #[must_use]
    pub fn with(&self, pair: Pair, entry: T) -> Self {
        let mut next = self.clone();
        next.insert(pair, entry);
        next
    }

    /// Puts an entry into a table that is still being built.
    pub fn insert(&mut self, pair: Pair, entry: T) {
        let entry = entry.following(self.get(&pair));
        self.entries.insert(pair, Arc::new(entry));
    }
}

impl<T> Clone for PairTable<T> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone() }
    }
}

impl<T> Default for PairTable<T> {
    fn default() -> Self {
        Self { entries: SharedIndex::default() }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for PairTable<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T: PairEntry> FromIterator<(Pair, T)> for PairTable<T> {
    fn from_iter<I: IntoIterator<Item = (Pair, T)>>(entries: I) -> Self {
        let mut table = Self::default();
        entries.into_iter().for_each(|(pair, entry)| table.insert(pair, entry));
        table
    }
}
