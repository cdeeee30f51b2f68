//! Flows without packets, flows that share, and what is told of moves.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::{Binding, CourseEnd, MoveReason, PathId, Settings, Snapshot, Verdict, diff};
use mtun_policy::{
    Effective, FailbackMode, Ingress, Otherwise, Outcome, RuleHead, Says, Scope, Sticky,
};
use support::*;

const MS: Duration = Duration::from_millis(1);

fn sticky(id: u16, links: &[u16], scope: Scope) -> (RuleHead, Says) {
    let bids: Vec<_> = links.iter().map(|number| bid(*number)).collect();
    let ripe = bids.clone();
    let (head, says) = rule(id, Vec::new(), Outcome::Candidates(bids), Otherwise::NextRule);
    let sticky = Sticky { scope, lasts: Duration::from_secs(600) };
    (head, Says { sticky, failback: FailbackMode::Gap, ripe, ..says })
}

fn without(at: usize) -> Vec<Binding> {
    let mut bindings = uplinks();
    bindings[at].usable = false;
    bindings
}

/// Slow W-CDMA and fast WLAN, so that going back waits for a pause of 40 ms.
fn measured(mut bindings: Vec<Binding>) -> Vec<Binding> {
    for (binding, rtt) in bindings.iter_mut().zip([20, 100]) {
        (binding.rtt, binding.jitter) = (Some(rtt * MS), Some(Duration::ZERO));
    }
    bindings
}

fn publish(node: &Node, bindings: Vec<Binding>, policy: &Arc<Effective>, at: Duration) {
    let mut next = registration(bindings, policy.clone());
    next.changed_at = at;
    let before = node.snapshot.load_full();
    let updates = before.updates.with(next);
    let generation = before.generation + 1;
    node.snapshot.store(Snapshot { updates, generation, ..(*before).clone() }.into());
}

fn send(node: &mut Node, port: u16, at: Duration) -> u16 {
    let packet = udp(HOME, PEER, (port, 2), 100);
    match node.engine.outbound(Ingress::LOCAL, &packet, at, &mut node.out) {
        Verdict::Send { path } => path.0,
        other => panic!("{other:?}"),
    }
}

fn links(node: &Node) -> Vec<u16> {
    let mut links: Vec<_> =
        node.engine.flows().iter().map(|flow| flow.bid_out.unwrap().get()).collect();
    links.sort_unstable();
    links
}

#[test]
fn silent_flows_leave_a_dead_link_and_come_back() {
    let policy: Arc<_> = Effective::new([sticky(0, &[1, 2], Scope::Flow)]).into();
    let mut node = Node::new(mobile_with(registration(measured(uplinks()), policy.clone())));
    for port in 1..=100 {
        send(&mut node, port, NOW);
    }
    assert_eq!(node.engine.reevaluate(NOW), None, "nothing to do");
    publish(&node, measured(without(0)), &policy, NOW + MS);
    assert_eq!(node.engine.reevaluate(NOW + MS), None);
    assert_eq!(links(&node), [2; 100]);
    let seen: Vec<_> = node.engine.flows().iter().map(|flow| flow.last_seen).collect();
    assert_eq!(seen, [NOW; 100], "they are as silent as they were");
    // Back up: those that had a pause go at once, the busy one waits for its own or for move-by.
    let up = NOW + 10_000 * MS;
    send(&mut node, 1, up);
    publish(&node, measured(uplinks()), &policy, up);
    assert_eq!(node.engine.reevaluate(up + MS), Some(up + 2000 * MS));
    assert_eq!(links(&node)[98..], [1, 2]);
    for ms in (2..1990).step_by(20) {
        assert_eq!(send(&mut node, 1, up + ms * MS), 2);
    }
    assert_eq!(node.engine.reevaluate(up + 1990 * MS), Some(up + 2000 * MS), "not yet");
    assert_eq!(node.engine.reevaluate(up + 2000 * MS), None);
    assert_eq!(links(&node), [1; 100]);
    // Every move is told, in order and by reason.
    let moves = node.engine.moves();
    assert_eq!(moves.len(), 200);
    assert!(moves[..100].iter().all(|it| it.reason == MoveReason::LinkDown));
    let last = moves[199];
    assert_eq!((last.reason, last.at), (MoveReason::Failback, up + 2000 * MS));
    assert_eq!((last.from, last.to), (Some(bid(2)), Some(bid(1))));
    assert_eq!(last.key.source_port, Some(1));
    let counted: Vec<_> = node
        .engine
        .counters()
        .snapshot()
        .moves
        .iter()
        .map(|it| (it.from.unwrap().get(), it.to.unwrap().get(), it.reason, it.count))
        .collect();
    let (down, back) = (MoveReason::LinkDown, MoveReason::Failback);
    assert_eq!(counted, [(1, 2, down, 100), (2, 1, back, 100)]);
}

