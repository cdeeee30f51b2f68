//! The metrics as a scraper sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mtun::control::ControlRequest;
use mtun::http::HttpError;
use mtun::metrics::{BindingFigures, HandoverReason, Metrics, MetricsInput, Scrapes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::documents::{first_figures, status};
use super::owner;

/// Every family of the contract and its type.
const FAMILIES: [(&str, &str); 44] = [
    ("mtun_binding_expires_timestamp_seconds", "gauge"),
    ("mtun_binding_updates_total", "counter"),
    ("mtun_copies_total", "counter"),
    ("mtun_correspondent_bindings", "gauge"),
    ("mtun_drops_total", "counter"),
    ("mtun_fast_path_packets_total", "counter"),
    ("mtun_flow_bindings", "gauge"),
    ("mtun_flow_moves_total", "counter"),
    ("mtun_flows", "gauge"),
    ("mtun_ha_bindings", "gauge"),
    ("mtun_handover_duration_seconds", "histogram"),
    ("mtun_link_conversation_rtt_seconds", "gauge"),
    ("mtun_link_flaps_total", "counter"),
    ("mtun_link_jitter_seconds", "gauge"),
    ("mtun_link_loss_ratio", "gauge"),
    ("mtun_link_path_mtu_bytes", "gauge"),
    ("mtun_link_probe_rtt_seconds", "gauge"),
    ("mtun_link_probes_total", "counter"),
    ("mtun_link_reports_listings_total", "counter"),
    ("mtun_link_reports_overruns_total", "counter"),
    ("mtun_link_rtt_seconds", "histogram"),
    ("mtun_link_signal_dbm", "gauge"),
    ("mtun_link_state_changes_total", "counter"),
    ("mtun_link_up", "gauge"),
    ("mtun_link_usable", "gauge"),
    ("mtun_policy_generation", "gauge"),
    ("mtun_policy_last_reload_success", "gauge"),
    ("mtun_route_failures_total", "counter"),
    ("mtun_route_messages_total", "counter"),
    ("mtun_rule_bytes_total", "counter"),
    ("mtun_source_faults_total", "counter"),
    ("mtun_source_telling", "gauge"),
    ("mtun_store_commits_total", "counter"),
    ("mtun_store_failing", "gauge"),
    ("mtun_store_failures_total", "counter"),
    ("mtun_store_largest_batch", "gauge"),
    ("mtun_store_records_total", "counter"),
    ("mtun_store_unanswered_total", "counter"),
    ("mtun_store_waiting", "gauge"),
    ("mtun_straight_bindings", "gauge"),
    ("mtun_straight_bytes_total", "counter"),
    ("mtun_straight_packets_total", "counter"),
    ("mtun_tunnel_bytes_total", "counter"),
    ("mtun_tunnel_packets_total", "counter"),
];

/// One family of a text that was read.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: BTreeMap<String, f64>,
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// The label names of `{a="b",…}`; panics at anything that is not the grammar.
fn labels(text: &str) -> Vec<String> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).expect("braces");
    let (mut names, mut rest) = (Vec::new(), inner);
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("name=\"");
        assert!(is_name(name), "{text}");
        let mut escaped = false;
        let end = after.char_indices().find(|(_, c)| {
            let end = *c == '"' && !escaped;
            assert!(!escaped || matches!(c, '\\' | '"' | 'n'), "{text}");
            escaped = *c == '\\' && !escaped;
            end
        });
        let (end, _) = end.expect("a closing quote");
        names.push(name.to_owned());
        rest = &after[end + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').expect("a comma");
            assert!(!rest.is_empty(), "{text}");
        }
    }
    names
}

/// Reads the text format 0.0.4 strictly: HELP, TYPE, then the samples, each family once.
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(is_name(name) && !families.contains_key(name), "{line}");
            families.insert(name.to_owned(), Family { help: help.to_owned(), ..Family::default() });
            current = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(Some(name), current.as_deref(), "TYPE follows its HELP");
            families.get_mut(name).expect("just put in").kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let at = series.find('{').unwrap_or(series.len());
            let (name, braces) = series.split_at(at);
            assert!(is_name(name), "{line}");
            let owner = current.as_deref().expect("a family before its samples");
            let family = families.get_mut(owner).expect("put in by its HELP");
            let suffix = name.strip_prefix(owner).unwrap_or_else(|| panic!("{line} in {owner}"));
            match family.kind.as_str() {
                "histogram" => assert!(matches!(suffix, "_bucket" | "_sum" | "_count"), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            let names = if braces.is_empty() { Vec::new() } else { labels(braces) };
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{line}");
            let again = family.samples.insert(series.to_owned(), value);
            assert!(again.is_none(), "twice: {line}");
        }
    }
    families
}

