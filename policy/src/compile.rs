//! From a [`Document`] to a [`Policy`]: names are followed, groups expanded, links become BIDs.

mod breakout;
mod mobility;
mod names;
mod rules;
mod suite;
mod verbs;

use std::collections::{HashMap, HashSet};

use crate::diagnostic::Code;
use crate::document::*;
use crate::downlink::USUAL_FLOWS;
use crate::groups::Groups;
use crate::policy::*;
use crate::source::{Sink, Sources, Spanned};
use crate::terms::*;

pub(crate) use suite::usual_ingress;

/// BID-PRI of a link that does not say one.
const PRIORITY: u8 = 64;

/// Bindings that a mobile may hold if its `allow` does not say.
pub(crate) const BINDINGS: u16 = 16;
/// Care-of addresses of one flow binding of a mobile of which nothing else is said.
const COPIES: u8 = 4;

/// The policy that a document describes; complete only if the sink has no error afterwards.
pub(crate) fn compile(document: &Document, sources: &Sources, sink: &mut Sink) -> Policy {
    let role = document.role.as_ref().map_or(Role::MobileNode, |role| role.value);
    let is_mobile = matches!(role, Role::MobileNode | Role::MobileRouter);
    let interfaces = interfaces(document, is_mobile);
    let links = interfaces.iter().filter_map(|link| Some((link.name.as_str(), (link.bid?, link))));
    let mut compiler = Compiler {
        document,
        sources,
        links: links.collect(),
        groups: document.groups.iter().map(|group| (group.name.value.as_str(), group)).collect(),
        sets: document.sets.iter().map(|set| (set.name.value.as_str(), set)).collect(),
        securities: document.securities.iter().map(|it| it.name.value.as_str()).collect(),
        ingresses: Ingresses::default(),
        values: 0,
        is_full: false,
        sink,
    };
    compiler.rule_sets_are_placed();
    let homes = if is_mobile {
        document.homes.iter().filter_map(|home| compiler.home(home)).collect()
    } else {
        Vec::new()
    };
    let served = if role == Role::HomeAgent {
        document.homes.iter().filter_map(|home| compiler.served(home)).collect()
    } else {
        Vec::new()
    };
    let tests = document.tests.iter().filter_map(|test| compiler.test(test, &homes)).collect();
    let ingresses = compiler.ingresses;
    let groups = Groups::of(document, &interfaces);
    let file_name = || {
        let name = sources.name(0);
        name.rsplit('/').next().unwrap_or(name).trim_end_matches(".kdl").to_owned()
    };
    Policy {
        name: document.name.as_ref().map_or_else(file_name, |name| name.value.clone()),
        role,
        text_digest: sources.digest(),
        interfaces,
        vehicle: document.vehicle.as_ref().map(|vehicle| vehicle.value.clone()),
        securities: document.securities.iter().filter_map(security).collect(),
        slas: document.slas.iter().map(|node| node.sla.clone()).collect(),
        homes,
        served,
        correspondent: mobility::correspondent(document),
        strangers: mobility::strangers(document.correspondent.as_ref()),
        ingresses,
        groups,
        tests,
        warnings: Vec::new(),
    }
}

/// Links with their BIDs; those that name none get the lowest free numbers in order.
fn interfaces(document: &Document, is_mobile: bool) -> Vec<Interface> {
    let taken: HashSet<u16> =
        document.interfaces.iter().filter_map(|link| Some(link.bid.as_ref()?.value)).collect();
    let mut free = (1..=u16::MAX).filter(|number| !taken.contains(number));
    let links = document.interfaces.iter().map(|link| {
        let number = match &link.bid {
            Some(bid) => Some(bid.value),
            None if is_mobile => free.next(),
            None => None,
        };
        Interface {
            name: InterfaceName::new(link.name.value.as_str()),
            bid: number.filter(|_| is_mobile).and_then(Bid::new),
            priority: link.priority.as_ref().map_or(PRIORITY, |priority| priority.value),
            class: link.class.clone(),
            metered: link.metered,
            cost: link.cost.as_ref().map(|cost| cost.value.clone()),
            quota: link.quota.as_ref().map(|quota| quota.value),
            rate: link.rate.as_ref().map(|rate| rate.value),
            usable: link.usable,
            radio: link.radio.as_ref().map(|radio| radio.value.clone()),
        }
    });
    links.collect()
}

