//! The same corpus on live packets: through real interfaces, with the programs at their hooks.
//!
//! A test run says what a program answers; here it is seen what the kernel makes of that answer. Each
//! packet goes to the engine, to a test run and to the kernel, and the three must agree: on what is
//! taken, on its octets, and on what is counted. A packet comes out at one of two places, taken or
//! left to the daemon, and the next one is not sent before that; one that came out at both would be
//! found in the place of its successor.

mod port;
mod rig;
mod shortcut;

use std::time::Duration;

use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::{Carried, PathId, Snapshot, Verdict};
use mtun_policy::Ingress;

use crate::corpus::{self, tried_in, tried_out};
use crate::counting::{LATER, converse, told};
use crate::packets::{Noise, inbound, outbound, set, tos};
use crate::straight::sent_by;
use crate::support::*;
use crate::twins::Twins;
use FastOutcome::*;
use rig::{At, Rig, on_a_rig};

/// Packets from a seed.
const NOISE: usize = 300;

/// One home twice: the packets of the one are live, those of the other are tried out.
struct Both {
    rig: Rig,
    live: Twins,
    tried: Twins,
}

impl Both {
    fn new(rig: Rig, snapshot: impl Fn() -> Snapshot) -> Option<Self> {
        let (live, tried) = (rig.twins(snapshot())?, Twins::new(snapshot())?);
        Some(Self { rig, live, tried })
    }

    fn each(&mut self, run: impl Fn(&mut Twins)) {
        run(&mut self.live);
        run(&mut self.tried);
    }

    /// The paths have carried alike. What is remembered holds on: no lease may end under a test, however
    /// slow the machine is.
    fn sweep(&self, now: Duration) {
        let carried = |twins: &Twins| twins.engine.sweep(now).unwrap();
        assert_eq!(carried(&self.live), carried(&self.tried));
    }

    /// The outcome of a packet that leaves.
    fn out(&mut self, what: &str, packet: &[u8]) -> Option<FastOutcome> {
        self.sweep(NOW);
        let (expected, tried) = tried_out(&mut self.tried, what, packet);
        let mut came = None;
        let outcome = self.live.outcome_of(|_| came = Some(self.rig.leave(packet)));
        assert_eq!(outcome, expected, "{what}");
        let Some(tried) = tried else {
            assert_eq!(came, Some((At::Up, packet.to_vec())), "{what}: left as it came");
            return outcome;
        };
        let slow = self.live.outbound(Ingress::LOCAL, packet);
        assert!(matches!(slow.verdict, Verdict::Send { .. }), "{what}: {slow:?}");
        assert_eq!(unlabelled(&slow.octets), unlabelled(&tried), "{what}");
        assert_eq!(came, Some((At::Air, slow.octets)), "{what}");
        outcome
    }

    /// The outcome of a packet that arrives.
    fn back(&mut self, what: &str, packet: &[u8]) -> Option<FastOutcome> {
        self.sweep(NOW);
        let (expected, tried) = tried_in(&mut self.tried, what, packet);
        let mut came = None;
        let outcome = self.live.outcome_of(|_| came = Some(self.rig.arrive(packet)));
        assert_eq!(outcome, expected, "{what}");
        let Some(tried) = tried else {
            assert_eq!(came, Some((At::Uplink, packet.to_vec())), "{what}: left as it came");
            return outcome;
        };
        let slow = self.live.inbound(packet);
        assert_eq!(slow.verdict, Verdict::Deliver, "{what}");
        assert_eq!(slow.octets, tried, "{what}");
        assert_eq!(came, Some((At::Tunnel, slow.octets)), "{what}");
        outcome
    }

    /// A packet that leaves straight, one that came so, and what is around them.
    fn straight(&mut self, packet: &[u8], answer: &[u8]) {
        self.each(|it| it.install_in(answer));
        self.each(|it| it.install_out(Ingress::LOCAL, packet));
        for (what, packet, must) in [
            ("the packet itself", packet.to_vec(), Sent),
            ("ECN", tos(packet, 3), Sent),
            ("a flow label", set(packet, &[(1, 0x0a), (2, 0xbc), (3, 0xde)]), Sent),
            ("hop limit 1: it is the sender's", set(packet, &[(7, 1)]), Sent),
            ("another port", set(packet, &[(43, 81)]), Unknown),
        ] {
            assert_eq!(self.out(what, &packet), Some(must), "{what}");
        }
        for (what, packet, must) in [
            ("the packet itself", answer.to_vec(), Some(Received)),
            ("another class", tos(answer, 0xb8), Some(Received)),
            ("another home address", set(answer, &[(63, 0x99)]), Some(Unknown)),
            ("ICMPv6", set(answer, &[(40, 58)]), None),
            ("once more", answer.to_vec(), Some(Received)),
        ] {
            assert_eq!(self.back(what, &packet), must, "{what}");
        }
    }

    /// Nothing came out twice or elsewhere, and all was counted alike.
    fn agree(&self) {
        assert!(self.rig.is_quiet());
        self.sweep(LATER);
        assert_eq!(told(&self.live), told(&self.tried));
    }
}

