//! Diagnostics of roles, route optimization and the way home, as people see them.
//!
//! A case is one change to a policy that is in order; the snapshot shows all faults it causes.

#[path = "support/judged.rs"]
mod judged;

use judged::{judged, seen};

/// A mobile node that is a correspondent too, without a fault.
const NODE: &str = r#"/- kdl-version 2
role "mobile-node"
interface "wlan0" { bid 1; }
interface "wwan0" { bid 2; }
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::43/64"
    register lifetime="420s"
    security "sa"
    route-optimization traffic lifetime="7m" correspondents=64
    returning-home both
}
correspondent {
    address "2001:db8:100::43"
    lifetime "6m"
    multiple-coa #true
    mobiles 64
    bindings 4
}
security "sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-file="acme.key"
}
rules home=acme {
    rule "ssh" { match proto=tcp dport=22; prefer wwan0 wlan0; optimize always; }
    rule "bank" { match dst="2001:db8:b::/48"; prefer wlan0 wwan0; optimize never; }
    rule "telnet" { match proto=tcp dport=23; block; }
    default { prefer wlan0 wwan0; }
}
"#;

/// A node that is nothing but a correspondent.
const SERVER: &str = r#"role "correspondent"
correspondent {
    tunnel mtun0
    address "2001:db8:9::1" "2001:db8:9::2"
}
"#;

/// A home agent that is a correspondent too.
const AGENT: &str = r#"role "home-agent"
home "acme" {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1"
    allow "2001:db8:100::43" { security "sa"; }
}
correspondent
security "sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-file="acme.key"
}
"#;

#[test]
fn the_bases_are_in_order() {
    for base in [NODE, SERVER, AGENT] {
        let policy = judged(base).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(policy.warnings, []);
    }
}

#[test]
fn words_of_route_optimization() {
    insta::assert_snapshot!(seen(
        NODE,
        &[
            ("optimization traffic", "optimization"),
            ("optimization traffic", "optimization trafic"),
            ("optimization traffic", "optimization on"),
            ("route-optimization traffic", "route-optimisation traffic"),
            (
                "optimization traffic lifetime=\"7m\" correspondents=64",
                "optimization traffic corespondents=4"
            ),
            ("correspondents=64", "correspondents=0"),
            ("lifetime=\"7m\"", "lifetime=\"8m\""),
            ("lifetime=\"7m\"", "lifetime=420"),
            ("lifetime=\"7m\"", "lifetime=\"7s\""),
            ("optimization traffic", "optimization off"),
            ("returning-home both", "returning-home both\n    route-optimization policy"),
            ("optimize always", "optimize often"),
            ("optimize always", "optimize #true"),
            ("optimize always", "optimize"),
            ("optimize always", "optimize always; optimize never"),
            ("dport=22", "dport=22 optimize=always"),
            ("block;", "block; optimize never;"),
            ("block;", "breakout wlan0 translate=#true; optimize always;"),
        ]
    ));
}

/// Without it the rule's word has nothing to stand on; with `off` it waits, and a start says so.
#[test]
fn routes_that_are_never_optimized() {
    let written = "    route-optimization traffic lifetime=\"7m\" correspondents=64\n";
    insta::assert_snapshot!(seen(NODE, &[(written, "")]));
    let cases = [
        (written, "    route-optimization off\n"),
        ("proto=tcp dport=22", "proto=tcp src=\"2001:db8:100:4200::/64\""),
        ("optimize always; }\n", "}\n    // traffic => policy\n"),
    ];
    let warned = cases.map(|(from, to)| {
        assert!(NODE.contains(from), "{from}");
        let mut text = NODE.replacen(from, to, 1);
        if to.contains("=> policy") {
            text = text.replacen("optimization traffic", "optimization policy", 1);
        }
        let policy = judged(&text).unwrap_or_else(|faults| panic!("{faults}"));
        let [warning] = policy.warnings.as_slice() else { panic!("{:?}", policy.warnings) };
        warning.to_string()
    });
    insta::assert_snapshot!(warned.join("\n"));
}

#[test]
fn what_tests_expect_of_routes() {
    let test = "test \"t\" {\n    flow src=\"2001:db8:100::43\" dst=\"2001:db8:c::9\" proto=tcp dport=22\n    expect via=wwan0 optimized=#true\n}\n";
    let base = format!("{NODE}{test}");
    let said = "via=wwan0 optimized=#true";
    insta::assert_snapshot!(seen(
        &base,
        &[
            (said, "via=wwan0 optimized=#false"),
            (said, "via=wwan0 optimized=yes"),
            (said, "via=wwan0 optimised=#true"),
            (said, "blocked optimized=#false"),
            (said, "breakout via=wwan0 optimized=#true"),
            ("optimize always; }", "optimize never; }"),
        ]
    ));
}

#[test]
fn the_way_home() {
    insta::assert_snapshot!(seen(
        NODE,
        &[
            ("returning-home both", "returning-home"),
            ("returning-home both", "returning-home foriegn"),
            ("returning-home both", "returning-home home\n    returning-home both"),
            ("lifetime=\"420s\"", "multiple-coa=#false"),
        ]
    ));
}

