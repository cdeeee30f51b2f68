//! The packet loop: answers, errors that come back, signalling, fragments, counters.

mod support;

use std::time::Duration;

use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket, TransportSlice};
use mtun_dataplane::wire::{parse_signalling, pseudo_header_checksum, signalling_packet};
use mtun_dataplane::{Direction, DropReason, IgnoreReason, PathId, Settings, Snapshot, Verdict};
use mtun_policy::{BlockReply, Effective, Ingress, Otherwise, Outcome, RuleId};
use support::*;

/// Reads an answer: its ends, and the ICMPv6 message with a right checksum.
fn icmp(packet: &[u8]) -> (String, String, Icmpv6Slice<'_>) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("IPv6") };
    let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("ICMPv6") };
    assert!(icmp.is_checksum_valid(source.octets(), destination.octets()));
    (source.to_string(), destination.to_string(), icmp)
}

/// req TN-03, TN-04, TN-07, TN-13.
#[test]
fn every_outbound_reason_is_reached_and_counted() {
    use DropReason::*;
    let bound = || mobile();
    let unbound = || mobile_with(registration(Vec::new(), figure_11()));
    let silent = || {
        let block = rule(0, Vec::new(), Outcome::Block(BlockReply::Silent), Otherwise::NextRule);
        mobile_with(registration(uplinks(), Effective::new([block]).into()))
    };
    let good = udp(HOME, PEER, (1, 2), 100);
    let with = |at: usize, octet: u8| {
        let mut packet = good.clone();
        packet[at] = octet;
        packet
    };
    let type_0 = raw(v6(HOME), v6(PEER), 43, &[17, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]);
    type World<'w> = &'w dyn Fn() -> Snapshot;
    let cases: &[(&str, World<'_>, Vec<u8>, Verdict)] = &[
        ("foreign", &bound, udp(PEER, HOME, (1, 2), 60), Verdict::Drop(NotOurs)),
        ("nothing known", &Snapshot::default, good.clone(), Verdict::Drop(NotOurs)),
        ("no binding", &unbound, good.clone(), Verdict::Answer(NoUsableBinding)),
        ("silent block", &silent, good.clone(), Verdict::Drop(Blocked)),
        ("block", &bound, udp(HOME, PEER, (1, 23), 60), Verdict::Answer(Blocked)),
        ("reset", &bound, tcp(HOME, PEER, (1, 23)), Verdict::Answer(Blocked)),
        ("too big", &bound, udp(HOME, PEER, (1, 2), 1461), Verdict::Answer(TooBig)),
        ("hop limit", &bound, with(7, 0), Verdict::Answer(HopLimit)),
        ("hairpin", &bound, udp(HOME, INSIDE, (1, 2), 60), Verdict::Answer(Hairpin)),
        ("IPv4", &bound, with(0, 0x45), Verdict::Drop(InnerVersion)),
        ("nothing", &bound, Vec::new(), Verdict::Drop(InnerLength)),
        ("length", &bound, with(5, 1), Verdict::Drop(InnerHeaders)),
        ("length, ports whole", &bound, with(5, 9), Verdict::Drop(InnerLength)),
        ("headers", &bound, with(6, 60), Verdict::Drop(InnerHeaders)),
        ("group", &bound, udp(HOME, "ff02::1", (1, 2), 60), Verdict::Drop(InnerDestinationScope)),
        ("type 0", &bound, type_0.clone(), Verdict::Answer(RoutingHeader)),
        ("type 0, foreign", &Snapshot::default, type_0, Verdict::Drop(RoutingHeader)),
        ("link", &bound, udp("fe80::1", PEER, (1, 2), 60), Verdict::Drop(InnerSourceScope)),
    ];
    for (what, world, packet, want) in cases {
        let mut node = Node::new(world());
        assert_eq!(node.outbound(packet), *want, "{what}");
        let (Verdict::Drop(reason) | Verdict::Answer(reason)) = *want else { unreachable!() };
        let counters = node.engine.counters().snapshot();
        assert_eq!(counters.dropped(reason), 1, "{what}");
        assert_eq!(node.out.is_empty(), matches!(want, Verdict::Drop(_)), "{what}");
        assert!(counters.traffic.is_empty(), "{what}: nothing was carried");
    }
}

#[test]
fn answers_say_why() {
    let mut node = Node::new(mobile_with(registration(Vec::new(), figure_11())));
    let packet = udp(INSIDE, PEER, (1, 2), 100);
    node.outbound(&packet);
    let (source, destination, error) = icmp(&node.out);
    assert_eq!((source.as_str(), destination.as_str()), (HOME, INSIDE));
    assert_eq!((error.type_u8(), error.code_u8()), (1, 0), "no route");
    assert_eq!(error.payload(), packet);

    let mut node = Node::new(mobile());
    node.outbound(&udp(HOME, PEER, (1, 23), 100));
    assert_eq!((icmp(&node.out).2.type_u8(), icmp(&node.out).2.code_u8()), (1, 1), "prohibited");

    let mut expired = udp(INSIDE, PEER, (1, 2), 100);
    expired[7] = 0;
    node.outbound(&expired);
    assert_eq!((icmp(&node.out).2.type_u8(), icmp(&node.out).2.code_u8()), (3, 0), "hop limit");

    let mut node = Node::new(agent_with(registration(Vec::new(), figure_11())));
    node.outbound(&udp(PEER, HOME, (1, 2), 100));
    let (source, destination, _) = icmp(&node.out);
    assert_eq!((source.as_str(), destination.as_str()), (AGENT, PEER));
}

#[test]
fn a_reset_answers_a_connection() {
    let mut node = Node::new(mobile());
    node.outbound(&tcp(INSIDE, PEER, (4000, 23)));
    let answer = node.out.clone();
    let sliced = SlicedPacket::from_ip(&answer).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("IPv6") };
    assert_eq!(ip.header().source_addr(), v6(PEER), "as if the peer had said it");
    assert_eq!(ip.header().destination_addr(), v6(INSIDE));
    let Some(TransportSlice::Tcp(reset)) = sliced.transport else { panic!("TCP") };
    assert!(reset.rst() && reset.ack() && !reset.syn());
    assert_eq!((reset.source_port(), reset.destination_port()), (23, 4000));
    assert_eq!((reset.sequence_number(), reset.acknowledgment_number()), (0, 8));
    let ends = (v6(PEER), v6(INSIDE));
    assert_eq!(pseudo_header_checksum(ends.0, ends.1, 6, reset.slice()), 0);

    // A reset is not answered by a reset.
    let mut reset = tcp(HOME, PEER, (4000, 23));
    reset[40 + 13] = 0x04;
    assert_eq!(node.outbound(&reset), Verdict::Drop(DropReason::Blocked));
}

