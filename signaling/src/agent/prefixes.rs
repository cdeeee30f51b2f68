//! Which mobile network prefixes an agent forwards to whom (RFC 3963 §6.1.2, §6.2).

use std::collections::{BTreeSet, HashMap};

use ipnet::Ipv6Net;
use mtun_policy::{HomeAddress, HomeAgentAddress, MobileNetworkPrefix};

use super::AgentConfig;
use crate::binding::is_routable;
use crate::wire::Status;
use crate::wire::option::MobileNetworkPrefixOption;

/// A prefix of the table, and what an update that asks for it gets.
type Granted = (MobileNetworkPrefix, Result<(), Status>);

/// Home addresses and what each may have forwarded.
type Mobiles = Vec<(HomeAddress, Vec<MobileNetworkPrefix>)>;

/// The Prefix Table: home address to prefixes, and what may never be forwarded.
#[derive(Debug)]
pub(super) struct PrefixTable {
    agent: HomeAgentAddress,
    home_network: Ipv6Net,
    home_addresses: BTreeSet<HomeAddress>,
    /// What is granted to each mobile, in order, and whether it may have it: one that overlaps
    /// with another mobile's nobody gets, rather than the one who asks first or has the longer one.
    granted: HashMap<HomeAddress, Vec<Granted>>,
}

impl PrefixTable {
    pub(super) fn new(config: &AgentConfig) -> Self {
        let mobiles = config.mobiles.iter();
        let mobiles = mobiles.map(|mobile| (mobile.address, mobile.prefixes.clone())).collect();
        Self::of(config.address, config.prefix, mobiles)
    }

    fn of(agent: HomeAgentAddress, home_network: Ipv6Net, mobiles: Mobiles) -> Self {
        let disputed = disputed(&mobiles);
        let home_addresses = mobiles.iter().map(|(address, _)| *address).collect();
        let mut table = Self { agent, home_network, home_addresses, granted: HashMap::new() };
        for (address, mut prefixes) in mobiles {
            if prefixes.is_empty() {
                continue;
            }
            prefixes.sort();
            prefixes.dedup();
            let verdict = |prefix| {
                if table.is_impossible(address, prefix) {
                    return Err(Status::INVALID_PREFIX);
                }
                // req NH-09, NH-22 (RFC 3963 §6.2): never two owners.
                match disputed.contains(&prefix) {
                    true => Err(Status::NOT_AUTHORIZED_FOR_PREFIX),
                    false => Ok(()),
                }
            };
            let granted = prefixes.into_iter().map(|prefix| (prefix, verdict(prefix))).collect();
            table.granted.insert(address, granted);
        }
        table
    }

    /// Grants a mobile these prefixes instead of those before; `None` for a mobile that is served
    /// no more. Who claims what another has is judged again for all of them.
    pub(super) fn grant(
        &mut self,
        home_address: HomeAddress,
        prefixes: Option<Vec<MobileNetworkPrefix>>,
    ) {
        let others = self.home_addresses.iter().filter(|address| **address != home_address);
        let known = |address: &HomeAddress| {
            let prefixes = self.granted_to(*address).iter().map(|(prefix, _)| *prefix);
            (*address, prefixes.collect())
        };
        let mut mobiles: Mobiles = others.map(known).collect();
        mobiles.extend(prefixes.map(|prefixes| (home_address, prefixes)));
        *self = Self::of(self.agent, self.home_network, mobiles);
    }

