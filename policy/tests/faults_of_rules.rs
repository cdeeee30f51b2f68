//! Diagnostics of links, verbs, conditions, sets and further sources, as people see them.
//!
//! A case is one change to a policy that is in order; the snapshot shows all faults it causes.

#[path = "support/judged.rs"]
mod judged;

use judged::{judged, seen};
use mtun_policy::{Code, Severity};

/// A mobile router's policy without a fault.
const BUS: &str = r#"/- kdl-version 2
role "mobile-router"
interface "wlan0" {
    bid 1
    rate "50Mbit/s"
    usable {
        signal enter="-70dBm" leave="-78dBm"
        hold up="5s"
    }
}
interface "wwan0" {
    bid 2
    metered #true
    cost 4.50 currency=EUR per="1GB"
    quota "20GB" per=month starts=1 warn="80%" at-limit=last-resort
    usable { rtt enter="150ms" leave="400ms"; loss enter="1%" leave="8%"; }
}
interface "wwan1" { bid 3; metered #true; }; interface "wwan2" { bid 5; metered #true; }
interface "lte0" { bid 4; metered #true; cost 3 currency=USD; }
group "links" { interface wlan0 wwan0; }
group "web" { port 80 443; }
set "cdn" file="cdn.txt"
sla "voice" rtt="100ms" loss="1%"
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/64" on=lan0
    also from=br-guest
    probe every="1s" active-every="200ms"
    register lifetime="420s" flow-bindings=#false
    security "acme-sa"
}
security "acme-sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-credential="acme"
}
rules home=acme {
    rule "voice" {
        match proto=udp dport=5060
        cheapest @links sla=voice
        otherwise duplicate @links copies=2 cap="200MB"
        sticky pair for="10m"
        together "voip"
    }
    rule "rtp" { match proto=udp dport=5004; prefer wwan0; sticky pair; together "voip"; }
    rule "night" {
        match proto=tcp dst=@cdn
        when speed="<5km/h"
        when time="22:00-05:00" days="mon-fri"
        overflow wlan0 wwan0 full="85%"
        failback gap after="30s"
    }
    rule "bulk" { match proto=tcp dport=873; balance wlan0=3 wwan0=1; }
    rule "app" { match uid=1001; fastest @links margin="15%"; }
    rule "guests" { match in=br-guest; breakout wlan0; otherwise block reply=icmp; }
    default { prefer wlan0 wwan0; otherwise any; }
}
test "guests" {
    flow src="192.0.2.7" dst="192.0.2.9" proto=tcp dport=80 in=br-guest
    expect breakout rule=guests via=wlan0
}
"#;

#[test]
fn the_base_is_in_order() {
    let policy = judged(BUS).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policy.warnings, []);
}

#[test]
fn limits_without_room_between_them() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("leave=\"-78dBm\"", "leave=\"-70dBm\""),
            ("leave=\"-78dBm\"", "leave=\"-60dBm\""),
            ("leave=\"400ms\"", "leave=\"150ms\""),
            ("enter=\"1%\"", "enter=\"9%\""),
            ("enter=\"-70dBm\" ", ""),
            ("rtt enter=\"150ms\" leave=\"400ms\"", "rtt"),
            ("hold up=\"5s\"", "hold up=\"2h\""),
            (
                "usable { rtt enter=\"150ms\" leave=\"400ms\"; loss enter=\"1%\" leave=\"8%\"; }",
                "usable"
            ),
        ]
    ));
}

