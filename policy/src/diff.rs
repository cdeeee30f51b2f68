//! What another policy would change: its rules, and the flows that would go another way.
//!
//! Pure, and nothing is put in force: [`diff_flows`] asks the same walk that packets take, once
//! for each flow, and says of flows that keep to their link that they stay, as the packet path
//! would: a rule that means the same and still allows the link does not move them.

use std::collections::HashMap;

use crate::effective::{Choice, Effective, Origin, Usable};
use crate::end::{Way, head_of};
use crate::key::FlowKey;
use crate::policy::{Home, Policy, Rule, RuleSet};
use crate::steering::{Given, suppose};
use crate::terms::{RuleId, RuleName};

/// A flow as the data plane remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFlow {
    /// Its packets.
    pub key: FlowKey,
    /// Whose they are.
    pub origin: Origin,
    /// The rule that decided; `None` if that is not known, or if none matched.
    pub rule: Option<RuleId>,
    /// The way it goes; `None` to ask the present rules.
    pub way: Option<Way>,
    /// What it carries, both directions; `None` if that is not known.
    pub bytes_per_second: Option<u64>,
}

/// Flows that would go another way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowsDiff {
    /// How many flows were judged.
    pub flows: usize,
    /// How many would move.
    pub moving: usize,
    /// What those carry; `None` if no rate is known.
    pub moving_bytes_per_second: Option<u64>,
    /// How many would stay on their way by another rule.
    pub other_rule: usize,
    /// Those that would move, by rule and way; what carries most comes first.
    pub moves: Vec<FlowMove>,
}

/// Flows that would leave one way for the same other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMove {
    /// The rule that decides at present.
    pub rule_before: Option<RuleName>,
    /// The rule that would decide.
    pub rule: Option<RuleName>,
    /// The present way.
    pub from: Way,
    /// The other one.
    pub to: Way,
    /// How many flows.
    pub flows: usize,
    /// What they carry; `None` if no rate is known.
    pub bytes_per_second: Option<u64>,
    /// The one that carries most.
    pub example: FlowKey,
}

/// What tells groups of moving flows apart.
#[derive(PartialEq, Eq, Hash)]
struct Group {
    rule_before: Option<RuleId>,
    rule: Option<RuleId>,
    from: Way,
    to: Way,
}

struct Sum {
    flows: usize,
    bytes_per_second: Option<u64>,
    example: FlowKey,
    most: u64,
}

