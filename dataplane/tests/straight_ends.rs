//! Who the two ends of a straight way are: mobiles both, at home, in tunnels of others, with
//! copies; and what traffic tells of them.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::wire::{home_address, signalling_packet};
use mtun_dataplane::{
    DropReason, Encapsulation, Fate, Form, IgnoreReason, NotStraight, PathId, Registration,
    RouteNote, Snapshot, Verdict,
};
use mtun_policy::{CareOfAddress, Effective, HomeAddress, Optimize, Otherwise, Outcome};
use support::*;

/// Another mobile's home, and where it is.
const THEIRS: &str = "2001:db8:100::43";
const THERE: &str = "2001:db8:7::9";
const STRANGER: &str = "2001:db8:9::1";

fn optimizing_home(home_address: &str, bindings: Vec<mtun_dataplane::Binding>) -> Registration {
    let mut home = registration(bindings, straight(&figure_11()));
    home.home_address = HomeAddress(v6(home_address));
    if home_address != HOME {
        home.prefixes.clear();
    }
    home
}

/// Two mobiles, each bound at the other.
fn two() -> (Snapshot, Snapshot) {
    let there = || vec![binding(Some(1), THERE, PathId(1))];
    let mut one = mobile_with(optimizing_home(HOME, uplinks()));
    one.optimized = one.optimized.with(pair(HOME, THEIRS), held(&[(1, WLAN), (2, WWAN)]));
    let theirs = bound(HOME, THEIRS, routed(there()));
    one.correspondents = one.correspondents.with(pair(THEIRS, HOME), theirs);
    let mut other = mobile_with(optimizing_home(THEIRS, there()));
    other.own = vec![v6(THERE)];
    other.optimized = other.optimized.with(pair(THEIRS, HOME), held(&[(1, THERE)]));
    let ours = bound(THEIRS, HOME, routed(uplinks()));
    other.correspondents = other.correspondents.with(pair(HOME, THEIRS), ours);
    (one, other)
}

fn ends(packet: &[u8]) -> (std::net::Ipv6Addr, std::net::Ipv6Addr) {
    let header = etherparse::Ipv6Header::from_slice(packet).unwrap().0;
    (header.source_addr(), header.destination_addr())
}

/// req MN-35.
#[test]
fn mobile_to_mobile_has_both_headers() {
    let (one, other) = two();
    let (mut one, mut other) = (Node::new(one), Node::new(other));
    let packet = udp(HOME, THEIRS, (5000, 53), 200);
    assert_eq!(one.outbound(&packet), Verdict::Send { path: PathId(1) });
    let sent = one.out.clone();
    assert_eq!(ends(&sent), (v6(WLAN), v6(THERE)));
    assert_eq!((sent[6], sent[40], sent[64]), (43, 60, 17), "routing header, then the option");
    assert_eq!(sent[48..64], v6(THEIRS).octets());
    assert_eq!(sent[72..88], v6(HOME).octets());
    assert_eq!(other.inbound(&sent), Verdict::Deliver);
    assert_eq!(other.out, packet);
    let notes = other.engine.route_notes();
    assert!(notes.contains(&RouteNote::Used(pair(HOME, THEIRS))), "as its correspondent");
    assert!(notes.contains(&RouteNote::Used(pair(THEIRS, HOME))), "as a mobile");
    let reply = udp(THEIRS, HOME, (53, 5000), 200);
    assert_eq!(other.outbound(&reply), Verdict::Send { path: PathId(1) });
    let sent = other.out.clone();
    assert_eq!(one.inbound(&sent), Verdict::Deliver);
    assert_eq!(one.out, reply);

    // The option must be of somebody bound here, whatever routing header comes with it.
    let mut forged = sent.clone();
    forged[8..24].copy_from_slice(&v6(STRANGER).octets());
    let unknown = Verdict::UnknownBinding {
        source: v6(STRANGER),
        home_address: v6(THEIRS),
        destination: v6(HOME),
    };
    assert_eq!(one.inbound(&forged), unknown);
}

