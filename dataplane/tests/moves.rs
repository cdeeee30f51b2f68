//! When a flow leaves its link, and why: one table for every reason, one for every way to wait.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::{
    Answer, Binding, Decision, Memory, MoveReason, Remembered, Snapshot, Way, decide,
};
use mtun_policy::{
    Bid, Effective, FailbackMode, FlowKey, HomeAddress, Otherwise, Outcome, RuleHead, RuleId,
    RuleTable, Says, Scope, Sticky,
};
use support::*;

const MS: Duration = Duration::from_millis(1);

/// A rule for everything, `prefer` these links, sticky by flow.
fn prefer(id: u16, links: &[u16], mode: FailbackMode, ripe: &[u16]) -> (RuleHead, Says) {
    let bids = |numbers: &[u16]| numbers.iter().map(|number| bid(*number)).collect::<Vec<_>>();
    let (head, says) = rule(id, Vec::new(), Outcome::Candidates(bids(links)), Otherwise::NextRule);
    let sticky = Sticky { scope: Scope::Flow, lasts: Duration::from_secs(600) };
    (head, Says { sticky, failback: mode, ripe: bids(ripe), ..says })
}

/// Slow W-CDMA, fast WLAN: a move back to WLAN needs a pause of 80 ms.
fn measured(mut bindings: Vec<Binding>) -> Vec<Binding> {
    for (binding, rtt) in bindings.iter_mut().zip([20, 100]) {
        (binding.rtt, binding.jitter) = (Some(rtt * MS), Some(Duration::ZERO));
    }
    bindings
}

/// The world before a change, and the flow's memory after one packet in it.
struct Story {
    before: Snapshot,
    memory: Remembered,
    flow: FlowKey,
}

impl Story {
    fn new(bindings: Vec<Binding>, policy: Effective) -> Self {
        let before = mobile_with(registration(bindings, policy.into()));
        let flow = key(HOME, PEER, 6, Some((9, 22)));
        let answer = answer(&before, &flow, NOW, None).expect("it leaves");
        let memory = Remembered {
            answer: Some(answer),
            last_seen: NOW,
            last_sent: Some(NOW),
            ..Remembered::default()
        };
        Self { before, memory, flow }
    }

    /// The world after a change at this time.
    fn after(&self, bindings: Vec<Binding>, policy: Arc<Effective>, at: Duration) -> Snapshot {
        let mut registration = registration(bindings, policy);
        registration.changed_at = at;
        Snapshot { updates: self.before.updates.with(registration), ..self.before.clone() }
    }

    fn link(&self) -> u16 {
        self.memory.answer.and_then(|answer| answer.bid).map_or(0, Bid::get)
    }

    /// A packet at this time; the link it takes and why it left the one before.
    fn packet(&mut self, snapshot: &Snapshot, at: Duration) -> (u16, Option<MoveReason>) {
        let decided = answer(snapshot, &self.flow, at, Some(&self.memory)).expect("it leaves");
        let moved = decided.moved.filter(|moved| moved.at == at);
        if let Some(moved) = moved {
            assert_eq!(moved.from, self.memory.answer.and_then(|answer| answer.bid));
        }
        self.memory.answer = Some(decided);
        (self.memory.last_seen, self.memory.last_sent) = (at, Some(at));
        (self.link(), moved.map(|moved| moved.reason))
    }
}

fn answer(
    snapshot: &Snapshot,
    key: &FlowKey,
    now: Duration,
    flow: Option<&Remembered>,
) -> Option<Answer> {
    let memory = Memory { flow, groups: None };
    let decision = decide(snapshot, key, now, memory);
    decision.answer(key, memory)
}

/// Rules that share their static half, as after a link event.
fn saying(policy: &Effective, says: Vec<Says>) -> Arc<Effective> {
    Arc::new(Effective { says, ..Effective::clone(policy) })
}

