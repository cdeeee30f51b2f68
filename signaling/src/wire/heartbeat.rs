//! Heartbeat message.

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Asks a peer whether it is there, or answers (RFC 5847 §3.3).
///
/// ```text
///                                 +---------------------------+-+-+
///                                 |         Reserved          |U|R|
/// +-------------------------------+---------------------------+-+-+
/// |                        Sequence Number                        |
/// +---------------------------------------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// R: answers a request.
    pub response: bool,
    /// U: an answer that nobody asked for, after a restart.
    pub unsolicited: bool,
    /// That of the request.
    pub sequence: u32,
    /// Mobility options; a response carries the Restart Counter.
    pub options: Options,
}

impl Heartbeat {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 12;
    const RESPONSE: u16 = 0x0001;
    const UNSOLICITED: u16 = 0x0002;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::after_checksum(message);
        let flags = fields.take_u16()?;
        let sequence = u32::from_be_bytes(fields.take()?);
        Ok(Self {
            response: flags & Self::RESPONSE != 0,
            unsolicited: flags & Self::UNSOLICITED != 0,
            sequence,
            options: option::parse(message, Self::OPTIONS)?,
        })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let flags = flag(self.response, Self::RESPONSE) | flag(self.unsolicited, Self::UNSOLICITED);
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        option::emit(&self.options, out)
    }
}
