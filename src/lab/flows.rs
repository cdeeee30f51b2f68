//! TCP connections that must survive: one chatty like SSH, one bulky, every octet verified.
//!
//! Both are echoed by the correspondent. The octets are a function of their position, so the
//! receiver of either side notices a wrong, missing or repeated one. A flow breaks once and for
//! all, with its reason: a reset, an end, a wrong octet. Being slow is not breaking.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::namespace::{Namespace, wait_for};
use super::world::address;

/// Port of the chatty flow.
pub const SSH: u16 = 22;
/// Port of the bulky flow.
pub const BULK: u16 = 5001;
/// How often a thread looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// A kind of flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Small exchanges, each sent when the former has been answered, at a typist's pace.
    Ssh,
    /// A stream of half a megabyte a second each way.
    Bulk,
}

impl Kind {
    /// The correspondent's port.
    pub fn port(self) -> u16 {
        match self {
            Self::Ssh => SSH,
            Self::Bulk => BULK,
        }
    }

    /// Octets of one write and the time between two.
    fn pace(self) -> (usize, Duration) {
        match self {
            Self::Ssh => (48, Duration::from_millis(20)),
            Self::Bulk => (5000, Duration::from_millis(10)),
        }
    }
}

/// The octet at a position of a flow.
fn octet(position: u64) -> u8 {
    let mixed = (position / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[(position % 8) as usize]
}

/// Checks `octets`, received from `position` on.
fn verify(position: u64, octets: &[u8]) -> std::result::Result<(), String> {
    octets.iter().zip(position..).try_for_each(|(got, at)| {
        if *got == octet(at) { Ok(()) } else { Err(format!("wrong octet at position {at}")) }
    })
}

/// The correspondent's TCP services; they end when dropped.
#[derive(Debug)]
pub struct Services {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Services {
    /// Listens for both kinds in `namespace`.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for kind in [Kind::Ssh, Kind::Bulk] {
            let listener = namespace
                .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, kind.port())))
                .with_context(|| format!("port {} in {}", kind.port(), namespace.name()))?;
            listener.set_nonblocking(true)?;
            let stop = stop.clone();
            threads.push(
                std::thread::Builder::new()
                    .name("lab-service".into())
                    .spawn(move || accept(&listener, &stop))?,
            );
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    let mut served = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let stop = stop.clone();
                served.push(std::thread::spawn(move || echo(stream, &stop)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    for thread in served {
        let _ = thread.join();
    }
}

/// Verifies and sends back; closes at the first wrong octet, which breaks the flow.
fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(GLANCE));
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 1 << 16];
    let mut position = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if verify(position, &buffer[..length]).is_err()
                    || stream.write_all(&buffer[..length]).is_err()
                {
                    return;
                }
                position += length as u64;
            }
            Err(error) if waits(&error) => {}
            Err(_) => return,
        }
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// How far a flow has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Octets handed to TCP.
    pub sent: u64,
    /// Octets that came back and were right.
    pub received: u64,
    /// Longest time without progress while something was due, in milliseconds.
    pub longest_stall_ms: f64,
    /// Why the flow is no more.
    pub broken: Option<String>,
}

#[derive(Debug)]
struct Notes {
    progress: Progress,
    /// When the flow last moved.
    moved: Instant,
}

/// A running flow; ends when dropped.
#[derive(Debug)]
pub struct TcpFlow {
    kind: Kind,
    local: SocketAddrV6,
    notes: Arc<Mutex<Notes>>,
    stop: Arc<AtomicBool>,
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl TcpFlow {
    /// Connects from `namespace` to the correspondent, trying again until `patience` is over.
    pub fn connect(namespace: &Namespace, kind: Kind, patience: Duration) -> Result<Self> {
        let to = SocketAddr::from((address::CORRESPONDENT, kind.port()));
        let mut last = None;
        let stream = wait_for("a TCP connection", patience, || {
            match namespace.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(3))) {
                Ok(stream) => Some(stream),
                Err(error) => {
                    last = Some(error);
                    None
                }
            }
        })
        .with_context(|| format!("{kind:?} from {}: {last:?}", namespace.name()))?;
        let SocketAddr::V6(local) = stream.local_addr()? else { bail!("not an IPv6 connection") };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GLANCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let notes =
            Arc::new(Mutex::new(Notes { progress: Progress::default(), moved: Instant::now() }));
        let mut threads = Vec::new();
        for (name, work) in [
            ("lab-flow", write_side as fn(TcpStream, Kind, &Mutex<Notes>, &AtomicBool)),
            ("lab-flow-in", read_side),
        ] {
            let (stream, notes, stop) = (stream.try_clone()?, notes.clone(), stop.clone());
            threads.push(
                std::thread::Builder::new()
                    .name(name.into())
                    .spawn(move || work(stream, kind, &notes, &stop))?,
            );
        }
        Ok(Self { kind, local, notes, stop, stream, threads })
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its own end.
    pub fn local(&self) -> SocketAddrV6 {
        self.local
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.notes.lock().expect("no holder panics").progress.clone()
    }

