//! `mtun doctor` on machines that lack something.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::cli::{DEGRADED, mtun};
use super::documents;
use super::owner::{Owner, Plan, Scratch, example};

#[test]
fn the_doctor_has_a_fix_for_everything_that_is_not_well() {
    let healthy = Owner::start(Plan { status: documents::agent_status(), ..Plan::default() });
    let root = Scratch::new();
    let checks = |socket: &Path, more: &[&str]| -> (i32, Vec<(String, String)>) {
        let root = root.0.to_str().unwrap();
        let words = [&["doctor", "--root", root, "--json"], more].concat();
        let output = mtun(socket, &words).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["result"]["kind"], "doctor");
        let checks = document["result"]["checks"].as_array().unwrap();
        let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
        for check in checks {
            assert_eq!(check["verdict"] == "ok", check["fix"].is_null(), "{check}");
        }
        let checks = checks.iter().map(|it| (text(it, "name"), text(it, "verdict")));
        (output.status.code().unwrap(), checks.collect())
    };
    let is = |checks: &[(String, String)], name: &str, verdict: &str| {
        assert!(
            checks.contains(&(name.to_owned(), verdict.to_owned())),
            "{name} {verdict}: {checks:?}"
        );
    };
    // A machine without anything.
    let (exit, found) = checks(&healthy.socket(), &[]);
    assert_eq!(exit, DEGRADED);
    for name in ["ipv6", "tun", "forwarding"] {
        is(&found, name, "bad");
    }
    is(&found, "rights", "unknown");
    is(&found, "daemon", "ok");
    // The same with what is needed.
    for (file, text) in [
        ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
        ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
        ("proc/self/status", "Name:\tmtun\nCapEff:\t0000000000003000\n"),
        ("dev/net/tun", ""),
    ] {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let (_, found) = checks(&healthy.socket(), &[]);
    for name in ["ipv6", "tun", "forwarding", "rights"] {
        is(&found, name, "ok");
    }
    // A policy, its key that others can read, and no daemon.
    let policy = root.join("figure-11.kdl");
    std::fs::copy(example("figure-11.kdl"), &policy).unwrap();
    let key = root.join("acme.key");
    std::fs::write(&key, "").unwrap();
    for (mode, verdict) in [(0o644, "bad"), (0o600, "ok")] {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        let (_, found) = checks(&root.join("nobody"), &["--policy", policy.to_str().unwrap()]);
        is(&found, "policy", "ok");
        is(&found, "keys", verdict);
        is(&found, "daemon", "unknown");
    }
    std::fs::write(&policy, "policy").unwrap();
    let (exit, found) = checks(&root.join("nobody"), &["--policy", policy.to_str().unwrap()]);
    assert_eq!(exit, DEGRADED);
    is(&found, "policy", "bad");
}
