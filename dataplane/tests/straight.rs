//! Packets that go straight between a mobile and its correspondent, past the home agent.

mod support;

use mtun_dataplane::wire::packets;
use mtun_policy::HomeAddress;
use proptest::prelude::*;

use mtun_dataplane::{Direction, DropReason, Form, IgnoreReason, PathId, RouteNote, Verdict};
use support::*;

const STRANGER: &str = "2001:db8:9::1";

fn addresses(packet: &[u8]) -> (std::net::Ipv6Addr, std::net::Ipv6Addr) {
    let header = etherparse::Ipv6Header::from_slice(packet).unwrap().0;
    (header.source_addr(), header.destination_addr())
}

/// req MN-31, CN-10.
#[test]
fn there_and_back() {
    let (mut mobile, mut peer) = (Node::new(optimizing()), Node::new(correspondent()));
    let packet = udp(HOME, PEER, (5000, 53), 200);
    assert_eq!(mobile.outbound(&packet), Verdict::Send { path: PathId(1) });
    let sent = mobile.out.clone();
    assert_eq!(addresses(&sent), (v6(WLAN), v6(PEER)));
    assert_eq!(sent.len(), packet.len() + 24);
    // The option alone in a Destination Options header, aligned at 8n+6 (RFC 6275 §6.3).
    assert_eq!(sent[6], 60);
    assert_eq!(sent[40..48], [17, 2, 1, 2, 0, 0, 0xc9, 16]);
    assert_eq!(sent[48..64], v6(HOME).octets());
    assert_eq!(sent[7], packet[7], "it is no tunnel: the hop limit is the sender's");
    assert_eq!(peer.inbound(&sent), Verdict::Deliver);
    assert_eq!(peer.out, packet, "as it was sent");

    let reply = udp(PEER, HOME, (53, 5000), 300);
    assert_eq!(peer.outbound(&reply), Verdict::Send { path: PathId::ROUTED });
    let sent = peer.out.clone();
    assert_eq!(addresses(&sent), (v6(PEER), v6(WLAN)), "back the way it came");
    assert_eq!(sent[6], 43);
    assert_eq!(sent[40..48], [17, 2, 2, 1, 0, 0, 0, 0]);
    assert_eq!(sent[48..64], v6(HOME).octets());
    assert_eq!(mobile.inbound(&sent), Verdict::Deliver);
    assert_eq!(mobile.out, reply);

    for (node, octets) in [(&mobile, (200, 300)), (&peer, (300, 200))] {
        let traffic = node.engine.counters().snapshot().traffic;
        assert!(traffic.iter().all(|it| it.form == Form::Optimized && it.bid == Some(bid(1))));
        let of = |direction| traffic.iter().find(|it| it.direction == direction).unwrap().bytes;
        assert_eq!((of(Direction::Out), of(Direction::In)), octets);
        assert_eq!(node.engine.route_notes(), [RouteNote::Used(pair(HOME, PEER))]);
    }
}

/// req MN-31.
#[test]
fn the_rules_choose_the_link_and_the_peer_the_wrapping() {
    let mut snapshot = optimizing();
    snapshot.optimized = snapshot.optimized.with(pair(HOME, PEER), held(&[(1, WLAN)]));
    let mut mobile = Node::new(snapshot);
    // SSH goes by W-CDMA, which the correspondent does not hold: the tunnel by W-CDMA.
    assert_eq!(mobile.outbound(&tcp(HOME, PEER, (4000, 22))), Verdict::Send { path: PathId(2) });
    assert_eq!(addresses(&mobile.out), (v6(WWAN), v6(AGENT)));
    assert_eq!(mobile.outbound(&tcp(HOME, PEER, (4000, 80))), Verdict::Send { path: PathId(1) });
    assert_eq!(addresses(&mobile.out), (v6(WLAN), v6(PEER)));
    // A prefix has no route optimization, nor has another correspondent.
    mobile.outbound(&tcp(INSIDE, PEER, (4000, 80)));
    assert_eq!(addresses(&mobile.out), (v6(WLAN), v6(AGENT)));
    mobile.outbound(&tcp(HOME, STRANGER, (4000, 80)));
    assert_eq!(addresses(&mobile.out), (v6(WLAN), v6(AGENT)));
    assert!(mobile.engine.route_notes().contains(&RouteNote::Wanted(pair(HOME, STRANGER))));
}

