//! What the demo found: one document for programs, a page for people.

use std::fmt;

use mtun_policy::{Bid, CareOfAddress};
use schemars::JsonSchema;
use serde::Serialize;

use super::traffic::FlowRow;

/// One phase of the demo.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PhaseReport {
    /// Its name.
    pub phase: &'static str,
    /// What was done and what it shows, in one sentence.
    pub summary: String,
    /// Time from the action until every flow used its uplink, in milliseconds.
    pub settled_ms: Option<f64>,
    /// The flows, each judged over the whole phase.
    pub flows: Vec<FlowRow>,
}

/// The one tunnel interface, watched from the first phase to the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct TunnelReport {
    /// Tunnel interfaces at the mobile router.
    pub interfaces: usize,
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MTU.
    pub mtu: u32,
    /// Whether the index was ever another.
    pub ifindex_changed: bool,
    /// Whether the MTU was ever another.
    pub mtu_changed: bool,
}

/// A binding, as the home agent confirmed it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct BindingReport {
    /// Its identification number.
    pub bid: Option<Bid>,
    /// The uplink.
    pub link: Option<String>,
    /// The care-of address.
    pub care_of: Option<CareOfAddress>,
    /// Where its registration stood.
    pub phase: String,
}

/// The whole demo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// Whether everything was as it must be.
    pub ok: bool,
    /// What was not.
    pub reasons: Vec<String>,
    /// The phases in order.
    pub phases: Vec<PhaseReport>,
    /// The tunnel interface.
    pub tunnel: TunnelReport,
    /// The bindings of the first phase.
    pub bindings: Vec<BindingReport>,
    /// Plain packets with a home source seen on uplinks; must be 0.
    pub plain_home_source_packets: u64,
    /// ICMPv6 Parameter Problems seen on uplinks; must be 0.
    pub parameter_problems: u64,
    /// Names of the namespaces that were left for playing, with `--keep`.
    pub kept: Vec<String>,
}

impl Report {
    /// Notes `reason` unless `holds`.
    pub fn require(&mut self, holds: bool, reason: impl FnOnce() -> String) {
        if !holds {
            self.reasons.push(reason());
        }
    }
}

/// The table of one phase.
pub fn table(flows: &[FlowRow]) -> String {
    let mut text = format!(
        "  {:<7} {:<6} {:<8} {:<15} {:>9} {:>9} {:>5} {:>5} {:>7} {:>9}\n",
        "from",
        "flow",
        "rule",
        "uplink out/in",
        "sent",
        "received",
        "lost",
        "twice",
        "reorder",
        "gap"
    );
    for row in flows {
        let uplink = |uplink: &Option<String>| uplink.clone().unwrap_or_else(|| "none".into());
        let uplinks = format!("{}/{}", uplink(&row.uplink_outbound), uplink(&row.uplink_inbound));
        let total = &row.total;
        text += &format!(
            "  {:<7} {:<6} {:<8} {:<15} {:>9} {:>9} {:>5} {:>5} {:>7} {:>6.1} ms{}\n",
            row.from,
            row.flow,
            row.rule.as_deref().unwrap_or("none"),
            uplinks,
            total.sent,
            total.received,
            total.lost,
            total.duplicated,
            total.reordered,
            total.longest_gap_ms,
            row.broken.as_ref().map(|reason| format!("  BROKEN: {reason}")).unwrap_or_default(),
        );
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "SUMMARY")?;
        for (number, phase) in self.phases.iter().enumerate() {
            writeln!(f, "\n{}. {}: {}", number + 1, phase.phase, phase.summary)?;
            f.write_str(&table(&phase.flows))?;
        }
        let tunnel = &self.tunnel;
        writeln!(
            f,
            "\nOne tunnel interface for everything: {} of them, {} with index {} and MTU {}, {}.",
            tunnel.interfaces,
            tunnel.name,
            tunnel.ifindex,
            tunnel.mtu,
            if tunnel.ifindex_changed || tunnel.mtu_changed { "CHANGED" } else { "never changed" }
        )?;
        for binding in &self.bindings {
            writeln!(
                f,
                "Binding {}: {} over {}, {}.",
                binding.bid.map_or_else(|| "without BID".into(), |bid| format!("BID {bid}")),
                binding.care_of.map_or_else(|| "no address".into(), |address| address.to_string()),
                binding.link.as_deref().unwrap_or("no link"),
                binding.phase
            )?;
        }
        writeln!(
            f,
            "Plain packets with a home source on the uplinks: {}. ICMPv6 Parameter Problems: {}.",
            self.plain_home_source_packets, self.parameter_problems
        )?;
        writeln!(
            f,
            "\nTCP counts octets, probes count packets; a gap is the longest of the phase."
        )?;
        if self.ok {
            return writeln!(f, "OK: everything was as it must be.");
        }
        writeln!(f, "NOT OK:")?;
        self.reasons.iter().try_for_each(|reason| writeln!(f, "  - {reason}"))
    }
}
