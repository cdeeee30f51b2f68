//! The Mobility Header on the wire (RFC 6275 §6.1 and §6.2).
//!
//! [`receive`] reads a message in the order of RFC 6275 §9.2 and says why it refuses one;
//! [`emit`], [`emit_authenticated`] and [`emit_authorized`] write one complete with alignment,
//! padding and checksum. `parse` and `emit` are each other's inverse. Reserved bits are ignored
//! when read and zero when written. Nothing in here panics on any input or allocates more than a
//! small multiple of the message's 2048 octets, and nothing decides whether a message is believed:
//! see [`crate::auth`] and [`crate::return_routability`]. The few messages that Mobile IPv6 has in
//! ICMPv6 are in [`icmpv6`].

mod binding_acknowledgement;
mod binding_error;
mod binding_refresh_request;
mod binding_revocation;
mod binding_update;
mod care_of_test;
mod care_of_test_init;
mod checksum;
mod common;
pub mod extension;
mod flow_status;
mod heartbeat;
mod home_agent_switch;
mod home_test;
mod home_test_init;
pub mod iana;
pub mod icmpv6;
pub mod option;
mod problem;
mod status;

pub use binding_acknowledgement::BindingAcknowledgement;
pub use binding_error::BindingError;
pub use binding_refresh_request::BindingRefreshRequest;
pub use binding_revocation::{BindingRevocation, RevocationKind};
pub use binding_update::{BindingUpdate, BindingUpdateFlags};
pub use care_of_test::CareOfTest;
pub use care_of_test_init::CareOfTestInit;
pub use checksum::{checksum, verify_checksum};
pub use flow_status::FlowStatus;
pub use heartbeat::Heartbeat;
pub use home_agent_switch::HomeAgentSwitch;
pub use home_test::HomeTest;
pub use home_test_init::HomeTestInit;
pub use option::{MobilityOption, Options};
pub use problem::problem;
pub use status::{Lifetime, Status};

use std::net::Ipv6Addr;

use crate::auth::{self, SecurityAssociation};
use crate::error::{DecodeError, EncodeError};
use crate::machine::Envelope;
use crate::return_routability::{self, BindingManagementKey};
use crate::time::NtpTime;

/// Octets that most messages have room in: those of four bindings, with what protects them.
const COMMON: usize = 192;

/// One Mobility Header message.
///
/// ```text
/// +---------------+---------------+---------------+---------------+
/// | Payload Proto |  Header Len   |    MH Type    |   Reserved    |
/// +---------------+---------------+---------------+---------------+
/// |           Checksum            |                               |
/// +-------------------------------+         Message Data          :
/// :                                                               :
/// +---------------------------------------------------------------+
/// ```
///
/// Payload Proto is 59, no next header. Header Len counts units of eight octets after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// MH Type 0.
    BindingRefreshRequest(BindingRefreshRequest),
    /// MH Type 1.
    HomeTestInit(HomeTestInit),
    /// MH Type 2.
    CareOfTestInit(CareOfTestInit),
    /// MH Type 3.
    HomeTest(HomeTest),
    /// MH Type 4.
    CareOfTest(CareOfTest),
    /// MH Type 5.
    BindingUpdate(BindingUpdate),
    /// MH Type 6.
    BindingAcknowledgement(BindingAcknowledgement),
    /// MH Type 7.
    BindingError(BindingError),
}

impl Message {
    /// The MH Type.
    pub fn mh_type(&self) -> u8 {
        match self {
            Self::BindingRefreshRequest(_) => iana::mh::BINDING_REFRESH_REQUEST,
            Self::HomeTestInit(_) => iana::mh::HOME_TEST_INIT,
            Self::CareOfTestInit(_) => iana::mh::CARE_OF_TEST_INIT,
            Self::HomeTest(_) => iana::mh::HOME_TEST,
            Self::CareOfTest(_) => iana::mh::CARE_OF_TEST,
            Self::BindingUpdate(_) => iana::mh::BINDING_UPDATE,
            Self::BindingAcknowledgement(_) => iana::mh::BINDING_ACKNOWLEDGEMENT,
            Self::BindingError(_) => iana::mh::BINDING_ERROR,
        }
    }

    /// The mobility options.
    pub fn options(&self) -> &Options {
        match self {
            Self::BindingRefreshRequest(message) => &message.options,
            Self::HomeTestInit(message) => &message.options,
            Self::CareOfTestInit(message) => &message.options,
            Self::HomeTest(message) => &message.options,
            Self::CareOfTest(message) => &message.options,
            Self::BindingUpdate(message) => &message.options,
            Self::BindingAcknowledgement(message) => &message.options,
            Self::BindingError(message) => &message.options,
        }
    }

