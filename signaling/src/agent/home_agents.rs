//! Which home agents a home link has, and telling mobiles that ask (RFC 6275 §10.5, RFC 3963 §7).
//!
//! [`HomeAgents`] keeps the Home Agents List out of the Router Advertisements of the link and
//! answers Home Agent Address Discovery Requests from it. What it hears is authenticated by
//! nobody: the list can send a mobile to an agent that is none, and the mobile then finds out,
//! because agents prove themselves by acknowledging. So the list is bounded, and answers have a
//! rate that no stranger can exceed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::HomeAgentAddress;

use crate::binding::is_routable;
use crate::budget::Budget;
use crate::machine::{Envelope, Machine, Transmit};
use crate::seed::Seed;
use crate::time::Timestamp;
use crate::wire::icmpv6::neighbour_discovery::RouterAdvertisement;
use crate::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryReply, HomeAgentAddressDiscoveryRequest, IcmpError, IcmpMessage,
    home_agents_anycast,
};

/// Most agents of one link that are remembered.
const MAX_AGENTS: usize = 32;
/// Most addresses of one of them.
const MAX_ADDRESSES: usize = 8;
/// Most addresses in a reply, which must fit into the least MTU (req HA-74; RFC 6275 §10.5.1).
const MAX_REPLIED: usize = (1280 - 40 - 8) / 16;

/// What is known of ourselves.
#[derive(Clone, Copy, Debug)]
pub struct HomeAgentsConfig {
    /// Our address.
    pub address: HomeAgentAddress,
    /// The home link's prefix; it has the anycast address that requests go to.
    pub prefix: Ipv6Net,
    /// Our preference, higher is better (RFC 6275 §7.4).
    pub preference: u16,
    /// Whether we serve mobile routers (RFC 3963 §7.3).
    pub mobile_routers: bool,
}

/// What may happen.
#[derive(Clone, Debug)]
pub enum HomeAgentsEvent {
    /// A router of the home link advertised itself.
    Advertised {
        /// Its link-local address.
        source: Ipv6Addr,
        /// What it said.
        advertisement: RouterAdvertisement,
    },
    /// An ICMPv6 message of type 144 arrived.
    Received {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole message.
        message: Vec<u8>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeAgentsOutput {
    /// Send this ICMPv6 message.
    Transmit(Transmit),
    /// Something for the log and the counters.
    Notice(HomeAgentsNotice),
}

/// Something that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeAgentsNotice {
    /// Another agent of the link, by its link-local address.
    Appeared(Ipv6Addr),
    /// It is none any more.
    Gone(Ipv6Addr),
    /// There was no room for another one.
    Full,
    /// A message that is no request.
    Undecodable(IcmpError),
    /// A request to another address, from nobody, or by way of extension headers.
    WrongWay,
    /// A request was answered with so many addresses.
    Answered(usize),
    /// A request was not answered, to limit the rate.
    Limited,
}

/// Another agent of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    preference: u16,
    mobile_routers: bool,
    until: Duration,
    addresses: BTreeSet<Ipv6Addr>,
}

/// One agent as a reply lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAgent {
    /// Its link-local address; `None` for ourselves.
    pub link_local: Option<Ipv6Addr>,
    /// Its preference, higher is better.
    pub preference: u16,
    /// Whether it serves mobile routers.
    pub mobile_routers: bool,
    /// Its global addresses.
    pub addresses: Vec<Ipv6Addr>,
}

/// The home agents of a link, ourselves included.
#[derive(Debug)]
pub struct HomeAgents {
    config: HomeAgentsConfig,
    seed: Seed,
    listed: BTreeMap<Ipv6Addr, Listed>,
    replies: Budget,
    out: VecDeque<HomeAgentsOutput>,
}

impl HomeAgents {
    /// Knows nobody but ourselves.
    pub fn new(config: HomeAgentsConfig, seed: Seed) -> Self {
        let replies = Budget::new(20, Duration::from_millis(50));
        Self { config, seed, listed: BTreeMap::new(), replies, out: VecDeque::new() }
    }

    /// The address that requests go to.
    pub fn anycast(&self) -> Ipv6Addr {
        home_agents_anycast(self.config.prefix)
    }

    /// All agents that are known, most preferred first, ourselves before others of our preference.
    pub fn agents(&self) -> Vec<ListedAgent> {
        let ourselves = ListedAgent {
            link_local: None,
            preference: self.config.preference,
            mobile_routers: self.config.mobile_routers,
            addresses: vec![self.config.address.0],
        };
        let others = self.listed.iter().map(|(link_local, listed)| ListedAgent {
            link_local: Some(*link_local),
            preference: listed.preference,
            mobile_routers: listed.mobile_routers,
            addresses: listed.addresses.iter().copied().collect(),
        });
        let mut agents: Vec<_> = std::iter::once(ourselves).chain(others).collect();
        agents.sort_by_key(|agent| std::cmp::Reverse(agent.preference));
        agents
    }

    fn notice(&mut self, notice: HomeAgentsNotice) {
        self.out.push_back(HomeAgentsOutput::Notice(notice));
    }

    fn expire(&mut self, now: Duration) {
        let gone: Vec<_> = self.listed.extract_if(.., |_, listed| listed.until <= now).collect();
        for (link_local, _) in gone {
            self.notice(HomeAgentsNotice::Gone(link_local));
        }
    }