/// Ours is not held there: through our tunnel, to their home address. Theirs is not bound here:
/// to their home address with our option, which their agent puts into their tunnel.
/// req MN-35.
#[test]
fn mobile_to_mobile_with_one_half() {
    let (mut one, mut other) = two();
    one.optimized = one.optimized.without(&pair(HOME, THEIRS));
    let mut node = Node::new(one);
    let packet = udp(HOME, THEIRS, (5000, 53), 200);
    node.outbound(&packet);
    assert_eq!(ends(&node.out), (v6(WLAN), v6(AGENT)));
    assert_eq!(node.out[40..], packet);

    let (mut one, _) = two();
    one.correspondents = one.correspondents.without(&pair(THEIRS, HOME));
    let mut node = Node::new(one);
    node.outbound(&packet);
    assert_eq!(ends(&node.out), (v6(WLAN), v6(THEIRS)));
    let by_agent = raw(v6(AGENT), v6(THERE), 41, &node.out);
    let mut there = Node::new(other.clone());
    assert_eq!(there.inbound(&by_agent), Verdict::Deliver);
    assert_eq!(there.out, packet);
    let traffic = there.engine.counters().snapshot().traffic;
    assert_eq!(traffic.len(), 1);
    assert_eq!((traffic[0].bid, traffic[0].form), (Some(bid(1)), Form::Tunnel));
    // Not bound: the answer has to name the address of the option, and leave through the tunnel.
    other.correspondents = other.correspondents.without(&pair(HOME, THEIRS));
    let mut there = Node::new(other);
    let unknown = Verdict::UnknownBinding {
        source: v6(WLAN),
        home_address: v6(HOME),
        destination: v6(THEIRS),
    };
    assert_eq!(there.inbound(&by_agent), unknown);
}

/// req MN-31.
#[test]
fn on_the_home_link_packets_leave_as_they_are() {
    let home_link = |mut home: Registration| {
        home.bindings[0].home_link = true;
        home.bindings[0].care_of = CareOfAddress::from(v6(HOME));
        home
    };
    let mut node = Node::new(mobile_with(home_link(registration(uplinks(), figure_11()))));
    for source in [HOME, INSIDE] {
        let packet = udp(source, PEER, (5000, 53), 200);
        assert_eq!(node.outbound(&packet), Verdict::Send { path: PathId(1) });
        assert_eq!(node.out, packet, "untouched");
    }
    let large = udp(HOME, PEER, (5000, 53), 1501);
    assert_eq!(node.outbound(&large), Verdict::Answer(DropReason::TooBig));
    assert_eq!(node.out[44..48], 1460_u32.to_be_bytes(), "the least of all links");
    // Another link at the same time is abroad as ever (RFC 5648 §5.6).
    let ssh = tcp(HOME, PEER, (4000, 22));
    assert_eq!(node.outbound(&ssh), Verdict::Send { path: PathId(2) });
    assert_eq!(ends(&node.out), (v6(WWAN), v6(AGENT)));
    assert_eq!(node.out[40..], ssh);
    let traffic = node.engine.counters().snapshot().traffic;
    let plain: u64 = traffic.iter().filter(|it| it.form == Form::Plain).map(|it| it.bytes).sum();
    assert_eq!(plain, 400);
    // Nobody is told to optimize what is already straight.
    let wanted = RouteNote::Wanted(pair(HOME, PEER));
    let mut home = home_link(optimizing_home(HOME, uplinks()));
    home.bindings.truncate(1);
    let mut node = Node::new(mobile_with(home.clone()));
    node.outbound(&udp(HOME, PEER, (5000, 53), 200));
    assert!(!node.engine.route_notes().contains(&wanted));

    // A mobile that is bound here is sent to where it is, and its packets come to the home address.
    let (mut one, other) = two();
    one.updates = [home].into_iter().collect();
    let mut other = Node::new(other);
    let mut node = Node::new(one);
    let packet = udp(HOME, THEIRS, (5000, 53), 200);
    assert_eq!(node.outbound(&packet), Verdict::Send { path: PathId(1) });
    assert_eq!(ends(&node.out), (v6(HOME), v6(THERE)));
    assert_eq!(node.out[6], 43, "no option: the home address is where it belongs");
    let sent = node.out.clone();
    assert_eq!(other.inbound(&sent), Verdict::Deliver);
    assert_eq!(other.out, packet);
    let reply = udp(THEIRS, HOME, (53, 5000), 200);
    let mut at_home = other.snapshot.load_full().as_ref().clone();
    at_home.correspondents = at_home.correspondents.without(&pair(HOME, THEIRS));
    other.snapshot.store(at_home.into());
    other.outbound(&reply);
    assert_eq!(ends(&other.out), (v6(THERE), v6(HOME)));
    let sent = other.out.clone();
    assert_eq!(node.inbound(&sent), Verdict::Deliver);
    assert_eq!(node.out, reply);
    // And nothing else to the home address is touched.
    let plain = udp(PEER, HOME, (1, 2), 100);
    assert_eq!(node.inbound(&plain), Verdict::Ignore(IgnoreReason::NotTunnelled));
}

