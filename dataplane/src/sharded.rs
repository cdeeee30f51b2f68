//! An index that versions share: one changed entry among a million copies a thousandth of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Cuts of the index. A version copies one cut of a thousandth of the entries, and a thousand
/// pointers.
const SHARDS: usize = 1024;

type Shard<K, V> = HashMap<K, Arc<V>, crate::hashing::RandomState>;

/// Entries by key, shared between the versions that did not change them.
pub(crate) struct Sharded<K, V> {
    /// Empty until the first entry.
    shards: Vec<Arc<Shard<K, V>>>,
    hasher: crate::hashing::RandomState,
    len: usize,
}

impl<K: Copy + Eq + Hash, V> Sharded<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        if self.is_empty() {
            return None;
        }
        let shard = self.shards.get(self.shard_of(key))?;
        shard.get(key).map(|entry| &**entry)
    }

    pub fn insert(&mut self, key: K, entry: V) {
        if self.shards.is_empty() {
            let empty = Arc::new(Shard::with_hasher(self.hasher.clone()));
            self.shards = vec![empty; SHARDS];
        }
        let shard = self.shard_of(&key);
        let held = Arc::make_mut(&mut self.shards[shard]).insert(key, Arc::new(entry));
        self.len += usize::from(held.is_none());
    }

    pub fn remove(&mut self, key: &K) {
        if self.get(key).is_some() {
            let shard = self.shard_of(key);
            Arc::make_mut(&mut self.shards[shard]).remove(key);
            self.len -= 1;
        }
    }

    /// In no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(key, entry)| (key, &**entry))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn shard_of(&self, key: &K) -> usize {
        // The middle bits: the map inside a shard uses the lowest and the highest.
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }
}

impl<K, V> Clone for Sharded<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), hasher: self.hasher.clone(), len: self.len }
    }
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self { shards: Vec::new(), hasher: crate::hashing::RandomState::default(), len: 0 }
    }
}
