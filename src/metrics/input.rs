//! What the owner loop knows at the moment of a scrape.
//!
//! Counters are totals since the daemon started. What the daemon names here exists as a series
//! from then on, so the first input, made at start, names every link, home, rule and reason with
//! 0. Names are those of the policy file; addresses and BIDs never become labels.

use mtun_policy::{HomeName, InterfaceName, RuleName};
use serde::{Deserialize, Serialize};

/// All figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsInput {
    /// Every link of the file.
    pub links: Vec<LinkFigures>,
    /// Every (link, state, reason) that occurred, and those that are to exist from the start.
    pub link_states: Vec<LinkStateFigures>,
    /// Every (link, result) of probes.
    #[serde(default)]
    pub probes: Vec<ProbeFigures>,
    /// Every link with a quota.
    #[serde(default)]
    pub quotas: Vec<QuotaFigures>,
    /// How the kernel's reports about links came.
    #[serde(default)]
    pub reports: ReportFigures,
    /// Every source of facts.
    #[serde(default)]
    pub sources: Vec<SourceFigures>,
    /// Every (source, reason) of complaints.
    #[serde(default)]
    pub source_faults: Vec<SourceFaultFigures>,
    /// Every home network.
    pub homes: Vec<HomeFigures>,
    /// Every (home, what) of agents with a real home link.
    pub home_links: Vec<HomeLinkFigures>,
    /// Every binding of a mobile, by link.
    pub bindings: Vec<BindingFigures>,
    /// Every (home, state) of flow bindings.
    #[serde(default)]
    pub flow_bindings: Vec<FlowBindingFigures>,
    /// Every (home, link, status) of Binding Acknowledgements.
    pub binding_updates: Vec<BindingUpdateFigures>,
    /// Every (home, link, direction).
    pub tunnels: Vec<TunnelFigures>,
    /// The same of packets that went straight, past the home agent.
    #[serde(default)]
    pub straight: Vec<TunnelFigures>,
    /// Every home that optimizes routes.
    #[serde(default)]
    pub routes: Vec<RouteFigures>,
    /// Every (home, message) to correspondents.
    #[serde(default)]
    pub route_messages: Vec<RouteMessageFigures>,
    /// Every (home, reason).
    #[serde(default)]
    pub route_failures: Vec<RouteFailureFigures>,
    /// Bindings that mobiles have at this node as their correspondent; `None` if it is none.
    #[serde(default)]
    pub correspondent_bindings: Option<u64>,
    /// Every (home, rule, link, direction).
    pub rules: Vec<RuleFigures>,
    /// Every (home, reason).
    pub drops: Vec<DropFigures>,
    /// Every (home, event) in the order of numbered copies.
    #[serde(default)]
    pub copies: Vec<CopyFigures>,
    /// Every (home, outcome) of the kernel's fast path, where there is one.
    #[serde(default)]
    pub fast_path: Vec<FastPathFigures>,
    /// Every (home, link).
    pub flows: Vec<FlowFigures>,
    /// Every (from, to, reason).
    pub flow_moves: Vec<FlowMoveFigures>,
    /// The store of bindings; `None` where there is none.
    #[serde(default)]
    pub store: Option<StoreFigures>,
    /// Whether the last policy that was to be applied was.
    pub policy_last_reload_success: bool,
}

/// What a home agent wrote down of its bindings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFigures {
    /// Whether it can write at this moment.
    pub failing: bool,
    /// Commits made.
    pub commits: u64,
    /// Records written or removed by them.
    pub records: u64,
    /// The most records of one commit.
    pub largest_batch: u64,
    /// Mobiles whose records wait at this moment.
    pub waiting: u64,
    /// Commits that failed, by reason, one word.
    pub failures: Vec<(String, u64)>,
    /// Answers dropped because the disk was slower than the mobiles, or failed.
    pub unanswered: u64,
}

/// Which way packets go, seen from the mobile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the mobile to the agent.
    Up,
    /// From the agent to the mobile.
    Down,
}

impl Direction {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkFigures {
    /// The link.
    pub link: InterfaceName,
    /// Whether the interface has carrier and a care-of address.
    pub up: bool,
    /// Whether flows may use it: up, and a binding over it is registered.
    pub usable: bool,
    /// The share of probes that was lost, 0 to 1; `None` while nothing measures it.
    #[serde(default)]
    pub loss_ratio: Option<f64>,
    /// The smoothed round trip of its probes in seconds; `None` while nothing measures it.
    #[serde(default)]
    pub rtt_seconds: Option<f64>,
    /// What 95 of 100 of them were not longer than.
    #[serde(default)]
    pub rtt_p95_seconds: Option<f64>,
    /// Their smoothed deviation.
    #[serde(default)]
    pub jitter_seconds: Option<f64>,
    /// The smoothed round trip of TCP conversations by it in seconds; `None` without any of late.
    #[serde(default)]
    pub conversation_rtt_seconds: Option<f64>,
    /// How often it went since it is watched; `None` for one that is not.
    #[serde(default)]
    pub flaps: Option<u64>,
    /// Strength of its radio signal in dBm; `None` while it is not known.
    #[serde(default)]
    pub signal_dbm: Option<i16>,
    /// The largest outer packet that its path takes, in octets; `None` while it is not attached.
    #[serde(default)]
    pub path_mtu: Option<u32>,
}

/// How the kernel's reports about links, addresses, routes and neighbours came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFigures {
    /// How often the kernel had to drop some.
    pub overruns: u64,
    /// How often everything was asked for.
    pub listings: u64,
}

