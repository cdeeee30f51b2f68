//! The policy as it is used: a file that was read, checked and compiled.
//!
//! Everything is resolved here: groups are expanded, interfaces in rules are BIDs, key files have
//! their paths. What a [`Policy`] says is complete and free of contradictions, because
//! [`crate::parse`] gives none otherwise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::downlink::Unmatched;
use crate::effective::{Effective, Origin, RuleHead, RuleTable};
use crate::groups::Groups;
use crate::key::{FieldSet, FlowKey, Ingress};
use crate::link::{Cost, Quota, Sla, UsableWhen};
use crate::mobility::{
    CorrespondentPlan, Optimize, ReturningHome, RouteOptimizationPlan, StrangerAnswer,
};
use crate::radio::FactSource;
use crate::suite::TestCase;
use crate::terms::{
    Bid, HomeAddress, HomeAgentAddress, HomeName, InterfaceName, MobileNetworkPrefix, PrefixMode,
    Role, RuleId, RuleName, SecurityName,
};
use crate::verb::{Failback, Fallback, Sticky, Verb, When};

/// A policy file and what it includes, compiled.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    /// What the file calls itself, or the file's name.
    pub name: String,
    /// What this node does.
    pub role: Role,
    /// Tells two texts apart (64 bits, not cryptographic); includes count.
    pub text_digest: String,
    /// The access links in the order of the file.
    pub interfaces: Vec<Interface>,
    /// Who tells of the vehicle.
    pub vehicle: Option<FactSource>,
    /// The security associations that homes and allowed mobiles name.
    pub securities: Vec<Security>,
    /// The service levels that rules name.
    pub slas: Vec<Sla>,
    /// The home networks of a mobile; empty at a home agent.
    pub homes: Vec<Home>,
    /// The home networks that a home agent serves; empty on a mobile.
    pub served: Vec<ServedHome>,
    /// What it is to mobiles that talk to it; `None` for nothing.
    pub correspondent: Option<CorrespondentPlan>,
    /// How it answers them if it is nothing to them.
    pub strangers: StrangerAnswer,
    /// The ingress interfaces that rules name.
    pub ingresses: Ingresses,
    /// Groups and sets, for filters; rules have them expanded.
    #[serde(skip)]
    pub groups: Groups,
    /// The file's own tests, run by [`crate::run_tests`].
    pub tests: Vec<TestCase>,
    /// What is legal and deserves a look: printed at every start.
    pub warnings: Vec<Diagnostic>,
}

impl Policy {
    /// The access link of this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name.as_str() == name)
    }

    /// The access link that is registered under this BID.
    pub fn interface_of(&self, bid: Bid) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.bid == Some(bid))
    }

    /// The security association of this name.
    pub fn security(&self, name: &SecurityName) -> Option<&Security> {
        self.securities.iter().find(|security| security.name == *name)
    }

    /// The home network of this name.
    pub fn home(&self, name: &str) -> Option<&Home> {
        self.homes.iter().find(|home| home.name.as_str() == name)
    }

    /// The service level of this name.
    pub fn sla(&self, name: &str) -> Option<&Sla> {
        self.slas.iter().find(|sla| sla.name == name)
    }

    /// The fields that any rule looks at.
    pub fn fields(&self) -> FieldSet {
        let tables = self.homes.iter().map(|home| home.rules.table.fields());
        tables.fold(FieldSet::NONE, FieldSet::union)
    }

    /// The home network that packets with this source belong to.
    pub fn home_of(&self, source: std::net::IpAddr) -> Option<&Home> {
        self.homes.iter().find(|home| home.owns(source))
    }

    /// The home network whose rules judge packets with this key, and whose packets they are.
    pub fn judge_of(&self, key: &FlowKey) -> Option<(&Home, Origin)> {
        let own = self.home_of(key.source).map(|home| (home, Origin::Home));
        own.or_else(|| {
            let further = |home: &&Home| home.also.iter().any(|also| also.ingress == key.ingress);
            self.homes.iter().find(further).map(|home| (home, Origin::Also))
        })
    }
}

