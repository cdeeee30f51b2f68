//! From one mobile to another by the shortcut of their agent: what goes on is what would have been
//! unwrapped, forwarded and wrapped again.

use mtun_dataplane::abi::{Course, FastFlow, FastKey, FastOutcome, Shortcut};
use mtun_dataplane::backend::Hook;
use mtun_dataplane::{PathId, Registration, Snapshot, Verdict};
use mtun_policy::{Effective, HomeAddress, Ingress};

use crate::packets::{set, tos};
use crate::support::*;
use crate::twins::{LINK, ONWARDS, TUNNEL, Twins};

/// Another mobile of the agent, and where it is.
const OTHER: &str = "2001:db8:100::43";
const THERE: &str = "2001:db8:3::7";

/// Octets of an inner packet that fit the other mobile's link, which is smaller.
const ROOM: usize = 1360;

/// An agent of two mobiles.
fn of_two() -> Snapshot {
    let mut there = binding(Some(1), THERE, PathId::ROUTED);
    there.mtu = 1400;
    let policy = Effective::reflecting();
    let other = Registration {
        home_address: HomeAddress(v6(OTHER)),
        prefixes: Vec::new(),
        ..registration(vec![there], policy.clone())
    };
    let one = registration(routed(uplinks()), policy);
    Snapshot { cache: [one, other].into_iter().collect(), ..agent() }
}

fn around(inner: &[u8]) -> Vec<u8> {
    wrapped(WLAN, AGENT, inner)
}

fn datagram(length: usize) -> Vec<u8> {
    udp(HOME, OTHER, (7, 80), length)
}

/// With these flags.
fn segment(flags: u8) -> Vec<u8> {
    set(&tcp(HOME, OTHER, (9, 80)), &[(53, flags)])
}

/// Both flows of a datagram and of a segment, installed.
fn installed() -> Option<Twins> {
    let mut twins = Twins::new(of_two())?;
    for inner in [datagram(100), tcp(HOME, OTHER, (9, 80))] {
        twins.install_in(&around(&inner));
        twins.install_out(Ingress::OTHER, &inner);
    }
    Some(twins)
}

/// What the program sends on, with its link header.
fn relayed(twins: &Twins, packet: &[u8]) -> Option<Vec<u8>> {
    let frame = [&LINK[..], packet].concat();
    let mut tried = None;
    let outcome =
        twins.outcome_of(|it| tried = Some(it.bpf.try_out(Hook::In, &frame, 0, 1).unwrap()));
    (outcome == Some(FastOutcome::ShortcutRelayed)).then(|| tried.unwrap().frame)
}

/// Unwrapped, forwarded by the kernel, which takes one hop, and wrapped again.
fn the_normal_way(twins: &mut Twins, packet: &[u8]) -> Vec<u8> {
    let came = twins.inbound(packet);
    assert_eq!(came.verdict, Verdict::Deliver);
    let forwarded = set(&came.octets, &[(7, came.octets[7] - 1)]);
    let sent = twins.outbound(Ingress::OTHER, &forwarded);
    assert!(matches!(sent.verdict, Verdict::Send { .. }), "{:?}", sent.verdict);
    sent.octets
}

fn compare(what: &str, twins: &mut Twins, packet: &[u8], taken: bool) {
    // What the engine carried meanwhile was decided anew, and has to pass anew.
    twins.pass_all(Shortcut::All, TUNNEL, 0);
    let fast = relayed(twins, packet);
    assert_eq!(fast.is_some(), taken, "{what}");
    if let Some(fast) = fast {
        let slow = the_normal_way(twins, packet);
        assert_eq!(fast, [&ONWARDS[..], &slow].concat(), "{what}");
    }
}