/// req TN-14.
#[test]
fn every_reason_has_its_change() {
    use FailbackMode::*;
    let one = |mode, ripe: &[u16]| Effective::new([prefer(0, &[1, 2], mode, ripe)]);
    let down = |at: usize| {
        let mut bindings = uplinks();
        bindings[at].usable = false;
        bindings
    };
    let steer = |id: u16, to: u16| {
        let (head, says) =
            rule(id, Vec::new(), Outcome::Candidates(vec![bid(to)]), Otherwise::NextRule);
        (Arc::new(head), says)
    };
    let steered = |mut policy: Effective| {
        policy.overrides = vec![steer(RuleId::OVERRIDES, 2)];
        policy
    };
    let renamed = |links: &[u16]| {
        let (head, says) = prefer(0, links, Gap, &[1, 2]);
        Effective::new([(RuleHead { identity: 77, ..head }, says)])
    };
    let drained = |policy: &Effective| saying(policy, vec![prefer(0, &[2], Gap, &[2]).1]);
    type Change<'c> = &'c dyn Fn(&Effective) -> (Vec<Binding>, Arc<Effective>);
    type Case<'c> = (MoveReason, Vec<Binding>, Effective, Change<'c>, u16);
    let cases: [Case<'_>; 7] = [
        (MoveReason::LinkDown, uplinks(), one(Gap, &[1]), &|p| (down(0), p.clone().into()), 2),
        (MoveReason::LeftRule, uplinks(), one(Gap, &[1]), &|p| (uplinks(), drained(p)), 2),
        (
            MoveReason::RuleChanged,
            uplinks(),
            one(Gap, &[1]),
            &|_| (uplinks(), renamed(&[2, 1]).into()),
            2,
        ),
        (
            MoveReason::Steered,
            uplinks(),
            one(Gap, &[1]),
            &|p| (uplinks(), steered(p.clone()).into()),
            2,
        ),
        (
            MoveReason::Ended,
            uplinks(),
            steered(one(Gap, &[1])),
            &|p| (uplinks(), Effective { overrides: Vec::new(), ..p.clone() }.into()),
            1,
        ),
        (MoveReason::Failback, down(0), one(Gap, &[1]), &|p| (uplinks(), p.clone().into()), 1),
        (MoveReason::Failback, down(0), one(Now, &[1]), &|p| (uplinks(), p.clone().into()), 1),
    ];
    for (reason, bindings, policy, change, to) in cases {
        let mut story = Story::new(bindings, policy.clone());
        let from = story.link();
        assert_ne!(from, to, "{reason}");
        let (bindings, policy) = change(&policy);
        let after = story.after(bindings, policy, NOW);
        // Long enough after its last packet for any move.
        assert_eq!(story.packet(&after, NOW + 3000 * MS), (to, Some(reason)), "{reason}");
        assert_eq!(story.packet(&after, NOW + 3001 * MS), (to, None), "{reason}: once");
    }
}

#[test]
fn reflected_flows_follow_the_mobile() {
    let snapshot = agent();
    let flow = key(PEER, HOME, 6, Some((22, 9)));
    let mut memory = Remembered { last_verified: Some(bid(1)), ..Remembered::default() };
    let first = answer(&snapshot, &flow, NOW, Some(&memory)).unwrap();
    assert_eq!((first.bid, first.moved), (Some(bid(1)), None));
    (memory.answer, memory.last_verified) = (Some(first), Some(bid(2)));
    (memory.last_seen, memory.last_sent) = (NOW, Some(NOW));
    let next = answer(&snapshot, &flow, NOW, Some(&memory)).unwrap();
    let moved = next.moved.unwrap();
    assert_eq!((next.bid, moved.from), (Some(bid(2)), Some(bid(1))));
    assert_eq!(moved.reason, MoveReason::Reflected);
}