/// req CN-60, MC-16.
#[test]
fn what_is_not_bound_to_its_source_is_reported() {
    let mut mobile = Node::new(optimizing());
    mobile.outbound(&udp(HOME, PEER, (5000, 53), 200));
    let sent = mobile.out.clone();
    let mut forged = sent.clone();
    forged[8..24].copy_from_slice(&v6(STRANGER).octets());
    let mut peer = Node::new(correspondent());
    let unknown = |source: &str| Verdict::UnknownBinding {
        source: v6(source),
        home_address: v6(HOME),
        destination: v6(PEER),
    };
    assert_eq!(peer.inbound(&forged), unknown(STRANGER));
    assert!(peer.out.is_empty());
    // A binding that was removed is refused at once.
    let mut snapshot = correspondent();
    snapshot.correspondents = snapshot.correspondents.without(&pair(HOME, PEER));
    peer.snapshot.store(snapshot.into());
    assert_eq!(peer.inbound(&sent), unknown(WLAN));
    let counters = peer.engine.counters().snapshot();
    assert_eq!(counters.dropped(DropReason::HomeAddressWithoutBinding), 2);
    assert!(peer.engine.route_notes().is_empty());
}

/// req MN-32.
#[test]
fn a_routing_header_leads_home_from_a_care_of_address_or_nowhere() {
    let mut peer = Node::new(correspondent());
    peer.outbound(&udp(PEER, HOME, (53, 5000), 300));
    let sent = peer.out.clone();
    let mut mobile = Node::new(mobile());
    assert_eq!(mobile.inbound(&sent), Verdict::Deliver, "also while nothing is held");
    let with = |at: usize, octets: &[u8]| {
        let mut packet = sent.clone();
        packet[at..at + octets.len()].copy_from_slice(octets);
        packet
    };
    let cases = [
        ("another home", with(48, &v6(PEER).octets()), Verdict::Ignore(IgnoreReason::NotOurHome)),
        ("segments left", with(43, &[0]), Verdict::Drop(DropReason::RoutingHeader)),
        ("two segments", with(43, &[2]), Verdict::Drop(DropReason::RoutingHeader)),
        ("type 0", with(42, &[0]), Verdict::Drop(DropReason::RoutingHeader)),
        ("not to us", with(24, &v6(PEER).octets()), Verdict::Ignore(IgnoreReason::NotToUs)),
    ];
    for (what, packet, want) in cases {
        assert_eq!(mobile.inbound(&packet), want, "{what}");
        assert!(mobile.out.is_empty(), "{what}");
    }
}

/// The same world with this MTU on every link of both.
fn narrowed(mtu: u16) -> (Node, Node) {
    let (mut near, mut far) = (optimizing(), correspondent());
    let mut home = near.updates.get(HomeAddress(v6(HOME))).unwrap().clone();
    home.bindings.iter_mut().for_each(|binding| binding.mtu = mtu);
    near.updates = near.updates.with(home);
    let mut bound = far.correspondents.get(&pair(HOME, PEER)).unwrap().clone();
    bound.bindings.iter_mut().for_each(|binding| binding.mtu = mtu);
    far.correspondents = far.correspondents.with(pair(HOME, PEER), bound);
    (Node::new(near), Node::new(far))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever headers a packet has and however narrow the way is: what the other end delivers is
    /// what was sent, and on the way nothing is larger than the way.
    #[test]
    fn every_packet_arrives_as_it_was(
        up in any::<bool>(),
        mtu in 1280..1400u16,
        headers in prop::sample::subsequence(vec![0u8, 60], 0..=2),
        padding in prop::collection::vec(0..8u8, 2),
        length in 8..1400usize,
        marks in any::<[u8; 3]>(),
        backwards in any::<bool>(),
    ) {
        let (source, destination) = if up { (HOME, PEER) } else { (PEER, HOME) };
        let mut payload = Vec::new();
        for (place, &units) in headers.iter().enumerate().map(|(at, _)| (at, &padding[at])) {
            let next = headers.get(place + 1).copied().unwrap_or(17);
            payload.extend_from_slice(&[next, units, 1, 4 + units * 8]);
            payload.resize(payload.len() + 4 + usize::from(units) * 8, 0);
        }
        payload.extend_from_slice(&[0x13, 0x88, 0, 53]);
        payload.resize(payload.len() + length - 4, 0xa5);
        let first = headers.first().copied().unwrap_or(17);
        let mut packet = raw(v6(source), v6(destination), first, &payload);
        packet[1..4].copy_from_slice(&marks);
        let (mut near, mut far) = narrowed(mtu);
        let (from, to) = if up { (&mut near, &mut far) } else { (&mut far, &mut near) };
        let room = usize::from(mtu) - 24;
        let verdict = from.outbound(&packet);
        if packet.len() > room.max(1280) {
            prop_assert_eq!(verdict, Verdict::Answer(DropReason::TooBig));
            return Ok(());
        }
        prop_assert!(matches!(verdict, Verdict::Send { .. }), "{:?}", verdict);
        let mut pieces: Vec<_> = packets(&from.out).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(pieces.len() > 1, packet.len() > room);
        prop_assert!(pieces.iter().all(|piece| piece.len() <= usize::from(mtu)));
        if backwards {
            pieces.reverse();
        }
        let verdicts: Vec<_> = pieces.iter().map(|piece| to.inbound(piece)).collect();
        prop_assert_eq!(*verdicts.last().expect("it was sent"), Verdict::Deliver);
        prop_assert_eq!(&to.out, &packet);
    }
}