#[test]
fn what_goes_on_is_what_goes_on_the_normal_way() {
    let Some(mut twins) = installed() else { return };
    let cases = [
        ("UDP", around(&datagram(100)), true),
        ("TCP", around(&segment(0x10)), true),
        ("TCP that pushes", around(&segment(0x18)), true),
        ("a flow label of its own", around(&set(&datagram(100), &[(2, 0xbc), (3, 0xde)])), true),
        ("as much as fits", around(&datagram(ROOM)), true),
        ("one octet more", around(&datagram(ROOM + 1)), false),
        ("two hops left", around(&set(&datagram(100), &[(7, 2)])), true),
        ("one hop left", around(&set(&datagram(100), &[(7, 1)])), false),
        ("SYN", around(&segment(0x02)), false),
        ("FIN", around(&segment(0x11)), false),
        ("RST", around(&segment(0x04)), false),
        ("another DSCP", around(&tos(&datagram(100), 0xb8)), false),
        ("to nobody's flow", around(&udp(HOME, OTHER, (7, 81), 100)), false),
        ("by the other link", wrapped(WWAN, AGENT, &datagram(100)), false),
    ];
    for (what, packet, taken) in &cases {
        compare(what, &mut twins, packet, *taken);
    }
    for (outer, inner) in (0..16).map(|both| (both / 4, both % 4)) {
        let packet = tos(&around(&tos(&datagram(100), inner)), outer);
        let taken = (outer, inner) != (3, 0);
        compare(&format!("ECN {outer} around {inner}"), &mut twins, &packet, taken);
    }
}

/// A change of one direction's entry.
type Change = fn(&mut FastFlow);

/// Every fact that a packet passed by is looked at, in both of its flows.
#[test]
fn what_did_not_pass_so_goes_the_normal_way() {
    let changes: [(&str, bool, Course, Change); 13] = [
        ("as it passed", true, Course::Out, |_| {}),
        ("never came so", false, Course::In, |flow| flow.passed_ns = 0),
        ("came so long ago", false, Course::In, |flow| flow.passed_ns -= 1_100_000_000),
        ("came under another round", false, Course::In, |flow| flow.round -= 1),
        ("came to a network behind", false, Course::In, |flow| flow.front = 77),
        ("into a tunnel interface that takes just as much", true, Course::Out, |it| it.fits = 100),
        ("that takes one octet less", false, Course::Out, |it| it.fits = 99),
        ("never left so", false, Course::Out, |flow| flow.passed_ns = 0),
        ("left so long ago", false, Course::Out, |flow| flow.passed_ns -= 1_100_000_000),
        ("left under another round", false, Course::Out, |flow| flow.round -= 1),
        ("left from a network behind", false, Course::Out, |flow| flow.front = 77),
        ("before its path was written", false, Course::Out, |flow| flow.turn -= 1),
        ("decided under another generation", false, Course::Out, |flow| flow.generation -= 1),
    ];
    for (what, taken, course, change) in changes {
        let Some(twins) = installed() else { return };
        twins.pass_all(Shortcut::All, TUNNEL, 0);
        let mut flows = Vec::new();
        twins.bpf.each(&mut |key, flow| flows.push((*key, *flow))).unwrap();
        for (key, mut flow) in flows.into_iter().filter(|(key, _)| is_of(key, course)) {
            change(&mut flow);
            twins.bpf.put(&key, &flow).unwrap();
        }
        assert_eq!(relayed(&twins, &around(&datagram(100))).is_some(), taken, "{what}");
    }
}

fn is_of(key: &FastKey, course: Course) -> bool {
    key.direction == course as u8
}

/// TCP has to have passed both ways, where a firewall follows it not at all; and there is a switch.
#[test]
fn what_the_shortcut_may_not_take_is_not_sent_on() {
    let Some(twins) = installed() else { return };
    let taken = |twins: &Twins| {
        [datagram(100), segment(0x10)].map(|inner| relayed(twins, &around(&inner)).is_some())
    };
    for (shortcut, expected) in [
        (Shortcut::All, [true, true]),
        (Shortcut::Udp, [true, false]),
        (Shortcut::None, [false, false]),
    ] {
        twins.pass_all(shortcut, TUNNEL, 0);
        assert_eq!(taken(&twins), expected, "{shortcut:?}");
    }
    twins.pass_all(Shortcut::All, TUNNEL, 0);
    twins.bpf.next_round().unwrap();
    assert_eq!(taken(&twins), [false; 2], "a new round");
}

/// Both flows carried it.
#[test]
fn it_counts_as_one_that_came_and_one_that_left() {
    let Some(twins) = installed() else { return };
    twins.pass_all(Shortcut::All, TUNNEL, 0);
    relayed(&twins, &around(&datagram(100))).unwrap();
    let mut counted = Vec::new();
    twins
        .bpf
        .each(&mut |key, flow| {
            counted.push((key.protocol, key.direction, flow.packets, flow.octets))
        })
        .unwrap();
    counted.sort_unstable();
    assert_eq!(counted, [(6, 0, 0, 0), (6, 1, 0, 0), (17, 0, 1, 100), (17, 1, 1, 100)]);
}
