//! `mtun policy diff`: what a policy would do to the flows there are. Nothing of it is applied.
//!
//! The policy is read in a thread of its own, which also takes two samples of the flows, half a
//! second apart, for their rates. The owner loop then builds the snapshot that packets would read,
//! from the present links and a copy of their history; the comparison itself is again a thread's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtun_dataplane::{Course, CourseEnd, Engine, FlowEntry, Memory, Snapshot, explain};
use mtun_policy::{Bid, FlowKey, FlowMove, FlowsDiff, HomeName, Policy, RuleName, Way};
use tokio::sync::oneshot;

use super::apply::Candidate;
use super::owner::Owner;
use crate::control::documents::PolicyDiffDocument;
use crate::control::protocol::PolicySource;
use crate::control::{ControlError, Response};
use crate::publish;

/// How far apart the two samples are.
const APART: Duration = Duration::from_millis(500);

/// The flows of one home with their rates.
#[derive(Debug)]
struct Sample {
    home: HomeName,
    flows: Vec<FlowEntry>,
    /// Octets a second, both directions.
    rates: HashMap<FlowKey, u64>,
}

/// A policy that was read, with the flows it is to be held against.
#[derive(Debug)]
pub(super) struct Preview {
    candidate: Result<Candidate, ControlError>,
    samples: Vec<Sample>,
    reply: oneshot::Sender<Result<Response, ControlError>>,
}

/// One home in both worlds.
struct Worlds {
    sample: Sample,
    present: Arc<Snapshot>,
    other: Snapshot,
}

impl Owner {
    /// Has a policy read and the flows sampled; [`Owner::previewed`] goes on with it.
    pub(super) fn prepare_preview(
        &self,
        source: PolicySource,
        reply: oneshot::Sender<Result<Response, ControlError>>,
    ) {
        let done = self.previewing.clone();
        let added = self.added.text();
        let lanes = self.homes.iter();
        let lanes: Vec<(HomeName, Arc<Engine>)> =
            lanes.map(|home| (home.home.name.clone(), home.tunnel.lane.engine.clone())).collect();
        tokio::task::spawn_blocking(move || {
            let first: Vec<_> = lanes.iter().map(|(_, engine)| engine.flows()).collect();
            let since = Instant::now();
            let candidate = Candidate::read(&source, added.as_ref());
            if candidate.is_ok() {
                std::thread::sleep(APART.saturating_sub(since.elapsed()));
            }
            let span = since.elapsed();
            let samples = lanes.into_iter().zip(first);
            let samples = samples.map(|((home, engine), first)| sample(home, &engine, first, span));
            let preview = Preview { candidate, samples: samples.collect(), reply };
            // The daemon may be stopping; then nobody waits for it.
            let _ = done.blocking_send(preview);
        });
    }

