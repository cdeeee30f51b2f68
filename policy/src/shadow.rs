//! Rules that can never decide anything, because an earlier rule takes all their packets.

use ipnet::IpNet;
use std::ops::RangeInclusive;

use crate::diagnostic::Code;
use crate::document::Document;
use crate::policy::{Home, Policy, Rule};
use crate::selector::TrafficSelector;
use crate::source::Sink;
use crate::verb::{Fallback, Verb};

/// How many comparisons of values are made before the search is given up.
const MOST_COMPARISONS: usize = 4_000_000;

/// With how many values two fields are compared at most.
const MOST_VALUES: usize = 1024;

/// Names rules that an earlier rule leaves nothing, or leaves only when its links are down.
pub(crate) fn check(document: &Document, policy: &Policy, sink: &mut Sink) {
    let mut comparisons = 0;
    for home in &policy.homes {
        let nodes = document.rule_sets.iter().find(|rules| match &rules.home {
            Some(named) => named.value == home.name.as_str(),
            None => true,
        });
        let Some(nodes) = nodes else { continue };
        let rules = &home.rules.rules;
        let sizes: Vec<usize> = rules.iter().map(|rule| size(&rule.head.selectors)).collect();
        for (place, (rule, node)) in rules.iter().zip(&nodes.rules).enumerate() {
            if !rule.head.exclude.is_empty()
                && rule.head.selectors.iter().all(|s| covered(s, &rule.head.exclude))
            {
                sink.error(
                    node.name.span,
                    Code::Shadowed,
                    format!("rule `{}` excludes everything that it matches", rule.name()),
                    "narrow the `exclude`",
                );
                continue;
            }
            for (earlier, earlier_size) in rules[..place].iter().zip(&sizes) {
                comparisons += 1 + (sizes[place] * earlier_size).min(MOST_VALUES) / 4;
                if comparisons > MOST_COMPARISONS {
                    sink.warning(
                        node.name.span,
                        Code::Limit,
                        "from here on the rules are too many to look for shadowed ones",
                        "split the policy, or trust its tests",
                    );
                    return;
                }
                if !earlier.head.exclude.is_empty()
                    || !rule.head.selectors.iter().all(|s| covered(s, &earlier.head.selectors))
                {
                    continue;
                }
                let also = speaks_of_also(rule, home);
                if also && !decides_also(earlier) {
                    continue;
                }
                let place = format!("rule `{}` of line {}", earlier.name(), earlier.line);
                if always_decides(earlier) {
                    sink.error(
                        node.name.span,
                        Code::Shadowed,
                        format!(
                            "rule `{}` never decides: {place} takes all its packets",
                            rule.name()
                        ),
                        format!("move `{}` above `{}`, or remove it", rule.name(), earlier.name()),
                    );
                } else if earlier.when.is_empty() {
                    sink.warning(
                        node.name.span,
                        Code::Shadowed,
                        format!(
                            "rule `{}` decides only when no link of {place} is usable",
                            rule.name()
                        ),
                        format!(
                            "move `{}` above `{}` if it is the exception",
                            rule.name(),
                            earlier.name()
                        ),
                    );
                } else {
                    // It is the rule for the time in which the earlier one does not hold.
                    continue;
                }
                break;
            }
        }
    }
}

/// Whether no packet of the home's that the rule matches is left to later rules.
fn always_decides(rule: &Rule) -> bool {
    rule.when.is_empty() && matches!(rule.verb, Verb::Block(_))
        || rule.otherwise != Fallback::NextRule
}

/// Whether no packet of a further source that the rule matches is left to later rules; verbs that
/// tunnel do not speak of those.
fn decides_also(rule: &Rule) -> bool {
    rule.when.is_empty() && matches!(rule.verb, Verb::Block(_))
        || matches!(rule.otherwise, Fallback::Then(Verb::Block(_) | Verb::Breakout { .. }))
}

/// Whether the rule says something of packets of further sources.
fn speaks_of_also(rule: &Rule, home: &Home) -> bool {
    let speaks = |verb: &Verb| matches!(verb, Verb::Block(_) | Verb::Breakout { .. });
    let otherwise = match &rule.otherwise {
        Fallback::Then(verb) => speaks(verb),
        Fallback::NextRule | Fallback::Any => false,
    };
    let doors = |line: &TrafficSelector| {
        line.ingresses.is_empty()
            || home.also.iter().any(|also| line.ingresses.contains(&also.ingress))
    };
    !home.also.is_empty()
        && (speaks(&rule.verb) || otherwise)
        && rule.head.selectors.iter().any(doors)
}

/// How many values the selectors hold, and at least how many selectors there are.
fn size(selectors: &[TrafficSelector]) -> usize {
    let values = |s: &TrafficSelector| {
        1 + s.sources.len()
            + s.destinations.len()
            + s.protocols.len()
            + s.source_ports.len()
            + s.destination_ports.len()
            + s.dscps.len()
            + s.ingresses.len()
            + s.flow_labels.len()
            + s.spis.len()
            + s.icmp_types.len()
            + s.uids.len()
    };
    selectors.iter().map(values).sum()
}

/// Whether one of `wide` matches everything that `narrow` does.
fn covered(narrow: &TrafficSelector, wide: &[TrafficSelector]) -> bool {
    wide.iter().any(|wide| covers(wide, narrow))
}

fn covers(wide: &TrafficSelector, narrow: &TrafficSelector) -> bool {
    field(&wide.protocols, &narrow.protocols, PartialEq::eq)
        && field(&wide.dscps, &narrow.dscps, PartialEq::eq)
        && field(&wide.ingresses, &narrow.ingresses, PartialEq::eq)
        && field(&wide.destination_ports, &narrow.destination_ports, range_covers)
        && field(&wide.source_ports, &narrow.source_ports, range_covers)
        && field(&wide.sources, &narrow.sources, net_covers)
        && field(&wide.destinations, &narrow.destinations, net_covers)
        && field(&wide.flow_labels, &narrow.flow_labels, range_covers)
        && field(&wide.spis, &narrow.spis, range_covers)
        && field(&wide.icmp_types, &narrow.icmp_types, range_covers)
        && field(&wide.uids, &narrow.uids, range_covers)
}

/// Whether every value of `narrow` lies within one of `wide`; an empty field is everything.
fn field<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    // Long lists are left alone: comparing them costs more than the advice is worth.
    wide.is_empty()
        || (!narrow.is_empty()
            && wide.len().saturating_mul(narrow.len()) <= MOST_VALUES
            && narrow.iter().all(|narrow| wide.iter().any(|wide| covers(wide, narrow))))
}

fn range_covers<T: PartialOrd>(wide: &RangeInclusive<T>, narrow: &RangeInclusive<T>) -> bool {
    wide.start() <= narrow.start() && narrow.end() <= wide.end()
}

fn net_covers(wide: &IpNet, narrow: &IpNet) -> bool {
    wide.contains(narrow)
}
