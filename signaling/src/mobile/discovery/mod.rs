//! How a mobile away from home learns who its home agents are and which prefixes its home link
//! has (RFC 6275 §11.4).
//!
//! [`AgentDiscovery`] asks the home agents' anycast address and goes through the list that comes
//! back, one agent after the other, for as long as registrations fail. [`PrefixDiscovery`] asks
//! the agent that it is registered with for the prefixes of the home link, before the home
//! address becomes invalid or when the agent says that something changed.
//!
//! Neither registers anything: what they find goes to whoever configures the
//! [`MobileNode`](super::MobileNode). What they hear is not authenticated; it can make a mobile
//! try agents, who must prove themselves by acknowledging, and can shorten no home address's life
//! below two hours (RFC 4862 §5.5.3).

mod agents;
mod prefixes;

pub use crate::wire::icmpv6::home_agents_anycast;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress};

pub use agents::{
    AgentDiscovery, AgentDiscoveryConfig, AgentDiscoveryEvent, AgentDiscoveryNotice,
    AgentDiscoveryOutput,
};
pub use prefixes::{
    HomePrefix, PrefixDiscovery, PrefixDiscoveryConfig, PrefixDiscoveryEvent,
    PrefixDiscoveryNotice, PrefixDiscoveryOutput,
};

/// Care-of addresses that requests may leave by.
#[derive(Debug, Default)]
struct Uplinks(BTreeMap<Bid, (u8, Ipv6Addr)>);

impl Uplinks {
    /// An uplink has this address; one with an IPv4 address only is of no use here.
    fn up(&mut self, bid: Bid, priority: u8, care_of: CareOfAddress) {
        match care_of.0 {
            IpAddr::V6(address) => drop(self.0.insert(bid, (priority, address))),
            IpAddr::V4(_) => self.down(bid),
        }
    }

    fn down(&mut self, bid: Bid) {
        self.0.remove(&bid);
    }

    /// The uplink for this try: the preferred one first, then another each time.
    fn pick(&self, tries: u32) -> Option<(Bid, Ipv6Addr)> {
        let mut all: Vec<_> =
            self.0.iter().map(|(&bid, &(priority, address))| (priority, bid, address)).collect();
        all.sort();
        let index = tries as usize % all.len().max(1);
        all.get(index).map(|&(_, bid, address)| (bid, address))
    }

    fn has(&self, address: Ipv6Addr) -> bool {
        self.0.values().any(|&(_, care_of)| care_of == address)
    }
}

/// The wait after this many requests without an answer: doubled each time.
fn doubled(first: Duration, tries: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << tries.min(20)).min(longest)
}
