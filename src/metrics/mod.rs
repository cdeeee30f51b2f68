//! Figures for Prometheus.
//!
//! Nothing is counted here: the packet threads and the owner loop keep their own counters, and at
//! a scrape [`Metrics::update`] copies them from a [`MetricsInput`]. So a scrape costs the packet
//! path nothing, and what the daemon names in its first input exists from the start with 0.
//! Labels are names of the policy file and words of the daemon, never addresses, BIDs or flows;
//! a family that would grow without bound puts what is too much under `other`.

mod family;
mod http;
mod input;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Histogram, Key, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use mtun_policy::InterfaceName;

pub use http::Scrapes;
pub use input::{
    BindingFigures, BindingUpdateFigures, CopyFigures, Direction, DropFigures, FastPathFigures,
    FlowBindingFigures, FlowFigures, FlowMoveFigures, HomeFigures, HomeLinkFigures, LinkFigures,
    LinkStateFigures, MetricsInput, ProbeFigures, QuotaFigures, ReportFigures, RouteFailureFigures,
    RouteFigures, RouteMessageFigures, RuleFigures, SourceFaultFigures, SourceFigures,
    StoreFigures, TunnelFigures,
};

use self::family::{Families, Kind, METADATA};

/// Why flows change their uplink: the values of `reason` of the handover durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandoverReason {
    /// The link went down.
    LinkDown,
    /// A better link came up.
    LinkUp,
    /// The care-of address of a link changed.
    CareOfChanged,
    /// A person or a policy asked for it.
    Policy,
}

impl HandoverReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LinkDown, Self::LinkUp, Self::CareOfChanged, Self::Policy];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinkDown => "link-down",
            Self::LinkUp => "link-up",
            Self::CareOfChanged => "care-of-changed",
            Self::Policy => "policy",
        }
    }
}

/// From 1 ms, one burst of probes, to the 32 s of the last retransmission (RFC 6275 §12).
const HANDOVER_BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 32.0];

const HANDOVER: &str = "mtun_handover_duration_seconds";

/// From a fibre next door to a satellite.
const ROUND_TRIP_BUCKETS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

const ROUND_TRIP: &str = "mtun_link_rtt_seconds";

/// Links with a histogram of their own; what further ones take is added up as `other`.
const ROUND_TRIP_LINKS: usize = 16;

/// All series. Its own recorder, not the process's, so that several can live side by side.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    families: Mutex<Families>,
    /// The links that have a histogram.
    round_trips: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The series of a daemon that starts: everything that `first` names, with its values.
    pub fn new(first: &MetricsInput) -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(HANDOVER.to_owned()), &HANDOVER_BUCKETS)
            .and_then(|it| {
                let name = Matcher::Full(ROUND_TRIP.to_owned());
                it.set_buckets_for_metric(name, &ROUND_TRIP_BUCKETS)
            })
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        for family in family::ALL {
            let (name, help) = (family.name.into(), family.help.into());
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
            }
        }
        let help = "Time from the event that moved flows until new packets took the other uplink";
        recorder.describe_histogram(HANDOVER.into(), None, help.into());
        for reason in HandoverReason::ALL {
            drop(recorder.register_histogram(&handover_key(reason), &METADATA));
        }
        let help = "Time from a Binding Update by the link to its acknowledgement, of those that \
                    were answered at the first try";
        recorder.describe_histogram(ROUND_TRIP.into(), None, help.into());
        let (families, round_trips) = (Mutex::default(), Mutex::default());
        let metrics = Self { recorder, handle, families, round_trips };
        metrics.update(first);
        metrics
    }

    /// Takes over the figures of this moment.
    pub fn update(&self, input: &MetricsInput) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.update(input, &self.recorder);
        drop(families);
        // Those with a binding; what has none is never asked for its round trip.
        for link in &input.links {
            if input.bindings.iter().any(|binding| binding.link == link.link) {
                drop(self.round_trip_key(&link.link).map(|key| self.histogram(&key)));
            }
        }
    }

    /// Notes how long a Binding Update by a link took to be answered.
    pub fn round_trip(&self, link: &InterfaceName, took: Duration) {
        let key = self.round_trip_key(link).unwrap_or_else(|| link_key("other"));
        self.histogram(&key).record(took.as_secs_f64());
        self.handle.run_upkeep();
    }

    /// The series of a link, if there is room for it.
    fn round_trip_key(&self, link: &InterfaceName) -> Option<Key> {
        let mut known = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = known.contains(link.as_str()) || known.len() < ROUND_TRIP_LINKS;
        fits.then(|| {
            known.insert(link.to_string());
            link_key(link.as_str())
        })
    }

    fn histogram(&self, key: &Key) -> Histogram {
        self.recorder.register_histogram(key, &METADATA)
    }

    /// Notes how long it took to move flows to another uplink.
    pub fn handover(&self, reason: HandoverReason, took: Duration) {
        self.histogram(&handover_key(reason)).record(took.as_secs_f64());
        // Samples wait in memory until somebody looks; without a scraper that may be never.
        self.handle.run_upkeep();
    }

    /// All series in the text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

fn link_key(link: &str) -> Key {
    Key::from_parts(ROUND_TRIP, vec![metrics::Label::new("link", link.to_owned())])
}

fn handover_key(reason: HandoverReason) -> Key {
    Key::from_parts(HANDOVER, vec![metrics::Label::new("reason", reason.as_str())])
}
