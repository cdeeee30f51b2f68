//! The families of series, and how an input becomes their values.

use std::collections::{HashMap, HashSet};

use metrics::{Key, Label, Level, Metadata, Recorder};

use super::input::{LinkFigures, MetricsInput};

/// Nobody filters by level or module; the exporter ignores it.
pub(super) static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Series of most families: all families together stay below 2,000.
const SERIES_MAX: usize = 90;

/// Series of the family by rule, the only one that grows with the policy.
const RULE_SERIES_MAX: usize = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Series with one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    max: usize,
}

const fn family(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, help, kind, max: SERIES_MAX }
}

static LINK_UP: Family = family(
    "mtun_link_up",
    Kind::Gauge,
    "Whether the link has carrier and a care-of address (1) or not (0)",
);
static LINK_USABLE: Family = family(
    "mtun_link_usable",
    Kind::Gauge,
    "Whether flows may use the link: it is up and a binding over it is registered",
);
static LINK_LOSS: Family = family(
    "mtun_link_loss_ratio",
    Kind::Gauge,
    "The share of probes that the link lost, of those links that are measured",
);
static LINK_SIGNAL: Family = family(
    "mtun_link_signal_dbm",
    Kind::Gauge,
    "Strength of the radio signal of links whose radio somebody is asked about; NaN if not known",
);
static LINK_PATH_MTU: Family = family(
    "mtun_link_path_mtu_bytes",
    Kind::Gauge,
    "The largest outer packet that the link's path to its home agent takes, of attached links",
);
static SOURCE_TELLING: Family = family(
    "mtun_source_telling",
    Kind::Gauge,
    "Whether what the source told of a link's radio or the vehicle is believed (1), or it has told nothing for too long (0)",
);
static SOURCE_FAULTS: Family = family(
    "mtun_source_faults_total",
    Kind::Counter,
    "Complaints about a source of facts, by reason",
);
static REPORT_OVERRUNS: Family = family(
    "mtun_link_reports_overruns_total",
    Kind::Counter,
    "How often the kernel had to drop reports about links, which are then asked for anew",
);
static REPORT_LISTINGS: Family = family(
    "mtun_link_reports_listings_total",
    Kind::Counter,
    "How often the kernel was asked for everything about links",
);
static LINK_STATE_CHANGES: Family = family(
    "mtun_link_state_changes_total",
    Kind::Counter,
    "How often the link came into the state, by reason",
);
static LINK_PROBE_RTT: Family = family(
    "mtun_link_probe_rtt_seconds",
    Kind::Gauge,
    "Round trip of probes to the home agent, of those links that are measured: smoothed and p95",
);
static LINK_JITTER: Family = family(
    "mtun_link_jitter_seconds",
    Kind::Gauge,
    "Smoothed deviation of the round trips of probes, of those links that are measured",
);
static LINK_CONVERSATIONS: Family = family(
    "mtun_link_conversation_rtt_seconds",
    Kind::Gauge,
    "Smoothed round trip of TCP conversations by the link, the way behind the home agent included, where there were any of late",
);
static LINK_FLAPS: Family = family(
    "mtun_link_flaps_total",
    Kind::Counter,
    "How often the link lost its carrier, its router or its care-of address, or got another one",
);
static LINK_PROBES: Family = family(
    "mtun_link_probes_total",
    Kind::Counter,
    "Probes of the link to home agents, by what became of them",
);
static LINK_QUOTA: Family = family(
    "mtun_link_quota_bytes",
    Kind::Gauge,
    "Octets that the link may carry in a quota period",
);
static LINK_USED: Family = family(
    "mtun_link_used_bytes",
    Kind::Gauge,
    "Octets that the link has carried in this quota period, both directions, outer headers included",
);
static TUNNEL_BYTES: Family = family(
    "mtun_tunnel_bytes_total",
    Kind::Counter,
    "Octets of inner packets through the tunnel, by uplink; up is from the mobile",
);
static TUNNEL_PACKETS: Family = family(
    "mtun_tunnel_packets_total",
    Kind::Counter,
    "Inner packets through the tunnel, by uplink; up is from the mobile",
);
static STRAIGHT_BYTES: Family = family(
    "mtun_straight_bytes_total",
    Kind::Counter,
    "Octets of packets that went straight, past the home agent, by uplink; up is from the mobile",
);
static STRAIGHT_PACKETS: Family = family(
    "mtun_straight_packets_total",
    Kind::Counter,
    "Packets that went straight, past the home agent, by uplink; up is from the mobile",
);
static STRAIGHT_BINDINGS: Family = family(
    "mtun_straight_bindings",
    Kind::Gauge,
    "Bindings at correspondents, by which packets go straight",
);
static ROUTE_MESSAGES: Family = family(
    "mtun_route_messages_total",
    Kind::Counter,
    "Tests and Binding Updates sent to correspondents",
);
static ROUTE_FAILURES: Family = family(
    "mtun_route_failures_total",
    Kind::Counter,
    "Tries to go straight that failed and ways back to the tunnel, by reason",
);
static CORRESPONDENT_BINDINGS: Family = family(
    "mtun_correspondent_bindings",
    Kind::Gauge,
    "Bindings that mobiles have at this node as their correspondent",
);
static RULE_BYTES: Family = Family {
    name: "mtun_rule_bytes_total",
    help: "Octets of inner packets that the rule decided, by uplink; up is from the mobile",
    kind: Kind::Counter,
    max: RULE_SERIES_MAX,
};
static DROPS: Family =
    family("mtun_drops_total", Kind::Counter, "Packets that were not carried, by reason");
