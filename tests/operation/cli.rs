//! The `mtun` program against the owner task: documents, texts and exit codes.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mtun::control::documents::{AgentAddition, AgentSecurity};
use mtun::control::{Access, Event, Request};
use mtun_policy::{Bid, HomeAddress};
use serde_json::Value;

use super::documents;
use super::owner::{Owner, Plan, Scratch, example};
use super::users::{READ_GROUP, READER, WRITE_GROUP, may_change_user};

pub const OK: i32 = 0;
pub const DEGRADED: i32 = 1;
pub const USAGE: i32 = 2;
const NO_DAEMON: i32 = 3;
pub const REFUSED: i32 = 4;

pub fn mtun(socket: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
    command.args(words).arg("--socket").arg(socket);
    command.env_clear().stdin(Stdio::null());
    command
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// Runs with `--json`: the exit code and the one document.
pub fn json(socket: &Path, words: &[&str]) -> (i32, Value) {
    let output = mtun(socket, words).arg("--json").output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(stdout.ends_with('\n') && stdout.lines().count() == 1, "one line: {stdout}{stderr}");
    assert!(stdout.starts_with("{\"version\":1,\"ok\":"), "{stdout}");
    let document = serde_json::from_str(&stdout).unwrap();
    super::schema::check(&document);
    (output.status.code().unwrap(), document)
}

/// Runs for people: the exit code, standard output and standard error.
fn people(socket: &Path, words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = mtun(socket, words).output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

#[test]
fn every_command_has_its_document() {
    let owner = Owner::start(Plan::default());
    let policy = example("figure-11.kdl");
    let policy = policy.to_str().unwrap();
    let flow = "tcp 2001:db8:100:4200::5 -> 2001:db8:c::9 dport 22";
    // (words, exit code, kind, a pointer into the result, what it holds)
    type Case<'c> = (&'c [&'c str], i32, &'c str, &'c str, Value);
    let cases: &[Case<'_>] = &[
        (&[], DEGRADED, "status", "/health/state", "degraded".into()),
        (&["status"], DEGRADED, "status", "/health/reasons/0/code", "link-unusable".into()),
        (&["status"], DEGRADED, "status", "/homes/0/tunnel/mtu", 1460.into()),
        (&["links"], DEGRADED, "status", "/links/0/rtt_ms", Value::Null),
        (&["bindings"], OK, "bindings", "/bindings/1/care_of", "2001:db8:2::7".into()),
        (&["bindings"], OK, "bindings", "/bindings/0/expires_seconds", Value::Null),
        (&["bindings"], OK, "bindings", "/flow_bindings/1/state", "inactive".into()),
        (&["status"], DEGRADED, "status", "/homes/0/downlink/taken", "yes".into()),
        (&["status"], DEGRADED, "status", "/flow_bindings/2/status/code", 128.into()),
        (&["flows"], OK, "flows", "/flows/0/rule", "ssh".into()),
        (&["flows", "--limit", "1"], OK, "flows", "/matched", 2.into()),
        (&["flows", "proto", "tcp"], OK, "flows", "/filter", "proto tcp".into()),
        (&["flows"], OK, "flows", "/flows/0/downlink/fid", 1.into()),
        (&["explain", flow], OK, "explain", "/verdict/outcome", "forward".into()),
        (&["explain", flow, "--at", "agent"], OK, "explain", "/at_agent/as_uplink", true.into()),
        (
            &["explain", flow, "--policy", policy, "--at", "agent"],
            OK,
            "explain",
            "/at_agent/verdict/link",
            "wwan0".into(),
        ),
        (
            &["explain", flow, "--policy", policy, "--at", "agent", "--given", "wwan0=down"],
            OK,
            "explain",
            "/at_agent/verdict/link",
            "wlan0".into(),
        ),
        (
            &["explain", flow, "--policy", policy, "--given", "wwan0=down"],
            OK,
            "explain",
            "/verdict/link",
            "wlan0".into(),
        ),
        (
            &["steer", "proto tcp and dport 22", "via", "wwan0", "--for", "10m"],
            OK,
            "steer",
            "/override/remaining_seconds",
            600.into(),
        ),
        (&["steer", "list"], OK, "steer-list", "/overrides/0/id", 61440.into()),
        (&["steer", "undo", "61440"], OK, "steer-undo", "/undone/via", "wwan0".into()),
        (&["policy", "check", policy], OK, "policy-check", "/name", "figure-11".into()),
        (&["policy", "check", policy], OK, "policy-check", "/downlink/0/says", "expressed".into()),
        (&["policy", "test", policy], OK, "policy-test", "/failed", 0.into()),
        (&["policy", "apply", policy], OK, "policy-applied", "/rules", 3.into()),
        (
            &["policy", "apply", policy, "--confirm", "42s"],
            OK,
            "policy-applied",
            "/confirm_within_seconds",
            42.into(),
        ),
        (&["policy", "confirm"], OK, "policy-confirmed", "/confirmed/entry", 4.into()),
        (&["policy", "rollback"], OK, "policy-rolled-back", "/restored/entry", 3.into()),
        (&["policy", "history"], OK, "policy-history", "/entries/2/state", "rolled-back".into()),
        (&["policy", "history", "show", "3"], OK, "policy-history", "/entries/0/entry", 3.into()),
        (&["policy", "diff", policy], OK, "policy-diff", "/moves/0/to/via", "wlan0".into()),
        (&["policy", "diff", policy, "--from", policy], OK, "policy-diff", "/kept", 3.into()),
        (&["policy", "show"], OK, "policy", "/rules/0/line", 44.into()),
        (&["agent", "list"], OK, "agent-list", "/mobiles/0/last_heard_seconds", 12.into()),
        (&["agent", "list", "--home", "x"], OK, "agent-list", "/mobiles", Value::Array(vec![])),
        (
            &["agent", "add", "2001:db8:100::42", "--unprotected"],
            OK,
            "agent-changed",
            "/done",
            "added".into(),
        ),
        (&["agent", "remove", "2001:db8:100::42"], OK, "agent-changed", "/mobile", Value::Null),
        (
            &["agent", "revoke", "2001:db8:100::42", "--bid", "2"],
            OK,
            "agent-changed",
            "/ended",
            1.into(),
        ),
        (
            &["agent", "switch", "2001:db8:100::42", "--to", "2001:db8:100::2"],
            OK,
            "agent-switched",
            "/agents/0",
            "2001:db8:100::2".into(),
        ),
        (
            &["agent", "permit", "2001:db8:100::42"],
            OK,
            "agent-changed",
            "/done",
            "permitted".into(),
        ),
    ];
    for (words, exit, kind, pointer, want) in cases {
        let (code, document) = json(&owner.socket(), words);
        assert_eq!(code, *exit, "{words:?}: {document}");
        assert_eq!(document["version"], 1, "{words:?}");
        assert_eq!(document["ok"], true, "{words:?}: {document}");
        assert_eq!(document["result"]["kind"], *kind, "{words:?}");
        assert_eq!(document["result"].pointer(pointer), Some(want), "{words:?} {document}");
    }
}

#[test]
fn words_become_requests() {
    let owner = Owner::start(Plan::default());
    let steer = |filter: &str, seconds, reason: Option<&str>| Request::Steer {
        filter: filter.to_owned(),
        via: "wwan0".to_owned(),
        seconds,
        reason: reason.map(str::to_owned),
    };
    let explain = |given: &[&str]| Request::Explain {
        flow: "tcp a b".to_owned(),
        given: given.iter().map(|given| (*given).to_owned()).collect(),
    };
    let cases: &[(&[&str], Request)] = &[
        (
            &["steer", "proto tcp and dport 22 via wwan0", "--for", "1h30m"],
            steer("proto tcp and dport 22", 5400, None),
        ),
        (
            &["steer", "--for=90s", "--reason", "a test", "tcp", "via", "via", "wwan0"],
            steer("tcp via", 90, Some("a test")),
        ),
        (&["explain", "tcp", "a", "b"], explain(&[])),
        (
            &["explain", "tcp a b", "--given", "wlan0=down,wwan0=up", "--given", "x=y"],
            explain(&["wlan0=down", "wwan0=up", "x=y"]),
        ),
        (
            &[
                "agent",
                "add",
                "2001:db8:100::50",
                "--name",
                "tram",
                "--mobile-network",
                "2001:db8:100:5000::/64",
                "--spi",
                "0x1005",
                "--key-file",
                "/etc/mtun/tram.key",
                "--bindings",
                "4",
                "--home",
                "acme",
            ],
            Request::AgentAdd {
                mobile: AgentAddition {
                    home: Some("acme".into()),
                    home_address: "2001:db8:100::50".parse().unwrap(),
                    name: Some("tram".to_owned()),
                    mobile_networks: vec!["2001:db8:100:5000::/64".parse().unwrap()],
                    max_bindings: Some(4),
                    security: AgentSecurity::KeyFile {
                        spi: 0x1005,
                        algorithm: "hmac-sha256".to_owned(),
                        path: "/etc/mtun/tram.key".into(),
                    },
                    replace: false,
                },
            },
        ),
        (
            &["agent", "revoke", "2001:db8:100::42", "--bid", "7", "--yes"],
            Request::AgentRevoke {
                home_address: HomeAddress("2001:db8:100::42".parse().unwrap()),
                bid: Bid::new(7),
            },
        ),
        (&["flows"], Request::Flows { filter: None, limit: Some(100) }),
        (
            &["flows", "dport 22", "and", "via 2", "--limit", "0"],
            Request::Flows { filter: Some("dport 22 and via 2".to_owned()), limit: None },
        ),
    ];
    for (words, want) in cases {
        json(&owner.socket(), words);
        assert_eq!(owner.asked().as_slice(), std::slice::from_ref(want), "{words:?}");
    }
}

#[test]
fn what_cannot_be_done_says_why_in_both_forms() {
    let owner = Owner::start(Plan::default());
    let scratch = Scratch::new();
    let broken = scratch.join("broken.kdl");
    std::fs::write(&broken, "/- kdl-version 2\npolicy \"x\" schema=1\nfoo 1\nbar 2\n").unwrap();
    let broken = broken.to_str().unwrap();
    let failing = std::fs::read_to_string(example("figure-11.kdl")).unwrap();
    let failing = failing.replacen("via=wwan0", "via=wlan0", 1);
    let failed = scratch.join("failing.kdl");
    std::fs::write(&failed, failing).unwrap();
    let failed = failed.to_str().unwrap();
    let absent = scratch.join("absent");
    let absent = absent.to_str().unwrap();
    // (words, exit code, error code, a word of the text)
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["stats"], USAGE, "usage", "stats"),
        (&["status", "now"], USAGE, "usage", "now"),
        (&["--frobnicate"], USAGE, "usage", "--frobnicate"),
        (&["flows", "dport ssh"], USAGE, "usage", "ssh"),
        (&["flows", "--limit", "many"], USAGE, "usage", "many"),
        (&["explain"], USAGE, "usage", "FLOW"),
        (&["explain", "tcp", "--policy", absent], USAGE, "usage", "absent"),
        (&["explain", "tcp", "--at", "home"], USAGE, "usage", "agent"),
        (&["steer", "dport 22", "via", "wwan0"], USAGE, "usage", "--for"),
        (&["steer", "dport 22", "via", "wwan0", "--for", "10"], USAGE, "usage", "unit"),
        (&["steer", "dport 22", "--for", "10m"], USAGE, "usage", "via LINK"),
        (&["steer", "via", "wwan0", "--for", "10m"], USAGE, "usage", "via LINK"),
        (&["steer", "dport 22 via eth9", "--for", "10m"], REFUSED, "not-found", "eth9"),
        (&["steer", "undo", "9"], REFUSED, "not-found", "override 9"),
        (&["steer", "undo", "nine"], USAGE, "usage", "nine"),
        (&["agent", "add", "2001:db8::1"], USAGE, "usage", "--unprotected"),
        (&["agent", "add", "2001:db8::1", "--key-file", "x"], USAGE, "usage", "--spi"),
        (
            &["agent", "add", "2001:db8::1", "--key-file", "x", "--spi", "255"],
            USAGE,
            "usage",
            "reserved",
        ),
        (
            &["agent", "add", "2001:db8::1", "--security", "a", "--unprotected"],
            USAGE,
            "usage",
            "cannot be used with",
        ),
        (
            &["agent", "add", "2001:db8::1", "--unprotected", "--replace"],
            REFUSED,
            "refused",
            "policy file",
        ),
        (&["agent", "revoke", "2001:db8::1", "--bid", "0"], USAGE, "usage", "65535"),
        (&["agent", "permit", "2001:db8::1"], REFUSED, "not-found", "not served"),
        (&["policy", "check", absent], USAGE, "usage", "absent"),
        (&["policy", "check", broken], REFUSED, "policy-faults", "foo"),
        (&["policy", "apply", broken], REFUSED, "policy-faults", "foo"),
        (&["policy", "check", failed], REFUSED, "policy-faults", "expects"),
        (&["policy", "test", failed], REFUSED, "policy-faults", "failed"),
        (&["policy", "rollback", "9"], REFUSED, "not-found", "policy 9"),
        (&["policy", "history", "show", "9"], REFUSED, "not-found", "policy 9"),
        (&["policy", "apply", "x.kdl", "--confirm", "60"], USAGE, "usage", "unit"),
        (&["policy", "diff", "x.kdl", "--state", "y"], USAGE, "usage", "--from"),
        (&["policy", "diff", broken, "--from", failed], REFUSED, "policy-faults", "foo"),
        (
            &["policy", "diff", failed, "--from", failed, "--state", broken],
            USAGE,
            "usage",
            "no flows",
        ),
        (&["policy"], USAGE, "usage", "check"),
        (&["key", "new"], USAGE, "usage", "--out"),
        (&["key", "new", "--out", "x", "--spi", "255"], USAGE, "usage", "256"),
        (&["key", "new", "--out", "x", "--algorithm", "md5"], USAGE, "usage", "hmac-sha256"),
        (&["key", "new", "--out", "/tmp/x.key"], REFUSED, "refused", "chmod go-w"),
        (&["key", "new", "--out", ".."], USAGE, "usage", "name"),
        (&["demo", "--keep", "--stop"], USAGE, "usage", "--stop"),
    ];
    for (words, exit, code, word) in cases {
        let (got, document) = json(&owner.socket(), words);
        assert_eq!(got, *exit, "{words:?}: {document}");
        assert_eq!(document["ok"], false, "{words:?}");
        assert_eq!(document["error"]["code"], *code, "{words:?}: {document}");
        let error = document["error"].to_string();
        assert!(error.contains(word), "{words:?}: {word} is not in {error}");

        let (got, stdout, stderr) = people(&owner.socket(), words);
        assert_eq!(got, *exit, "{words:?}");
        let said = format!("{stdout}{stderr}");
        assert!(said.contains(word), "{words:?}: {word} is not in {said}");
    }
    let (_, document) = json(&owner.socket(), &["policy", "check", broken]);
    let lines = document["error"]["faults"].as_array().unwrap().iter().map(|f| &f["line"]);
    let lines: Vec<_> = lines.collect();
    assert!(lines.contains(&&Value::from(3)) && lines.contains(&&Value::from(4)), "{document}");
    let (_, document) = json(&owner.socket(), &["policy", "test", failed]);
    assert_eq!(document["result"]["failed"], 1, "the proof comes with the error");
}

#[test]
fn without_a_daemon_every_question_says_what_to_start() {
    let scratch = Scratch::new();
    let stale = scratch.join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let questions: &[&[&str]] = &[
        &[],
        &["status"],
        &["bindings"],
        &["flows"],
        &["explain", "tcp a -> b"],
        &["steer", "dport 22 via wwan0", "--for", "1m"],
        &["steer", "list"],
        &["steer", "undo", "1"],
        &["policy", "apply", "x.kdl"],
        &["policy", "confirm"],
        &["policy", "rollback"],
        &["policy", "history"],
        &["policy", "diff", "x.kdl"],
        &["policy", "show"],
        &["agent", "list"],
        &["agent", "add", "2001:db8::1", "--unprotected"],
        &["agent", "remove", "2001:db8::1"],
        &["monitor"],
    ];
    for socket in [scratch.join("none.sock"), stale] {
        for words in questions {
            let (exit, document) = json(&socket, words);
            assert_eq!((exit, &document["error"]["code"]), (NO_DAEMON, &"no-daemon".into()));
            let (exit, stdout, stderr) = people(&socket, words);
            assert_eq!((exit, stdout.as_str()), (NO_DAEMON, ""), "{words:?}");
            assert!(stderr.contains("mtund --policy"), "{words:?}: {stderr}");
        }
    }
}

#[test]
fn the_socket_comes_from_the_option_or_the_environment() {
    let owner = Owner::start(Plan::default());
    let mut by_environment = Command::new(env!("CARGO_BIN_EXE_mtun"));
    by_environment.env_clear().env("MTUN_SOCKET", owner.socket()).args(["steer", "list"]);
    assert_eq!(by_environment.output().unwrap().status.code(), Some(OK));
    let mut option_wins = mtun(&owner.socket(), &["steer", "list"]);
    option_wins.env("MTUN_SOCKET", "/nonexistent");
    assert_eq!(option_wins.output().unwrap().status.code(), Some(OK));
}

/// Text for people is read by eyes: as snapshots.
#[test]
fn the_texts() {
    let mobile = Owner::start(Plan::default());
    let agent = Owner::start(Plan { status: documents::agent_status(), ..Plan::default() });
    let server = Plan { status: documents::correspondent_status(), ..Plan::default() };
    let correspondent = Owner::start(server);
    let texts: &[(&str, &Owner, &[&str], i32)] = &[
        ("status", &mobile, &["status"], DEGRADED),
        ("status-agent", &agent, &["status"], OK),
        ("links", &mobile, &["links"], DEGRADED),
        ("bindings", &mobile, &["bindings"], OK),
        ("status-correspondent", &correspondent, &["status"], OK),
        ("bindings-correspondent", &correspondent, &["bindings"], OK),
        ("flows", &mobile, &["flows"], OK),
        ("explain", &mobile, &["explain", "x"], OK),
        ("explain-at-agent", &mobile, &["explain", "x", "--at", "agent"], OK),
        ("bindings-agent", &agent, &["bindings"], OK),
        ("steer-list", &mobile, &["steer", "list"], OK),
        ("policy-show", &mobile, &["policy", "show"], OK),
        ("policy-history", &mobile, &["policy", "history"], OK),
        ("policy-history-show", &mobile, &["policy", "history", "show", "3"], OK),
        ("policy-diff", &mobile, &["policy", "diff", "x.kdl"], OK),
        ("policy-confirm", &mobile, &["policy", "confirm"], OK),
        ("policy-rollback", &mobile, &["policy", "rollback"], OK),
        ("agent-list", &agent, &["agent", "list"], OK),
        ("agent-revoke", &agent, &["agent", "revoke", "2001:db8:100::42", "--bid", "2"], OK),
    ];
    for (name, owner, words, exit) in texts {
        let (code, wide, stderr) = people(&owner.socket(), words);
        assert_eq!((code, stderr.as_str()), (*exit, ""), "{name}");
        insta::assert_snapshot!(*name, wide);
        let bare = |text: &str| text.split_whitespace().any(|word| word == "-" || word == "null");
        assert!(!bare(&wide), "{name} has a bare dash");
        assert!(!wide.contains('\x1b'), "{name} has colour without a terminal");

        let narrow = mtun(&owner.socket(), words).env("COLUMNS", "64").output().unwrap();
        let narrow = text(&narrow.stdout);
        let too_wide = |line: &&str| line.chars().count() > 64;
        assert_eq!(narrow.lines().find(too_wide), None, "{name} is wider than the terminal");
    }
}

#[test]
fn colour_is_for_those_who_want_it() {
    let owner = Owner::start(Plan::default());
    let cases: &[(&[&str], Option<&str>, bool)] = &[
        (&["status"], None, false),
        (&["status", "--color", "always"], None, true),
        (&["status", "--color", "always"], Some("1"), true),
        (&["status", "--color", "never"], None, false),
        (&["status", "--color", "auto"], Some("1"), false),
    ];
    for (words, no_color, colored) in cases {
        let mut command = mtun(&owner.socket(), words);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let stdout = text(&command.output().unwrap().stdout);
        assert_eq!(stdout.contains('\x1b'), *colored, "{words:?} {no_color:?}");
    }
}

#[test]
fn a_monitor_prints_one_line_per_event() {
    for as_json in [true, false] {
        let owner = Owner::start(Plan::default());
        let mut command = mtun(&owner.socket(), &["monitor"]);
        if as_json {
            command.arg("--json");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (heard, hear) = std::sync::mpsc::channel();
        let reader =
            std::thread::spawn(move || lines.for_each(|line| heard.send(line.unwrap()).unwrap()));
        let down = Event::LinkDown { link: "wlan0".into(), reason: "carrier\x1b[2J-lost".into() };
        // Events from before the subscription are nobody's: they are told until one is heard.
        let line = (0..4000).find_map(|_| {
            // Without a monitor there is nobody to take it.
            owner.listeners.tell(down.clone().into());
            hear.recv_timeout(Duration::from_millis(10)).ok()
        });
        let line = line.expect("a monitor prints what it hears");
        if as_json {
            let event: Value = serde_json::from_str(&line).unwrap();
            super::schema::check(&event);
            assert_eq!((&event["version"], &event["event"]), (&1.into(), &"link-down".into()));
            assert_eq!(event["link"], "wlan0");
        } else {
            assert!(line.contains("link wlan0 is down: carrier"), "{line}");
            assert!(!line.contains('\x1b'), "{line}");
        }
        owner.stop();
        reader.join().unwrap();
        let last = hear.try_iter().last();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(NO_DAEMON));
        if as_json {
            let error: Value = serde_json::from_str(&last.unwrap()).unwrap();
            assert_eq!(error["error"]["code"], "no-daemon");
        } else {
            assert!(text(&output.stderr).contains("the daemon has stopped"));
        }
    }
}

#[test]
fn a_closed_output_ends_quietly() {
    let owner = Owner::start(Plan::default());
    let mut child = mtun(&owner.socket(), &["status"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(DEGRADED), ""));
}

#[test]
fn a_reader_is_refused_what_changes_something() {
    if !may_change_user("command line: a user of the read group") {
        return;
    }
    let access = Access {
        read_group: Some(READ_GROUP),
        write_group: Some(WRITE_GROUP),
        ..Access::default()
    };
    let owner = Owner::start(Plan { access, ..Plan::default() });
    // The build directory may be closed to others.
    let program = owner.scratch.join("mtun");
    // By another process: a test that forks at this moment would inherit a descriptor of ours
    // that is open for writing, and nobody could run the program meanwhile.
    let copied = Command::new("install")
        .args(["-m", "755", env!("CARGO_BIN_EXE_mtun")])
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.env_clear().arg("--socket").arg(owner.socket()).args(words).arg("--json");
        // SAFETY: the child has one thread and makes three system calls.
        unsafe { command.pre_exec(|| READER.become_in_thread()) };
        let output = command.output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), document)
    };
    assert_eq!(run(&["status"]).0, DEGRADED);
    let (exit, document) = run(&["steer", "dport 22 via wwan0", "--for", "1m"]);
    assert_eq!((exit, &document["error"]["code"]), (REFUSED, &"forbidden".into()));
    let help = document["error"]["help"].as_str().unwrap();
    assert!(help.contains(&WRITE_GROUP.to_string()), "{help}");
}
