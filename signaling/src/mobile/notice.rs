//! What a mobile tells its operator: reasons as values, for the log and the counters.

use std::fmt;
use std::time::Duration;

use mtun_policy::{Bid, FlowId};

use super::flows::FlowFault;
use crate::auth::AuthFailure;
use crate::error::{DecodeError, EncodeError};
use crate::time::NtpOffset;
use crate::wire::{FlowStatus, Status};

/// Something about the registration that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MobileNotice {
    /// A received message changed nothing.
    Ignored(Ignored),
    /// The agent refused; asked again after `retry`.
    Refused {
        /// The binding that was refused; `None` for the whole update.
        bid: Option<Bid>,
        /// The agent's reason.
        status: Status,
        /// When it will be asked again, from now.
        retry: Duration,
    },
    /// The agent says that it has ended a binding (RFC 5846).
    Revoked {
        /// The binding.
        bid: Bid,
    },
    /// The agent says that it lost what it held (RFC 5847): everything is registered anew.
    AgentRestarted,
    /// The agent answers no heartbeats: everything is refreshed.
    AgentSilent,
    /// The agent does not know heartbeats and is not asked again.
    AgentWithoutHeartbeat,
    /// Status 140 to 143: the agent does not forward for us as a mobile router (RFC 3963 §5.4); not
    /// asked again before somebody says so.
    RouterRefused {
        /// The agent's reason.
        status: Status,
    },
    /// Status 134: the home address is in use by another node and must not be used again.
    HomeAddressInUse,
    /// The agent rejected the format of our Binding Identifier option (status 164).
    Malformed {
        /// The binding whose option it was; `None` for the whole update.
        bid: Option<Bid>,
    },
    /// The agent prohibits several care-of addresses (status 166): one is registered instead.
    MultipleCareOfProhibited,
    /// The agent answered without Binding Identifiers, so it does not know RFC 5648: one care-of
    /// address is registered instead.
    AgentWithoutMultipleCareOf,
    /// The agent prohibits bulk registration (status 168): one update per binding from here on.
    BulkProhibited,
    /// A binding without BID was in the way (status 165): everything is registered anew.
    PlainBindingExists,
    /// The agent did not know a BID and is asked to register it as new (status 167).
    UnknownBinding {
        /// The binding.
        bid: Bid,
    },
    /// The agent expected a later sequence number (status 135), which is adopted.
    SequenceAdopted {
        /// The last number it accepted.
        sequence: u16,
    },
    /// The timestamps were off (status 144) and follow the agent's clock from here on.
    ClockCorrected {
        /// How far our time of day is behind the agent's.
        offset: NtpOffset,
    },
    /// The agent granted the registration without the R flag: it forwards no prefixes.
    AgentWithoutRouterSupport,
    /// The agent wants the home registration of another type ended first (status 139).
    TypeChangeDisallowed,
    /// The agent says that our authentication failed (status 146). Not itself authenticated when
    /// the keys differ, so it slows us down and does nothing else.
    AuthenticationRejected {
        /// When it will be asked again, from now.
        retry: Duration,
    },
    /// The path of an uplink reported our signaling undeliverable.
    Unreachable {
        /// The uplink.
        bid: Bid,
    },
    /// An uplink with an IPv4 address only, which takes RFC 5555.
    UnsupportedCareOf {
        /// The uplink.
        bid: Bid,
    },
    /// De-registration was refused at the end; the agent's own timers finish it.
    DeregistrationRefused(Status),
    /// An uplink is on the home link, which the policy leaves unused.
    HomeLinkUnused {
        /// The uplink.
        bid: Bid,
    },
    /// The home address was offered as a care-of address.
    HomeAddressAsCareOf {
        /// The uplink.
        bid: Bid,
    },
    /// The agent prohibits home and foreign bindings at once (status 169): home alone.
    HomeAndForeignProhibited,
    /// Home and foreign bindings at once need bulk registration (RFC 5648 §5.6.5): home alone.
    HomeAndForeignImpossible,
    /// The agent does not answer on the home link: bindings abroad are kept meanwhile.
    SilentAtHome {
        /// The uplink on the home link.
        bid: Bid,
    },
    /// The agent refused to end the bindings on the return home: they are kept.
    ReturnRefused {
        /// The agent's reason.
        status: Status,
        /// When it will be asked again, from now.
        retry: Duration,
    },
    /// The agent refused a flow binding; not asked for again before something changes.
    FlowRefused {
        /// The flow binding.
        flow: FlowId,
        /// The agent's reason.
        status: FlowStatus,
    },
    /// A flow binding that cannot be sent.
    FlowNotSent {
        /// The flow binding.
        flow: FlowId,
        /// Why.
        fault: FlowFault,
    },
    /// So many flow bindings found no room in an update and are gone at the agent.
    FlowsLeftOut {
        /// How many.
        number: usize,
    },
    /// The agent answered no flow binding (RFC 6089 §5.2.6): it sends by the BIDs' priority.
    AgentWithoutFlowBindings,
    /// The agent does not know flow bindings that it had taken (status 132): all are told again.
    FlowsUnknown,
    /// The agent's digest of the flow bindings is not ours: all are told again.
    FlowsDiffer,
    /// An update could not be written.
    Unwritable(EncodeError),
}

