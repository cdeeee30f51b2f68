//! The threads that move packets, and nothing else.
//!
//! ```text
//!   mtun0 queue n  --recv-->  Engine::outbound  --send-->  uplink of the verdict's path
//!   uplink         --recv-->  Engine::inbound   --send-->  mtun0
//!                                           \--> a Mobility Header waits for the owner loop
//! ```
//!
//! Copies of one packet come on several of these threads and are delivered in turns; whoever was
//! the last to hear that one waits for others wakes up when it has waited for long enough.
//!
//! What arrives is joined where segments follow each other (`delivering`).
//! What leaves goes to the next hop that its thread knows (`exits`), else by the kernel's own way.
//!
//! One plain thread per queue of a tunnel and one per uplink. They read the published snapshot
//! through their engine and share no lock with the owner loop but that of [`Arrivals`], which no
//! data packet takes. Every thread sleeps over its
//! descriptor and a waker, so it ends at once when its owner is dropped.

mod delivering;
mod exits;
mod leaving;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_dataplane::backend::{
    BreakoutLink, KmodQueue, PacketSocket, Port, RECEIVE_BUFFER, SendError, TunQueue, Uplink,
    VnetHeader, Waker, wait,
};
use mtun_dataplane::{Carried, Engine, IgnoreReason, PathId, Verdict, wire};
use mtun_policy::{FieldSet, HomeAddress};
use mtun_signaling::machine::Envelope;
use tokio::sync::Notify;

use crate::arrivals::{Arrivals, Arrived};
use crate::daemon::ProbeAnswer;
use crate::edge::clock::Clock;
use crate::tunnel_interface::Choice;

use delivering::Delivering;
use leaving::Leaving;

/// Packets that one wake-up of a thread handles before it looks for others: a batch keeps the
/// thread from sleeping under load, its end keeps it from never looking at the waker.
const BATCH: usize = 64;

/// How often what a fast path carried is brought back. Quotas and what people see are as old.
const SWEEP: Duration = Duration::from_millis(500);

/// Tunnels in tunnels through which an error is followed: more are not made (RFC 2473 §6.6).
const DEPTH: usize = 6;

/// The fields of a packet that rules may look at here: the tunnel interface tells all of them, the
/// user of a local flow included.
pub const TOLD: FieldSet = FieldSet::ALL;

/// Octets of outer packets that one path carried, headers included. They rise for as long as the
/// daemon runs, also when the path is closed and opened again.
#[derive(Debug, Default)]
pub struct Octets {
    sent: AtomicU64,
    received: AtomicU64,
    /// Of probes, in either direction; part of the two above.
    probes: AtomicU64,
    /// Whether somebody wants to know of every further [`Octets::STEP`].
    watched: AtomicBool,
}

impl Octets {
    /// So many octets of a watched path, in either direction, wake who watches.
    pub const STEP: u64 = 1 << 19;