/// A visitor whose care-of address is in a router's prefix: its tunnel packets to the same agent
/// come in those of the router.
#[test]
fn tunnels_in_tunnels_are_unwrapped_to_a_depth() {
    let visitor = |home: &str, care_of: &str| {
        let mut visitor =
            registration(vec![binding(Some(1), care_of, PathId::ROUTED)], Effective::reflecting());
        visitor.home_address = HomeAddress(v6(home));
        visitor.prefixes.clear();
        visitor
    };
    let mut snapshot = agent();
    snapshot.cache = snapshot.cache.with(visitor(THEIRS, INSIDE));
    let mut node = Node::new(snapshot.clone());
    let data = udp(THEIRS, PEER, (1, 2), 100);
    let one = wrapped(INSIDE, AGENT, &data);
    let two = wrapped(WLAN, AGENT, &one);
    assert_eq!(node.inbound(&two), Verdict::Deliver);
    assert_eq!(node.out, data);
    let traffic = node.engine.counters().snapshot().traffic;
    assert_eq!(traffic.iter().map(|it| it.bytes).sum::<u64>(), 240, "each tunnel counts its own");
    // And each has its own way back.
    let back = udp(PEER, THEIRS, (2, 1), 100);
    node.outbound(&back);
    assert_eq!(ends(&node.out), (v6(AGENT), v6(INSIDE)));
    let outer = node.out.clone();
    node.outbound(&outer);
    assert_eq!(ends(&node.out), (v6(AGENT), v6(WLAN)));

    // Each layer is judged: a visitor that claims another's source has come through a good tunnel.
    let forged = wrapped(WLAN, AGENT, &wrapped(INSIDE, AGENT, &udp(HOME, PEER, (1, 2), 100)));
    assert_eq!(node.inbound(&forged), Verdict::Drop(DropReason::NotCareOf));
    // Four layers and no more.
    let chain: Vec<_> = (0..6).map(|at| format!("2001:db8:100::5{at}")).collect();
    for at in 1..chain.len() {
        snapshot.cache = snapshot.cache.with(visitor(&chain[at], &chain[at - 1]));
    }
    snapshot.cache = snapshot.cache.with(visitor(&chain[0], THERE));
    let mut node = Node::new(snapshot);
    let nested = |depth: usize| {
        let data = udp(&chain[depth - 1], PEER, (1, 2), 100);
        let care_of = |at: usize| if at == 0 { THERE } else { chain[at - 1].as_str() };
        (0..depth).rev().fold(data, |inner, at| wrapped(care_of(at), AGENT, &inner))
    };
    for depth in 1..=4 {
        assert_eq!(node.inbound(&nested(depth)), Verdict::Deliver, "{depth}");
        assert_eq!(node.out, udp(&chain[depth - 1], PEER, (1, 2), 100));
    }
    assert_eq!(node.inbound(&nested(5)), Verdict::Drop(DropReason::Nesting));
    assert_eq!(node.engine.counters().snapshot().dropped(DropReason::Nesting), 1);
}

/// What ends at our home address and is none of our tunnels is for the kernel, as any data.
#[test]
fn a_tunnel_of_somebody_else_over_ours_is_delivered() {
    let mut node = Node::new(mobile());
    let theirs = wrapped(PEER, HOME, &udp("2001:db8:e::1", "2001:db8:e::2", (1, 2), 100));
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &theirs)), Verdict::Deliver);
    assert_eq!(node.out, theirs);
    // An error about our signalling that came back to the home address is the machines'.
    let home_test = signalling_packet(v6(HOME), v6(PEER), None, None, &[59, 1, 1, 0, 0, 0, 0, 0]);
    let mut message = vec![4, 1, 0, 0, 0, 0, 0, 6];
    message.extend_from_slice(&home_test);
    let sum = mtun_dataplane::wire::pseudo_header_checksum(v6(PEER), v6(HOME), 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let error = raw(v6(PEER), v6(HOME), 58, &message);
    let want =
        Verdict::SignallingFailed { source: v6(HOME), destination: v6(PEER), kind: 4, code: 1 };
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &error)), want);
    // Any other error is the kernel's.
    let mut message = vec![1, 4, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&udp(HOME, PEER, (1, 2), 100));
    let sum = mtun_dataplane::wire::pseudo_header_checksum(v6(PEER), v6(HOME), 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let error = raw(v6(PEER), v6(HOME), 58, &message);
    assert_eq!(node.inbound(&wrapped(AGENT, WLAN, &error)), Verdict::Deliver);
    assert_eq!(node.out, error);
}

