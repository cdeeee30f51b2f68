//! Vendor Specific option.

use crate::error::WrongLength;

/// An option whose meaning one vendor defines (RFC 5094 §3). Whoever does not know the vendor
/// skips it.
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 19   |    Length     |
/// +-------------------------------+---------------+---------------+
/// |                           Vendor ID                           |
/// +---------------+---------------+-------------------------------+
/// |   Sub-Type    |             Data …                            :
/// +---------------+-----------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorSpecific {
    /// Private enterprise number of the vendor.
    pub vendor: u32,
    /// What the data is, by the vendor's numbering.
    pub sub_type: u8,
    /// The vendor's data.
    pub data: Vec<u8>,
}

impl VendorSpecific {
    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (&[v0, v1, v2, v3, sub_type], rest) =
            data.split_first_chunk::<5>().ok_or(WrongLength(data.len()))?;
        let vendor = u32::from_be_bytes([v0, v1, v2, v3]);
        Ok(Self { vendor, sub_type, data: rest.to_vec() })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.vendor.to_be_bytes());
        out.push(self.sub_type);
        out.extend_from_slice(&self.data);
    }
}