static COPIES: Family = family(
    "mtun_copies_total",
    Kind::Counter,
    "Received copies of duplicated packets, by what became of them or of their order",
);
static FAST_PATH: Family = family(
    "mtun_fast_path_packets_total",
    Kind::Counter,
    "Packets that the kernel's fast path saw, by what became of them",
);
static FLOWS: Family =
    family("mtun_flows", Kind::Gauge, "Flows that are remembered, by their outbound uplink");
static FLOW_MOVES: Family =
    family("mtun_flow_moves_total", Kind::Counter, "Flows that changed their uplink, by reason");
static BINDING_UPDATES: Family = family(
    "mtun_binding_updates_total",
    Kind::Counter,
    "Bindings in Binding Updates, by the status that answered them",
);
static FLOW_BINDINGS: Family = family(
    "mtun_flow_bindings",
    Kind::Gauge,
    "Flow bindings by what became of them at the home agent: what it was told of the rules",
);
static BINDING_EXPIRES: Family = family(
    "mtun_binding_expires_timestamp_seconds",
    Kind::Gauge,
    "When the binding ends unless it is refreshed; 0 while it is not registered",
);
static POLICY_GENERATION: Family = family(
    "mtun_policy_generation",
    Kind::Gauge,
    "Rises with every change of an effective decision",
);
static POLICY_RELOAD: Family = family(
    "mtun_policy_last_reload_success",
    Kind::Gauge,
    "Whether the last policy that was to be applied was (1) or was refused (0)",
);
static HA_BINDINGS: Family =
    family("mtun_ha_bindings", Kind::Gauge, "Bindings in the home agent's cache");

static HOME_LINK: Family = family(
    "mtun_home_link_total",
    Kind::Counter,
    "What was said and heard about home addresses on home links, by kind",
);

static STORE_COMMITS: Family =
    family("mtun_store_commits_total", Kind::Counter, "Commits of the store of bindings");
static STORE_RECORDS: Family = family(
    "mtun_store_records_total",
    Kind::Counter,
    "Records that commits of the store of bindings wrote or removed",
);
static STORE_FAILURES: Family = family(
    "mtun_store_failures_total",
    Kind::Counter,
    "Commits of the store of bindings that failed, by reason",
);
static STORE_UNANSWERED: Family = family(
    "mtun_store_unanswered_total",
    Kind::Counter,
    "Acknowledgements dropped because their record could not be written in time",
);
static STORE_LARGEST: Family = family(
    "mtun_store_largest_batch",
    Kind::Gauge,
    "The most records of one commit of the store of bindings",
);
static STORE_WAITING: Family = family(
    "mtun_store_waiting",
    Kind::Gauge,
    "Mobiles whose records wait to be written at this moment",
);
static STORE_FAILING: Family = family(
    "mtun_store_failing",
    Kind::Gauge,
    "Whether the store of bindings cannot write (1), so that updates get status 130, or can (0)",
);

