//! The words on the control socket.
//!
//! ```text
//! -> {"version":1,"id":7,"request":{"command":"flows","filter":"dport 22"}}
//! <- {"version":1,"id":7,"ok":true,"result":{"kind":"flows","matched":1,"flows":[…]}}
//! <- {"version":1,"id":7,"ok":false,"error":{"code":"forbidden","message":"…","help":"…"}}
//! ```
//!
//! One request a line, one reply a line, in order. After a `subscribe` or `monitor` request the
//! replies do not end: the first says that the subscription stands, every further line is one
//! [`SubscriptionLine`](super::documents::SubscriptionLine) or one
//! [`EventDocument`](super::documents::EventDocument), until the client leaves. The twelve messages
//! of the mobility socket are those of [`mtun_signaling::mobility_socket`].

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use mtun_policy::steering::Admin;
use mtun_policy::{Bid, Diagnostic, Faults, HomeAddress};
use mtun_signaling::mobility_socket::{self, Filter, FromClient, MobilityMessage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::documents::{
    AgentAddition, AgentChangedDocument, AgentListDocument, AgentSwitchedDocument,
    BindingsDocument, ExplainDocument, FaultDocument, FlowsDocument, LinkAdminDocument,
    MobilesDocument, PolicyAppliedDocument, PolicyConfirmedDocument, PolicyDiffDocument,
    PolicyDocument, PolicyHistoryDocument, PolicyRolledBackDocument, SentDocument, StatusDocument,
    SteerDocument, SteerListDocument, SteerUndoDocument,
};
use super::peer::Class;
use crate::metrics::MetricsInput;

/// The version of requests and documents; another one is refused, not guessed at.
pub const VERSION: u32 = 1;

/// Where the daemon listens if nobody says otherwise.
pub const SOCKET: &str = "/run/mtun/control.sock";

/// The longest request in octets, its newline included.
pub const REQUEST_MAX: usize = 1 << 20;

/// One request as it stands on its line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`].
    pub version: u32,
    /// Returned with the reply.
    #[serde(default)]
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// What is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The whole state: [`Response::Status`].
    Status {},
    /// The same without the mobiles one by one, of which an agent may have a hundred thousand:
    /// [`Response::Status`].
    Overview {},
    /// Mobiles of an agent, those that a text is found in: [`Response::Mobiles`].
    Mobiles {
        /// In their names, home addresses or prefixes; `null` for all.
        #[serde(default)]
        search: Option<String>,
        /// At most so many; `null` for all.
        #[serde(default)]
        limit: Option<usize>,
    },
    /// The bindings: [`Response::Bindings`].
    Bindings {},
    /// The flows that the data plane remembers: [`Response::Flows`].
    Flows {
        /// Such as `dport 22 and via wwan0`; `null` for all.
        filter: Option<String>,
        /// At most so many, those with the most bytes; `null` for all.
        limit: Option<usize>,
    },
    /// Which way a flow takes and why: [`Response::Explain`].
    Explain {
        /// Such as `tcp 2001:db8:b::5 -> 2001:db8:c::9 dport 22`.
        flow: String,
        /// Suppositions such as `wlan0=down`; none for the present state.
        #[serde(default)]
        given: Vec<String>,
    },
    /// Sends flows by a link, before all rules, for a time: [`Response::Steer`].
    Steer {
        /// Such as `proto tcp and dport 22`.
        filter: String,
        /// The link.
        via: String,
        /// For how long, in seconds; at least 1.
        seconds: u64,
        /// Why.
        reason: Option<String>,
    },
    /// Drains, holds or releases a link, until somebody says otherwise: [`Response::Link`].
    Link {
        /// The link.
        link: String,
        /// `drained`, `held` or `open`.
        admin: Admin,
    },
    /// The overrides in force: [`Response::SteerList`].
    SteerList {},
    /// Ends an override: [`Response::SteerUndo`].
    SteerUndo {
        /// Its number.
        id: u16,
    },
    /// Puts a policy in force, or refuses it whole: [`Response::PolicyApplied`].
    PolicyApply {
        /// Where it comes from.
        source: PolicySource,
        /// Within so many seconds [`Request::PolicyConfirm`] has to come, or the policy before is
        /// put in force again; `null` for no such condition.
        #[serde(default)]
        confirm_seconds: Option<u64>,
        /// Whether the wait for the confirmation goes on when this connection ends. Otherwise
        /// that takes the policy back at once: who applied it may have lost its way here by it.
        #[serde(default)]
        detached: bool,
    },
    /// Keeps the policy that waits for it: [`Response::PolicyConfirmed`].
    PolicyConfirm {},
    /// Puts an earlier policy in force again: [`Response::PolicyRolledBack`].
    PolicyRollback {
        /// Its number in the history; `null` for the one before the present.
        #[serde(default)]
        entry: Option<u64>,
    },
    /// What a policy would change for the flows there are, without putting it in force:
    /// [`Response::PolicyDiff`].
    PolicyDiff {
        /// Where it comes from.
        source: PolicySource,
    },
    /// The last policies that were in force: [`Response::PolicyHistory`].
    PolicyHistory {
        /// Only this one, with its text; `null` for all without.
        #[serde(default)]
        entry: Option<u64>,
    },
    /// The policy in force: [`Response::Policy`].
    PolicyShow {},
    /// The same without its text: [`Response::Policy`].
    PolicyRules {},
    /// The mobiles that a home agent serves, one by one: [`Response::AgentList`].
    AgentList {},
    /// Serves a mobile from now on; others are not touched: [`Response::AgentChanged`].
    AgentAdd {
        /// The mobile and its grant.
        mobile: AgentAddition,
    },
    /// Serves a mobile no more that was added: [`Response::AgentChanged`].
    AgentRemove {
        /// Its home address.
        home_address: HomeAddress,
    },
    /// Ends what a mobile has bound and refuses it for the time being:
    /// [`Response::AgentChanged`].
    AgentRevoke {
        /// Its home address.
        home_address: HomeAddress,
        /// This binding only; `null` for all.
        #[serde(default)]
        bid: Option<Bid>,
    },
    /// Lets it register again: [`Response::AgentChanged`].
    AgentPermit {
        /// Its home address.
        home_address: HomeAddress,
        /// This binding only; `null` for all.
        #[serde(default)]
        bid: Option<Bid>,
    },
    /// Sends a mobile to other home agents (RFC 5142): [`Response::AgentSwitched`].
    AgentSwitch {
        /// Its home address.
        home_address: HomeAddress,
        /// The agents, most preferred first; none for whichever it finds.
        #[serde(default)]
        agents: Vec<Ipv6Addr>,
    },
    /// The figures behind the metrics: [`Response::Metrics`].
    Metrics {},
    /// Events until the client leaves: [`Response::Monitor`]. Answered by the server itself.
    Monitor {},
    /// Messages of the mobility socket until the client leaves, the present state first:
    /// [`Response::Subscribed`].
    Subscribe {
        /// Which of them; all if it is left out.
        #[serde(default)]
        filter: Filter,
        /// Whether messages are wanted at all; so unless said otherwise.
        #[serde(default = "yes")]
        messages: bool,
        /// Whether the events of [`Request::Monitor`] are wanted too.
        #[serde(default)]
        events: bool,
    },
    /// A message of the mobility socket from a client: [`Response::Sent`].
    Send {
        /// The message. A field that it does not have is refused.
        #[serde(deserialize_with = "message")]
        message: Box<MobilityMessage>,
    },
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicySource {
    /// A file that the daemon reads, an absolute path. Others than root and the daemon's own user
    /// may name files of the daemon's policy directory only: the daemon reads with its own
    /// rights, and a fault shows the line it is in.
    File(PathBuf),
    /// The text itself, without includes.
    Text(String),
}

fn yes() -> bool {
    true
}

fn message<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Box<MobilityMessage>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    mobility_socket::read_value(value).map(Box::new).map_err(serde::de::Error::custom)
}

