//! The thread that writes records down and lets answers go.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mtun_signaling::machine::Transmit;

use super::{Change, Key, Sealed, Store, StoreError};

/// Answers that wait for the disk at most. An update whose answer is dropped is sent again by its
/// mobile; the record is kept all the same.
const WAITING: usize = 65_536;

/// How long after a failure the store is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Whether records can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They can, after a time in which they could not.
    Well,
    /// They cannot; why.
    Failing(String),
}

/// What a keeper has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperFigures {
    /// Commits made.
    pub commits: u64,
    /// Records that they wrote or removed.
    pub records: u64,
    /// The most records of one commit.
    pub largest_batch: u64,
    /// Mobiles whose records wait at this moment.
    pub waiting: u64,
    /// Commits that failed, by one word of why.
    pub failures: BTreeMap<&'static str, u64>,
    /// Why the last of them did.
    pub last_failure: Option<String>,
    /// Answers dropped because the disk was slower than the mobiles, or failed.
    pub unanswered: u64,
}

/// Writes records down; what it was given is on the disk, or known not to be, once it is dropped.
#[derive(Debug)]
pub struct Keeper {
    desk: Arc<Desk>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Desk {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    /// The newest record of each mobile that waits. No more than there are mobiles.
    changes: BTreeMap<Key, Option<Sealed>>,
    /// What may leave once they are safe.
    answers: Vec<Transmit>,
    figures: KeeperFigures,
    ends: bool,
}

impl KeeperFigures {
    fn committed(&mut self, records: u64) {
        self.commits += u64::from(records > 0);
        self.records += records;
        self.largest_batch = self.largest_batch.max(records);
    }

    fn failed(&mut self, error: &StoreError, answers: u64) {
        *self.failures.entry(error.word()).or_default() += 1;
        self.last_failure = Some(error.to_string());
        self.unanswered += answers;
    }
}

impl Desk {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Starts the thread. It calls `send` with every answer whose record is safe, and `tell` when
    /// the store begins to fail and when it is well again.
    pub fn start(
        store: impl Store + 'static,
        send: impl Fn(&Transmit) + Send + 'static,
        tell: impl Fn(Health) + Send + 'static,
    ) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let writer = {
            let desk = desk.clone();
            let name = "store".to_owned();
            std::thread::Builder::new().name(name).spawn(move || write(store, &desk, &send, &tell))
        };
        Ok(Self { desk, writer: Some(writer?) })
    }

    /// Has a record written down, instead of one of the same mobile that still waits; `answers`
    /// leave when it is safe.
    pub fn keep(&self, change: Change, answers: Vec<Transmit>) {
        let mut work = self.desk.work();
        work.changes.insert(change.key, change.record);
        let room = WAITING - work.answers.len();
        work.figures.unanswered += answers.len().saturating_sub(room) as u64;
        work.answers.extend(answers.into_iter().take(room));
        drop(work);
        self.desk.changed.notify_one();
    }

    /// Commits made, and answers dropped because the disk was slower than the mobiles or failed.
    pub fn counts(&self) -> (u64, u64) {
        let work = self.desk.work();
        (work.figures.commits, work.figures.unanswered)
    }

    /// All that is counted.
    pub fn figures(&self) -> KeeperFigures {
        let work = self.desk.work();
        KeeperFigures { waiting: work.changes.len() as u64, ..work.figures.clone() }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.desk.work().ends = true;
        self.desk.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // A thread that panicked has said so on standard error.
            let _ = writer.join();
        }
    }
}

fn write(
    mut store: impl Store,
    desk: &Desk,
    send: &(impl Fn(&Transmit) + Send),
    tell: &(impl Fn(Health) + Send),
) {
    // What an earlier round could not commit; newer records of the same mobiles replace it.
    let mut unkept: BTreeMap<Key, Option<Sealed>> = BTreeMap::new();
    let mut failed: Option<Instant> = None;
    loop {
        let mut work = desk.work();
        while work.changes.is_empty() && !work.ends && !due(failed) {
            work = match failed {
                None => desk.changed.wait(work).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = RETRY.saturating_sub(at.elapsed());
                    let waited = desk.changed.wait_timeout(work, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let ends = work.ends;
        unkept.append(&mut work.changes);
        let answers = std::mem::take(&mut work.answers);
        if failed.is_some() && !ends && !due(failed) {
            // Not before its time: what arrives meanwhile is not promised.
            work.figures.unanswered += answers.len() as u64;
            continue;
        }
        drop(work);
        match round(&mut store, &unkept, failed.is_some()) {
            Ok(()) => {
                desk.work().figures.committed(unkept.len() as u64);
                unkept.clear();
                if failed.take().is_some() {
                    tell(Health::Well);
                }
                answers.iter().for_each(send);
            }
            Err(error) => {
                desk.work().figures.failed(&error, answers.len() as u64);
                if failed.replace(Instant::now()).is_none() {
                    tell(Health::Failing(error.to_string()));
                }
            }
        }
        if ends {
            return;
        }
    }
}

fn due(failed: Option<Instant>) -> bool {
    failed.is_some_and(|at| at.elapsed() >= RETRY)
}

fn round(
    store: &mut impl Store,
    changes: &BTreeMap<Key, Option<Sealed>>,
    heal: bool,
) -> Result<(), StoreError> {
    if heal {
        store.heal()?;
    } else if changes.is_empty() {
        return Ok(());
    }
    let change =
        |(key, record): (&Key, &Option<Sealed>)| Change { key: *key, record: record.clone() };
    let changes: Vec<_> = changes.iter().map(change).collect();
    store.commit(&changes)
}

#[cfg(test)]
#[path = "keeper/tests.rs"]
mod tests;
