//! Packet taps on the uplinks: which uplink a flow uses, and what must never be seen there.
//!
//! A tap reads both ends of an uplink. What arrives at the access router went out by it, what
//! arrives at the mobile router came in by it; a packet sent into a dead link counts for nothing.
//! Inside an IPv6-in-IPv6 packet the inner header is read, and so are Home Address options and type
//! 2 routing headers, so a flow is known by its own addresses and ports. A further tap at the home
//! agent says whose packets come by it. The taps never send.

mod read;
mod trail;

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};

pub use read::Form;
use read::{Read, read, told};
pub use trail::Carried;
use trail::Trails;

use super::last_error;
use super::namespace::Namespace;
use super::world::{World, address};

/// A flow as both of its ends know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Protocol number, 6 or 17.
    pub protocol: u8,
    /// The moving end.
    pub home: (Ipv6Addr, u16),
    /// The other end.
    pub peer: (Ipv6Addr, u16),
}

impl Flow {
    /// The flow from `home` to the correspondent's `port`.
    pub fn to_correspondent(protocol: u8, home: (Ipv6Addr, u16), port: u16) -> Self {
        Self { protocol, home, peer: (address::CORRESPONDENT, port) }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "ip",
        };
        let (home, peer) = (self.home, self.peer);
        write!(f, "{protocol} [{}]:{} -> [{}]:{}", home.0, home.1, peer.0, peer.1)
    }
}

/// A direction, seen from the mobile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Away from the mobile.
    Out,
    /// Towards the mobile.
    In,
}

/// Packets of one flow, one way, on one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub packets: u64,
    /// How many of them came straight, past the home agent.
    pub straight: u64,
    /// When the latest came.
    pub last: Instant,
    /// In which form it came.
    pub form: Form,
}

/// What must be counted besides flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Packets without an outer header whose source is at home, leaving the mobile router.
    pub plain_home_source: u64,
    /// ICMPv6 Parameter Problems, either way, inside the tunnel or not.
    pub parameter_problems: u64,
    /// Fragments of outer packets.
    pub fragments: u64,
    /// Mobility Header messages, either way.
    pub mobility: u64,
    /// Packets that a tap had no time to read.
    pub unread: u64,
}

impl Oddities {
    fn add(&mut self, other: &Self) {
        self.plain_home_source += other.plain_home_source;
        self.parameter_problems += other.parameter_problems;
        self.fragments += other.fragments;
        self.mobility += other.mobility;
        self.unread += other.unread;
    }
}

#[derive(Debug, Default)]
struct Notes {
    flows: HashMap<(Flow, Way), HashMap<String, Seen>>,
    /// Packets seen at the home agent, in any form.
    at_agent: HashMap<Flow, u64>,
    oddities: Oddities,
    /// The first packets that should not have been, in words.
    samples: Vec<String>,
    /// Packet by packet, if anybody wants it.
    trails: Option<Trails>,
}

/// How many odd packets are kept in words.
const SAMPLES: usize = 16;

/// Which end of an uplink a tap sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Mobile,
    Access,
    Agent,
}

