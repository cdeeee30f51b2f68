//! Which mobile network prefixes an agent forwards to whom (RFC 3963 §6.1.2, §6.2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;

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

/// A prefix, by its address and length, and who claims it.
type Claim = (Ipv6Addr, u8, HomeAddress);

/// The Prefix Table: home address to prefixes, and what may never be forwarded.
#[derive(Debug)]
pub(super) struct PrefixTable {
    agent: HomeAgentAddress,
    home_network: Ipv6Net,
    home_addresses: BTreeSet<HomeAddress>,
    /// What is granted to each mobile, in order, and whether it may have it: one that overlaps
    /// with another mobile's nobody gets, rather than the one who asks first or has the longer one.
    granted: HashMap<HomeAddress, Vec<Granted>>,
    /// All that is granted, in the order of addresses.
    claims: BTreeSet<Claim>,
    /// How many claims have each length.
    lengths: BTreeMap<u8, usize>,
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
        let granted = HashMap::with_capacity(mobiles.len());
        let (claims, lengths) = (BTreeSet::new(), BTreeMap::new());
        let mut table = Self { agent, home_network, home_addresses, granted, claims, lengths };
        let mut claims = Vec::with_capacity(mobiles.len());
        for (address, mut prefixes) in mobiles {
            if prefixes.is_empty() {
                continue;
            }
            prefixes.sort();
            prefixes.dedup();
            let verdict = |prefix| table.verdict(address, prefix, || disputed.contains(&prefix));
            let granted: Vec<_> =
                prefixes.into_iter().map(|prefix| (prefix, verdict(prefix))).collect();
            claims.extend(granted.iter().map(|(prefix, _)| claim(*prefix, address)));
            table.granted.insert(address, granted);
        }
        for (_, length, _) in &claims {
            *table.lengths.entry(*length).or_default() += 1;
        }
        table.claims = claims.into_iter().collect();
        table
    }

    /// Whether a mobile may have a prefix that it claims.
    fn verdict(
        &self,
        address: HomeAddress,
        prefix: MobileNetworkPrefix,
        is_disputed: impl FnOnce() -> bool,
    ) -> Result<(), Status> {
        if self.is_impossible(address, prefix) {
            return Err(Status::INVALID_PREFIX);
        }
        // req NH-09, NH-22 (RFC 3963 §6.2): never two owners.
        if is_disputed() { Err(Status::NOT_AUTHORIZED_FOR_PREFIX) } else { Ok(()) }
    }

    /// Grants a mobile these prefixes instead of those before; `None` for a mobile that is served
    /// no more. Who claims what it claims or claimed, or its home address, is judged again, and
    /// nobody else.
    pub(super) fn grant(
        &mut self,
        home_address: HomeAddress,
        prefixes: Option<Vec<MobileNetworkPrefix>>,
    ) {
        let before = self.granted.remove(&home_address).unwrap_or_default();
        let mut concerned = vec![Ipv6Net::from(home_address.0)];
        for (prefix, _) in before {
            self.claims.remove(&claim(prefix, home_address));
            let length = prefix.net().prefix_len();
            self.lengths.entry(length).and_modify(|number| *number -= 1);
            concerned.push(prefix.net());
        }
        match prefixes {
            Some(_) => self.home_addresses.insert(home_address),
            None => self.home_addresses.remove(&home_address),
        };
        let mut prefixes = prefixes.unwrap_or_default();
        prefixes.sort();
        prefixes.dedup();
        for prefix in &prefixes {
            self.claims.insert(claim(*prefix, home_address));
            *self.lengths.entry(prefix.net().prefix_len()).or_default() += 1;
            concerned.push(prefix.net());
        }
        self.lengths.retain(|_, number| *number > 0);
        if !prefixes.is_empty() {
            let blank = prefixes.into_iter().map(|prefix| (prefix, Ok(())));
            self.granted.insert(home_address, blank.collect());
        }
        let concerned: BTreeSet<HomeAddress> =
            concerned.into_iter().flat_map(|net| self.overlapping(net)).collect();
        for owner in concerned {
            let Some(mut granted) = self.granted.remove(&owner) else { continue };
            for (prefix, verdict) in &mut granted {
                let disputed = || self.overlapping(prefix.net()).any(|other| other != owner);
                *verdict = self.verdict(owner, *prefix, disputed);
            }
            self.granted.insert(owner, granted);
        }
    }

    /// Who claims prefixes that overlap with this network.
    fn overlapping(&self, net: Ipv6Net) -> impl Iterator<Item = HomeAddress> {
        const LAST: HomeAddress = HomeAddress(Ipv6Addr::from_bits(u128::MAX));
        let length = net.prefix_len();
        let around = self.lengths.range(..length).flat_map(move |(length, _)| {
            let around = Ipv6Net::new(net.addr(), *length).expect("shorter than another").trunc();
            let (address, length) = (around.addr(), around.prefix_len());
            self.claims.range((address, length, NOBODY)..=(address, length, LAST))
        });
        let inside = (net.network(), length, NOBODY)..=(net.broadcast(), 128, LAST);
        around.chain(self.claims.range(inside)).map(|(_, _, owner)| *owner)
    }

    /// Whether this is the home address of a mobile that is served.
    pub(super) fn is_home_address(&self, address: HomeAddress) -> bool {
        // Care-of addresses mostly lie outside of all of them.
        let all = &self.home_addresses;
        let ends = all.first().zip(all.last());
        ends.is_some_and(|(first, last)| (first..=last).contains(&&address))
            && all.contains(&address)
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

const NOBODY: HomeAddress = HomeAddress(Ipv6Addr::UNSPECIFIED);

fn claim(prefix: MobileNetworkPrefix, owner: HomeAddress) -> Claim {
    (prefix.net().addr(), prefix.net().prefix_len(), owner)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mobiles_that_come_and_go_leave_what_a_fresh_table_has() {
        // NH-09, NH-22.
        let agent = HomeAgentAddress("2001:db8:100::1".parse().unwrap());
        let network: Ipv6Net = "2001:db8:100::/48".parse().unwrap();
        let mut mobiles: BTreeMap<HomeAddress, Vec<MobileNetworkPrefix>> = BTreeMap::new();
        let mut table = PrefixTable::of(agent, network, Vec::new());
        let mut state = 7_u64;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut refused = BTreeSet::new();
        for step in 0..3_000 {
            // Home addresses inside of prefixes, and prefixes inside of each other.
            let host = u128::from(next(6)) << 64 | u128::from(next(4) + 2);
            let home_address = HomeAddress((0x2001_0db8_0100_u128 << 80 | host).into());
            let mut prefix = || {
                let length = [44, 52, 60, 62, 63, 64, 126, 128][next(8) as usize];
                let bits =
                    0x2001_0db8_0100_u128 << 80 | u128::from(next(8)) << 64 | u128::from(next(6));
                let net = Ipv6Net::new(bits.into(), length).unwrap().trunc();
                MobileNetworkPrefix::new(net).unwrap()
            };
            let prefixes: Vec<_> = (0..step % 3).map(|_| prefix()).collect();
            let grant = (step % 4 != 3).then_some(prefixes);
            match grant.clone() {
                Some(prefixes) => drop(mobiles.insert(home_address, prefixes)),
                None => drop(mobiles.remove(&home_address)),
            }
            table.grant(home_address, grant);
            let fresh = PrefixTable::of(agent, network, mobiles.clone().into_iter().collect());
            assert_eq!(table.granted, fresh.granted, "after {step} steps");
            assert_eq!(table.claims, fresh.claims);
            assert_eq!(table.lengths, fresh.lengths);
            assert_eq!(table.home_addresses, fresh.home_addresses);
            refused.extend(fresh.granted.values().flatten().filter_map(|(_, it)| it.err()));
            assert!(mobiles.keys().all(|it| table.is_home_address(*it)));
            let known = mobiles.contains_key(&home_address);
            assert_eq!(table.is_home_address(home_address), known);
        }
        assert_eq!(refused.len(), 2, "both reasons: {refused:?}");
    }
}
