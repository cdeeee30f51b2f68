//! What is legal and deserves a look: defaults that cost money, and what a home agent cannot be
//! told.
//!
//! Downlink: with `flow-bindings=#true` the rules are told to the home agent (RFC 6089), in the
//! words of RFC 6088. Those words are fewer than ours. For each rule that says more, a warning
//! tells what the agent does instead, so that nobody finds it out on the road.

use crate::diagnostic::Code;
use crate::document::{Document, MatchNode, RuleNode, RuleSetNode, Term};
use crate::downlink::untold::of_written;
use crate::downlink::{MOST_FLOWS, Untold, preview};
use crate::policy::{Home, Policy, Rule};
use crate::source::{Sink, Spanned};
use crate::terms::Bid;
use crate::verb::{FailbackMode, Verb};

/// Gives the warnings of a policy that has no fault.
pub(crate) fn check(document: &Document, policy: &Policy, sink: &mut Sink) {
    for home in &policy.homes {
        let rules = document.rule_sets.iter().find(|rules| match &rules.home {
            Some(named) => named.value == home.name.as_str(),
            None => true,
        });
        let Some(rules) = rules else { continue };
        metered_default(policy, home, rules, sink);
        let node = document.homes.iter().find(|node| node.name.value == home.name.as_str());
        let asked = node.and_then(|node| node.register.as_ref()?.flow_bindings) == Some(true);
        if asked {
            downlink(document, home, rules, sink);
            quotas(document, sink);
        }
        if home.register.flow_bindings && (asked || document.flow_budget.is_some()) {
            budget(policy, home, rules, sink);
        }
    }
}

/// Warns if what no rule speaks of leads to a metered link though there is another.
fn metered_default(policy: &Policy, home: &Home, rules: &RuleSetNode, sink: &mut Sink) {
    let (Some(node), Some(rule)) = (&rules.default, home.rules.rules.last()) else { return };
    let metered = |bid: Bid| policy.interface_of(bid).is_some_and(|link| link.metered);
    if policy.interfaces.iter().all(|link| link.metered) {
        return;
    }
    let dear = match &rule.verb {
        Verb::Prefer(links) | Verb::Overflow { links, .. } => {
            links.first().copied().filter(|bid| metered(*bid))
        }
        Verb::Balance(_) | Verb::Fastest { .. } | Verb::Duplicate { .. } => {
            rule.verb.links().into_iter().find(|bid| metered(*bid))
        }
        Verb::Cheapest { links, .. } => {
            let all = links.iter().all(|bid| metered(*bid));
            links.first().copied().filter(|_| all)
        }
        Verb::Breakout { .. } | Verb::Block(_) => None,
    };
    let Some(link) = dear.and_then(|bid| policy.interface_of(bid)) else { return };
    let span = node.verb.as_ref().map_or(node.name.span, |verb| verb.span);
    sink.warning(
        span,
        Code::MeteredDefault,
        format!("what no rule speaks of takes `{}`, which is metered", link.name),
        "put a link that is not metered first, and give a rule to what may cost money",
    );
}

fn downlink(document: &Document, home: &Home, rules: &RuleSetNode, sink: &mut Sink) {
    let nodes = rules.rules.iter().chain(&rules.default);
    for (rule, node) in home.rules.rules.iter().zip(nodes) {
        // What leaves outside the tunnel is answered outside the tunnel.
        if matches!(rule.verb, Verb::Breakout { .. }) {
            continue;
        }
        let (mut untold, mut instead) = (Vec::new(), Vec::new());
        let nothing = selectors(document, node, &mut untold, &mut instead);
        says(rule, node, nothing, &mut untold, &mut instead);
        if !untold.is_empty() {
            let name = match node.name.value.as_str() {
                "default" => "the default".to_owned(),
                name => format!("rule `{name}`"),
            };
            sink.warning(
                node.name.span,
                Code::Downlink,
                format!("{name}: the home agent cannot be told {}", untold.join(", ")),
                instead.join("; "),
            );
        }
    }
}

