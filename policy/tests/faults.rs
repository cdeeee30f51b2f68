//! Every diagnostic, as people see it.
//!
//! A case is one change to a policy that is in order; the snapshot shows all faults it causes.

#[path = "support/judged.rs"]
mod judged;

use std::collections::BTreeMap;
use std::path::PathBuf;

use judged::{faults, judged, seen};
use mtun_policy::{Code, parse};

/// A mobile router's policy without a fault.
const ROUTER: &str = r#"/- kdl-version 2
role "mobile-router"
interface "wlan0" { bid 1; priority 20; }
interface "wwan0" { bid 2; priority 10; metered #true; }
group "links" { interface wlan0 wwan0; }
group "web" { port 80 443; }
group "depot" { prefix "2001:db8:d::/48"; }
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/64" on=lan0
    register lifetime="420s"
    security "acme-sa"
}
security "acme-sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-file="acme.key"
}
rules home=acme {
    rule "ssh" {
        match proto=tcp dport=22
        prefer wwan0 wlan0
    }
    rule "web" {
        match proto=tcp dport=@web
        exclude dst=@depot
        prefer @links
        otherwise block reply=icmp
    }
    default { prefer wlan0; otherwise any; }
}
test "ssh" {
    flow src="2001:db8:100::42" dst="2001:db8:f::1" proto=tcp dport=22
    expect rule=ssh via=wwan0
}
"#;

/// A home agent's policy without a fault.
const AGENT: &str = r#"role "home-agent"
home "acme" {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1" on=home0 lifetime="1h"
    allow "2001:db8:100::42" name="bus-7" {
        mobile-network "2001:db8:100:4200::/56"
        security "acme-sa"
        bindings 16
    }
}
security "acme-sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-file="acme.key"
}
"#;

#[test]
fn the_bases_are_in_order() {
    for base in [ROUTER, AGENT] {
        let policy = judged(base).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(policy.warnings, []);
    }
}

#[test]
fn syntax() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("bid 1;", "bid (u8)1;"),
            ("bid 1;", "bid \"1;"),
            ("bid 1;", "bid 0x;"),
            ("bid 1;", "bid 1\\ 2;"),
            ("bid 1;", "bid \"\\q\";"),
            ("bid 1;", "bid #1;"),
            ("bid 1;", "bid #\"1;"),
            ("bid 1;", "bid \"\"\"1\"\"\";"),
            ("bid 1;", "bid;; 1;"),
            ("bid 1;", "bid 1 = 2;"),
            ("bid 1;", "bid a=;"),
            ("bid 1;", "bid a=\n;"),
            ("bid 1;", "bid 1\"2\";"),
            ("bid 1;", "1 bid;"),
            ("bid 1;", "bid [1];"),
            ("bid 1;", "bid / 1;"),
            ("bid 1;", "bid /* 1;"),
            ("bid 1;", "bid\u{a0}1;"),
            ("bid 1;", "bid \u{202e}1;"),
            ("bid 1;", "bid /-;"),
            ("bid 1;", "bid /- { x }"),
            ("\"wlan0\" {", "\"wlan0\"\n{"),
            ("bid 1;", "bid 1 } {"),
            ("bid 1;", "bid 1 } } a"),
            ("bid 1;", "bid 1 { a } b;"),
            ("dport=22", "dport=22 dst=2001:db8::/32"),
            ("role \"mobile-router\"", "role mobile-router\u{7}"),
            ("reply=icmp", "reply=icmp\r "),
        ]
    ));
}

#[test]
fn version_1_of_kdl_gets_one_message() {
    let cases = [
        ("metered #true", "metered true"),
        ("\"acme.key\"", "r\"acme.key\""),
        ("\"acme.key\"", "r#\"acme.key\"#"),
        ("/- kdl-version 2", "/- kdl-version 1"),
    ];
    for (from, to) in cases {
        assert_eq!(faults(ROUTER, from, to).0.len(), 1, "{to}");
    }
    insta::assert_snapshot!(seen(ROUTER, &cases));
}

