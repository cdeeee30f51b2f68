//! A mobile whose policy names no agent: finding one, and another one when that fails.
//!
//! The machine knows whom to ask and whom to try; here is what it takes to register with another
//! agent, and what counts as a failure of the present one. Prefixes of the home link are asked
//! for here too, when the agent says that it is necessary (status 1) or nothing is known of a
//! home link whose agent had to be found.
//!
//! Standards: RFC 6275 §11.4, §11.7.1; RFC 3963 §7.

use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::{Home, HomeAgentAddress};
use mtun_signaling::Timestamp;
use mtun_signaling::machine::{Envelope, Machine};
use mtun_signaling::mobile::discovery::{
    AgentDiscovery, AgentDiscoveryConfig, AgentDiscoveryEvent, AgentDiscoveryNotice,
    AgentDiscoveryOutput, PrefixDiscovery, PrefixDiscoveryConfig, PrefixDiscoveryEvent,
    PrefixDiscoveryNotice, PrefixDiscoveryOutput,
};
use mtun_signaling::mobile::{MobileConfig, MobileEvent, MobileNode, MobileNotice, MobileOutput};
use mtun_signaling::registration::Phase;
use mtun_signaling::wire::Status;

use super::discovery::transmit_discovery;
use super::home::MobileHome;
use super::owner::Owner;
use crate::control::documents::{Event, Severity};
use crate::edge::random;
use crate::packets::Lane;

/// An agent that has left so many updates unanswered, the last for 24 seconds, is given up
/// (RFC 6275 §11.7.1).
const SILENT_AFTER: u32 = 5;

/// The search of a home whose policy says `agent discover`.
#[derive(Debug)]
pub struct AgentSearch {
    machine: AgentDiscovery,
    /// What a registration takes besides the agent.
    config: MobileConfig,
}

impl AgentSearch {
    /// Nobody is known and nobody is asked yet; none for a home whose agent is given.
    pub fn of(home: &Home, config: &MobileConfig) -> anyhow::Result<Option<Self>> {
        if !home.agent.0.is_unspecified() {
            return Ok(None);
        }
        let home_prefix = Ipv6Net::new(home.address.0, home.prefix_len).unwrap_or_default().trunc();
        let router = !home.mobile_networks.is_empty();
        let discovery = AgentDiscoveryConfig { home_prefix, router, agents: Vec::new() };
        let machine = AgentDiscovery::new(discovery, random::seed()?);
        Ok(Some(Self { machine, config: config.clone() }))
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.machine.deadline()
    }
}

/// Asks for the prefixes of a home link.
pub fn prefixes(home: &Home) -> anyhow::Result<PrefixDiscovery> {
    let config = PrefixDiscoveryConfig { home_address: home.address, agent: home.agent };
    Ok(PrefixDiscovery::new(config, random::seed()?))
}

/// Whether an agent that says this is no agent for us, whatever we send it (req MN-09, MR-03 to
/// MR-06; RFC 6275 §11.7.3, RFC 3963 §5.4).
fn refuses_for_good(notice: &MobileNotice) -> bool {
    match notice {
        MobileNotice::Refused { status, .. } | MobileNotice::RouterRefused { status } => matches!(
            *status,
            Status::REASON_UNSPECIFIED
                | Status::ADMINISTRATIVELY_PROHIBITED
                | Status::INSUFFICIENT_RESOURCES
                | Status::HOME_REGISTRATION_NOT_SUPPORTED
                | Status::NOT_HOME_SUBNET
                | Status::MOBILE_ROUTER_NOT_PERMITTED
                | Status::INVALID_PREFIX
                | Status::NOT_AUTHORIZED_FOR_PREFIX
                | Status::FORWARDING_SETUP_FAILED
        ),
        MobileNotice::AgentWithoutRouterSupport => true,
        _ => false,
    }
}

impl MobileHome {
    /// Whether there is an agent to register with.
    pub fn has_agent(&self) -> bool {
        !self.home.agent.0.is_unspecified()
    }

