//! What the fast path carried is counted as if the engine had carried it.

use std::time::Duration;

use mtun_dataplane::backend::Hook;
use mtun_dataplane::{Carried, CounterSnapshot, PathId};
use mtun_policy::Ingress;

use crate::support::*;
use crate::twins::Twins;

pub const LATER: Duration = Duration::from_secs(1001);

/// What both engines counted, and their flows, but for the times.
pub fn told(twins: &Twins) -> (CounterSnapshot, Vec<[u64; 4]>) {
    let mut flows: Vec<_> = twins.engine.flows();
    flows.sort_by_key(|flow| (flow.key.source, flow.key.source_port));
    let loads =
        flows.iter().map(|it| [it.packets_out, it.bytes_out, it.packets_in, it.bytes_in]).collect();
    (twins.engine.counters().snapshot(), loads)
}

/// A packet of two flows each way, the flows installed at both.
pub fn converse(both: [&mut Twins; 2]) -> ([Vec<u8>; 2], [Vec<u8>; 2]) {
    let out = [udp(HOME, PEER, (7, 80), 100), tcp(HOME, PEER, (9, 22))];
    let back = [
        wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 400)),
        wrapped(AGENT, WWAN, &tcp(PEER, HOME, (22, 9))),
    ];
    for twins in both {
        // In first: an answer is made for the binding that was verified last.
        back.iter().for_each(|packet| twins.install_in(packet));
        out.iter().for_each(|packet| twins.install_out(Ingress::LOCAL, packet));
    }
    (out, back)
}

#[test]
fn counters_and_flows_are_those_of_the_engine_alone() {
    let (Some(mut fast), Some(mut slow)) = (Twins::new(mobile()), Twins::new(mobile())) else {
        return;
    };
    let (out, back) = converse([&mut fast, &mut slow]);
    for round in 0..100 {
        for packet in &out {
            assert!(fast.fast(Hook::Out, packet, 0).is_some(), "round {round}");
            slow.outbound(Ingress::LOCAL, packet);
        }
        for packet in &back {
            assert!(fast.fast(Hook::In, packet, 0).is_some(), "round {round}");
            slow.inbound(packet);
        }
        if round % 30 == 0 {
            fast.sweep(NOW);
        }
    }
    fast.sweep(LATER);
    assert_eq!(told(&fast), told(&slow));
    let seen = fast.engine.flows().iter().map(|flow| flow.last_seen).min().unwrap();
    assert!(seen > NOW - Duration::from_secs(60), "packets of the fast path are signs of life");
}

#[test]
fn paths_are_told_their_outer_octets_once() {
    let Some(mut twins) = Twins::new(mobile()) else { return };
    let (out, back) =
        (udp(HOME, PEER, (7, 80), 100), wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 400)));
    twins.install_in(&back);
    twins.install_out(Ingress::LOCAL, &out);
    for _ in 0..10 {
        assert!(twins.fast(Hook::Out, &out, 0).is_some());
        assert!(twins.fast(Hook::In, &back, 0).is_some());
    }
    let carried = twins.engine.sweep(LATER).unwrap();
    assert_eq!(carried[&PathId(1)], Carried { sent: 1400, received: 4400 });
    assert!(twins.engine.sweep(LATER).unwrap().is_empty(), "and not again");
}
