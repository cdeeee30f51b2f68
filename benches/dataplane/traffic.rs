//! What is sent through a rig, and what came out.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::rig::Rig;

const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
const SINK: u16 = 7000;
const SLICE: Duration = Duration::from_millis(500);
/// Before a slice counts, so that flows are installed and windows open.
const WARM: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(30);

/// Octets of payload of a small packet.
const SMALL: usize = 64;
/// Small packets that are handed to the kernel in one piece.
const AT_ONCE: usize = 64;

/// What a slice brought, and what it cost the whole machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    /// Gbit/s, or million packets a second.
    pub rate: f64,
    /// Processor seconds for a Gbit, or for a million packets.
    pub cost: f64,
}

/// Takes everything that comes to `b` of a rig.
pub struct Sink {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Sink {
    pub fn open(rig: &Rig) -> Result<Self> {
        let listener = rig.b.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, SINK)))?;
        listener.set_nonblocking(true)?;
        let sink = Self { received: Arc::default(), stop: Arc::default() };
        let (stop, received) = (sink.stop.clone(), sink.received.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 18];
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    thread::park_timeout(Duration::from_millis(2));
                    continue;
                };
                if stream.set_nonblocking(false).is_err() {
                    continue;
                }
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    received.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
        });
        Ok(sink)
    }

    /// One TCP stream, in Gbit/s of payload.
    pub fn stream(&self, rig: &Rig) -> Result<Slice> {
        let mut stream = rig.a.run(|| TcpStream::connect((B, SINK))).context("connect")?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let octets = vec![0xa5; 1 << 18];
        slice(
            || stream.write(&octets).map(drop),
            || Ok(self.received.load(Ordering::Relaxed) as f64 * 8.0 / 1e9),
        )
    }
}

/// Packets of 64 octets of payload, in millions a second. The sender is cheap: it hands over many
/// in one piece, and its own interface makes packets of them.
pub fn small(rig: &Rig) -> Result<Slice> {
    // A thread of its own: what it gives up it does not get back.
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_small(rig));
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn send_small(rig: &Rig) -> Result<Slice> {
    let socket = rig.a.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9998)))?;
    socket.connect((B, 9))?;
    let size = SMALL as libc::c_int;
    // SAFETY: the option is an `int`, live and of the length given.
    let set = unsafe {
        let at = (&raw const size).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, at, 4)
    };
    anyhow::ensure!(set == 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
    let octets = [0xa5; SMALL * AT_ONCE];
    be_modest();
    // The first ones alone: a flow is decided by packets that come one by one.
    for _ in 0..4 {
        socket.send(&octets[..SMALL])?;
        thread::park_timeout(Duration::from_millis(2));
    }
    slice(
        || {
            // A full queue is no end.
            let _ = socket.send(&octets);
            Ok(())
        },
        || Ok(rig.arrived()? as f64 / 1e6),
    )
}

/// Gives way to what the packets cause, on the processor where they do: a sender that is faster than
/// the router would only fill its queues.
fn be_modest() {
    const MODEST: libc::c_int = 10;
    // SAFETY: all zero is a valid set of processors.
    let mut first: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live and of the size given; 0 is this thread. Where one of them is refused,
    // the figures are of a less quiet machine.
    unsafe {
        libc::CPU_SET(0, &mut first);
        libc::sched_setaffinity(0, size_of_val(&first), &raw const first);
        libc::setpriority(libc::PRIO_PROCESS, 0, MODEST);
    }
}

fn slice(
    mut once: impl FnMut() -> std::io::Result<()>,
    arrived: impl Fn() -> Result<f64>,
) -> Result<Slice> {
    pour(WARM, &mut once)?;
    let (start, before, busy_before) = (Instant::now(), arrived()?, busy()?);
    pour(SLICE, &mut once)?;
    let (arrived, took) = (arrived()? - before, start.elapsed().as_secs_f64());
    let busy = busy()? - busy_before;
    Ok(Slice { rate: arrived / took, cost: busy / arrived.max(1e-9) })
}

fn pour(time: Duration, mut once: impl FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..16 {
            once()?;
        }
    }
    Ok(())
}

/// Seconds that all processors have worked, in the kernel's units of 10 ms.
fn busy() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat has a first line")?;
    let times: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq
    let worked: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| times.get(*at)).sum();
    Ok(worked as f64 / 100.0)
}
