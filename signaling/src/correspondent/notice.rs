//! What a correspondent tells its operator: reasons as values, for the log and the counters.

use std::fmt;
use std::net::Ipv6Addr;

use mtun_policy::{Bid, CareOfAddress, HomeAddress};

use crate::error::{DecodeError, EncodeError};
use crate::return_routability::AuthorizationFailure;
use crate::wire::Status;

/// Something about correspondent registrations that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorrespondentNotice {
    /// A received message changed nothing and earned no answer.
    Ignored {
        /// Where it came from, by its IPv6 source, which proves nothing.
        source: Ipv6Addr,
        /// Why.
        reason: Ignored,
    },
    /// A Binding Update was refused.
    Refused {
        /// The home address it claimed.
        home_address: HomeAddress,
        /// The reason it was given.
        status: Status,
        /// Whether the sender was told; refusals have a rate limit.
        answered: bool,
    },
    /// A binding ended because nobody refreshed it.
    Expired {
        /// The home address.
        home_address: HomeAddress,
        /// The binding.
        bid: Option<Bid>,
    },
    /// A mobile that was not heard of for longest made room for another one.
    Evicted {
        /// Its home address.
        home_address: HomeAddress,
    },
    /// A binding ended because its care-of address was persistently unreachable.
    Unreachable {
        /// The home address.
        home_address: HomeAddress,
        /// The care-of address.
        care_of: CareOfAddress,
    },
    /// An answer could not be written.
    Unwritable(EncodeError),
}

/// Why a received message earned no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It is no acceptable Mobility Header; [`DecodeError::answer`] says what its sender is owed.
    Undecodable(DecodeError),
    /// A kind of message that a correspondent does not take, by MH Type.
    Unexpected(u8),
    /// Its source is no address that could be answered or bound.
    Source,
    /// It was sent to none of our addresses.
    NotForUs,
    /// A Home Test Init or Care-of Test Init with a Home Address option (RFC 6275 §9.4.1, §9.4.2).
    HomeAddressOption,
    /// A home address that is not unicast routable, or ours (RFC 6275 §9.5.1).
    HomeAddress,
    /// A care-of address that is not unicast routable (RFC 6275 §9.5.1).
    CareOfAddress,
    /// A home registration with Nonce Indices (RFC 6275 §9.5.1).
    NonceIndices,
    /// A correspondent registration without Nonce Indices (RFC 6275 §9.5.1).
    NoNonceIndices,
    /// It does not show that return routability was passed.
    Unauthorized(AuthorizationFailure),
    /// Too many of these arrive to answer each.
    RateLimit,
    /// The correspondent has stopped.
    Stopped,
}

impl CorrespondentNotice {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ignored { reason, .. } => reason.reason(),
            Self::Refused { .. } => "refused",
            Self::Expired { .. } => "expired",
            Self::Evicted { .. } => "evicted",
            Self::Unreachable { .. } => "unreachable",
            Self::Unwritable(_) => "unwritable",
        }
    }
}

impl Ignored {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::Unexpected(_) => "unexpected",
            Self::Source => "source",
            Self::NotForUs => "not_for_us",
            Self::HomeAddressOption => "home_address_option",
            Self::HomeAddress => "home_address",
            Self::CareOfAddress => "care_of_address",
            Self::NonceIndices => "nonce_indices",
            Self::NoNonceIndices => "no_nonce_indices",
            Self::Unauthorized(_) => "unauthorized",
            Self::RateLimit => "rate_limit",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for CorrespondentNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored { source, reason } => {
                write!(f, "ignored a message from {source}: {reason}")
            }
            Self::Refused { home_address, status, answered } => {
                let silently = if *answered { "" } else { ", not answered to limit the rate" };
                write!(f, "refused {home_address}, status {status}{silently}")
            }
            Self::Expired { home_address, bid: Some(bid) } => {
                write!(f, "binding {bid} of {home_address} expired")
            }
            Self::Expired { home_address, bid: None } => {
                write!(f, "the binding of {home_address} expired")
            }
            Self::Evicted { home_address } => {
                write!(f, "the bindings of {home_address} made room for another mobile")
            }
            Self::Unreachable { home_address, care_of } => {
                write!(f, "{home_address} is unreachable at {care_of}: sent by its home again")
            }
            Self::Unwritable(error) => write!(f, "cannot write an answer: {error}"),
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(error) => error.fmt(f),
            Self::Unexpected(mh_type) => write!(f, "MH Type {mh_type} is not for a correspondent"),
            Self::Source => f.write_str("its source is no unicast routable address"),
            Self::NotForUs => f.write_str("not for our address"),
            Self::HomeAddressOption => f.write_str("a test with a Home Address option"),
            Self::HomeAddress => f.write_str("its home address is not unicast routable"),
            Self::CareOfAddress => f.write_str("its care-of address is not unicast routable"),
            Self::NonceIndices => f.write_str("a home registration with Nonce Indices"),
            Self::NoNonceIndices => f.write_str("no Nonce Indices"),
            Self::Unauthorized(failure) => failure.fmt(f),
            Self::RateLimit => f.write_str("too many of them"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
