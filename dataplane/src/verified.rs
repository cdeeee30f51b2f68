//! Outer sources that have proven to be somebody: a packet of theirs was admitted.
//!
//! Read only where strangers and registered mobiles compete for room, so a wrong "no" costs
//! little and a direct-mapped table without locks is enough. A wrong "yes" needs an address whose
//! secret hash collides in all of 64 bits.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sources remembered at most.
const SLOTS: usize = 4096;

/// Recently verified outer sources.
#[derive(Debug)]
pub struct VerifiedSources {
    slots: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
}

impl VerifiedSources {
    /// Nobody yet.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), hasher }
    }

    /// Remembers an outer source whose packet was admitted.
    pub fn note(&self, source: Ipv6Addr) {
        let hash = self.hasher.hash_one(source);
        let slot = &self.slots[hash as usize % SLOTS];
        if slot.load(Ordering::Relaxed) != hash {
            slot.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether a packet of this source was admitted lately.
    pub fn contains(&self, source: Ipv6Addr) -> bool {
        let hash = self.hasher.hash_one(source);
        self.slots[hash as usize % SLOTS].load(Ordering::Relaxed) == hash
    }
}