/// The mobile knows the rules that its agent was told, and waits for a moment to move a flow: what
/// goes down follows it, and does not go before.
#[test]
fn with_reflect_the_mobile_says_when_a_flow_moves() {
    let told = |bids: &[u16], reflects: bool| {
        let links: Vec<_> = bids.iter().map(|number| bid(*number)).collect();
        let outcome =
            if reflects { Outcome::ReflectWithin(links) } else { Outcome::Candidates(links) };
        let (head, says) = rule(0, Vec::new(), outcome, Otherwise::NextRule);
        let identity = bids.iter().fold(0, |all, number| all * 10 + u64::from(*number));
        Arc::new(Effective::new([(RuleHead { identity, ..head }, says)]))
    };
    let changed = Some(MoveReason::RuleChanged);
    /// What the packet up before this one says: by which link it came, and when.
    type Up = (u16, Duration);
    /// A packet down: when, the last one up by then, and the link that it takes for what reason.
    type Down = (Duration, Up, (u16, Option<MoveReason>));
    type Case<'c> = (&'c str, bool, &'c [u16], &'c [u16], &'c [Down]);
    let cases: [Case<'_>; 7] = [
        (
            "it comes by the old link for as long as the mobile waits",
            true,
            &[1],
            &[2],
            &[
                (10 * MS, (1, 9 * MS), (1, None)),
                (1000 * MS, (1, 999 * MS), (1, None)),
                (1001 * MS, (2, 1000 * MS), (2, changed)),
            ],
        ),
        (
            "two seconds at most",
            true,
            &[1],
            &[2],
            &[
                (10 * MS, (1, 9 * MS), (1, None)),
                (1999 * MS, (1, 1998 * MS), (1, None)),
                (2000 * MS, (1, 1999 * MS), (2, changed)),
            ],
        ),
        (
            "nothing comes up that would say when",
            true,
            &[1],
            &[2],
            &[
                (999 * MS, (1, Duration::ZERO), (1, None)),
                (1000 * MS, (1, Duration::ZERO), (2, changed)),
            ],
        ),
        ("it has moved already", true, &[1], &[2], &[(MS, (2, Duration::ZERO), (2, changed))]),
        (
            "its link is among the new ones",
            true,
            &[2],
            &[1, 2],
            &[
                (MS, (2, Duration::ZERO), (2, None)),
                (2 * MS, (1, MS), (1, Some(MoveReason::Reflected))),
            ],
        ),
        (
            "its link is gone",
            true,
            &[1],
            &[3],
            &[(MS, (1, Duration::ZERO), (2, Some(MoveReason::LinkDown)))],
        ),
        ("without an agreement", false, &[1], &[2], &[(MS, (1, Duration::ZERO), (2, changed))]),
    ];
    for (what, reflects, before, after, packets) in cases {
        let flow = key(PEER, HOME, 6, Some((22, 9)));
        let cache = agent_with(registration(routed(uplinks()), told(before, reflects)));
        let up = Some(bid(before[0]));
        let mut memory = Remembered {
            last_verified: up,
            verified_at: NOW,
            last_seen: NOW,
            ..Default::default()
        };
        memory.answer = answer(&cache, &flow, NOW, Some(&memory));
        assert_eq!(memory.answer.and_then(|answer| answer.bid), up, "{what}");
        let (mut bindings, mut rules) = (routed(uplinks()), after);
        if after == [3] {
            (bindings[0].usable, rules) = (false, &[2]);
        }
        let mut registration = registration(bindings, told(rules, reflects));
        registration.changed_at = NOW;
        let cache = Snapshot { cache: cache.cache.with(registration), ..cache };
        for (at, (by, came), want) in packets {
            (memory.last_verified, memory.verified_at) = (Some(bid(*by)), NOW + *came);
            let next = answer(&cache, &flow, NOW + *at, Some(&memory)).expect("it leaves");
            let moved = next.moved.filter(|moved| moved.at == NOW + *at).map(|it| it.reason);
            assert_eq!((next.bid, moved), (Some(bid(want.0)), want.1), "{what}: {at:?}");
            (memory.answer, memory.last_seen, memory.last_sent) =
                (Some(next), NOW + *at, Some(NOW + *at));
        }
    }
}

