//! Keeps the shortcut true to the kernel: whether there may be one, and when everything that takes
//! it has to go the normal way again.
//!
//! A packet that takes the shortcut meets no route, no neighbour, no rule of the firewall and no
//! queue of the tunnel interface. Each flow meets them once a second all the same, by itself; what
//! this thread adds is that a change of any of them ends every shortcut at once, and that there is
//! none where something needs every packet: rules that count or limit ([`per_packet`]), rules of a
//! kind that cannot be read, a queue of the owner's at the tunnel interface.
//!
//! After a change of rules or queues there is no shortcut until they have been read again. A packet
//! that was forwarded by the old rules may still be on its way to the program that notes it, when
//! the change is heard; so every change is followed by a second round, when no such packet can be
//! left.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mtun_dataplane::abi::Shortcut;
use mtun_dataplane::backend::{Bpf, wait};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nftables::helper::{self, DEFAULT_NFT};
use serde_json::Value;

use crate::edge::nft::TABLE;
use crate::edge::per_packet::{self, PerPacket};
use crate::packets::{PacketThread, spawn};

/// Links, neighbours, queues, IPv6 addresses, routes and rules: `RTNLGRP_*` less one.
const ROUTE_GROUPS: [u32; 6] = [0, 2, 3, 8, 10, 18];
/// `NFNLGRP_NFTABLES` less one.
const RULE_GROUP: u32 = 6;
/// From a reading of the rules that failed to the next.
const READ_AGAIN: Duration = Duration::from_millis(500);
/// From one round to the next that follows it: longer than a packet needs through this machine.
const SETTLED: Duration = Duration::from_millis(100);
/// Neighbours that are known by their link-layer address. Beyond it every report counts as news.
const NEIGHBOURS: usize = 4096;
/// Whether a firewall lets segments pass that are out of its window.
const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
/// Names the tables of the older firewall, which only its own program reads.
const OLD_TABLES: &str = "/proc/net/ip6_tables_names";

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const NUD_FAILED: u16 = 0x20;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Octets of a netlink header, of `struct ndmsg` and of `struct tcmsg`.
const HEADER: usize = 16;
const NEIGHBOUR: usize = 12;
const QUEUE: usize = 20;

/// Why no packet takes the shortcut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoShortcut {
    /// The daemon was told so.
    #[error("switched off")]
    Off,
    /// The rules have changed and were not read again yet.
    #[error("the firewall is being read")]
    Reading,
    /// A rule of the firewall.
    #[error("{0}")]
    Rule(PerPacket),
    /// Rules of the older firewall.
    #[error("the rules of ip6tables cannot be read")]
    OldRules,
    /// The owner shapes what enters the tunnel.
    #[error("the tunnel interface has a queue of its own")]
    Queue,
    /// Something could not be asked.
    #[error("{what}: {error}")]
    NotKnown {
        /// What was asked for.
        what: &'static str,
        /// What the answer was.
        error: String,
    },
}

/// Watches for one tunnel interface; ends when dropped.
#[derive(Debug)]
pub struct ShortcutWatch {
    reason: Arc<Mutex<Option<NoShortcut>>>,
    #[expect(dead_code, reason = "ends when it is dropped")]
    thread: PacketThread,
}

