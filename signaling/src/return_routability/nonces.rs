//! A correspondent's nonces and node keys, made when they are needed and forgotten in time.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::{Hidden, KeygenToken, MAX_NONCE_LIFETIME, NONCE_INTERVAL, NodeKey, Tested, hmac_sha1};
use crate::seed::Seed;

/// One nonce with the node key of its time, under its index (RFC 6275 §5.2.2, §5.2.7).
#[derive(Clone, Debug)]
pub struct NonceGeneration {
    index: u16,
    key: Hidden<20>,
    nonce: Hidden<8>,
    first_used: Duration,
}

impl NonceGeneration {
    /// Its index, as tests and updates carry it.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// From when on it is accepted no more, on the monotonic clock.
    pub fn expires(&self) -> Duration {
        self.first_used + MAX_NONCE_LIFETIME
    }

    /// The token that our address `correspondent` gives to whoever is at `address`.
    pub fn keygen_token(
        &self,
        correspondent: Ipv6Addr,
        address: Ipv6Addr,
        tested: Tested,
    ) -> KeygenToken {
        // req CN-03 (RFC 6275 §5.2.1): each of our addresses is a correspondent with a node key of
        // its own, so that a token got at one says nothing at another.
        let key = NodeKey::new(*hmac_sha1(&self.key.0, &[&correspondent.octets()]));
        key.keygen_token(address, *self.nonce.0, tested)
    }
}

/// The nonces that are good at present, at most nine.
///
/// One is made when a token is asked for and the last one is older than [`NONCE_INTERVAL`], so an
/// idle correspondent has none and no timer runs for them.
#[derive(Debug)]
pub struct Nonces {
    seed: Seed,
    next_index: u16,
    /// Oldest first.
    generations: VecDeque<NonceGeneration>,
}

impl Nonces {
    /// No nonces yet. The first index is random, so that those of an earlier life are told from
    /// ours (status 136 to 138) instead of making other tokens.
    pub fn new(mut seed: Seed) -> Self {
        let next_index = u16::from_be_bytes(seed.draw());
        Self { seed, next_index, generations: VecDeque::new() }
    }

    /// The nonce that makes tokens at `now`.
    pub fn current(&mut self, now: Duration) -> &NonceGeneration {
        self.expire(now);
        // req CN-06 (RFC 6275 §5.2.7): a nonce every 30 seconds, the key with it.
        let fresh =
            self.generations.back().is_some_and(|last| now < last.first_used + NONCE_INTERVAL);
        if !fresh {
            let index = self.next_index;
            self.next_index = index.wrapping_add(1);
            let key = Hidden::new(self.seed.draw());
            let nonce = Hidden::new(self.seed.draw());
            self.generations.push_back(NonceGeneration { index, key, nonce, first_used: now });
        }
        self.generations.back().expect("made above when there was none")
    }

    /// The nonce with this index, if it is still accepted at `now`.
    pub fn get(&self, now: Duration, index: u16) -> Option<&NonceGeneration> {
        // req CN-56, CN-57 (RFC 6275 §5.2.7).
        self.generations.iter().find(|found| found.index == index && now < found.expires())
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: Duration) {
        while self.generations.front().is_some_and(|oldest| oldest.expires() <= now) {
            self.generations.pop_front();
        }
    }

    /// When the oldest is to be forgotten.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.generations.front().map(NonceGeneration::expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_nonce_every_thirty_seconds_and_each_good_for_240() {
        // CN-06, CN-56, CN-57.
        let mut nonces = Nonces::new(Seed::new([1; 32]));
        let first = nonces.current(at(100)).index();
        assert_eq!(nonces.current(at(129)).index(), first);
        let mut last = first;
        for now in (130..1_000).step_by(10) {
            let index = nonces.current(at(now)).index();
            assert!(index == last || index == last.wrapping_add(1));
            last = index;
            assert!(nonces.generations.len() <= 9);
        }
        let mut nonces = Nonces::new(Seed::new([1; 32]));
        let index = nonces.current(at(100)).index();
        // A token given away at the end of the nonce's time is good for 210 s.
        for (now, good) in [(100, true), (129 + 210, true), (340, false)] {
            assert_eq!(nonces.get(at(now), index).is_some(), good, "at {now} s");
        }
        assert_eq!(nonces.next_expiry(), Some(at(340)));
        nonces.expire(at(340));
        assert_eq!(nonces.next_expiry(), None);
    }

    #[test]
    fn tokens_differ_by_address_asked_and_by_generation() {
        // CN-03.
        let mut nonces = Nonces::new(Seed::new([1; 32]));
        let (one, two): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let token = |generation: &NonceGeneration, ours| {
            generation.keygen_token(ours, Ipv6Addr::LOCALHOST, Tested::Home)
        };
        let old = nonces.current(at(0)).clone();
        let new = nonces.current(at(30)).clone();
        assert_ne!(token(&old, one), token(&old, two));
        assert_ne!(token(&old, one), token(&new, one));
        assert_eq!(token(&old, one), token(nonces.get(at(30), old.index()).unwrap(), one));
    }

    #[test]
    fn another_life_has_other_indices() {
        // CN-57.
        let index = |octet| Nonces::new(Seed::new([octet; 32])).current(at(0)).index();
        assert_ne!(index(1), index(2));
    }
}
