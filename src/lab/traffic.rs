//! The traffic of figure 11, twice: from the router itself and from the node behind it.
//!
//! Each origin has an SSH-like flow, a bulk flow and 1,000 probes a second. A [`Mark`] begins a
//! stretch, [`Traffic::rows`] judges it: one [`FlowRow`] a flow.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use super::daemons::Daemon;
use super::flows::{Kind, Progress, Services, TcpFlow};
use super::namespace::{Namespace, wait_for};
use super::observe::{Flow, Observatory, Way};
use super::probe::{Bound, Echo, INTERVAL, PORT, Probe, TwoWay};
use super::tally::Tally;
use super::world::{World, address};

/// Where a flow begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// At the mobile router: Mobile IPv6.
    Router,
    /// At the node behind it: NEMO.
    Node,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Router => "router",
            Self::Node => "node",
        })
    }
}

/// A flow's name in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// The SSH-like flow.
    Ssh,
    /// The bulk flow.
    Bulk,
    /// The probes.
    Probe,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ssh => "ssh",
            Self::Bulk => "bulk",
            Self::Probe => "probe",
        })
    }
}

/// One direction of a flow over a stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WayRow {
    /// The uplink of its latest packet, as seen on the links; `null` if none was seen.
    pub uplink: Option<String>,
    /// What became of the packets (of the octets, for TCP).
    #[serde(flatten)]
    pub tally: Tally,
}

/// One flow over a stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FlowRow {
    /// Its name.
    pub flow: Name,
    /// Where it begins.
    pub from: Origin,
    /// Its addresses and ports.
    pub key: String,
    /// What `sent` and the others count.
    pub unit: &'static str,
    /// The rule that the daemon names for it.
    pub rule: Option<String>,
    /// Uplink of its packets to the correspondent.
    pub uplink_outbound: Option<String>,
    /// Uplink of its packets from the correspondent.
    pub uplink_inbound: Option<String>,
    /// Both directions together; the gap is the longer one.
    #[serde(flatten)]
    pub total: Tally,
    /// To the correspondent.
    pub outbound: WayRow,
    /// From the correspondent.
    pub inbound: WayRow,
    /// Why a TCP flow is no more.
    pub broken: Option<String>,
}

/// The running traffic; ends when dropped.
#[derive(Debug)]
pub struct Traffic {
    tcp: Vec<(Origin, TcpFlow)>,
    probes: Vec<(Origin, Probe)>,
    // Last, so that clients end before what they talk to.
    _services: Services,
    _echo: Echo,
}

/// The beginning of a stretch.
#[derive(Clone, Debug)]
pub struct Mark {
    tcp: Vec<Progress>,
    probes: Vec<u32>,
}

impl Traffic {
    /// Starts everything; returns when every flow has had an answer.
    pub fn start(world: &World, patience: Duration) -> Result<Self> {
        let echo = Echo::start(&world.cn)?;
        let services = Services::start(&world.cn)?;
        let origins: [(Origin, &Namespace); 2] =
            [(Origin::Router, &world.mr), (Origin::Node, &world.mnn)];
        let mut tcp = Vec::new();
        let mut probes = Vec::new();
        for (origin, namespace) in origins {
            for kind in [Kind::Ssh, Kind::Bulk] {
                let flow = TcpFlow::connect(namespace, kind, patience)?;
                flow.wait_for_progress(patience)?;
                tcp.push((origin, flow));
            }
            let probe = Probe::start(namespace, &echo, INTERVAL, &Bound::Nowhere)?;
            probe.wait_for_echo_after(1, patience)?;
            probes.push((origin, probe));
        }
        Ok(Self { tcp, probes, _services: services, _echo: echo })
    }

    /// The probe of an origin.
    pub fn probe(&self, origin: Origin) -> &Probe {
        let found = self.probes.iter().find(|(of, _)| *of == origin);
        &found.expect("one probe an origin").1
    }

    /// A TCP flow.
    pub fn tcp(&self, origin: Origin, kind: Kind) -> &TcpFlow {
        let found = self.tcp.iter().find(|(of, flow)| *of == origin && flow.kind() == kind);
        &found.expect("one of each kind an origin").1
    }

    /// Begins a stretch.
    pub fn mark(&self) -> Mark {
        Mark {
            tcp: self.tcp.iter().map(|(_, flow)| flow.take_progress()).collect(),
            probes: self.probes.iter().map(|(_, probe)| probe.mark()).collect(),
        }
    }

    /// Waits until every origin has sent `count` more probes.
    pub fn let_run(&self, count: u32) -> Result<()> {
        let goals: Vec<u32> = self.probes.iter().map(|(_, probe)| probe.mark() + count).collect();
        wait_for("probes to be sent", Duration::from_secs(120), || {
            let sent =
                self.probes.iter().zip(&goals).all(|((_, probe), goal)| probe.mark() >= *goal);
            sent.then_some(())
        })
    }

    /// Waits until every TCP flow has got through once more; an error if one is broken.
    pub fn all_progress(&self, patience: Duration) -> Result<()> {
        self.tcp.iter().try_for_each(|(_, flow)| flow.wait_for_progress(patience))
    }

