//! From a [`Document`] to a [`Policy`]: names are followed, groups expanded, links become BIDs.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::diagnostic::{Code, Severity};
use crate::document::*;
use crate::effective::RuleHead;
use crate::key::FlowKey;
use crate::link::UsableWhen;
use crate::policy::*;
use crate::selector::TrafficSelector;
use crate::source::{Sink, Sources, Span, Spanned, diagnose};
use crate::steering::PathFacts;
use crate::suite::{End, Expectation, Place, TestCase};
use crate::terms::*;
use crate::verb::{Failback, Fallback, Sticky, Verb};
use crate::words::advice;

/// Most values that all selectors of a policy may hold together, groups expanded.
const MOST_VALUES: usize = 1 << 20;

/// BID-PRI of a link that does not say one.
const PRIORITY: u8 = 64;

/// Bindings that a mobile may hold if its `allow` does not say.
const BINDINGS: u16 = 16;

/// The policy that a document describes; complete only if the sink has no error afterwards.
pub(crate) fn compile(document: &Document, sources: &Sources, sink: &mut Sink) -> Policy {
    let role = document.role.as_ref().map_or(Role::MobileNode, |role| role.value);
    let is_mobile = matches!(role, Role::MobileNode | Role::MobileRouter);
    let interfaces = interfaces(document, is_mobile);
    let bids =
        interfaces.iter().filter_map(|link| Some((link.name.as_str().to_owned(), link.bid?)));
    let mut compiler = Compiler {
        document,
        sources,
        bids: bids.collect(),
        groups: document.groups.iter().map(|group| (group.name.value.as_str(), group)).collect(),
        ingresses: Ingresses::default(),
        values: 0,
        sink,
    };
    compiler.rule_sets_are_placed();
    let homes = if is_mobile {
        document.homes.iter().filter_map(|home| compiler.home(home)).collect()
    } else {
        Vec::new()
    };
    let served = if is_mobile {
        Vec::new()
    } else {
        document.homes.iter().filter_map(|home| compiler.served(home)).collect()
    };
    let tests = document.tests.iter().filter_map(|test| compiler.test(test, &homes)).collect();
    let ingresses = compiler.ingresses;
    let file_name = || {
        let name = sources.name(0);
        name.rsplit('/').next().unwrap_or(name).trim_end_matches(".kdl").to_owned()
    };
    Policy {
        name: document.name.as_ref().map_or_else(file_name, |name| name.value.clone()),
        role,
        text_digest: sources.digest(),
        interfaces,
        securities: document.securities.iter().filter_map(security).collect(),
        slas: Vec::new(),
        homes,
        served,
        ingresses,
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
            cost: None,
            quota: None,
            rate: None,
            usable: UsableWhen::default(),
        }
    });
    links.collect()
}

/// What tells rules apart across policies: everything they mean, and neither place nor line.
fn identity(rule: &Rule) -> u64 {
    let mut hash = DefaultHasher::new();
    let Rule { head, file: _, line: _, when, verb, otherwise, sticky, together, failback } = rule;
    let together = together.as_ref().map(|(_, word)| word);
    let meaning = (
        &head.name,
        &head.selectors,
        &head.exclude,
        when,
        verb,
        otherwise,
        sticky,
        together,
        failback,
    );
    format!("{meaning:?}").hash(&mut hash);
    hash.finish()
}

fn security(node: &SecurityNode) -> Option<Security> {
    let option = node.auth_option.as_ref()?;
    Some(Security {
        name: SecurityName::new(node.name.value.as_str()),
        spi: option.spi.as_ref()?.value,
        algorithm: option.algorithm.as_ref()?.value,
        key_file: option.key_file.as_ref()?.value.clone(),
    })
}

struct Compiler<'c> {
    document: &'c Document,
    sources: &'c Sources,
    bids: HashMap<String, Bid>,
    groups: HashMap<&'c str, &'c GroupNode>,
    ingresses: Ingresses,
    /// Values in all selectors so far.
    values: usize,
    sink: &'c mut Sink,
}

