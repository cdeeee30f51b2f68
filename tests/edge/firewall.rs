//! Packets of Mobile IPv6 reach us and nobody answers them; others' packets are left alone.

use std::os::fd::AsFd;

use mtun::edge::nft::{Firewall, FirewallCounters, Guarded};
use mtun_dataplane::backend::{PacketSocket, RECEIVE_BUFFER, Uplink, Waker, wait};

use crate::world::*;

const PARAMETER_PROBLEM: u8 = 4;

/// A destination options header with one option at octet 46 of the packet, followed by nothing.
fn options(next_header: u8, option: u8) -> Vec<u8> {
    let mut header = vec![next_header, 2, 1, 2, 0, 0, option, 16];
    header.extend([0x20, 1, 0xd, 0xb8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42]);
    header
}

fn type_2_routing() -> Vec<u8> {
    let mut header = vec![59, 2, 2, 1, 0, 0, 0, 0];
    header.extend([0x20, 1, 0xd, 0xb8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42]);
    header
}

/// One of each kind that a kernel without Mobile IPv6 would answer.
fn kinds(destination: &str) -> Vec<(&'static str, Vec<u8>)> {
    let inner = udp(HOME, "2001:db8:c::9", 7);
    let fragment = [vec![41, 0, 0, 1, 0, 0, 0, 9], inner[..48].to_vec()].concat();
    let later_fragment = [vec![41, 0, 0, 48, 0, 0, 0, 9], inner[48..].to_vec()].concat();
    let mobility = with_checksum(135, ACCESS, destination, 4, vec![59, 0, 6, 0, 0, 0, 0, 0]);
    let mut broken = mobility.clone();
    broken[44] ^= 0xff;
    let of = |next_header, payload: &[u8]| packet(next_header, ACCESS, destination, payload);
    vec![
        ("tunnelled packet", of(41, &inner)),
        ("Mobility Header", mobility),
        ("Mobility Header with a bad checksum", broken),
        ("home address option", of(60, &options(59, 0xc9))),
        ("home address option and Mobility Header", {
            of(60, &[options(135, 0xc9), vec![59, 0, 6, 0, 0, 0, 0, 0]].concat())
        }),
        ("type 2 routing header", of(43, &type_2_routing())),
        ("home address option behind hop-by-hop options", {
            of(0, &[vec![60, 0, 1, 4, 0, 0, 0, 0], options(59, 0xc9)].concat())
        }),
        ("first fragment of a tunnelled packet", of(44, &fragment)),
        ("last fragment of a tunnelled packet", of(44, &later_fragment)),
    ]
}

fn guarded() -> Guarded {
    Guarded {
        returned: Default::default(),
        own: [HOME.parse().unwrap()].into(),
        uplinks: ["wlan0".into(), "wwan0".into()].into(),
        ours: [CARE_OF.parse().unwrap(), SECOND_CARE_OF.parse().unwrap()].into(),
        home: [HOME, NETWORK]
            .iter()
            .map(|it| it.parse().or(format!("{it}/128").parse()).unwrap())
            .collect(),
        also: ["lan0".into()].into(),
        ingress: ["lan1".into()].into(),
        translates: false,
    }
}

