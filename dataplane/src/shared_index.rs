//! An index that versions share: one changed entry among a million copies a handful of nodes.
//!
//! A tree by the bits of a key's hash, 64 ways at a level, that ends in small hash tables. A version
//! that changes an entry copies the path to it and the table that it is in, and shares all the rest
//! with the version before. As long as nobody else holds a version, changes are made in place: to
//! build an index of a million entries copies nothing.
//!
//! Reading takes no lock. With a quarter of a million entries there are two levels, which stay in
//! the processor's cache, and a table of some 60 entries, of which a question reads one line or
//! two: the only ones that it waits for memory for.

use std::hash::Hash;
use std::slice;
use std::sync::Arc;

use crate::hashing::RandomState;

/// Bits of the hash that one level looks at.
const BITS: u32 = 6;
const WAYS: usize = 1 << BITS;
/// Places of a table up to which keys are compared one by one, which is sooner done than hashing.
const FEW: usize = 8;
/// Places of the largest table; with more entries than it takes it becomes a branch.
const LARGEST: usize = 256;
/// Levels after which hardly a bit of the hash is left: a table there grows without end.
const DEEPEST: u32 = u64::BITS / BITS;

#[derive(Clone)]
enum Node<K, V> {
    Empty,
    Branch(Arc<[Node<K, V>; WAYS]>),
    /// A power of two of places.
    Table(Arc<[Option<(K, V)>]>),
}

/// Entries by key, shared between the versions that did not change them. `V` is cloned with the
/// table it is in, so it had better be small, or an `Arc`.
#[derive(Clone)]
pub(crate) struct SharedIndex<K, V> {
    root: Node<K, V>,
    hasher: RandomState,
    len: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> SharedIndex<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        let hash = match &self.root {
            Node::Table(places) if places.len() <= FEW => 0,
            _ => self.hasher.hash_one(key),
        };
        let mut node = &self.root;
        let mut level = 0;
        while let Node::Branch(ways) = node {
            node = &ways[way(hash, level)];
            level += 1;
        }
        let Node::Table(places) = node else { return None };
        let at = position(places, hash, key)?;
        places[at].as_ref().map(|(_, value)| value)
    }

    pub fn insert(&mut self, key: K, value: V) {
        let hash = self.hasher.hash_one(key);
        let added = insert(&mut self.root, &self.hasher, hash, 0, (key, value));
        self.len += usize::from(added);
    }

    pub fn remove(&mut self, key: &K) {
        if self.get(key).is_some() {
            remove(&mut self.root, &self.hasher, self.hasher.hash_one(key), 0, key);
            self.len -= 1;
        }
    }
}

impl<K, V> SharedIndex<K, V> {
    /// In no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut open = vec![slice::from_ref(&self.root).iter()];
        let mut table: slice::Iter<'_, Option<(K, V)>> = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some((key, value)) = table.by_ref().flatten().next() {
                    return Some((key, value));
                }
                match open.last_mut()?.next() {
                    None => drop(open.pop()),
                    Some(Node::Empty) => {}
                    Some(Node::Branch(ways)) => open.push(ways.iter()),
                    Some(Node::Table(places)) => table = places.iter(),
                }
            }
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Whether the entry is one more.
fn insert<K: Copy + Eq + Hash, V: Clone>(
    node: &mut Node<K, V>,
    hasher: &RandomState,
    hash: u64,
    level: u32,
    entry: (K, V),
) -> bool {
    let places = match node {
        Node::Empty => {
            *node = table(FEW / 2, hasher, [entry]);
            return true;
        }
        Node::Branch(ways) => {
            let ways = Arc::make_mut(ways);
            return insert(&mut ways[way(hash, level)], hasher, hash, level + 1, entry);
        }
        Node::Table(places) => places,
    };
    if let Some(at) = position(places, hash, &entry.0) {
        Arc::make_mut(places)[at] = Some(entry);
        return false;
    }
    let room = places.len();
    if places.iter().flatten().count() < most(room) {
        let places = Arc::make_mut(places);
        let at = free(places, hash);
        places[at] = Some(entry);
        return true;
    }
    let entries = places.iter().flatten().cloned().chain([entry]);
    *node = if room < LARGEST || level == DEEPEST {
        table(room * 2, hasher, entries)
    } else {
        let mut ways = [const { Node::Empty }; WAYS];
        for (key, value) in entries {
            let hash = hasher.hash_one(key);
            insert(&mut ways[way(hash, level)], hasher, hash, level + 1, (key, value));
        }
        Node::Branch(Arc::new(ways))
    };
    true
}

/// Takes out an entry that is there.
fn remove<K: Copy + Eq + Hash, V: Clone>(
    node: &mut Node<K, V>,
    hasher: &RandomState,
    hash: u64,
    level: u32,
    key: &K,
) {
    let empty = match node {
        Node::Empty => return,
        Node::Branch(ways) => {
            let ways = Arc::make_mut(ways);
            remove(&mut ways[way(hash, level)], hasher, hash, level + 1, key);
            ways.iter().all(|way| matches!(way, Node::Empty))
        }
        Node::Table(places) => {
            let Some(at) = position(places, hash, key) else { return };
            let places = Arc::make_mut(places);
            places[at] = None;
            if places.len() > FEW {
                close_gap(places, hasher, at);
            }
            places.iter().all(Option::is_none)
        }
    };
    if empty {
        *node = Node::Empty;
    }
}

