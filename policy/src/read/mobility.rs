//! Routes without the home agent, the way home, and what the node is to its correspondents.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::Reader;
use super::plain::{choice, kind, lifetime, text, truth, whole};
use crate::diagnostic::Code;
use crate::document::{CorrespondentNode, RouteOptimizationNode};
use crate::mobility::{
    LONGEST_OPTIMIZED, Optimize, ReturningHome, RouteOptimizationStart, StrangerAnswer,
};
use crate::reader::{Node, Value};
use crate::source::Spanned;
use crate::value::{self, Problem, Read};

impl Reader<'_> {
    pub(super) fn route_optimization(&mut self, node: &Node) -> RouteOptimizationNode {
        let start = self.argument(node, |value| match text(value)? {
            "traffic" => Ok(Some(RouteOptimizationStart::Traffic)),
            "policy" => Ok(Some(RouteOptimizationStart::Policy)),
            "off" => Ok(None),
            other => Err(choice(other, "start", &["traffic", "policy", "off"])),
        });
        let most = self.property(node, "correspondents", |value| {
            whole(value, 1..=0xffff).map_err(|problem| problem.within("from 1 to 65535"))
        });
        let optimization = RouteOptimizationNode {
            span: node.span(),
            start,
            lifetime: self.property(node, "lifetime", optimized_lifetime),
            correspondents: most.map(|most| most.map(|most| most as u16)),
        };
        if optimization.is_off()
            && let Some((name, _)) = node.properties.first()
        {
            self.sink.error(
                name.span,
                Code::Conflict,
                format!("`{}` says nothing about routes that are never optimized", name.value),
                "remove it, or write route-optimization traffic",
            );
        }
        optimization
    }

    pub(super) fn returning_home(&mut self, node: &Node) -> Option<Spanned<ReturningHome>> {
        self.argument(node, |value| match text(value)? {
            "home" => Ok(ReturningHome::Home),
            "both" => Ok(ReturningHome::Both),
            "foreign" => Ok(ReturningHome::Foreign),
            other => Err(choice(other, "way home", &["home", "both", "foreign"])),
        })
    }

    pub(super) fn optimize(&mut self, node: &Node) -> Option<Spanned<Optimize>> {
        self.argument(node, |value| match value {
            Value::Bool(truth) => Err(Problem {
                help: format!("write optimize {}", if *truth { "always" } else { "never" }),
                ..kind(value, "always or never")
            }),
            value => match text(value)? {
                "always" => Ok(Optimize::Always),
                "never" => Ok(Optimize::Never),
                other => Err(choice(other, "word of `optimize`", &["always", "never"])),
            },
        })
    }

    pub(super) fn correspondent(&mut self, node: &Node) -> CorrespondentNode {
        let off = self.argument(node, |value| match text(value)? {
            "off" => Ok(()),
            other => Err(Problem {
                help: "write correspondent off, or correspondent { address \"2001:db8::9\" }"
                    .to_owned(),
                ..choice(other, "word of `correspondent`", &["off"])
            }),
        });
        let off = off.map(|off| off.span);
        let answer = self.property(node, "answer", |value| match text(value)? {
            "silent" => Ok(StrangerAnswer::Silent),
            "parameter-problem" => Ok(StrangerAnswer::ParameterProblem),
            other => Err(choice(other, "answer", &["silent", "parameter-problem"])),
        });
        if let (Some(answer), None) = (&answer, &off)
            && node.argument().is_none()
        {
            self.sink.error(
                answer.span,
                Code::Conflict,
                "a correspondent answers as RFC 6275 says",
                "remove `answer`, or write correspondent off answer=silent",
            );
        }
        if off.is_some()
            && let Some(child) = node.children.first()
        {
            self.sink.error(
                child.span(),
                Code::Conflict,
                format!(
                    "`{}` says nothing about a node that is no correspondent",
                    child.name.value
                ),
                "remove the block, or the word `off`",
            );
        }
        let mut addresses: Vec<Spanned<Ipv6Addr>> = Vec::new();
        for argument in node.each("address").flat_map(|address| &address.arguments) {
            addresses.extend(self.value(argument, |v| value::reachable_address(text(v)?)));
        }
        let mut child = |name: &str, range: std::ops::RangeInclusive<i128>, within: &str| {
            self.argument(node.child(name)?, |value| {
                whole(value, range).map_err(|problem| problem.within(within))
            })
        };
        let mobiles = child("mobiles", 1..=1 << 20, "from 1 to 1048576");
        let bindings = child("bindings", 1..=1024, "from 1 to 1024");
        CorrespondentNode {
            span: node.span(),
            off,
            answer,
            tunnel: self.tunnel(node),
            addresses,
            lifetime: node
                .child("lifetime")
                .and_then(|lifetime| self.argument(lifetime, optimized_lifetime)),
            multiple_coa: node.child("multiple-coa").and_then(|it| match it.argument() {
                None => Some(true),
                Some(_) => self.argument(it, truth).map(|it| it.value),
            }),
            mobiles: mobiles.map(|mobiles| mobiles.map(|mobiles| mobiles as u32)),
            bindings: bindings.map(|bindings| bindings.map(|bindings| bindings as u16)),
        }
    }
}

/// A lifetime that return routability can protect.
fn optimized_lifetime(value: &Value) -> Read<Duration> {
    match lifetime(value)? {
        asked if asked > LONGEST_OPTIMIZED => Err(Problem::new(
            Code::Range,
            format!("no correspondent grants a lifetime of {} s", asked.as_secs()),
            "at most \"420s\": return routability protects no longer (RFC 6275 §12)",
        )),
        asked => Ok(asked),
    }
}
