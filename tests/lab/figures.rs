//! The figures of live daemons, as a real Prometheus reads them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use serde_json::Value;

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;
use crate::prometheus::{need_prometheus, program, promtool};

/// Where a daemon is scraped, unless it is told otherwise.
pub const SCRAPES: &str = "[::1]:9469";
/// Where Prometheus is asked.
const QUERIES: &str = "[::1]:9090";

/// The body of an answer to `GET`; empty if there is none yet.
pub fn get(namespace: &Namespace, address: &str, path: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    // Of version 1.0, so that the body comes as it is and not in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let reply = namespace.run(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        std::io::Result::Ok(reply)
    });
    let reply = String::from_utf8(reply.unwrap_or_default()).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
    if head.split(' ').nth(1) == Some("200") { body.to_owned() } else { String::new() }
}

/// The text as it stands in a URL.
fn quoted(text: &str) -> String {
    text.bytes().map(|octet| format!("%{octet:02X}")).collect()
}

/// Prometheus's answer to an expression: its samples, or why there are none.
fn query(namespace: &Namespace, expression: &str) -> Result<Vec<f64>, String> {
    let body = get(namespace, QUERIES, &format!("/api/v1/query?query={}", quoted(expression)));
    let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let samples = answer["data"]["result"].as_array().ok_or_else(|| body.clone())?;
    let value = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
    samples.iter().map(|sample| value(sample).ok_or_else(|| body.clone())).collect()
}

/// Every `expr` of the dashboards in `examples/grafana`, with the file it stands in.
fn expressions(file: &Path) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(file).unwrap();
    let mut found = Vec::new();
    collect(&serde_json::from_str(&text).unwrap(), &mut found);
    assert!(!found.is_empty(), "{}", file.display());
    // What Grafana puts in.
    let all = |text: String| text.replace("$__rate_interval", "10s").replace("$__range", "1m");
    found.into_iter().map(all).collect()
}

/// The alerts with what each judges: an alert that is quiet has no samples, so that its comparisons
/// give yes or no here.
fn alerts() -> Vec<(String, String)> {
    let rules = std::fs::read_to_string(example("prometheus/alerts.yml")).unwrap();
    let after = |line: &str, word: &str| line.trim().strip_prefix(word).map(str::to_owned);
    let names = rules.lines().filter_map(|line| after(line, "- alert: "));
    let expressions = rules.lines().filter_map(|line| after(line, "expr: ")).map(|mut text| {
        for comparison in [" == ", " >= ", " > ", " < "] {
            text = text.replace(comparison, &format!("{comparison}bool "));
        }
        text
    });
    names.zip(expressions).collect()
}

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

