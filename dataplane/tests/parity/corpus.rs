//! The corpus: addresses, extension headers, fragments, sizes, malformed packets, every field.

use mtun_dataplane::abi::{Course, FastOutcome};
use mtun_dataplane::{Registration, Verdict, wire};
use mtun_policy::{Effective, Ingress, Otherwise, Outcome, TrafficSelector};

use crate::support::*;
use crate::twins::{NAMED, Twins};

/// What must become of a packet in the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Take,
    Leave(FastOutcome),
    /// Nothing is counted: it is no tunnel packet at all.
    Overlook,
}
use FastOutcome::*;
use Must::*;

fn set(packet: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    changes.iter().for_each(|(at, octet)| packet[*at] = *octet);
    packet
}

/// A packet with an extension header between its IPv6 header and UDP.
fn with_header(packet: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let header = [&[packet[6]], header].concat();
    raw(v6(HOME), v6(PEER), kind, &[&header, &packet[40..]].concat())
}

fn tos(packet: &[u8], class: u8) -> Vec<u8> {
    set(packet, &[(0, 0x60 | class >> 4), (1, packet[1] & 0x0f | class << 4)])
}

/// Packets of one installed flow, of its neighbours, and of nobody.
fn outbound() -> Vec<(&'static str, Vec<u8>, Must)> {
    let udp = udp(HOME, PEER, (7, 80), 100);
    let tcp_ = tcp(HOME, PEER, (9, 80));
    let sized = |length| crate::support::udp(HOME, PEER, (7, 80), length);
    vec![
        ("the packet itself", udp.clone(), Take),
        ("TCP", tcp_.clone(), Take),
        ("no octet of payload", sized(48), Take),
        ("one octet", sized(49), Take),
        ("as much as fits", sized(1460), Take),
        ("one octet more", sized(1461), Leave(TooBig)),
        ("as much as the link takes", sized(1500), Leave(TooBig)),
        ("Not-ECT, ECT(1)", tos(&udp, 1), Take),
        ("ECT(0)", tos(&udp, 2), Take),
        ("CE", tos(&udp, 3), Take),
        ("another DSCP, not seen before", tos(&udp, 0xb8), Leave(Unknown)),
        ("a flow label", set(&udp, &[(1, 0x0a), (2, 0xbc), (3, 0xde)]), Take),
        ("hop limit 1", set(&udp, &[(7, 1)]), Take),
        ("hop limit 0", set(&udp, &[(7, 0)]), Leave(NotPlain)),
        ("another source", set(&udp, &[(23, 0x43)]), Leave(Unknown)),
        ("another destination", set(&udp, &[(39, 0x0a)]), Leave(Unknown)),
        ("another source port", set(&udp, &[(41, 8)]), Leave(Unknown)),
        ("another destination port", set(&udp, &[(43, 81)]), Leave(Unknown)),
        ("another protocol", set(&udp, &[(6, 6)]), Leave(Unknown)),
        ("UDP-Lite", set(&udp, &[(6, 136)]), Leave(NotPlain)),
        ("ICMPv6", set(&udp, &[(6, 58)]), Leave(NotPlain)),
        ("Mobility Header", set(&udp, &[(6, 135)]), Leave(NotPlain)),
        ("version 5", set(&udp, &[(0, 0x50)]), Leave(NotPlain)),
        ("version 4", set(&udp, &[(0, 0x45)]), Leave(NotPlain)),
        ("a length that lies upwards", set(&udp, &[(5, 61)]), Leave(NotPlain)),
        ("a length that lies downwards", set(&udp, &[(5, 59)]), Leave(NotPlain)),
        ("cut in the ports", raw(v6(HOME), v6(PEER), 17, &[0, 7, 0]), Leave(NotPlain)),
        ("nothing behind the header", raw(v6(HOME), v6(PEER), 17, &[]), Leave(NotPlain)),
        ("hop-by-hop options", with_header(&udp, 0, &[0, 1, 4, 0, 0, 0, 0]), Leave(NotPlain)),
        ("destination options", with_header(&udp, 60, &[0, 1, 4, 0, 0, 0, 0]), Leave(NotPlain)),
        ("a routing header", with_header(&udp, 43, &[0, 3, 0, 0, 0, 0, 0]), Leave(NotPlain)),
        ("a first fragment", with_header(&udp, 44, &[0, 0, 1, 0, 0, 0, 9]), Leave(NotPlain)),
        ("a later fragment", with_header(&udp, 44, &[0, 0, 8, 0, 0, 0, 9]), Leave(NotPlain)),
        ("a tunnel packet", raw(v6(HOME), v6(PEER), 41, &udp), Leave(NotPlain)),
        ("a source that does not travel", set(&udp, &[(8, 0xfe), (9, 0x80)]), Leave(Unknown)),
        ("a multicast destination", set(&udp, &[(24, 0xff)]), Leave(Unknown)),
        ("from within the prefix", crate::support::udp(INSIDE, PEER, (7, 80), 100), Take),
    ]
}

