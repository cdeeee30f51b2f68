//! What watching links is worth, and what it costs.
//!
//! Two daemons on real packets in the lab, whose user-space wire delays, loses and takes the carrier
//! away; what would take days is simulated, with the prober and the steering that the daemon runs.
//! Prints one line for each goal:
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```
//!
//! and exits 0 whether met or missed; what it is at stands on stderr. `MTUN_BENCH_PARTS` names the
//! parts to run, of `loss,death,moves,shrink,flap,storm,idle`; all by default, in about eight minutes.
//! `MTUN_BENCH_RUNS` is the number of moves, 1,000 by default; a tenth as many links die. Moves,
//! deaths and paths that shrink take place in several worlds side by side, which makes them slower
//! and never faster. Flapping takes a minute, an idle router is watched for another. SIGINT and
//! SIGTERM end it, and nothing of its worlds stays.

#[path = "links/moves.rs"]
mod moves;
#[path = "links/rig.rs"]
mod rig;
#[path = "links/shrink.rs"]
mod shrink;
#[path = "links/silence.rs"]
mod silence;
#[path = "links/storms.rs"]
mod storms;

use anyhow::Result;
use mtun::lab::namespace::{end_waits_on_signals, interrupted};

fn main() {
    let runs = std::env::var("MTUN_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok());
    let runs: u32 = runs.unwrap_or(1000);
    let chosen = std::env::var("MTUN_BENCH_PARTS").ok();
    let wanted = |part: &str| {
        chosen.as_ref().is_none_or(|parts| parts.split(',').any(|named| named == part))
    };
    // `cargo test --benches` passes arguments too; none of them matters here.
    if wanted("loss") {
        silence::a_day_of_losses();
    }
    end_waits_on_signals();
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return;
    }
    let parts: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("death", &|| silence::deaths((runs / 10).max(1))),
        ("moves", &|| moves::planned(runs)),
        ("shrink", &shrink::paths),
        ("flap", &storms::flapping),
        ("storm", &storms::addresses),
        ("idle", &storms::idle),
    ];
    for (name, part) in parts.into_iter().filter(|(name, _)| wanted(name)) {
        if interrupted() {
            return;
        }
        eprintln!("links: {name}");
        if let Err(error) = part() {
            println!("{name} broke off: {error:#}");
        }
    }
}