    /// How far it has come; the longest stall is counted anew from here.
    pub fn take_progress(&self) -> Progress {
        let mut notes = self.notes.lock().expect("no holder panics");
        let taken = notes.progress.clone();
        notes.progress.longest_stall_ms = 0.0;
        taken
    }

    /// Waits until something sent after now has come back; an error if the flow is broken.
    pub fn wait_for_progress(&self, patience: Duration) -> Result<()> {
        let goal = self.progress().sent + 1;
        wait_for(&format!("progress of the {:?} flow", self.kind), patience, || {
            let progress = self.progress();
            (progress.received >= goal || progress.broken.is_some()).then_some(())
        })?;
        match self.progress().broken {
            Some(reason) => bail!("the {:?} flow is broken: {reason}", self.kind),
            None => Ok(()),
        }
    }
}

impl Drop for TcpFlow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        reset_on_close(&self.stream);
    }
}

/// Closing ends the connection at once, with one reset. Else the kernel would go on for minutes to send
/// what was not acknowledged, from a home address whose tunnel may be gone by then.
fn reset_on_close(stream: &TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `at_once` is the kernel's structure of the given size and outlives the call. A socket
    // that takes no such option closes as others do.
    let _ = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&at_once).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

fn broken(notes: &Mutex<Notes>, stop: &AtomicBool, reason: String) {
    if !stop.load(Ordering::Relaxed) {
        notes.lock().expect("no holder panics").progress.broken.get_or_insert(reason);
    }
}

fn write_side(mut stream: TcpStream, kind: Kind, notes: &Mutex<Notes>, stop: &AtomicBool) {
    let (size, pause) = kind.pace();
    let mut position = 0u64;
    let mut chunk = vec![0; size];
    while !stop.load(Ordering::Relaxed) {
        let (answered, broken_already) = {
            let notes = notes.lock().expect("no holder panics");
            (notes.progress.received == position, notes.progress.broken.is_some())
        };
        if broken_already {
            return;
        }
        // A typist waits for the echo; bulk only waits for TCP.
        if kind == Kind::Bulk || answered {
            chunk.iter_mut().zip(position..).for_each(|(slot, at)| *slot = octet(at));
            {
                let mut notes = notes.lock().expect("no holder panics");
                if answered {
                    notes.moved = Instant::now();
                }
                notes.progress.sent += size as u64;
            }
            if let Err(error) = stream.write_all(&chunk) {
                return broken(notes, stop, error.to_string());
            }
            position += size as u64;
        }
        std::thread::sleep(pause);
    }
}

fn read_side(mut stream: TcpStream, _: Kind, notes: &Mutex<Notes>, stop: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    let mut position = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return broken(notes, stop, "the correspondent closed it".into()),
            Ok(length) => length,
            Err(error) if waits(&error) => {
                note_stall(&mut notes.lock().expect("no holder panics"));
                continue;
            }
            Err(error) => return broken(notes, stop, error.to_string()),
        };
        if let Err(reason) = verify(position, &buffer[..length]) {
            return broken(notes, stop, reason);
        }
        position += length as u64;
        let mut notes = notes.lock().expect("no holder panics");
        note_stall(&mut notes);
        notes.progress.received = position;
        notes.moved = Instant::now();
    }
}

/// Counts the time since the last movement, if anything is due.
fn note_stall(notes: &mut Notes) {
    if notes.progress.received < notes.progress.sent {
        let stall = notes.moved.elapsed().as_micros() as f64 / 1000.0;
        notes.progress.longest_stall_ms = notes.progress.longest_stall_ms.max(stall);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_missing_or_repeated_octet_is_noticed() {
        let right: Vec<u8> = (100..200).map(octet).collect();
        assert_eq!(verify(100, &right), Ok(()));
        let mut wrong = right.clone();
        wrong[50] ^= 1;
        assert_eq!(verify(100, &wrong), Err("wrong octet at position 150".into()));
        assert!(verify(100, &right[1..]).is_err(), "one missing");
        assert!(verify(101, &right).is_err(), "one repeated");
    }
}