    /// Goes on with a policy that was read to be compared.
    pub(super) fn previewed(&mut self, preview: Preview) {
        let Preview { candidate, samples, reply } = preview;
        let accepted = candidate.and_then(|candidate| {
            super::apply::acceptable(&self.policy, &candidate.policy)?;
            Ok(candidate.policy)
        });
        let other = match accepted {
            Ok(other) => other,
            // The client may have left; that is no fault.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let now = self.now().monotonic;
        let samples = samples.into_iter();
        let worlds: Vec<_> =
            samples.filter_map(|sample| self.worlds(sample, &other, now)).collect();
        let additions = &self.added.additions;
        let beside = additions.mobiles.len() + additions.refused.len();
        let present = self.policy.clone();
        tokio::task::spawn_blocking(move || {
            let mut document = PolicyDiffDocument::new(&present, &other);
            document.beside_the_file = beside;
            for worlds in worlds {
                let home = worlds.sample.home.clone();
                document.add_flows(&home, worlds.compare(now), &present, &other);
            }
            let _ = reply.send(Ok(Response::PolicyDiff(document)));
        });
    }

    fn worlds(&self, sample: Sample, other: &Policy, now: Duration) -> Option<Worlds> {
        let it = self.homes.iter().find(|home| home.home.name == sample.home)?;
        let new = other.home(sample.home.as_str())?;
        let mut steering = it.steering.clone();
        steering.adopt(other, new, now);
        let path = |bid: Bid| self.path_facts(other, &steering, bid);
        let list = it.node.update_list();
        let registration = publish::home(new, &list, steering.effective(), path);
        let present = it.tunnel.published.load_full();
        let other = publish::supposed(&present, registration, &new.also, now);
        Some(Worlds { sample, present, other })
    }
}

fn sample(home: HomeName, engine: &Engine, first: Vec<FlowEntry>, span: Duration) -> Sample {
    let octets = |flow: &FlowEntry| flow.bytes_out + flow.bytes_in;
    let first: HashMap<FlowKey, u64> = first.iter().map(|flow| (flow.key, octets(flow))).collect();
    let flows = engine.flows();
    let rate = |flow: &FlowEntry| {
        let before = first.get(&flow.key).copied().unwrap_or(0);
        let grown = octets(flow).saturating_sub(before) as f64;
        (flow.key, (grown / span.as_secs_f64().max(0.001)) as u64)
    };
    let rates = flows.iter().map(rate).collect();
    Sample { home, flows, rates }
}

/// What tells groups of moving flows apart.
type Group = (Option<RuleName>, Option<RuleName>, Way, Way);

impl Worlds {
    fn compare(&self, now: Duration) -> FlowsDiff {
        let Sample { flows, rates, .. } = &self.sample;
        let rate = |key: &FlowKey| rates.get(key).copied().unwrap_or(0);
        let moves = mtun_dataplane::diff(&self.present, &self.other, flows, now);
        let judged = flows.iter().filter(|flow| flow.memory.answer.is_some());
        let mut groups: HashMap<Group, FlowMove> = HashMap::new();
        let name = |course: &Course| course.rule.as_ref().map(|(_, name)| name.clone());
        for moved in &moves {
            let (from, to) = (way(&moved.from), way(&moved.to));
            let group = (name(&moved.from), name(&moved.to), from.clone(), to.clone());
            let carried = rate(&moved.key);
            let entry = groups.entry(group.clone()).or_insert_with(|| FlowMove {
                rule_before: group.0,
                rule: group.1,
                from,
                to,
                flows: 0,
                bytes_per_second: Some(0),
                example: moved.key,
            });
            entry.flows += 1;
            if carried > rate(&entry.example) {
                entry.example = moved.key;
            }
            entry.bytes_per_second = entry.bytes_per_second.map(|sum| sum + carried);
        }
        let moving: HashSet<FlowKey> = moves.iter().map(|it| it.key).collect();
        let stays = judged.clone().filter(|flow| !moving.contains(&flow.key));
        let other_rule = stays.filter(|flow| self.changes_rule(flow, now)).count();
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|it| std::cmp::Reverse((it.bytes_per_second, it.flows)));
        FlowsDiff {
            flows: judged.count(),
            moving: moves.len(),
            moving_bytes_per_second: Some(moves.iter().map(|it| rate(&it.key)).sum()),
            other_rule,
            moves: groups,
        }
    }

    /// Whether another rule would decide of a flow that stays on its way.
    fn changes_rule(&self, flow: &FlowEntry, now: Duration) -> bool {
        let rule = |snapshot: &Snapshot| {
            let explained = explain(snapshot, &flow.key, now, Memory::of(&flow.memory));
            explained.rule.map(|(_, name)| name)
        };
        rule(&self.present) != rule(&self.other)
    }
}

fn way(course: &Course) -> Way {
    match course.end {
        CourseEnd::Tunnel(Some(bid)) => Way::Tunnel(bid),
        CourseEnd::Copies(Some(bid)) => Way::Copies(vec![bid]),
        CourseEnd::Breakout { bid: Some(bid), .. } => Way::Breakout(bid),
        CourseEnd::Refused(_) => Way::Blocked,
        CourseEnd::Tunnel(None)
        | CourseEnd::Copies(None)
        | CourseEnd::Breakout { bid: None, .. }
        | CourseEnd::Dropped(_)
        | CourseEnd::NotOurs => Way::Unreachable,
    }
}
