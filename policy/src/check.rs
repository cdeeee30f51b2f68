//! Whether the statements of a document fit together, all faults at once.
//!
//! What can be seen without resolving names is asked here: things said twice, things left out,
//! things that contradict each other or the role. Names of links, groups and associations are
//! followed by [`crate::compile`]; rules that can never decide are found by [`crate::shadow`].

mod agent;
mod mobility;
mod roles;

use std::collections::HashMap;
use std::hash::Hash;

use ipnet::Ipv6Net;

use crate::diagnostic::Code;
use crate::document::{Document, HomeNode, SecurityChoice};
use crate::source::{Sink, Sources, Span, Spanned};
use crate::terms::{PrefixMode, Role};

/// With how many others a prefix is compared; comparing all of a very long list would take minutes.
const MOST_COMPARED: usize = 4096;

/// Names every fault that needs no resolving.
pub(crate) fn check(document: &Document, sources: &Sources, sink: &mut Sink) {
    let mut check = Check { document, sources, sink };
    check.duplicates();
    check.securities();
    match &document.role {
        None if document.role_is_wrong => {}
        None => check.role_missing(),
        Some(role) => match role.value {
            Role::MobileNode | Role::MobileRouter => check.mobile(role.value),
            Role::HomeAgent => {
                check.home_agent();
                check.served_homes_are_apart();
            }
            Role::Correspondent => check.correspondent_only(),
        },
    }
    if let Some(role) = &document.role {
        if !matches!(role.value, Role::MobileNode | Role::MobileRouter) {
            check.nothing_registers(role.value);
            check.nothing_steers(role.value);
        }
        check.correspondent(role.value, role.span);
    }
}

struct Check<'c> {
    document: &'c Document,
    sources: &'c Sources,
    sink: &'c mut Sink,
}

