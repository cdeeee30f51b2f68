//! The threads that move packets, and nothing else.
//!
//! ```text
//!   mtun0 queue n  --recv-->  Engine::outbound  --send-->  uplink of the verdict's path
//!   uplink         --recv-->  Engine::inbound   --send-->  mtun0
//!                                           \--> a Mobility Header goes to the owner loop
//! ```
//!
//! One plain thread per queue of a tunnel and one per uplink. They read the published snapshot
//! through their engine and share no lock with the owner loop. Every thread sleeps over its
//! descriptor and a waker, so it ends at once when its owner is dropped.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use mtun_dataplane::backend::{
    BreakoutLink, PacketSocket, PacketSocketError, RECEIVE_BUFFER, SendError, TunQueue, Uplink,
    VnetHeader, Waker, wait,
};
use mtun_dataplane::{Engine, PathId, Verdict, wire};
use mtun_policy::{HomeAddress, Ingress};
use mtun_signaling::machine::Envelope;
use tokio::sync::mpsc;

use crate::edge::clock::Clock;

/// Packets that one wake-up of a thread handles before it looks for others: a batch keeps the
/// thread from sleeping under load, its end keeps it from never looking at the waker.
const BATCH: usize = 64;

/// What packet threads hand to the owner loop.
#[derive(Debug)]
pub enum Arrived {
    /// A Mobility Header.
    Message {
        /// Index of the interface it came by; `None` if it entered the tunnel interface here.
        interface: Option<u32>,
        /// Whether it came through the tunnel, from an admitted sender.
        tunnelled: bool,
        /// The addresses around it.
        envelope: Envelope,
        /// The Mobility Header.
        message: Vec<u8>,
    },
    /// An ICMPv6 error says that a Mobility Header of ours did not arrive.
    Failed {
        /// Where ours came from.
        source: Ipv6Addr,
        /// Where it was going.
        destination: Ipv6Addr,
    },
}

/// Where outer packets leave, by path, and where packets leave outside the tunnel. One writer, the
/// owner loop.
#[derive(Debug, Default)]
pub struct Paths {
    uplinks: ArcSwap<BTreeMap<PathId, Arc<Uplink>>>,
    breakouts: ArcSwap<BTreeMap<PathId, Arc<BreakoutLink>>>,
}

impl Paths {
    /// The way out of this path, if it is open.
    pub fn get(&self, path: PathId) -> Option<Arc<Uplink>> {
        self.uplinks.load().get(&path).cloned()
    }

    /// The way out of this path outside the tunnel, if it is open.
    pub fn breakout(&self, path: PathId) -> Option<Arc<BreakoutLink>> {
        self.breakouts.load().get(&path).cloned()
    }

    /// Opens or replaces a path.
    pub fn open(&self, path: PathId, uplink: Uplink) {
        let mut paths = BTreeMap::clone(&self.uplinks.load());
        paths.insert(path, Arc::new(uplink));
        self.uplinks.store(Arc::new(paths));
    }

    /// Opens or replaces the way outside the tunnel.
    pub fn open_breakout(&self, path: PathId, link: BreakoutLink) {
        let mut paths = BTreeMap::clone(&self.breakouts.load());
        paths.insert(path, Arc::new(link));
        self.breakouts.store(Arc::new(paths));
    }

    /// Closes a path, inside the tunnel and outside.
    pub fn close(&self, path: PathId) {
        let mut uplinks = BTreeMap::clone(&self.uplinks.load());
        uplinks.remove(&path);
        self.uplinks.store(Arc::new(uplinks));
        let mut breakouts = BTreeMap::clone(&self.breakouts.load());
        breakouts.remove(&path);
        self.breakouts.store(Arc::new(breakouts));
    }
}

/// Outer packets that could not be sent, by reason.
#[derive(Debug, Default)]
pub struct SendFailures {
    /// The path is not open.
    pub no_path: AtomicU64,
    /// Larger than the link's MTU.
    pub too_big: AtomicU64,
    /// No route to the peer.
    pub no_route: AtomicU64,
    /// The link is slower than what is sent.
    pub no_buffer: AtomicU64,
    /// The link is down.
    pub link_down: AtomicU64,
    /// Anything else.
    pub other: AtomicU64,
    /// The tunnel interface did not take an inner packet.
    pub tunnel: AtomicU64,
}