#[test]
fn a_planned_move_waits_for_a_pause_and_two_seconds_at_most() {
    use FailbackMode::Gap;
    // Bound to slow W-CDMA by one policy, to WLAN by the next.
    let slow = || Effective::new([prefer(0, &[2, 1], Gap, &[1, 2])]);
    let fast = || {
        let (head, says) = prefer(0, &[1, 2], Gap, &[1, 2]);
        Arc::new(Effective::new([(RuleHead { identity: 77, ..head }, says)]))
    };
    let changed = Some(MoveReason::RuleChanged);
    let story = || {
        let story = Story::new(measured(uplinks()), slow());
        let after = story.after(measured(uplinks()), fast(), NOW);
        (story, after)
    };
    // A busy flow keeps its link until move-by.
    let (mut busy, after) = story();
    for ms in (10..2000).step_by(10) {
        assert_eq!(busy.packet(&after, NOW + ms * MS), (2, None), "{ms} ms");
    }
    assert_eq!(busy.packet(&after, NOW + 2000 * MS), (1, changed));
    // A pause of the difference is enough.
    let (mut pausing, after) = story();
    assert_eq!(pausing.packet(&after, NOW + 79 * MS), (2, None));
    assert_eq!(pausing.packet(&after, NOW + 159 * MS), (1, changed));
    // A second change does not begin the two seconds anew.
    let (mut twice, after) = story();
    assert_eq!(twice.packet(&after, NOW + 10 * MS), (2, None));
    let mut other = measured(uplinks());
    other[0].priority = 9;
    let again = twice.after(other, fast(), NOW + 1500 * MS);
    assert_eq!(twice.packet(&again, NOW + 1500 * MS + MS), (1, changed), "a pause of 1.49 s");
    let (mut twice, after) = story();
    for ms in (10..1500).step_by(10) {
        twice.packet(&after, NOW + ms * MS);
    }
    for ms in (1500..2000).step_by(10) {
        assert_eq!(twice.packet(&again, NOW + ms * MS), (2, None), "{ms} ms");
    }
    assert_eq!(twice.packet(&again, NOW + 2000 * MS), (1, changed));
    // Fast to slow does not wait.
    let mut down = Story::new(measured(uplinks()), (*fast()).clone());
    let after = down.after(measured(uplinks()), slow().into(), NOW);
    assert_eq!(down.packet(&after, NOW + MS), (2, changed));
    // Nor does a link that dies while the flow waits.
    let (mut dying, after) = story();
    assert_eq!(dying.packet(&after, NOW + MS), (2, None));
    let mut dead = measured(uplinks());
    dead[1].usable = false;
    let after = dying.after(dead, fast(), NOW + 2 * MS);
    assert_eq!(dying.packet(&after, NOW + 3 * MS), (1, Some(MoveReason::LinkDown)));
}

#[test]
fn failback_goes_by_its_mode() {
    use FailbackMode::*;
    let back = Some(MoveReason::Failback);
    // mode, the link under the flow is metered, the first choice is ripe; the link of a packet
    // 10 ms after the change and 10 ms after the last, then of one at move-by.
    type Row = (FailbackMode, bool, bool, (u16, Option<MoveReason>), (u16, Option<MoveReason>));
    let cases: [Row; 10] = [
        (New, false, true, (2, None), (2, None)),
        (New, true, true, (2, None), (1, back)),
        (Gap, false, true, (2, None), (1, back)),
        (Gap, true, true, (2, None), (1, back)),
        (Now, false, true, (1, back), (1, None)),
        (Never, false, true, (2, None), (2, None)),
        (Never, true, true, (2, None), (1, back)),
        (Gap, true, false, (2, None), (2, None)),
        (Now, true, false, (2, None), (2, None)),
        (Never, true, false, (2, None), (2, None)),
    ];
    for (mode, metered, ripe, early, late) in cases {
        let what = format!("{mode:?} metered={metered} ripe={ripe}");
        let policy = Effective::new([prefer(0, &[1, 2], mode, if ripe { &[1, 2] } else { &[] })]);
        let bindings = |up| {
            let mut bindings = measured(uplinks());
            (bindings[0].usable, bindings[1].metered) = (up, metered);
            bindings
        };
        let mut story = Story::new(bindings(false), policy.clone());
        let after = story.after(bindings(true), policy.into(), NOW);
        assert_eq!(story.packet(&after, NOW + 10 * MS), early, "{what}");
        assert_eq!(story.packet(&after, NOW + 2000 * MS), late, "{what}");
        // A new flow takes the first choice in any case.
        let new = FlowKey { source_port: Some(10), ..story.flow };
        let first = answer(&after, &new, NOW + 10 * MS, None).unwrap();
        assert_eq!(first.bid, Some(bid(1)), "{what}");
    }
}

