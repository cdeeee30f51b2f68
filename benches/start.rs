//! The start: from the moment the service manager starts the daemon to the moment it says that its
//! first binding stands, by the real programs in the lab.
//!
//! Uplinks have their addresses (`there`), the daemon was killed a moment ago (`killed`), or the WLAN
//! is alone, and duplicate address detection of its address begins as the daemon is started
//! (`detection`, which counts 200 ms by the access point's settings). Round trips are 4 and 20 ms.
//! Prints one line for each goal, met or missed, and exits 0:
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```
//!
//! `MTUN_BENCH_RUNS` is the number of starts of each kind, 20 by default; `MTUN_BENCH_PROGRAMS` a
//! directory with other programs than those of this build, such as the static ones.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, write_keys};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};

const PATIENCE: Duration = Duration::from_secs(30);
/// What the issue allows, beyond duplicate address detection.
const LIMIT: Duration = Duration::from_secs(1);

fn main() {
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return;
    }
    let runs = std::env::var("MTUN_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok());
    for kind in [Kind::There, Kind::Killed, Kind::Detection] {
        if let Err(error) = measure(kind, runs.unwrap_or(20)) {
            println!("start bench broke off ({}): {error:#}", kind.name());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    There,
    Killed,
    Detection,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Killed => "killed",
            Self::Detection => "detection",
        }
    }
}

fn measure(kind: Kind, runs: usize) -> Result<()> {
    // With the address to be detected, the modem would be bound first.
    let wwan = kind != Kind::Detection;
    let mut world = World::build(Plan { wwan, wlan: wwan, ..Plan::default() })?;
    write_keys(&world)?;
    let text = PolicyText::default();
    let programs = match std::env::var_os("MTUN_BENCH_PROGRAMS").map(PathBuf::from) {
        Some(there) => Programs { mtund: there.join("mtund"), mtun: there.join("mtun") },
        None => Programs {
            mtund: PathBuf::from(env!("CARGO_BIN_EXE_mtund")),
            mtun: PathBuf::from(env!("CARGO_BIN_EXE_mtun")),
        },
    };
    let none = Arguments::default();
    let _agent = Daemon::start(&world, &programs, Side::Agent, &text, &none)?;
    if wwan {
        world.wait_for_wlan_address()?;
    }
    let notify = world.directory().join("notify");
    let manager = UnixDatagram::bind(&notify)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let script = world.directory().join("start");
    let exec = format!(
        "#!/bin/sh\nexport NOTIFY_SOCKET={}\nexec {} \"$@\"\n",
        notify.display(),
        programs.mtund.display()
    );
    std::fs::write(&script, exec)?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    let programs = Programs { mtund: script, ..programs };

    if kind == Kind::Detection {
        world.attach_wlan()?;
    }
    let mut took = Vec::new();
    while took.len() < runs {
        if kind == Kind::Detection && !detecting(&world)? {
            continue;
        }
        let began = Instant::now();
        let mut daemon = Daemon::start(&world, &programs, Side::Mobile, &text, &none)?;
        ready(&manager, began).map(|it| took.push(it)).with_context(|| daemon.story())?;
        let _end = match kind {
            Kind::Killed => daemon.process.kill()?,
            Kind::There | Kind::Detection => daemon.process.stop()?,
        };
    }
    took.sort();
    let milliseconds = |it: Duration| it.as_secs_f64() * 1e3;
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("# {}: {} starts, median {:.0} ms", kind.name(), took.len(), milliseconds(median));
    let detection = match kind {
        Kind::Detection => Plan::default().detection,
        Kind::There | Kind::Killed => Duration::ZERO,
    };
    let limit = LIMIT + detection;
    let met = if longest <= limit { "met" } else { "missed" };
    let (name, longest, limit) = (kind.name(), milliseconds(longest), milliseconds(limit));
    println!("goal start-to-first-binding-{name}-ms {longest:.0} <= {limit:.0} {met}");
    Ok(())
}

/// Has the WLAN go and come back with an address that is looked for at this moment; false if that had
/// ended before it was seen.
fn detecting(world: &World) -> Result<bool> {
    world.wlan_down()?;
    world.mr.ip(&["address flush dev wlan0 scope global"])?;
    world.wlan_up()?;
    wait_for("an address on wlan0", PATIENCE, || {
        if world.has_address(address::WLAN, "wlan0") {
            return Some(false);
        }
        let links = world.mr.ip_json("-6 address show dev wlan0 tentative scope global").ok()?;
        let mut links = links.as_array()?.iter();
        let any = links.any(|it| it["addr_info"].as_array().is_some_and(|it| !it.is_empty()));
        any.then_some(true)
    })
}

/// Waits until the daemon says that it is ready with a binding.
fn ready(manager: &UnixDatagram, began: Instant) -> Result<Duration> {
    let mut buffer = [0; 512];
    loop {
        let length = manager.recv(&mut buffer).context("it says nothing")?;
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&buffer[..length]);
        if text.lines().any(|line| line == "READY=1") {
            match text.contains("STATUS=registered at home") {
                true => return Ok(took),
                false => bail!("ready without a binding: {text}"),
            }
        }
    }
}
