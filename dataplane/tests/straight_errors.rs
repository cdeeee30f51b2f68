//! What does not fit a straight way, and errors that come back from it.

mod support;

use std::time::Duration;

use mtun_dataplane::wire::{packets, pseudo_header_checksum};
use mtun_dataplane::{DropReason, IgnoreReason, PathId, RouteNote, Verdict};
use support::*;

const ROUTER: &str = "2001:db8:ff::1";

/// An ICMPv6 error of a router about a packet of ours.
fn error(kind: u8, code: u8, value: u32, about: &[u8], to: &str) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&value.to_be_bytes());
    message.extend_from_slice(&about[..about.len().min(1232)]);
    let checksum = pseudo_header_checksum(v6(ROUTER), v6(to), 58, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    raw(v6(ROUTER), v6(to), 58, &message)
}

/// Kind, code, value and quoted packet of what the inner source is told, its checksum right.
fn told(packet: &[u8]) -> (u8, u8, u32, &[u8]) {
    let header = etherparse::Ipv6Header::from_slice(packet).unwrap().0;
    let (source, destination) = (header.source_addr(), header.destination_addr());
    assert_eq!(pseudo_header_checksum(source, destination, 58, &packet[40..]), 0);
    let value = u32::from_be_bytes(packet[44..48].try_into().unwrap());
    (packet[40], packet[41], value, &packet[48..])
}

/// The mobile and what it sent straight: a packet of so many octets and its straight form.
fn sent(length: usize) -> (Node, Vec<u8>, Vec<u8>) {
    let mut node = Node::new(optimizing());
    let packet = udp(HOME, PEER, (5000, 53), length);
    assert_eq!(node.outbound(&packet), Verdict::Send { path: PathId(1) });
    let straight = node.out.clone();
    (node, packet, straight)
}

#[test]
fn what_does_not_fit_is_told_with_the_headers_that_are_added() {
    let mut node = Node::new(optimizing());
    assert!(matches!(node.outbound(&udp(HOME, PEER, (1, 2), 1476)), Verdict::Send { .. }));
    assert_eq!(node.out.len(), 1500);
    let large = udp(HOME, PEER, (1, 2), 1477);
    assert_eq!(node.outbound(&large), Verdict::Answer(DropReason::TooBig));
    assert_eq!(told(&node.out).2, 1476);
    // With both headers.
    let mut snapshot = optimizing();
    let theirs = bound(HOME, PEER, vec![binding(Some(1), "2001:db8:7::9", PathId::ROUTED)]);
    snapshot.correspondents = snapshot.correspondents.with(pair(PEER, HOME), theirs);
    let mut node = Node::new(snapshot);
    assert_eq!(node.outbound(&large), Verdict::Answer(DropReason::TooBig));
    assert_eq!(told(&node.out).2, 1452);
    // The least of all links: one of them still goes through the tunnel.
    let mut snapshot = optimizing();
    snapshot.optimized = snapshot.optimized.with(pair(HOME, PEER), held(&[(1, WLAN)]));
    let mut node = Node::new(snapshot);
    assert_eq!(node.outbound(&large), Verdict::Answer(DropReason::TooBig));
    assert_eq!(told(&node.out).2, 1460);
    // At the correspondent.
    let mut node = Node::new(correspondent());
    let large = udp(PEER, HOME, (1, 2), 1477);
    assert_eq!(node.outbound(&large), Verdict::Answer(DropReason::TooBig));
    assert_eq!(told(&node.out).2, 1476);
}

