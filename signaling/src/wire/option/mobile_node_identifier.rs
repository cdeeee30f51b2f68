//! Mobile Node Identifier option.

use crate::error::WrongLength;
use crate::wire::iana::identifier_subtype;

/// Names the mobile by something other than its home address (RFC 4283 §3).
///
/// ```text
///                 +---------------+---------------+---------------+
///                 |   Type = 8    |    Length     |    Subtype    |
/// +---------------+---------------+---------------+---------------+
/// |                          Identifier                           :
/// +---------------------------------------------------------------+
/// ```
///
/// Stands before any authentication option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MobileNodeIdentifier {
    /// What kind of identifier follows; 1 is a network access identifier.
    pub subtype: u8,
    /// The identifier's octets, in no way checked.
    pub identifier: Vec<u8>,
}

impl MobileNodeIdentifier {
    /// A network access identifier, `user@realm`.
    pub fn nai(text: &str) -> Self {
        Self { subtype: identifier_subtype::NAI, identifier: text.as_bytes().to_vec() }
    }

    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (&subtype, identifier) = data.split_first().ok_or(WrongLength(0))?;
        Ok(Self { subtype, identifier: identifier.to_vec() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.subtype);
        out.extend_from_slice(&self.identifier);
    }
}
