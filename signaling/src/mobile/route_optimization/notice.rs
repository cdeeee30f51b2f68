//! What route optimization tells the operator: reasons as values, for the log and the counters.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use crate::error::{DecodeError, EncodeError};
use crate::return_routability::{AuthorizationFailure, Tested};
use crate::wire::Status;

/// Something about route optimization that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOptimizationNotice {
    /// Something that arrived or was asked for changed nothing.
    Ignored(Ignored),
    /// Tests stay unanswered: left alone for a while.
    Unanswered {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// What was tested.
        tested: Tested,
        /// The uplink, for the care-of test.
        bid: Option<Bid>,
        /// When it is tried again, from now.
        retry: Duration,
    },
    /// Tests are answered by this uplink; what carries a Home Address option or a type 2 routing
    /// header is not. A firewall eats it.
    HeadersEaten {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The uplink.
        bid: Bid,
        /// When it is tried again, from now.
        retry: Duration,
    },
    /// The correspondent refused.
    Refused {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The uplink whose address was refused.
        bid: Bid,
        /// Its reason.
        status: Status,
        /// When it is asked again, from now.
        retry: Duration,
    },
    /// The correspondent knows one of the nonces no more (status 136 to 138): tested again.
    NonceExpired {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// Which of them.
        status: Status,
    },
    /// The correspondent expected a later sequence number (status 135), which is adopted.
    SequenceAdopted {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The last number that it accepted.
        sequence: u16,
    },
    /// The correspondent registers one care-of address only; so be it.
    OneCareOfOnly {
        /// The correspondent.
        correspondent: Ipv6Addr,
    },
    /// The correspondent holds a binding without BID (status 165): everything is replaced.
    PlainBindingExists {
        /// The correspondent.
        correspondent: Ipv6Addr,
    },
    /// The correspondent does not know the Mobility Header.
    Unsupported {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// When it is tried again, from now.
        retry: Duration,
    },
    /// A de-registration stays unanswered or is refused; the correspondent's timers finish it.
    LeftToTimers {
        /// The correspondent.
        correspondent: Ipv6Addr,
    },
    /// A message could not be written.
    Unwritable(EncodeError),
}

/// Why something that arrived or was asked for changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It is no acceptable Mobility Header; [`DecodeError::answer`] says what its sender is owed.
    Undecodable(DecodeError),
    /// It came from nobody whose route is being optimized.
    NotFromCorrespondent,
    /// A kind of message that a mobile does not take from correspondents, by MH Type.
    Unexpected(u8),
    /// A test that nobody asked for, or that was answered already.
    NothingAsked,
    /// A test with another cookie than the request's.
    Cookie,
    /// A test or an acknowledgement to another address of ours, or by another way, than it must.
    WrongWay,
    /// No update is outstanding.
    NothingOutstanding,
    /// Its sequence number is not that of the outstanding update.
    Sequence,
    /// It does not show that it comes from whoever gave us the tokens.
    Unauthorized(AuthorizationFailure),
    /// A Binding Error that asks for nothing; holds its status.
    BindingError(u8),
    /// It asks for something that has just been done.
    RefreshTooSoon,
    /// An address to which no route can be optimized.
    NotOptimizable(Ipv6Addr),
    /// There is room for no more correspondents.
    TooManyCorrespondents(Ipv6Addr),
    /// Too many correspondents are wanted in a short time.
    TooManyAtOnce(Ipv6Addr),
}

/// Why packets take the tunnel again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unoptimized {
    /// The home agent does not hold the care-of address any more.
    LinkDown,
    /// The uplink has another address.
    Moved,
    /// The lifetime ran out.
    Expired,
    /// Three tests in a row stayed unanswered.
    TestUnanswered(Tested),
    /// Three updates in a row stayed unanswered, and the last test was a while ago.
    UpdateUnanswered,
    /// What carries a Home Address option or a type 2 routing header does not get through.
    HeadersEaten,
    /// The correspondent said that it holds no such binding.
    BindingError,
    /// The correspondent does not know the Mobility Header.
    Unsupported,
    /// The correspondent holds another care-of address instead.
    Superseded,
    /// Neither traffic nor policy wants it any more.
    Unwanted,
    /// The mobile is at home.
    ReturnedHome,
    /// The machine was told to stop.
    Stopped,
}

impl RouteOptimizationNotice {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ignored(ignored) => ignored.reason(),
            Self::Unanswered { .. } => "unanswered",
            Self::HeadersEaten { .. } => "headers_eaten",
            Self::Refused { .. } => "refused",
            Self::NonceExpired { .. } => "nonce_expired",
            Self::SequenceAdopted { .. } => "sequence_adopted",
            Self::OneCareOfOnly { .. } => "one_care_of_only",
            Self::PlainBindingExists { .. } => "plain_binding_exists",
            Self::Unsupported { .. } => "unsupported",
            Self::LeftToTimers { .. } => "left_to_timers",
            Self::Unwritable(_) => "unwritable",
        }
    }
}

