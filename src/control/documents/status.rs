//! What `mtun status` and `mtun bindings` show.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::Ipv6Net;
use mtun_policy::{
    AtLimit, Bid, CareOfAddress, HomeAddress, HomeAgentAddress, HomeName, InterfaceName,
    MobileNetworkPrefix, Role, SecurityName,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::downlink::{DownlinkDocument, FlowBindingDocument};
use super::facts::{RadioDocument, VehicleDocument};
use super::health::Health;
use super::routes::{CorrespondentDocument, RouteDocument};
use super::steer::OverrideDocument;
use crate::tunnel_interface::Backend;

/// The whole state at one moment, health first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusDocument {
    /// Whether everything that was configured works, and if not, why.
    pub health: Health,
    /// What this node does.
    pub role: Role,
    /// Name of the policy in force.
    pub policy: String,
    /// Version of the daemon, as Cargo counts.
    pub daemon_version: String,
    /// How long the daemon runs, in seconds.
    pub uptime_seconds: u64,
    /// The home networks, in the order of the file.
    pub homes: Vec<HomeDocument>,
    /// The access links, in the order of the file; empty at a home agent without any.
    pub links: Vec<LinkDocument>,
    /// The vehicle; left out if the policy names nobody who tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vehicle: Option<VehicleDocument>,
    /// A mobile's own bindings, by home and BID; empty at a home agent.
    pub bindings: Vec<BindingDocument>,
    /// What `mtun steer` put before the rules.
    pub overrides: Vec<OverrideDocument>,
    /// The mobiles that a home agent knows; empty at a mobile.
    pub mobiles: Vec<MobileDocument>,
    /// What a mobile's home agents were told of its rules, in the order in which they are asked;
    /// empty at a home agent.
    #[serde(default)]
    pub flow_bindings: Vec<FlowBindingDocument>,
    /// A mobile's care-of addresses at correspondents; empty where routes are not optimized.
    #[serde(default)]
    pub routes: Vec<RouteDocument>,
    /// What this node is to mobiles that talk to it; `null` for nothing.
    #[serde(default)]
    pub correspondent: Option<CorrespondentDocument>,
    /// Messages that did not come as far as a machine; none are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedDocument>,
    /// Where a home agent keeps its bindings over restarts; `null` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreDocument>,
}

/// Messages that were dropped on their arrival, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedDocument {
    /// The home network whose mobiles they name; `null` for those of nobody's.
    pub home: Option<HomeName>,
    /// Why, as the metrics name it.
    pub reason: String,
    /// How many.
    pub messages: u64,
}

/// Where a home agent keeps its bindings over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreDocument {
    /// The file.
    pub file: PathBuf,
    /// Why it cannot write at this moment; `null` if it can.
    pub failing: Option<String>,
    /// Commits made since the start.
    pub commits: u64,
    /// Records written or removed by them.
    pub records: u64,
    /// The most records of one commit.
    pub largest_batch: u64,
    /// Mobiles whose records wait at this moment.
    pub waiting: u64,
    /// Commits that failed since the start.
    pub failures: u64,
    /// Why the last of them did; `null` if none has.
    pub last_failure: Option<String>,
    /// Acknowledgements dropped because their record could not be written in time.
    pub unanswered: u64,
}

/// The bindings alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BindingsDocument {
    /// A mobile's own bindings, by home and BID; empty at a home agent.
    pub bindings: Vec<BindingDocument>,
    /// The mobiles that a home agent knows; empty at a mobile.
    pub mobiles: Vec<MobileDocument>,
    /// What a mobile's home agents were told of its rules, in the order in which they are asked;
    /// empty at a home agent.
    #[serde(default)]
    pub flow_bindings: Vec<FlowBindingDocument>,
    /// A mobile's care-of addresses at correspondents; empty where routes are not optimized.
    #[serde(default)]
    pub routes: Vec<RouteDocument>,
    /// What this node is to mobiles that talk to it; `null` for nothing.
    #[serde(default)]
    pub correspondent: Option<CorrespondentDocument>,
}

/// Mobiles of a home agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MobilesDocument {
    /// What was looked for; `null` for all.
    pub search: Option<String>,
    /// How many it was found in; more than are listed if the request had a limit.
    pub matched: usize,
    /// How many may register.
    pub known: usize,
    /// How many have.
    pub registered: usize,
    /// The bindings that they have.
    pub bindings: usize,
    /// The mobiles, in the order of the file.
    pub mobiles: Vec<MobileDocument>,
}