#[test]
fn a_flow_goes_back_to_the_best_ripe_link() {
    // Three links; the best came up a moment ago, the second is ripe, the flow is on the third.
    let three = |usable: [bool; 3]| {
        let mut bindings = uplinks();
        bindings.push(binding(Some(3), "2001:db8:3::7", mtun_dataplane::PathId(3)));
        bindings.iter_mut().zip(usable).for_each(|(binding, usable)| binding.usable = usable);
        bindings
    };
    let policy = Effective::new([prefer(0, &[1, 2, 3], FailbackMode::Now, &[2, 3])]);
    let mut story = Story::new(three([false, false, true]), policy.clone());
    let after = story.after(three([true, true, true]), policy.into(), NOW);
    assert_eq!(story.packet(&after, NOW + MS), (2, Some(MoveReason::Failback)));
    assert_eq!(story.packet(&after, NOW + 2 * MS), (2, None));
}

#[test]
fn an_earlier_rule_gets_its_flows_back_by_its_own_failback() {
    use FailbackMode::*;
    for (mode, to) in [(Never, 2), (Now, 1)] {
        let policy = Effective::new([prefer(0, &[1], mode, &[1]), prefer(1, &[2], Gap, &[2])]);
        let mut lost = uplinks();
        lost[0].usable = false;
        let mut story = Story::new(lost, policy.clone());
        assert_eq!(story.memory.answer.unwrap().rule, Some(RuleId(1)));
        let after = story.after(uplinks(), policy.into(), NOW);
        let moved = (to == 1).then_some(MoveReason::Failback);
        assert_eq!(story.packet(&after, NOW + 3000 * MS), (to, moved), "{mode:?}");
        let rule = if to == 1 { 0 } else { 1 };
        assert_eq!(story.memory.answer.unwrap().rule, Some(RuleId(rule)), "{mode:?}");
    }
}

#[test]
fn a_rule_is_known_again_in_another_policy() {
    // The flow is on its second choice and its rule never goes back; a new policy puts another
    // rule, for other packets, before it.
    let mut lost = uplinks();
    lost[0].usable = false;
    let never = |id| prefer(id, &[1, 2], FailbackMode::Never, &[1, 2]);
    let mut story = Story::new(lost, Effective::new([never(0)]));
    let (head, says) = never(1);
    let telnet = rule(0, to_port(6, 23), Outcome::Candidates(vec![bid(1)]), Otherwise::NextRule);
    let known = (RuleHead { identity: 0, ..head.clone() }, says.clone());
    let other = (RuleHead { identity: 500, ..telnet.0 }, telnet.1);
    let same = Effective::new([other.clone(), known]);
    let after = story.after(uplinks(), same.into(), NOW);
    assert_eq!(story.packet(&after, NOW + 3000 * MS), (2, None));
    assert_eq!(story.memory.answer.unwrap().rule, Some(RuleId(1)), "by its new number");
    // One that means something else is another rule.
    let changed = Effective::new([other, (RuleHead { identity: 9, ..head }, says)]);
    let after = story.after(uplinks(), changed.into(), NOW);
    assert_eq!(story.packet(&after, NOW + 6000 * MS), (1, Some(MoveReason::RuleChanged)));
}

#[test]
fn a_silent_flow_is_a_new_one_after_its_time() {
    let mut lost = uplinks();
    lost[0].usable = false;
    let policy = Effective::new([prefer(0, &[1, 2], FailbackMode::Never, &[1, 2])]);
    for (silent, link) in [(600, 2), (601, 1)] {
        let mut story = Story::new(lost.clone(), policy.clone());
        let after = story.after(uplinks(), policy.clone().into(), NOW);
        assert_eq!(story.packet(&after, NOW + Duration::from_secs(silent)), (link, None));
    }
}

