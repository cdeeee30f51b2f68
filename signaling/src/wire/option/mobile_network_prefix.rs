//! Mobile Network Prefix option.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use mtun_policy::MobileNetworkPrefix;

use crate::error::WrongLength;

/// A prefix the mobile router asks the agent to forward to it (RFC 3963 §4.3).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 6    |  Length = 18  |
/// +---------------+---------------+---------------+---------------+
/// |   Reserved    | Prefix Length |                               |
/// +---------------+---------------+                               +
/// |                     Mobile Network Prefix                     |
/// +                          (16 octets)          +---------------+
/// |                                               |
/// +-----------------------------------------------+
/// ```
///
/// Holds what was received, valid or not: an impossible prefix is answered with status 141, once
/// its sender is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobileNetworkPrefixOption {
    /// Prefix Length, 0 to 128 when valid.
    pub prefix_len: u8,
    /// The prefix field.
    pub address: Ipv6Addr,
}

impl MobileNetworkPrefixOption {
    /// The prefix; `None` when the length exceeds 128 or bits beyond the length are set.
    pub fn prefix(&self) -> Option<MobileNetworkPrefix> {
        Ipv6Net::new(self.address, self.prefix_len).ok().and_then(MobileNetworkPrefix::new)
    }

    /// Reads the option's data, the octets after Type and Length. The first is reserved and says
    /// nothing (req NH-07, RFC 3963 §4.3).
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let octets: &[u8; 18] = data.try_into().map_err(|_| WrongLength(data.len()))?;
        let (fixed, address) = octets.split_first_chunk::<2>().expect("18 octets");
        let address: [u8; 16] = address.try_into().expect("18 octets less 2");
        Ok(Self { prefix_len: fixed[1], address: address.into() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0, self.prefix_len]);
        out.extend_from_slice(&self.address.octets());
    }
}

impl From<MobileNetworkPrefix> for MobileNetworkPrefixOption {
    fn from(prefix: MobileNetworkPrefix) -> Self {
        Self { prefix_len: prefix.net().prefix_len(), address: prefix.net().addr() }
    }
}
