//! `mtun import mwan3`: files as people have them become policies without faults.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::owner::Scratch;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mwan3").join(name)
}

fn mtun(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtun")).env_clear().args(words).output().unwrap()
}

fn imported(name: &str, further: &[&str]) -> String {
    let file = fixture(name);
    let words = [&["import", "mwan3", file.to_str().unwrap()], further].concat();
    let output = mtun(&words);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_of_mwan3_become_policies() {
    let cases: &[(&str, &[&str])] = &[
        ("two-uplinks", &["--device", "harbour=wlan0", "--device", "modem=wwan0"]),
        ("balanced", &["--device", "wan=eth1", "--device", "wan6=eth1", "--on", "lan0"]),
        ("no-rules", &[]),
    ];
    let scratch = Scratch::new();
    for (name, further) in cases {
        let policy = imported(name, further);
        insta::assert_snapshot!(format!("mwan3-{name}"), policy);
        let file = scratch.join(&format!("{name}.kdl"));
        std::fs::write(&file, &policy).unwrap();
        let check = mtun(&["policy", "check", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
        assert!(check.status.success() && said.contains("has no faults"), "{name}: {said}");
        let form = mtun(&["policy", "fmt", "--check", file.to_str().unwrap()]);
        assert!(form.status.success(), "{name} is not in the one form");
    }
}

/// The same flows go the same way: what mwan3 was told by metric and weight.
#[test]
fn the_rules_mean_what_they_meant() {
    let scratch = Scratch::new();
    let policy = imported("two-uplinks", &["--device", "harbour=wlan0", "--device", "modem=wwan0"]);
    let file = scratch.join("boat.kdl");
    std::fs::write(&file, policy).unwrap();
    let cases: &[(&str, &str, &str, &str)] = &[
        ("udp 2001:db8:100:4200::5 -> 2001:db8:c::9 dport 5060", "", "radio", "wwan0"),
        ("udp 2001:db8:100:4200::5 -> 2001:db8:c::9 dport 53", "", "default", "wlan0"),
        ("tcp 2001:db8:100:4200::5 -> 2001:db8:c::9 dport 80", "wlan0=down", "default", "wwan0"),
    ];
    for (flow, given, rule, link) in cases {
        let mut words = vec!["explain", flow, "--policy", file.to_str().unwrap(), "--json"];
        if !given.is_empty() {
            words.extend(["--given", given]);
        }
        let document: Value = serde_json::from_slice(&mtun(&words).stdout).unwrap();
        let result = &document["result"];
        assert_eq!(result["rule"]["name"], *rule, "{flow}: {document}");
        assert_eq!(result["verdict"]["link"], *link, "{flow}: {document}");
    }
}

/// What is left out is told, in the policy and in the document.
#[test]
fn nothing_is_lost_silently() {
    let file = fixture("balanced");
    let output = mtun(&["import", "mwan3", file.to_str().unwrap(), "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let notes = document["result"]["notes"].as_array().unwrap();
    let policy = document["result"]["policy"].as_str().unwrap();
    for word in [
        "mmx_mask",
        "track_ip",
        "flush_conntrack",
        "ipset 'streaming'",
        "'gone'",
        "https_again",
        "'default'",
        "rule behind",
    ] {
        let note = notes.iter().find(|note| note.as_str().unwrap().contains(word));
        let note = note.unwrap_or_else(|| panic!("no note of {word}: {notes:?}"));
        assert!(policy.contains(note.as_str().unwrap()), "{note} is not in the policy");
    }
}

#[test]
fn what_is_no_such_file_is_refused_with_its_line() {
    let scratch = Scratch::new();
    let cases = [
        ("option a b\n", "line 1"),
        ("config interface 'wan'\n\toption enabled '1\n", "line 2"),
        ("config interface 'wan'\n\toption enabled '0'\n", "no enabled interface"),
        ("{\"not\": \"this\"}\n", "line 1"),
    ];
    for (text, word) in cases {
        let file = scratch.join("mwan3");
        std::fs::write(&file, text).unwrap();
        let output = mtun(&["import", "mwan3", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(mtun(&["import", "mwan3", "/nonexistent"]).status.code(), Some(2));
    assert_eq!(mtun(&["import", "mwan3", "x", "--device", "wan"]).status.code(), Some(2));
}
