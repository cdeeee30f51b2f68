//! Mobility Header Link-Layer Address option.

use crate::error::WrongLength;
use crate::wire::iana::link_layer_address_code;

/// Tells a link-layer address (RFC 5568 §6.4.4).
///
/// ```text
/// +---------------+---------------+---------------+---------------+
/// |   Type = 7    |    Length     |  Option-Code  |    LLA ...
/// +---------------+---------------+---------------+---------------+
/// ```
///
/// In a home binding the mobile says by it where on the home link its packets go, because it may
/// not be asked by neighbour discovery (RFC 5648 §5.6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLayerAddress {
    /// Whose address it is, see [`link_layer_address_code`].
    pub code: u8,
    /// The address, of any length.
    pub address: Vec<u8>,
}

impl LinkLayerAddress {
    /// The address of a mobile node.
    pub fn of_mobile(address: impl Into<Vec<u8>>) -> Self {
        Self { code: link_layer_address_code::MOBILE_NODE, address: address.into() }
    }

    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (&code, address) = data.split_first().ok_or(WrongLength(0))?;
        Ok(Self { code, address: address.to_vec() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.code);
        out.extend_from_slice(&self.address);
    }
}
