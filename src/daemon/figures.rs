//! The figures behind the metrics, copied when somebody asks.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use mtun_dataplane::{DropReason, Engine, Form, MoveReason};
use mtun_policy::probing::ProbeCounts;
use mtun_policy::{Bid, HomeName, RuleId, RuleName};

use super::answers::rule_name;
use super::owner::Owner;
use crate::control::documents::{FlowBindingDocument, FlowBindingState};
use crate::edge::netlink::Reports;
use crate::metrics::{
    BindingFigures, BindingUpdateFigures, CopyFigures, Direction, DropFigures, FastPathFigures,
    FlowBindingFigures, FlowFigures, FlowMoveFigures, HomeFigures, HomeLinkFigures, LinkFigures,
    LinkStateFigures, MetricsInput, ProbeFigures, QuotaFigures, ReportFigures, RouteFailureFigures,
    RouteFigures, RouteMessageFigures, RuleFigures, StoreFigures, TunnelFigures,
};
use crate::store::StoreError;

/// Moves that are named from the start; of more links only those that happened.
const MOVES_NAMED: usize = 100;

/// One home's packet loop with the names of its rules.
struct Lane<'o> {
    home: &'o HomeName,
    engine: &'o Engine,
    rules: Vec<RuleName>,
    /// Outbound is up on a mobile and down at an agent.
    out: Direction,
    name: Box<dyn Fn(RuleId) -> RuleName + 'o>,
}

impl Owner {
    /// All figures at this moment.
    pub(super) fn metrics_input(&self) -> MetricsInput {
        let mut input = MetricsInput {
            policy_last_reload_success: self.refused.is_none(),
            ..MetricsInput::default()
        };
        self.link_figures(&mut input);
        self.home_figures(&mut input);
        self.move_figures(&mut input);
        self.flow_binding_figures(&mut input);
        self.route_figures(&mut input);
        for lane in self.lanes() {
            self.lane_figures(&lane, &mut input);
        }
        for (reason, packets) in self.shared.failures.snapshot() {
            input.drops.push(DropFigures {
                home: "none".to_owned(),
                reason: reason.to_owned(),
                packets,
            });
        }
        match self.firewall.counters() {
            Ok(counted) => {
                for (reason, packets) in
                    [("leak", counted.leaks), ("foreign-source", counted.foreign)]
                {
                    let (home, reason) = ("none".to_owned(), reason.to_owned());
                    input.drops.push(DropFigures { home, reason, packets });
                }
            }
            Err(error) => tracing::debug!(%error, "the firewall's counters cannot be read"),
        }
        for served in &self.served {
            let figures = served.home_link.iter().flat_map(|link| link.figures());
            input.home_links.extend(figures.map(|(what, count)| HomeLinkFigures {
                home: served.served.name.clone(),
                what: what.to_owned(),
                count,
            }));
        }
        for home in &self.homes {
            let figures = home.homecoming.counts.named();
            input.home_links.extend(figures.into_iter().map(|(what, count)| HomeLinkFigures {
                home: home.home.name.clone(),
                what: what.to_owned(),
                count,
            }));
        }
        input.store = self.keeping.as_ref().map(|keeping| {
            let figures = keeping.figures();
            let count = |word: &&'static str| figures.failures.get(word).copied().unwrap_or(0);
            let words = StoreError::WORDS.iter();
            StoreFigures {
                failing: keeping.failing.is_some(),
                commits: figures.commits,
                records: figures.records,
                largest_batch: figures.largest_batch,
                waiting: figures.waiting,
                failures: words.map(|word| ((*word).to_owned(), count(word))).collect(),
                unanswered: figures.unanswered,
            }
        });
        let homes = self.homes.iter().map(|it| (&it.home.name, &it.tunnel));
        let served = self.served.iter().map(|it| (&it.served.name, &it.tunnel));
        let responder =
            self.responder.iter().filter_map(|it| Some((&it.name, it.tunnel.as_ref()?)));
        for (home, tunnel) in homes.chain(served).chain(responder) {
            let counters = tunnel.lane.engine.counters().snapshot();
            let removed = counters.drops.iter().find(|it| it.0 == DropReason::Duplicate);
            let copies = [
                ("removed", removed.map_or(0, |it| it.1)),
                ("given-up", counters.order.given_up),
                ("late", counters.order.late),
                ("begun", counters.order.begun),
            ];
            input.copies.extend(copies.map(|(event, count)| CopyFigures {
                home: home.clone(),
                event: event.to_owned(),
                count,
            }));
            let figures = tunnel.fast_outcomes().into_iter();
            input.fast_path.extend(figures.map(|(outcome, packets)| FastPathFigures {
                home: home.clone(),
                outcome: outcome.as_str().to_owned(),
                packets,
            }));
        }
        // What its machine did not take, and what did not come as far.
        let noted = self.counts.notices.iter();
        let noted = noted.map(|((home, reason), count)| ((home.to_string(), *reason), *count));
        let dropped = self.shared.arrivals.dropped().into_iter().map(|((home, reason), count)| {
            let home = home.map_or_else(|| "none".to_owned(), |home| home.to_string());
            ((home, reason), count)
        });
        let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for (key, count) in noted.chain(dropped) {
            *counts.entry(key).or_default() += count;
        }
        for ((home, reason), packets) in counts {
            let reason = format!("signaling-{}", reason.replace('_', "-"));
            input.drops.push(DropFigures { home, reason, packets });
        }
        input
    }

