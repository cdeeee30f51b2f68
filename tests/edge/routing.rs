//! Rules and routes put every packet where it belongs, and go without a trace.

use std::net::UdpSocket;

use mtun::edge::netlink::{Changes, Netlink};
use mtun::edge::routes::{
    AgentRoutes, CorrespondentRoutes, Desired, HomeRoutes, MobileRoutes, PathRoutes,
};
use mtun::edge::sysctl::Sysctls;
use mtun_dataplane::backend::{RECEIVE_BUFFER, Tun, Uplink};
use mtun_policy::{HomeAddress, MobileNetworkPrefix};

use crate::world::*;

const FAR: &str = "2001:db8:c::9";

fn path(world: &World, path: u16, interface: &str, address: &str, router: &str) -> PathRoutes {
    PathRoutes {
        by_router_only: false,
        path,
        interface: interface.into(),
        index: world.mobile.index(interface),
        addresses: [address.parse().unwrap()].into(),
        router: Some(router.parse().unwrap()),
        on_link: [format!("{router}/64").parse::<ipnet::Ipv6Net>().unwrap().trunc()].into(),
    }
}

fn mobile_routes(world: &World, tunnel: Option<u32>) -> MobileRoutes {
    let network = MobileNetworkPrefix::new(NETWORK.parse().unwrap()).unwrap();
    MobileRoutes {
        homes: vec![HomeRoutes {
            tunnel,
            address: HomeAddress(HOME.parse().unwrap()),
            mobile_networks: vec![network],
            also: vec![],
            name: "mtun0".into(),
        }],
        paths: vec![
            path(world, 1, "wlan0", CARE_OF, "2001:db8:1::1"),
            path(world, 2, "wwan0", SECOND_CARE_OF, "2001:db8:2::1"),
        ],
    }
}

/// A mobile router with its tunnel interface and all its rules.
fn mobile(world: &World) -> Tun {
    let tun = world.mobile.run(|| Tun::open("mtun0", 2).unwrap());
    let index = tun.index();
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        Sysctls::open(None).quiet_tunnel("mtun0").unwrap();
        netlink.prepare_tunnel(index, 1460, Some(HOME.parse().unwrap())).await.unwrap();
        netlink.reconcile(&mobile_routes(world, Some(index)).desired()).await.unwrap();
    });
    tun
}

fn reconcile(world: &World, desired: &Desired) -> Changes {
    world.mobile.block_on(async || Netlink::open().unwrap().reconcile(desired).await.unwrap())
}

/// Everything the kernel has about where packets go, without the counters of age.
fn forwarding(world: &World) -> String {
    let rules = world.mobile.shell("ip -6 rule");
    rules + &world.mobile.shell("ip -6 route show table all")
}

/// What waits in the tunnel, as `source destination`.
fn tunnelled(tun: &Tun, count: usize) -> Vec<String> {
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut seen = Vec::new();
    eventually(&format!("{count} packets in the tunnel"), || {
        for queue in tun.queues() {
            while let Some(received) = queue.recv(&mut buffer).unwrap() {
                let packet = &buffer[received.packet];
                seen.push(format!("{} {}", source(packet), destination(packet)));
            }
        }
        seen.len() >= count
    });
    seen
}

fn send(world: &World, bind: &str, to: &str) {
    world.mobile.run(|| {
        let socket = UdpSocket::bind(format!("[{bind}]:0")).unwrap();
        socket.send_to(b"test", (to, 7)).unwrap();
    });
}