/// Every family but the histogram.
pub(super) static ALL: [&Family; 45] = [
    &LINK_UP,
    &LINK_USABLE,
    &LINK_LOSS,
    &LINK_SIGNAL,
    &LINK_PATH_MTU,
    &SOURCE_TELLING,
    &SOURCE_FAULTS,
    &REPORT_OVERRUNS,
    &REPORT_LISTINGS,
    &LINK_STATE_CHANGES,
    &LINK_PROBE_RTT,
    &LINK_JITTER,
    &LINK_CONVERSATIONS,
    &LINK_FLAPS,
    &LINK_PROBES,
    &LINK_QUOTA,
    &LINK_USED,
    &TUNNEL_BYTES,
    &TUNNEL_PACKETS,
    &STRAIGHT_BYTES,
    &STRAIGHT_PACKETS,
    &STRAIGHT_BINDINGS,
    &ROUTE_MESSAGES,
    &ROUTE_FAILURES,
    &CORRESPONDENT_BINDINGS,
    &RULE_BYTES,
    &DROPS,
    &COPIES,
    &FAST_PATH,
    &FLOWS,
    &FLOW_MOVES,
    &BINDING_UPDATES,
    &FLOW_BINDINGS,
    &BINDING_EXPIRES,
    &POLICY_GENERATION,
    &POLICY_RELOAD,
    &HA_BINDINGS,
    &HOME_LINK,
    &STORE_COMMITS,
    &STORE_RECORDS,
    &STORE_FAILURES,
    &STORE_UNANSWERED,
    &STORE_LARGEST,
    &STORE_WAITING,
    &STORE_FAILING,
];