impl Request {
    /// What a peer must be allowed in order to ask this.
    pub fn class(&self) -> Class {
        match self {
            Self::Status {}
            | Self::Overview {}
            | Self::Mobiles { .. }
            | Self::Bindings {}
            | Self::Flows { .. }
            | Self::Explain { .. }
            | Self::SteerList {}
            | Self::PolicyShow {}
            | Self::PolicyRules {}
            | Self::PolicyDiff { .. }
            | Self::PolicyHistory { .. }
            | Self::AgentList {}
            | Self::Metrics {}
            | Self::Monitor {}
            | Self::Subscribe { .. } => Class::Reading,
            Self::Steer { .. } | Self::SteerUndo { .. } | Self::Link { .. } => Class::Steering,
            Self::Send { message } => match message.kind().from_client() {
                FromClient::Done(class) => class,
                // To be told why, it is enough to be here.
                FromClient::Refused(_) => Class::Reading,
            },
            Self::AgentAdd { .. }
            | Self::AgentRemove { .. }
            | Self::AgentRevoke { .. }
            | Self::AgentPermit { .. }
            | Self::AgentSwitch { .. }
            | Self::PolicyApply { .. }
            | Self::PolicyConfirm {}
            | Self::PolicyRollback { .. } => Class::Administration,
        }
    }