#[test]
fn a_slice_is_bounded_and_the_next_goes_on() {
    let policy: Arc<_> = Effective::new([sticky(0, &[1, 2], Scope::Flow)]).into();
    let mut node = Node::new(mobile_with(registration(uplinks(), policy.clone())));
    for port in 1..=5000 {
        send(&mut node, port, NOW);
    }
    // A set of the flow table may have been full.
    let flows = links(&node).len();
    assert!(flows > 4900);
    publish(&node, without(0), &policy, NOW);
    let mut calls = 0;
    let on_second = |node: &Node| links(node).iter().filter(|link| **link == 2).count();
    while node.engine.reevaluate(NOW + MS).is_some() {
        calls += 1;
        assert!(on_second(&node) <= calls * 2048);
    }
    assert_eq!(calls, 2, "three slices");
    assert_eq!(on_second(&node), flows);
    // Not all of these moves are kept, all are counted.
    assert_eq!(node.engine.moves().len(), 4096);
    assert_eq!(node.engine.counters().snapshot().moves[0].count, flows as u64);
}

#[test]
fn pairs_and_hosts_share_their_link() {
    for (scope, inside) in [(Scope::Pair, 2), (Scope::Host, 2), (Scope::Flow, 1)] {
        let policy: Arc<_> = Effective::new([sticky(0, &[1, 2], scope)]).into();
        let mut node = Node::new(mobile_with(registration(measured(without(0)), policy.clone())));
        assert_eq!(send(&mut node, 1, NOW), 2);
        // A better link is there, and the first flow is not silent: a new one of the same pair
        // goes by the same link, one of its own takes the better one.
        publish(&node, measured(uplinks()), &policy, NOW);
        assert_eq!(send(&mut node, 1, NOW + 10 * MS), 2, "{scope:?}");
        assert_eq!(send(&mut node, 2, NOW + 20 * MS), inside, "{scope:?}");
        // All go back together, in a pause of all of them.
        assert_eq!(send(&mut node, 1, NOW + 110 * MS), 1, "{scope:?}");
        assert_eq!(send(&mut node, 2, NOW + 111 * MS), 1, "{scope:?}");
        let reasons: Vec<_> = node.engine.moves().iter().map(|it| it.reason).collect();
        assert!(reasons.iter().all(|reason| *reason == MoveReason::Failback), "{reasons:?}");
        assert_eq!(reasons.len(), if scope == Scope::Flow { 1 } else { 2 });
    }
    // Pairs are pairs and hosts are hosts.
    for (scope, link) in [(Scope::Pair, 1), (Scope::Host, 2)] {
        let policy: Arc<_> = Effective::new([sticky(0, &[1, 2], scope)]).into();
        let mut node = Node::new(mobile_with(registration(measured(without(0)), policy.clone())));
        send(&mut node, 1, NOW);
        publish(&node, measured(uplinks()), &policy, NOW);
        let elsewhere = udp(HOME, "2001:db8:c::10", (1, 2), 100);
        let verdict = node.engine.outbound(Ingress::LOCAL, &elsewhere, NOW + MS, &mut node.out);
        assert_eq!(verdict, Verdict::Send { path: PathId(link) }, "{scope:?}");
    }
}

