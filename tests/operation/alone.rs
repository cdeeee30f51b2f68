//! What people read from the commands that need no daemon, and which commands those are.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::owner::{Scratch, example};
use super::states::{reads_well, said_in};

/// A directory with what the commands are asked about.
fn desk() -> Scratch {
    let desk = Scratch::new();
    let copy = |name: &str| std::fs::copy(example(name), desk.join(name)).unwrap();
    copy("figure-11.kdl");
    copy("home-agent.kdl");
    let fine = std::fs::read_to_string(example("figure-11.kdl")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(desk.join(name), text).unwrap();
    write("failing.kdl", &fine.replacen("via=wwan0", "via=wlan0", 1));
    write("messy.kdl", &fine.replace("    ", "\t"));
    write(
        "broken.kdl",
        &fine.replacen("prefer wwan0 wlan0", "prefer wwan1 wlan0\n        perfer wlan0", 1),
    );
    let mwan3 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mwan3/two-uplinks");
    std::fs::copy(mwan3, desk.join("mwan3")).unwrap();
    desk
}

const SSH: &str = "tcp 2001:db8:100:4200::10 -> 2001:db8:ffff::1 dport 22";

/// A snapshot's name, and the commands on it with how they end.
type Sheet = (&'static str, &'static [(&'static [&'static str], i32)]);

const SHEETS: [Sheet; 5] = [
    (
        "alone-policy",
        &[
            (&["policy", "check", "figure-11.kdl"], 0),
            (&["policy", "check", "home-agent.kdl"], 0),
            (&["policy", "check", "broken.kdl"], 4),
            (&["policy", "check", "failing.kdl"], 4),
            (&["policy", "check", "absent.kdl"], 2),
            (&["policy", "test", "figure-11.kdl"], 0),
            (&["policy", "test", "failing.kdl"], 4),
            (&["policy", "fmt", "--check", "figure-11.kdl", "messy.kdl"], 1),
            (&["policy", "fmt", "figure-11.kdl", "messy.kdl"], 0),
            (&["policy", "diff", "figure-11.kdl", "--from", "failing.kdl"], 0),
            (&["policy", "diff", "broken.kdl", "--from", "figure-11.kdl"], 4),
        ],
    ),
    (
        "alone-explain",
        &[
            (&["explain", SSH, "--policy", "figure-11.kdl"], 0),
            (&["explain", SSH, "--policy", "figure-11.kdl", "--given", "wwan0=down"], 0),
            (&["explain", SSH, "--policy", "figure-11.kdl", "--at", "agent"], 0),
            (&["explain", "tcp 2001:db8::1 -> 2001:db8::2", "--policy", "figure-11.kdl"], 0),
            (&["explain", "tcp nobody", "--policy", "figure-11.kdl"], 2),
        ],
    ),
    (
        "alone-key-and-init",
        &[
            (&["key", "new", "--spi", "0x1001", "--out", "acme.key"], 0),
            (&["key", "new", "--spi", "0x1001", "--out", "acme.key"], 4),
            (&["key", "new", "--spi", "255", "--out", "other.key"], 2),
            (&["init", "router", "--uplink", "wlan0", "--uplink", "wwan0", "--to", "router"], 0),
            (&["init", "router", "--uplink", "wlan0", "--to", "router"], 4),
            (&["init", "node", "--uplink", "wlan0", "--to", "node"], 0),
            (&["init", "agent", "--to", "agent"], 0),
            (&["init", "correspondent", "--to", "correspondent"], 0),
        ],
    ),
    (
        "alone-pages",
        &[
            (&["man", "man"], 0),
            (&["import", "mwan3", "absent"], 2),
            (&["schema"], 0),
            (&["schema", "nothing"], 4),
            (&["completions", "tcsh"], 2),
        ],
    ),
    (
        "alone-usage",
        &[
            (&["--help"], 0),
            (&["--version"], 0),
            (&["steer", "--help"], 0),
            (&["policy", "--help"], 0),
            (&["stats"], 2),
            (&["steer", "dport 22", "via", "wwan0"], 2),
            (&["links", "--wide"], 2),
        ],
    ),
];

#[test]
fn the_commands_that_need_no_daemon_read_well() {
    for (name, commands) in SHEETS {
        // Some of them write.
        let desk = desk();
        std::fs::set_permissions(&desk.0, PermissionsExt::from_mode(0o700)).unwrap();
        let mut sheet = String::new();
        for (words, exit) in commands {
            let text = said_in(&desk.0, words);
            assert!(text.ends_with(&format!("exit {exit}\n")), "{text}");
            reads_well(&words.join(" "), &text);
            sheet.push_str(&text);
            sheet.push('\n');
        }
        insta::assert_snapshot!(name, sheet);
    }
}

