//! Mobility options (RFC 6275 §6.2): one file each, and the list a message carries.
//!
//! `parse` walks the list with bounds checked; `emit` writes it with the alignment each option
//! asks for. Options this crate has no file for are carried through as they are.

mod alternate_care_of_address;
mod authentication;
mod binding_authorization_data;
mod binding_identifier;
mod binding_refresh_advice;
mod flow_extensions;
mod flow_identification;
mod flow_summary;
mod link_layer_address;
mod list;
mod message_id;
mod mobile_network_prefix;
mod mobile_node_identifier;
mod nonce_indices;
mod padding;
mod restart_counter;
mod traffic_selector;
mod vendor_specific;

pub use alternate_care_of_address::AlternateCareOfAddress;
pub use authentication::Authentication;
pub use binding_authorization_data::BindingAuthorizationData;
pub use binding_identifier::BindingIdentifier;
pub use binding_refresh_advice::BindingRefreshAdvice;
pub use flow_extensions::FlowExtensions;
pub use flow_identification::{FlowIdentification, FlowSubOption};
pub use flow_summary::FlowSummary;
pub use link_layer_address::LinkLayerAddress;
pub use list::Options;
pub use message_id::MessageId;
pub use mobile_network_prefix::MobileNetworkPrefixOption;
pub use mobile_node_identifier::MobileNodeIdentifier;
pub use nonce_indices::NonceIndices;
pub use restart_counter::RestartCounter;
pub(crate) use traffic_selector::emit_binary;
pub use traffic_selector::{SelectorFault, TrafficSelector, is_writable};
pub use vendor_specific::VendorSpecific;

use super::iana::{MAX_OPTION_DATA, option};
use crate::error::{DecodeError, EncodeError, WrongLength};

/// One mobility option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MobilityOption {
    /// Type 2.
    RefreshAdvice(BindingRefreshAdvice),
    /// Type 3.
    AlternateCareOf(AlternateCareOfAddress),
    /// Type 4.
    NonceIndices(NonceIndices),
    /// Type 5.
    AuthorizationData(BindingAuthorizationData),
    /// Type 6.
    MobileNetworkPrefix(MobileNetworkPrefixOption),
    /// Type 7.
    LinkLayerAddress(LinkLayerAddress),
    /// Type 8.
    MobileNodeIdentifier(MobileNodeIdentifier),
    /// Type 9.
    Authentication(Authentication),
    /// Type 10.
    MessageId(MessageId),
    /// Type 19.
    VendorSpecific(VendorSpecific),
    /// Type 28.
    RestartCounter(RestartCounter),
    /// Type 35.
    BindingIdentifier(BindingIdentifier),
    /// Type 35 with a length that it cannot have: the whole Binding Update is answered with
    /// status 164 (RFC 5648 §6.2), which needs an authenticated sender, so it is no decode error.
    MalformedBindingIdentifier {
        /// The option's data.
        data: Vec<u8>,
    },
    /// Type 44.
    FlowSummary(FlowSummary),
    /// Type 45.
    FlowIdentification(FlowIdentification),
    /// Any other type.
    Unknown {
        /// The option's type; never that of an option above, nor padding.
        kind: u8,
        /// The option's data.
        data: Vec<u8>,
    },
}

