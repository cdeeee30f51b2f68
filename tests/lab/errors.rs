//! What routers on the way say of outer packets, and what becomes of it inside (RFC 2473 §8).
//!
//! ```text
//!          wlan0 -- access -- middle
//!  n -- mr                          \
//!          wwan0 ------------------- core -- ha
//!                                      \---- cn
//! ```
//!
//! The cable between `access` and `middle` takes less from one moment to the next.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use mtun::lab::namespace::wait_for;
use mtun_dataplane::wire::icmpv6::IcmpError;

use crate::fixture::{PATIENCE, ipv6};
use crate::ground::{Ground, converse, hear_errors, hop_limit, inject, path_mtu, sizes_tried, udp};
use crate::need_lab;
use crate::texts::{agent, networks};

const CN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const NODE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0x4200, 0, 0, 0, 0x10);
const WLAN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
const ACCESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const PREFIX: &str = "2001:db8:100:4200::/64";

/// A router with two uplinks: port 5353 by wwan0, everything else by wlan0.
fn policy() -> String {
    format!(
        "/- kdl-version 2
policy \"two\" schema=1
role \"mobile-router\"
interface \"wlan0\" {{ usable {{ hold up=\"0s\"; }}; bid 1; priority 10; }}
interface \"wwan0\" {{ usable {{ hold up=\"0s\"; }}; bid 2; priority 20; }}
home \"h\" {{
    tunnel mtun0
    agent \"2001:db8:100::1\"
    address \"2001:db8:100::42/64\"
{}    security \"sa\"
}}
security \"sa\" {{ auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"h.key\"; }}
rules home=h {{
    rule \"other\" {{ match proto=udp dport=5353; prefer wwan0; }}
    default {{ prefer wlan0; }}
}}
",
        networks(&[PREFIX], "on=lan0")
    )
}

fn world() -> Ground {
    let mut ground = Ground::new();
    ground.bystanders(&["n", "cn"], &["access", "middle", "core", "ha"]);
    ground.mobiles(&["mr"]);
    let cable = |one: (&str, &str, &str), other: (&str, &str, &str)| {
        ground.cable((one.0, one.1, &[one.2]), (other.0, other.1, &[other.2]));
    };
    cable(("access", "sta0", "2001:db8:1::1/64"), ("mr", "wlan0", "2001:db8:1::7/64"));
    cable(("core", "air0", "2001:db8:2::1/64"), ("mr", "wwan0", "2001:db8:2::7/64"));
    cable(("access", "up0", "2001:db8:e1::1/64"), ("middle", "down0", "2001:db8:e1::2/64"));
    cable(("middle", "up0", "2001:db8:e2::1/64"), ("core", "m0", "2001:db8:e2::2/64"));
    cable(("core", "h0", "2001:db8:f0::1/64"), ("ha", "core0", "2001:db8:f0::2/64"));
    cable(("core", "c0", "2001:db8:c::1/64"), ("cn", "eth0", "2001:db8:c::9/64"));
    cable(("mr", "lan0", "2001:db8:100:4200::1/64"), ("n", "eth0", "2001:db8:100:4200::10/64"));
    ground.routes(
        "mr",
        &[
            "default via 2001:db8:1::1 dev wlan0 metric 1024",
            "default via 2001:db8:2::1 dev wwan0 metric 2048",
        ],
    );
    ground.routes("access", &["default via 2001:db8:e1::2"]);
    ground.routes("middle", &["default via 2001:db8:e2::2", "2001:db8:1::/64 via 2001:db8:e1::1"]);
    let home = "2001:db8:100::/48 via 2001:db8:f0::2";
    let below = ["2001:db8:1::/64 via 2001:db8:e2::1", "2001:db8:e1::/64 via 2001:db8:e2::1"];
    ground.routes("core", &[home, below[0], below[1]]);
    ground.at("ha").ip(&["address add 2001:db8:100::1/128 dev core0 nodad"]).unwrap();
    let nowhere = "unreachable 2001:db8:100::/48 metric 4000";
    ground.routes("ha", &["default via 2001:db8:f0::1", nowhere]);
    ground.routes("cn", &["default via 2001:db8:c::1"]);
    ground.routes("n", &["default via 2001:db8:100:4200::1"]);
    ground.share_key("h.key", &["ha", "mr"]);
    ground.start("ha", &agent(0x100, &[(0x42, &[PREFIX])]));
    ground.start("mr", &policy());
    ground.registered("mr", &["wlan0", "wwan0"]);
    ground
}