impl SendFailures {
    fn count(&self, error: SendError) {
        let counter = match error {
            SendError::TooBig { .. } => &self.too_big,
            SendError::NoRoute => &self.no_route,
            SendError::NoBuffer => &self.no_buffer,
            SendError::LinkDown => &self.link_down,
            SendError::NotPermitted | SendError::Malformed | SendError::Os(_) => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn count_no_path(&self) {
        self.no_path.fetch_add(1, Ordering::Relaxed);
    }

    fn count_tunnel(&self) {
        self.tunnel.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts with their names.
    pub fn snapshot(&self) -> [(&'static str, u64); 7] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("send-no-path", value(&self.no_path)),
            ("send-too-big", value(&self.too_big)),
            ("send-no-route", value(&self.no_route)),
            ("send-no-buffer", value(&self.no_buffer)),
            ("send-link-down", value(&self.link_down)),
            ("send-other", value(&self.other)),
            ("tunnel-refused", value(&self.tunnel)),
        ]
    }
}

/// One home network as the packet threads see it.
#[derive(Debug)]
pub struct Lane {
    /// Its packet loop.
    pub engine: Arc<Engine>,
    /// Where its inner packets go.
    pub queue: Arc<TunQueue>,
    /// The home agent's address: every outer packet of this home has it at one end.
    pub agent: Ipv6Addr,
}

/// What all packet threads share.
#[derive(Debug)]
pub struct Shared {
    /// Where outer packets leave.
    pub paths: Paths,
    /// The home networks.
    pub lanes: ArcSwap<Vec<Arc<Lane>>>,
    /// Outer packets that could not be sent.
    pub failures: SendFailures,
    /// The clock that engines are told the time of.
    pub clock: Clock,
    /// To the owner loop. Bounded: a flood of signaling is dropped here, before it costs memory.
    pub arrivals: mpsc::Sender<Arrived>,
    /// Mobility Headers dropped because the owner loop did not keep up.
    pub arrivals_lost: AtomicU64,
}

impl Shared {
    /// No path is open, no home network known.
    pub fn new(clock: Clock, arrivals: mpsc::Sender<Arrived>) -> Self {
        Self {
            paths: Paths::default(),
            lanes: ArcSwap::default(),
            failures: SendFailures::default(),
            clock,
            arrivals,
            arrivals_lost: AtomicU64::new(0),
        }
    }
}

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct PacketThread {
    stop: Arc<AtomicBool>,
    waker: Waker,
    handle: Option<JoinHandle<()>>,
}

impl Drop for PacketThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(handle) = self.handle.take() {
            // A packet thread that panicked has said so on standard error.
            let _ = handle.join();
        }
    }
}

fn spawn(
    name: String,
    run: impl FnOnce(&AtomicBool, &Waker) + Send + 'static,
) -> io::Result<PacketThread> {
    let stop = Arc::new(AtomicBool::new(false));
    let waker = Waker::new()?;
    let handle = {
        let (stop, waker) = (stop.clone(), waker.clone());
        std::thread::Builder::new().name(name).spawn(move || run(&stop, &waker))?
    };
    Ok(PacketThread { stop, waker, handle: Some(handle) })
}

/// Carries what enters one queue of a tunnel out.
pub fn outbound(
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    queue: Arc<TunQueue>,
    ingress: Ingress,
) -> io::Result<PacketThread> {
    let name = format!("out-{}", ingress.0);
    spawn(name, move |stop, waker| {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let mut out = Vec::with_capacity(RECEIVE_BUFFER);
        let mut ready = Vec::new();
        while !stop.load(Ordering::Acquire) {
            for _ in 0..BATCH {
                match queue.recv(&mut buffer) {
                    Ok(Some(received)) => {
                        let packet = &buffer[received.packet];
                        let now = shared.clock.monotonic();
                        let verdict = lane.engine.outbound(ingress, packet, now, &mut out);
                        carry(&shared, &lane, verdict, &out, VnetHeader::COMPLETE, None);
                    }
                    Ok(None) => break,
                    // The interface is down or being removed; wait below until it is not.
                    Err(_) => break,
                }
            }
            if wait(&[queue.as_fd()], waker, None, &mut ready).is_err() {
                return;
            }
        }
    })
}

/// Carries what arrives on one interface in.
pub fn inbound(
    shared: Arc<Shared>,
    interface: u32,
    path: PathId,
) -> Result<PacketThread, PacketSocketError> {
    let socket = PacketSocket::open(interface)?;
    let name = format!("in-{interface}");
    let thread = spawn(name, move |stop, waker| {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let mut out = Vec::with_capacity(RECEIVE_BUFFER);
        let mut ready = Vec::new();
        while !stop.load(Ordering::Acquire) {
            for _ in 0..BATCH {
                match socket.recv(&mut buffer) {
                    Ok(Some(received)) => {
                        let packet = &buffer[received.packet];
                        arrive(&shared, path, packet, received.header, interface, &mut out);
                    }
                    Ok(None) => break,
                    // Told once when the interface goes down; the socket hears it come back.
                    Err(_) => break,
                }
            }
            if wait(&[socket.as_fd()], waker, None, &mut ready).is_err() {
                return;
            }
        }
    });
    thread.map_err(|error| PacketSocketError::Os { step: "thread", error })
}

fn arrive(
    shared: &Shared,
    path: PathId,
    packet: &[u8],
    header: VnetHeader,
    interface: u32,
    out: &mut Vec<u8>,
) {
    let now = shared.clock.monotonic();
    let lanes = shared.lanes.load();
    let ends = packet.get(8..40).map(|ends| {
        let address = |octets: &[u8]| {
            Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("half of 32 octets"))
        };
        (address(&ends[..16]), address(&ends[16..]))
    });
    let Some((source, destination)) = ends else { return };
    // Every tunnelled packet has its home's agent at one end. What has none (errors of routers on
    // the way) is shown to each home; at most one knows what it quotes.
    let named = lanes.iter().find(|lane| lane.agent == source || lane.agent == destination);
    let candidates = named.map_or(&lanes[..], std::slice::from_ref);
    for lane in candidates {
        let verdict = lane.engine.inbound(path, packet, now, out);
        let settled = !matches!(verdict, Verdict::Ignore(_));
        // What stands in front of the inner packet is gone; where its checksum stands moves along.
        let header = match verdict {
            Verdict::Deliver => header.without(packet.len().saturating_sub(out.len())),
            _ => Some(VnetHeader::COMPLETE),
        };
        match header {
            Some(header) => carry(shared, lane, verdict, out, header, Some(interface)),
            None => shared.failures.count_tunnel(),
        }
        if settled {
            return;
        }
    }
}