#[test]
fn every_series_exists_at_the_start_with_zero() {
    let families = read(&Metrics::new(&first_figures()).render());
    let found: Vec<(&str, &str)> =
        families.iter().map(|(name, family)| (name.as_str(), family.kind.as_str())).collect();
    assert_eq!(found, FAMILIES);
    for (name, family) in &families {
        assert!(family.help.len() > 10, "{name} is described: {}", family.help);
        assert!(!family.samples.is_empty(), "{name}");
        let start = if name == "mtun_policy_last_reload_success" { 1.0 } else { 0.0 };
        assert!(family.samples.values().all(|value| *value == start), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
    }
    assert_eq!(families["mtun_tunnel_bytes_total"].samples.len(), 4);
    assert_eq!(families["mtun_straight_bytes_total"].samples.len(), 4);
    let reasons = HandoverReason::ALL.len();
    // 14 buckets and +Inf, sum and count, for each reason.
    assert_eq!(families["mtun_handover_duration_seconds"].samples.len(), 17 * reasons);
    // 12 buckets and +Inf, sum and count, for each link.
    assert_eq!(families["mtun_link_rtt_seconds"].samples.len(), 15 * 2);
}

/// Who asks what a series tells finds it on the page, in the words of the scrape.
#[test]
fn the_page_has_every_series() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (name, family) in read(&Metrics::new(&first_figures()).render()) {
        let start = format!("| `{name}` | {} | ", family.kind);
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row {start}"));
        assert!(row.ends_with(&format!(" | {} |", family.help)), "{row}: {}", family.help);
        let series = family.samples.keys().next().unwrap();
        let braces = series.find('{').map(|at| labels(&series[at..])).unwrap_or_default();
        for label in braces.iter().filter(|label| *label != "le") {
            assert!(row.contains(&format!("`{label}`")), "{row}: {label}");
        }
    }
}

#[test]
fn figures_arrive_and_names_are_escaped() {
    let mut input = first_figures();
    let metrics = Metrics::new(&input);
    input.tunnels[0].bytes = 1_000_000_007;
    input.straight[0].bytes = 17;
    input.routes[0].bindings = 2;
    input.correspondent_bindings = Some(3);
    input.route_messages[0].messages = 4;
    input.route_failures[0].failures = 5;
    input.links[1].up = true;
    input.homes[0].generation = 12;
    input.policy_last_reload_success = false;
    input.rules[0].rule = "a \"rule\"\\\nof two lines".into();
    input.rules[0].bytes = 5;
    metrics.update(&input);
    metrics.handover(HandoverReason::LinkDown, Duration::from_millis(15));
    let families = read(&metrics.render());
    let value = |family: &str, series: &str| families[family].samples[series];
    let tunnel = "mtun_tunnel_bytes_total{home=\"acme\",link=\"wlan0\",direction=\"up\"}";
    assert_eq!(value("mtun_tunnel_bytes_total", tunnel), 1_000_000_007.0);
    let straight = tunnel.replace("tunnel", "straight");
    assert_eq!(value("mtun_straight_bytes_total", &straight), 17.0);
    for (family, labels, wanted) in [
        ("mtun_straight_bindings", "{home=\"acme\"}", 2.0),
        ("mtun_correspondent_bindings", "", 3.0),
        ("mtun_route_messages_total", "{home=\"acme\",message=\"home-test-init\"}", 4.0),
        ("mtun_route_failures_total", "{home=\"acme\",reason=\"headers-eaten\"}", 5.0),
    ] {
        assert_eq!(value(family, &format!("{family}{labels}")), wanted, "{family}");
    }
    assert_eq!(value("mtun_link_up", "mtun_link_up{link=\"wwan0\"}"), 1.0);
    assert_eq!(value("mtun_policy_generation", "mtun_policy_generation{home=\"acme\"}"), 12.0);
    assert_eq!(value("mtun_policy_last_reload_success", "mtun_policy_last_reload_success"), 0.0);
    assert_eq!(families["mtun_rule_bytes_total"].samples.values().sum::<f64>(), 5.0);
    let handovers = "mtun_handover_duration_seconds";
    let bucket = |le: &str| {
        value(handovers, &format!("{handovers}_bucket{{reason=\"link-down\",le=\"{le}\"}}"))
    };
    assert_eq!((bucket("0.01"), bucket("0.02"), bucket("+Inf")), (0.0, 1.0, 1.0));

    // A loss that nobody measures is not a loss of nothing.
    assert_eq!(families["mtun_link_loss_ratio"].samples.len(), 2);
    metrics.round_trip(&"wwan0".into(), Duration::from_millis(40));
    let families = read(&metrics.render());
    let trips = "mtun_link_rtt_seconds";
    let counted =
        |link: &str| families[trips].samples[&format!("{trips}_count{{link=\"{link}\"}}")];
    assert_eq!((counted("wlan0"), counted("wwan0")), (0.0, 1.0));

    // A counter never goes back, even if an input does.
    metrics.update(&first_figures());
    assert!(metrics.render().contains(&format!("{tunnel} 1000000007\n")));
}

