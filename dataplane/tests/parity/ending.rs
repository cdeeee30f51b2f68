//! When what the fast path remembers ends, and when it does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mtun_dataplane::abi::FastOutcome;
use mtun_dataplane::backend::Hook;
use mtun_dataplane::{Binding, LEASE, Publication, Registration, Snapshot, Verdict};
use mtun_policy::{Ingress, Sticky};

use crate::support::*;
use crate::twins::Twins;

fn out() -> Vec<u8> {
    udp(HOME, PEER, (7, 80), 100)
}

fn back() -> Vec<u8> {
    wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 100))
}

fn installed() -> Option<Twins> {
    let mut twins = Twins::new(mobile())?;
    twins.install_in(&back());
    twins.install_out(Ingress::LOCAL, &out());
    assert!(twins.fast(Hook::Out, &out(), 0).is_some());
    assert!(twins.fast(Hook::In, &back(), 0).is_some());
    Some(twins)
}

/// Publishes the next version of the mobile's registration.
fn publish(twins: &Twins, registration: Registration) {
    let before = mobile();
    let updates = before.updates.with(registration);
    twins.engine.publish(Arc::new(Snapshot { updates, ..before }));
}

fn why_not(twins: &Twins) -> Option<FastOutcome> {
    twins.outcome_of(|it| assert!(it.fast(Hook::Out, &out(), 0).is_none()))
}

/// The flow has ended with what was published, and the next sweep takes it out.
fn ended(twins: &Twins) {
    assert_eq!(why_not(twins), Some(FastOutcome::Stale));
    twins.sweep(NOW);
    assert_eq!(why_not(twins), Some(FastOutcome::Unknown));
}

/// The versions of a registration follow each other in one table, as they do in a daemon.
fn versions(change: impl FnOnce(&mut Vec<Binding>)) -> (Snapshot, Snapshot) {
    let before = mobile();
    let mut bindings = uplinks();
    change(&mut bindings);
    let updates = before.updates.with(registration(bindings, figure_11()));
    (before.clone(), Snapshot { updates, ..before })
}

#[test]
fn a_handover_takes_its_flows_along() {
    let (before, after) =
        versions(|bindings| bindings[0] = binding(Some(1), "2001:db8:9::9", bindings[0].path));
    let Some(mut twins) = Twins::new(before) else { return };
    twins.install_out(Ingress::LOCAL, &out());
    twins.engine.publish(Arc::new(after));
    let fast = twins.fast(Hook::Out, &out(), 0).expect("the decision still holds");
    assert_eq!(fast[8..24], v6("2001:db8:9::9").octets());
    assert_eq!(fast, twins.outbound(Ingress::LOCAL, &out()).octets);
}

#[test]
fn a_binding_that_goes_ends_its_flows_before_it_is_published() {
    let (before, after) = versions(|bindings| bindings[0].usable = false);
    let Some(mut twins) = Twins::new(before) else { return };
    twins.install_out(Ingress::LOCAL, &out());
    twins.engine.publish(Arc::new(after));
    ended(&twins);
    let slow = twins.outbound(Ingress::LOCAL, &out());
    assert_eq!(slow.octets[8..24], v6(WWAN).octets(), "the daemon moves the flow");
    twins.install_out(Ingress::LOCAL, &out());
    assert_eq!(twins.fast(Hook::Out, &out(), 0), Some(slow.octets));
}

#[test]
fn a_home_that_comes_or_goes_ends_everything() {
    let Some(twins) = installed() else { return };
    let before = mobile();
    let other = Registration {
        home_address: mtun_policy::HomeAddress(v6("2001:db8:100::77")),
        prefixes: Vec::new(),
        ..registration(uplinks(), figure_11())
    };
    twins.engine.publish(Arc::new(Snapshot { updates: before.updates.with(other), ..before }));
    ended(&twins);
}

#[test]
fn what_comes_by_another_binding_ends_the_flow() {
    let Some(mut twins) = installed() else { return };
    let by_the_other = wrapped(AGENT, WWAN, &udp(PEER, HOME, (80, 7), 100));
    assert_eq!(twins.fast(Hook::In, &by_the_other, 0), None);
    assert_eq!(twins.inbound(&by_the_other).verdict, Verdict::Deliver);
    assert_eq!(why_not(&twins), Some(FastOutcome::Unknown), "the way out may depend on it");
    assert_eq!(twins.fast(Hook::In, &back(), 0), None);
    twins.install_in(&by_the_other);
    twins.install_out(Ingress::LOCAL, &out());
    assert!(twins.fast(Hook::In, &by_the_other, 0).is_some());
}

#[test]
fn the_agent_follows_the_mobile_to_its_other_link() {
    let Some(mut twins) = Twins::new(agent()) else { return };
    let up = |by| wrapped(by, AGENT, &udp(HOME, PEER, (7, 80), 100));
    let down = udp(PEER, HOME, (80, 7), 100);
    // No third time: what comes by the WLAN at once was under way when the flow left it (`way_in`).
    for by in [WLAN, WWAN] {
        assert_eq!(twins.fast(Hook::In, &up(by), 0), None);
        twins.install_in(&up(by));
        twins.install_out(Ingress::OTHER, &down);
        let fast = twins.fast(Hook::Out, &down, 5).expect("decided anew, and remembered");
        assert_eq!(fast[24..40], v6(by).octets());
    }
}

