//! Rules and flow bindings read by hand: slow, plain, and by nothing that is tested here.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use mtun_policy::{
    AddressRange, Bid, Choice, Effective, FlowBinding, FlowKey, IpVersion, Otherwise, Outcome,
    RuleId, TrafficSelector, Usable,
};

use crate::worlds::Links;

/// What a walk came to: one binding, one for each copy, or none.
pub type Decision = BTreeSet<Bid>;

/// A decision from a choice; none for what is refused or leaves outside the tunnel.
pub fn decision(choice: &Choice<'_>, links: &Links) -> Decision {
    match choice {
        Choice::Use { bid, .. } => [*bid].into(),
        Choice::Copies { links: to, copies, .. } => {
            let usable = to.iter().copied().filter(|bid| links.usable(*bid));
            usable.take(usize::from(*copies)).collect()
        }
        Choice::Breakout { .. } | Choice::Block { .. } | Choice::Nothing(_) => Decision::new(),
    }
}

/// The rule behind a choice.
pub fn decider(choice: &Choice<'_>) -> Option<RuleId> {
    match choice {
        Choice::Use { rule, .. } | Choice::Nothing(rule) => rule.map(|rule| rule.head.id),
        Choice::Copies { rule, .. }
        | Choice::Breakout { rule, .. }
        | Choice::Block { rule, .. } => Some(rule.head.id),
    }
}

/// Whether a line has a word that cannot be told.
pub fn is_odd(line: &TrafficSelector) -> bool {
    line.of_set
        || !line.ingresses.is_empty()
        || !line.uids.is_empty()
        || !line.icmp_types.is_empty()
        || !line.flow_labels.is_empty()
        || !line.spis.is_empty()
}

/// What the agent does for the answer to a packet, by what `check` says of rules that it cannot
/// be told: it follows the rules behind them.
pub fn told(rules: &Effective, key: &FlowKey, links: &Links) -> Decision {
    for rule in rules.rules() {
        let head = rule.head;
        let lines = || head.selectors.iter().filter(|line| !is_odd(line));
        let matches = head.selectors.is_empty() || lines().any(|line| line.matches(key));
        let out = head.exclude.iter().any(|line| is_odd(line) || line.matches(key));
        if !matches || out {
            continue;
        }
        if matches!(rule.says.outcome, Outcome::Block(_) | Outcome::Breakout { .. }) {
            continue;
        }
        let then = match &rule.says.otherwise {
            Otherwise::NextRule => None,
            Otherwise::Any => Some(Outcome::Candidates(links.order.clone())),
            Otherwise::Then(outcome) => Some(outcome.clone()),
        };
        for outcome in [Some(&rule.says.outcome), then.as_ref()].into_iter().flatten() {
            let usable = |bid: &Bid| links.usable(*bid);
            let found: Decision = match outcome {
                Outcome::Candidates(list) => {
                    list.iter().copied().find(usable).into_iter().collect()
                }
                Outcome::Copies { links: list, copies } => {
                    // A flow binding for the first copies, one for the next.
                    let chunks = list.chunks(usize::from(*copies));
                    let mut each =
                        chunks.map(|chunk| chunk.iter().copied().filter(usable).collect());
                    each.find(|chunk: &Decision| !chunk.is_empty()).unwrap_or_default()
                }
                Outcome::Balance(buckets) => {
                    let own = buckets.link(buckets.bucket(rule.says.sticky.scope, key));
                    let first = || buckets.links.iter().copied().find(usable);
                    own.filter(usable).or_else(first).into_iter().collect()
                }
                _ => Decision::new(),
            };
            if !found.is_empty() {
                return found;
            }
        }
    }
    links.preferred().into_iter().collect()
}

/// What an agent does with flow bindings, read one after another (RFC 6089 §5.3.6).
pub fn scan(flows: &[FlowBinding], key: &FlowKey, links: &Links) -> Decision {
    let mut flows: Vec<&FlowBinding> = flows.iter().collect();
    flows.sort_by_key(|flow| flow.priority);
    for flow in flows {
        let valid: Decision = flow.bids.iter().copied().filter(|bid| links.usable(*bid)).collect();
        if !valid.is_empty() && means(flow, key) {
            return valid;
        }
    }
    links.preferred().into_iter().collect()
}

fn means(flow: &FlowBinding, key: &FlowKey) -> bool {
    let selector = &flow.selector;
    let address = |range: &Option<AddressRange>, address: IpAddr| match (range, address) {
        (None, IpAddr::V4(_)) => selector.version == IpVersion::V4,
        (None, IpAddr::V6(_)) => selector.version == IpVersion::V6,
        (Some(AddressRange::V4(range)), IpAddr::V4(it)) => {
            u32::from(*range.start()) <= u32::from(it) && u32::from(it) <= u32::from(*range.end())
        }
        (Some(AddressRange::V6(range)), IpAddr::V6(it)) => {
            u128::from(*range.start()) <= u128::from(it)
                && u128::from(it) <= u128::from(*range.end())
        }
        _ => false,
    };
    fn number<T: Copy + Into<u64>>(range: &Option<RangeInclusive<T>>, value: Option<T>) -> bool {
        match (range, value) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(range), Some(value)) => {
                let value = value.into();
                (*range.start()).into() <= value && value <= (*range.end()).into()
            }
        }
    }
    assert_eq!((&selector.spi, &selector.flow_label), (&None, &None), "they are never mirrored");
    address(&selector.source, key.source)
        && address(&selector.destination, key.destination)
        && number(&selector.source_port, key.source_port)
        && number(&selector.destination_port, key.destination_port)
        && number(&selector.dscp, Some(key.dscp))
        && number(&selector.protocol, Some(key.protocol))
}
