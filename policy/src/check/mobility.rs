//! Routes without the home agent, the way home, and what the node is to its correspondents.

use ipnet::IpNet;

use super::Check;
use crate::diagnostic::Code;
use crate::document::{
    CorrespondentNode, HomeNode, OtherwiseNode, RuleNode, RuleSetNode, Term, VerbNode,
};
use crate::mobility::{Optimize, ReturningHome, RouteOptimizationStart};
use crate::source::Span;
use crate::terms::Role;

impl Check<'_> {
    /// `returning-home` and `optimize` of a mobile's home.
    pub(super) fn mobile_routes(&mut self, home: &HomeNode, rules: Option<&RuleSetNode>) {
        let single = home.register.as_ref().and_then(|it| it.multiple_coa) == Some(false);
        if let Some(returning) = &home.returning_home
            && returning.value == ReturningHome::Both
            && single
        {
            self.sink.error(
                returning.span,
                Code::Conflict,
                "home and foreign links at once are several care-of addresses, and multiple-coa forbids them",
                "write returning-home home, or remove multiple-coa=#false (RFC 5648 §5.5)",
            );
        }
        let rules = rules.into_iter().flat_map(|rules| rules.rules.iter().chain(&rules.default));
        let mut optimized = false;
        for rule in rules {
            let always = rule.optimize.as_ref().filter(|it| it.value == Optimize::Always);
            if let Some(always) = always {
                optimized = true;
                self.rule_can_be_optimized(home, rule, always.span);
            }
        }
        if let Some(node) = &home.route_optimization
            && let Some(start) = &node.start
            && start.value == Some(RouteOptimizationStart::Policy)
            && !optimized
        {
            self.sink.warning(
                start.span,
                Code::Missing,
                "policy starts route optimization, and no rule says `optimize always`",
                "add optimize always to a rule, or write route-optimization traffic",
            );
        }
    }

    fn rule_can_be_optimized(&mut self, home: &HomeNode, rule: &RuleNode, span: Span) {
        let name = &home.name.value;
        match &home.route_optimization {
            None if self.named_before(home.name.span, "route-opt") => {}
            None => self.missing(
                span,
                format!("home `{name}` does not optimize routes"),
                "add route-optimization policy to the home, or remove `optimize`",
            ),
            Some(node) if node.is_off() => self.sink.warning(
                span,
                Code::Conflict,
                format!("home `{name}` has its route optimization off: this rule's packets take the tunnel"),
                "write route-optimization policy in the home, or remove `optimize`",
            ),
            Some(_) => {}
        }
        let Some((address, _)) = home.address.as_ref().map(|address| address.value) else { return };
        let of_home = |prefix: &Term<IpNet>| match prefix {
            Term::Literal(prefix) => prefix.contains(&std::net::IpAddr::V6(address)),
            Term::Group(_) => true,
        };
        let elsewhere = |sources: &[crate::source::Spanned<Term<IpNet>>]| {
            !sources.is_empty() && !sources.iter().any(|source| of_home(&source.value))
        };
        let lines = &rule.matches;
        if !lines.is_empty() && lines.iter().all(|line| elsewhere(&line.sources)) {
            self.sink.warning(
                span,
                Code::Conflict,
                "this rule speaks of the network behind the router only, whose packets always take the tunnel",
                format!("remove it: only packets of {address} itself go straight to correspondents (RFC 3963 §2)"),
            );
        }
    }

    /// Names what `optimize` cannot be said of.
    pub(super) fn optimize_fits(&mut self, rule: &RuleNode) {
        let (Some(optimize), Some(verb)) = (&rule.optimize, &rule.verb) else { return };
        let otherwise = rule.otherwise.as_ref().map(|otherwise| &otherwise.value);
        let outside =
            |verb: &VerbNode| matches!(verb, VerbNode::Block(_) | VerbNode::Breakout { .. });
        match otherwise {
            Some(OtherwiseNode::Any) => return,
            Some(OtherwiseNode::Then(verb)) if !outside(verb) => return,
            _ => {}
        }
        let (message, help) = match &verb.value {
            VerbNode::Block(_) => {
                ("`optimize` says nothing about packets that are refused", "remove `optimize`")
            }
            VerbNode::Breakout { .. } => (
                "`optimize` says nothing about packets that leave outside the tunnel",
                "remove `optimize`",
            ),
            _ => return,
        };
        self.sink.error(optimize.span, Code::Conflict, message, help);
    }

    /// What is said of the node as a correspondent, against its role.
    pub(super) fn correspondent(&mut self, role: Role, role_span: Span) {
        let document = self.document;
        let Some(node) = &document.correspondent else {
            if role == Role::Correspondent {
                self.missing(
                    role_span,
                    "the policy does not say where mobiles find this correspondent".to_owned(),
                    "add correspondent { tunnel mtun0; address \"2001:db8:9::1\" }",
                );
            }
            return;
        };
        if let Some(off) = node.off {
            if role == Role::Correspondent {
                self.sink.error(
                    off,
                    Code::Conflict,
                    "a node whose only role is that of a correspondent is switched off",
                    "remove the word `off`, or write another role",
                );
            }
            return;
        }
        let addresses = node.addresses.iter();
        let addresses: Vec<_> =
            addresses.map(|it| (it.value, it.value.to_string(), it.span)).collect();
        self.unique("correspondent's address", addresses);
        match role {
            Role::Correspondent => self.correspondent_alone(node),
            Role::MobileNode | Role::MobileRouter | Role::HomeAgent => {
                self.correspondent_beside(node, role);
            }
        }
    }

    fn correspondent_alone(&mut self, node: &CorrespondentNode) {
        if node.tunnel.is_none() && !self.named_before(node.span, "tunnel") {
            self.missing(
                node.span,
                "the correspondent has no tunnel".to_owned(),
                "add tunnel mtun0: packets to bound mobiles enter it",
            );
        }
        if node.addresses.is_empty() && !self.named_before(node.span, "address") {
            self.missing(
                node.span,
                "the correspondent has no address".to_owned(),
                "add address \"2001:db8:9::1\", one of this node's own",
            );
        }
    }

    /// A correspondent that is a mobile or an agent too.
    fn correspondent_beside(&mut self, node: &CorrespondentNode, role: Role) {
        if let Some((tunnel, _)) = &node.tunnel {
            self.sink.error(
                tunnel.span,
                Code::Conflict,
                format!("a {role} has the tunnel of its home, and packets to bound mobiles enter that one too"),
                "remove `tunnel`",
            );
        }
        let homes = &self.document.homes;
        let own: Vec<_> = homes
            .iter()
            .filter_map(|home| match role {
                Role::HomeAgent => Some(home.serve.as_ref()?.agent.as_ref()?.value),
                _ => Some(home.address.as_ref()?.value.0),
            })
            .collect();
        // An address that could not be read has a fault of its own.
        if own.is_empty() {
            return;
        }
        let whose = if role == Role::HomeAgent { "agent's" } else { "home" };
        for address in node.addresses.iter().filter(|it| !own.contains(&it.value)) {
            let listed: Vec<String> = own.iter().map(ToString::to_string).collect();
            self.sink.error(
                address.span,
                Code::Conflict,
                format!(
                    "a {role} is a correspondent at its {whose} address, and {} is none",
                    address.value
                ),
                format!("write {}, or remove `address`", listed.join(" or ")),
            );
        }
    }
}
