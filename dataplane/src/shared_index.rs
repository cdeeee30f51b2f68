//! An index that versions share: one changed entry among a million copies a handful of nodes.
//!
//! A tree by the bits of a key's hash, four at a level. A version that changes an entry copies the
//! path to it, some four nodes of sixteen pointers and one leaf, and shares all the rest with the
//! version before. As long as nobody else holds a version, changes are made in place: to build an
//! index of a million entries copies nothing. Reading takes no lock; it costs the few misses of the
//! cache that a hash map costs too, since all but the two lowest levels are small enough to stay
//! in it.

use std::hash::Hash;
use std::slice;
use std::sync::Arc;

use crate::hashing::RandomState;

/// Bits of the hash that one level looks at.
const BITS: u32 = 4;
const WAYS: usize = 1 << BITS;
/// A leaf with more entries becomes a branch. So many keys are compared sooner than hashed.
const ROOM: usize = 8;
/// Levels after which no bit of the hash is left.
const DEEPEST: u32 = u64::BITS / BITS;

type Way<K, V> = Option<Arc<Node<K, V>>>;

#[derive(Clone)]
enum Node<K, V> {
    Branch([Way<K, V>; WAYS]),
    Leaf([Option<(K, V)>; ROOM]),
    /// Entries of one hash.
    Alike(Vec<(K, V)>),
}

/// Entries by key, shared between the versions that did not change them. `V` is cloned with the
/// leaf it is in, so it had better be small, or an `Arc`.
#[derive(Clone)]
pub(crate) struct SharedIndex<K, V> {
    root: Way<K, V>,
    hasher: RandomState,
    len: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> SharedIndex<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut node = self.root.as_deref()?;
        let mut hash = None;
        let mut level = 0;
        while let Node::Branch(ways) = node {
            let hash = *hash.get_or_insert_with(|| self.hasher.hash_one(key));
            node = ways[way(hash, level)].as_deref()?;
            level += 1;
        }
        let found = match node {
            Node::Branch(_) => None,
            Node::Leaf(entries) => entries.iter().flatten().find(|(known, _)| known == key),
            Node::Alike(entries) => entries.iter().find(|(known, _)| known == key),
        };
        found.map(|(_, value)| value)
    }

    pub fn insert(&mut self, key: K, value: V) {
        let hash = self.hasher.hash_one(key);
        let added = insert(&mut self.root, &self.hasher, hash, 0, (key, value));
        self.len += usize::from(added);
    }

    pub fn remove(&mut self, key: &K) {
        if self.get(key).is_some() {
            remove(&mut self.root, self.hasher.hash_one(key), 0, key);
            self.len -= 1;
        }
    }
}

impl<K, V> SharedIndex<K, V> {
    /// In no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut open = vec![slice::from_ref(&self.root).iter()];
        let mut leaf: slice::Iter<'_, Option<(K, V)>> = [].iter();
        let mut alike: slice::Iter<'_, (K, V)> = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some((key, value)) = leaf.by_ref().flatten().next().or_else(|| alike.next())
                {
                    return Some((key, value));
                }
                match open.last_mut()?.next().map(Option::as_deref) {
                    None => drop(open.pop()),
                    Some(None) => {}
                    Some(Some(Node::Branch(ways))) => open.push(ways.iter()),
                    Some(Some(Node::Leaf(entries))) => leaf = entries.iter(),
                    Some(Some(Node::Alike(entries))) => alike = entries.iter(),
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
    place: &mut Way<K, V>,
    hasher: &RandomState,
    hash: u64,
    level: u32,
    entry: (K, V),
) -> bool {
    let Some(node) = place else {
        *place = Some(Arc::new(leaf(level, [entry])));
        return true;
    };
    let entries: Vec<(K, V)> = match Arc::make_mut(node) {
        Node::Branch(ways) => {
            return insert(&mut ways[way(hash, level)], hasher, hash, level + 1, entry);
        }
        Node::Leaf(entries) => {
            if let Some((_, value)) =
                entries.iter_mut().flatten().find(|(known, _)| *known == entry.0)
            {
                *value = entry.1;
                return false;
            }
            if let Some(free) = entries.iter_mut().find(|it| it.is_none()) {
                *free = Some(entry);
                return true;
            }
            entries.iter_mut().filter_map(Option::take).chain([entry]).collect()
        }
        Node::Alike(entries) => {
            match entries.iter_mut().find(|(known, _)| *known == entry.0) {
                Some((_, value)) => {
                    *value = entry.1;
                    return false;
                }
                None => entries.push(entry),
            }
            return true;
        }
    };
    let mut ways = [const { None }; WAYS];
    for (key, value) in entries {
        let hash = hasher.hash_one(key);
        insert(&mut ways[way(hash, level)], hasher, hash, level + 1, (key, value));
    }
    *place = Some(Arc::new(Node::Branch(ways)));
    true
}

/// Takes out an entry that is there.
fn remove<K: Copy + Eq, V: Clone>(place: &mut Way<K, V>, hash: u64, level: u32, key: &K) {
    let Some(node) = place else { return };
    let empty = match Arc::make_mut(node) {
        Node::Branch(ways) => {
            remove(&mut ways[way(hash, level)], hash, level + 1, key);
            ways.iter().all(Option::is_none)
        }
        Node::Leaf(entries) => {
            let names =
                |it: &&mut Option<(K, V)>| it.as_ref().is_some_and(|(known, _)| known == key);
            if let Some(entry) = entries.iter_mut().find(names) {
                *entry = None;
            }
            entries.iter().all(Option::is_none)
        }
        Node::Alike(entries) => {
            entries.retain(|(known, _)| known != key);
            entries.is_empty()
        }
    };
    if empty {
        *place = None;
    }
}

fn leaf<K, V>(level: u32, [entry]: [(K, V); 1]) -> Node<K, V> {
    if level == DEEPEST {
        return Node::Alike(vec![entry]);
    }
    let mut entries = [const { None }; ROOM];
    entries[0] = Some(entry);
    Node::Leaf(entries)
}

fn way(hash: u64, level: u32) -> usize {
    // Below the last level there is no branch.
    (hash >> (level * BITS)) as usize % WAYS
}

impl<K, V> Default for SharedIndex<K, V> {
    fn default() -> Self {
        Self { root: None, hasher: RandomState::default(), len: 0 }
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
        assert!(index.is_empty() && index.root.is_none(), "nothing is left behind");
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
            let (Some(one), Some(two)) = pair else { continue };
            if Arc::ptr_eq(one, two) {
                continue;
            }
            copied += 1;
            if let (Node::Branch(one), Node::Branch(two)) = (&**one, &**two) {
                open.extend(one.iter().zip(two.iter()));
            }
        }
        assert!((2..=7).contains(&copied), "{copied} nodes");
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
