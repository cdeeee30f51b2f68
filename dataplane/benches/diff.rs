//! What it costs to hold 65,536 live flows against another policy, and to decide them again.
//!
//! Prints one line for each goal and exits 0 whether met or missed:
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use mtun_dataplane::{Settings, Snapshot, Verdict, diff};
use mtun_policy::{
    Effective, FailbackMode, Ingress, Otherwise, Outcome, RuleHead, Says, Sticky, TrafficSelector,
};
use support::{Node, bid, mobile_with, registration, rule, udp, uplinks};

const FLOWS: u16 = u16::MAX;
const RULES: u16 = 1000;
const RUNS: usize = 20;

fn main() {
    let old = Node::with(world(1), Settings { flows: 1 << 20, ..Settings::default() });
    let mut out = Vec::new();
    for port in 0..=FLOWS {
        let packet = udp(support::HOME, support::PEER, (1, port), 100);
        let verdict = old.engine.outbound(Ingress::LOCAL, &packet, support::NOW, &mut out);
        assert!(matches!(verdict, Verdict::Send { .. }));
    }
    let flows = old.engine.flows();
    let before = old.snapshot.load_full();
    // Every second rule names another link.
    let mut next = registration(uplinks(), policy(2).into());
    next.changed_at = support::NOW;
    let after = Snapshot { updates: before.updates.with(next), ..(*before).clone() };
    let now = support::NOW + Duration::from_secs(5);
    let mut moved = 0;
    let spent = least(|| moved = diff(&before, &after, &flows, now).len());
    let busy = processor();
    diff(&before, &after, &flows, now);
    println!("processor time of one difference: {:.1} ms", millis(processor() - busy));
    goal("diff-65536-flows-1000-rules-ms", spent, 50.0);
    println!("{moved} of {} flows would move", flows.len());

    old.snapshot.store(after.into());
    let start = Instant::now();
    let mut slices = 1;
    let mut longest = Duration::ZERO;
    loop {
        let slice = Instant::now();
        let again = old.engine.reevaluate(now);
        longest = longest.max(slice.elapsed());
        if again.is_none_or(|at| at > now) {
            break;
        }
        slices += 1;
    }
    let all = start.elapsed();
    println!("re-evaluated in {slices} slices, {:.1} ms in all", millis(all));
    // The first slice also lists the flows.
    goal("reevaluate-longest-slice-ms", millis(longest), 20.0);
}

/// What this thread has had of a processor: on a busy machine less than the clock says.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

fn world(step: u16) -> Snapshot {
    mobile_with(registration(uplinks(), policy(step).into()))
}

/// Rules for a range of ports each; those whose number `step` divides go by the first link.
fn policy(step: u16) -> Effective {
    let width = u16::MAX / RULES;
    Effective::new((0..RULES).map(|id| {
        let ports = match id + 1 == RULES {
            true => id * width..=u16::MAX,
            false => id * width..=(id + 1) * width - 1,
        };
        let selector = TrafficSelector { destination_ports: vec![ports], ..Default::default() };
        let links = if id % step == 0 { vec![bid(1), bid(2)] } else { vec![bid(2), bid(1)] };
        let ripe = links.clone();
        let outcome = Outcome::Candidates(links);
        let (head, says) = rule(id, vec![selector], outcome, Otherwise::NextRule);
        let identity = u64::from(id) << 1 | u64::from(id % step == 0);
        let (sticky, failback) = (Sticky::default(), FailbackMode::Gap);
        (RuleHead { identity, ..head }, Says { sticky, failback, ripe, ..says })
    }))
}

fn least(mut run: impl FnMut()) -> f64 {
    let times = (0..RUNS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    millis(times.min().unwrap_or_default())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn goal(name: &str, measured: f64, limit: f64) {
    let met = if measured <= limit { "met" } else { "missed" };
    println!("goal {name} {measured:.1} <= {limit} {met}");
}
