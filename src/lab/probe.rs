//! UDP probes: numbered packets at a fixed rate, echoed by the correspondent.
//!
//! ```text
//!   prober (router or node)  --- request n --->  echo (correspondent)
//!                            <-- the same n ---
//! ```
//!
//! The echo notes what arrives before it answers, so outbound and inbound are judged apart.
//! Arrival times are the kernel's. The sockets are unconnected: source address selection happens
//! for each packet, as it would for the least careful program.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;

use super::last_error;
use super::namespace::Namespace;
use super::tally::{Arrival, Tally, judge};
use super::world::address;

/// Port of the echo.
pub const PORT: u16 = 4000;
/// Time between two probes: 1,000 packets a second.
pub const INTERVAL: Duration = Duration::from_millis(1);
/// Octets of UDP payload.
const SIZE: usize = 64;
const MAGIC: u32 = 0x6d74_756e;
/// How often a thread looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a packet may be under way before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of one stream of probes.
#[derive(Debug, Default)]
struct Stream {
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    sent: Vec<u64>,
    refused: u64,
    out: Vec<Arrival>,
    back: Vec<Arrival>,
    sources: BTreeSet<SocketAddrV6>,
}

type Streams = Arc<Mutex<HashMap<u32, Arc<Stream>>>>;

/// The correspondent's UDP echo; ends when dropped.
#[derive(Debug)]
pub struct Echo {
    streams: Streams,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts the echo on [`PORT`] of `namespace`.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
        prepare(&socket)?;
        let streams = Streams::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("lab-echo".into()).spawn({
            let (streams, stop) = (streams.clone(), stop.clone());
            move || answer(&socket, &streams, &stop)
        })?;
        Ok(Self { streams, stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, streams: &Streams, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    let mut known: HashMap<u32, Arc<Stream>> = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        let Some((length, from, at)) = receive(socket, &mut buffer) else { continue };
        let Some((stream, number)) = read(&buffer[..length]) else { continue };
        let stream = match known.get(&stream) {
            Some(stream) => stream,
            None => {
                let Some(found) = streams.lock().expect("no holder panics").get(&stream).cloned()
                else {
                    continue;
                };
                known.entry(stream).or_insert(found)
            }
        };
        {
            let mut notes = stream.notes.lock().expect("no holder panics");
            notes.out.push((number, at));
            notes.sources.insert(from);
        }
        // What the kernel refuses to send is lost inbound, which the prober will notice.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// When packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Between two packets.
    pub interval: Duration,
    /// After so many packets, not none, so much more time; `None` for a stream without a pause.
    pub pauses: Option<(u32, Duration)>,
}

/// How the prober's socket is bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// Not at all, as most programs.
    #[default]
    Nowhere,
    /// To a local address.
    Address(Ipv6Addr),
    /// To an interface.
    Device(String),
}

/// Both directions of a stretch of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TwoWay {
    /// From the prober to the correspondent.
    pub outbound: Tally,
    /// From the correspondent back, of what had arrived there.
    pub inbound: Tally,
}

/// A running prober; ends when dropped.
#[derive(Debug)]
pub struct Probe {
    stream: Arc<Stream>,
    interval: Duration,
    port: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

static NEXT_STREAM: AtomicU32 = AtomicU32::new(1);

impl Probe {
    /// Sends from `namespace` to the correspondent's echo, one packet every `interval`.
    pub fn start(
        namespace: &Namespace,
        echo: &Echo,
        interval: Duration,
        bound: &Bound,
    ) -> Result<Self> {
        Self::start_talk(namespace, echo, Talk { interval, pauses: None }, bound)
    }