    /// Every flow as the taps know it.
    pub fn keys(&self) -> Vec<(Name, Origin, Flow)> {
        let mut keys = Vec::new();
        for (origin, flow) in &self.tcp {
            let name = match flow.kind() {
                Kind::Ssh => Name::Ssh,
                Kind::Bulk => Name::Bulk,
            };
            let local = flow.local();
            let home = (*local.ip(), local.port());
            keys.push((name, *origin, Flow::to_correspondent(6, home, flow.kind().port())));
        }
        for (origin, probe) in &self.probes {
            let address = match origin {
                Origin::Router => address::HOME,
                Origin::Node => address::NODE,
            };
            let flow = Flow::to_correspondent(17, (address, probe.port()), PORT);
            keys.push((Name::Probe, *origin, flow));
        }
        keys.sort_by_key(|(name, origin, _)| (*origin, *name));
        keys
    }

    /// Waits until every flow's latest packets, both ways, took the uplink that `wanted` says.
    pub fn wait_for_uplinks(
        &self,
        observatory: &Observatory,
        patience: Duration,
        wanted: impl Fn(Name, Origin) -> &'static str,
    ) -> Result<()> {
        let keys = self.keys();
        let now = || {
            let uplink = |flow: &Flow, way| observatory.uplink(flow, way).unwrap_or_default();
            keys.iter()
                .map(|(name, origin, flow)| {
                    (*name, *origin, uplink(flow, Way::Out), uplink(flow, Way::In))
                })
                .collect::<Vec<_>>()
        };
        let settled = |rows: &[(Name, Origin, String, String)]| {
            rows.iter().all(|(name, origin, out, back)| {
                let wanted = wanted(*name, *origin);
                out == wanted && back == wanted
            })
        };
        wait_for("the flows to use their uplinks", patience, || settled(&now()).then_some(()))
            .map_err(|error| error.context(format!("uplinks out and in: {:?}", now())))
    }

    /// Judges the probes since `mark`.
    pub fn probe_tallies(&self, mark: &Mark) -> Vec<(Origin, TwoWay)> {
        self.probes
            .iter()
            .zip(&mark.probes)
            .map(|((origin, probe), from)| (*origin, probe.tally_since(*from)))
            .collect()
    }

    /// Judges every flow since `mark`.
    pub fn rows(&self, mark: &Mark, observatory: &Observatory, daemon: &Daemon) -> Vec<FlowRow> {
        let remembered = daemon.flows().unwrap_or_default();
        let keys = self.keys();
        let row = |name: Name, origin: Origin, unit, out: Tally, back: Tally, broken| {
            let (_, _, flow) = keys
                .iter()
                .find(|(of, from, _)| (*of, *from) == (name, origin))
                .expect("a key for every flow");
            let rule = remembered
                .iter()
                .find(|entry| {
                    let key = &entry.key;
                    key.protocol == flow.protocol
                        && key.source == flow.home.0
                        && key.source_port == Some(flow.home.1)
                        && key.destination_port == Some(flow.peer.1)
                })
                .and_then(|entry| entry.rule.as_ref().map(ToString::to_string));
            let (uplink_outbound, uplink_inbound) =
                (observatory.uplink(flow, Way::Out), observatory.uplink(flow, Way::In));
            FlowRow {
                flow: name,
                from: origin,
                key: flow.to_string(),
                unit,
                rule,
                uplink_outbound: uplink_outbound.clone(),
                uplink_inbound: uplink_inbound.clone(),
                total: both(&out, &back),
                outbound: WayRow { uplink: uplink_outbound, tally: out },
                inbound: WayRow { uplink: uplink_inbound, tally: back },
                broken,
            }
        };
        let mut rows = Vec::new();
        for ((origin, flow), before) in self.tcp.iter().zip(&mark.tcp) {
            let name = if flow.kind() == Kind::Ssh { Name::Ssh } else { Name::Bulk };
            let tally = stretch(flow, before);
            rows.push(row(name, *origin, "octets", tally, tally, flow.progress().broken));
        }
        for ((origin, probe), from) in self.probes.iter().zip(&mark.probes) {
            let tally = probe.tally_since(*from);
            rows.push(row(Name::Probe, *origin, "packets", tally.outbound, tally.inbound, None));
        }
        rows.sort_by_key(|row| (row.from, row.flow));
        rows
    }
}

/// What a TCP flow sent since `before` and what of it has come back.
fn stretch(flow: &TcpFlow, before: &Progress) -> Tally {
    let goal = flow.progress().sent;
    // What TCP still carries is not lost; a flow that stands still for this long is judged so.
    let _ = wait_for("the echo", Duration::from_secs(3), || {
        let progress = flow.progress();
        (progress.received >= goal || progress.broken.is_some()).then_some(())
    });
    let after = flow.progress();
    let sent = goal - before.sent;
    let lost = goal.saturating_sub(after.received);
    Tally {
        sent,
        received: sent.saturating_sub(lost),
        lost,
        longest_gap_ms: after.longest_stall_ms,
        ..Tally::default()
    }
}

fn both(out: &Tally, back: &Tally) -> Tally {
    Tally {
        sent: out.sent + back.sent,
        received: out.received + back.received,
        lost: out.lost + back.lost,
        duplicated: out.duplicated + back.duplicated,
        reordered: out.reordered + back.reordered,
        longest_gap_ms: out.longest_gap_ms.max(back.longest_gap_ms),
    }
}