/// One source of facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFigures {
    /// The link whose radio it tells of, or `vehicle`.
    pub of: String,
    /// Whether what it told is believed.
    pub telling: bool,
}

/// Complaints about a source of facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFaultFigures {
    /// The link whose radio it tells of, or `vehicle`.
    pub of: String,
    /// The reason, one word.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How often a link came into a state for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStateFigures {
    /// The link.
    pub link: InterfaceName,
    /// The state, such as `recovering`.
    pub state: String,
    /// The reason, one word.
    pub reason: String,
    /// Changes.
    pub changes: u64,
}

/// What became of the probes of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFigures {
    /// The link.
    pub link: InterfaceName,
    /// `sent`, `answered`, `lost`, or `late` for an answer to one that had been given up.
    pub result: String,
    /// Probes.
    pub probes: u64,
}

/// The quota of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaFigures {
    /// The link.
    pub link: InterfaceName,
    /// The octets there may be in a period.
    pub limit: u64,
    /// Those of this period.
    pub used: u64,
}

/// One home network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeFigures {
    /// The home network.
    pub home: HomeName,
    /// The generation its decisions have.
    pub generation: u64,
    /// Bindings in a home agent's cache; 0 at a mobile.
    pub agent_bindings: u64,
}

/// What happened on a home link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeLinkFigures {
    /// The home network.
    pub home: HomeName,
    /// What.
    pub what: String,
    /// How often.
    pub count: u64,
}

/// One binding of a mobile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindingFigures {
    /// The home network.
    pub home: HomeName,
    /// The link.
    pub link: InterfaceName,
    /// When it ends, in seconds since 1970-01-01 UTC; 0 while it is not registered.
    pub expires_timestamp_seconds: f64,
}

/// What a mobile told its agent of its rules, or an agent was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowBindingFigures {
    /// The home network.
    pub home: HomeName,
    /// `pending`, `active`, `inactive` or `refused`.
    pub state: String,
    /// Flow bindings.
    pub flow_bindings: u64,
}

/// Acknowledged Binding Updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingUpdateFigures {
    /// The home network.
    pub home: HomeName,
    /// The link; `none` at a home agent.
    pub link: String,
    /// The status by its name.
    pub status: String,
    /// Binding Updates.
    pub updates: u64,
}

/// Inner packets through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelFigures {
    /// The home network.
    pub home: HomeName,
    /// The link; `none` at a home agent.
    pub link: String,
    /// Which way.
    pub direction: Direction,
    /// Octets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// What correspondents hold of one home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFigures {
    /// The home network.
    pub home: HomeName,
    /// Bindings at correspondents by which packets go straight.
    pub bindings: u64,
}

/// Messages to correspondents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMessageFigures {
    /// The home network.
    pub home: HomeName,
    /// Their kind, such as `care-of-test-init`.
    pub message: String,
    /// How many were sent.
    pub messages: u64,
}

/// Tries to go straight that failed, and ways back to the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFailureFigures {
    /// The home network.
    pub home: HomeName,
    /// The reason, one word.
    pub reason: String,
    /// How often.
    pub failures: u64,
}

/// Inner packets that a rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFigures {
    /// The home network.
    pub home: HomeName,
    /// The rule; overrides are summed up as `steer`, packets that no rule matched as `none`.
    pub rule: RuleName,
    /// The link; `none` at a home agent.
    pub link: String,
    /// Which way.
    pub direction: Direction,
    /// Octets.
    pub bytes: u64,
}

/// Packets that were not carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropFigures {
    /// The home network; `none` if it is not known.
    pub home: String,
    /// The reason, one word.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// What became of packets of which numbered copies came (`duplicate`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFigures {
    /// The home network.
    pub home: HomeName,
    /// What happened, one word: `removed` is a copy of what had come already, `given-up` a packet
    /// that was waited for in vain, `late` one that came after that, `begun` a stream that began.
    pub event: String,
    /// How often.
    pub count: u64,
}

/// Packets that the kernel's fast path saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPathFigures {
    /// The home network.
    pub home: HomeName,
    /// What became of them, one word: `sent` and `received` by the fast path, `broken` was dropped,
    /// the others were left to the daemon.
    pub outcome: String,
    /// Packets; a superpacket is one.
    pub packets: u64,
}

/// Remembered flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFigures {
    /// The home network.
    pub home: HomeName,
    /// The link of the outbound packets; `none` at a home agent.
    pub link: String,
    /// Flows.
    pub flows: u64,
}

/// Flows that changed their link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMoveFigures {
    /// The link before.
    pub from: String,
    /// The link after.
    pub to: String,
    /// Why, one word.
    pub reason: String,
    /// Moves.
    pub moves: u64,
}
