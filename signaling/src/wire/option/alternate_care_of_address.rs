//! Alternate Care-of Address option.

use std::net::Ipv6Addr;

use crate::error::WrongLength;

/// The care-of address to bind instead of the packet's source (RFC 6275 §6.2.5).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 3    |  Length = 16  |
/// +-------------------------------+---------------+---------------+
/// |                                                               |
/// +                   Alternate Care-of Address                   +
/// |                        (16 octets)                            |
/// +---------------------------------------------------------------+
/// ```
///
/// Never together with a Binding Identifier option (RFC 5648 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateCareOfAddress {
    /// The address.
    pub address: Ipv6Addr,
}

impl AlternateCareOfAddress {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let octets: [u8; 16] = data.try_into().map_err(|_| WrongLength(data.len()))?;
        Ok(Self { address: octets.into() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.address.octets());
    }
}