#[test]
fn errors_groups_and_later_fragments_are_never_answered() {
    let mut node = Node::new(mobile_with(registration(Vec::new(), figure_11())));
    let reason = DropReason::NoUsableBinding;
    let unreachable = raw(v6(HOME), v6(PEER), 58, &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(node.outbound(&unreachable), Verdict::Drop(reason), "an error");
    let echo = raw(v6(HOME), v6(PEER), 58, &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(node.outbound(&echo), Verdict::Answer(reason), "an echo request");
    let later = raw(v6(HOME), v6(PEER), 44, &[17, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4]);
    assert_eq!(node.outbound(&later), Verdict::Drop(reason), "a later fragment");
}

#[test]
fn answers_are_limited_and_the_limit_is_counted() {
    let settings = Settings { answers_per_second: 10, answers_at_once: 3, ..Settings::default() };
    let node = Node::with(mobile_with(registration(Vec::new(), figure_11())), settings);
    let packet = udp(HOME, PEER, (1, 2), 100);
    let mut out = Vec::new();
    let mut answered = |at: Duration| {
        let verdict = node.engine.outbound(Ingress::LOCAL, &packet, at, &mut out);
        verdict == Verdict::Answer(DropReason::NoUsableBinding)
    };
    assert_eq!((0..10).filter(|_| answered(NOW)).count(), 3, "a burst");
    assert_eq!((0..10).filter(|_| answered(NOW + Duration::from_millis(100))).count(), 1);
    assert_eq!((0..10).filter(|_| answered(NOW + Duration::from_secs(9))).count(), 3);
    let counters = node.engine.counters().snapshot();
    assert_eq!(counters.ignored(IgnoreReason::RateLimited), 23);
    assert_eq!(counters.dropped(DropReason::NoUsableBinding), 30);
    assert_eq!(counters.answers, 7);
}

#[test]
fn counters_know_rule_binding_and_direction() {
    let mut node = Node::new(mobile());
    node.outbound(&tcp(HOME, PEER, (9, 22)));
    node.outbound(&udp(HOME, PEER, (9, 53), 100));
    node.outbound(&udp(INSIDE, PEER, (9, 53), 100));
    node.inbound(&wrapped(AGENT, WWAN, &udp(PEER, HOME, (53, 9), 200)));
    let seen: Vec<_> = node
        .engine
        .counters()
        .snapshot()
        .traffic
        .into_iter()
        .map(|t| (t.rule, t.bid, t.direction, t.packets, t.bytes))
        .collect();
    assert_eq!(
        seen,
        [
            (Some(RuleId(0)), Some(bid(2)), Direction::Out, 1, 60),
            (Some(RuleId(3)), Some(bid(1)), Direction::Out, 2, 200),
            (Some(RuleId(3)), Some(bid(2)), Direction::In, 1, 200),
        ]
    );
}

#[test]
fn signalling_reaches_the_machines() {
    let message = [59, 1, 6, 0, 0xab, 0xcd, 0, 0, 0, 1, 0, 105, 1, 2, 0, 0];
    let mut node = Node::new(mobile());
    let ack = signalling_packet(v6(AGENT), v6(WLAN), None, Some(v6(HOME)), &message);
    let want = Verdict::Signalling {
        source: v6(AGENT),
        destination: v6(WLAN),
        home_address: None,
        routing_header: Some(v6(HOME)),
        tunnelled: false,
    };
    assert_eq!(node.inbound(&ack), want);
    assert_eq!(node.out, message);

    let mut node = Node::new(agent());
    let update = signalling_packet(v6(WLAN), v6(AGENT), Some(v6(HOME)), None, &message);
    let want = Verdict::Signalling {
        source: v6(WLAN),
        destination: v6(AGENT),
        home_address: Some(v6(HOME)),
        routing_header: None,
        tunnelled: false,
    };
    assert_eq!(node.inbound(&update), want);
    assert_eq!(node.out, message);
    assert_eq!(node.engine.counters().snapshot().signalling, 1);

    // From a care-of address nobody registered yet: how else could it register.
    let first = signalling_packet(v6("2001:db8:3::7"), v6(AGENT), Some(v6(HOME)), None, &message);
    assert!(matches!(node.inbound(&first), Verdict::Signalling { .. }));

    // A type 2 routing header that is not ours is never forwarded and never answered.
    let mut node = Node::new(mobile());
    let foreign = signalling_packet(v6(AGENT), v6(WLAN), None, Some(v6(PEER)), &message);
    assert_eq!(node.inbound(&foreign), Verdict::Ignore(IgnoreReason::NotOurHome));
    assert!(node.out.is_empty());
}

#[test]
fn signalling_in_the_tunnel_reaches_the_machines_of_its_end() {
    let message = [59, 0, 0, 0, 0xab, 0xcd, 0, 0];
    let mut node = Node::new(mobile());
    let refresh = raw(v6(PEER), v6(HOME), 135, &message);
    let want = Verdict::Signalling {
        source: v6(PEER),
        destination: v6(HOME),
        home_address: None,
        routing_header: None,
        tunnelled: true,
    };
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &refresh)), want);
    assert_eq!(node.out, message);
    // What is for a node behind us goes on to it.
    let behind = raw(v6(PEER), v6(INSIDE), 135, &message);
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &behind)), Verdict::Deliver);
    assert_eq!(node.out, behind);
    // And at the agent, what is for somebody else.
    let mut node = Node::new(agent());
    let home_test_init = raw(v6(HOME), v6(PEER), 135, &message);
    assert_eq!(node.inbound(&wrapped(WLAN, AGENT, &home_test_init)), Verdict::Deliver);
}