    /// Its name on the socket.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Status {} => "status",
            Self::Overview {} => "overview",
            Self::Mobiles { .. } => "mobiles",
            Self::Bindings {} => "bindings",
            Self::Flows { .. } => "flows",
            Self::Explain { .. } => "explain",
            Self::Steer { .. } => "steer",
            Self::Link { .. } => "link",
            Self::SteerList {} => "steer-list",
            Self::SteerUndo { .. } => "steer-undo",
            Self::PolicyApply { .. } => "policy-apply",
            Self::PolicyConfirm {} => "policy-confirm",
            Self::PolicyRollback { .. } => "policy-rollback",
            Self::PolicyDiff { .. } => "policy-diff",
            Self::PolicyHistory { .. } => "policy-history",
            Self::PolicyShow {} => "policy-show",
            Self::PolicyRules {} => "policy-rules",
            Self::AgentList {} => "agent-list",
            Self::AgentAdd { .. } => "agent-add",
            Self::AgentRemove { .. } => "agent-remove",
            Self::AgentRevoke { .. } => "agent-revoke",
            Self::AgentPermit { .. } => "agent-permit",
            Self::AgentSwitch { .. } => "agent-switch",
            Self::Metrics {} => "metrics",
            Self::Monitor {} => "monitor",
            Self::Subscribe { .. } => "subscribe",
            Self::Send { .. } => "send",
        }
    }
}

