//! The daemon's own packet loop under real traffic, where no fast path carries anything: what is cut
//! is right on the wire, and what the kernel says of next hops, rules and queues is obeyed.

use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mtun::lab::daemons::{Arguments, Daemon, Side};
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, Probe};
use mtun::lab::world::{Plan, address};
use mtun_dataplane::backend::{PacketSocket, RECEIVE_BUFFER, Waker, wait};

use crate::fast_path::exchange;
use crate::fixture::{Lab, PATIENCE, programs};
use crate::need_lab;

/// Both ends without a fast path.
fn lab() -> Lab {
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.agent = None;
    let off = Arguments(["--fast-path", "off"].map(str::to_owned).to_vec());
    let agent = Daemon::start(&lab.world, &programs(), Side::Agent, &lab.text, &off).unwrap();
    lab.agent = Some(agent);
    lab.start_mobile(&["--fast-path", "off"]);
    lab.registered(&["wlan0", "wwan0"]);
    lab
}

/// What was read of tunnel packets that arrived at an interface.
#[derive(Debug, Default)]
struct Read {
    tcp: u64,
    udp: u64,
    /// The first that was not as it should be, in words.
    wrong: Option<String>,
}

/// Reads every tunnel packet that arrives at an interface.
struct Reader {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: JoinHandle<Read>,
}

impl Reader {
    fn start(namespace: &Namespace, interface: &str) -> Self {
        let index = namespace.interface_index(interface).unwrap();
        let socket = namespace.run(|| PacketSocket::open(index)).unwrap();
        let (stop, waker) = (Arc::<AtomicBool>::default(), Waker::new().unwrap());
        let (told, woken) = (stop.clone(), waker.clone());
        let thread = thread::spawn(move || {
            let mut read = Read::default();
            let mut buffer = vec![0; RECEIVE_BUFFER];
            let mut ready = Vec::new();
            while !told.load(Ordering::Acquire) {
                while let Ok(Some(received)) = socket.recv(&mut buffer) {
                    let header = received.header;
                    let packet = &buffer[received.packet];
                    if packet[6] != 41 {
                        continue;
                    }
                    let left = header.has_partial_checksum() || header.is_superpacket();
                    let left = left.then(|| format!("left to the link: {header:?}"));
                    if let Some(wrong) = left.or_else(|| judge(packet, &mut read)) {
                        read.wrong.get_or_insert(format!("{wrong}: {packet:02x?}"));
                    }
                }
                wait(&[socket.as_fd()], &woken, None, &mut ready).unwrap();
            }
            read
        });
        Self { stop, waker, thread }
    }

    fn end(self) -> Read {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.join().unwrap()
    }
}

fn number(octets: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]))
}

