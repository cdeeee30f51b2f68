//! Binding Refresh Request message.

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Asks a mobile to send its Binding Update again (RFC 6275 §6.1.2).
///
/// ```text
///                                 +-------------------------------+
///                                 |           Reserved            |
/// +-------------------------------+-------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingRefreshRequest {
    /// Mobility options; Binding Identifiers name the bindings meant (RFC 5648 §6.4).
    pub options: Options,
}

impl BindingRefreshRequest {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 8;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let _reserved: [u8; 2] = Reader::after_checksum(message).take()?;
        Ok(Self { options: option::parse(message, Self::OPTIONS)? })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&[0; 2]);
        option::emit(&self.options, out)
    }
}