#[test]
fn words_of_a_correspondent() {
    insta::assert_snapshot!(seen(
        NODE,
        &[
            ("correspondent {", "correspondent of {"),
            ("correspondent {", "correspondent off {"),
            ("correspondent {", "correspondent answer=silent {"),
            ("correspondent {", "correspondent off answer=quiet\ncorrespondent {"),
            ("lifetime \"6m\"", "lifetime \"1h\""),
            ("lifetime \"6m\"", "lifetme \"6m\""),
            ("multiple-coa #true", "multiple-coa yes"),
            ("mobiles 64", "mobiles 0"),
            ("bindings 4", "bindings 4096"),
            ("address \"2001:db8:100::43\"", "address \"2001:db8:100::43\" \"2001:db8:100::43\""),
            ("address \"2001:db8:100::43\"\n", "address \"fe80::1\"\n"),
            ("address \"2001:db8:100::43\"\n", "address \"2001:db8:100::44\"\n"),
            ("mobiles 64", "tunnel mtun1"),
            ("mobiles 64", "tunnel mtun0"),
        ]
    ));
}

#[test]
fn roles_together() {
    insta::assert_snapshot!(seen(
        NODE,
        &[
            ("role \"mobile-node\"", "role \"mobile-node\" \"mobile-router\""),
            ("role \"mobile-node\"", "role \"mobile-node\" \"correspondent\""),
            ("role \"mobile-node\"", "role \"mobile-node\" \"home-agent\""),
            ("mobile-node", "correspondent"),
            (
                "correspondent {",
                "home \"b\" { tunnel mtun1; serve \"2001:db8:200::/64\" agent=\"2001:db8:200::1\"; }\ncorrespondent {"
            ),
        ]
    ));
}

/// A router with two homes, without a fault; in the second it is a mobile node.
const TWICE: &str = r#"role "mobile-router"
interface "wlan0" { bid 1; }
home "a" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/56"
    security "sa"
}
home "b" {
    tunnel mtun1
    agent "2001:db8:200::1"
    address "2001:db8:200::42/64"
    security "sa"
}
correspondent
security "sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-file="acme.key"
}
rules home=a { default { prefer wlan0; }; }
rules home=b { default { prefer wlan0; }; }
"#;

/// An agent of two home links, without a fault.
const SERVED_TWICE: &str = r#"role "home-agent"
home "a" {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1"
    allow "2001:db8:100::43" { security "sa"; }
}
home "b" {
    tunnel mtun1
    serve "2001:db8:200::/64" agent="2001:db8:200::1"
    allow "2001:db8:200::43" { security "sa"; }
}
security "sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-file="acme.key"
}
"#;

/// What two homes on one node may not share.
#[test]
fn homes_that_get_in_each_others_way() {
    for base in [TWICE, SERVED_TWICE] {
        let policy = judged(base).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(policy.warnings, []);
    }
    let policy = judged(TWICE).unwrap_or_else(|faults| panic!("{faults}"));
    let correspondent = policy.correspondent.unwrap().addresses;
    assert_eq!(correspondent, policy.homes.iter().map(|home| home.address.0).collect::<Vec<_>>());
    insta::assert_snapshot!(seen(
        TWICE,
        &[
            ("tunnel mtun1", "tunnel mtun0"),
            ("tunnel mtun1", "tunnel wlan0"),
            ("address \"2001:db8:200::42/64\"", "address \"2001:db8:100::42/64\""),
            ("address \"2001:db8:200::42/64\"", "address \"2001:db8:100:4242::42/64\""),
            (
                "address \"2001:db8:200::42/64\"",
                "address \"2001:db8:200::42/64\"\n    mobile-network \"2001:db8:100:4210::/64\"",
            ),
            (
                "interface \"wlan0\" { bid 1; }",
                "interface \"wlan0\" { bid 1; }; interface \"wwan0\" { bid 1; }"
            ),
        ]
    ));
    insta::assert_snapshot!(seen(
        SERVED_TWICE,
        &[
            ("tunnel mtun1", "tunnel mtun0"),
            (
                "\"2001:db8:200::/64\" agent=\"2001:db8:200::1\"",
                "\"2001:db8::/32\" agent=\"2001:db8:200::1\""
            ),
            (
                "\"2001:db8:200::/64\" agent=\"2001:db8:200::1\"",
                "\"2001:db8:100::/64\" agent=\"2001:db8:100::1\""
            ),
        ]
    ));
}

#[test]
fn a_correspondent_alone() {
    insta::assert_snapshot!(seen(
        SERVER,
        &[
            ("    tunnel mtun0\n", ""),
            ("    address \"2001:db8:9::1\" \"2001:db8:9::2\"\n", ""),
            ("correspondent {", "correspondent off {"),
            ("role \"correspondent\"", "role \"correspondnet\""),
            ("role \"correspondent\"\n", ""),
            ("correspondent {", "interface \"mtun0\" { bid 1; }\ncorrespondent {"),
        ]
    ));
    insta::assert_snapshot!(seen("role \"correspondent\"\n", &[("\n", "\ncorrespondent off\n")]));
}

#[test]
fn an_agent_that_is_a_correspondent() {
    insta::assert_snapshot!(seen(
        AGENT,
        &[
            ("\ncorrespondent\n", "\ncorrespondent { address \"2001:db8:100::43\"; }\n"),
            ("    allow", "    route-optimization traffic\n    returning-home both\n    allow"),
            (
                "\ncorrespondent\n",
                "\nhome \"b\" { tunnel mtun1; agent \"2001:db8:200::1\"; address \"2001:db8:200::2/64\"; security \"sa\"; }\n"
            ),
        ]
    ));
}