impl ShortcutWatch {
    /// Starts to watch; there is no shortcut before the rules have been read.
    pub fn start(bpf: Arc<Bpf>, name: &str, tunnel: u32) -> io::Result<Self> {
        let routes = listen(NETLINK_ROUTE, ROUTE_GROUPS.iter().fold(0, |mask, it| mask | 1 << it))?;
        let rules = listen(NETLINK_NETFILTER, 1 << RULE_GROUP)?;
        let reason = Arc::new(Mutex::new(Some(NoShortcut::Reading)));
        let (told, own) = (reason.clone(), name.to_owned());
        let thread = spawn(format!("short-{name}"), move |course, waker| {
            let mut watching = Watching {
                bpf,
                name: own,
                tunnel,
                reason: told,
                neighbours: HashMap::new(),
                due: Some(Instant::now()),
                again: None,
            };
            let mut ready = Vec::new();
            let mut buffer = vec![0; 1 << 16];
            while course.goes_on() {
                watching.hear(&routes, &mut buffer, Watching::of_routes);
                watching.hear(&rules, &mut buffer, |_, _| News::Rules);
                let now = Instant::now();
                if watching.due.is_some_and(|due| due <= now) {
                    watching.read();
                }
                if watching.again.is_some_and(|again| again <= now) {
                    watching.again = None;
                    // A map of our own that cannot be written is out of use altogether.
                    let _ = watching.bpf.next_round();
                }
                let until = [watching.due, watching.again].into_iter().flatten().min();
                let until = until.map(|until| until.saturating_duration_since(now));
                let sources = [routes.as_fd(), rules.as_fd()];
                if wait(&sources, waker, until, &mut ready).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { reason, thread })
    }

    /// Why there is no shortcut; `None` if there is.
    pub fn reason(&self) -> Option<NoShortcut> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a report means for the shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    /// Every flow has to go the normal way once.
    Round,
    /// And not before rules and queues have been read.
    Rules,
}

struct Watching {
    bpf: Arc<Bpf>,
    name: String,
    tunnel: u32,
    reason: Arc<Mutex<Option<NoShortcut>>>,
    /// Link-layer addresses, by interface and address.
    neighbours: HashMap<(u32, Vec<u8>), Vec<u8>>,
    /// When rules and queues are to be read.
    due: Option<Instant>,
    /// When the round is due that follows a change.
    again: Option<Instant>,
}

impl Watching {
    /// Takes everything that a socket has, and does what the gravest of it asks for.
    fn hear(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        meaning: impl Fn(&mut Self, &[u8]) -> News,
    ) {
        let mut news = News::None;
        loop {
            match socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT) {
                Ok(length) => {
                    let datagram = &buffer[..length.min(buffer.len())];
                    news = news.max(meaning(self, datagram));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some were dropped: it may have been any.
                Err(_) => {
                    self.neighbours.clear();
                    news = News::Rules;
                    break;
                }
            }
        }
        if news > News::None {
            self.again = Some(Instant::now() + SETTLED);
        }
        // A map of our own that cannot be written is out of use altogether.
        match news {
            News::None => {}
            News::Round => {
                let _ = self.bpf.next_round();
            }
            News::Rules => {
                let _ = self.bpf.set_shortcut(Shortcut::None);
                self.tell(Some(NoShortcut::Reading));
                self.due.get_or_insert_with(Instant::now);
            }
        }
    }

    fn of_routes(&mut self, datagram: &[u8]) -> News {
        messages(datagram)
            .map(|(kind, body)| self.of_report(kind, body))
            .max()
            .unwrap_or(News::None)
    }

    fn of_report(&mut self, kind: u16, body: &[u8]) -> News {
        match kind {
            RTM_NEWQDISC | RTM_DELQDISC => News::Rules,
            RTM_NEWNEIGH | RTM_DELNEIGH => self.of_neighbour(kind, body),
            _ => News::Round,
        }
    }

    /// A neighbour is reported whenever the kernel has heard of it; only another address is news.
    fn of_neighbour(&mut self, kind: u16, body: &[u8]) -> News {
        let Some((head, attributes)) = body.split_at_checked(NEIGHBOUR) else { return News::None };
        if i32::from(head[0]) != libc::AF_INET6 {
            return News::None;
        }
        let interface = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        let state = u16::from_ne_bytes([head[8], head[9]]);
        let Some(address) = attribute(attributes, NDA_DST) else { return News::None };
        let key = (interface, address.to_vec());
        let link = attribute(attributes, NDA_LLADDR);
        match link.filter(|_| kind == RTM_NEWNEIGH && state & NUD_FAILED == 0) {
            None => self.neighbours.remove(&key).map_or(News::None, |_| News::Round),
            Some(link) if self.neighbours.get(&key).is_some_and(|known| known == link) => {
                News::None
            }
            Some(link) => {
                if self.neighbours.len() >= NEIGHBOURS {
                    self.neighbours.clear();
                }
                self.neighbours.insert(key, link.to_vec());
                News::Round
            }
        }
    }

    /// Reads what may be in the way, and says so.
    fn read(&mut self) {
        self.due = None;
        let reason = obstacle(&self.name, self.tunnel);
        let shortcut = match (&reason, is_strict()) {
            (Some(_), _) => Shortcut::None,
            (None, true) => Shortcut::Udp,
            (None, false) => Shortcut::All,
        };
        let known = !matches!(reason, Some(NoShortcut::NotKnown { .. }));
        self.tell(reason);
        let _ = self.bpf.set_shortcut(shortcut);
        if !known {
            self.due = Some(Instant::now() + READ_AGAIN);
        }
    }

    fn tell(&self, reason: Option<NoShortcut>) {
        let mut told = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *told != reason && !matches!(reason, Some(NoShortcut::Reading));
        if let (true, Some(reason)) = (is_news, &reason) {
            tracing::info!(%reason, "no shortcut past the tunnel interface");
        }
        *told = reason;
    }
}

/// What is in the way of a shortcut at present.
fn obstacle(name: &str, tunnel: u32) -> Option<NoShortcut> {
    let old = std::fs::read_to_string(OLD_TABLES).unwrap_or_default();
    if !old.trim().is_empty() {
        return Some(NoShortcut::OldRules);
    }
    match has_queue(tunnel) {
        Ok(true) => return Some(NoShortcut::Queue),
        Ok(false) => {}
        Err(error) => {
            return Some(NoShortcut::NotKnown { what: "queues", error: error.to_string() });
        }
    }
    let not_known = |error: String| NoShortcut::NotKnown { what: "rules of the firewall", error };
    let rules = match helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "ruleset"]) {
        Ok(text) => text,
        Err(error) => return Some(not_known(error.to_string())),
    };
    match serde_json::from_str::<Value>(&rules) {
        Ok(rules) => per_packet::find(&rules, TABLE, name).map(NoShortcut::Rule),
        Err(error) => Some(not_known(error.to_string())),
    }
}

/// Whether connection tracking would take a connection of which it misses packets for a broken one.
fn is_strict() -> bool {
    match std::fs::read_to_string(LIBERAL) {
        Ok(text) => text.trim() == "0",
        Err(_) => false,
    }
}

fn listen(protocol: isize, groups: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// Type and body of every message of a datagram.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let message = datagram.get(..length).filter(|it| it.len() >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[HEADER..]))
    })
}

/// The value of an attribute.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let head: [u8; 4] = *attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// Whether somebody has put a queue or a filter at an interface: those have handles, what the kernel
/// puts there by itself has none.
fn has_queue(interface: u32) -> io::Result<bool> {
    const REQUEST_DUMP: u16 = 0x0301;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = [0_u8; HEADER + QUEUE];
    question[..4].copy_from_slice(&((HEADER + QUEUE) as u32).to_ne_bytes());
    question[4..6].copy_from_slice(&RTM_GETQDISC.to_ne_bytes());
    question[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    socket.send(&question, 0)?;
    let mut found = false;
    loop {
        // The kernel writes each part of an answer while it is asked for.
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            let word = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
            match kind {
                DONE => return Ok(found),
                ERROR => return Err(io::ErrorKind::InvalidData.into()),
                RTM_NEWQDISC if word(4) == Some(interface) => found |= word(8) != Some(0),
                _ => {}
            }
        }
    }
}
