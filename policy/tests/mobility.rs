//! Which packets may go straight to correspondents, the way home, and what the node is to mobiles.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::steering::Fact;
use mtun_policy::{
    Bid, CorrespondentPlan, Given, Home, Optimize, Override, Policy, ReturningHome, Role,
    RouteOptimizationPlan, RouteOptimizationStart, RuleId, Steering, StrangerAnswer,
    TrafficSelector, Way, check_tests, diff_rules, explain_offline, parse, parse_question, suppose,
};

/// A policy with these words in its home, and behind the verbs of its three rules.
fn text(home: &str, words: [&str; 3]) -> String {
    let [ssh, web, rest] = words;
    format!(
        r#"role "mobile-router"
interface "wlan0" {{ bid 1; priority 20; }}
interface "wwan0" {{ bid 2; priority 10; }}
home "acme" {{
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/64"
    security none
    {home}
}}
rules {{
    rule "ssh" {{ match proto=tcp dport=22; prefer wwan0; {ssh} }}
    rule "web" {{ match proto=tcp dport=443; prefer wlan0; otherwise any; {web} }}
    default {{ prefer wlan0 wwan0; {rest} }}
}}
"#
    )
}

fn policy(home: &str, words: [&str; 3]) -> Policy {
    let text = text(home, words);
    parse("bus.kdl", &text, &mtun_policy::NoFiles).unwrap_or_else(|faults| panic!("{faults}"))
}

fn only_home(policy: &Policy) -> &Home {
    &policy.homes[0]
}

const STARTS: [&str; 3] =
    ["route-optimization off", "route-optimization traffic", "route-optimization policy"];
const WORDS: [&str; 3] = ["", "optimize never;", "optimize always;"];

/// Every start with every word at every rule: what may be optimized is what is written, and no
/// flow goes another way for it.
#[test]
fn what_may_be_optimized_is_what_is_written() {
    let ports = [22, 443, 80];
    let plain = policy("", ["", "", ""]);
    for start in 0..3 {
        for combination in 0..27 {
            let words = [combination % 3, combination / 3 % 3, combination / 9];
            let policy = policy(STARTS[start], words.map(|word| WORDS[word]));
            let home = only_home(&policy);
            let supposed = suppose(&policy, home, &Given::default());
            let before = suppose(&plain, only_home(&plain), &Given::default());
            for (place, port) in ports.into_iter().enumerate() {
                let question = format!("tcp 2001:db8:100::42 -> 2001:db8:c::9 dport {port}");
                let (key, _) = parse_question(&question, &policy).unwrap();
                let judge = |supposed: &mtun_policy::Supposed| {
                    let choice =
                        supposed.effective.choose(&key, Default::default(), supposed, None);
                    Way::of(&choice, supposed)
                };
                assert_eq!(judge(&supposed), judge(&before), "{question}");
                let rule = Some(RuleId(place as u16));
                let wanted = match (start, words[place]) {
                    (0, _) | (_, 1) | (2, 0) => Optimize::Never,
                    (1, 0) => Optimize::Allowed,
                    _ => Optimize::Always,
                };
                assert_eq!(home.optimize(&key, &supposed.effective, rule), wanted, "{question}");
                assert_eq!(supposed.effective.optimize(rule), wanted, "{question}");
            }
            let unmatched = [Optimize::Never, Optimize::Allowed, Optimize::Never][start];
            assert_eq!(supposed.effective.optimize(None), unmatched);
            assert_eq!(supposed.effective.optimize(Some(RuleId(99))), unmatched, "no such rule");
        }
    }
}

/// Only packets of the home address to somebody else go straight.
#[test]
fn only_the_home_address_has_correspondents() {
    let policy = policy("route-optimization traffic", ["optimize always;", "", ""]);
    let home = only_home(&policy);
    let supposed = suppose(&policy, home, &Given::default());
    let cases = [
        ("tcp 2001:db8:100::42 -> 2001:db8:c::9 dport 22", Optimize::Always),
        ("tcp 2001:db8:100::42 -> 2001:db8:c::9 dport 443", Optimize::Allowed),
        ("tcp 2001:db8:100:4200::7 -> 2001:db8:c::9 dport 22", Optimize::Never),
        ("tcp 2001:db8:100::42 -> 2001:db8:100::1 dport 22", Optimize::Never),
        ("tcp 2001:db8:100::42 -> 2001:db8:100:4200::7 dport 22", Optimize::Never),
        ("udp 2001:db8:100::42 -> ff0e::9 dport 443", Optimize::Never),
    ];
    for (question, wanted) in cases {
        let (key, _) = parse_question(question, &policy).unwrap();
        let choice = supposed.effective.choose(&key, Default::default(), &supposed, None);
        let mtun_policy::Choice::Use { rule, .. } = choice else { panic!("{choice:?}") };
        let rule = rule.map(|rule| rule.head.id);
        assert_eq!(home.optimize(&key, &supposed.effective, rule), wanted, "{question}");
    }
}