/// req MR-16.
#[test]
fn every_packet_goes_where_it_belongs() {
    let Some(world) = World::new() else { return };
    let tun = mobile(&world);
    let wlan0 = Sniffer::new(&world.access, "a0");
    let wwan0 = Sniffer::new(&world.access, "b0");
    let to_far = |it: &[u8]| destination(it).to_string() == FAR;

    // An unbound local socket is at home.
    send(&world, "::", FAR);
    assert_eq!(tunnelled(&tun, 1), [format!("{HOME} {FAR}")]);
    // So is one bound to the home address, and the network behind.
    send(&world, HOME, FAR);
    assert_eq!(tunnelled(&tun, 1), [format!("{HOME} {FAR}")]);
    let host = world.lan.run(|| Uplink::open(None).unwrap());
    host.send(&udp(LAN_HOST, FAR, 7)).unwrap();
    assert_eq!(tunnelled(&tun, 1), [format!("{LAN_HOST} {FAR}")]);
    assert!(!wlan0.packets().iter().chain(&wwan0.packets()).any(|it| to_far(it)));

    // What comes out of the tunnel is forwarded, although the tunnel behaves as a host's.
    let lan = Sniffer::new(&world.lan, "l0");
    tun.queues()[0].send(&udp(FAR, LAN_HOST, 7)).unwrap();
    lan.wait_for("a packet out of the tunnel", |it| source(it).to_string() == FAR);

    // A socket bound to a care-of address uses its uplink, whatever the main table prefers.
    send(&world, SECOND_CARE_OF, FAR);
    let seen = wwan0.wait_for("a packet by wwan0", to_far);
    assert!(seen.iter().filter(|it| to_far(it)).all(|it| source(it).to_string() == SECOND_CARE_OF));
    // So does one bound to the interface only, as outer packets are sent.
    let index = world.mobile.index("wwan0");
    let uplink = world.mobile.run(|| Uplink::open(Some(index)).unwrap());
    uplink.send(&packet(41, SECOND_CARE_OF, FAR, &udp(HOME, FAR, 7))).unwrap();
    wwan0.wait_for("an outer packet by wwan0", |it| it[6] == 41);
    assert!(!wlan0.packets().iter().any(|it| to_far(it)));

    // The network behind reaches the router, and the router reaches it, without the tunnel.
    send(&world, "::", LAN_HOST);
    lan.wait_for("router to host", |it| {
        it[6] == 17
            && destination(it).to_string() == LAN_HOST
            && source(it).to_string() == LAN_ROUTER
    });
    send(&world, CARE_OF, LAN_HOST);
    lan.wait_for("care-of address to host", |it| it[6] == 17 && source(it).to_string() == CARE_OF);
    // What none of our networks holds is nowhere; it neither leaves nor loops.
    host.send(&udp(LAN_HOST, "2001:db8:100:42ff::1", 7)).unwrap();
    lan.wait_for("unreachable", |it| it[6] == 58 && it[40] == 1);
    // On-link neighbours of the uplink are still reached directly.
    send(&world, CARE_OF, ACCESS);
    wlan0.wait_for("care-of address to neighbour", |it| {
        it[6] == 17 && destination(it).to_string() == ACCESS
    });
}

