//! The shortcut on live packets: noted by what the kernel itself forwarded, taken by what follows.
//!
//! A packet by the shortcut goes on as one of the normal way would have, link header included, and
//! never comes by the tunnel interface. What was noted is held for an hour here, so that no test
//! depends on how fast it runs; that it ends is told by test runs.

use std::time::Duration;

use mtun_dataplane::abi::{FastFlow, FastOutcome, Shortcut};
use mtun_dataplane::{Carried, PathId, Verdict};
use mtun_policy::Ingress;

use super::rig::{At, Rig, on_a_rig};
use crate::counting::{LATER, told};
use crate::packets::{set, tos};
use crate::support::*;
use crate::twins::Twins;
use FastOutcome::*;

const HOUR: Duration = Duration::from_secs(3600);

fn there(length: usize) -> Vec<u8> {
    udp(INSIDE, PEER, (7, 80), length)
}

fn here(length: usize) -> Vec<u8> {
    udp(PEER, INSIDE, (80, 7), length)
}

/// TCP both ways with these flags.
fn tcp_there(flags: u8) -> Vec<u8> {
    set(&tcp(INSIDE, PEER, (9, 80)), &[(53, flags)])
}

fn tcp_here(flags: u8) -> Vec<u8> {
    set(&tcp(PEER, INSIDE, (80, 9)), &[(53, flags)])
}

const ACK: u8 = 0x10;

fn around(inner: &[u8]) -> Vec<u8> {
    wrapped(AGENT, WLAN, inner)
}

/// As the kernel forwards it.
fn forwarded(packet: &[u8]) -> Vec<u8> {
    set(packet, &[(7, packet[7] - 1)])
}

fn install(twins: &mut Twins) {
    for packet in [here(100), tcp_here(ACK)] {
        twins.install_in(&around(&packet));
    }
    for packet in [there(100), tcp_there(ACK)] {
        twins.install_out(Ingress::OTHER, &packet);
    }
}

/// What has to pass before all flows take the shortcut: out, back, and once more out for TCP, which
/// has to have passed both ways.
fn passing() -> ([Vec<u8>; 2], [Vec<u8>; 2], Vec<u8>) {
    let back = [around(&here(100)), around(&tcp_here(ACK))];
    ([there(100), tcp_there(ACK)], back, tcp_there(ACK))
}

/// A mobile router with flows of the host behind it.
struct Router {
    rig: Rig,
    twins: Twins,
}

impl Router {
    fn new(rig: Rig) -> Option<Self> {
        let mut twins = rig.twins(mobile())?;
        twins.bpf.set_shortcut(Shortcut::All).unwrap();
        install(&mut twins);
        Some(Self { rig, twins })
    }

    /// Has a packet of every flow pass, and what is noted of that hold.
    fn pass(&self) {
        let (out, back, again) = passing();
        out.iter().for_each(|packet| self.passes_out(packet));
        // The programs stand where flows were seen to come from.
        self.twins.sweep(NOW);
        for packet in &back {
            self.rig.send_from_wire(packet);
            self.rig.next(&[At::Host]);
            // It came this way if it was decided anew since the last time.
            self.rig.passed_the_tunnel();
        }
        self.passes_out(&again);
        let mut flows = Vec::new();
        self.twins.bpf.each(&mut |key, flow| flows.push((*key, *flow))).unwrap();
        for (key, flow) in flows {
            let passed_ns = self.twins.bpf.clock() + HOUR.as_nanos() as u64;
            assert_ne!(flow.passed_ns, 0, "it has passed");
            self.twins.bpf.put(&key, &FastFlow { passed_ns, ..flow }).unwrap();
        }
    }

    fn passes_out(&self, packet: &[u8]) {
        self.rig.send_from_host(packet);
        self.rig.next(&[At::Air]);
    }

    fn out(&mut self, what: &str, packet: &[u8], must: Option<FastOutcome>) {
        let mut came = None;
        let outcome = self.twins.outcome_of(|_| {
            self.rig.send_from_host(packet);
            came = Some(self.rig.next(&[At::Air, At::Up, At::Host]));
        });
        assert_eq!(outcome, must, "{what}");
        let (at, octets) = came.expect("it came");
        match must {
            Some(Sent | ShortcutSent) => {
                let slow = self.twins.outbound(Ingress::OTHER, &forwarded(packet));
                assert!(matches!(slow.verdict, Verdict::Send { .. }), "{what}");
                assert_eq!((at, octets), (At::Air, slow.octets), "{what}");
            }
            Some(_) => assert_eq!((at, octets), (At::Up, forwarded(packet)), "{what}"),
            None => assert_eq!((at, octets[6]), (At::Host, 58), "{what}: an ICMPv6 error"),
        }
    }

    /// Of one that the kernel does not forward there is nothing behind the tunnel interface.
    fn back(&mut self, what: &str, packet: &[u8], must: FastOutcome, forwards: bool) {
        let places = if must == ShortcutReceived { At::Host } else { At::Tunnel };
        let mut came = None;
        let outcome = self.twins.outcome_of(|_| {
            self.rig.send_from_wire(packet);
            came = Some(self.rig.next(&[places, At::Uplink]));
        });
        assert_eq!(outcome, Some(must), "{what}");
        if !matches!(must, Received | ShortcutReceived) {
            assert_eq!(came, Some((At::Uplink, packet.to_vec())), "{what}");
            return;
        }
        let slow = self.twins.inbound(packet);
        assert_eq!(slow.verdict, Verdict::Deliver, "{what}");
        if must == Received {
            assert_eq!(came, Some((At::Tunnel, slow.octets.clone())), "{what}");
            came = forwards.then(|| self.rig.next(&[At::Host]));
        }
        if forwards {
            assert_eq!(came, Some((At::Host, forwarded(&slow.octets))), "{what}");
        }
        assert!(self.rig.is_quiet(), "{what}");
    }
}

