//! Mobile Prefix Solicitation and Advertisement.

use super::{IcmpError, PrefixInformation, options};
use crate::wire::iana::icmpv6;

/// M and O, in the first of the two octets after the identifier (RFC 6275 §6.8).
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;

/// Asks a home agent which prefixes its link has (RFC 6275 §6.7).
///
/// ```text
/// +-------------------------------+-------------------------------+
/// |          Identifier           |           Reserved            |
/// +-------------------------------+-------------------------------+
/// ```
///
/// No option is defined for it, and those that come are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobilePrefixSolicitation {
    /// Ties the advertisement to this solicitation; random.
    pub identifier: u16,
}

impl MobilePrefixSolicitation {
    /// From the fixed part and the options.
    pub(super) fn read(identifier: u16, rest: &[u8]) -> Result<Self, IcmpError> {
        for option in options(rest, super::FIXED) {
            option?;
        }
        Ok(Self { identifier })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identifier.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
    }
}

/// Says which prefixes a home link has (RFC 6275 §6.8).
///
/// ```text
/// +-------------------------------+-+-+---------------------------+
/// |          Identifier           |M|O|         Reserved          |
/// +-------------------------------+-+-+---------------------------+
/// :                  Prefix Information options                   :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MobilePrefixAdvertisement {
    /// Copied from the solicitation.
    pub identifier: u16,
    /// M: addresses by DHCPv6.
    pub managed: bool,
    /// O: other things by DHCPv6.
    pub other: bool,
    /// The prefixes; other options are skipped.
    pub prefixes: Vec<PrefixInformation>,
}

impl MobilePrefixAdvertisement {
    /// From the fixed part and the options.
    pub(super) fn read(identifier: u16, flags: u8, rest: &[u8]) -> Result<Self, IcmpError> {
        let mut prefixes = Vec::new();
        for option in options(rest, super::FIXED) {
            let (kind, data) = option?;
            // req MN-28 (RFC 6275 §6.8): what is not known is skipped.
            if kind == icmpv6::option::PREFIX_INFORMATION {
                let at = super::FIXED;
                prefixes.push(PrefixInformation::parse(data).ok_or(IcmpError::Option(at))?);
            }
        }
        let (managed, other) = (flags & MANAGED != 0, flags & OTHER != 0);
        Ok(Self { identifier, managed, other, prefixes })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let managed = if self.managed { MANAGED } else { 0 };
        let other = if self.other { OTHER } else { 0 };
        out.extend_from_slice(&self.identifier.to_be_bytes());
        out.extend_from_slice(&[managed | other, 0]);
        for prefix in &self.prefixes {
            prefix.emit(out);
        }
    }
}