    /// The steps of RFC 6275 §10.5.1.
    fn advertised(&mut self, now: Duration, source: Ipv6Addr, said: &RouterAdvertisement) {
        // req HA-71, HA-72, NH-18 (RFC 6275 §7.4, RFC 3963 §7.3): defaults without the option.
        let (preference, lifetime, mobile_routers) = match said.information {
            Some(it) => (it.preference, it.lifetime, it.mobile_routers),
            None => (0, said.lifetime, false),
        };
        // req HA-73.
        if !said.home_agent || lifetime == 0 {
            if self.listed.remove(&source).is_some() {
                self.notice(HomeAgentsNotice::Gone(source));
            }
            return;
        }
        let until = now + Duration::from_secs(lifetime.into());
        // req HA-72, HA-73 (RFC 6275 §10.5.1): those of prefixes with R, all of them.
        let global = said.prefixes.iter().filter(|prefix| prefix.router_address);
        let global = global
            .map(|prefix| prefix.address)
            .filter(|address| is_routable(*address) && *address != self.config.address.0);
        let mut addresses: BTreeSet<Ipv6Addr> = global.collect();
        if let Some(known) = self.listed.get(&source) {
            addresses.extend(&known.addresses);
        } else if addresses.is_empty() {
            return;
        } else if self.listed.len() >= MAX_AGENTS {
            return self.notice(HomeAgentsNotice::Full);
        }
        while addresses.len() > MAX_ADDRESSES {
            addresses.pop_last();
        }
        let listed = Listed { preference, mobile_routers, until, addresses };
        if self.listed.insert(source, listed).is_none() {
            self.notice(HomeAgentsNotice::Appeared(source));
        }
    }

    fn received(&mut self, now: Duration, envelope: &Envelope, message: &[u8]) {
        let request = match icmpv6::receive(envelope, message) {
            Ok(IcmpMessage::HomeAgentAddressDiscoveryRequest(request)) => request,
            Ok(_) => return self.notice(HomeAgentsNotice::WrongWay),
            Err(error) => return self.notice(HomeAgentsNotice::Undecodable(error)),
        };
        // req HA-70 (RFC 6275 §10.5): to the anycast address, from somebody who can be answered.
        let plain = envelope.home_address.is_none() && envelope.routing_header.is_none();
        let ours = [self.anycast(), self.config.address.0].contains(&envelope.destination);
        if !plain || !ours || !is_routable(envelope.source) {
            return self.notice(HomeAgentsNotice::WrongWay);
        }
        if !self.replies.take(now) {
            return self.notice(HomeAgentsNotice::Limited);
        }
        let reply = self.reply(request);
        self.notice(HomeAgentsNotice::Answered(reply.agents.len()));
        let envelope = Envelope::plain(self.config.address.0, envelope.source);
        let message = icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryReply(reply), &envelope);
        self.out.push_back(HomeAgentsOutput::Transmit(Transmit { envelope, path: None, message }));
    }

    fn reply(
        &mut self,
        request: HomeAgentAddressDiscoveryRequest,
    ) -> HomeAgentAddressDiscoveryReply {
        let mut agents = self.agents();
        // req NH-18, R-HA-32 (RFC 3963 §7.2): those for mobile routers, or all without R.
        let router = request.router && agents.iter().any(|agent| agent.mobile_routers);
        agents.retain(|agent| !router || agent.mobile_routers);
        // req HA-71, R-HA-32 (RFC 6275 §10.5.1): by preference, and among equals by lot.
        let mut drawn: Vec<_> = agents
            .into_iter()
            .map(|agent| {
                let lot = u32::from_be_bytes(self.seed.draw());
                ((std::cmp::Reverse(agent.preference), lot), agent.addresses)
            })
            .collect();
        drawn.sort_by_key(|(order, _)| *order);
        let agents = drawn.into_iter().flat_map(|(_, addresses)| addresses);
        let agents = agents.take(MAX_REPLIED).collect();
        HomeAgentAddressDiscoveryReply { identifier: request.identifier, router, agents }
    }
}

impl Machine for HomeAgents {
    type Event = HomeAgentsEvent;
    type Output = HomeAgentsOutput;

    fn handle(&mut self, now: Timestamp, event: HomeAgentsEvent) {
        let now = now.monotonic;
        self.expire(now);
        match event {
            HomeAgentsEvent::Advertised { source, advertisement } => {
                self.advertised(now, source, &advertisement);
            }
            HomeAgentsEvent::Received { envelope, message } => {
                self.received(now, &envelope, &message);
            }
        }
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        self.expire(now.monotonic);
    }

    fn poll(&mut self) -> Option<HomeAgentsOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        self.listed.values().map(|listed| listed.until).min()
    }
}

impl HomeAgentsNotice {
    /// A short fixed name, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Appeared(_) => "home_agent_appeared",
            Self::Gone(_) => "home_agent_gone",
            Self::Full => "home_agents_full",
            Self::Undecodable(_) => "discovery_undecodable",
            Self::WrongWay => "discovery_wrong_way",
            Self::Answered(_) => "discovery_answered",
            Self::Limited => "discovery_limited",
        }
    }
}

impl fmt::Display for HomeAgentsNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appeared(agent) => write!(f, "home agent {agent} appeared on the home link"),
            Self::Gone(agent) => write!(f, "home agent {agent} is gone from the home link"),
            Self::Full => f.write_str("too many home agents on the home link, one is left out"),
            Self::Undecodable(error) => write!(f, "ignored a message: {error}"),
            Self::WrongWay => f.write_str("ignored a discovery request that was not for us"),
            Self::Answered(count) => write!(f, "told a mobile of {count} home agent addresses"),
            Self::Limited => f.write_str("a discovery request is not answered to limit the rate"),
        }
    }
}
