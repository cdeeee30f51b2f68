//! Messages beyond RFC 6275: [`Heartbeat`], [`HomeAgentSwitch`] and [`BindingRevocation`].
//!
//! [`parse`](super::parse) does not know them, so that who has not switched them on answers them as
//! what they are to it: an MH Type that it does not know. Who has, asks [`kind_of`] first.
//!
//! Their RFCs want them protected as home registrations are. Here that is the mobile-home
//! authentication option with a timestamp in front of it (RFC 4285), computed as in a Binding
//! Update: over the care-of address at the mobile's end of the packet, the home address, and the
//! message. RFC 4285 defines the option for Binding Updates and acknowledgements only, so a peer of
//! another make will hardly send it; what it then sends counts as unprotected and changes nothing.

use std::net::Ipv6Addr;

use super::iana::mh;
use super::option::{self, MobilityOption};
use super::{
    BindingRevocation, Heartbeat, HomeAgentSwitch, Options, common, iana, verify_checksum,
};
use crate::auth::{self, AuthFailure, SecurityAssociation, Verified};
use crate::error::{DecodeError, EncodeError};
use crate::machine::Envelope;
use crate::time::NtpTime;
use mtun_policy::HomeAddress;

/// One message beyond RFC 6275.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// MH Type 12.
    HomeAgentSwitch(HomeAgentSwitch),
    /// MH Type 13.
    Heartbeat(Heartbeat),
    /// MH Type 16.
    BindingRevocation(BindingRevocation),
}

/// Which of them a message says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtensionKind {
    /// MH Type 12.
    HomeAgentSwitch,
    /// MH Type 13.
    Heartbeat,
    /// MH Type 16.
    BindingRevocation,
}

/// Which extension a message is, by its MH Type alone.
pub fn kind_of(message: &[u8]) -> Option<ExtensionKind> {
    match *message.get(2)? {
        mh::HOME_AGENT_SWITCH => Some(ExtensionKind::HomeAgentSwitch),
        mh::HEARTBEAT => Some(ExtensionKind::Heartbeat),
        mh::BINDING_REVOCATION => Some(ExtensionKind::BindingRevocation),
        _ => None,
    }
}

impl Extension {
    fn mh_type(&self) -> u8 {
        match self {
            Self::HomeAgentSwitch(_) => mh::HOME_AGENT_SWITCH,
            Self::Heartbeat(_) => mh::HEARTBEAT,
            Self::BindingRevocation(_) => mh::BINDING_REVOCATION,
        }
    }

    /// The mobility options.
    pub fn options(&self) -> &Options {
        match self {
            Self::HomeAgentSwitch(message) => &message.options,
            Self::Heartbeat(message) => &message.options,
            Self::BindingRevocation(message) => &message.options,
        }
    }

    fn options_mut(&mut self) -> &mut Options {
        match self {
            Self::HomeAgentSwitch(message) => &mut message.options,
            Self::Heartbeat(message) => &mut message.options,
            Self::BindingRevocation(message) => &mut message.options,
        }
    }
}

/// Smallest Header Len; `None` for other types.
fn minimum_header_len(mh_type: u8) -> Option<u8> {
    match mh_type {
        mh::HOME_AGENT_SWITCH => Some(0),
        mh::HEARTBEAT | mh::BINDING_REVOCATION => Some(1),
        _ => None,
    }
}

/// Offset of the options; `None` for other types.
pub(crate) fn options_offset(message: &[u8]) -> Option<usize> {
    match kind_of(message)? {
        ExtensionKind::HomeAgentSwitch => HomeAgentSwitch::options_at(message),
        ExtensionKind::Heartbeat => Some(Heartbeat::OPTIONS),
        ExtensionKind::BindingRevocation => Some(BindingRevocation::OPTIONS),
    }
}

/// Reads a received message: the checksum first, then everything else (RFC 6275 §9.2).
pub fn receive(envelope: &Envelope, message: &[u8]) -> Result<Extension, DecodeError> {
    if !verify_checksum(envelope, message) {
        return Err(DecodeError::Checksum);
    }
    parse(message)
}

