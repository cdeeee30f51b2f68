//! What the daemon answers on its control socket.

use std::collections::HashMap;
use std::time::Duration;

use mtun_dataplane::{Encapsulation, Engine, Fate, Way};
use mtun_policy::steering::Fact;
use mtun_policy::{
    Bid, Filter, FlowKey, InterfaceName, Override, Policy, RuleId, RuleName, TrafficSelector,
};

use super::apply::{Candidate, Purpose, Wanted};
use super::downlink::AtAgent;
use super::home::MobileHome;
use super::mobiles::Wish;
use super::owner::Owner;
use super::tunnel::Tunnel;
use super::{explain, report};
use crate::control::documents::{
    BindingsDocument, Event, FlowDocument, FlowKeyDocument, FlowPath, FlowsDocument, MoveDocument,
    OverrideDocument, PolicyDocument, SteerDocument, SteerListDocument, SteerUndoDocument,
    TakenBack,
};
use crate::control::{ControlError, ControlRequest, ErrorCode, Request, Response};

/// Overrides at a time: each is a rule that every first packet of a flow is held against.
const OVERRIDES_MAX: usize = 64;
/// Moves of one flow that are shown.
const MOVES_SHOWN: usize = 10;
/// The longest override.
const OVERRIDE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The number of an override as people see it.
pub(super) fn override_number(id: RuleId) -> u16 {
    id.0.saturating_sub(RuleId::OVERRIDES)
}

/// Runs the tests of a policy file; all failures as text.
pub(super) fn file_tests(policy: &Policy) -> Result<usize, String> {
    let outcomes = mtun_policy::run_tests(policy);
    let failures: Vec<_> =
        outcomes.iter().flat_map(|outcome| &outcome.failures).map(ToString::to_string).collect();
    if failures.is_empty() { Ok(outcomes.len()) } else { Err(failures.join("\n")) }
}

impl Owner {
    /// Answers one request of a control client.
    pub(super) async fn answer(&mut self, request: ControlRequest) {
        let ControlRequest { request, peer, reply, left } = request;
        let uid = Some(peer.uid);
        let answer = match request {
            Request::Status {} => Ok(Response::Status(self.status())),
            Request::Overview {} => Ok(Response::Status(self.overview())),
            Request::Mobiles { search, limit } => {
                Ok(Response::Mobiles(self.mobiles_found(search, limit)))
            }
            Request::Bindings {} => Ok(Response::Bindings(BindingsDocument {
                bindings: self.binding_documents(),
                mobiles: self.mobile_documents(),
                flow_bindings: self.flow_binding_documents(),
                routes: self.route_documents(),
                correspondent: self.correspondent_document(),
            })),
            Request::Flows { filter, limit } => self.flows(filter, limit).map(Response::Flows),
            Request::Explain { flow, given } => self.explain(&flow, &given).map(Response::Explain),
            Request::Steer { filter, via, seconds, reason } => {
                self.steer(filter, &via, seconds, reason, uid).map(Response::Steer)
            }
            Request::SteerList {} => {
                Ok(Response::SteerList(SteerListDocument { overrides: self.override_documents() }))
            }
            Request::Link { link, admin } => self.administer(&link, admin, uid).map(Response::Link),
            Request::SteerUndo { id } => self.steer_undo(id).map(Response::SteerUndo),
            Request::PolicyApply { source, confirm_seconds, detached } => {
                let confirm = confirm_seconds.map(Duration::from_secs);
                let left = (!detached).then_some(left);
                let purpose = Purpose::Apply(Wanted { uid, confirm, left });
                let added = self.added.text();
                let read = move || Candidate::read(&source, added.as_ref());
                return self.prepare_policy(purpose, Some(reply), read);
            }
            Request::PolicyConfirm {} => self.confirm().map(Response::PolicyConfirmed),
            Request::PolicyRollback { entry: None } if self.trial.is_some() => {
                self.end_trial(TakenBack::ByHand, uid).await.map(Response::PolicyRolledBack)
            }
            Request::PolicyRollback { entry } => match self.texts_to_restore(entry) {
                Ok((entry, texts)) => {
                    let purpose = Purpose::Restore { entry, uid };
                    let added = self.added.text();
                    let read = move || Candidate::again(texts, added.as_ref());
                    return self.prepare_policy(purpose, Some(reply), read);
                }
                Err(error) => Err(error),
            },
            Request::PolicyHistory { entry } => {
                self.policy_history(entry).map(Response::PolicyHistory)
            }
            Request::PolicyDiff { source } => return self.prepare_preview(source, reply),
            Request::PolicyShow {} => Ok(Response::Policy(self.policy_document())),
            Request::PolicyRules {} => Ok(Response::Policy(PolicyDocument {
                text: None,
                added: None,
                ..self.policy_document()
            })),
            Request::AgentList {} => Ok(Response::AgentList(self.agent_list())),
            Request::AgentAdd { mobile } => {
                return self.prepare_mobiles(Wish::Add(Box::new(mobile)), reply);
            }
            Request::AgentRemove { home_address } => {
                return self.prepare_mobiles(Wish::Remove(home_address), reply);
            }
            Request::AgentRevoke { home_address, bid } => {
                return self.prepare_mobiles(Wish::Revoke(home_address, bid), reply);
            }
            Request::AgentPermit { home_address, bid } => {
                return self.prepare_mobiles(Wish::Permit(home_address, bid), reply);
            }
            Request::AgentSwitch { home_address, agents } => {
                self.switch_mobile(home_address, agents).map(Response::AgentSwitched)
            }
            Request::Metrics {} => Ok(Response::Metrics(self.metrics_input())),
            Request::Subscribe { .. } => {
                self.begin_showing();
                Ok(Response::Subscribed { waiting_max: self.listeners.capacity() })
            }
            Request::Send { message } => self.sent(*message, peer, left).map(Response::Sent),
            Request::Monitor {} => Err(ControlError::new(
                ErrorCode::Internal,
                "a subscription is answered by the socket, not by the owner",
            )),
        };
        // The client may have left; that is no fault.
        let _ = reply.send(answer);
    }