fn security(node: &SecurityNode) -> Option<Security> {
    let option = node.auth_option.as_ref()?;
    Some(Security {
        name: SecurityName::new(node.name.value.as_str()),
        spi: option.spi.as_ref()?.value,
        algorithm: option.algorithm.as_ref()?.value,
        key: option.key.as_ref()?.value.clone(),
    })
}

struct Compiler<'c> {
    document: &'c Document,
    sources: &'c Sources,
    /// The access links of a mobile by name.
    links: HashMap<&'c str, (Bid, &'c Interface)>,
    groups: HashMap<&'c str, &'c GroupNode>,
    sets: HashMap<&'c str, &'c SetNode>,
    securities: HashSet<&'c str>,
    ingresses: Ingresses,
    /// Values in all selectors so far.
    values: usize,
    /// Whether it was said that they are too many.
    is_full: bool,
    sink: &'c mut Sink,
}

impl<'c> Compiler<'c> {
    /// Every rule set names a home that exists, and no home has two.
    fn rule_sets_are_placed(&mut self) {
        let document = self.document;
        let mut seen = HashSet::new();
        for rules in &document.rule_sets {
            let home = match &rules.home {
                Some(home) => {
                    if !document.homes.iter().any(|known| known.name.value == home.value) {
                        self.unknown(
                            home.span,
                            "home",
                            &home.value,
                            document.homes.iter().map(|home| home.name.value.as_str()),
                        );
                        continue;
                    }
                    home.value.as_str()
                }
                None => match document.homes.as_slice() {
                    [only] => only.name.value.as_str(),
                    [] => continue,
                    _ => {
                        self.sink.error(
                            rules.span,
                            Code::Missing,
                            "these rules do not say for which home they are",
                            "add home=… behind `rules`",
                        );
                        continue;
                    }
                },
            };
            if !seen.insert(home) {
                self.sink.error(
                    rules.span,
                    Code::Duplicate,
                    format!("home `{home}` has rules already"),
                    "put all rules of a home into one `rules`, in order",
                );
            }
        }
    }

