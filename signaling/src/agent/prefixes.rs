//! Which mobile network prefixes an agent forwards to whom (RFC 3963 §6.1.2, §6.2).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;
use mtun_policy::{HomeAddress, HomeAgentAddress, MobileNetworkPrefix};

use super::AgentConfig;
use crate::binding::is_routable;
use crate::wire::Status;
use crate::wire::option::MobileNetworkPrefixOption;

/// The Prefix Table: home address to prefixes, and what may never be forwarded.
#[derive(Debug)]
pub(super) struct PrefixTable {
    agent: HomeAgentAddress,
    home_network: Ipv6Net,
    granted: BTreeMap<HomeAddress, Vec<MobileNetworkPrefix>>,
    /// Prefixes that overlap with another mobile's: nobody gets them, rather than the one who
    /// asks first or has the longer one.
    disputed: BTreeSet<MobileNetworkPrefix>,
}

impl PrefixTable {
    pub(super) fn new(config: &AgentConfig) -> Self {
        let granted: BTreeMap<_, _> =
            config.mobiles.iter().map(|mobile| (mobile.address, mobile.prefixes.clone())).collect();
        let disputed = disputed(&granted);
        Self { agent: config.address, home_network: config.prefix, granted, disputed }
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
        // req NH-10 (RFC 3963 §6.2): no prefix known, no forwarding to set up.
        let mut prefixes = self.granted.get(&home_address).cloned().unwrap_or_default();
        if prefixes.is_empty()
            || prefixes.iter().any(|prefix| self.check(home_address, *prefix).is_err())
        {
            return Err(Status::FORWARDING_SETUP_FAILED);
        }
        prefixes.sort();
        prefixes.dedup();
        Ok(prefixes)
    }

    /// Whether the mobile may keep a prefix that was registered under an earlier policy.
    pub(super) fn is_granted_to(
        &self,
        prefix: MobileNetworkPrefix,
        home_address: HomeAddress,
    ) -> bool {
        self.check(home_address, prefix).is_ok()
    }

    fn check(&self, home_address: HomeAddress, prefix: MobileNetworkPrefix) -> Result<(), Status> {
        let net = prefix.net();
        // req NH-08, NH-23 (RFC 3963 §6.2): what no mobile network can be.
        let impossible = net.prefix_len() == 0
            || !is_routable(net.addr())
            || prefix.contains(self.agent.0)
            || net.contains(&self.home_network)
            || self.holds_another_home_address(home_address, net);
        if impossible {
            return Err(Status::INVALID_PREFIX);
        }
        let granted = self.granted.get(&home_address).map_or(&[][..], Vec::as_slice);
        if granted.contains(&prefix) {
            // req NH-22 (RFC 3963 §6.2): never two owners.
            return if self.disputed.contains(&prefix) {
                // req NH-09 (RFC 3963 §6.2).
                Err(Status::NOT_AUTHORIZED_FOR_PREFIX)
            } else {
                Ok(())
            };
        }
        // Its own network under another length is a mistake of the sender's configuration.
        let own = granted.iter().any(|own| overlap(own.net(), net));
        Err(if own { Status::INVALID_PREFIX } else { Status::NOT_AUTHORIZED_FOR_PREFIX })
    }

    /// A mobile's own home address may lie in its prefix (RFC 3963 §6.2), another's may not.
    fn holds_another_home_address(&self, home_address: HomeAddress, net: Ipv6Net) -> bool {
        let inside = HomeAddress(net.network())..=HomeAddress(net.broadcast());
        self.granted.range(inside).any(|(&other, _)| other != home_address)
    }
}

fn overlap(one: Ipv6Net, two: Ipv6Net) -> bool {
    one.contains(&two) || two.contains(&one)
}

/// Prefixes of different mobiles that overlap, by one pass over all of them in address order:
/// those that contain the present one are on the stack.
fn disputed(
    granted: &BTreeMap<HomeAddress, Vec<MobileNetworkPrefix>>,
) -> BTreeSet<MobileNetworkPrefix> {
    let mut all: Vec<(MobileNetworkPrefix, HomeAddress)> = granted
        .iter()
        .flat_map(|(&owner, prefixes)| prefixes.iter().map(move |&prefix| (prefix, owner)))
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
