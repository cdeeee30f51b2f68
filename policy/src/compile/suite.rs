//! The file's own tests.

use super::Compiler;
use crate::diagnostic::{Code, Severity};
use crate::document::{ExpectNode, GivenNode, TestNode};
use crate::effective::Origin;
use crate::end::End;
use crate::key::{FlowKey, Ingress};
use crate::policy::{Home, Ingresses};
use crate::source::{Span, diagnose};
use crate::steering::Given;
use crate::suite::{Expectation, Place, TestCase};
use crate::suppose::Supposition;
use crate::terms::{InterfaceName, RuleName};

impl Compiler<'_> {
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

    pub(super) fn test(&mut self, node: &TestNode, homes: &[Home]) -> Option<TestCase> {
        let flow = node.flow.as_ref()?;
        let source = flow.source.as_ref()?;
        let door = flow.ingress.as_ref().and_then(|name| self.ingresses.number(&name.value));
        let also = |home: &&Home| home.also.iter().any(|also| Some(also.ingress) == door);
        let own = homes.iter().find(|home| home.owns(source.value));
        let origin = if own.is_some() { Origin::Home } else { Origin::Also };
        let Some(home) = own.or_else(|| homes.iter().find(also)) else {
            if homes.len() == self.document.homes.len() && !homes.is_empty() {
                self.sink.error(
                    source.span,
                    Code::UnknownRef,
                    format!("no home owns the source {}", source.value),
                    "a flow's source is a home address or lies inside a mobile network; for other sources write in= with an interface of `also`",
                );
            }
            return None;
        };
        let expectations =
            node.expectations.iter().map(|expect| self.expectation(expect, home)).collect();
        let ingress = match &flow.ingress {
            Some(_) => door.unwrap_or(Ingress::OTHER),
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
                flow_label: flow.flow_label,
                spi: flow.spi,
                icmp_type: flow.icmp_type,
                uid: flow.uid,
            },
            origin,
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
        for via in &node.via {
            self.link(&via.value, via.span);
        }
        let mut given = Given::default();
        for GivenNode { span, supposition } in &node.given {
            let bid = match supposition {
                Supposition::Link(name, _) => match self.link(name, *span) {
                    Some(bid) => Some(bid),
                    None => continue,
                },
                _ => None,
            };
            if let Err(problem) = supposition.clone().put(bid, &mut given) {
                self.sink.error(*span, problem.code, problem.message, problem.help);
            }
        }
        let via: Vec<InterfaceName> =
            node.via.iter().map(|via| InterfaceName::new(via.value.as_str())).collect();
        let end = match (via.as_slice(), node) {
            (_, ExpectNode { blocked: true, .. }) => Some(End::Blocked),
            (_, ExpectNode { unreachable: true, .. }) => Some(End::Unreachable),
            ([], _) => None,
            ([link], ExpectNode { breakout: true, .. }) => Some(End::Breakout(link.clone())),
            ([link], _) => Some(End::Via(link.clone())),
            _ => Some(End::Copies(via)),
        };
        Expectation {
            place: self.place(node.span),
            given,
            rule: node.rule.as_ref().map(|rule| RuleName::new(rule.value.as_str())),
            end,
            optimized: node.optimized.as_ref().map(|optimized| optimized.value),
        }
    }
}

/// By which door a source usually comes: its own sockets for the home address, the network's
/// interface for what lives behind it.
pub(crate) fn usual_ingress(
    home: &Home,
    ingresses: &Ingresses,
    source: std::net::IpAddr,
) -> Ingress {
    let std::net::IpAddr::V6(address) = source else { return Ingress::OTHER };
    if home.address.0 == address {
        return Ingress::LOCAL;
    }
    let network = home.mobile_networks.iter().find(|network| network.prefix.contains(address));
    let on = network.and_then(|network| network.on.as_ref());
    on.and_then(|on| ingresses.number(on.as_str())).unwrap_or(Ingress::OTHER)
}
