//! What goes straight: from a mobile with a Home Address option and back with a type 2 routing header,
//! and the same at the correspondent's end.

use std::time::Duration;

use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::backend::Hook;
use mtun_dataplane::{Carried, PathId, Publication, RouteNote, Snapshot, Verdict};
use mtun_policy::Ingress;

use crate::packets::{set, tos};
use crate::support::*;
use crate::twins::Twins;
use FastOutcome::*;

const THIRD: &str = "2001:db8:3::7";

/// As this end sends it when nothing is remembered anywhere.
pub fn sent_by(snapshot: Snapshot, packet: &[u8]) -> Vec<u8> {
    let mut node = Node::new(snapshot);
    assert!(matches!(node.outbound(packet), Verdict::Send { .. }));
    node.out
}

/// The outcome of a packet that leaves; what is taken is what the engine sends.
fn out(twins: &mut Twins, packet: &[u8], from: u32, ingress: Ingress) -> Option<FastOutcome> {
    let mut fast = None;
    let outcome = twins.outcome_of(|it| fast = it.fast(Hook::Out, packet, from));
    if let Some(fast) = fast {
        let slow = twins.outbound(ingress, packet);
        assert!(matches!(slow.verdict, Verdict::Send { .. }), "{slow:?}");
        assert_eq!(fast, slow.octets);
    }
    outcome
}

/// The same of one that comes.
fn back(twins: &mut Twins, packet: &[u8]) -> Option<FastOutcome> {
    let mut fast = None;
    let outcome = twins.outcome_of(|it| fast = it.fast(Hook::In, packet, 0));
    if let Some(fast) = fast {
        let slow = twins.inbound(packet);
        assert_eq!(slow.verdict, Verdict::Deliver);
        assert_eq!(fast, slow.octets);
    }
    outcome
}

#[test]
fn what_leaves_straight_is_the_same() {
    let packet = |length| udp(HOME, PEER, (7, 80), length);
    let reply = |length| udp(PEER, HOME, (80, 7), length);
    let ends: [(_, &dyn Fn(usize) -> Vec<u8>, _); 2] =
        [(optimizing(), &packet, 60), (correspondent(), &reply, 43)];
    for (snapshot, packet, announced) in ends {
        let Some(mut twins) = Twins::new(snapshot) else { return };
        twins.install_out(Ingress::LOCAL, &packet(100));
        let fast = twins.fast(Hook::Out, &packet(100), 0).expect("it is installed");
        assert_eq!((fast[6], fast.len()), (announced, 124));
        for (what, packet, must) in [
            ("no octet of payload", packet(48), Sent),
            ("as much as fits", packet(1476), Sent),
            ("one octet more", packet(1477), TooBig),
            ("ECN", tos(&packet(100), 3), Sent),
            ("a flow label", set(&packet(100), &[(1, 0x0a), (2, 0xbc), (3, 0xde)]), Sent),
            ("hop limit 1: it is the sender's", set(&packet(100), &[(7, 1)]), Sent),
            ("hop limit 0", set(&packet(100), &[(7, 0)]), NotPlain),
            ("another DSCP", tos(&packet(100), 0xb8), Unknown),
            ("another port", set(&packet(100), &[(43, 81)]), Unknown),
            ("another end", set(&packet(100), &[(39, 0x0b)]), Unknown),
        ] {
            assert_eq!(out(&mut twins, &packet, 0, Ingress::LOCAL), Some(must), "{what}");
        }
    }
}

