//! A machine with its interfaces, in a network namespace of its own that ends with its thread.
//!
//! ```text
//!   host0 ==== lan0 ─┐          ┌─ wlan0 ==== air0
//!                    └─ mtun0 ──┘
//!                         │
//!                       queue
//! ```
//!
//! `mtun0` is a TUN and the others are two pairs of veth; `host0` is a host of the network behind, `air0`
//! the router that all outer packets go to. Outer packets find their way by their mark alone, and
//! packets from behind by the interface they came from. Nobody speaks unasked: no interface does
//! multicast, both far ends are without IPv6, all neighbours are known for good, and the one
//! address, which errors are sent from, is on the loopback interface, where it joins no group. No program
//! asks whether an outer address is the machine's own.
//!
//! All of it runs on one processor, so that what was sent first arrives first.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use mtun_dataplane::Snapshot;
use mtun_dataplane::backend::Tun;

use super::port::{Port, Source, first};
use crate::skip::{runs, skip};
use crate::twins::{MARK, Twins};

/// Link headers of what goes on by the wire, comes from it, goes on to the host behind, comes from it.
pub const OUT: [u8; 14] = [2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 7, 0x86, 0xdd];
pub const IN: [u8; 14] = [2, 0, 0, 0, 1, 7, 2, 0, 0, 0, 1, 1, 0x86, 0xdd];
pub const BEHIND: [u8; 14] = [2, 0, 0, 0, 2, 9, 2, 0, 0, 0, 2, 1, 0x86, 0xdd];
pub const AHEAD: [u8; 14] = [2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 9, 0x86, 0xdd];

/// `mtun0` takes longer packets than any uplink: what does not fit is in the corpus too.
const LINKS: &str = "
    link set mtun0 addrgenmode none multicast off mtu 1600
    link add wlan0 address 02:00:00:00:01:07 type veth peer name air0 address 02:00:00:00:01:01
    link add lan0 address 02:00:00:00:02:01 type veth peer name host0 address 02:00:00:00:02:09
    link set wlan0 addrgenmode none multicast off
    link set lan0 addrgenmode none multicast off";

const SETTINGS: [(&str, &str); 4] = [
    ("all/forwarding", "1"),
    ("wlan0/forwarding", "0"),
    ("air0/disable_ipv6", "1"),
    ("host0/disable_ipv6", "1"),
];

/// Inner packets to the home address end here. The route of outer packets is in a table that only
/// their mark leads to.
const ROUTES: &str = "
    link set lo up
    link set mtun0 up
    link set air0 up
    link set wlan0 up
    link set host0 up
    link set lan0 up
    addr add 2001:db8:100:4201::1 dev lo
    route add 2001:db8:1::/64 dev wlan0
    neigh add 2001:db8:1::1 lladdr 02:00:00:00:01:01 dev wlan0 nud permanent
    neigh add 2001:db8:100:4201::7 lladdr 02:00:00:00:02:09 dev lan0 nud permanent
    route add 2001:db8:100:4201::7 dev lan0
    route add blackhole 2001:db8:100::42
    rule add iif lan0 lookup 8 priority 20
    route add default dev mtun0 table 8";

/// Where packets come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// On the wire, behind the uplink.
    Air,
    /// At the queue of the tunnel interface: left to the daemon.
    Up,
    /// At the tunnel interface, as if it had received them.
    Tunnel,
    /// At the uplink, behind its program: left to the daemon's packet socket and to the kernel.
    Uplink,
    /// At the host of the network behind.
    Host,
}

pub struct Rig {
    tun: Tun,
    tunnel: Port,
    uplink: Port,
    air: Port,
    host: Port,
    front: u32,
}

/// Runs on a thread of its own, with a namespace of its own, or says why not.
pub fn on_a_rig(run: impl FnOnce(Rig) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        stay_on_one_processor();
        match enter_a_namespace() {
            Ok(()) => run(Rig::new()),
            Err(reason) => skip(&format!("parity on live packets: {reason}")),
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn stay_on_one_processor() {
    // SAFETY: all zero is an empty set of processors; the calls read and write only this one.
    unsafe {
        let mut only: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut only);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&only), &raw const only), 0);
    }
}