    /// The prefixes of an explicit registration: all of those listed, or why none.
    pub(super) fn explicit<'o>(
        &self,
        home_address: HomeAddress,
        listed: impl Iterator<Item = &'o MobileNetworkPrefixOption>,
    ) -> Result<Vec<MobileNetworkPrefix>, Status> {
        let mut prefixes = Vec::new();
        for option in listed {
            // req R-HA-28 (RFC 3963 §6.2): one bad prefix and none is forwarded.
            let prefix = option.prefix().ok_or(Status::INVALID_PREFIX)?;
            self.check(home_address, prefix)?;
            if !prefixes.contains(&prefix) {
                prefixes.push(prefix);
            }
        }
        prefixes.sort();
        Ok(prefixes)
    }

    /// The prefixes of an implicit registration: all that the table has.
    pub(super) fn implicit(
        &self,
        home_address: HomeAddress,
    ) -> Result<Vec<MobileNetworkPrefix>, Status> {
        // req NH-06, NH-10 (RFC 3963 §6.2): no prefix known, no forwarding to set up.
        let granted = self.granted_to(home_address);
        if granted.is_empty() || granted.iter().any(|(_, verdict)| verdict.is_err()) {
            return Err(Status::FORWARDING_SETUP_FAILED);
        }
        Ok(granted.iter().map(|(prefix, _)| *prefix).collect())
    }

    /// Whether the mobile may keep a prefix that was registered under an earlier policy.
    pub(super) fn is_granted_to(
        &self,
        prefix: MobileNetworkPrefix,
        home_address: HomeAddress,
    ) -> bool {
        self.check(home_address, prefix).is_ok()
    }

    fn granted_to(&self, home_address: HomeAddress) -> &[Granted] {
        self.granted.get(&home_address).map_or(&[], Vec::as_slice)
    }

    fn check(&self, home_address: HomeAddress, prefix: MobileNetworkPrefix) -> Result<(), Status> {
        let granted = self.granted_to(home_address);
        if let Some((_, verdict)) = granted.iter().find(|(known, _)| *known == prefix) {
            return *verdict;
        }
        if self.is_impossible(home_address, prefix) {
            return Err(Status::INVALID_PREFIX);
        }
        // Its own network under another length is a mistake of the sender's configuration.
        let own = granted.iter().any(|(own, _)| overlap(own.net(), prefix.net()));
        Err(if own { Status::INVALID_PREFIX } else { Status::NOT_AUTHORIZED_FOR_PREFIX })
    }

    /// What no mobile network can be.
    fn is_impossible(&self, home_address: HomeAddress, prefix: MobileNetworkPrefix) -> bool {
        // req NH-08, NH-23 (RFC 3963 §6.2).
        let net = prefix.net();
        net.prefix_len() == 0
            || !is_routable(net.addr())
            || prefix.contains(self.agent.0)
            || net.contains(&self.home_network)
            || self.holds_another_home_address(home_address, net)
    }

    /// A mobile's own home address may lie in its prefix (RFC 3963 §6.2), another's may not.
    fn holds_another_home_address(&self, home_address: HomeAddress, net: Ipv6Net) -> bool {
        let inside = HomeAddress(net.network())..=HomeAddress(net.broadcast());
        self.home_addresses.range(inside).any(|other| *other != home_address)
    }
}

fn overlap(one: Ipv6Net, two: Ipv6Net) -> bool {
    one.contains(&two) || two.contains(&one)
}

/// Prefixes of different mobiles that overlap, by one pass over all of them in address order:
/// those that contain the present one are on the stack.
fn disputed(mobiles: &Mobiles) -> BTreeSet<MobileNetworkPrefix> {
    let mut all: Vec<(MobileNetworkPrefix, HomeAddress)> = mobiles
        .iter()
        .flat_map(|(owner, prefixes)| prefixes.iter().map(|&prefix| (prefix, *owner)))
        .collect();
    all.sort_by_key(|(prefix, owner)| (prefix.net().addr(), prefix.net().prefix_len(), *owner));
    let mut disputed = BTreeSet::new();
    let mut containing: Vec<(MobileNetworkPrefix, HomeAddress)> = Vec::new();
    for (prefix, owner) in all {
        containing.retain(|(outer, _)| outer.net().contains(&prefix.net()));
        for &(outer, other) in &containing {
            if other != owner {
                disputed.extend([outer, prefix]);
            }
        }
        containing.push((prefix, owner));
    }
    disputed
}
