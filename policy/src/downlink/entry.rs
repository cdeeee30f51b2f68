//! From rules to entries: areas of packets and the links each names, first match first.

use std::collections::{BTreeMap, BTreeSet};

use super::area::{Area, Dimension, Span, TooMany, areas};
use super::target::DownlinkTarget;
use super::thin;
use super::untold;
use crate::effective::{Effective, Otherwise, Outcome, Ruling};
use crate::selector::TrafficSelector;
use crate::terms::{Bid, RuleId};

/// Most areas that one line is taken apart into.
const MOST_AREAS: usize = 512;

/// Most groups of all rules together.
const MOST_GROUPS: usize = 2048;

/// Packets and the lists of bindings that are tried for them: each list is used while one of it
/// is registered, with a copy to each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub area: Area,
    pub steps: Vec<Vec<Bid>>,
    pub rules: Vec<RuleId>,
}

/// One flow binding without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub area: Area,
    pub bids: Vec<Bid>,
    /// The rules that it speaks for.
    pub rules: Vec<RuleId>,
}

/// A part of a rule's packets by the mobile's ports (all of them if `None`), and its steps.
type Part = (Option<Span>, Vec<Vec<Bid>>);

/// What an outcome comes to; the last part takes what the others leave. `None` if it is nothing
/// that an agent can do.
fn parts(outcome: &Outcome, target: &DownlinkTarget) -> Option<Vec<Part>> {
    let each = |links: &[Bid]| links.iter().map(|bid| vec![*bid]).collect::<Vec<_>>();
    Some(match outcome {
        Outcome::Candidates(links) | Outcome::ReflectWithin(links) => vec![(None, each(links))],
        Outcome::Copies { links, copies } => {
            let copies = usize::from(*copies).max(1);
            vec![(None, links.chunks(copies).map(<[Bid]>::to_vec).collect())]
        }
        Outcome::Balance(buckets) => {
            let own_then_all = |own: Option<Bid>| {
                let mut links: Vec<Bid> = own.into_iter().collect();
                links.extend(buckets.links.iter().copied().filter(|bid| Some(*bid) != own));
                each(&links)
            };
            let cut = buckets.cut();
            let remainder = buckets.remainder();
            let others = cut.into_iter().filter(|(_, bid)| Some(*bid) != remainder);
            let mut parts: Vec<Part> = others
                .map(|(ports, bid)| {
                    (Some(Span::new(*ports.start(), *ports.end())), own_then_all(Some(bid)))
                })
                .collect();
            parts.push((None, own_then_all(remainder)));
            parts
        }
        Outcome::Unmet => vec![(None, Vec::new())],
        Outcome::Reflect | Outcome::Breakout { .. } | Outcome::Block(_) => return None,
    })
    .map(|mut parts: Vec<Part>| {
        for (_, steps) in &mut parts {
            for step in steps.iter_mut() {
                step.retain(|bid| target.knows(*bid));
            }
            steps.retain(|step| !step.is_empty());
        }
        parts
    })
}

/// What a rule says at present, its `otherwise` included. Nothing if it refuses: the agent cannot
/// be told that.
fn parts_of(rule: Ruling<'_>, target: &DownlinkTarget) -> Vec<Part> {
    let Some(first) = parts(&rule.says.outcome, target) else { return Vec::new() };
    let then = match &rule.says.otherwise {
        Otherwise::NextRule => None,
        Otherwise::Any => parts(&Outcome::Candidates(target.order()), target),
        Otherwise::Then(outcome) => parts(outcome, target),
    };
    let Some(then) = then else { return first };
    let both = |(ports, steps): &Part, (further, behind): &Part| {
        let ports = match (ports, further) {
            (Some(a), Some(b)) => {
                Some(Span { first: a.first.max(b.first), last: a.last.min(b.last) })
            }
            (one, other) => one.or(*other),
        };
        let mut all = steps.clone();
        all.extend(behind.iter().filter(|step| !steps.contains(step)).cloned());
        (ports, all)
    };
    let pairs = first.iter().flat_map(|a| then.iter().map(move |b| both(a, b)));
    pairs.filter(|(ports, _)| ports.is_none_or(|ports| ports.first <= ports.last)).collect()
}