/// One home network and the tunnel that leads to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HomeDocument {
    /// As the policy file names it.
    pub name: HomeName,
    /// The home agent's address: the far end at a mobile, our own at an agent.
    pub agent: HomeAgentAddress,
    /// A mobile's home address; `null` at an agent.
    pub home_address: Option<HomeAddress>,
    /// A mobile's prefixes.
    pub mobile_networks: Vec<MobileNetworkPrefix>,
    /// The prefix an agent serves; `null` at a mobile.
    #[schemars(with = "Option<String>")]
    pub served: Option<Ipv6Net>,
    /// The one tunnel interface.
    pub tunnel: TunnelDocument,
    /// Rises by one with every change of an effective decision, never with a refresh.
    pub generation: u64,
    /// The security association; `null` is `security none`.
    pub security: Option<SecurityName>,
    /// The real home link of an agent; left out for a virtual one and at a mobile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_link: Option<HomeLinkDocument>,
    /// What a mobile knows of the way down at its agent; left out at an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downlink: Option<DownlinkDocument>,
}

/// What a home agent does on its home link, or a mobile that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HomeLinkDocument {
    /// Its interface.
    pub interface: InterfaceName,
    /// Whether the interface exists.
    pub present: bool,
    /// Addresses that are answered for.
    pub defended: u64,
    /// Home addresses that it is looking for, before it answers their mobiles.
    pub searching: u64,
}

/// The tunnel interface of one home network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelDocument {
    /// Its name.
    pub name: InterfaceName,
    /// The kernel's number for it.
    pub ifindex: u32,
    /// Its MTU in octets, fixed when the daemon starts.
    pub mtu: u32,
    /// What carries its decided flows.
    #[serde(default)]
    pub backend: Backend,
    /// Why it is no link of kmod-mtun; left out if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_kmod: Option<String>,
    /// Why no packet of it takes a fast path of the kernel; left out if packets may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_fast_path: Option<String>,
    /// Why forwarded packets do not go past it there; left out if they may, and where there is no
    /// fast path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_shortcut: Option<String>,
    /// Why its flows would not go on for a while if the daemon were killed; left out if they would,
    /// and where there is no fast path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_pins: Option<String>,
}

/// One access link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkDocument {
    /// As the policy file and the kernel name it.
    pub interface: InterfaceName,
    /// The kernel's number for it; `null` while the interface does not exist.
    pub ifindex: Option<u32>,
    /// The binding identification number it registers with.
    pub bid: Option<Bid>,
    /// BID-PRI of RFC 5648, lower is preferred.
    pub priority: u8,
    /// Whether it can carry packets.
    pub state: LinkState,
    /// Our address on it, after duplicate address detection.
    pub care_of: Option<CareOfAddress>,
    /// Whether it is on the home link of one of our homes.
    #[serde(default)]
    pub home_link: bool,
    /// The next hop of packets that leave by it; `null` without one or on links without routers.
    pub router: Option<IpAddr>,
    /// Why the state is what it is, such as `carrier lost`; `null` if nothing speaks against it.
    pub reason: Option<String>,
    /// Seconds since the state last changed.
    pub since_seconds: Option<u64>,
    /// How often it went since the daemon watches it: its carrier, router or care-of address.
    #[serde(default)]
    pub flaps: u64,
    /// Of a link that is recovering, in how many seconds it is used again if nothing happens.
    #[serde(default)]
    pub recovers_in_seconds: Option<u64>,
    /// Whether its octets cost money.
    #[serde(default)]
    pub metered: bool,
    /// Its quota, if it has one.
    #[serde(default)]
    pub quota: Option<QuotaDocument>,
    /// How much of its rate is used, in hundredths of a percent; `null` without a rate.
    #[serde(default)]
    pub load: Option<u16>,
    /// The last round trip to the home agent, in milliseconds: of probes where there are any, else
    /// of the last Binding Update that was answered at the first try; `null` if not known.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// What 95 of 100 round trips of probes were not longer than, in milliseconds; `null` without
    /// answered probes.
    #[serde(default)]
    pub rtt_p95_ms: Option<f64>,
    /// Jitter: the smoothed deviation of the round trips of probes, in milliseconds; `null` without
    /// answered probes.
    #[serde(default)]
    pub jitter_ms: Option<f64>,
    /// The smoothed round trip of TCP conversations that went and came by this link, the way behind
    /// the home agent included, in milliseconds; `null` if none did in the last five minutes.
    #[serde(default)]
    pub conversation_rtt_ms: Option<f64>,
    /// The share of probes that was lost, 0 to 1; `null` if nothing measures it.
    #[serde(default)]
    pub loss_ratio: Option<f64>,
    /// Strength of its radio signal in dBm; `null` if nobody tells.
    #[serde(default)]
    pub signal_dbm: Option<i16>,
    /// The rest that its radio tells, and who tells it; left out if nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radio: Option<RadioDocument>,
    /// The largest packet that its interface takes, in octets; `null` while it is not attached.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The largest outer packet that its path to a home agent is known to take, where a router on
    /// the way said that it takes less than the interface; `null` otherwise.
    #[serde(default)]
    pub path_mtu: Option<PathMtuDocument>,
}

