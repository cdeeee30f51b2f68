//! Where the time of a packet goes: both processors sampled by `perf`, the kernel's own profiler, by
//! a clock, as counters of the processor are seldom lent to a guest.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::rig::Way;
use crate::traffic::Slice;

/// How long one kind of traffic is sampled.
const WATCHED: Duration = Duration::from_secs(3);
/// Functions that are printed.
const SHOWN: usize = 16;

/// `perf`, which records until it is told to end.
struct Recorder {
    perf: Child,
    file: PathBuf,
}

impl Recorder {
    fn start() -> Result<Self> {
        let file = std::env::temp_dir().join(format!("mtun-profile-{}", std::process::id()));
        let mut perf = Command::new("perf");
        perf.args(["record", "-q", "-a", "-e", "cpu-clock", "-F", "4000", "-o"]).arg(&file);
        let perf = perf.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self { perf: perf.context("perf, of the package linux-perf")?, file })
    }

    /// The functions with their shares, the largest first.
    fn end(mut self) -> Result<Vec<String>> {
        let process = self.perf.id().try_into().context("a process id")?;
        // SAFETY: a plain system call; the child was not waited for, so its id is still its own.
        ensure!(unsafe { libc::kill(process, libc::SIGINT) } == 0, "perf is there");
        self.perf.wait()?;
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "--no-children", "-s", "symbol", "-i"]).arg(&self.file);
        let report = report.stderr(Stdio::null()).output().context("perf report")?;
        ensure!(report.status.success(), "perf report: {}", report.status);
        Ok(shares(&String::from_utf8_lossy(&report.stdout)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Whatever is left of either.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
        let _ = fs::remove_file(&self.file);
    }
}

/// `12.34%  [k] name` of the lines of a report that have a share.
fn shares(report: &str) -> Vec<String> {
    let lines = report.lines().filter_map(|line| {
        let (share, name) = line.trim().split_once('%')?;
        let share: f64 = share.parse().ok()?;
        let name = name.trim().trim_start_matches("[k]").trim_start_matches("[.]").trim();
        // Some versions have columns of their own behind it.
        let name = name.split("  ").next().unwrap_or(name);
        Some(format!("{share:.1} % {name}"))
    });
    lines.take(SHOWN).collect()
}

/// Samples while slices of one kind of traffic go one way, and prints what took longest.
pub fn print(name: &str, way: Way, mut slice: impl FnMut() -> Result<Slice>) -> Result<()> {
    slice()?;
    let recorder = match Recorder::start() {
        Ok(recorder) => recorder,
        Err(error) => {
            println!("SKIPPED: profile of {name}, {}: {error:#}", way.name());
            return Ok(());
        }
    };
    let began = Instant::now();
    let mut rate = 0.0_f64;
    while began.elapsed() < WATCHED {
        rate = rate.max(slice()?.rate);
    }
    println!("# profile {name}, {}, best {rate:.3}:", way.name());
    for line in recorder.end()? {
        println!("#   {line}");
    }
    Ok(())
}
