//! What live daemons say, held against the schemas that `mtun schema` prints.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mtun::lab::daemons::Daemon;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use serde_json::Value;

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;
use crate::schema::check;

/// What a client of the mobility socket is told first: every fact of the present state.
fn present_state(daemon: &Daemon) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
    command.arg("--socket").arg(daemon.socket());
    command.args(["monitor", "--message", "all", "--events", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let last = line.get("present").is_some();
        lines.push(line);
        if last {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lines
}

#[test]
fn what_live_daemons_say_is_what_the_schemas_say() {
    need_lab!();
    let text = PolicyText::default().with_statement("wwan0", "quota \"10GB\" per=month");
    let lab = Lab::start(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let measured = "round trips of probes on both links";
    let probed = lab.mobile().wait_until(measured, PATIENCE, |status| {
        status.links.iter().all(|link| link.rtt_p95_ms.is_some() && link.jitter_ms.is_some())
    });
    probed.unwrap();
    lab.mobile().wait_until("flow bindings", PATIENCE, |it| !it.flow_bindings.is_empty()).unwrap();
    let flow = "tcp 2001:db8:100::42 -> 2001:db8:ffff::1 dport 22";
    let file = lab.mobile().policy().to_str().unwrap().to_owned();
    let commands: &[(&Daemon, &[&str], &str)] = &[
        (lab.mobile(), &["status"], "status"),
        (lab.mobile(), &["links"], "status"),
        (lab.mobile(), &["bindings"], "bindings"),
        (lab.mobile(), &["flows"], "flows"),
        (lab.mobile(), &["explain", flow, "--at", "agent"], "explain"),
        (lab.mobile(), &["policy", "show"], "policy"),
        (lab.mobile(), &["policy", "history"], "policy-history"),
        (lab.mobile(), &["policy", "diff", &file], "policy-diff"),
        (lab.mobile(), &["steer", "dport 22 via wlan0", "--for", "10m"], "steer"),
        (lab.mobile(), &["steer", "list"], "steer-list"),
        (lab.mobile(), &["link", "drain", "wlan0"], "link"),
        (lab.mobile(), &["explain", flow], "explain"),
        (lab.mobile(), &["flows"], "flows"),
        (lab.mobile(), &["link", "release", "wlan0"], "link"),
        (lab.mobile(), &["policy", "apply", &file], "policy-applied"),
        (lab.mobile(), &["doctor"], "doctor"),
        (lab.agent(), &["status"], "status"),
        (lab.agent(), &["bindings"], "bindings"),
        (lab.agent(), &["flows"], "flows"),
        (lab.agent(), &["agent", "list"], "agent-list"),
        (lab.agent(), &["policy", "show"], "policy"),
    ];
    for (daemon, words, kind) in commands {
        let document = daemon.mtun(words).unwrap();
        assert_eq!(document["result"]["kind"], *kind, "{words:?}: {document}");
        check(&document);
    }
    for daemon in [lab.mobile(), lab.agent()] {
        let lines = present_state(daemon);
        assert!(lines.len() > 2, "{lines:?}");
        lines.iter().for_each(check);
    }
    drop(traffic);
    lab.assert_clean();
}
