//! Rules, and lists of values.

use super::Reader;
use super::plain::{given, kind};
use crate::diagnostic::Code;
use crate::document::*;
use crate::reader::{Node, Value};
use crate::source::{Span, Spanned};
use crate::value::{self, Read};
use crate::words;

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
        let mut verbs = node.children.iter().filter_map(|child| {
            let verb = words::verb(&child.name.value)?;
            Some((verb, child))
        });
        let first = verbs.next();
        if let Some((_, second)) =
            verbs.find(|(verb, _)| Some(verb.name) != first.map(|(v, _)| v.name))
        {
            self.sink.error(
                second.span(),
                Code::Conflict,
                format!("`{}` has two verbs", name.value),
                "keep one; what happens when it is not possible goes into `otherwise`",
            );
        }
        if first.is_none() {
            self.sink.error(
                name.span,
                Code::Missing,
                format!("`{}` does not say what to do", name.value),
                "add a verb: `prefer wlan0` or `block reply=icmp`",
            );
        }
        let verb = first.and_then(|(verb, child)| {
            let verb = self.verb(verb.name, child, &child.arguments)?;
            Some(Spanned::new(verb, child.span()))
        });
        let when: Vec<_> = node.each("when").filter_map(|line| self.when(line)).collect();
        if node.name.value == "default"
            && let Some(when) = node.child("when")
        {
            self.sink.error(
                when.name.span,
                Code::Conflict,
                "`default` holds always: a packet that it would leave has no rule",
                "put the condition on a rule above that matches the same: match dst=\"::/0\"",
            );
        }
        RuleNode {
            name,
            matches: node.each("match").map(|line| self.match_line(line)).collect(),
            excludes: node.each("exclude").map(|line| self.match_line(line)).collect(),
            when,
            verb,
            otherwise: node.child("otherwise").and_then(|otherwise| self.otherwise(otherwise)),
            sticky: node.child("sticky").and_then(|sticky| self.sticky(sticky)),
            together: node.child("together").and_then(|word| self.argument(word, given)),
            failback: node.child("failback").and_then(|failback| self.failback(failback)),
            optimize: node.child("optimize").and_then(|optimize| self.optimize(optimize)),
        }
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

    pub(super) fn terms<T>(
        &mut self,
        node: &Node,
        name: &str,
        read: impl Fn(&str) -> Read<T>,
    ) -> Terms<T> {
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

    pub(super) fn values<T>(
        &mut self,
        node: &Node,
        name: &str,
        read: impl Fn(&str) -> Read<T>,
    ) -> Vec<Spanned<T>> {
        let Some(value) = node.property(name) else { return Vec::new() };
        let mut numbers = Vec::new();
        for (piece, span) in self.pieces(value) {
            numbers.extend(self.keep(span, read(&piece)));
        }
        numbers
    }
}