/// A table of so many places.
fn table<K: Copy + Hash, V>(
    room: usize,
    hasher: &RandomState,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Node<K, V> {
    let mut places: Arc<[Option<(K, V)>]> = (0..room).map(|_| None).collect();
    let fresh = Arc::get_mut(&mut places).expect("nobody else has it yet");
    for entry in entries {
        let at = free(fresh, hasher.hash_one(entry.0));
        fresh[at] = Some(entry);
    }
    Node::Table(places)
}

/// Entries that a table takes: where keys are looked for by their hash, some places stay free, so
/// that a search ends.
fn most(room: usize) -> usize {
    if room <= FEW { room } else { room / 4 * 3 }
}

/// The place where the search for a key of this hash begins. Branches have used the low bits.
fn first(hash: u64, room: usize) -> usize {
    (hash >> 48) as usize & (room - 1)
}

/// Where an entry is.
fn position<K: Eq, V>(places: &[Option<(K, V)>], hash: u64, key: &K) -> Option<usize> {
    let room = places.len();
    if room <= FEW {
        let is_it = |place: &Option<(K, V)>| place.as_ref().is_some_and(|(known, _)| known == key);
        return places.iter().position(is_it);
    }
    let mut at = first(hash, room);
    loop {
        match &places[at & (room - 1)] {
            Some((known, _)) if known == key => return Some(at & (room - 1)),
            Some(_) => at += 1,
            None => return None,
        }
    }
}

/// The place for another entry; there is one.
fn free<K, V>(places: &[Option<(K, V)>], hash: u64) -> usize {
    let room = places.len();
    let mut at = first(hash, room);
    while places[at & (room - 1)].is_some() {
        at += 1;
    }
    at & (room - 1)
}

/// Puts what follows a place that became free where a search finds it.
fn close_gap<K: Copy + Hash, V>(places: &mut [Option<(K, V)>], hasher: &RandomState, gap: usize) {
    let mask = places.len() - 1;
    let mut at = (gap + 1) & mask;
    while let Some(entry) = places[at].take() {
        let place = free(places, hasher.hash_one(entry.0));
        places[place] = Some(entry);
        at = (at + 1) & mask;
    }
}

fn way(hash: u64, level: u32) -> usize {
    // Below the last level there is no branch.
    (hash >> (level * BITS)) as usize % WAYS
}

impl<K, V> Default for SharedIndex<K, V> {
    fn default() -> Self {
        Self { root: Node::Empty, hasher: RandomState::default(), len: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::Hasher;

    use super::*;

    fn entries(index: &SharedIndex<u32, u32>) -> HashMap<u32, u32> {
        let mut found = HashMap::new();
        for (key, value) in index.iter() {
            assert_eq!(found.insert(*key, *value), None, "told once");
            assert_eq!(index.get(key), Some(value));
        }
        assert_eq!(found.len(), index.len());
        found
    }

    #[test]
    fn it_holds_what_a_map_holds_and_versions_stay_as_they_were() {
        let (mut index, mut map) = (SharedIndex::default(), HashMap::new());
        let mut versions = Vec::new();
        // A walk that meets every key several times; three steps of four put, one takes out.
        let mut at = 1_u32;
        for step in 0..20_000 {
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = at >> 20;
            if step % 4 == 3 {
                index.remove(&key);
                map.remove(&key);
            } else {
                index.insert(key, step);
                map.insert(key, step);
            }
            assert_eq!(index.len(), map.len());
            if step % 2_500 == 0 {
                versions.push((index.clone(), map.clone()));
            }
        }
        assert!(map.len() > 1_000);
        versions.push((index.clone(), map.clone()));
        for (index, map) in &versions {
            assert_eq!(entries(index), *map);
            assert!((0..5_000).all(|key| index.get(&key) == map.get(&key)));
        }
        for key in map.keys() {
            index.remove(key);
        }
        assert!(index.is_empty() && matches!(index.root, Node::Empty), "nothing is left behind");
    }

    #[test]
    fn a_change_copies_the_path_to_it_and_nothing_else() {
        let mut index: SharedIndex<u32, Arc<u32>> = SharedIndex::default();
        (0..100_000).for_each(|key| index.insert(key, Arc::new(key)));
        let before = index.clone();
        index.insert(77, Arc::new(0));
        let mut copied = 0;
        let mut open = vec![(&before.root, &index.root)];
        while let Some(pair) = open.pop() {
            match pair {
                (Node::Branch(one), Node::Branch(two)) if !Arc::ptr_eq(one, two) => {
                    copied += 1;
                    open.extend(one.iter().zip(two.iter()));
                }
                (Node::Table(one), Node::Table(two)) => {
                    copied += usize::from(!Arc::ptr_eq(one, two));
                }
                _ => {}
            }
        }
        assert!((2..=4).contains(&copied), "{copied} nodes");
        assert_eq!((**before.get(&77).unwrap(), **index.get(&77).unwrap()), (77, 0));
    }

    /// A key whose hashes are all the same.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Alike(u32);

    impl Hash for Alike {
        fn hash<H: Hasher>(&self, state: &mut H) {
            0_u8.hash(state);
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let mut index = SharedIndex::default();
        (0..50).for_each(|key| index.insert(Alike(key), key));
        assert_eq!(index.len(), 50);
        assert!((0..50).all(|key| index.get(&Alike(key)) == Some(&key)));
        (0..50).step_by(2).for_each(|key| index.remove(&Alike(key)));
        assert_eq!((index.len(), index.get(&Alike(2)), index.get(&Alike(3))), (25, None, Some(&3)));
    }
}
