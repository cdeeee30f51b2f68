//! Dynamic home agent address discovery, from the mobile's side (RFC 6275 §11.4.1, RFC 3963 §7).

use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::{Bid, CareOfAddress, HomeAgentAddress};

use super::{Uplinks, doubled};
use crate::binding::is_routable;
use crate::machine::{Envelope, Machine, Transmit};
use crate::registration::INITIAL_BINDACK_TIMEOUT_FIRST_REG;
use crate::seed::Seed;
use crate::time::Timestamp;
use crate::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryReply, HomeAgentAddressDiscoveryRequest, IcmpError, IcmpMessage,
    home_agents_anycast,
};

/// Requests without a reply before a pause (RFC 6275 §12).
pub const DHAAD_RETRIES: u32 = 4;
/// First wait for a reply, doubled each time (RFC 6275 §12).
pub const INITIAL_DHAAD_TIMEOUT: Duration = Duration::from_secs(3);
/// First pause after a search that found nobody, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Most agents kept of one reply.
const MAX_AGENTS: usize = 16;

/// What must be known to look for home agents.
#[derive(Clone, Debug)]
pub struct AgentDiscoveryConfig {
    /// The home link's prefix.
    pub home_prefix: Ipv6Net,
    /// Whether agents for mobile routers are needed (RFC 3963 §7).
    pub router: bool,
    /// Agents known beforehand, most preferred first; may be empty.
    pub agents: Vec<HomeAgentAddress>,
}

/// What may happen.
#[derive(Clone, Debug)]
pub enum AgentDiscoveryEvent {
    /// An agent is needed.
    Wanted,
    /// This agent did not answer or refused for good: another one.
    Failed {
        /// The agent.
        agent: HomeAgentAddress,
    },
    /// The present agent sends us to one of these, most preferred first, or to any that is found
    /// if none is named (RFC 5142).
    Sent {
        /// The agents.
        agents: Vec<HomeAgentAddress>,
    },
    /// This agent accepted the registration.
    Registered {
        /// The agent.
        agent: HomeAgentAddress,
    },
    /// An uplink has this care-of address.
    CareOfUp {
        /// The uplink's BID.
        bid: Bid,
        /// BID-PRI, lower is better.
        priority: u8,
        /// The address.
        care_of: CareOfAddress,
    },
    /// An uplink has none any more.
    CareOfDown {
        /// The uplink's BID.
        bid: Bid,
    },
    /// An ICMPv6 message of type 145 arrived.
    Received {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole message.
        message: Vec<u8>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentDiscoveryOutput {
    /// Send this ICMPv6 message.
    Transmit(Transmit),
    /// Register with this agent.
    Use(HomeAgentAddress),
    /// Something for the log and the counters.
    Notice(AgentDiscoveryNotice),
}

/// Something that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentDiscoveryNotice {
    /// A message that is none.
    Undecodable(IcmpError),
    /// A reply that nobody asked for, or to another address than asked.
    Unexpected,
    /// So many agents answered.
    Found(usize),
    /// Agents answered, and none that serves mobile routers.
    NoRouterSupport,
    /// Nobody answers; asked again after this time.
    NoAnswer(Duration),
    /// All known agents failed; asked again after this time.
    AllFailed(Duration),
}

/// One agent and what became of it.
#[derive(Clone, Copy, Debug)]
struct Known {
    address: HomeAgentAddress,
    failed: bool,
}

/// A request that waits for its reply.
#[derive(Clone, Copy, Debug)]
struct Search {
    identifier: u16,
    tries: u32,
    timer: Duration,
    source: Ipv6Addr,
}

/// Finds a home agent that works.
#[derive(Debug)]
pub struct AgentDiscovery {
    config: AgentDiscoveryConfig,
    seed: Seed,
    uplinks: Uplinks,
    known: Vec<Known>,
    wanted: bool,
    /// The agent that is in use or being tried.
    current: Option<HomeAgentAddress>,
    search: Option<Search>,
    /// No other agent is tried before, and nobody is asked (RFC 6275 §11.4.1).
    hold: Duration,
    pauses: u32,
    out: VecDeque<AgentDiscoveryOutput>,
}

impl AgentDiscovery {
    /// Knows the configured agents, and asks nobody yet.
    pub fn new(config: AgentDiscoveryConfig, seed: Seed) -> Self {
        let known = config.agents.iter().map(|&address| Known { address, failed: false });
        Self {
            known: known.collect(),
            config,
            seed,
            uplinks: Uplinks::default(),
            wanted: false,
            current: None,
            search: None,
            hold: Duration::ZERO,
            pauses: 0,
            out: VecDeque::new(),
        }
    }

