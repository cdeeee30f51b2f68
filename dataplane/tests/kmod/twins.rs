//! An engine with a link of `kmod-mtun`, and what both make of the same packet.
//!
//! ```text
//!   here ── mtun0 ── wire0 ==== wire1 ── here
//! ```
//!
//! Packets are written to one end and read at the other. A marker follows each, in the same queues:
//! what has not come before it does not come. So no packet may look like a marker.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::backend::{Kmod, KmodPath};
use mtun_dataplane::{Engine, Exit, PathId, Publication, Settings, Snapshot, Verdict};
use mtun_policy::Ingress;

use crate::support::NOW;

const IPV6: u16 = libc::ETH_P_IPV6 as u16;
const LINK: usize = 14;
const TUNNELLED: u8 = 41;

/// What the engine makes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub verdict: Verdict,
    pub octets: Vec<u8>,
}

/// Runs in a network namespace of its own, on one processor: one queue keeps one order.
pub fn in_a_namespace(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: it affects only the calling thread.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
        // SAFETY: all zero is an empty set of processors; the calls read and write only this one.
        unsafe {
            let mut first: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut first);
            assert_eq!(libc::sched_setaffinity(0, size_of_val(&first), &raw const first), 0);
        }
        run();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split_whitespace()).output().expect("iproute2");
    assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
}

fn index(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: a terminated string.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// Packets of one interface, link header included.
struct Port(OwnedFd);

impl Port {
    fn open(device: &str) -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes numbers only, and the descriptor is nobody else's.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, i32::from(IPV6.to_be()));
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: all zero is a valid address of this family.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = IPV6.to_be();
        address.sll_ifindex = index(device) as i32;
        let limit = libc::timeval { tv_sec: 30, tv_usec: 0 };
        // SAFETY: the address and the limit are live and of the lengths given.
        unsafe {
            let length = size_of_val(&address) as u32;
            let bound = libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length);
            assert_eq!(bound, 0, "{}", io::Error::last_os_error());
            let length = size_of_val(&limit) as u32;
            let limit = (&raw const limit).cast();
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, limit, length);
        }
        Self(fd)
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: the frame is live and of the length given.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            // Congestion and the like are the module's answer, and what is longer than the device takes
            // never comes to it; a socket that does not work is neither.
            let error = io::Error::last_os_error();
            let answers = [Some(libc::ENOBUFS), Some(libc::EMSGSIZE)];
            assert!(answers.contains(&error.raw_os_error()), "{error}");
        }
    }

    /// The next frame; an error when none comes.
    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        // SAFETY: the buffer is live and of the length given.
        let length =
            unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

pub struct Twins {
    pub engine: Engine,
    tunnel: Port,
    wire: Port,
    to_wire: [u8; LINK],
    out: Vec<u8>,
    // Last, so that the link goes when nobody writes to it.
    device: Arc<Kmod>,
}

impl Twins {
    pub fn new(snapshot: Snapshot, ours: &[&str], theirs: &[&str]) -> Self {
        let _ = Command::new("ip").args(["link", "del", "wire0"]).output();
        ip("link set lo up");
        ip(
            "link add wire0 address 02:00:00:00:00:01 type veth peer name wire1 address 02:00:00:00:00:02",
        );
        for device in ["wire0", "wire1"] {
            ip(&format!("link set {device} addrgenmode none up"));
        }
        for address in ours {
            ip(&format!("addr add {address}/128 dev wire0 nodad"));
        }
        for address in theirs {
            ip(&format!("route replace {address}/128 dev wire0"));
            ip(&format!(
                "neigh replace {address} lladdr 02:00:00:00:00:02 dev wire0 nud permanent"
            ));
        }
        let device = Arc::new(Kmod::open("mtun0").expect("a kernel with kmod-mtun"));
        ip("link set mtun0 addrgenmode none mtu 1500 up");
        let wire = index("wire0");
        device.attach(wire).unwrap();
        device.set_doors(&[]).unwrap();
        let exit =
            move |_: PathId, _: (Ipv6Addr, Ipv6Addr)| Some(Exit { interface: wire, mark: 0 });
        let path = KmodPath::new(device.clone(), Box::new(exit));
        let published = Arc::new(ArcSwap::from_pointee(snapshot.clone()));
        let engine = Engine::new(published, Settings::default()).with_fast_path(Box::new(path));
        engine.publish(Arc::new(snapshot));
        let mut to_wire = [0; LINK];
        to_wire[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        to_wire[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        to_wire[12..].copy_from_slice(&IPV6.to_be_bytes());
        let (tunnel, wire) = (Port::open("mtun0"), Port::open("wire1"));
        Self { engine, tunnel, wire, to_wire, out: Vec::new(), device }
    }

    pub fn outbound(&mut self, ingress: Ingress, packet: &[u8]) -> Made {
        let verdict = self.engine.outbound(ingress, packet, NOW, &mut self.out);
        Made { verdict, octets: self.out.clone() }
    }

    pub fn inbound(&mut self, packet: &[u8]) -> Made {
        let verdict = self.engine.inbound(PathId(1), packet, NOW, &mut self.out);
        Made { verdict, octets: self.out.clone() }
    }

    /// Sends until the module has it: the same must be decided twice.
    pub fn install_out(&mut self, ingress: Ingress, packet: &[u8]) {
        for _ in 0..2 {
            let sent = self.outbound(ingress, packet);
            assert!(matches!(sent.verdict, Verdict::Send { .. }), "{sent:?}");
        }
    }

    pub fn install_in(&mut self, packet: &[u8]) {
        for _ in 0..2 {
            let received = self.inbound(packet);
            assert_eq!(received.verdict, Verdict::Deliver, "{:?}", received.octets);
        }
    }

    pub fn send_out(&self, packet: &[u8]) {
        self.tunnel.send(packet);
    }

    pub fn send_in(&self, packet: &[u8]) {
        self.wire.send(&[&self.to_wire[..], packet].concat());
    }

    /// What the module sends of a packet that leaves; `None` if it leaves it to the daemon. The
    /// marker is of a flow that it holds.
    pub fn fast_out(&self, packet: &[u8], marker: &[u8]) -> Option<Vec<u8>> {
        self.send_out(packet);
        self.send_out(marker);
        let frames = std::iter::repeat_with(|| self.next_of(&self.wire)[LINK..].to_vec());
        // What else is there are errors that the kernel sends by itself.
        let frames = frames.filter(|frame| frame[6] == TUNNELLED);
        let before: Vec<_> = frames.take_while(|it| !it.ends_with(marker)).collect();
        assert!(before.len() <= 1, "{before:x?}");
        before.into_iter().next()
    }

    /// The same for one that comes.
    pub fn fast_in(&self, packet: &[u8], marker: &[u8]) -> Option<Vec<u8>> {
        self.send_in(packet);
        self.send_in(marker);
        let frames = std::iter::repeat_with(|| self.next_of(&self.tunnel));
        let before: Vec<_> = frames.take_while(|it| !marker.ends_with(it)).collect();
        assert!(before.len() <= 1, "{packet:x?} {before:x?} {:?}", self.outcomes());
        before.into_iter().next()
    }

    /// What became of all packets.
    fn outcomes(&self) -> Vec<(FastOutcome, u64)> {
        self.device.outcomes().expect("the module answers")
    }

    /// A marker at the latest: without it, what the module did with the packets tells why.
    fn next_of(&self, port: &Port) -> Vec<u8> {
        port.receive().unwrap_or_else(|error| {
            panic!("the marker does not come: {error}; {:?}", self.outcomes())
        })
    }
}
