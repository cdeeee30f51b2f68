//! The headers of packets that go straight: where they stand, and what is answered if they stand
//! elsewhere.

mod support;

use mtun_dataplane::wire::{home_address, packets, type2};
use mtun_dataplane::{DropReason, PathId, Settings, Snapshot, Verdict};
use support::*;

const STRANGER: &str = "2001:db8:9::1";

const DATAGRAM: [u8; 16] = [0, 1, 0, 2, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// An extension header and its number.
type Extension = (u8, Vec<u8>);

/// An extension header of eight octets with nothing but padding.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A packet with these extension headers, each announced by the one before it.
fn chained(source: &str, destination: &str, headers: &[Extension], upper: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    for (place, (_, header)) in headers.iter().enumerate() {
        let at = payload.len();
        payload.extend_from_slice(header);
        payload[at] = headers.get(place + 1).map_or(upper, |next| next.0);
    }
    payload.extend_from_slice(&DATAGRAM);
    let first = headers.first().map_or(upper, |first| first.0);
    raw(v6(source), v6(destination), first, &payload)
}

fn padding(kind: u8) -> Extension {
    (kind, PADDING.to_vec())
}

fn option(address: &str) -> Extension {
    let mut header = Vec::new();
    home_address::emit(0, v6(address), &mut header);
    (60, header)
}

fn routing(address: &str) -> Extension {
    let mut header = Vec::new();
    type2::emit(0, v6(address), &mut header);
    (43, header)
}

fn fragment(offset_and_more: u16) -> Extension {
    let [high, low] = offset_and_more.to_be_bytes();
    (44, vec![0, 0, high, low, 0, 0, 0, 1])
}

/// The kinds of the extension headers of a packet.
fn kinds(packet: &[u8]) -> Vec<u8> {
    let (mut at, mut next, mut kinds) = (40, packet[6], Vec::new());
    while matches!(next, 0 | 43 | 44 | 60) {
        kinds.push(next);
        let length = if next == 44 { 8 } else { 8 + usize::from(packet[at + 1]) * 8 };
        next = packet[at];
        at += length;
    }
    kinds
}

#[test]
fn the_option_stands_before_what_it_must_stand_before() {
    let (mut mobile, mut peer) = (Node::new(optimizing()), Node::new(correspondent()));
    let cases: &[(&str, Vec<Extension>, &[u8])] = &[
        ("nothing else", vec![], &[60]),
        ("hop-by-hop", vec![padding(0)], &[0, 60]),
        ("options of its own", vec![padding(60)], &[60, 60]),
        ("both", vec![padding(0), padding(60)], &[0, 60, 60]),
        ("lone fragment", vec![padding(0), fragment(0), padding(60)], &[0, 60, 44, 60]),
    ];
    for (what, headers, want) in cases {
        let packet = chained(HOME, PEER, headers, 17);
        assert_eq!(mobile.outbound(&packet), Verdict::Send { path: PathId(1) }, "{what}");
        assert_eq!(kinds(&mobile.out), *want, "{what}");
        let sent = mobile.out.clone();
        assert_eq!(peer.inbound(&sent), Verdict::Deliver, "{what}");
        assert_eq!(peer.out, packet, "{what}");
    }
    // The same of the routing header, which stands among the others of its kind.
    let packet = chained(PEER, HOME, &[padding(0), padding(60)], 17);
    assert!(matches!(peer.outbound(&packet), Verdict::Send { .. }));
    assert_eq!(kinds(&peer.out), [0, 43, 60]);
    let sent = peer.out.clone();
    assert_eq!(mobile.inbound(&sent), Verdict::Deliver);
    assert_eq!(mobile.out, packet);
}

/// req MN-31, R-CN-09.
#[test]
fn headers_that_do_not_go_with_the_option_take_the_tunnel() {
    let mut mobile = Node::new(optimizing());
    let authentication =
        (51, vec![17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    let cases = [
        ("a route of its own", chained(HOME, PEER, &[routing(STRANGER)], 17)),
        ("an option of its own", chained(HOME, PEER, &[option(STRANGER)], 17)),
        ("authentication", chained(HOME, PEER, &[authentication], 17)),
        ("mobility", raw(v6(HOME), v6(PEER), 135, &[59, 0, 1, 0, 0, 0, 0, 0])),
    ];
    for (what, packet) in cases {
        assert_eq!(mobile.outbound(&packet), Verdict::Send { path: PathId(1) }, "{what}");
        assert_eq!(mobile.out[24..40], v6(AGENT).octets(), "{what}");
        assert_eq!(mobile.out[40..], packet, "{what}");
    }
    // What ESP protects does not know its outer headers.
    let packet = chained(HOME, PEER, &[], 50);
    mobile.outbound(&packet);
    assert_eq!(kinds(&mobile.out), [60]);
}

/// req MH-14.
#[test]
fn a_misplaced_option_is_answered_with_where_it_stands() {
    let at_the_type = |headers: &[Extension], which: usize| {
        let before: usize = headers[..which].iter().map(|it| it.1.len()).sum();
        (40 + before + 6) as u32
    };
    let twice = vec![option(HOME), option(HOME)];
    let behind_fragment = vec![fragment(0), option(HOME)];
    let before_routing = vec![option(HOME), routing(PEER)];
    let cases = [
        ("twice", &twice, 1),
        ("behind a fragment header", &behind_fragment, 1),
        ("before a routing header", &before_routing, 0),
    ];
    for (what, headers, which) in cases {
        for upper in [17, 135] {
            let mut peer = Node::new(correspondent());
            let packet = chained(WLAN, PEER, headers, upper);
            let reason = DropReason::HomeAddressOption;
            let want = Verdict::Reject { reason, path: PathId(1) };
            assert_eq!(peer.inbound(&packet), want, "{what}");
            assert_eq!(peer.engine.counters().snapshot().dropped(reason), 1);
            let answer = &peer.out;
            assert_eq!(packets(answer).count(), 1);
            assert_eq!(answer[8..24], v6(PEER).octets(), "{what}");
            assert_eq!(answer[24..40], v6(WLAN).octets(), "{what}");
            assert_eq!(answer[40..42], [4, 0], "{what}: erroneous header field");
            assert_eq!(answer[44..48], at_the_type(headers, which).to_be_bytes(), "{what}");
            assert_eq!(answer[48..], packet, "{what}");
        }
    }
    // Not more often than the rate allows, and then it is still counted.
    let settings = Settings { answers_at_once: 1, answers_per_second: 1, ..Settings::default() };
    let mut peer = Node::with(correspondent(), settings);
    let packet = chained(WLAN, PEER, &twice, 17);
    assert!(matches!(peer.inbound(&packet), Verdict::Reject { .. }));
    assert_eq!(peer.inbound(&packet), Verdict::Drop(DropReason::HomeAddressOption));
    assert!(peer.out.is_empty());
    // Among hop-by-hop options the kernel has seen it first, and answered.
    let (_, mut among) = option(HOME);
    among[0] = 17;
    let hop_by_hop = chained(WLAN, PEER, &[(0, among)], 17);
    let mut peer = Node::new(correspondent());
    assert_eq!(peer.inbound(&hop_by_hop), Verdict::Drop(DropReason::HomeAddressOption));
}

/// req CN-61, and RFC 6275 §9.3.1 for the others that are not routable.
#[test]
fn an_address_that_cannot_be_a_home_is_refused() {
    let mut peer = Node::new(correspondent());
    let silent = Verdict::Drop(DropReason::HomeAddressOption);
    assert_eq!(peer.inbound(&chained(WLAN, PEER, &[option("ff0e::1")], 17)), silent);
    assert!(peer.out.is_empty());
    let from_group = chained("ff0e::1", PEER, &[option(HOME)], 17);
    assert_eq!(peer.inbound(&from_group), Verdict::Drop(DropReason::OuterMalformed));
    for address in ["::", "::1", "fe80::1"] {
        let want = Verdict::UnknownBinding {
            source: v6(WLAN),
            home_address: v6(address),
            destination: v6(PEER),
        };
        assert_eq!(peer.inbound(&chained(WLAN, PEER, &[option(address)], 17)), want, "{address}");
    }
}

/// Any of the care-of addresses that a home address has here will do (RFC 5648 §6.5), also at its
/// home agent; those of another pair will not.
/// req MC-16, CN-60.
#[test]
fn the_source_must_be_bound_for_this_pair() {
    let mut peer = Node::new(correspondent());
    let data = |source: &str, to: &str, home: &str| chained(source, to, &[option(home)], 17);
    assert_eq!(peer.inbound(&data(WLAN, PEER, HOME)), Verdict::Deliver);
    assert_eq!(peer.inbound(&data(WWAN, PEER, HOME)), Verdict::Deliver);
    let mut snapshot = correspondent();
    snapshot.own.push(v6("2001:db8:c::10"));
    peer.snapshot.store(snapshot.into());
    let elsewhere = peer.inbound(&data(WLAN, "2001:db8:c::10", HOME));
    assert!(
        matches!(elsewhere, Verdict::UnknownBinding { .. }),
        "bound with another address of us"
    );
    let other = peer.inbound(&data(WLAN, PEER, "2001:db8:100::43"));
    assert!(matches!(other, Verdict::UnknownBinding { .. }));
    // What IPsec protects proves itself.
    let protected = chained(STRANGER, PEER, &[option(HOME)], 50);
    assert_eq!(peer.inbound(&protected), Verdict::Deliver);
    assert_eq!(peer.out[8..24], v6(HOME).octets());

    let mut served = Node::new(agent());
    assert_eq!(served.inbound(&data(WLAN, AGENT, HOME)), Verdict::Deliver);
    assert_eq!(served.out, chained(HOME, AGENT, &[], 17));
    let forged = served.inbound(&data(STRANGER, AGENT, HOME));
    assert!(matches!(forged, Verdict::UnknownBinding { .. }));
    // Nobody's home is a stranger's.
    let mut nobody = Node::new(Snapshot { own: vec![v6(PEER)], ..Snapshot::default() });
    let unknown = nobody.inbound(&data(WLAN, PEER, HOME));
    assert!(matches!(unknown, Verdict::UnknownBinding { .. }));
}

/// Options that share the header with it stay, and it becomes padding.
#[test]
fn what_stands_beside_the_option_stays() {
    let mut shared = vec![17, 3, 0x3e, 2, 9, 9, 0xc9, 16];
    shared.extend_from_slice(&v6(HOME).octets());
    shared.extend_from_slice(&[1, 6, 0, 0, 0, 0, 0, 0]);
    let mut peer = Node::new(correspondent());
    assert_eq!(peer.inbound(&chained(WLAN, PEER, &[(60, shared.clone())], 17)), Verdict::Deliver);
    shared[6..24].fill(0);
    shared[6..8].copy_from_slice(&[1, 16]);
    assert_eq!(peer.out, chained(HOME, PEER, &[(60, shared)], 17));
}