/// What the cable in the middle takes from here on.
fn narrow(ground: &Ground, mtu: u16) {
    ground.at("access").ip(&[&format!("link set up0 mtu {mtu}")]).unwrap();
    ground.at("middle").ip(&[&format!("link set down0 mtu {mtu}")]).unwrap();
}

/// How often a machine said that a packet is too big for the next link.
fn too_bigs(ground: &Ground, machine: &str) -> u64 {
    let text = ground.at(machine).run(|| std::fs::read_to_string("/proc/thread-self/net/snmp6"));
    let text = text.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Icmp6OutPktTooBigs")).unwrap();
    line.trim().parse().unwrap()
}

/// A conversation between the node and the correspondent on one port.
fn flow(ground: &Ground, port: u16) -> [UdpSocket; 2] {
    let node = udp(ground.at("n"), (NODE, port), (CN, port));
    [node, udp(ground.at("cn"), (CN, port), (NODE, port))]
}

/// Writes a stretch of a stream at one end and reads it at the other.
fn carry(from: &mut TcpStream, to: &mut TcpStream, mark: u8) {
    const STRETCH: usize = 300_000;
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&[mark; STRETCH]).unwrap());
        let mut read = vec![0; STRETCH];
        to.read_exact(&mut read).unwrap();
        assert!(read.iter().all(|octet| *octet == mark), "octets of another stretch");
    });
}

/// req TN-08 (RFC 2473 §7.1, §8.2): the path of one binding shrinks twice under a TCP connection in
/// each direction. Its ends learn what fits inside, never less than 1280, and nothing is lost; the
/// other binding's flow goes on with what its own path takes.
#[test]
fn connections_survive_a_path_that_shrinks() {
    need_lab!();
    let ground = world();
    let listener = ground.at("cn").run(|| TcpListener::bind((CN, 80))).unwrap();
    let mut up = ground.at("n").run(|| TcpStream::connect((CN, 80))).unwrap();
    let (mut far_up, _) = listener.accept().unwrap();
    let mut far_down = ground.at("n").run(|| TcpStream::connect((CN, 80))).unwrap();
    let (mut down, _) = listener.accept().unwrap();
    for socket in [&up, &far_up, &down, &far_down] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    // Kernels remember a path by its two ends, whatever the flow.
    let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 8);
    ground.at("cn").ip(&[&format!("address add {elsewhere}/64 dev eth0 nodad")]).unwrap();
    let node = udp(ground.at("n"), (NODE, 5353), (elsewhere, 5353));
    let correspondent = udp(ground.at("cn"), (elsewhere, 5353), (NODE, 5353));
    assert_eq!(sizes_tried(&node, &correspondent).last(), Some(&1460));
    for (mark, (outer, inner)) in (0..).zip([(1500, 1460), (1400, 1360), (1280, 1280)]) {
        narrow(&ground, outer);
        carry(&mut up, &mut far_up, mark);
        carry(&mut down, &mut far_down, mark);
        let learned = [path_mtu(&up), path_mtu(&down)];
        assert_eq!(learned, [inner, inner], "with {outer} octets in the middle");
        // Whoever knows what fits sends nothing else: no router and no end of the tunnel says more.
        let refused = || {
            let inside = ["mr", "ha"].map(|machine| ground.counted(machine, "too-big"));
            (inside, ["access", "middle"].map(|router| too_bigs(&ground, router)))
        };
        let before = refused();
        carry(&mut up, &mut far_up, mark);
        carry(&mut down, &mut far_down, mark);
        assert_eq!(refused(), before, "with {outer} octets in the middle");
        node.send(&[mark; 1460 - 48]).unwrap();
        let length = correspondent.recv(&mut [0; 2048]).unwrap();
        assert_eq!(length, 1460 - 48, "the other binding, with {outer} octets in the middle");
    }
    // Shown, told and counted (K10): what the path takes, beside what the interface does.
    let what = "the path of 1280 octets";
    let status = ground.daemon("mr").wait_until(what, PATIENCE, |status| {
        let wlan0 = status.links.iter().find(|link| link.interface.as_str() == "wlan0");
        wlan0.and_then(|link| link.path_mtu).is_some_and(|path| path.octets == 1280)
    });
    let status = status.unwrap();
    let wwan0 = status.links.iter().find(|link| link.interface.as_str() == "wwan0").unwrap();
    assert_eq!((wwan0.mtu, wwan0.path_mtu), (Some(1500), None));
    let takes = |link: &str| {
        let figures = ground.figures("mr").links;
        figures.iter().find(|it| it.link.as_str() == link).and_then(|it| it.path_mtu)
    };
    assert_eq!((takes("wlan0"), takes("wwan0")), (Some(1280), Some(1500)));
    let words = "the path of link wlan0 carries 1280 octets, its interface 1500";
    let told =
        wait_for(words, PATIENCE, || ground.daemon("mr").story().contains(words).then_some(()));
    assert!(told.is_ok(), "{}", ground.daemon("mr").story());
}