/// All taps of a world; they end when it is dropped.
#[derive(Debug)]
pub struct Observatory {
    notes: Arc<Mutex<Notes>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Observatory {
    /// Taps every uplink that the world has at present.
    pub fn open(world: &World) -> Result<Self> {
        let mut made = Self {
            notes: Arc::default(),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for uplink in ["wlan0", "wwan0", "wwan1"] {
            if world.mr.interface_index(uplink).is_some() {
                made.tap_uplink(world, uplink)?;
            }
        }
        Ok(made)
    }

    /// Taps an uplink that has appeared.
    pub fn tap_uplink(&mut self, world: &World, uplink: &str) -> Result<()> {
        let (router, far) = match uplink {
            "wlan0" => (&world.wlan, "sta0"),
            "wwan0" => (&world.wcdma, "air0"),
            _ => (&world.wcdma, "air1"),
        };
        self.tap(&world.mr, uplink, uplink, End::Mobile)?;
        self.tap(router, far, uplink, End::Access)
    }

    /// Taps the link of the home agent to the rest of the world.
    pub fn tap_agent(&mut self, world: &World) -> Result<()> {
        self.tap(&world.ha, "core0", "core0", End::Agent)
    }

    fn tap(
        &mut self,
        namespace: &Namespace,
        interface: &str,
        uplink: &str,
        end: End,
    ) -> Result<()> {
        let index = namespace
            .interface_index(interface)
            .with_context(|| format!("no interface {interface} in {}", namespace.name()))?;
        let socket = namespace.run(|| open(index))?;
        let (notes, stop, uplink) = (self.notes.clone(), self.stop.clone(), uplink.to_owned());
        self.threads.push(
            std::thread::Builder::new()
                .name("lab-tap".into())
                .spawn(move || watch(&socket, &uplink, end, &notes, &stop))?,
        );
        Ok(())
    }

    /// The uplink that carried the latest packet of `flow` one way.
    pub fn uplink(&self, flow: &Flow, way: Way) -> Option<String> {
        let notes = self.notes.lock().expect("no holder panics");
        let uplinks = notes.flows.get(&(*flow, way))?;
        uplinks.iter().max_by_key(|(_, seen)| seen.last).map(|(uplink, _)| uplink.clone())
    }

    /// Packets of `flow` that an uplink has carried one way.
    pub fn packets(&self, flow: &Flow, way: Way, uplink: &str) -> u64 {
        let notes = self.notes.lock().expect("no holder panics");
        notes
            .flows
            .get(&(*flow, way))
            .and_then(|uplinks| uplinks.get(uplink))
            .map_or(0, |seen| seen.packets)
    }

    /// Packets of `flow` that went straight by an uplink one way, past the home agent.
    pub fn straight(&self, flow: &Flow, way: Way, uplink: &str) -> u64 {
        let notes = self.notes.lock().expect("no holder panics");
        let uplinks = notes.flows.get(&(*flow, way));
        uplinks.and_then(|uplinks| uplinks.get(uplink)).map_or(0, |seen| seen.straight)
    }

    /// The uplink and the form of the latest packet of `flow` one way.
    pub fn latest(&self, flow: &Flow, way: Way) -> Option<(String, Form)> {
        let notes = self.notes.lock().expect("no holder panics");
        let uplinks = notes.flows.get(&(*flow, way))?;
        let latest = uplinks.iter().max_by_key(|(_, seen)| seen.last);
        latest.map(|(uplink, seen)| (uplink.clone(), seen.form))
    }

    /// Packets of `flow` that the home agent's link has carried, in any form and either way.
    pub fn at_agent(&self, flow: &Flow) -> u64 {
        let notes = self.notes.lock().expect("no holder panics");
        notes.at_agent.get(flow).copied().unwrap_or(0)
    }

    /// Writes down from here on which uplink carries each probe of a flow, and when Binding Updates
    /// leave the mobile.
    pub fn follow(&self, flow: &Flow) {
        let mut notes = self.notes.lock().expect("no holder panics");
        notes.trails.get_or_insert_default().follow(flow);
    }

    /// The probes of a followed flow that were carried one way since the last call.
    pub fn take_trail(&self, flow: &Flow, way: Way) -> Vec<Carried> {
        let mut notes = self.notes.lock().expect("no holder panics");
        notes.trails.as_mut().map(|trails| trails.take(flow, way)).unwrap_or_default()
    }

    /// When Binding Updates left the mobile since a flow is followed, in nanoseconds of the
    /// kernel's clock of the day.
    pub fn updates(&self) -> Vec<u64> {
        let notes = self.notes.lock().expect("no holder panics");
        notes.trails.as_ref().map(|trails| trails.updates.clone()).unwrap_or_default()
    }

    /// Every flow seen.
    pub fn flows(&self) -> Vec<Flow> {
        let notes = self.notes.lock().expect("no holder panics");
        let mut flows: Vec<Flow> = notes.flows.keys().map(|(flow, _)| *flow).collect();
        flows.sort();
        flows.dedup();
        flows
    }

    /// The first packets that should not have been, in words.
    pub fn samples(&self) -> Vec<String> {
        self.notes.lock().expect("no holder panics").samples.clone()
    }

    /// What must be counted besides flows.
    pub fn oddities(&self) -> Oddities {
        self.notes.lock().expect("no holder panics").oddities
    }
}

impl Drop for Observatory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(index: u32) -> Result<OwnedFd> {
    // All protocols: a tap for IPv6 alone sees nothing that leaves.
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket makes a descriptor or fails. Protocol zero: nothing arrives before bind.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(last_error("AF_PACKET socket"));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(16i32 << 20))?;
    let glance = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &glance)?;
    // SAFETY: an all-zero sockaddr_ll is a valid value of the type.
    let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    at.sll_family = libc::AF_PACKET as u16;
    at.sll_protocol = protocol;
    at.sll_ifindex = index as i32;
    // SAFETY: the address outlives the call and has the length given.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&at).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 { Err(last_error("bind of an AF_PACKET socket")) } else { Ok(socket) }
}

fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> Result<()> {
    // SAFETY: `value` is a plain kernel structure of the given size that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(last_error("setsockopt")) } else { Ok(()) }
}

fn watch(socket: &OwnedFd, uplink: &str, end: End, notes: &Mutex<Notes>, stop: &AtomicBool) {
    let mut buffer = [0u8; 256];
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: an all-zero sockaddr_ll is a valid value of the type.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: buffer and address are writable for the lengths given.
        let length = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                std::ptr::from_mut(&mut from).cast(),
                &mut size,
            )
        };
        if length <= 0 {
            // A timeout, or once that the link went down.
            count_unread(socket, notes);
            continue;
        }
        let leaving = from.sll_pkttype == libc::PACKET_OUTGOING;
        let read = read(&buffer[..length as usize]);
        let mut notes = notes.lock().expect("no holder panics");
        let leaked = leaving && read.oddities.plain_home_source > 0;
        let odd = leaked || read.oddities.parameter_problems > 0;
        if odd && end == End::Mobile && notes.samples.len() < SAMPLES {
            let way = if leaving { "leaving by" } else { "arriving by" };
            let sample = format!("{way} {uplink}: {}", told(&buffer[..length as usize]));
            notes.samples.push(sample);
        }
        note(&read, leaving, uplink, end, &mut notes);
        if let Some(trails) = &mut notes.trails {
            trace(&read, leaving, uplink, end, trails, || trail::stamp(socket));
        }
    }
}

fn count_unread(socket: &OwnedFd, notes: &Mutex<Notes>) {
    let mut statistics = [0u32; 2];
    let mut size = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes a tpacket_stats, two words, and clears its counters.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &mut size,
        )
    };
    if got == 0 && statistics[1] > 0 {
        notes.lock().expect("no holder panics").oddities.unread += u64::from(statistics[1]);
    }
}

/// Whether a packet at this end of an uplink has passed it.
fn has_arrived(end: End, way: Way, leaving: bool) -> bool {
    matches!((end, way), (End::Access, Way::Out) | (End::Mobile, Way::In)) && !leaving
}

fn trace(
    read: &Read,
    leaving: bool,
    uplink: &str,
    end: End,
    trails: &mut Trails,
    at: impl Fn() -> u64,
) {
    if read.update && end == End::Mobile && leaving {
        trails.updates.push(at());
    }
    if let (Some((flow, way, _)), Some(number)) = (read.flow, read.number)
        && has_arrived(end, way, leaving)
    {
        let uplink = uplink.to_owned();
        trails.carried(&flow, way, || Carried { number, uplink, at: at() });
    }
}

fn note(read: &Read, leaving: bool, uplink: &str, end: End, notes: &mut Notes) {
    if end == End::Mobile {
        let mut oddities = read.oddities;
        if !leaving {
            oddities.plain_home_source = 0;
        }
        notes.oddities.add(&oddities);
    }
    let Some((flow, way, form)) = read.flow else { return };
    if end == End::Agent {
        *notes.at_agent.entry(flow).or_default() += 1;
        return;
    }
    // What leaks is counted elsewhere.
    if form != Form::Plain && has_arrived(end, way, leaving) {
        let last = Instant::now();
        let uplinks = notes.flows.entry((flow, way)).or_default();
        let before = uplinks.get(uplink).map_or((0, 0), |seen| (seen.packets, seen.straight));
        let straight = before.1 + u64::from(form == Form::Straight);
        uplinks.insert(uplink.to_owned(), Seen { packets: before.0 + 1, straight, last, form });
    }
}