#[test]
fn no_label_is_an_address_and_the_number_of_series_is_bounded() {
    let mut input = MetricsInput::default();
    let template = first_figures();
    for number in 0..5000 {
        let mut rule = template.rules[0].clone();
        rule.rule = format!("rule-{number}").as_str().into();
        input.rules.push(rule);
        let mut drops = template.drops[0].clone();
        drops.home = format!("home-{number}");
        input.drops.push(drops);
        let mut link = template.links[0].clone();
        link.link = format!("link{number}").as_str().into();
        let (home, link_of) = (template.bindings[0].home.clone(), link.link.clone());
        input.bindings.push(BindingFigures { home, link: link_of, expires_timestamp_seconds: 0.0 });
        input.links.push(link);
    }
    let metrics = Metrics::new(&template);
    metrics.update(&input);
    let text = metrics.render();
    let series: usize = read(&text).values().map(|family| family.samples.len()).sum();
    assert!(series <= 2000, "{series} series");
    assert!(text.len() <= 1 << 20, "{} octets", text.len());
    assert!(!text.contains("2001:db8"), "an address became a label");
}

/// Answers scrapes as the daemon's owner loop does.
async fn serve() -> (SocketAddr, mpsc::Receiver<ControlRequest>, tokio::task::JoinHandle<()>) {
    let scrapes = Scrapes::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = scrapes.address().unwrap();
    let (requests, inbox) = mpsc::channel(4);
    let metrics = Arc::new(Metrics::new(&first_figures()));
    (address, inbox, tokio::spawn(scrapes.serve(metrics, requests)))
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8(reply).unwrap()
}

#[tokio::test]
async fn a_scrape_over_http() {
    let (address, mut inbox, server) = serve().await;
    tokio::spawn(async move {
        while let Some(ControlRequest { request, reply, .. }) = inbox.recv().await {
            let _ = reply.send(owner::answer(&request, &status()));
        }
    });
    let reply = exchange(
        address,
        &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
    .await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.to_lowercase().contains(&format!("content-length: {}", body.len())), "{head}");
    assert_eq!(read(body).len(), FAMILIES.len());

    let evil = exchange(
        address,
        "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(evil.starts_with("HTTP/1.1 403 "), "{evil}");
    assert!(!evil.contains("mtun_"), "nothing leaks with it");
    let root =
        exchange(address, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(root.starts_with("HTTP/1.1 404 "), "{root}");
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(20_000));
    let long = exchange(address, &long).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431 "), "{long}");
    server.abort();
}

#[tokio::test]
async fn a_daemon_that_stops_answers_503_and_other_addresses_are_refused() {
    let (address, inbox, server) = serve().await;
    drop(inbox);
    let reply =
        exchange(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    server.abort();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9547"] {
        let error = Scrapes::bind(address.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, HttpError::NotLoopback(_)), "{address}: {error}");
    }
}