    fn rules_of(&self, home: &str) -> Option<&'c RuleSetNode> {
        let document = self.document;
        document.rule_sets.iter().find(|rules| match &rules.home {
            Some(named) => named.value == home,
            None => document.homes.len() == 1,
        })
    }

    fn security_name(&mut self, choice: &SecurityChoice) -> Option<SecurityName> {
        let name = choice.value.as_ref()?;
        let document = self.document;
        if !self.securities.contains(name.as_str()) {
            self.unknown(
                choice.span,
                "security association",
                name,
                document.securities.iter().map(|known| known.name.value.as_str()),
            );
        }
        Some(SecurityName::new(name.as_str()))
    }

    fn home(&mut self, node: &HomeNode) -> Option<Home> {
        // Names are followed even if something else is missing, so that all faults come at once.
        let security = node.security.as_ref().and_then(|choice| self.security_name(choice));
        let rules = self.rules_of(&node.name.value);
        let compiled = rules.map_or_else(RuleSet::default, |rules| self.rule_set(rules));
        let also: Vec<Also> = node.also.iter().filter_map(|from| self.also(from)).collect();
        self.breakouts(node, &also, rules, &compiled);
        let (tunnel, mtu) = node.tunnel.as_ref()?;
        let (address, prefix_len) = node.address.as_ref()?.value;
        let register = node.register.as_ref();
        let usual = Register::default();
        let multiple_coa =
            register.and_then(|register| register.multiple_coa).unwrap_or(usual.multiple_coa);
        Some(Home {
            name: HomeName::new(node.name.value.as_str()),
            tunnel: Tunnel { name: InterfaceName::new(tunnel.value.as_str()), mtu: *mtu },
            agent: HomeAgentAddress(node.agent.as_ref()?.value),
            address: HomeAddress(address),
            prefix_len,
            mobile_networks: node.mobile_networks.iter().filter_map(mobile_network).collect(),
            prefix_mode: register
                .and_then(|register| Some(register.mode.as_ref()?.value))
                .unwrap_or(PrefixMode::Explicit),
            register: Register {
                lifetime: register
                    .and_then(|register| Some(register.lifetime.as_ref()?.value))
                    .unwrap_or(usual.lifetime),
                multiple_coa,
                bulk: register.and_then(|register| register.bulk).unwrap_or(usual.bulk)
                    && multiple_coa,
                flow_bindings: register
                    .and_then(|register| register.flow_bindings)
                    .unwrap_or(usual.flow_bindings),
                reflect: register.and_then(|register| register.reflect).unwrap_or(usual.reflect),
                flow_budget: self
                    .document
                    .flow_budget
                    .as_ref()
                    .map_or(usual.flow_budget, |budget| budget.value),
            },
            security,
            also,
            route_optimization: mobility::route_optimization(node),
            extensions: node.extensions,
            returning_home: node
                .returning_home
                .as_ref()
                .map_or_else(Default::default, |it| it.value),
            probe: node.probe.as_ref().map_or_else(Probe::default, |probe| probe.value),
            rules: compiled,
        })
    }

    fn also(&mut self, from: &Spanned<String>) -> Option<Also> {
        let ingress = self.ingress(&from.value, from.span)?;
        Some(Also { from: InterfaceName::new(from.value.as_str()), ingress })
    }

    fn served(&mut self, node: &HomeNode) -> Option<ServedHome> {
        let mobile = |allow| self.mobile(allow, &node.refused);
        let mobiles = node.allowed.iter().filter_map(mobile).collect();
        let serve = node.serve.as_ref()?;
        let (tunnel, mtu) = node.tunnel.as_ref()?;
        let multiple_coa = serve.multiple_coa.unwrap_or(true);
        Some(ServedHome {
            name: HomeName::new(node.name.value.as_str()),
            tunnel: Tunnel { name: InterfaceName::new(tunnel.value.as_str()), mtu: *mtu },
            agent: HomeAgentAddress(serve.agent.as_ref()?.value),
            prefix: serve.prefix.as_ref()?.value,
            on: serve.on.as_ref().map(|on| InterfaceName::new(on.value.as_str())),
            preference: serve.preference,
            only_router: serve.only_router.as_ref().is_some_and(|truth| truth.value),
            max_lifetime: serve
                .lifetime
                .as_ref()
                .map_or(crate::value::LONGEST_LIFETIME, |lifetime| lifetime.value),
            multiple_coa,
            bulk: serve.bulk.unwrap_or(true) && multiple_coa,
            flow_bindings: serve.flow_bindings.unwrap_or(true) && multiple_coa,
            reflect: serve.reflect.unwrap_or(true),
            unmatched: serve.unmatched.unwrap_or_default(),
            mobiles,
            extensions: node.extensions,
        })
    }

    fn mobile(&mut self, allow: &AllowNode, refused: &[RefuseNode]) -> Option<AllowedMobile> {
        let security = allow.security.as_ref().and_then(|choice| self.security_name(choice));
        let address = allow.address.as_ref()?.value;
        let ours = |it: &&RefuseNode| it.address.as_ref().is_some_and(|at| at.value == address);
        let refused = || refused.iter().filter(ours);
        let bids = refused().filter_map(|it| Bid::new(it.bid.as_ref()?.value));
        let mut refused_bids: Vec<Bid> = bids.collect();
        refused_bids.sort();
        refused_bids.dedup();
        Some(AllowedMobile {
            address: HomeAddress(address),
            name: allow.name.as_ref().map(|name| name.value.clone()),
            prefixes: allow
                .mobile_networks
                .iter()
                .filter_map(|net| MobileNetworkPrefix::new(net.value))
                .collect(),
            security,
            max_bindings: allow.bindings.as_ref().map_or(BINDINGS, |bindings| bindings.value),
            max_flows: allow.flows.as_ref().map_or(USUAL_FLOWS, |flows| flows.value),
            max_copies: allow.copies.as_ref().map_or(COPIES, |copies| copies.value),
            refused: refused().any(|it| it.bid.is_none()),
            refused_bids,
        })
    }
}

fn mobile_network(
    (prefix, on): &(Spanned<ipnet::Ipv6Net>, Option<Spanned<String>>),
) -> Option<MobileNetwork> {
    Some(MobileNetwork {
        prefix: MobileNetworkPrefix::new(prefix.value)?,
        on: on.as_ref().map(|on| InterfaceName::new(on.value.as_str())),
    })
}
