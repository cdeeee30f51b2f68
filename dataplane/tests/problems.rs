//! Mobility Headers that are broken, or in packets that are.

mod support;

use std::time::Duration;

use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket, TransportSlice};
use mtun_dataplane::{DropReason, IgnoreReason, PathId, Settings, Verdict};
use support::*;

/// A Binding Update of 16 octets, its checksum left to the reader of the message.
const UPDATE: [u8; 16] = [59, 1, 5, 0, 0, 0, 0, 1, 0xc0, 0, 0, 105, 1, 2, 0, 0];

fn option(address: &str) -> Vec<u8> {
    [&[0xc9, 16][..], &v6(address).octets()].concat()
}

/// A Destination Options header with these options at its start.
fn options(next: u8, options: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend_from_slice(options);
    while header.len() % 8 != 0 {
        header.push(0);
    }
    header[1] = (header.len() / 8 - 1) as u8;
    header
}

fn from_abroad(next: u8, payload: &[u8]) -> Vec<u8> {
    raw(v6(WLAN), v6(AGENT), next, payload)
}

fn told(octets: &[u8]) -> (String, String, Icmpv6Slice<'_>) {
    let sliced = SlicedPacket::from_ip(octets).expect("a packet");
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("IPv6") };
    let ends = (ip.header().source_addr().to_string(), ip.header().destination_addr().to_string());
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("ICMPv6") };
    (ends.0, ends.1, icmp)
}

/// req MH-01, MH-02, MH-12: the pointer counts the headers in front of the message.
#[test]
fn the_sender_is_told_where() {
    let node = Node::new(agent());
    let with_home = [options(135, &option(HOME)), UPDATE.to_vec()].concat();
    let cases = [
        (from_abroad(135, &UPDATE), 0, 40),
        (from_abroad(135, &UPDATE), 1, 41),
        (from_abroad(60, &with_home), 0, 64),
        (from_abroad(60, &with_home), 13, 77),
    ];
    for (packet, octet, pointer) in cases {
        let mut out = Vec::new();
        assert!(node.engine.problem(&packet, octet, NOW, &mut out));
        let (source, destination, icmp) = told(&out);
        assert_eq!((source.as_str(), destination.as_str()), (AGENT, WLAN));
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (4, 0), "parameter problem");
        assert_eq!(icmp.bytes5to8(), u32::to_be_bytes(pointer));
        assert_eq!(icmp.payload(), packet);
    }
}

/// req MH-16: nobody is told who could not be, and not more than the limit.
#[test]
fn not_everybody_is_told() {
    let node = Node::new(agent());
    let mut out = Vec::new();
    let to_group = raw(v6(WLAN), v6("ff02::1"), 135, &UPDATE);
    let from_group = raw(v6("ff02::1"), v6(AGENT), 135, &UPDATE);
    let later = from_abroad(44, &[&[135, 0, 0, 8, 0, 0, 0, 1][..], &UPDATE].concat());
    for packet in [&to_group, &from_group, &later, &UPDATE.to_vec()] {
        assert!(!node.engine.problem(packet, 0, NOW, &mut out));
    }
    let settings = Settings { answers_per_second: 10, answers_at_once: 3, ..Settings::default() };
    let node = Node::with(agent(), settings);
    let packet = from_abroad(135, &UPDATE);
    let mut tell = |at: Duration| node.engine.problem(&packet, 0, at, &mut out);
    assert_eq!([NOW; 4].map(&mut tell), [true, true, true, false]);
    assert!(tell(NOW + Duration::from_millis(100)));
    let counters = node.engine.counters().snapshot();
    assert_eq!(counters.ignored(IgnoreReason::RateLimited), 1);
}

/// req MH-14, R-ALL-11 (RFC 6275 §6.3): one option, in front of everything that is split.
#[test]
fn a_home_address_option_has_its_place() {
    let mut node = Node::new(agent());
    let [home, other] = [HOME, INSIDE].map(option);
    let twice = options(135, &[home.clone(), other].concat());
    let behind = [options(60, &home), options(135, &home)].concat();
    let fragment = [60, 0, 0, 0, 0, 0, 0, 1];
    let short = options(135, &[&[0xc9, 4][..], &[1; 4]].concat());
    let after_fragment = [&fragment, &options(135, &home)[..], &UPDATE].concat();
    let cases = [
        ("twice in one header", from_abroad(60, &[twice, UPDATE.to_vec()].concat()), 60),
        ("in two headers", from_abroad(60, &[behind, UPDATE.to_vec()].concat()), 66),
        ("behind a fragment header", from_abroad(44, &after_fragment), 50),
        ("cut short", from_abroad(60, &[short, UPDATE.to_vec()].concat()), 42),
    ];
    for (what, packet, pointer) in cases {
        let reason = DropReason::HomeAddressOption;
        let refused = Verdict::Reject { reason, path: PathId(1) };
        assert_eq!(node.inbound(&packet), refused, "{what}");
        let (source, destination, icmp) = told(&node.out);
        assert_eq!((source.as_str(), destination.as_str()), (AGENT, WLAN), "{what}");
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (4, 0), "{what}: parameter problem");
        assert_eq!(icmp.bytes5to8(), u32::to_be_bytes(pointer), "{what}");
    }
    // In a Hop-by-Hop Options header every node on the way would have had to answer it.
    let hop_by_hop = from_abroad(0, &[options(135, &home), UPDATE.to_vec()].concat());
    let verdict = node.inbound(&hop_by_hop);
    assert!(!matches!(verdict, Verdict::Signalling { home_address: Some(_), .. }));
}

/// req MH-13 (RFC 6946, RFC 5722): put together first, and then read.
#[test]
fn a_message_in_pieces_is_one_message() {
    let mut node = Node::new(agent());
    let whole = [&UPDATE[..], &UPDATE].concat();
    let piece = |offset: u16, more: u16, id: u8, octets: &[u8]| {
        let [high, low] = (offset | more).to_be_bytes();
        from_abroad(44, &[&[135, 0, high, low, 0, 0, 0, id][..], octets].concat())
    };
    let held = Verdict::Ignore(IgnoreReason::FragmentHeld);
    assert_eq!(node.inbound(&piece(16, 0, 1, &whole[16..])), held);
    assert!(matches!(node.inbound(&piece(0, 1, 1, &whole[..16])), Verdict::Signalling { .. }));
    assert_eq!(node.out, whole);
    let atomic = piece(0, 0, 2, &whole);
    assert!(matches!(node.inbound(&atomic), Verdict::Signalling { .. }), "the only one");
    assert_eq!(node.out, whole);
    assert_eq!(node.inbound(&piece(0, 1, 3, &whole[..16])), held);
    let overlap = node.inbound(&piece(8, 0, 3, &whole[8..]));
    assert!(matches!(overlap, Verdict::Drop(_)), "{overlap:?}");
}