    fn lanes(&self) -> Vec<Lane<'_>> {
        let homes = self.homes.iter().map(|it| {
            let mut rules: Vec<_> =
                it.home.rules.rules.iter().map(|rule| rule.name().clone()).collect();
            rules.push(RuleName::new("steer"));
            rules.push(RuleName::new("none"));
            Lane {
                home: &it.home.name,
                engine: &it.tunnel.lane.engine,
                rules,
                out: Direction::Up,
                name: Box::new(|id| match id.is_override() {
                    true => RuleName::new("steer"),
                    false => rule_name(it, id),
                }),
            }
        });
        let served = self.served.iter().map(|it| Lane {
            home: &it.served.name,
            engine: &it.tunnel.lane.engine,
            // By the mobiles' rules, each with numbers of its own: too many to tell apart.
            rules: vec![RuleName::new("downlink"), RuleName::new("none")],
            out: Direction::Down,
            name: Box::new(|_| RuleName::new("downlink")),
        });
        let own = self.responder.iter().filter_map(|it| {
            let tunnel = it.tunnel.as_ref()?;
            Some(Lane {
                home: &it.name,
                engine: &tunnel.lane.engine,
                rules: vec![RuleName::new("reflect"), RuleName::new("none")],
                out: Direction::Down,
                name: Box::new(|_| RuleName::new("reflect")),
            })
        });
        homes.chain(served).chain(own).collect()
    }

    /// Routes past home agents, from both ends, with zeros for what may come.
    fn route_figures(&self, input: &mut MetricsInput) {
        let mut messages: BTreeMap<(HomeName, &str), u64> = BTreeMap::new();
        let mut failures: BTreeMap<(HomeName, String), u64> = BTreeMap::new();
        for home in &self.homes {
            let Some(optimization) = &home.optimization else { continue };
            let name = home.home.name.clone();
            let bindings = optimization.machine().bindings().count() as u64;
            input.routes.push(RouteFigures { home: name.clone(), bindings });
            let kinds = ["home-test-init", "care-of-test-init", "binding-update"];
            messages.extend(kinds.map(|kind| ((name.clone(), kind), 0)));
            let reasons = ["headers-eaten", "unanswered", "unsupported", "refused", "link-down"];
            failures.extend(reasons.map(|reason| ((name.clone(), reason.to_owned()), 0)));
        }
        messages.extend(self.counts.route_messages.iter().map(|(key, sent)| (key.clone(), *sent)));
        failures.extend(self.counts.route_failures.clone());
        for ((home, message), messages) in messages {
            let message = message.to_owned();
            input.route_messages.push(RouteMessageFigures { home, message, messages });
        }
        for ((home, reason), failures) in failures {
            input.route_failures.push(RouteFailureFigures { home, reason, failures });
        }
        input.correspondent_bindings = self.responder.as_ref().map(|responder| {
            responder.bindings().map(|(_, entry)| entry.bindings.len() as u64).sum()
        });
    }

    fn link_label(&self, bid: Option<Bid>) -> String {
        self.link_of(bid).map_or_else(|| "none".to_owned(), |link| link.to_string())
    }

    fn link_labels(&self) -> Vec<String> {
        let named = self.policy.interfaces.iter().filter(|it| it.bid.is_some());
        let labels: Vec<_> = named.map(|it| it.name.to_string()).collect();
        if labels.is_empty() { vec!["none".to_owned()] } else { labels }
    }

    fn link_figures(&self, input: &mut MetricsInput) {
        for interface in &self.policy.interfaces {
            let up = match interface.bid {
                Some(_) => self.watch.movements().state(&interface.name).is_ok(),
                None => self.access.contains_key(&interface.name),
            };
            let usable = self.homes.iter().any(|home| {
                let snapshot = home.tunnel.published.load();
                let registration = snapshot.updates.get(home.home.address);
                let binding = registration.and_then(|it| it.binding(interface.bid));
                binding.is_some_and(|binding| binding.carries())
            });
            let usable = usable || (interface.bid.is_none() && up);
            let report = interface.bid.and_then(|bid| {
                let mut reports = self.homes.iter().flat_map(|home| home.steering.links());
                reports.find(|report| report.bid == bid && report.measured.rtt.is_some())
            });
            let measured = report.map(|report| report.measured).unwrap_or_default();
            let mut reports = self.homes.first().into_iter().flat_map(|it| it.steering.links());
            let radio = reports.find(|it| Some(it.bid) == interface.bid).map(|it| it.radio);
            let attached = self.links.get(&interface.name).and_then(|it| it.state.as_ref().ok());
            let now = self.now().monotonic;
            input.links.push(LinkFigures {
                link: interface.name.clone(),
                up,
                usable,
                loss_ratio: measured.loss.map(|loss| f64::from(loss.0) / 10_000.0),
                rtt_seconds: measured.rtt.map(|it| it.as_secs_f64()),
                rtt_p95_seconds: measured.rtt_p95.map(|it| it.as_secs_f64()),
                jitter_seconds: measured.jitter.map(|it| it.as_secs_f64()),
                conversation_rtt_seconds: interface
                    .bid
                    .zip(attached)
                    .and_then(|(bid, at)| self.conversation_rtt(bid, at, now))
                    .map(|it| it.as_secs_f64()),
                flaps: interface.bid.map(|_| self.watch.movements().falls(&interface.name)),
                signal_dbm: radio.and_then(|radio| radio.signal),
                path_mtu: attached.map(|it| self.path_takes(it, now)),
            });
        }
        (input.sources, input.source_faults) = self.facts.figures();
        let Reports { overruns, listings } = self.watch.reports();
        input.reports = ReportFigures { overruns, listings };
        let states = ["up", "degraded", "down", "recovering"];
        let mut changes: BTreeMap<_, u64> = BTreeMap::new();
        for interface in self.policy.interfaces.iter().filter(|it| it.bid.is_some()) {
            let usual = [("up", "good"), ("down", "detached"), ("recovering", "held-back")];
            let named = usual.iter().filter(|(state, _)| states.contains(state));
            changes.extend(named.map(|(state, why)| ((interface.name.clone(), *state, *why), 0)));
        }
        changes.extend(self.counts.link_states.iter().map(|(key, count)| (key.clone(), *count)));
        for ((link, state, reason), changes) in changes {
            let (state, reason) = (state.to_owned(), reason.to_owned());
            input.link_states.push(LinkStateFigures { link, state, reason, changes });
        }
        if !self.homes.is_empty() {
            self.probe_figures(input);
        }
        for report in self.homes.first().into_iter().flat_map(|home| home.steering.links()) {
            if let Some(quota) = report.quota {
                let (limit, used) = (quota.limit, quota.octets);
                input.quotas.push(QuotaFigures { link: report.interface, limit, used });
            }
        }
    }

    fn probe_figures(&self, input: &mut MetricsInput) {
        for interface in &self.policy.interfaces {
            let Some(bid) = interface.bid else { continue };
            let ProbeCounts { sent, answered, lost, late } = self.probe_counts(bid);
            let counts = [("sent", sent), ("answered", answered), ("lost", lost), ("late", late)];
            input.probes.extend(counts.map(|(result, probes)| ProbeFigures {
                link: interface.name.clone(),
                result: result.to_owned(),
                probes,
            }));
        }
    }

    /// Flows that moved, with zeros for what may come.
    fn move_figures(&self, input: &mut MetricsInput) {
        let links = self.link_labels();
        let pairs = links.len() * links.len().saturating_sub(1);
        let mut moves: BTreeMap<(String, String, &str), u64> = BTreeMap::new();
        if pairs * MoveReason::ALL.len() <= MOVES_NAMED {
            for from in &links {
                for to in links.iter().filter(|to| *to != from) {
                    for reason in MoveReason::ALL {
                        moves.insert((from.clone(), to.clone(), reason.as_str()), 0);
                    }
                }
            }
        }
        for home in &self.homes {
            for counted in home.tunnel.lane.engine.counters().snapshot().moves {
                let (from, to) = (self.link_label(counted.from), self.link_label(counted.to));
                *moves.entry((from, to, counted.reason.as_str())).or_default() += counted.count;
            }
        }
        for ((from, to, reason), moves) in moves {
            input.flow_moves.push(FlowMoveFigures { from, to, reason: reason.to_owned(), moves });
        }
    }

    /// What was told of the rules, with zeros for what may come.
    fn flow_binding_figures(&self, input: &mut MetricsInput) {
        use FlowBindingState::{Active, Inactive, Pending, Refused};
        let mut count = |home: &HomeName, state: FlowBindingState, flow_bindings: usize| {
            let (home, state) = (home.clone(), state.to_string());
            let flow_bindings = flow_bindings as u64;
            input.flow_bindings.push(FlowBindingFigures { home, state, flow_bindings });
        };
        let told = self.flow_binding_documents();
        for home in self.homes.iter().map(|it| &it.home.name) {
            for state in [Pending, Active, Inactive, Refused] {
                let counts =
                    |flow: &&FlowBindingDocument| flow.home == *home && flow.state == state;
                count(home, state, told.iter().filter(counts).count());
            }
        }
        // Of a hundred thousand mobiles: counted where they are, and no document is made.
        for served in &self.served {
            let (mut active, mut all) = (0, 0);
            for entry in served.agent.cache().iter() {
                active += entry.flows.iter().filter(|flow| entry.is_active(flow)).count();
                all += entry.flows.len();
            }
            for (state, flow_bindings) in
                [(Pending, 0), (Active, active), (Inactive, all - active), (Refused, 0)]
            {
                count(&served.served.name, state, flow_bindings);
            }
        }
    }

    fn home_figures(&self, input: &mut MetricsInput) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = self.now().monotonic;
        for home in &self.homes {
            input.homes.push(HomeFigures {
                home: home.home.name.clone(),
                generation: home.generation,
                agent_bindings: 0,
            });
            let entries = &home.node.update_list().entries;
            for interface in &self.policy.interfaces {
                let entry = entries.iter().find(|entry| Some(entry.bid) == interface.bid);
                let left = entry.and_then(|it| it.expires).map(|it| it.saturating_sub(now));
                input.bindings.push(BindingFigures {
                    home: home.home.name.clone(),
                    link: interface.name.clone(),
                    expires_timestamp_seconds: left.map_or(0.0, |it| (unix + it).as_secs_f64()),
                });
            }
        }
        for served in &self.served {
            let bindings: usize = served.agent.cache().iter().map(|it| it.bindings.len()).sum();
            input.homes.push(HomeFigures {
                home: served.served.name.clone(),
                generation: served.generation,
                agent_bindings: bindings as u64,
            });
        }
        let mut updates: BTreeMap<(HomeName, String, String), u64> = BTreeMap::new();
        for home in &self.homes {
            for link in self.link_labels() {
                updates.insert((home.home.name.clone(), link, "accepted".to_owned()), 0);
            }
        }
        updates.extend(self.counts.acknowledged.clone());
        for ((home, link, status), updates) in &updates {
            input.binding_updates.push(BindingUpdateFigures {
                home: home.clone(),
                link: link.clone(),
                status: status.clone(),
                updates: *updates,
            });
        }
    }

    fn lane_figures(&self, lane: &Lane<'_>, input: &mut MetricsInput) {
        let counters = lane.engine.counters().snapshot();
        let directions = [Direction::Up, Direction::Down];
        let mut tunnels: BTreeMap<(bool, String, &str), (u64, u64)> = BTreeMap::new();
        let mut rules: BTreeMap<(RuleName, String, &str), u64> = BTreeMap::new();
        for link in self.link_labels() {
            for direction in directions {
                for straight in [false, true] {
                    tunnels.insert((straight, link.clone(), direction.as_str()), (0, 0));
                }
                for rule in &lane.rules {
                    rules.insert((rule.clone(), link.clone(), direction.as_str()), 0);
                }
            }
        }
        for traffic in &counters.traffic {
            let direction = match (traffic.direction, lane.out) {
                (mtun_dataplane::Direction::Out, out) => out,
                (mtun_dataplane::Direction::In, Direction::Up) => Direction::Down,
                (mtun_dataplane::Direction::In, Direction::Down) => Direction::Up,
            };
            let link = match lane.out {
                Direction::Up => self.link_label(traffic.bid),
                Direction::Down => "none".to_owned(),
            };
            let rule = traffic.rule.map_or_else(|| RuleName::new("none"), &lane.name);
            let straight = traffic.form == Form::Optimized;
            let tunnel = tunnels.entry((straight, link.clone(), direction.as_str())).or_default();
            tunnel.0 += traffic.bytes;
            tunnel.1 += traffic.packets;
            *rules.entry((rule, link, direction.as_str())).or_default() += traffic.bytes;
        }
        let direction = |word: &str| match word {
            "up" => Direction::Up,
            _ => Direction::Down,
        };
        for ((straight, link, word), (bytes, packets)) in tunnels {
            let home = lane.home.clone();
            let direction = direction(word);
            let figures = TunnelFigures { home, link, direction, bytes, packets };
            if straight { input.straight.push(figures) } else { input.tunnels.push(figures) }
        }
        for ((rule, link, word), bytes) in rules {
            let home = lane.home.clone();
            let direction = direction(word);
            input.rules.push(RuleFigures { home, rule, link, direction, bytes });
        }
        let drops = counters.drops.iter().map(|(reason, packets)| (reason.as_str(), *packets));
        // What belongs to others is no drop; what was meant for us and had no effect is.
        let refused = counters.ignores.iter().filter(|(reason, _)| reason.is_refusal());
        let refused = refused.map(|(reason, packets)| (reason.as_str(), *packets));
        for (reason, packets) in drops.chain(refused) {
            let (home, reason) = (lane.home.to_string(), reason.to_owned());
            input.drops.push(DropFigures { home, reason, packets });
        }
        let mut flows: BTreeMap<String, u64> =
            self.link_labels().into_iter().map(|link| (link, 0)).collect();
        for flow in lane.engine.flows() {
            *flows.entry(self.link_label(flow.bid_out)).or_default() += 1;
        }
        for (link, flows) in flows {
            input.flows.push(FlowFigures { home: lane.home.clone(), link, flows });
        }
    }
}