/// Why a received message changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It is no acceptable Mobility Header; [`DecodeError::answer`] says what its sender is owed.
    Undecodable(DecodeError),
    /// It came from another node than our home agent.
    NotFromAgent,
    /// It was not addressed to our home address by a type 2 routing header.
    NotForHomeAddress,
    /// A kind of message that a mobile does not take, by MH Type.
    Unexpected(u8),
    /// A Binding Error that asks for nothing; holds its status.
    BindingError(u8),
    /// No update is outstanding.
    NothingOutstanding,
    /// Its sequence number is not that of the outstanding update.
    Sequence,
    /// Its timestamp is not that of the outstanding update (RFC 4285 §6).
    MessageId,
    /// It is not authenticated.
    Unauthenticated(AuthFailure),
    /// It is authenticated, and this home is configured to run without protection.
    NoSecurityAssociation,
    /// It asks for a refresh that has just been made.
    RefreshTooSoon,
    /// The machine has stopped.
    Stopped,
}

impl MobileNotice {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ignored(ignored) => ignored.reason(),
            Self::Refused { .. } => "refused",
            Self::Revoked { .. } => "revoked",
            Self::AgentRestarted => "agent_restarted",
            Self::AgentSilent => "agent_silent",
            Self::AgentWithoutHeartbeat => "agent_without_heartbeat",
            Self::RouterRefused { .. } => "router_refused",
            Self::HomeAddressInUse => "home_address_in_use",
            Self::Malformed { .. } => "malformed",
            Self::MultipleCareOfProhibited => "multiple_care_of_prohibited",
            Self::AgentWithoutMultipleCareOf => "agent_without_multiple_care_of",
            Self::BulkProhibited => "bulk_prohibited",
            Self::PlainBindingExists => "plain_binding_exists",
            Self::UnknownBinding { .. } => "unknown_binding",
            Self::SequenceAdopted { .. } => "sequence_adopted",
            Self::ClockCorrected { .. } => "clock_corrected",
            Self::AgentWithoutRouterSupport => "agent_without_router_support",
            Self::TypeChangeDisallowed => "type_change_disallowed",
            Self::AuthenticationRejected { .. } => "authentication_rejected",
            Self::Unreachable { .. } => "unreachable",
            Self::UnsupportedCareOf { .. } => "unsupported_care_of",
            Self::DeregistrationRefused(_) => "deregistration_refused",
            Self::HomeLinkUnused { .. } => "home_link_unused",
            Self::HomeAddressAsCareOf { .. } => "home_address_as_care_of",
            Self::HomeAndForeignProhibited => "home_and_foreign_prohibited",
            Self::HomeAndForeignImpossible => "home_and_foreign_impossible",
            Self::SilentAtHome { .. } => "silent_at_home",
            Self::ReturnRefused { .. } => "return_refused",
            Self::FlowRefused { .. } => "flow_refused",
            Self::FlowNotSent { .. } => "flow_not_sent",
            Self::FlowsLeftOut { .. } => "flows_left_out",
            Self::AgentWithoutFlowBindings => "agent_without_flow_bindings",
            Self::FlowsUnknown => "flows_unknown",
            Self::FlowsDiffer => "flows_differ",
            Self::Unwritable(_) => "unwritable",
        }
    }
}