#[test]
fn the_tunnel_interface_is_quiet() {
    let Some(world) = World::new() else { return };
    let tun = mobile(&world);
    let addresses = world.mobile.shell("ip -6 -o addr show dev mtun0");
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(addresses.contains(&format!("{HOME}/128")), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    assert!(world.mobile.shell("ip link show mtun0").contains("mtu 1460"));
    send(&world, "::", FAR);
    assert_eq!(tunnelled(&tun, 1).len(), 1, "nothing but what was sent");
}

#[test]
fn nothing_is_left_after_the_end() {
    let Some(world) = World::new() else { return };
    let before = forwarding(&world);
    let tun = mobile(&world);
    let during = forwarding(&world);
    assert!(during.contains("proto 135"), "{during}");
    assert_eq!(
        reconcile(&world, &mobile_routes(&world, Some(tun.index())).desired()),
        Changes::default(),
        "all there"
    );
    let removed = world.mobile.block_on(async || Netlink::open().unwrap().cleanup().await.unwrap());
    assert_eq!(removed.added, 0);
    drop(tun);
    eventually("the interface is gone", || forwarding(&world) == before);
}

#[test]
fn what_a_killed_daemon_left_is_replaced() {
    let Some(world) = World::new() else { return };
    let before = forwarding(&world);
    // Killed: the tunnel goes with the process, the rules stay.
    drop(mobile(&world));
    // Somebody else's rules and routes are not ours to remove.
    world.mobile.shell("ip -6 rule add from 2001:db8:77::/48 lookup 77 priority 6271");
    world.mobile.shell("ip -6 route add 2001:db8:78::/48 via 2001:db8:1::1 table 6275000");
    // A rule of ours that this version would never make.
    world.mobile.shell("ip -6 rule add fwmark 1 lookup 6275000 priority 6270 protocol 135");

    let mut routes = mobile_routes(&world, None);
    routes.paths.remove(0);
    let changes = reconcile(&world, &routes.desired());
    assert!(changes.removed >= 4, "{changes:?}");
    let now = forwarding(&world);
    assert!(!now.contains("wlan0 lookup") && !now.contains("fwmark"), "{now}");
    assert!(now.contains("2001:db8:77::/48") && now.contains("2001:db8:78::/48"), "{now}");
    assert_eq!(reconcile(&world, &routes.desired()), Changes::default());
    reconcile(&world, &Desired::default());
    world.mobile.shell("ip -6 rule del priority 6271");
    world.mobile.shell("ip -6 route del 2001:db8:78::/48 table 6275000");
    assert_eq!(forwarding(&world), before);
}

#[test]
fn a_new_router_takes_the_place_of_the_old() {
    let Some(world) = World::new() else { return };
    let _tun = mobile(&world);
    let mut routes = mobile_routes(&world, Some(world.mobile.index("mtun0")));
    routes.paths[0].router = Some("fe80::99".parse().unwrap());
    let changes = reconcile(&world, &routes.desired());
    assert_eq!(changes, Changes { added: 1, removed: 0 });
    let table = world.mobile.shell("ip -6 route show table 6300001");
    assert!(
        table.contains("default via fe80::99") && !table.contains("via 2001:db8:1::1"),
        "{table}"
    );
    routes.paths[0].router = None;
    reconcile(&world, &routes.desired());
    let table = world.mobile.shell("ip -6 route show table 6300001");
    assert!(table.contains("default dev wlan0") && !table.contains("via"), "{table}");
}

/// req MR-14.
#[test]
fn when_the_tunnel_vanishes_nothing_with_a_home_source_leaves() {
    let Some(world) = World::new() else { return };
    let tun = mobile(&world);
    let socket = world.mobile.run(|| UdpSocket::bind(format!("[{HOME}]:0")).unwrap());
    socket.send_to(b"test", (FAR, 7)).unwrap();
    assert_eq!(tunnelled(&tun, 1).len(), 1);
    let sniffers = [Sniffer::new(&world.access, "a0"), Sniffer::new(&world.access, "b0")];
    let lan = Sniffer::new(&world.lan, "l0");

    drop(tun);
    eventually("the interface is gone", || !world.mobile.shell("ip link").contains("mtun0"));
    let refused = socket.send_to(b"test", (FAR, 7)).unwrap_err();
    assert!(
        matches!(
            refused.raw_os_error(),
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL)
        ),
        "{refused}"
    );
    let host = world.lan.run(|| Uplink::open(None).unwrap());
    host.send(&udp(LAN_HOST, FAR, 7)).unwrap();
    lan.wait_for("the host is told", |it| it[6] == 58 && it[40] == 1);
    // An unbound socket has no home source: the kernel then gives it a care-of address.
    send(&world, "::", FAR);
    let [wlan0, wwan0] = &sniffers;
    let seen = wlan0.wait_for("an unbound packet", |it| destination(it).to_string() == FAR);
    let home: ipnet::Ipv6Net = "2001:db8:100::/40".parse().unwrap();
    let leaked = seen.into_iter().chain(wwan0.packets()).find(|it| home.contains(&source(it)));
    assert_eq!(leaked, None);
}

