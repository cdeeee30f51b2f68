//! What is asked of a home agent's file.

use ipnet::Ipv6Net;

use super::Check;
use crate::diagnostic::Code;
use crate::document::HomeNode;
use crate::source::{Span, Spanned};
use crate::terms::Role;

impl Check<'_> {
    pub(super) fn home_agent(&mut self) {
        if self.document.homes.is_empty() {
            let at = self.document.role.as_ref().map_or(Span::default(), |role| role.span);
            self.missing(
                at,
                "no home network is named".to_owned(),
                "add home \"…\" { tunnel …; serve …; allow … }",
            );
        }
        for rules in &self.document.rule_sets {
            self.sink.error(
                rules.span,
                Code::NotSupported,
                "rules at a home agent are not carried out by this version",
                "remove them; the agent sends every flow back by the link it last came on",
            );
        }
        for test in &self.document.tests {
            self.sink.error(
                test.name.span,
                Code::NotSupported,
                "tests at a home agent are not carried out by this version",
                "remove the test",
            );
        }
        let homes = &self.document.homes;
        let mut mobiles = Vec::new();
        let mut prefixes: Vec<Spanned<Ipv6Net>> = Vec::new();
        for home in homes {
            self.served_home(home);
            for allow in &home.allowed {
                mobiles
                    .extend(allow.address.as_ref().map(|a| (a.value, a.value.to_string(), a.span)));
                for prefix in &allow.mobile_networks {
                    self.prefix_is_free(prefix, prefixes.iter());
                    prefixes.push(prefix.clone());
                }
            }
        }
        self.unique("home address", mobiles);
    }

    fn served_home(&mut self, home: &HomeNode) {
        let name = &home.name.value;
        if self.is_of_another_role(home, Role::HomeAgent) {
            return;
        }
        if home.tunnel.is_none() && !self.named_before(home.name.span, "tunnel") {
            self.missing(
                home.name.span,
                format!("home `{name}` has no tunnel"),
                "add tunnel mtun0",
            );
        }
        let only_mobiles = [
            home.agent.as_ref().map(|node| (node.span, "agent", "write serve \"…\" agent=\"…\"")),
            home.address.as_ref().map(|node| (node.span, "address", "mobiles stand under `allow`")),
            home.mobile_networks
                .first()
                .map(|(node, _)| (node.span, "mobile-network", "write it inside `allow`")),
            home.register
                .as_ref()
                .map(|node| (node.span, "register", "write lifetime= behind `serve`")),
            home.security.as_ref().map(|node| (node.span, "security", "write it inside `allow`")),
            home.also.first().map(|node| (node.span, "also", "remove it")),
            home.probe.as_ref().map(|node| (node.span, "probe", "the mobile probes; remove it")),
            home.route_optimization.as_ref().map(|node| {
                (node.span, "route-optimization", "mobiles and correspondents do it; remove it")
            }),
            home.returning_home
                .as_ref()
                .map(|node| (node.span, "returning-home", "mobiles return; remove it")),
        ];
        for (span, word, help) in only_mobiles.into_iter().flatten() {
            self.sink.error(
                span,
                Code::Conflict,
                format!("`{word}` stands here only on a mobile"),
                help,
            );
        }
        let Some(serve) = &home.serve else {
            if !self.named_before(home.name.span, "serve") {
                self.missing(
                    home.name.span,
                    format!("home `{name}` does not say what it serves"),
                    "add serve \"2001:db8:100::/64\" agent=\"2001:db8:100::1\"",
                );
            }
            return;
        };
        if serve.agent.is_none() && !self.named_before(home.name.span, "agent=") {
            self.missing(
                serve.span,
                "`serve` does not name the agent's address".to_owned(),
                "add agent=\"2001:db8:100::1\"",
            );
        }
        if let (Some(prefix), Some(agent)) = (&serve.prefix, &serve.agent)
            && !prefix.value.contains(&agent.value)
        {
            self.sink.error(
                agent.span,
                Code::Conflict,
                format!("the agent's address lies outside {}", prefix.value),
                "the agent stands on the home link it serves",
            );
        }
        if serve.multiple_coa == Some(false) && serve.bulk == Some(true) {
            self.sink.error(
                serve.span,
                Code::Conflict,
                "bulk registers several care-of addresses, and multiple-coa forbids them",
                "remove one of the two",
            );
        }
        if let Some(only_router) = &serve.only_router
            && serve.on.is_none()
        {
            self.sink.error(
                only_router.span,
                Code::Conflict,
                "only-router speaks of a home link, and there is none",
                "name its interface by on=, or remove it",
            );
        }
        for allow in &home.allowed {
            let who = allow
                .address
                .as_ref()
                .map_or_else(|| "a mobile".to_owned(), |address| address.value.to_string());
            self.security_is_said(allow.span, &who, allow.security.as_ref());
            if let (Some(prefix), Some(address)) = (&serve.prefix, &allow.address) {
                if !prefix.value.contains(&address.value) {
                    self.sink.error(
                        address.span,
                        Code::Conflict,
                        format!("the home address lies outside {}", prefix.value),
                        "a home address belongs to the home link; status 132 would answer it (RFC 6275 §10.3.1)",
                    );
                } else if serve.agent.as_ref().is_some_and(|agent| agent.value == address.value) {
                    self.sink.error(
                        address.span,
                        Code::Conflict,
                        "the home address is the agent's own",
                        "give the mobile an address of its own",
                    );
                }
            }
        }
        for refuse in &home.refused {
            let Some(address) = &refuse.address else { continue };
            let allowed = home.allowed.iter().filter_map(|allow| allow.address.as_ref());
            if !allowed.clone().any(|it| it.value == address.value) {
                self.sink.error(
                    address.span,
                    Code::UnknownRef,
                    format!("{} is refused here and was never allowed", address.value),
                    "remove it: who is not allowed is not served, or mend the address",
                );
            }
        }
        if home.allowed.is_empty() {
            self.sink.warning(
                serve.span,
                Code::Missing,
                "no mobile may register here",
                "add allow \"2001:db8:100::42\" { security … }",
            );
        }
    }
}