/// An access link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// As the kernel names it.
    pub name: InterfaceName,
    /// The BID its care-of address is registered under; `None` at a home agent.
    pub bid: Option<Bid>,
    /// BID-PRI (RFC 6089 §4.1), 1 to 127; the lower number is preferred.
    pub priority: u8,
    /// What kind of link it is, for people.
    pub class: Option<String>,
    /// Whether its octets cost money.
    pub metered: bool,
    /// What they cost.
    pub cost: Option<Cost>,
    /// How many there may be.
    pub quota: Option<Quota>,
    /// The rate of the link in bits a second, the smaller direction; what `overflow` measures
    /// load against.
    pub rate: Option<u64>,
    /// What makes it good enough.
    pub usable: UsableWhen,
    /// Who tells of its radio.
    pub radio: Option<FactSource>,
}

impl Interface {
    /// Orders links by what their octets cost, at home or roaming.
    pub fn price(&self, roams: bool) -> u64 {
        match &self.cost {
            Some(cost) if roams => {
                cost.roaming_micros_per_gigabyte.unwrap_or(cost.micros_per_gigabyte)
            }
            Some(cost) => cost.micros_per_gigabyte,
            // Metered at an unknown price: dearer than any that is known.
            None if self.metered => u64::MAX,
            None => 0,
        }
    }
}

/// How a security association authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC-SHA-256 truncated to 128 bits; an SPI of our own range.
    HmacSha256,
    /// HMAC-SHA1 truncated to 96 bits (RFC 4285 §5.1).
    HmacSha1,
}

/// A security association; the key itself is never in the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Security {
    /// Its name.
    pub name: SecurityName,
    /// The mobility SPI, at least 256 (RFC 4285 §5).
    pub spi: u32,
    /// How it authenticates.
    pub algorithm: Algorithm,
    /// Where the key is.
    pub key: KeySource,
}

/// Where the key of a security association is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// In this file, relative names resolved against the file that names it.
    File(PathBuf),
    /// In the credential of this name that the service manager hands to the daemon.
    Credential(String),
}

/// The one tunnel interface of a home network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// Its name.
    pub name: InterfaceName,
    /// A fixed MTU in octets; `None` lets the daemon choose one at start.
    pub mtu: Option<u16>,
}

/// A home network of a mobile node or router.
#[derive(Clone, Debug, Serialize)]
pub struct Home {
    /// Its name.
    pub name: HomeName,
    /// The interface that home-bound packets enter.
    pub tunnel: Tunnel,
    /// Where the mobile registers; the unspecified address where it has to find that out
    /// (`agent discover`).
    pub agent: HomeAgentAddress,
    /// The address the mobile keeps.
    pub address: HomeAddress,
    /// Length of the home link's prefix.
    pub prefix_len: u8,
    /// The networks that move with a mobile router.
    pub mobile_networks: Vec<MobileNetwork>,
    /// Further sources that the rules judge and that are never tunnelled.
    pub also: Vec<Also>,
    /// How the prefixes are named to the agent.
    pub prefix_mode: PrefixMode,
    /// How the mobile registers.
    pub register: Register,
    /// How signaling is protected; `None` for `security none`.
    pub security: Option<SecurityName>,
    /// How the links are probed.
    pub probe: Probe,
    /// Whether and when its packets go straight to correspondents.
    pub route_optimization: Option<RouteOptimizationPlan>,
    /// What it uses while one of its links is on the home link.
    pub returning_home: ReturningHome,
    /// Messages beyond RFC 6275.
    pub extensions: Extensions,
    /// What happens to packets.
    pub rules: RuleSet,
}

impl Home {
    /// Whether a packet with this source belongs to the home network's mobile.
    pub fn owns(&self, source: std::net::IpAddr) -> bool {
        match source {
            std::net::IpAddr::V6(source) => {
                self.address.0 == source
                    || self.mobile_networks.iter().any(|network| network.prefix.contains(source))
            }
            std::net::IpAddr::V4(_) => false,
        }
    }

    /// Whether packets with this key, if this rule decides, may go straight to a correspondent
    /// that holds the binding they go by. Only those of the home address itself ever do: the
    /// agent answers for mobile networks (RFC 3963 §2).
    pub fn optimize(&self, key: &FlowKey, rules: &Effective, rule: Option<RuleId>) -> Optimize {
        let from_home = key.source == std::net::IpAddr::V6(self.address.0);
        let to_another = match key.destination {
            std::net::IpAddr::V6(destination) => {
                destination != self.agent.0
                    && !self.owns(key.destination)
                    && !destination.is_multicast()
                    && !destination.is_unicast_link_local()
            }
            std::net::IpAddr::V4(_) => false,
        };
        if from_home && to_another { rules.optimize(rule) } else { Optimize::Never }
    }
}

