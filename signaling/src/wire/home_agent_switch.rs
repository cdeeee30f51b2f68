//! Home Agent Switch message.

use std::net::Ipv6Addr;

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Tells a mobile to go to another home agent (RFC 5142 §4).
///
/// ```text
///                                 +---------------+---------------+
///                                 |# of Addresses |   Reserved    |
/// +-------------------------------+---------------+---------------+
/// :                      Home Agent Addresses                     :
/// +---------------------------------------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HomeAgentSwitch {
    /// Where to go, most preferred first; none for whomever discovery finds.
    pub agents: Vec<Ipv6Addr>,
    /// Mobility options.
    pub options: Options,
}

impl HomeAgentSwitch {
    /// Offset of the first address in the Mobility Header.
    const ADDRESSES: usize = 8;

    /// Offset of the options of this message; `None` if it is too short to say.
    pub fn options_at(message: &[u8]) -> Option<usize> {
        let count = message.get(Self::ADDRESSES - 2)?;
        Some(Self::ADDRESSES + 16 * usize::from(*count))
    }

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::after_checksum(message);
        let [count, _reserved] = fields.take()?;
        let agents = (0..count).map(|_| fields.take::<16>().map(Ipv6Addr::from));
        let agents = agents.collect::<Result<_, _>>()?;
        let options = Self::ADDRESSES + 16 * usize::from(count);
        Ok(Self { agents, options: option::parse(message, options)? })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = u8::try_from(self.agents.len())
            .map_err(|_| EncodeError::MessageTooLong(Self::ADDRESSES + 16 * self.agents.len()))?;
        out.extend_from_slice(&[count, 0]);
        out.extend(self.agents.iter().flat_map(|agent| agent.octets()));
        option::emit(&self.options, out)
    }
}
