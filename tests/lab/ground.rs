//! A small world of a test's own: machines joined by cables, daemons on some of them.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mtun::control::Request;
use mtun::control::Response;
use mtun::key;
use mtun::lab::daemons::{Arguments, Daemon, Place};
use mtun::lab::namespace::{Namespace, Shell, wait_for};
use mtun::lab::record::Record;
use mtun::metrics::MetricsInput;
use mtun_signaling::auth::{Algorithm, Secret};

use crate::fixture::{PATIENCE, programs};

/// The key that mobiles and agents share here.
pub const KEY: [u8; 32] = *b"thirty-two octets of a known key";

/// Machines by name, and what was started on them. Daemons end first, machines last.
pub struct Ground {
    daemons: BTreeMap<&'static str, Daemon>,
    machines: BTreeMap<&'static str, Namespace>,
    record: Arc<Record>,
    shell: Shell,
}

impl Ground {
    /// An empty world.
    pub fn new() -> Self {
        Self {
            daemons: BTreeMap::new(),
            machines: BTreeMap::new(),
            record: Arc::new(Record::start().unwrap()),
            shell: Shell::default(),
        }
    }

    /// Machines that are not under test: their addresses count at once, and routers forward.
    pub fn bystanders(&mut self, hosts: &[&'static str], routers: &[&'static str]) {
        for name in hosts.iter().chain(routers) {
            let machine = self.machine(name);
            machine.set_sysctl("ipv6/conf/default/accept_dad", "0").unwrap();
            machine.set_sysctl("ipv6/conf/default/dad_transmits", "0").unwrap();
            machine.set_sysctl("ipv6/conf/default/accept_ra", "0").unwrap();
        }
        for name in routers {
            self.at(name).set_sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        }
    }

