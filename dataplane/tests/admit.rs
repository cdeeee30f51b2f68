//! Who may enter, reason by reason.

mod support;

use std::net::IpAddr;

use mtun_dataplane::{DropReason, IgnoreReason, OuterKey, PathId, Side, Verdict, admit};
use mtun_policy::HomeAddress;
use support::*;

fn outer(source: &str, destination: &str) -> OuterKey {
    OuterKey { source: IpAddr::V6(v6(source)), destination: IpAddr::V6(v6(destination)) }
}

const STRANGER: &str = "2001:db8:9::1";

/// req TN-01, TN-02, MC-17, HA-63, HA-64, HA-67, NH-16, NH-17.
#[test]
fn at_the_agent() {
    let mut bindings = routed(uplinks());
    bindings[1].usable = false;
    let snapshot = agent_with(registration(bindings, figure_11()));
    let ok = |number: u16| Ok(Some(bid(number)));
    let cases: &[(&str, OuterKey, &str, &str, Result<_, DropReason>)] = &[
        ("home address by 1", outer(WLAN, AGENT), HOME, PEER, ok(1)),
        ("prefix by 2, though it carries nothing out", outer(WWAN, AGENT), INSIDE, PEER, ok(2)),
        ("to the agent", outer(WLAN, AGENT), HOME, AGENT, ok(1)),
        ("stranger", outer(STRANGER, AGENT), HOME, PEER, Err(DropReason::NotCareOf)),
        ("not to the agent", outer(WLAN, STRANGER), HOME, PEER, Err(DropReason::OuterDestination)),
        ("forged inner", outer(WLAN, AGENT), PEER, STRANGER, Err(DropReason::InnerUnknown)),
        ("towards a home", outer(WLAN, AGENT), PEER, HOME, Err(DropReason::InnerUnknown)),
        ("to itself", outer(WLAN, AGENT), INSIDE, HOME, Err(DropReason::Hairpin)),
    ];
    for (what, outer, source, destination, want) in cases {
        let admitted = admit(&snapshot, outer, &key(source, destination, 17, Some((1, 2))));
        assert_eq!(admitted.map(|a| a.binding.bid), *want, "{what}");
    }
}

/// req TN-01, TN-02, TN-06.
#[test]
fn at_the_mobile() {
    let snapshot = mobile();
    let ok = |number: u16| Ok(Some(bid(number)));
    let cases: &[(&str, OuterKey, &str, &str, Result<_, DropReason>)] = &[
        ("to the node", outer(AGENT, WLAN), PEER, HOME, ok(1)),
        ("to the network", outer(AGENT, WWAN), PEER, INSIDE, ok(2)),
        ("stranger", outer(STRANGER, WLAN), PEER, HOME, Err(DropReason::NotHomeAgent)),
        ("not a care-of", outer(AGENT, STRANGER), PEER, HOME, Err(DropReason::OuterDestination)),
        ("not our home", outer(AGENT, WLAN), PEER, STRANGER, Err(DropReason::InnerUnknown)),
        ("claims our source", outer(AGENT, WLAN), INSIDE, HOME, Err(DropReason::Hairpin)),
    ];
    for (what, outer, source, destination, want) in cases {
        let admitted = admit(&snapshot, outer, &key(source, destination, 17, Some((1, 2))));
        assert_eq!(admitted.map(|a| a.binding.bid), *want, "{what}");
    }
}

#[test]
fn another_mobiles_care_of_address_does_not_admit() {
    let mut other =
        registration(vec![binding(Some(1), "2001:db8:3::7", PathId::ROUTED)], figure_11());
    other.home_address = HomeAddress(v6("2001:db8:100::43"));
    other.prefixes.clear();
    let mut snapshot = agent();
    snapshot.cache = snapshot.cache.with(other);
    let forged = admit(&snapshot, &outer("2001:db8:3::7", AGENT), &key(HOME, PEER, 17, None));
    assert_eq!(forged.map(|a| a.side), Err(DropReason::NotCareOf));
    let between = key("2001:db8:100::43", HOME, 17, None);
    let admitted = admit(&snapshot, &outer("2001:db8:3::7", AGENT), &between).unwrap();
    assert_eq!(admitted.side, Side::Far, "mobile to mobile goes through");
}

