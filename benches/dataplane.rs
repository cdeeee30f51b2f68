//! What the tunnel costs against plain forwarding and against the kernel's own tunnels: the engine
//! in user space, the fast path of the kernel at `mtun0` and the shortcut past it, side by side.
//!
//! ```text
//!  a ==== mr ---- ha ==== b      several times at once: plain routes, seg6, VXLAN, ours
//! ```
//!
//! Short slices go round robin over all of them, in the other order every other round, so that what
//! the machine does meanwhile falls on all of them. A ratio is that of two slices of one round; the
//! median of all rounds is judged, and the best slice against the best is printed beside it. Prints
//! one line for each goal:
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```
//!
//! and exits 0 whether met or missed. `MTUN_BENCH_ROUNDS` is the number of rounds, 10 by default. With
//! `MTUN_BENCH_PROFILE=1` it prints instead where the time goes, by the kernel's profiler.

#[path = "dataplane/profile.rs"]
mod profile;
#[path = "dataplane/programs.rs"]
mod programs;
#[path = "dataplane/rig.rs"]
mod rig;
#[path = "dataplane/traffic.rs"]
mod traffic;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mtun::lab::namespace::Shell;
use mtun::lab::record::{self, Record, Which};

use programs::{Counting, Runs};
use rig::{Rig, Way};
use traffic::{Sink, Slice, small};

fn main() {
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return;
    }
    let rounds = std::env::var("MTUN_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    if let Err(error) = measure(rounds.unwrap_or(10)) {
        println!("dataplane bench broke off: {error:#}");
    }
}

/// What ours has to reach of another way.
struct Goal {
    ours: Way,
    of: Way,
    limit: f64,
}

const fn goal(ours: Way, of: Way, limit: f64) -> Goal {
    Goal { ours, of, limit }
}

const SUPERPACKETS: &[Goal] = &[
    goal(Way::Short, Way::Plain, 1.0),
    goal(Way::Short, Way::Seg6, 1.05),
    goal(Way::ShortWalled, Way::Walled, 1.0),
    goal(Way::Straight, Way::Plain, 0.95),
    goal(Way::Straight, Way::Seg6, 1.05),
    goal(Way::Fast, Way::Plain, 0.95),
    goal(Way::Fast, Way::Seg6, 1.05),
    goal(Way::Engine, Way::Plain, 0.25),
    goal(Way::Rules, Way::Fast, 0.95),
    goal(Way::Engine, Way::WireguardGo, 3.0),
    goal(Way::Short, Way::WireguardGo, 3.0),
];
const MTU_SIZED: &[Goal] = &[
    goal(Way::Short, Way::Plain, 1.15),
    goal(Way::Short, Way::Seg6, 1.35),
    goal(Way::ShortWalled, Way::Walled, 1.20),
    goal(Way::Straight, Way::Plain, 1.05),
    goal(Way::Straight, Way::Seg6, 1.20),
    goal(Way::Fast, Way::Plain, 0.90),
    goal(Way::Fast, Way::Seg6, 1.0),
    goal(Way::Engine, Way::Plain, 0.55),
    goal(Way::Engine, Way::WireguardGo, 3.0),
    goal(Way::Short, Way::WireguardGo, 3.0),
];
const MTU_SIZED_GRO: &[Goal] = &[
    goal(Way::Short, Way::Plain, 1.10),
    goal(Way::Short, Way::Seg6, 1.10),
    goal(Way::Straight, Way::Plain, 1.0),
    goal(Way::Fast, Way::Plain, 1.0),
    goal(Way::Engine, Way::Plain, 0.30),
];
const SMALL: &[Goal] = &[
    goal(Way::Short, Way::Plain, 1.20),
    goal(Way::Short, Way::Seg6, 1.80),
    goal(Way::Fast, Way::Plain, 0.68),
    goal(Way::Fast, Way::Seg6, 1.0),
    goal(Way::Engine, Way::Plain, 0.25),
    goal(Way::Rules, Way::Fast, 0.95),
];
/// Without what the sender takes.
const SMALL_NET: &[Goal] =
    &[goal(Way::Short, Way::Plain, 1.35), goal(Way::ShortWalled, Way::Walled, 1.80)];

fn measure(rounds: usize) -> Result<()> {
    let shell = Shell { verbose: false };
    record::remove_all(Which::Stale, &shell)?;
    let record = Arc::new(Record::start()?);
    let mut rigs = Vec::new();
    for way in Way::ALL {
        match Rig::build(way, &record, &shell) {
            Ok(rig) => {
                println!("{} stands", way.name());
                rigs.push((Sink::open(&rig)?, rig));
            }
            // A machine need not have all of the others' tunnels.
            Err(error) if matches!(way, Way::Seg6 | Way::Vxlan | Way::WireguardGo) => {
                println!("SKIPPED: {}: {error:#}", way.name());
            }
            Err(error) => return Err(error.context(way.name())),
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{rounds} rounds; load before: {}", load.trim());
    let stream = |(sink, rig): &(Sink, Rig)| match rig.way {
        Way::Sender => Ok(Slice::default()),
        _ => sink.stream(rig),
    };
    if std::env::var_os("MTUN_BENCH_PROFILE").is_some() {
        return profiles(&rigs, stream);
    }
    row("superpackets", "Gbit", rounds, &rigs, SUPERPACKETS, stream)?;
    row("small", "Mpkt", rounds, &rigs, SMALL, |(_, rig)| match rig.way {
        // The ends do the work there, and packets are counted before it.
        Way::Straight => Ok(Slice::default()),
        _ => small(rig),
    })?;
    for way in [Way::Fast, Way::Short] {
        let at = rigs.iter().find(|(_, rig)| rig.way == way);
        at.map_or(Ok(()), |(_, rig)| program_time(rig))?;
    }
    rigs.iter().try_for_each(|(_, rig)| rig.without_superpackets())?;
    row("mtu-sized", "Gbit", rounds, &rigs, MTU_SIZED, stream)?;
    rigs.iter().try_for_each(|(_, rig)| rig.join_packets())?;
    row("mtu-sized-gro", "Gbit", rounds, &rigs, MTU_SIZED_GRO, stream)?;
    for (_, rig) in &rigs {
        if rig.way.is_by_the_kernel() {
            let carried = rig.carried()?;
            println!("{}: the kernel carried {carried} packets", rig.way.name());
            ensure!(carried > 0, "{} did not go by the fast path", rig.way.name());
        }
    }
    Ok(())
}

/// Prints where the time goes: plain routes, the shortcut, the fast path, what goes straight and the engine.
fn profiles(rigs: &[(Sink, Rig)], stream: impl Fn(&(Sink, Rig)) -> Result<Slice>) -> Result<()> {
    let shown =
        |way| matches!(way, Way::Plain | Way::Short | Way::Fast | Way::Straight | Way::Engine);
    let shown: Vec<&(Sink, Rig)> = rigs.iter().filter(|(_, rig)| shown(rig.way)).collect();
    for it in &shown {
        profile::print("superpackets", it.1.way, || stream(it))?;
    }
    for it in shown.iter().filter(|it| it.1.way != Way::Straight) {
        profile::print("small", it.1.way, || small(&it.1))?;
    }
    rigs.iter().try_for_each(|(_, rig)| rig.without_superpackets())?;
    for it in &shown {
        profile::print("mtu-sized", it.1.way, || stream(it))?;
    }
    rigs.iter().try_for_each(|(_, rig)| rig.join_packets())?;
    for it in &shown {
        profile::print("mtu-sized-gro", it.1.way, || stream(it))?;
    }
    Ok(())
}

/// Measures one kind of traffic over all rigs, and judges what ours reach of the others.
fn row(
    name: &str,
    unit: &str,
    rounds: usize,
    rigs: &[(Sink, Rig)],
    goals: &[Goal],
    slice: impl Fn(&(Sink, Rig)) -> Result<Slice>,
) -> Result<()> {
    let mut figures: Vec<Vec<Slice>> = vec![Vec::new(); rigs.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..rigs.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let measured = slice(&rigs[at]);
            let way = rigs[at].1.way.name();
            figures[at].push(measured.with_context(|| format!("{name} by {way}"))?);
        }
    }
    let best = |at: usize| figures[at].iter().map(|it| it.rate).fold(0.0, f64::max);
    for (at, (_, rig)) in rigs.iter().enumerate().filter(|(at, _)| best(*at) > 0.0) {
        let rate = median(figures[at].iter().map(|it| it.rate));
        let cost = median(figures[at].iter().map(|it| it.cost));
        println!(
            "{name}: {} {rate:.3} {unit}/s, best {:.3}; {cost:.3} processor seconds each {unit}",
            rig.way.name(),
            best(at)
        );
    }
    let at = |way: Way| rigs.iter().position(|(_, rig)| rig.way == way);
    for Goal { ours, of, limit } in goals {
        let (Some(this), Some(that)) = (at(*ours), at(*of)) else { continue };
        let pairs = figures[this].iter().zip(&figures[that]);
        let paired = median(pairs.map(|(this, that)| this.rate / that.rate.max(1e-9)));
        let met = if paired >= *limit { "met" } else { "missed" };
        let (ours, of) = (ours.name(), of.name());
        println!("{name}: {ours} best of best {of}: {:.2}", best(this) / best(that).max(1e-9));
        println!("goal dataplane.{name}.{ours}.of-{of} {paired:.2} >= {limit:.2} {met}");
    }
    let Some(sender) = at(Way::Sender).filter(|sender| best(*sender) > 0.0) else { return Ok(()) };
    for Goal { ours, of, limit } in SMALL_NET {
        let (Some(this), Some(that)) = (at(*ours), at(*of)) else { continue };
        // Nanoseconds of a packet beyond those that its sender takes.
        let net = |alone: f64, rate: f64| (1e3 / rate.max(1e-9) - 1e3 / alone.max(1e-9)).max(1.0);
        let rounds = figures[this].iter().zip(&figures[that]).zip(&figures[sender]);
        let paired =
            median(rounds.map(|((this, that), alone)| {
                net(alone.rate, that.rate) / net(alone.rate, this.rate)
            }));
        let [this, that] = [this, that].map(|at| net(best(sender), best(at)));
        let met = if paired >= *limit { "met" } else { "missed" };
        let (ours, of) = (ours.name(), of.name());
        println!("{name}, net of sender, best: {ours} {this:.0} ns, {of} {that:.0} ns");
        println!("goal dataplane.{name}-net.{ours}.of-{of} {paired:.2} >= {limit:.2} {met}");
    }
    Ok(())
}

/// What wrapping and unwrapping a small packet take, without what counting takes.
fn program_time(rig: &Rig) -> Result<()> {
    const TIMES: usize = 8;
    let _counting = Counting::start().context("the kernel counts no runs")?;
    let mut empty = f64::MAX;
    let mut least = [f64::MAX; 2];
    for _ in 0..TIMES {
        empty = empty.min(programs::empty()?);
        let read = || -> Result<Vec<Vec<Runs>>> {
            rig.daemons.iter().map(|it| programs::of_process(it.process.id())).collect()
        };
        let before = read()?;
        small(rig)?;
        let after = read()?;
        // One way only, from the mobile to the agent.
        for (least, (before, after)) in least.iter_mut().zip(before.iter().zip(&after)) {
            *least = least.min(programs::of_a_packet(after, before, empty)?);
        }
    }
    let [unwrap, wrap] = least;
    let (both, way) = (wrap + unwrap, rig.way.name());
    println!("program time, {way}: wrap {wrap:.0} ns, unwrap {unwrap:.0} ns beyond {empty:.0} ns");
    // At the tunnel interface a packet has no link header yet, which costs more and has no goal.
    if rig.way == Way::Short {
        let met = if both <= 300.0 { "met" } else { "missed" };
        println!("goal dataplane.program-ns {both:.0} <= 300 {met}");
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