#[test]
fn units() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("\"420s\"", "420"),
            ("\"420s\"", "\"420\""),
            ("\"420s\"", "420s"),
            ("\"420s\"", "\"420 parsecs\""),
            ("\"420s\"", "\"7w\""),
            ("\"420s\"", "\"\""),
            ("\"420s\"", "\"s\""),
        ]
    ));
}

#[test]
fn unknown_words() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("interface \"wlan0\"", "interfaec \"wlan0\""),
            ("priority 20", "prioritty 20"),
            ("bid 1;", "colour blue;"),
            ("dport=22", "dprt=22"),
            ("dport=22", "colour=22"),
            ("interface \"wlan0\" {", "interface \"wlan0\" bid=1 {"),
            ("register lifetime=\"420s\"", "register { lifetime \"420s\" }"),
            (
                "mobile-network \"2001:db8:100:4200::/64\" on=lan0",
                "mobile-network \"2001:db8:100:4200::/64\" { on lan0 }"
            ),
            ("prefer wwan0 wlan0", "preferr wwan0 wlan0"),
            ("test \"ssh\"", "tests \"ssh\""),
        ]
    ));
}

#[test]
fn unknown_names() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("prefer wwan0 wlan0", "prefer wwan1 wlan0"),
            ("prefer wwan0 wlan0", "prefer @link wlan0"),
            ("prefer wwan0 wlan0", "prefer @web wlan0"),
            ("interface wlan0 wwan0; }", "interface wlan0 eth7; }"),
            ("dport=@web", "dport=@wbe"),
            ("dport=@web", "dport=@depot"),
            ("dst=@depot", "dst=@nowhere"),
            ("security \"acme-sa\"\n}", "security \"acme\"\n}"),
            ("rules home=acme", "rules home=amce"),
            ("rule=ssh", "rule=shh"),
            ("via=wwan0", "via=wwan9"),
            ("via=wwan0", "via=wwan0 { given wlan9=down; }"),
            ("src=\"2001:db8:100::42\"", "src=\"2001:db8:200::42\""),
        ]
    ));
}

#[test]
fn duplicates() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("role \"mobile-router\"", "role \"mobile-router\"\nrole \"mobile-node\""),
            ("bid 2;", "bid 1;"),
            ("bid 1;", "bid 1; bid 3;"),
            ("interface \"wwan0\"", "interface \"wlan0\""),
            ("group \"web\"", "group \"links\""),
            ("dport=22", "dport=22 dport=23"),
            ("rule \"web\"", "rule \"ssh\""),
            ("prefer wwan0 wlan0", "prefer wwan0 wwan0"),
            ("mobile-network ", "mobile-network \"2001:db8:100:4200::/56\"\nmobile-network "),
            (
                "test \"ssh\"",
                "test \"ssh\" { flow src=\"2001:db8:100::42\" dst=\"::1\" proto=tcp; expect rule=web; }\ntest \"ssh\""
            ),
            ("default {", "default { prefer wwan0; }\n    default {"),
            ("rules home=acme {", "rules { default { block; } }\nrules home=acme {"),
        ]
    ));
}

#[test]
fn missing() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("role \"mobile-router\"", ""),
            ("role \"mobile-router\"", "role"),
            ("tunnel mtun0", ""),
            ("agent \"2001:db8:100::1\"", ""),
            ("address \"2001:db8:100::42/64\"", ""),
            ("address \"2001:db8:100::42/64\"", "address \"2001:db8:100::42\""),
            ("    security \"acme-sa\"\n", ""),
            ("auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"acme.key\"", ""),
            (
                "auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"acme.key\"",
                "auth-option spi=0x1001"
            ),
            ("match proto=tcp dport=22", ""),
            ("match proto=tcp dport=22", "match"),
            ("prefer wwan0 wlan0", ""),
            ("prefer wwan0 wlan0", "prefer"),
            ("otherwise any", "otherwise prefer"),
            ("expect rule=ssh via=wwan0", ""),
            ("expect rule=ssh via=wwan0", "expect"),
            ("flow src=\"2001:db8:100::42\" dst=\"2001:db8:f::1\" proto=tcp dport=22", ""),
            (
                "flow src=\"2001:db8:100::42\" dst=\"2001:db8:f::1\" proto=tcp dport=22",
                "flow dport=22"
            ),
            ("group \"web\" { port 80 443; }", "group \"web\" {}"),
            ("\"2001:db8:100:4200::/64\"", "\"2001:db8:100:4200::\""),
        ]
    ));
}