/// `also from=…`: an interface whose packets the rules judge though their sources are not of the
/// home network. They leave by `breakout` or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Also {
    /// The interface.
    pub from: InterfaceName,
    /// Its number in [`Policy::ingresses`].
    pub ingress: Ingress,
}

/// How the links of a home network are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// How often while a link stands by.
    pub every: Duration,
    /// How often while it carries traffic.
    pub active_every: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), active_every: Duration::from_millis(200) }
    }
}

/// A network that moves with a mobile router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MobileNetwork {
    /// Its prefix.
    pub prefix: MobileNetworkPrefix,
    /// The interface it lives on.
    pub on: Option<InterfaceName>,
}

/// How a mobile registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Register {
    /// The lifetime asked for: a multiple of 4 s, at most 262,140 s (RFC 6275 §6.1.7).
    pub lifetime: Duration,
    /// Whether several care-of addresses are registered (RFC 5648).
    pub multiple_coa: bool,
    /// Whether they are registered in one Binding Update (RFC 5648 §5.3).
    pub bulk: bool,
    /// Whether the rules are told to the agent (RFC 6089).
    pub flow_bindings: bool,
    /// Whether the agent is asked to let the way down of a flow follow its way up.
    pub reflect: bool,
    /// How many flow bindings that may take, at most 512.
    pub flow_budget: u16,
}

impl Default for Register {
    fn default() -> Self {
        let lifetime = Duration::from_secs(420);
        Self {
            lifetime,
            multiple_coa: true,
            bulk: true,
            flow_bindings: true,
            reflect: true,
            flow_budget: crate::downlink::USUAL_FLOWS,
        }
    }
}

/// A home network that a home agent serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServedHome {
    /// Its name.
    pub name: HomeName,
    /// The interface that packets for mobiles enter.
    pub tunnel: Tunnel,
    /// The address mobiles register at.
    pub agent: HomeAgentAddress,
    /// The home link's prefix.
    pub prefix: Ipv6Net,
    /// The home link; `None` for a virtual one.
    pub on: Option<InterfaceName>,
    /// Which of several home agents mobiles are told to try first, the highest first.
    pub preference: Option<u16>,
    /// Whether the agent is that link's only router.
    pub only_router: bool,
    /// The longest lifetime granted.
    pub max_lifetime: Duration,
    /// Whether several care-of addresses are accepted (RFC 5648).
    pub multiple_coa: bool,
    /// Whether bulk registration is accepted; otherwise status 168 answers it.
    pub bulk: bool,
    /// Whether mobiles may tell their rules (RFC 6089).
    pub flow_bindings: bool,
    /// Whether the way down of a flow may follow its way up, if its mobile asks.
    pub reflect: bool,
    /// What becomes of packets of which their mobile told nothing.
    pub unmatched: Unmatched,
    /// Who may register.
    pub mobiles: Vec<AllowedMobile>,
    /// Messages beyond RFC 6275.
    pub extensions: Extensions,
}

/// `extensions …`: messages that a registration can do without, all off if nobody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Extensions {
    /// Whether peers are asked if they are there, and answer (RFC 5847).
    pub heartbeat: bool,
    /// How often they are asked (HEARTBEAT_INTERVAL, RFC 5847 §5).
    pub heartbeat_every: Duration,
    /// How many questions in a row may stay without an answer (MISSING_HEARTBEATS_ALLOWED, RFC 5847
    /// §5); one more, and the peer is not there.
    pub heartbeats_missing: u8,
    /// Whether mobiles are sent to other agents, or go (RFC 5142).
    pub agent_switch: bool,
    /// Whether mobiles are told that their bindings ended, or believe that (RFC 5846).
    pub revocation: bool,
    /// Whether mobiles that are away are told the prefixes of their home link, or ask for them
    /// (RFC 6275 §10.6, §11.4.2). Those messages are ICMPv6, which has no authentication option.
    pub prefix_discovery: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        Self {
            heartbeat: false,
            heartbeat_every: Duration::from_secs(60),
            heartbeats_missing: 3,
            agent_switch: false,
            revocation: false,
            prefix_discovery: false,
        }
    }
}

