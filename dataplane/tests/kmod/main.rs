//! One truth: what the engine decides and what `kmod-mtun` does again.
//!
//! The corpus of the other fast path goes through the engine and through the module, on real
//! interfaces. The module may leave any packet to the daemon; what it takes, it must send or deliver
//! as the engine would, octet for octet. Needs a kernel with the link kind `mtun`:
//! `tests/vm/run.sh daemons` carries this program to one.

mod twins;

#[path = "../parity/packets.rs"]
mod packets;
#[path = "../support/mod.rs"]
mod support;

use mtun_dataplane::{Verdict, wire};
use mtun_policy::Ingress;

use packets::{Must, Noise, inbound, outbound};
use support::*;
use twins::{Twins, in_a_namespace};

/// Octets of a marker.
const MARKER: usize = 777;
const MARK: &[u8] = b"a marker";

/// A packet of that flow that is like no other: one that is drawn by chance may have any length, and
/// taken for the marker it would shift all answers by one.
fn marker(source: &str, destination: &str, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = udp(source, destination, ports, MARKER);
    packet[MARKER - MARK.len()..].copy_from_slice(MARK);
    packet
}

fn marker_out() -> Vec<u8> {
    marker(HOME, PEER, (7, 80))
}

fn marker_in() -> Vec<u8> {
    wrapped(AGENT, WLAN, &marker(PEER, HOME, (80, 7)))
}

fn mobile_twins() -> Twins {
    let mut twins = Twins::new(mobile(), &[WLAN, WWAN], &[AGENT]);
    twins.install_in(&wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100)));
    twins.install_in(&wrapped(AGENT, WLAN, &tcp(PEER, HOME, (80, 9))));
    for packet in
        [udp(HOME, PEER, (7, 80), 100), tcp(HOME, PEER, (9, 80)), udp(INSIDE, PEER, (7, 80), 100)]
    {
        twins.install_out(Ingress::LOCAL, &packet);
    }
    twins
}

/// What the module takes is what the engine sends; whether it was taken.
fn compare_out(twins: &mut Twins, what: &str, packet: &[u8]) -> bool {
    let fast = twins.fast_out(packet, &marker_out());
    let slow = twins.outbound(Ingress::LOCAL, packet);
    let Some(fast) = fast else { return false };
    assert!(matches!(slow.verdict, Verdict::Send { .. }), "{what}: {slow:?}");
    assert_eq!(fast, slow.octets, "{what}");
    assert_eq!(wire::packets(&fast).count(), 1, "{what}");
    true
}

/// The same for packets that come.
fn compare_in(twins: &mut Twins, what: &str, packet: &[u8]) -> bool {
    // First: what the engine admits by another binding ends the flow.
    let Some(fast) = twins.fast_in(packet, &marker_in()) else { return false };
    let slow = twins.inbound(packet);
    assert_eq!(slow.verdict, Verdict::Deliver, "{what}");
    assert_eq!(fast, slow.octets, "{what}");
    true
}

#[test]
#[ignore = "needs kmod-mtun; tests/vm/run.sh runs it"]
fn the_corpus_is_sent_and_delivered_as_decided() {
    in_a_namespace(|| {
        let mut twins = mobile_twins();
        for (what, packet, must) in outbound() {
            let taken = compare_out(&mut twins, what, &packet);
            assert!(taken || must != Must::Take, "out: {what}");
        }
        // One at a time has the device.
        drop(twins);
        let mut twins = mobile_twins();
        for (what, packet, must) in inbound() {
            let taken = compare_in(&mut twins, what, &packet);
            assert!(taken || must != Must::Take, "in: {what}");
            assert!(!taken || must != Must::Overlook, "in: {what}");
        }
    });
}

#[test]
#[ignore = "needs kmod-mtun; tests/vm/run.sh runs it"]
fn an_agent_sends_by_the_link_that_was_used() {
    in_a_namespace(|| {
        let mut twins = Twins::new(agent(), &[AGENT], &[WLAN, WWAN]);
        let inner = udp(INSIDE, PEER, (7, 80), 300);
        twins.install_in(&wrapped(WWAN, AGENT, &inner));
        let marker = wrapped(WWAN, AGENT, &marker(INSIDE, PEER, (7, 80)));
        let answers = twins.fast_in(&wrapped(WWAN, AGENT, &inner), &marker);
        assert_eq!(answers, Some(inner.clone()));
        assert_eq!(twins.fast_in(&wrapped(WLAN, AGENT, &inner), &marker), None, "another link");
    });
}

#[test]
#[ignore = "needs kmod-mtun; tests/vm/run.sh runs it"]
fn whatever_is_taken_is_sent_and_delivered_as_decided() {
    in_a_namespace(|| {
        let mut twins = mobile_twins();
        let mut noise = Noise::default();
        let (mut sent, mut delivered) = (0, 0);
        for turn in 0..1_000 {
            // What the module remembers holds only while somebody vouches for it.
            if turn % 50 == 0 {
                twins.engine.sweep(NOW).unwrap();
            }
            let packet = noise.leaves();
            sent += u32::from(compare_out(&mut twins, &format!("out {turn}"), &packet));
            let packet = noise.comes();
            delivered += u32::from(compare_in(&mut twins, &format!("in {turn}"), &packet));
        }
        assert!(sent > 250 && delivered > 250, "{sent} {delivered}");
    });
}

/// What the module carried is counted as if the engine had, and brought back when it ends.
#[test]
#[ignore = "needs kmod-mtun; tests/vm/run.sh runs it"]
fn what_was_carried_is_counted_once() {
    in_a_namespace(|| {
        let mut twins = mobile_twins();
        let carried = twins.engine.sweep(NOW).unwrap();
        let before: (u64, u64) =
            carried.values().fold((0, 0), |sum, it| (sum.0 + it.sent, sum.1 + it.received));
        assert_eq!(before, (0, 0), "the engine's own are not the module's");
        let (out, back) =
            (udp(HOME, PEER, (7, 80), 100), wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 400)));
        for _ in 0..10 {
            twins.fast_out(&out, &marker_out()).expect("taken");
            twins.fast_in(&back, &marker_in()).expect("taken");
        }
        let markers = 10 * (40 + MARKER as u64);
        let carried = twins.engine.sweep(NOW).unwrap();
        let sum = carried.values().fold((0, 0), |sum, it| (sum.0 + it.sent, sum.1 + it.received));
        assert_eq!(sum, (1400 + markers, 4400 + markers));
        assert!(twins.engine.sweep(NOW).unwrap().is_empty(), "and not again");
        // Ended, not one packet more is taken.
        twins.engine.forget_fast();
        twins.send_out(&out);
        twins.send_in(&back);
        twins.install_out(Ingress::LOCAL, &udp(HOME, PEER, (7, 80), 100));
        twins.install_in(&marker_in());
        assert!(twins.fast_out(&out, &marker_out()).is_some(), "decided again");
        let carried = twins.engine.sweep(NOW).unwrap();
        let sent: u64 = carried.values().map(|it| it.sent).sum();
        assert_eq!(sent, 140 + 40 + MARKER as u64, "only what was decided again");
    });
}