/// Judges flows by `other`, which would follow `present`, with the same links.
pub fn diff_flows(
    present: &Effective,
    other: &Effective,
    links: &impl Usable,
    flows: impl IntoIterator<Item = LiveFlow>,
) -> FlowsDiff {
    let heads: HashMap<RuleId, (u64, &RuleName)> =
        present.rules().map(|rule| (rule.head.id, (rule.head.identity, &rule.head.name))).collect();
    let names: HashMap<RuleId, &RuleName> =
        other.rules().map(|rule| (rule.head.id, &rule.head.name)).collect();
    let mut diff = FlowsDiff::default();
    let mut groups: HashMap<Group, Sum> = HashMap::new();
    for flow in flows {
        diff.flows += 1;
        let (rule_before, from) = match (flow.rule, flow.way) {
            (Some(rule), Some(way)) => (Some(rule), way),
            (rule, way) => {
                let choice = present.choose(&flow.key, flow.origin, links, None);
                let from = way.unwrap_or_else(|| Way::of(&choice, links));
                (rule.or(head_of(&choice).map(|head| head.id)), from)
            }
        };
        let choice = other.choose(&flow.key, flow.origin, links, None);
        let rule = head_of(&choice).map(|head| head.id);
        let identity = head_of(&choice).map(|head| head.identity);
        let identity_before = rule_before.and_then(|id| heads.get(&id)).map(|(same, _)| *same);
        let same_rule = identity == identity_before;
        let to = Way::of(&choice, links);
        if from == to || (same_rule && stays(&choice, &from, links)) {
            diff.other_rule += usize::from(!same_rule);
            continue;
        }
        diff.moving += 1;
        add(&mut diff.moving_bytes_per_second, flow.bytes_per_second);
        let group = groups.entry(Group { rule_before, rule, from, to }).or_insert_with(|| Sum {
            flows: 0,
            bytes_per_second: None,
            example: flow.key,
            most: 0,
        });
        group.flows += 1;
        add(&mut group.bytes_per_second, flow.bytes_per_second);
        if let Some(rate) = flow.bytes_per_second.filter(|rate| *rate > group.most) {
            (group.most, group.example) = (rate, flow.key);
        }
    }
    diff.moves = groups
        .into_iter()
        .map(|(group, sum)| FlowMove {
            rule_before: group.rule_before.and_then(|id| heads.get(&id)).map(|(_, n)| (*n).clone()),
            rule: group.rule.and_then(|id| names.get(&id)).map(|name| (*name).clone()),
            from: group.from,
            to: group.to,
            flows: sum.flows,
            bytes_per_second: sum.bytes_per_second,
            example: sum.example,
        })
        .collect();
    diff.moves.sort_by(|a, b| {
        let order = |it: &FlowMove| (it.bytes_per_second, it.flows);
        let rest = |it: &FlowMove| (it.rule.clone(), it.rule_before.clone());
        order(b)
            .cmp(&order(a))
            .then_with(|| rest(a).cmp(&rest(b)))
            .then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
    });
    diff
}

/// The same without a daemon: every link of `other` is registered and up, except for what is
/// `given`.
pub fn diff_offline(
    present: (&Policy, &Home),
    other: (&Policy, &Home),
    given: &Given,
    flows: impl IntoIterator<Item = LiveFlow>,
) -> FlowsDiff {
    let before = suppose(present.0, present.1, given);
    let after = suppose(other.0, other.1, given);
    diff_flows(&before.effective, &after.effective, &after, flows)
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// Whether a flow that is on `from` keeps to it under a rule that means the same.
fn stays(choice: &Choice<'_>, from: &Way, links: &impl Usable) -> bool {
    match (choice, from) {
        (Choice::Use { rule: Some(rule), .. }, Way::Tunnel(bid)) => {
            rule.says.allows(*bid) && links.usable(*bid)
        }
        (Choice::Use { rule: None, .. }, Way::Tunnel(bid)) => links.usable(*bid),
        (Choice::Breakout { rule, .. }, Way::Breakout(bid)) => {
            rule.says.allows(*bid) && links.attached(*bid)
        }
        _ => false,
    }
}

/// The rules of two policies by name: what is new, gone or says something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesDiff {
    /// Places in the other rule set.
    pub added: Vec<RuleId>,
    /// Places in the present rule set.
    pub removed: Vec<RuleId>,
    /// Places in the other rule set of those that mean something else.
    pub changed: Vec<RuleId>,
    /// How many mean the same.
    pub kept: usize,
}

/// Compares two rule sets of the same home.
pub fn diff_rules(present: &RuleSet, other: &RuleSet) -> RulesDiff {
    let meaning = |rule: &Rule| (rule.head.identity, rule.head.optimize);
    let by_name = |rules: &RuleSet| -> HashMap<RuleName, _> {
        rules.rules.iter().map(|rule| (rule.name().clone(), meaning(rule))).collect()
    };
    let (before, after) = (by_name(present), by_name(other));
    let mut diff = RulesDiff::default();
    for rule in &other.rules {
        match before.get(rule.name()) {
            None => diff.added.push(rule.id()),
            Some(before) if *before == meaning(rule) => diff.kept += 1,
            Some(_) => diff.changed.push(rule.id()),
        }
    }
    let gone = present.rules.iter().filter(|rule| !after.contains_key(rule.name()));
    diff.removed = gone.map(|rule| rule.id()).collect();
    diff
}
