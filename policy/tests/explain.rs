//! Explanations of the examples, and the filter grammar.

use std::path::Path;

use mtun_policy::{
    Bid, Filter, Ingresses, NoFiles, PathFacts, Policy, RuleName, explain_offline, filter_text,
    load, parse, parse_filter, parse_flow, parse_given, parse_question,
};

fn example(name: &str) -> Policy {
    // Named relative to the package, so that places in snapshots are the same everywhere.
    load(&Path::new("../examples").join(name)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn explained(policy: &Policy, question: &str) -> String {
    let (key, given) = parse_question(question, policy).unwrap_or_else(|fault| panic!("{fault}"));
    let home = policy.home_of(key.source).expect("the flow belongs to a home");
    explain_offline(policy, home, &key, &given).to_string()
}

#[test]
fn every_kind_of_verdict_is_explained() {
    let router = example("figure-11.kdl");
    let node = example("mobile-node.kdl");
    let questions = [
        (&router, "tcp 2001:db8:100:4200::10 -> 2001:db8:ffff::1 dport 22"),
        (&router, "tcp 2001:db8:100:4200::10 -> 2001:db8:ffff::1 dport 22 given wwan0=down"),
        (
            &router,
            "tcp 2001:db8:100:4200::10 -> 2001:db8:ffff::1 dport 22 given wwan0=down wlan0=down",
        ),
        (&router, "udp 2001:db8:100::42 -> 2001:db8:ffff::1 dport 9 given wlan0=drained"),
        (&router, "tcp 2001:db8:100::42 -> 2001:db8:ffff::1 dport 443 given wlan0=down"),
        (&node, "udp 2001:db8:100::43 -> 2001:db8:c::9 sport 4000 dport 4500 dscp ef"),
        (&node, "tcp 2001:db8:100::43 -> 2001:db8:a::1 dport 873 given wlan0=down"),
    ];
    let text: Vec<String> = questions
        .iter()
        .map(|(policy, question)| format!("$ {question}\n{}\n", explained(policy, question)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn an_explanation_is_a_document_too() {
    let policy = example("figure-11.kdl");
    let key = parse_flow("tcp 2001:db8:100::42 -> 2001:db8:ffff::1 dport 22", &policy).unwrap();
    let home = policy.home_of(key.source).unwrap();
    let explanation = explain_offline(&policy, home, &key, &PathFacts::new());
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["rule"], "ssh");
    assert_eq!(json["end"]["via"], "wwan0");
    assert_eq!(json["bids"][0], 2);
    assert_eq!(json["flow"]["ingress"], "local");
}

#[test]
fn an_exclude_line_is_explained() {
    let text = r#"
role "mobile-node"
interface "wlan0" { bid 1; }
home "acme" { tunnel mtun0; agent "2001:db8:100::1"; address "2001:db8:100::42/64"; security none; }
rules {
    rule "web" {
        match proto=tcp dport="80,443,8000-8099,9000,9001,9002"
        exclude dst="2001:db8:a::/48"
        prefer wlan0
    }
    default { block reply=none; }
}
"#;
    let policy = parse("web.kdl", text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    let questions = [
        "tcp 2001:db8:100::42 -> 2001:db8:a::1 dport 80",
        "tcp 2001:db8:100::42 -> 2001:db8:c::1 dport 81",
        "tcp 2001:db8:100::42 -> 2001:db8:c::1",
    ];
    let text: Vec<String> = questions
        .iter()
        .map(|question| format!("$ {question}\n{}\n", explained(&policy, question)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn one_grammar_for_filters() {
    let policy = example("figure-11.kdl");
    let read =
        |text: &str| parse_filter(text, Some(&policy)).unwrap_or_else(|fault| panic!("{fault}"));
    let same = [
        ["proto tcp and dport 22", "tcp dport 22", "dport=22 proto=tcp", "proto 6 dport 22"],
        [
            "src 2001:db8::5 dst 2001:db8:c::/48",
            "2001:db8::5 -> 2001:db8:c::/48",
            "2001:db8::5->2001:db8:c::/48",
            "dst = 2001:db8:c::/48 src = 2001:db8::5",
        ],
        [
            "dport 22,80-90",
            "any -> any dport 22,80-90",
            "* -> * and dport=22,80-90",
            "dport = 22,80-90",
        ],
    ];
    for [first, rest @ ..] in same {
        for other in rest {
            assert_eq!(read(first), read(other), "{other}");
        }
        let back = filter_text(&read(first).selector, &policy.ingresses);
        assert_eq!(read(&back), read(first), "{back}");
    }
    assert_eq!(read("via wwan0").via, Bid::new(2));
    assert_eq!(read("via 7").via, Bid::new(7));
    assert_eq!(read("rule ssh").rule, Some(RuleName::new("ssh")));
    assert_eq!(read("rule steer-3").rule, Some(RuleName::new("steer-3")));
    assert_eq!(read(""), Filter::default());
    assert_eq!(filter_text(&Filter::default().selector, &Ingresses::default()), "");
}

#[test]
fn a_filter_asks_for_packets_link_and_rule() {
    let policy = example("figure-11.kdl");
    let key = parse_flow("tcp 2001:db8:100::42 -> 2001:db8:ffff::1 dport 22", &policy).unwrap();
    let ssh = RuleName::new("ssh");
    let cases = [
        ("", true),
        ("dport 22 and via wwan0", true),
        ("dport 22 and via wlan0", false),
        ("udp", false),
        ("rule ssh", true),
        ("rule bulk", false),
        ("in local", true),
        ("in other", false),
    ];
    for (text, want) in cases {
        let filter = parse_filter(text, Some(&policy)).unwrap();
        assert_eq!(filter.matches(&key, Bid::new(2), Some(&ssh)), want, "{text}");
    }
}

#[test]
fn a_wrong_filter_says_where_and_what_instead() {
    let policy = example("figure-11.kdl");
    let filters = [
        "dprt 22",
        "dport",
        "dport 22 dport 23",
        "dport 99999",
        "tcp or udp",
        "2001:db8::5",
        "via wlan1",
        "via 0",
        "rule shh",
        "in lan7",
        "uid 1001",
        "dport @web",
        "and dport 22",
        "dport 22 and",
        "src 2001:db8::1/64",
        "2001:db8::1 ->",
        "dport 22 }",
        "dscp eff",
    ];
    let flows = [
        "tcp dport 22",
        "tcp 2001:db8:100::42 -> 2001:db8:c::/48",
        "2001:db8:100::42 -> 2001:db8:c::1",
        "tcp 2001:db8:100::42 -> 2001:db8:c::1 dport 1-2",
        "icmpv6 2001:db8:100::42 -> 2001:db8:c::1 dport 1",
        "tcp 2001:db8:100::42 -> 2001:db8:c::1 via wlan0",
        "tcp 2001:db8:100::42 -> 2001:db8:c::1 given wlan0=down",
    ];
    let givens = ["wlan0", "wlan0=dow", "wlan9=down", "wlan0="];
    let mut text = Vec::new();
    for filter in filters {
        text.push(parse_filter(filter, Some(&policy)).expect_err(filter).to_string());
    }
    for flow in flows {
        text.push(parse_flow(flow, &policy).expect_err(flow).to_string());
    }
    for given in givens {
        text.push(parse_given(given, &policy).expect_err(given).to_string());
    }
    text.push(parse_filter("via wlan0", None).unwrap_err().to_string());
    text.push(parse_filter(&"x".repeat(10_000), None).unwrap_err().to_string());
    insta::assert_snapshot!(text.join("\n\n"));
}