#[test]
fn quantities_and_their_units() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("rate \"50Mbit/s\"", "rate 50"),
            ("rate \"50Mbit/s\"", "rate \"50\""),
            ("rate \"50Mbit/s\"", "rate \"50mbit/s\""),
            ("rate \"50Mbit/s\"", "rate \"0Mbit/s\""),
            ("rate \"50Mbit/s\"", "rate 50Mbit"),
            ("quota \"20GB\"", "quota 20"),
            ("quota \"20GB\"", "quota \"20 gigs\""),
            ("quota \"20GB\"", "quota \"20000TB\""),
            ("warn=\"80%\"", "warn=80"),
            ("warn=\"80%\"", "warn=\"180%\""),
            ("warn=\"80%\"", "warn=\"0%\""),
            ("enter=\"-70dBm\"", "enter=-70"),
            ("enter=\"-70dBm\"", "enter=\"-70\""),
            ("enter=\"-70dBm\"", "enter=\"strong\""),
            ("enter=\"150ms\"", "enter=150"),
            ("speed=\"<5km/h\"", "speed=5"),
            ("speed=\"<5km/h\"", "speed=\"5km/h\""),
            ("speed=\"<5km/h\"", "speed=\"<5\""),
            ("speed=\"<5km/h\"", "speed=\"<0km/h\""),
            ("speed=\"<5km/h\"", "near=\"48.1\" within=\"300m\""),
            ("speed=\"<5km/h\"", "near=\"48.1,11.5\" within=300"),
            ("speed=\"<5km/h\"", "near=\"48.1,11.5\" within=\"5m\""),
            ("speed=\"<5km/h\"", "near=\"48.1,11.5\" within=\"300 feet\""),
            ("per=\"1GB\"", "per=1"),
            ("cost 4.50", "cost -4.50"),
            ("cost 4.50", "cost \"4.50\""),
            ("cost 4.50 currency=EUR", "cost 4.50"),
            ("currency=EUR", "currency=euro"),
            ("every=\"1s\"", "every=1"),
            ("for=\"10m\"", "for=10"),
            ("after=\"30s\"", "after=30"),
            ("cap=\"200MB\"", "cap=200"),
            ("full=\"85%\"", "full=85"),
            ("margin=\"15%\"", "margin=0.15"),
            ("sla \"voice\" rtt=\"100ms\"", "sla \"voice\" rtt=100"),
        ]
    ));
}

#[test]
fn words_of_links() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("per=month", "per=year"),
            ("starts=1", "starts=32"),
            ("per=month starts=1", "per=week starts=8"),
            ("per=month starts=1", "per=day starts=2"),
            ("at-limit=last-resort", "at-limit=warn"),
            ("active-every=\"200ms\"", "active-every=\"2s\""),
            ("active-every=\"200ms\"", "active-every=\"1ms\""),
            ("sla \"voice\" rtt=\"100ms\" loss=\"1%\"", "sla \"voice\""),
            ("sla \"voice\" rtt=\"100ms\"", "sla \"voice\" delay=\"100ms\""),
            ("sla \"voice\"", "sla \"voice\" rtt=\"1s\"\nsla \"voice\""),
            ("flow-bindings=#false", "flow-bindings=no"),
        ]
    ));
}

#[test]
fn who_tells_of_radios_and_of_the_vehicle() {
    let (radio, vehicle) = ("    bid 2\n", "sla \"voice\"");
    let radio_of = |says: &str| (radio, format!("    bid 2\n    radio {says}\n"));
    let vehicle_of = |says: &str| (vehicle, format!("vehicle {says}\nsla \"voice\""));
    let usable = |says: &str| ("usable { rtt", format!("usable {{ {says}; rtt"));
    let changes = [
        radio_of(""),
        radio_of("modem=auto exec=x"),
        radio_of("modem=\"no such\""),
        radio_of("exec=\"/bin/sh\""),
        radio_of("file=\"../key\""),
        radio_of("file=\".key\""),
        radio_of("modem=auto every=5"),
        radio_of("modem=auto every=\"100ms\""),
        radio_of("modem=auto every=\"20s\" lost-after=\"30s\""),
        radio_of("gpsd=\"[::1]:2947\""),
        radio_of("modem=auto signal=\"-70dBm\""),
        vehicle_of(""),
        vehicle_of("gpsd=localhost"),
        vehicle_of("gpsd=\"[::1]:2947\" every=\"5s\""),
        vehicle_of("gpsd=\"/run/gpsd.sock\"\nvehicle file=x"),
        usable("roaming no"),
        usable("technology 4"),
        usable("technology \"5g\""),
        usable("technology ltee"),
        ("per=\"1GB\"", "per=\"1GB\" roaming=\"much\"".to_owned()),
    ];
    let changes: Vec<_> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
    insta::assert_snapshot!(seen(BUS, &changes));
}

