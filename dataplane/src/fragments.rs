//! Inner fragments follow their first.
//!
//! They are carried as they are. Only the first one has ports; the others are decided by the first
//! one's key, so that a packet is never torn over two bindings and no rule is evaded by cutting.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mtun_policy::FlowKey;

use crate::packet::Inner;

/// First fragments remembered; a set of four for each of these.
const SETS: usize = 256;

/// How long the other fragments may take (RFC 8200 §4.5).
const FOLLOW: Duration = Duration::from_secs(60);

/// The keys of first fragments, for those that follow.
#[derive(Debug)]
pub struct Firsts {
    sets: Mutex<Vec<[Option<First>; 4]>>,
    hasher: ahash::RandomState,
}

#[derive(Clone, Copy, Debug)]
struct First {
    identification: u32,
    key: FlowKey,
    at: Duration,
}

impl Firsts {
    /// An empty store.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self { sets: Mutex::default(), hasher }
    }

    /// The key to decide by: the packet's own, or for a later fragment the first one's.
    ///
    /// req FB-17: a fragment that overtakes its first is decided without ports.
    pub fn key(&self, inner: &Inner, now: Duration) -> FlowKey {
        let Some(fragment) = inner.fragment else { return inner.key };
        let ends = (inner.key.source, inner.key.destination);
        let same = |first: &First| {
            first.identification == fragment.identification
                && (first.key.source, first.key.destination) == ends
        };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            sets.resize(SETS, [None; 4]);
        }
        let set = &mut sets[self.set_of(ends, fragment.identification)];
        let known = set.iter().position(|slot| slot.as_ref().is_some_and(same));
        if !fragment.first {
            let first = known.and_then(|at| set[at]);
            let first = first.filter(|first| now.saturating_sub(first.at) < FOLLOW);
            return first.map_or(inner.key, |first| first.key);
        }
        let oldest = || (0..4).min_by_key(|at| set[*at].map(|first| first.at));
        let at = known.or_else(oldest).expect("a set has slots");
        set[at] = Some(First { identification: fragment.identification, key: inner.key, at: now });
        inner.key
    }

    fn set_of(&self, ends: (IpAddr, IpAddr), identification: u32) -> usize {
        self.hasher.hash_one((ends, identification)) as usize % SETS
    }
}
