//! Which roles live together on one node.
//!
//! A mobile router is a mobile node too, in each of its homes without mobile networks; whatever
//! the role, `correspondent { … }` makes the node a correspondent besides. A home agent and a
//! mobile do not share a daemon.

use ipnet::Ipv6Net;

use super::Check;
use crate::diagnostic::Code;
use crate::document::HomeNode;
use crate::source::{Span, Spanned};
use crate::terms::Role;

impl Check<'_> {
    /// A node whose only role is that of a correspondent.
    pub(super) fn correspondent_only(&mut self) {
        let document = self.document;
        for home in &document.homes {
            let role = if home.serve.is_some() { "home-agent" } else { "mobile-node" };
            self.sink.error(
                home.name.span,
                Code::Conflict,
                "a correspondent has no home network",
                format!(
                    "remove the home, or write role \"{role}\": with `correspondent` it is both"
                ),
            );
        }
        let rules = document.rule_sets.iter().map(|rules| (rules.span, "rules"));
        let tests = document.tests.iter().map(|test| (test.name.span, "tests"));
        let nodes: Vec<(Span, &str)> = rules.chain(tests).collect();
        for (span, what) in nodes {
            self.sink.error(
                span,
                Code::Conflict,
                format!("a correspondent sends back the way packets came and has no {what}"),
                "remove it; the mobile's rules decide",
            );
        }
    }

    /// Names BIDs where nothing is registered.
    pub(super) fn nothing_registers(&mut self, role: Role) {
        if let Some(budget) = &self.document.flow_budget {
            self.sink.error(
                budget.span,
                Code::Conflict,
                format!("a {role} tells no agent its rules"),
                "remove it; at a home agent write flows in the block of allow",
            );
        }
        for bid in self.document.interfaces.iter().filter_map(|link| link.bid.as_ref()) {
            self.sink.error(
                bid.span,
                Code::Conflict,
                format!("a {role} registers no care-of address and needs no BID"),
                "remove it",
            );
        }
    }

    /// Names sources of facts that no rule here looks at.
    pub(super) fn nothing_steers(&mut self, role: Role) {
        let radios = self.document.interfaces.iter().filter_map(|link| link.radio.as_ref());
        for source in radios.chain(&self.document.vehicle) {
            self.sink.error(
                source.span,
                Code::Conflict,
                format!("a {role} steers no flows by facts about radios and vehicles"),
                "remove it; it belongs into the file of the mobile",
            );
        }
    }

    /// Names a home that is lived in beside one that is served, or the other way round; once, for
    /// nothing else needs to be said of it. `role` says which of the two the file is about.
    pub(super) fn is_of_another_role(&mut self, home: &HomeNode, role: Role) -> bool {
        let served = |home: &HomeNode| home.serve.is_some();
        let lived_in = |home: &HomeNode| {
            home.serve.is_none() && (home.agent.is_some() || home.address.is_some())
        };
        let homes = &self.document.homes;
        let what = match role {
            Role::HomeAgent if lived_in(home) && homes.iter().any(served) => {
                "is lived in by a mobile"
            }
            Role::MobileNode | Role::MobileRouter
                if served(home)
                    && home.agent.is_none()
                    && home.address.is_none()
                    && homes.iter().any(lived_in) =>
            {
                "is served by a home agent"
            }
            _ => return false,
        };
        self.sink.error(
            home.name.span,
            Code::NotSupported,
            format!(
                "home `{}` {what}, and a node that is both is not carried out by this version",
                home.name.value
            ),
            "give the home agent and the mobile a file and an mtund each, apart by network namespaces or machines",
        );
        true
    }

    /// Mobile networks of all homes overlap neither each other nor a home address, so that the
    /// source of a packet says whose it is.
    pub(super) fn networks_are_apart(&mut self) {
        let homes = &self.document.homes;
        let mut earlier: Vec<Spanned<Ipv6Net>> = Vec::new();
        for (prefix, _) in homes.iter().flat_map(|home| &home.mobile_networks) {
            self.prefix_is_free(prefix, earlier.iter());
            earlier.push(prefix.clone());
        }
        for home in homes {
            let Some(address) = &home.address else { continue };
            // That of the same home has a fault of its own.
            let others = homes.iter().filter(|other| other.name.span != home.name.span);
            let mut others = others.flat_map(|other| &other.mobile_networks);
            if let Some((prefix, _)) = others.find(|it| it.0.value.contains(&address.value.0)) {
                let line = self.sources.line(prefix.span);
                self.sink.error(
                    address.span,
                    Code::Conflict,
                    format!("the home address lies inside `{}` of line {line}", prefix.value),
                    "a packet's source says of which home it is: give one of them another prefix",
                );
            }
        }
    }

    /// Home links that an agent serves do not overlap, so that a home address says whose it is.
    pub(super) fn served_homes_are_apart(&mut self) {
        let serves = self.document.homes.iter().filter_map(|home| home.serve.as_ref());
        let mut earlier: Vec<Spanned<Ipv6Net>> = Vec::new();
        for prefix in serves.filter_map(|serve| serve.prefix.as_ref()) {
            self.prefix_is_free(prefix, earlier.iter());
            earlier.push(prefix.clone());
        }
    }
}