/// The areas of the lines that can be told, turned round.
fn areas_of(lines: &[TrafficSelector], target: &DownlinkTarget) -> Result<Vec<Area>, TooMany> {
    let told = lines.iter().filter(|line| untold::is_told(line));
    let mut all = Vec::new();
    for line in told {
        all.append(&mut areas(&line.mirrored(), target, MOST_AREAS)?);
    }
    Ok(all)
}

/// All rules but those left out as groups, the first that matches first: each gives the packets
/// of its area what the mobile gives those that they answer. And the rules that alone, or behind
/// all others, would be too many groups, with how many they would be.
pub(super) fn groups(
    rules: &Effective,
    target: &DownlinkTarget,
    left_out: &BTreeSet<RuleId>,
) -> (Vec<Group>, BTreeMap<RuleId, usize>) {
    let rulings: Vec<Ruling<'_>> = rules.rules().collect();
    let mut behind: Vec<Group> = Vec::new();
    let mut crowded = BTreeMap::new();
    for rule in rulings.into_iter().rev() {
        if left_out.contains(&rule.head.id) {
            continue;
        }
        match of_rule(rule, target, &behind) {
            Ok(own) if own.len() + behind.len() > MOST_GROUPS => {
                crowded.insert(rule.head.id, own.len());
            }
            Ok(mut own) => {
                own.append(&mut behind);
                behind = own;
            }
            Err(TooMany(count)) => {
                crowded.insert(rule.head.id, count);
            }
        }
    }
    (behind, crowded)
}

/// How many flow bindings a translation word by word would take: for each line that can be told
/// one for each combination of its values and each link in turn, and for each combination of the
/// values of an `exclude` one before them. For comparison only.
pub fn cross_product(rules: &Effective, target: &DownlinkTarget) -> usize {
    let of_line = |line: &TrafficSelector| {
        let sizes = [
            line.sources.len(),
            line.destinations.len(),
            line.protocols.len(),
            line.source_ports.len(),
            line.destination_ports.len(),
            line.dscps.len(),
        ];
        sizes.into_iter().map(|size| size.max(1)).product::<usize>()
    };
    let sum = |lines: &[TrafficSelector]| {
        lines.iter().filter(|line| untold::is_told(line)).map(of_line).sum::<usize>()
    };
    let of_rule = |rule: Ruling<'_>| {
        let links: usize = parts_of(rule, target).iter().map(|(_, steps)| steps.len()).sum();
        if links == 0 || !rule.head.exclude.iter().all(untold::is_told) {
            return 0;
        }
        let lines = if rule.head.selectors.is_empty() { 1 } else { sum(&rule.head.selectors) };
        lines * links + sum(&rule.head.exclude)
    };
    rules.rules().map(of_rule).sum()
}

/// How many links are named for the packets of a rule, at most.
pub(super) fn depth(rule: Ruling<'_>, target: &DownlinkTarget) -> usize {
    parts_of(rule, target).iter().map(|(_, steps)| steps.len()).max().unwrap_or(0)
}