/// K10: one datagram that does not fit any more is lost. A router says so once, the path's MTU is
/// learned from that, the sender is told once, and of those that follow none is lost.
#[test]
fn a_path_that_shrinks_costs_one_datagram() {
    need_lab!();
    let ground = world();
    let [node, correspondent] = flow(&ground, 7000);
    assert_eq!(sizes_tried(&node, &correspondent).last(), Some(&1460));
    narrow(&ground, 1280);
    let before = too_bigs(&ground, "access");
    node.send(&[1; 1460 - 48]).unwrap();
    let learned = wait_for("1280", PATIENCE, || (path_mtu(&node) == 1280).then_some(()));
    assert!(learned.is_ok(), "{} {}", path_mtu(&node), ground.daemon("mr").story());
    // What the socket was told stands as an error until it has been read.
    let _ = node.take_error();
    let mut buffer = [0; 2048];
    for number in 2..52 {
        node.send(&[number; 1280 - 48]).unwrap();
        let length = correspondent.recv(&mut buffer).unwrap();
        assert_eq!((length, buffer[0]), (1280 - 48, number), "the one that came next");
    }
    assert_eq!(too_bigs(&ground, "access") - before, 1, "by the router");
    assert_eq!(ground.counted("mr", "too-big"), 0, "refused before it left");
    assert_eq!(ground.counted("mr", "forged-error"), 0);
    let status = ground.daemon("mr").status().unwrap();
    let wlan0 = status.links.iter().find(|link| link.interface.as_str() == "wlan0").unwrap();
    assert_eq!(wlan0.path_mtu.map(|path| path.octets), Some(1280));
}

/// req TN-10 (RFC 2473 §8.1): what happens to an outer packet is one failure to whoever sent the
/// inner one: its address cannot be reached.
#[test]
fn every_failure_in_the_tunnel_is_an_unreachable_address() {
    need_lab!();
    let ground = world();
    let [node, correspondent] = flow(&ground, 7000);
    hear_errors(&node);
    let refused = |what: &str| {
        let told = wait_for(what, PATIENCE, || {
            node.send(b"?").ok();
            node.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            node.recv(&mut [0; 64]).err()?.raw_os_error().filter(|told| *told != libc::EAGAIN)
        });
        node.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(told.unwrap(), libc::EHOSTUNREACH, "{what}");
    };
    converse("before", &node, &correspondent, 5);
    // Plain, this would be "no route": another error to a socket.
    ground.at("middle").ip(&["route add unreachable 2001:db8:100::1/128"]).unwrap();
    refused("no route to the agent");
    ground.at("middle").ip(&["route del unreachable 2001:db8:100::1/128"]).unwrap();
    ground.at("middle").ip(&["route add prohibit 2001:db8:100::1/128"]).unwrap();
    refused("a prohibition on the way to the agent");
    ground.at("middle").ip(&["route del prohibit 2001:db8:100::1/128"]).unwrap();
    let old = "table ip6 old {\n  chain far {\n    type filter hook prerouting priority 0;\n    \
               meta l4proto 41 ip6 hoplimit set 1\n  }\n}\n";
    ground.at("middle").nft(old).unwrap();
    refused("an outer packet that has come too far");
    ground.at("middle").nft("delete table ip6 old\n").unwrap();
    while node.take_error().unwrap().is_some() {}
    drain(&correspondent);
    converse("afterwards", &node, &correspondent, 5);
}