#[test]
fn signalling_packets_have_the_layout_of_the_rfc() {
    let message: &[u8] = &[59, 0, 0, 0, 1, 2, 0, 0];
    let (a, b, hoa) = (v6(WLAN), v6(AGENT), v6(HOME));
    let cases: &[(Option<_>, Option<_>, u8, &[&[u8]])] = &[
        (None, None, 135, &[message]),
        (Some(hoa), None, 60, &[&[135, 2, 1, 2, 0, 0, 0xc9, 16], &hoa.octets(), message]),
        (None, Some(hoa), 43, &[&[135, 2, 2, 1, 0, 0, 0, 0], &hoa.octets(), message]),
        (
            Some(a),
            Some(hoa),
            43,
            &[
                &[60, 2, 2, 1, 0, 0, 0, 0],
                &hoa.octets(),
                &[135, 2, 1, 2, 0, 0, 0xc9, 16],
                &a.octets(),
                message,
            ],
        ),
    ];
    for (hao, rh2, first, want) in cases {
        let packet = signalling_packet(a, b, *hao, *rh2, message);
        assert_eq!(packet[6], *first);
        assert_eq!(packet[40..], want.concat());
        let parsed = parse_signalling(&packet).unwrap();
        assert_eq!((parsed.source, parsed.destination), (a, b));
        assert_eq!((parsed.home_address, parsed.routing_header), (*hao, *rh2));
        assert_eq!(parsed.message, message);
        etherparse::Ipv6Slice::from_slice(&packet).expect("another reader accepts it");
    }
}