impl MobilityOption {
    /// The option's type.
    pub fn kind(&self) -> u8 {
        match self {
            Self::RefreshAdvice(_) => option::BINDING_REFRESH_ADVICE,
            Self::AlternateCareOf(_) => option::ALTERNATE_CARE_OF_ADDRESS,
            Self::NonceIndices(_) => option::NONCE_INDICES,
            Self::AuthorizationData(_) => option::BINDING_AUTHORIZATION_DATA,
            Self::MobileNetworkPrefix(_) => option::MOBILE_NETWORK_PREFIX,
            Self::LinkLayerAddress(_) => option::LINK_LAYER_ADDRESS,
            Self::MobileNodeIdentifier(_) => option::MOBILE_NODE_IDENTIFIER,
            Self::Authentication(_) => option::AUTHENTICATION,
            Self::MessageId(_) => option::MESSAGE_ID,
            Self::RestartCounter(_) => option::RESTART_COUNTER,
            Self::VendorSpecific(_) => option::VENDOR_SPECIFIC,
            Self::BindingIdentifier(_) | Self::MalformedBindingIdentifier { .. } => {
                option::BINDING_IDENTIFIER
            }
            Self::FlowSummary(_) => option::FLOW_SUMMARY,
            Self::FlowIdentification(_) => option::FLOW_IDENTIFICATION,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Reads one option from its type and its data.
    pub fn parse(kind: u8, data: &[u8]) -> Result<Self, WrongLength> {
        Ok(match kind {
            option::BINDING_REFRESH_ADVICE => {
                Self::RefreshAdvice(BindingRefreshAdvice::parse(data)?)
            }
            option::ALTERNATE_CARE_OF_ADDRESS => {
                Self::AlternateCareOf(AlternateCareOfAddress::parse(data)?)
            }
            option::NONCE_INDICES => Self::NonceIndices(NonceIndices::parse(data)?),
            option::BINDING_AUTHORIZATION_DATA => {
                Self::AuthorizationData(BindingAuthorizationData::parse(data)?)
            }
            option::MOBILE_NETWORK_PREFIX => {
                Self::MobileNetworkPrefix(MobileNetworkPrefixOption::parse(data)?)
            }
            option::LINK_LAYER_ADDRESS => Self::LinkLayerAddress(LinkLayerAddress::parse(data)?),
            option::MOBILE_NODE_IDENTIFIER => {
                Self::MobileNodeIdentifier(MobileNodeIdentifier::parse(data)?)
            }
            option::AUTHENTICATION => Self::Authentication(Authentication::parse(data)?),
            option::MESSAGE_ID => Self::MessageId(MessageId::parse(data)?),
            option::RESTART_COUNTER => Self::RestartCounter(RestartCounter::parse(data)?),
            option::VENDOR_SPECIFIC => Self::VendorSpecific(VendorSpecific::parse(data)?),
            option::BINDING_IDENTIFIER => match BindingIdentifier::parse(data) {
                Ok(bid) => Self::BindingIdentifier(bid),
                Err(WrongLength(_)) => Self::MalformedBindingIdentifier { data: data.to_vec() },
            },
            option::FLOW_SUMMARY => Self::FlowSummary(FlowSummary::parse(data)?),
            option::FLOW_IDENTIFICATION => {
                Self::FlowIdentification(FlowIdentification::parse(data)?)
            }
            kind => Self::Unknown { kind, data: data.to_vec() },
        })
    }

    /// Appends the option's data, the octets after Type and Length, to the message in `out`.
    pub fn emit_data(&self, out: &mut Vec<u8>) {
        match self {
            Self::RefreshAdvice(option) => option.emit(out),
            Self::AlternateCareOf(option) => option.emit(out),
            Self::NonceIndices(option) => option.emit(out),
            Self::AuthorizationData(option) => option.emit(out),
            Self::MobileNetworkPrefix(option) => option.emit(out),
            Self::LinkLayerAddress(option) => option.emit(out),
            Self::MobileNodeIdentifier(option) => option.emit(out),
            Self::Authentication(option) => option.emit(out),
            Self::MessageId(option) => option.emit(out),
            Self::RestartCounter(option) => option.emit(out),
            Self::VendorSpecific(option) => option.emit(out),
            Self::BindingIdentifier(option) => option.emit(out),
            Self::FlowSummary(option) => option.emit(out),
            Self::FlowIdentification(option) => option.emit(out),
            Self::MalformedBindingIdentifier { data } | Self::Unknown { data, .. } => {
                out.extend_from_slice(data);
            }
        }
    }

    /// Where the option may start: its offset in the Mobility Header is `remainder` modulo
    /// `modulus`, the "8n+6" of the RFCs.
    fn alignment(&self) -> (usize, usize) {
        match self {
            Self::RefreshAdvice(_) | Self::NonceIndices(_) => (2, 0),
            Self::AlternateCareOf(_) => (8, 6),
            // Ends on a multiple of eight with the 12 octets of return routability.
            Self::AuthorizationData(_) => (8, 2),
            Self::MobileNetworkPrefix(_) => (8, 4),
            // Asks for 4n+1 and must be last without padding behind it: of the two places in
            // every eight octets, the one from which it ends on a multiple of eight.
            Self::Authentication(Authentication { data, .. }) if data.len().is_multiple_of(8) => {
                (8, 1)
            }
            Self::Authentication(Authentication { data, .. }) if data.len().is_multiple_of(4) => {
                (8, 5)
            }
            Self::Authentication(_) => (4, 1),
            Self::MessageId(_) => (8, 2),
            Self::RestartCounter(_) => (4, 2),
            Self::BindingIdentifier(BindingIdentifier { care_of: None, .. }) => (2, 0),
            Self::BindingIdentifier(_) | Self::MalformedBindingIdentifier { .. } => (8, 2),
            Self::LinkLayerAddress(_) | Self::MobileNodeIdentifier(_) => (1, 0),
            Self::VendorSpecific(_) => (4, 2),
            Self::FlowSummary(_) | Self::FlowIdentification(_) => (2, 0),
            Self::Unknown { kind, .. } => match *kind {
                option::IPV4_HOME_ADDRESS
                | option::IPV4_ADDRESS_ACKNOWLEDGEMENT
                | option::NAT_DETECTION
                | option::IPV4_CARE_OF_ADDRESS => (4, 0),
                _ => (1, 0),
            },
        }
    }
}

/// The options seen of which a second one makes a message ambiguous.
///
/// Authentication options may differ in subtype, one of each (RFC 4285 §5); prefixes, identifiers
/// and bindings come in numbers.
#[derive(Default)]
struct Seen {
    /// A bit for each type, all of them small numbers.
    kinds: u64,
    /// A bit for each subtype of an authentication option.
    subtypes: [u64; 4],
}

impl Seen {
    /// Notes an option; whether one like it was there.
    fn excludes(&mut self, option: &MobilityOption) -> bool {
        let (bits, number) = match option {
            MobilityOption::Authentication(option) => {
                (&mut self.subtypes[usize::from(option.subtype / 64)], option.subtype % 64)
            }
            MobilityOption::RefreshAdvice(_)
            | MobilityOption::AlternateCareOf(_)
            | MobilityOption::NonceIndices(_)
            | MobilityOption::AuthorizationData(_)
            | MobilityOption::MessageId(_) => (&mut self.kinds, option.kind() % 64),
            _ => return false,
        };
        let before = std::mem::replace(bits, *bits | 1 << number);
        before == *bits
    }
}

macro_rules! from {
    ($($option:ty => $variant:ident;)*) => {
        $(impl From<$option> for MobilityOption {
            fn from(option: $option) -> Self {
                Self::$variant(option)
            }
        })*
    };
}

from! {
    BindingRefreshAdvice => RefreshAdvice;
    AlternateCareOfAddress => AlternateCareOf;
    NonceIndices => NonceIndices;
    BindingAuthorizationData => AuthorizationData;
    MobileNetworkPrefixOption => MobileNetworkPrefix;
    LinkLayerAddress => LinkLayerAddress;
    MobileNodeIdentifier => MobileNodeIdentifier;
    Authentication => Authentication;
    MessageId => MessageId;
    RestartCounter => RestartCounter;
    VendorSpecific => VendorSpecific;
    BindingIdentifier => BindingIdentifier;
    FlowSummary => FlowSummary;
    FlowIdentification => FlowIdentification;
}

impl From<FlowExtensions> for MobilityOption {
    fn from(extensions: FlowExtensions) -> Self {
        Self::VendorSpecific(extensions.into())
    }
}

/// One option as it lies in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located<'m> {
    /// Offset of its first octet in the Mobility Header.
    pub at: usize,
    /// Its type.
    pub kind: u8,
    /// Its data.
    pub data: &'m [u8],
}

/// Walks the options of `message` from offset `first`, padding left out.
///
/// Ends after the first error. req MH-09, MH-10 (RFC 6275 §6.2.1, §6.2.2): padding of any length
/// says nothing, and an option that runs past the end ends the message.
pub(crate) fn walk(
    message: &[u8],
    first: usize,
) -> impl Iterator<Item = Result<Located<'_>, DecodeError>> {
    let mut at = first;
    std::iter::from_fn(move || {
        loop {
            let here = at;
            let rest = message.get(here..)?;
            let (&kind, rest) = rest.split_first()?;
            if kind == option::PAD1 {
                at += 1;
                continue;
            }
            let data =
                rest.split_first().and_then(|(&length, rest)| rest.get(..usize::from(length)));
            let Some(data) = data else {
                at = message.len();
                return Some(Err(DecodeError::OptionOverrun { at: here }));
            };
            at += 2 + data.len();
            if kind != option::PADN {
                return Some(Ok(Located { at: here, kind, data }));
            }
        }
    })
}