/// What the engine sends is what the program makes; what must be taken is.
fn compare_out(twins: &mut Twins, what: &str, packet: &[u8], must: Must) {
    let mut fast = None;
    let outcome = twins.outcome_of(|it| fast = it.fast(Course::Out, packet, 0));
    match must {
        Take => assert_eq!(outcome, Some(Sent), "{what}"),
        Leave(why) => assert_eq!(outcome, Some(why), "{what}"),
        Overlook => assert_eq!(outcome, None, "{what}"),
    }
    let slow = twins.outbound(Ingress::LOCAL, packet);
    let Some(fast) = fast else { return };
    assert!(matches!(slow.verdict, Verdict::Send { .. }), "{what}: {slow:?}");
    assert_eq!(fast, slow.octets, "{what}");
}

fn install_out(twins: &mut Twins) {
    for packet in
        [udp(HOME, PEER, (7, 80), 100), tcp(HOME, PEER, (9, 80)), udp(INSIDE, PEER, (7, 80), 100)]
    {
        twins.install_out(Ingress::LOCAL, &packet);
    }
}

#[test]
fn what_leaves_a_mobile_is_the_same() {
    let Some(mut twins) = Twins::new(mobile()) else { return };
    install_out(&mut twins);
    for (what, packet, must) in outbound() {
        compare_out(&mut twins, what, &packet, must);
    }
}

#[test]
fn what_leaves_an_agent_is_the_same() {
    let Some(mut twins) = Twins::new(agent()) else { return };
    let (udp, tcp) = (udp(PEER, HOME, (80, 7), 200), tcp(PEER, INSIDE, (80, 9)));
    twins.install_out(Ingress::OTHER, &udp);
    twins.install_out(Ingress::OTHER, &tcp);
    for packet in [&udp, &tcp] {
        let fast = twins.fast(Course::Out, packet, 5).expect("it is installed");
        assert_eq!(fast, twins.outbound(Ingress::OTHER, packet).octets);
        assert_eq!(twins.fast(Course::Out, packet, 0), None, "not from a local socket");
    }
}

