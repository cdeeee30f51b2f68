//! `mtun demo` as a person runs it.

use std::process::Command;

use serde_json::Value;

use crate::need_lab;

fn demo(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_mtun"))
        .args(["demo", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    crate::schema::check(&document);
    (document, output.status.code())
}

fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

#[test]
fn the_demo_is_ok_and_what_it_leaves_can_be_removed() {
    need_lab!();
    let (document, code) = demo(&["--keep"]);
    let report = &document["result"];
    assert_eq!((&document["ok"], code), (&Value::Bool(true), Some(0)), "{:#}", report["reasons"]);
    assert_eq!(report["ok"], true);
    let phases: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["phase"].as_str().unwrap())
        .collect();
    assert_eq!(
        phases,
        ["registered", "wlan-down", "wlan-back", "steered", "steer-undone", "policy-reload"]
    );
    for phase in report["phases"].as_array().unwrap() {
        let flows = phase["flows"].as_array().unwrap();
        assert_eq!(flows.len(), 6, "{phase:#}");
        for flow in flows {
            for field in ["rule", "uplink_outbound", "uplink_inbound"] {
                assert!(flow[field].is_string(), "{field}: {flow:#}");
            }
            for field in ["sent", "received", "lost", "duplicated", "reordered", "longest_gap_ms"] {
                assert!(flow[field].is_number(), "{field}: {flow:#}");
            }
        }
    }
    assert_eq!(report["tunnel"]["interfaces"], 1);
    assert_eq!(report["tunnel"]["ifindex_changed"], false);
    assert_eq!(report["tunnel"]["mtu_changed"], false);
    assert_eq!(report["bindings"].as_array().unwrap().len(), 2);
    assert_eq!(report["plain_home_source_packets"], 0);
    assert_eq!(report["parameter_problems"], 0);

    let kept: Vec<&str> =
        report["kept"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(kept.len(), 8);
    assert!(kept.iter().all(|name| exists(name)));
    let (stopped, code) = demo(&["--stop"]);
    assert_eq!((&stopped["ok"], code), (&Value::Bool(true), Some(0)), "{stopped}");
    assert!(kept.iter().all(|name| !exists(name)), "{stopped}");
}