type Labels = Vec<(&'static str, String)>;

/// The values of one family at one moment; what is said twice is added up.
type Values = HashMap<Labels, f64>;

/// Which series exist.
#[derive(Debug, Default)]
pub(super) struct Families {
    known: HashMap<&'static str, HashSet<Labels>>,
}

impl Families {
    /// Takes over an input. A gauge that it no longer names becomes 0, a counter stays.
    pub(super) fn update(&mut self, input: &MetricsInput, recorder: &impl Recorder) {
        for (family, values) in collect(input) {
            let known = self.known.entry(family.name).or_default();
            let mut bounded = Values::new();
            if family.kind == Kind::Gauge {
                bounded.extend(known.iter().map(|labels| (labels.clone(), 0.0)));
            }
            for (labels, value) in values {
                let fits = known.contains(&labels) || known.len() < family.max;
                let labels = if fits { labels } else { other(labels) };
                known.insert(labels.clone());
                *bounded.entry(labels).or_insert(0.0) += value;
            }
            for (labels, value) in bounded {
                set(family, labels, value, recorder);
            }
        }
    }
}

fn other(labels: Labels) -> Labels {
    labels.into_iter().map(|(name, _)| (name, "other".to_owned())).collect()
}

fn set(family: &Family, labels: Labels, value: f64, recorder: &impl Recorder) {
    let labels: Vec<Label> =
        labels.into_iter().map(|(name, value)| Label::new(name, value)).collect();
    let key = Key::from_parts(family.name, labels);
    match family.kind {
        // Counters were whole numbers, and stay exact up to 2^53 octets.
        Kind::Counter => recorder.register_counter(&key, &METADATA).absolute(value as u64),
        Kind::Gauge => recorder.register_gauge(&key, &METADATA).set(value),
    }
}

/// The values of every family, in the order in which a family keeps them.
fn collect(input: &MetricsInput) -> Vec<(&'static Family, Vec<(Labels, f64)>)> {
    fn rows<T>(
        family: &'static Family,
        figures: &[T],
        row: impl Fn(&T) -> (Labels, f64),
    ) -> (&'static Family, Vec<(Labels, f64)>) {
        (family, figures.iter().map(row).collect())
    }
    let text = |value: &dyn std::fmt::Display| value.to_string();
    let flag = |value: bool| if value { 1.0 } else { 0.0 };
    let store = input.store.as_slice();
    vec![
        rows(&LINK_UP, &input.links, |l| (vec![("link", text(&l.link))], flag(l.up))),
        rows(&LINK_USABLE, &input.links, |l| (vec![("link", text(&l.link))], flag(l.usable))),
        (&LINK_LOSS, measured(input, &[], |link| link.loss_ratio)),
        (&LINK_PROBE_RTT, {
            let smoothed = measured(input, &[("statistic", "smoothed")], |link| link.rtt_seconds);
            let p95 = measured(input, &[("statistic", "p95")], |link| link.rtt_p95_seconds);
            smoothed.into_iter().chain(p95).collect()
        }),
        (&LINK_JITTER, measured(input, &[], |link| link.jitter_seconds)),
        (&LINK_CONVERSATIONS, measured(input, &[], |link| link.conversation_rtt_seconds)),
        (&LINK_FLAPS, measured(input, &[], |link| link.flaps.map(|flaps| flaps as f64))),
        (&LINK_SIGNAL, measured(input, &[], |link| signal(input, link))),
        (&LINK_PATH_MTU, measured(input, &[], |link| link.path_mtu.map(f64::from))),
        (&REPORT_OVERRUNS, vec![(Vec::new(), input.reports.overruns as f64)]),
        (&REPORT_LISTINGS, vec![(Vec::new(), input.reports.listings as f64)]),
        rows(&SOURCE_TELLING, &input.sources, |s| (vec![("of", s.of.clone())], flag(s.telling))),
        rows(&SOURCE_FAULTS, &input.source_faults, |s| {
            (vec![("of", s.of.clone()), ("reason", s.reason.clone())], s.count as f64)
        }),
        rows(&LINK_STATE_CHANGES, &input.link_states, |s| {
            let labels = vec![
                ("link", text(&s.link)),
                ("state", s.state.clone()),
                ("reason", s.reason.clone()),
            ];
            (labels, s.changes as f64)
        }),
        rows(&LINK_PROBES, &input.probes, |p| {
            (vec![("link", text(&p.link)), ("result", p.result.clone())], p.probes as f64)
        }),
        rows(&LINK_QUOTA, &input.quotas, |q| (vec![("link", text(&q.link))], q.limit as f64)),
        rows(&LINK_USED, &input.quotas, |q| (vec![("link", text(&q.link))], q.used as f64)),
        rows(&TUNNEL_BYTES, &input.tunnels, |t| (tunnel_labels(t), t.bytes as f64)),
        rows(&TUNNEL_PACKETS, &input.tunnels, |t| (tunnel_labels(t), t.packets as f64)),
        rows(&STRAIGHT_BYTES, &input.straight, |t| (tunnel_labels(t), t.bytes as f64)),
        rows(&STRAIGHT_PACKETS, &input.straight, |t| (tunnel_labels(t), t.packets as f64)),
        rows(&STRAIGHT_BINDINGS, &input.routes, |r| {
            (vec![("home", text(&r.home))], r.bindings as f64)
        }),
        rows(&ROUTE_MESSAGES, &input.route_messages, |r| {
            (vec![("home", text(&r.home)), ("message", r.message.clone())], r.messages as f64)
        }),
        rows(&ROUTE_FAILURES, &input.route_failures, |r| {
            (vec![("home", text(&r.home)), ("reason", r.reason.clone())], r.failures as f64)
        }),
        rows(&CORRESPONDENT_BINDINGS, input.correspondent_bindings.as_slice(), |bindings| {
            (Vec::new(), *bindings as f64)
        }),
        rows(&RULE_BYTES, &input.rules, |r| {
            let labels = vec![
                ("home", text(&r.home)),
                ("rule", text(&r.rule)),
                ("link", r.link.clone()),
                ("direction", r.direction.as_str().to_owned()),
            ];
            (labels, r.bytes as f64)
        }),
        rows(&DROPS, &input.drops, |d| {
            (vec![("home", d.home.clone()), ("reason", d.reason.clone())], d.packets as f64)
        }),
        rows(&COPIES, &input.copies, |it| {
            (vec![("home", text(&it.home)), ("event", it.event.clone())], it.count as f64)
        }),
        rows(&FAST_PATH, &input.fast_path, |f| {
            (vec![("home", text(&f.home)), ("outcome", f.outcome.clone())], f.packets as f64)
        }),
        rows(&FLOWS, &input.flows, |f| {
            (vec![("home", text(&f.home)), ("link", f.link.clone())], f.flows as f64)
        }),
        rows(&FLOW_MOVES, &input.flow_moves, |m| {
            let labels =
                vec![("from", m.from.clone()), ("to", m.to.clone()), ("reason", m.reason.clone())];
            (labels, m.moves as f64)
        }),
        rows(&BINDING_UPDATES, &input.binding_updates, |b| {
            let labels = vec![
                ("home", text(&b.home)),
                ("link", b.link.clone()),
                ("status", b.status.clone()),
            ];
            (labels, b.updates as f64)
        }),
        rows(&FLOW_BINDINGS, &input.flow_bindings, |f| {
            let labels = vec![("home", text(&f.home)), ("state", f.state.clone())];
            (labels, f.flow_bindings as f64)
        }),
        rows(&BINDING_EXPIRES, &input.bindings, |b| {
            let labels = vec![("home", text(&b.home)), ("link", text(&b.link))];
            (labels, b.expires_timestamp_seconds)
        }),
        rows(&POLICY_GENERATION, &input.homes, |h| {
            (vec![("home", text(&h.home))], h.generation as f64)
        }),
        (&POLICY_RELOAD, vec![(Vec::new(), flag(input.policy_last_reload_success))]),
        rows(&HA_BINDINGS, &input.homes, |h| {
            (vec![("home", text(&h.home))], h.agent_bindings as f64)
        }),
        rows(&HOME_LINK, &input.home_links, |h| {
            (vec![("home", text(&h.home)), ("what", h.what.clone())], h.count as f64)
        }),
        rows(&STORE_COMMITS, store, |s| (Vec::new(), s.commits as f64)),
        rows(&STORE_RECORDS, store, |s| (Vec::new(), s.records as f64)),
        rows(&STORE_FAILURES, store.first().map_or(&[][..], |s| &s.failures), |(reason, count)| {
            (vec![("reason", reason.clone())], *count as f64)
        }),
        rows(&STORE_UNANSWERED, store, |s| (Vec::new(), s.unanswered as f64)),
        rows(&STORE_LARGEST, store, |s| (Vec::new(), s.largest_batch as f64)),
        rows(&STORE_WAITING, store, |s| (Vec::new(), s.waiting as f64)),
        rows(&STORE_FAILING, store, |s| (Vec::new(), flag(s.failing))),
    ]
}

/// Of the links that are measured: a zero for the others would be a good figure that nobody has
/// seen.
fn measured(
    input: &MetricsInput,
    further: &[(&'static str, &str)],
    figure: impl Fn(&LinkFigures) -> Option<f64>,
) -> Vec<(Labels, f64)> {
    let row = |link: &LinkFigures| {
        let mut labels = vec![("link", link.link.to_string())];
        labels.extend(further.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Some((labels, figure(link)?))
    };
    input.links.iter().filter_map(row).collect()
}

/// Of a link whose radio somebody is asked about; 0 dBm would be the best signal there is, so what
/// is not known is no number.
fn signal(input: &MetricsInput, link: &LinkFigures) -> Option<f64> {
    let asked = input.sources.iter().any(|source| source.of == link.link.as_str());
    link.signal_dbm.map(f64::from).or(asked.then_some(f64::NAN))
}

fn tunnel_labels(figures: &super::TunnelFigures) -> Labels {
    vec![
        ("home", figures.home.to_string()),
        ("link", figures.link.clone()),
        ("direction", figures.direction.as_str().to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{DropFigures, LinkFigures, Metrics, MetricsInput};

    fn drops(count: usize, packets: u64) -> MetricsInput {
        let row = |n| DropFigures { home: "acme".to_owned(), reason: format!("r{n}"), packets };
        MetricsInput { drops: (0..count).map(row).collect(), ..MetricsInput::default() }
    }

    #[test]
    fn a_family_is_bounded_and_the_rest_is_added_up() {
        let metrics = Metrics::new(&drops(10, 0));
        metrics.update(&drops(500, 2));
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("mtun_drops_total{")).count();
        assert_eq!(series, super::SERIES_MAX + 1, "and one for all the others");
        let others = 2 * (500 - super::SERIES_MAX);
        assert!(
            text.contains(&format!(
                "mtun_drops_total{{home=\"other\",reason=\"other\"}} {others}\n"
            ))
        );
        assert!(text.contains("mtun_drops_total{home=\"acme\",reason=\"r0\"} 2\n"));
    }

    #[test]
    fn a_link_that_is_gone_is_not_up() {
        let link = LinkFigures {
            link: "wlan0".into(),
            up: true,
            usable: true,
            loss_ratio: None,
            rtt_seconds: None,
            rtt_p95_seconds: None,
            jitter_seconds: None,
            conversation_rtt_seconds: None,
            flaps: Some(0),
            signal_dbm: None,
            path_mtu: None,
        };
        let with = MetricsInput { links: vec![link], ..MetricsInput::default() };
        let metrics = Metrics::new(&with);
        assert!(metrics.render().contains("mtun_link_up{link=\"wlan0\"} 1\n"));
        metrics.update(&MetricsInput::default());
        assert!(metrics.render().contains("mtun_link_up{link=\"wlan0\"} 0\n"));
    }
}