/// Reads a complete Mobility Header, everything but its checksum.
pub fn parse(message: &[u8]) -> Result<Extension, DecodeError> {
    let mh_type = check_header(message)?;
    Ok(match mh_type {
        mh::HOME_AGENT_SWITCH => Extension::HomeAgentSwitch(HomeAgentSwitch::parse(message)?),
        mh::HEARTBEAT => Extension::Heartbeat(Heartbeat::parse(message)?),
        mh::BINDING_REVOCATION => Extension::BindingRevocation(BindingRevocation::parse(message)?),
        other => return Err(DecodeError::UnrecognizedType(other)),
    })
}

/// Checks the first octets of a message and its length; gives its MH Type.
pub(crate) fn check_header(message: &[u8]) -> Result<u8, DecodeError> {
    super::check_header_by(message, minimum_header_len)
}

/// Writes a complete Mobility Header for the packet that `envelope` describes.
pub fn emit(message: &Extension, envelope: &Envelope) -> Result<Vec<u8>, EncodeError> {
    let mut out = emit_without_checksum(message)?;
    super::fill_checksum(&mut out, envelope);
    Ok(out)
}

/// Writes a complete Mobility Header that ends in a timestamp and a mobile-home authentication
/// option.
pub fn emit_authenticated(
    message: &Extension,
    envelope: &Envelope,
    association: &SecurityAssociation,
    timestamp: NtpTime,
) -> Result<Vec<u8>, EncodeError> {
    let mut message = message.clone();
    let options = message.options_mut();
    options.retain(|option| {
        !matches!(option, MobilityOption::Authentication(_) | MobilityOption::MessageId(_))
    });
    options.push(option::MessageId { timestamp });
    options.push(association.blank_option());
    let mut out = emit_without_checksum(&message)?;
    let (care_of, home_address) = ends(envelope);
    auth::sign(&mut out, care_of, home_address.0, association);
    super::fill_checksum(&mut out, envelope);
    Ok(out)
}

/// Checks the authentication data of a received message, in constant time; its freshness is the
/// machines' business.
pub fn verify(
    message: &[u8],
    envelope: &Envelope,
    association: &SecurityAssociation,
) -> Result<Verified, AuthFailure> {
    let (care_of, home_address) = ends(envelope);
    auth::verify(message, care_of, home_address, association)
}

/// The mobile's end of a packet: its care-of address and its home address.
fn ends(envelope: &Envelope) -> (Ipv6Addr, HomeAddress) {
    match (envelope.home_address, envelope.routing_header) {
        (Some(home), _) => (envelope.source, home),
        (None, Some(home)) => (envelope.destination, home),
        // At home: no header says so, and both ends see the same two addresses.
        (None, None) => (envelope.destination, HomeAddress(envelope.source)),
    }
}

