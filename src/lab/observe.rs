//! Packet taps on the uplinks: which uplink a flow uses, and what must never be seen there.
//!
//! A tap reads both ends of an uplink. What arrives at the access router went out by it, what
//! arrives at the mobile router came in by it; a packet sent into a dead link counts for nothing.
//! Inside an IPv6-in-IPv6 packet the inner header is read, so a flow is known by its own
//! addresses and ports. The taps never send.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};

use super::last_error;
use super::namespace::Namespace;
use super::world::{World, address};

const IPV6_IN_IPV6: u8 = 41;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const MOBILITY: u8 = 135;
const PARAMETER_PROBLEM: u8 = 4;

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
    /// When the latest came.
    pub last: Instant,
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
    oddities: Oddities,
    /// The first packets that should not have been, in words.
    samples: Vec<String>,
}

/// How many odd packets are kept in words.
const SAMPLES: usize = 16;

/// Which end of an uplink a tap sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Mobile,
    Access,
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

fn note(read: &Read, leaving: bool, uplink: &str, end: End, notes: &mut Notes) {
    if end == End::Mobile {
        let mut oddities = read.oddities;
        if !leaving {
            oddities.plain_home_source = 0;
        }
        notes.oddities.add(&oddities);
    }
    let Some((flow, way)) = read.flow else { return };
    let arrives = match way {
        Way::Out => end == End::Access && !leaving,
        Way::In => end == End::Mobile && !leaving,
    };
    if arrives {
        let now = Instant::now();
        let uplinks = notes.flows.entry((flow, way)).or_default();
        match uplinks.get_mut(uplink) {
            Some(seen) => *seen = Seen { packets: seen.packets + 1, last: now },
            None => drop(uplinks.insert(uplink.to_owned(), Seen { packets: 1, last: now })),
        }
    }
}

/// What one packet is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// The tunnelled flow and its direction.
    flow: Option<(Flow, Way)>,
    oddities: Oddities,
}

fn read(packet: &[u8]) -> Read {
    let mut read = Read::default();
    let Some(outer) = Header::of(packet) else { return read };
    if outer.next == FRAGMENT {
        read.oddities.fragments = 1;
    }
    if outer.protocol() == Some(IPV6_IN_IPV6) {
        if let Some(inner) = outer.payload().and_then(Header::of) {
            read.oddities.parameter_problems = inner.is_parameter_problem().into();
            read.flow = inner.flow();
        }
        return read;
    }
    read.oddities.parameter_problems = outer.is_parameter_problem().into();
    read.oddities.mobility = (outer.protocol() == Some(MOBILITY)).into();
    read.oddities.plain_home_source = address::is_home(outer.source).into();
    read
}

/// A packet in words: its addresses, its header chain, its first octets.
fn told(packet: &[u8]) -> String {
    let Some(header) = Header::of(packet) else { return "not IPv6".into() };
    let octets: Vec<String> =
        header.rest.iter().take(96).map(|octet| format!("{octet:02x}")).collect();
    format!(
        "{} -> {} next header {}: {}",
        header.source,
        header.destination,
        header.next,
        octets.join("")
    )
}

/// An IPv6 header with what follows it.
struct Header<'p> {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    rest: &'p [u8],
}

impl<'p> Header<'p> {
    fn of(packet: &'p [u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<40>()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| -> Option<Ipv6Addr> {
            let octets: [u8; 16] = fixed.get(at..at + 16)?.try_into().ok()?;
            Some(octets.into())
        };
        Some(Self { source: address(8)?, destination: address(24)?, next: fixed[6], rest })
    }

    /// Protocol and payload behind the extension headers; nothing for a later fragment.
    fn walk(&self) -> Option<(u8, &'p [u8])> {
        let (mut next, mut rest) = (self.next, self.rest);
        loop {
            let length = match next {
                0 | 43 | 60 => 8 * (1 + usize::from(*rest.get(1)?)),
                FRAGMENT if u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3 == 0 => 8,
                FRAGMENT => return None,
                _ => return Some((next, rest)),
            };
            next = *rest.first()?;
            rest = rest.get(length..)?;
        }
    }

    fn protocol(&self) -> Option<u8> {
        self.walk().map(|(protocol, _)| protocol)
    }

    fn payload(&self) -> Option<&'p [u8]> {
        self.walk().map(|(_, payload)| payload)
    }

    fn is_parameter_problem(&self) -> bool {
        self.walk().is_some_and(|(protocol, payload)| {
            protocol == ICMPV6 && payload.first() == Some(&PARAMETER_PROBLEM)
        })
    }

    fn flow(&self) -> Option<(Flow, Way)> {
        let (protocol, payload) = self.walk()?;
        if !matches!(protocol, 6 | 17) {
            return None;
        }
        let ports = payload.first_chunk::<4>()?;
        let source = (self.source, u16::from_be_bytes([ports[0], ports[1]]));
        let destination = (self.destination, u16::from_be_bytes([ports[2], ports[3]]));
        Some(if address::is_home(self.source) {
            (Flow { protocol, home: source, peer: destination }, Way::Out)
        } else {
            (Flow { protocol, home: destination, peer: source }, Way::In)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(next: u8, source: Ipv6Addr, destination: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(rest);
        packet
    }

    #[test]
    fn packets_are_told_apart() {
        type Case = (&'static str, Vec<u8>, Option<(Flow, Way)>, Oddities);
        let (home, cn) = (address::HOME, address::CORRESPONDENT);
        let (care_of, agent) = (address::WLAN, address::AGENT);
        let udp = [0x12, 0x34, 0x0f, 0xa0, 0, 8, 0, 0];
        let reply = [0x0f, 0xa0, 0x12, 0x34, 0, 8, 0, 0];
        let flow = Flow::to_correspondent(17, (home, 0x1234), 4000);
        let odd = |change: fn(&mut Oddities)| {
            let mut oddities = Oddities::default();
            change(&mut oddities);
            oddities
        };
        let out = header(41, care_of, agent, &header(17, home, cn, &udp));
        let limit = [[41, 0, 4, 1, 4, 1, 0, 0].as_slice(), &header(17, home, cn, &udp)].concat();
        let cases: &[Case] = &[
            ("tunnelled out", out, Some((flow, Way::Out)), Oddities::default()),
            (
                "with an encapsulation limit",
                header(60, care_of, agent, &limit),
                Some((flow, Way::Out)),
                Oddities::default(),
            ),
            (
                "tunnelled in",
                header(41, agent, care_of, &header(17, cn, home, &reply)),
                Some((flow, Way::In)),
                Oddities::default(),
            ),
            ("plain home", header(17, home, cn, &udp), None, odd(|o| o.plain_home_source = 1)),
            ("plain care-of", header(17, care_of, cn, &udp), None, Oddities::default()),
            (
                "a Parameter Problem",
                header(58, care_of, agent, &[4, 1, 0, 0]),
                None,
                odd(|o| o.parameter_problems = 1),
            ),
            (
                "a Binding Update",
                header(135, care_of, agent, &[59, 1, 5, 0]),
                None,
                odd(|o| o.mobility = 1),
            ),
            ("cut short", vec![0x60; 39], None, Oddities::default()),
        ];
        for (what, packet, flow, oddities) in cases {
            assert_eq!(read(packet), Read { flow: *flow, oddities: *oddities }, "{what}");
        }
    }
}
