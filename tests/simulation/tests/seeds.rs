//! A thousand lives, and what they must have reached.
//!
//! `MTUN_SEED=…` lives one of them and tells its story, `MTUN_SEEDS=…` lives that many.

use mtun_simulation::{Coverage, Fault, live};

/// Lives in CI.
const SEEDS: u64 = 1000;

/// What every run in CI must have reached, so that the simulation cannot become trivial unnoticed.
const REACHED: &[&str] = &[
    "agent: unknown binding",
    "agent drops: not-care-of",
    "agent notice: expired",
    "agent notice: unauthenticated",
    "agent notice: unprotected",
    "agent reads: altered update",
    "agent reads: forged update",
    "agent reads: honest update",
    "agent reads: replayed update",
    "agent refuses: encapsulation-limit",
    "agent refuses: no-usable-binding",
    "agent refuses: too-big",
    "agent: copies",
    "agent drops: duplicate",
    "agent: delivered",
    "agent: duplicate checked",
    "agent: kept",
    "agent: signalling through a tunnel",
    "attack: acknowledgement",
    "attack: alter",
    "attack: binding error",
    "attack: error",
    "attack: home address option",
    "attack: refresh request",
    "attack: replay",
    "attack: routing header",
    "attack: tunnel to the agent",
    "attack: tunnel to the mobile",
    "attack: update",
    "converged",
    "converged: without an uplink",
    "correspondent: answers",
    "correspondent notice: evicted",
    "correspondent notice: expired",
    "correspondent reads: altered update",
    "correspondent reads: honest update",
    "correspondent reads: replayed update",
    "correspondent refuses: 135",
    "correspondent refuses: 166",
    "correspondent: changed",
    "correspondent: sent straight",
    "correspondent: taken straight",
    "correspondent: unknown binding",
    "downlink: an agent that takes none",
    "downlink: answers take the way of their questions",
    "downlink: both ends hold the same",
    "downlink: digests agree",
    "downlink: reflect agreed",
    "downlink: refused",
    "downlink: rules told",
    "event: conversation",
    "event: correspondent reconfigured",
    "event: correspondent restarts",
    "event: headers eaten",
    "host: knows no mobility",
    "link: headers eaten",
    "route notice: headers_eaten",
    "route notice: one_care_of_only",
    "route notice: unanswered",
    "route: bound",
    "route: headers eaten",
    "route: idle",
    "route: refreshed",
    "route: unbound, another care-of address is bound",
    "route: unbound, expired",
    "route: unbound, headers eaten",
    "route: unbound, link down",
    "route: unbound, not wanted",
    "route: unbound, updates unanswered",
    "route: unreachable",
    "route: unsupported",
    "route: wanted",
    "event: address changes",
    "event: agent reconfigured",
    "event: agent restarts",
    "event: clock jumps",
    "event: clock offset",
    "event: link changes",
    "event: long wait",
    "event: mobile restarts",
    "event: nested",
    "event: nested in a circle",
    "event: partition",
    "event: rules change",
    "event: untangled",
    "event: uplink down",
    "event: uplink flaps",
    "event: uplink silent",
    "event: uplink up",
    "host: answered",
    "host: answers",
    "link: corruption",
    "link: duplication",
    "link: loss",
    "mobile ignores: not-our-home",
    "mobile drops: not-home-agent",
    "mobile drops: routing-header",
    "mobile notice: authentication_rejected",
    "mobile notice: bulk_prohibited",
    "mobile notice: clock_corrected",
    "mobile notice: message_id",
    "mobile notice: multiple_care_of_prohibited",
    "mobile notice: nothing_outstanding",
    "mobile notice: refresh_too_soon",
    "mobile notice: refused",
    "mobile notice: sequence",
    "mobile notice: sequence_adopted",
    "mobile notice: unauthenticated",
    "mobile notice: undecodable",
    "mobile notice: unreachable",
    "mobile reads: honest acknowledgement with status 0",
    "mobile reads: honest acknowledgement with status 4",
    "mobile reads: honest acknowledgement with status 130",
    "mobile reads: honest acknowledgement with status 133",
    "mobile reads: honest acknowledgement with status 135",
    "mobile reads: honest acknowledgement with status 144",
    "mobile reads: honest acknowledgement with status 146",
    "mobile reads: honest acknowledgement with status 166",
    "mobile reads: honest acknowledgement with status 168",
    "mobile refuses: blocked",
    "mobile refuses: encapsulation-limit",
    "mobile refuses: hairpin",
    "mobile refuses: no-usable-binding",
    "mobile refuses: too-big",
    "mobile: bound",
    "mobile: copies",
    "mobile drops: duplicate",
    "mobile: delivered",
    "mobile: refreshed",
    "mobile: signalling failed",
    "mobile: stopped",
    "mobile: unbound, agent takes a single care-of address",
    "mobile: unbound, care-of address changed",
    "mobile: unbound, expired",
    "mobile: unbound, link down",
    "mobile: unbound, stopped",
    "packet: destination unreachable",
    "packet: to a nested mobile",
    "packet: to an address that is gone",
    "status of a binding: 130",
    "traffic: from a mobile",
    "traffic: mobile to mobile",
    "traffic: to a mobile",
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Says which life a machine did not survive.
struct Living(u64);

impl Drop for Living {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}; again: MTUN_SEED={0} cargo test -p mtun-simulation", self.0);
        }
    }
}

#[test]
fn every_life_keeps_the_invariants() {
    if let Some(seed) = number("MTUN_SEED") {
        let life = live(seed, Fault::None, true);
        life.trace.iter().for_each(|line| println!("{line}"));
        println!("{} steps\n{}", life.steps, life.coverage);
        assert!(life.violation.is_none(), "seed {seed}: {}", life.violation.expect("just seen"));
        return;
    }
    let mut coverage = Coverage::default();
    let mut steps = 0;
    let seeds = number("MTUN_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        let living = Living(seed);
        let life = live(seed, Fault::None, false);
        std::mem::forget(living);
        if let Some(violation) = life.violation {
            let told = live(seed, Fault::None, true);
            let tail = told.trace.len().saturating_sub(60);
            told.trace[tail..].iter().for_each(|line| println!("{line}"));
            panic!(
                "seed {seed}: {violation}\nagain: MTUN_SEED={seed} cargo test -p mtun-simulation"
            );
        }
        coverage.add(&life.coverage);
        steps += life.steps;
    }
    println!("{steps} steps\n{coverage}");
    let missed: Vec<_> = REACHED.iter().filter(|what| coverage.of(what) == 0).collect();
    assert!(missed.is_empty() || seeds < SEEDS, "{seeds} lives never reached {missed:?}");
}
