//! Whom a plan is for: the mobile's own addresses and its bindings.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::policy::{Home, Policy};
use crate::terms::{Bid, HomeAddress, MobileNetworkPrefix};

/// The mobile as its home agent knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownlinkTarget {
    /// The address it keeps.
    pub home_address: HomeAddress,
    /// The networks that move with it.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// Its IPv4 addresses and networks; without any, nothing is said of IPv4.
    pub ipv4: Vec<Ipv4Net>,
    /// The bindings that the agent holds or is told of in the same Binding Update, with BID-PRI.
    /// No flow binding names another.
    pub bids: Vec<(Bid, u8)>,
    /// Whether the agent reflects within the BIDs of one selector: then all links of a rule are
    /// told, though the order of those behind it says the same.
    pub reflect: bool,
}

impl DownlinkTarget {
    /// A home's mobile with these bindings; BID-PRI are those of the file's interfaces.
    pub fn new(policy: &Policy, home: &Home, bids: impl IntoIterator<Item = Bid>) -> Self {
        let priority = |bid| policy.interface_of(bid).map_or(0, |link| link.priority);
        Self {
            home_address: home.address,
            prefixes: home.mobile_networks.iter().map(|network| network.prefix).collect(),
            ipv4: Vec::new(),
            bids: bids.into_iter().map(|bid| (bid, priority(bid))).collect(),
            reflect: false,
        }
    }

    /// The addresses and networks that are the mobile's.
    pub fn own(&self) -> impl Iterator<Item = IpNet> {
        let home = IpNet::V6(Ipv6Net::from(self.home_address.0));
        let networks = self.prefixes.iter().map(|prefix| IpNet::V6(prefix.net()));
        std::iter::once(home)
            .chain(networks)
            .chain(self.ipv4.iter().map(|net| IpNet::V4(net.trunc())))
    }

    /// The BIDs in the order of their BID-PRI, ties by BID; 0 means none and comes last.
    pub(super) fn order(&self) -> Vec<Bid> {
        let mut order: Vec<(Bid, u8)> = self.bids.clone();
        order.sort_by_key(|(bid, priority)| (*priority == 0, *priority, *bid));
        order.dedup_by_key(|(bid, _)| *bid);
        order.into_iter().map(|(bid, _)| bid).collect()
    }

    /// How many of [`DownlinkTarget::order`] stand before the first tie, which every agent may
    /// break as it likes (RFC 6089 §4.1).
    pub(super) fn certain(&self) -> usize {
        let order = self.order();
        let priority = |bid: Bid| self.bids.iter().find(|(known, _)| *known == bid).map(|it| it.1);
        let same = |pair: &[Bid]| priority(pair[0]) == priority(pair[1]);
        order.windows(2).position(same).unwrap_or(order.len())
    }

    /// Whether the agent knows a binding.
    pub(super) fn knows(&self, bid: Bid) -> bool {
        self.bids.iter().any(|(known, _)| *known == bid)
    }
}
