//! What another policy would change.

use std::time::Instant;

use mtun_policy::{
    Bid, FlowKey, FlowsDiff, Given, GivenState, LiveFlow, NoFiles, Origin, Policy, Way,
    diff_offline, diff_rules, parse, parse_flow,
};

const HEAD: &str = r#"
role "mobile-node"
interface "wlan0" { bid 1; }
interface "wwan0" { bid 2; }
home "acme" { tunnel mtun0; agent "2001:db8:100::1"; address "2001:db8:100::42/64"; security none; }
"#;

fn policy(rules: &str) -> Policy {
    let text = format!("{HEAD}\nrules {{\n{rules}\n}}\n");
    parse("x.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"))
}

fn key(policy: &Policy, port: u16) -> FlowKey {
    let flow = format!("tcp 2001:db8:100::42 -> 2001:db8:c::9 dport {port}");
    parse_flow(&flow, policy).unwrap()
}

fn bid(number: u16) -> Bid {
    Bid::new(number).unwrap()
}

fn diff(present: &Policy, other: &Policy, given: &Given, flows: Vec<LiveFlow>) -> FlowsDiff {
    diff_offline((present, &present.homes[0]), (other, &other.homes[0]), given, flows)
}

const PRESENT: &str = "rule ssh { match proto=tcp dport=22; prefer wwan0 wlan0; }
    rule mail { match proto=tcp dport=25; prefer wlan0 wwan0; }
    rule gone { match proto=tcp dport=23; prefer wlan0 wwan0; }
    default { prefer wlan0 wwan0; }";

const OTHER: &str = "rule web { match proto=tcp dport=443; prefer wwan0; }
    rule ssh { match proto=tcp dport=22; prefer wlan0; }
    rule mail { match proto=tcp dport=25; prefer wlan0 wwan0; }
    default { prefer wlan0 wwan0; }";

#[test]
fn rules_are_compared_by_name_and_meaning() {
    let (present, other) = (policy(PRESENT), policy(OTHER));
    let diff = diff_rules(&present.homes[0].rules, &other.homes[0].rules);
    let names = |policy: &Policy, ids: &[mtun_policy::RuleId]| -> Vec<String> {
        let rules = &policy.homes[0].rules;
        ids.iter().map(|id| rules.get(*id).unwrap().name().to_string()).collect()
    };
    assert_eq!(names(&other, &diff.added), ["web"]);
    assert_eq!(names(&other, &diff.changed), ["ssh"]);
    assert_eq!(names(&present, &diff.removed), ["gone"]);
    assert_eq!(diff.kept, 2);
    let same = diff_rules(&present.homes[0].rules, &present.homes[0].rules);
    assert_eq!((same.kept, same.added.len(), same.changed.len()), (4, 0, 0));
}

#[test]
fn flows_move_only_where_the_packet_path_would_move_them() {
    let (present, other) = (policy(PRESENT), policy(OTHER));
    let live = |port, way: Option<Way>, rate| LiveFlow {
        key: key(&present, port),
        origin: Origin::Home,
        rule: None,
        way,
        bytes_per_second: rate,
    };
    let on = |number| Some(Way::Tunnel(bid(number)));
    // (what, port, way, whether it moves and whereto)
    let cases = [
        ("a changed rule", 22, on(2), Some(Way::Tunnel(bid(1)))),
        ("a new rule in front", 443, on(1), Some(Way::Tunnel(bid(2)))),
        ("the same rule, the link still allowed", 25, on(2), None),
        ("the same rule, its first link", 25, on(1), None),
        ("its rule is gone, the way is the same", 23, on(1), None),
        ("a way that nobody told", 22, None, Some(Way::Tunnel(bid(1)))),
        ("no longer refused", 80, Some(Way::Unreachable), Some(Way::Tunnel(bid(1)))),
    ];
    for (what, port, way, want) in cases {
        let diff = diff(&present, &other, &Given::default(), vec![live(port, way, Some(7))]);
        let to = diff.moves.first().map(|moved| moved.to.clone());
        assert_eq!((diff.moving, to), (usize::from(want.is_some()), want), "{what}");
    }
    let other_rule = diff(&present, &other, &Given::default(), vec![live(23, on(1), None)]);
    assert_eq!((other_rule.flows, other_rule.other_rule), (1, 1));

    // With a link down both policies are judged so.
    let down = Given::default().with(bid(1), GivenState::Down);
    let diff = diff(&present, &other, &down, vec![live(22, None, None), live(25, on(2), None)]);
    assert_eq!((diff.moving, diff.other_rule), (0, 1), "{diff:?}");
}

#[test]
fn moves_are_summed_by_rule_and_way_the_largest_first() {
    let (present, other) = (policy(PRESENT), policy(OTHER));
    let flow = |port, source_port, rate| LiveFlow {
        key: FlowKey { source_port: Some(source_port), ..key(&present, port) },
        origin: Origin::Home,
        rule: None,
        way: None,
        bytes_per_second: rate,
    };
    let flows = vec![
        flow(22, 1, Some(10)),
        flow(443, 2, Some(500)),
        flow(22, 3, Some(30)),
        flow(22, 4, None),
    ];
    let diff = diff(&present, &other, &Given::default(), flows);
    assert_eq!((diff.flows, diff.moving, diff.moving_bytes_per_second), (4, 4, Some(540)));
    let names: Vec<_> = diff
        .moves
        .iter()
        .map(|moved| (moved.rule.as_ref().unwrap().as_str(), moved.flows, moved.bytes_per_second))
        .collect();
    assert_eq!(names, [("web", 1, Some(500)), ("ssh", 3, Some(40))]);
    assert_eq!(diff.moves[1].example.source_port, Some(3));
    assert_eq!(diff.moves[1].rule_before.as_ref().unwrap().as_str(), "ssh");
}

/// The time is measured by the benches; here only that it does not grow with rules times flows.
#[test]
fn many_flows_and_rules_are_compared_in_bounded_time() {
    let rules = |link| {
        let rule = |n: u16| {
            format!("rule r{n} {{ match proto=tcp dport={}; prefer {link}; }}\n", 1000 + n)
        };
        let rules: String = (0..1000).map(rule).collect();
        policy(&format!("{rules} default {{ prefer wlan0; }}"))
    };
    let (present, other) = (rules("wlan0"), rules("wwan0"));
    let template = key(&present, 22);
    let flows = (0..65_536_u32).map(|n| LiveFlow {
        key: FlowKey {
            destination_port: Some(1000 + (n % 1000) as u16),
            source_port: Some((n / 1000) as u16 + 1),
            ..template
        },
        origin: Origin::Home,
        rule: None,
        way: Some(Way::Tunnel(bid(1))),
        bytes_per_second: Some(1),
    });
    let flows: Vec<_> = flows.collect();
    let begun = Instant::now();
    let diff = diff(&present, &other, &Given::default(), flows);
    println!("65,536 flows at 1,000 rules: {:?}", begun.elapsed());
    assert_eq!((diff.moving, diff.moves.len()), (65_536, 1000));
}