/// An archive's sizes are the machine's; its names and words are ours.
#[test]
fn a_report_reads_well_without_a_daemon() {
    let desk = desk();
    std::fs::create_dir(desk.join("root")).unwrap();
    let text =
        said_in(&desk.0, &["report", "--root", "root", "--out", "report.tar", "--socket", "none"]);
    reads_well("report", &text);
    let (sizes, words): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("SIZE "));
    assert!(sizes.len() >= 12, "{text}");
    insta::assert_snapshot!("alone-report", words.join("\n"));
    // The language is on its own page, word by word, and what is generated is not kept twice.
    reads_well("policy schema", &said_in(&desk.0, &["policy", "schema"]));
}

/// The help of each command fits into the terminals that there are, and is the same words in each.
#[test]
fn help_is_as_wide_as_the_terminal() {
    for words in leaves() {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let said = |columns: Option<&str>| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
            command.args(&words).env_clear();
            if let Some(columns) = columns {
                command.env("COLUMNS", columns);
            }
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        let plain = said(None);
        let same: Vec<&str> = plain.split_whitespace().collect();
        for (columns, width) in [("60", 60), ("80", 80), ("120", 120), ("200", 200)] {
            let text = said(Some(columns));
            let wide = text.lines().find(|line| line.chars().count() > width);
            assert_eq!(wide, None, "{words:?} at {width}");
            assert_eq!(text.split_whitespace().collect::<Vec<_>>(), same, "{words:?} at {width}");
        }
    }
}

/// Commands that ask nobody, or that go on without an answer.
const ALONE: [&str; 19] = [
    "policy check",
    "policy fmt",
    "policy test",
    "policy schema",
    "init router",
    "init node",
    "init agent",
    "init correspondent",
    "doctor",
    "report",
    "import mwan3",
    "key new",
    "demo",
    "completions",
    "man",
    "schema",
    "explain --policy",
    "policy diff --from",
    "help",
];

/// What the others need beside their name.
const FURTHER: [(&str, &[&str]); 17] = [
    ("explain", &[SSH]),
    ("steer", &["dport 22 via wwan0", "--for", "1m"]),
    ("steer undo", &["1"]),
    ("link drain", &["wwan0"]),
    ("link hold", &["wwan0"]),
    ("link release", &["wwan0"]),
    ("policy diff", &["figure-11.kdl"]),
    ("policy apply", &["figure-11.kdl"]),
    ("policy history show", &["1"]),
    ("agent add", &["2001:db8::1", "--unprotected"]),
    ("agent remove", &["2001:db8::1"]),
    ("agent revoke", &["2001:db8::1"]),
    ("agent permit", &["2001:db8::1"]),
    ("agent switch", &["2001:db8::1"]),
    ("top", &[]),
    ("monitor", &[]),
    ("monitor --message", &["BUL_ADD"]),
];

/// Every command has a state without a daemon: it needs none, or says what to start.
#[test]
fn every_command_knows_what_to_do_without_a_daemon() {
    let desk = desk();
    let mut asking = 0;
    let alone: BTreeSet<&str> = ALONE.into_iter().collect();
    for leaf in leaves() {
        let name = leaf.join(" ");
        if alone.contains(name.as_str()) {
            continue;
        }
        asking += 1;
        let further = FURTHER.iter().find(|(it, _)| *it == name).map_or(&[][..], |(_, it)| it);
        let words: Vec<&str> =
            leaf.iter().map(String::as_str).chain(further.iter().copied()).collect();
        let text = said_in(&desk.0, &[&words, &["--socket", "none.sock"][..]].concat());
        assert!(text.contains("error: no daemon answers at none.sock"), "{text}");
        assert!(text.contains("help: start it with `mtund --policy FILE`"), "{text}");
        assert!(text.ends_with("exit 3\n"), "{text}");
        reads_well(&name, &text);
    }
    assert!(asking >= 20, "{asking}");
}

/// The commands with none in them, as the help lists them; one that does something itself counts too.
fn leaves() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(words) = waiting.pop() {
        let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
        let inner = super::shells::commands(&borrowed);
        let itself = ["steer", "policy history"].contains(&borrowed.join(" ").as_str());
        if !words.is_empty() && (inner.is_empty() || itself) {
            found.push(words.clone());
        }
        let deeper = |name: String| [words.clone(), vec![name]].concat();
        waiting.extend(inner.into_iter().map(deeper));
    }
    found.sort();
    assert!(found.len() >= 35, "{found:?}");
    found
}
