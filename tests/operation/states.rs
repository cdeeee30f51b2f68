//! What people read in the four states of a node: up, degraded, no link, no daemon.
//!
//! In each of them a line of at most 80 columns, health before everything else, no bare dash, and
//! the exit code of the table in docs/commands.md.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mtun::control::documents::{
    BindingPhase, Event, Health, LinkState, QuotaLevel, RouteState, Severity, StatusCode,
    StatusDocument, TakenBack,
};
use mtun_policy::RadioRegistration::Roaming;
use mtun_policy::Technology::Lte;
use mtun_policy::steering::Admin;
use serde_json::Value;

use super::documents::{self, bid, care_of};
use super::owner::{Owner, Plan, Scratch, example};

/// The mobile router with all that it needs.
pub fn up() -> StatusDocument {
    let mut status = documents::status();
    let pairs = status.links.iter_mut().zip(&mut status.bindings);
    for ((link, binding), care_of) in pairs.zip(["2001:db8:1::7", "2001:db8:2::7"]) {
        link.state = LinkState::Up;
        link.reason = None;
        link.care_of = Some(documents::care_of(care_of));
        link.since_seconds = Some(7200);
        link.rtt_ms = Some(23.4);
        link.rtt_p95_ms = Some(31.0);
        link.jitter_ms = Some(2.25);
        link.conversation_rtt_ms = Some(41.5);
        link.mtu = Some(1500);
        link.loss_ratio = Some(0.004);
        link.signal_dbm = Some(-71);
        binding.phase = BindingPhase::Registered;
        binding.usable = true;
        binding.care_of = link.care_of;
        binding.granted_seconds = Some(420);
        binding.expires_seconds = Some(300);
        binding.status = Some(StatusCode { code: 0, name: "accepted".to_owned() });
    }
    status.flow_bindings.clear();
    status.overrides.clear();
    if let Some(downlink) = &mut status.homes[0].downlink {
        downlink.refused = 0;
    }
    judged(status)
}

/// The same in a tunnel: no link carries anything.
pub fn no_link() -> StatusDocument {
    let mut status = up();
    for (link, binding) in status.links.iter_mut().zip(&mut status.bindings) {
        link.state = LinkState::Down;
        link.reason = Some("no carrier or no care-of address".to_owned());
        link.care_of = None;
        link.since_seconds = Some(3);
        link.rtt_ms = None;
        link.rtt_p95_ms = None;
        link.jitter_ms = None;
        link.conversation_rtt_ms = None;
        link.mtu = None;
        link.loss_ratio = None;
        link.signal_dbm = None;
        binding.phase = BindingPhase::Idle;
        binding.usable = false;
        binding.care_of = None;
        binding.expires_seconds = None;
    }
    for route in &mut status.routes {
        route.state = RouteState::Resting;
        route.care_of = None;
        route.expires_seconds = None;
        route.reason = Some("link-down".to_owned());
    }
    judged(status)
}

fn judged(status: StatusDocument) -> StatusDocument {
    let health = Health::judge(&status.homes, &status.links, &status.bindings, Vec::new());
    StatusDocument { health, ..status }
}

/// What a command says at 80 columns in a directory, and how it ends.
pub fn said_in(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
    command.args(words).current_dir(directory).env_clear().env("COLUMNS", "80");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let shown = words.iter().position(|word| *word == "--socket").unwrap_or(words.len());
    format!("$ mtun {}\n{text}exit {}\n", words[..shown].join(" "), output.status.code().unwrap())
}

/// The same, asked of a daemon: by its socket's name alone, for its directory is another each time.
fn said(socket: &Path, words: &[&str]) -> String {
    let name = socket.file_name().unwrap().to_str().unwrap();
    said_in(socket.parent().unwrap(), &[words, &["--socket", name]].concat())
}