/// What nobody may be asked to make smaller is cut, the option in each piece (RFC 6275 §6.3), and
/// put together before it is restored.
#[test]
fn a_small_packet_on_a_narrow_path_is_cut() {
    let mut snapshot = optimizing();
    let mut home = snapshot.updates.get(mtun_policy::HomeAddress(v6(HOME))).unwrap().clone();
    home.bindings.iter_mut().for_each(|binding| binding.mtu = 1280);
    snapshot.updates = snapshot.updates.with(home);
    let mut node = Node::new(snapshot);
    // An inner fragment is cut again, and so are the headers it has of its own.
    let mut fragment = vec![17, 0, 0x01, 0x01, 0, 0, 0, 9];
    fragment.extend_from_slice(&[7; 1232]);
    let cases = [
        ("plain", udp(HOME, PEER, (5000, 53), 1280)),
        ("a fragment", raw(v6(HOME), v6(PEER), 44, &fragment)),
    ];
    for (what, packet) in cases {
        assert_eq!(node.outbound(&packet), Verdict::Send { path: PathId(1) }, "{what}");
        let pieces: Vec<_> = packets(&node.out).map(<[u8]>::to_vec).collect();
        assert_eq!(pieces.len(), 2, "{what}");
        for piece in &pieces {
            assert!(piece.len() <= 1280, "{what}");
            assert_eq!((piece[6], piece[40]), (60, 44), "{what}: the option before the fragment");
            assert_eq!(piece[48..64], v6(HOME).octets());
        }
        let mut peer = Node::new(correspondent());
        if what == "a fragment" {
            // The middle of a packet that is not here: its octets at the places they had.
            let at = |piece: &[u8]| u16::from_be_bytes([piece[66], piece[67]]);
            assert_eq!(at(&pieces[0]), 0x0101);
            let first = (pieces[0].len() - 72) as u16;
            assert_eq!(at(&pieces[1]), 0x0101 + first);
            assert!(pieces.iter().all(|piece| piece[68..72] == [0, 0, 0, 9]));
            assert_eq!([&pieces[0][72..], &pieces[1][72..]].concat(), packet[48..]);
            continue;
        }
        let held = Verdict::Ignore(IgnoreReason::FragmentHeld);
        assert_eq!(peer.inbound(&pieces[1]), held, "{what}");
        assert_eq!(peer.inbound(&pieces[0]), Verdict::Deliver, "{what}");
        assert_eq!(peer.out, packet, "{what}");
    }
}

/// req CN-68: the path's MTU less the headers, for the ends of this very path only.
#[test]
fn a_narrow_path_is_learned_and_told() {
    let (mut node, packet, straight) = sent(1400);
    assert_eq!(node.inbound(&error(2, 0, 1400, &straight, WLAN)), Verdict::Deliver);
    let (kind, _, mtu, quoted) = told(&node.out);
    assert_eq!((kind, mtu), (2, 1376));
    assert_eq!(quoted, &packet[..quoted.len()], "about the packet as it was sent");
    assert_eq!(node.out[8..24], v6(ROUTER).octets());
    assert_eq!(node.out[24..40], v6(HOME).octets());
    assert_eq!(node.outbound(&packet), Verdict::Answer(DropReason::TooBig));
    assert_eq!(told(&node.out).2, 1376);
    // The tunnel by the same link is another path.
    let aside = udp(HOME, "2001:db8:9::1", (1, 2), 1400);
    assert_eq!(node.outbound(&aside), Verdict::Send { path: PathId(1) });
    // Not below 1280, whatever is said; and what grew is no news.
    let (mut node, packet, straight) = sent(1400);
    assert_eq!(node.inbound(&error(2, 0, 600, &straight, WLAN)), Verdict::Deliver);
    assert_eq!(told(&node.out).2, 1280);
    let again = node.inbound(&error(2, 0, 9000, &straight, WLAN));
    assert_eq!(again, Verdict::Ignore(IgnoreReason::ErrorWithoutEffect));
    assert_eq!(node.outbound(&packet), Verdict::Answer(DropReason::TooBig));
    // At the correspondent.
    let mut node = Node::new(correspondent());
    let packet = udp(PEER, HOME, (53, 5000), 1400);
    node.outbound(&packet);
    let straight = node.out.clone();
    assert_eq!(node.inbound(&error(2, 0, 1350, &straight, PEER)), Verdict::Deliver);
    let (kind, _, mtu, quoted) = told(&node.out);
    assert_eq!((kind, mtu), (2, 1326));
    assert_eq!(quoted, &packet[..quoted.len()]);
}

