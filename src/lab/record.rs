//! What a run of the lab has made, written down as it is made.
//!
//! One file a run, `<name>.json` in [`directory`]. Whoever finds it (`mtun demo --stop`, or the
//! next run when the owner died) removes exactly what it names and nothing else. A process is
//! named by its id and its start time, so that a reused id is never mistaken for it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::namespace::Shell;

/// Where the records are.
pub fn directory() -> PathBuf {
    PathBuf::from("/run/mtun-lab")
}

/// A process as the record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedProcess {
    id: u32,
    /// Start time in clock ticks since boot, from `/proc/<id>/stat`.
    started: u64,
}

impl RecordedProcess {
    fn of(id: u32) -> Option<Self> {
        Some(Self { id, started: start_time(id)? })
    }

    fn is_running(self) -> bool {
        start_time(self.id) == Some(self.started)
    }
}

/// Start time of a living process; `None` when there is none, or only its exit status is left.
fn start_time(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold spaces; the fields after it may not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// The content of a record file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contents {
    run: String,
    owner: RecordedProcess,
    kept: bool,
    namespaces: Vec<String>,
    processes: Vec<RecordedProcess>,
    directory: PathBuf,
}

/// The record of a living run; its file and its directory go when it is dropped.
#[derive(Debug)]
pub struct Record {
    contents: Mutex<Contents>,
    file: PathBuf,
    run: String,
    work: PathBuf,
    kept: AtomicBool,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Record {
    /// Starts a run with a unique name, a directory of its own and a file in [`directory`].
    pub fn start() -> Result<Self> {
        let id = std::process::id();
        let run = format!("mtun-{id}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let work = std::env::temp_dir().join(&run);
        // Keys live here: for the owner alone.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&work)
            .with_context(|| work.display().to_string())?;
        let file = directory().join(format!("{run}.json"));
        let owner = RecordedProcess::of(id).context("own process is not in /proc")?;
        let contents = Contents {
            run: run.clone(),
            owner,
            kept: false,
            namespaces: Vec::new(),
            processes: Vec::new(),
            directory: work.clone(),
        };
        let made =
            Self { contents: Mutex::new(contents), file, run, work, kept: AtomicBool::new(false) };
        made.write(|_| {})?;
        Ok(made)
    }

    /// The run's name, which prefixes its namespaces.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The run's directory for sockets, logs and keys.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Whether the run is to outlive this process.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Lets everything outlive this process; [`remove_all`] will remove it.
    pub fn keep(&self) -> Result<()> {
        self.kept.store(true, Ordering::Relaxed);
        self.write(|contents| contents.kept = true)
    }

    pub(super) fn add_namespace(&self, name: &str) -> Result<()> {
        self.write(|contents| contents.namespaces.push(name.to_owned()))
    }

    pub(super) fn add_process(&self, id: u32) -> Result<()> {
        let Some(process) = RecordedProcess::of(id) else { return Ok(()) };
        self.write(|contents| contents.processes.push(process))
    }

    fn write(&self, change: impl FnOnce(&mut Contents)) -> Result<()> {
        let mut contents = self.contents.lock().expect("no writer panics");
        change(&mut contents);
        let text = serde_json::to_string_pretty(&*contents)?;
        let draft = self.file.with_extension("draft");
        let write = || -> std::io::Result<()> {
            // Another run that ends may just have removed the directory as the last one.
            std::fs::create_dir_all(directory())?;
            std::fs::write(&draft, &text)?;
            std::fs::rename(&draft, &self.file)
        };
        (0..5)
            .find_map(|_| match write() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                done => Some(done),
            })
            .unwrap_or_else(write)
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_kept() {
            let _ = std::fs::remove_dir_all(&self.work);
            let _ = std::fs::remove_file(&self.file);
            // Only the last run finds it empty.
            let _ = std::fs::remove_dir(directory());
        }
    }
}

/// Which recorded runs to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those kept on purpose and those whose owner is gone.
    KeptAndStale,
    /// Only those whose owner is gone without keeping them.
    Stale,
}

/// Removes recorded runs by the names in their records; the names of the runs removed.
///
/// A run whose owner still lives and has not given it up is never touched.
pub fn remove_all(which: Which, shell: &Shell) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory()) else { return Ok(removed) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Another process may be removing it too.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(contents) = serde_json::from_str::<Contents>(&text) else {
            eprintln!("lab: {} is not a record, left alone", path.display());
            continue;
        };
        let stale = !contents.owner.is_running() && !contents.kept;
        if stale || (contents.kept && which == Which::KeptAndStale) {
            remove(&contents, shell);
            let _ = std::fs::remove_file(&path);
            removed.push(contents.run);
        }
    }
    let _ = std::fs::remove_dir(directory());
    Ok(removed)
}

fn remove(contents: &Contents, shell: &Shell) {
    let living = || contents.processes.iter().copied().filter(|process| process.is_running());
    for (signal, patience) in [(libc::SIGTERM, 8), (libc::SIGKILL, 2)] {
        for process in living() {
            shell.show(&format!("kill -{signal} {}", process.id));
            // SAFETY: the start time just read shows that the id is still the recorded process.
            unsafe { libc::kill(process.id as i32, signal) };
        }
        let end = Instant::now() + Duration::from_secs(patience);
        while living().next().is_some() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for name in &contents.namespaces {
        if Path::new("/run/netns").join(name).exists()
            && let Err(error) = shell.run(Command::new("ip").args(["netns", "del", name]), "")
        {
            eprintln!("lab: {error:#}");
        }
    }
    // The directory is named after the run; a record that says otherwise was not written by us.
    if contents.directory.file_name().is_some_and(|name| *name == *contents.run) {
        let _ = std::fs::remove_dir_all(&contents.directory);
    }
}