#[test]
fn the_words_become_plans() {
    let plan = |home: &str| only_home(&policy(home, ["", "", ""])).route_optimization;
    let usual = RouteOptimizationPlan {
        start: RouteOptimizationStart::Traffic,
        lifetime: Duration::from_secs(420),
        max_correspondents: 64,
    };
    assert_eq!(plan(""), None);
    assert_eq!(plan("route-optimization off"), None);
    assert_eq!(plan("route-optimization traffic"), Some(usual));
    assert_eq!(
        plan("route-optimization policy lifetime=\"40s\" correspondents=2"),
        Some(RouteOptimizationPlan {
            start: RouteOptimizationStart::Policy,
            lifetime: Duration::from_secs(40),
            max_correspondents: 2,
        })
    );
    let returning = |home: &str| only_home(&policy(home, ["", "", ""])).returning_home;
    assert_eq!(returning(""), ReturningHome::Home);
    assert_eq!(returning("returning-home home"), ReturningHome::Home);
    assert_eq!(returning("returning-home both"), ReturningHome::Both);
    assert_eq!(returning("returning-home foreign"), ReturningHome::Foreign);
}

#[test]
fn what_the_node_is_to_mobiles() {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let read = |text: &str| {
        parse("x.kdl", text, &mtun_policy::NoFiles).unwrap_or_else(|faults| panic!("{faults}"))
    };
    let usual = CorrespondentPlan {
        tunnel: None,
        addresses: vec![address("2001:db8:100::42")],
        max_lifetime: Duration::from_secs(420),
        multiple_coa: true,
        max_mobiles: 1024,
        max_bindings: 16,
    };
    let router = text("", ["", "", ""]);
    let beside = |node: &str| {
        let policy = read(&format!("{router}\n{node}\n"));
        (policy.correspondent, policy.strangers)
    };
    assert_eq!(beside(""), (None, StrangerAnswer::Silent));
    assert_eq!(beside("correspondent off"), (None, StrangerAnswer::Silent));
    let said = beside("correspondent off answer=parameter-problem");
    assert_eq!(said, (None, StrangerAnswer::ParameterProblem));
    for node in
        ["correspondent", "correspondent { }", "correspondent { address \"2001:db8:100::42\"; }"]
    {
        assert_eq!(beside(node).0.as_ref(), Some(&usual), "{node}");
    }
    let small =
        beside("correspondent { multiple-coa #false; mobiles 3; bindings 2; lifetime \"8s\"; }");
    let small = small.0.unwrap();
    assert_eq!((small.multiple_coa, small.max_mobiles, small.max_bindings), (false, 3, 2));
    assert_eq!(small.max_lifetime, Duration::from_secs(8));

    let server = read(
        "role correspondent\ncorrespondent { tunnel mtun7 mtu=1400; address \"2001:db8:9::1\" \"2001:db8:9::2\"; }\n",
    );
    assert_eq!(server.role, Role::Correspondent);
    assert!(server.homes.is_empty() && server.served.is_empty());
    let plan = server.correspondent.unwrap();
    assert_eq!(plan.addresses, [address("2001:db8:9::1"), address("2001:db8:9::2")]);
    let tunnel = plan.tunnel.unwrap();
    assert_eq!((tunnel.name.as_str(), tunnel.mtu), ("mtun7", Some(1400)));

    let agent = read(
        r#"role home-agent
home b { tunnel mtun0; serve "2001:db8:100::/64" agent="2001:db8:100::1"; allow "2001:db8:100::42" { security none; }; }
correspondent
"#,
    );
    assert_eq!(agent.correspondent.unwrap().addresses, [address("2001:db8:100::1")]);
}

/// A rule that only says `optimize` otherwise is another rule for people, and the same for its
/// flows: none of them moves.
#[test]
fn optimize_changes_a_rule_and_moves_no_flow() {
    let before = policy("route-optimization traffic", ["", "", ""]);
    let after = policy("route-optimization traffic", ["optimize never;", "", ""]);
    let (before, after) = (&only_home(&before).rules, &only_home(&after).rules);
    let diff = diff_rules(before, after);
    assert_eq!((diff.changed, diff.kept, diff.added.len()), (vec![RuleId(0)], 2, 0));
    assert_eq!(before.rules[0].head.identity, after.rules[0].head.identity);
    assert_ne!(before, after, "what is published must differ");
}

#[test]
fn another_policy_changes_what_may_be_optimized_at_once() {
    let first = policy("route-optimization traffic", ["", "", ""]);
    let mut steering = Steering::new(&first, only_home(&first), Duration::ZERO);
    let ssh = Some(RuleId(0));
    assert_eq!(steering.effective().optimize(ssh), Optimize::Allowed);
    let cases = [
        ("route-optimization traffic", "optimize never;", Optimize::Never),
        ("route-optimization policy", "optimize always;", Optimize::Always),
        ("route-optimization policy", "", Optimize::Never),
        ("route-optimization traffic", "", Optimize::Allowed),
        ("", "", Optimize::Never),
    ];
    for (seconds, (home, word, wanted)) in (1..).zip(cases) {
        let next = policy(home, [word, "", ""]);
        let before = steering.effective();
        steering.adopt(&next, only_home(&next), Duration::from_secs(seconds));
        assert_eq!(steering.effective().optimize(ssh), wanted, "{home} {word}");
        assert_ne!(*before, *steering.effective(), "{home} {word}");
    }
}