#[test]
fn what_leaves_by_it_goes_on_as_by_the_normal_way() {
    on_a_rig(|rig| {
        let Some(mut router) = Router::new(rig) else { return };
        for (what, packet, must) in [
            ("UDP", there(100), Some(ShortcutSent)),
            ("TCP", tcp_there(ACK), Some(ShortcutSent)),
            ("as much as fits", there(1460), Some(ShortcutSent)),
            ("one octet more", there(1461), Some(TooBig)),
            ("ECN", tos(&there(100), 2), Some(ShortcutSent)),
            ("two hops left", set(&there(100), &[(7, 2)]), Some(ShortcutSent)),
            ("one hop left", set(&there(100), &[(7, 1)]), None),
            ("SYN", tcp_there(0x02), Some(Sent)),
            ("FIN", tcp_there(0x11), Some(Sent)),
            ("RST", tcp_there(0x04), Some(Sent)),
            ("another flow", udp(INSIDE, PEER, (8, 80), 100), Some(Unknown)),
            ("another DSCP", tos(&there(100), 0xb8), Some(Unknown)),
            ("ICMPv6", set(&there(100), &[(6, 58)]), Some(NotPlain)),
            ("UDP once more", there(100), Some(ShortcutSent)),
        ] {
            router.pass();
            router.out(what, &packet, must);
        }
        assert!(router.rig.is_quiet());
    });
}

#[test]
fn what_arrives_by_it_goes_on_as_by_the_normal_way() {
    on_a_rig(|rig| {
        let Some(mut router) = Router::new(rig) else { return };
        let marked = |outer, inner| tos(&around(&tos(&here(100), inner)), outer);
        for (what, packet, must, forwards) in [
            ("UDP", around(&here(100)), ShortcutReceived, true),
            ("TCP", around(&tcp_here(ACK)), ShortcutReceived, true),
            ("as much as fits", around(&here(1460)), ShortcutReceived, true),
            ("two hops left", around(&set(&here(100), &[(7, 2)])), ShortcutReceived, true),
            ("one hop left", around(&set(&here(100), &[(7, 1)])), Received, false),
            ("SYN", around(&tcp_here(0x12)), Received, true),
            ("FIN", around(&tcp_here(0x11)), Received, true),
            ("RST", around(&tcp_here(0x14)), Received, true),
            ("by the other link", wrapped(AGENT, WWAN, &here(100)), OtherEnds, false),
            ("congestion", marked(3, 2), ShortcutReceived, true),
            ("congestion that cannot be said", marked(3, 0), Congestion, false),
            ("ECT(1) over ECT(0)", marked(1, 2), ShortcutReceived, true),
            ("UDP once more", around(&here(100)), ShortcutReceived, true),
        ] {
            router.pass();
            router.back(what, &packet, must, forwards);
        }
    });
}

#[test]
fn what_does_not_fit_behind_is_left_to_the_kernel() {
    on_a_rig(|rig| {
        let Some(mut router) = Router::new(rig) else { return };
        router.rig.narrow(1400);
        for (octets, must) in [(1400, ShortcutReceived), (1401, Received)] {
            router.pass();
            router.back("what fits", &around(&here(octets)), must, octets <= 1400);
        }
    });
}

#[test]
fn a_round_has_everything_pass_once_more() {
    on_a_rig(|rig| {
        let Some(mut router) = Router::new(rig) else { return };
        router.pass();
        router.twins.bpf.next_round().unwrap();
        router.out("under another round", &there(100), Some(Sent));
        router.back("under another round", &around(&here(100)), Received, true);
        router.pass();
        router.out("passed once more", &there(100), Some(ShortcutSent));
        router.back("passed once more", &around(&here(100)), ShortcutReceived, true);
    });
}

#[test]
fn what_took_it_is_counted_as_if_the_engine_had_carried_it() {
    const ROUNDS: usize = 20;
    on_a_rig(|rig| {
        let (Some(router), Some(mut slow)) = (Router::new(rig), Twins::new(mobile())) else {
            return;
        };
        router.pass();
        router.twins.sweep(NOW);
        install(&mut slow);
        let (out, back, again) = passing();
        drop(slow.outbound(Ingress::OTHER, &again));
        for _ in 0..=ROUNDS {
            out.iter().for_each(|packet| drop(slow.outbound(Ingress::OTHER, packet)));
            back.iter().for_each(|packet| drop(slow.inbound(packet)));
        }
        for _ in 0..ROUNDS {
            out.iter().for_each(|packet| router.passes_out(packet));
            for packet in &back {
                router.rig.send_from_wire(packet);
                router.rig.next(&[At::Host]);
            }
        }
        assert!(router.rig.is_quiet(), "none by the tunnel interface");
        let outcomes = router.twins.bpf.outcomes().unwrap();
        for by_it in [ShortcutSent, ShortcutReceived] {
            assert!(outcomes.contains(&(by_it, 2 * ROUNDS as u64)), "{outcomes:?}");
        }
        let carried = router.twins.engine.sweep(LATER).unwrap();
        assert_eq!(told(&router.twins), told(&slow));
        let octets = (ROUNDS * (100 + 60 + 2 * 40)) as u64;
        assert_eq!(carried[&PathId(1)], Carried { sent: octets, received: octets });
    });
}