/// No line is wider than the terminal, and what is not known is said in words.
pub fn reads_well(what: &str, page: &str) {
    // Of what was typed and of a quoted line of a file the width is not ours.
    let ours = |line: &&str| !line.starts_with("$ ") && !line.contains(" | ");
    let wide = |line: &&str| ours(line) && line.chars().count() > 80;
    assert_eq!(page.lines().find(wide), None, "{what}: a line is wider than 80 columns");
    let dash = |word: &str| word == "-" || word == "null";
    // A dash before an item of a list is none.
    let mut words = page
        .lines()
        .flat_map(|line| line.trim_start().strip_prefix("- ").unwrap_or(line).split_whitespace());
    assert!(!words.any(dash), "{what} has a bare dash:\n{page}");
}

/// Commands that ask for the state, and how they end in it: well, degraded, without a link, without a
/// daemon.
const ASKING: [(&[&str], [i32; 4]); 25] = [
    (&["status"], [0, 1, 1, 3]),
    (&["links"], [0, 1, 1, 3]),
    (&["bindings"], [0, 0, 0, 3]),
    (&["flows"], [0, 0, 0, 3]),
    (&["steer", "list"], [0, 0, 0, 3]),
    (&["link", "drain", "wwan0"], [0, 0, 0, 3]),
    (&["policy", "show"], [0, 0, 0, 3]),
    (&["policy", "history"], [0, 0, 0, 3]),
    (&["policy", "diff", "figure-11.kdl"], [0, 0, 0, 3]),
    (&["explain", "dport 22"], [0, 0, 0, 3]),
    (&["explain", "dport 22", "--at", "agent"], [0, 0, 0, 3]),
    (&["steer", "dport 22 via wwan0", "--for", "10m"], [0, 0, 0, 3]),
    (&["steer", "undo", "61440"], [0, 0, 0, 3]),
    (&["link", "hold", "wwan0"], [0, 0, 0, 3]),
    (&["link", "release", "wwan0"], [0, 0, 0, 3]),
    (&["policy", "apply", "figure-11.kdl", "--confirm", "60s"], [0, 0, 0, 3]),
    (&["policy", "confirm"], [0, 0, 0, 3]),
    (&["policy", "rollback"], [0, 0, 0, 3]),
    (&["policy", "history", "show", "3"], [0, 0, 0, 3]),
    (&["agent", "list"], [0, 0, 0, 3]),
    (&["agent", "add", BUS, "--unprotected"], [0, 0, 0, 3]),
    (&["agent", "remove", BUS], [0, 0, 0, 3]),
    (&["agent", "revoke", BUS, "--bid", "2"], [0, 0, 0, 3]),
    (&["agent", "permit", BUS], [0, 0, 0, 3]),
    (&["agent", "switch", BUS], [0, 0, 0, 3]),
];

/// A mobile of the agent.
const BUS: &str = "2001:db8:100::42";