    /// The mobility options, to be changed.
    pub fn options_mut(&mut self) -> &mut Options {
        match self {
            Self::BindingRefreshRequest(message) => &mut message.options,
            Self::HomeTestInit(message) => &mut message.options,
            Self::CareOfTestInit(message) => &mut message.options,
            Self::HomeTest(message) => &mut message.options,
            Self::CareOfTest(message) => &mut message.options,
            Self::BindingUpdate(message) => &mut message.options,
            Self::BindingAcknowledgement(message) => &mut message.options,
            Self::BindingError(message) => &mut message.options,
        }
    }
}

/// Offset at which the options of a message of this type start; `None` for unknown types.
pub(crate) fn options_offset(mh_type: u8) -> Option<usize> {
    Some(match mh_type {
        iana::mh::BINDING_REFRESH_REQUEST => BindingRefreshRequest::OPTIONS,
        iana::mh::HOME_TEST_INIT => HomeTestInit::OPTIONS,
        iana::mh::CARE_OF_TEST_INIT => CareOfTestInit::OPTIONS,
        iana::mh::HOME_TEST => HomeTest::OPTIONS,
        iana::mh::CARE_OF_TEST => CareOfTest::OPTIONS,
        iana::mh::BINDING_UPDATE => BindingUpdate::OPTIONS,
        iana::mh::BINDING_ACKNOWLEDGEMENT => BindingAcknowledgement::OPTIONS,
        iana::mh::BINDING_ERROR => BindingError::OPTIONS,
        _ => return None,
    })
}

/// Reads a received message: the checksum first, then all of [`parse`] (RFC 6275 §9.2).
pub fn receive(envelope: &Envelope, message: &[u8]) -> Result<Message, DecodeError> {
    // req MH-03, MH-04 (RFC 6275 §9.2): a wrong checksum says nothing else about the packet.
    if !verify_checksum(envelope, message) {
        return Err(DecodeError::Checksum);
    }
    parse(message)
}

/// Reads a complete Mobility Header, everything but its checksum.
///
/// `message` begins at Payload Proto and ends where the packet ends. The checks come in the order
/// of RFC 6275 §9.2; [`DecodeError::answer`] knows what each refusal owes the sender.
pub fn parse(message: &[u8]) -> Result<Message, DecodeError> {
    let mh_type = check_header(message)?;
    Ok(match mh_type {
        iana::mh::BINDING_REFRESH_REQUEST => {
            Message::BindingRefreshRequest(BindingRefreshRequest::parse(message)?)
        }
        iana::mh::HOME_TEST_INIT => Message::HomeTestInit(HomeTestInit::parse(message)?),
        iana::mh::CARE_OF_TEST_INIT => Message::CareOfTestInit(CareOfTestInit::parse(message)?),
        iana::mh::HOME_TEST => Message::HomeTest(HomeTest::parse(message)?),
        iana::mh::CARE_OF_TEST => Message::CareOfTest(CareOfTest::parse(message)?),
        iana::mh::BINDING_UPDATE => Message::BindingUpdate(BindingUpdate::parse(message)?),
        iana::mh::BINDING_ACKNOWLEDGEMENT => {
            Message::BindingAcknowledgement(BindingAcknowledgement::parse(message)?)
        }
        iana::mh::BINDING_ERROR => Message::BindingError(BindingError::parse(message)?),
        other => return Err(DecodeError::UnrecognizedType(other)),
    })
}

/// Checks the first four octets of a message and its length; gives its MH Type.
pub(crate) fn check_header(message: &[u8]) -> Result<u8, DecodeError> {
    check_header_by(message, iana::mh::minimum_header_len)
}

/// The same by the smallest Header Len of the types that are known.
fn check_header_by(
    message: &[u8],
    minimum_header_len: fn(u8) -> Option<u8>,
) -> Result<u8, DecodeError> {
    let found = message.len();
    let &[payload_proto, header_len, mh_type, ..] =
        message.first_chunk::<8>().ok_or(DecodeError::Truncated { needed: 8, found })?;
    // req MH-05 (RFC 6275 §9.2). The fourth octet is reserved and says nothing (req MH-07).
    let minimum = minimum_header_len(mh_type).ok_or(DecodeError::UnrecognizedType(mh_type))?;
    // req MH-01 (RFC 6275 §9.2).
    if payload_proto != iana::PAYLOAD_PROTO_NONE {
        return Err(DecodeError::PayloadProto(payload_proto));
    }
    // req MH-02 (RFC 6275 §9.2).
    if header_len < minimum {
        return Err(DecodeError::HeaderLen { found: header_len, minimum });
    }
    let needed = (usize::from(header_len) + 1) * 8;
    match found.checked_sub(needed) {
        None => Err(DecodeError::Truncated { needed, found }),
        Some(0) => Ok(mh_type),
        // Nothing may follow a Mobility Header (RFC 6275 §6.1.1), and what no checksum of ours and
        // no authenticator covers is better refused than guessed at.
        Some(trailing) => Err(DecodeError::TrailingOctets(trailing)),
    }
}

