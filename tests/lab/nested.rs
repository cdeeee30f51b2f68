//! Routers behind routers, two levels deep, and a node that visits one.
//!
//! ```text
//!                                        ha  2001:db8:100::1   mr1, and mr2 and mn or not
//!  n2 -- mr2 -- mr1 -- core -- cn       /
//!        mn  --/   \        \----------<
//!                   n1                  \
//!                                        hb  2001:db8:200::1   else mr2 and mn
//! ```
//!
//! mr2's uplink is mr1's `lan0`, where it configures its care-of address by itself; the node's is
//! `lan1`. Every cable takes 1500 octets.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun::control::documents::StatusDocument;
use mtun::lab::advertiser::{Advertisement, Advertiser};
use mtun::lab::daemons::cached;
use mtun_dataplane::wire::signalling_packet;
use mtun_policy::HomeAddress;
use mtun_signaling::Envelope;
use mtun_signaling::wire::{self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options};

use crate::fast_path::exchange_with;
use crate::fixture::PATIENCE;
use crate::ground::{Ground, converse, hear_errors, inject, sizes_tried, udp};
use crate::need_lab;
use crate::scripted::{Tap, need_scapy};
use crate::texts::{agent, mobile, networks};

const CN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);

/// The second level's home network: 0x100 is that of the first level too.
fn address(home: u16, network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, home, network, 0, 0, 0, host)
}

struct Nested {
    ground: Ground,
    home: u16,
    _advertiser: Advertiser,
}

impl Nested {
    /// Everybody registered; the second level's agent serves `home`.
    fn start(home: u16) -> Self {
        let mut ground = Ground::new();
        ground.bystanders(&["n1", "n2", "cn"], &["core", "ha", "hb"]);
        ground.mobiles(&["mr1", "mr2", "mn"]);
        ground
            .cable(("core", "a0", &["2001:db8:1::1/64"]), ("mr1", "wlan0", &["2001:db8:1::7/64"]));
        ground.routes("mr1", &["default via 2001:db8:1::1 dev wlan0 metric 1024"]);
        for (name, near, far, serves) in
            [("ha", "f0::1", "f0::2", "2001:db8:100::"), ("hb", "f1::1", "f1::2", "2001:db8:200::")]
        {
            let end = format!("{name}0");
            ground.cable(
                ("core", &end, &[&format!("2001:db8:{near}/64")]),
                (name, "core0", &[&format!("2001:db8:{far}/64"), &format!("{serves}1/128")]),
            );
            ground.routes("core", &[&format!("{serves}/48 via 2001:db8:{far}")]);
            let nowhere = format!("unreachable {serves}/48 metric 4000");
            ground.routes(name, &[&format!("default via 2001:db8:{near}"), &nowhere]);
        }
        ground.cable(("core", "c0", &["2001:db8:c::1/64"]), ("cn", "eth0", &["2001:db8:c::9/64"]));
        ground.routes("cn", &["default via 2001:db8:c::1"]);

        ground.cable(("mr1", "lan0", &["2001:db8:100:4200::1/64"]), ("mr2", "wlan0", &[]));
        ground.cable(
            ("mr1", "lan1", &["2001:db8:100:4201::1/64"]),
            ("mn", "wlan0", &["2001:db8:100:4201::7/64"]),
        );
        ground.routes("mn", &["default via 2001:db8:100:4201::1 dev wlan0 metric 1024"]);
        ground.cable(
            ("mr1", "lan2", &["2001:db8:100:4202::1/64"]),
            ("n1", "eth0", &["2001:db8:100:4202::10/64"]),
        );
        ground.routes("n1", &["default via 2001:db8:100:4202::1"]);
        let lan = format!("{}/64", address(home, 0x4300, 1));
        let node = format!("{}/64", address(home, 0x4300, 0x10));
        ground.cable(("mr2", "lan0", &[&lan]), ("n2", "eth0", &[&node]));
        ground.routes("n2", &[&format!("default via {}", address(home, 0x4300, 1))]);

        ground.share_key("h.key", &["ha", "hb", "mr1", "mr2", "mn"]);
        let first = ["2001:db8:100:4200::/64", "2001:db8:100:4201::/64", "2001:db8:100:4202::/64"];
        let second = format!("{}/64", address(home, 0x4300, 0));
        let above: [(u16, &[&str]); 2] = [(0x43, &[&second]), (0x44, &[])];
        let mut below: Vec<(u16, &[&str])> = vec![(0x42, &first)];
        match home {
            0x100 => below.extend(above),
            _ => ground.start("hb", &agent(home, &above)),
        }
        ground.start("ha", &agent(0x100, &below));
        ground.start("mr1", &mobile("mobile-router", 0x100, 0x42, &networks(&first, "")));
        ground.registered("mr1", &["wlan0"]);
        let network = networks(&[&second], "on=lan0");
        ground.start("mr2", &mobile("mobile-router", home, 0x43, &network));
        let advertisement = Advertisement {
            prefix: address(0x100, 0x4200, 0),
            ..Advertisement::wlan(1500, Duration::from_millis(200))
        };
        let advertiser = Advertiser::start(ground.at("mr1"), "lan0", advertisement).unwrap();
        ground.start("mn", &mobile("mobile-node", home, 0x44, ""));
        ground.registered("mn", &["wlan0"]);
        ground.registered("mr2", &["wlan0"]);
        Self { ground, home, _advertiser: advertiser }
    }

