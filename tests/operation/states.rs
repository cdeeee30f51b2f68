//! What people read in the four states of a node: up, degraded, no link, no daemon.
//!
//! In each of them a line of at most 80 columns, health before everything else, no bare dash, and
//! the exit code of the table in docs/commands.md.

use std::path::Path;
use std::process::{Command, Stdio};

use mtun::control::documents::{BindingPhase, Health, LinkState, StatusDocument};

use super::documents;
use super::owner::{Owner, Plan, Scratch};

/// The mobile router with all that it needs.
fn up() -> StatusDocument {
    let mut status = documents::status();
    let pairs = status.links.iter_mut().zip(&mut status.bindings);
    for ((link, binding), care_of) in pairs.zip(["2001:db8:1::7", "2001:db8:2::7"]) {
        link.state = LinkState::Up;
        link.reason = None;
        link.care_of = Some(documents::care_of(care_of));
        link.since_seconds = Some(7200);
        link.rtt_ms = Some(23.4);
        link.loss_ratio = Some(0.004);
        link.signal_dbm = Some(-71);
        binding.phase = BindingPhase::Registered;
        binding.usable = true;
        binding.care_of = link.care_of;
        binding.granted_seconds = Some(420);
        binding.expires_seconds = Some(300);
    }
    status.flow_bindings.clear();
    status.overrides.clear();
    if let Some(downlink) = &mut status.homes[0].downlink {
        downlink.refused = 0;
    }
    judged(status)
}

/// The same in a tunnel: no link carries anything.
fn no_link() -> StatusDocument {
    let mut status = up();
    for (link, binding) in status.links.iter_mut().zip(&mut status.bindings) {
        link.state = LinkState::Down;
        link.reason = Some("no carrier or no care-of address".to_owned());
        link.care_of = None;
        link.since_seconds = Some(3);
        link.rtt_ms = None;
        link.loss_ratio = None;
        link.signal_dbm = None;
        binding.phase = BindingPhase::Idle;
        binding.usable = false;
        binding.care_of = None;
        binding.expires_seconds = None;
    }
    judged(status)
}

fn judged(status: StatusDocument) -> StatusDocument {
    let health = Health::judge(&status.homes, &status.links, &status.bindings, Vec::new());
    StatusDocument { health, ..status }
}

/// What a command says at 80 columns, and how it ends.
fn said(socket: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
    // By its name alone: its directory is another one each time.
    command.args(words).arg("--socket").arg(socket.file_name().unwrap());
    command.current_dir(socket.parent().unwrap()).env_clear().env("COLUMNS", "80");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    format!("$ mtun {}\n{text}exit {}\n", words.join(" "), output.status.code().unwrap())
}

#[test]
fn every_state_reads_well() {
    let up = Owner::start(Plan { status: up(), ..Plan::default() });
    let degraded = Owner::start(Plan::default());
    let no_link = Owner::start(Plan { status: no_link(), ..Plan::default() });
    let nobody = Scratch::new();
    let states = [
        ("up", up.socket(), [0, 0, 0, 0]),
        ("degraded", degraded.socket(), [1, 1, 0, 0]),
        ("no-link", no_link.socket(), [1, 1, 0, 0]),
        ("no-daemon", nobody.join("control.sock"), [3, 3, 3, 3]),
    ];
    for (state, socket, exits) in states {
        let mut page = String::new();
        for (command, exit) in ["status", "links", "bindings", "flows"].into_iter().zip(exits) {
            let text = said(&socket, &[command]);
            assert!(text.ends_with(&format!("exit {exit}\n")), "{state}: {text}");
            if command == "status" && exit != 3 {
                let first = text.lines().nth(1).unwrap();
                assert!(first.starts_with("health"), "{state}: {text}");
            }
            page.push_str(&text);
            page.push('\n');
        }
        let wide = |line: &&str| line.chars().count() > 80;
        assert_eq!(page.lines().find(wide), None, "{state}: a line is wider than 80 columns");
        let dash = |word: &str| word == "-" || word == "null";
        assert!(!page.split_whitespace().any(dash), "{state} has a bare dash:\n{page}");
        insta::assert_snapshot!(format!("state-{state}"), page);
    }
}
