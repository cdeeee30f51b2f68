//! What a handover costs, in packets and milliseconds, measured on real packets in the lab.
//!
//! 1,000 packets a second each way from the router and from the node behind it, 20 ms round trip
//! on either path by the user-space wire. Prints one line for each goal:
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```
//!
//! and exits 0 whether met or missed. `MTUN_BENCH_RUNS` is the number of runs, 100 by default;
//! ten times as many policy reloads are made. `MTUN_BENCH_PARTS` names the parts to run, of
//! `planned,death,reload,care-of`; all by default.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, write_keys};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Observatory, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe, TwoWay};
use mtun::lab::wire::Impairment;
use mtun::lab::world::{Plan, World, address};

const PATIENCE: Duration = Duration::from_secs(60);
const ONE_WAY: Duration = Duration::from_millis(10);
const ROUND_TRIP_MS: f64 = 20.0;

fn main() {
    // `cargo test --benches` passes arguments too; none of them matters here.
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return;
    }
    let runs = std::env::var("MTUN_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok());
    if let Err(error) = measure(runs.unwrap_or(100)) {
        println!("handover bench broke off: {error:#}");
    }
}

fn goal(name: &str, measured: f64, limit: f64) {
    let met = if measured <= limit { "met" } else { "missed" };
    println!("goal {name} {measured:.1} <= {limit} {met}");
}

/// The router's and the node's probes, with the taps that see their uplinks.
struct Bench {
    probes: Vec<(Flow, Probe)>,
    observatory: Observatory,
    mobile: Daemon,
    _agent: Daemon,
    _echo: Echo,
    world: World,
}

impl Bench {
    fn start(plan: Plan) -> Result<Self> {
        let world = World::build(Plan {
            wlan_path: Impairment::delayed(ONE_WAY),
            wwan_path: Impairment::delayed(ONE_WAY),
            detection: Duration::from_millis(50),
            ..plan
        })?;
        write_keys(&world)?;
        let programs = Programs {
            mtund: PathBuf::from(env!("CARGO_BIN_EXE_mtund")),
            mtun: PathBuf::from(env!("CARGO_BIN_EXE_mtun")),
        };
        let (text, none) = (PolicyText::default(), Arguments::default());
        let observatory = Observatory::open(&world)?;
        let agent = Daemon::start(&world, &programs, Side::Agent, &text, &none)?;
        let mobile = Daemon::start(&world, &programs, Side::Mobile, &text, &none)?;
        mobile.wait_for_links(&["wlan0", "wwan0"], PATIENCE)?;
        let echo = Echo::start(&world.cn)?;
        let mut probes = Vec::new();
        for (namespace, home) in [(&world.mr, address::HOME), (&world.mnn, address::NODE)] {
            let probe = Probe::start(namespace, &echo, INTERVAL, &Bound::Nowhere)?;
            probe.wait_for_echo_after(100, PATIENCE)?;
            probes.push((Flow::to_correspondent(17, (home, probe.port()), PORT), probe));
        }
        Ok(Self { probes, observatory, mobile, _agent: agent, _echo: echo, world })
    }

    fn mark(&self) -> Vec<u32> {
        self.probes.iter().map(|(_, probe)| probe.mark()).collect()
    }

    fn tallies(&self, mark: &[u32]) -> Vec<TwoWay> {
        self.probes.iter().zip(mark).map(|((_, probe), from)| probe.tally_since(*from)).collect()
    }

    /// Waits until the probes go out and come in by `uplink`, and then for `more` packets.
    fn settle(&self, uplink: &str, more: u32) -> Result<()> {
        for (flow, _) in &self.probes {
            for way in [Way::Out, Way::In] {
                wait_for(&format!("{flow} on {uplink}"), PATIENCE, || {
                    let now = self.observatory.uplink(flow, way);
                    (now.as_deref() == Some(uplink)).then_some(())
                })
                .with_context(|| self.mobile.story())?;
            }
        }
        let mark = self.mark();
        for ((_, probe), from) in self.probes.iter().zip(mark) {
            probe.wait_for_echo_after(from + more, PATIENCE)?;
        }
        Ok(())
    }

    fn tunnel(&self) -> Result<(u32, u32)> {
        let status = self.mobile.status()?;
        let tunnel = &status.homes.first().context("no home")?.tunnel;
        Ok((tunnel.ifindex, tunnel.mtu))
    }
}

fn sum(tallies: &[TwoWay], of: fn(&mtun::lab::tally::Tally) -> u64) -> u64 {
    tallies.iter().map(|tally| of(&tally.outbound) + of(&tally.inbound)).sum()
}

/// The value that 99 of 100 do not exceed.
fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * 99).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn measure(runs: u32) -> Result<()> {
    let chosen = std::env::var("MTUN_BENCH_PARTS").ok();
    let wanted = |part: &str| {
        chosen.as_ref().is_none_or(|parts| parts.split(',').any(|named| named == part))
    };
    let bench = Bench::start(Plan::default())?;
    if wanted("planned") {
        planned(&bench, runs)?;
    }
    if wanted("death") {
        death(&bench, runs)?;
    }
    if wanted("reload") {
        reload(&bench, runs * 10)?;
    }
    drop(bench);
    if wanted("care-of") {
        care_of_changes(runs)?;
    }
    Ok(())
}

fn planned(bench: &Bench, runs: u32) -> Result<()> {
    let mark = bench.mark();
    for _ in 0..runs {
        let words = ["steer", "proto udp and dport 4000", "via", "wwan0", "--for", "10m"];
        let result = bench.mobile.mtun_ok(&words)?;
        bench.settle("wwan0", 40)?;
        let id = result["override"]["id"].as_u64().context("an override without number")?;
        bench.mobile.mtun_ok(&["steer", "undo", &id.to_string()])?;
        bench.settle("wlan0", 40)?;
    }
    let tallies = bench.tallies(&mark);
    println!("# planned changes: {}, packets: {}", 2 * runs, sum(&tallies, |tally| tally.sent));
    goal("planned-change-lost", sum(&tallies, |tally| tally.lost) as f64, 0.0);
    goal("planned-change-duplicated", sum(&tallies, |tally| tally.duplicated) as f64, 0.0);
    Ok(())
}

fn death(bench: &Bench, runs: u32) -> Result<()> {
    let (mut out, mut back, mut late) = (Vec::new(), Vec::new(), Duration::ZERO);
    let (mut failback_lost, mut failback_twice) = (0, 0);
    for _ in 0..runs {
        let mark = bench.mark();
        bench.world.wlan_down()?;
        bench.settle("wwan0", 60)?;
        for tally in bench.tallies(&mark) {
            out.push(tally.outbound.longest_gap_ms);
            back.push(tally.inbound.longest_gap_ms);
        }
        let mark = bench.mark();
        bench.world.wlan_up()?;
        bench.mobile.wait_for_links(&["wlan0", "wwan0"], PATIENCE)?;
        bench.settle("wlan0", 60)?;
        let tallies = bench.tallies(&mark);
        failback_lost += sum(&tallies, |tally| tally.lost);
        failback_twice += sum(&tallies, |tally| tally.duplicated);
        late = late.max(bench.world.wlan_wire().lateness());
    }
    println!("# uplink deaths: {runs}; the wire was late by {late:?} at most");
    goal("death-gap-out-p99-ms", p99(out), 20.0);
    goal("death-gap-in-p99-ms", p99(back), 20.0 + ROUND_TRIP_MS);
    goal("failback-lost", failback_lost as f64, 0.0);
    goal("failback-duplicated", failback_twice as f64, 0.0);
    Ok(())
}

fn reload(bench: &Bench, count: u32) -> Result<()> {
    let usual = bench.mobile.policy().to_owned();
    // The two files differ in what they say of the node's probes; the router's are the WLAN's in
    // both, so a packet of theirs on W-CDMA was judged by no version of the policy.
    let node = format!("match proto=udp dport=4000 src=\"{}\"\n prefer wwan0", address::NODE);
    let changed = PolicyText::default().with_rule("probe", &node);
    let router = bench.probes[0].0;
    let astray = || -> u64 {
        [Way::Out, Way::In].map(|way| bench.observatory.packets(&router, way, "wwan0")).iter().sum()
    };
    let file = usual.with_file_name("changed.kdl");
    std::fs::write(&file, changed.mobile)?;
    let (mark, before) = (bench.mark(), astray());
    for number in 0..count {
        let file = if number % 2 == 0 { &file } else { &usual };
        bench.mobile.mtun_ok(&["policy", "apply", &file.display().to_string()])?;
    }
    bench.mobile.mtun_ok(&["policy", "apply", &usual.display().to_string()])?;
    bench.settle("wlan0", 100)?;
    let tallies = bench.tallies(&mark);
    println!("# reloads: {count}, packets: {}", sum(&tallies, |tally| tally.sent));
    goal("reload-lost", sum(&tallies, |tally| tally.lost) as f64, 0.0);
    goal("reload-duplicated", sum(&tallies, |tally| tally.duplicated) as f64, 0.0);
    goal("reload-misjudged", (astray() - before) as f64, 0.0);
    Ok(())
}

fn care_of_changes(runs: u32) -> Result<()> {
    let bench = Bench::start(Plan { advertise: false, ..Plan::default() })?;
    let before = bench.tunnel()?;
    let mut changed = 0;
    let mut old = address::WLAN.to_string();
    for number in 0..runs {
        let new = format!("2001:db8:1::{:x}", 0x100 + number);
        bench.world.mr.ip(&[
            &format!("address del {old}/64 dev wlan0"),
            &format!("address add {new}/64 dev wlan0"),
        ])?;
        bench.mobile.wait_until("the new care-of address", PATIENCE, |status| {
            status.bindings.iter().any(|binding| {
                binding.usable && binding.care_of.is_some_and(|care_of| care_of.to_string() == new)
            })
        })?;
        changed += u32::from(bench.tunnel()? != before);
        old = new;
    }
    bench.settle("wlan0", 20)?;
    println!("# care-of changes: {runs}");
    goal("care-of-change-tunnel-changed", f64::from(changed), 0.0);
    Ok(())
}