#[test]
fn discovery_reaches_the_machines() {
    let message = |kind: u8| vec![kind, 0, 0, 0, 0, 9, 0, 0];
    let mut node = Node::new(agent());
    let request = raw(v6(WLAN), v6(AGENT), 58, &message(144));
    let found =
        |source: &str, to: &str, home: Option<&str>, rh2: Option<&str>| Verdict::Discovery {
            source: v6(source),
            destination: v6(to),
            home_address: home.map(v6),
            routing_header: rh2.map(v6),
        };
    assert_eq!(node.inbound(&request), found(WLAN, AGENT, None, None));
    assert_eq!(node.out, message(144));
    let mut with_option = Vec::new();
    home_address::emit(58, v6(HOME), &mut with_option);
    with_option.extend_from_slice(&message(146));
    let solicitation = raw(v6(WLAN), v6(AGENT), 60, &with_option);
    assert_eq!(node.inbound(&solicitation), found(WLAN, AGENT, Some(HOME), None));
    assert_eq!(node.out, message(146));
    let mut node = Node::new(mobile());
    let advertised = |home: &str| {
        let mut routed = Vec::new();
        mtun_dataplane::wire::type2::emit(58, v6(home), &mut routed);
        routed.extend_from_slice(&message(147));
        raw(v6(AGENT), v6(WLAN), 43, &routed)
    };
    assert_eq!(node.inbound(&advertised(HOME)), found(AGENT, WLAN, None, Some(HOME)));
    let ours = Verdict::Ignore(IgnoreReason::NotOurHome);
    assert_eq!(node.inbound(&advertised(THEIRS)), ours);
}

#[test]
fn copies_go_straight_where_they_can() {
    let copies = Outcome::Copies { links: vec![bid(1), bid(2)], copies: 2 };
    let rules = Effective::new([rule(0, Vec::new(), copies, Otherwise::NextRule)]);
    let mut snapshot = mobile_with(registration(uplinks(), straight(&rules)));
    snapshot.optimized = snapshot.optimized.with(pair(HOME, PEER), held(&[(2, WWAN)]));
    let mut node = Node::new(snapshot);
    let packet = udp(HOME, PEER, (5000, 53), 200);
    let Verdict::Replicate(sends) = node.outbound(&packet) else { panic!("copies") };
    let parts: Vec<_> = sends.parts(&node.out).map(|(path, part)| (path, ends(part))).collect();
    let want = [(PathId(1), (v6(WLAN), v6(AGENT))), (PathId(2), (v6(WWAN), v6(PEER)))];
    assert_eq!(parts, want);
}

#[test]
fn explain_says_how_and_why_not() {
    let why = |snapshot: Snapshot, source: &str, port: u16| {
        let node = Node::new(snapshot);
        let fate = node.engine.explain(&key(source, PEER, 6, Some((4000, port))), NOW).fate;
        let Fate::Forwarded { encapsulation, not_straight, inner_mtu, .. } = fate else {
            panic!("{fate:?}")
        };
        (encapsulation.as_str(), not_straight, inner_mtu)
    };
    let tunnel = |reason| ("ipv6-in-ipv6", Some(reason), 1460);
    assert_eq!(why(optimizing(), HOME, 80), ("optimized", None, 1476));
    assert_eq!(why(optimizing(), INSIDE, 80), tunnel(NotStraight::NotHomeAddress));
    let mut other = optimizing();
    other.optimized = other.optimized.with(pair(HOME, PEER), held(&[(1, WLAN), (2, WLAN)]));
    assert_eq!(why(other.clone(), HOME, 80), ("optimized", None, 1476));
    assert_eq!(why(other, HOME, 22), tunnel(NotStraight::OtherBinding), "it moved meanwhile");
    let mut nothing = optimizing();
    nothing.optimized = nothing.optimized.without(&pair(HOME, PEER));
    assert_eq!(why(nothing, HOME, 80), tunnel(NotStraight::NothingHeld));
    let mut never = (*straight(&figure_11())).clone();
    never.optimize = Some(Optimize::Never);
    let mut unwanted = mobile_with(registration(uplinks(), Arc::new(never)));
    unwanted.optimized = optimizing().optimized;
    assert_eq!(why(unwanted, HOME, 80), tunnel(NotStraight::Unwanted));
    assert_eq!(why(mobile(), HOME, 80), tunnel(NotStraight::Unwanted));

    let node = Node::new(correspondent());
    let explained = node.engine.explain(&key(PEER, HOME, 6, Some((80, 4000))), NOW);
    assert_eq!(explained.registration.expect("it is bound").home_address.0, v6(HOME));
    let Fate::Forwarded { encapsulation, not_straight, .. } = explained.fate else { panic!() };
    assert!(matches!(encapsulation, Encapsulation::Optimized { .. }));
    assert_eq!(not_straight, None);
}