impl<'c> Compiler<'c> {
    fn unknown<'n>(
        &mut self,
        span: Span,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
    ) {
        let plural = format!("{what}s");
        let help = advice(name, known, &plural);
        self.sink.error(span, Code::UnknownRef, format!("there is no {what} `{name}`"), help);
    }

    fn group(&mut self, name: &str, span: Span) -> Option<&'c GroupNode> {
        let group = self.groups.get(name).copied();
        if group.is_none() {
            let document = self.document;
            self.unknown(
                span,
                "group",
                name,
                document.groups.iter().map(|group| group.name.value.as_str()),
            );
        }
        group
    }

    fn link(&mut self, name: &str, span: Span) -> Option<Bid> {
        let bid = self.bids.get(name).copied();
        if bid.is_none() {
            let document = self.document;
            self.unknown(
                span,
                "interface",
                name,
                document.interfaces.iter().map(|link| link.name.value.as_str()),
            );
        }
        bid
    }

    fn links(&mut self, terms: &Terms<String>) -> Vec<Bid> {
        let mut bids = Vec::new();
        let mut written = HashSet::new();
        for term in terms {
            match &term.value {
                Term::Literal(name) => {
                    if !written.insert(name.as_str()) {
                        self.sink.error(
                            term.span,
                            Code::Duplicate,
                            format!("`{name}` is named twice"),
                            "the first place counts; remove the second",
                        );
                    }
                    bids.extend(self.link(name, term.span));
                }
                Term::Group(name) => {
                    let Some(group) = self.group(name, term.span) else { continue };
                    if group.interfaces.is_empty() {
                        self.wrong_kind(term.span, group, "interfaces");
                    }
                    for member in &group.interfaces {
                        bids.extend(self.link(&member.value, member.span));
                    }
                }
            }
        }
        let mut seen = HashSet::new();
        bids.retain(|bid| seen.insert(*bid));
        bids
    }

    fn wrong_kind(&mut self, span: Span, group: &GroupNode, wanted: &str) {
        let name = &group.name.value;
        // A group without any member has a fault of its own, which was named where it stands.
        if group.interfaces.is_empty() && group.ports.is_empty() && group.prefixes.is_empty() {
            return;
        }
        self.sink.error(
            span,
            Code::UnknownRef,
            format!("group `{name}` holds no {wanted}"),
            format!("use a group of {wanted} here"),
        );
    }

    /// Values with groups replaced by what is in them.
    fn expanded<T: Clone>(
        &mut self,
        terms: &Terms<T>,
        wanted: &str,
        members: impl Fn(&GroupNode) -> &[Spanned<T>],
    ) -> Vec<T> {
        let mut values = Vec::new();
        for term in terms {
            match &term.value {
                Term::Literal(value) => values.push(value.clone()),
                Term::Group(name) => {
                    let Some(group) = self.group(name, term.span) else { continue };
                    let members = members(group);
                    if members.is_empty() {
                        self.wrong_kind(term.span, group, wanted);
                    }
                    if self.values + values.len() + members.len() > MOST_VALUES {
                        self.sink.error(
                            term.span,
                            Code::Limit,
                            format!(
                                "the rules hold more than {MOST_VALUES} values, groups expanded"
                            ),
                            "use large groups in fewer rules",
                        );
                        return Vec::new();
                    }
                    values.extend(members.iter().map(|member| member.value.clone()));
                }
            }
        }
        self.values += values.len();
        values
    }

    fn selector(&mut self, line: &MatchNode) -> TrafficSelector {
        let doors: Vec<(String, Span)> = {
            let names = self.expanded(&line.ingresses, "interfaces", |group| &group.interfaces);
            names.into_iter().map(|name| (name, line.span)).collect()
        };
        let mut ingresses = Vec::new();
        for (name, span) in doors {
            match self.ingresses.add(&name) {
                Some(ingress) => ingresses.push(ingress),
                None => self.sink.error(
                    span,
                    Code::Limit,
                    format!("more than {} interfaces are named with `in`", Ingresses::MOST),
                    "name fewer",
                ),
            }
        }
        TrafficSelector {
            sources: self.expanded(&line.sources, "prefixes", |group| &group.prefixes),
            destinations: self.expanded(&line.destinations, "prefixes", |group| &group.prefixes),
            protocols: line.protocols.iter().map(|protocol| protocol.value).collect(),
            source_ports: self.expanded(&line.source_ports, "ports", |group| &group.ports),
            destination_ports: self
                .expanded(&line.destination_ports, "ports", |group| &group.ports),
            dscps: line.dscps.iter().map(|dscp| dscp.value).collect(),
            ingresses,
            ..TrafficSelector::default()
        }
    }

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
        if !document.securities.iter().any(|known| known.name.value == *name) {
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
        let rules = rules.map_or_else(RuleSet::default, |rules| self.rule_set(rules));
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
                flow_bindings: usual.flow_bindings,
            },
            security,
            also: Vec::new(),
            probe: Probe::default(),
            rules,
        })
    }

    fn served(&mut self, node: &HomeNode) -> Option<ServedHome> {
        let mobiles = node.allowed.iter().filter_map(|allow| self.mobile(allow)).collect();
        let serve = node.serve.as_ref()?;
        let (tunnel, mtu) = node.tunnel.as_ref()?;
        let multiple_coa = serve.multiple_coa.unwrap_or(true);
        Some(ServedHome {
            name: HomeName::new(node.name.value.as_str()),
            tunnel: Tunnel { name: InterfaceName::new(tunnel.value.as_str()), mtu: *mtu },
            agent: HomeAgentAddress(serve.agent.as_ref()?.value),
            prefix: serve.prefix.as_ref()?.value,
            on: serve.on.as_ref().map(|on| InterfaceName::new(on.value.as_str())),
            max_lifetime: serve
                .lifetime
                .as_ref()
                .map_or(crate::value::LONGEST_LIFETIME, |lifetime| lifetime.value),
            multiple_coa,
            bulk: serve.bulk.unwrap_or(true) && multiple_coa,
            mobiles,
        })
    }

    fn mobile(&mut self, allow: &AllowNode) -> Option<AllowedMobile> {
        let security = allow.security.as_ref().and_then(|choice| self.security_name(choice));
        Some(AllowedMobile {
            address: HomeAddress(allow.address.as_ref()?.value),
            name: allow.name.as_ref().map(|name| name.value.clone()),
            prefixes: allow
                .mobile_networks
                .iter()
                .filter_map(|net| MobileNetworkPrefix::new(net.value))
                .collect(),
            security,
            max_bindings: allow.bindings.as_ref().map_or(BINDINGS, |bindings| bindings.value),
        })
    }

    fn rule_set(&mut self, node: &RuleSetNode) -> RuleSet {
        let mut rules = Vec::new();
        for rule in node.rules.iter().chain(&node.default) {
            let place = u16::try_from(rules.len()).ok().filter(|place| *place < RuleId::OVERRIDES);
            let Some(place) = place else {
                self.sink.error(
                    rule.name.span,
                    Code::Limit,
                    format!("more than {} rules in one home", RuleId::OVERRIDES),
                    "join rules",
                );
                break;
            };
            rules.extend(self.rule(RuleId(place), rule));
        }
        RuleSet::new(rules)
    }

    fn rule(&mut self, id: RuleId, node: &RuleNode) -> Option<Rule> {
        let selectors = node.matches.iter().map(|line| self.selector(line)).collect();
        let exclude = node.excludes.iter().map(|line| self.selector(line)).collect();
        let otherwise = match node.otherwise.as_ref().map(|otherwise| &otherwise.value) {
            None | Some(OtherwiseNode::NextRule) => Fallback::NextRule,
            Some(OtherwiseNode::Any) => Fallback::Any,
            Some(OtherwiseNode::Prefer(links)) => Fallback::Then(Verb::Prefer(self.links(links))),
            Some(OtherwiseNode::Block(reply)) => Fallback::Then(Verb::Block(*reply)),
        };
        if let (Some(verb), Some(otherwise)) = (&node.verb, &node.otherwise)
            && matches!(verb.value, VerbNode::Block(_))
        {
            self.sink.error(
                otherwise.span,
                Code::Conflict,
                "`block` is always possible and needs no `otherwise`",
                "remove the `otherwise`",
            );
        }
        let verb = match &node.verb.as_ref()?.value {
            VerbNode::Prefer(links) => Verb::Prefer(self.links(links)),
            VerbNode::Block(reply) => Verb::Block(*reply),
        };
        let mut rule = Rule {
            head: Arc::new(RuleHead {
                id,
                name: RuleName::new(node.name.value.as_str()),
                selectors,
                exclude,
                identity: 0,
            }),
            file: self.sources.name(node.name.span.source).to_owned(),
            line: self.sources.line(node.name.span),
            when: Vec::new(),
            verb,
            otherwise,
            sticky: Sticky::default(),
            together: None,
            failback: Failback::default(),
        };
        let identity = identity(&rule);
        Arc::make_mut(&mut rule.head).identity = identity;
        Some(rule)
    }

    fn place(&self, span: Span) -> Place {
        diagnose(
            self.sources,
            span,
            Severity::Error,
            Code::TestFailed,
            String::new(),
            String::new(),
        )
        .into()
    }

    fn test(&mut self, node: &TestNode, homes: &[Home]) -> Option<TestCase> {
        let flow = node.flow.as_ref()?;
        let source = flow.source.as_ref()?;
        let Some(home) = homes.iter().find(|home| home.owns(source.value)) else {
            if homes.len() == self.document.homes.len() && !homes.is_empty() {
                self.sink.error(
                    source.span,
                    Code::UnknownRef,
                    format!("no home owns the source {}", source.value),
                    "a flow's source is a home address or lies inside a mobile network",
                );
            }
            return None;
        };
        let expectations =
            node.expectations.iter().map(|expect| self.expectation(expect, home)).collect();
        let ingress = match &flow.ingress {
            Some(name) => self.ingresses.number(&name.value).unwrap_or(crate::key::Ingress::OTHER),
            None => usual_ingress(home, &self.ingresses, source.value),
        };
        Some(TestCase {
            name: node.name.value.clone(),
            file: self.sources.name(node.name.span.source).to_owned(),
            line: self.sources.line(node.name.span),
            home: home.name.clone(),
            key: FlowKey {
                source: source.value,
                destination: flow.destination.as_ref()?.value,
                protocol: flow.protocol.as_ref()?.value,
                source_port: flow.source_port,
                destination_port: flow.destination_port,
                dscp: flow.dscp,
                ingress,
                flow_label: 0,
                spi: None,
                icmp_type: None,
                uid: None,
            },
            expectations,
        })
    }

    fn expectation(&mut self, node: &ExpectNode, home: &Home) -> Expectation {
        if let Some(rule) = &node.rule {
            let rules =
                self.rules_of(home.name.as_str()).map(|rules| (&rules.rules, &rules.default));
            let known = rules.into_iter().flat_map(|(rules, default)| rules.iter().chain(default));
            let known = known.map(|rule| rule.name.value.as_str());
            // Without any rules the home has a fault of its own.
            let has_rules = known.clone().next().is_some();
            if has_rules && !known.clone().any(|name| name == rule.value) {
                self.unknown(rule.span, "rule", &rule.value, known);
            }
        }
        if let Some(via) = &node.via {
            self.link(&via.value, via.span);
        }
        let mut given = PathFacts::new();
        for (name, state) in &node.given {
            if let Some(bid) = self.link(&name.value, name.span) {
                given.set(bid, *state);
            }
        }
        let via = node.via.as_ref().map(|via| End::Via(InterfaceName::new(via.value.as_str())));
        let end = match (node.blocked, node.unreachable) {
            (true, _) => Some(End::Blocked),
            (_, true) => Some(End::Unreachable),
            _ => via,
        };
        Expectation {
            place: self.place(node.span),
            given,
            rule: node.rule.as_ref().map(|rule| RuleName::new(rule.value.as_str())),
            end,
        }
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

/// By which door a source usually comes: its own sockets for the home address, the network's
/// interface for what lives behind it.
pub(crate) fn usual_ingress(
    home: &Home,
    ingresses: &Ingresses,
    source: std::net::IpAddr,
) -> crate::key::Ingress {
    use crate::key::Ingress;
    let std::net::IpAddr::V6(address) = source else { return Ingress::OTHER };
    if home.address.0 == address {
        return Ingress::LOCAL;
    }
    let network = home.mobile_networks.iter().find(|network| network.prefix.contains(address));
    let on = network.and_then(|network| network.on.as_ref());
    on.and_then(|on| ingresses.number(on.as_str())).unwrap_or(Ingress::OTHER)
}
