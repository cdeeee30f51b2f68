//! What leaves outside the tunnel with translation, and what comes back for it.

use std::net::UdpSocket;

use mtun::edge::netlink::Netlink;
use mtun::edge::nft::{Firewall, Guarded};
use mtun::edge::routes::{HomeRoutes, MobileRoutes, PathRoutes};
use mtun::edge::sysctl::Sysctls;
use mtun_dataplane::backend::{BreakoutLink, RECEIVE_BUFFER, Tun, Uplink};
use mtun_policy::{HomeAddress, MobileNetworkPrefix};

use crate::world::*;

const FAR: &str = "2001:db8:c::9";
/// Behind the same port of the router as the network, from a prefix that is not of the home.
const GUEST: &str = "2001:db8:fe::9";

/// The router with its tunnel interface, the network behind it and guests on the same port.
fn router(world: &World) -> Tun {
    world.lan.shell(&format!("ip addr add {GUEST}/64 dev l0 nodad"));
    world.mobile.shell("ip addr add 2001:db8:fe::1/64 dev lan0 nodad");
    world.access.shell(&format!("ip addr add {FAR}/128 dev lo nodad"));
    let tun = world.mobile.run(|| Tun::open("mtun0", 1).unwrap());
    let home = HomeRoutes {
        tunnel: Some(tun.index()),
        address: HomeAddress(HOME.parse().unwrap()),
        mobile_networks: vec![MobileNetworkPrefix::new(NETWORK.parse().unwrap()).unwrap()],
        also: vec!["lan0".into()],
        name: "mtun0".into(),
    };
    let path = PathRoutes {
        by_router_only: false,
        path: 1,
        interface: "wlan0".into(),
        index: world.mobile.index("wlan0"),
        addresses: [CARE_OF.parse().unwrap()].into(),
        router: Some(ACCESS.parse().unwrap()),
        on_link: ["2001:db8:1::/64".parse().unwrap()].into(),
    };
    let desired = MobileRoutes { homes: vec![home], paths: vec![path] }.desired();
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        Sysctls::open(None).quiet_tunnel("mtun0").unwrap();
        netlink.prepare_tunnel(tun.index(), 1460, Some(HOME.parse().unwrap())).await.unwrap();
        netlink.reconcile(&desired).await.unwrap();
    });
    tun
}

fn guarded(translates: bool) -> Guarded {
    Guarded {
        returned: Default::default(),
        own: [HOME.parse().unwrap()].into(),
        uplinks: ["wlan0".into()].into(),
        ours: [CARE_OF.parse().unwrap()].into(),
        home: [format!("{HOME}/128"), NETWORK.to_owned()]
            .iter()
            .map(|it| it.parse().unwrap())
            .collect(),
        also: ["lan0".into()].into(),
        ingress: Default::default(),
        translates,
    }
}

/// What entered the tunnel interface next.
fn entered(tun: &Tun) -> Vec<u8> {
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut packet = None;
    eventually("a packet in the tunnel interface", || {
        packet = tun.queues()[0].recv(&mut buffer).unwrap().map(|it| it.packet);
        packet.is_some()
    });
    buffer[packet.expect("just seen")].to_vec()
}

#[test]
fn what_is_marked_leaves_translated_and_its_answers_come_back() {
    let Some(world) = World::new() else { return };
    let tun = router(&world);
    let mut firewall = world.mobile.run(|| Firewall::install(guarded(false)).unwrap());
    assert!(!world.mobile.shell("nft list ruleset").contains("masquerade"), "nobody asked for it");
    world.mobile.run(|| firewall.update(guarded(true)).unwrap());
    let index = world.mobile.index("wlan0");
    let past = world.mobile.run(|| BreakoutLink::open(index).unwrap());
    let far = world.access.run(|| UdpSocket::bind((FAR, 7)).unwrap());
    far.set_nonblocking(true).unwrap();
    // A link that has just been switched on loses what is sent by it for a while.
    let early = world.mobile.run(|| UdpSocket::bind((CARE_OF, 0)).unwrap());
    eventually("the far end is reachable", || {
        early.send_to(&[9], (FAR, 7)).unwrap();
        far.recv_from(&mut [0]).is_ok()
    });
    drop(early);
    far.set_nonblocking(false).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();

    // A guest, and one of the home network: twice each, because the second packet meets a
    // connection that the kernel already knows.
    for origin in [GUEST, LAN_HOST] {
        let socket = world.lan.run(|| UdpSocket::bind((origin, 0)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for round in 0_u8..2 {
            socket.send_to(&[round], (FAR, 7)).unwrap();
            let packet = entered(&tun);
            assert_eq!(source(&packet).to_string(), origin, "the tunnel interface sees its source");
            past.send(&packet, true).unwrap();
            let mut octet = [0];
            let mut arrived = far.recv_from(&mut octet).unwrap();
            // Some of those that tried the link may come late.
            while octet == [9] {
                arrived = far.recv_from(&mut octet).unwrap();
            }
            let (_, from) = arrived;
            assert_eq!((from.ip().to_string(), octet), (CARE_OF.to_owned(), [round]), "{origin}");
            far.send_to(&[round + 100], from).unwrap();
            let (_, from) = socket.recv_from(&mut octet).unwrap();
            assert_eq!((from.ip().to_string(), octet), (FAR.to_owned(), [round + 100]), "{origin}");
        }
    }

    // What is not marked is not touched: a home source is stopped at the uplink.
    let plain = world.mobile.run(|| Uplink::open(Some(index)).unwrap());
    assert!(plain.send(&udp(LAN_HOST, FAR, 7)).is_err(), "the sender is told");
    assert_eq!(world.mobile.run(|| firewall.counters().unwrap()).leaks, 1);

    // No longer wanted, nothing is translated and nothing of it is left behind.
    world.mobile.run(|| firewall.update(guarded(false)).unwrap());
    assert!(!world.mobile.shell("nft list ruleset").contains("masquerade"));
    world.mobile.run(|| firewall.remove().unwrap());
    assert_eq!(world.mobile.shell("nft list ruleset"), "");
}

#[test]
fn a_guest_reaches_the_router_and_the_network_without_the_tunnel() {
    let Some(world) = World::new() else { return };
    let tun = router(&world);
    let firewall = world.mobile.run(|| Firewall::install(guarded(true)).unwrap());
    let service = world.mobile.run(|| UdpSocket::bind(("2001:db8:fe::1", 7)).unwrap());
    let guest = world.lan.run(|| UdpSocket::bind((GUEST, 0)).unwrap());
    for socket in [&service, &guest] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    guest.send_to(b"?", "[2001:db8:fe::1]:7").unwrap();
    let (_, from) = service.recv_from(&mut [0]).unwrap();
    service.send_to(b"!", from).unwrap();
    guest.recv_from(&mut [0]).unwrap();
    let mut buffer = vec![0; RECEIVE_BUFFER];
    assert!(tun.queues()[0].recv(&mut buffer).unwrap().is_none(), "nothing entered the tunnel");
    world.mobile.run(|| firewall.remove().unwrap());
}
