//! The world with both daemons, and what is measured of a process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, write_keys};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Observatory, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, PORT, Probe, Talk};
use mtun::lab::world::{Plan, World, address};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Prints a goal that wants no more than `limit`.
pub fn goal(name: &str, measured: f64, limit: f64) {
    let met = if measured <= limit { "met" } else { "missed" };
    println!("goal {name} {measured:.3} <= {limit} {met}");
}

/// The value that 99 of 100 do not exceed.
pub fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * 99).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// Worlds that run at the same time.
const WORLDS: u32 = 4;

/// Does `work` in several worlds side by side, each for its share of `all`; what each said.
pub fn side_by_side<T: Send>(
    all: u32,
    work: impl Fn(u32, u32) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let worlds = WORLDS.min(all.max(1));
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..worlds)
            .map(|world| {
                let (work, share) = (&work, all / worlds + u32::from(world < all % worlds));
                scope.spawn(move || work(world, share))
            })
            .collect();
        let said = started.into_iter().map(|it| it.join().expect("no world panics"));
        // All of them have ended before the first failure is told.
        said.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Says on stderr how far a world is, now and then.
pub fn progress(what: &str, world: u32, done: u32, all: u32) {
    if done.is_multiple_of((all / 5).max(1)) {
        eprintln!("links: {what}, world {world}: {done} of {all}");
    }
}

pub struct Rig {
    // In this order they end.
    pub observatory: Observatory,
    pub mobile: Daemon,
    _agent: Daemon,
    pub echo: Echo,
    pub world: World,
}

impl Rig {
    pub fn start(plan: Plan, text: &PolicyText, links: &[&str]) -> Result<Self> {
        let mut world = World::build(plan)?;
        if links.contains(&"wwan1") {
            world.attach_wwan1()?;
        }
        write_keys(&world)?;
        let programs = Programs {
            mtund: PathBuf::from(env!("CARGO_BIN_EXE_mtund")),
            mtun: PathBuf::from(env!("CARGO_BIN_EXE_mtun")),
        };
        let none = Arguments::default();
        let observatory = Observatory::open(&world)?;
        let agent = Daemon::start(&world, &programs, Side::Agent, text, &none)?;
        let mobile = Daemon::start(&world, &programs, Side::Mobile, text, &none)?;
        mobile.wait_for_links(links, PATIENCE)?;
        let echo = Echo::start(&world.cn)?;
        Ok(Self { observatory, mobile, _agent: agent, echo, world })
    }

    /// A stream of the node behind the router.
    pub fn stream(&self, talk: Talk) -> Result<(Flow, Probe)> {
        let probe = Probe::start_talk(&self.world.mnn, &self.echo, talk, &Bound::Nowhere)?;
        probe.wait_for_echo_after(100, PATIENCE)?;
        Ok((Flow::to_correspondent(17, (address::NODE, probe.port()), PORT), probe))
    }

    /// Waits until a stream goes out and comes in by `uplink`.
    pub fn on(&self, flow: &Flow, uplink: &str) -> Result<()> {
        for way in [Way::Out, Way::In] {
            wait_for(&format!("{flow} on {uplink}"), PATIENCE, || {
                let now = self.observatory.uplink(flow, way);
                (now.as_deref() == Some(uplink)).then_some(())
            })
            .with_context(|| self.mobile.story())?;
        }
        Ok(())
    }

    /// Processor time that the router's daemon has used so far, all threads.
    pub fn processor_time(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.mobile.process.id());
        let mut all = 0;
        for task in std::fs::read_dir(tasks)? {
            // A thread may end meanwhile; what it used is lost to this count.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            all += text.split_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(0_u64);
        }
        Ok(Duration::from_nanos(all))
    }

    /// Memory that it has in use, in MiB.
    pub fn memory(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.mobile.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("no VmRSS")? / 1024.0)
    }
}