    /// Sent and received up to now.
    pub fn read(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    /// Sent and received up to now, without probes.
    pub fn without_probes(&self) -> u64 {
        let (sent, received) = self.read();
        (sent + received).wrapping_sub(self.probes.load(Ordering::Relaxed))
    }

    /// Whether [`Paths::carried`] is told of every further [`Octets::STEP`].
    pub fn watch(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    fn count(&self, counter: &AtomicU64, octets: u64, carried: &Notify) {
        let before = counter.fetch_add(octets, Ordering::Relaxed);
        let stepped = before / Self::STEP != (before + octets) / Self::STEP;
        if stepped && self.watched.load(Ordering::Relaxed) {
            carried.notify_one();
        }
    }
}

/// The way out of one path, inside the tunnel and past it.
#[derive(Debug)]
struct Way {
    /// Another one with every opening.
    number: u64,
    uplink: Uplink,
    past: Option<BreakoutLink>,
    octets: Arc<Octets>,
}

/// Where outer packets leave, by path. One writer, the owner loop.
#[derive(Debug, Default)]
pub struct Paths {
    ways: ArcSwap<BTreeMap<PathId, Arc<Way>>>,
    octets: Mutex<BTreeMap<PathId, Arc<Octets>>>,
    opened: AtomicU64,
    /// Told when a watched path has carried a further [`Octets::STEP`].
    pub carried: Notify,
}

impl Paths {
    /// Opens or replaces a path; `past` is its way outside the tunnel, if it has one.
    pub fn open(&self, path: PathId, uplink: Uplink, past: Option<BreakoutLink>) {
        let mut ways = BTreeMap::clone(&self.ways.load());
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        ways.insert(path, Arc::new(Way { number, uplink, past, octets: self.octets(path) }));
        self.ways.store(Arc::new(ways));
    }

    /// Closes a path, inside the tunnel and outside.
    pub fn close(&self, path: PathId) {
        let mut ways = BTreeMap::clone(&self.ways.load());
        ways.remove(&path);
        self.ways.store(Arc::new(ways));
    }

    /// The interface that a path's packets leave by, if only one.
    pub fn interface(&self, path: PathId) -> Option<u32> {
        self.ways.load().get(&path)?.uplink.interface()
    }

    /// What a path carried.
    pub fn octets(&self, path: PathId) -> Arc<Octets> {
        let mut octets = self.octets.lock().unwrap_or_else(PoisonError::into_inner);
        octets.entry(path).or_default().clone()
    }

    /// Sends one outer packet; `None` if the path is not open.
    pub fn send(&self, path: PathId, packet: &[u8]) -> Option<Result<(), SendError>> {
        Some(self.send_by(self.ways.load().get(&path)?, packet))
    }

    fn send_by(&self, way: &Way, packet: &[u8]) -> Result<(), SendError> {
        let sent = way.uplink.send(packet);
        if sent.is_ok() {
            way.octets.count(&way.octets.sent, packet.len() as u64, &self.carried);
        }
        sent
    }

    /// Sends one packet outside the tunnel; `None` if the path has no such way.
    pub fn send_past(
        &self,
        path: PathId,
        packet: &[u8],
        translate: bool,
    ) -> Option<Result<(), SendError>> {
        let ways = self.ways.load();
        let way = ways.get(&path)?;
        let sent = way.past.as_ref()?.send(packet, translate);
        if sent.is_ok() {
            way.octets.count(&way.octets.sent, packet.len() as u64, &self.carried);
        }
        Some(sent)
    }

    /// Sends a probe; `None` if the path is not open.
    pub fn send_probe(&self, path: PathId, packet: &[u8]) -> Option<Result<(), SendError>> {
        let sent = self.send(path, packet)?;
        if sent.is_ok() {
            self.probed(path, packet);
        }
        Some(sent)
    }

    /// Counts a packet as a probe that was counted as sent or received.
    fn probed(&self, path: PathId, packet: &[u8]) {
        if let Some(way) = self.ways.load().get(&path) {
            way.octets.probes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
    }

    fn received(&self, octets: &Octets, packet: &[u8]) {
        octets.count(&octets.received, packet.len() as u64, &self.carried);
    }

    /// Counts what a fast path carried.
    fn carried_fast(&self, path: PathId, carried: Carried) {
        let octets = self.octets(path);
        octets.count(&octets.sent, carried.sent, &self.carried);
        octets.count(&octets.received, carried.received, &self.carried);
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
    pub queue: Arc<dyn Port>,
    /// The home agent's address: every tunnel packet of this home has it at one end. None where
    /// there is no home, but mobiles that are bound at this node as their correspondent.
    pub agent: Option<Ipv6Addr>,
}

/// What all packet threads share.
#[derive(Debug)]
pub struct Shared {
    /// Where outer packets leave.
    pub paths: Paths,
    /// Which fast path of the kernel packets may take.
    pub fast_path: Choice,
    /// Where its programs are kept that outlive a killed daemon.
    pub pins: Option<PathBuf>,
    /// The home networks.
    pub lanes: ArcSwap<Vec<Arc<Lane>>>,
    /// Outer packets that could not be sent.
    pub failures: SendFailures,
    /// The clock that engines are told the time of.
    pub clock: Clock,
    /// To the owner loop, in turns and bounded.
    pub arrivals: Arrivals,
    /// Told when traffic said something of routes; see [`Engine::route_notes`].
    pub noted: Notify,
}

impl Shared {
    /// No path is open, no home network known.
    pub fn new(clock: Clock, arrivals: Arrivals, fast_path: Choice) -> Self {
        Self {
            paths: Paths::default(),
            fast_path,
            pins: None,
            lanes: ArcSwap::default(),
            failures: SendFailures::default(),
            clock,
            arrivals,
            noted: Notify::new(),
        }
    }
}

/// What a thread is told, and how it shows that it turns.
#[derive(Debug, Default)]
pub(crate) struct Course {
    stop: AtomicBool,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Course {
    /// Whether the thread is to turn once more; saying so answers everybody who asked until now.
    pub(crate) fn goes_on(&self) -> bool {
        self.answered.store(self.asked.load(Ordering::Acquire), Ordering::Release);
        !self.stop.load(Ordering::Acquire)
    }
}

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct PacketThread {
    course: Arc<Course>,
    waker: Waker,
    handle: Option<JoinHandle<()>>,
}

impl PacketThread {
    /// Asks whether it turns.
    pub fn ask(&self) {
        self.course.asked.fetch_add(1, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Whether it has turned since it was asked last.
    pub fn answers(&self) -> bool {
        let asked = self.course.asked.load(Ordering::Acquire);
        self.course.answered.load(Ordering::Acquire) == asked
    }
}

impl Drop for PacketThread {
    fn drop(&mut self) {
        self.course.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(handle) = self.handle.take() {
            // A packet thread that panicked has said so on standard error.
            let _ = handle.join();
        }
    }
}

pub(crate) fn spawn(
    name: String,
    run: impl FnOnce(&Course, &Waker) + Send + 'static,
) -> io::Result<PacketThread> {
    let course = Arc::new(Course::default());
    let waker = Waker::new()?;
    let handle = {
        let (course, waker) = (course.clone(), waker.clone());
        std::thread::Builder::new().name(name).spawn(move || run(&course, &waker))?
    };
    Ok(PacketThread { course, waker, handle: Some(handle) })
}

/// Carries what enters one queue of a tunnel out.
pub fn outbound(
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    queue: Arc<TunQueue>,
) -> io::Result<PacketThread> {
    let ingress = queue.ingress();
    let name = format!("out-{}", ingress.0);
    spawn(name, move |course, waker| {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let mut leaving = Leaving::new();
        let mut ready = Vec::new();
        while course.goes_on() {
            for _ in 0..BATCH {
                match queue.recv(&mut buffer) {
                    Ok(Some(received)) => {
                        let packet = &mut buffer[received.packet];
                        leaving.take(&shared, &lane, ingress, received.header, packet);
                    }
                    Ok(None) => break,
                    // The interface is down or being removed; wait below until it is not.
                    Err(_) => break,
                }
            }
            if lane.engine.has_route_notes() {
                shared.noted.notify_one();
            }
            if wait(&[queue.as_fd()], waker, None, &mut ready).is_err() {
                return;
            }
        }
    })
}

/// Carries what a link of kmod-mtun does not remember out.
pub fn missed(
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    queue: Arc<KmodQueue>,
) -> io::Result<PacketThread> {
    spawn("out".to_owned(), move |course, waker| {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let mut leaving = Leaving::new();
        let mut ready = Vec::new();
        while course.goes_on() {
            for _ in 0..BATCH {
                match queue.recv(&mut buffer) {
                    Ok(Some(missed)) if missed.packet.is_empty() => {}
                    Ok(Some(missed)) => {
                        leaving.take_one(&shared, &lane, missed.ingress, &buffer[missed.packet]);
                    }
                    // The module is being taken out, and the link with it.
                    Ok(None) | Err(_) => break,
                }
            }
            if lane.engine.has_route_notes() {
                shared.noted.notify_one();
            }
            if wait(&[queue.as_fd()], waker, None, &mut ready).is_err() {
                return;
            }
        }
    })
}

/// Brings back once in a while what the fast path of a tunnel carried, and vouches for it.
pub fn sweeping(shared: Arc<Shared>, lane: Arc<Lane>, name: &str) -> io::Result<PacketThread> {
    spawn(format!("fast-{name}"), move |course, waker| {
        while course.goes_on() {
            let now = shared.clock.monotonic();
            // What fails ends the fast path by itself, and is tried again.
            for (path, carried) in lane.engine.sweep(now).unwrap_or_default() {
                shared.paths.carried_fast(path, carried);
            }
            if wait(&[], waker, Some(SWEEP), &mut Vec::new()).is_err() {
                return;
            }
        }
    })
}

/// Carries what arrives on one interface in.
pub fn inbound(
    shared: Arc<Shared>,
    socket: Arc<PacketSocket>,
    path: PathId,
) -> io::Result<PacketThread> {
    let interface = socket.interface();
    let octets = shared.paths.octets(path);
    let name = format!("in-{interface}");
    spawn(name, move |course, waker| {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let mut out = Vec::with_capacity(RECEIVE_BUFFER);
        let mut delivering = Delivering::default();
        let mut ready = Vec::new();
        while course.goes_on() {
            release(&shared, shared.clock.monotonic(), &mut out);
            for _ in 0..BATCH {
                match socket.recv(&mut buffer) {
                    Ok(Some(received)) => {
                        let packet = &buffer[received.packet];
                        let (header, hands) = (received.header, (&mut out, &mut delivering));
                        if arrive(&shared, path, packet, header, interface, hands) {
                            shared.paths.received(&octets, packet);
                        }
                    }
                    Ok(None) => break,
                    // Told once when the interface goes down; the socket hears it come back.
                    Err(_) => break,
                }
            }
            delivering.end(&shared);
            if shared.lanes.load().iter().any(|lane| lane.engine.has_route_notes()) {
                shared.noted.notify_one();
            }
            if wait(&[socket.as_fd()], waker, held(&shared), &mut ready).is_err() {
                break;
            }
        }
        // What this thread was to wake up for nobody else may.
        release(&shared, shared.clock.monotonic() + Duration::from_secs(1), &mut out);
    })
}

/// How long the first copy that waits for others may do so still.
fn held(shared: &Shared) -> Option<Duration> {
    let lanes = shared.lanes.load();
    let until = lanes.iter().filter_map(|lane| lane.engine.held_until()).min()?;
    Some(until.saturating_sub(shared.clock.monotonic()))
}

/// Delivers copies that waited for others until `now`.
fn release(shared: &Shared, now: Duration, out: &mut Vec<u8>) {
    for lane in shared.lanes.load().iter() {
        if lane.engine.held_until().is_some_and(|until| until <= now) {
            let _turn = lane.engine.turn();
            deliver_released(shared, lane, now, out);
        }
    }
}

/// Delivers what waits for nothing any more.
fn deliver_released(shared: &Shared, lane: &Lane, now: Duration, out: &mut Vec<u8>) {
    while lane.engine.released(now, out) {
        carry(shared, lane, Verdict::Deliver, out, VnetHeader::COMPLETE, None);
    }
}

/// Takes an outer packet; whether it was one of a home.
fn arrive(
    shared: &Shared,
    path: PathId,
    packet: &[u8],
    header: VnetHeader,
    interface: u32,
    (out, delivering): (&mut Vec<u8>, &mut Delivering),
) -> bool {
    let now = shared.clock.monotonic();
    let lanes = shared.lanes.load();
    let ends = packet.get(8..40).map(|ends| {
        let address = |octets: &[u8]| {
            Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("half of 32 octets"))
        };
        (address(&ends[..16]), address(&ends[16..]))
    });
    let Some((source, destination)) = ends else { return false };
    // Every tunnelled packet has its home's agent at one end. What has none (errors of routers on
    // the way, what comes straight from correspondents) is shown to each home; at most one knows
    // what it quotes or whose it is.
    let of_agent = |agent| agent == source || agent == destination;
    let is_named = |lane: &Arc<Lane>| lane.agent.is_some_and(of_agent);
    let named = lanes.iter().filter(|lane| is_named(lane));
    let candidates = named.chain(lanes.iter().filter(|lane| !is_named(lane)));
    let mut unknown = None;
    for lane in candidates {
        // Copies of one packet come on several threads, and their order is to be kept.
        let turn = wire::may_be_marked(packet).then(|| lane.engine.turn());
        let verdict = lane.engine.inbound(path, packet, now, out);
        match verdict {
            Verdict::Ignore(IgnoreReason::CopyHeld) => {}
            Verdict::Ignore(_) => continue,
            // Another lane may know the binding.
            Verdict::UnknownBinding { .. } => {
                unknown = unknown.or(Some((lane, verdict)));
                continue;
            }
            _ => {}
        }
        if matches!(verdict, Verdict::Probed { .. }) {
            shared.paths.probed(path, packet);
        }
        if let Some(envelope) = straight(&verdict)
            && let Some(octet) = mtun_signaling::wire::problem(&envelope, out)
        {
            // req MH-01, MH-02, MH-12 (RFC 6275 §9.2). The machine refuses the message by itself.
            let mut problem = Vec::new();
            if lane.engine.problem(packet, octet, now, &mut problem) {
                send(shared, path, &problem);
            }
        }
        // What stands in front of the inner packet is gone; where its checksum stands moves along.
        let header = match verdict {
            Verdict::Deliver => header.without(packet.len().saturating_sub(out.len())),
            _ => Some(VnetHeader::COMPLETE),
        };
        match header {
            // What is in an order is not kept back.
            Some(header) if verdict == Verdict::Deliver && turn.is_none() => {
                delivering.take(shared, lane, header, out);
            }
            Some(header) => {
                delivering.end(shared);
                carry(shared, lane, verdict, out, header, Some(interface));
            }
            None => shared.failures.count_tunnel(),
        }
        if turn.is_some() {
            deliver_released(shared, lane, now, out);
        }
        return true;
    }
    let Some((lane, verdict)) = unknown else { return false };
    carry(shared, lane, verdict, &[], VnetHeader::COMPLETE, Some(interface));
    true
}

/// The addresses around a Mobility Header that did not come through the tunnel.
fn straight(verdict: &Verdict) -> Option<Envelope> {
    let &Verdict::Signalling { source, destination, home_address, routing_header, tunnelled } =
        verdict
    else {
        return None;
    };
    let (home_address, routing_header) =
        (home_address.map(HomeAddress), routing_header.map(HomeAddress));
    (!tunnelled).then_some(Envelope { source, destination, home_address, routing_header })
}

/// An error about a tunnel packet of our own, which was to enter another tunnel of ours because
/// one mobile is behind another: it is taken as if a router on the way had sent it, from tunnel to
/// tunnel until it is somebody else's.
fn told_ourselves(shared: &Shared, verdict: Verdict, out: &mut Vec<u8>) -> bool {
    let lanes = shared.lanes.load();
    let ours = |packet: &[u8]| {
        let to = packet.get(24..40);
        to.is_some_and(|to| {
            lanes.iter().any(|lane| lane.agent.is_some_and(|agent| agent.octets() == *to))
        })
    };
    if !matches!(verdict, Verdict::Answer(_)) || !ours(out) {
        return false;
    }
    for _ in 0..DEPTH {
        let error = std::mem::take(out);
        let now = shared.clock.monotonic();
        let told = lanes.iter().find_map(|lane| {
            let verdict = lane.engine.inbound(PathId::ROUTED, &error, now, out);
            (!matches!(verdict, Verdict::Ignore(_))).then_some((lane, verdict))
        });
        let Some((lane, verdict)) = told else { return true };
        if !ours(out) {
            carry(shared, lane, verdict, out, VnetHeader::COMPLETE, None);
            return true;
        }
    }
    true
}

/// Sends the outer packets of one path.
fn send(shared: &Shared, path: PathId, out: &[u8]) {
    for packet in wire::packets(out) {
        left(shared, shared.paths.send(path, packet));
    }
}

/// Counts what did not leave.
fn left(shared: &Shared, sent: Option<Result<(), SendError>>) {
    match sent {
        Some(Ok(())) => {}
        Some(Err(error)) => shared.failures.count(error),
        None => shared.failures.count_no_path(),
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
    let arrived = |event| shared.arrivals.other(event);
    match verdict {
        Verdict::Send { path } | Verdict::Reject { path, .. } => send(shared, path, out),
        Verdict::Replicate(sends) => {
            sends.parts(out).for_each(|(path, part)| send(shared, path, part));
        }
        Verdict::Breakout { path, translate } => {
            left(shared, shared.paths.send_past(path, out, translate));
        }
        Verdict::Deliver | Verdict::Answer(_) => {
            if lane.queue.send_with(header, out).is_err() {
                shared.failures.count_tunnel();
            }
        }
        Verdict::Signalling { source, destination, home_address, routing_header, tunnelled } => {
            let envelope = Envelope {
                source,
                destination,
                home_address: home_address.map(HomeAddress),
                routing_header: routing_header.map(HomeAddress),
            };
            let now = shared.clock.monotonic();
            shared.arrivals.message(now, interface, tunnelled, envelope, out);
        }
        Verdict::SignallingFailed { source, destination, kind, code } => {
            arrived(Arrived::Failed { source, destination, kind, code });
        }
        Verdict::UnknownBinding { source, home_address, destination } => {
            let home_address = HomeAddress(home_address);
            arrived(Arrived::UnknownBinding { source, destination, home_address });
        }
        Verdict::Discovery { source, destination, home_address, routing_header } => {
            arrived(Arrived::Discovery {
                envelope: Envelope {
                    source,
                    destination,
                    home_address: home_address.map(HomeAddress),
                    routing_header: routing_header.map(HomeAddress),
                },
                message: out.to_vec(),
            });
        }
        Verdict::Probed { home_address, bid, sequence, by } => {
            let at = shared.clock.monotonic();
            arrived(Arrived::Probed(ProbeAnswer { home_address, bid, sequence, by, at }));
        }
        Verdict::Ignore(_) | Verdict::Drop(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_stands_still_does_not_answer() {
        let (go, gone) = mpsc::channel::<()>();
        let thread = spawn("stuck".to_owned(), move |course, waker| {
            let mut ready = Vec::new();
            while course.goes_on() {
                wait(&[], waker, None, &mut ready).unwrap();
                // One turn takes as long as this test wants.
                let _ = gone.recv();
            }
        });
        let thread = thread.unwrap();
        assert!(thread.answers(), "nobody asked");
        thread.ask();
        assert!(!thread.answers(), "it stands still");
        go.send(()).unwrap();
        while !thread.answers() {
            std::thread::yield_now();
        }
        drop(go);
    }
}