/// Fields and sets that are not told; gives whether nothing of the rule is.
fn selectors(
    document: &Document,
    node: &RuleNode,
    untold: &mut Vec<&'static str>,
    instead: &mut Vec<&'static str>,
) -> bool {
    let lines = node.matches.iter().chain(&node.excludes);
    let fields: Vec<Vec<&'static str>> = lines.map(|line| untold_of(document, line)).collect();
    let mut all: Vec<&'static str> = fields.iter().flatten().copied().collect();
    if all.is_empty() {
        return false;
    }
    all.sort_unstable();
    all.dedup();
    untold.append(&mut all);
    // Excludes stand behind the matches.
    let some = fields.iter().take(node.matches.len()).any(Vec::is_empty);
    instead.push(match some {
        true => "answers to such lines follow the rules behind this one",
        false => "answers to its flows follow the rules behind it",
    });
    !some
}

/// What one line looks at and is not told.
fn untold_of(document: &Document, line: &MatchNode) -> Vec<&'static str> {
    let is_set = |name: &str| document.sets.iter().any(|set| set.name.value == name);
    let sets = line.sources.iter().chain(&line.destinations).any(|term| match &term.value {
        Term::Group(name) => is_set(name),
        Term::Literal(_) => false,
    });
    let kinds = [
        ("a set", sets),
        ("`in`", !line.ingresses.is_empty()),
        ("`uid`", !line.uids.is_empty()),
        ("`icmp-type`", !line.icmp_types.is_empty()),
        ("`flow-label`", !line.flow_labels.is_empty()),
        ("`spi`", !line.spis.is_empty()),
    ];
    kinds.into_iter().filter(|(_, looks)| *looks).map(|(word, _)| word).collect()
}

/// Conditions, verbs and words about flows that are not told.
fn says(
    rule: &Rule,
    node: &RuleNode,
    nothing: bool,
    untold: &mut Vec<&'static str>,
    instead: &mut Vec<&'static str>,
) {
    let mut words = of_written(rule);
    words.retain(|word| match word {
        // A scope or a word that nobody wrote needs no warning.
        Untold::Sticky => node.sticky.is_some(),
        _ => true,
    });
    if node.failback.is_some() && rule.failback.mode != FailbackMode::Now {
        words.push(Untold::Failback);
    }
    for word in words {
        untold.push(word.word());
        if !instead.contains(&word.instead()) && (!nothing || word.counts_untold()) {
            instead.push(word.instead());
        }
    }
}

/// Refuses rules that take more flow bindings than there is room for.
fn budget(policy: &Policy, home: &Home, rules: &RuleSetNode, sink: &mut Sink) {
    let Some(refused) = preview(policy, home).refused else { return };
    let costliest: Vec<String> =
        refused.costliest.iter().map(|(name, cost)| format!("`{name}` {cost}")).collect();
    let nodes = rules.rules.iter().chain(&rules.default);
    let first = refused.costliest.first().map(|(name, _)| name.as_str());
    let first = nodes.clone().find(|node| Some(node.name.value.as_str()) == first);
    let Some(node) = first.or(nodes.clone().next()) else { return };
    let needed = refused.needed;
    let help = match u16::try_from(needed).ok().filter(|needed| *needed <= MOST_FLOWS) {
        Some(_) => format!(
            "write flow-budget {needed}, if the agent allows so many, or shorten these rules"
        ),
        None => format!("shorten these rules: no agent is told more than {MOST_FLOWS}"),
    };
    sink.error(
        node.name.span,
        Code::Downlink,
        format!(
            "to tell the home agent the rules takes {needed} flow bindings, and there is room for {}: {}",
            refused.budget,
            costliest.join(", ")
        ),
        help,
    );
}

fn quotas(document: &Document, sink: &mut Sink) {
    for link in &document.interfaces {
        if let Some(Spanned { span, .. }) = &link.quota {
            sink.warning(
                *span,
                Code::Downlink,
                format!("the home agent cannot be told the quota of `{}`", link.name.value),
                "it sends by this link until it is told another order, when the quota is used up",
            );
        }
    }
}
