//! Binding Refresh Advice option.

use crate::error::WrongLength;

/// When the home agent would like to hear from the mobile again (RFC 6275 §6.2.4).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 2    |  Length = 2   |
/// +-------------------------------+---------------+---------------+
/// |       Refresh Interval        |
/// +-------------------------------+
/// ```
///
/// Only in a Binding Acknowledgement of a home registration, and below its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRefreshAdvice {
    /// In units of four seconds.
    pub refresh_interval: u16,
}

impl BindingRefreshAdvice {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let interval: [u8; 2] = data.try_into().map_err(|_| WrongLength(data.len()))?;
        Ok(Self { refresh_interval: u16::from_be_bytes(interval) })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.refresh_interval.to_be_bytes());
    }
}
