//! Every word of the language, read into what it means.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mtun_policy::{
    Algorithm, AtLimit, Band, Bid, BlockReply, Circle, Cost, Days, FactOrigin, FactSource,
    Failback, FailbackMode, Fallback, Field, GpsdPlace, KeySource, Origin, Period, Policy,
    Position, Probe, Quota, Ratio, Scope, Sla, SpeedBound, Sticky, Technologies, Technology,
    TimeSpan, UsableWhen, Verb, When, parse,
};

/// A policy with every word.
const EVERYTHING: &str = r#"/- kdl-version 2
policy "bus" schema=1
include "site.d/*.kdl" optional=#true
role "mobile-router"
interface "wlan0" {
    class wlan
    bid 1
    priority 20
    rate "50Mbit/s"
    usable {
        signal enter="-70dBm" leave="-78dBm"
        loss   enter="1%"     leave="8%"
        hold   up="5s"        down="1s"
    }
}
interface "wwan0" {
    class cellular
    bid 2
    priority 10
    metered #true
    cost 4.50 currency=EUR per="1GB" roaming=18.00
    quota "20GB" per=month starts=1 warn="80%" at-limit=last-resort
    usable { rtt enter="150ms" leave="400ms"; jitter enter="5ms" leave="20ms"; hold up="10s" down="2s"; roaming #false; technology lte nr }
    radio modem=auto
}
interface "wwan1" { class cellular; bid 3; priority 11; metered #true; cost 3 currency=EUR per="500MB"; quota "1.5GiB" per=week starts=7 at-limit=stop }
interface "wwan2" { bid 4; radio modem=867962041234567 every="10s"; }
interface "wwan3" { bid 5; usable { near "48.137154,11.576124" enter="300m" leave="0.4km"; speed enter="54km/h" leave="20m/s"; }; radio exec="wwan3.sh" lost-after="1m"; }
vehicle gpsd="[::1]:2947"
group "cellular" { interface wwan0 wwan1 }
group "any-link" { interface wlan0 wwan0 wwan1 }
group "web"      { port 80 443 "8000-8099" }
set   "cdn"      file="cdn.txt"
home "acme" {
    tunnel mtun0 mtu=auto
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/56" on=br-lan
    also from=br-guest
    register lifetime="420s" multiple-coa=#true flow-bindings=#false
    security "acme-sa"
    probe every="2s" active-every="100ms"
    route-optimization policy lifetime="2m" correspondents=8
    returning-home both
}
correspondent {
    address "2001:db8:100::42"
    lifetime "5m"
    multiple-coa #false
    mobiles 32
    bindings 2
}
security "acme-sa" {
    auth-option spi=0x1001 algorithm=hmac-sha256 key-credential="acme.key"
}
sla "voice" rtt="100ms" jitter="20ms" loss="1%"
rules home=acme {
    rule "voice" {
        match proto=udp dport="5060,10000-20000"
        match dscp=ef
        cheapest @any-link sla=voice
        otherwise duplicate @any-link copies=2 cap="200MB"
        sticky pair for="5m"
        together "voip"
    }
    rule "sip" { match proto=tcp dport=5060; fastest @cellular wlan0; sticky pair; together "voip" }
    rule "video" { match proto=udp dport=@web; prefer wlan0; together "video" }
    rule "night" {
        match proto=tcp src="2001:db8:100:4210::/64" dst=@cdn
        exclude dst="2001:db8:c:1::/64"
        when speed="<5km/h"
        when time="22:00-05:00" days="mon-fri"
        when near="48.137154,11.576124" within="1km"
        when near="48.137154,11.576124" within="1km" leave="5km"
        prefer wlan0
        otherwise block reply=reset
        failback never
    }
    rule "bulk" { match proto=tcp dport=873; balance wlan0=3 @cellular=1; failback gap after="30s" }
    rule "load" { match proto=tcp dport=874; overflow wlan0 wwan0 full="70%"; sticky none; optimize never }
    rule "app" { match uid="1001,2000-2999"; fastest @any-link margin="15%" }
    rule "ping" { match proto=icmpv6 icmp-type="echo-request,130-132"; prefer wlan0; otherwise balance @any-link=2 }
    rule "vpn" { match proto=esp spi="0x100-0x1ff"; prefer wwan0; otherwise overflow wlan0 wwan1; optimize always }
    rule "label" { match flow-label=0x12345; prefer wwan0; otherwise cheapest wlan0 }
    rule "guests" { match in=br-guest; breakout wlan0; otherwise block reply=icmp }
    rule "tv" { match proto=udp dport=9; breakout wlan0 translate=#true; otherwise fastest wlan0 wwan0 }
    default { prefer wlan0 @cellular; otherwise any }
}
test "guests break out" {
    flow src="192.0.2.7" dst="198.51.100.1" proto=tcp dport=443 in=br-guest
    expect breakout rule=guests via=wlan0
}
test "fields" {
    flow src="2001:db8:100::42" dst="2001:db8:f::1" proto=tcp dport=1 uid=2001 flow-label=7
    expect rule=app
}
test "a ping" {
    flow src="2001:db8:100::42" dst="2001:db8:f::1" proto=icmpv6 icmp-type=echo-request
    expect rule=ping via=wlan0
}
test "a tunnel in the tunnel" {
    flow src="2001:db8:100::42" dst="2001:db8:f::1" proto=esp spi=0x180
    expect rule=vpn via=wwan0 optimized=#true
}
"#;

/// A list as providers publish it.
const CDN: &str = "# networks\n\n2001:db8:c::/48 # one\r\n2001:db8:c::/48\n192.0.2.0/24\n";

fn everything() -> Policy {
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    files.insert("cdn.txt".into(), CDN.into());
    parse("bus.kdl", EVERYTHING, &files).unwrap_or_else(|faults| panic!("{faults}"))
}

fn bid(number: u16) -> Bid {
    Bid::new(number).unwrap()
}

fn bids<const N: usize>(numbers: [u16; N]) -> Vec<Bid> {
    numbers.map(bid).to_vec()
}

#[test]
fn links() {
    let policy = everything();
    let [wlan, first, second, third, fourth] = policy.interfaces.as_slice() else { panic!() };
    let usable = UsableWhen {
        signal: Some(Band { enter: -70, leave: -78 }),
        loss: Some(Band { enter: Ratio::percent(1), leave: Ratio::percent(8) }),
        rtt: None,
        jitter: None,
        speed: None,
        near: None,
        roaming: true,
        technologies: None,
        hold_up: Duration::from_secs(5),
        hold_down: Duration::from_secs(1),
    };
    assert_eq!((wlan.rate, wlan.metered, &wlan.usable), (Some(50_000_000), false, &usable));
    assert_eq!((&wlan.cost, wlan.quota), (&None, None));
    let cost = Cost {
        micros_per_gigabyte: 4_500_000,
        roaming_micros_per_gigabyte: Some(18_000_000),
        currency: "EUR".to_owned(),
    };
    assert_eq!((first.metered, &first.cost), (true, &Some(cost)));
    let quota = Quota {
        octets: 20_000_000_000,
        per: Period::Month,
        starts: 1,
        warn: Ratio::percent(80),
        at_limit: AtLimit::LastResort,
    };
    assert_eq!(first.quota, Some(quota));
    let ms = Duration::from_millis;
    assert_eq!(first.usable.rtt, Some(Band { enter: ms(150), leave: ms(400) }));
    assert_eq!(first.usable.jitter, Some(Band { enter: ms(5), leave: ms(20) }));
    let cost = Cost {
        micros_per_gigabyte: 6_000_000,
        roaming_micros_per_gigabyte: None,
        currency: "EUR".to_owned(),
    };
    assert_eq!(second.cost, Some(cost));
    let quota = Quota {
        octets: 1_610_612_736,
        per: Period::Week,
        starts: 7,
        warn: Ratio::percent(80),
        at_limit: AtLimit::Stop,
    };
    assert_eq!(second.quota, Some(quota));
    assert_eq!(second.usable, UsableWhen::default());

    let good: Technologies = [Technology::Nr, Technology::Lte].into_iter().collect();
    assert_eq!((first.usable.roaming, first.usable.technologies), (false, Some(good)));
    assert_eq!((first.price(false), first.price(true)), (4_500_000, 18_000_000));
    assert_eq!(second.price(true), 6_000_000);
    let s = Duration::from_secs;
    let source = |from, every, lost_after| {
        Some(FactSource { from, every: s(every), lost_after: s(lost_after) })
    };
    assert_eq!(wlan.radio, None);
    assert_eq!(first.radio, source(FactOrigin::Modem(None), 5, 30));
    let equipment = Some("867962041234567".to_owned());
    assert_eq!(third.radio, source(FactOrigin::Modem(equipment), 10, 60));
    let at = Position::from_words("48.137154,11.576124").unwrap();
    let (speed, near) = (fourth.usable.speed, fourth.usable.near);
    assert_eq!(speed, Some(Band { enter: 1500, leave: 2000 }), "in hundredths of a metre a second");
    assert_eq!(near, Some(Circle { at, enter: 300, leave: 400 }));
    assert_eq!(fourth.radio, source(FactOrigin::Exec("wwan3.sh".to_owned()), 5, 60));
    let gpsd = GpsdPlace::Tcp("[::1]:2947".parse().unwrap());
    assert_eq!(policy.vehicle, source(FactOrigin::Gpsd(gpsd), 5, 10));
}

/// A BID belongs to an interface by what is written, at every reading: the same text gives the
/// same numbers, those that are written go before those that are free, and nothing else in the
/// file moves them. 1 and 65535 are BIDs like others.
#[test]
fn bids_come_from_the_file() {
    let numbers = |links: &str, rest: &str| -> Vec<(String, u16)> {
        let text = format!(
            "role mobile-node\n{links}\nhome h {{ tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }}\n\
             rules {{\n{rest}\ndefault {{ prefer a; }}\n}}\n"
        );
        let policy = parse("x.kdl", &text, &mtun_policy::NoFiles);
        let policy = policy.unwrap_or_else(|faults| panic!("{faults}"));
        let links = policy.interfaces.iter();
        links.map(|link| (link.name.to_string(), link.bid.unwrap().get())).collect()
    };
    let named = |expected: &[(&str, u16)]| -> Vec<(String, u16)> {
        expected.iter().map(|(name, bid)| ((*name).to_owned(), *bid)).collect()
    };
    let cases: [(&str, &[(&str, u16)]); 5] = [
        ("interface a { bid 1; }; interface b { bid 65535; }", &[("a", 1), ("b", 65535)]),
        ("interface b { bid 65535; }; interface a { bid 1; }", &[("b", 65535), ("a", 1)]),
        ("interface a; interface b; interface c", &[("a", 1), ("b", 2), ("c", 3)]),
        ("interface a; interface b { bid 1; }; interface c", &[("a", 2), ("b", 1), ("c", 3)]),
        (
            "interface a { bid 3; }; interface b { bid 2; }; interface c",
            &[("a", 3), ("b", 2), ("c", 1)],
        ),
    ];
    for (links, expected) in cases {
        assert_eq!(numbers(links, ""), named(expected), "{links}");
        let more = "rule r { match dscp=ef; prefer b; }";
        assert_eq!(numbers(links, more), named(expected), "{links}");
        let others = links.replace("interface b", "// a line\ninterface b");
        assert_eq!(numbers(&others, ""), named(expected), "{links}");
    }
}

#[test]
fn homes_and_what_they_name() {
    let policy = everything();
    let home = &policy.homes[0];
    assert_eq!((home.also.len(), home.also[0].from.as_str()), (1, "br-guest"));
    assert_eq!(policy.ingresses.number("br-guest"), Some(home.also[0].ingress));
    let probe = Probe { every: Duration::from_secs(2), active_every: Duration::from_millis(100) };
    assert_eq!(home.probe, probe);
    assert!(!home.register.flow_bindings && home.register.multiple_coa);
    assert_eq!(home.tunnel.mtu, None);
    let security = &policy.securities[0];
    let key = KeySource::Credential("acme.key".to_owned());
    assert_eq!((security.algorithm, &security.key), (Algorithm::HmacSha256, &key));
    let voice = Sla {
        name: "voice".to_owned(),
        rtt: Some(Duration::from_millis(100)),
        jitter: Some(Duration::from_millis(20)),
        loss: Some(Ratio::percent(1)),
    };
    assert_eq!(policy.slas, [voice]);
    let fields = policy.fields();
    for field in [Field::Uid, Field::Spi, Field::FlowLabel, Field::IcmpType, Field::Ingress] {
        assert!(fields.contains(field), "{field:?}");
    }
}

#[test]
fn verbs() {
    let policy = everything();
    let rules = &policy.homes[0].rules.rules;
    let said = |name: &str| {
        let rule = rules.iter().find(|rule| rule.name().as_str() == name).unwrap();
        (rule.verb.clone(), rule.otherwise.clone())
    };
    let all = || bids([1, 2, 3]);
    let cases = [
        (
            "voice",
            Verb::Cheapest { links: all(), sla: Some("voice".to_owned()) },
            Fallback::Then(Verb::Duplicate { links: all(), copies: 2, cap: Some(200_000_000) }),
        ),
        (
            "sip",
            Verb::Fastest { links: bids([2, 3, 1]), margin: Ratio::percent(10) },
            Fallback::NextRule,
        ),
        ("night", Verb::Prefer(bids([1])), Fallback::Then(Verb::Block(BlockReply::Reset))),
        ("bulk", Verb::Balance(vec![(bid(1), 3), (bid(2), 1), (bid(3), 1)]), Fallback::NextRule),
        (
            "load",
            Verb::Overflow { links: bids([1, 2]), full: Ratio::percent(70) },
            Fallback::NextRule,
        ),
        ("app", Verb::Fastest { links: all(), margin: Ratio::percent(15) }, Fallback::NextRule),
        (
            "ping",
            Verb::Prefer(bids([1])),
            Fallback::Then(Verb::Balance(vec![(bid(1), 2), (bid(2), 2), (bid(3), 2)])),
        ),
        (
            "vpn",
            Verb::Prefer(bids([2])),
            Fallback::Then(Verb::Overflow { links: bids([1, 3]), full: Ratio::percent(85) }),
        ),
        (
            "label",
            Verb::Prefer(bids([2])),
            Fallback::Then(Verb::Cheapest { links: bids([1]), sla: None }),
        ),
        (
            "guests",
            Verb::Breakout { links: bids([1]), translate: false },
            Fallback::Then(Verb::Block(BlockReply::Icmp)),
        ),
        (
            "tv",
            Verb::Breakout { links: bids([1]), translate: true },
            Fallback::Then(Verb::Fastest { links: bids([1, 2]), margin: Ratio::percent(10) }),
        ),
        ("default", Verb::Prefer(all()), Fallback::Any),
    ];
    for (name, verb, otherwise) in cases {
        assert_eq!(said(name), (verb, otherwise), "{name}");
    }
}

#[test]
fn conditions_and_keeping() {
    let policy = everything();
    let rules = &policy.homes[0].rules.rules;
    let rule = |name: &str| rules.iter().find(|rule| rule.name().as_str() == name).unwrap();
    let night = rule("night");
    let slow = When { speed: Some(SpeedBound::Below(139)), ..When::default() };
    let dark = When {
        time: Some(TimeSpan { from: 22 * 60, until: 5 * 60 }),
        days: Some(Days(0b001_1111)),
        speed: None,
        near: None,
    };
    let at = Position::from_words("48.137154,11.576124").unwrap();
    let near = |leave| When { near: Some(Circle { at, enter: 1000, leave }), ..When::default() };
    assert_eq!(night.when, [slow, dark, near(1200), near(5000)]);
    assert_eq!(night.failback.mode, FailbackMode::Never);
    let half_a_minute = Duration::from_secs(30);
    let failback = Failback { mode: FailbackMode::Gap, after: half_a_minute };
    assert_eq!(rule("bulk").failback, failback);
    let sticky = |scope, seconds| Sticky { scope, lasts: Duration::from_secs(seconds) };
    assert_eq!(rule("voice").sticky, sticky(Scope::Pair, 300));
    assert_eq!(rule("sip").sticky, sticky(Scope::Pair, 600));
    assert_eq!(rule("load").sticky.scope, Scope::None);
    assert_eq!(rule("default").sticky, Sticky::default());
    let numbers = ["voice", "sip", "video", "bulk"]
        .map(|name| rule(name).together.as_ref().map(|(number, word)| (*number, word.as_str())));
    assert_eq!(numbers, [Some((0, "voip")), Some((0, "voip")), Some((1, "video")), None]);
}

#[test]
fn fields_and_sets() {
    let policy = everything();
    let rules = &policy.homes[0].rules.rules;
    let line = |name: &str| {
        let rule = rules.iter().find(|rule| rule.name().as_str() == name).unwrap();
        rule.head.selectors[0].clone()
    };
    assert_eq!(line("app").uids, [1001..=1001, 2000..=2999]);
    assert_eq!(line("ping").icmp_types, [128..=128, 130..=132]);
    assert_eq!(line("vpn").spis, [0x100..=0x1ff]);
    assert_eq!(line("label").flow_labels, [0x12345..=0x12345]);
    let nets: Vec<String> = line("night").destinations.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["2001:db8:c::/48", "192.0.2.0/24"]);
    assert_eq!(policy.tests[0].origin, Origin::Also);
    assert_eq!(policy.tests[1].origin, Origin::Home);
    mtun_policy::check_tests(&policy).unwrap_or_else(|faults| panic!("{faults}"));
}

#[test]
fn rules_are_known_by_what_they_mean() {
    let policy = everything();
    let identity = |text: &str, name: &str| {
        let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        files.insert("cdn.txt".into(), CDN.into());
        let policy = parse("bus.kdl", text, &files).unwrap_or_else(|faults| panic!("{faults}"));
        let rules = &policy.homes[0].rules.rules;
        rules.iter().find(|rule| rule.name().as_str() == name).unwrap().head.identity
    };
    let rules = &policy.homes[0].rules.rules;
    let mut all: Vec<u64> = rules.iter().map(|rule| rule.head.identity).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), rules.len());
    let moved = format!("// a line more\n{EVERYTHING}");
    let before = |name: &str| identity(EVERYTHING, name);
    assert_eq!(before("voice"), identity(&moved, "voice"), "the place is no meaning");
    let changes = [
        ("night", "speed=\"<5km/h\"", "speed=\"<6km/h\""),
        ("night", "leave=\"5km\"", "leave=\"6km\""),
        ("bulk", "after=\"30s\"", "after=\"31s\""),
        ("load", "full=\"70%\"", "full=\"71%\""),
        ("voice", "for=\"5m\"", "for=\"6m\""),
        ("voice", "cap=\"200MB\"", "cap=\"201MB\""),
        ("video", "together \"video\"", "together \"tv\""),
        ("guests", "breakout wlan0; otherwise block", "breakout wwan0; otherwise block"),
    ];
    for (name, from, to) in changes {
        let text = EVERYTHING.replacen(from, to, 1);
        assert_ne!(before(name), identity(&text, name), "{to}");
        assert_eq!(before("default"), identity(&text, "default"), "{to}");
    }
}