    fn second(&self, network: u16, host: u16) -> Ipv6Addr {
        address(self.home, network, host)
    }

    /// A conversation of the correspondent with an address on a machine.
    fn talks(&self, name: &str, own: Ipv6Addr, port: u16) {
        let there = udp(self.ground.at(name), (own, port), (CN, port));
        let here = udp(self.ground.at("cn"), (CN, port), (own, port));
        converse(&format!("{name} speaks first"), &there, &here, 20);
        converse(&format!("spoken to first, {name}"), &here, &there, 20);
    }

    /// Everybody reaches the correspondent and is reached by it.
    fn everybody_talks(&self) {
        self.talks("n1", address(0x100, 0x4202, 0x10), 7001);
        self.talks("n2", self.second(0x4300, 0x10), 7002);
        self.talks("mr2", self.second(0, 0x43), 7003);
        self.talks("mn", self.second(0, 0x44), 7004);
    }

    /// And each other, through both tunnels.
    fn neighbours_talk(&self) {
        let (n1, n2) = (address(0x100, 0x4202, 0x10), self.second(0x4300, 0x10));
        let (mn, port) = (self.second(0, 0x44), 7005);
        for (one, own, other, peer) in [("n1", n1, "n2", n2), ("mn", mn, "n2", n2)] {
            let there = udp(self.ground.at(one), (own, port), (peer, port));
            let here = udp(self.ground.at(other), (peer, port), (own, port));
            converse(&format!("{one} and {other}"), &there, &here, 20);
        }
    }

    /// Segments that came together through one tunnel go on through another: from the far end of
    /// two tunnels, and between networks whose agents take them out of one and put them into
    /// another.
    fn streams(&self) {
        let (n1, n2) = (address(0x100, 0x4202, 0x10), self.second(0x4300, 0x10));
        let at = |name| self.ground.at(name);
        exchange_with((at("cn"), CN), at("n2"), 7021);
        exchange_with((at("n1"), n1), at("n2"), 7022);
        exchange_with((at("n2"), n2), at("n1"), 7023);
    }

    /// What packets of these ends are tried with, there and back.
    fn sizes(&self, name: &str, own: Ipv6Addr, port: u16) -> [Vec<u32>; 2] {
        let there = udp(self.ground.at(name), (own, port), (CN, port));
        let here = udp(self.ground.at("cn"), (CN, port), (own, port));
        [sizes_tried(&there, &here), sizes_tried(&here, &there)]
    }

    /// What comes out of a tunnel and goes into one again is no reason to send anybody elsewhere
    /// (RFC 4861 §8.2).
    fn nobody_is_redirected(&self) {
        for name in ["ha", "mr1", "mr2", "mn"] {
            let counts = self.ground.at(name).exec("cat /proc/net/snmp6").unwrap();
            let redirects = counts.lines().find(|line| line.starts_with("Icmp6OutRedirects"));
            let redirects = redirects.and_then(|line| line.split_whitespace().last());
            assert_eq!(redirects, Some("0"), "{name}");
        }
    }

    /// Every tunnel has the MTU of its own uplink less one header, whatever is below it.
    fn tunnels_of_1460(&self) {
        for name in ["mr1", "mr2", "mn", "ha"] {
            let status = self.ground.daemon(name).status().unwrap();
            assert_eq!(status.homes[0].tunnel.mtu, 1460, "{name}");
        }
    }
}