/// Every reason of the way in, by the bytes that cause it.
/// req TN-03, TN-04, TN-13, MH-15.
#[test]
fn every_inbound_reason_is_reached_and_counted() {
    let good = udp(PEER, HOME, (1, 2), 100);
    let with = |at: usize, octet: u8| {
        let mut packet = good.clone();
        packet[at] = octet;
        packet
    };
    let inner = |source: &str, destination: &str| udp(source, destination, (1, 2), 100);
    let rh0 = |segments: u8, destination: &str| {
        let mut routing = vec![17, 2, 0, segments, 0, 0, 0, 0];
        routing.extend_from_slice(&v6(HOME).octets());
        routing.extend_from_slice(&[0, 1, 0, 2, 0, 8, 0, 0]);
        raw(v6(PEER), v6(destination), 43, &routing)
    };
    let rh2 = |address: &str| {
        let mut routing = vec![17, 2, 2, 1, 0, 0, 0, 0];
        routing.extend_from_slice(&v6(address).octets());
        routing.extend_from_slice(&[0, 1, 0, 2, 0, 8, 0, 0]);
        raw(v6(PEER), v6(HOME), 43, &routing)
    };
    let hao = |next: u8, address: &str, payload: &[u8]| {
        let mut option = vec![next, 2, 1, 2, 0, 0, 0xc9, 16];
        option.extend_from_slice(&v6(address).octets());
        option.extend_from_slice(payload);
        raw(v6(AGENT), v6(WLAN), 60, &option)
    };
    let congested = {
        let mut packet = wrapped(AGENT, WLAN, &good);
        packet[1] |= 0x30;
        packet
    };
    let in_tunnel = |inner: &[u8]| wrapped(AGENT, WLAN, inner);
    let cut_outer = in_tunnel(&good)[..100].to_vec();
    let many_headers = {
        let mut chain = Vec::new();
        (0..9).for_each(|_| chain.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]));
        raw(v6(PEER), v6(HOME), 60, &chain)
    };
    let unknown_option = {
        let mut packet = vec![41, 0, 0x85, 1, 0, 1, 1, 0];
        packet.extend_from_slice(&good);
        raw(v6(AGENT), v6(WLAN), 60, &packet)
    };
    let mut routed_tunnel = vec![41, 0, 7, 1, 0, 0, 0, 0];
    routed_tunnel.extend_from_slice(&good);

    let cases: &[(&str, Vec<u8>, DropReason)] = &[
        ("no IPv6 header", vec![0x45; 60], DropReason::OuterMalformed),
        ("cut", cut_outer, DropReason::OuterMalformed),
        ("unknown option", unknown_option, DropReason::OuterMalformed),
        ("not the agent", wrapped(STRANGER, WLAN, &good), DropReason::NotHomeAgent),
        ("empty", in_tunnel(&[]), DropReason::InnerLength),
        ("half a header", in_tunnel(&good[..39]), DropReason::InnerLength),
        ("length too long", in_tunnel(&with(5, 200)), DropReason::InnerLength),
        ("length too short", in_tunnel(&with(5, 20)), DropReason::InnerLength),
        ("IPv4", in_tunnel(&with(0, 0x45)), DropReason::InnerVersion),
        ("version 7", in_tunnel(&with(0, 0x70)), DropReason::InnerVersion),
        ("too many headers", in_tunnel(&many_headers), DropReason::InnerHeaders),
        ("chain into nothing", in_tunnel(&with(6, 60)), DropReason::InnerHeaders),
        ("source ::", in_tunnel(&inner("::", HOME)), DropReason::InnerSourceScope),
        ("source ::1", in_tunnel(&inner("::1", HOME)), DropReason::InnerSourceScope),
        ("source group", in_tunnel(&inner("ff0e::1", HOME)), DropReason::InnerSourceScope),
        ("source fe80", in_tunnel(&inner("fe80::1", HOME)), DropReason::InnerSourceScope),
        ("source fec0", in_tunnel(&inner("fec0::1", HOME)), DropReason::InnerSourceScope),
        (
            "source mapped",
            in_tunnel(&inner("::ffff:192.0.2.1", HOME)),
            DropReason::InnerSourceScope,
        ),
        ("to a group", in_tunnel(&inner(PEER, "ff02::1")), DropReason::InnerDestinationScope),
        ("to fe80", in_tunnel(&inner(PEER, "fe80::1")), DropReason::InnerDestinationScope),
        ("to ::1", in_tunnel(&inner(PEER, "::1")), DropReason::InnerDestinationScope),
        ("to ::", in_tunnel(&inner(PEER, "::")), DropReason::InnerDestinationScope),
        (
            "to mapped",
            in_tunnel(&inner(PEER, "::ffff:192.0.2.1")),
            DropReason::InnerDestinationScope,
        ),
        ("type 0", in_tunnel(&rh0(1, HOME)), DropReason::RoutingHeader),
        ("type 2, another home", in_tunnel(&rh2(PEER)), DropReason::RoutingHeader),
        ("outer routing", raw(v6(AGENT), v6(WLAN), 43, &routed_tunnel), DropReason::RoutingHeader),
        ("not for us", in_tunnel(&inner(PEER, STRANGER)), DropReason::InnerUnknown),
        ("our own source", in_tunnel(&inner(INSIDE, HOME)), DropReason::Hairpin),
        ("congestion unheard", congested, DropReason::Congestion),
        ("HAO that says we are it", hao(17, HOME, &[0; 8]), DropReason::Hairpin),
        ("HAO on a tunnel packet, the same", hao(41, HOME, &good), DropReason::Hairpin),
        ("HAO group on data", hao(17, "ff0e::1", &[0; 8]), DropReason::HomeAddressOption),
        ("HAO group", hao(135, "ff02::1", &[0; 8]), DropReason::HomeAddressOption),
    ];
    for (what, packet, want) in cases {
        let mut node = Node::new(mobile());
        assert_eq!(node.inbound(packet), Verdict::Drop(*want), "{what}");
        assert_eq!(node.engine.counters().snapshot().dropped(*want), 1, "{what}");
        assert!(node.out.is_empty(), "{what}: nothing is answered");
    }
    let mut node = Node::new(mobile());
    assert_eq!(node.inbound(&in_tunnel(&rh2(HOME))), Verdict::Deliver, "type 2, this home");
    assert_eq!(node.inbound(&in_tunnel(&rh0(0, HOME))), Verdict::Deliver, "type 0, used up");
    let mut node = Node::new(agent());
    let unknown = wrapped(STRANGER, AGENT, &inner(HOME, PEER));
    assert_eq!(node.inbound(&unknown), Verdict::Drop(DropReason::NotCareOf));
}