/// An error about `outer`, from a router on the way to the sender of `outer`.
fn error(kind: u8, code: u8, value: u32, outer: &[u8]) -> Vec<u8> {
    let router = v6("2001:db8:ffff::1");
    let source = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&outer[8..24]).unwrap());
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&value.to_be_bytes());
    message.extend_from_slice(&outer[..outer.len().min(1232)]);
    let checksum = pseudo_header_checksum(router, source, 58, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    raw(router, source, 58, &message)
}

#[test]
fn tn_08_too_big_lowers_the_path_and_tells_the_source() {
    let mut node = Node::new(mobile());
    let inner = udp(INSIDE, PEER, (1, 2), 1460);
    assert_eq!(node.outbound(&inner), Verdict::Send { path: PathId(1) });
    let outer = node.out.clone();
    assert_eq!(node.inbound(&error(2, 0, 1400, &outer)), Verdict::Deliver);
    let (source, destination, told) = icmp(&node.out);
    assert_eq!((source.as_str(), destination.as_str()), (HOME, INSIDE));
    assert_eq!((told.type_u8(), told.code_u8()), (2, 0));
    assert_eq!(told.bytes5to8(), 1360u32.to_be_bytes());
    assert_eq!(told.payload(), &inner[..told.payload().len()], "quotes the inner packet");
    // From now on we say it ourselves.
    assert_eq!(node.outbound(&inner), Verdict::Answer(DropReason::TooBig));
    assert_eq!(icmp(&node.out).2.bytes5to8(), 1360u32.to_be_bytes());
    // Only on this path: SSH goes by the other one.
    let mut ssh = tcp(INSIDE, PEER, (9, 22));
    ssh.resize(1460, 0);
    ssh[4..6].copy_from_slice(&1420u16.to_be_bytes());
    assert_eq!(node.outbound(&ssh), Verdict::Send { path: PathId(2) });
    // The same news again changes nothing, nor does better news.
    for mtu in [1400, 1450] {
        let ignored = Verdict::Ignore(IgnoreReason::ErrorWithoutEffect);
        assert_eq!(node.inbound(&error(2, 0, mtu, &outer)), ignored);
    }
    // After ten minutes the link's own MTU is tried again.
    let later = NOW + Duration::from_secs(601);
    let verdict = node.engine.outbound(Ingress::LOCAL, &inner, later, &mut node.out);
    assert_eq!(verdict, Verdict::Send { path: PathId(1) });
}

