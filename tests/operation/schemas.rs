//! `mtun schema`: every document is described, and is what its description says.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::documents;
use super::owner::{Owner, Plan, Scratch, example};
use super::schema::{check, faults, mtun, schema};

#[test]
fn every_document_has_a_schema_that_can_be_read() {
    let (_, list) = mtun(&["schema", "--json"]);
    check(&list);
    let names = list["result"]["names"].as_array().unwrap();
    assert!(names.len() >= 30, "{names:?}");
    for name in names {
        let name = name.as_str().unwrap();
        let schema = schema(name);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        let text = schema.to_string();
        for pointer in text.split("\"$ref\":\"#").skip(1) {
            let pointer = pointer.split('"').next().unwrap();
            assert!(schema.pointer(pointer).is_some(), "{name}: {pointer} leads nowhere");
        }
    }
    let status = schema("status").to_string();
    assert!(status.contains("Whether it can carry packets."), "the source's words are in it");
    let (code, refused) = mtun(&["schema", "nothing", "--json"]);
    assert_eq!(code, Some(4));
    check(&refused);
    check(&mtun(&["schema", "flows", "--json"]).1);
}

/// A validator that finds nothing proves nothing.
#[test]
fn a_document_that_is_wrong_is_found() {
    let good = json!({ "version": 1, "ok": true, "result":
        { "kind": "steer-undo", "undone": null, "generation": 7 } });
    let wrong: &[(&str, Value)] = &[
        ("", json!(3)),
        ("/version", json!(2)),
        ("/result/generation", json!("seven")),
        ("/result/generation", json!(-1)),
        ("/result/kind", json!("steer")),
    ];
    // `undone` is an object, so that even this one has a fault of that name alone.
    assert!(faults(&good, "steer-undo").iter().all(|fault| fault.contains("/undone")));
    assert!(!faults(&good, "steer-undo").is_empty());
    for (pointer, value) in wrong {
        let mut document = good.clone();
        *document.pointer_mut(pointer).unwrap() = value.clone();
        let found = faults(&document, "steer-undo");
        let other = found.iter().any(|fault| !fault.starts_with("/result/undone"));
        assert!(other, "{pointer} {value}: {found:?}");
    }
    let mut more = good.clone();
    more["result"]["surprise"] = json!(1);
    let found = faults(&more, "steer-undo");
    assert!(found.iter().any(|fault| fault.contains("surprise")), "{found:?}");
}

/// What only a machine with root and network namespaces can print; the lab holds those against
/// their schemas.
const OF_THE_LAB: [&str; 2] = ["demo", "demo-stopped"];

#[test]
fn every_kind_is_printed_and_is_what_its_schema_says() {
    let mobile = Owner::start(Plan::default());
    let agent = Owner::start(Plan { status: documents::agent_status(), ..Plan::default() });
    let correspondent =
        Owner::start(Plan { status: documents::correspondent_status(), ..Plan::default() });
    let scratch = Scratch::new();
    let policy = scratch.join("policy.kdl");
    std::fs::copy(example("figure-11.kdl"), &policy).unwrap();
    let mwan3 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mwan3/two-uplinks");
    let place = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    let (policy, mwan3) = (policy.to_str().unwrap(), mwan3.to_str().unwrap());
    let (init, key, man, report) = (place("init"), place("a.key"), place("man"), place("a.tar"));
    let mobile_address = "2001:db8:100::42";
    let cases: &[(&Owner, &[&str], &str)] = &[
        (&mobile, &["status"], "status"),
        (&agent, &["status"], "status"),
        (&correspondent, &["status"], "status"),
        (&mobile, &["links"], "status"),
        (&mobile, &["bindings"], "bindings"),
        (&agent, &["bindings"], "bindings"),
        (&correspondent, &["bindings"], "bindings"),
        (&mobile, &["flows"], "flows"),
        (&mobile, &["explain", "x"], "explain"),
        (&mobile, &["explain", "x", "--at", "agent"], "explain"),
        (&mobile, &["steer", "tcp", "via", "wwan0", "--for", "1m"], "steer"),
        (&mobile, &["steer", "list"], "steer-list"),
        (&mobile, &["steer", "undo", "61440"], "steer-undo"),
        (&mobile, &["link", "hold", "wwan0"], "link"),
        (&mobile, &["policy", "show"], "policy"),
        (&mobile, &["policy", "check", policy], "policy-check"),
        (&mobile, &["policy", "test", policy], "policy-test"),
        (&mobile, &["policy", "fmt", "--check", policy], "policy-fmt"),
        (&mobile, &["policy", "apply", policy], "policy-applied"),
        (&mobile, &["policy", "confirm"], "policy-confirmed"),
        (&mobile, &["policy", "rollback"], "policy-rolled-back"),
        (&mobile, &["policy", "history"], "policy-history"),
        (&mobile, &["policy", "diff", policy], "policy-diff"),
        (&mobile, &["policy", "schema"], "policy-schema"),
        (&agent, &["agent", "list"], "agent-list"),
        (&agent, &["agent", "revoke", mobile_address], "agent-changed"),
        (&agent, &["agent", "switch", mobile_address], "agent-switched"),
        (&mobile, &["doctor"], "doctor"),
        (&mobile, &["init", "router", "--uplink", "wlan0", "--to", &init], "init"),
        (&mobile, &["key", "new", "--out", &key], "key"),
        (&mobile, &["import", "mwan3", mwan3], "import"),
        (&mobile, &["report", "--out", &report], "report"),
        (&mobile, &["completions", "fish"], "completions"),
        (&mobile, &["man", &man], "man"),
        (&mobile, &["schema"], "schema-list"),
        (&mobile, &["schema", "status"], "schema"),
        (&mobile, &["flows", "dport ssh"], "error"),
        (&mobile, &["policy", "check", mwan3], "error"),
    ];
    let mut printed: Vec<&str> = Vec::new();
    for (owner, words, kind) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
        command.args(*words).arg("--json").arg("--socket").arg(owner.socket());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let printed_kind = document["result"]["kind"].as_str().unwrap_or("error");
        assert_eq!(printed_kind, *kind, "{words:?}: {document}");
        check(&document);
        printed.push(kind);
    }
    let (_, list) = mtun(&["schema", "--json"]);
    for name in list["result"]["names"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let line = ["event", "line"].contains(&name);
        let known = line || OF_THE_LAB.contains(&name) || printed.contains(&name);
        assert!(known, "nothing of kind {name} was printed");
    }
}
