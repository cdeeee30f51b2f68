//! Rules and the flow bindings they become, side by side.

use std::fmt::Write as _;

use mtun_policy::downlink::{DownlinkTarget, MOST_FLOWS, Plan, plan};
use mtun_policy::steering::{Given, suppose};
use mtun_policy::{AddressRange, FlowBinding, NoFiles, Policy, parse, parse_given};

const FILE: &str = r#"
role "mobile-router"
interface wlan0 { bid 1; priority 10; rate "50Mbit/s"; }
interface wwan0 { bid 2; priority 20; }
interface wwan1 { bid 3; priority 30; }
set cdn file="cdn.txt"
home acme {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/56"
    security none
}
rules {
RULES
    default { prefer wlan0 wwan0 wwan1; }
}
"#;

fn policy(rules: &str) -> Policy {
    let files: std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> =
        [("cdn.txt".into(), b"2001:db8:c::/48\n2001:db8:d::/48\n".to_vec())].into();
    let _ = NoFiles;
    let text = FILE.replace("RULES", &rules.replace("} rule", "}\nrule"));
    parse("test.kdl", &text, &files).unwrap_or_else(|faults| panic!("{faults}"))
}

fn one(flow: &FlowBinding) -> String {
    let selector = &flow.selector;
    let mut text = format!("fid {} pri {}", flow.id, flow.priority);
    let address = |range: &AddressRange| match range {
        AddressRange::V4(range) => format!("{}-{}", range.start(), range.end()),
        AddressRange::V6(range) => format!("{}-{}", range.start(), range.end()),
    };
    let mut field = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, " {word} {value}");
        }
    };
    field("from", selector.source.as_ref().map(address));
    field("to", selector.destination.as_ref().map(address));
    field("proto", selector.protocol.as_ref().map(|range| format!("{range:?}")));
    field("sport", selector.source_port.as_ref().map(|range| format!("{range:?}")));
    field("dport", selector.destination_port.as_ref().map(|range| format!("{range:?}")));
    field("dscp", selector.dscp.as_ref().map(|range| format!("{range:?}")));
    let bids: Vec<String> = flow.bids.iter().map(ToString::to_string).collect();
    let _ = write!(text, " -> {}", bids.join("+"));
    text
}

fn shown(plan: &Plan) -> String {
    let mut text: String = plan.bindings.iter().map(|flow| one(flow) + "\n").collect();
    for rule in &plan.rules {
        let ids: Vec<String> = rule.entries.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{} [{}] {:?}", rule.name, ids.join(" "), rule.says);
    }
    text
}

fn planned(rules: &str, given: &str, change: impl Fn(&mut DownlinkTarget), budget: u16) -> String {
    let policy = policy(rules);
    let home = &policy.homes[0];
    let given = match given {
        "" => Given::default(),
        given => parse_given(given, &policy).unwrap(),
    };
    let bids = policy.interfaces.iter().filter_map(|link| link.bid);
    let mut target = DownlinkTarget::new(&policy, home, bids);
    change(&mut target);
    shown(&plan(&suppose(&policy, home, &given).effective, &target, budget, None))
}

#[test]
fn what_rules_become() {
    let cases: &[(&str, &str)] = &[
        (
            "a list of links, the last of which needs no word",
            "rule ssh { match proto=tcp dport=22; prefer wwan0 wwan1 wlan0; }",
        ),
        (
            "what the default says anyway",
            "rule web { match proto=tcp dport=80; prefer wlan0 wwan0; }",
        ),
        (
            "values that touch are one range",
            "rule r { match proto=\"tcp,udp\" dport=\"80,81,90\" dst=\"2001:db8:a::/64,2001:db8:a:1::/64,2001:db8:b::/64\"; prefer wwan0 wlan0; }",
        ),
        (
            "our own addresses are left out if they are all of ours",
            "rule r { match src=\"2001:db8:100::/40\"; prefer wwan0 wlan0; }",
        ),
        (
            "a part of ours",
            "rule r { match src=\"2001:db8:100:4210::/60\" sport=\"1000-2000\" dscp=\"af11,af12,ef\" proto=udp; prefer wwan0 wlan0; }",
        ),
        ("not ours at all", "rule r { match src=\"2001:db8:bad::/48\"; prefer wwan0; }"),
        ("copies", "rule r { match proto=udp dport=4000; duplicate wwan0 wwan1 copies=2; }"),
        (
            "a balance is cut by the mobile's ports",
            "rule r { match proto=tcp dport=443; balance wwan0=3 wwan1=1; }",
        ),
        (
            "a balance of pairs is not cut",
            "rule r { match proto=tcp dport=443; balance wwan0=3 wwan1=1; sticky pair; }",
        ),
        (
            "exclude is cut out where that is shorter",
            "rule r { match proto=tcp dport=\"8000-8099\"; exclude dport=8050; prefer wwan0 wlan0; }",
        ),
        (
            "or stands before the rule",
            "rule r { match proto=tcp; exclude dport=8050; prefer wwan0 wlan0; }",
        ),
        (
            "refusing is not told",
            "rule a { match proto=tcp dport=25; block; } rule b { match proto=tcp; prefer wwan0 wlan0; }",
        ),
        (
            "pinning is told as long as it holds",
            "rule r { match proto=tcp dport=22; prefer wwan0; otherwise block; }",
        ),
        (
            "a set is not told",
            "rule r { match dst=@cdn; match proto=tcp dport=80; prefer wwan0 wlan0; }",
        ),
        (
            "neighbours are one",
            "rule a { match proto=tcp dport=22; prefer wwan0 wlan0; } rule b { match proto=tcp dport=23; prefer wwan0 wlan0; }",
        ),
        (
            "what an earlier rule says for more",
            "rule a { match proto=tcp; prefer wwan0 wlan0; } rule b { match proto=tcp dport=23; when speed=\">5km/h\"; prefer wwan1; }",
        ),
    ];
    let mut text = String::new();
    for (what, rules) in cases {
        let _ = writeln!(text, "## {what}\n{rules}\n{}", planned(rules, "", |_| (), MOST_FLOWS));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn links_come_and_go() {
    let rules = "rule ssh { match proto=tcp dport=22; prefer wwan0 wwan1; } rule web { match proto=tcp dport=443; balance wlan0=2 wwan0=1 wwan1=1; }";
    let mut text = String::new();
    for given in ["", "wwan0=down", "wlan0=down", "wwan0=down wwan1=down"] {
        let _ = writeln!(text, "## {given}\n{}", planned(rules, given, |_| (), MOST_FLOWS));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn other_mobiles() {
    let rules = "rule far { match dst=\"198.51.100.0/24,2001:db8:f::/48\" proto=tcp; prefer wwan0; } rule ssh { match proto=tcp dport=22; prefer wwan1 wlan0; }";
    let mut text = String::new();
    let mut add = |what: &str, change: &dyn Fn(&mut DownlinkTarget), budget| {
        let _ = writeln!(text, "## {what}\n{}", planned(rules, "", change, budget));
    };
    add("with IPv4", &|it| it.ipv4 = vec!["192.0.2.7/32".parse().unwrap()], MOST_FLOWS);
    add("one link", &|it| it.bids.truncate(1), MOST_FLOWS);
    add(
        "all links of one priority",
        &|it| it.bids.iter_mut().for_each(|bid| bid.1 = 7),
        MOST_FLOWS,
    );
    add("reflecting", &|it| it.reflect = true, MOST_FLOWS);
    add("room for one", &|_| (), 1);
    add("no room", &|_| (), 0);
    insta::assert_snapshot!(text);
}