impl Ignored {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::NotFromCorrespondent => "not_from_correspondent",
            Self::Unexpected(_) => "unexpected",
            Self::NothingAsked => "nothing_asked",
            Self::Cookie => "cookie",
            Self::WrongWay => "wrong_way",
            Self::NothingOutstanding => "nothing_outstanding",
            Self::Sequence => "sequence",
            Self::Unauthorized(_) => "unauthorized",
            Self::BindingError(_) => "binding_error",
            Self::RefreshTooSoon => "refresh_too_soon",
            Self::NotOptimizable(_) => "not_optimizable",
            Self::TooManyCorrespondents(_) => "too_many_correspondents",
            Self::TooManyAtOnce(_) => "too_many_at_once",
        }
    }
}

impl fmt::Display for RouteOptimizationNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored(ignored) => write!(f, "ignored: {ignored}"),
            Self::Unanswered { correspondent, tested, bid: Some(bid), retry } => write!(
                f,
                "{correspondent} leaves the {tested} test by uplink {bid} unanswered; \
                 next try in {retry:?}"
            ),
            Self::Unanswered { correspondent, tested, bid: None, retry } => {
                write!(
                    f,
                    "{correspondent} leaves the {tested} test unanswered; next try in {retry:?}"
                )
            }
            Self::HeadersEaten { correspondent, bid, retry } => write!(
                f,
                "between uplink {bid} and {correspondent} something eats the Home Address option \
                 or the type 2 routing header; next try in {retry:?}"
            ),
            Self::Refused { correspondent, bid, status, retry } => write!(
                f,
                "{correspondent} refused binding {bid}, status {status}; next try in {retry:?}"
            ),
            Self::NonceExpired { correspondent, status } => {
                write!(f, "{correspondent} has changed its nonces, status {status}: testing again")
            }
            Self::SequenceAdopted { correspondent, sequence } => write!(
                f,
                "the last sequence number of {correspondent} is {sequence} (status 135): adopted"
            ),
            Self::OneCareOfOnly { correspondent } => {
                write!(f, "{correspondent} registers one care-of address only")
            }
            Self::PlainBindingExists { correspondent } => {
                write!(f, "{correspondent} holds a binding without BID (status 165): replacing all")
            }
            Self::Unsupported { correspondent, retry } => write!(
                f,
                "{correspondent} does not know the Mobility Header; next try in {retry:?}"
            ),
            Self::LeftToTimers { correspondent } => write!(
                f,
                "{correspondent} does not answer or refuses the de-registration; left to its timers"
            ),
            Self::Unwritable(error) => write!(f, "cannot write a message: {error}"),
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(error) => error.fmt(f),
            Self::NotFromCorrespondent => f.write_str("from nobody whose route is being optimized"),
            Self::Unexpected(mh_type) => write!(f, "MH Type {mh_type} is not for a mobile"),
            Self::NothingAsked => f.write_str("a test that nobody asked for"),
            Self::Cookie => f.write_str("a test with another cookie"),
            Self::WrongWay => f.write_str("to another address or by another way than it must"),
            Self::NothingOutstanding => f.write_str("no update is outstanding"),
            Self::Sequence => f.write_str("not the outstanding sequence number"),
            Self::Unauthorized(failure) => failure.fmt(f),
            Self::BindingError(status) => write!(f, "Binding Error with status {status}"),
            Self::RefreshTooSoon => f.write_str("refreshed a moment ago"),
            Self::NotOptimizable(address) => write!(f, "no route to {address} can be optimized"),
            Self::TooManyCorrespondents(address) => {
                write!(f, "no room for correspondent {address}")
            }
            Self::TooManyAtOnce(address) => {
                write!(f, "too many correspondents at once, {address} has to wait")
            }
        }
    }
}

impl fmt::Display for Unoptimized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkDown => f.write_str("link down"),
            Self::Moved => f.write_str("moved"),
            Self::Expired => f.write_str("expired"),
            Self::TestUnanswered(tested) => write!(f, "{tested} test unanswered"),
            Self::UpdateUnanswered => f.write_str("updates unanswered"),
            Self::HeadersEaten => f.write_str("headers eaten"),
            Self::BindingError => f.write_str("not known to the correspondent"),
            Self::Unsupported => f.write_str("not supported by the correspondent"),
            Self::Superseded => f.write_str("another care-of address is bound"),
            Self::Unwanted => f.write_str("not wanted"),
            Self::ReturnedHome => f.write_str("returned home"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
