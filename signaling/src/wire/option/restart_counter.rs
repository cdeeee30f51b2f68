//! Restart Counter option.

use crate::error::WrongLength;

/// Says how often its sender has lost what it held (RFC 5847 §3.4).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 28   |  Length = 4   |
/// +-------------------------------+---------------+---------------+
/// |                        Restart Counter                        |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartCounter {
    /// Another number than before: what was registered is gone.
    pub counter: u32,
}

impl RestartCounter {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let octets: [u8; 4] = data.try_into().map_err(|_| WrongLength(data.len()))?;
        Ok(Self { counter: u32::from_be_bytes(octets) })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.counter.to_be_bytes());
    }
}