impl Ignored {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::NotFromAgent => "not_from_agent",
            Self::NotForHomeAddress => "not_for_home_address",
            Self::Unexpected(_) => "unexpected",
            Self::BindingError(_) => "binding_error",
            Self::NothingOutstanding => "nothing_outstanding",
            Self::Sequence => "sequence",
            Self::MessageId => "message_id",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::NoSecurityAssociation => "no_security_association",
            Self::RefreshTooSoon => "refresh_too_soon",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for MobileNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored(ignored) => write!(f, "ignored a message: {ignored}"),
            Self::Refused { bid: Some(bid), status, retry } => {
                write!(f, "binding {bid} refused, status {status}; next try in {retry:?}")
            }
            Self::Refused { bid: None, status, retry } => {
                write!(f, "registration refused, status {status}; next try in {retry:?}")
            }
            Self::Revoked { bid } => write!(f, "the agent took binding {bid} back"),
            Self::AgentRestarted => {
                f.write_str("the agent lost what it held; everything is registered anew")
            }
            Self::AgentSilent => {
                f.write_str("the agent answers no heartbeats; everything is refreshed")
            }
            Self::AgentWithoutHeartbeat => f.write_str("the agent does not know heartbeats"),
            Self::RouterRefused { status } => write!(
                f,
                "the agent does not serve us as a mobile router, status {status}: not asked again before somebody changes something"
            ),
            Self::HomeAddressInUse => {
                f.write_str("the home address is in use by another node (status 134): not registered again")
            }
            Self::Malformed { bid: Some(bid) } => {
                write!(f, "the agent finds the option of binding {bid} malformed (status 164)")
            }
            Self::Malformed { bid: None } => {
                f.write_str("the agent finds the Binding Identifier options malformed (status 164)")
            }
            Self::MultipleCareOfProhibited => f.write_str(
                "the agent prohibits several care-of addresses (status 166): registering one",
            ),
            Self::AgentWithoutMultipleCareOf => f.write_str(
                "the agent does not know several care-of addresses (no BID in its answer): registering one",
            ),
            Self::BulkProhibited => f.write_str(
                "the agent prohibits bulk registration (status 168): registering one by one",
            ),
            Self::PlainBindingExists => {
                f.write_str("the agent holds a binding without BID (status 165): replacing all")
            }
            Self::UnknownBinding { bid } => {
                write!(f, "the agent does not know binding {bid} (status 167): registering it as new")
            }
            Self::SequenceAdopted { sequence } => {
                write!(f, "the agent's last sequence number is {sequence} (status 135): adopted")
            }
            Self::ClockCorrected { offset } => {
                let sign = if offset.0 < 0 { "ahead of" } else { "behind" };
                let by = offset.magnitude().as_secs_f64();
                write!(
                    f,
                    "our clock is {by:.1} s {sign} the agent's (status 144): timestamps corrected")
            }
            Self::AgentWithoutRouterSupport => {
                f.write_str("the agent does not forward for mobile routers (no R flag): de-registering")
            }
            Self::TypeChangeDisallowed => f.write_str(
                "the agent holds a registration of another type (status 139): ending it first",
            ),
            Self::AuthenticationRejected { retry } => write!(
                f,
                "the agent cannot authenticate us (status 146), check the keys; next try in {retry:?}"
            ),
            Self::Unreachable { bid } => write!(f, "the agent is unreachable by uplink {bid}"),
            Self::UnsupportedCareOf { bid } => {
                write!(f, "uplink {bid} has an IPv4 care-of address, which is not registered")
            }
            Self::DeregistrationRefused(status) => {
                write!(f, "de-registration refused, status {status}; left to the agent's timers")
            }
            Self::HomeLinkUnused { bid } => {
                write!(f, "uplink {bid} is on the home link, which the policy leaves unused")
            }
            Self::HomeAddressAsCareOf { bid } => {
                write!(f, "uplink {bid} has the home address, which is no care-of address")
            }
            Self::HomeAndForeignProhibited => f.write_str(
                "the agent prohibits home and foreign bindings at once (status 169): home alone",
            ),
            Self::HomeAndForeignImpossible => f.write_str(
                "home and foreign bindings at once need bulk registration: home alone",
            ),
            Self::SilentAtHome { bid } => write!(
                f,
                "the agent does not answer on the home link by uplink {bid}: bindings abroad are kept"
            ),
            Self::ReturnRefused { status, retry } => write!(
                f,
                "the agent refused the return home, status {status}; next try in {retry:?}"
            ),
            Self::FlowRefused { flow, status } => {
                write!(f, "flow binding {flow} refused, status {status}")
            }
            Self::FlowNotSent { flow, fault } => {
                write!(f, "flow binding {flow} cannot be sent: {fault}")
            }
            Self::FlowsLeftOut { number } => {
                write!(f, "no room to name {number} flow bindings, which end at the agent by that")
            }
            Self::AgentWithoutFlowBindings => f.write_str(
                "the agent does not take flow bindings: it sends by the priority of the uplinks",
            ),
            Self::FlowsUnknown => f.write_str(
                "the agent does not know flow bindings that it had (status 132): telling all again",
            ),
            Self::FlowsDiffer => {
                f.write_str("the agent holds other flow bindings than ours: telling all again")
            }
            Self::Unwritable(error) => write!(f, "cannot write a Binding Update: {error}"),
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(error) => error.fmt(f),
            Self::NotFromAgent => f.write_str("not from our home agent"),
            Self::NotForHomeAddress => f.write_str("not for our home address"),
            Self::Unexpected(mh_type) => write!(f, "MH Type {mh_type} is not for a mobile"),
            Self::BindingError(status) => write!(f, "Binding Error with status {status}"),
            Self::NothingOutstanding => f.write_str("no update is outstanding"),
            Self::Sequence => f.write_str("not the outstanding sequence number"),
            Self::MessageId => f.write_str("not the outstanding timestamp"),
            Self::Unauthenticated(failure) => failure.fmt(f),
            Self::NoSecurityAssociation => f.write_str("protected, and we have no key"),
            Self::RefreshTooSoon => f.write_str("refreshed a moment ago"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