#[test]
fn nh_20_what_a_visiting_mobile_needs_passes() {
    // Its agent answers a node that registered from an address behind this router.
    let visitor = "2001:db8:200::5";
    let mut acknowledgement = vec![135, 2, 2, 1, 0, 0, 0, 0];
    acknowledgement.extend_from_slice(&v6(visitor).octets());
    acknowledgement.extend_from_slice(&[59, 1, 6, 0, 0, 0, 0, 0, 0, 1, 0, 105, 1, 2, 0, 0]);
    let inner = raw(v6("2001:db8:200::1"), v6(INSIDE), 43, &acknowledgement);
    let mut node = Node::new(mobile());
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &inner)), Verdict::Deliver);
    assert_eq!(node.out, inner, "unchanged");
    // Another kind of header that still leads somewhere does not.
    let mut other = inner.clone();
    other[42] = 7;
    let dropped = Verdict::Drop(DropReason::RoutingHeader);
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &other)), dropped);
}

#[test]
fn what_is_not_for_the_tunnel_is_left_to_the_kernel() {
    let mut node = Node::new(mobile());
    let cases: &[(&str, Vec<u8>, IgnoreReason)] = &[
        ("to somebody else", udp(PEER, STRANGER, (1, 2), 60), IgnoreReason::NotToUs),
        ("tunnel of somebody else", wrapped(AGENT, STRANGER, &[0; 40]), IgnoreReason::NotToUs),
        ("plain", udp(PEER, WLAN, (1, 2), 60), IgnoreReason::NotTunnelled),
        (
            "echo request",
            raw(v6(PEER), v6(WLAN), 58, &[128, 0, 0, 0, 0, 0, 0, 0]),
            IgnoreReason::NotTunnelled,
        ),
    ];
    for (what, packet, want) in cases {
        assert_eq!(node.inbound(packet), Verdict::Ignore(*want), "{what}");
        assert!(node.engine.counters().snapshot().ignored(*want) > 0, "{what}");
    }
}