#[test]
fn what_verbs_need_of_their_links() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("    rate \"50Mbit/s\"\n", ""),
            ("overflow wlan0 wwan0", "overflow wlan0"),
            ("cheapest @links", "cheapest @links wwan1 wwan2"),
            ("cheapest @links", "cheapest @links lte0"),
            ("sla=voice", "sla=vioce"),
            (" cap=\"200MB\"", ""),
            ("duplicate @links copies=2", "duplicate @links copies=3"),
            ("duplicate @links copies=2", "duplicate @links copies=1"),
            ("fastest @links margin=\"15%\"", "duplicate wlan0 wlan0"),
            (
                "interface \"wwan0\" {\n    bid 2\n    metered #true",
                "interface \"wwan0\" {\n    bid 2"
            ),
            ("balance wlan0=3 wwan0=1", "balance wlan0=0 wwan0=1"),
            ("balance wlan0=3 wwan0=1", "balance wlan0=70000 wwan0=1"),
            ("balance wlan0=3 wwan0=1", "balance wlan0=1000 wwan0=1"),
            ("balance wlan0=3 wwan0=1", "balance wlan0=3 wwan0"),
            ("balance wlan0=3 wwan0=1", "balance wlan0=3 @links=1"),
            ("balance wlan0=3 wwan0=1", "balance wlan0=3 @cellular=1"),
            ("balance wlan0=3 wwan0=1", "balance"),
            ("balance wlan0=3 wwan0=1", "balance @web=3"),
            ("prefer wwan0; sticky", "prefer @cdn; sticky"),
            ("fastest @links margin=\"15%\"", "fastest"),
            ("fastest @links margin=\"15%\"", "fastest @links full=\"15%\""),
            ("otherwise any", "otherwise fastest wlan0 full=\"15%\""),
            ("otherwise any", "otherwise overflow"),
            ("otherwise any", "otherwise balance wlan0"),
            ("otherwise any", "otherwise any copies=2"),
            ("otherwise any", "otherwise block wlan0"),
            ("otherwise any", "otherwise fastets wlan0"),
        ]
    ));
}

#[test]
fn conditions_and_keeping() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("default { prefer", "default { when days=\"sun\"; prefer"),
            ("when speed=\"<5km/h\"", "when"),
            ("time=\"22:00-05:00\"", "time=\"22:00\""),
            ("time=\"22:00-05:00\"", "time=\"22:00-25:00\""),
            ("time=\"22:00-05:00\"", "time=\"22:00-22:00\""),
            ("time=\"22:00-05:00\"", "time=\"night\""),
            ("time=\"22:00-05:00\"", "time=22"),
            ("speed=\"<5km/h\"", "near=\"48.1,11.5\""),
            ("speed=\"<5km/h\"", "within=\"300m\""),
            ("speed=\"<5km/h\"", "near=\"48.1,11.5\" within=\"300m\" leave=\"200m\""),
            ("days=\"mon-fri\"", "days=\"mon-fir\""),
            ("days=\"mon-fri\"", "days=\"monday\""),
            ("days=\"mon-fri\"", "days=\"mon,mon\""),
            ("sticky pair for=\"10m\"", "sticky session"),
            ("sticky pair for=\"10m\"", "sticky pair for=\"0s\""),
            ("sticky pair for=\"10m\"", "sticky pair for=\"2d\""),
            ("sticky pair for=\"10m\"\n        together \"voip\"", "sticky none for=\"10m\""),
            ("sticky pair for=\"10m\"", "sticky host"),
            (
                "sticky pair for=\"10m\"\n        together \"voip\"",
                "sticky none\n        together \"voice\""
            ),
            ("failback gap", "failback later"),
            ("failback gap", "failback never"),
            ("prefer wwan0; sticky", "block; sticky"),
        ]
    ));
}

#[test]
fn fields_that_packets_do_not_have() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("uid=1001", "uid=root"),
            ("uid=1001", "uid=\"2000-1000\""),
            ("uid=1001", "uid=4294967296"),
            ("uid=1001", "uid=1001 in=lan0"),
            ("uid=1001", "flow-label=0x100000"),
            ("uid=1001", "spi=256 proto=tcp"),
            ("uid=1001", "spi=any"),
            ("uid=1001", "icmp-type=echo-request"),
            ("uid=1001", "icmp-type=echo-request proto=tcp"),
            ("uid=1001", "icmp-type=echo-request proto=\"icmp,icmpv6\""),
            ("uid=1001", "icmp-type=echo-requst proto=icmpv6"),
            ("uid=1001", "icmp-type=packet-too-big proto=icmp"),
            ("uid=1001", "icmp-type=256 proto=icmpv6"),
            ("dst=@cdn", "dport=@cdn"),
        ]
    ));
}

#[test]
fn sets() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("file=\"cdn.txt\"", "file=\"faulty.txt\""),
            ("file=\"cdn.txt\"", "file=\"empty.txt\""),
            ("file=\"cdn.txt\"", "file=\"binary.txt\""),
            ("file=\"cdn.txt\"", "file=\"long.txt\""),
            ("file=\"cdn.txt\"", "file=\"absent.txt\""),
            ("file=\"cdn.txt\"", "file=\"../cdn.txt\""),
            ("file=\"cdn.txt\"", "file=\"/etc/hosts\""),
            ("file=\"cdn.txt\"", "file=7"),
            ("file=\"cdn.txt\"", ""),
            ("file=\"cdn.txt\"", "file=\"cdn.txt\" { prefix \"::/0\" }"),
            ("set \"cdn\"", "set \"web\""),
            ("set \"cdn\"", "set \"cdn\" file=\"cdn.txt\"\nset \"cdn\""),
            ("dst=@cdn", "dst=@cnd"),
        ]
    ));
}