/// Packets that arrive at the mobile by its first link, around one installed flow.
fn inbound() -> Vec<(&'static str, Vec<u8>, Must)> {
    let inner = udp(PEER, HOME, (80, 7), 100);
    let whole = wrapped(AGENT, WLAN, &inner);
    let around = |inner: &[u8]| wrapped(AGENT, WLAN, inner);
    let mut cases = vec![
        ("the packet itself", whole.clone(), Take),
        ("TCP", around(&tcp(PEER, HOME, (80, 9))), Take),
        ("another size", around(&udp(PEER, HOME, (80, 7), 1200)), Take),
        ("another inner DSCP", around(&tos(&inner, 0xb8)), Take),
        ("another outer DSCP", tos(&whole, 0xb8), Take),
        ("inner hop limit 0", around(&set(&inner, &[(7, 0)])), Take),
        ("outer hop limit 0", set(&whole, &[(7, 0)]), Take),
        ("from another agent", wrapped("2001:db8:100::2", WLAN, &inner), Leave(OtherEnds)),
        ("by the other link", wrapped(AGENT, WWAN, &inner), Leave(OtherEnds)),
        ("to the home address", wrapped(AGENT, HOME, &inner), Leave(OtherEnds)),
        ("from the mobile itself", wrapped(WLAN, AGENT, &inner), Leave(OtherEnds)),
        ("another flow", around(&udp(PEER, HOME, (80, 8), 100)), Leave(Unknown)),
        ("the flow turned round", around(&udp(HOME, PEER, (7, 80), 100)), Leave(Unknown)),
        ("cut in the inner header", wrapped(AGENT, WLAN, &inner[..39]), Leave(NotPlain)),
        ("an inner length that lies", around(&set(&inner, &[(5, 61)])), Leave(NotPlain)),
        ("an outer length that lies", set(&whole, &[(5, 99)]), Leave(NotPlain)),
        ("padded", [&whole[..], &[0; 6]].concat(), Leave(NotPlain)),
        ("inner version 4", around(&set(&inner, &[(0, 0x45)])), Leave(NotPlain)),
        ("inner ICMPv6", around(&set(&inner, &[(6, 58)])), Leave(NotPlain)),
        ("outer fragment", with_fragment(&whole), Overlook),
        ("not wrapped at all", udp(PEER, WLAN, (80, 7), 100), Overlook),
    ];
    for (outer, inner_ecn, must) in [
        (0, 0, Take),
        (0, 1, Take),
        (0, 2, Take),
        (0, 3, Take),
        (1, 0, Take),
        (1, 1, Take),
        (1, 2, Take),
        (1, 3, Take),
        (2, 0, Take),
        (2, 1, Take),
        (2, 2, Take),
        (2, 3, Take),
        (3, 0, Leave(Congestion)),
        (3, 1, Take),
        (3, 2, Take),
        (3, 3, Take),
    ] {
        let inner = tos(&inner, 0x28 | inner_ecn);
        cases.push(("ECN, RFC 6040 §4.2", tos(&around(&inner), 0x50 | outer), must));
    }
    cases
}

fn with_fragment(whole: &[u8]) -> Vec<u8> {
    let header = [whole[6], 0, 0, 1, 0, 0, 0, 9];
    raw(v6(AGENT), v6(WLAN), 44, &[&header, &whole[40..]].concat())
}

fn compare_in(twins: &mut Twins, what: &str, packet: &[u8], must: Must) {
    let mut fast = None;
    let outcome = twins.outcome_of(|it| fast = it.fast(Course::In, packet, 0));
    match must {
        Take => assert_eq!(outcome, Some(Received), "{what}"),
        Leave(why) => assert_eq!(outcome, Some(why), "{what}"),
        Overlook => assert_eq!(outcome, None, "{what}"),
    }
    if let Some(fast) = fast {
        let slow = twins.inbound(packet);
        assert_eq!(slow.verdict, Verdict::Deliver, "{what}");
        assert_eq!(fast, slow.octets, "{what}");
    }
}

#[test]
fn what_arrives_at_a_mobile_is_the_same() {
    let Some(mut twins) = Twins::new(mobile()) else { return };
    twins.install_in(&wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100)));
    twins.install_in(&wrapped(AGENT, WLAN, &tcp(PEER, HOME, (80, 9))));
    for (what, packet, must) in inbound() {
        compare_in(&mut twins, what, &packet, must);
    }
}

#[test]
fn what_arrives_at_an_agent_is_the_same() {
    let Some(mut twins) = Twins::new(agent()) else { return };
    let inner = udp(INSIDE, PEER, (7, 80), 300);
    twins.install_in(&wrapped(WWAN, AGENT, &inner));
    for (source, destination, must) in
        [(WWAN, AGENT, Take), (WLAN, AGENT, Leave(OtherEnds)), (WWAN, PEER, Leave(OtherEnds))]
    {
        compare_in(&mut twins, source, &wrapped(source, destination, &inner), must);
    }
}

