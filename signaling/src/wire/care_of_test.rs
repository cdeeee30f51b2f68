//! Care-of Test message.

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Brings a care-of keygen token to the care-of address (RFC 6275 §6.1.6).
///
/// ```text
///                                 +-------------------------------+
///                                 |      Care-of Nonce Index      |
/// +-------------------------------+-------------------------------+
/// |                                                               |
/// +                             Care-of Init Cookie               +
/// |                                                               |
/// +---------------------------------------------------------------+
/// |                                                               |
/// +                             Care-of Keygen Token              +
/// |                                                               |
/// +---------------------------------------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CareOfTest {
    /// Which nonce of the correspondent made the token.
    pub nonce_index: u16,
    /// Copied from the request.
    pub cookie: [u8; 8],
    /// The care-of keygen token.
    pub token: [u8; 8],
    /// Mobility options; a Binding Identifier copied from the request (RFC 5648 §4.3).
    pub options: Options,
}

impl CareOfTest {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 24;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::after_checksum(message);
        let nonce_index = reader.take_u16()?;
        let cookie = reader.take()?;
        let token = reader.take()?;
        let options = option::parse(message, Self::OPTIONS)?;
        Ok(Self { nonce_index, cookie, token, options })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.nonce_index.to_be_bytes());
        out.extend_from_slice(&self.cookie);
        out.extend_from_slice(&self.token);
        option::emit(&self.options, out)
    }
}
