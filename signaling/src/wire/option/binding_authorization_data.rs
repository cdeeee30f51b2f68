//! Binding Authorization Data option.

use crate::error::WrongLength;

/// Shows that the sender passed return routability (RFC 6275 §6.2.7).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 5    |    Length     |
/// +-------------------------------+---------------+---------------+
/// |                                                               |
/// +                         Authenticator                         +
/// |               (12 octets with return routability)             |
/// +---------------------------------------------------------------+
/// ```
///
/// The last option of its message, with no padding behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingAuthorizationData {
    /// The keyed hash, as received or to be sent.
    pub authenticator: Vec<u8>,
}

impl BindingAuthorizationData {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        if data.is_empty() {
            return Err(WrongLength(0));
        }
        Ok(Self { authenticator: data.to_vec() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.authenticator);
    }
}
