//! Which roles live together on one node.
//!
//! A mobile router is a mobile node too, in each of its homes without mobile networks; whatever
//! the role, `correspondent { … }` makes the node a correspondent besides. A home agent and a
//! mobile do not share a daemon.

use super::Check;
use crate::diagnostic::Code;
use crate::document::HomeNode;
use crate::source::Span;
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
        for bid in self.document.interfaces.iter().filter_map(|link| link.bid.as_ref()) {
            self.sink.error(
                bid.span,
                Code::Conflict,
                format!("a {role} registers no care-of address and needs no BID"),
                "remove it",
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
}