    /// Whether the agent has left everything unanswered for long.
    fn is_silent(&self) -> bool {
        let list = self.node.update_list();
        let bound = |phase: &Phase| matches!(phase, Phase::Bound | Phase::Refreshing);
        !list.entries.iter().any(|entry| bound(&entry.phase))
            && list.entries.iter().any(|entry| {
                matches!(entry.phase, Phase::Awaiting) && entry.retries >= SILENT_AFTER
            })
    }
}

impl Owner {
    /// Tells the search of a home what happened to an uplink; whether registration has to wait
    /// for it.
    pub(super) fn search_uplink(&mut self, home: usize, event: &MobileEvent) -> bool {
        let now = self.now();
        let it = &mut self.homes[home];
        let Some(search) = &mut it.search else { return false };
        match *event {
            MobileEvent::CareOfUp { bid, priority, care_of } => {
                let up = AgentDiscoveryEvent::CareOfUp { bid, priority, care_of };
                search.machine.handle(now, up);
                search.machine.handle(now, AgentDiscoveryEvent::Wanted);
            }
            MobileEvent::CareOfDown { bid } => {
                search.machine.handle(now, AgentDiscoveryEvent::CareOfDown { bid });
            }
            _ => {}
        }
        let waits = !it.has_agent();
        self.search_outputs(home);
        waits
    }

    /// What was said about the agent of a home: another one is looked for when it is of no use.
    pub(super) fn judge_agent(&mut self, home: usize, outputs: &[MobileOutput]) {
        let now = self.now();
        self.tell_prefixes(home, outputs);
        let it = &mut self.homes[home];
        let (agent, silent) = (it.home.agent, it.is_silent());
        let Some(search) = &mut it.search else { return };
        let refused = outputs.iter().any(|output| match output {
            MobileOutput::Notice(notice) => refuses_for_good(notice),
            _ => false,
        });
        let bound = outputs.iter().any(|output| matches!(output, MobileOutput::Bound { .. }));
        if search.machine.current() != Some(agent) {
            return;
        }
        if bound {
            search.machine.handle(now, AgentDiscoveryEvent::Registered { agent });
        } else if refused || silent {
            search.machine.handle(now, AgentDiscoveryEvent::Failed { agent });
        }
        self.search_outputs(home);
    }

    /// The agent of a home sends us to others (RFC 5142).
    pub(super) fn sent_away(&mut self, home: usize, agents: Vec<HomeAgentAddress>) {
        let now = self.now();
        let it = &mut self.homes[home];
        if it.search.is_none() {
            let agent = it.home.agent.0;
            let text = format!("{agent} sends us away, and the policy names no other agent");
            return self.discovery_notice(home, Some(Severity::Warning), "sent_away", &text);
        }
        // req HS-03 (RFC 5142 §6.1): the end of what it holds is the answer.
        for output in it.handle(now, MobileEvent::Stop) {
            if let MobileOutput::Transmit(transmit) = output {
                self.transmit(&transmit);
            }
        }
        self.discovery_notice(home, Some(Severity::Info), "sent_away", "sent to another agent");
        if let Some(search) = &mut self.homes[home].search {
            search.machine.handle(now, AgentDiscoveryEvent::Sent { agents });
        }
        self.search_outputs(home);
    }

