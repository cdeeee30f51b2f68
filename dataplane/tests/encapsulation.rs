//! What leaves, octet by octet, read by another reader than ours.

mod support;

use std::collections::HashSet;

use etherparse::{Ipv6Header, NetSlice, SlicedPacket, TransportSlice};
use mtun_dataplane::wire::packets;
use mtun_dataplane::{DropReason, PathId, Verdict, inner_ecn, inner_mtu, outer_ecn};
use support::*;

/// req TN-07.
#[test]
fn a_plain_packet_gets_forty_octets() {
    let mut node = Node::new(mobile());
    let inner = udp(HOME, PEER, (5000, 53), 100);
    assert_eq!(node.outbound(&inner), Verdict::Send { path: PathId(1) });
    let (outer, rest) = Ipv6Header::from_slice(&node.out).unwrap();
    assert_eq!(outer.source, v6(WLAN).octets());
    assert_eq!(outer.destination, v6(AGENT).octets());
    assert_eq!(outer.next_header.0, 41);
    assert_eq!(outer.hop_limit, 64);
    assert_eq!(usize::from(outer.payload_length), inner.len());
    assert_ne!(outer.flow_label.value(), 0);
    assert_eq!(rest, inner, "the inner packet, hop limit and all");
}

#[test]
fn the_other_end_unwraps_the_same_octets() {
    let (mut mobile, mut agent) = (Node::new(mobile()), Node::new(agent()));
    let up = tcp(INSIDE, PEER, (40_000, 22));
    assert_eq!(mobile.outbound(&up), Verdict::Send { path: PathId(2) });
    assert_eq!(agent.inbound(&mobile.out), Verdict::Deliver);
    assert_eq!(agent.out, up);
    // The way back is the way it came.
    let down = tcp(PEER, INSIDE, (22, 40_000));
    assert_eq!(agent.outbound(&down), Verdict::Send { path: PathId::ROUTED });
    let outer = Ipv6Header::from_slice(&agent.out).unwrap().0;
    assert_eq!(outer.destination, v6(WWAN).octets());
    assert_eq!(mobile.inbound(&agent.out), Verdict::Deliver);
    assert_eq!(mobile.out, down);
    let flows = mobile.engine.flows();
    assert_eq!(flows.len(), 1, "both directions are one flow");
    assert_eq!((flows[0].bid_out, flows[0].bid_in), (Some(bid(2)), Some(bid(2))));
    assert_eq!((flows[0].packets_out, flows[0].packets_in), (1, 1));
}

/// req TN-11.
#[test]
fn ecn_all_sixteen() {
    // RFC 6040 figure 4; rows inner, columns outer: Not-ECT, ECT(1), ECT(0), CE.
    let (not, one, zero, ce) = (0, 1, 2, 3);
    let table: [(u8, [Option<u8>; 4]); 4] = [
        (not, [Some(not), Some(not), Some(not), None]),
        (one, [Some(one), Some(one), Some(one), Some(ce)]),
        (zero, [Some(zero), Some(one), Some(zero), Some(ce)]),
        (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
    ];
    for (inner, row) in table {
        assert_eq!(outer_ecn(inner), inner, "normal mode copies");
        for (outer, want) in (0u8..).zip(row) {
            assert_eq!(inner_ecn(outer, inner), want, "inner {inner} outer {outer}");
            let mut packet = udp(PEER, HOME, (1, 2), 80);
            packet[1] |= inner << 4;
            let mut tunnelled = wrapped(AGENT, WLAN, &packet);
            tunnelled[1] |= outer << 4;
            let mut node = Node::new(mobile());
            let verdict = node.inbound(&tunnelled);
            match want {
                None => assert_eq!(verdict, Verdict::Drop(DropReason::Congestion)),
                Some(ecn) => {
                    packet[1] = packet[1] & 0xcf | ecn << 4;
                    assert_eq!(verdict, Verdict::Deliver);
                    assert_eq!(node.out, packet, "nothing but ECN changes");
                }
            }
        }
    }
}

/// req TN-11.
#[test]
fn dscp_goes_out_and_does_not_come_back() {
    for traffic_class in 0..=255u8 {
        let mut inner = udp(HOME, PEER, (1, 2), 80);
        inner[0] |= traffic_class >> 4;
        inner[1] |= traffic_class << 4;
        let mut node = Node::new(mobile());
        node.outbound(&inner);
        let outer = Ipv6Header::from_slice(&node.out).unwrap().0;
        assert_eq!(outer.traffic_class, traffic_class);
        let mut back = wrapped(AGENT, WLAN, &udp(PEER, HOME, (1, 2), 80));
        back[0] |= traffic_class >> 4;
        back[1] |= traffic_class << 4 & 0xc0;
        node.inbound(&back);
        let inner = Ipv6Header::from_slice(&node.out).unwrap().0;
        assert_eq!(inner.traffic_class >> 2, 0);
    }
}

/// req TN-11.
#[test]
fn a_flow_keeps_its_label_and_flows_differ() {
    let mut node = Node::new(mobile());
    let mut label = |port: u16| {
        node.outbound(&udp(HOME, PEER, (port, 53), 100));
        Ipv6Header::from_slice(&node.out).unwrap().0.flow_label.value()
    };
    assert_eq!(label(1), label(1));
    let labels: HashSet<_> = (1..200).map(&mut label).collect();
    assert!(labels.len() > 190, "{} labels for 199 flows", labels.len());
    assert!(!labels.contains(&0));
}

/// A tunnel packet of somebody behind us, with a Tunnel Encapsulation Limit if asked.
fn nested(limit: Option<u8>) -> Vec<u8> {
    let innermost = udp(PEER, INSIDE, (1, 2), 100);
    match limit {
        None => raw(v6(INSIDE), v6(PEER), 41, &innermost),
        Some(limit) => {
            let mut payload = vec![41, 0, 4, 1, limit, 1, 1, 0];
            payload.extend_from_slice(&innermost);
            raw(v6(INSIDE), v6(PEER), 60, &payload)
        }
    }
}

#[test]
fn tn_05_encapsulation_limit() {
    for (inner, want) in [(None, 4), (Some(4), 3), (Some(1), 0), (Some(255), 254)] {
        let mut node = Node::new(mobile());
        let packet = nested(inner);
        assert_eq!(node.outbound(&packet), Verdict::Send { path: PathId(1) });
        assert_eq!(node.out[6], 60, "a Destination Options header comes first");
        assert_eq!(node.out[40..48], [41, 0, 4, 1, want, 1, 1, 0]);
        assert_eq!(node.out[48..], packet);
        assert_eq!(usize::from(node.out[4]) << 8 | usize::from(node.out[5]), packet.len() + 8);
    }
    let mut node = Node::new(mobile());
    let packet = nested(Some(0));
    assert_eq!(node.outbound(&packet), Verdict::Answer(DropReason::EncapsulationLimit));
    let problem = SlicedPacket::from_ip(&node.out).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = problem.transport else { panic!("ICMPv6") };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (4, 0));
    assert_eq!(icmp.bytes5to8(), 44u32.to_be_bytes(), "points at the limit's value");
}

