//! The shortcut: what takes it is what would have left or arrived the normal way, with the one hop
//! that the kernel takes when it forwards; and what must be seen by the kernel does not take it.

use mtun_dataplane::Verdict;
use mtun_dataplane::abi::{FastFlow, FastKey, FastOutcome, Shortcut};
use mtun_dataplane::backend::Hook;
use mtun_policy::Ingress;

use crate::support::*;
use crate::twins::{INTERFACE, LINK, ONWARDS, Twins};

/// Octets that fit the network behind.
const FITS: u16 = 1400;

fn set(packet: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    changes.iter().for_each(|(at, octet)| packet[*at] = *octet);
    packet
}

/// With these flags.
fn tcp_with(packet: &[u8], flags: u8) -> Vec<u8> {
    set(packet, &[(53, flags)])
}

/// What a program of the shortcut makes of a packet, with its link header; `None` if it leaves it.
fn short(twins: &Twins, hook: Hook, packet: &[u8]) -> Option<Vec<u8>> {
    let frame = [&LINK[..], packet].concat();
    let mut tried = None;
    let outcome = twins.outcome_of(|it| tried = Some(it.bpf.try_out(hook, &frame, 0, 1).unwrap()));
    let tried = tried.unwrap();
    let by_it = matches!(outcome, Some(FastOutcome::ShortcutSent | FastOutcome::ShortcutReceived));
    if hook == Hook::Front {
        assert_eq!(tried.taken, by_it, "{outcome:?}");
        assert!(by_it || tried.frame == frame, "what is left is left as it came");
    }
    by_it.then_some(tried.frame)
}

fn installed() -> Option<(Twins, Vec<u8>, Vec<u8>)> {
    let mut twins = Twins::new(mobile())?;
    let (udp, tcp) = (udp(INSIDE, PEER, (7, 80), 100), tcp(INSIDE, PEER, (9, 80)));
    let back = wrapped(AGENT, WLAN, &crate::support::udp(PEER, INSIDE, (80, 7), 400));
    twins.install_in(&back);
    twins.install_in(&wrapped(AGENT, WLAN, &crate::support::tcp(PEER, INSIDE, (80, 9))));
    twins.install_out(Ingress::OTHER, &udp);
    twins.install_out(Ingress::OTHER, &tcp);
    Some((twins, udp, tcp))
}

#[test]
fn what_leaves_by_it_is_what_leaves_the_normal_way() {
    let Some((mut twins, udp, tcp)) = installed() else { return };
    let sized = |length| crate::support::udp(INSIDE, PEER, (7, 80), length);
    let acknowledges = tcp_with(&tcp, 0x10);
    let cases = [
        ("UDP", udp.clone(), true),
        ("TCP", acknowledges.clone(), true),
        ("TCP that pushes", tcp_with(&tcp, 0x18), true),
        ("as much as fits", sized(1460), true),
        ("one octet more", sized(1461), false),
        ("ECN", set(&udp, &[(1, 0x20)]), true),
        ("two hops left", set(&udp, &[(7, 2)]), true),
        ("one hop left", set(&udp, &[(7, 1)]), false),
        ("SYN", tcp_with(&tcp, 0x02), false),
        ("FIN", tcp_with(&tcp, 0x11), false),
        ("RST", tcp_with(&tcp, 0x04), false),
        ("another flow", crate::support::udp(INSIDE, PEER, (8, 80), 100), false),
        ("another DSCP", set(&udp, &[(0, 0x6b), (1, 0x80)]), false),
        ("ICMPv6", set(&udp, &[(6, 58)]), false),
        ("version 4", set(&udp, &[(0, 0x45)]), false),
        ("a length that lies", set(&udp, &[(5, 61)]), false),
    ];
    for (what, packet, taken) in &cases {
        // What the engine carried meanwhile was decided anew, and has to pass anew.
        twins.pass_all(Shortcut::All, INTERFACE, FITS);
        let fast = short(&twins, Hook::Front, packet);
        assert_eq!(fast.is_some(), *taken, "{what}");
        let Some(fast) = fast else { continue };
        // The kernel takes one hop before the engine sees the packet.
        let forwarded = set(packet, &[(7, packet[7] - 1)]);
        let slow = twins.outbound(Ingress::OTHER, &forwarded);
        assert!(matches!(slow.verdict, Verdict::Send { .. }), "{what}");
        assert_eq!(fast, [&ONWARDS[..], &slow.octets].concat(), "{what}");
    }
}