/// What is wrong with a tunnel packet, if anything is. Reads by itself: lengths at both headers, the
/// MTU, and the checksum of what is inside.
fn judge(packet: &[u8], read: &mut Read) -> Option<String> {
    let (outer, inner) = packet.split_at(40);
    if number(outer, 4) != inner.len() || packet.len() > 1500 {
        return Some(format!("outer length {} of {}", number(outer, 4), inner.len()));
    }
    let (head, upper) = inner.split_at(40);
    if head[0] >> 4 != 6 || number(head, 4) != upper.len() {
        return Some(format!("inner length {} of {}", number(head, 4), upper.len()));
    }
    match head[6] {
        6 => read.tcp += 1,
        17 if number(upper, 4) == upper.len() => read.udp += 1,
        17 => return Some("UDP length".to_owned()),
        _ => return None,
    }
    let mut sum = upper.len() as u64 + u64::from(head[6]);
    for words in [&head[8..], upper] {
        for word in words.chunks(2) {
            sum += u64::from(word[0]) << 8 | word.get(1).map_or(0, |it| u64::from(*it));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (sum != 0xffff).then(|| format!("checksum {sum:#x}"))
}

/// Sends datagrams of 1001 octets in pieces of many; returns how many came, each as it was sent.
fn datagrams(from: &Namespace, to: &Namespace, destination: Ipv6Addr, port: u16) -> usize {
    const SIZE: usize = 1001;
    const AT_ONCE: usize = 40;
    let receiver = to.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let sender = from.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    sender.connect((destination, port)).unwrap();
    let size = SIZE as libc::c_int;
    // SAFETY: the option is an `int`, live and of the length given.
    let set = unsafe {
        let at = (&raw const size).cast();
        libc::setsockopt(sender.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, at, 4)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    let octets: Vec<u8> = (0..SIZE * AT_ONCE).map(|at| (at / SIZE) as u8).collect();
    let mut buffer = vec![0; 1 << 16];
    let mut came = 0;
    for _ in 0..50 {
        sender.send(&octets).unwrap();
        for _ in 0..AT_ONCE {
            // One may be lost to a full queue; the next burst is another try.
            let Ok(length) = receiver.recv(&mut buffer) else { break };
            assert_eq!(length, SIZE);
            assert!(buffer[..length].iter().all(|it| *it == buffer[0]), "parts of two");
            came += 1;
        }
    }
    came
}

fn offloads(namespaces: [&Namespace; 2], state: &str) {
    for namespace in namespaces {
        let line = "tx {} rx {} tso {} gso {} gro {} tx-udp-segmentation {}".replace("{}", state);
        namespace.exec(&format!("ethtool -K eth0 {line}")).unwrap();
    }
}

#[test]
fn what_is_cut_is_right_on_the_wire_both_ways() {
    need_lab!();
    let lab = lab();
    let world = &lab.world;
    let told = world.mr.exec("ethtool -k mtun0").unwrap();
    for feature in ["tx-tcp6-segmentation: on", "tx-checksum-ip-generic: on"] {
        assert!(told.contains(feature), "the kernel leaves it to the daemon: {told}");
    }
    for (port, state) in [(7101, "on"), (7111, "off")] {
        // What arrives where: from the router at its access router, from the agent at the router.
        let up = Reader::start(&world.wlan, "sta0");
        let down = Reader::start(&world.mr, "wlan0");
        offloads([&world.mnn, &world.cn], state);
        exchange(&world.cn, &world.mnn, port);
        exchange(&world.cn, &world.mr, port + 1);
        for (number, from) in (2..).zip([&world.mnn, &world.mr]) {
            let came = datagrams(from, &world.cn, address::CORRESPONDENT, port + number);
            assert!(came > 1000, "up, offloads {state}: {came} came");
        }
        for (number, (to, at)) in
            (4..).zip([(&world.mnn, address::NODE), (&world.mr, address::HOME)])
        {
            let came = datagrams(&world.cn, to, at, port + number);
            assert!(came > 1000, "down, offloads {state}: {came} came");
        }
        for (what, read) in [("up", up.end()), ("down", down.end())] {
            assert_eq!(read.wrong, None, "{what}, offloads {state}");
            assert!(read.tcp > 5000 && read.udp > 1000, "{what}, offloads {state}: {read:?}");
        }
    }
    lab.assert_clean();
}

/// More than passes in a moment.
const MANY: u32 = 300;

struct Running {
    probe: Probe,
    _echo: Echo,
    lab: Lab,
}

impl Running {
    fn start() -> Self {
        let lab = lab();
        let echo = Echo::start(&lab.world.cn).unwrap();
        let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
        let running = Self { probe, _echo: echo, lab };
        running.comes_back("at first");
        running
    }

    fn comes_back(&self, when: &str) {
        let back = self.probe.wait_for_echo_after(self.probe.mark() + MANY, PATIENCE);
        assert!(back.is_ok(), "{when}: {}", self.lab.mobile().story());
    }

    /// Waits until a stretch of packets has ended nowhere.
    fn falls_silent(&self, when: &str) {
        let silent = wait_for("silence", PATIENCE, || {
            let mark = self.probe.mark();
            let sent = || (self.probe.mark() >= mark + MANY).then_some(());
            wait_for("packets", PATIENCE, sent).unwrap();
            (self.probe.tally_since(mark).outbound.received == 0).then_some(())
        });
        assert!(silent.is_ok(), "{when}: {}", self.lab.mobile().story());
    }
}

/// A next hop that is remembered is asked for every second, by a packet that goes the kernel's own way:
/// what the firewall refuses is not sent past it.
#[test]
fn what_the_firewall_says_of_the_way_out_is_obeyed() {
    need_lab!();
    let running = Running::start();
    let router = &running.lab.world.mr;
    // No tunnel packet with UDP inside; those that ask whether the link lives pass.
    router
        .nft(
            "table inet owner {\n chain out {\n  type filter hook output priority 0;\n  \
             oifname \"wlan0\" meta l4proto 41 @nh,368,8 17 drop\n }\n}\n",
        )
        .unwrap();
    running.falls_silent("behind a rule");
    router.nft("delete table inet owner\n").unwrap();
    running.comes_back("without the rule");
    running.lab.assert_clean();
}

/// What leaves goes through the owner's queue, whose shaping holds.
#[test]
fn an_owners_queue_sees_every_packet() {
    need_lab!();
    let lab = lab();
    let world = &lab.world;
    world
        .mr
        .exec("tc qdisc add dev wlan0 root tbf rate 400mbit burst 128kb latency 400ms")
        .unwrap();
    let seen = || -> u64 {
        let told = world.mr.exec("tc -s -j qdisc show dev wlan0 root").unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told[0]["packets"].as_u64().unwrap()
    };
    let before = seen();
    exchange(&world.cn, &world.mnn, 7201);
    let passed = seen() - before;
    // 16 MiB in packets of 1440 octets at most.
    assert!(passed > (16 << 20) / 1440, "{passed}");
    lab.assert_clean();
}
