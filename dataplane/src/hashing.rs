//! How the tables of this crate hash: keyed, because their keys come from the wire.

use std::hash::{BuildHasher, Hash};

/// The keys of one table. With the feature `backend` they come from the system's random numbers;
/// without, they differ between tables and from run to run as far as addresses in memory do.
#[derive(Clone, Debug)]
pub(crate) struct RandomState(ahash::RandomState);

impl RandomState {
    /// Fresh keys.
    pub(crate) fn new() -> Self {
        Self(ahash::RandomState::new())
    }

    /// The hash of one value.
    pub(crate) fn hash_one(&self, value: impl Hash) -> u64 {
        self.0.hash_one(value)
    }
}

impl Default for RandomState {
    fn default() -> Self {
        Self::new()
    }
}

impl BuildHasher for RandomState {
    type Hasher = ahash::AHasher;

    fn build_hasher(&self) -> ahash::AHasher {
        self.0.build_hasher()
    }
}