#[test]
fn rules_without_stickiness_follow_at_once() {
    let policy = || {
        let (head, says) = prefer(0, &[1, 2], FailbackMode::Never, &[]);
        let sticky = Sticky { scope: Scope::None, ..says.sticky };
        Effective::new([(head, Says { sticky, ..says })])
    };
    let mut lost = measured(uplinks());
    lost[0].usable = false;
    let mut story = Story::new(lost, policy());
    let after = story.after(measured(uplinks()), policy().into(), NOW);
    assert_eq!(story.packet(&after, NOW + MS), (1, Some(MoveReason::Failback)));
}

#[test]
fn copies_and_ways_past_the_tunnel_are_decided_and_remembered() {
    let copies = Outcome::Copies { links: vec![bid(1), bid(2), bid(3)], copies: 2 };
    let both = Effective::new([rule(0, Vec::new(), copies, Otherwise::NextRule)]);
    let snapshot = mobile_with(registration(uplinks(), both.into()));
    let flow = key(HOME, PEER, 17, Some((9, 53)));
    let decision = decide(&snapshot, &flow, NOW, Memory::default());
    let Decision::Replicate(each) = &decision else { panic!("{decision:?}") };
    let bids: Vec<_> = each.routes().map(|route| route.binding.bid.unwrap().get()).collect();
    assert_eq!(bids, [1, 2]);
    let kept = decision.answer(&flow, Memory::default()).unwrap();
    assert_eq!((kept.bid, kept.way), (Some(bid(1)), Way::Copies));

    for translate in [false, true] {
        let out = Outcome::Breakout { links: vec![bid(2)], translate };
        let policy = Effective::new([rule(0, Vec::new(), out, Otherwise::NextRule)]);
        let mut bindings = uplinks();
        // Outside the tunnel nobody needs to be registered.
        bindings[1].usable = false;
        let snapshot = mobile_with(registration(bindings, policy.into()));
        let decision = decide(&snapshot, &flow, NOW, Memory::default());
        match (translate, &decision) {
            (true, Decision::Breakout(out)) => {
                assert_eq!((out.binding.bid, out.translate), (Some(bid(2)), true));
                let kept = decision.answer(&flow, Memory::default()).unwrap();
                assert_eq!(kept.way, Way::Breakout { translate: true });
            }
            (false, Decision::Drop(reason)) => {
                assert_eq!(*reason, mtun_dataplane::DropReason::Untranslated);
            }
            _ => panic!("{translate}: {decision:?}"),
        }
    }
}

#[test]
fn a_translated_flow_stays_while_its_link_is_attached() {
    let out = Outcome::Breakout { links: vec![bid(1), bid(2)], translate: true };
    let (head, says) = rule(0, Vec::new(), out, Otherwise::NextRule);
    let sticky = Sticky::default();
    let policy = Effective::new([(head, Says { sticky, ..says })]);
    let mut lost = uplinks();
    lost[0].attached = false;
    let mut story = Story::new(lost, policy.clone());
    assert_eq!(story.link(), 2);
    let after = story.after(uplinks(), policy.clone().into(), NOW);
    assert_eq!(story.packet(&after, NOW + 5000 * MS), (2, None), "its address would change");
    let mut gone = uplinks();
    gone[1].attached = false;
    let after = story.after(gone, policy.into(), NOW);
    assert_eq!(story.packet(&after, NOW + 6000 * MS), (1, Some(MoveReason::LinkDown)));
}

#[test]
fn the_version_of_the_rules_is_the_files() {
    let policy = Effective::new([prefer(0, &[1, 2], FailbackMode::Gap, &[])]);
    let table = mobile_with(registration(uplinks(), policy.clone().into())).updates;
    let held = |table: &mtun_dataplane::BindingTable| {
        let held = table.get(HomeAddress(v6(HOME))).unwrap();
        (held.rules, held.generation)
    };
    let (rules, generation) = held(&table);
    let says = saying(&policy, vec![prefer(0, &[2], FailbackMode::Gap, &[]).1]);
    let next = table.with(registration(uplinks(), says));
    assert_eq!(held(&next).0, rules, "the same rules say something else");
    assert!(held(&next).1 > generation);
    let other = Effective { table: RuleTable::default().into(), ..Effective::default() };
    assert_ne!(held(&next.with(registration(uplinks(), other.into()))).0, rules);
}