#[test]
fn ranges_and_kinds() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("bid 1;", "bid 0;"),
            ("bid 1;", "bid 65536;"),
            ("bid 1;", "bid one;"),
            ("bid 1;", "bid \"1\";"),
            ("bid 1;", "bid 1.5;"),
            ("bid 1;", "bid #null;"),
            ("priority 20", "priority 128"),
            ("metered #true", "metered yes"),
            ("metered #true", "metered 1"),
            ("\"420s\"", "\"421s\""),
            ("\"420s\"", "\"30d\""),
            ("spi=0x1001", "spi=255"),
            ("hmac-sha256", "hmac-sha512"),
            ("tunnel mtun0", "tunnel mtun0 mtu=1000"),
            ("tunnel mtun0", "tunnel a-very-long-interface-name"),
            ("tunnel mtun0", "tunnel \"mtun 0\""),
            ("tunnel mtun0", "tunnel mtun0 1400"),
            ("dport=22", "dport=70000"),
            ("dport=22", "dport=\"200-100\""),
            ("dport=22", "dport=\"22,ssh\""),
            ("proto=tcp dport=22", "proto=tpc"),
            ("proto=tcp dport=22", "proto=300"),
            ("proto=tcp dport=22", "dscp=64"),
            ("proto=tcp dport=22", "dscp=af44"),
            ("proto=tcp dport=22", "src=\"2001:db8::/129\""),
            ("proto=tcp dport=22", "src=\"acme.example\""),
            ("agent \"2001:db8:100::1\"", "agent \"fe80::1\""),
            ("agent \"2001:db8:100::1\"", "agent \"192.0.2.1\""),
            ("agent \"2001:db8:100::1\"", "agent \"2001:db8:100::1/64\""),
            ("/64\" on=lan0", "/0\" on=lan0"),
            ("mobile-router", "mobile-ruoter"),
            ("reply=icmp", "reply=icpm"),
            ("otherwise any", "otherwise nothing"),
            ("otherwise any", "otherwise any wwan0"),
            ("home \"acme\"", "home \"a c m e\""),
            ("expect rule=ssh", "expect dropped"),
            ("via=wwan0", "via=wwan0 { given wwan0=broken; }"),
            ("test \"ssh\"", "test \"\""),
            ("role \"mobile-router\"", "role \"mobile-router\"\npolicy \"x\" schema=2"),
        ]
    ));
}

#[test]
fn host_bits() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("2001:db8:100:4200::/64", "2001:db8:100:4200::1/64"),
            ("2001:db8:d::/48", "2001:db8:d:1::/48"),
            ("proto=tcp dport=22", "dst=\"2001:db8::1/32\""),
        ]
    ));
}

