//! Rules: of which packets they speak, and what they mean.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Compiler;
use super::names::Members;
use crate::diagnostic::Code;
use crate::document::{MatchNode, OtherwiseNode, RuleNode, RuleSetNode, VerbNode};
use crate::effective::RuleHead;
use crate::policy::{Rule, RuleSet};
use crate::selector::TrafficSelector;
use crate::source::{Span, Spanned};
use crate::terms::{RuleId, RuleName};
use crate::verb::{Failback, Fallback, Scope, Sticky};

/// The words of `together` of one rule set: their numbers, and where they were written first and
/// with which stickiness.
#[derive(Default)]
struct Together<'c>(HashMap<&'c str, (u16, Scope, Span)>);

impl<'c> Compiler<'c> {
    pub(super) fn rule_set(&mut self, node: &'c RuleSetNode) -> RuleSet {
        let mut rules = Vec::new();
        let mut together = Together::default();
        for (place, rule) in node.rules.iter().chain(&node.default).enumerate() {
            let place = u16::try_from(place).ok().filter(|place| *place < RuleId::OVERRIDES);
            let Some(place) = place else {
                self.sink.error(
                    rule.name.span,
                    Code::Limit,
                    format!("more than {} rules in one home", RuleId::OVERRIDES),
                    "join rules",
                );
                break;
            };
            rules.extend(self.rule(RuleId(place), rule, &mut together));
        }
        RuleSet::new(rules)
    }

    fn rule(&mut self, id: RuleId, node: &'c RuleNode, words: &mut Together<'c>) -> Option<Rule> {
        let selectors = node.matches.iter().map(|line| self.selector(line)).collect();
        let exclude = node.excludes.iter().map(|line| self.selector(line)).collect();
        self.keeping_fits(node);
        let sticky = node.sticky.as_ref().map_or_else(Sticky::default, |sticky| sticky.value);
        let together = node
            .together
            .as_ref()
            .map(|word| (self.together(word, sticky.scope, words), word.value.clone()));
        let otherwise = match &node.otherwise {
            None => Some(Fallback::NextRule),
            Some(otherwise) => match &otherwise.value {
                OtherwiseNode::NextRule => Some(Fallback::NextRule),
                OtherwiseNode::Any => Some(Fallback::Any),
                OtherwiseNode::Then(verb) => self.verb(verb, otherwise.span).map(Fallback::Then),
            },
        };
        let verb = node.verb.as_ref().and_then(|verb| self.verb(&verb.value, verb.span));
        let mut rule = Rule {
            head: Arc::new(RuleHead {
                id,
                name: RuleName::new(node.name.value.as_str()),
                selectors,
                exclude,
                identity: 0,
                optimize: node.optimize.as_ref().map(|optimize| optimize.value),
            }),
            file: self.sources.name(node.name.span.source).to_owned(),
            line: self.sources.line(node.name.span),
            when: node.when.iter().map(|when| when.value.clone()).collect(),
            verb: verb?,
            otherwise: otherwise?,
            sticky,
            together,
            failback: node
                .failback
                .as_ref()
                .map_or_else(Failback::default, |failback| failback.value),
        };
        let identity = identity(&rule);
        Arc::make_mut(&mut rule.head).identity = identity;
        Some(rule)
    }

    /// Names words about links on a rule whose verb keeps no flow on a link, and an `otherwise`
    /// that can never come.
    fn keeping_fits(&mut self, node: &RuleNode) {
        let Some(verb) = &node.verb else { return };
        if !matches!(verb.value, VerbNode::Block(_)) {
            return;
        }
        // With `when` the verb may not hold, and then its `otherwise` does.
        if let Some(otherwise) = node.otherwise.as_ref().filter(|_| node.when.is_empty()) {
            self.sink.error(
                otherwise.span,
                Code::Conflict,
                "`block` is always possible and needs no `otherwise`",
                "remove the `otherwise`",
            );
        }
        let by_links = node.otherwise.as_ref().is_some_and(|otherwise| {
            !matches!(
                otherwise.value,
                OtherwiseNode::NextRule | OtherwiseNode::Then(VerbNode::Block(_))
            )
        });
        let words = [
            node.sticky.as_ref().map(|sticky| (sticky.span, "sticky")),
            node.together.as_ref().map(|together| (together.span, "together")),
            node.failback.as_ref().map(|failback| (failback.span, "failback")),
        ];
        for (span, word) in words.into_iter().flatten().filter(|_| !by_links) {
            self.sink.error(
                span,
                Code::Conflict,
                format!("`{word}` says nothing about packets that are refused"),
                format!("remove `{word}`"),
            );
        }
    }

    /// The number of a word of `together`.
    fn together(
        &mut self,
        word: &'c Spanned<String>,
        scope: Scope,
        words: &mut Together<'c>,
    ) -> u16 {
        let next = u16::try_from(words.0.len()).expect("a rule set has at most 0xf000 rules");
        let known = words.0.entry(&word.value).or_insert((next, scope, word.span));
        let (number, first_scope, first) = *known;
        if scope == Scope::None {
            self.sink.error(
                word.span,
                Code::Conflict,
                "rules share their choices by what is remembered, and `sticky none` remembers nothing",
                "write sticky pair",
            );
        } else if scope != first_scope {
            let line = self.sources.line(first);
            self.sink.error(
                word.span,
                Code::Conflict,
                format!("the rule of line {line} is together with this one and sticks otherwise"),
                "give all rules of one word the same `sticky`",
            );
        }
        number
    }

    pub(super) fn selector(&mut self, line: &MatchNode) -> TrafficSelector {
        let doors = self.expanded(&line.ingresses, "interfaces", Members::names);
        let ingresses = doors.iter().filter_map(|name| self.ingress(name, line.span)).collect();
        TrafficSelector {
            sources: self.expanded(&line.sources, "prefixes", Members::prefixes),
            destinations: self.expanded(&line.destinations, "prefixes", Members::prefixes),
            protocols: values(&line.protocols),
            source_ports: self.expanded(&line.source_ports, "ports", Members::ports),
            destination_ports: self.expanded(&line.destination_ports, "ports", Members::ports),
            dscps: values(&line.dscps),
            ingresses,
            flow_labels: values(&line.flow_labels),
            spis: values(&line.spis),
            icmp_types: values(&line.icmp_types),
            uids: values(&line.uids),
            of_set: line
                .sources
                .iter()
                .chain(&line.destinations)
                .any(|net| self.is_set(&net.value)),
        }
    }
}

fn values<T: Clone>(spanned: &[Spanned<T>]) -> Vec<T> {
    spanned.iter().map(|value| value.value.clone()).collect()
}

/// What tells rules apart across policies: everything they mean for where a flow goes, and neither
/// place nor line. Whether its packets may go straight to a correspondent moves no flow.
fn identity(rule: &Rule) -> u64 {
    let mut hash = DefaultHasher::new();
    let Rule { head, file: _, line: _, when, verb, otherwise, sticky, together, failback } = rule;
    let together = together.as_ref().map(|(_, word)| word);
    let head = (head.name.as_str(), &head.selectors, &head.exclude);
    (head, when, verb, otherwise, sticky, together, failback).hash(&mut hash);
    hash.finish()
}
