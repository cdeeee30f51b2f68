//! What a role that is not in the policy does not start, read from running daemons.

use std::collections::BTreeSet;

use mtun::lab::namespace::wait_for;

use crate::fixture::PATIENCE;
use crate::ground::Ground;
use crate::need_lab;

const LINKS: &str = r#"
interface "wlan0" { bid 1; }
interface "wwan0" { bid 2; }
"#;

const HOME: &str = r#"
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    security none
    route-optimization traffic
}
rules {
    rule "ssh" { match proto=tcp dport=22; prefer wwan0 wlan0; }
    default { prefer wlan0 wwan0; }
}
"#;

fn mobile(role: &str, further: &str) -> String {
    format!("role \"{role}\"\n{LINKS}{HOME}{further}\n")
}

const AGENT: &str = r#"
role "home-agent"
home "acme" {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1"
    allow "2001:db8:100::42" { security none; }
}
"#;

const CORRESPONDENT: &str = r#"
role "correspondent"
correspondent {
    tunnel mtun0
    address "2001:db8:1::9"
}
"#;

/// Names of the threads of a daemon.
fn threads(ground: &Ground, name: &str) -> BTreeSet<String> {
    let id = ground.daemon(name).process.id();
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    };
    tasks.map(name).map(|name| name.trim().to_owned()).collect()
}

/// What of the machine shows the roles of the daemon on it.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// Whether the machine is a router.
    forwards: bool,
    /// `accept_ra` of an uplink: 2 is set for routers that have uplinks.
    accepts_routers: String,
    /// Raw sockets bound to uplinks; one that is bound to none is every role's.
    uplinks_are_open: bool,
    /// Whether what local programs send is looked at first.
    has_routing_rules: bool,
    /// Home addresses and prefixes that may not leave in the plain.
    guarded: Vec<String>,
    /// The thread that writes bindings down.
    stores_bindings: bool,
    /// The files of the state directory that are a role's, without their endings.
    files: BTreeSet<String>,
}

impl Shown {
    fn of(ground: &Ground, name: &str) -> Self {
        let machine = ground.at(name);
        let sysctl = |key: &str| machine.sysctl(key).unwrap();
        let raw = machine.exec("cat /proc/net/raw6").unwrap().lines().skip(1).count();
        let firewall = machine.exec("nft -j list set ip6 mtun home").unwrap();
        let firewall: serde_json::Value = serde_json::from_str(&firewall).unwrap();
        let sets = firewall["nftables"].as_array().unwrap().iter();
        let elements = sets.filter_map(|it| it["set"]["elem"].as_array()).flatten();
        let files = std::fs::read_dir(ground.directory(name).join("state")).unwrap();
        let files = files.map(|file| {
            let file = file.unwrap().file_name().into_string().unwrap();
            file.split('.').next().unwrap_or_default().to_owned()
        });
        let of_a_role = |file: &String| !file.starts_with("polic") && !file.starts_with("sysctl");
        Self {
            forwards: sysctl("ipv6/conf/all/forwarding").trim() == "1",
            accepts_routers: sysctl("ipv6/conf/wlan0/accept_ra").trim().to_owned(),
            uplinks_are_open: raw > 1,
            has_routing_rules: machine.exec("ip -6 rule").unwrap().contains("proto 135"),
            guarded: elements.map(|it| it.as_str().unwrap().to_owned()).collect(),
            stores_bindings: threads(ground, name).contains("store"),
            files: files.filter(of_a_role).collect(),
        }
    }
}

fn machine(ground: &mut Ground, name: &'static str) {
    ground.bystanders(&["net"], &[]);
    ground.mobiles(&[name]);
    ground.cable((name, "wlan0", &["2001:db8:1::9/64"]), ("net", "wlan", &["2001:db8:1::1/64"]));
    ground.cable((name, "wwan0", &["2001:db8:2::9/64"]), ("net", "wwan", &["2001:db8:2::1/64"]));
}