#[test]
fn who_may_leave_outside_the_tunnel() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("match in=br-guest; breakout", "match proto=tcp; breakout"),
            ("match in=br-guest; breakout", "match src=\"2001:db8:100::/48\"; breakout"),
            (
                "default { prefer wlan0 wwan0; otherwise any",
                "default { breakout wlan0; otherwise block"
            ),
            (
                "default { prefer wlan0 wwan0; otherwise any",
                "default { prefer wlan0; otherwise breakout wwan0"
            ),
            ("match in=br-guest; breakout", "match in=br-visitors; breakout"),
            ("also from=br-guest", "also from=wlan0"),
            ("also from=br-guest", "also from=mtun0"),
            ("also from=br-guest", "also from=local"),
            ("also from=br-guest", "also from=br-guest\n    also from=br-guest"),
            ("also from=br-guest", "also"),
            ("breakout wlan0", "breakout wlan0 translate=yes"),
            ("in=br-guest\n", "in=br-visitors\n"),
        ]
    ));
}

#[test]
fn keys() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("key-credential=\"acme\"", "key-credential=\"a/b\""),
            ("key-credential=\"acme\"", "key-credential=\"acme\" key-file=\"acme.key\""),
            (
                "key-credential=\"acme\"",
                "key-credential=\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\""
            ),
            ("key-credential=\"acme\"", "key-file=\"acme.key\" psk=\"hunter2\""),
            ("key-credential=\"acme\"", ""),
        ]
    ));
}

#[test]
fn what_tests_suppose_and_expect() {
    insta::assert_snapshot!(seen(
        BUS,
        &[
            ("via=wlan0\n", "via=wlan0 { given wlan0=broken }\n"),
            ("via=wlan0\n", "via=wlan0 { given wlan9.rtt=\"5ms\" }\n"),
            ("via=wlan0\n", "via=wlan0 { given wlan0.rtt=5 }\n"),
            ("via=wlan0\n", "via=wlan0 { given wlan0.load=\"200%\" }\n"),
            ("via=wlan0\n", "via=wlan0 { given speed=90 }\n"),
            ("via=wlan0\n", "via=wlan0 { given position=depot }\n"),
            ("via=wlan0\n", "via=wlan0 { given time=\"24:00\" }\n"),
            ("via=wlan0\n", "via=wlan0 { given day=someday }\n"),
            ("via=wlan0\n", "via=wlan0 { given wlan0=up; given wlan0=down }\n"),
            ("expect breakout rule=guests via=wlan0", "expect breakout rule=guests"),
            ("expect breakout rule=guests via=wlan0", "expect breakout via=\"wlan0,wwan0\""),
            ("expect breakout rule=guests via=wlan0", "expect blocked via=wlan0"),
            ("expect breakout rule=guests via=wlan0", "expect rule=guests via=wlan0"),
            ("expect breakout rule=guests via=wlan0", "expect rule=guests via=\"wlan0,wwan0\""),
            (
                "expect breakout rule=guests via=wlan0",
                "expect breakout via=wlan0 { given wlan0=down }"
            ),
        ]
    ));
}

#[test]
fn a_conditional_rule_hides_nothing_and_further_sources_pass_tunnels_by() {
    let accepted = [
        // Outside its hours the general rule decides.
        (
            "rule \"bulk\"",
            "rule \"bulk-by-night\" { match proto=tcp dport=873; when time=\"22:00-05:00\"; prefer wwan0; }\n    rule \"bulk\"",
        ),
        // A rule that tunnels does not speak of guests.
        (
            "rule \"app\"",
            "rule \"all\" { match in=\"br-guest,lan0\"; prefer wwan0; otherwise any; }\n    rule \"app\"",
        ),
    ];
    for (from, to) in accepted {
        let policy = judged(&BUS.replacen(from, to, 1)).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(policy.warnings, [], "{to}");
    }
    insta::assert_snapshot!(seen(
        BUS,
        &[
            (
                "rule \"bulk\"",
                "rule \"bulk-by-night\" { match proto=tcp dport=873; when time=\"22:00-05:00\"; prefer wwan0; otherwise block; }\n    rule \"bulk\""
            ),
            (
                "rule \"guests\"",
                "rule \"early\" { match in=br-guest; block; }\n    rule \"guests\""
            ),
            (
                "rule \"guests\"",
                "rule \"early\" { match in=br-guest; breakout wwan0; otherwise block; }\n    rule \"guests\""
            ),
        ]
    ));
}