impl Check<'_> {
    /// Names every later appearance of a key that was there before.
    fn unique<K: Eq + Hash>(
        &mut self,
        what: &str,
        keys: impl IntoIterator<Item = (K, String, Span)>,
    ) {
        let mut first: HashMap<K, Span> = HashMap::new();
        for (key, shown, span) in keys {
            if let Some(earlier) = first.get(&key) {
                let place = format!(
                    "{}:{}",
                    self.sources.name(earlier.source),
                    self.sources.line(*earlier)
                );
                self.sink.error(
                    span,
                    Code::Duplicate,
                    format!("{what} `{shown}` is already at {place}"),
                    "keep one of them, or give one another name or number",
                );
            } else {
                first.insert(key, span);
            }
        }
    }

    fn unique_names<'n>(&mut self, what: &str, names: impl Iterator<Item = &'n Spanned<String>>) {
        let keys: Vec<_> =
            names.map(|name| (name.value.clone(), name.value.clone(), name.span)).collect();
        self.unique(what, keys);
    }

    fn duplicates(&mut self) {
        let document = self.document;
        self.unique_names("interface", document.interfaces.iter().map(|node| &node.name));
        self.unique_names("group", document.groups.iter().map(|node| &node.name));
        self.unique_names("set", document.sets.iter().map(|node| &node.name));
        self.unique_names("sla", document.slas.iter().map(|node| &node.name));
        let groups: HashMap<&str, Span> = document
            .groups
            .iter()
            .map(|group| (group.name.value.as_str(), group.name.span))
            .collect();
        for set in &document.sets {
            if let Some(group) = groups.get(set.name.value.as_str()) {
                let line = self.sources.line(*group);
                self.sink.error(
                    set.name.span,
                    Code::Duplicate,
                    format!("`{}` is the name of the group of line {line}", set.name.value),
                    "both are named with @: give one another name",
                );
            }
        }
        self.unique_names("home", document.homes.iter().map(|node| &node.name));
        self.unique_names("security", document.securities.iter().map(|node| &node.name));
        self.unique_names("test", document.tests.iter().map(|node| &node.name));
        let tunnels = document.homes.iter().filter_map(|home| Some(&home.tunnel.as_ref()?.0));
        let of_correspondent = document.correspondent.as_ref().and_then(|it| it.tunnel.as_ref());
        let tunnels = tunnels.chain(of_correspondent.map(|(name, _)| name));
        self.unique_names("tunnel", tunnels.clone());
        let bids = document.interfaces.iter().filter_map(|node| node.bid.as_ref());
        let bids: Vec<_> = bids.map(|bid| (bid.value, bid.value.to_string(), bid.span)).collect();
        self.unique("bid", bids);
        let addresses = document.homes.iter().filter_map(|home| home.address.as_ref());
        let addresses: Vec<_> =
            addresses.map(|a| (a.value.0, a.value.0.to_string(), a.span)).collect();
        self.unique("home address", addresses);
        let agents = document.homes.iter().filter_map(|home| home.serve.as_ref()?.agent.as_ref());
        let agents: Vec<_> = agents.map(|a| (a.value, a.value.to_string(), a.span)).collect();
        self.unique("agent's address", agents);
        for rules in &document.rule_sets {
            self.unique_names("rule", rules.rules.iter().map(|rule| &rule.name));
        }
        for tunnel in tunnels {
            if document.interfaces.iter().any(|link| link.name.value == tunnel.value) {
                self.sink.error(
                    tunnel.span,
                    Code::Conflict,
                    format!("`{}` is an access link and cannot be the tunnel", tunnel.value),
                    "give the tunnel a name of its own, such as mtun0",
                );
            }
        }
    }

    fn missing(&mut self, span: Span, message: String, help: &str) {
        self.sink.error(span, Code::Missing, message, help);
    }

    fn role_missing(&mut self) {
        self.missing(
            Span::new(0, 0, 0),
            "the policy does not say what this node does".to_owned(),
            "add role \"mobile-router\", \"mobile-node\", \"home-agent\" or \"correspondent\"",
        );
    }

    fn securities(&mut self) {
        for security in &self.document.securities {
            let name = &security.name.value;
            let Some(option) = &security.auth_option else {
                self.missing(
                    security.name.span,
                    format!("security `{name}` does not say how it protects"),
                    "add auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"name.key\" in its block",
                );
                continue;
            };
            let parts = [
                (option.spi.is_none(), "spi=0x1001"),
                (option.algorithm.is_none(), "algorithm=hmac-sha256"),
                (option.key.is_none(), "key-file=\"name.key\""),
            ];
            for (_, part) in parts.iter().filter(|(missing, _)| *missing) {
                let word = part.split('=').next().unwrap_or_default();
                // A credential stands for the file.
                let written = if word == "key-file" { "key-" } else { word };
                if !self.named_before(security.name.span, written) {
                    self.missing(
                        security.name.span,
                        format!("security `{name}` has no {word}"),
                        &format!("add {part}"),
                    );
                }
            }
        }
    }

    /// Whether a fault stands at the word already, so that its absence need not be named too.
    fn named_before(&self, span: Span, word: &str) -> bool {
        let text = self.sources.text(span.source);
        let block = &text[span.start as usize..];
        let block = &block[..block.find('}').unwrap_or(block.len())];
        self.sink.has_errors() && block.contains(word)
    }

    fn mobile(&mut self, role: Role) {
        if self.document.interfaces.is_empty() {
            let at = self.document.role.as_ref().map_or(Span::default(), |role| role.span);
            self.missing(
                at,
                "no access link is named".to_owned(),
                "add interface \"wlan0\" { bid 1 }",
            );
        }
        if self.document.homes.is_empty() {
            let at = self.document.role.as_ref().map_or(Span::default(), |role| role.span);
            self.missing(
                at,
                "no home network is named".to_owned(),
                "add home \"…\" { tunnel …; agent …; address …; security … }",
            );
        }
        for home in &self.document.homes {
            self.mobile_home(home, role);
        }
        self.networks_are_apart();
        for rules in &self.document.rule_sets {
            if rules.default.is_none() {
                self.sink.error(
                    rules.span,
                    Code::NoDefault,
                    "these rules have no `default`",
                    "say what happens to everything else: default { prefer wlan0; otherwise any }",
                );
            }
            for rule in rules.rules.iter().chain(&rules.default) {
                self.optimize_fits(rule);
            }
            for rule in &rules.rules {
                if rule.matches.is_empty() {
                    self.missing(
                        rule.name.span,
                        format!("rule `{}` does not say what it matches", rule.name.value),
                        "add match proto=… dport=…; what matches everything is `default`",
                    );
                }
            }
        }
    }

    fn mobile_home(&mut self, home: &HomeNode, role: Role) {
        let name = &home.name.value;
        if self.is_of_another_role(home, role) {
            return;
        }
        let parts = [
            (home.tunnel.is_none(), "tunnel", "tunnel mtun0"),
            (home.agent.is_none(), "agent", "agent \"2001:db8::1\""),
            (home.address.is_none(), "address", "address \"2001:db8::42/64\""),
        ];
        for (_, word, help) in parts.iter().filter(|(missing, ..)| *missing) {
            if !self.named_before(home.name.span, word) {
                self.missing(
                    home.name.span,
                    format!("home `{name}` has no {word}"),
                    &format!("add {help}"),
                );
            }
        }
        self.security_is_said(home.name.span, &format!("home `{name}`"), home.security.as_ref());
        let only_agents = home.serve.as_ref().map(|serve| (serve.span, "serve"));
        let only_agents = only_agents.or(home.allowed.first().map(|allow| (allow.span, "allow")));
        let only_agents = only_agents.or(home.refused.first().map(|it| (it.span, "refuse")));
        if let Some((span, word)) = only_agents {
            self.sink.error(
                span,
                Code::Conflict,
                format!("`{word}` belongs to a home agent"),
                "remove it, or write role \"home-agent\"",
            );
        }
        if role == Role::MobileNode
            && let Some((prefix, _)) = home.mobile_networks.first()
        {
            self.sink.error(
                prefix.span,
                Code::Conflict,
                "a mobile node has no network behind it",
                "remove mobile-network, or write role \"mobile-router\"",
            );
        }
        if let (Some(agent), Some(address)) = (&home.agent, &home.address)
            && agent.value == address.value.0
        {
            self.sink.error(
                address.span,
                Code::Conflict,
                "the home address is the agent's own",
                "give the mobile an address of its own",
            );
        }
        for (prefix, _) in &home.mobile_networks {
            let inside = [
                home.agent.as_ref().map(|agent| agent.value),
                home.address.as_ref().map(|address| address.value.0),
            ];
            if let Some(address) =
                inside.into_iter().flatten().find(|address| prefix.value.contains(address))
            {
                self.sink.error(
                    prefix.span,
                    Code::Conflict,
                    format!("{address} of the home link lies inside this mobile network"),
                    "a mobile network prefix is apart from the home link's (RFC 3963 §2)",
                );
            }
        }
        if let Some(register) = &home.register {
            if register.multiple_coa == Some(false) && register.bulk == Some(true) {
                self.sink.error(
                    register.span,
                    Code::Conflict,
                    "bulk registers several care-of addresses, and multiple-coa forbids them",
                    "remove one of the two",
                );
            }
            if let Some(mode) = &register.mode
                && mode.value == PrefixMode::Explicit
                && home.mobile_networks.is_empty()
                && role == Role::MobileRouter
            {
                self.sink.warning(
                    mode.span,
                    Code::Missing,
                    "explicit mode names prefixes, and there are none",
                    "add mobile-network, or remove the mode",
                );
            }
        }
        let rules = self.document.rule_sets.iter().find(|rules| match &rules.home {
            Some(named) => named.value == *name,
            None => self.document.homes.len() == 1,
        });
        self.mobile_routes(home, rules);
        if rules.is_none() {
            self.missing(
                home.name.span,
                format!("home `{name}` has no rules"),
                "add rules home=… { default { prefer wlan0; otherwise any } }",
            );
        }
    }

    fn prefix_is_free<'n>(
        &mut self,
        prefix: &Spanned<Ipv6Net>,
        earlier: impl Iterator<Item = &'n Spanned<Ipv6Net>>,
    ) {
        let overlaps = |other: &&Spanned<Ipv6Net>| {
            other.value.contains(&prefix.value) || prefix.value.contains(&other.value)
        };
        if let Some(other) = earlier.take(MOST_COMPARED).find(overlaps) {
            let line = self.sources.line(other.span);
            let place = match other.span.source == prefix.span.source {
                true => format!("line {line}"),
                false => format!("{}:{line}", self.sources.name(other.span.source)),
            };
            self.sink.error(
                prefix.span,
                Code::Duplicate,
                format!("`{}` overlaps `{}` of {place}", prefix.value, other.value),
                "a prefix belongs to one network and one mobile",
            );
        }
    }

    fn security_is_said(&mut self, span: Span, who: &str, security: Option<&SecurityChoice>) {
        match security {
            None => {
                if !self.named_before(span, "security") {
                    self.missing(
                        span,
                        format!("{who} does not say how signaling is protected"),
                        "add security \"name\" and an association of that name, or security none for a lab",
                    );
                }
            }
            Some(choice) if choice.value.is_none() => self.sink.warning(
                choice.span,
                Code::Unprotected,
                format!("signaling of {who} is not protected: whoever can send to it can take the traffic"),
                "name a security association; `security none` is for a lab",
            ),
            Some(_) => {}
        }
    }
}
