//! One home network that this node serves: its tunnel and its home agent.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use mtun_policy::downlink::Rulebook;
use mtun_policy::{AllowedMobile, Effective, HomeAddress, ServedHome};
use mtun_signaling::agent::{
    AgentConfig, AgentEvent, AgentOutput, HomeAgent, HomeAgents, MobileRecord,
};
use mtun_signaling::machine::Machine;
use mtun_signaling::time::Timestamp;

use super::tunnel::Tunnel;
use crate::edge::home_link::HomeLinkEdge;
use crate::edge::routes::{AgentRoutes, host};

/// Where each mobile stands in the policy: strangers ask as well, and for whoever they like.
#[derive(Debug)]
struct Places(HashMap<HomeAddress, usize>);

impl Places {
    fn of(mobiles: &[AllowedMobile]) -> Self {
        let places = mobiles.iter().enumerate();
        Self(places.map(|(place, allowed)| (allowed.address, place)).collect())
    }

    fn find<'m>(
        &self,
        mobiles: &'m [AllowedMobile],
        home_address: HomeAddress,
    ) -> Option<&'m AllowedMobile> {
        mobiles.get(*self.0.get(&home_address)?)
    }
}

/// One home network that this node serves.
#[derive(Debug)]
pub struct AgentHome {
    /// What the policy says of it.
    pub served: ServedHome,
    /// Where each mobile stands there.
    places: Places,
    /// Its home-bound interface and packet loop.
    pub tunnel: Tunnel,
    /// Its acceptance machine and binding cache.
    pub agent: HomeAgent,
    /// The rules by which packets go to each mobile.
    rulebook: Rulebook,
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
        let rulebook = Rulebook::new(served.unmatched);
        let home_link = served.on.clone().map(|on| {
            HomeLinkEdge::new(on, served.agent.0)
                .owning(home_agents.anycast())
                .advertising(super::discovery::advertisement(&served))
        });
        let places = Places::of(&served.mobiles);
        Self {
            served,
            places,
            tunnel,
            agent,
            rulebook,
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
        self.places.find(&self.served.mobiles, home_address)
    }

    /// From here on this is what the policy says.
    pub fn serve(&mut self, served: ServedHome) {
        self.places = Places::of(&served.mobiles);
        self.rulebook.adopt(served.unmatched);
        self.served = served;
    }

    /// The rules by which packets go to the mobile of this home address: made anew only when it
    /// told others, so that an update that only refreshes costs nothing here.
    pub fn rules(&mut self, home_address: HomeAddress) -> Arc<Effective> {
        match self.agent.cache().get(home_address) {
            Some(entry) => self.rulebook.rules(home_address, &entry.flows, entry.reflect),
            None => self.rulebook.rules(home_address, &[], false),
        }
    }

    /// This mobile is served no more.
    pub fn leave(&mut self, home_address: HomeAddress) {
        self.went_home.remove(&home_address);
        self.rulebook.forget(home_address);
    }

    /// Whether packets to this address go to one of its mobiles.
    pub fn owns(&self, destination: IpAddr) -> bool {
        self.tunnel.published.load().cache.lookup(destination).is_some()
    }

    /// Adds the routes that concern one of its mobiles: into the tunnel as far as it is bound. Its
    /// networks are at home otherwise, if anywhere (RFC 3963 §5.8).
    pub fn lead_to(&self, mobile: &AllowedMobile, routes: &mut AgentRoutes) {
        let address = mobile.address;
        let networks = || mobile.prefixes.iter().map(|prefix| prefix.net());
        routes.reserved.extend(networks());
        if let Some(entry) = self.agent.cache().get(address) {
            let bound = routes.bound.entry(self.tunnel.index()).or_default();
            bound.insert(host(address.0));
            bound.extend(entry.prefixes.iter().map(|prefix| prefix.net()));
            return;
        }
        let home_link = self.home_link.as_ref().and_then(HomeLinkEdge::index);
        if let Some(index) = home_link
            && self.served.prefix.contains(&address.0)
        {
            routes.at_home.extend(networks().map(|net| (net, (index, address.0))));
        }
    }

    /// Whether the signaling of every mobile is protected.
    pub fn is_protected(&self) -> bool {
        self.served.mobiles.iter().all(|mobile| mobile.security.is_some())
    }

    fn outputs(&mut self) -> Vec<AgentOutput> {
        std::iter::from_fn(|| self.agent.poll()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joined_is_found_and_who_left_is_not() {
        let address = |host: u16| HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host));
        let allowed = |host| AllowedMobile {
            address: address(host),
            name: None,
            prefixes: Vec::new(),
            security: None,
            max_bindings: 1,
            max_flows: 0,
            max_copies: 1,
            refused: false,
            refused_bids: Vec::new(),
        };
        for hosts in [&[2, 3, 4][..], &[4, 9, 3], &[]] {
            let mobiles: Vec<_> = hosts.iter().copied().map(allowed).collect();
            let places = Places::of(&mobiles);
            for host in 0..16 {
                let found = places.find(&mobiles, address(host)).map(|it| it.address);
                assert_eq!(found, hosts.contains(&host).then(|| address(host)));
            }
        }
    }
}
