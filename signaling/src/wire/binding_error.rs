//! Binding Error message.

use std::net::Ipv6Addr;

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Says that a Home Address option or a message was not understood (RFC 6275 §6.1.9).
///
/// ```text
///                                 +---------------+---------------+
///                                 |    Status     |   Reserved    |
/// +-------------------------------+---------------+---------------+
/// |                                                               |
/// +                         Home Address                          +
/// |                          (16 octets)                          |
/// +---------------------------------------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingError {
    /// 1: no binding for the home address; 2: unrecognized MH Type.
    pub status: u8,
    /// From the Home Address option of the packet complained about, else unspecified.
    pub home_address: Ipv6Addr,
    /// Mobility options.
    pub options: Options,
}

impl BindingError {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 24;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::after_checksum(message);
        let [status, _reserved] = reader.take()?;
        let home_address: [u8; 16] = reader.take()?;
        let options = option::parse(message, Self::OPTIONS)?;
        Ok(Self { status, home_address: home_address.into(), options })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&[self.status, 0]);
        out.extend_from_slice(&self.home_address.octets());
        option::emit(&self.options, out)
    }
}
