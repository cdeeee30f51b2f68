//! What mobiles left at this agent, over restarts: what an earlier run kept comes back before the
//! first message is handled, and from then on no acknowledgement leaves before its record is safe.

use std::path::{Path, PathBuf};

use anyhow::Context;
use mtun_policy::HomeAddress;
use mtun_signaling::agent::{AgentEvent, AgentOutput, MobileRecord};
use mtun_signaling::machine::Transmit;
use mtun_signaling::time::Timestamp;
use tokio::sync::mpsc;

use super::Options;
use super::owner::Owner;
use super::served::AgentHome;
use super::signaling::transmit;
use crate::control::documents::{Event, Severity};
use crate::edge::state_file;
use crate::packets::Shared;
use crate::store::{
    Change, Database, Health, Keeper, KeeperFigures, Key, Moment, Sealed, Store, StoreError,
};

/// The store of a home agent.
#[derive(Debug)]
pub struct Keeping {
    keeper: Keeper,
    healths: mpsc::UnboundedReceiver<Health>,
    /// Why nothing can be kept at present.
    pub failing: Option<String>,
    /// For the moments of records.
    ahead: i64,
}

/// What an earlier run kept.
pub type Kept = Vec<(Key, Sealed)>;

/// Where the store is.
pub fn file(options: &Options) -> PathBuf {
    options.state.join("bindings.redb")
}

/// How often this agent has lost what it held: rises when the store is not there any more, or
/// had to be salvaged (RFC 5847 §3.4).
pub fn restart_counter(options: &Options) -> u32 {
    let file = self::file(options);
    let path = options.state.join("losses");
    let known = state_file::read(&path).ok().flatten();
    let known = known.and_then(|octets| std::str::from_utf8(&octets).ok()?.trim().parse().ok());
    let counter: u32 = known.unwrap_or(0);
    if file.exists() && !options.salvage_bindings && counter > 0 {
        return counter;
    }
    let counter = counter.wrapping_add(1);
    if let Err(error) = state_file::replace(&path, counter.to_string().as_bytes()) {
        tracing::warn!(%error, "mobiles may not learn that bindings were lost");
    }
    counter
}

/// Opens the store in the state directory and reads all of it.
pub fn open(options: &Options) -> Result<(Database, Kept), StoreError> {
    let path = file(options);
    let mut store = match options.salvage_bindings && path.exists() {
        true => salvage(&path)?,
        false => Database::open(&path)?,
    };
    let kept = store.load()?;
    match kept.iter().find(|(key, sealed)| sealed.open(*key).is_none()) {
        Some((key, _)) => {
            let what = format!("the record of {} is not what was written", key.home_address.0);
            Err(StoreError::Damaged { path, what })
        }
        None => Ok((store, kept)),
    }
}

fn salvage(path: &Path) -> Result<Database, StoreError> {
    let (store, damaged, aside) = Database::salvage(path)?;
    tracing::error!(
        "{} was salvaged: {damaged} damaged records are lost as far as can be told, and mobiles \
         without a record have to register anew; the file as it was is {}",
        path.display(),
        aside.display()
    );
    Ok(store)
}

impl Keeping {
    /// Starts to keep.
    pub fn start(
        store: Database,
        shared: std::sync::Arc<Shared>,
        ahead: i64,
    ) -> std::io::Result<Self> {
        let (telling, healths) = mpsc::unbounded_channel();
        let keeper = Keeper::start(
            store,
            move |answer| transmit(&shared, answer),
            // The owner loop that has gone needs to know nothing.
            move |health| drop(telling.send(health)),
        )?;
        Ok(Self { keeper, healths, failing: None, ahead })
    }

    /// That the store begins to fail, or is well again; waits for it.
    pub async fn health(keeping: &mut Option<Self>) -> Option<Health> {
        match keeping {
            Some(keeping) => keeping.healths.recv().await,
            None => std::future::pending().await,
        }
    }

    /// What was written down so far.
    pub fn figures(&self) -> KeeperFigures {
        self.keeper.figures()
    }

    /// Has what one mobile left written down; the answers leave when it is safe.
    fn keep(&self, served: &AgentHome, record: &MobileRecord, answers: Vec<Transmit>) {
        let key = Key { agent: served.agent.address(), home_address: record.home_address };
        let record = Sealed::seal(key, Moment::now(self.ahead), |out| record.emit(out));
        self.keeper.keep(Change { key, record: Some(record) }, answers);
    }