    fn filter(&self, text: &str) -> Result<Filter, ControlError> {
        Ok(mtun_policy::parse_filter(text, Some(&self.policy))?)
    }

    // ---- flows ---------------------------------------------------------------------------------

    fn flows(
        &self,
        filter: Option<String>,
        limit: Option<usize>,
    ) -> Result<FlowsDocument, ControlError> {
        let parsed = filter.as_deref().map(|text| self.filter(text)).transpose()?;
        let now = self.now().monotonic;
        let mut flows = Vec::new();
        let mut add = |home: &mtun_policy::HomeName,
                       tunnel: &'_ Tunnel,
                       rule_name: &dyn Fn(&FlowKey, RuleId) -> RuleName| {
            let engine = &tunnel.lane.engine;
            let mut moves = self.move_documents(engine, now);
            for entry in engine.flows() {
                let rule = entry.rule.map(|id| rule_name(&entry.key, id));
                let fits = parsed.as_ref().is_none_or(|filter| {
                    let by = |bid| filter.matches(&entry.key, bid, rule.as_ref());
                    by(entry.bid_out) || by(entry.bid_in)
                });
                if !fits {
                    continue;
                }
                let path = |bid: Option<Bid>, seen: u64| {
                    (seen > 0).then(|| FlowPath::tunnel(bid, self.link_of(bid)))
                };
                let ingress = self.policy.ingresses.name(entry.key.ingress);
                let way = entry.memory.answer.map(|answer| answer.way);
                let mut outbound = path(entry.bid_out, entry.packets_out);
                if let Some(path) = &mut outbound {
                    path.breakout = matches!(way, Some(Way::Breakout { .. }));
                }
                let document = FlowDocument {
                    home: home.clone(),
                    key: FlowKeyDocument::new(&entry.key, ingress),
                    rule,
                    outbound,
                    inbound: path(entry.bid_in, entry.packets_in),
                    downlink: None,
                    bytes_out: entry.bytes_out,
                    bytes_in: entry.bytes_in,
                    packets_out: entry.packets_out,
                    packets_in: entry.packets_in,
                    idle_seconds: now.saturating_sub(entry.last_seen).as_secs_f64(),
                    bytes_per_second: None,
                    moves: moves.remove(&entry.key).unwrap_or_default(),
                };
                flows.push((document, entry.key, engine.clone()));
            }
        };
        for home in &self.homes {
            add(&home.home.name, &home.tunnel, &|_, id| rule_name(home, id));
        }
        for served in &self.served {
            let snapshot = served.tunnel.published.load();
            let of_mobile = |key: &FlowKey, id| {
                let rules = snapshot.cache.lookup(key.destination).map(|it| &it.policy);
                let known = rules.and_then(|rules| rules.rule(id));
                known.map_or_else(|| RuleName::new("gone"), |rule| rule.head.name.clone())
            };
            add(&served.served.name, &served.tunnel, &of_mobile);
        }
        if let Some(responder) = &self.responder
            && let Some(tunnel) = &responder.tunnel
        {
            add(&responder.name, tunnel, &|_, _| RuleName::new("reflect"));
        }
        flows.sort_by_key(|(flow, ..)| std::cmp::Reverse(flow.bytes_out + flow.bytes_in));
        let matched = flows.len();
        flows.truncate(limit.unwrap_or(usize::MAX));
        let agents: Vec<_> = self.homes.iter().map(|home| AtAgent::of(self, home)).collect();
        let flows = flows.into_iter().map(|(mut flow, key, engine)| {
            let up = flow.outbound.as_ref().filter(|path| !path.breakout);
            let agent = self.homes.iter().position(|it| it.home.name == flow.home);
            if let (Some(up), Some(agent)) = (up, agent) {
                flow.downlink = agents[agent].of_flow(&key, up.bid, now);
            }
            if let Some(path) = flow.outbound.as_mut().filter(|path| !path.breakout) {
                path.straight = goes_straight(&engine, &key, now);
            }
            flow
        });
        let flows = flows.collect();
        Ok(FlowsDocument { filter, matched, flows })
    }

