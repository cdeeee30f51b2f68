//! What a home agent tells its operator: reasons as values, for the log and the counters.

use std::fmt;
use std::net::Ipv6Addr;

use mtun_policy::{Bid, HomeAddress};

use crate::auth::AuthFailure;
use crate::error::{DecodeError, EncodeError};
use crate::wire::{FlowStatus, Status};

/// Something about registrations that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentNotice {
    /// A received message changed nothing and earned no acknowledgement.
    Ignored {
        /// Where it came from, by its IPv6 source, which proves nothing.
        source: Ipv6Addr,
        /// Why.
        reason: Ignored,
    },
    /// A Binding Update was refused, or accepted in part (status 4).
    Refused {
        /// The home address it claimed; only status 146 leaves the claim unproven.
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
    /// A binding ended because the operator wants it so.
    Revoked {
        /// The home address.
        home_address: HomeAddress,
        /// The binding.
        bid: Option<Bid>,
    },
    /// A mobile confirmed that it heard that bindings ended (RFC 5846).
    RevocationHeard {
        /// The home address.
        home_address: HomeAddress,
        /// What it says.
        status: Status,
    },
    /// A mobile did not confirm what it was told.
    Unheard {
        /// The home address.
        home_address: HomeAddress,
    },
    /// A mobile cannot be told: it has no key or no binding, or the policy does not switch it on.
    NotTold {
        /// The home address.
        home_address: HomeAddress,
    },
    /// The bindings of a home address ended because the home prefix did (RFC 6275 §10.3.1).
    PrefixInvalid {
        /// The home address.
        home_address: HomeAddress,
    },
    /// An update was accepted and some of its flow options were refused (RFC 6089 §5.3.5).
    FlowsRefused {
        /// The home address.
        home_address: HomeAddress,
        /// How many.
        number: usize,
        /// The status of the first of them.
        status: FlowStatus,
    },
    /// Some answers to flow options found no room in the acknowledgement.
    FlowAnswersLeftOut {
        /// The home address.
        home_address: HomeAddress,
        /// How many.
        number: usize,
    },
    /// A message could not be written.
    Unwritable(EncodeError),
}

/// Why a received message earned no acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It is no acceptable Mobility Header; [`DecodeError::answer`] says what its sender is owed.
    Undecodable(DecodeError),
    /// A kind of message that a home agent does not take, by MH Type.
    Unexpected(u8),
    /// Its source is no unicast address (RFC 6275 §9.5.4).
    Source,
    /// It was sent to another address than the agent's.
    NotForAgent,
    /// No mobile with this home address is served.
    UnknownHomeAddress(HomeAddress),
    /// It is not protected as this home address requires.
    Unauthenticated(AuthFailure),
    /// It is protected, and this home address has no security association.
    NoSecurityAssociation,
    /// A correspondent registration; this node keeps none.
    CorrespondentRegistration,
    /// A home registration with Nonce Indices (RFC 6275 §6.2.6).
    NonceIndices,
    /// A care-of address that is no unicast routable address (RFC 6275 §9.5.1).
    CareOfAddress,
    /// No Mobile Prefix Solicitation, or one from a mobile that is not bound to its source.
    Solicitation,
    /// A Mobile Prefix Solicitation within a second of the one before.
    SolicitationRate,
    /// A Mobile Prefix Solicitation, and home prefixes are not told here.
    PrefixDiscovery,
    /// So many home addresses are being looked for on the home link that another has to wait.
    Searches,
    /// A heartbeat that is no question, or an old one.
    Heartbeat,
    /// A heartbeat too soon after the one before.
    HeartbeatRate,
    /// A Binding Revocation Acknowledgement that answers nothing, or what only agents say.
    Revocation,
    /// The agent has stopped.
    Stopped,
}

impl AgentNotice {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ignored { reason, .. } => reason.reason(),
            Self::Refused { .. } => "refused",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::RevocationHeard { .. } => "revocation_heard",
            Self::Unheard { .. } => "unheard",
            Self::NotTold { .. } => "not_told",
            Self::PrefixInvalid { .. } => "prefix_invalid",
            Self::FlowsRefused { .. } => "flows_refused",
            Self::FlowAnswersLeftOut { .. } => "flow_answers_left_out",
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
            Self::NotForAgent => "not_for_agent",
            Self::UnknownHomeAddress(_) => "unknown_home_address",
            Self::Unauthenticated(AuthFailure::Missing) => "unprotected",
            Self::Unauthenticated(AuthFailure::UnknownSpi(_)) => "unknown_spi",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::NoSecurityAssociation => "no_security_association",
            Self::CorrespondentRegistration => "correspondent_registration",
            Self::NonceIndices => "nonce_indices",
            Self::CareOfAddress => "care_of_address",
            Self::Solicitation => "solicitation",
            Self::SolicitationRate => "solicitation_rate",
            Self::PrefixDiscovery => "prefix_discovery",
            Self::Searches => "searches",
            Self::Heartbeat => "heartbeat",
            Self::HeartbeatRate => "heartbeat_rate",
            Self::Revocation => "revocation",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for AgentNotice {
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
            Self::Revoked { home_address, bid: Some(bid) } => {
                write!(f, "binding {bid} of {home_address} was taken back")
            }
            Self::RevocationHeard { home_address, status } => {
                write!(f, "{home_address} has heard of its bindings' end, status {}", status.0)
            }
            Self::Unheard { home_address } => {
                write!(f, "{home_address} does not confirm what it was told")
            }
            Self::NotTold { home_address } => {
                write!(f, "{home_address} cannot be told anything")
            }
            Self::Revoked { home_address, bid: None } => {
                write!(f, "the binding of {home_address} was taken back")
            }
            Self::PrefixInvalid { home_address } => {
                write!(f, "{home_address} is not bound any more: its prefix is not valid")
            }
            Self::FlowsRefused { home_address, number, status } => {
                write!(
                    f,
                    "refused {number} flow options of {home_address}, the first with status {status}"
                )
            }
            Self::FlowAnswersLeftOut { home_address, number } => {
                write!(f, "no room for {number} answers to flow options of {home_address}")
            }
            Self::Unwritable(error) => write!(f, "cannot write a message: {error}"),
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(error) => error.fmt(f),
            Self::Unexpected(mh_type) => write!(f, "MH Type {mh_type} is not for a home agent"),
            Self::Source => f.write_str("its source is no unicast address"),
            Self::NotForAgent => f.write_str("not for our address"),
            Self::UnknownHomeAddress(address) => write!(f, "home address {address} is not served"),
            Self::Unauthenticated(failure) => failure.fmt(f),
            Self::NoSecurityAssociation => f.write_str("protected, and we have no key"),
            Self::CorrespondentRegistration => f.write_str("a correspondent registration"),
            Self::NonceIndices => f.write_str("a home registration with Nonce Indices"),
            Self::CareOfAddress => f.write_str("its care-of address is not unicast routable"),
            Self::Solicitation => f.write_str("no solicitation of a mobile that is bound there"),
            Self::SolicitationRate => f.write_str("a solicitation a second is enough"),
            Self::PrefixDiscovery => f.write_str("home prefixes are not told here"),
            Self::Searches => f.write_str("too many home addresses are being looked for"),
            Self::Heartbeat => f.write_str("no heartbeat that asks, or an old one"),
            Self::HeartbeatRate => f.write_str("a heartbeat a second is enough"),
            Self::Revocation => f.write_str("nothing of its bindings was revoked"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