    /// Forgets what a mobile had that is served no more: should it be served again, nothing of
    /// before returns by a restart. What would be a replay then stays known.
    pub(super) fn leave(&self, now: Timestamp, served: &AgentHome, home_address: HomeAddress) {
        match served.agent.record(now, home_address).filter(|record| !record.is_empty()) {
            Some(guard) => self.keep(served, &guard, Vec::new()),
            None => self.forget(Key { agent: served.agent.address(), home_address }),
        }
    }

    fn forget(&self, key: Key) {
        self.keeper.keep(Change { key, record: None }, Vec::new());
    }
}

impl Owner {
    /// Gives the agents back what an earlier run kept, and publishes it. Gives the keys of records
    /// that are of no use any more: guards of mobiles that are served no more.
    pub(super) fn restore_bindings(&mut self, kept: &Kept) -> Vec<Key> {
        let mut spent = Vec::new();
        let (now, moment) = (self.now(), Moment::now(self.options.clock_offset));
        let mut bound = vec![Vec::new(); self.served.len()];
        for (key, sealed) in kept {
            let Some((taken, octets)) = sealed.open(*key) else { continue };
            let mut served = self.served.iter();
            let Some(served) = served.position(|it| it.agent.address() == key.agent) else {
                continue;
            };
            match MobileRecord::parse(key.home_address, octets) {
                Ok(record) => {
                    let passed = moment.since(&taken);
                    let mut outputs = self.served[served].restore(now, &record, passed);
                    let guard = record.bindings.is_empty();
                    if guard && self.served[served].agent.record(now, key.home_address).is_none() {
                        spent.push(*key);
                    }
                    if !outputs.is_empty() {
                        bound[served].push(key.home_address);
                    }
                    // All of them are published at once: a million bindings are one change.
                    outputs.retain(|output| !matches!(output, AgentOutput::Changed { .. }));
                    self.agent_outputs(served, outputs);
                }
                Err(error) => {
                    // Written by another version. It registers anew.
                    tracing::error!(mobile = %key.home_address.0, %error, "what was kept of a mobile does not count");
                }
            }
        }
        for (served, mobiles) in bound.iter().enumerate().filter(|(_, it)| !it.is_empty()) {
            self.publish_restored(served, mobiles);
            let home = &self.served[served].served.name;
            tracing::info!("home {home}: the bindings of {} mobiles are back", mobiles.len());
        }
        spent
    }

    /// From here on, what mobiles leave is kept, and these records no more.
    pub(super) fn keep_in(&mut self, store: Database, spent: Vec<Key>) -> anyhow::Result<()> {
        let keeping = Keeping::start(store, self.shared.clone(), self.options.clock_offset);
        let keeping = keeping.context("cannot start to keep bindings")?;
        spent.into_iter().for_each(|key| keeping.forget(key));
        self.keeping = Some(keeping);
        Ok(())
    }

    /// Keeps what the mobile left and lets the answers go after it; at once if nothing is kept.
    pub(super) fn keep(&self, served: usize, mobile: HomeAddress, answers: Vec<Transmit>) {
        let record = self.served[served].agent.record(self.now(), mobile);
        match (&self.keeping, record) {
            (Some(keeping), Some(record)) => keeping.keep(&self.served[served], &record, answers),
            _ => answers.iter().for_each(|answer| transmit(&self.shared, answer)),
        }
    }

    /// The store began to fail, or is well again.
    pub(super) fn store_health(&mut self, health: Health) {
        let (well, severity, text) = match &health {
            Health::Well => (true, Severity::Info, "bindings can be kept again".to_owned()),
            Health::Failing(why) => {
                let text = format!(
                    "bindings cannot be kept: {why}; what is bound goes on, and new Binding \
                     Updates are refused until they can"
                );
                (false, Severity::Warning, text)
            }
        };
        if let Some(keeping) = &mut self.keeping {
            keeping.failing = match health {
                Health::Well => None,
                Health::Failing(why) => Some(why),
            };
        }
        let now = self.now();
        for served in 0..self.served.len() {
            let outputs = self.served[served].handle(now, AgentEvent::Keeping(well));
            self.agent_outputs(served, outputs);
        }
        self.tell(Event::Notice { severity, code: "store".to_owned(), text });
    }
}
