//! The interface of a home network: a link of `kmod-mtun` where the kernel has that kind, else a TUN.
//!
//! Both are a [`Port`] to the engine. A TUN hands every packet up; kmod-mtun carries what was decided
//! by itself, in both directions, and hands up the rest. What may be remembered there is for the
//! engine to say ([`mtun_dataplane::FastPath`]).

use std::num::NonZeroUsize;
use std::sync::Arc;

use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::backend::{
    Kmod, KmodError, KmodPath, Port, RouteLookup, Tun, TunError, TunQueue,
};
use mtun_dataplane::{Exit, FastPath, PathId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::edge::routes::MARK_OUTER;
use crate::fast_path::{FastTunnel, NoFastPath};
use crate::packets::{self, Lane, PacketThread, Shared};

/// What may carry decided flows, as the command line says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// kmod-mtun where the kernel has it, else BPF where it can
    #[default]
    Auto,
    /// BPF where the kernel can, else the daemon
    Bpf,
    /// kmod-mtun where the kernel has it, else the daemon
    Kmod,
    /// As auto, but forwarded packets always by routes, firewall and tunnel interface
    NoShortcut,
    /// The daemon only
    Off,
}

impl Choice {
    /// Whether the kernel's BPF may.
    pub fn has_bpf(self) -> bool {
        matches!(self, Self::Auto | Self::Bpf | Self::NoShortcut)
    }

    /// Whether forwarded packets may go past the tunnel interface there.
    pub fn has_shortcut(self) -> bool {
        matches!(self, Self::Auto | Self::Bpf)
    }

    fn has_kmod(self) -> bool {
        matches!(self, Self::Auto | Self::Kmod | Self::NoShortcut)
    }
}

/// What carries decided flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The daemon, every packet.
    #[default]
    Daemon,
    /// Programs of the kernel's BPF.
    Bpf,
    /// The module kmod-mtun.
    Kmod,
}

/// Why an interface is no link of kmod-mtun.
#[derive(Debug, thiserror::Error)]
pub enum NoKmod {
    /// The daemon was told so.
    #[error("not asked for by --fast-path")]
    NotAsked,
    /// There is none, or it refused.
    #[error(transparent)]
    Refused(KmodError),
}

/// The interface.
#[derive(Debug)]
pub enum TunnelInterface {
    /// A TUN, and why it is one.
    Tun(Tun, NoKmod),
    /// A link of kmod-mtun.
    Kmod(Arc<Kmod>),
}

impl TunnelInterface {
    /// Makes the interface, down and without addresses; or takes over the one of this name that a
    /// killed daemon left.
    pub fn open(name: &str, ingresses: usize, choice: Choice) -> anyhow::Result<Self> {
        let why = match choice.has_kmod() {
            false => NoKmod::NotAsked,
            true => match Kmod::open(name) {
                Ok(device) => return Ok(Self::Kmod(Arc::new(device))),
                Err(error @ KmodError::Served(_)) => return Err(error.into()),
                Err(error) => NoKmod::Refused(error),
            },
        };
        // What one thread does not manage the next may, if there is a processor for it.
        let width = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let open = || Tun::open_wide(name, ingresses, width);
        let tun = match open() {
            // A link of the other kind may have been left. Taken over, it goes.
            Err(TunError::Exists(_)) if Kmod::open(name).is_ok() => open(),
            other => other,
        };
        let mut tun = tun?;
        tun.take_superpackets()?;
        // Before anybody reads: what a killed daemon left tells packets apart by its own queues. A kernel that
        // cannot says so when rules ask for it.
        let _ = tun.set_steering(&[]);
        Ok(Self::Tun(tun, why))
    }

    /// Its index, which never changes.
    pub fn index(&self) -> u32 {
        match self {
            Self::Tun(tun, _) => tun.index(),
            Self::Kmod(device) => device.index(),
        }
    }

    /// Lets it stay when the process is killed: see [`Tun::stay_when_killed`]. A link of kmod-mtun
    /// does by itself.
    pub fn stay_when_killed(&self) -> Result<(), TunError> {
        match self {
            Self::Tun(tun, _) => tun.stay_when_killed(),
            Self::Kmod(_) => Ok(()),
        }
    }

    /// Adds queues for ingress interfaces that rules name, where packets are told apart by queues.
    pub fn grow(&mut self, ingresses: usize) -> Result<(), TunError> {
        match self {
            Self::Tun(tun, _) => tun.grow(ingresses),
            Self::Kmod(_) => Ok(()),
        }
    }

    /// Where inner packets go.
    pub fn port(&self) -> Arc<dyn Port> {
        match self {
            Self::Tun(tun, _) => tun.queues()[0].clone(),
            Self::Kmod(device) => device.queue().clone(),
        }
    }

