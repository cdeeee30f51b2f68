//! Prefix Information option.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::wire::iana::icmpv6::option::PREFIX_INFORMATION;

const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
const ROUTER_ADDRESS: u8 = 0x20;

/// A prefix of a link and its lifetimes (RFC 4861 §4.6.2, RFC 6275 §7.2).
///
/// ```text
/// +---------------+---------------+---------------+-+-+-+---------+
/// |   Type = 3    |  Length = 4   | Prefix Length |L|A|R|Reserved1|
/// +---------------+---------------+---------------+-+-+-+---------+
/// |                        Valid Lifetime                         |
/// +---------------------------------------------------------------+
/// |                      Preferred Lifetime                       |
/// +---------------------------------------------------------------+
/// |                           Reserved2                           |
/// +---------------------------------------------------------------+
/// :                       Prefix, 16 octets                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixInformation {
    /// Prefix Length, up to 128.
    pub prefix_len: u8,
    /// L: on the link.
    pub on_link: bool,
    /// A: for stateless address configuration.
    pub autonomous: bool,
    /// R: `address` is the router's own, complete.
    pub router_address: bool,
    /// Valid Lifetime in seconds; all ones is for ever.
    pub valid: u32,
    /// Preferred Lifetime in seconds; all ones is for ever.
    pub preferred: u32,
    /// Prefix, or the router's address.
    pub address: Ipv6Addr,
}

impl PrefixInformation {
    /// A lifetime that does not end.
    pub const INFINITE: u32 = u32::MAX;

    /// Reads the option's data, the octets after Type and Length; `None` for any that it cannot
    /// have.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let data: &[u8; 30] = data.try_into().ok()?;
        let word = |at: usize| u32::from_be_bytes(*data[at..].first_chunk().expect("30 octets"));
        let [prefix_len, flags] = [data[0], data[1]];
        let address: [u8; 16] = *data[14..].first_chunk().expect("30 octets");
        (prefix_len <= 128).then(|| Self {
            prefix_len,
            on_link: flags & ON_LINK != 0,
            autonomous: flags & AUTONOMOUS != 0,
            router_address: flags & ROUTER_ADDRESS != 0,
            valid: word(2),
            preferred: word(6),
            address: Ipv6Addr::from(address),
        })
    }

    /// Appends the whole option.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let flags = [
            (self.on_link, ON_LINK),
            (self.autonomous, AUTONOMOUS),
            (self.router_address, ROUTER_ADDRESS),
        ];
        let flags: u8 = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
        out.extend_from_slice(&[PREFIX_INFORMATION, 4, self.prefix_len, flags]);
        out.extend_from_slice(&self.valid.to_be_bytes());
        out.extend_from_slice(&self.preferred.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.address.octets());
    }

    /// The prefix, without what the router's address says beyond it.
    pub fn prefix(&self) -> Ipv6Net {
        let net = Ipv6Net::new(self.address, self.prefix_len).unwrap_or_default();
        net.trunc()
    }
}