#[test]
fn tn_06_a_loop_of_tunnels_ends() {
    // The care-of address lies in the mobile's own prefix: each outer packet comes back.
    let inside = binding(Some(1), INSIDE, PathId::ROUTED);
    let mut node = Node::new(agent_with(registration(vec![inside], figure_11())));
    let mut packet = udp(PEER, HOME, (1, 2), 100);
    let mut rounds = 0;
    while let Verdict::Send { .. } = node.outbound(&packet) {
        packet = node.out.clone();
        rounds += 1;
        assert!(rounds < 10, "never ends");
    }
    assert_eq!(rounds, 6);
    assert_eq!(node.engine.counters().snapshot().dropped(DropReason::EncapsulationLimit), 1);
}

#[test]
fn inner_mtu_of_a_path() {
    for (path, overhead, want) in
        [(1500, 40, 1460), (1500, 48, 1452), (1280, 40, 1240), (0, 40, 1240), (9000, 40, 8960)]
    {
        assert_eq!(inner_mtu(path, overhead), want);
    }
}

#[test]
fn tn_09_too_big_or_fragmented() {
    struct Row(u16, usize, Result<usize, u32>);
    let table = [
        Row(1500, 1460, Ok(1)),
        Row(1500, 1461, Err(1460)),
        Row(1400, 1360, Ok(1)),
        Row(1400, 1361, Err(1360)),
        Row(1320, 1280, Ok(1)),
        Row(1320, 1281, Err(1280)),
        Row(1300, 1260, Ok(1)),
        Row(1300, 1261, Ok(2)),
        Row(1300, 1280, Ok(2)),
        Row(1300, 1281, Err(1280)),
        Row(1280, 1240, Ok(1)),
        Row(1280, 1280, Ok(2)),
        Row(0, 1280, Ok(2)),
    ];
    for Row(mtu, length, want) in table {
        let mut bindings = uplinks();
        bindings[0].mtu = mtu;
        let mut node = Node::new(mobile_with(registration(bindings, figure_11())));
        let inner = udp(INSIDE, PEER, (1, 2), length);
        let verdict = node.outbound(&inner);
        match want {
            Ok(pieces) => {
                assert_eq!(verdict, Verdict::Send { path: PathId(1) }, "{mtu} {length}");
                let outer: Vec<_> = packets(&node.out).collect();
                assert_eq!(outer.len(), pieces, "{mtu} {length}");
                assert!(outer.iter().all(|p| p.len() <= usize::from(mtu.max(1280))));
                assert_eq!(outer.iter().map(|p| p.len()).sum::<usize>(), node.out.len());
                let mut far = Node::new(agent());
                let last = outer.iter().map(|piece| far.inbound(piece)).last();
                assert_eq!(last, Some(Verdict::Deliver), "{mtu} {length}");
                assert_eq!(far.out, inner);
            }
            Err(told) => {
                assert_eq!(verdict, Verdict::Answer(DropReason::TooBig), "{mtu} {length}");
                let answer = SlicedPacket::from_ip(&node.out).unwrap();
                let Some(NetSlice::Ipv6(ip)) = &answer.net else { panic!("IPv6") };
                assert_eq!(ip.header().source_addr(), v6(HOME));
                assert_eq!(ip.header().destination_addr(), v6(INSIDE));
                let Some(TransportSlice::Icmpv6(icmp)) = answer.transport else { panic!() };
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (2, 0));
                assert_eq!(icmp.bytes5to8(), told.to_be_bytes());
                assert!(icmp.is_checksum_valid(
                    ip.header().source_addr().octets(),
                    ip.header().destination_addr().octets()
                ));
                assert!(node.out.len() <= 1280);
                assert_eq!(icmp.payload(), &inner[..icmp.payload().len()]);
            }
        }
    }
}

#[test]
fn oversize_is_refused_by_the_length_field() {
    let mut bindings = uplinks();
    bindings[0].mtu = u16::MAX;
    let mut node = Node::new(mobile_with(registration(bindings, figure_11())));
    let jumbo = udp(HOME, PEER, (1, 2), 40 + 65_535);
    assert_eq!(node.outbound(&jumbo), Verdict::Answer(DropReason::TooBig));
}