    /// The same as a talk may go, with pauses between.
    pub fn start_talk(
        namespace: &Namespace,
        echo: &Echo,
        talk: Talk,
        bound: &Bound,
    ) -> Result<Self> {
        let source = match bound {
            Bound::Address(address) => *address,
            Bound::Nowhere | Bound::Device(_) => Ipv6Addr::UNSPECIFIED,
        };
        let socket = namespace
            .run(|| UdpSocket::bind((source, 0)))
            .with_context(|| format!("probe socket in {} bound to {bound:?}", namespace.name()))?;
        if let Bound::Device(name) = bound {
            bind_to_device(&socket, name)?;
        }
        prepare(&socket)?;
        let port = socket.local_addr()?.port();
        let id = NEXT_STREAM.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Stream::default());
        echo.streams.lock().expect("no holder panics").insert(id, stream.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let receiver = socket.try_clone()?;
        let threads = vec![
            std::thread::Builder::new().name("lab-probe".into()).spawn({
                let (stream, stop) = (stream.clone(), stop.clone());
                move || send(&socket, id, &stream, talk, &stop)
            })?,
            std::thread::Builder::new().name("lab-probe-in".into()).spawn({
                let (stream, stop) = (stream.clone(), stop.clone());
                move || collect(&receiver, id, &stream, &stop)
            })?,
        ];
        Ok(Self { stream, interval: talk.interval, port, stop, threads })
    }

    /// The number of the next packet; two marks bound a stretch.
    pub fn mark(&self) -> u32 {
        self.notes(|notes| notes.sent.len() as u32)
    }

    /// Judges the packets from `from` up to now, after waiting for those under way.
    pub fn tally_since(&self, from: u32) -> TwoWay {
        self.tally(from, self.mark())
    }

    /// Judges the packets from `from` to before `to`, after waiting for those under way.
    pub fn tally(&self, from: u32, to: u32) -> TwoWay {
        self.settle(from, to);
        let interval = self.interval.as_nanos() as u64;
        self.notes(|notes| {
            let (out, back) = (tail(&notes.out, from), tail(&notes.back, from));
            let arrived: BTreeSet<u32> = out
                .iter()
                .map(|(number, _)| *number)
                .filter(|number| (from..to).contains(number))
                .collect();
            TwoWay {
                outbound: judge(&notes.sent, |_| true, out, from..to, interval),
                inbound: judge(
                    &notes.sent,
                    |number| arrived.contains(&number),
                    back,
                    from..to,
                    interval,
                ),
            }
        })
    }

