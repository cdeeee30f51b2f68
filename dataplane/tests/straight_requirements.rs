//! What the standards ask of packets that go straight, one test per requirement that no other
//! test shows by itself.

mod support;

use std::net::IpAddr;

use mtun_dataplane::wire::pseudo_header_checksum;
use mtun_dataplane::{DropReason, Form, IgnoreReason, Snapshot, Verdict};
use mtun_policy::{Effective, Optimize, Otherwise, Outcome};
use support::*;

const STRANGER: &str = "2001:db8:9::1";

/// The packet between mobile and correspondent, and its form on the way.
fn sent() -> (Vec<u8>, Vec<u8>) {
    let mut mobile = Node::new(optimizing());
    let packet = udp(HOME, PEER, (5000, 53), 200);
    mobile.outbound(&packet);
    (packet, mobile.out)
}

/// req CN-62 (RFC 6275 §6.3, §9.3.1): upper layers compute with the home address at both ends, and
/// nobody on the way makes a wrong checksum right.
#[test]
fn the_checksum_is_that_of_the_home_address() {
    let sum = |packet: &[u8]| pseudo_header_checksum(v6(HOME), v6(PEER), 17, &packet[40..]);
    let (packet, straight) = sent();
    assert_eq!(sum(&packet), 0);
    let mut peer = Node::new(correspondent());
    assert_eq!(peer.inbound(&straight), Verdict::Deliver);
    assert_eq!(sum(&peer.out), 0);
    let mut damaged = straight;
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(peer.inbound(&damaged), Verdict::Deliver, "the upper layer's business");
    assert_ne!(sum(&peer.out), 0);
}

/// req CN-63: whatever looks at the packet sees the home address: flows, and the rules with them.
#[test]
fn flows_are_those_of_the_home_address() {
    let (_, straight) = sent();
    let mut peer = Node::new(correspondent());
    peer.inbound(&straight);
    let mut reply = udp(PEER, HOME, (53, 5000), 100);
    reply[1] = 0;
    peer.outbound(&reply);
    let flows = peer.engine.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    let ends = [flows[0].key.source, flows[0].key.destination];
    assert!(ends.contains(&IpAddr::V6(v6(HOME))) && ends.contains(&IpAddr::V6(v6(PEER))));
}

/// req CN-64 (RFC 6275 §8.2): a node that is nobody's home forwards no routing header of type 2,
/// and says nothing about it.
#[test]
fn a_node_without_a_home_takes_no_routing_header() {
    let mut peer = Node::new(correspondent());
    peer.outbound(&udp(PEER, HOME, (53, 5000), 300));
    let mut to_us = peer.out.clone();
    to_us[24..40].copy_from_slice(&v6(STRANGER).octets());
    for snapshot in [Snapshot::default(), correspondent(), agent()] {
        let mut node = Node::new(Snapshot { own: vec![v6(STRANGER)], ..snapshot });
        assert_eq!(node.inbound(&to_us), Verdict::Ignore(IgnoreReason::NotOurHome));
        assert!(node.out.is_empty());
    }
}

/// req CN-67 (RFC 6275 §6.3): an option says where one packet came from, and nothing else.
#[test]
fn an_option_that_is_refused_leaves_no_trace() {
    let (_, straight) = sent();
    let unbound = Snapshot { own: vec![v6(PEER)], ..Snapshot::default() };
    let mut peer = Node::new(unbound);
    assert!(matches!(peer.inbound(&straight), Verdict::UnknownBinding { .. }));
    assert!(peer.engine.flows().is_empty());
    assert!(peer.engine.route_notes().is_empty());
    assert!(peer.engine.counters().snapshot().traffic.is_empty());
    let reply = udp(PEER, HOME, (53, 5000), 100);
    assert_eq!(peer.outbound(&reply), Verdict::Drop(DropReason::NotOurs), "no way to it is known");
    // From another address than the bound one: the binding stays what it was.
    let mut forged = straight;
    forged[8..24].copy_from_slice(&v6(STRANGER).octets());
    let mut peer = Node::new(correspondent());
    assert!(matches!(peer.inbound(&forged), Verdict::UnknownBinding { .. }));
    peer.outbound(&reply);
    assert_eq!(peer.out[24..40], v6(WLAN).octets());
}

/// req MN-31, R-MN-15, R-CN-09 (RFC 6275 §6.1, §9.3.2, §11.3.1): neither neighbours nor Mobility
/// Headers meet the option or the routing header.
#[test]
fn neighbours_and_signalling_do_not_go_straight() {
    let (mut mobile, mut peer) = (Node::new(optimizing()), Node::new(correspondent()));
    let to_link = udp(HOME, "fe80::1", (1, 2), 100);
    assert_eq!(mobile.outbound(&to_link), Verdict::Drop(DropReason::InnerDestinationScope));
    for kind in 133..=137 {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &v6(PEER).octets()].concat();
        let packet = raw(v6(HOME), v6(PEER), 58, &message);
        mobile.outbound(&packet);
        assert_eq!(mobile.out[24..40], v6(AGENT).octets(), "type {kind}: through the tunnel");
        peer.outbound(&raw(v6(PEER), v6(HOME), 58, &message));
        assert!(peer.out.is_empty(), "type {kind}");
    }
    let message = [59, 0, 0, 0, 0, 0, 0, 0];
    mobile.outbound(&raw(v6(HOME), v6(PEER), 135, &message));
    assert_eq!(mobile.out[24..40], v6(AGENT).octets());
    peer.outbound(&raw(v6(PEER), v6(HOME), 135, &message));
    assert!(peer.out.is_empty());
}

/// req MN-18: off for a home, and for one rule of a home that has it on.
#[test]
fn a_policy_can_want_the_tunnel() {
    let form = |snapshot: Snapshot, port: u16| {
        let mut node = Node::new(snapshot);
        node.outbound(&tcp(HOME, PEER, (4000, port)));
        let traffic = node.engine.counters().snapshot().traffic;
        assert_eq!(traffic.len(), 1);
        (traffic[0].form, node.engine.route_notes().is_empty())
    };
    let with = |policy: Effective| {
        let mut snapshot = optimizing();
        snapshot.updates = [registration(uplinks(), policy.into())].into_iter().collect();
        snapshot
    };
    let rules = || {
        let next = Otherwise::NextRule;
        let mut never = rule(0, to_port(6, 22), Outcome::Candidates(vec![bid(1)]), next);
        never.0.optimize = Some(Optimize::Never);
        let other = rule(1, Vec::new(), Outcome::Candidates(vec![bid(1)]), Otherwise::Any);
        Effective::new([never, other])
    };
    let on = || with(Effective { optimize: Some(Optimize::Allowed), ..rules() });
    assert_eq!(form(on(), 80), (Form::Optimized, false));
    assert_eq!(form(on(), 22), (Form::Tunnel, true), "and nobody asks for more");
    assert_eq!(form(with(rules()), 80), (Form::Tunnel, true), "off");
}