#[test]
fn a_real_prometheus_reads_live_daemons() {
    need_lab!();
    need_prometheus!();
    let text = PolicyText::default()
        .with_statement("wwan0", "quota \"10GB\" per=month")
        .with_statement("wlan0", "radio file=\"wlan0\" every=\"1s\" lost-after=\"3600s\"");
    let mut lab = Lab::with_agent(Plan::default(), text);
    let facts = lab.world.directory().join("facts");
    std::fs::create_dir(&facts).unwrap();
    std::fs::write(facts.join("wlan0"), "signal -58dBm\n").unwrap();
    lab.start_mobile(&["--facts", facts.to_str().unwrap()]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    for namespace in [&lab.world.mr, &lab.world.ha] {
        let figures = get(namespace, SCRAPES, "/metrics");
        let said = promtool(lab.world.directory(), &["check", "metrics"], &figures);
        assert_eq!(said, Ok(String::new()), "no remark at all about {}", namespace.name());
        assert!(!figures.contains("2001:db8"), "an address became a label");
    }
    let figures = get(&lab.world.mr, SCRAPES, "/metrics");
    for series in [
        // Registered in one update or in two: one round trip at least was measured.
        "mtun_link_rtt_seconds_count{link=\"wlan0\"}",
        "mtun_link_rtt_seconds_count{link=\"wwan0\"}",
        "mtun_binding_updates_total{home=\"acme\",link=\"wlan0\",status=\"accepted\"}",
    ] {
        assert!(figures.contains(series), "{series} in\n{figures}");
    }
    let trips: f64 = figures
        .lines()
        .filter(|line| line.starts_with("mtun_link_rtt_seconds_count"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(trips >= 1.0, "an answered update is a round trip\n{figures}");

    // A handover, so that there are figures of one.
    lab.world.wlan_down().unwrap();
    lab.settled(&traffic, crate::fixture::all_wwan);
    lab.world.wlan_up().unwrap();
    lab.settled(&traffic, crate::fixture::figure_11);

    let mut judged = BTreeSet::new();
    for (namespace, dashboard) in [(&lab.world.mr, "router.json"), (&lab.world.ha, "agent.json")] {
        let directory = lab.world.directory().join(dashboard).with_extension("");
        std::fs::create_dir_all(&directory).unwrap();
        let config = std::fs::read_to_string(example("prometheus/prometheus.yml")).unwrap();
        let config = config.replace("interval: 15s", "interval: 1s");
        std::fs::write(directory.join("prometheus.yml"), config).unwrap();
        std::fs::copy(example("prometheus/alerts.yml"), directory.join("alerts.yml")).unwrap();
        let mut command = namespace.command(program("prometheus").expect("beside promtool"));
        command.current_dir(&directory).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &format!("--web.listen-address={QUERIES}"),
        ]);
        let mut server = namespace.start(command, &directory.join("log")).unwrap();
        let two_scrapes = wait_for("two scrapes", PATIENCE, || {
            let scrapes = query(namespace, "count_over_time(mtun_policy_generation[1m])");
            scrapes.is_ok_and(|counts| counts.iter().any(|count| *count >= 2.0)).then_some(())
        });
        assert!(two_scrapes.is_ok(), "{two_scrapes:?}\n{}", server.log());

        // Every rule was evaluated, and none with a fault.
        let rules = wait_for("the rules", PATIENCE, || {
            let body = get(namespace, QUERIES, "/api/v1/rules");
            let answer: Value = serde_json::from_str(&body).ok()?;
            let groups = answer["data"]["groups"].as_array()?.clone();
            let rules: Vec<Value> = groups
                .iter()
                .filter_map(|group| group["rules"].as_array())
                .flatten()
                .cloned()
                .collect();
            (!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown"))
                .then_some(rules)
        })
        .unwrap();
        let ill: Vec<&Value> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
        assert!(ill.is_empty(), "{ill:#?}");
        let firing: BTreeSet<&str> = rules
            .iter()
            .filter(|rule| rule["state"] == "firing")
            .filter_map(|rule| rule["name"].as_str())
            .collect();
        assert!(firing.is_empty(), "everything is well here: {firing:?}");

        for (alert, expression) in alerts() {
            let samples = query(namespace, &expression)
                .unwrap_or_else(|error| panic!("{alert}: {expression}: {error}"));
            let finite = samples.iter().all(|sample| sample.is_finite());
            assert!(finite, "{alert}: {expression} gives {samples:?} at {dashboard}");
            if !samples.is_empty() {
                judged.insert(alert);
            }
        }

        for expression in expressions(&example("grafana").join(dashboard)) {
            let finite = wait_for("samples", Duration::from_secs(20), || {
                let samples = query(namespace, &expression).ok()?;
                let finite = samples.iter().all(|sample| sample.is_finite());
                (finite && !samples.is_empty()).then_some(())
            });
            let got = query(namespace, &expression);
            assert!(finite.is_ok(), "{dashboard}: {expression} gives {got:?}");
        }
        server.stop().unwrap();
    }
    // What an agent may answer is no fixed list: a refusal has a series from the first one on.
    let all = alerts().into_iter().map(|(alert, _)| alert);
    let all: BTreeSet<String> = all.filter(|alert| alert != "MtunBindingRefused").collect();
    assert_eq!(judged, all, "each alert judges figures of the router or of the agent");
    lab.assert_clean();
}