#[test]
fn traffic_tells_whom_to_optimize_with() {
    let mut snapshot = optimizing();
    snapshot.optimized = Default::default();
    let wanted = |node: &Node| node.engine.route_notes();
    let of = |peer: &str| vec![RouteNote::Wanted(pair(HOME, peer))];
    let mut node = Node::new(snapshot.clone());
    // A new flow, once; a flow that goes on does not ask again.
    for _ in 0..3 {
        node.outbound(&tcp(HOME, PEER, (4000, 80)));
    }
    assert_eq!(wanted(&node), of(PEER));
    assert_eq!(wanted(&node), []);
    // A packet through the tunnel, also one that is never answered (RFC 6275 §11.6.1).
    assert_eq!(
        node.inbound(&wrapped(AGENT, WLAN, &udp(STRANGER, HOME, (1, 2), 90))),
        Verdict::Deliver
    );
    assert_eq!(wanted(&node), of(STRANGER));
    let later = NOW + Duration::from_millis(1500);
    let again = wrapped(AGENT, WLAN, &udp(STRANGER, HOME, (1, 2), 90));
    for _ in 0..3 {
        node.engine.inbound(PathId(1), &again, later, &mut node.out);
    }
    assert_eq!(wanted(&node), of(STRANGER), "once a second while it goes on");
    // Not what nobody may optimize, what is ours already, and what is an error.
    node.outbound(&tcp(INSIDE, STRANGER, (4000, 80)));
    node.outbound(&tcp(HOME, AGENT, (4000, 80)));
    node.outbound(&raw(v6(HOME), v6("2001:db8:9::2"), 58, &[1, 4, 0, 0, 0, 0, 0, 0]));
    node.inbound(&wrapped(AGENT, WLAN, &udp(STRANGER, INSIDE, (1, 2), 90)));
    assert_eq!(wanted(&node), []);
    // Nor what the rule keeps in the tunnel, in either direction.
    let mut policy = (*straight(&figure_11())).clone();
    let heads = policy.table.heads().iter().map(|head| {
        let mut head = (**head).clone();
        head.optimize = Some(Optimize::Never);
        Arc::new(head)
    });
    policy.table = Arc::new(mtun_policy::RuleTable::new(heads.collect()));
    let mut node = Node::new(mobile_with(registration(uplinks(), Arc::new(policy))));
    node.outbound(&tcp(HOME, PEER, (4000, 80)));
    node.inbound(&wrapped(AGENT, WLAN, &udp(STRANGER, HOME, (1, 2), 90)));
    assert_eq!(wanted(&node), []);
    let mut node = Node::new(mobile());
    node.outbound(&tcp(HOME, PEER, (4000, 80)));
    node.inbound(&wrapped(AGENT, WLAN, &udp(STRANGER, HOME, (1, 2), 90)));
    assert_eq!(wanted(&node), [], "the home does not optimize");
}

#[test]
fn what_is_eaten_on_the_way_is_noticed() {
    let eaten = RouteNote::Eaten { pair: pair(HOME, PEER), bid: Some(bid(1)) };
    let noticed = |acknowledged: u32, packets: u64, each: u64| {
        let mut node = Node::new(optimizing());
        let syn = tcp(HOME, PEER, (4000, 80));
        // Its acknowledgement number is behind the SYN, or not.
        let mut back = tcp(PEER, HOME, (80, 4000));
        back[40 + 13] |= 16;
        back[40 + 8..40 + 12].copy_from_slice(&acknowledged.to_be_bytes());
        for at in 0..packets {
            let now = NOW + Duration::from_millis(at * each);
            node.engine.outbound(mtun_policy::Ingress::LOCAL, &syn, now, &mut node.out);
            if at == 1 {
                let back = wrapped(AGENT, WLAN, &back);
                assert_eq!(
                    node.engine.inbound(PathId(1), &back, now, &mut node.out),
                    Verdict::Deliver
                );
            }
        }
        node.engine.route_notes().iter().filter(|note| **note == eaten).count()
    };
    assert_eq!(
        noticed(7, 5, 500),
        1,
        "five in two seconds, whatever the other end goes on sending"
    );
    assert_eq!(noticed(7, 20, 500), 1, "said once");
    assert_eq!(noticed(7, 4, 1000), 0, "not enough of them");
    assert_eq!(noticed(7, 20, 100), 0, "not for long enough");
    assert_eq!(noticed(8, 20, 500), 0, "it is acknowledged, if through the tunnel");
    assert_eq!(noticed(9, 20, 500), 0, "and more");
}
