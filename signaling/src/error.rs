//! Why a message was refused, and what the protocol owes its sender.
//!
//! Every reason is a value: it can be counted, and [`DecodeError::answer`] says which answer
//! RFC 6275 §9.2 wants. Sending that answer, and limiting its rate, is the caller's part.

use thiserror::Error;

/// Why received octets are no acceptable Mobility Header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum DecodeError {
    /// The checksum does not fit the message and its addresses.
    #[error("wrong checksum")]
    Checksum,
    /// Fewer octets than a Mobility Header has, or than its Header Len announces.
    #[error("truncated: {found} octets where {needed} are needed")]
    Truncated {
        /// Octets needed.
        needed: usize,
        /// Octets found.
        found: usize,
    },
    /// Octets after the end that Header Len announces.
    #[error("{0} octets after the end of the message")]
    TrailingOctets(usize),
    /// An MH Type that this node does not implement.
    #[error("unrecognized MH Type {0}")]
    UnrecognizedType(u8),
    /// A Payload Proto other than 59, no next header.
    #[error("Payload Proto {0} instead of 59")]
    PayloadProto(u8),
    /// A Header Len below the minimum of this MH Type.
    #[error("Header Len {found} below the minimum {minimum} of its type")]
    HeaderLen {
        /// The field's value.
        found: u8,
        /// The smallest value this type may have.
        minimum: u8,
    },
    /// A Binding Revocation message that is neither an indication nor an acknowledgement.
    #[error("Binding Revocation of type {0}")]
    RevocationType(u8),
    /// An option that runs past the end of the message.
    #[error("option at offset {at} runs past the end")]
    OptionOverrun {
        /// Offset of the option's first octet in the Mobility Header.
        at: usize,
    },
    /// An option whose length does not fit its type.
    #[error("option {kind} at offset {at} with {length} octets of data")]
    OptionLength {
        /// The option's type.
        kind: u8,
        /// Octets of data, the value of the length field.
        length: usize,
        /// Offset of the option's first octet in the Mobility Header.
        at: usize,
    },
    /// A second option of a type that may occur once.
    #[error("second option {kind} at offset {at}")]
    DuplicateOption {
        /// The option's type.
        kind: u8,
        /// Offset of the second one's first octet in the Mobility Header.
        at: usize,
    },
}

/// What the sender of a refused message is owed (RFC 6275 §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Nothing: the message is dropped silently.
    Silent,
    /// An ICMPv6 Parameter Problem, code 0, straight to the packet's IPv6 source.
    ParameterProblem {
        /// Offset of the offending octet in the Mobility Header; the ICMPv6 pointer counts from
        /// the IPv6 header, so the caller adds the octets in front.
        pointer: usize,
    },
    /// A Binding Error with status 2, unrecognized MH Type value.
    BindingError,
}

impl DecodeError {
    /// The answer that is due, provided the source can be answered at all (RFC 6275 §9.3.3).
    pub fn answer(&self) -> Answer {
        match *self {
            Self::UnrecognizedType(_) => Answer::BindingError,
            Self::PayloadProto(_) => Answer::ParameterProblem { pointer: 0 },
            Self::HeaderLen { .. } => Answer::ParameterProblem { pointer: 1 },
            // req MH-12 (RFC 3963 §4.3): the prefix option has one valid length, and a sender that
            // uses another is told where.
            Self::OptionLength {
                kind: crate::wire::iana::option::MOBILE_NETWORK_PREFIX,
                at,
                ..
            } => Answer::ParameterProblem { pointer: at + 1 },
            Self::Checksum
            | Self::Truncated { .. }
            | Self::TrailingOctets(_)
            | Self::RevocationType(_)
            | Self::OptionOverrun { .. }
            | Self::OptionLength { .. }
            | Self::DuplicateOption { .. } => Answer::Silent,
        }
    }
}

/// The data of an option has a length its type does not allow; holds the length found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{0} octets of option data")]
pub struct WrongLength(pub usize);

/// Why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum EncodeError {
    /// More octets than the 2048 that Header Len can announce.
    #[error("message of {0} octets, at most 2048 fit")]
    MessageTooLong(usize),
    /// Option data of more than 255 octets.
    #[error("option {kind} with {length} octets of data, at most 255 fit")]
    OptionTooLong {
        /// The option's type.
        kind: u8,
        /// Octets of data.
        length: usize,
    },
    /// Padding (type 0 or 1) given as an option; the codec pads by itself.
    #[error("padding given as an option")]
    Padding,
}