#[test]
fn contradictions() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("mobile-router", "mobile-node"),
            ("mobile-router", "home-agent"),
            ("tunnel mtun0", "tunnel wlan0"),
            ("agent \"2001:db8:100::1\"", "agent \"2001:db8:100::42\""),
            ("2001:db8:100:4200::/64", "2001:db8:100::/56"),
            ("prefer wwan0 wlan0", "prefer wwan0 wlan0\n        block"),
            ("prefer wwan0 wlan0", "block\n        otherwise any"),
            ("otherwise any", "otherwise any reply=icmp"),
            ("proto=tcp dport=22", "proto=icmpv6 dport=22"),
            ("proto=tcp dport=22\n    expect", "proto=esp dport=22\n    expect"),
            ("rule \"ssh\"", "rule \"default\""),
            ("register lifetime=\"420s\"", "register multiple-coa=#false bulk=#true"),
            ("port 80 443;", "port 80 443; interface wlan0;"),
            ("security \"acme-sa\" {", "security \"none\" {"),
            ("expect rule=ssh", "expect blocked"),
            ("tunnel mtun0", "tunnel mtun0\n    serve \"2001:db8:100::/64\""),
        ]
    ));
}

#[test]
fn shadowed_rules() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            (
                "rule \"ssh\" {",
                "rule \"tcp\" {\n        match proto=tcp\n        prefer wlan0\n        otherwise any\n    }\n    rule \"ssh\" {"
            ),
            (
                "rule \"ssh\" {",
                "rule \"low\" {\n        match dport=\"0-1023\"\n        match sport=1\n        block\n    }\n    rule \"ssh\" {"
            ),
            ("exclude dst=@depot", "exclude proto=\"tcp,udp\""),
            (
                "    default { prefer wlan0; otherwise any; }",
                "    default { prefer wlan0; otherwise any; }\n    rule \"late\" { match proto=udp; block; }"
            ),
        ]
    ));
}

#[test]
fn a_rule_that_an_earlier_one_mostly_hides_is_a_warning() {
    let text = ROUTER.replacen(
        "rule \"ssh\" {",
        "rule \"tcp\" {\n        match proto=tcp src=\"2001:db8::/32\"\n        match proto=tcp\n        prefer wlan0\n    }\n    rule \"ssh\" {",
        1,
    );
    let text = text
        .replace("    expect rule=ssh via=wwan0\n", "    expect rule=ssh { given wlan0=down; }\n");
    let policy = judged(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let shown: Vec<String> = policy.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn rules_without_default() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("    default { prefer wlan0; otherwise any; }\n", ""),
            ("rules home=acme {", "rules home=acme {}\nrules home=acme {"),
        ]
    ));
}

#[test]
fn secrets() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("key-file=\"acme.key\"", "key=\"hunter2\""),
            (
                "key-file=\"acme.key\"",
                "key-file=\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\""
            ),
            ("key-file=\"acme.key\"", "key-file=\"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI=\""),
        ]
    ));
}

#[test]
fn failed_tests() {
    insta::assert_snapshot!(seen(
        ROUTER,
        &[
            ("rule=ssh via=wwan0", "rule=ssh via=wlan0"),
            ("rule=ssh via=wwan0", "rule=web"),
            ("rule=ssh via=wwan0", "blocked"),
            ("rule=ssh via=wwan0", "via=wwan0 { given wwan0=down wlan0=down; }"),
        ]
    ));
}

#[test]
fn words_of_the_full_language_are_refused_by_name() {
    let cases =
        [("bid 1;", "bid 1; linger \"2s\";"), ("auth-option", "ike local=\"a\"\n    auth-option")];
    for (from, to) in cases {
        let faults = faults(ROUTER, from, to);
        assert!(faults.0.iter().any(|fault| fault.code == Code::NotSupported), "{to}\n{faults}");
    }
    insta::assert_snapshot!(seen(ROUTER, &cases));
}

