//! What one run of the fast path's programs takes, as the kernel counts it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

const COUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Lets the kernel count what programs take, until it is dropped.
pub struct Counting(String);

impl Counting {
    pub fn start() -> io::Result<Self> {
        let before = fs::read_to_string(COUNTING)?;
        fs::write(COUNTING, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // Whoever reads this bench's figures is told by them if it stays on: nothing breaks.
        let _ = fs::write(COUNTING, &self.0);
    }
}

/// Runs of one program and what they took together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    program: u32,
    pub count: u64,
    pub ns: u64,
}

impl Runs {
    pub fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, ns: self.ns - before.ns, ..self }
    }

    pub fn each(self) -> f64 {
        self.ns as f64 / self.count.max(1) as f64
    }
}

/// Every program that a process holds, in the order in which they were loaded.
pub fn of_process(process: u32) -> Result<Vec<Runs>> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fdinfo"))?;
    let texts = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let mut all: Vec<_> = texts.filter_map(|text| runs(&text)).collect();
    // One program may have several descriptors.
    all.sort_unstable_by_key(|runs| runs.program);
    all.dedup_by_key(|runs| runs.program);
    Ok(all)
}

/// What all programs took that a packet met, each beyond so much: those that ran for most packets.
pub fn of_a_packet(after: &[Runs], before: &[Runs], empty: f64) -> Result<f64> {
    let all: Vec<_> =
        after.iter().zip(before).map(|(after, before)| after.since(*before)).collect();
    let packets = all.iter().map(|runs| runs.count).max().context("programs are loaded")?;
    ensure!(packets > 1000, "the programs did not run");
    let met = all.iter().filter(|runs| runs.count * 2 > packets);
    Ok(met.map(|runs| runs.each() - empty).sum())
}

fn runs(text: &str) -> Option<Runs> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse::<u64>().ok())
    };
    let program = of("prog_id:")? as u32;
    Some(Runs { program, count: of("run_cnt:")?, ns: of("run_time_ns:")? })
}

const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const SCHED_CLS: u32 = 3;

/// `union bpf_attr` for loading, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    text: u64,
    license: u64,
    log: [u64; 3],
}

/// The same for running, with the padding that it has at the end.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context: [u64; 4],
}

/// What a run of a program takes that does nothing.
pub fn empty() -> Result<f64> {
    // r0 = 0; exit
    let text: [u64; 2] = [0xb7, 0x95];
    let load = Load {
        kind: SCHED_CLS,
        instructions: 2,
        text: text.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        ..Load::default()
    };
    // SAFETY: text and licence are live; the kernel reads as many octets as it is told.
    let program =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    ensure!(program >= 0, "an empty program: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made it, for nobody else.
    let program = unsafe { OwnedFd::from_raw_fd(program as i32) };
    let packet = [0_u8; 64];
    let mut run = Run {
        program: program.as_raw_fd().cast_unsigned(),
        size_in: packet.len() as u32,
        data_in: packet.as_ptr().expose_provenance() as u64,
        repeat: 1_000_000,
        ..Run::default()
    };
    // SAFETY: the packet is live, and nothing is to be written but to `run`.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut run, size_of::<Run>()) };
    ensure!(result == 0, "running it: {}", io::Error::last_os_error());
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let runs = runs(&text).context("the kernel counts runs")?;
    ensure!(runs.count > 0, "the kernel counted no run");
    Ok(runs.each())
}
