//! The figures and the alert rules as Prometheus's own checker reads them.

use std::path::PathBuf;

use mtun::metrics::{Metrics, MetricsInput};

use super::documents::first_figures;
use super::prometheus::{need_prometheus, promtool};

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus")
}

#[test]
fn the_figures_are_as_prometheus_wants_them() {
    need_prometheus!();
    for input in [first_figures(), MetricsInput::default()] {
        let said = promtool(&examples(), &["check", "metrics"], &Metrics::new(&input).render());
        assert_eq!(said, Ok(String::new()), "no remark at all");
    }
}

#[test]
fn each_alert_fires_in_its_case_and_is_quiet_in_the_other() {
    need_prometheus!();
    let said = promtool(&examples(), &["test", "rules", "alerts.test.yml"], "");
    assert!(said.is_ok(), "{}", said.unwrap_err());
    let said = promtool(&examples(), &["check", "config", "prometheus.yml"], "");
    assert!(said.is_ok(), "{}", said.unwrap_err());

    let read = |name: &str| std::fs::read_to_string(examples().join(name)).unwrap();
    let (rules, cases) = (read("alerts.yml"), read("alerts.test.yml"));
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        for case in ["fires", "stays quiet"] {
            let name = format!("- name: {alert} {case}\n");
            assert!(cases.contains(&name), "there is no case in which {alert} {case}");
        }
    }
}

#[test]
fn alerts_ask_for_figures_that_there_are() {
    let rules = std::fs::read_to_string(examples().join("alerts.yml")).unwrap();
    let figures = Metrics::new(&first_figures()).render();
    for expression in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        for name in expression.split(word).filter(|word| word.starts_with("mtun_")) {
            let series = |line: &str| {
                line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
            };
            // A quota is only there if the file gives a link one.
            let known = figures.lines().any(series)
                || name.ends_with("_quota_bytes")
                || name.ends_with("_used_bytes");
            assert!(known, "{name} in {expression}");
        }
    }
}
