//! The daemon: one owner loop, one writer of everything packets read.
//!
//! ```text
//!   netlink ──► movement ──┐                          ┌──► routes, rules, nft
//!   packet threads ────────┼──► owner loop ───────────┼──► snapshots (one atomic store)
//!   control socket ────────┤    machines, rules       ├──► Binding Updates, acknowledgements
//!   clock ─────────────────┘                          └──► events, documents, metrics
//! ```
//!
//! The loop owns the registration machines, the rules and the links. It never handles a data
//! packet; the threads of [`crate::packets`] do, reading what it published. On the death of an
//! uplink it publishes first and tidies rules and routes afterwards.

mod administration;
mod agent_search;
mod answers;
mod apply;
mod chosen;
mod correspondent;
mod detector;
mod discovery;
mod downlink;
mod explain;
mod facts;
mod figures;
mod history;
mod home;
mod home_link;
mod homecoming;
mod keeping;
mod key_store;
mod ledger;
mod links;
mod mobiles;
mod mobility;
mod optimization;
mod owner;
mod path_mtu;
mod preview;
mod probing;
mod report;
mod roles;
mod round_trips;
mod routes;
mod sent;
mod served;
mod service;
mod signaling;
mod sources;
mod start;
mod straight;
mod texts;
mod tunnel;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use downlink::preview as preview_downlink;
pub use owner::Owner;
pub use probing::Answer as ProbeAnswer;
pub use roles::NotBuilt;
pub use start::StartError;

use crate::dashboard::Settings;
use crate::tunnel_interface::Choice;

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy file.
    pub policy: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where state lives that a restart needs.
    pub state: PathBuf,
    /// Where Prometheus text is served; loopback only.
    pub metrics: Option<SocketAddr>,
    /// Where the dashboard is, if anywhere.
    pub dashboard: Option<Settings>,
    /// The group that may read, by number.
    pub read_group: Option<u32>,
    /// The group that may also write, by number.
    pub write_group: Option<u32>,
    /// The group that may also steer, by number.
    pub steer_group: Option<u32>,
    /// The group that may also say that links have moved, by number.
    pub move_group: Option<u32>,
    /// How long a stop waits for the agents to acknowledge the de-registration.
    pub stop_deadline: Duration,
    /// Whether what is whole of a damaged store is taken, instead of not starting.
    pub salvage_bindings: bool,
    /// Added to the time of day that signaling sees, in seconds: for tests of vehicles whose
    /// clock is wrong.
    pub clock_offset: i64,
    /// Where programs and files are that tell facts.
    pub facts: PathBuf,
    /// The address of the D-Bus on which ModemManager is; the system's if there is none.
    pub bus: Option<String>,
    /// Which fast path of the kernel packets may take.
    pub fast_path: Choice,
    /// Where its programs are kept that outlive a killed daemon.
    pub pins: Option<PathBuf>,
    /// Whether links merge what they receive.
    pub gro: Gro,
}

/// Whether uplinks and the links of the networks behind hand on what they receive in few large pieces
/// (generic receive offload).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Gro {
    /// They do, and do as before after a stop
    #[default]
    On,
    /// As each of them does
    Keep,
}

/// Runs the daemon until it is told to stop (SIGTERM or SIGINT).
pub async fn run(options: Options) -> Result<(), StartError> {
    Owner::start(options).await?.run().await;
    Ok(())
}