#[test]
fn an_agent_routes_to_who_is_bound() {
    let Some(world) = World::new() else { return };
    let before = forwarding(&world);
    let tun = world.mobile.run(|| Tun::open("mtun0", 2).unwrap());
    let index = tun.index();
    let mobile = ["2001:db8:200::42/128", "2001:db8:200:4200::/56"];
    let mobile = mobile.map(|it| it.parse().unwrap());
    let idle = AgentRoutes { reserved: [mobile[1]].into(), ..AgentRoutes::default() };
    let bound = AgentRoutes { bound: [(index, mobile.into())].into(), ..idle.clone() };
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        Sysctls::open(None).quiet_tunnel("mtun0").unwrap();
        netlink.prepare_tunnel(index, 1460, None).await.unwrap();
        netlink.reconcile(&idle.desired()).await.unwrap();
        let changes = netlink.update(&idle.desired(), &bound.desired()).await.unwrap();
        assert_eq!(changes, Changes { added: 3, removed: 0 });
        assert_eq!(netlink.reconcile(&bound.desired()).await.unwrap(), Changes::default());
    });
    let sender = world.mobile.run(|| Uplink::open(None).unwrap());
    let to = |address| packet(59, CARE_OF, address, &[]);
    sender.send(&to("2001:db8:200::42")).unwrap();
    sender.send(&to("2001:db8:200:4242::1")).unwrap();
    assert_eq!(tunnelled(&tun, 2).len(), 2);
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let changes = netlink.update(&bound.desired(), &idle.desired()).await.unwrap();
        assert_eq!(changes, Changes { added: 0, removed: 3 });
    });
    assert!(sender.send(&to("2001:db8:200:4242::1")).is_err(), "reserved, so nowhere");
    world.mobile.block_on(async || Netlink::open().unwrap().cleanup().await.unwrap());
    drop(tun);
    eventually("the interface is gone", || forwarding(&world) == before);
}

#[test]
fn a_correspondent_wraps_what_its_own_address_sends_and_nothing_else() {
    let Some(world) = World::new() else { return };
    let before = forwarding(&world);
    let tun = world.mobile.run(|| Tun::open("mtun0", 2).unwrap());
    let index = tun.index();
    // The kernel gives sockets that have no source the second address towards this one.
    const BOUND: &str = "2001:db8:3::42";
    let routes = |own: &str| CorrespondentRoutes {
        tunnel: index,
        bound: [(own.parse().unwrap(), [BOUND.parse().unwrap()].into())].into(),
    };
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        Sysctls::open(None).quiet_tunnel("mtun0").unwrap();
        netlink.prepare_tunnel(index, 1460, None).await.unwrap();
    });
    let desired = routes(SECOND_CARE_OF).desired();
    assert_eq!(reconcile(&world, &desired), Changes { added: 2, removed: 0 });
    assert_eq!(reconcile(&world, &desired), Changes::default(), "all there");
    let wlan0 = Sniffer::new(&world.access, "a0");
    let by_wlan0 = |from: &str, to: &str| {
        let fits = |it: &[u8]| source(it).to_string() == from && destination(it).to_string() == to;
        wlan0.wait_for(&format!("{from} to {to}"), fits);
    };
    send(&world, SECOND_CARE_OF, BOUND);
    send(&world, "::", BOUND);
    let own = format!("{SECOND_CARE_OF} {BOUND}");
    assert_eq!(tunnelled(&tun, 2), [own.clone(), own]);
    send(&world, CARE_OF, BOUND);
    by_wlan0(CARE_OF, BOUND);
    send(&world, SECOND_CARE_OF, FAR);
    by_wlan0(SECOND_CARE_OF, FAR);

    // Bound to an address that sockets without a source are not given: their route stays.
    reconcile(&world, &routes(CARE_OF).desired());
    send(&world, "::", BOUND);
    send(&world, CARE_OF, BOUND);
    assert_eq!(tunnelled(&tun, 1), [format!("{CARE_OF} {BOUND}")]);

    world.mobile.block_on(async || Netlink::open().unwrap().cleanup().await.unwrap());
    drop(tun);
    eventually("the interface is gone", || forwarding(&world) == before);
}