fn enter_a_namespace() -> Result<(), String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("needs /dev/net/tun".to_owned());
    }
    if !runs(Command::new("ip").arg("-V")) {
        return Err("needs the program ip".to_owned());
    }
    // SAFETY: it affects only the calling thread, which ends with its test.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(format!("no network namespace: {}", io::Error::last_os_error())),
    }
}

/// Runs lines of iproute2; all must succeed.
fn ip(lines: &str) {
    let mut ip = Command::new("ip");
    let ip = ip.args(["-6", "-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut running = ip.spawn().expect("it was there a moment ago");
    running.stdin.take().expect("piped").write_all(lines.as_bytes()).unwrap();
    let done = running.wait_with_output().unwrap();
    assert!(done.status.success(), "{lines}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Rig {
    fn new() -> Self {
        let tun = Tun::open("mtun0", 1).unwrap();
        ip(LINKS);
        for (name, value) in SETTINGS {
            fs::write(format!("/proc/sys/net/ipv6/conf/{name}"), value).unwrap();
        }
        ip(ROUTES);
        ip(&format!(
            "rule add fwmark {MARK} lookup 7 priority 10
             route add default via 2001:db8:1::1 dev wlan0 table 7"
        ));
        let open = |name| Port::open(index(name));
        let (tunnel, uplink) = (open("mtun0"), open("wlan0"));
        Self { tun, tunnel, uplink, air: open("air0"), host: open("host0"), front: index("lan0") }
    }

    /// An engine whose programs stand where the daemon has them.
    pub fn twins(&self, snapshot: Snapshot) -> Option<Twins> {
        let (tunnel, uplink) = (self.tun.index(), index("wlan0"));
        let twins = Twins::between(tunnel, uplink, 0, snapshot)?;
        twins.bpf.attach_tunnel(self.tun.name(), tunnel).unwrap();
        twins.bpf.attach_uplink("wlan0", uplink).unwrap();
        Some(twins)
    }

    /// The index of the interface of the network behind.
    pub fn front(&self) -> u32 {
        self.front
    }

    fn source(&self, at: At) -> &dyn Source {
        match at {
            At::Air => &self.air,
            At::Up => &*self.tun.queues()[0],
            At::Tunnel => &self.tunnel,
            At::Uplink => &self.uplink,
            At::Host => &self.host,
        }
    }

    /// Sends a packet into the tunnel interface, as from a local socket; where it comes out.
    pub fn leave(&self, packet: &[u8]) -> (At, Vec<u8>) {
        self.tunnel.send(packet);
        self.next(&[At::Air, At::Up])
    }

    /// Sends a packet from the wire; where it comes out at first.
    pub fn arrive(&self, packet: &[u8]) -> (At, Vec<u8>) {
        self.send_from_wire(packet);
        self.next(&[At::Tunnel, At::Uplink])
    }

    /// Sends a packet from the wire.
    pub fn send_from_wire(&self, packet: &[u8]) {
        self.air.send(&[&IN[..], packet].concat());
    }

    /// Sends a packet from the host of the network behind.
    pub fn send_from_host(&self, packet: &[u8]) {
        self.host.send(&[&AHEAD[..], packet].concat());
    }

    /// Whether a packet has come by the tunnel interface since that was asked last.
    pub fn passed_the_tunnel(&self) -> bool {
        self.tunnel.take().is_some()
    }

    /// Lets no longer packets into the network behind.
    pub fn narrow(&self, mtu: u16) {
        ip(&format!("link set lan0 mtu {mtu}"));
    }

    /// The next packet that comes out anywhere there, without the link header, which is as it must be.
    pub fn next(&self, places: &[At]) -> (At, Vec<u8>) {
        let sources: Vec<_> = places.iter().map(|at| self.source(*at)).collect();
        let (number, mut octets) = first(&sources);
        let at = places[number];
        let header: &[u8] = match at {
            At::Air => &OUT,
            At::Uplink => &IN,
            At::Host => &BEHIND,
            At::Up | At::Tunnel => &[],
        };
        assert_eq!(octets[..header.len()], *header, "the link header, {at:?}");
        octets.drain(..header.len());
        (at, octets)
    }

    /// Whether nothing waits anywhere. What was sent before something that came out has come out too.
    pub fn is_quiet(&self) -> bool {
        let all = [At::Air, At::Up, At::Tunnel, At::Uplink, At::Host];
        all.iter().all(|at| self.source(*at).take().is_none())
    }
}

pub fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: a terminated string.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}
