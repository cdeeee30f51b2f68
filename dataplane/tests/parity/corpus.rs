//! The corpus through the engine and the programs, every field, and packets from a seed.

use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::backend::Hook;
use mtun_dataplane::{Registration, Verdict, wire};
use mtun_policy::{Effective, Ingress, Otherwise, Outcome, TrafficSelector};

use crate::packets::{Must, Noise, inbound, outbound, set, tos};
use crate::support::*;
use crate::twins::{ALSO_NAMED, NAMED, Twins};
use FastOutcome::*;
use Must::*;

impl Must {
    /// What has to be counted; this if it is taken.
    pub fn outcome(self, taken: FastOutcome) -> Option<FastOutcome> {
        match self {
            Take => Some(taken),
            Leave(why) => Some(why),
            Overlook => None,
        }
    }
}

/// What became of a packet that leaves, and how it was sent if it was taken: as the engine does.
pub fn tried_out(twins: &mut Twins, what: &str, packet: &[u8]) -> Tried {
    let mut fast = None;
    let outcome = twins.outcome_of(|it| fast = it.fast(Hook::Out, packet, 0));
    if let Some(fast) = &fast {
        let slow = twins.outbound(Ingress::LOCAL, packet);
        assert!(matches!(slow.verdict, Verdict::Send { .. }), "{what}: {slow:?}");
        assert_eq!(*fast, slow.octets, "{what}");
    }
    (outcome, fast)
}

/// What was counted, and the octets of what was taken.
pub type Tried = (Option<FastOutcome>, Option<Vec<u8>>);

pub fn install_out(twins: &mut Twins) {
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
        let (outcome, _) = tried_out(&mut twins, what, &packet);
        assert_eq!(outcome, must.outcome(Sent), "{what}");
    }
}

#[test]
fn what_leaves_an_agent_is_the_same() {
    let Some(mut twins) = Twins::new(agent()) else { return };
    let (udp, tcp) = (udp(PEER, HOME, (80, 7), 200), tcp(PEER, INSIDE, (80, 9)));
    twins.install_out(Ingress::OTHER, &udp);
    twins.install_out(Ingress::OTHER, &tcp);
    for packet in [&udp, &tcp] {
        let fast = twins.fast(Hook::Out, packet, 5).expect("it is installed");
        assert_eq!(fast, twins.outbound(Ingress::OTHER, packet).octets);
        assert_eq!(twins.fast(Hook::Out, packet, 0), None, "not from a local socket");
    }
}

/// The same of one that arrives.
pub fn tried_in(twins: &mut Twins, what: &str, packet: &[u8]) -> Tried {
    let mut fast = None;
    let outcome = twins.outcome_of(|it| fast = it.fast(Hook::In, packet, 0));
    if let Some(fast) = &fast {
        let slow = twins.inbound(packet);
        assert_eq!(slow.verdict, Verdict::Deliver, "{what}");
        assert_eq!(*fast, slow.octets, "{what}");
    }
    (outcome, fast)
}

pub fn install_in(twins: &mut Twins) {
    twins.install_in(&wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100)));
    twins.install_in(&wrapped(AGENT, WLAN, &tcp(PEER, HOME, (80, 9))));
}

#[test]
fn what_arrives_at_a_mobile_is_the_same() {
    let Some(mut twins) = Twins::new(mobile()) else { return };
    install_in(&mut twins);
    for (what, packet, must) in inbound() {
        let (outcome, _) = tried_in(&mut twins, what, &packet);
        assert_eq!(outcome, must.outcome(Received), "{what}");
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
        let (outcome, _) = tried_in(&mut twins, source, &wrapped(source, destination, &inner));
        assert_eq!(outcome, must.outcome(Received), "{source}");
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
    let named = [NAMED, ALSO_NAMED].map(|(from, number)| (from, Ingress(number)));
    let doors = [(0, Ingress::LOCAL), (5, Ingress::OTHER), named[0], named[1]];
    for (what, registration, held) in rules {
        let Some(mut twins) = Twins::new(mobile_with(registration)) else { return };
        // Each is installed in turn and must not be mistaken for what was installed before.
        for (packet, (from, ingress)) in packets.iter().flat_map(|p| doors.map(|door| (p, door))) {
            twins.install_out(ingress, packet);
            for (packet, (from, ingress)) in
                packets.iter().flat_map(|p| doors.map(|door| (p, door)))
            {
                if let Some(fast) = twins.fast(Hook::Out, packet, from) {
                    assert_eq!(fast, twins.outbound(ingress, packet).octets, "{what}");
                }
            }
            let taken = twins.fast(Hook::Out, packet, from).is_some();
            assert_eq!(taken, held, "{what}");
        }
    }
}

#[test]
fn whatever_is_taken_is_sent_as_decided() {
    let Some(mut twins) = Twins::new(mobile()) else { return };
    install_out(&mut twins);
    twins.install_in(&wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100)));
    let mut noise = Noise::default();
    let (mut taken_out, mut taken_in) = (0, 0);
    for _ in 0..20_000 {
        let packet = noise.leaves();
        let slow = twins.outbound(Ingress::LOCAL, &packet);
        if let Some(fast) = twins.fast(Hook::Out, &packet, 0) {
            assert!(matches!(slow.verdict, Verdict::Send { .. }), "{packet:x?}");
            assert_eq!(fast, slow.octets);
            assert_eq!(wire::packets(&fast).count(), 1);
            taken_out += 1;
        }
        let packet = noise.comes();
        // First: what the engine admits by another binding ends the flow.
        let fast = twins.fast(Hook::In, &packet, 0);
        let slow = twins.inbound(&packet);
        if let Some(fast) = fast {
            assert_eq!(slow.verdict, Verdict::Deliver, "{packet:x?}");
            assert_eq!(fast, slow.octets);
            taken_in += 1;
        }
    }
    assert!(taken_out > 5_000 && taken_in > 5_000, "{taken_out} {taken_in}");
}