#[test]
fn what_arrives_straight_is_the_same() {
    let (there, here) = (udp(HOME, PEER, (7, 80), 100), udp(PEER, HOME, (80, 7), 100));
    let ends = [
        (correspondent(), sent_by(optimizing(), &there), wrapped(AGENT, PEER, &there)),
        (optimizing(), sent_by(correspondent(), &here), wrapped(AGENT, WLAN, &here)),
    ];
    for (snapshot, straight, tunnelled) in ends {
        let is_option = straight[6] == 60;
        let Some(mut twins) = Twins::new(snapshot) else { return };
        twins.install_in(&straight);
        let with = |changes: &[(usize, u8)]| set(&straight, changes);
        // Octets 8 to 23 are the outer source, 24 to 39 the outer destination, 48 to 63 the home address.
        let cases = [
            ("the packet itself", straight.clone(), Some(Received)),
            ("another class", tos(&straight, 0xb8), Some(Received)),
            ("hop limit 0", with(&[(7, 0)]), Some(Received)),
            ("another home address", with(&[(63, 0x99)]), Some(Unknown)),
            (
                "another source",
                with(&[(23, 0x99)]),
                Some(if is_option { OtherEnds } else { Unknown }),
            ),
            (
                "another destination",
                with(&[(39, 0x99)]),
                Some(if is_option { Unknown } else { OtherEnds }),
            ),
            ("another port", with(&[(65, 9)]), Some(Unknown)),
            ("UDP-Lite", with(&[(40, 136)]), None),
            ("ICMPv6", with(&[(40, 58)]), None),
            ("a longer header", with(&[(41, 3)]), None),
            ("an option of another length", with(&[(if is_option { 47 } else { 42 }, 0)]), None),
            ("another option, or none left", with(&[(if is_option { 46 } else { 43 }, 0)]), None),
            ("a length that lies", with(&[(5, 99)]), Some(NotPlain)),
            ("padded", [&straight[..], &[0; 6]].concat(), Some(NotPlain)),
            ("cut in the ports", cut(&straight, 66), None),
            ("cut in the header", cut(&straight, 60), None),
            ("the same through the tunnel", tunnelled, Some(OtherEnds)),
        ];
        for (what, packet, must) in cases {
            assert_eq!(back(&mut twins, &packet), must, "{what}, {}", straight[6]);
        }
    }
}

/// So many octets of a packet, with a length that says so.
fn cut(packet: &[u8], octets: usize) -> Vec<u8> {
    set(&packet[..octets], &[(4, 0), (5, octets as u8 - 40)])
}

/// Until something of it was answered, each packet could be the one that nobody gets.
#[test]
fn tcp_is_held_once_it_was_answered() {
    let Some(mut twins) = Twins::new(optimizing()) else { return };
    let packet = tcp(HOME, PEER, (9, 80));
    let mut answer = tcp(PEER, HOME, (80, 9));
    answer[40 + 13] |= 16;
    answer[40 + 8..40 + 12].copy_from_slice(&8_u32.to_be_bytes());
    for _ in 0..3 {
        twins.outbound(Ingress::LOCAL, &packet);
        assert_eq!(out(&mut twins, &packet, 0, Ingress::LOCAL), Some(Unknown), "not answered");
    }
    let answer = sent_by(correspondent(), &answer);
    assert_eq!(twins.inbound(&answer).verdict, Verdict::Deliver);
    twins.install_out(Ingress::LOCAL, &packet);
    assert_eq!(out(&mut twins, &packet, 0, Ingress::LOCAL), Some(Sent));
    twins.install_in(&answer);
    assert_eq!(back(&mut twins, &answer), Some(Received));
}

