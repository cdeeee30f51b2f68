//! Binding Identifier option.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mtun_policy::{Bid, CareOfAddress};

use crate::error::WrongLength;
use crate::wire::iana::bid_flag;
use crate::wire::status::Status;

/// Names one of several care-of addresses (RFC 5648 §4.3, RFC 6089 §4.1).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 35   |    Length     |
/// +-------------------------------+---------------+-+-------------+
/// |       Binding ID (BID)        |    Status     |H|   BID-PRI   |
/// +-------------------------------+---------------+-+-------------+
/// :         care-of address: absent, 4 octets or 16 octets        :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingIdentifier {
    /// The number; `None` stands for the reserved zero, which is answered with status 164.
    pub bid: Option<Bid>,
    /// Outcome for this binding; only read in Binding Acknowledgements and Care-of Tests, where
    /// zero means "as the message's own status says".
    pub status: Status,
    /// H: registered from home and from abroad at once.
    pub home: bool,
    /// BID-PRI, 0 to 127; the lowest is the preferred binding. Zero when the sender has no opinion.
    pub priority: u8,
    /// The address; absent in refreshes and in everything that is no Binding Update.
    pub care_of: Option<CareOfAddress>,
}

impl BindingIdentifier {
    /// A bare option as acknowledgements and address-less refreshes carry it.
    pub fn new(bid: Bid) -> Self {
        Self { bid: Some(bid), status: Status::ACCEPTED, home: false, priority: 0, care_of: None }
    }

    /// Octets of data that the option has on the wire.
    pub fn data_len(&self) -> usize {
        4 + match self.care_of {
            None => 0,
            Some(CareOfAddress(IpAddr::V4(_))) => 4,
            Some(CareOfAddress(IpAddr::V6(_))) => 16,
        }
    }

    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (&[b0, b1, status, flags], rest) =
            data.split_first_chunk::<4>().ok_or(WrongLength(data.len()))?;
        let care_of = if rest.is_empty() {
            None
        } else if let Ok(octets) = <[u8; 4]>::try_from(rest) {
            Some(CareOfAddress(Ipv4Addr::from(octets).into()))
        } else if let Ok(octets) = <[u8; 16]>::try_from(rest) {
            Some(CareOfAddress(Ipv6Addr::from(octets).into()))
        } else {
            return Err(WrongLength(data.len()));
        };
        Ok(Self {
            bid: Bid::new(u16::from_be_bytes([b0, b1])),
            status: Status(status),
            home: flags & bid_flag::HOME != 0,
            priority: flags & bid_flag::PRIORITY,
            care_of,
        })
    }

    /// Appends the option's data.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bid.map_or(0, Bid::get).to_be_bytes());
        let home = if self.home { bid_flag::HOME } else { 0 };
        out.extend_from_slice(&[self.status.0, home | self.priority & bid_flag::PRIORITY]);
        match self.care_of {
            None => {}
            Some(CareOfAddress(IpAddr::V4(address))) => out.extend_from_slice(&address.octets()),
            Some(CareOfAddress(IpAddr::V6(address))) => out.extend_from_slice(&address.octets()),
        }
    }
}
