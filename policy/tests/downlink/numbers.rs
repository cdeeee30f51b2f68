//! FIDs over changes that happen on the road.

use mtun_policy::downlink::{Plan, plan};
use mtun_policy::{
    Effective, Otherwise, Outcome, RuleHead, RuleId, RuleName, Says, TrafficSelector,
};

use crate::random::Random;
use crate::worlds::{bid, target};

fn rules(of: &[(u16, Outcome)]) -> Effective {
    Effective::new(of.iter().zip(0..).map(|((port, outcome), place)| {
        let line = TrafficSelector {
            protocols: vec![6],
            destination_ports: vec![*port..=*port],
            ..TrafficSelector::default()
        };
        let head = RuleHead {
            id: RuleId(place),
            name: RuleName::new(format!("port {port}")),
            selectors: vec![line],
            exclude: Vec::new(),
            identity: 0,
            optimize: None,
        };
        (head, Says::plain(outcome.clone(), Otherwise::NextRule))
    }))
}

fn by(link: u16) -> Outcome {
    Outcome::Candidates(vec![bid(link)])
}

fn shown(plan: &Plan) -> Vec<(u16, u16, u16, u16)> {
    let one = |flow: &mtun_policy::FlowBinding| {
        let port = flow.selector.source_port.as_ref().map_or(0, |range| *range.start());
        (flow.id.get(), flow.priority.get(), port, flow.bids[0].get())
    };
    plan.bindings.iter().map(one).collect()
}

#[test]
fn numbers_of_a_day() {
    // 2 is preferred (priority 10), then 1 and 3 (20), then 4 (30).
    let mut target = target(&mut Random::new(1));
    target.bids = vec![(bid(1), 20), (bid(2), 10), (bid(3), 21)];
    let first = plan(&rules(&[(22, by(1)), (80, by(3)), (443, by(1))]), &target, 64, None);
    assert_eq!(shown(&first), [(1, 16, 22, 1), (2, 32, 80, 3), (3, 48, 443, 1)]);
    // A link goes: the same flow bindings with other BIDs.
    let second = plan(&rules(&[(22, by(3)), (80, by(3)), (443, by(3))]), &target, 64, Some(&first));
    assert_eq!(shown(&second), [(1, 16, 22, 3), (2, 32, 80, 3), (3, 48, 443, 3)]);
    // A rule comes between, and one goes.
    let third = plan(&rules(&[(22, by(1)), (53, by(1)), (443, by(1))]), &target, 64, Some(&second));
    assert_eq!(shown(&third), [(1, 16, 22, 1), (4, 33, 53, 1), (3, 48, 443, 1)]);
    // The preferred link needs no word, and what is said again has no old number of another.
    let fourth = plan(&rules(&[(22, by(2)), (80, by(1)), (443, by(1))]), &target, 64, Some(&third));
    assert_eq!(shown(&fourth), [(2, 24, 80, 1), (3, 48, 443, 1)]);
    // Another order is another place, not another flow binding.
    let fifth = plan(&rules(&[(443, by(1)), (80, by(3))]), &target, 64, Some(&fourth));
    assert_eq!(fifth.bindings.iter().map(|it| it.id.get()).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(fifth.rule(RuleId(1)).unwrap().entries[0].get(), 2);
}