#[test]
fn at_a_home_agent() {
    insta::assert_snapshot!(seen(
        AGENT,
        &[
            ("home-agent", "mobile-router"),
            ("tunnel mtun0", ""),
            ("tunnel mtun0", "tunnel mtun0\n    address \"2001:db8:100::1/64\"\n    security none"),
            ("agent=\"2001:db8:100::1\"", ""),
            ("agent=\"2001:db8:100::1\"", "agent=\"2001:db8:200::1\""),
            ("serve \"2001:db8:100::/64\" agent=\"2001:db8:100::1\" on=home0 lifetime=\"1h\"", ""),
            ("allow \"2001:db8:100::42\"", "allow \"2001:db8:200::42\""),
            ("allow \"2001:db8:100::42\"", "allow \"2001:db8:100::1\""),
            (
                "    allow",
                "    allow \"2001:db8:100::42\" { security none; mobile-network \"2001:db8:100:4200::/64\"; }\n    allow"
            ),
            ("        security \"acme-sa\"\n", ""),
            ("        security \"acme-sa\"\n", "        security \"acme\"\n"),
            ("bindings 16", "bindings 0"),
            (
                "security \"acme-sa\" {\n    auth",
                "rules home=acme { default { block; } }\nsecurity \"acme-sa\" {\n    auth"
            ),
            (
                "security \"acme-sa\" {\n    auth",
                "test \"x\" { flow src=\"::1\" dst=\"::2\" proto=tcp; expect blocked; }\nsecurity \"acme-sa\" {\n    auth"
            ),
        ]
    ));
}

#[test]
fn unprotected_signaling_is_a_warning() {
    let text = ROUTER.replacen("    security \"acme-sa\"\n", "    security none\n", 1);
    let policy = judged(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policy.homes[0].security, None);
    assert_eq!(policy.warnings.len(), 1);
    insta::assert_snapshot!(policy.warnings[0]);
}

#[test]
fn all_faults_at_once_in_the_order_of_the_lines() {
    let text = ROUTER
        .replacen("bid 1;", "bid 0;", 1)
        .replacen("\"420s\"", "420", 1)
        .replacen("dport=22", "dprt=22", 1)
        .replacen("prefer wwan0 wlan0", "prefer wwan1 wlan0", 1)
        .replacen("reply=icmp", "reply=icpm", 1)
        .replacen("rule=ssh via", "rule=shh via", 1);
    let faults = judged(&text).unwrap_err();
    let codes: Vec<Code> = faults.0.iter().map(|fault| fault.code).collect();
    let want = [
        Code::Range,
        Code::Unit,
        Code::UnknownProperty,
        Code::UnknownRef,
        Code::Value,
        Code::UnknownRef,
    ];
    assert_eq!(codes, want, "{faults}");
    insta::assert_snapshot!(faults);
}

#[test]
fn faults_of_includes_name_their_file() {
    let files = |list: &[(&str, &str)]| -> BTreeMap<PathBuf, Vec<u8>> {
        list.iter().map(|(name, text)| (PathBuf::from(*name), text.as_bytes().to_vec())).collect()
    };
    let mut shown = Vec::new();
    let mut judge = |main: &str, list: &[(&str, &str)]| {
        let text = format!("{main}\n{ROUTER}");
        let faults = parse("site/bus.kdl", &text, &files(list)).expect_err(main);
        assert!(faults.0.iter().all(|fault| fault.help.is_some()));
        shown.push(format!("## {main}\n{faults}\n"));
    };
    judge("include \"more.kdl\"", &[]);
    judge("include \"../secret.kdl\"", &[("secret.kdl", "")]);
    judge("include \"/etc/passwd\"", &[]);
    judge("include \"d/*.kdl\"", &[]);
    judge("include \"*/a.kdl\"", &[]);
    judge("include \"bus.kdl\"", &[]);
    judge(
        "include \"a.kdl\"",
        &[("site/a.kdl", "include \"b.kdl\""), ("site/b.kdl", "include \"a.kdl\"")],
    );
    judge("include \"a.kdl\"", &[("site/a.kdl", "interface \"wlan0\" { bid 7; }")]);
    judge("include \"d/*.kdl\"", &[("site/d/a.kdl", "colour blue"), ("site/d/b.kdl", "colour {")]);
    judge("include \"a.kdl\" \"./a.kdl\"", &[("site/a.kdl", "")]);
    judge("include 7", &[]);
    judge("include \"a.kdl\" optional=yes", &[("site/a.kdl", "")]);
    insta::assert_snapshot!(shown.join("\n"));
}