/// A mobile that may register, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllowedMobile {
    /// Its home address.
    pub address: HomeAddress,
    /// What people call it.
    pub name: Option<String>,
    /// The mobile network prefixes it may register; none for a mobile node.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// How its signaling is protected; `None` for `security none`.
    pub security: Option<SecurityName>,
    /// How many bindings it may hold at once.
    pub max_bindings: u16,
    /// How many flow bindings it may hold, at most 512.
    pub max_flows: u16,
    /// How many care-of addresses one of those may have.
    pub max_copies: u8,
    /// Whether it may not register for the time being (status 129).
    pub refused: bool,
    /// Bindings that it may not register for the time being, by number and in order.
    pub refused_bids: Vec<Bid>,
}

/// The ingress interfaces that rules name, by number.
///
/// `local` is [`Ingress::LOCAL`] and `other` is [`Ingress::OTHER`] in every table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ingresses(Vec<InterfaceName>);

impl Ingresses {
    /// How many interfaces a policy may name: a tunnel interface has 256 queues, of which the first
    /// few kinds of ingress have several.
    pub const MOST: usize = 224;

    /// The number of `name`, which is added if the table lacks it; `None` if the table is full.
    pub(crate) fn add(&mut self, name: &str) -> Option<Ingress> {
        self.number(name).or_else(|| {
            let place =
                u8::try_from(self.0.len()).ok().filter(|place| usize::from(*place) < Self::MOST)?;
            self.0.push(InterfaceName::new(name));
            Some(Ingress(place + Ingress::FIRST_NAMED))
        })
    }

    /// The interface behind a number.
    pub fn name(&self, ingress: Ingress) -> &str {
        match ingress {
            Ingress::LOCAL => "local",
            Ingress(number) => number
                .checked_sub(Ingress::FIRST_NAMED)
                .and_then(|place| self.0.get(usize::from(place)))
                .map_or("other", InterfaceName::as_str),
        }
    }

    /// The number of an interface; `None` if no rule names it.
    pub fn number(&self, name: &str) -> Option<Ingress> {
        match name {
            "local" => Some(Ingress::LOCAL),
            "other" => Some(Ingress::OTHER),
            _ => {
                let place = self.0.iter().position(|known| known.as_str() == name)?;
                let place = u8::try_from(place).expect("the table has at most 224 names");
                Some(Ingress(place + Ingress::FIRST_NAMED))
            }
        }
    }

    /// The named interfaces and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Ingress, &InterfaceName)> + Clone {
        (Ingress::FIRST_NAMED..).map(Ingress).zip(&self.0)
    }
}

/// The rules of one home network in the order of the file; the last is `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Their heads, ready to be searched.
    #[serde(skip)]
    pub table: Arc<RuleTable>,
}

impl RuleSet {
    /// A rule set of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        let heads = rules.iter().map(|rule| rule.head.clone()).collect();
        Self { rules, table: Arc::new(RuleTable::new(heads)) }
    }

    /// The rule at this place.
    pub fn get(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::from(id.0))
    }
}

/// One flow rule, groups expanded and interfaces resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Of which packets it speaks.
    pub head: Arc<RuleHead>,
    /// Where it stands.
    pub file: String,
    /// Where it stands, from 1.
    pub line: usize,
    /// When it speaks: alternatives; empty for always.
    pub when: Vec<When>,
    /// What happens.
    pub verb: Verb,
    /// What happens when that is not possible.
    pub otherwise: Fallback,
    /// What keeps to a link.
    pub sticky: Sticky,
    /// The word of `together`; rules with the same word have the same number.
    pub together: Option<(u16, String)>,
    /// When flows go back to a better link.
    pub failback: Failback,
}

impl Rule {
    /// Its place.
    pub fn id(&self) -> RuleId {
        self.head.id
    }

    /// Its name.
    pub fn name(&self) -> &RuleName {
        &self.head.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_of_ingresses_takes_no_further_name() {
        let mut table = Ingresses::default();
        for number in 0..Ingresses::MOST {
            let ingress = table.add(&format!("eth{number}")).unwrap();
            assert_eq!(usize::from(ingress.0), number + usize::from(Ingress::FIRST_NAMED));
        }
        assert_eq!(table.add("wlan0"), None);
        assert_eq!(table.add("eth0"), Some(Ingress(Ingress::FIRST_NAMED)), "it has a place");
        assert_eq!(table.iter().count(), Ingresses::MOST);
    }
}