/// Each engine draws its flow labels by a key of its own.
fn unlabelled(packet: &[u8]) -> Vec<u8> {
    set(packet, &[(1, packet[1] & 0xf0), (2, 0), (3, 0)])
}

#[test]
fn what_leaves_is_what_the_engine_sends() {
    on_a_rig(|rig| {
        let Some(mut both) = Both::new(rig, mobile) else { return };
        both.each(corpus::install_out);
        for (what, packet, must) in outbound() {
            assert_eq!(both.out(what, &packet), must.outcome(Sent), "{what}");
        }
        let mut noise = Noise::default();
        let packets = std::iter::repeat_with(|| noise.leaves()).take(NOISE);
        let outcomes: Vec<_> = packets.map(|it| both.out(&format!("{it:x?}"), &it)).collect();
        let taken = outcomes.iter().filter(|it| **it == Some(Sent)).count();
        assert!((NOISE / 4..NOISE).contains(&taken), "{taken}");
        // Behind all others, in both places.
        let packet = udp(HOME, PEER, (7, 80), 100);
        assert_eq!(both.out("the last one", &packet), Some(Sent));
        assert_eq!(both.out("behind it", &set(&packet, &[(6, 58)])), Some(NotPlain));
        both.agree();
    });
}

#[test]
fn what_arrives_is_what_the_engine_delivers() {
    on_a_rig(|rig| {
        let Some(mut both) = Both::new(rig, mobile) else { return };
        both.each(corpus::install_in);
        for (what, packet, must) in inbound() {
            assert_eq!(both.back(what, &packet), must.outcome(Received), "{what}");
        }
        let mut noise = Noise::default();
        let packets = std::iter::repeat_with(|| noise.comes()).take(NOISE);
        let outcomes: Vec<_> = packets.map(|it| both.back(&format!("{it:x?}"), &it)).collect();
        let taken = outcomes.iter().filter(|it| **it == Some(Received)).count();
        assert!((NOISE / 4..NOISE).contains(&taken), "{taken}");
        let packet = wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100));
        assert_eq!(both.back("the last one", &packet), Some(Received));
        assert_eq!(both.back("behind it", &set(&packet, &[(46, 58)])), Some(NotPlain));
        both.agree();
    });
}

#[test]
fn what_goes_straight_is_what_the_engine_sends_and_delivers() {
    type World = fn() -> Snapshot;
    let mobile: World = optimizing;
    let (there, here) = (udp(HOME, PEER, (7, 80), 100), udp(PEER, HOME, (80, 7), 100));
    for (near, far, packet, answer) in [
        (mobile, correspondent as World, there.clone(), here.clone()),
        (correspondent, mobile, here, there),
    ] {
        on_a_rig(move |rig| {
            let Some(mut both) = Both::new(rig, near) else { return };
            both.straight(&packet, &sent_by(far(), &answer));
            both.agree();
        });
    }
}

/// The kernel says by which interface a packet came, and takes one hop, before a program sees it.
#[test]
fn what_is_forwarded_has_the_ingress_of_its_interface() {
    for (named, ingress) in [(false, Ingress::OTHER), (true, Ingress(9))] {
        on_a_rig(move |rig| {
            let Some(mut twins) = rig.twins(mobile()) else { return };
            let front = [(rig.front(), ingress.0)];
            twins.bpf.set_doors(if named { &front } else { &[] }).unwrap();
            let packet = udp(INSIDE, PEER, (7, 80), 100);
            let forwarded = set(&packet, &[(7, packet[7] - 1)]);
            twins.install_out(ingress, &forwarded);
            let mut came = None;
            let outcome = twins.outcome_of(|_| {
                rig.send_from_host(&packet);
                came = Some(rig.next(&[At::Air, At::Up]));
            });
            assert_eq!(outcome, Some(Sent));
            assert_eq!(came, Some((At::Air, twins.outbound(ingress, &forwarded).octets)));
            let outcome = twins.outcome_of(|_| came = Some(rig.leave(&packet)));
            assert_eq!(outcome, Some(Unknown), "not from a local socket");
            assert_eq!(came, Some((At::Up, packet)));
            assert!(rig.is_quiet());
        });
    }
}

#[test]
fn what_was_carried_is_counted_as_if_the_engine_had_carried_it() {
    on_a_rig(|rig| {
        let (Some(mut fast), Some(mut slow)) = (rig.twins(mobile()), Twins::new(mobile())) else {
            return;
        };
        let (out, back) = converse([&mut fast, &mut slow]);
        for _ in 0..50 {
            for packet in &out {
                assert_eq!(rig.leave(packet).0, At::Air);
                slow.outbound(Ingress::LOCAL, packet);
            }
            for packet in &back {
                assert_eq!(rig.arrive(packet).0, At::Tunnel);
                slow.inbound(packet);
            }
        }
        let carried = fast.engine.sweep(LATER).unwrap();
        assert_eq!(told(&fast), told(&slow));
        let octets = |inner: u64| 50 * (inner + 40);
        assert_eq!(carried[&PathId(1)], Carried { sent: octets(100), received: octets(400) });
        assert_eq!(carried[&PathId(2)], Carried { sent: octets(60), received: octets(60) });
    });
}
