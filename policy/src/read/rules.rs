//! Rules, verbs and `match` lines.

use super::Reader;
use super::plain::{choice, given, kind, text};
use crate::diagnostic::Code;
use crate::document::*;
use crate::effective::BlockReply;
use crate::reader::{Node, Value};
use crate::source::{Span, Spanned};
use crate::value::{self, Read};
use crate::words::{LATER_IN_RULES, not_yet};

impl Reader<'_> {
    pub(super) fn rule_set(&mut self, node: &Node) -> RuleSetNode {
        let mut rules = Vec::new();
        let default = node.child("default");
        for rule in node.each("rule") {
            if let Some(name) = self.name(rule, given) {
                if name.value == "default" {
                    self.sink.error(
                        name.span,
                        Code::Conflict,
                        "`default` is the name of the last rule",
                        "choose another name, or write `default { … }`",
                    );
                }
                rules.push(self.rule(rule, name));
            }
        }
        if let Some(last) = node.children.iter().rposition(|child| child.name.value == "rule")
            && let Some(at) = node.children.iter().position(|child| child.name.value == "default")
            && at < last
        {
            self.sink.error(
                node.children[at].name.span,
                Code::Shadowed,
                "rules stand behind `default`, which decides every packet",
                "move `default` to the end of the rules",
            );
        }
        RuleSetNode {
            span: node.span(),
            home: self.property(node, "home", given),
            rules,
            default: default.map(|default| self.rule(default, default.name.clone())),
        }
    }

    fn rule(&mut self, node: &Node, name: Spanned<String>) -> RuleNode {
        let prefer = node.child("prefer").map(|prefer| {
            let links = self.links(&prefer.arguments);
            Spanned::new(VerbNode::Prefer(links), prefer.span())
        });
        let block = node
            .child("block")
            .map(|block| Spanned::new(VerbNode::Block(self.reply(block)), block.span()));
        if let (Some(prefer), Some(block)) = (&prefer, &block) {
            self.sink.error(
                prefer.span.max(block.span),
                Code::Conflict,
                format!("`{}` has two verbs", name.value),
                "keep one; what happens when it is not possible goes into `otherwise`",
            );
        }
        let is_verb = |child: &Node| LATER_IN_RULES.contains(&child.name.value.as_str());
        if prefer.is_none() && block.is_none() && !node.children.iter().any(is_verb) {
            self.sink.error(
                name.span,
                Code::Missing,
                format!("`{}` does not say what to do", name.value),
                "add a verb: `prefer wlan0` or `block reply=icmp`",
            );
        }
        RuleNode {
            name,
            matches: node.each("match").map(|line| self.match_line(line)).collect(),
            excludes: node.each("exclude").map(|line| self.match_line(line)).collect(),
            verb: prefer.or(block),
            otherwise: node.child("otherwise").and_then(|otherwise| self.otherwise(otherwise)),
        }
    }

    fn links(&mut self, arguments: &[Spanned<Value>]) -> Terms<String> {
        let mut links: Terms<String> = Vec::new();
        for argument in arguments {
            let link = self.value(argument, |value| {
                let name = text(value)?;
                match name.strip_prefix('@') {
                    Some(group) => {
                        value::given_name(group).map(|group| Term::Group(group.to_owned()))
                    }
                    None => value::interface_name(name).map(|name| Term::Literal(name.to_owned())),
                }
            });
            links.extend(link);
        }
        links
    }

    fn reply(&mut self, node: &Node) -> BlockReply {
        let reply = self.property(node, "reply", |value| match text(value)? {
            "icmp" => Ok(BlockReply::Icmp),
            "reset" => Ok(BlockReply::Reset),
            "none" => Ok(BlockReply::Silent),
            other => Err(choice(other, "reply", &["icmp", "reset", "none"])),
        });
        reply.map_or(BlockReply::Icmp, |reply| reply.value)
    }

    fn otherwise(&mut self, node: &Node) -> Option<Spanned<OtherwiseNode>> {
        let first = self.argument(node, |value| text(value).map(str::to_owned))?;
        let behind = &node.arguments[1..];
        let otherwise = match first.value.as_str() {
            "next-rule" => OtherwiseNode::NextRule,
            "any" => OtherwiseNode::Any,
            "block" => OtherwiseNode::Block(self.reply(node)),
            "prefer" if behind.is_empty() => {
                self.sink.error(
                    first.span,
                    Code::Missing,
                    "`otherwise prefer` names no link",
                    "write otherwise prefer wwan0",
                );
                return None;
            }
            "prefer" => OtherwiseNode::Prefer(self.links(behind)),
            later if LATER_IN_RULES.contains(&later) => {
                not_yet(later, first.span, self.sink);
                return None;
            }
            other => {
                self.problem(
                    first.span,
                    choice(other, "way out", &["next-rule", "any", "block", "prefer"]),
                );
                return None;
            }
        };
        if !matches!(otherwise, OtherwiseNode::Prefer(_))
            && let Some(extra) = behind.first()
        {
            self.sink.error(
                extra.span,
                Code::Value,
                format!("nothing goes behind `otherwise {}`", first.value),
                "remove it",
            );
        }
        if !matches!(otherwise, OtherwiseNode::Block(_))
            && let Some(reply) = node.property("reply")
        {
            self.sink.error(
                reply.span,
                Code::Conflict,
                "only `block` has a reply",
                "remove it, or write otherwise block reply=icmp",
            );
        }
        Some(Spanned::new(otherwise, node.span()))
    }

    /// The comma-separated pieces of a text, or a number as its one piece.
    pub(super) fn pieces(&mut self, value: &Spanned<Value>) -> Vec<(String, Span)> {
        match &value.value {
            Value::Integer(number) => vec![(number.to_string(), value.span)],
            Value::Text(list) => {
                let pieces: Vec<&str> = list.split(',').map(str::trim).collect();
                let whole = &self.sources.text(value.span.source)[value.span.start as usize..];
                let whole = whole.get(..value.span.length as usize).unwrap_or_default();
                // What an escape stands for is not found in the text.
                let escaped = whole.contains('\\');
                let mut from = 0;
                pieces
                    .into_iter()
                    .map(|piece| {
                        let found = whole
                            .get(from..)
                            .and_then(|rest| rest.find(piece))
                            .filter(|_| !piece.is_empty() && !escaped);
                        let span = found.map_or(value.span, |at| {
                            let start = from + at;
                            from = start + piece.len();
                            Span::new(
                                value.span.source,
                                value.span.start as usize + start,
                                piece.len(),
                            )
                        });
                        (piece.to_owned(), span)
                    })
                    .collect()
            }
            other => {
                self.problem(value.span, kind(other, "text or a whole number"));
                Vec::new()
            }
        }
    }

    fn terms<T>(&mut self, node: &Node, name: &str, read: impl Fn(&str) -> Read<T>) -> Terms<T> {
        let Some(value) = node.property(name) else { return Vec::new() };
        let mut terms = Vec::new();
        for (piece, span) in self.pieces(value) {
            let term = match piece.strip_prefix('@') {
                Some(group) => value::given_name(group).map(|group| Term::Group(group.to_owned())),
                None => read(&piece).map(Term::Literal),
            };
            terms.extend(self.keep(span, term));
        }
        terms
    }

    fn numbers(
        &mut self,
        node: &Node,
        name: &str,
        read: impl Fn(&str) -> Read<u8>,
    ) -> Vec<Spanned<u8>> {
        let Some(value) = node.property(name) else { return Vec::new() };
        let mut numbers = Vec::new();
        for (piece, span) in self.pieces(value) {
            numbers.extend(self.keep(span, read(&piece)));
        }
        numbers
    }

    fn match_line(&mut self, node: &Node) -> MatchNode {
        let line = MatchNode {
            span: node.span(),
            protocols: self.numbers(node, "proto", value::protocol),
            sources: self.terms(node, "src", value::prefix),
            destinations: self.terms(node, "dst", value::prefix),
            source_ports: self.terms(node, "sport", value::ports),
            destination_ports: self.terms(node, "dport", value::ports),
            dscps: self.numbers(node, "dscp", value::dscp),
            ingresses: self
                .terms(node, "in", |name| value::interface_name(name).map(str::to_owned)),
        };
        if node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                format!("this `{}` says nothing", node.name.value),
                "name at least one field: proto, src, dst, sport, dport, dscp, in; what matches everything is `default`",
            );
        }
        let ports = ["sport", "dport"].into_iter().find_map(|name| node.property(name));
        if let Some(ports) = ports
            && !line.protocols.is_empty()
            && !line.protocols.iter().any(|protocol| value::WITH_PORTS.contains(&protocol.value))
        {
            self.sink.error(
                ports.span,
                Code::Conflict,
                "packets of this protocol have no ports",
                "remove the ports, or write proto=tcp or proto=udp",
            );
        }
        line
    }
}