    /// The agent in use or being tried.
    pub fn current(&self) -> Option<HomeAgentAddress> {
        self.current
    }

    /// The agents that are known, most preferred first.
    pub fn agents(&self) -> impl Iterator<Item = HomeAgentAddress> {
        self.known.iter().map(|known| known.address)
    }

    fn notice(&mut self, notice: AgentDiscoveryNotice) {
        self.out.push_back(AgentDiscoveryOutput::Notice(notice));
    }

    /// Leaves the present agent for one of these; those of our home prefix first.
    fn sent(&mut self, now: Duration, mut agents: Vec<HomeAgentAddress>) {
        let left = self.current.take();
        agents.retain(|agent| is_routable(agent.0) && Some(*agent) != left);
        // req HS-04 (RFC 5142 §6.2).
        let home = self.config.home_prefix;
        agents.sort_by_key(|agent| !home.contains(&agent.0));
        agents.truncate(MAX_AGENTS);
        // req HS-02 (RFC 5142 §4): without one, whoever is found.
        self.known = agents.into_iter().map(|address| Known { address, failed: false }).collect();
        self.search = None;
        self.wanted = true;
        self.pauses = 0;
        self.hold = now;
    }

    /// Uses the next agent, or looks for some.
    fn proceed(&mut self, now: Duration) {
        if !self.wanted || self.current.is_some() || self.hold > now || self.search.is_some() {
            return;
        }
        // req MN-27 (RFC 6275 §11.4.1): in the order of the list.
        if let Some(next) = self.known.iter().find(|known| !known.failed) {
            self.current = Some(next.address);
            // req MN-27 (RFC 6275 §11.4.1): not faster than this from one to the next.
            self.hold = now + INITIAL_BINDACK_TIMEOUT_FIRST_REG;
            self.out.push_back(AgentDiscoveryOutput::Use(next.address));
            return;
        }
        let identifier = u16::from_be_bytes(self.seed.draw());
        self.ask(now, identifier, 0);
    }

    /// Sends a request; every one of a search is the same but for the uplink.
    fn ask(&mut self, now: Duration, identifier: u16, tries: u32) {
        self.search = None;
        let Some((bid, source)) = self.uplinks.pick(tries) else { return };
        // req MN-27, MR-11 (RFC 6275 §6.5, §11.4.1, RFC 3963 §7.1).
        let request = HomeAgentAddressDiscoveryRequest { identifier, router: self.config.router };
        let envelope = Envelope::plain(source, home_agents_anycast(self.config.home_prefix));
        let message =
            icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryRequest(request), &envelope);
        let timer = now + doubled(INITIAL_DHAAD_TIMEOUT, tries, LONGEST_PAUSE);
        self.search = Some(Search { identifier, tries: tries + 1, timer, source });
        let path = Some(bid);
        self.out.push_back(AgentDiscoveryOutput::Transmit(Transmit { envelope, path, message }));
    }

    /// Nobody new is to be had: those that are known get another try after a pause.
    fn pause(&mut self, now: Duration) -> Duration {
        self.known.iter_mut().for_each(|known| known.failed = false);
        let pause = doubled(FIRST_PAUSE, self.pauses, LONGEST_PAUSE);
        self.pauses = self.pauses.saturating_add(1);
        self.hold = now + pause;
        pause
    }

    fn received(&mut self, now: Duration, envelope: &Envelope, message: &[u8]) {
        let reply = match icmpv6::receive(envelope, message) {
            Ok(IcmpMessage::HomeAgentAddressDiscoveryReply(reply)) => reply,
            Ok(_) => return self.notice(AgentDiscoveryNotice::Unexpected),
            Err(error) => return self.notice(AgentDiscoveryNotice::Undecodable(error)),
        };
        let asked = self.search.is_some_and(|search| {
            search.identifier == reply.identifier && search.source == envelope.destination
        });
        if !asked {
            return self.notice(AgentDiscoveryNotice::Unexpected);
        }
        self.search = None;
        self.take(now, &reply);
    }