/// Reads the options of `message`, which start at offset `first`.
///
/// The work is bounded by the message: at most 2048 octets, hence at most 1020 options. What an
/// option means is the reader's business (req MH-08): one that has no meaning here is kept unread.
pub(crate) fn parse(message: &[u8], first: usize) -> Result<Options, DecodeError> {
    // The shortest option that is common has 8 octets, the common ones have more.
    let mut options: Vec<MobilityOption> = Vec::with_capacity(message.len() / 16 + 2);
    let mut seen = Seen::default();
    for located in walk(message, first) {
        let Located { at, kind, data } = located?;
        let option = MobilityOption::parse(kind, data)
            .map_err(|WrongLength(length)| DecodeError::OptionLength { kind, length, at })?;
        // req MH-11 (RFC 6275 §6.2): neither the first nor the last one wins.
        if seen.excludes(&option) {
            return Err(DecodeError::DuplicateOption { kind, at });
        }
        options.push(option);
    }
    Ok(Options::from(options))
}

/// Appends `options` to the message in `out`, which starts at offset 0 of `out`, each at its
/// alignment, and pads the whole to a multiple of eight octets (req MH-18).
pub(crate) fn emit(options: &Options, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    for option in options {
        if matches!(option.kind(), option::PAD1 | option::PADN) {
            return Err(EncodeError::Padding);
        }
        let (modulus, remainder) = option.alignment();
        let octets = (modulus + remainder - out.len() % modulus) % modulus;
        padding::pad(out, octets);
        let length_at = out.len() + 1;
        out.extend_from_slice(&[option.kind(), 0]);
        option.emit_data(out);
        let length = out.len() - length_at - 1;
        if length > MAX_OPTION_DATA {
            return Err(EncodeError::OptionTooLong { kind: option.kind(), length });
        }
        out[length_at] = length as u8;
    }
    let octets = out.len().next_multiple_of(8) - out.len();
    padding::pad(out, octets);
    Ok(())
}
