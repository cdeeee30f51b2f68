//! Explanations of the examples, and the filter grammar.
#![cfg(feature = "disk")]

use std::path::Path;

use mtun_policy::{
    Bid, Filter, Given, Ingresses, NoFiles, Origin, Policy, RuleName, explain_offline, filter_text,
    load, parse, parse_filter, parse_flow, parse_given, parse_question,
};

fn example(name: &str) -> Policy {
    // Named relative to the package, so that places in snapshots are the same everywhere.
    load(&Path::new("../examples").join(name)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn explained(policy: &Policy, question: &str) -> String {
    let (key, given) = parse_question(question, policy).unwrap_or_else(|fault| panic!("{fault}"));
    let (home, origin) = policy.judge_of(&key).expect("a home's rules judge the flow");
    explain_offline(policy, home, &key, origin, &given).to_string()
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
    let explanation = explain_offline(&policy, home, &key, Origin::Home, &Given::default());
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

fn bid(number: u16) -> Bid {
    Bid::new(number).unwrap()
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
            "tcp src 2001:db8::5 sport 40000 dst 2001:db8:c::9 dport 22",
            "tcp [2001:db8::5]:40000 -> [2001:db8:c::9]:22",
            "tcp [2001:db8::5]:40000->[2001:db8:c::9]:22",
            "tcp [2001:db8::5]:40000 -> 2001:db8:c::9 dport 22",
        ],
        [
            "src 192.0.2.7 dst 192.0.2.9 dport 80-90",
            "192.0.2.7 -> 192.0.2.9:80-90",
            "192.0.2.7/32 -> 192.0.2.9 dport 80-90",
            "dport 80-90 dst 192.0.2.9 src 192.0.2.7",
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
    assert_eq!(read("via wwan0").via, [bid(2)]);
    assert_eq!(read("via 7,wlan0").via, [bid(7), bid(1)]);
    assert_eq!(read("rule ssh,bulk").rule, [RuleName::new("ssh"), RuleName::new("bulk")]);
    assert_eq!(read("rule steer-3").rule, [RuleName::new("steer-3")]);
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
        "tcp [2001:db8::5]:22",
        "[2001:db8::5]:22 -> [2001:db8::x]:22",
        "[2001:db8::5]:22 -> [2001:db8::7]:70000",
        "dport 22 and any -> [2001:db8::7]:22",
        "via wlan1",
        "via 0",
        "rule shh",
        "in lan7",
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

/// A bus with everything that an explanation may have to say.
const BUS: &str = r#"
role "mobile-router"
interface "wlan0" { bid 1; priority 20; usable { rtt enter="150ms" leave="400ms" } }
interface "wwan0" { bid 2; priority 10; metered #true; cost 4.50 currency=EUR per="1GB"; quota "20GB" per=month; rate "50Mbit/s" }
interface "wwan1" { bid 3; priority 11; metered #true; cost 9 currency=EUR per="1GB"; rate "50Mbit/s" }
group "cellular" { interface wwan0 wwan1 }
group "web" { port 80 443 }
group "depot" { prefix "2001:db8:100:1::/64" }
group "doors" { interface br-guest }
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/56" on=br-lan
    also from=br-guest
    security none
}
sla "voice" rtt="100ms"
rules {
    rule "signalling" { match proto=udp dport=5060; prefer wwan0 wlan0; sticky pair for="10m"; together "voip"; failback new after="30s" }
    rule "voice" { match dscp=ef; cheapest wlan0 wwan0 wwan1 sla=voice; sticky pair for="10m"; together "voip" }
    rule "alarm" { match proto=udp dport=7000; duplicate wlan0 wwan0 wwan1 copies=2 cap="200MB" }
    rule "upload" {
        match proto=tcp dst=@depot
        when speed="<5km/h"
        when time="22:00-05:00" days="mon-fri"
        prefer wlan0
        otherwise block reply=icmp
    }
    rule "web" { match proto=tcp dport=@web; exclude dst=@depot; balance wlan0=3 wwan0=1 }
    rule "video" { match proto=udp dport=9000; overflow wwan0 wlan0 full="85%" }
    rule "app" { match uid=1001; fastest wlan0 wwan0 margin="15%"; failback never }
    rule "guests" { match in=br-guest; breakout wlan0; otherwise block reply=icmp }
    default { prefer wlan0 @cellular; otherwise any }
}
"#;

#[test]
fn every_reason_is_told() {
    let policy = parse("bus.kdl", BUS, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    let from = "2001:db8:100:4200::10 ->";
    let to = "2001:db8:c::9";
    let questions = [
        format!("udp {from} {to} dport 5060"),
        format!("udp {from} {to} dport 5060 given wwan0=over-quota"),
        format!("udp {from} {to} dport 4000 dscp ef given wlan0.rtt=200ms"),
        format!("udp {from} {to} dport 7000 given wlan0=down"),
        format!("tcp {from} 2001:db8:100:1::1 dport 873 given speed=90km/h time=23:10 day=sat"),
        format!("tcp {from} 2001:db8:100:1::1 dport 873 given speed=3km/h wlan0=down"),
        format!("tcp {from} 2001:db8:100:1::1 dport 873"),
        format!("tcp {from} {to} dport 443"),
        format!("tcp {from} 2001:db8:100:1::1 dport 443 given speed=3km/h"),
        format!("udp {from} {to} dport 9000 given wwan0.load=90%"),
        format!(
            "tcp 2001:db8:100::42 -> {to} dport 9 uid 1001 given wlan0.rtt=80ms wwan0.rtt=30ms"
        ),
        "tcp 192.0.2.7 -> 192.0.2.9 dport 443 in br-guest".to_owned(),
        "tcp 192.0.2.7 -> 192.0.2.9 dport 25 in br-guest given wlan0=down".to_owned(),
        format!("udp {from} {to} dport 9 given wlan0=recovering wwan0=held wwan1=drained"),
        format!("udp {from} {to} dport 9 given wlan0.rtt=500ms wwan0=down wwan1=down"),
        format!("udp {from} {to} dport 9 given wlan0=down wwan0=down wwan1=down"),
    ];
    let text: Vec<String> = questions
        .iter()
        .map(|question| format!("$ {question}\n{}\n", explained(&policy, question)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn of_many_rules_those_that_nearly_matched_are_listed() {
    let rule = |n: u16| {
        let port = 1000 + n;
        format!(
            "rule r{n} {{ match proto=tcp dst=\"2001:db8:{n:x}::/48\" dport={port}; prefer wlan0 }}\n"
        )
    };
    let rules: String = (0..40).map(rule).collect();
    let head = &BUS[..BUS.find("rules {").unwrap()];
    let text = format!("{head} rules {{ {rules} default {{ prefer wlan0 }} }}");
    let policy = parse("bus.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    let question = "tcp 2001:db8:100::42 -> 2001:db8:7::1 dport 1009";
    let (key, given) = parse_question(question, &policy).unwrap();
    let home = policy.home_of(key.source).unwrap();
    let explanation = explain_offline(&policy, home, &key, Origin::Home, &given);
    let listed: Vec<_> = explanation.rules.iter().map(|rule| rule.name.as_str()).collect();
    // The destination of the one, the port of the other.
    assert_eq!(listed, ["r7", "r9", "default"]);
    assert_eq!((explanation.passed_over, explanation.not_asked), (38, 0));
    assert!(explanation.to_string().contains("38 earlier ones are about other packets"));
}

#[test]
fn filters_know_every_field_and_group_of_match() {
    let policy = parse("bus.kdl", BUS, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    let read =
        |text: &str| parse_filter(text, Some(&policy)).unwrap_or_else(|fault| panic!("{fault}"));
    // What a filter says, and the `match` line that says the same.
    let cases = [
        ("tcp dport @web", "proto=tcp dport=@web"),
        ("dst @depot,2001:db8::/32", "dst=\"@depot,2001:db8::/32\""),
        ("proto udp in @doors", "proto=udp in=@doors"),
        ("uid 1000-1999", "uid=\"1000-1999\""),
        ("proto esp spi 0x1001,7", "proto=esp spi=\"0x1001,7\""),
        ("flow-label 5", "flow-label=5"),
        ("icmp-type echo-request proto icmpv6", "proto=icmpv6 icmp-type=echo-request"),
        ("icmp-type echo-request proto icmp", "proto=icmp icmp-type=echo-request"),
        ("sport 1-9 and dscp ef,0", "proto=udp sport=\"1-9\" dscp=\"ef,0\""),
    ];
    for (filter, line) in cases {
        let found = read(filter).selector;
        let head = &BUS[..BUS.find("rules {").unwrap()];
        let rules = "match in=br-guest; prefer wlan0";
        let text = format!(
            "{head} rules {{ rule a {{ {rules} }} rule b {{ match {line}; prefer wlan0 }} default {{ prefer wlan0 }} }}",
        );
        let text = text.replace("} rule b", "}\nrule b").replace("} default", "}\ndefault");
        let other = parse("x.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
        let mut wanted = other.homes[0].rules.rules[1].head.selectors[0].clone();
        if filter.starts_with("sport") {
            // Without a protocol ports are allowed on the command line too.
            wanted.protocols.clear();
        }
        assert_eq!(found, wanted, "{filter}");
        let back = filter_text(&found, &policy.ingresses);
        assert_eq!(read(&back).selector, found, "{back}");
    }
    assert_eq!(read("via @cellular").via, [bid(2), bid(3)]);
}

#[test]
fn what_no_packet_has_is_refused_with_its_place() {
    let policy = parse("bus.kdl", BUS, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    let wrong = [
        "proto icmpv6 dport 22",
        "tcp spi 7",
        "icmp-type echo-request",
        "proto icmp,icmpv6 icmp-type 8",
        "uid 1000 in br-guest",
        "dport @depot",
        "dst @deopt",
        "via @web",
        "speed 90km/h",
        "flow-label 9999999",
    ];
    let questions = [
        "tcp 2001:db8:100::42 -> 2001:db8:c::9 given speed=90",
        "tcp 2001:db8:100::42 -> 2001:db8:c::9 given wlan0",
        "tcp 2001:db8:100::42 -> 2001:db8:c::9 given wlan9=down",
        "tcp 2001:db8:100::42 -> 2001:db8:c::9 given wlan0=up wlan0=down",
        "tcp 2001:db8:100::42 -> 2001:db8:c::9 uid 1-9",
    ];
    let filters = wrong.iter().map(|text| parse_filter(text, Some(&policy)).unwrap_err());
    let questions = questions.iter().map(|text| parse_question(text, &policy).unwrap_err());
    let text: Vec<String> = filters.chain(questions).map(|fault| fault.to_string()).collect();
    insta::assert_snapshot!(text.join("\n"));
}
