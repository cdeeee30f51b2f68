//! Binding Acknowledgement message.

use super::common::Reader;
use super::iana::ba_flag;
use super::option::{self, Options};
use super::status::{Lifetime, Status};
use crate::error::{DecodeError, EncodeError};

/// Tells a mobile what became of its Binding Update (RFC 6275 §6.1.8).
///
/// ```text
///                                 +---------------+-+-+-----------+
///                                 |    Status     |K|R| Reserved  |
/// +-------------------------------+---------------+-+-+-----------+
/// |          Sequence #           |           Lifetime            |
/// +-------------------------------+-------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
///
/// R is from RFC 3963 §4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingAcknowledgement {
    /// Outcome; Binding Identifier options may override it, each for its own binding.
    pub status: Status,
    /// K: the protocol that made the keys survives movement.
    pub key_mobility: bool,
    /// R: forwarding for the mobile router is set up.
    pub router: bool,
    /// Copied from the Binding Update; with status 135 the last accepted number instead.
    pub sequence: u16,
    /// Granted lifetime.
    pub lifetime: Lifetime,
    /// Mobility options.
    pub options: Options,
}

impl BindingAcknowledgement {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 12;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::after_checksum(message);
        let [status, flags] = reader.take()?;
        let sequence = reader.take_u16()?;
        let lifetime = Lifetime(reader.take_u16()?);
        Ok(Self {
            status: Status(status),
            key_mobility: flags & ba_flag::KEY_MOBILITY != 0,
            router: flags & ba_flag::ROUTER != 0,
            sequence,
            lifetime,
            options: option::parse(message, Self::OPTIONS)?,
        })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let key_mobility = if self.key_mobility { ba_flag::KEY_MOBILITY } else { 0 };
        let router = if self.router { ba_flag::ROUTER } else { 0 };
        out.extend_from_slice(&[self.status.0, key_mobility | router]);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.lifetime.0.to_be_bytes());
        option::emit(&self.options, out)
    }
}