    /// Starts the threads that carry what enters it, if so many run already.
    pub fn listen(
        &self,
        threads: &mut Vec<PacketThread>,
        shared: &Arc<Shared>,
        lane: &Arc<Lane>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Tun(tun, _) => listen_at(&tun.queues()[threads.len()..], threads, shared, lane),
            Self::Kmod(device) if threads.is_empty() => {
                let (shared, lane) = (shared.clone(), lane.clone());
                threads.push(packets::missed(shared, lane, device.queue().clone())?);
                Ok(())
            }
            Self::Kmod(_) => Ok(()),
        }
    }

    /// Tells packets apart by the interface that they were received on.
    pub fn set_steering(&self, named: &[(u32, u16)]) -> anyhow::Result<()> {
        match self {
            Self::Tun(tun, _) => tun.set_steering(named)?,
            // Where flows are remembered, which is told beside.
            Self::Kmod(_) => {}
        }
        Ok(())
    }

    /// Its fast path.
    pub fn fast_path(
        &self,
        name: &str,
        shared: &Arc<Shared>,
    ) -> Result<(Carrier, Box<dyn FastPath>), NoFastPath> {
        match self {
            Self::Tun(tun, _) => {
                let (fast, path) = FastTunnel::open(name, tun.index(), shared)?;
                Ok((Carrier::Bpf(fast), path))
            }
            Self::Kmod(device) => {
                let routes =
                    RouteLookup::open().map_err(|error| NoFastPath::Refused(error.to_string()))?;
                // The paths' sockets outlive no daemon, and this closure is dropped with its tunnel.
                let shared = Arc::downgrade(shared);
                let exit = move |path: PathId, (source, destination)| {
                    let (interface, mark) = match path {
                        PathId::ROUTED => {
                            let found = routes.interface(source, destination, MARK_OUTER).ok()?;
                            (found?, MARK_OUTER)
                        }
                        path => (shared.upgrade()?.paths.interface(path)?, 0),
                    };
                    Some(Exit { interface, mark })
                };
                let path = KmodPath::new(device.clone(), Box::new(exit));
                Ok((Carrier::Kmod(device.clone()), Box::new(path)))
            }
        }
    }

    /// Why it is no link of kmod-mtun; `None` if it is.
    pub fn no_kmod(&self) -> Option<&NoKmod> {
        match self {
            Self::Tun(_, why) => Some(why),
            Self::Kmod(_) => None,
        }
    }
}

fn listen_at(
    silent: &[Arc<TunQueue>],
    threads: &mut Vec<PacketThread>,
    shared: &Arc<Shared>,
    lane: &Arc<Lane>,
) -> anyhow::Result<()> {
    for queue in silent {
        let (shared, lane) = (shared.clone(), lane.clone());
        threads.push(packets::outbound(shared, lane, queue.clone())?);
    }
    Ok(())
}

/// The fast path of one tunnel interface.
#[derive(Debug)]
pub enum Carrier {
    /// Programs of the kernel's BPF.
    Bpf(FastTunnel),
    /// The module's link itself.
    Kmod(Arc<Kmod>),
}

impl Carrier {
    /// Which one it is.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Bpf(_) => Backend::Bpf,
            Self::Kmod(_) => Backend::Kmod,
        }
    }

    /// Lets it take what comes by an interface.
    pub fn attach(&self, name: &str, index: u32) -> Result<(), NoFastPath> {
        match self {
            Self::Bpf(fast) => fast.attach(name, index),
            Self::Kmod(device) => {
                device.attach(index).map_err(|error| NoFastPath::Refused(error.to_string()))
            }
        }
    }

    /// Leaves that to the daemon again.
    pub fn detach(&self, index: u32) {
        match self {
            Self::Bpf(fast) => fast.detach(index),
            Self::Kmod(device) => device.detach(index),
        }
    }

    /// What became of the packets that it saw.
    pub fn outcomes(&self) -> Vec<(FastOutcome, u64)> {
        match self {
            Self::Bpf(fast) => fast.outcomes(),
            // A module that does not answer says nothing rather than something false.
            Self::Kmod(device) => device.outcomes().unwrap_or_default(),
        }
    }

    /// Lets forwarded packets go past the tunnel interface, as long as nothing is in the way.
    pub fn shorten(&mut self, name: &str, index: u32) {
        match self {
            Self::Bpf(fast) => fast.shorten(name, index),
            Self::Kmod(_) => {}
        }
    }

    /// Why flows would not outlive a killed daemon; `None` if they would, or in kmod-mtun, which goes on
    /// by itself.
    pub fn no_pins(&self) -> Option<String> {
        match self {
            Self::Bpf(fast) => fast.no_pins(),
            Self::Kmod(_) => None,
        }
    }

    /// Why no packet takes the shortcut; `None` if it may, or in kmod-mtun, which has none.
    pub fn no_shortcut(&self) -> Option<String> {
        match self {
            Self::Bpf(fast) => fast.no_shortcut(),
            Self::Kmod(_) => None,
        }
    }

    /// Says which ingress packets from these interfaces have.
    pub fn set_doors(&self, doors: &[(u32, u8)]) -> Result<(), NoFastPath> {
        match self {
            Self::Bpf(fast) => fast.set_doors(doors),
            Self::Kmod(device) => {
                device.set_doors(doors).map_err(|error| NoFastPath::Refused(error.to_string()))
            }
        }
    }
}