/// Writes a complete Mobility Header for the packet that `envelope` describes.
pub fn emit(message: &Message, envelope: &Envelope) -> Result<Vec<u8>, EncodeError> {
    let mut out = emit_without_checksum(message)?;
    fill_checksum(&mut out, envelope);
    Ok(out)
}

/// Writes a complete Mobility Header that ends in a mobile-home authentication option.
///
/// Puts a replay protection option with `message_id` in front of it, when given. `care_of` enters
/// the hash: [`auth::care_of_address`] knows which address that is, and an acknowledgement uses the
/// one of its Binding Update. Options of these two kinds that `message` holds already are replaced.
pub fn emit_authenticated(
    message: &Message,
    envelope: &Envelope,
    care_of: Ipv6Addr,
    association: &SecurityAssociation,
    message_id: Option<NtpTime>,
) -> Result<Vec<u8>, EncodeError> {
    authenticated(message.clone(), envelope, care_of, association, message_id)
}

/// The same of a message that nobody needs any more.
pub(crate) fn authenticated(
    mut message: Message,
    envelope: &Envelope,
    care_of: Ipv6Addr,
    association: &SecurityAssociation,
    message_id: Option<NtpTime>,
) -> Result<Vec<u8>, EncodeError> {
    let options = message.options_mut();
    options.retain(|option| match option {
        MobilityOption::Authentication(_) => false,
        MobilityOption::MessageId(_) => message_id.is_none(),
        _ => true,
    });
    if let Some(timestamp) = message_id {
        options.push(option::MessageId { timestamp });
    }
    options.push(association.blank_option());
    let mut out = emit_without_checksum(&message)?;
    // The home address is what upper layers see at the mobile's end.
    let home_address = match message {
        Message::BindingUpdate(_) => envelope.upper_source(),
        _ => envelope.upper_destination(),
    };
    auth::sign(&mut out, care_of, home_address, association);
    fill_checksum(&mut out, envelope);
    Ok(out)
}

/// Writes a complete Mobility Header that ends in Binding Authorization Data (RFC 6275 §6.2.7).
///
/// The addresses are those of [`BindingManagementKey::authenticator`]. An option of this kind that
/// `message` holds already is replaced.
pub fn emit_authorized(
    message: &Message,
    envelope: &Envelope,
    care_of: Ipv6Addr,
    correspondent: Ipv6Addr,
    kbm: &BindingManagementKey,
) -> Result<Vec<u8>, EncodeError> {
    let mut message = message.clone();
    let options = message.options_mut();
    options.retain(|option| !matches!(option, MobilityOption::AuthorizationData(_)));
    let authenticator = vec![0; return_routability::AUTHENTICATOR];
    options.push(option::BindingAuthorizationData { authenticator });
    let mut out = emit_without_checksum(&message)?;
    return_routability::sign(&mut out, care_of, correspondent, kbm);
    fill_checksum(&mut out, envelope);
    Ok(out)
}

/// The message with its final length and a checksum of zero.
fn emit_without_checksum(message: &Message) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(COMMON);
    out.extend_from_slice(&[iana::PAYLOAD_PROTO_NONE, 0, message.mh_type(), 0, 0, 0]);
    match message {
        Message::BindingRefreshRequest(message) => message.emit(&mut out),
        Message::HomeTestInit(message) => message.emit(&mut out),
        Message::CareOfTestInit(message) => message.emit(&mut out),
        Message::HomeTest(message) => message.emit(&mut out),
        Message::CareOfTest(message) => message.emit(&mut out),
        Message::BindingUpdate(message) => message.emit(&mut out),
        Message::BindingAcknowledgement(message) => message.emit(&mut out),
        Message::BindingError(message) => message.emit(&mut out),
    }?;
    if out.len() > iana::MAX_MESSAGE {
        return Err(EncodeError::MessageTooLong(out.len()));
    }
    out[1] = (out.len() / 8 - 1) as u8;
    Ok(out)
}

/// Fills the Checksum field, last of all since it covers everything.
fn fill_checksum(out: &mut [u8], envelope: &Envelope) {
    let value = checksum(envelope.upper_source(), envelope.upper_destination(), out);
    out[common::CHECKSUM..common::CHECKSUM + 2].copy_from_slice(&value.to_be_bytes());
}