/// An override stands for rules that it does not know.
#[test]
fn an_override_never_takes_out_of_the_tunnel_what_a_rule_keeps_there() {
    let steered = |words| {
        let policy = policy("route-optimization traffic", words);
        let mut steering = Steering::new(&policy, only_home(&policy), Duration::ZERO);
        let id = RuleId(RuleId::OVERRIDES);
        let steer = Override {
            id,
            selector: TrafficSelector::default(),
            bid: Bid::new(1).unwrap(),
            until: Duration::from_secs(60),
            reason: None,
            text: "all".to_owned(),
        };
        steering.handle(Duration::ZERO, Fact::Steer(Box::new(steer)));
        steering.effective().optimize(Some(id))
    };
    assert_eq!(steered(["", "", ""]), Optimize::Allowed);
    assert_eq!(steered(["", "optimize never;", ""]), Optimize::Never);
    assert_eq!(steered(["optimize always;", "", ""]), Optimize::Allowed);
}

#[test]
fn a_files_own_tests_ask_for_it() {
    let run = |expect: &str, source: &str, port: u16| {
        let rules = text("route-optimization traffic", ["optimize always;", "optimize never;", ""]);
        let text = format!(
            "{rules}\ntest t {{ flow src=\"{source}\" dst=\"2001:db8:c::9\" proto=tcp dport={port}; expect {expect}; }}\n"
        );
        let policy = parse("bus.kdl", &text, &mtun_policy::NoFiles);
        let policy = policy.unwrap_or_else(|faults| panic!("{faults}"));
        check_tests(&policy).map_err(|faults| faults.0[0].message.clone())
    };
    let home = "2001:db8:100::42";
    assert_eq!(run("rule=ssh via=wwan0 optimized=#true", home, 22), Ok(()));
    assert_eq!(run("rule=web optimized=#false", home, 443), Ok(()));
    assert_eq!(run("optimized=#true", home, 80), Ok(()));
    assert_eq!(run("optimized=#false", "2001:db8:100:4200::7", 22), Ok(()));
    let failed = [
        run("optimized=#false", home, 22),
        run("rule=web via=wlan0 optimized=#true", home, 443),
        run("optimized=#true { given wwan0=down wlan0=down }", home, 80),
    ];
    let failed: Vec<String> = failed.map(Result::unwrap_err).to_vec();
    assert_eq!(
        failed,
        [
            "test \"t\" expects not optimized and gets rule `ssh`, via wwan0, optimized",
            "test \"t\" expects rule `web`, via wlan0, optimized and gets rule `web`, via wlan0, not optimized",
            "test \"t\" expects optimized and gets rule `default`, unreachable, not optimized",
        ]
    );
}

#[test]
fn explanations_say_whether_packets_go_straight() {
    let notes = |home: &str, words, question: &str| {
        let policy = policy(home, words);
        let (key, given) = parse_question(question, &policy).unwrap();
        let explanation =
            explain_offline(&policy, only_home(&policy), &key, Default::default(), &given);
        let straight = explanation.notes.iter().map(ToString::to_string);
        let straight: Vec<_> = straight
            .filter(|note| note.contains("straight") || note.contains("tunnel always"))
            .collect();
        straight.join("; ")
    };
    let ssh = "tcp 2001:db8:100::42 -> 2001:db8:c::9 dport 22";
    let traffic = "route-optimization traffic";
    let cases = [
        (notes("", ["", "", ""], ssh), ""),
        (
            notes(traffic, ["", "", ""], ssh),
            "may go straight to its correspondent by this link, if traffic is worth it",
        ),
        (
            notes(traffic, ["optimize always;", "", ""], ssh),
            "goes straight to its correspondent by this link, once that holds its binding",
        ),
        (
            notes(traffic, ["optimize never;", "", ""], ssh),
            "takes the tunnel always: the rule says so",
        ),
        (
            notes("route-optimization policy", ["", "optimize always;", ""], ssh),
            "takes the tunnel always: neither rule nor home starts route optimization",
        ),
        (
            notes(traffic, ["", "", ""], "tcp 2001:db8:100:4200::7 -> 2001:db8:c::9 dport 22"),
            "takes the tunnel always: only packets of the home address itself go straight",
        ),
        (notes(traffic, ["", "", ""], "tcp 2001:db8:100::42 -> 2001:db8:100::1 dport 22"), ""),
    ];
    for (said, wanted) in cases {
        assert_eq!(said, wanted);
    }
}
