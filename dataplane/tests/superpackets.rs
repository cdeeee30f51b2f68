//! Superpackets: what is cut on the way out is what its sender would have cut, octet for octet, and
//! counts as if it had.

mod support;

use etherparse::PacketBuilder;
use mtun_dataplane::{Cuts, DropReason, Registration, Verdict, Whole, wire};
use mtun_policy::{BlockReply, Effective, Ingress, Otherwise, Outcome};
use support::*;

/// As a sender would hand them over: the packets, and the one that stands for them.
struct Burst {
    what: String,
    size: u16,
    whole: Vec<u8>,
    packets: Vec<Vec<u8>>,
}

fn octets(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

/// Leaves the sum of the pseudo-header in the place of the checksum, as a sender does that leaves
/// the rest to whoever cuts.
fn leave_checksum(packet: &mut [u8], upper_at: usize, protocol: u8) {
    let length = (packet.len() - upper_at) as u32;
    let numbers = [length >> 16, length & 0xffff, protocol.into()];
    let words = packet[8..40].chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let mut sum: u32 = words.chain(numbers).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let at = upper_at + if protocol == 6 { 16 } else { 6 };
    packet[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

fn tcp_burst(source: &str, size: u16, length: usize) -> Burst {
    // Close to the end of the numbers, so that they begin anew.
    const SEQUENCE: u32 = u32::MAX - 2000;
    let packet = |at: usize, payload: &[u8], first: bool, last: bool| {
        let mut packet = Vec::new();
        let sequence = SEQUENCE.wrapping_add(at as u32);
        let mut tcp = PacketBuilder::ipv6(v6(source).octets(), v6(PEER).octets(), 60)
            .tcp(9, 80, sequence, 1024)
            .ack(77)
            .options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
            .unwrap();
        if first {
            tcp = tcp.cwr();
        }
        if last {
            tcp = tcp.psh().fin();
        }
        tcp.write(&mut packet, payload).unwrap();
        packet
    };
    let payload = octets(length);
    let mut whole = packet(0, &payload, true, true);
    leave_checksum(&mut whole, 40, 6);
    let count = length.div_ceil(size.into());
    let packets = payload.chunks(size.into()).enumerate().map(|(number, part)| {
        packet(number * usize::from(size), part, number == 0, number + 1 == count)
    });
    let what = format!("TCP, {length} octets by {size}");
    Burst { what, size, whole, packets: packets.collect() }
}

fn udp_burst(source: &str, size: u16, length: usize) -> Burst {
    let packet = |payload: &[u8]| {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(v6(source).octets(), v6(PEER).octets(), 60)
            .udp(7, 80)
            .write(&mut packet, payload)
            .unwrap();
        packet
    };
    let payload = octets(length);
    let mut whole = packet(&payload);
    leave_checksum(&mut whole, 40, 17);
    let packets = payload.chunks(size.into()).map(packet).collect();
    Burst { what: format!("UDP, {length} octets by {size}"), size, whole, packets }
}

fn bursts() -> Vec<Burst> {
    let lengths =
        [(1388, 2 * 1388), (1388, 60_000), (1001, 30_030), (1001, 30_031), (8, 9), (1388, 1)];
    let of = |(size, length)| [tcp_burst(HOME, size, length), udp_burst(INSIDE, size, length)];
    lengths.into_iter().flat_map(of).collect()
}

#[test]
fn a_cut_is_what_its_sender_would_have_sent() {
    for Burst { what, size, whole, packets } in bursts() {
        let cuts = Cuts::of(&whole, size).expect(&what);
        let mut out = Vec::new();
        cuts.cut(&whole, |_, _| {}, &mut out);
        let cut: Vec<&[u8]> = wire::packets(&out).collect();
        assert_eq!(cut, packets, "{what}");
        assert_eq!(cuts.packets(), packets.len(), "{what}");
        assert_eq!(cuts.octets(&whole), out.len(), "{what}");
        assert_eq!(Some(cuts.longest(&whole)), packets.iter().map(Vec::len).max(), "{what}");
    }
}

#[test]
fn headers_before_the_upper_layer_stand_in_each() {
    let Burst { size, whole, packets, .. } = tcp_burst(HOME, 1000, 2500);
    // Padding in a destination options header of eight octets.
    let with_options = |packet: &[u8]| {
        let mut packet = [&packet[..40], &[6, 0, 1, 4, 0, 0, 0, 0], &packet[40..]].concat();
        let length = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet[6] = 60;
        packet
    };
    let (whole, packets): (_, Vec<_>) =
        (with_options(&whole), packets.iter().map(|it| with_options(it)).collect());
    let mut out = Vec::new();
    Cuts::of(&whole, size).unwrap().cut(&whole, |_, _| {}, &mut out);
    assert_eq!(wire::packets(&out).collect::<Vec<_>>(), packets);
}

#[test]
fn it_leaves_as_its_packets_would_and_counts_as_they_do() {
    for Burst { what, size, whole, packets } in bursts() {
        let (mut at_once, mut one_by_one) = (Node::new(mobile()), Node::new(mobile()));
        let mut out = Vec::new();
        let done = at_once.engine.outbound_whole(Ingress::LOCAL, &whole, size, NOW, &mut out);
        let Whole::Done(verdict @ Verdict::Send { .. }) = done else { panic!("{what}: {done:?}") };
        for packet in &packets {
            assert_eq!(one_by_one.outbound(packet), verdict, "{what}");
        }
        let told = |node: &Node| {
            let flows = node.engine.flows();
            let loads: Vec<_> =
                flows.iter().map(|it| (it.key, it.packets_out, it.bytes_out)).collect();
            (node.engine.counters().snapshot(), loads)
        };
        assert_eq!(told(&at_once), told(&one_by_one), "{what}");
        // By the same engine, which gives the flow the same label.
        let mut each = Vec::new();
        for packet in &packets {
            assert_eq!(at_once.outbound(packet), verdict, "{what}");
            each.extend_from_slice(&at_once.out);
        }
        assert_eq!(out, each, "{what}");
    }
}

#[test]
fn what_is_not_alike_goes_on_packet_by_packet() {
    let by = |outcome| -> Registration {
        let rules = [rule(0, Vec::new(), outcome, Otherwise::NextRule)];
        registration(uplinks(), Effective::new(rules).into())
    };
    let copies = by(Outcome::Copies { links: vec![bid(1), bid(2)], copies: 2 });
    let silent = by(Outcome::Block(BlockReply::Silent));
    let unbound = registration(Vec::new(), figure_11());
    let short_of_hops = |mut burst: Burst| {
        burst.whole[7] = 0;
        burst
    };
    let cases = [
        ("copies", mobile_with(copies), udp_burst(HOME, 1000, 3000)),
        ("a block", mobile_with(silent), udp_burst(HOME, 1000, 3000)),
        ("no binding", mobile_with(unbound), udp_burst(HOME, 1000, 3000)),
        ("too big", mobile(), udp_burst(HOME, 1413, 3000)),
        ("fragments", fragmenting(), udp_burst(HOME, 1232, 3000)),
        ("not ours", mobile(), udp_burst("2001:db8:dd::1", 1000, 3000)),
        ("no hops", mobile(), short_of_hops(udp_burst(HOME, 1000, 3000))),
    ];
    for (what, world, burst) in cases {
        let node = Node::new(world);
        let mut out = vec![1];
        let done =
            node.engine.outbound_whole(Ingress::LOCAL, &burst.whole, burst.size, NOW, &mut out);
        assert!(matches!(done, Whole::Apart(_)), "{what}: {done:?}");
        assert!(out.is_empty(), "{what}");
        let counters = node.engine.counters().snapshot();
        assert!(counters.traffic.is_empty(), "{what}: counted when its packets are");
        assert!(DropReason::ALL.iter().all(|it| counters.dropped(*it) == 0), "{what}");
    }
    let burst = udp_burst(HOME, 1412, 3000);
    let done = Node::new(mobile()).engine.outbound_whole(
        Ingress::LOCAL,
        &burst.whole,
        burst.size,
        NOW,
        &mut Vec::new(),
    );
    assert!(matches!(done, Whole::Done(Verdict::Send { .. })), "as much as fits");
}

/// A mobile whose path takes no inner packet of 1280 octets.
fn fragmenting() -> mtun_dataplane::Snapshot {
    let mut bindings = uplinks();
    bindings.iter_mut().for_each(|it| it.mtu = 1280);
    mobile_with(registration(bindings, figure_11()))
}

#[test]
fn what_cannot_be_cut_is_dropped_for_its_reason() {
    let Burst { whole, .. } = tcp_burst(HOME, 1000, 3000);
    let with = |at: usize, octet: u8| {
        let mut packet = whole.clone();
        packet[at] = octet;
        packet
    };
    let cases = [
        ("no size", whole.clone(), 0),
        ("no TCP or UDP", with(6, 58), 1000),
        ("a header of TCP that is too short", with(52, 0x40), 1000),
        ("one that is longer than all", with(52, 0xf0)[..60].to_vec(), 1000),
        ("a length that lies", with(5, whole[5] ^ 1), 1000),
        ("IPv4", with(0, 0x45), 1000),
        ("a fragment", with(6, 44), 1000),
        ("nothing", Vec::new(), 1000),
    ];
    for (what, packet, size) in cases {
        let node = Node::new(mobile());
        let mut out = Vec::new();
        let done = node.engine.outbound_whole(Ingress::LOCAL, &packet, size, NOW, &mut out);
        assert_eq!(done, Whole::Done(Verdict::Drop(DropReason::InnerHeaders)), "{what}");
        assert_eq!(
            node.engine.counters().snapshot().dropped(DropReason::InnerHeaders),
            1,
            "{what}"
        );
    }
}

/// Whatever stands in the headers: no panic, and nothing that is longer than asked for.
#[test]
fn any_octets_may_be_cut() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let bursts = [tcp_burst(HOME, 1000, 3000), udp_burst(HOME, 1000, 3000)];
    let mut cut = 0;
    for round in 0..20_000 {
        let mut packet = bursts[round % 2].whole.clone();
        for _ in 0..next(4) {
            let at = next(100);
            packet[at] = next(256) as u8;
        }
        let size = next(70_000) as u16;
        let Some(cuts) = Cuts::of(&packet, size) else { continue };
        let mut out = Vec::new();
        cuts.cut(&packet, |_, _| {}, &mut out);
        assert_eq!(out.len(), cuts.octets(&packet));
        cut += 1;
    }
    assert!(cut > 5_000, "{cut}");
}
