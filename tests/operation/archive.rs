//! `mtun report`: what is in the archive, and that no key ever is.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::documents;
use super::owner::{Owner, Plan, Scratch};

/// A key that somebody pasted where it does not belong.
const KEY: &str = "5f0c7ad2e9b84416a3d1f6570c2b9e8d";

fn report(socket: &Path, out: &Path, root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
    command.args(["report", "--json", "--socket"]).arg(socket);
    command.arg("--out").arg(out).arg("--root").arg(root);
    command.output().unwrap()
}

/// A file of the archive, by the system's own tar.
fn file(archive: &Path, name: &str) -> String {
    let output = Command::new("tar").arg("-xOf").arg(archive).arg(name).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_key_is_never_in_a_report() {
    let scratch = Scratch::new();
    let status = documents::status();
    let policy = format!("bus, its key is {KEY}");
    let owner = Owner::start(Plan {
        status: mtun::control::documents::StatusDocument { policy, ..status },
        ..Plan::default()
    });
    // A key file where the program could find it, and a machine whose files have a key in them.
    let keys = scratch.join("etc/mtun/keys");
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::write(keys.join("home.key"), format!("hmac-sha256 {KEY}\n")).unwrap();
    std::fs::create_dir_all(scratch.join("proc")).unwrap();
    std::fs::write(scratch.join("proc/version"), format!("Linux {KEY} Debian\n")).unwrap();

    let out = scratch.join("report.tar");
    let output = report(&owner.socket(), &out, &scratch.0);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["result"]["kind"], "report");
    assert_eq!(document["result"]["redacted"], 2, "{document}");

    let archive = std::fs::read(&out).unwrap();
    let held = |needle: &[u8]| archive.windows(needle.len()).any(|place| place == needle);
    assert!(!held(KEY.as_bytes()), "the key is in the archive");
    assert!(!held(KEY.to_uppercase().as_bytes()));
    let octets: Vec<u8> = (0..KEY.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&KEY[at..at + 2], 16).unwrap())
        .collect();
    assert!(!held(&octets), "the key's octets are in the archive");
    assert!(held(b"[taken out]"), "and it says that something was taken out");
    let mode = std::os::unix::fs::PermissionsExt::mode(&out.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_archive_lists_what_is_in_it() {
    let scratch = Scratch::new();
    let owner = Owner::start(Plan::default());
    let out = scratch.join("report.tar");
    let output = report(&owner.socket(), &out, Path::new("/"));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let listed = Command::new("tar").arg("-tf").arg(&out).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let entries = document["result"]["entries"].as_array().unwrap();
    let names =
        entries.iter().map(|entry| format!("mtun-report/{}", entry["name"].as_str().unwrap()));
    assert_eq!(listed.lines().map(str::to_owned).collect::<Vec<_>>(), names.collect::<Vec<_>>());
    let contents = file(&out, "mtun-report/contents.txt");
    for entry in entries.iter().skip(1) {
        let name = entry["name"].as_str().unwrap();
        assert!(contents.contains(name), "{name} is not in the list");
        let text = file(&out, &format!("mtun-report/{name}"));
        assert_eq!(text.len() as u64, entry["octets"].as_u64().unwrap(), "{name}");
        if name.ends_with(".json") {
            serde_json::from_str::<Value>(&text).unwrap();
        }
    }
    let overview: Value = serde_json::from_str(&file(&out, "mtun-report/overview.json")).unwrap();
    assert_eq!(overview["health"]["state"], "degraded");

    // What exists stays.
    let again = report(&owner.socket(), &out, Path::new("/"));
    assert_eq!(again.status.code(), Some(4));
}

/// Without a daemon the rest is worth sending.
#[test]
fn a_report_needs_no_daemon() {
    let scratch = Scratch::new();
    let out = scratch.join("report.tar");
    let output = report(&scratch.join("none.sock"), &out, Path::new("/"));
    assert!(output.status.success());
    assert!(file(&out, "mtun-report/overview.json").contains("no daemon answers"));
    let doctor: Value = serde_json::from_str(&file(&out, "mtun-report/doctor.json")).unwrap();
    assert_eq!(doctor["kind"], "doctor");
}
