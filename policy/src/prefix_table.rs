//! Values by address prefix, found by longest match.
//!
//! A home address is a mobile network prefix of length 128, so this one table answers for hosts
//! and for networks, in the binding update list and in the binding cache. It holds both families;
//! they never match each other. The tree beneath masks addresses silently, and two prefixes that
//! differ only in host bits would become one; here such a prefix is refused instead.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use treebitmap::IpLookupTable;

/// A prefix with bits set beyond its length, as in `2001:db8::1/64`; holds the prefix meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host bits are set beyond the prefix length; {meant} has none")]
pub struct HostBits {
    /// The same prefix with the host bits cleared.
    pub meant: IpNet,
}

/// Values by prefix; the longest prefix that holds an address answers for it.
pub struct PrefixTable<V> {
    v6: IpLookupTable<std::net::Ipv6Addr, V>,
    v4: IpLookupTable<std::net::Ipv4Addr, V>,
}

impl<V> PrefixTable<V> {
    /// A table without prefixes.
    pub fn new() -> Self {
        Self { v6: IpLookupTable::new(), v4: IpLookupTable::new() }
    }

    /// Puts `value` at `prefix` and returns the value that was there.
    pub fn insert(&mut self, prefix: impl Into<IpNet>, value: V) -> Result<Option<V>, HostBits> {
        Ok(match without_host_bits(prefix.into())? {
            IpNet::V6(net) => self.v6.insert(net.addr(), net.prefix_len().into(), value),
            IpNet::V4(net) => self.v4.insert(net.addr(), net.prefix_len().into(), value),
        })
    }

    /// Takes exactly `prefix` out again; `None` if it is not in the table.
    pub fn remove(&mut self, prefix: impl Into<IpNet>) -> Option<V> {
        match without_host_bits(prefix.into()).ok()? {
            IpNet::V6(net) => self.v6.remove(net.addr(), net.prefix_len().into()),
            IpNet::V4(net) => self.v4.remove(net.addr(), net.prefix_len().into()),
        }
    }

    /// The value at exactly `prefix`.
    pub fn exact(&self, prefix: impl Into<IpNet>) -> Option<&V> {
        match without_host_bits(prefix.into()).ok()? {
            IpNet::V6(net) => self.v6.exact_match(net.addr(), net.prefix_len().into()),
            IpNet::V4(net) => self.v4.exact_match(net.addr(), net.prefix_len().into()),
        }
    }

    /// The value at exactly `prefix`, to be changed in place.
    pub fn exact_mut(&mut self, prefix: impl Into<IpNet>) -> Option<&mut V> {
        match without_host_bits(prefix.into()).ok()? {
            IpNet::V6(net) => self.v6.exact_match_mut(net.addr(), net.prefix_len().into()),
            IpNet::V4(net) => self.v4.exact_match_mut(net.addr(), net.prefix_len().into()),
        }
    }

    /// The longest prefix that holds `address`, and its value.
    pub fn longest_match(&self, address: impl Into<IpAddr>) -> Option<(IpNet, &V)> {
        match address.into() {
            IpAddr::V6(address) => {
                let (net, length, value) = self.v6.longest_match(address)?;
                Some((v6_net(net, length), value))
            }
            IpAddr::V4(address) => {
                let (net, length, value) = self.v4.longest_match(address)?;
                Some((v4_net(net, length), value))
            }
        }
    }

    /// Every prefix and its value, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v6 = self.v6.iter().map(|(net, length, value)| (v6_net(net, length), value));
        let v4 = self.v4.iter().map(|(net, length, value)| (v4_net(net, length), value));
        v6.chain(v4)
    }

    /// How many prefixes the table holds.
    pub fn len(&self) -> usize {
        self.v6.len() + self.v4.len()
    }

    /// Whether the table holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Clone> Clone for PrefixTable<V> {
    fn clone(&self) -> Self {
        self.iter().map(|(prefix, value)| (prefix, value.clone())).collect()
    }
}

impl<V: fmt::Debug> fmt::Debug for PrefixTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(prefix, value)| (prefix.to_string(), value)))
            .finish()
    }
}

/// Collects prefixes; host bits are cleared, and of equal prefixes the last one stays.
impl<V> FromIterator<(IpNet, V)> for PrefixTable<V> {
    fn from_iter<I: IntoIterator<Item = (IpNet, V)>>(pairs: I) -> Self {
        let mut table = Self::new();
        for (prefix, value) in pairs {
            table.insert(prefix.trunc(), value).expect("truncated, so it has no host bits");
        }
        table
    }
}

fn without_host_bits(prefix: IpNet) -> Result<IpNet, HostBits> {
    let meant = prefix.trunc();
    if meant == prefix { Ok(prefix) } else { Err(HostBits { meant }) }
}

fn v6_net(address: std::net::Ipv6Addr, length: u32) -> IpNet {
    let length = u8::try_from(length).expect("the tree is at most 128 levels deep");
    Ipv6Net::new(address, length).expect("the tree is at most 128 levels deep").into()
}

fn v4_net(address: std::net::Ipv4Addr, length: u32) -> IpNet {
    let length = u8::try_from(length).expect("the tree is at most 32 levels deep");
    Ipv4Net::new(address, length).expect("the tree is at most 32 levels deep").into()
}
