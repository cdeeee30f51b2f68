//! Nonce Indices option.

use crate::error::WrongLength;

/// Which nonces of the correspondent made the tokens in use (RFC 6275 §6.2.6).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 4    |  Length = 4   |
/// +-------------------------------+---------------+---------------+
/// |       Home Nonce Index        |     Care-of Nonce Index       |
/// +-------------------------------+-------------------------------+
/// ```
///
/// Only in a Binding Update to a correspondent, never with the H flag (RFC 6275 §9.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceIndices {
    /// From the Home Test.
    pub home: u16,
    /// From the Care-of Test; ignored when de-registering.
    pub care_of: u16,
}

impl NonceIndices {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let [h0, h1, c0, c1]: [u8; 4] = data.try_into().map_err(|_| WrongLength(data.len()))?;
        Ok(Self { home: u16::from_be_bytes([h0, h1]), care_of: u16::from_be_bytes([c0, c1]) })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.home.to_be_bytes());
        out.extend_from_slice(&self.care_of.to_be_bytes());
    }
}