    /// Machines as they are after boot, but for the random wait before a router is sought.
    pub fn mobiles(&mut self, names: &[&'static str]) {
        for name in names {
            let machine = self.machine(name);
            machine.set_sysctl("ipv6/conf/default/router_solicitation_delay", "0").unwrap();
            machine.set_sysctl("ipv6/conf/default/dad_transmits", "0").unwrap();
        }
    }

    fn machine(&mut self, name: &'static str) -> &Namespace {
        let made = Namespace::create(&self.record, name, &self.shell).unwrap();
        self.machines.entry(name).or_insert(made)
    }

    /// A machine.
    pub fn at(&self, name: &str) -> &Namespace {
        &self.machines[name]
    }

    /// The daemon of a machine.
    pub fn daemon(&self, name: &str) -> &Daemon {
        &self.daemons[name]
    }

    /// Joins two machines by a cable; an end is a machine, an interface and its addresses.
    pub fn cable(&self, one: (&str, &str, &[&str]), other: (&str, &str, &[&str])) {
        self.at(one.0)
            .ip(&[&format!(
                "link add {} type veth peer name {} netns {}",
                one.1,
                other.1,
                self.at(other.0).name()
            )])
            .unwrap();
        for (machine, interface, addresses) in [one, other] {
            let mut lines = vec![format!("link set {interface} up")];
            let add = |address: &&str| format!("address add {address} dev {interface} nodad");
            lines.extend(addresses.iter().map(add));
            self.at(machine).ip(&lines.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        }
    }

    /// Routes of a machine, each as `ip route add` takes it.
    pub fn routes(&self, name: &str, routes: &[&str]) {
        let lines: Vec<String> = routes.iter().map(|route| format!("route add {route}")).collect();
        self.at(name).ip(&lines.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    }

    /// The directory of a machine's files.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.record.work().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Gives [`KEY`] to several machines.
    pub fn share_key(&self, file: &str, machines: &[&str]) {
        let secret = Secret::new(KEY.to_vec()).unwrap();
        for name in machines {
            let file = self.directory(name).join(file);
            key::write_new(&file, Algorithm::HmacSha256, &secret).unwrap();
        }
    }

    /// Ends the daemon of a machine.
    pub fn stop(&mut self, name: &str) {
        self.daemons.remove(name).unwrap().process.stop().unwrap();
    }

    /// Starts the daemon of a machine.
    pub fn start(&mut self, name: &'static str, policy: &str) {
        let directory = self.directory(name);
        let place = Place { namespace: self.at(name), directory: &directory, file: "policy.kdl" };
        let daemon = Daemon::start_at(place, &programs(), policy, &Arguments::default()).unwrap();
        self.daemons.insert(name, daemon);
    }

    /// Waits until a mobile has registered exactly these links.
    pub fn registered(&self, name: &str, links: &[&str]) {
        self.daemon(name).wait_for_links(links, PATIENCE).unwrap();
    }

    /// The figures behind the metrics of a machine's daemon.
    pub fn figures(&self, name: &str) -> MetricsInput {
        match self.daemon(name).ask(Request::Metrics {}).unwrap() {
            Response::Metrics(figures) => figures,
            other => panic!("not metrics: {other:?}"),
        }
    }

    /// Packets that a machine's daemon dropped or left alone for a reason.
    pub fn counted(&self, name: &str, reason: &str) -> u64 {
        self.figures(name)
            .drops
            .iter()
            .filter(|drop| drop.reason == reason)
            .map(|drop| drop.packets)
            .sum()
    }
}

/// A UDP socket of a machine, bound to one of its addresses and connected to another machine's.
pub fn udp(machine: &Namespace, own: (Ipv6Addr, u16), peer: (Ipv6Addr, u16)) -> UdpSocket {
    let socket = machine.run(|| UdpSocket::bind(own)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(peer).unwrap();
    socket
}

/// `count` datagrams there and back, each answered before the next one goes. None may be lost.
pub fn converse(what: &str, one: &UdpSocket, other: &UdpSocket, count: u8) {
    let mut buffer = [0; 2048];
    for number in 0..count {
        for (from, to, way) in [(one, other, "there"), (other, one, "back")] {
            from.send(&[number; 64]).unwrap_or_else(|error| panic!("{what}, {way}: {error}"));
            let length =
                to.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}, {way}: {error}"));
            assert_eq!(buffer[..length], [number; 64], "{what}, {way}, datagram {number}");
        }
    }
}

/// Sends a complete IPv6 packet from a namespace.
pub fn inject(namespace: &Namespace, packet: &[u8]) {
    let socket = namespace.run(|| {
        // SAFETY: socket makes a descriptor or fails.
        let raw = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        unsafe { OwnedFd::from_raw_fd(raw) }
    });
    // SAFETY: an all-zero sockaddr_in6 is a valid value of the type.
    let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    to.sin6_addr.s6_addr.copy_from_slice(&packet[24..40]);
    // SAFETY: packet and address outlive the call and have the lengths given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        )
    };
    assert_eq!(sent, packet.len() as isize, "{}", std::io::Error::last_os_error());
}

fn option(socket: &impl AsRawFd, name: i32, value: i32) {
    // SAFETY: the value is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Has a socket told of every ICMPv6 error, also of those that may pass.
pub fn hear_errors(socket: &UdpSocket) {
    option(socket, libc::IPV6_RECVERR, 1);
}

/// Lets a socket's packets pass so many machines.
pub fn hop_limit(socket: &UdpSocket, hops: i32) {
    option(socket, libc::IPV6_UNICAST_HOPS, hops);
}

/// What the kernel has learned of the path's MTU.
pub fn path_mtu(socket: &impl AsRawFd) -> u32 {
    let (mut mtu, mut size) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: the kernel writes one int.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU,
            std::ptr::from_mut(&mut mtu).cast(),
            &mut size,
        )
    };
    mtu
}

/// Sends packets as large as the path is believed to take until one arrives; the sizes that were
/// believed, the last one arrived. No router may fragment them.
pub fn sizes_tried(one: &UdpSocket, other: &UdpSocket) -> Vec<u32> {
    option(one, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO);
    other.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut tried = Vec::new();
    let arrived = wait_for("a packet that fits", PATIENCE, || {
        let believed = path_mtu(one);
        if tried.last() != Some(&believed) {
            tried.push(believed);
        }
        // An answer to the last one stands as an error until it has been read.
        let _ = one.take_error();
        let _ = one.send(&vec![believed as u8; believed as usize - 48]);
        let mut buffer = [0; 2048];
        // One that came late is of another size.
        let length = other.recv(&mut buffer).ok()?;
        (length == path_mtu(one) as usize - 48).then_some(())
    });
    other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(arrived.is_ok(), "none of {tried:?} arrives");
    tried
}
