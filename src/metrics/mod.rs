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

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Key, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use http::{Scrapes, ScrapesError};
pub use input::{
    BindingFigures, BindingUpdateFigures, Direction, DropFigures, FastPathFigures,
    FlowBindingFigures, FlowFigures, FlowMoveFigures, HomeFigures, HomeLinkFigures, LinkFigures,
    LinkStateFigures, MetricsInput, QuotaFigures, RouteFailureFigures, RouteFigures,
    RouteMessageFigures, RuleFigures, StoreFigures, TunnelFigures,
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

/// All series. Its own recorder, not the process's, so that several can live side by side.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    families: Mutex<Families>,
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
        let metrics = Self { recorder, handle, families: Mutex::default() };
        metrics.update(first);
        metrics
    }

    /// Takes over the figures of this moment.
    pub fn update(&self, input: &MetricsInput) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.update(input, &self.recorder);
    }

    /// Notes how long it took to move flows to another uplink.
    pub fn handover(&self, reason: HandoverReason, took: Duration) {
        let histogram = self.recorder.register_histogram(&handover_key(reason), &METADATA);
        histogram.record(took.as_secs_f64());
        // Samples wait in memory until somebody looks; without a scraper that may be never.
        self.handle.run_upkeep();
    }

    /// All series in the text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

fn handover_key(reason: HandoverReason) -> Key {
    Key::from_parts(HANDOVER, vec![metrics::Label::new("reason", reason.as_str())])
}