fn emit_without_checksum(message: &Extension) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![iana::PAYLOAD_PROTO_NONE, 0, message.mh_type(), 0, 0, 0];
    debug_assert_eq!(out.len(), common::AFTER_CHECKSUM);
    match message {
        Extension::HomeAgentSwitch(message) => message.emit(&mut out),
        Extension::Heartbeat(message) => message.emit(&mut out),
        Extension::BindingRevocation(message) => message.emit(&mut out),
    }?;
    if out.len() > iana::MAX_MESSAGE {
        return Err(EncodeError::MessageTooLong(out.len()));
    }
    out[1] = (out.len() / 8 - 1) as u8;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Algorithm, Secret};
    use crate::wire::RevocationKind;
    use crate::wire::option::{BindingIdentifier, RestartCounter};
    use mtun_policy::Bid;

    fn envelope() -> Envelope {
        let home = HomeAddress("2001:db8:100::42".parse().expect("an address"));
        let agent = "2001:db8:100::1".parse().expect("an address");
        let care_of = "2001:db8:1::7".parse().expect("an address");
        Envelope { routing_header: Some(home), ..Envelope::plain(agent, care_of) }
    }

    fn samples() -> Vec<(Extension, &'static str)> {
        let agent = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
        let mut response =
            Heartbeat { response: true, sequence: 0x0102_0304, ..Heartbeat::default() };
        response.options.push(RestartCounter { counter: 7 });
        let mut revocation = BindingRevocation::new(RevocationKind::Indication(1), 0x1234);
        revocation.options.push(BindingIdentifier::new(Bid::new(2).expect("not zero")));
        let acknowledgement = BindingRevocation::new(RevocationKind::Acknowledgement(128), 0x1234);
        let switch = HomeAgentSwitch {
            agents: vec![agent("2001:db8:100::2"), agent("2001:db8:100::3")],
            options: Options::new(),
        };
        vec![
            // Worked out by hand from the drawings of the RFCs; the checksum is zero.
            (
                Extension::Heartbeat(Heartbeat { sequence: 1, ..Heartbeat::default() }),
                "3b010d0000000000000000010102 0000",
            ),
            (
                Extension::Heartbeat(response),
                "3b020d000000 0001 01020304 0100 1c0400000007 01020000",
            ),
            (
                Extension::BindingRevocation(revocation),
                "3b021000 0000 0101 1234 0000 230400020000 01040000 0000",
            ),
            (Extension::BindingRevocation(acknowledgement), "3b01100000000280123400000102 0000"),
            (
                Extension::HomeAgentSwitch(switch),
                "3b040c00 0000 0200 20010db8010000000000000000000002 20010db8010000000000000000000003",
            ),
            (Extension::HomeAgentSwitch(HomeAgentSwitch::default()), "3b000c00 0000 0000"),
        ]
    }

    fn octets(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16))
            .collect::<Result<_, _>>()
            .expect("hexadecimal")
    }

    #[test]
    fn each_has_its_octets_and_reads_back() {
        for (message, hex) in samples() {
            let out = emit_without_checksum(&message).expect("it fits");
            assert_eq!(out, octets(hex), "{message:?}");
            assert_eq!(parse(&out), Ok(message.clone()));
            let out = emit(&message, &envelope()).expect("it fits");
            assert_eq!(receive(&envelope(), &out), Ok(message.clone()));
            // To who has not switched it on it is a type that it does not know.
            let unknown = Err(DecodeError::UnrecognizedType(message.mh_type()));
            assert_eq!(crate::wire::receive(&envelope(), &out).map(|_| ()), unknown);
            for cut in 0..out.len() {
                assert!(parse(&out[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let cases: &[(&str, &str, DecodeError)] = &[
            (
                "more addresses than octets",
                "3b000c00 0000 0100",
                DecodeError::Truncated { needed: 24, found: 8 },
            ),
            (
                "a heartbeat without its number",
                "3b000d00 0000 0000",
                DecodeError::HeaderLen { found: 0, minimum: 1 },
            ),
            (
                "a third kind of revocation",
                "3b011000 0000 0300 0001 0000 0102 0000",
                DecodeError::RevocationType(3),
            ),
            (
                "another payload",
                "06010d00 0000 0000 00000001 01020000",
                DecodeError::PayloadProto(6),
            ),
        ];
        for (what, hex, want) in cases {
            assert_eq!(parse(&octets(hex)), Err(*want), "{what}");
        }
    }

    #[test]
    fn protection_covers_all_of_it_and_both_addresses() {
        let key = |octet| {
            let secret = Secret::new(vec![octet; 32]).expect("a good length");
            SecurityAssociation::new(256, Algorithm::HmacSha256, secret).expect("not reserved")
        };
        let stamp = NtpTime(0x1122_3344_5566_7788);
        for (message, _) in samples() {
            let out = emit_authenticated(&message, &envelope(), &key(1), stamp).expect("it fits");
            assert!(verify(&out, &envelope(), &key(1)).is_ok(), "{message:?}");
            let read = receive(&envelope(), &out).expect("well formed");
            assert_eq!(read.options().message_id(), Some(stamp));
            assert_eq!(verify(&out, &envelope(), &key(2)), Err(AuthFailure::Mismatch));
            let mut elsewhere = envelope();
            elsewhere.destination = "2001:db8:2::7".parse().expect("an address");
            assert_eq!(verify(&out, &elsewhere, &key(1)), Err(AuthFailure::Mismatch));
            for at in 6..out.len() - 16 {
                let mut other = out.clone();
                other[at] ^= 0x40;
                assert!(verify(&other, &envelope(), &key(1)).is_err(), "octet {at}");
            }
            let bare = emit(&message, &envelope()).expect("it fits");
            assert_eq!(verify(&bare, &envelope(), &key(1)), Err(AuthFailure::Missing));
        }
    }
}
