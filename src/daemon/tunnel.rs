//! One home-bound interface with its packet loop and its threads.

use std::net::Ipv6Addr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::backend::SockDiag;
use mtun_dataplane::{Engine, Settings, Snapshot};
use mtun_policy::{Ingress, Ingresses, InterfaceName};

use crate::edge::netlink::Netlink;
use crate::edge::sysctl::Sysctls;
use crate::fast_path::NoFastPath;
use crate::packets::{self, Lane, PacketThread, Shared};
use crate::tunnel_interface::{Backend, Carrier, NoKmod, TunnelInterface};

/// One home-bound interface. Dropped, its threads end and the kernel removes the interface; a
/// killed daemon leaves it behind, and the next one takes it over.
#[derive(Debug)]
pub struct Tunnel {
    /// Its threads, one per queue. First, so that they end before the interface goes.
    threads: Vec<PacketThread>,
    /// The one that looks after its fast path.
    sweeper: Option<PacketThread>,
    /// The interface.
    interface: TunnelInterface,
    /// Its name.
    pub name: InterfaceName,
    /// Its MTU, which never changes.
    pub mtu: u32,
    /// Its packet loop.
    pub lane: Arc<Lane>,
    /// What its packets read. Written by [`Engine::publish`](mtun_dataplane::Publication::publish).
    pub published: Arc<ArcSwap<Snapshot>>,
    /// Its fast path, or why there is none.
    fast_path: Result<Carrier, NoFastPath>,
    shared: Arc<Shared>,
}

/// What a tunnel is made of.
#[derive(Debug)]
pub struct Plan {
    /// The interface's name.
    pub name: InterfaceName,
    /// Its MTU in octets.
    pub mtu: u32,
    /// The home agent's address; none if no home has this tunnel.
    pub agent: Option<Ipv6Addr>,
    /// The home address, if it lives on this interface.
    pub home_address: Option<Ipv6Addr>,
}

impl Tunnel {
    /// Makes the interface, switches it on and starts its threads.
    pub async fn open(
        plan: Plan,
        published: Arc<ArcSwap<Snapshot>>,
        ingresses: &Ingresses,
        shared: Arc<Shared>,
        netlink: &Netlink,
        sysctls: &mut Sysctls,
    ) -> anyhow::Result<Self> {
        let Plan { name, mtu, agent, home_address } = plan;
        let kinds = usize::from(Ingress::FIRST_NAMED) + ingresses.iter().count();
        let interface = TunnelInterface::open(name.as_str(), kinds, shared.fast_path)
            .with_context(|| format!("cannot make the tunnel interface {name}"))?;
        // Before it is switched on, or reports of the kernel itself would enter it.
        sysctls.quiet_tunnel(name.as_str()).context("cannot quiet the tunnel interface")?;
        netlink
            .prepare_tunnel(interface.index(), mtu, home_address)
            .await
            .with_context(|| format!("cannot set up the tunnel interface {name}"))?;
        interface.stay_when_killed().context("cannot make the tunnel interface stay")?;
        let users = SockDiag::open().context("cannot ask whose local flows are")?;
        let engine = Engine::new(published.clone(), Settings::default());
        let mut engine = engine.with_uids(Box::new(users));
        let mut fast_path = match interface.fast_path(name.as_str(), &shared) {
            Ok((fast, path)) => {
                engine = engine.with_fast_path(path);
                Ok(fast)
            }
            Err(reason) => {
                if reason != NoFastPath::Off {
                    tracing::info!(%name, %reason, "no fast path: the daemon carries every packet");
                }
                Err(reason)
            }
        };
        if let Ok(fast) = &mut fast_path
            && shared.fast_path.has_shortcut()
        {
            sysctls.follow_loosely();
            fast.shorten(name.as_str(), interface.index());
        }
        let engine = Arc::new(engine);
        let lane = Arc::new(Lane { engine, queue: interface.port(), agent });
        let sweeper = match &fast_path {
            Ok(_) => Some(packets::sweeping(shared.clone(), lane.clone(), name.as_str())?),
            Err(_) => None,
        };
        let threads = Vec::new();
        let mut tunnel =
            Self { threads, sweeper, interface, name, mtu, lane, published, fast_path, shared };
        tunnel.listen()?;
        Ok(tunnel)
    }

    /// Its threads: those that carry what enters it, and the one that looks after its fast path.
    pub fn threads(&self) -> impl Iterator<Item = &PacketThread> {
        self.threads.iter().chain(&self.sweeper)
    }

    /// The interface's index, which never changes.
    pub fn index(&self) -> u32 {
        self.interface.index()
    }

    /// Makes queues and threads for ingress interfaces that rules name.
    pub fn widen(&mut self, ingresses: &Ingresses) -> anyhow::Result<()> {
        let kinds = usize::from(Ingress::FIRST_NAMED) + ingresses.iter().count();
        self.interface.grow(kinds).context("cannot add a queue to the tunnel interface")?;
        self.listen()
    }

    /// Tells the kernel which queue the packets of each ingress interface go to: `named` holds
    /// interface indices with their numbers.
    pub fn steer_ingress(&self, named: &[(u32, Ingress)]) -> anyhow::Result<()> {
        let named: Vec<_> =
            named.iter().map(|(index, ingress)| (*index, u16::from(ingress.0))).collect();
        self.interface.set_steering(&named).context("cannot tell ingress interfaces apart")?;
        let Ok(fast) = &self.fast_path else { return Ok(()) };
        // What was decided for packets of one number must not hold for those that get it now.
        self.lane.engine.forget_fast();
        let doors: Vec<_> = named.iter().map(|(index, queue)| (*index, *queue as u8)).collect();
        fast.set_doors(&doors).context("cannot tell ingress interfaces apart in the fast path")
    }

    /// Why there is no fast path; `None` if there is one.
    pub fn no_fast_path(&self) -> Option<&NoFastPath> {
        self.fast_path.as_ref().err()
    }

    /// What carries its decided flows.
    pub fn backend(&self) -> Backend {
        self.fast_path.as_ref().map_or(Backend::Daemon, Carrier::backend)
    }

    /// Why it is no link of kmod-mtun; `None` if it is.
    pub fn no_kmod(&self) -> Option<&NoKmod> {
        self.interface.no_kmod()
    }

    /// Why flows would not outlive a killed daemon; `None` if they would, or if there is no fast path.
    pub fn no_pins(&self) -> Option<String> {
        self.fast_path.as_ref().ok()?.no_pins()
    }

    /// Why no forwarded packet takes the shortcut; `None` if it may, or if there is no fast path.
    pub fn no_shortcut(&self) -> Option<String> {
        self.fast_path.as_ref().ok()?.no_shortcut()
    }

    /// What became of the packets that the fast path saw; nothing if there is none.
    pub fn fast_outcomes(&self) -> Vec<(FastOutcome, u64)> {
        self.fast_path.as_ref().map_or_else(|_| Vec::new(), Carrier::outcomes)
    }

    /// Lets the fast path take what comes by this interface.
    pub fn hear(&self, name: &InterfaceName, index: u32) {
        let Ok(fast) = &self.fast_path else { return };
        if let Err(reason) = fast.attach(name.as_str(), index) {
            tracing::warn!(%name, %reason, "the daemon carries what comes by this interface");
        }
    }

    /// Leaves it to the engine again.
    pub fn hear_no_more(&self, index: u32) {
        if let Ok(fast) = &self.fast_path {
            fast.detach(index);
        }
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        self.interface.listen(&mut self.threads, &self.shared, &self.lane)
    }
}