/// Sends `packets` from the access network and waits until a last one, which any kernel answers,
/// has been answered; returns what the access network heard back.
fn heard(world: &World, packets: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let sniffer = Sniffer::new(&world.access, "a0");
    let uplink = world.access.run(|| Uplink::open(None).unwrap());
    for (what, packet) in packets {
        uplink.send(packet).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let echo = with_checksum(58, ACCESS, CARE_OF, 2, vec![128, 0, 0, 0, 0, 1, 0, 1]);
    uplink.send(&echo).unwrap();
    let is_answer = |it: &[u8]| it[6] == 58 && it[40] == 129;
    let mut packets = sniffer.wait_for("an echo reply", is_answer);
    packets.retain(|it| source(it).to_string() == CARE_OF);
    packets
}

fn parameter_problems(packets: &[Vec<u8>]) -> usize {
    packets.iter().filter(|it| it[6] == 58 && it[40] == PARAMETER_PROBLEM).count()
}

#[test]
fn packet_sockets_see_what_the_firewall_keeps_from_the_kernel() {
    let Some(world) = World::new() else { return };
    // The kernel would limit how many errors it sends.
    world.mobile.shell("sysctl -qw net.ipv6.icmp.ratelimit=0");
    let kinds = kinds(CARE_OF);
    let bare = parameter_problems(&heard(&world, &kinds[..6]));
    if bare == 0 {
        println!("this kernel has Mobile IPv6: it answers none of them by itself");
    }

    let firewall = world.mobile.run(|| Firewall::install(guarded()).unwrap());
    let index = world.mobile.index("wlan0");
    let socket = world.mobile.run(|| PacketSocket::open(index).unwrap());
    let answers = heard(&world, &kinds);
    assert_eq!(parameter_problems(&answers), 0, "{answers:x?}");

    let mut seen = Vec::new();
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let (waker, mut ready) = (Waker::new().unwrap(), Vec::new());
    while seen.len() < kinds.len() {
        wait(&[socket.as_fd()], &waker, Some(PATIENCE), &mut ready).unwrap();
        assert_eq!(ready, [0], "only {} packets seen", seen.len());
        while let Some(received) = socket.recv(&mut buffer).unwrap() {
            let packet = &buffer[received.packet];
            let is_ours = packet[24..40] == kinds[0].1[24..40];
            if is_ours && packet[6] != 58 {
                seen.push(packet.to_vec());
            }
        }
    }
    for ((what, sent), seen) in kinds.iter().zip(&seen) {
        assert_eq!(sent, seen, "{what}");
    }
    assert_eq!(socket.statistics().unwrap().dropped, 0);
    let taken = kinds.len() as u64;
    let counters = world.mobile.run(|| firewall.counters().unwrap());
    assert_eq!(counters, FirewallCounters { taken, leaks: 0, foreign: 0 });
    world.mobile.run(|| firewall.remove().unwrap());
    assert_eq!(world.mobile.shell("nft list ruleset"), "");
    assert_eq!(parameter_problems(&heard(&world, &kinds[..6])), bare, "as before");
}

#[test]
fn packets_of_others_are_not_touched() {
    let Some(world) = World::new() else { return };
    let firewall = world.mobile.run(|| Firewall::install(guarded()).unwrap());
    let lan = Sniffer::new(&world.lan, "l0");
    let mut packets = kinds(LAN_HOST);
    // The last fragment alone would be thrown away by a host that reassembles on the way.
    packets.retain(|(what, _)| !what.contains("fragment"));
    heard(&world, &packets);
    let mut seen = Vec::new();
    for (what, sent) in &packets {
        let same = |it: &[u8]| it[8..] == sent[8..] && it[6] == sent[6];
        eventually(what, || {
            seen.extend(lan.packets());
            seen.iter().any(|it| same(it))
        });
    }
    assert_eq!(world.mobile.run(|| firewall.counters().unwrap()).taken, 0);

    // Neither are destination options to us that are not the home address.
    let other_option = packet(60, ACCESS, CARE_OF, &options(59, 0x3e));
    heard(&world, &[("another option", other_option)]);
    assert_eq!(world.mobile.run(|| firewall.counters().unwrap()).taken, 0);
}

#[test]
fn the_sets_follow_the_addresses() {
    let Some(world) = World::new() else { return };
    let tunnelled = [("tunnelled packet", packet(41, ACCESS, CARE_OF, &udp(HOME, CARE_OF, 7)))];
    let taken = |firewall: &Firewall| {
        heard(&world, &tunnelled);
        world.mobile.run(|| firewall.counters().unwrap().taken)
    };
    let mut firewall = world.mobile.run(|| Firewall::install(Guarded::default()).unwrap());
    assert_eq!(taken(&firewall), 0);
    world.mobile.run(|| firewall.update(guarded()).unwrap());
    assert_eq!(taken(&firewall), 1);
    let without = Guarded { ours: [SECOND_CARE_OF.parse().unwrap()].into(), ..guarded() };
    world.mobile.run(|| firewall.update(without).unwrap());
    assert_eq!(taken(&firewall), 1);
    // What a killed daemon left is replaced; its addresses stay guarded until ours are known.
    world.mobile.run(|| firewall.update(guarded()).unwrap());
    drop(firewall);
    let mut firewall = world.mobile.run(|| Firewall::install(Guarded::default()).unwrap());
    assert_eq!(taken(&firewall), 1);
    let without = Guarded { ours: [SECOND_CARE_OF.parse().unwrap()].into(), ..guarded() };
    world.mobile.run(|| firewall.update(without).unwrap());
    assert_eq!(taken(&firewall), 1);
    world.mobile.run(|| Firewall::remove_any().unwrap());
    world.mobile.run(|| Firewall::remove_any().unwrap());
    assert_eq!(world.mobile.shell("nft list ruleset"), "");
}

/// req MR-14.
/// req MR-14: on its home link a home source may leave in the plain, and by no other link.
#[test]
fn a_home_source_may_leave_by_its_home_link_alone() {
    let Some(world) = World::new() else { return };
    let network: ipnet::Ipv6Net = NETWORK.parse().unwrap();
    let returned = |link: &str| [(link.into(), network)].into();
    let elsewhere = Guarded { returned: returned("wwan0"), ..guarded() };
    let mut firewall = world.mobile.run(|| Firewall::install(elsewhere).unwrap());
    let sniffer = Sniffer::new(&world.access, "a0");
    let from_lan = world.lan.run(|| Uplink::open(None).unwrap());
    from_lan.send(&udp(LAN_HOST, ACCESS, 7)).unwrap();
    eventually("a leak stopped", || world.mobile.run(|| firewall.counters().unwrap()).leaks == 1);
    let at_home = Guarded { returned: returned("wlan0"), ..guarded() };
    world.mobile.run(|| firewall.update(at_home).unwrap());
    from_lan.send(&udp(LAN_HOST, ACCESS, 8)).unwrap();
    sniffer.wait_for("the packet by its home link", |it| it[6] == 17);
    // The home address itself is no part of what came home here.
    let local = world.mobile.run(|| Uplink::open(None).unwrap());
    assert!(local.send(&udp(HOME, ACCESS, 7)).is_err());
    world.mobile.run(|| firewall.update(guarded()).unwrap());
    from_lan.send(&udp(LAN_HOST, ACCESS, 9)).unwrap();
    eventually("a leak stopped again", || {
        world.mobile.run(|| firewall.counters().unwrap()).leaks == 3
    });
}

#[test]
fn nothing_with_a_home_source_leaves_in_the_plain() {
    let Some(world) = World::new() else { return };
    // Without any rule of ours the kernel would send it by the default route.
    let firewall = world.mobile.run(|| Firewall::install(guarded()).unwrap());
    let sniffer = Sniffer::new(&world.access, "a0");
    let from_lan = world.lan.run(|| Uplink::open(None).unwrap());
    let local = world.mobile.run(|| Uplink::open(None).unwrap());
    from_lan.send(&udp(LAN_HOST, ACCESS, 7)).unwrap();
    // An outer packet passes: its source is the care-of address.
    let inner = udp(HOME, ACCESS, 7);
    assert!(local.send(&inner).is_err(), "the sender is told");
    local.send(&packet(41, CARE_OF, ACCESS, &inner)).unwrap();
    let seen = sniffer.wait_for("the outer packet", |it| it[6] == 41);
    eventually("two leaks counted", || {
        world.mobile.run(|| firewall.counters().unwrap()).leaks == 2
    });
    let home: ipnet::Ipv6Net = "2001:db8:100::/40".parse().unwrap();
    let leaked = seen.iter().chain(&sniffer.packets()).any(|it| home.contains(&source(it)));
    assert!(!leaked);
}
