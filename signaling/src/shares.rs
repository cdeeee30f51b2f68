//! How many answers strangers can make a node send: some per network, and some in all.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::budget::Budget;

/// How many networks are told apart. Two that share a place share its budget.
const PLACES: usize = 256;

/// Token buckets per /64 of the source and one for all (RFC 6275 §9.3.3), in fixed memory.
///
/// A node that has used up its share for one network still answers the others, so that a flood from
/// one place does not silence it.
#[derive(Debug)]
pub struct Shares {
    /// Nobody outside knows which networks share a place.
    key: u64,
    all: Budget,
    each: Vec<Budget>,
}

impl Shares {
    /// At most `per_network` answers a second to one /64, and ten times as many in all. `key` is
    /// anything that nobody outside knows.
    pub fn new(key: u64, per_network: u32) -> Self {
        let budget = |rate| Budget::new(rate, Duration::from_secs(1) / rate);
        Self { key, all: budget(per_network * 10), each: vec![budget(per_network); PLACES] }
    }

    /// Takes an answer to `source`; false when there is none left.
    pub fn take(&mut self, now: Duration, source: Ipv6Addr) -> bool {
        // req CN-07, MH-16 (RFC 6275 §9.3.3).
        let mut hasher = DefaultHasher::new();
        (self.key, u128::from(source) >> 64).hash(&mut hasher);
        let place = hasher.finish() as usize % PLACES;
        self.each[place].take(now) && self.all.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(network: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host)
    }

    #[test]
    fn one_network_gets_its_share_and_leaves_the_others_theirs() {
        // MH-16.
        let mut shares = Shares::new(7, 10);
        let now = Duration::ZERO;
        let taken = (0..100).filter(|host| shares.take(now, source(1, *host))).count();
        assert_eq!(taken, 10);
        assert!(shares.take(now, source(2, 1)));
        let all = (3..2_000).filter(|network| shares.take(now, source(*network, 1))).count();
        assert!((80..100).contains(&all), "{all}");
        assert!(shares.take(Duration::from_secs(1), source(1, 1)));
    }
}