    /// What is due in the searches of a home.
    pub(super) fn search_due(&mut self, home: usize, now: Timestamp) {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now.monotonic);
        let it = &mut self.homes[home];
        if let Some(search) = it.search.as_mut().filter(|search| due(search.deadline())) {
            search.machine.handle_deadline(now);
            self.search_outputs(home);
        }
        let it = &mut self.homes[home];
        if due(it.prefixes.deadline()) {
            it.prefixes.handle_deadline(now);
            self.prefix_outputs(home);
        }
    }

    /// A reply or an advertisement arrived.
    pub(super) fn found(&mut self, envelope: Envelope, message: &[u8], agents: bool) {
        let now = self.now();
        for home in 0..self.homes.len() {
            let it = &mut self.homes[home];
            let message = message.to_vec();
            if agents {
                if let Some(search) = &mut it.search {
                    search.machine.handle(now, AgentDiscoveryEvent::Received { envelope, message });
                    self.search_outputs(home);
                }
            } else if envelope.routing_header == Some(it.home.address) {
                if !it.home.extensions.prefix_discovery {
                    let text = "somebody said what the home link has, and nobody is to be believed";
                    self.discovery_notice(home, None, "prefixes_unsolicited", text);
                    continue;
                }
                it.prefixes.handle(now, PrefixDiscoveryEvent::Received { envelope, message });
                self.prefix_outputs(home);
            }
        }
    }

    fn search_outputs(&mut self, home: usize) {
        while let Some(output) =
            self.homes[home].search.as_mut().and_then(|search| search.machine.poll())
        {
            match output {
                AgentDiscoveryOutput::Transmit(transmit) => {
                    transmit_discovery(&self.shared, &transmit);
                }
                AgentDiscoveryOutput::Use(agent) => self.use_agent(home, agent),
                AgentDiscoveryOutput::Notice(notice) => {
                    let (severity, code) = match notice {
                        AgentDiscoveryNotice::Undecodable(_) => (None, "discovery_undecodable"),
                        AgentDiscoveryNotice::Unexpected => (None, "discovery_unexpected"),
                        AgentDiscoveryNotice::Found(_) => {
                            (Some(Severity::Info), "home_agents_found")
                        }
                        AgentDiscoveryNotice::NoRouterSupport => {
                            (Some(Severity::Warning), "no_agent_for_routers")
                        }
                        AgentDiscoveryNotice::NoAnswer(_) => {
                            (Some(Severity::Warning), "no_home_agent_answers")
                        }
                        AgentDiscoveryNotice::AllFailed(_) => {
                            (Some(Severity::Warning), "all_home_agents_failed")
                        }
                    };
                    self.discovery_notice(home, severity, code, &notice.to_string());
                }
            }
        }
    }

    fn discovery_notice(
        &mut self,
        home: usize,
        severity: Option<Severity>,
        code: &'static str,
        text: &str,
    ) {
        let name = self.homes[home].home.name.clone();
        *self.counts.notices.entry((name.clone(), code)).or_default() += 1;
        let text = format!("home {name}: {text}");
        match severity {
            Some(severity) => self.tell(Event::Notice { severity, code: code.to_owned(), text }),
            // What strangers can cause must not fill the log; the counters have it.
            None => tracing::debug!("{text}"),
        }
    }

    /// Registers with this agent from now on; what another one held ends by itself.
    fn use_agent(&mut self, home: usize, agent: HomeAgentAddress) {
        let now = self.now();
        let it = &mut self.homes[home];
        let Some(search) = &it.search else { return };
        let mut config = search.config.clone();
        config.agent = agent;
        // Another agent knows no number of ours; should it, it says which (status 135).
        config.initial_sequence = random::u16().unwrap_or(config.initial_sequence);
        it.node = MobileNode::new(config, now);
        // The machine of another agent was told nothing yet.
        it.downlink.forget();
        it.home.agent = agent;
        it.granted.clear();
        let before = it.tunnel.lane.clone();
        let (engine, queue) = (before.engine.clone(), before.queue.clone());
        it.tunnel.lane = Arc::new(Lane { engine, queue, agent: Some(agent.0) });
        it.prefixes.handle(now, PrefixDiscoveryEvent::Agent(agent));
        let mut lanes = Vec::clone(&self.shared.lanes.load());
        for lane in lanes.iter_mut().filter(|lane| Arc::ptr_eq(lane, &before)) {
            *lane = self.homes[home].tunnel.lane.clone();
        }
        self.shared.lanes.store(Arc::new(lanes));
        let name = self.homes[home].home.name.clone();
        self.tell(Event::Notice {
            severity: Severity::Info,
            code: "home_agent".to_owned(),
            text: format!("home {name}: registering with home agent {}", agent.0),
        });
        self.publish_home(home);
        for event in self.present_uplinks() {
            let outputs = self.homes[home].handle(now, event);
            self.publish_home(home);
            self.mobile_outputs(home, outputs);
        }
    }

    /// The uplinks that are attached, as events.
    fn present_uplinks(&self) -> Vec<MobileEvent> {
        let uplinks = self.links.iter().filter_map(|(name, record)| {
            let attachment = record.state.as_ref().ok()?;
            let interface = self.policy.interface(name.as_str())?;
            Some(MobileEvent::CareOfUp {
                bid: interface.bid?,
                priority: interface.priority,
                care_of: attachment.care_of.into(),
            })
        });
        uplinks.collect()
    }

    // ---- prefixes ------------------------------------------------------------------------------

    fn tell_prefixes(&mut self, home: usize, outputs: &[MobileOutput]) {
        let now = self.now();
        let it = &mut self.homes[home];
        let mut told = false;
        for output in outputs {
            let event = match output {
                MobileOutput::Bound { bid: Some(bid), care_of, first, .. } => {
                    let list = it.node.update_list();
                    let entry = list.entries.iter().find(|entry| entry.bid == *bid);
                    let priority = entry.map_or(u8::MAX, |entry| entry.priority);
                    let status = entry.and_then(|entry| entry.last_status);
                    let (bid, care_of) = (*bid, *care_of);
                    it.prefixes
                        .handle(now, PrefixDiscoveryEvent::CareOfUp { bid, priority, care_of });
                    // req MN-08 (RFC 6275 §11.4.2, §11.7.3).
                    let unknown =
                        it.search.is_some() && *first && it.prefixes.prefixes().next().is_none();
                    let necessary = status == Some(Status::PREFIX_DISCOVERY_NECESSARY);
                    told = true;
                    if !(unknown || necessary) || !it.home.extensions.prefix_discovery {
                        continue;
                    }
                    PrefixDiscoveryEvent::Wanted
                }
                MobileOutput::Unbound { bid: Some(bid), .. } => {
                    PrefixDiscoveryEvent::CareOfDown { bid: *bid }
                }
                _ => continue,
            };
            told = true;
            it.prefixes.handle(now, event);
        }
        if told {
            self.prefix_outputs(home);
        }
    }

    fn prefix_outputs(&mut self, home: usize) {
        while let Some(output) = self.homes[home].prefixes.poll() {
            match output {
                PrefixDiscoveryOutput::Transmit(transmit) => {
                    transmit_discovery(&self.shared, &transmit);
                }
                PrefixDiscoveryOutput::Changed => {
                    let prefixes = self.homes[home].prefixes.prefixes();
                    let prefixes: Vec<_> = prefixes.map(|it| it.prefix.to_string()).collect();
                    let text = format!("the home link has {}", prefixes.join(", "));
                    self.discovery_notice(home, Some(Severity::Info), "home_prefixes", &text);
                }
                PrefixDiscoveryOutput::Notice(notice) => {
                    let (severity, code) = match notice {
                        PrefixDiscoveryNotice::Undecodable(_) => (None, "prefixes_undecodable"),
                        PrefixDiscoveryNotice::WrongWay => (None, "prefixes_wrong_way"),
                        PrefixDiscoveryNotice::Unsolicited => (None, "prefixes_unsolicited"),
                        PrefixDiscoveryNotice::NoAnswer(_) => {
                            (Some(Severity::Warning), "prefixes_unanswered")
                        }
                        PrefixDiscoveryNotice::HomeAddressInvalid => {
                            (Some(Severity::Warning), "home_address_invalid")
                        }
                    };
                    self.discovery_notice(home, severity, code, &notice.to_string());
                }
            }
        }
    }
}