/// Sends the outer packets of one path.
fn send(shared: &Shared, path: PathId, out: &[u8]) {
    let Some(uplink) = shared.paths.get(path) else { return shared.failures.count_no_path() };
    for packet in wire::packets(out) {
        if let Err(error) = uplink.send(packet) {
            shared.failures.count(error);
        }
    }
}

/// Does what a verdict says. Nothing here can stop the batch: what fails is counted.
fn carry(
    shared: &Shared,
    lane: &Lane,
    verdict: Verdict,
    out: &[u8],
    header: VnetHeader,
    interface: Option<u32>,
) {
    let arrived = |event| {
        if shared.arrivals.try_send(event).is_err() {
            shared.arrivals_lost.fetch_add(1, Ordering::Relaxed);
        }
    };
    match verdict {
        Verdict::Send { path } => send(shared, path, out),
        Verdict::Replicate(sends) => {
            sends.parts(out).for_each(|(path, part)| send(shared, path, part));
        }
        Verdict::Breakout { path, translate } => match shared.paths.breakout(path) {
            Some(link) => {
                if let Err(error) = link.send(out, translate) {
                    shared.failures.count(error);
                }
            }
            None => shared.failures.count_no_path(),
        },
        Verdict::Deliver | Verdict::Answer(_) => {
            if lane.queue.send_with(header, out).is_err() {
                shared.failures.count_tunnel();
            }
        }
        Verdict::Signalling { source, destination, home_address, routing_header, tunnelled } => {
            arrived(Arrived::Message {
                interface,
                tunnelled,
                envelope: Envelope {
                    source,
                    destination,
                    home_address: home_address.map(HomeAddress),
                    routing_header: routing_header.map(HomeAddress),
                },
                message: out.to_vec(),
            });
        }
        Verdict::SignallingFailed { source, destination, .. } => {
            arrived(Arrived::Failed { source, destination });
        }
        Verdict::Ignore(_) | Verdict::Drop(_) => {}
    }
}
