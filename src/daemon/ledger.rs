//! What was counted of quotas, over restarts and crashes.
//!
//! Steering counts and this writes down: into the state directory, by a thread of its own,
//! because a disk may take its time and the owner loop has none. While one version is being
//! written, the next ones are made one. Two generations are kept; a broken file is told loudly,
//! and the older one counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mtun_policy::HomeName;
use mtun_policy::steering::Ledger;

use crate::edge::state_file;

/// What was counted, by home.
pub type Ledgers = BTreeMap<HomeName, Ledger>;

/// Writes ledgers down; what it was given last is on the disk once it is dropped.
#[derive(Debug)]
pub struct LedgerKeeper {
    path: PathBuf,
    desk: Arc<Desk>,
    /// Its thread; none as long as there is nothing to write, as at an agent.
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Desk {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    waiting: Option<Ledgers>,
    ends: bool,
}

impl Desk {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file in the state directory.
fn file(state: &Path) -> PathBuf {
    state.join("quota.json")
}

/// What earlier runs left. Never fails: what cannot be read is told, and counts as nothing.
pub fn read(state: &Path) -> Ledgers {
    let newest = file(state);
    let mut broken = false;
    for path in [newest.clone(), state_file::older(&newest)] {
        let found = match state_file::read(&path) {
            Ok(None) => continue,
            Ok(Some(octets)) => serde_json::from_slice(&octets).map_err(|it| it.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(ledgers) => {
                if broken {
                    tracing::error!(file = %path.display(), "the older one counts; what was carried since it was written does not");
                }
                return ledgers;
            }
            Err(error) => {
                broken = true;
                tracing::error!(file = %path.display(), error, "what was counted of quotas cannot be read");
            }
        }
    }
    if broken {
        tracing::error!(
            "QUOTAS START FROM NOTHING: links may carry more than they should in this period"
        );
    }
    Ledgers::new()
}

impl LedgerKeeper {
    /// A keeper in this state directory that has nothing to write yet.
    pub fn new(state: &Path) -> Self {
        Self { path: file(state), desk: Arc::default(), writer: None }
    }

    /// Has these written down soon, instead of any that still wait for it.
    pub fn keep(&mut self, ledgers: Ledgers) {
        if self.writer.is_none() {
            let (path, desk) = (self.path.clone(), self.desk.clone());
            let thread = std::thread::Builder::new().name("ledger".to_owned());
            match thread.spawn(move || write(&path, &desk)) {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => {
                    tracing::error!(%error, "cannot start to write down what is counted of quotas");
                    return;
                }
            }
        }
        self.desk.work().waiting = Some(ledgers);
        self.desk.changed.notify_one();
    }
}

impl Drop for LedgerKeeper {
    fn drop(&mut self) {
        self.desk.work().ends = true;
        self.desk.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // A thread that panicked has said so on standard error.
            let _ = writer.join();
        }
    }
}

fn write(path: &Path, desk: &Desk) {
    let mut failing = false;
    loop {
        let mut work = desk.work();
        while work.waiting.is_none() && !work.ends {
            work = desk.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(ledgers) = work.waiting.take() else { return };
        drop(work);
        let octets = serde_json::to_vec(&ledgers).expect("ledgers have text keys only");
        match state_file::replace_keeping(path, &octets) {
            Ok(()) => failing = false,
            // Told once, not every second: a full disk stays full for a while.
            Err(error) if !failing => {
                failing = true;
                tracing::error!(file = %path.display(), %error, "what is counted of quotas cannot be written down");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use mtun_policy::steering::QuotaState;

    use super::*;

    fn ledgers(octets: u64) -> Ledgers {
        let mut ledger = Ledger::default();
        ledger.links.insert("wwan0".into(), QuotaState { octets, ..QuotaState::default() });
        Ledgers::from([("acme".into(), ledger)])
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mtun-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_given_last_is_read_by_the_next_run() {
        let scratch = Scratch::new("ledger");
        assert_eq!(read(&scratch.0), Ledgers::new());
        let mut keeper = LedgerKeeper::new(&scratch.0);
        assert!(keeper.writer.is_none(), "nothing to write, no thread");
        for octets in 1..=100 {
            keeper.keep(ledgers(octets));
        }
        drop(keeper);
        assert_eq!(read(&scratch.0), ledgers(100));
    }

    #[test]
    fn a_broken_file_leaves_the_older_generation_and_two_leave_nothing() {
        let scratch = Scratch::new("ledger-broken");
        for octets in [1, 2] {
            LedgerKeeper::new(&scratch.0).keep(ledgers(octets));
        }
        let newest = file(&scratch.0);
        let broken: [&[u8]; 4] = [b"", b"{\"acme\":{", b"[1,2]", b"\xff\xfe"];
        for content in broken {
            std::fs::write(&newest, content).unwrap();
            assert_eq!(read(&scratch.0), ledgers(1), "{content:?}");
        }
        // As after a crash between the two steps of replacing it.
        std::fs::remove_file(&newest).unwrap();
        assert_eq!(read(&scratch.0), ledgers(1));
        std::fs::write(state_file::older(&newest), b"{").unwrap();
        assert_eq!(read(&scratch.0), Ledgers::new());
    }
}