/// An error whose quote says that the inner packet is longer than the outer one around it.
#[test]
fn a_quote_with_a_lying_length_is_survived() {
    let mut node = Node::new(mobile());
    node.outbound(&udp(INSIDE, PEER, (1, 2), 1460));
    let mut outer = node.out.clone();
    outer[40 + 4..40 + 6].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(node.inbound(&error(2, 0, 1400, &outer)), Verdict::Deliver);
    assert_eq!(icmp(&node.out).2.bytes5to8(), 1400u32.to_be_bytes());
}

/// A copy's mark counts in what the source is told.
#[test]
fn too_big_about_a_marked_copy_leaves_room_for_the_mark() {
    let links = vec![bid(1), bid(2)];
    let copies = rule(0, Vec::new(), Outcome::Copies { links, copies: 2 }, Otherwise::NextRule);
    let mut home = registration(uplinks(), Effective::new([copies]).into());
    home.copies = mtun_dataplane::CopyMark::On;
    let mut node = Node::new(mobile_with(home));
    let Verdict::Replicate(sends) = node.outbound(&udp(INSIDE, PEER, (1, 2), 1400)) else {
        panic!("copies")
    };
    let outer = sends.parts(&node.out).next().unwrap().1.to_vec();
    assert_eq!(node.inbound(&error(2, 0, 1380, &outer)), Verdict::Deliver);
    assert_eq!(icmp(&node.out).2.bytes5to8(), (1380u32 - 56).to_be_bytes());
    let again = node.outbound(&udp(INSIDE, PEER, (1, 2), 1325));
    assert_eq!(again, Verdict::Answer(DropReason::TooBig));
    assert_eq!(icmp(&node.out).2.bytes5to8(), 1324u32.to_be_bytes());
}

#[test]
fn too_big_below_1280_means_outer_fragments() {
    let mut node = Node::new(agent());
    let inner = udp(PEER, HOME, (1, 2), 1280);
    node.outbound(&inner);
    let outer = node.out.clone();
    // Nobody may ask for packets below 1280, so the source hears nothing.
    let ignored = Verdict::Ignore(IgnoreReason::ErrorWithoutEffect);
    assert_eq!(node.inbound(&error(2, 0, 576, &outer)), ignored);
    assert_eq!(node.outbound(&inner), Verdict::Send { path: PathId::ROUTED });
    assert_eq!(mtun_dataplane::wire::packets(&node.out).count(), 2);
    assert!(mtun_dataplane::wire::packets(&node.out).all(|packet| packet.len() <= 1280));
}

/// req HA-62, NH-13.
#[test]
fn tn_10_unreachable_is_translated() {
    for (kind, code) in [(1, 0), (1, 1), (1, 3), (3, 0), (4, 0)] {
        let mut node = Node::new(agent());
        let inner = udp(PEER, INSIDE, (1, 2), 300);
        node.outbound(&inner);
        let outer = node.out.clone();
        assert_eq!(node.inbound(&error(kind, code, 0, &outer)), Verdict::Deliver, "{kind}");
        let (source, destination, told) = icmp(&node.out);
        assert_eq!((source.as_str(), destination.as_str()), (AGENT, PEER));
        assert_eq!((told.type_u8(), told.code_u8()), (1, 3), "address unreachable");
        assert_eq!(told.payload(), inner);
    }
}

