//! Flow Summary option.

use crate::error::WrongLength;

/// Names flow bindings that stay as they are (RFC 6089 §4.2.2).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 44   |    Length     |
/// +-------------------------------+---------------+---------------+
/// |              FID              |              FID …            :
/// +-------------------------------+-------------------------------+
/// ```
///
/// Holds the numbers as they are: one that nobody has, the reserved zero as well, is answered with
/// status 132.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSummary {
    /// The flow identifiers, one to [`Self::MOST`].
    pub flows: Vec<u16>,
}

impl FlowSummary {
    /// Most identifiers in one option (RFC 6089 §5.2.3).
    pub const MOST: usize = 127;

    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (flows, rest) = data.as_chunks::<2>();
        if flows.is_empty() || !rest.is_empty() {
            return Err(WrongLength(data.len()));
        }
        Ok(Self { flows: flows.iter().map(|flow| u16::from_be_bytes(*flow)).collect() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.flows.iter().flat_map(|flow| flow.to_be_bytes()));
    }
}
