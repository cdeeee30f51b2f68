//! Whose each mobile network prefix is, found by longest match and shared between versions.
//!
//! A home address is a prefix of length 128 and found by its hash; so are the shorter ones, by one
//! index for each length that occurs. A home network delegates one length or two, so a look-up is
//! one or two questions, where a tree would be walked from the first bit down, and a changed prefix
//! copies a path in one index and not the tree.

use std::net::Ipv6Addr;
use std::sync::Arc;

use mtun_policy::{HomeAddress, MobileNetworkPrefix};

use crate::registration::Registration;
use crate::shared_index::SharedIndex;

type Owners = SharedIndex<Ipv6Addr, Arc<Registration>>;

/// Registrations by prefix.
#[derive(Clone, Default)]
pub(crate) struct PrefixOwners {
    /// By prefix length, the longest first; none of them empty.
    lengths: Vec<(u8, Owners)>,
}

impl PrefixOwners {
    /// Whose the longest prefix is that holds `address`.
    pub fn longest_match(&self, address: Ipv6Addr) -> Option<&Registration> {
        let address = u128::from(address);
        self.lengths
            .iter()
            .find_map(|(length, owners)| owners.get(&(address & mask(*length)).into()))
            .map(|owner| &**owner)
    }

    /// Gives a prefix to its owner, whoever had it before.
    pub fn give(&mut self, prefix: MobileNetworkPrefix, owner: Arc<Registration>) {
        let (length, network) = parts(prefix);
        let at = match self.place(length) {
            Ok(at) => at,
            Err(at) => {
                self.lengths.insert(at, (length, SharedIndex::default()));
                at
            }
        };
        self.lengths[at].1.insert(network, owner);
    }

    /// Whether a prefix is this one's.
    pub fn is_of(&self, prefix: MobileNetworkPrefix, owner: HomeAddress) -> bool {
        let (length, network) = parts(prefix);
        let owners = self.place(length).ok().map(|at| &self.lengths[at].1);
        let found = owners.and_then(|owners| owners.get(&network));
        found.is_some_and(|found| found.home_address == owner)
    }

    /// Takes a prefix from its owner; one that has become another's stays that one's.
    pub fn take(&mut self, prefix: MobileNetworkPrefix, owner: HomeAddress) {
        if !self.is_of(prefix, owner) {
            return;
        }
        let (length, network) = parts(prefix);
        let Ok(at) = self.place(length) else { return };
        self.lengths[at].1.remove(&network);
        if self.lengths[at].1.is_empty() {
            self.lengths.remove(at);
        }
    }

    fn place(&self, length: u8) -> Result<usize, usize> {
        self.lengths.binary_search_by(|(known, _)| length.cmp(known))
    }
}

fn parts(prefix: MobileNetworkPrefix) -> (u8, Ipv6Addr) {
    let net = prefix.net();
    (net.prefix_len(), net.addr())
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_answers_as_in_the_tree() {
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        // Few bits that differ, so that prefixes nest and recur.
        let mut address = move || u128::from(next() & 0xff) << 56 | u128::from(next() & 0xf) << 120;
        let (mut owners, mut tree) = (PrefixOwners::default(), mtun_policy::PrefixTable::new());
        for step in 0..4_000_u32 {
            let length = [0, 4, 56, 60, 64, 66, 72, 128][step as usize % 8];
            let net = ipnet::Ipv6Net::new(address().into(), length).unwrap().trunc();
            let prefix = MobileNetworkPrefix::new(net).unwrap();
            let owner = HomeAddress(u128::from(step % 97).into());
            if step % 3 == 0 {
                owners.take(prefix, owner);
                if tree.exact(net) == Some(&owner) {
                    tree.remove(net);
                }
            } else {
                owners.give(prefix, registration(owner));
                tree.insert(net, owner).unwrap();
            }
            let asked = Ipv6Addr::from(address());
            let want = tree.longest_match(asked).map(|(_, owner)| *owner);
            let found = owners.longest_match(asked).map(|owner| owner.home_address);
            assert_eq!(found, want, "{asked} after {step} steps");
        }
        let held: usize = owners.lengths.iter().map(|(_, index)| index.len()).sum();
        assert_eq!(held, tree.len());
    }

    fn registration(home_address: HomeAddress) -> Arc<Registration> {
        let (home, peer) = (mtun_policy::HomeName::new("home"), Ipv6Addr::UNSPECIFIED);
        let (none, rules) = (Vec::new(), Arc::default());
        Arc::new(Registration::new(home, home_address, none, peer, Vec::new(), rules))
    }
}