    /// The last moves of each flow that are remembered, the latest first.
    fn move_documents(
        &self,
        engine: &mtun_dataplane::Engine,
        now: Duration,
    ) -> HashMap<FlowKey, Vec<MoveDocument>> {
        let path = |bid: Option<Bid>| FlowPath::tunnel(bid, self.link_of(bid));
        let mut moves: HashMap<FlowKey, Vec<MoveDocument>> = HashMap::new();
        for moved in engine.moves().into_iter().rev() {
            let known = moves.entry(moved.key).or_default();
            if known.len() < MOVES_SHOWN {
                known.push(MoveDocument {
                    from: path(moved.from),
                    to: path(moved.to),
                    reason: moved.reason.as_str().to_owned(),
                    ago_seconds: now.saturating_sub(moved.at).as_secs_f64(),
                });
            }
        }
        moves
    }

    fn explain(
        &self,
        flow: &str,
        given: &[String],
    ) -> Result<crate::control::documents::ExplainDocument, ControlError> {
        let (key, given) = mtun_policy::parse_question_given(flow, given, &self.policy)?;
        if let Some((home, origin)) = self.policy.judge_of(&key)
            && let Some(home) = self.homes.iter().find(|it| it.home.name == home.name)
        {
            return Ok(explain::home(self, home, &key, origin, &given));
        }
        let owner = self.served.iter().find(|served| served.owns(key.destination));
        let tunnel = owner.map(|served| &served.tunnel).or_else(|| {
            let bound = self.responder.as_ref().filter(|it| it.knows(&key));
            bound.and_then(|_| self.tunnels().next())
        });
        Ok(match tunnel {
            Some(tunnel) => explain::far(self, tunnel, &key),
            None => explain::not_ours(self, &key),
        })
    }

    // ---- steering ------------------------------------------------------------------------------