/// What the doctor finds on a healthy machine. What this very machine has, a firewall and a clock, is
/// left out.
fn doctor(socket: &Path) -> String {
    let root = socket.with_file_name("root");
    for (file, text) in [
        ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
        ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
        ("proc/self/status", "Name:\tmtun\nCapEff:\t0000000000003000\n"),
        ("sys/class/net/wlan0/mtu", "1500\n"),
        ("sys/class/net/wwan0/mtu", "1300\n"),
        ("dev/net/tun", ""),
    ] {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let text = said(socket, &["doctor", "--root", "root"]);
    let ours = |block: &&str| {
        !["nft", "clock"].iter().any(|it| block.starts_with(&format!("CHECK  {it}\n")))
    };
    text.split("\n\n").filter(ours).collect::<Vec<_>>().join("\n\n")
}

/// What is supposed of the links, so that the policy's own explanation is that of the state.
const SUPPOSED: [&[&str]; 4] = [
    &["--policy", "figure-11.kdl"],
    &["--policy", "figure-11.kdl", "--given", "wlan0=down"],
    &["--policy", "figure-11.kdl", "--given", "wlan0=down,wwan0=down"],
    &[],
];

#[test]
fn every_state_reads_well() {
    let up = Owner::start(Plan { status: up(), ..Plan::default() });
    let degraded = Owner::start(Plan::default());
    let no_link = Owner::start(Plan { status: no_link(), ..Plan::default() });
    let nobody = Scratch::new();
    let states = [
        ("up", up.socket()),
        ("degraded", degraded.socket()),
        ("no-link", no_link.socket()),
        ("no-daemon", nobody.join("control.sock")),
    ];
    for (number, (state, socket)) in states.into_iter().enumerate() {
        let file = socket.with_file_name("figure-11.kdl");
        std::fs::copy(example("figure-11.kdl"), file).unwrap();
        let mut page = String::new();
        for (words, exits) in ASKING {
            let exit = exits[number];
            let text = said(&socket, words);
            assert!(text.ends_with(&format!("exit {exit}\n")), "{state}: {text}");
            if words == ["status"] && exit != 3 {
                let first = text.lines().nth(1).unwrap();
                assert!(first.starts_with("health"), "{state}: {text}");
            }
            page.push_str(&text);
            page.push('\n');
        }
        let flow = "tcp 2001:db8:100:4200::5 -> 2001:db8:c::9 dport 80";
        page.push_str(&said(&socket, &[&["explain", flow], SUPPOSED[number]].concat()));
        page.push('\n');
        page.push_str(&doctor(&socket));
        reads_well(state, &page);
        insta::assert_snapshot!(format!("state-{state}"), page);
    }
}

/// One of each event, as people read them.
fn events() -> Vec<Event> {
    let (wlan, wwan) = (|| "wlan0".into(), || "wwan0".into());
    let (home, address) = (|| "acme".into(), "2001:db8:2::7");
    let peer = "2001:db8:ffff::1".parse().unwrap();
    let mobile = documents::agent_mobile();
    vec![
        Event::LinkUp {
            link: wwan(),
            care_of: care_of(address),
            router: Some("fe80::1".parse().unwrap()),
        },
        Event::LinkDown { link: wlan(), reason: "carrier-lost".to_owned() },
        Event::LinkState {
            home: home(),
            link: wlan(),
            from: "up".to_owned(),
            to: "down".to_owned(),
            reason: "no carrier or no care-of address".to_owned(),
        },
        Event::Radio { link: wwan(), registration: Some(Roaming), technology: Some(Lte) },
        Event::PathMtu { link: wwan(), octets: 1400, interface_octets: 1500 },
        Event::Quota {
            link: wwan(),
            level: QuotaLevel::Warned,
            octets: 8_000_000_000,
            limit: 10_000_000_000,
        },
        Event::CapReached { home: home(), rule: "voice".into() },
        Event::Bound {
            home: home(),
            bid: Some(bid(2)),
            link: Some(wwan()),
            care_of: care_of(address),
            granted_seconds: 420,
            first: true,
        },
        Event::Unbound {
            home: home(),
            bid: Some(bid(1)),
            link: Some(wlan()),
            reason: "path-lost".to_owned(),
        },
        Event::AtHome { home: home(), link: Some(wlan()), beside: true, neighbours: false },
        Event::LeftHome { home: home() },
        Event::FlowBindings { home: home(), held: 2, refused: 1 },
        Event::RouteOptimized {
            home: home(),
            correspondent: peer,
            bid: bid(2),
            link: Some(wwan()),
            care_of: care_of(address),
            granted_seconds: 400,
            first: true,
        },
        Event::RouteTunnelled {
            home: home(),
            correspondent: peer,
            bid: bid(2),
            link: Some(wwan()),
            reason: "headers eaten".to_owned(),
        },
        Event::CorrespondentChanged {
            correspondent: peer,
            home_address: mobile.home_address,
            care_of: vec![care_of(address)],
        },
        Event::MobileChanged {
            home: home(),
            home_address: mobile.home_address,
            care_of: vec![care_of(address)],
            prefixes: mobile.mobile_networks,
        },
        Event::Published { home: home(), generation: 7 },
        Event::LinkAdministered { link: wlan(), admin: Admin::Drained, uid: Some(0) },
        Event::Steered {
            id: 61440,
            filter: "proto tcp and dport 22".to_owned(),
            via: wwan(),
            seconds: 600,
            reason: Some("demo".to_owned()),
        },
        Event::SteerEnded { id: 61440, expired: true },
        Event::PolicyApplied { name: "city-bus".to_owned() },
        Event::PolicyOnTrial { name: "city-bus".to_owned(), seconds: 60 },
        Event::PolicyConfirmed { name: "city-bus".to_owned() },
        Event::PolicyTakenBack {
            name: "city-bus".to_owned(),
            restored: "night".to_owned(),
            why: TakenBack::TimeOver,
        },
        Event::PolicyRefused { message: "there is no link eth9".to_owned() },
        Event::Notice {
            severity: Severity::Warning,
            code: "authentication-failed".to_owned(),
            text: "an update in the name of 2001:db8:100::42 had another key".to_owned(),
        },
        Event::Lost { count: 3 },
    ]
}

/// The words that a schema has for the field `event`.
fn kinds_of(schema: &Value, kinds: &mut BTreeSet<String>) {
    let word = schema.pointer("/properties/event/const").and_then(Value::as_str);
    kinds.extend(word.map(str::to_owned));
    match schema {
        Value::Object(words) => words.values().for_each(|inner| kinds_of(inner, kinds)),
        Value::Array(items) => items.iter().for_each(|inner| kinds_of(inner, kinds)),
        _ => {}
    }
}

#[test]
fn every_event_reads_well() {
    let mut kinds = BTreeSet::new();
    kinds_of(&super::schema::schema("event"), &mut kinds);
    let told: BTreeSet<String> = events()
        .iter()
        .map(|event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, kinds, "one of each that the schema knows");
    for json in [false, true] {
        let owner = Owner::start(Plan::default());
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
        command.arg("monitor").arg("--socket").arg(owner.socket()).env_clear();
        command.args(json.then_some("--json")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (heard, hear) = std::sync::mpsc::channel();
        let reader =
            std::thread::spawn(move || lines.for_each(|line| heard.send(line.unwrap()).unwrap()));
        // Events from before the subscription are nobody's: one is told until it is heard.
        let first = (0..4000).any(|_| {
            owner.listeners.tell(Event::Lost { count: 1 }.into());
            hear.recv_timeout(Duration::from_millis(10)).is_ok()
        });
        assert!(first, "a monitor prints what it hears");
        events().into_iter().for_each(|event| owner.listeners.tell(event.into()));
        let mut lines = Vec::new();
        while lines.len() < events().len() {
            let line = hear.recv_timeout(Duration::from_secs(30)).expect("every event is told");
            lines.extend(Some(line).filter(|line| !is_first(line)));
        }
        owner.stop();
        reader.join().unwrap();
        child.wait().unwrap();
        if json {
            // The last line says that the daemon has stopped.
            for line in lines.iter().chain(&hear.try_iter().collect::<Vec<_>>()) {
                super::schema::check(&serde_json::from_str(line).unwrap());
            }
            continue;
        }
        // Behind the time of day.
        let words = lines.iter().map(|line| line.split_once(' ').expect("a time").1.trim_start());
        insta::assert_snapshot!("events", words.collect::<Vec<_>>().join("\n"));
    }
}

/// Whether a line is of the event that was told until it was heard.
fn is_first(line: &str) -> bool {
    line.contains("\"count\":1}") || line.ends_with(" 1 events lost: this reader was too slow")
}