/// What the daemon answers.
#[allow(clippy::large_enum_variant, reason = "one at a time, on its way to a socket")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`] and [`Request::Overview`].
    Status(StatusDocument),
    /// To [`Request::Mobiles`].
    Mobiles(MobilesDocument),
    /// To [`Request::Bindings`].
    Bindings(BindingsDocument),
    /// To [`Request::Flows`].
    Flows(FlowsDocument),
    /// To [`Request::Explain`].
    Explain(ExplainDocument),
    /// To [`Request::Steer`].
    Steer(SteerDocument),
    /// To [`Request::Link`].
    Link(LinkAdminDocument),
    /// To [`Request::SteerList`].
    SteerList(SteerListDocument),
    /// To [`Request::SteerUndo`].
    SteerUndo(SteerUndoDocument),
    /// To [`Request::PolicyApply`].
    PolicyApplied(PolicyAppliedDocument),
    /// To [`Request::PolicyConfirm`].
    PolicyConfirmed(PolicyConfirmedDocument),
    /// To [`Request::PolicyRollback`].
    PolicyRolledBack(PolicyRolledBackDocument),
    /// To [`Request::PolicyDiff`].
    PolicyDiff(PolicyDiffDocument),
    /// To [`Request::PolicyHistory`].
    PolicyHistory(PolicyHistoryDocument),
    /// To [`Request::PolicyShow`] and [`Request::PolicyRules`].
    Policy(PolicyDocument),
    /// To [`Request::AgentList`].
    AgentList(AgentListDocument),
    /// To the requests that change one mobile.
    AgentChanged(AgentChangedDocument),
    /// To [`Request::AgentSwitch`].
    AgentSwitched(AgentSwitchedDocument),
    /// To [`Request::Metrics`].
    Metrics(MetricsInput),
    /// To [`Request::Subscribe`]: the subscription stands.
    Subscribed {
        /// How many messages wait for this client before it is told that it missed some.
        waiting_max: usize,
    },
    /// To [`Request::Send`]: it is done.
    Sent(SentDocument),
    /// To [`Request::Monitor`]: the subscription stands.
    Monitor {
        /// How many events wait for this client before the oldest are lost.
        waiting_max: usize,
    },
}

/// One reply as it stands on its line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyLine {
    /// [`VERSION`].
    pub version: u32,
    /// The id of the request, 0 if it could not be read.
    #[serde(default)]
    pub id: u64,
    /// Whether there is a result; if not, there is an error.
    pub ok: bool,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Response>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ControlError>,
}

impl ReplyLine {
    /// The reply to the request with this id.
    pub fn new(id: u64, answer: Result<Response, ControlError>) -> Self {
        let ok = answer.is_ok();
        let (result, error) = match answer {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { version: VERSION, id, ok, result, error }
    }
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlError {
    /// The kind, for programs.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub help: Option<String>,
    /// The faults of a policy; empty for everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultDocument>,
}

impl ControlError {
    /// An error without help.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, faults: Vec::new() }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A policy that was refused for its faults.
    pub fn faults(faults: Vec<FaultDocument>) -> Self {
        let message = match faults.as_slice() {
            [] => "the policy was refused".to_owned(),
            [only] => format!("the policy was refused: {}", only.message),
            [first, rest @ ..] => {
                let (message, count) = (&first.message, rest.len());
                let s = if count == 1 { "" } else { "s" };
                format!("the policy was refused: {message} (and {count} more fault{s})")
            }
        };
        Self { faults, ..Self::new(ErrorCode::PolicyFaults, message) }
    }
}

/// A filter or flow that cannot be read; the place is among the faults.
impl From<Diagnostic> for ControlError {
    fn from(fault: Diagnostic) -> Self {
        let error = Self::new(ErrorCode::Usage, fault.message.clone());
        Self { help: fault.help.clone(), faults: vec![fault.into()], ..error }
    }
}

impl From<Faults> for ControlError {
    fn from(faults: Faults) -> Self {
        Self::faults(faults.0.into_iter().map(FaultDocument::from).collect())
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ControlError {}

/// The kinds of errors, of the socket and of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request or the command line cannot be understood.
    Usage,
    /// The request has a version that this daemon does not speak.
    Version,
    /// The request is longer than [`REQUEST_MAX`].
    TooLarge,
    /// The request did not end in time.
    TooSlow,
    /// Too many clients, or too many monitors.
    Busy,
    /// The peer may not ask this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The policy has faults; they are listed.
    PolicyFaults,
    /// Understood, allowed, and against what another client or the policy says.
    Conflict,
    /// Understood, allowed, and not possible at this moment.
    Refused,
    /// Nobody answers at the socket.
    NoDaemon,
    /// Done, and the result shows that something does not work.
    Degraded,
    /// The daemon did not answer in time, or answered nonsense.
    Internal,
}