#[test]
fn errors_of_the_way_reach_the_sender_as_they_are() {
    let (mut node, packet, straight) = sent(200);
    for (kind, code) in [(1, 0), (1, 3), (3, 0)] {
        assert_eq!(node.inbound(&error(kind, code, 0, &straight, WLAN)), Verdict::Deliver);
        let (told_kind, told_code, _, quoted) = told(&node.out);
        assert_eq!((told_kind, told_code), (kind, code));
        assert_eq!(quoted, packet);
    }
    // req CN-65: and who keeps the binding hears of it.
    let unreachable =
        RouteNote::Unreachable { pair: pair(HOME, PEER), bid: Some(bid(1)), care_of: v6(WLAN) };
    assert!(node.engine.route_notes().contains(&unreachable));
    // A fault behind our headers is the sender's; one in them is not, and is noted if it says
    // that nobody knows the option (RFC 6275 §11.3.5).
    assert_eq!(node.inbound(&error(4, 0, 66, &straight, WLAN)), Verdict::Deliver);
    assert_eq!(told(&node.out).2, 42);
    let silent = Verdict::Ignore(IgnoreReason::ErrorWithoutEffect);
    assert_eq!(node.inbound(&error(4, 2, 46, &straight, WLAN)), silent);
    assert_eq!(node.engine.route_notes(), [RouteNote::Refused(pair(HOME, PEER))]);
    assert_eq!(node.inbound(&error(4, 0, 41, &straight, WLAN)), silent);
    assert!(node.engine.route_notes().is_empty());

    let mut node = Node::new(correspondent());
    let packet = udp(PEER, HOME, (53, 5000), 200);
    node.outbound(&packet);
    let straight = node.out.clone();
    assert_eq!(node.inbound(&error(1, 3, 0, &straight, PEER)), Verdict::Deliver);
    assert_eq!(told(&node.out).3, packet);
    let unreachable =
        RouteNote::Unreachable { pair: pair(HOME, PEER), bid: Some(bid(1)), care_of: v6(WLAN) };
    assert!(node.engine.route_notes().contains(&unreachable));
}

/// req CN-66.
#[test]
fn forged_errors_change_nothing() {
    let (mut node, packet, straight) = sent(1400);
    let with = |at: usize, octets: &[u8]| {
        let mut packet = straight.clone();
        packet[at..at + octets.len()].copy_from_slice(octets);
        packet
    };
    let other = v6("2001:db8:9::1").octets();
    let cases = [
        ("another care-of address", with(8, &v6(WWAN).octets()), WWAN),
        ("another correspondent", with(24, &other), WLAN),
        ("another home", with(48, &other), WLAN),
        ("another flow", with(64, &[9, 9]), WLAN),
        ("a packet of somebody else", with(8, &other), WLAN),
        ("a packet without the option", packet.clone(), WLAN),
    ];
    for (what, quoted, to) in cases {
        // The flow is known by its addresses and ports, whatever link it went by.
        let want = match what {
            "another care-of address" => Verdict::Deliver,
            _ => Verdict::Ignore(IgnoreReason::ForgedError),
        };
        assert_eq!(node.inbound(&error(2, 0, 1300, &quoted, to)), want, "{what}");
    }
    assert_eq!(node.outbound(&packet), Verdict::Send { path: PathId(1) }, "its path is as it was");
    // Too long ago.
    let late = NOW + Duration::from_secs(31);
    let path = PathId(1);
    let verdict =
        node.engine.inbound(path, &error(2, 0, 1300, &straight, WLAN), late, &mut node.out);
    assert_eq!(verdict, Verdict::Ignore(IgnoreReason::ForgedError));
    // Nothing is held any more: what such a packet says of the peer is history.
    let mut snapshot = optimizing();
    snapshot.optimized = snapshot.optimized.without(&pair(HOME, PEER));
    node.snapshot.store(snapshot.into());
    let forged = Verdict::Ignore(IgnoreReason::ForgedError);
    assert_eq!(node.inbound(&error(2, 0, 1300, &straight, WLAN)), forged);
    assert!(node.engine.route_notes().iter().all(|note| matches!(note, RouteNote::Used(_))));
}
