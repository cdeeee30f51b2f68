//! `kmod-mtun`: the interface of a home network in the kernel, for kernels without BPF.
//!
//! ```text
//!   leaves:  mtun0 ── remembered? ── wrapped, by the path's uplink
//!                          └── miss ──► KmodQueue::recv ──► engine ──► Uplink
//!   comes:   uplink, where packets enter ── remembered? ── stripped ──► mtun0
//!                          └── packet socket ──► engine ──► Port::send_with ──► mtun0
//! ```
//!
//! The module remembers decisions and makes none; this side writes them down by generic netlink
//! ([`KmodPath`]) and carries what it does not remember ([`KmodQueue`]). The contract is the header
//! `kmod-mtun/uapi/mtun.h`, mirrored in [`contract`] and compared by a test.
//!
//! What this process wrote holds while it renews the lease, and ends when its sockets close.

mod contract;
mod link;
mod message;
mod path;
mod queue;
mod socket;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::{Attribute, Command, Reason};
use message::{Request, read_longs};
use socket::Family;

use crate::abi::FastOutcome;

pub use path::{KmodExit, KmodPath};
pub use queue::{KmodQueue, Missed};

/// Flows that the module may remember of a device: two directions of as many as an engine does.
const FLOWS: u32 = 2 * 65_536;
/// Paths that this side writes.
const PATHS: u32 = 4096;
/// Packets that wait for this process; as many as a TUN's queue holds.
const MISSES: u32 = 4096;
/// Seconds after which the module itself forgets a flow. Whoever wrote it takes it out long before.
const FORGOTTEN: u32 = 86_400;

/// Why there is no device of this kind.
#[derive(Debug, thiserror::Error)]
pub enum KmodError {
    /// The kernel has no such kind of link: the module is neither loaded nor found.
    #[error("this kernel has no link kind mtun")]
    NoKind,
    /// `CAP_NET_ADMIN` or a security policy is in the way.
    #[error("not allowed to make a link of kind mtun")]
    NotPermitted,
    /// An interface of this name exists and is of another kind.
    #[error("interface {0} exists already")]
    Exists(String),
    /// Another process listens for what the device does not remember.
    #[error("another process serves interface {0}")]
    Served(String),
    /// The module speaks another version of the contract.
    #[error("kmod-mtun speaks version {0} of its contract, and this program 1")]
    Version(u32),
    /// One of the steps was refused.
    #[error("{step}: {error}")]
    Os {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> KmodError {
    move |error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => KmodError::NotPermitted,
        _ => KmodError::Os { step, error },
    }
}

/// A link of kind `mtun`. It lives until this value is dropped, or stays when the process is killed.
#[derive(Debug)]
pub struct Kmod {
    name: String,
    index: u32,
    family: Mutex<Family>,
    queue: Arc<KmodQueue>,
}

impl Kmod {
    /// Makes the interface, down and without addresses, or takes over the one of this name and kind
    /// that a killed process left; nothing of what that one remembered holds any more.
    pub fn open(name: &str) -> Result<Self, KmodError> {
        let index = link::make(name)?;
        let opened = Self::serve(name, index);
        // What another process serves is not ours to remove.
        if opened.as_ref().is_err_and(|error| !matches!(error, KmodError::Served(_))) {
            link::remove(index);
        }
        opened
    }

    fn serve(name: &str, index: u32) -> Result<Self, KmodError> {
        let mut family = Family::open()?;
        // First of all: whoever listens is the one who writes.
        let queue = Arc::new(KmodQueue::open(name, index)?);
        let mut set = Request::new(&family, Command::DeviceSet, index);
        set.octets(Attribute::MaskOut, &path::MASK_OUT);
        set.octets(Attribute::MaskIn, &path::MASK_IN);
        set.word(Attribute::FlowLimit, FLOWS);
        set.word(Attribute::FlowIdle, FORGOTTEN);
        set.word(Attribute::MissLimit, MISSES);
        set.word(Attribute::Lease, 0);
        set.octets(Attribute::Doors, &[]);
        family.ask(set).map_err(step("cannot set up the device"))?;
        for path in path::held(&mut family, index).map_err(step("cannot list paths"))? {
            let mut delete = Request::new(&family, Command::PathDelete, index);
            delete.word(Attribute::Path, path);
            family.ask(delete).map_err(step("cannot delete a path"))?;
        }
        Ok(Self { name: name.to_owned(), index, family: Mutex::new(family), queue })
    }

    /// The interface's name at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, which never changes.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What the device does not remember comes up here, and inner packets go down.
    pub fn queue(&self) -> &Arc<KmodQueue> {
        &self.queue
    }

    fn family(&self) -> MutexGuard<'_, Family> {
        // Whoever panicked here left at worst an answer that nobody waits for.
        self.family.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is remembered where it enters by this link, ahead of packet sockets.
    pub fn attach(&self, link: u32) -> io::Result<()> {
        let mut family = self.family();
        let mut attach = Request::new(&family, Command::LinkAttach, self.index);
        attach.word(Attribute::Link, link);
        match family.ask(attach) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Leaves everything that enters there to packet sockets again.
    pub fn detach(&self, link: u32) {
        let mut family = self.family();
        let mut detach = Request::new(&family, Command::LinkDetach, self.index);
        detach.word(Attribute::Link, link);
        // A link that is gone has taken its end along.
        let _ = family.ask(detach);
    }

    /// Says which ingress packets have that were received on these interfaces. Those of others
    /// have 1, those of local sockets 0. What was installed before has to end first, see
    /// [`Engine::forget_fast`](crate::Engine::forget_fast).
    pub fn set_doors(&self, doors: &[(u32, u8)]) -> io::Result<()> {
        let octets: Vec<u8> = doors
            .iter()
            .flat_map(|(link, ingress)| [link.to_ne_bytes(), u32::from(*ingress).to_ne_bytes()])
            .flatten()
            .collect();
        let mut family = self.family();
        let mut set = Request::new(&family, Command::DeviceSet, self.index);
        set.octets(Attribute::Doors, &octets);
        family.ask(set)
    }

    /// How often each outcome occurred.
    pub fn outcomes(&self) -> io::Result<Vec<(FastOutcome, u64)>> {
        let mut family = self.family();
        let get = Request::new(&family, Command::CountersGet, self.index);
        let mut counters = Vec::new();
        family.each(get, &mut |reply| {
            counters = read_longs(reply.get(Attribute::Counters));
        })?;
        let mut sums: Vec<_> = FastOutcome::ALL.iter().map(|outcome| (*outcome, 0)).collect();
        for (reason, count) in Reason::ALL.iter().zip(counters) {
            let outcome = reason.outcome();
            let sum = sums.iter_mut().find(|(it, _)| Some(*it) == outcome);
            if let Some((_, sum)) = sum {
                *sum += count;
            }
        }
        Ok(sums)
    }
}

impl Drop for Kmod {
    fn drop(&mut self) {
        link::remove(self.index);
    }
}