/// A pair that goes, comes back, or has another care-of address.
#[test]
fn a_pair_takes_its_flows_along() {
    let packet = udp(HOME, PEER, (7, 80), 100);
    let answer = sent_by(correspondent(), &udp(PEER, HOME, (80, 7), 100));
    let Some(mut twins) = Twins::new(optimizing()) else { return };
    twins.install_in(&answer);
    twins.install_out(Ingress::LOCAL, &packet);
    let with = |held| {
        let mut snapshot = optimizing();
        snapshot.optimized = snapshot.optimized.with(pair(HOME, PEER), held);
        snapshot
    };
    let none = || {
        let mut snapshot = optimizing();
        snapshot.optimized = snapshot.optimized.without(&pair(HOME, PEER));
        snapshot
    };
    let ways = |twins: &mut Twins| (out(twins, &packet, 0, Ingress::LOCAL), back(twins, &answer));
    assert_eq!(ways(&mut twins), (Some(Sent), Some(Received)));
    for (what, snapshot) in [
        ("nothing is held", none()),
        ("another binding is held", with(held(&[(2, WWAN)]))),
        ("another care-of address is held", with(held(&[(1, THIRD)]))),
    ] {
        twins.engine.publish(snapshot.into());
        assert_eq!(ways(&mut twins), (Some(Stale), Some(Stale)), "{what}");
        // Decided anew: through the tunnel, packet by packet, as that is how a pair is wanted.
        twins.install_out(Ingress::LOCAL, &packet);
        assert_eq!(twins.outbound(Ingress::LOCAL, &packet).octets[6], 41, "{what}");
        assert_eq!(out(&mut twins, &packet, 0, Ingress::LOCAL), Some(Unknown), "{what}");
        twins.engine.publish(optimizing().into());
        twins.install_in(&answer);
        twins.install_out(Ingress::LOCAL, &packet);
        assert_eq!(ways(&mut twins), (Some(Sent), Some(Received)), "held again");
    }
    // The other end is mobile too, and bound here: both headers, which the engine writes.
    let mut snapshot = optimizing();
    let far = bound(HOME, PEER, vec![binding(Some(3), THIRD, PathId::ROUTED)]);
    snapshot.correspondents = [(pair(PEER, HOME), far)].into_iter().collect();
    twins.engine.publish(snapshot.into());
    assert_eq!(out(&mut twins, &packet, 0, Ingress::LOCAL), Some(Stale));
    twins.install_out(Ingress::LOCAL, &packet);
    assert_eq!(twins.outbound(Ingress::LOCAL, &packet).octets.len(), 148);
    assert_eq!(out(&mut twins, &packet, 0, Ingress::LOCAL), Some(Unknown));
}

/// What the network behind sends has no straight way, so nothing is in the way of holding it.
#[test]
fn a_home_that_optimizes_holds_what_stays_in_the_tunnel() {
    let Some(mut twins) = Twins::new(optimizing()) else { return };
    let packet = udp(INSIDE, PEER, (7, 80), 100);
    twins.install_out(Ingress::OTHER, &packet);
    assert_eq!(out(&mut twins, &packet, 5, Ingress::OTHER), Some(Sent));
    let answer = wrapped(AGENT, WLAN, &udp(PEER, INSIDE, (80, 7), 100));
    twins.install_in(&answer);
    assert_eq!(back(&mut twins, &answer), Some(Received));
    let wanting = udp(HOME, THIRD, (7, 80), 100);
    twins.install_out(Ingress::LOCAL, &wanting);
    assert_eq!(out(&mut twins, &wanting, 0, Ingress::LOCAL), Some(Unknown));
}

#[test]
fn what_was_carried_straight_is_counted_and_noted() {
    const LATER: Duration = Duration::from_secs(1005);
    let packet = udp(HOME, PEER, (7, 80), 100);
    let answer = sent_by(correspondent(), &udp(PEER, HOME, (80, 7), 100));
    let (Some(mut fast), Some(mut slow)) = (Twins::new(optimizing()), Twins::new(optimizing()))
    else {
        return;
    };
    for twins in [&mut fast, &mut slow] {
        twins.install_in(&answer);
        twins.install_out(Ingress::LOCAL, &packet);
    }
    fast.sweep(NOW);
    fast.engine.route_notes();
    for _ in 0..10 {
        assert!(fast.fast(Hook::Out, &packet, 0).is_some());
        assert!(fast.fast(Hook::In, &answer, 0).is_some());
        slow.outbound(Ingress::LOCAL, &packet);
        slow.inbound(&answer);
    }
    let carried = fast.engine.sweep(LATER).unwrap();
    assert_eq!(carried[&PathId(1)], Carried { sent: 1240, received: 1240 });
    let counters = |twins: &Twins| twins.engine.counters().snapshot();
    assert_eq!(counters(&fast), counters(&slow));
    assert_eq!(fast.engine.route_notes(), [RouteNote::Used(pair(HOME, PEER))], "it goes on");
}
