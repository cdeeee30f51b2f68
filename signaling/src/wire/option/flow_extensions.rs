//! What two of our own ends agree on beyond RFC 6089, in a Vendor Specific option.

use super::VendorSpecific;
use crate::flow::FlowDigest;
use crate::wire::iana::vendor;

/// In a Binding Update what the mobile asks for; in its acknowledgement what the agent grants, and
/// the digest of the flow bindings that it holds from here on.
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 19   |    Length     |
/// +-------------------------------+---------------+---------------+
/// |                       Vendor ID = 32473                       |
/// +---------------+-+-+-+---------+-------------------------------+
/// | Sub-Type = 1  |R|C|D| Reserved|     Number, present with D    |
/// +---------------+-+-+-+---------+-------------------------------+
/// |                                                               |
/// +                    Digest, present with D                     +
/// |                                                               |
/// +---------------------------------------------------------------+
/// ```
///
/// R: the downlink of a flow follows its last verified uplink. C: copies carry a sequence, and the
/// receiver removes duplicates. Whoever skips the option does neither, and nothing else changes.
/// Octets behind the digest are left to later versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowExtensions {
    /// R.
    pub reflect: bool,
    /// C.
    pub copies: bool,
    /// Number and digest of the sender's flow bindings.
    pub digest: Option<FlowDigest>,
}

impl FlowExtensions {
    /// Reads it from the option that carries it; `None` for another vendor's option, another
    /// sub-type, and fewer octets than the flags announce.
    pub fn of(option: &VendorSpecific) -> Option<Self> {
        if (option.vendor, option.sub_type) != (vendor::ID, vendor::FLOW_EXTENSIONS) {
            return None;
        }
        let (&flags, rest) = option.data.split_first()?;
        let digest = if flags & vendor::DIGEST != 0 {
            let (number, rest) = rest.split_first_chunk::<2>()?;
            let octets = *rest.first_chunk::<8>()?;
            Some(FlowDigest { number: u16::from_be_bytes(*number), octets })
        } else {
            None
        };
        let (reflect, copies) = (flags & vendor::REFLECT != 0, flags & vendor::COPIES != 0);
        Some(Self { reflect, copies, digest })
    }
}

impl From<FlowExtensions> for VendorSpecific {
    fn from(extensions: FlowExtensions) -> Self {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let mut data = vec![
            flag(extensions.reflect, vendor::REFLECT)
                | flag(extensions.copies, vendor::COPIES)
                | flag(extensions.digest.is_some(), vendor::DIGEST),
        ];
        if let Some(digest) = extensions.digest {
            data.extend_from_slice(&digest.number.to_be_bytes());
            data.extend_from_slice(&digest.octets);
        }
        Self { vendor: vendor::ID, sub_type: vendor::FLOW_EXTENSIONS, data }
    }
}