/// What a router on the way said of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathMtuDocument {
    /// What it takes, in octets.
    pub octets: u16,
    /// In so many seconds it is forgotten, and tried again with what the interface takes.
    pub forgotten_seconds: u64,
}

/// The quota of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuotaDocument {
    /// Octets carried in this period, both directions, outer headers included.
    pub used_octets: u64,
    /// How many there may be.
    pub limit_octets: u64,
    /// How near its end it is.
    pub level: QuotaLevel,
    /// What happens at the end: `last-resort` or `stop`.
    pub at_limit: AtLimit,
    /// The first day of the next period, such as `2026-12-01`; `null` while the date is not known.
    pub resets: Option<String>,
}

/// How near its end a quota is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaLevel {
    /// Under the warning.
    Free,
    /// At the warning or over it.
    Warned,
    /// Used up.
    Reached,
}

impl From<mtun_policy::steering::QuotaLevel> for QuotaLevel {
    fn from(level: mtun_policy::steering::QuotaLevel) -> Self {
        use mtun_policy::steering::QuotaLevel::{Free, Reached, Warned};
        match level {
            Free => Self::Free,
            Warned => Self::Warned,
            Reached => Self::Reached,
        }
    }
}

impl fmt::Display for QuotaLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Free => "free",
            Self::Warned => "at its warning",
            Self::Reached => "used up",
        })
    }
}

/// Whether a link can carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Nothing is known of it yet.
    Unknown,
    /// In use: it has a care-of address, a way out and a binding.
    Up,
    /// In use, though it misses a service level class, or as the last link there is.
    Degraded,
    /// It cannot be used; the reason says why.
    Down,
    /// Good again, and not used before it has been good for a while.
    Recovering,
    /// The last choice of every rule, by hand.
    Drained,
    /// Not used at all, by hand.
    Held,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Recovering => "recovering",
            Self::Drained => "drained",
            Self::Held => "held",
        })
    }
}

/// One binding, as its mobile or as its home agent holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BindingDocument {
    /// The home network.
    pub home: HomeName,
    /// `null` is a binding without BID, from RFC 6275 without RFC 5648.
    pub bid: Option<Bid>,
    /// The care-of address; `null` while the link has none.
    pub care_of: Option<CareOfAddress>,
    /// BID-PRI of RFC 5648, lower is preferred.
    pub priority: u8,
    /// The access link it leads over; `null` at a home agent, which routes as usual.
    pub link: Option<InterfaceName>,
    /// Where its registration stands.
    pub phase: BindingPhase,
    /// Whether packets are sent by it.
    pub usable: bool,
    /// The lifetime that the agent granted, in seconds.
    pub granted_seconds: Option<u64>,
    /// Until it ends if nothing refreshes it, in seconds.
    pub expires_seconds: Option<u64>,
    /// The last status the agent answered with.
    pub status: Option<StatusCode>,
    /// Binding Updates sent since the last answer.
    pub retries: u32,
}

/// Where the registration of one binding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BindingPhase {
    /// Nothing was sent: the link has no care-of address.
    Idle,
    /// A first Binding Update waits for its acknowledgement.
    Registering,
    /// Accepted.
    Registered,
    /// Accepted, and a refresh waits for its acknowledgement.
    Refreshing,
    /// A Binding Update that ends it waits for its acknowledgement.
    Deregistering,
    /// The agent said no; the status says why.
    Refused,
    /// On the home link, where no binding is needed.
    AtHome,
}

impl fmt::Display for BindingPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Refreshing => "refreshing",
            Self::Deregistering => "deregistering",
            Self::Refused => "refused",
            Self::AtHome => "at home",
        })
    }
}

/// A status of a Binding Acknowledgement (RFC 6275 §6.1.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusCode {
    /// The number on the wire; below 128 is acceptance.
    pub code: u8,
    /// Its name.
    pub name: String,
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.name)
    }
}

/// One mobile, as its home agent knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MobileDocument {
    /// The home network.
    pub home: HomeName,
    /// Its home address.
    pub home_address: HomeAddress,
    /// As the agent's policy file calls it.
    pub name: Option<String>,
    /// The prefixes that follow it at this moment.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// Whether it registered as a router (RFC 3963 §4.1.1).
    pub router: bool,
    /// Its bindings; empty while it is at home or silent.
    pub bindings: Vec<BindingDocument>,
    /// Since its last authentic Binding Update, in seconds; `null` if this daemon heard none.
    #[serde(default)]
    pub last_seen_seconds: Option<u64>,
    /// What it told of its rules, in the order in which they are asked (RFC 6089).
    #[serde(default)]
    pub flow_bindings: Vec<FlowBindingDocument>,
    /// Whether the way down of a flow follows its way up, as both ends agreed.
    #[serde(default)]
    pub reflect: bool,
    /// Whether copies to it are numbered, as both ends agreed.
    #[serde(default)]
    pub copies: bool,
}