    fn take(&mut self, now: Duration, reply: &HomeAgentAddressDiscoveryReply) {
        // req MR-11, NH-18 (RFC 3963 §7.2): without R these serve hosts only.
        if self.config.router && !reply.router {
            self.pause(now);
            return self.notice(AgentDiscoveryNotice::NoRouterSupport);
        }
        let mut known: Vec<Known> = Vec::new();
        for &address in &reply.agents {
            let listed = known.iter().any(|known| known.address.0 == address);
            if known.len() < MAX_AGENTS && is_routable(address) && !listed {
                known.push(Known { address: HomeAgentAddress(address), failed: false });
            }
        }
        self.notice(AgentDiscoveryNotice::Found(known.len()));
        if known.is_empty() {
            self.pause(now);
        } else {
            self.known = known;
        }
    }

    fn failed(&mut self, now: Duration, agent: HomeAgentAddress) {
        for known in self.known.iter_mut().filter(|known| known.address == agent) {
            known.failed = true;
        }
        if self.current == Some(agent) {
            self.current = None;
        }
        if self.current.is_none() && self.known.iter().all(|known| known.failed) {
            // A new list is asked for at once the first time, and after a pause the next times.
            if self.pauses > 0 {
                let pause = self.pause(now);
                self.notice(AgentDiscoveryNotice::AllFailed(pause));
            }
            self.pauses = self.pauses.max(1);
        }
    }
}

impl Machine for AgentDiscovery {
    type Event = AgentDiscoveryEvent;
    type Output = AgentDiscoveryOutput;

    fn handle(&mut self, now: Timestamp, event: AgentDiscoveryEvent) {
        let now = now.monotonic;
        match event {
            AgentDiscoveryEvent::Wanted => self.wanted = true,
            AgentDiscoveryEvent::Failed { agent } => self.failed(now, agent),
            AgentDiscoveryEvent::Sent { agents } => self.sent(now, agents),
            AgentDiscoveryEvent::Registered { agent } => {
                self.current = Some(agent);
                self.search = None;
                self.pauses = 0;
                self.known.iter_mut().for_each(|known| known.failed = false);
            }
            AgentDiscoveryEvent::CareOfUp { bid, priority, care_of } => {
                self.uplinks.up(bid, priority, care_of);
            }
            AgentDiscoveryEvent::CareOfDown { bid } => {
                self.uplinks.down(bid);
                // The reply would go to an address that is gone.
                if self.search.is_some_and(|search| !self.uplinks.has(search.source)) {
                    self.search = None;
                }
            }
            AgentDiscoveryEvent::Received { envelope, message } => {
                self.received(now, &envelope, &message);
            }
        }
        self.proceed(now);
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        let now = now.monotonic;
        if let Some(Search { identifier, tries, timer, .. }) = self.search
            && timer <= now
        {
            if tries < DHAAD_RETRIES {
                self.ask(now, identifier, tries);
            } else {
                self.search = None;
                let pause = self.pause(now);
                self.notice(AgentDiscoveryNotice::NoAnswer(pause));
            }
        }
        self.proceed(now);
    }

    fn poll(&mut self) -> Option<AgentDiscoveryOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        match &self.search {
            Some(search) => Some(search.timer),
            None => {
                let able =
                    self.known.iter().any(|known| !known.failed) || self.uplinks.pick(0).is_some();
                (self.wanted && self.current.is_none() && able).then_some(self.hold)
            }
        }
    }
}

impl fmt::Display for AgentDiscoveryNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(error) => write!(f, "ignored a message: {error}"),
            Self::Unexpected => f.write_str("ignored a reply that nobody asked for"),
            Self::Found(count) => write!(f, "{count} home agents found"),
            Self::NoRouterSupport => f.write_str("no home agent serves mobile routers"),
            Self::NoAnswer(pause) => write!(f, "no home agent answers; next try in {pause:?}"),
            Self::AllFailed(pause) => {
                write!(f, "no known home agent accepts us; next try in {pause:?}")
            }
        }
    }
}
