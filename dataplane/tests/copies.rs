//! Copies end to end: a mobile and its home agent back to back, each packet by both links.

mod support;

use std::time::Duration;

use mtun_dataplane::wire::{Chain, CopySequence, Header, packets};
use mtun_dataplane::{
    CopyMark, Direction, DropReason, IgnoreReason, OrderCounts, PathId, Registration, Snapshot,
    Verdict,
};
use mtun_policy::{Ingress, Otherwise, Outcome, RuleId};
use support::*;

const MS: Duration = Duration::from_millis(1);

/// The mobile duplicates what goes to port 9, the agent what comes back from it.
fn marked(mut bindings: Vec<mtun_dataplane::Binding>) -> Registration {
    bindings.iter_mut().for_each(|it| it.rtt = None);
    let links = vec![bid(1), bid(2)];
    let copies = || Outcome::Copies { links: links.clone(), copies: 2 };
    let mut back = to_port(17, 9);
    back[0].source_ports = std::mem::take(&mut back[0].destination_ports);
    let policy = mtun_policy::Effective::new([
        rule(0, to_port(17, 9), copies(), Otherwise::NextRule),
        rule(1, back, copies(), Otherwise::NextRule),
        rule(2, Vec::new(), Outcome::Candidates(links.clone()), Otherwise::Any),
    ]);
    Registration { copies: CopyMark::On, ..registration(bindings, policy.into()) }
}

struct Pair {
    mobile: Node,
    agent: Node,
}

/// What a packet says besides its headers, so that each is known again.
fn numbered(source: &str, destination: &str, ports: (u16, u16), number: u32) -> Vec<u8> {
    let mut packet = udp(source, destination, ports, 100);
    packet[60..64].copy_from_slice(&number.to_be_bytes());
    packet
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[60..64].try_into().unwrap())
}