/// req TN-07 (RFC 2473 §3.1, §6.3): the tunnel is one hop, however many routers are on its way.
#[test]
fn the_tunnel_is_one_hop() {
    need_lab!();
    let ground = world();
    let [node, correspondent] = flow(&ground, 7000);
    hear_errors(&node);
    converse("before", &node, &correspondent, 1);
    // The router, the agent, the core, the correspondent.
    for hops in 1..=3 {
        hop_limit(&node, hops);
        node.send(b"?").unwrap();
        let told = node.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(told.raw_os_error(), Some(libc::EHOSTUNREACH), "{hops} hops: {told}");
    }
    hop_limit(&node, 4);
    node.send(b"four").unwrap();
    assert_eq!(correspondent.recv(&mut [0; 64]).unwrap(), 4);
}

/// Reads what came in vain.
fn drain(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 64]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
}

/// req TN-08 (RFC 4443 §5.2): an error is believed if it quotes what a live binding would have sent
/// a moment ago, and then only down to 1280.
#[test]
fn forged_errors_change_nothing() {
    need_lab!();
    let ground = world();
    let [node, correspondent] = flow(&ground, 7000);
    assert_eq!(sizes_tried(&node, &correspondent).last(), Some(&1460));
    let inner = |port: u16, source, destination| {
        let mut datagram = vec![0; 1412 + 8];
        datagram[..2].copy_from_slice(&port.to_be_bytes());
        datagram[2..4].copy_from_slice(&port.to_be_bytes());
        ipv6(17, source, destination, &datagram)
    };
    let too_big = |mtu, quoted: &[u8]| {
        let mut error = Vec::new();
        assert!(IcmpError::PacketTooBig { mtu }.emit(ACCESS, quoted, &mut error));
        // The quoted source is what the error is sent to: this is how it gets there in any case.
        error[24..40].copy_from_slice(&WLAN.octets());
        let sum = mtun_dataplane::wire::pseudo_header_checksum;
        error[42..44].fill(0);
        let checksum = sum(ACCESS, WLAN, 58, &error[40..]);
        error[42..44].copy_from_slice(&checksum.to_be_bytes());
        error
    };
    let right = inner(7000, NODE, CN);
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);
    let cases = [
        ("another outer source", ipv6(41, other, AGENT, &right)),
        ("another outer destination", ipv6(41, WLAN, other, &right)),
        ("a flow that never was", ipv6(41, WLAN, AGENT, &inner(7001, NODE, CN))),
        ("an inner source that is not ours", ipv6(41, WLAN, AGENT, &inner(7000, other, CN))),
        ("a chain that is cut", ipv6(41, WLAN, AGENT, &[])),
    ];
    for (number, (what, quoted)) in (1..).zip(&cases) {
        inject(ground.at("access"), &too_big(1300, quoted));
        let counted = wait_for(what, PATIENCE, || {
            (ground.counted("mr", "forged-error") == number).then_some(())
        });
        assert!(counted.is_ok(), "{what}: {:#?}", ground.figures("mr").drops);
    }
    assert_eq!(sizes_tried(&node, &correspondent), [1460], "believed");
    // The right quote, and an MTU that no path has.
    inject(ground.at("access"), &too_big(68, &ipv6(41, WLAN, AGENT, &right)));
    let learned = wait_for("1280", PATIENCE, || (path_mtu(&node) == 1280).then_some(()));
    assert!(learned.is_ok(), "{} {:#?}", path_mtu(&node), ground.figures("mr").drops);
    assert_eq!(sizes_tried(&node, &correspondent), [1280], "in outer fragments");
}