    /// Waits until every packet of the stretch has come back or has been too long under way.
    fn settle(&self, from: u32, to: u32) {
        let end = Instant::now() + PATIENCE;
        loop {
            let complete = self.notes(|notes| {
                let back: BTreeSet<u32> = tail(&notes.back, from)
                    .iter()
                    .map(|(number, _)| *number)
                    .filter(|number| (from..to).contains(number))
                    .collect();
                back.len() == (to - from) as usize
            });
            if complete || Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until packet `number` or a later one has come back.
    pub fn wait_for_echo_after(&self, number: u32, patience: Duration) -> Result<()> {
        super::namespace::wait_for("an echo", patience, || {
            self.notes(|notes| notes.back.last().is_some_and(|(last, _)| *last >= number))
                .then_some(())
        })
    }

    /// Median time from sending to the echo's arrival, in milliseconds; `None` before any echo.
    pub fn round_trip_ms(&self) -> Option<f64> {
        self.notes(|notes| {
            let mut times: Vec<u64> = notes
                .back
                .iter()
                .filter_map(|(number, at)| {
                    Some(at.saturating_sub(*notes.sent.get(*number as usize)?))
                })
                .collect();
            times.sort_unstable();
            times.get(times.len() / 2).map(|time| *time as f64 / 1e6)
        })
    }

    /// Source addresses and ports under which the correspondent has seen the stream.
    pub fn sources(&self) -> Vec<SocketAddrV6> {
        self.notes(|notes| notes.sources.iter().copied().collect())
    }

    /// Packets that the kernel refused to send.
    pub fn refused(&self) -> u64 {
        self.notes(|notes| notes.refused)
    }

    /// The prober's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops sending; what is known stays.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn notes<T>(&self, look: impl FnOnce(&Notes) -> T) -> T {
        look(&self.stream.notes.lock().expect("no holder panics"))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The arrivals that may matter for a stretch from `from` on: no packet is overtaken by more than
/// two thousand others.
fn tail(arrivals: &[Arrival], from: u32) -> &[Arrival] {
    let matters = |(number, _): &&Arrival| number.saturating_add(2000) >= from;
    let count = arrivals.iter().rev().take_while(matters).count();
    &arrivals[arrivals.len() - count..]
}

fn send(socket: &UdpSocket, id: u32, stream: &Stream, talk: Talk, stop: &AtomicBool) {
    let to = SocketAddr::from((address::CORRESPONDENT, PORT));
    let mut packet = [0; SIZE];
    packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
    packet[4..8].copy_from_slice(&id.to_be_bytes());
    let mut number = 0u32;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        packet[8..12].copy_from_slice(&number.to_be_bytes());
        stream.notes.lock().expect("no holder panics").sent.push(wall());
        if socket.send_to(&packet, to).is_err() {
            stream.notes.lock().expect("no holder panics").refused += 1;
        }
        number += 1;
        next += talk.interval;
        if let Some((_, pause)) = talk.pauses.filter(|(after, _)| number.is_multiple_of(*after)) {
            next += pause;
        }
        let now = Instant::now();
        if let Some(wait) = next.checked_duration_since(now) {
            std::thread::sleep(wait);
        } else {
            // Never a burst to catch up: it would look like a network that held packets.
            next = now;
        }
    }
}

fn collect(socket: &UdpSocket, id: u32, stream: &Stream, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Some((length, _, at)) = receive(socket, &mut buffer) else { continue };
        if let Some((stream_id, number)) = read(&buffer[..length])
            && stream_id == id
        {
            stream.notes.lock().expect("no holder panics").back.push((number, at));
        }
    }
}

/// The number of a probe with this UDP payload.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    read(payload).map(|(_, number)| number)
}

fn read(packet: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?))
    };
    (word(0)? == MAGIC).then_some(())?;
    Some((word(4)?, word(8)?))
}

fn wall() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64)
}

/// A large buffer, kernel arrival times, and a timeout so that the reader can end.
fn prepare(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(GLANCE))?;
    option(socket, libc::SO_RCVBUFFORCE, &(4i32 << 20))?;
    option(socket, libc::SO_TIMESTAMPNS, &1i32)
}

fn option(socket: &UdpSocket, option: i32, value: &i32) -> Result<()> {
    // SAFETY: the value is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(last_error("setsockopt")) } else { Ok(()) }
}

/// Binds a socket to an interface (SO_BINDTODEVICE).
fn bind_to_device(socket: &UdpSocket, name: &str) -> Result<()> {
    // SAFETY: the name is read for the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if done < 0 { Err(last_error("SO_BINDTODEVICE")) } else { Ok(()) }
}

/// Next packet: its length, its sender and when the kernel took it in; `None` at a timeout.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddrV6, u64)> {
    // SAFETY: all-zero values are valid for these kernel structures.
    let (mut from, mut message): (libc::sockaddr_in6, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 16];
    message.msg_name = std::ptr::from_mut(&mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in `message` leads to a buffer of the stated length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) };
    if length < 0 {
        let error = std::io::Error::last_os_error();
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            // Anything else would come back at once.
            std::thread::sleep(Duration::from_millis(1));
        }
        return None;
    }
    let mut at = wall();
    // SAFETY: the kernel filled `message` and its control buffer, which the macros walk.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
            let time: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
            at = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        }
    }
    let from = SocketAddrV6::new(
        Ipv6Addr::from(from.sin6_addr.s6_addr),
        u16::from_be(from.sin6_port),
        0,
        from.sin6_scope_id,
    );
    Some((length as usize, from, at))
}