#[test]
fn a_path_that_is_another_bindings_next_has_no_flows_of_the_first() {
    let Some(twins) = &mut installed() else { return };
    // Its interface is gone for a moment: the path is free.
    twins.gone.store(1, Ordering::Relaxed);
    twins.sweep(NOW);
    // A flow by the other link is decided, under the same generation.
    let ssh = tcp(HOME, PEER, (9, 22));
    twins.install_out(Ingress::LOCAL, &ssh);
    let fast = twins.fast(Hook::Out, &ssh, 0).expect("installed");
    assert_eq!(fast[8..24], v6(WWAN).octets());
    assert_eq!(why_not(twins), Some(FastOutcome::Unknown), "never by a link that it was not given");
}

#[test]
fn a_change_of_one_home_ends_no_flow_of_another() {
    let other = Registration {
        home_address: mtun_policy::HomeAddress(v6("2001:db8:100::77")),
        prefixes: Vec::new(),
        ..registration(uplinks(), figure_11())
    };
    let before = mobile();
    let both = Snapshot { updates: before.updates.with(other.clone()), ..before };
    let Some(mut twins) = Twins::new(both.clone()) else { return };
    let theirs = udp("2001:db8:100::77", PEER, (7, 80), 100);
    twins.install_out(Ingress::LOCAL, &theirs);
    twins.install_out(Ingress::LOCAL, &out());
    let changed = registration(vec![uplinks().remove(1)], figure_11());
    let updates = both.updates.with(changed);
    twins.engine.publish(Arc::new(Snapshot { updates, ..both }));
    ended(&twins);
    assert!(twins.fast(Hook::Out, &theirs, 0).is_some());
}

#[test]
fn without_a_lease_everything_is_left_to_the_daemon() {
    let Some(twins) = installed() else { return };
    let clock = twins.bpf.clock();
    twins.bpf.configure(1, clock.saturating_sub(1_000_000_000)).unwrap();
    assert_eq!(why_not(&twins), Some(FastOutcome::NoLease));
    let came = twins.outcome_of(|it| assert!(it.fast(Hook::In, &back(), 0).is_none()));
    assert_eq!(came, Some(FastOutcome::NoLease));
    twins.sweep(NOW);
    assert!(twins.fast(Hook::Out, &out(), 0).is_some(), "vouched for again");
    assert!(LEASE >= Duration::from_secs(10), "longer than a restart");
}

#[test]
fn a_silent_flow_is_asked_anew() {
    let mut registration = registration(uplinks(), figure_11());
    let mut policy = mtun_policy::Effective::clone(&registration.policy);
    let mut says = Vec::clone(&policy.says);
    says.iter_mut()
        .for_each(|it| it.sticky = Sticky { lasts: Duration::from_millis(1), ..it.sticky });
    policy.says = says;
    registration.policy = policy.into();
    let Some(mut twins) = Twins::new(mobile_with(registration)) else { return };
    twins.install_out(Ingress::LOCAL, &out());
    let installed = twins.bpf.clock();
    while twins.bpf.clock() < installed + 20_000_000 {
        std::hint::spin_loop();
    }
    assert_eq!(why_not(&twins), Some(FastOutcome::Silent));
}

#[test]
fn a_smaller_path_is_told() {
    let Some(mut twins) = installed() else { return };
    let long = udp(HOME, PEER, (7, 80), 1400);
    let sent = twins.fast(Hook::Out, &long, 0).expect("it fits");
    // A router on the way: Packet Too Big, 1400, with what we sent.
    let mut body = 1400_u32.to_be_bytes().to_vec();
    body.extend_from_slice(&sent[..1232]);
    let icmp = icmp_error(v6("2001:db8:1::1"), v6(WLAN), 2, &body);
    twins.inbound(&icmp);
    let outcome = twins.outcome_of(|it| assert!(it.fast(Hook::Out, &long, 0).is_none()));
    assert_eq!(outcome, Some(FastOutcome::TooBig));
    let told = twins.outbound(Ingress::LOCAL, &long);
    assert!(matches!(told.verdict, Verdict::Answer(_)), "a Packet Too Big, not silence: {told:?}");
    assert!(twins.fast(Hook::Out, &udp(HOME, PEER, (7, 80), 1360), 0).is_some());
}

/// An ICMPv6 message with its checksum.
fn icmp_error(
    source: std::net::Ipv6Addr,
    to: std::net::Ipv6Addr,
    kind: u8,
    body: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(body);
    let sum = mtun_dataplane::wire::pseudo_header_checksum(source, to, 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    raw(source, to, 58, &message)
}

#[test]
fn a_registration_without_bindings_leaves_nothing_behind() {
    let Some(twins) = installed() else { return };
    publish(&twins, registration(Vec::new(), figure_11()));
    ended(&twins);
}
