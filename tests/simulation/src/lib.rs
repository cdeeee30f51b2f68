//! Whole networks in virtual time: real machines, real packet loops, and everything between them
//! made up from a seed.
//!
//! ```text
//!   hosts ── mobile router ──╮ uplinks ╭── correspondents
//!   another mobile, nested ──┤         │
//!                            ╰─ links ─┼── home agents
//!      lose, delay, double, reorder,   │
//!      flip, partition, flap, readdress╰── an attacker who records, replays, alters and forges
//! ```
//!
//! A [`Life`] is what one seed makes: a few nodes, a few dozen events, then quiet, in which both
//! ends must come to hold the same. Every node runs the machines of `mtun-signaling`, the steering
//! of `mtun-policy` and the engine of `mtun-dataplane` under its own clocks, from a policy file;
//! packets are octets all the way. After every step the invariants of `witness.rs` are asked of
//! the nodes that were touched.
//!
//! Nothing here draws a random number or reads a clock. A seed that fails tells its story when it
//! is lived once more: `MTUN_SEED=… cargo test -p mtun-simulation`.

mod action;
mod agent;
mod attacker;
mod convergence;
mod copies;
mod correspondent;
mod coverage;
mod downlink;
mod fault;
mod forward;
mod hosts;
mod mobile;
mod network;
mod packet;
mod random;
mod signalling;
mod straight;
mod text;
mod witness;
mod world;

// The daemon's own translation from binding lists to snapshots, of which the daemon's needs are
// not all ours. It is pure, as its place here shows.
#[allow(dead_code, reason = "the daemon calls the rest")]
#[path = "../../../src/publish.rs"]
mod publish;

pub use coverage::Coverage;
pub use fault::Fault;
pub use witness::{Invariant, Violation};

use world::World;

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct Life {
    /// What it reached.
    pub coverage: Coverage,
    /// The invariant that did not hold, if one did not.
    pub violation: Option<Violation>,
    /// What happened, line by line, if that was asked for.
    pub trace: Vec<String>,
    /// Events, packets and timers.
    pub steps: u64,
}

/// Lives through one seed, with nodes that are broken as `fault` says.
pub fn live(seed: u64, fault: Fault, traced: bool) -> Life {
    let mut world = World::new(seed, fault, traced);
    world.live();
    let World { coverage, violation, trace, steps, .. } = world;
    Life { coverage, violation, trace: trace.unwrap_or_default(), steps }
}
