//! Mobility message replay protection option.

use crate::error::WrongLength;
use crate::time::NtpTime;

/// Says when the message was made, so that a copy of it can be told (RFC 4285 §6).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 10   |  Length = 8   |
/// +-------------------------------+---------------+---------------+
/// |                                                               |
/// +                          Timestamp                            +
/// |                                                               |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// The sender's time of day.
    pub timestamp: NtpTime,
}

impl MessageId {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let octets: [u8; 8] = data.try_into().map_err(|_| WrongLength(data.len()))?;
        Ok(Self { timestamp: NtpTime(u64::from_be_bytes(octets)) })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.0.to_be_bytes());
    }
}