/// req TN-08, CN-66.
#[test]
fn forged_errors_are_ignored() {
    let sent = udp(HOME, PEER, (1, 2), 1400);
    let forged = Verdict::Ignore(IgnoreReason::ForgedError);
    let mut node = Node::new(mobile());
    let at_rest = error(2, 0, 1300, &wrapped(WLAN, AGENT, &sent));
    assert_eq!(node.inbound(&at_rest), forged, "a flow that never was");
    node.outbound(&sent);
    let outer = node.out.clone();
    let cases = [
        ("another agent", error(2, 0, 1300, &wrapped(WLAN, PEER, &sent))),
        ("another flow", error(2, 0, 1300, &wrapped(WLAN, AGENT, &udp(HOME, PEER, (1, 3), 1400)))),
        ("cut before the ports", error(2, 0, 1300, &outer[..82])),
        ("cut in the inner header", error(2, 0, 1300, &outer[..70])),
        ("cut in the outer header", error(2, 0, 1300, &outer[..30])),
    ];
    for (what, packet) in cases {
        assert_eq!(node.inbound(&packet), forged, "{what}");
    }
    let mut wrong_checksum = error(2, 0, 1300, &outer);
    wrong_checksum[42] ^= 1;
    let ignored = Verdict::Ignore(IgnoreReason::NotTunnelled);
    assert_eq!(node.inbound(&wrong_checksum), ignored);
    // Old news is no news.
    let late = NOW + Duration::from_secs(31);
    let old = error(2, 0, 1300, &outer);
    assert_eq!(node.engine.inbound(PathId(1), &old, late, &mut node.out), forged);
    // None of it had an effect.
    assert_eq!(node.outbound(&sent), Verdict::Send { path: PathId(1) });
    assert_eq!(node.inbound(&error(2, 0, 1300, &outer)), Verdict::Deliver, "the real one");
}

#[test]
fn errors_about_signalling_reach_the_machines() {
    let message = [59, 1, 5, 0, 0xab, 0xcd, 0, 0, 0, 1, 0, 105, 1, 2, 0, 0];
    let update = signalling_packet(v6(WLAN), v6(AGENT), Some(v6(HOME)), None, &message);
    let mut node = Node::new(mobile());
    let want =
        Verdict::SignallingFailed { source: v6(WLAN), destination: v6(AGENT), kind: 4, code: 2 };
    assert_eq!(node.inbound(&error(4, 2, 46, &update)), want);
    assert_eq!(node.out, message);
}

/// Cuts a whole packet into fragments of `step` octets.
fn cut(packet: &[u8], step: usize, identification: u32) -> Vec<Vec<u8>> {
    let payload = &packet[40..];
    let source = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap());
    let destination = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
    let count = payload.len().div_ceil(step);
    let pieces = payload.chunks(step).enumerate().map(|(number, piece)| {
        let field = (number * step) as u16 | u16::from(number + 1 < count);
        let mut fragment = vec![packet[6], 0];
        fragment.extend_from_slice(&field.to_be_bytes());
        fragment.extend_from_slice(&identification.to_be_bytes());
        fragment.extend_from_slice(piece);
        raw(source, destination, 44, &fragment)
    });
    pieces.collect()
}

/// req TN-12, MH-13.
#[test]
fn outer_fragments_come_in_any_order() {
    let inner = udp(PEER, HOME, (1, 2), 1400);
    let pieces = cut(&wrapped(AGENT, WLAN, &inner), 488, 7);
    assert_eq!(pieces.len(), 3);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let mut node = Node::new(mobile());
        let held = Verdict::Ignore(IgnoreReason::FragmentHeld);
        assert_eq!(node.inbound(&pieces[order[0]]), held);
        assert_eq!(node.inbound(&pieces[order[0]]), held, "repeated");
        assert_eq!(node.inbound(&pieces[order[1]]), held);
        assert_eq!(node.inbound(&pieces[order[2]]), Verdict::Deliver, "{order:?}");
        assert_eq!(node.out, inner);
    }
}

