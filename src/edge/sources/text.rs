//! Programs and files that say one fact a line ([`mtun_policy::reading`]).
//!
//! A program is run every so often, with nothing on its standard input, at most [`PATIENCE`] long
//! and without a right of the daemon's that another program of its user does not have. A file
//! counts when it is written: one that nobody writes any more grows old.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mtun_policy::reading::MOST_OCTETS;
use mtun_policy::{Reading, ReadingOf};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{PATIENCE, SourceError, Told, Whose};

/// Octets of a program's complaint that are repeated.
const COMPLAINT: usize = 160;

impl Whose {
    fn reading(&self) -> ReadingOf {
        match self {
            Self::Radio(_) => ReadingOf::Radio,
            Self::Vehicle => ReadingOf::Vehicle,
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut every = interval(period);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

/// Runs a program again and again.
pub(super) async fn run_again(
    program: PathBuf,
    whose: Whose,
    period: Duration,
    told: mpsc::Sender<Told>,
) {
    let mut every = every(period);
    loop {
        every.tick().await;
        let said = run(&program, &whose, PATIENCE.min(period)).await;
        if told.send(Told { whose: whose.clone(), said, caution: None }).await.is_err() {
            return;
        }
    }
}

async fn run(program: &Path, whose: &Whose, patience: Duration) -> Result<Reading, SourceError> {
    let place = || format!("program {}", program.display());
    let found = tokio::fs::metadata(program).await;
    let found = found.map_err(|error| SourceError::unreachable(place(), error))?;
    let why = match found.mode() {
        _ if !found.is_file() => Some("it is no program; put an executable file there"),
        mode if mode & 0o022 != 0 => Some("others may change it: run chmod go-w on it"),
        mode if mode & 0o111 == 0 => Some("it is not executable: run chmod +x on it"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(SourceError::Refused { place: place(), why });
    }
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("LC_ALL", "C");
    if let Whose::Radio(link) = whose {
        command.env("MTUN_LINK", link.as_str());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.current_dir("/").process_group(0).kill_on_drop(true);
    // SAFETY: prctl with these numbers touches no memory, and may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // Rights that the daemon's unit hands down are the daemon's. Refused where there are
            // none of that kind.
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|error| SourceError::unreachable(place(), error))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let _ended = Group(group);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let all = async {
        let (out, err) = tokio::join!(bounded(out, MOST_OCTETS), bounded(err, COMPLAINT));
        // More than there is room for is enough to know; the program is not waited for.
        match out.len() > MOST_OCTETS {
            true => (out, err, None),
            false => (out, err, Some(child.wait().await)),
        }
    };
    let Ok((out, err, status)) = timeout(patience, all).await else {
        return Err(SourceError::Slow { place: place(), after: patience });
    };
    match status {
        Some(Ok(status)) if !status.success() => {
            let said = String::from_utf8_lossy(&err);
            let said = said.lines().next().unwrap_or_default().trim();
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            Err(SourceError::Failed { place: place(), status: status.to_string(), said })
        }
        Some(Err(error)) => Err(SourceError::unreachable(place(), error)),
        _ => Reading::parse(&out, whose.reading())
            .map_err(|fault| SourceError::text(place(), &fault)),
    }
}

/// The processes that a program started with itself; they end with this.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // SAFETY: kill touches no memory. The group is the child's own, and has its number as
            // long as any process of it is left; with none left there is nobody to kill.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

/// At most `most` octets and one more, which tells that there were more.
async fn bounded(from: Option<impl AsyncRead + Unpin>, most: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    if let Some(from) = from {
        // What was read until it failed is what there is.
        let _ = from.take(most as u64 + 1).read_to_end(&mut octets).await;
    }
    octets
}

/// Reads a file again and again; tells what it says when it was written since.
pub(super) async fn read_again(
    file: PathBuf,
    whose: Whose,
    period: Duration,
    told: mpsc::Sender<Told>,
) {
    let (mut every, mut known) = (every(period), None);
    loop {
        every.tick().await;
        let said = match timeout(PATIENCE, read(&file, &whose, &mut known)).await {
            Ok(Ok(None)) => continue,
            Ok(Ok(Some(reading))) => Ok(reading),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let place = format!("file {}", file.display());
                Err(SourceError::Slow { place, after: PATIENCE })
            }
        };
        if told.send(Told { whose: whose.clone(), said, caution: None }).await.is_err() {
            return;
        }
    }
}

/// What tells one state of a file from another: clocks that jump do not matter.
type Written = (u64, u64, i64, i64);

fn written(found: &Metadata) -> Written {
    (found.ino(), found.size(), found.mtime(), found.mtime_nsec())
}

/// What the file says; `None` if nobody wrote it since.
async fn read(
    file: &Path,
    whose: &Whose,
    known: &mut Option<Written>,
) -> Result<Option<Reading>, SourceError> {
    let place = || format!("file {}", file.display());
    let unreachable = |error| SourceError::unreachable(place(), error);
    let found = tokio::fs::metadata(file).await.map_err(unreachable)?;
    if !found.is_file() {
        return Err(SourceError::Refused { place: place(), why: "it is no file; write one there" });
    }
    if *known == Some(written(&found)) {
        return Ok(None);
    }
    let opened = tokio::fs::File::open(file).await.map_err(unreachable)?;
    // Of what is read, not of what was found under the name a moment ago.
    let found = opened.metadata().await.map_err(unreachable)?;
    let octets = bounded(Some(opened), MOST_OCTETS).await;
    let read = Reading::parse(&octets, whose.reading());
    let reading = read.map_err(|fault| SourceError::text(place(), &fault))?;
    *known = Some(written(&found));
    Ok(Some(reading))
}
