//! Probes by a named binding, and what counts as their answer.

mod support;

use std::time::Duration;

use mtun_dataplane::{CounterSnapshot, Engine, IgnoreReason, PathId, Settings, Snapshot, Verdict};
use mtun_policy::HomeAddress;
use support::*;

fn engine(snapshot: Snapshot) -> Engine {
    Engine::new(std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(snapshot)), Settings::default())
}

fn home() -> HomeAddress {
    HomeAddress(v6(HOME))
}

/// An outer packet with its inner source and destination.
fn ends(outer: &[u8]) -> [String; 4] {
    let address = |at: usize| {
        let octets: [u8; 16] = outer[at..at + 16].try_into().unwrap();
        std::net::Ipv6Addr::from(octets).to_string()
    };
    [8, 24, 48, 64].map(address)
}

/// What an agent of another kind sends back: its kernel's answer, wrapped towards `care_of`.
fn answer_of_a_kernel(request: &[u8], care_of: &str) -> Vec<u8> {
    let mut inner = request[40..].to_vec();
    let (source, destination) = (inner[8..24].to_vec(), inner[24..40].to_vec());
    inner[8..24].copy_from_slice(&destination);
    inner[24..40].copy_from_slice(&source);
    // Request to reply: the type rises by one, and so does the sum.
    inner[40] = 129;
    let sum = u16::from_be_bytes([inner[42], inner[43]]);
    let sum = sum.checked_sub(0x0100).unwrap_or_else(|| sum.wrapping_sub(0x0101));
    inner[42..44].copy_from_slice(&sum.to_be_bytes());
    wrapped(AGENT, care_of, &inner)
}

#[test]
fn a_probe_goes_and_comes_by_the_binding_that_is_asked_about() {
    let (mobile, agent) = (engine(mobile()), engine(agent()));
    let (mut request, mut reply, mut end) = (Vec::new(), Vec::new(), Vec::new());
    for (number, care_of) in [(1, WLAN), (2, WWAN)] {
        let path = mobile.probe(home(), bid(number), 70_000, NOW, &mut request);
        assert_eq!(path, Some(PathId(number)));
        assert_eq!(request.len(), 128, "48 octets in two headers");
        assert_eq!(ends(&request), [care_of, AGENT, HOME, AGENT]);

        let verdict = agent.inbound(PathId::ROUTED, &request, NOW, &mut reply);
        assert_eq!(verdict, Verdict::Send { path: PathId::ROUTED });
        assert_eq!(ends(&reply), [AGENT, care_of, AGENT, HOME], "no rule sends it elsewhere");
        assert_eq!(reply.len(), request.len(), "never more than was asked");

        let verdict = mobile.inbound(PathId(number), &reply, NOW, &mut end);
        let (bid, by) = (bid(number), Some(bid(number)));
        assert_eq!(verdict, Verdict::Probed { home_address: home(), bid, sequence: 70_000, by });
        assert!(end.is_empty());
    }
    assert_eq!(agent.counters().snapshot().probes_answered, 2);
    for engine in [&mobile, &agent] {
        let CounterSnapshot { traffic, .. } = engine.counters().snapshot();
        assert!(traffic.is_empty() && engine.flows().is_empty(), "a probe is no flow");
    }
}

#[test]
fn an_agent_of_another_kind_answers_by_a_way_of_its_own() {
    let mobile = engine(mobile());
    let (mut request, mut end) = (Vec::new(), Vec::new());
    mobile.probe(home(), bid(2), 5, NOW, &mut request);
    let reply = answer_of_a_kernel(&request, WLAN);
    let verdict = mobile.inbound(PathId(1), &reply, NOW, &mut end);
    let (bid, by) = (bid(2), Some(bid(1)));
    assert_eq!(verdict, Verdict::Probed { home_address: home(), bid, sequence: 5, by });
}

#[test]
fn nobody_elses_packet_counts_as_an_answer() {
    let mobile = engine(mobile());
    let (mut request, mut end) = (Vec::new(), Vec::new());
    mobile.probe(home(), bid(1), 5, NOW, &mut request);
    let reply = answer_of_a_kernel(&request, WLAN);

    // From anybody but the agent it does not enter at all.
    let mut elsewhere = reply.clone();
    elsewhere[8..24].copy_from_slice(&v6(PEER).octets());
    assert!(matches!(mobile.inbound(PathId(1), &elsewhere, NOW, &mut end), Verdict::Drop(_)));

    // Another number, another time, another token: an Echo Reply like others, for the kernel.
    for at in [80 + 23, 80 + 31, 80 + 32, 80 + 47] {
        let mut altered = reply.clone();
        altered[at] ^= 1;
        let sum = mtun_dataplane::wire::pseudo_header_checksum(v6(AGENT), v6(HOME), 58, &{
            let mut message = altered[80..].to_vec();
            message[2..4].fill(0);
            message
        });
        altered[82..84].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(mobile.inbound(PathId(1), &altered, NOW, &mut end), Verdict::Deliver, "{at}");
        assert_eq!(end, altered[40..]);
    }
    // Nor does what another run of ours has sent.
    #[cfg(feature = "backend")]
    {
        engine(support::mobile()).probe(home(), bid(1), 5, NOW, &mut request);
        let reply = answer_of_a_kernel(&request, WLAN);
        assert_eq!(mobile.inbound(PathId(1), &reply, NOW, &mut end), Verdict::Deliver);
    }
}

#[test]
fn other_echo_requests_are_the_kernels() {
    let agent = engine(agent());
    let mut request = Vec::new();
    engine(mobile()).probe(home(), bid(1), 5, NOW, &mut request);
    let mut end = Vec::new();
    let mut ping = request.clone();
    ping[80 + 8] ^= 1;
    ping[80 + 10] ^= 1;
    assert_eq!(agent.inbound(PathId::ROUTED, &ping, NOW, &mut end), Verdict::Deliver);

    let from_inside = {
        let mut packet = request.clone();
        packet[48..64].copy_from_slice(&v6(INSIDE).octets());
        packet
    };
    assert_eq!(agent.inbound(PathId::ROUTED, &from_inside, NOW, &mut end), Verdict::Deliver);
    let elsewhere = wrapped(PEER, AGENT, &request[40..]);
    let verdict = agent.inbound(PathId::ROUTED, &elsewhere, NOW, &mut end);
    assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
    assert_ne!(verdict, Verdict::Ignore(IgnoreReason::NotToUs));
    assert_eq!(agent.counters().snapshot().probes_answered, 0);
}

#[test]
fn a_binding_that_carries_nothing_is_probed_all_the_same_and_one_without_a_tunnel_is_not() {
    let mut out = Vec::new();
    let mut probe = |change: &dyn Fn(&mut mtun_dataplane::Binding)| {
        let mut bindings = uplinks();
        change(&mut bindings[0]);
        let engine = engine(mobile_with(registration(bindings, figure_11())));
        engine.probe(home(), bid(1), 1, Duration::ZERO, &mut out)
    };
    assert_eq!(probe(&|it| it.usable = false), Some(PathId(1)), "how else would it come back");
    assert_eq!(probe(&|it| it.attached = false), None);
    assert_eq!(probe(&|it| it.home_link = true), None);
    assert_eq!(probe(&|it| it.bid = None), None);
    assert_eq!(
        probe(&|it| it.care_of = mtun_policy::CareOfAddress("192.0.2.7".parse().unwrap())),
        None
    );
}
