//! Namespaces, and what is sent and seen in them.

use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::skip::{runs, skip};

/// How long something that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace, removed with all that is in it when dropped.
pub struct Namespace(String);

impl Namespace {
    fn new(kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edge-{}-{number}-{kind}", std::process::id());
        shell(&format!("ip netns add {name}"));
        Self(name)
    }

    /// Runs a command line inside; it must succeed. Returns what it printed.
    pub fn shell(&self, line: &str) -> String {
        shell(&format!("ip netns exec {} {line}", self.0))
    }

    /// Runs a function on a thread of this namespace.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.0);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = std::fs::File::open(path).unwrap();
                // SAFETY: a live descriptor; only this thread, which ends here, changes over.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
                function()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The same for a future, on a runtime of its own.
    pub fn block_on<T: Send>(&self, future: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(future())
        })
    }

    /// The index of an interface.
    pub fn index(&self, interface: &str) -> u32 {
        let line = self.shell(&format!("ip -o link show {interface}"));
        line.split(':').next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The topology drawn in `main.rs`. `mtun0` is left to the tests.
pub struct World {
    pub access: Namespace,
    pub mobile: Namespace,
    pub lan: Namespace,
}

pub const CARE_OF: &str = "2001:db8:1::7";
pub const SECOND_CARE_OF: &str = "2001:db8:2::7";
pub const ACCESS: &str = "2001:db8:1::1";
pub const HOME: &str = "2001:db8:100::42";
pub const NETWORK: &str = "2001:db8:100:4200::/56";
pub const LAN_ROUTER: &str = "2001:db8:100:4200::1";
pub const LAN_HOST: &str = "2001:db8:100:4200::9";

impl World {
    /// Builds it, or says why not.
    pub fn new() -> Option<Self> {
        if let Some(reason) = obstacle() {
            let test = std::thread::current().name().unwrap_or("edge").to_owned();
            skip(&format!("{test}: {reason}"));
            return None;
        }
        let world = Self {
            access: Namespace::new("access"),
            mobile: Namespace::new("mobile"),
            lan: Namespace::new("lan"),
        };
        world.pair(("wlan0", "2001:db8:1::7/64"), &world.access, ("a0", "2001:db8:1::1/64"));
        world.pair(("wwan0", "2001:db8:2::7/64"), &world.access, ("b0", "2001:db8:2::1/64"));
        let lan = ("l0", "2001:db8:100:4200::9/64");
        world.pair(("lan0", "2001:db8:100:4200::1/64"), &world.lan, lan);
        for namespace in [&world.access, &world.mobile] {
            namespace.shell("sysctl -qw net.ipv6.conf.all.forwarding=1");
        }
        world.mobile.shell("ip -6 route add default via 2001:db8:1::1 dev wlan0 metric 100");
        world.mobile.shell("ip -6 route add default via 2001:db8:2::1 dev wwan0 metric 200");
        world.lan.shell("ip -6 route add default via 2001:db8:100:4200::1");
        world.access.shell("ip -6 route add 2001:db8:100::/40 via 2001:db8:1::7");
        Some(world)
    }

    fn pair(&self, own: (&str, &str), peer: &Namespace, other: (&str, &str)) {
        let (own_name, other_name, mobile) = (own.0, other.0, &self.mobile);
        mobile.shell(&format!(
            "ip link add {own_name} type veth peer name {other_name} netns {}",
            peer.0
        ));
        for (namespace, (name, address)) in [(mobile, own), (peer, other)] {
            namespace.shell("ip link set lo up");
            // Nobody multicasts or solicits behind a test's back.
            namespace.shell(&format!("ip link set {name} addrgenmode none"));
            namespace.shell(&format!("ip addr add {address} dev {name} nodad"));
            // Neighbour discovery for forwarded packets needs one.
            let (_, host) = address.rsplit_once("::").unwrap();
            namespace.shell(&format!("ip addr add fe80::{host} dev {name} nodad"));
            if namespace.0 != mobile.0 {
                // A far end that is switched off for a while is still the same router.
                let keep = format!("net.ipv6.conf.{name}.keep_addr_on_down=1");
                namespace.shell(&format!("sysctl -qw {keep}"));
            }
            // A solicitation that is lost while the kernel holds a link back is soon repeated.
            namespace.shell(&format!("sysctl -qw net.ipv6.neigh.{name}.retrans_time_ms=100"));
            namespace.shell(&format!("ip link set {name} up"));
        }
    }
}

fn obstacle() -> Option<String> {
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".to_owned());
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun".to_owned());
    }
    let missing = |it: &&&str| !runs(Command::new(it).arg("-V"));
    ["ip", "nft"].iter().find(missing).map(|it| format!("needs the program {it}"))
}

fn shell(line: &str) -> String {
    println!("$ {line}");
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An IPv6 packet: fixed header and what follows it.
pub fn packet(next_header: u8, source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    for address in [source, destination] {
        packet.extend(address.parse::<Ipv6Addr>().unwrap().octets());
    }
    packet.extend(payload);
    packet
}

/// Fills the checksum of a transport payload at `offset`.
pub fn with_checksum(
    next_header: u8,
    source: &str,
    destination: &str,
    offset: usize,
    mut payload: Vec<u8>,
) -> Vec<u8> {
    let mut text = packet(next_header, source, destination, &[])[8..].to_vec();
    text.extend((payload.len() as u32).to_be_bytes());
    text.extend(u32::from(next_header).to_be_bytes());
    text.extend(&payload);
    let words =
        text.chunks(2).map(|it| u32::from(it[0]) << 8 | it.get(1).map_or(0, |it| u32::from(*it)));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
    payload[offset..offset + 2].copy_from_slice(&folded.to_be_bytes());
    packet(next_header, source, destination, &payload)
}

/// A UDP packet with a checksum.
pub fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let mut datagram = port.to_be_bytes().repeat(2);
    datagram.extend([0, 12, 0, 0, b't', b'e', b's', b't']);
    with_checksum(17, source, destination, 6, datagram)
}

pub fn source(packet: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(&packet[8..24]).unwrap().into()
}

pub fn destination(packet: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()
}

/// Sees every IPv6 packet that passes an interface from now on, in both directions.
pub struct Sniffer(OwnedFd);

impl Sniffer {
    pub fn new(namespace: &Namespace, interface: &str) -> Self {
        let index = namespace.index(interface);
        namespace.run(|| {
            let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let protocol = (libc::ETH_P_ALL as u16).to_be();
            // SAFETY: takes numbers only.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            // SAFETY: the call has just made it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            // SAFETY: all zero is a valid `sockaddr_ll`.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = index as i32;
            let size = size_of_val(&address) as u32;
            // SAFETY: the address is live and of that size.
            let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            Self(fd)
        })
    }

    /// All packets so far that nobody has taken.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (fd, to, room) = (self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: a live buffer of that length.
            let length = unsafe { libc::recv(fd, to, room, 0) };
            let Ok(length) = usize::try_from(length) else { return packets };
            if length >= 40 && buffer[0] >> 4 == 6 {
                packets.push(buffer[..length].to_vec());
            }
        }
    }

    /// Waits until a packet fits; returns all packets up to now.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        eventually(what, || {
            packets.extend(self.packets());
            packets.iter().any(|it| fits(it))
        });
        packets
    }
}

/// Waits until something is so; fails the test when it does not become so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