/// One rule, with what stands behind it.
fn of_rule(
    rule: Ruling<'_>,
    target: &DownlinkTarget,
    behind: &[Group],
) -> Result<Vec<Group>, TooMany> {
    let parts = parts_of(rule, target);
    if parts.iter().all(|(_, steps)| steps.is_empty())
        || !rule.head.exclude.iter().all(untold::is_told)
    {
        return Ok(Vec::new());
    }
    let lines = &rule.head.selectors;
    let everything = [TrafficSelector::default()];
    let lines = if lines.is_empty() { &everything } else { lines.as_slice() };
    let matches = areas_of(lines, target)?;
    let excludes = areas_of(&rule.head.exclude, target)?;
    let said = |area: &Area| -> Vec<Group> {
        let part = |(ports, steps): &Part| {
            let area = match ports {
                Some(ports) => {
                    let cut = Area::all(area.version).with(Dimension::OwnPort, *ports);
                    area.common(&cut)?
                }
                None => area.clone(),
            };
            Some(Group { area, steps: steps.clone(), rules: vec![rule.head.id] })
        };
        parts.iter().filter_map(part).collect()
    };
    let out_of =
        |area: &Area| -> Vec<&Area> { excludes.iter().filter(|out| out.meets(area)).collect() };
    let size = matches.len().saturating_mul(parts.len());
    if size > MOST_GROUPS {
        return Err(TooMany(size));
    }
    let plain: Vec<Group> = matches.iter().flat_map(&said).collect();
    if matches.iter().all(|area| out_of(area).is_empty()) {
        return Ok(plain);
    }
    // What is excluded, cut out of each area.
    let cut: Option<Vec<Vec<Area>>> =
        matches.iter().map(|area| cut_out(area, &out_of(area), target)).collect();
    let cut = cut.map(|pieces| pieces.iter().flatten().flat_map(&said).collect::<Vec<_>>());
    // Or before each area as what its packets get from the rules behind.
    let follows = |area: &Area| what_follows(area, behind, target, rule.head.id);
    let each: Vec<Group> = matches
        .iter()
        .flat_map(|area| {
            let out = out_of(area).into_iter().filter_map(|out| out.common(area));
            let mut groups: Vec<Group> = out.flat_map(|area| follows(&area)).collect();
            groups.append(&mut said(area));
            groups
        })
        .collect();
    // Or so before the whole rule: it speaks of none of these packets, wherever they are.
    let hulls = hulls(&matches);
    let out = hulls.iter().flat_map(|hull| excludes.iter().filter_map(|out| out.common(hull)));
    let own = out.flat_map(|area| area.clipped(target));
    let mut once: Vec<Group> = own.flat_map(|area| follows(&area)).collect();
    once.extend(plain);
    let ways = [cut, Some(each), Some(once)];
    let shortest = ways.into_iter().flatten().min_by_key(|groups| thin::estimate(groups, target));
    let groups = shortest.expect("two ways are always possible");
    if groups.len() > MOST_GROUPS { Err(TooMany(groups.len())) } else { Ok(groups) }
}

/// The least area of each family that holds all areas of it.
fn hulls(areas: &[Area]) -> Vec<Area> {
    let mut hulls: Vec<Area> = Vec::new();
    for area in areas {
        match hulls.iter_mut().find(|hull| hull.version == area.version) {
            Some(hull) => *hull = hull.hull(area),
            None => hulls.push(area.clone()),
        }
    }
    hulls
}

/// The area without others, if that can be told in few pieces.
fn cut_out(area: &Area, out: &[&Area], target: &DownlinkTarget) -> Option<Vec<Area>> {
    let mut pieces = vec![area.clone()];
    for out in out {
        pieces = pieces.iter().flat_map(|piece| piece.without(out)).collect();
        pieces = pieces.into_iter().flat_map(|piece| piece.clipped(target)).collect();
        if pieces.len() > MOST_AREAS {
            return None;
        }
    }
    pieces.iter().all(Area::can_be_told).then_some(pieces)
}

/// What the packets of an area get from the groups behind, said of that area alone.
fn what_follows(
    area: &Area,
    behind: &[Group],
    target: &DownlinkTarget,
    rule: RuleId,
) -> Vec<Group> {
    let mut groups = Vec::new();
    let all = target.order();
    for group in behind {
        let Some(common) = group.area.common(area) else { continue };
        let complete = common == *area
            && all.iter().all(|bid| group.steps.iter().any(|step| step.contains(bid)));
        groups.push(Group { area: common, steps: group.steps.clone(), rules: vec![rule] });
        if complete {
            return groups;
        }
    }
    let steps = all.into_iter().map(|bid| vec![bid]).collect();
    groups.push(Group { area: area.clone(), steps, rules: vec![rule] });
    groups
}