/// The outer packets of a verdict, by path.
fn sent(node: &Node, verdict: Verdict) -> Vec<(PathId, Vec<u8>)> {
    match verdict {
        Verdict::Send { path } => vec![(path, node.out.clone())],
        Verdict::Replicate(sends) => {
            sends.parts(&node.out).map(|(path, part)| (path, part.to_vec())).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// What one outer packet makes the other end deliver, in order.
fn taken(node: &mut Node, outer: &[u8], now: Duration) -> Vec<Vec<u8>> {
    let verdict = node.engine.inbound(PathId(1), outer, now, &mut node.out);
    let mut delivered = match verdict {
        Verdict::Deliver => vec![node.out.clone()],
        Verdict::Ignore(IgnoreReason::CopyHeld | IgnoreReason::FragmentHeld)
        | Verdict::Drop(DropReason::Duplicate) => Vec::new(),
        other => panic!("{other:?}"),
    };
    delivered.extend(released(node, now));
    delivered
}

fn released(node: &mut Node, now: Duration) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while node.engine.released(now, &mut node.out) {
        all.push(node.out.clone());
    }
    all
}

fn mark_of(outer: &[u8]) -> Option<CopySequence> {
    Chain::walk(outer, Header::parse(outer).unwrap().next_header).unwrap().copy
}

impl Pair {
    fn new() -> Self {
        Self {
            mobile: Node::new(mobile_with(marked(uplinks()))),
            agent: Node::new(agent_with(marked(routed(uplinks())))),
        }
    }

    fn up(&mut self, number: u32) -> Vec<(PathId, Vec<u8>)> {
        let verdict = self.mobile.outbound(&numbered(HOME, PEER, (1, 9), number));
        sent(&self.mobile, verdict)
    }

    fn down(&mut self, number: u32) -> Vec<(PathId, Vec<u8>)> {
        let packet = numbered(PEER, HOME, (9, 1), number);
        let verdict = self.agent.engine.outbound(Ingress::OTHER, &packet, NOW, &mut self.agent.out);
        sent(&self.agent, verdict)
    }
}

fn numbers(delivered: &[Vec<u8>]) -> Vec<u32> {
    delivered.iter().map(|packet| number_of(packet)).collect()
}

/// req FB-13, FB-21.
#[test]
fn both_directions_deliver_each_packet_once_and_in_order() {
    let mut pair = Pair::new();
    for number in 0..100 {
        let (up, down) = (pair.up(number), pair.down(number));
        assert_eq!(up.iter().map(|it| it.0).collect::<Vec<_>>(), [PathId(1), PathId(2)]);
        assert_eq!((up.len(), down.len()), (2, 2), "a copy by each");
        for (mut copies, node, whose) in
            [(up, &mut pair.agent, HOME), (down, &mut pair.mobile, PEER)]
        {
            let marks: Vec<_> = copies.iter().map(|it| mark_of(&it.1).expect("marked")).collect();
            assert_eq!(marks[0], marks[1], "the same place");
            assert_eq!(marks[0].sequence, number);
            if number % 3 == 0 {
                copies.reverse();
            }
            let first = taken(node, &copies[0].1, NOW);
            assert_eq!(numbers(&first), [number], "the first copy");
            assert_eq!(Header::parse(&first[0]).unwrap().source, v6(whose), "as it was");
            assert_eq!(taken(node, &copies[1].1, NOW), Vec::<Vec<u8>>::new(), "the second");
        }
    }
    for node in [&pair.mobile, &pair.agent] {
        let counters = node.engine.counters().snapshot();
        assert_eq!(counters.dropped(DropReason::Duplicate), 100);
        assert_eq!(counters.order, OrderCounts { begun: 1, ..OrderCounts::default() });
        let carried_in: u64 = counters
            .traffic
            .iter()
            .filter(|it| it.direction == Direction::In)
            .map(|it| it.packets)
            .sum();
        assert_eq!(carried_in, 100, "the flow is counted once");
    }
}

/// One link carries everything a while later; then one of them is dead, then the other.
#[test]
fn slow_and_dead_links_cost_no_packet_and_no_order() {
    let mut pair = Pair::new();
    let (mut late, mut delivered) = (Vec::<Vec<u8>>::new(), Vec::new());
    for number in 0..300 {
        let copies = pair.up(number);
        let now = NOW + number * MS;
        match number {
            // The second link is 20 packets behind; each seventh is lost on the first.
            0..100 => {
                if number % 7 != 3 {
                    delivered.extend(taken(&mut pair.agent, &copies[0].1, now));
                }
                late.push(copies[1].1.clone());
                if late.len() > 20 {
                    delivered.extend(taken(&mut pair.agent, &late.remove(0), now));
                }
            }
            // The first link is dead, the other brings what it owes.
            100..200 => {
                late.push(copies[1].1.clone());
                delivered.extend(taken(&mut pair.agent, &late.remove(0), now));
            }
            // The second link is dead and its queue with it: what only it had is lost.
            _ => {
                late.clear();
                delivered.extend(taken(&mut pair.agent, &copies[0].1, now));
                delivered.extend(released(&mut pair.agent, now));
            }
        }
    }
    let end = NOW + Duration::from_secs(1);
    delivered.extend(released(&mut pair.agent, end));
    let came: Vec<u32> = (0..300).filter(|number| !(180..200).contains(number)).collect();
    assert_eq!(numbers(&delivered), came);
    let counters = pair.agent.engine.counters().snapshot();
    assert_eq!(counters.order.given_up, 20);
    assert_eq!(pair.agent.engine.held_until(), None);
}

#[test]
fn a_single_link_keeps_counting() {
    let mut pair = Pair::new();
    pair.up(0);
    let mut alone = uplinks();
    alone[0].usable = false;
    pair.mobile.snapshot.store(mobile_with(marked(alone)).into());
    let copies = pair.up(1);
    assert_eq!(copies.len(), 1);
    assert_eq!(mark_of(&copies[0].1).map(|it| it.sequence), Some(1), "its place all the same");
    pair.mobile.snapshot.store(mobile_with(marked(uplinks())).into());
    assert_eq!(mark_of(&pair.up(2)[1].1).map(|it| it.sequence), Some(2));
}

/// req FB-21: off unless both ends agreed, and then nothing is added and nothing looked at.
#[test]
fn without_an_agreement_copies_are_plain_tunnel_packets() {
    let off = |registration| Registration { copies: CopyMark::Off, ..registration };
    let mut pair = Pair::new();
    let marked_copies = pair.up(0);
    pair.mobile.snapshot.store(mobile_with(off(marked(uplinks()))).into());
    pair.agent.snapshot.store(agent_with(off(marked(routed(uplinks())))).into());
    let plain = pair.up(1);
    assert_eq!(plain.len(), 2);
    for (_, outer) in &plain {
        assert_eq!(mark_of(outer), None);
        assert_eq!(outer.len(), 140, "no octet more");
    }
    for (_, outer) in plain.iter().chain(&marked_copies) {
        assert_eq!(taken(&mut pair.agent, outer, NOW).len(), 1, "as often as it arrives");
    }
    // Other packets have no mark with an agreement either.
    let mut pair = Pair::new();
    let verdict = pair.mobile.outbound(&udp(HOME, PEER, (1, 2), 100));
    assert_eq!(sent(&pair.mobile, verdict)[0].1.len(), 140);
}

/// Sixteen octets count in the MTU, and what is refused leaves no gap.
#[test]
fn the_mark_counts_in_the_mtu() {
    let mut pair = Pair::new();
    let big = |length| udp(HOME, PEER, (1, 9), length);
    let sequence = |pair: &mut Pair, packet: &[u8]| {
        let verdict = pair.mobile.outbound(packet);
        let copies = sent(&pair.mobile, verdict);
        assert!(copies.iter().all(|(_, outer)| outer.len() <= 1500));
        mark_of(&copies[0].1).unwrap().sequence
    };
    assert_eq!(sequence(&mut pair, &big(1444)), 0, "1500 less 40 less 16");
    assert_eq!(pair.mobile.outbound(&big(1445)), Verdict::Answer(DropReason::TooBig));
    assert_eq!(pair.mobile.out[44..48], 1444u32.to_be_bytes(), "the MTU that is told");
    let mut expired = big(100);
    expired[7] = 0;
    assert_eq!(pair.mobile.outbound(&expired), Verdict::Answer(DropReason::HopLimit));
    assert_eq!(sequence(&mut pair, &big(100)), 1, "no number was drawn for what did not leave");

    // With a tunnel in the tunnel the limit stands beside the mark.
    let mut nested = raw(v6(HOME), v6(PEER), 41, &udp(HOME, PEER, (1, 2), 1396));
    assert_eq!(nested.len(), 1436);
    let mut everything = marked(uplinks());
    let links = vec![bid(1), bid(2)];
    let all = rule(0, Vec::new(), Outcome::Copies { links, copies: 2 }, Otherwise::NextRule);
    everything.policy = mtun_policy::Effective::new([all]).into();
    pair.mobile.snapshot.store(mobile_with(everything).into());
    let verdict = pair.mobile.outbound(&nested);
    for (_, outer) in sent(&pair.mobile, verdict) {
        assert_eq!(outer.len(), 1500);
        let chain = Chain::walk(&outer, 60).unwrap();
        assert!(chain.copy.is_some() && chain.tunnel_limit.is_some());
        assert_eq!((chain.upper, chain.upper_at), (41, 64));
        assert_eq!(outer[64..], nested);
    }
    nested = raw(v6(HOME), v6(PEER), 41, &udp(HOME, PEER, (1, 2), 1397));
    assert_eq!(pair.mobile.outbound(&nested), Verdict::Answer(DropReason::TooBig));
}

/// What nobody may be asked to make smaller travels in fragments, each copy in its own.
#[test]
fn marked_copies_travel_in_fragments_too() {
    let mut narrow = marked(uplinks());
    narrow.bindings.iter_mut().for_each(|it| it.mtu = 1280);
    let mut pair = Pair::new();
    pair.mobile.snapshot.store(mobile_with(narrow).into());
    for number in 0..5 {
        let mut packet = udp(HOME, PEER, (1, 9), 1280);
        packet[60..64].copy_from_slice(&u32::to_be_bytes(number));
        let verdict = pair.mobile.outbound(&packet);
        let copies = sent(&pair.mobile, verdict);
        assert_eq!(copies.len(), 2);
        let mut delivered = Vec::new();
        for (_, fragments) in &copies {
            assert_eq!(packets(fragments).count(), 2);
            for fragment in packets(fragments) {
                assert!(fragment.len() <= 1280);
                delivered.extend(taken(&mut pair.agent, fragment, NOW));
            }
        }
        assert_eq!(delivered, [packet]);
    }
    let dropped = pair.agent.engine.counters().snapshot().dropped(DropReason::Duplicate);
    assert_eq!(dropped, 5);
}

/// What goes straight is no matter of the two ends that agreed; the home link has no room.
#[test]
fn marked_copies_never_go_straight_and_the_home_link_carries_one_alone() {
    let optimized = |copies| {
        let mut home = Registration { copies, ..marked(uplinks()) };
        home.policy = straight(&home.policy);
        let mut snapshot = mobile_with(home);
        let held = held(&[(1, WLAN), (2, WWAN)]);
        snapshot.optimized = snapshot.optimized.with(pair(HOME, PEER), held);
        Node::new(snapshot)
    };
    let packet = numbered(HOME, PEER, (1, 9), 7);
    for (copies, next_header) in [(CopyMark::Off, 17), (CopyMark::On, 41)] {
        let mut node = optimized(copies);
        let verdict = node.outbound(&packet);
        let all = sent(&node, verdict);
        assert_eq!(all.len(), 2);
        for (_, outer) in all {
            assert_eq!(Chain::walk(&outer, 60).unwrap().upper, next_header, "{copies:?}");
        }
    }
    // (which link is the home link, what leaves by which path, marked or not)
    type Case = (usize, &'static [(u16, bool)]);
    let cases: [Case; 2] = [(0, &[(1, false)]), (1, &[(1, true)])];
    for (at, want) in cases {
        let mut bindings = uplinks();
        bindings[at].home_link = true;
        let mut node = Node::new(mobile_with(marked(bindings)));
        let verdict = node.outbound(&packet);
        let got: Vec<_> = sent(&node, verdict)
            .into_iter()
            .map(|(path, outer)| (path.0, mark_of(&outer).is_some()))
            .collect();
        assert_eq!(got, want, "home link {at}");
    }
}

/// Octets of copies, both directions, duplicates included: what a byte cap is measured by.
#[test]
fn every_copy_counts_for_its_rule_and_link() {
    let mut pair = Pair::new();
    // Nothing went out of this flow yet: the rule of the answers is asked.
    for number in 0..3 {
        for (_, outer) in pair.down(number) {
            taken(&mut pair.mobile, &outer, NOW);
        }
    }
    for number in 0..2 {
        pair.up(number);
    }
    let counters = pair.mobile.engine.counters().snapshot();
    let got: Vec<_> = counters
        .copies
        .iter()
        .map(|it| (it.rule, it.bid.unwrap().get(), it.direction, it.packets, it.bytes))
        .collect();
    let rule = Some(RuleId(0));
    let each = 100 + 40 + 16;
    assert_eq!(
        got,
        [
            (rule, 1, Direction::Out, 2, 2 * each),
            (rule, 1, Direction::In, 3, 3 * each),
            (rule, 2, Direction::Out, 2, 2 * each),
            (rule, 2, Direction::In, 3, 3 * each),
        ]
    );
}

/// A message to the mobile itself is handled when it comes, and its place is kept.
#[test]
fn messages_wait_for_nothing() {
    let mut everything = marked(routed(uplinks()));
    let links = vec![bid(1), bid(2)];
    let all = rule(0, Vec::new(), Outcome::Copies { links, copies: 2 }, Otherwise::NextRule);
    everything.policy = mtun_policy::Effective::new([all]).into();
    let mut pair = Pair::new();
    pair.agent.snapshot.store(agent_with(everything).into());
    let data = |number| numbered(PEER, HOME, (9, 1), number);
    let quoted = udp(HOME, PEER, (1, 9), 60);
    let message = raw(v6(PEER), v6(HOME), 58, &[&[1, 3, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
    // One flow and one message in the same stream, whatever the streams are.
    let mut streams = std::collections::BTreeMap::<u16, Vec<Vec<(PathId, Vec<u8>)>>>::new();
    let mut send = |pair: &mut Pair, packet: &[u8]| {
        let verdict = pair.agent.engine.outbound(Ingress::OTHER, packet, NOW, &mut pair.agent.out);
        let copies = sent(&pair.agent, verdict);
        let stream = mark_of(&copies[0].1).unwrap().stream;
        streams.entry(stream).or_default().push(copies);
        stream
    };
    let stream = send(&mut pair, &message);
    let port =
        (1..2000).find(|port| send(&mut pair, &udp(PEER, HOME, (9, *port), 60)) == stream).unwrap();
    let flow = |number| {
        let mut packet = data(number);
        packet[42..44].copy_from_slice(&u16::to_be_bytes(port));
        packet
    };
    for packet in [flow(1), flow(2), message.clone(), flow(3)] {
        send(&mut pair, &packet);
    }
    let of_stream = &streams[&stream];
    let [.., one, two, error, three] = &of_stream[..] else { panic!() };
    taken(&mut pair.mobile, &one[0].1, NOW);
    let handled = pair.mobile.engine.inbound(PathId(1), &error[0].1, NOW, &mut pair.mobile.out);
    assert_eq!(handled, Verdict::Deliver, "at once, and before its turn");
    assert_eq!(pair.mobile.out, message);
    assert!(taken(&mut pair.mobile, &error[1].1, NOW).is_empty(), "once");
    assert!(taken(&mut pair.mobile, &three[0].1, NOW).is_empty(), "waits");
    assert_eq!(numbers(&taken(&mut pair.mobile, &two[1].1, NOW)), [2, 3]);
    assert_eq!(pair.mobile.engine.held_until(), None);
}

/// Only who may send at all gets as far as a window.
#[test]
fn strangers_have_no_window() {
    let mut pair = Pair::new();
    let outer = pair.up(0)[0].1.clone();
    let mut forged = outer.clone();
    forged[8..24].copy_from_slice(&v6("2001:db8:bad::1").octets());
    let verdict = pair.agent.inbound(&forged);
    assert_eq!(verdict, Verdict::Drop(DropReason::NotCareOf));
    let counters = pair.agent.engine.counters().snapshot();
    assert_eq!(counters.order, OrderCounts::default());
    assert!(counters.copies.is_empty());
    pair.agent.snapshot.store(Snapshot { own: vec![v6(AGENT)], ..Snapshot::default() }.into());
    assert_eq!(pair.agent.inbound(&outer), Verdict::Drop(DropReason::InnerUnknown));
    assert_eq!(pair.agent.engine.counters().snapshot().order, OrderCounts::default());
}