    fn steer(
        &mut self,
        text: String,
        via: &str,
        seconds: u64,
        reason: Option<String>,
        uid: Option<u32>,
    ) -> Result<SteerDocument, ControlError> {
        if self.homes.is_empty() {
            return Err(ControlError::new(
                ErrorCode::Refused,
                "a home agent follows the way its mobiles choose; there is nothing to steer here",
            )
            .help("run `mtun steer` on the mobile"));
        }
        let filter = self.filter(&text)?;
        if !filter.via.is_empty() || !filter.rule.is_empty() {
            return Err(ControlError::new(
                ErrorCode::Usage,
                "a steering filter names packets, not the way they take now",
            )
            .help("leave `via` and `rule` out of the filter"));
        }
        if filter.selector == TrafficSelector::default() {
            return Err(ControlError::new(ErrorCode::Usage, "the filter matches everything")
                .help("name the flows, such as 'proto tcp and dport 22'"));
        }
        let interface = self.policy.interface(via);
        let Some(bid) = interface.and_then(|interface| interface.bid) else {
            let known: Vec<_> = self.policy.interfaces.iter().map(|it| it.name.as_str()).collect();
            let error = format!("there is no link {via}");
            return Err(ControlError::new(ErrorCode::NotFound, error)
                .help(format!("the links are {}", known.join(", "))));
        };
        let length = Duration::from_secs(seconds);
        if length.is_zero() || length > OVERRIDE_MAX {
            return Err(ControlError::new(
                ErrorCode::Usage,
                format!("an override lasts 1 s to {} s", OVERRIDE_MAX.as_secs()),
            ));
        }
        let now = self.now().monotonic;
        let taken: Vec<RuleId> = self.overrides().iter().map(|steer| steer.id).collect();
        if taken.len() >= OVERRIDES_MAX {
            let error = format!("{OVERRIDES_MAX} overrides stand already");
            return Err(ControlError::new(ErrorCode::Refused, error)
                .help("end one with `mtun steer undo ID`"));
        }
        let room = 1..(u16::MAX - RuleId::OVERRIDES);
        let number = room
            .cycle()
            .skip(usize::from(self.next_override) - 1)
            .find(|number| !taken.contains(&RuleId(RuleId::OVERRIDES + number)))
            .expect("there are more numbers than overrides");
        self.next_override = number % (u16::MAX - RuleId::OVERRIDES - 1) + 1;
        let steer = Override {
            id: RuleId(RuleId::OVERRIDES + number),
            selector: filter.selector,
            bid,
            until: now + length,
            reason: reason.clone(),
            text: text.clone(),
        };
        self.override_owners.insert(steer.id, uid);
        self.tell_all_steerings(now, &Fact::Steer(Box::new(steer.clone())));
        self.publish_homes();
        self.tell(Event::Steered {
            id: number,
            filter: text,
            via: InterfaceName::from(via),
            seconds,
            reason,
        });
        Ok(SteerDocument { steered: self.override_document(&steer), generation: self.generation() })
    }

    fn steer_undo(&mut self, id: u16) -> Result<SteerUndoDocument, ControlError> {
        let wanted = RuleId(RuleId::OVERRIDES.saturating_add(id));
        let Some(steer) = self.overrides().iter().find(|steer| steer.id == wanted) else {
            return Err(ControlError::new(
                ErrorCode::NotFound,
                format!("there is no override {id}"),
            )
            .help("`mtun steer list` shows those in force"));
        };
        let undone = self.override_document(steer);
        self.tell_all_steerings(self.now().monotonic, &Fact::Unsteer(wanted));
        self.publish_homes();
        Ok(SteerUndoDocument { undone, generation: self.generation() })
    }

    /// The overrides in force, the same for every home.
    fn overrides(&self) -> &[Override] {
        self.homes.first().map_or(&[], |home| home.steering.overrides())
    }

    pub(super) fn override_documents(&self) -> Vec<OverrideDocument> {
        self.overrides().iter().map(|steer| self.override_document(steer)).collect()
    }

    fn override_document(&self, steer: &Override) -> OverrideDocument {
        let remaining = steer.until.saturating_sub(self.now().monotonic);
        OverrideDocument {
            id: override_number(steer.id),
            filter: steer.text.clone(),
            via: self.link_of(Some(steer.bid)).unwrap_or_else(|| InterfaceName::from("none")),
            bid: steer.bid,
            remaining_seconds: remaining.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            reason: steer.reason.clone(),
            uid: self.override_owners.get(&steer.id).copied().flatten(),
        }
    }

    // ---- policy --------------------------------------------------------------------------------

    fn policy_document(&self) -> PolicyDocument {
        report::policy_document(self)
    }

    pub(super) fn generation(&self) -> u64 {
        let homes = self.homes.iter().map(|home| home.generation);
        homes.chain(self.served.iter().map(|served| served.generation)).max().unwrap_or(0)
    }
}

/// Whether the packets of a flow go straight at this moment.
fn goes_straight(engine: &Engine, key: &FlowKey, now: Duration) -> bool {
    let fate = engine.explain(key, now).fate;
    matches!(fate, Fate::Forwarded { encapsulation: Encapsulation::Optimized { .. }, .. })
}

/// The name of a rule of this home, overrides included.
pub(super) fn rule_name(home: &MobileHome, id: RuleId) -> RuleName {
    let known = home.effective.rule(id);
    known.map_or_else(|| RuleName::new("gone"), |rule| rule.head.name.clone())
}