/// Every field of a packet that rules may look at either tells packets apart here too, or keeps the
/// flow out of the fast path.
#[test]
fn every_field_that_rules_look_at_counts() {
    let any = TrafficSelector::default;
    let by = |selector: TrafficSelector| -> Registration {
        let first = rule(0, vec![selector], Outcome::Candidates(vec![bid(2)]), Otherwise::NextRule);
        let rest = rule(1, Vec::new(), Outcome::Candidates(vec![bid(1)]), Otherwise::Any);
        registration(uplinks(), Effective::new([first, rest]).into())
    };
    let one = |address: &str| vec![format!("{address}/128").parse().unwrap()];
    let rules = [
        ("source", by(TrafficSelector { sources: one(HOME), ..any() }), true),
        ("destination", by(TrafficSelector { destinations: one(PEER), ..any() }), true),
        ("protocol", by(TrafficSelector { protocols: vec![6], ..any() }), true),
        ("source port", by(TrafficSelector { source_ports: vec![8..=8], ..any() }), true),
        (
            "destination port",
            by(TrafficSelector { destination_ports: vec![81..=81], ..any() }),
            true,
        ),
        ("DSCP", by(TrafficSelector { dscps: vec![46], ..any() }), true),
        ("ingress", by(TrafficSelector { ingresses: vec![Ingress(NAMED.1)], ..any() }), true),
        ("flow label", by(TrafficSelector { flow_labels: vec![5..=5], ..any() }), false),
        ("user", by(TrafficSelector { uids: vec![0..=0], ..any() }), false),
    ];
    let base = udp(HOME, PEER, (7, 80), 100);
    let packets = [
        base.clone(),
        udp(INSIDE, PEER, (7, 80), 100),
        set(&base, &[(39, 0x0a)]),
        tcp(HOME, PEER, (7, 80)),
        set(&base, &[(41, 8)]),
        set(&base, &[(43, 81)]),
        tos(&base, 0xb8),
        set(&base, &[(3, 5)]),
    ];
    let doors = [(0, Ingress::LOCAL), (5, Ingress::OTHER), (NAMED.0, Ingress(NAMED.1))];
    for (what, registration, held) in rules {
        let Some(mut twins) = Twins::new(mobile_with(registration)) else { return };
        // Each is installed in turn and must not be mistaken for what was installed before.
        for (packet, (from, ingress)) in packets.iter().flat_map(|p| doors.map(|door| (p, door))) {
            twins.install_out(ingress, packet);
            for (packet, (from, ingress)) in
                packets.iter().flat_map(|p| doors.map(|door| (p, door)))
            {
                if let Some(fast) = twins.fast(Course::Out, packet, from) {
                    assert_eq!(fast, twins.outbound(ingress, packet).octets, "{what}");
                }
            }
            let taken = twins.fast(Course::Out, packet, from).is_some();
            assert_eq!(taken, held, "{what}");
        }
    }
}

/// Packets made from a seed: an installed flow's with a few octets changed.
#[test]
fn whatever_is_taken_is_sent_as_decided() {
    let Some(mut twins) = Twins::new(mobile()) else { return };
    install_out(&mut twins);
    twins.install_in(&wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100)));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let (mut taken_out, mut taken_in) = (0, 0);
    for _ in 0..20_000 {
        let mut packet = udp(HOME, PEER, (7, 80), 48 + next(1500));
        for _ in 0..next(3) {
            let at = next(48);
            packet[at] = next(256) as u8;
        }
        let slow = twins.outbound(Ingress::LOCAL, &packet);
        if let Some(fast) = twins.fast(Course::Out, &packet, 0) {
            assert!(matches!(slow.verdict, Verdict::Send { .. }), "{packet:x?}");
            assert_eq!(fast, slow.octets);
            assert_eq!(wire::packets(&fast).count(), 1);
            taken_out += 1;
        }
        let mut packet = wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 48 + next(1300)));
        for _ in 0..next(3) {
            let at = next(88);
            packet[at] = next(256) as u8;
        }
        // First: what the engine admits by another binding ends the flow.
        let fast = twins.fast(Course::In, &packet, 0);
        let slow = twins.inbound(&packet);
        if let Some(fast) = fast {
            assert_eq!(slow.verdict, Verdict::Deliver, "{packet:x?}");
            assert_eq!(fast, slow.octets);
            taken_in += 1;
        }
    }
    assert!(taken_out > 5_000 && taken_in > 5_000, "{taken_out} {taken_in}");
}
