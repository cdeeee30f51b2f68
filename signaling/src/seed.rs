//! Randomness as the machines see it: handed in, never drawn from the system.
//!
//! A machine that needs numbers nobody can guess is given one [`Seed`] when it starts and draws
//! all of them from it. The stream cannot be run backwards: what a seed held before a draw cannot
//! be told from what it holds afterwards. Two machines never share a seed, and a machine that
//! starts again gets a fresh one.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The source of one machine's unguessable numbers: zeroed when dropped, never printed.
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// A seed from octets that nobody can guess and that are used for nothing else.
    pub fn new(octets: [u8; 32]) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The next `N` octets, at most 32.
    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        let drawn = self.derive(b"draw");
        let next = self.derive(b"next");
        *self.0 = *next;
        drawn.first_chunk().copied().expect("at most 32 octets are asked for")
    }

    /// A seed of its own for another machine.
    pub fn split(&mut self) -> Self {
        Self(Zeroizing::new(self.draw()))
    }

    fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice())
            .expect("HMAC takes keys of any length");
        mac.update(label);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_repeats_with_its_seed_only_and_never_within_itself() {
        let stream = |octet| {
            let mut seed = Seed::new([octet; 32]);
            (0..100).map(|_| seed.draw::<8>()).collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        let mut all: Vec<_> = stream(1).into_iter().chain(stream(2)).collect();
        let mut split = Seed::new([1; 32]).split();
        all.extend((0..100).map(|_| split.draw::<8>()));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_seed_is_not_printed() {
        // SE-12.
        assert_eq!(format!("{:?}", Seed::new([0x5a; 32])), "Seed");
    }
}
