//! Who tells facts about radios and about the vehicle: ModemManager, gpsd, programs and files.
//!
//! One task for each source, and one for all modems together. A source that fails says why and is
//! tried again; what it told before grows old at whoever listens. Nothing that a source says can
//! do more than that: what is read is bounded, what is waited for has its time, and what cannot be
//! understood is a [`SourceError`] that names the place and what to mend.
//!
//! `docs/links.md` is the page about the formats.

mod gpsd;
mod modem;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtun_policy::{FactOrigin, FactSource, InterfaceName, Reading, ReadingFault};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What sources told and nobody has taken yet; a source that finds no room waits.
const WAITING: usize = 64;
/// How long somebody who is asked may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a source that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Whom facts are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// The radio of this link.
    Radio(InterfaceName),
    /// The vehicle.
    Vehicle,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Radio(link) => write!(f, "the radio of {link}"),
            Self::Vehicle => f.write_str("the vehicle"),
        }
    }
}

/// What a source told of somebody.
#[derive(Debug)]
pub struct Told {
    /// Of whom.
    pub whose: Whose,
    /// What, or why it could not.
    pub said: Result<Reading, SourceError>,
    /// What is missing of it and could be had.
    pub caution: Option<SourceError>,
}

/// Why a source does not tell, or not all. Each says what to mend.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody is there to ask.
    #[error("{what} cannot be reached: {error}")]
    Unreachable {
        /// Who.
        what: String,
        /// What the system said.
        error: String,
    },
    /// ModemManager knows no such modem.
    #[error(
        "ModemManager knows no modem {0}; `mmcli -L` lists those it knows, `mmcli -m 0` the ports and the equipment identifier of one"
    )]
    NoModem(String),
    /// ModemManager does not measure the signal for us.
    #[error(
        "ModemManager tells no signal strength: {0}; allow the daemon's user org.freedesktop.ModemManager1.Device.Control, or run `mmcli -m 0 --signal-setup=5`"
    )]
    NoSignal(String),
    /// A program or file that others than its owner may change, or that is no such thing.
    #[error("{place} is not used: {why}")]
    Refused {
        /// Which.
        place: String,
        /// Why, and what to mend.
        why: &'static str,
    },
    /// A program ended otherwise than it should.
    #[error("{place} ended with {status}{said}")]
    Failed {
        /// Which.
        place: String,
        /// How.
        status: String,
        /// The beginning of what it wrote to standard error, with a colon before it.
        said: String,
    },
    /// Somebody who was asked took too long.
    #[error("{place} did not answer within {} s", after.as_secs())]
    Slow {
        /// Who.
        place: String,
        /// How long was waited.
        after: Duration,
    },
    /// What was told cannot be understood.
    #[error("{place}: {fault}")]
    Unreadable {
        /// Who told it.
        place: String,
        /// What is wrong with it.
        fault: String,
    },
}

impl SourceError {
    fn unreachable(what: impl Into<String>, error: impl fmt::Display) -> Self {
        Self::Unreachable { what: what.into(), error: error.to_string() }
    }

    fn unreadable(place: impl Into<String>, fault: impl fmt::Display) -> Self {
        Self::Unreadable { place: place.into(), fault: fault.to_string() }
    }

    fn text(place: impl Into<String>, fault: &ReadingFault) -> Self {
        Self::unreadable(place, fault)
    }

    /// One word for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::NoModem(_) => "no-modem",
            Self::NoSignal(_) => "no-signal",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::Slow { .. } => "slow",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// Every word that [`SourceError::code`] says.
    pub const CODES: [&'static str; 7] =
        ["unreachable", "no-modem", "no-signal", "refused", "failed", "slow", "unreadable"];
}

/// The sources of a policy, each in a task of its own; they end with this.
#[derive(Debug)]
pub struct Sources {
    directory: PathBuf,
    bus: Option<String>,
    running: BTreeMap<Group, Running>,
    told: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
}

/// What one task does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Modems,
    One(Whose),
}

#[derive(Debug)]
struct Running {
    wanted: BTreeMap<Whose, FactSource>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sources {
    /// None so far. Programs and files are looked for in `directory`, ModemManager on the D-Bus of
    /// this address, on the system's if there is none.
    pub fn new(directory: PathBuf, bus: Option<String>) -> Self {
        Self { directory, bus, running: BTreeMap::new(), told: mpsc::channel(WAITING) }
    }

    /// Asks these from now on, and no others. One that is asked already goes on.
    pub fn want(&mut self, wanted: &BTreeMap<Whose, FactSource>) {
        let mut groups: BTreeMap<Group, BTreeMap<Whose, FactSource>> = BTreeMap::new();
        for (whose, source) in wanted {
            let group = match source.from {
                FactOrigin::Modem(_) => Group::Modems,
                _ => Group::One(whose.clone()),
            };
            groups.entry(group).or_default().insert(whose.clone(), source.clone());
        }
        self.running.retain(|group, running| groups.get(group) == Some(&running.wanted));
        for (group, wanted) in groups {
            let (directory, bus, told) = (&self.directory, &self.bus, &self.told.0);
            self.running.entry(group).or_insert_with(|| {
                let task = start(&wanted, directory, bus, told);
                Running { wanted, task }
            });
        }
    }

    /// The next that is told; never if there is no source. Safe to cancel.
    pub async fn told(&mut self) -> Told {
        self.told.1.recv().await.expect("one sender is our own")
    }
}

fn start(
    wanted: &BTreeMap<Whose, FactSource>,
    directory: &Path,
    bus: &Option<String>,
    told: &mpsc::Sender<Told>,
) -> JoinHandle<()> {
    let told = told.clone();
    let (whose, source) = wanted.first_key_value().expect("a group has a source");
    let (whose, source) = (whose.clone(), source.clone());
    match &source.from {
        FactOrigin::Modem(_) => tokio::spawn(modem::watch(wanted.clone(), bus.clone(), told)),
        FactOrigin::Gpsd(place) => {
            tokio::spawn(gpsd::watch(place.clone(), source.lost_after, told))
        }
        FactOrigin::Exec(name) => {
            let program = directory.join(name);
            tokio::spawn(text::run_again(program, whose, source.every, told))
        }
        FactOrigin::File(name) => {
            let file = directory.join(name);
            tokio::spawn(text::read_again(file, whose, source.every, told))
        }
    }
}
