//! The fast path of one tunnel interface: whether there is one, and why not.
//!
//! The kernel's programs are loaded once for each tunnel interface. They sit on its way out, and on
//! the way in of every interface that outer packets come by; each ends with what it is attached to
//! or with the daemon. What they may do is for the engine to say ([`mtun_dataplane::FastPath`]).
//! Without them (another kernel, no rights, not built in, switched off) everything goes through the
//! engine, as does whatever they leave.

use std::sync::Arc;

use mtun_dataplane::FastPath;
use mtun_dataplane::abi::FastOutcome;

use crate::packets::Shared;

/// Why there is no fast path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFastPath {
    /// The daemon was told so.
    #[error("switched off")]
    Off,
    /// The program was built without it.
    #[error("not in this program; build it with the feature `bpf`")]
    NotBuilt,
    /// The kernel or a lack of rights.
    #[error("{0}")]
    Refused(String),
}

#[cfg(feature = "bpf")]
pub use in_kernel::FastTunnel;
#[cfg(not(feature = "bpf"))]
pub use nowhere::FastTunnel;

#[cfg(feature = "bpf")]
mod in_kernel {
    use super::*;
    use mtun_dataplane::backend::{Bpf, BpfPath, NoPins, Pins, RouteLookup, is_ethernet};
    use mtun_dataplane::{Exit, PathId};

    use crate::edge::routes::MARK_OUTER;
    use crate::shortcut::{NoShortcut, ShortcutWatch};

    /// Flows that a fast path holds: two directions of as many as an engine remembers.
    const FLOWS: u32 = 2 * 65_536;

    /// A tunnel interface's programs.
    #[derive(Debug)]
    pub struct FastTunnel {
        bpf: Arc<Bpf>,
        shortcut: Result<ShortcutWatch, NoShortcut>,
    }

    impl FastTunnel {
        /// Loads the programs and attaches the way out to the tunnel interface.
        pub fn open(
            name: &str,
            index: u32,
            shared: &Arc<Shared>,
        ) -> Result<(Self, Box<dyn FastPath>), NoFastPath> {
            let pins = match &shared.pins {
                Some(directory) => Pins::open(directory, name, index),
                None => Err(NoPins::Off),
            };
            if !shared.fast_path.has_bpf() {
                if let Ok(mut pins) = pins {
                    pins.end_former();
                }
                return Err(NoFastPath::Off);
            }
            let refused = |error: &dyn std::fmt::Display| NoFastPath::Refused(error.to_string());
            let bpf = Arc::new(Bpf::load(index, FLOWS, 0).map_err(|error| refused(&error))?);
            match &pins {
                Ok(pins) if pins.has_former() => {
                    tracing::info!(%name, "flows go on as the killed daemon left them");
                }
                Ok(_) | Err(NoPins::Off) => {}
                Err(reason) => tracing::info!(%name, %reason, "flows would not outlive a kill"),
            }
            bpf.outlive(pins);
            bpf.attach_tunnel(name, index).map_err(|error| refused(&error))?;
            let routes = RouteLookup::open().map_err(|error| refused(&error))?;
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
                is_ethernet(interface).then_some(Exit { interface, mark })
            };
            let path = BpfPath::new(bpf.clone(), Box::new(exit));
            Ok((Self { bpf, shortcut: Err(NoShortcut::Off) }, Box::new(path)))
        }

        /// Lets forwarded packets go past the tunnel interface, as long as nothing is in the way.
        pub fn shorten(&mut self, name: &str, index: u32) {
            let watch = ShortcutWatch::start(self.bpf.clone(), name, index);
            self.shortcut = watch.map_err(|error| NoShortcut::NotKnown {
                what: "changes in the kernel",
                error: error.to_string(),
            });
        }

        /// Attaches the way in to an interface that outer packets come by. Others than those of
        /// Ethernet are left to the engine.
        pub fn attach(&self, name: &str, index: u32) -> Result<(), NoFastPath> {
            if !is_ethernet(index) {
                return Ok(());
            }
            self.bpf
                .attach_uplink(name, index)
                .map_err(|error| NoFastPath::Refused(error.to_string()))
        }

        /// Takes it off again.
        pub fn detach(&self, index: u32) {
            self.bpf.detach(index);
        }

        /// What became of the packets that the programs saw.
        pub fn outcomes(&self) -> Vec<(FastOutcome, u64)> {
            // A map of our own that cannot be read says nothing rather than something false.
            self.bpf.outcomes().unwrap_or_default()
        }

        /// Says which ingress packets from these interfaces have.
        pub fn set_doors(&self, doors: &[(u32, u8)]) -> Result<(), NoFastPath> {
            self.bpf.set_doors(doors).map_err(|error| NoFastPath::Refused(error.to_string()))
        }

        /// Why flows would not outlive a kill; `None` if they would.
        pub fn no_pins(&self) -> Option<String> {
            self.bpf.no_pins()
        }

        /// Why no packet takes the shortcut; `None` if it may.
        pub fn no_shortcut(&self) -> Option<String> {
            match &self.shortcut {
                Ok(watch) => watch.reason().map(|reason| reason.to_string()),
                Err(reason) => Some(reason.to_string()),
            }
        }
    }
}

#[cfg(not(feature = "bpf"))]
mod nowhere {
    use super::*;

    /// There is none in this program.
    #[derive(Debug)]
    pub enum FastTunnel {}

    impl FastTunnel {
        /// Says so.
        pub fn open(
            _name: &str,
            _index: u32,
            shared: &Arc<Shared>,
        ) -> Result<(Self, Box<dyn FastPath>), NoFastPath> {
            Err(if shared.fast_path.has_bpf() { NoFastPath::NotBuilt } else { NoFastPath::Off })
        }

        /// Never called.
        pub fn shorten(&mut self, _name: &str, _index: u32) {
            match *self {}
        }

        /// Never called.
        pub fn attach(&self, _name: &str, _index: u32) -> Result<(), NoFastPath> {
            match *self {}
        }

        /// Never called.
        pub fn detach(&self, _index: u32) {
            match *self {}
        }

        /// Never called.
        pub fn outcomes(&self) -> Vec<(FastOutcome, u64)> {
            match *self {}
        }

        /// Never called.
        pub fn no_pins(&self) -> Option<String> {
            match *self {}
        }

        /// Never called.
        pub fn no_shortcut(&self) -> Option<String> {
            match *self {}
        }

        /// Never called.
        pub fn set_doors(&self, _doors: &[(u32, u8)]) -> Result<(), NoFastPath> {
            match *self {}
        }
    }
}