#[test]
fn rules_that_go_together_share_their_link() {
    let (voice, media) = (to_port(17, 5060), to_port(17, 4000));
    let together = |id, selectors, links: &[u16]| {
        let (head, says) = sticky(id, links, Scope::Pair);
        (RuleHead { selectors, ..head }, Says { together: Some(1), ..says })
    };
    let policy: Arc<_> = Effective::new([
        together(0, voice.clone(), &[1, 2]),
        together(1, media.clone(), &[2, 1]),
        together(2, to_port(17, 9), &[1]),
    ])
    .into();
    let mut node = Node::new(mobile_with(registration(uplinks(), policy.clone())));
    let mut send = |port, at| {
        let packet = udp(HOME, PEER, (1, port), 100);
        match node.engine.outbound(Ingress::LOCAL, &packet, at, &mut node.out) {
            Verdict::Send { path } => path.0,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(send(4000, NOW), 2, "the first of them decides");
    assert_eq!(send(5060, NOW + MS), 2, "the other follows against its own order");
    assert_eq!(send(9, NOW + 2 * MS), 1, "a rule that does not name the link does not");
    assert_eq!(send(4000, NOW + 3 * MS), 2, "and takes nobody along");
}

#[test]
fn packets_and_reevaluation_at_once_agree_in_the_end() {
    let policy: Arc<_> = Effective::new([sticky(0, &[1, 2], Scope::Host)]).into();
    let world = || mobile_with(registration(measured(uplinks()), policy.clone()));
    let node = Node::with(world(), Settings::default());
    let rounds: u32 = 300;
    let ports = 64;
    std::thread::scope(|scope| {
        let node = &node;
        for thread in 0..2_u16 {
            scope.spawn(move || {
                let mut out = Vec::new();
                for round in 0..rounds {
                    for port in 0..ports {
                        let packet = udp(HOME, PEER, (1 + port * 2 + thread, 2), 100);
                        let at = NOW + round * 50 * MS;
                        let verdict = node.engine.outbound(Ingress::LOCAL, &packet, at, &mut out);
                        // Never by a link that was down in every snapshot it can have seen, and
                        // always by one of the two.
                        assert!(matches!(verdict, Verdict::Send { path: PathId(1 | 2) }));
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..rounds {
                let bindings = if round % 2 == 0 { without(0) } else { uplinks() };
                publish(node, measured(bindings), &policy, NOW + round * 50 * MS);
                while node.engine.reevaluate(NOW + round * 50 * MS) == Some(NOW + round * 50 * MS) {
                }
            }
        });
    });
    // The last word is the last publication's: everything up, and in two seconds all are back.
    let end = NOW + rounds * 50 * MS + 3000 * MS;
    publish(&node, measured(uplinks()), &policy, end);
    while node.engine.reevaluate(end).is_some_and(|at| at <= end) {}
    assert_eq!(links(&node), [1; 128]);
}

#[test]
fn a_difference_is_told_and_nothing_is_applied() {
    let policy: Arc<_> = Effective::new([sticky(0, &[1, 2], Scope::Flow)]).into();
    let mut node = Node::new(mobile_with(registration(uplinks(), policy.clone())));
    for port in 1..=10 {
        send(&mut node, port, NOW);
    }
    let old = node.snapshot.load_full();
    let flows = node.engine.flows();
    let world = |policy: Effective| {
        let mut next = registration(uplinks(), policy.into());
        next.changed_at = NOW;
        Snapshot { updates: old.updates.with(next), ..(*old).clone() }
    };
    // The same rule at another place, and a rule of its own for one of them.
    let (head, says) = sticky(1, &[1, 2], Scope::Flow);
    let same = (RuleHead { identity: 0, ..head }, says);
    let from_five = vec![mtun_policy::TrafficSelector {
        source_ports: vec![5..=5],
        ..mtun_policy::TrafficSelector::default()
    }];
    let five = |outcome| {
        let (head, says) = rule(0, from_five.clone(), outcome, Otherwise::NextRule);
        (RuleHead { identity: 99, ..head }, says)
    };
    let new = world(Effective::new([five(Outcome::Candidates(vec![bid(2)])), same.clone()]));
    let moves = diff(&old, &new, &flows, NOW + MS);
    let [only] = &moves[..] else { panic!("{moves:?}") };
    assert_eq!(only.key.source_port, Some(5));
    assert_eq!(only.from.end, CourseEnd::Tunnel(Some(bid(1))));
    assert_eq!(only.to.end, CourseEnd::Tunnel(Some(bid(2))));
    let names = [&only.from, &only.to].map(|it| it.rule.as_ref().unwrap().1.as_str().to_owned());
    assert_eq!(names, ["rule 0", "rule 0"]);
    assert_eq!(only.octets, 100);
    let reply = mtun_policy::BlockReply::Silent;
    let new = world(Effective::new([five(Outcome::Block(reply)), same]));
    let moves = diff(&old, &new, &flows, NOW + MS);
    assert_eq!(moves.iter().map(|it| it.to.end).collect::<Vec<_>>(), [CourseEnd::Refused(reply)]);
    assert_eq!(diff(&old, &old, &flows, NOW + MS), []);
    assert_eq!(links(&node), [1; 10]);
    assert!(node.engine.moves().is_empty());
}
