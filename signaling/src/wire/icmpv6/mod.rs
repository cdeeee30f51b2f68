//! The ICMPv6 messages of Mobile IPv6 (RFC 6275 §6.5 to §6.8): discovery of home agents and of
//! home prefixes. Those of a home link, between neighbours, are in [`neighbour_discovery`].
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |     Type      |   Code = 0    |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |          Identifier           |       flags, Reserved         |
//! +-------------------------------+-------------------------------+
//! :                 addresses or options, by type                 :
//! ```
//!
//! As with the Mobility Header, `parse` and `emit` are each other's inverse, reserved bits are
//! ignored when read and zero when written, nothing panics on any input, and nothing decides
//! whether a message is believed.

mod home_agent_address_discovery;
mod mobile_prefix;
pub mod neighbour_discovery;
mod prefix_information;

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use thiserror::Error;

pub use home_agent_address_discovery::{
    HomeAgentAddressDiscoveryReply, HomeAgentAddressDiscoveryRequest,
};
pub use mobile_prefix::{MobilePrefixAdvertisement, MobilePrefixSolicitation};
pub use prefix_information::PrefixInformation;

use super::checksum::{internet_checksum, is_same};
use super::iana::icmpv6;
use crate::machine::Envelope;

/// Octets before addresses or options.
const FIXED: usize = 8;
/// Offset of the checksum.
const CHECKSUM: usize = 2;
/// The longest message that is read: what fits into the least MTU (RFC 6275 §10.5.1).
const MAX_MESSAGE: usize = 1280 - 40;

/// Why octets are none of these messages. None of them is owed an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum IcmpError {
    /// The checksum does not fit the message and its addresses.
    #[error("wrong checksum")]
    Checksum,
    /// Fewer octets than the message needs, or more than one may have; holds how many.
    #[error("a message of {0} octets")]
    Length(usize),
    /// Another ICMPv6 type.
    #[error("ICMPv6 type {0}")]
    Type(u8),
    /// A code other than zero.
    #[error("code {0}")]
    Code(u8),
    /// A neighbour discovery message that some router has forwarded; holds its hop limit.
    #[error("hop limit {0}")]
    HopLimit(u8),
    /// Addresses that a neighbour discovery message cannot have.
    #[error("impossible addresses")]
    Addresses,
    /// An option that runs past the end, or has no length.
    #[error("option at offset {0} with a wrong length")]
    Option(usize),
}

/// One of the four messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IcmpMessage {
    /// Type 144.
    HomeAgentAddressDiscoveryRequest(HomeAgentAddressDiscoveryRequest),
    /// Type 145.
    HomeAgentAddressDiscoveryReply(HomeAgentAddressDiscoveryReply),
    /// Type 146.
    MobilePrefixSolicitation(MobilePrefixSolicitation),
    /// Type 147.
    MobilePrefixAdvertisement(MobilePrefixAdvertisement),
}

impl IcmpMessage {
    /// The ICMPv6 type.
    pub fn kind(&self) -> u8 {
        match self {
            Self::HomeAgentAddressDiscoveryRequest(_) => {
                icmpv6::HOME_AGENT_ADDRESS_DISCOVERY_REQUEST
            }
            Self::HomeAgentAddressDiscoveryReply(_) => icmpv6::HOME_AGENT_ADDRESS_DISCOVERY_REPLY,
            Self::MobilePrefixSolicitation(_) => icmpv6::MOBILE_PREFIX_SOLICITATION,
            Self::MobilePrefixAdvertisement(_) => icmpv6::MOBILE_PREFIX_ADVERTISEMENT,
        }
    }
}

/// The anycast address of the home agents of a link (RFC 2526 §2).
///
/// Interface identifiers of 64 bits leave the universal bit zero, others are all ones; the last
/// seven bits are the anycast identifier 126.
pub fn home_agents_anycast(home_prefix: Ipv6Net) -> Ipv6Addr {
    let host = home_prefix.hostmask().to_bits();
    let mut identifier = host & !1;
    if home_prefix.prefix_len() == 64 {
        identifier &= !(0x0200 << 48);
    }
    Ipv6Addr::from(home_prefix.network().to_bits() | identifier)
}