#[test]
fn inner_fragments_follow_their_first() {
    let ssh = {
        let mut packet = tcp(INSIDE, PEER, (9, 22));
        packet.resize(1200, 0);
        packet[4..6].copy_from_slice(&1160u16.to_be_bytes());
        packet
    };
    let pieces = cut(&ssh, 400, 9);
    let mut node = Node::new(mobile());
    for piece in &pieces {
        assert_eq!(node.outbound(piece), Verdict::Send { path: PathId(2) });
    }
    assert_eq!(node.engine.flows().len(), 1);
    // A fragment that overtakes its first has no ports to be decided by.
    let mut node = Node::new(mobile());
    assert_eq!(node.outbound(&pieces[1]), Verdict::Send { path: PathId(1) });
    assert_eq!(node.outbound(&pieces[0]), Verdict::Send { path: PathId(2) });
    assert_eq!(node.outbound(&pieces[2]), Verdict::Send { path: PathId(2) });
    // A refused packet is refused whole.
    let telnet = cut(&udp(INSIDE, PEER, (9, 23), 900), 400, 10);
    let mut node = Node::new(mobile());
    assert_eq!(node.outbound(&telnet[0]), Verdict::Answer(DropReason::Blocked));
    assert_eq!(node.outbound(&telnet[1]), Verdict::Drop(DropReason::Blocked));
    // A first fragment that hides its ports is no packet at all (RFC 7112).
    let tiny = raw(v6(INSIDE), v6(PEER), 44, &[6, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(node.outbound(&tiny), Verdict::Drop(DropReason::InnerHeaders));
}

#[test]
fn a_handover_moves_every_flow_with_the_next_packet() {
    let mut node = Node::new(mobile());
    let bulk = udp(HOME, PEER, (1, 2), 100);
    assert_eq!(node.outbound(&bulk), Verdict::Send { path: PathId(1) });
    let mut lost = uplinks();
    lost[0].usable = false;
    let before = node.snapshot.load_full();
    let publish = |bindings| {
        let updates = before.updates.with(registration(bindings, figure_11()));
        node.snapshot.store(Snapshot { updates, ..(*before).clone() }.into());
    };
    publish(lost);
    let verdict = node.engine.outbound(Ingress::LOCAL, &bulk, NOW, &mut node.out);
    assert_eq!(verdict, Verdict::Send { path: PathId(2) });
    publish(uplinks());
    let verdict = node.engine.outbound(Ingress::LOCAL, &bulk, NOW, &mut node.out);
    assert_eq!(verdict, Verdict::Send { path: PathId(1) });
    assert_eq!(node.engine.flows().len(), 1);
}

#[test]
fn explain_repeats_the_decision() {
    use mtun_dataplane::{Encapsulation, Fate, Side};
    let mut node = Node::new(mobile());
    node.outbound(&tcp(HOME, PEER, (9, 22)));
    let told = node.engine.explain(&key(HOME, PEER, 6, Some((9, 22))), NOW);
    let Fate::Forwarded { bid: number, encapsulation, path, inner_mtu, .. } = told.fate else {
        panic!("{told:?}")
    };
    assert_eq!((number, path, inner_mtu), (Some(bid(2)), PathId(2), 1460));
    let tunnel = Encapsulation::Tunnel { source: v6(WWAN), destination: v6(AGENT) };
    assert_eq!(encapsulation, tunnel);
    assert_eq!(told.rule.unwrap().1.as_str(), "rule 0");
    let found = told.registration.unwrap();
    assert_eq!((found.side, found.bindings, found.usable_bindings), (Side::Near, 2, 2));
    let told = node.engine.explain(&key(HOME, PEER, 17, Some((9, 23))), NOW);
    assert_eq!(told.fate, Fate::Refused(BlockReply::Icmp));
    let told = node.engine.explain(&key(PEER, HOME, 17, Some((9, 23))), NOW);
    assert_eq!((told.fate, told.registration), (Fate::NotOurs, None));
}