/// A tunnel packet in a tunnel takes a Tunnel Encapsulation Limit with it, eight octets: 1452 is
/// what mr1's tunnel takes of mr2's, and 1412 what that one takes of its own network.
/// req NH-21, TN-05.
#[test]
fn two_levels_under_different_agents() {
    need_lab!();
    let nested = Nested::start(0x200);
    nested.everybody_talks();
    nested.neighbours_talk();
    nested.tunnels_of_1460();
    let n1 = nested.sizes("n1", address(0x100, 0x4202, 0x10), 7011);
    assert_eq!(n1, [[1500, 1460], [1500, 1460]]);
    let n2 = nested.sizes("n2", nested.second(0x4300, 0x10), 7012);
    assert_eq!(n2, [[1500, 1460, 1420, 1412], [1500, 1460, 1420, 1412]]);
    nested.streams();
    nested.everybody_talks();
}

/// req TN-05, TN-06 (RFC 2473 §4.1.1): two routers, each of which says that it is behind the other.
/// The agent wraps a packet for them as often as it may and then tells its sender.
#[test]
fn a_loop_of_routers_ends() {
    need_lab!();
    let mut ground = Ground::new();
    ground.bystanders(&["cn"], &["ha"]);
    let addresses = ["2001:db8:c::1/64", "2001:db8:100::1/128"];
    ground.cable(("ha", "cn0", &addresses), ("cn", "eth0", &["2001:db8:c::9/64"]));
    ground.routes("cn", &["default via 2001:db8:c::1"]);
    let (one, two) = (address(0x100, 0x4200, 0), address(0x100, 0x4300, 0));
    let prefixes = [format!("{one}/64"), format!("{two}/64")];
    let mobiles = [(0x42, &prefixes[..1]), (0x43, &prefixes[1..])];
    ground.share_key("h.key", &["ha"]);
    let unprotected = agent(0x100, &mobiles).replace("security \"sa\";", "security none;");
    ground.start("ha", &unprotected);
    for (host, care_of) in [(0x42, address(0x100, 0x4300, 9)), (0x43, address(0x100, 0x4200, 9))] {
        inject(ground.at("cn"), &registration(care_of, address(0x100, 0, host)));
    }
    let care_ofs = [address(0x100, 0x4200, 9), address(0x100, 0x4300, 9)].map(IpAddr::V6);
    let bound = |status: &StatusDocument| cached(status) == care_ofs;
    ground.daemon("ha").wait_until("both bindings", PATIENCE, bound).unwrap();
    let host = (address(0x100, 0x4200, 0x10), 7000);
    let socket = udp(ground.at("cn"), (CN, 7000), host);
    hear_errors(&socket);
    for _ in 0..5 {
        socket.send(b"who is there").unwrap();
        let told = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(told.raw_os_error(), Some(libc::EHOSTUNREACH), "{told}");
    }
    // The acknowledgements go round as well, if the routes are there before they leave.
    let ends = ground.counted("ha", "encapsulation-limit");
    assert!((5..=7).contains(&ends), "{ends} ends of 5 packets and 2 acknowledgements");
}

/// A Binding Update of a mobile router, unprotected.
fn registration(care_of: Ipv6Addr, home_address: Ipv6Addr) -> Vec<u8> {
    let agent = address(0x100, 0, 1);
    let mut envelope = Envelope::plain(care_of, agent);
    envelope.home_address = Some(HomeAddress(home_address));
    let flags =
        BindingUpdateFlags { acknowledge: true, home: true, router: true, ..Default::default() };
    let update =
        BindingUpdate { sequence: 1, flags, lifetime: Lifetime(100), options: Options::new() };
    let message = wire::emit(&Message::BindingUpdate(update), &envelope).unwrap();
    signalling_packet(care_of, agent, Some(home_address), None, &message)
}
/// The same agent for both levels: what it unwraps may be for itself once more, and what it wraps
/// goes through its own tunnel once more.
/// req NH-21.
#[test]
fn two_levels_under_the_same_agent() {
    need_lab!();
    need_scapy!();
    let nested = Nested::start(0x100);
    let tap = Tap::start(&nested.ground, "core", "a0");
    nested.everybody_talks();
    nested.neighbours_talk();
    nested.tunnels_of_1460();
    let n2 = nested.sizes("n2", nested.second(0x4300, 0x10), 7012);
    assert_eq!(n2, [vec![1500, 1460, 1420, 1412], vec![1500, 1460, 1412]]);
    nested.streams();
    nested.everybody_talks();
    nested.nobody_is_redirected();
    tap.assert_well_formed(0, 200);
}