/// Reads a received message: the checksum first, then all of [`parse`].
pub fn receive(envelope: &Envelope, message: &[u8]) -> Result<IcmpMessage, IcmpError> {
    let field = message.get(CHECKSUM..).and_then(|rest| rest.first_chunk::<2>());
    let field = field.copied().map(u16::from_be_bytes).ok_or(IcmpError::Length(message.len()))?;
    let sum = checksum(envelope.upper_source(), envelope.upper_destination(), message);
    if !is_same(field, sum) {
        return Err(IcmpError::Checksum);
    }
    parse(message)
}

/// Reads a message that begins at its type and ends where the packet ends.
pub fn parse(message: &[u8]) -> Result<IcmpMessage, IcmpError> {
    let length = message.len();
    let (&[kind, code, _, _, id0, id1, b6, _], rest) =
        message.split_first_chunk::<FIXED>().ok_or(IcmpError::Length(length))?;
    if length > MAX_MESSAGE {
        return Err(IcmpError::Length(length));
    }
    let identifier = u16::from_be_bytes([id0, id1]);
    let message = match kind {
        icmpv6::HOME_AGENT_ADDRESS_DISCOVERY_REQUEST => {
            IcmpMessage::HomeAgentAddressDiscoveryRequest(HomeAgentAddressDiscoveryRequest::read(
                identifier, b6,
            ))
        }
        icmpv6::HOME_AGENT_ADDRESS_DISCOVERY_REPLY => IcmpMessage::HomeAgentAddressDiscoveryReply(
            HomeAgentAddressDiscoveryReply::read(identifier, b6, rest)?,
        ),
        icmpv6::MOBILE_PREFIX_SOLICITATION => {
            IcmpMessage::MobilePrefixSolicitation(MobilePrefixSolicitation::read(identifier, rest)?)
        }
        icmpv6::MOBILE_PREFIX_ADVERTISEMENT => IcmpMessage::MobilePrefixAdvertisement(
            MobilePrefixAdvertisement::read(identifier, b6, rest)?,
        ),
        other => return Err(IcmpError::Type(other)),
    };
    if code != 0 {
        return Err(IcmpError::Code(code));
    }
    Ok(message)
}

/// Writes a complete message for the packet that `envelope` describes.
pub fn emit(message: &IcmpMessage, envelope: &Envelope) -> Vec<u8> {
    let mut out = vec![message.kind(), 0, 0, 0];
    match message {
        IcmpMessage::HomeAgentAddressDiscoveryRequest(message) => message.emit(&mut out),
        IcmpMessage::HomeAgentAddressDiscoveryReply(message) => message.emit(&mut out),
        IcmpMessage::MobilePrefixSolicitation(message) => message.emit(&mut out),
        IcmpMessage::MobilePrefixAdvertisement(message) => message.emit(&mut out),
    }
    let sum = checksum(envelope.upper_source(), envelope.upper_destination(), &out);
    out[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    out
}

/// The ICMPv6 checksum (RFC 4443 §2.3) of `message` between these addresses, which are those that
/// upper layers see; the field itself counts as zero.
pub fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    internet_checksum(source, destination, icmpv6::NEXT_HEADER, message, CHECKSUM)
}

/// Walks neighbour discovery options (RFC 4861 §4.6): type, and everything after its two octets.
/// `start` is where they begin in their message.
fn options(octets: &[u8], start: usize) -> impl Iterator<Item = Result<(u8, &[u8]), IcmpError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = octets.get(at..).filter(|rest| !rest.is_empty())?;
        let length = rest.get(1).map_or(0, |&units| usize::from(units) * 8);
        let option = rest.get(..length).and_then(<[u8]>::split_first_chunk::<2>);
        let Some((&[kind, _], data)) = option else {
            let here = start + at;
            at = octets.len();
            return Some(Err(IcmpError::Option(here)));
        };
        at += length;
        Some(Ok((kind, data)))
    })
}