#[test]
fn what_arrives_by_it_is_what_arrives_the_normal_way() {
    let Some((mut twins, ..)) = installed() else { return };
    let udp = |length| crate::support::udp(PEER, INSIDE, (80, 7), length);
    let tcp = crate::support::tcp(PEER, INSIDE, (80, 9));
    let around = |inner: &[u8]| wrapped(AGENT, WLAN, inner);
    let marked = |outer: u8, inner: u8| {
        set(&around(&set(&udp(100), &[(1, inner << 4)])), &[(1, outer << 4)])
    };
    let cases = [
        ("UDP", around(&udp(100)), true),
        ("TCP", around(&tcp_with(&tcp, 0x10)), true),
        ("as much as fits behind", around(&udp(FITS.into())), true),
        ("one octet more", around(&udp(usize::from(FITS) + 1)), false),
        ("one hop left", around(&set(&udp(100), &[(7, 1)])), false),
        ("SYN", around(&tcp_with(&tcp, 0x12)), false),
        ("FIN", around(&tcp_with(&tcp, 0x11)), false),
        ("RST", around(&tcp_with(&tcp, 0x14)), false),
        ("by the other link", wrapped(AGENT, WWAN, &udp(100)), false),
        ("congestion", marked(3, 2), true),
        ("congestion that cannot be said", marked(3, 0), false),
        ("ECT(1) over ECT(0)", marked(1, 2), true),
    ];
    for (what, packet, taken) in &cases {
        // What the engine carried meanwhile was decided anew, and has to pass anew.
        twins.pass_all(Shortcut::All, INTERFACE, FITS);
        let fast = short(&twins, Hook::In, packet);
        assert_eq!(fast.is_some(), *taken, "{what}");
        let Some(fast) = fast else { continue };
        let slow = twins.inbound(packet);
        assert_eq!(slow.verdict, Verdict::Deliver, "{what}");
        let forwarded = set(&slow.octets, &[(7, slow.octets[7] - 1)]);
        assert_eq!(fast, [&ONWARDS[..], &forwarded].concat(), "{what}");
    }
}

/// Every fact that a flow passed by is looked at.
#[test]
fn what_did_not_pass_so_goes_the_normal_way() {
    type Change = fn(&mut FastFlow);
    let changes: [(&str, bool, Change); 8] = [
        ("as it passed", true, |_| {}),
        ("into a tunnel interface that takes just as much", true, |flow| flow.fits = 100),
        ("that takes one octet less", false, |flow| flow.fits = 99),
        ("never passed", false, |flow| flow.passed_ns = 0),
        ("passed long ago", false, |flow| flow.passed_ns -= 1_100_000_000),
        ("under another round", false, |flow| flow.round -= 1),
        ("from another interface", false, |flow| flow.front = 77),
        ("before its path was written", false, |flow| flow.turn -= 1),
    ];
    for (what, taken, change) in changes {
        let Some((twins, udp, _)) = installed() else { return };
        twins.pass_all(Shortcut::All, INTERFACE, FITS);
        assert!(short(&twins, Hook::Front, &udp).is_some());
        let mut flows = Vec::new();
        twins.bpf.each(&mut |key, flow| flows.push((*key, *flow))).unwrap();
        for (key, mut flow) in flows {
            change(&mut flow);
            twins.bpf.put(&key, &flow).unwrap();
        }
        assert_eq!(short(&twins, Hook::Front, &udp).is_some(), taken, "{what}");
    }
}

#[test]
fn a_round_a_path_and_the_switch_end_it() {
    let Some((twins, udp, tcp)) = installed() else { return };
    let (tcp, back) = (
        tcp_with(&tcp, 0x10),
        wrapped(AGENT, WLAN, &crate::support::udp(PEER, INSIDE, (80, 7), 400)),
    );
    let ways = |twins: &Twins| {
        [(Hook::Front, &udp), (Hook::Front, &tcp), (Hook::In, &back)]
            .map(|(hook, packet)| short(twins, hook, packet).is_some())
    };
    twins.pass_all(Shortcut::All, INTERFACE, FITS);
    assert_eq!(ways(&twins), [true; 3]);
    twins.bpf.next_round().unwrap();
    assert_eq!(ways(&twins), [false; 3], "a new round");
    twins.pass_all(Shortcut::Udp, INTERFACE, FITS);
    assert_eq!(ways(&twins), [true, false, true], "TCP is followed by a firewall");
    twins.pass_all(Shortcut::None, INTERFACE, FITS);
    assert_eq!(ways(&twins), [false; 3], "switched off");
    assert!(twins.fast(Hook::In, &back, 0).is_some(), "but not the fast path");
}

/// A packet that was under way to the daemon while its flow was installed has it installed once more. What
/// passed is to pass anew then, but that the firewall has seen the connection both ways stays true.
#[test]
fn a_connection_that_is_decided_anew_has_passed_both_ways_all_the_same() {
    let Some((mut twins, _, _)) = installed() else { return };
    twins.pass_all(Shortcut::All, INTERFACE, FITS);
    twins.install_in(&wrapped(AGENT, WLAN, &tcp(PEER, INSIDE, (80, 9))));
    let mut found = Vec::new();
    let mut show = |key: &FastKey, flow: &FastFlow| {
        if key.protocol == 6 && key.direction == 1 {
            found.push((flow.passed_ns, flow.both));
        }
    };
    twins.bpf.each(&mut show).unwrap();
    assert_eq!(found, [(0, 1)]);
}
