//! One home network that this node serves: its tunnel and its home agent.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::{AllowedMobile, Effective, FlowBinding, HomeAddress, ServedHome};
use mtun_signaling::agent::{
    AgentConfig, AgentEvent, AgentOutput, HomeAgent, HomeAgents, MobileRecord,
};
use mtun_signaling::machine::Machine;
use mtun_signaling::time::Timestamp;

use super::tunnel::Tunnel;
use crate::edge::home_link::HomeLinkEdge;
use crate::publish;

/// What a mobile told of its rules, and what that comes to.
#[derive(Debug)]
struct Told {
    flows: Vec<FlowBinding>,
    reflect: bool,
    rules: Arc<Effective>,
}

/// One home network that this node serves.
#[derive(Debug)]
pub struct AgentHome {
    /// What the policy says of it.
    pub served: ServedHome,
    /// Where each mobile stands there.
    places: HashMap<HomeAddress, usize>,
    /// Its home-bound interface and packet loop.
    pub tunnel: Tunnel,
    /// Its acceptance machine and binding cache.
    pub agent: HomeAgent,
    /// The rules of every mobile that told none.
    own: Arc<Effective>,
    /// The rules of those that told some, and what they told.
    told: BTreeMap<HomeAddress, Told>,
    /// The highest generation published.
    pub generation: u64,
    /// Mobiles that went home, and until when packets under way between their last care-of
    /// addresses and this agent count.
    pub went_home: BTreeMap<HomeAddress, Duration>,
    /// The home agents of its home link.
    pub home_agents: HomeAgents,
    /// Its home link, unless that is a virtual one.
    pub home_link: Option<HomeLinkEdge>,
}

impl AgentHome {
    /// A home agent without bindings.
    pub fn new(
        served: ServedHome,
        tunnel: Tunnel,
        config: AgentConfig,
        home_agents: HomeAgents,
    ) -> Self {
        let agent = HomeAgent::new(config);
        let own = Arc::new(publish::downlink(None, served.unmatched));
        let home_link = served.on.clone().map(|on| {
            HomeLinkEdge::new(on, served.agent.0)
                .owning(home_agents.anycast())
                .advertising(super::discovery::advertisement(&served))
        });
        let places = served.mobiles.iter().enumerate();
        let places = places.map(|(place, allowed)| (allowed.address, place)).collect();
        Self {
            served,
            places,
            tunnel,
            agent,
            own,
            told: BTreeMap::new(),
            generation: 0,
            went_home: BTreeMap::new(),
            home_agents,
            home_link,
        }
    }

    /// Hands an event to the machine and takes what it wants done.
    pub fn handle(&mut self, now: Timestamp, event: AgentEvent) -> Vec<AgentOutput> {
        self.agent.handle(now, event);
        self.outputs()
    }

    /// Takes back what an earlier run kept of a mobile `passed` ago.
    pub fn restore(
        &mut self,
        now: Timestamp,
        record: &MobileRecord,
        passed: Duration,
    ) -> Vec<AgentOutput> {
        self.agent.restore(now, record, passed);
        self.outputs()
    }

    /// Lets the machine do what is due and takes what it wants done.
    pub fn handle_deadline(&mut self, now: Timestamp) -> Vec<AgentOutput> {
        match self.agent.deadline() {
            Some(deadline) if deadline <= now.monotonic => {
                self.agent.handle_deadline(now);
                self.outputs()
            }
            _ => Vec::new(),
        }
    }

    /// When something is due, for the machine or on the home link.
    pub fn deadline(&self) -> Option<Duration> {
        let home_link = self.home_link.as_ref().and_then(HomeLinkEdge::deadline);
        let due = [self.agent.deadline(), self.home_agents.deadline(), home_link];
        due.into_iter().flatten().chain(self.went_home.values().copied()).min()
    }

    /// Mobiles of which nothing is under way any more.
    pub fn arrived_home(&mut self, now: Duration) -> Vec<HomeAddress> {
        let arrived: Vec<_> =
            self.went_home.iter().filter(|(_, until)| **until <= now).map(|(at, _)| *at).collect();
        self.went_home.retain(|_, until| *until > now);
        arrived
    }

    /// Whether a request for home agents to this address is for this home.
    pub fn answers_discovery(&self, destination: Ipv6Addr) -> bool {
        [self.home_agents.anycast(), self.served.agent.0].contains(&destination)
    }

    /// What the policy allows the mobile of this home address.
    pub fn allowed(&self, home_address: HomeAddress) -> Option<&AllowedMobile> {
        let mobiles = &self.served.mobiles;
        let place = self.places.get(&home_address).and_then(|place| mobiles.get(*place));
        // Whoever joined since is found by looking.
        place
            .filter(|allowed| allowed.address == home_address)
            .or_else(|| mobiles.iter().find(|allowed| allowed.address == home_address))
    }

    /// The rules by which packets go to the mobile of this home address: made anew only when it
    /// told others, so that an update that only refreshes costs nothing here.
    pub fn rules(&mut self, home_address: HomeAddress) -> Arc<Effective> {
        let entry = self.agent.cache().get(home_address).filter(|entry| !entry.flows.is_empty());
        let Some(entry) = entry else {
            self.told.remove(&home_address);
            return self.own.clone();
        };
        let known = self.told.get(&home_address);
        if let Some(told) =
            known.filter(|told| told.flows == entry.flows && told.reflect == entry.reflect)
        {
            return told.rules.clone();
        }
        let rules = Arc::new(publish::downlink(Some(entry), self.served.unmatched));
        let (flows, reflect) = (entry.flows.clone(), entry.reflect);
        self.told.insert(home_address, Told { flows, reflect, rules: rules.clone() });
        rules
    }

    /// Whether packets to this address go to one of its mobiles.
    pub fn owns(&self, destination: IpAddr) -> bool {
        self.tunnel.published.load().cache.lookup(destination).is_some()
    }

    /// Where the mobile network prefixes of mobiles go that have no binding: they are at home, if
    /// anywhere (RFC 3963 §5.8).
    pub fn routed_at_home(&self) -> Vec<(Ipv6Net, (u32, Ipv6Addr))> {
        let Some(index) = self.home_link.as_ref().and_then(HomeLinkEdge::index) else {
            return Vec::new();
        };
        let mobiles = self.served.mobiles.iter().filter(|mobile| {
            let address = mobile.address;
            self.served.prefix.contains(&address.0) && self.agent.cache().get(address).is_none()
        });
        let routes = mobiles.flat_map(|mobile| {
            mobile.prefixes.iter().map(|prefix| (prefix.net(), (index, mobile.address.0)))
        });
        routes.collect()
    }

    /// Whether the signaling of every mobile is protected.
    pub fn is_protected(&self) -> bool {
        self.served.mobiles.iter().all(|mobile| mobile.security.is_some())
    }

    fn outputs(&mut self) -> Vec<AgentOutput> {
        std::iter::from_fn(|| self.agent.poll()).collect()
    }
}