/// A mobile node does not forward, a correspondent has neither rules of routing nor sockets on
/// uplinks, bindings are written down by agents only, and nobody opens a UDP socket.
#[test]
fn roles_that_are_not_in_the_policy_are_not_started() {
    need_lab!();
    let mobile_shown = |forwards, accepts_routers: &str| Shown {
        forwards,
        accepts_routers: accepts_routers.to_owned(),
        uplinks_are_open: true,
        has_routing_rules: true,
        guarded: vec!["2001:db8:100::42".to_owned()],
        stores_bindings: false,
        files: BTreeSet::new(),
    };
    let other = |forwards, stores_bindings| Shown {
        forwards,
        accepts_routers: "1".to_owned(),
        uplinks_are_open: false,
        has_routing_rules: false,
        guarded: Vec::new(),
        stores_bindings,
        files: if stores_bindings {
            BTreeSet::from(["bindings".to_owned(), "losses".to_owned()])
        } else {
            BTreeSet::new()
        },
    };
    let cases = [
        ("node", mobile("mobile-node", ""), mobile_shown(false, "1")),
        ("router", mobile("mobile-router", ""), mobile_shown(true, "2")),
        ("both", mobile("mobile-node", "correspondent"), mobile_shown(false, "1")),
        ("agent", AGENT.to_owned(), other(true, true)),
        ("relay", format!("{AGENT}correspondent\n"), other(true, true)),
        ("server", CORRESPONDENT.to_owned(), other(false, false)),
    ];
    for (name, policy, expected) in cases {
        let mut ground = Ground::new();
        machine(&mut ground, name);
        ground.start(name, &policy);
        if expected.uplinks_are_open {
            // Its uplinks are attached by then.
            wait_for("sockets of the uplinks", PATIENCE, || {
                Shown::of(&ground, name).uplinks_are_open.then_some(())
            })
            .unwrap();
        }
        assert_eq!(Shown::of(&ground, name), expected, "{name}");
        let udp = ground.at(name).exec("cat /proc/net/udp6 /proc/net/udp").unwrap();
        assert_eq!(udp.lines().filter(|line| !line.contains("local_address")).count(), 0, "{udp}");
        assert!(!threads(&ground, name).contains("ledger"), "{name}: no link has a quota");
    }
}

/// Which words of route optimization a running daemon takes, and which need a restart.
#[test]
fn rules_say_otherwise_while_the_daemon_runs() {
    need_lab!();
    let mut ground = Ground::new();
    machine(&mut ground, "node");
    let text = mobile("mobile-node", "");
    ground.start("node", &text);
    let file = ground.directory("node").join("next.kdl");
    let apply = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        ground.daemon("node").mtun(&["policy", "apply", file.to_str().unwrap()]).unwrap()
    };
    let says = || {
        let shown = ground.daemon("node").mtun_ok(&["policy", "show"]).unwrap();
        let (rule, home) = (&shown["rules"][0], &shown["homes"][0]);
        format!("{}; {}", rule["says"].as_str().unwrap(), home["route_optimization"])
    };
    assert_eq!(says(), "prefer wwan0 wlan0; \"traffic\"");
    let verb = "prefer wwan0 wlan0;";
    let live = [
        (verb, "prefer wwan0 wlan0; optimize never;", ", optimize never; \"traffic\""),
        (verb, "prefer wwan0 wlan0; optimize always;", ", optimize always; \"traffic\""),
        ("optimization traffic", "optimization policy", "; \"policy\""),
    ];
    for (from, to, expected) in live {
        let applied = apply(from, to);
        assert_eq!(applied["ok"], true, "{to}: {applied}");
        assert_eq!(says(), format!("prefer wwan0 wlan0{expected}"), "{to}");
    }
    let started = "route-optimization traffic";
    let later = [
        (started, "route-optimization off", "route-optimization of home acme"),
        (started, "route-optimization traffic lifetime=\"40s\"", "route-optimization of home acme"),
        (
            started,
            "route-optimization traffic\n    returning-home foreign",
            "returning-home of home acme",
        ),
        ("rules {", "correspondent\nrules {", "correspondent"),
        ("rules {", "correspondent off answer=parameter-problem\nrules {", "correspondent"),
        ("mobile-node", "mobile-router", "role"),
    ];
    for (from, to, named) in later {
        let refused = apply(from, to);
        let why = refused["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(why.ends_with(&format!("than a running daemon can: {named}")), "{to}: {refused}");
        assert_eq!(says(), "prefer wwan0 wlan0; \"policy\"", "{to}: nothing changed");
    }
}
