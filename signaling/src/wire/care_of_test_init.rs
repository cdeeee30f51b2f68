//! Care-of Test Init message.

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Asks a correspondent for a care-of keygen token (RFC 6275 §6.1.4).
///
/// ```text
///                                 +-------------------------------+
///                                 |           Reserved            |
/// +-------------------------------+-------------------------------+
/// |                                                               |
/// +                             Care-of Init Cookie               +
/// |                                                               |
/// +---------------------------------------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CareOfTestInit {
    /// Random value that ties the answer to this request.
    pub cookie: [u8; 8],
    /// Mobility options; a Binding Identifier names the care-of address tested (RFC 5648 §4.3).
    pub options: Options,
}

impl CareOfTestInit {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 16;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::after_checksum(message);
        let _reserved: [u8; 2] = reader.take()?;
        let cookie = reader.take()?;
        Ok(Self { cookie, options: option::parse(message, Self::OPTIONS)? })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.cookie);
        option::emit(&self.options, out)
    }
}
