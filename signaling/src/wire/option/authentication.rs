//! Mobility message authentication option.

use crate::error::WrongLength;

/// A keyed hash over the message up to the end of this option's SPI (RFC 4285 §5).
///
/// ```text
///                 +---------------+---------------+---------------+
///                 |   Type = 9    |    Length     |    Subtype    |
/// +---------------+---------------+---------------+---------------+
/// |                         Mobility SPI                          |
/// +---------------------------------------------------------------+
/// |                      Authentication Data                      :
/// +---------------------------------------------------------------+
/// ```
///
/// The last option of its message. [`crate::auth`] computes and checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Between whom: 1 mobile node and home agent, 2 mobile node and AAA server.
    pub subtype: u8,
    /// Names the security association.
    pub spi: u32,
    /// The hash, truncated as the association says.
    pub data: Vec<u8>,
}

impl Authentication {
    /// Octets from the option's Type to the end of its SPI: what the hash covers of it.
    pub const COVERED: usize = 7;

    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (fixed, rest) = data.split_first_chunk::<5>().ok_or(WrongLength(data.len()))?;
        let [subtype, spi @ ..] = *fixed;
        Ok(Self { subtype, spi: u32::from_be_bytes(spi), data: rest.to_vec() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.subtype);
        out.extend_from_slice(&self.spi.to_be_bytes());
        out.extend_from_slice(&self.data);
    }
}