/// The warnings of the base after a change, all of one code.
fn warned(code: Code, cases: &[(&str, &str)]) -> String {
    let mut shown = Vec::new();
    for (from, to) in cases {
        assert!(BUS.contains(from), "the base has no `{from}`");
        let policy = judged(&BUS.replacen(from, to, 1)).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(!policy.warnings.is_empty(), "{to}");
        for warning in &policy.warnings {
            assert_eq!((warning.code, warning.severity), (code, Severity::Warning), "{warning}");
            assert!(warning.help.is_some());
        }
        let warnings: Vec<String> = policy.warnings.iter().map(ToString::to_string).collect();
        shown.push(format!("## {from} => {to}\n{}\n", warnings.join("\n\n")));
    }
    shown.join("\n")
}

#[test]
fn what_the_home_agent_cannot_be_told() {
    let asked = "flow-bindings=#true\n    security \"acme-sa\"";
    let from = "flow-bindings=#false\n    security \"acme-sa\"";
    insta::assert_snapshot!(warned(Code::Downlink, &[(from, asked)]));
}

#[test]
fn more_rules_than_the_home_agent_can_be_told() {
    let bulk = "    rule \"bulk\" { match proto=tcp dport=873; balance wlan0=3 wwan0=1; }\n";
    let many = "    rule \"bulk\" { match proto=\"tcp,132,33\" dport=\"1,3,5,7,9,11\" dst=\"2001:db8:a::/48,2001:db8:c::/48\"; prefer wwan0; }\n";
    let asked = BUS.replacen("flow-bindings=#false", "flow-bindings=#true", 1);
    let few = asked.replacen("role ", "flow-budget 1\nrole ", 1);
    let cases = [(bulk, many), ("role \"", "flow-budget 513\nrole \"")];
    insta::assert_snapshot!(format!("{}\n{}", seen(&few, &cases[..1]), seen(&asked, &cases[1..])));
    // With the room that it asks for the file is in order.
    let room = few.replacen(bulk, many, 1).replacen("flow-budget 1\n", "flow-budget 64\n", 1);
    assert!(judged(&room).is_ok());
}

#[test]
fn defaults_that_cost_money() {
    let from = "default { prefer wlan0 wwan0";
    insta::assert_snapshot!(warned(
        Code::MeteredDefault,
        &[
            (from, "default { prefer wwan0 wlan0"),
            (from, "default { balance wlan0=1 wwan0=1"),
            (from, "default { fastest wlan0 wwan0"),
            (from, "default { cheapest wwan0"),
        ]
    ));
}

#[test]
fn further_sources_that_nothing_lets_out() {
    let from =
        "    rule \"guests\" { match in=br-guest; breakout wlan0; otherwise block reply=icmp; }\n";
    let text = BUS.replacen(from, "", 1);
    let text = &text[..text.find("test \"guests\"").unwrap()];
    let policy = judged(text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policy.warnings.len(), 1);
    insta::assert_snapshot!(policy.warnings[0]);
}

#[test]
fn all_faults_of_the_new_words_come_at_once() {
    let text = BUS
        .replacen("\"50Mbit/s\"", "50", 1)
        .replacen("leave=\"-78dBm\"", "leave=\"-70dBm\"", 1)
        .replacen("currency=EUR", "currency=eur", 1)
        .replacen("file=\"cdn.txt\"", "file=\"faulty.txt\"", 1)
        .replacen("also from=br-guest", "also from=wlan0", 1)
        .replacen("sla=voice", "sla=vioce", 1)
        .replacen("days=\"mon-fri\"", "days=\"mon-fir\"", 1)
        .replacen("wwan0=1", "wwan0=0", 1)
        .replacen("uid=1001", "uid=root", 1)
        .replacen("via=wlan0\n", "via=wlan0 { given day=someday }\n", 1);
    let faults = judged(&text).unwrap_err();
    let codes: Vec<Code> = faults.0.iter().map(|fault| fault.code).collect();
    let in_file: Vec<Code> =
        faults.0.iter().filter(|fault| fault.file == "bus.kdl").map(|fault| fault.code).collect();
    assert_eq!(faults.0.len() - in_file.len(), 4, "{faults}");
    let want = [Code::Unit, Code::NoHysteresis, Code::Value, Code::Conflict];
    assert_eq!(in_file[..4], want, "{codes:?}\n{faults}");
    insta::assert_snapshot!(faults);
}
