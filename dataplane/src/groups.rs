//! What flows share: one choice of link for a pair, a host, or rules that go `together`.
//!
//! Bounded like the flow table and for the same reason: whoever sends packets makes the keys. They
//! are hashed with a secret, so nobody can aim at a set; a full set forgets the group that was
//! silent longest, so a group in use outlives any flood that does not hit its set between two of
//! its packets.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::{FlowKey, HomeAddress, Scope, Sticky, StickyKey};

use crate::decide::Side;
use crate::memory::{Answer, Remembered};

/// What names a group: whose flows, by which rule or word, and what they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    home: HomeAddress,
    name: GroupName,
    shared: StickyKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum GroupName {
    /// The flows of one rule, by its identity.
    Rule(u64),
    /// The flows of all rules with this number.
    Together(u16),
}

impl GroupKey {
    /// The group that a flow belongs to; `None` if it decides for itself alone.
    pub(crate) fn of(
        home: HomeAddress,
        side: Side,
        identity: u64,
        sticky: Sticky,
        together: Option<u16>,
        key: &FlowKey,
    ) -> Option<Self> {
        let name = match (together, sticky.scope) {
            (_, Scope::None) | (None, Scope::Flow) => return None,
            (Some(number), _) => GroupName::Together(number),
            (None, Scope::Pair | Scope::Host) => GroupName::Rule(identity),
        };
        // The mobile's end comes first, whichever end this is.
        let shared = match side {
            Side::Near => StickyKey::new(sticky.scope, key),
            Side::Far => StickyKey::new(sticky.scope, &key.mirrored()),
        };
        Some(Self { home, name, shared })
    }
}

#[derive(Clone, Copy, Debug)]
struct Group {
    key: GroupKey,
    memory: Remembered,
}

/// Groups of a set.
const WAYS: usize = 8;

/// Locks, more than packet threads.
const SHARDS: usize = 32;

/// Sets under one lock: 16,384 groups in all.
const SETS: usize = 64;

type Set = [Option<Group>; WAYS];

/// The shared choices of one home network.
pub struct GroupTable {
    shards: Vec<Mutex<Vec<Set>>>,
    hasher: ahash::RandomState,
}

impl GroupTable {
    /// Groups that fit.
    pub const CAPACITY: usize = SHARDS * SETS * WAYS;

    /// An empty table.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Vec::new())).collect(), hasher }
    }

    /// What is remembered of a group.
    pub(crate) fn remembered(&self, key: &GroupKey) -> Option<Remembered> {
        let (shard, set) = self.place(key);
        let shard = lock(&self.shards[shard]);
        let group = shard.get(set)?.iter().flatten().find(|group| group.key == *key)?;
        Some(group.memory)
    }

    /// Notes a packet of the group and the answer it was sent by.
    ///
    /// `before` is what the answer was decided from. If another thread has settled the group
    /// otherwise meanwhile, nothing is noted and `false` returned: decide again.
    pub(crate) fn sent(
        &self,
        key: &GroupKey,
        before: Option<&Remembered>,
        mut answer: Answer,
        now: Duration,
    ) -> bool {
        let (shard, set) = self.place(key);
        let mut shard = lock(&self.shards[shard]);
        if shard.is_empty() {
            shard.resize(SETS, [None; WAYS]);
        }
        let set = &mut shard[set];
        let known = set.iter().position(|group| group.as_ref().is_some_and(|it| it.key == *key));
        let link = |memory: &Remembered| memory.answer.map(|answer| (answer.bid, answer.way));
        if let Some(group) = known.and_then(|at| set[at].as_ref()) {
            let stands = link(&group.memory);
            if stands == Some((answer.bid, answer.way)) {
                answer = followed(group.memory.answer, answer);
            } else if stands != before.and_then(link) {
                return false;
            }
        }
        // An empty slot sorts before every used one.
        let oldest = || (0..WAYS).min_by_key(|at| set[*at].map(|group| group.memory.last_seen));
        let at = known.or_else(oldest).expect("a set has slots");
        let memory = Remembered {
            answer: Some(answer),
            last_seen: now,
            last_sent: Some(now),
            ..Remembered::default()
        };
        set[at] = Some(Group { key: *key, memory });
        true
    }

    /// Settles a silent group anew, if it is still as it was.
    pub(crate) fn resettle(&self, key: &GroupKey, before: &Remembered, answer: Answer) {
        let (shard, set) = self.place(key);
        let mut shard = lock(&self.shards[shard]);
        let Some(set) = shard.get_mut(set) else { return };
        let group = set.iter_mut().flatten().find(|group| group.key == *key);
        if let Some(group) = group.filter(|group| group.memory == *before) {
            let stands = (answer.bid, answer.way);
            let same = group.memory.answer.is_some_and(|held| (held.bid, held.way) == stands);
            let answer = if same { followed(group.memory.answer, answer) } else { answer };
            group.memory.answer = Some(answer);
        }
    }

    fn place(&self, key: &GroupKey) -> (usize, usize) {
        let hash = self.hasher.hash_one(key);
        ((hash >> 32) as usize % SHARDS, hash as u32 as usize % SETS)
    }
}

/// The answer of a flow that follows its group: why the group came here and by which rule stays.
fn followed(group: Option<Answer>, answer: Answer) -> Answer {
    match group {
        Some(Answer { rule, rules, identity, moved, .. }) => {
            Answer { rule, rules, identity, moved, ..answer }
        }
        None => answer,
    }
}

fn lock(shard: &Mutex<Vec<Set>>) -> MutexGuard<'_, Vec<Set>> {
    // Whoever panicked under the lock left a set that is at worst out of date.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for GroupTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupTable").field("capacity", &Self::CAPACITY).finish_non_exhaustive()
    }
}
