//! The flow options of one update: each judged by itself, the good ones applied (RFC 6089 §5.3).
//!
//! ```text
//!   BIDs as the update leaves them ─┐
//!   flow bindings held so far ──────┤
//!   options 45 ──► each alone ──────┴─► no two of one FID-PRI ──► not too many ──► the list after
//!   options 44 ──► known: stays, unknown: 132      │                    │
//!                                                 130                  129
//! ```
//!
//! What no option names is removed. A refused option never changes what is held under its FID,
//! and naming it keeps that. Nothing here is reached before the update has passed every check of a
//! registration, and its bindings are judged first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use mtun_policy::{AddressRange, Bid, BinarySelector, FlowBinding, FlowId, FlowPriority};

use super::accept::Claim;
use super::{AgentMobile, HomeAgent};
use crate::binding::BindingCacheEntry;
use crate::flow::{FlowDigest, MAX_FLOWS};
use crate::wire::option::{FlowExtensions, FlowIdentification, FlowSubOption, TrafficSelector};
use crate::wire::{FlowStatus, Options};

/// What an acknowledgement says of the flow options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowAnswers {
    /// The Flow Identification options of the update, each with its status, then one with status
    /// 132 for each unknown number in a Flow Summary.
    pub options: Vec<FlowIdentification>,
    /// What is agreed on beyond RFC 6089, if the mobile asked.
    pub extensions: Option<FlowExtensions>,
}

impl HomeAgent {
    /// Applies the flow options of an update to `entry`, whose bindings are those after it.
    pub(super) fn apply_flows(&self, claim: &Claim, entry: &mut BindingCacheEntry) -> FlowAnswers {
        let served = self.served.get(&claim.home_address);
        let Some(served) = served.filter(|_| self.flow_bindings) else {
            // req FB-11 (RFC 6089 §5.3.5): not wanted here, so all are ignored.
            return FlowAnswers::default();
        };
        let options = &claim.update.options;
        let judged = judge(entry, options, &served.mobile);
        entry.flows = judged.flows;
        let asked = options.flow_extensions();
        entry.reflect = served.mobile.reflect && asked.is_some_and(|asked| asked.reflect);
        entry.copies = served.mobile.copies && asked.is_some_and(|asked| asked.copies);
        let extensions = asked.map(|_| FlowExtensions {
            reflect: entry.reflect,
            copies: entry.copies,
            digest: Some(FlowDigest::of(&entry.flows)),
        });
        FlowAnswers { options: judged.answers, extensions }
    }

    /// Takes from `entry` what the policy does not allow of its flow bindings.
    pub(super) fn limit_flows(&self, entry: &mut BindingCacheEntry) {
        let served = self.served.get(&entry.home_address);
        let Some(served) = served.filter(|_| self.flow_bindings) else {
            entry.flows.clear();
            (entry.reflect, entry.copies) = (false, false);
            return;
        };
        let mut flows = std::mem::take(&mut entry.flows);
        flows.retain(|flow| is_own(entry, &flow.selector));
        flows.truncate(most_flows(&served.mobile));
        entry.flows = flows;
        entry.reflect &= served.mobile.reflect;
        entry.copies &= served.mobile.copies;
    }
}

fn most_flows(mobile: &AgentMobile) -> usize {
    usize::from(mobile.max_flows.min(MAX_FLOWS))
}

/// What the flow options of one update come to.
struct Judged {
    /// The list afterwards, by rising FID-PRI.
    flows: Vec<FlowBinding>,
    answers: Vec<FlowIdentification>,
}

/// Judges the flow options of one update.
fn judge(entry: &BindingCacheEntry, options: &Options, mobile: &AgentMobile) -> Judged {
    let held: BTreeMap<FlowId, &FlowBinding> =
        entry.flows.iter().map(|flow| (flow.id, flow)).collect();
    let claims: Vec<&FlowIdentification> = options.flows().collect();
    let named: BTreeSet<FlowId> = claims.iter().filter_map(|claim| claim.flow).collect();
    // req FB-03, R-HA-34 (RFC 6089 §5.3.2): one FID twice refuses them all.
    let twice = named.len() < claims.iter().filter(|claim| claim.flow.is_some()).count();
    let mut verdicts: Vec<Result<FlowBinding, FlowStatus>> = claims
        .iter()
        .map(|claim| {
            if twice {
                return Err(FlowStatus::MALFORMED);
            }
            let known = claim.flow.and_then(|id| held.get(&id).copied());
            wanted(claim, known, entry, mobile)
        })
        .collect();
    // req FB-09 (RFC 6089 §5.3.4): the others are removed.
    let summary: BTreeSet<u16> = options.summarized_flows().collect();
    let stays = |id: &FlowId| summary.contains(&id.get()) || named.contains(id);
    let kept: BTreeMap<FlowId, &FlowBinding> =
        held.iter().filter(|(id, _)| stays(id)).map(|(id, flow)| (*id, *flow)).collect();
    settle_priorities(&mut verdicts, &kept);
    limit_number(&mut verdicts, &kept, most_flows(mobile));

    let answers = claims.iter().zip(&verdicts).map(|(claim, verdict)| FlowIdentification {
        status: verdict.as_ref().err().copied().unwrap_or(FlowStatus::SUCCESSFUL),
        ..(*claim).clone()
    });
    // req FB-10 (RFC 6089 §5.3.3): 132 for what is not known; what is, stays without a word.
    // Where an option 45 names it as well, that one says everything.
    let known = |flow: &u16| {
        FlowId::new(*flow).is_some_and(|id| held.contains_key(&id) || named.contains(&id))
    };
    let unknown = summary.iter().filter(|flow| !known(flow)).map(|&flow| FlowIdentification {
        flow: FlowId::new(flow),
        priority: None,
        status: FlowStatus::FID_NOT_FOUND,
        sub_options: Vec::new(),
    });
    let answers = answers.chain(unknown).collect();

    let mut after: BTreeMap<FlowId, FlowBinding> =
        kept.into_iter().map(|(id, flow)| (id, flow.clone())).collect();
    after.extend(verdicts.into_iter().flatten().map(|flow| (flow.id, flow)));
    let mut flows: Vec<FlowBinding> = after.into_values().collect();
    // req FB-07, FB-13 (RFC 6089 §4.3, §5.3.2): in the order in which packets try them.
    flows.sort_by_key(|flow| flow.priority);
    Judged { flows, answers }
}

/// The flow binding that one option asks for, if nothing is wrong with that option.
fn wanted(
    claim: &FlowIdentification,
    known: Option<&FlowBinding>,
    entry: &BindingCacheEntry,
    mobile: &AgentMobile,
) -> Result<FlowBinding, FlowStatus> {
    // req FB-02 (RFC 6089 §4.2): zero names nothing and is no place.
    let id = claim.flow.ok_or(FlowStatus::MALFORMED)?;
    let priority = claim.priority.ok_or(FlowStatus::MALFORMED)?;
    // req FB-08 (RFC 6089 §4.2.1): one of each at most; what is of another type is skipped.
    let broken = claim
        .sub_options
        .iter()
        .any(|it| matches!(it, FlowSubOption::Malformed { .. } | FlowSubOption::Overrun(_)));
    if broken || claim.selectors().count() > 1 || claim.references().count() > 1 {
        return Err(FlowStatus::MALFORMED);
    }
    // req FB-04, FB-07 (RFC 6089 §5.3.2.1, §5.3.2.2): a new one says both, a known one what changes.
    let selector = match (claim.selectors().next(), known) {
        (Some(TrafficSelector::Binary(selector)), _) => selector.clone(),
        // req FB-18 (RFC 6088 §3).
        (Some(TrafficSelector::Malformed { .. }), _) => return Err(FlowStatus::MALFORMED),
        // req FB-05 (RFC 6089 §5.3.2.1).
        (Some(TrafficSelector::Unknown { .. }), _) => {
            return Err(FlowStatus::FORMAT_NOT_SUPPORTED);
        }
        (None, Some(known)) => known.selector.clone(),
        (None, None) => return Err(FlowStatus::MALFORMED),
    };
    let bids = match (claim.references().next(), known) {
        (Some(bids), _) => named_bids(bids, entry, mobile)?,
        // req FB-14 (RFC 6089 §4.3): also those that are not registered any more.
        (None, Some(known)) => known.bids.clone(),
        (None, None) => return Err(FlowStatus::MALFORMED),
    };
    // req FB-22: nobody's packets but its own.
    if !is_own(entry, &selector) {
        return Err(FlowStatus::ADMINISTRATIVELY_PROHIBITED);
    }
    Ok(FlowBinding { id, priority, selector, bids })
}

/// The BIDs of a binding reference, each once.
fn named_bids(
    bids: &[Bid],
    entry: &BindingCacheEntry,
    mobile: &AgentMobile,
) -> Result<Vec<Bid>, FlowStatus> {
    // req FB-06, R-HA-33 (RFC 6089 §5.3.1, §5.3.2.1): registered once this update is applied.
    if bids.iter().any(|bid| entry.binding(Some(*bid)).is_none()) {
        return Err(FlowStatus::BID_NOT_FOUND);
    }
    let mut each: Vec<Bid> = Vec::with_capacity(bids.len());
    for bid in bids {
        if !each.contains(bid) {
            each.push(*bid);
        }
    }
    // req FB-21: a copy to each, and so many copies are not allowed.
    if each.len() > usize::from(mobile.max_copies.max(1)) {
        return Err(FlowStatus::ADMINISTRATIVELY_PROHIBITED);
    }
    Ok(each)
}

/// Whether the destinations of a selector are the mobile's: its home address and prefixes, all of
/// them or some. IPv4 destinations are nobody's here.
fn is_own(entry: &BindingCacheEntry, selector: &BinarySelector) -> bool {
    match &selector.destination {
        None => true,
        Some(AddressRange::V4(_)) => false,
        Some(AddressRange::V6(range)) => {
            let home = Ipv6Net::from(entry.home_address.0);
            let own = || entry.prefixes.iter().map(|prefix| prefix.net()).chain([home]);
            let mut from = u128::from(*range.start());
            let to = u128::from(*range.end());
            // Prefixes may lie side by side; each step goes past the end of one.
            loop {
                let Some(last) = own()
                    .filter(|net| net.contains(&Ipv6Addr::from(from)))
                    .map(|net| u128::from(net.broadcast()))
                    .max()
                else {
                    return false;
                };
                if last >= to {
                    return true;
                }
                from = last + 1;
            }
        }
    }
}

/// Refuses options until no FID-PRI is used twice (req FB-02; RFC 6089 §4.2).
///
/// Judged on the list as it would be afterwards, so that two flow bindings may change places. Who
/// is refused keeps the place it had, which may be another one's wish: hence the repetition, at
/// most once for each option.
fn settle_priorities(
    verdicts: &mut [Result<FlowBinding, FlowStatus>],
    kept: &BTreeMap<FlowId, &FlowBinding>,
) {
    loop {
        let mut users: BTreeMap<FlowPriority, usize> = BTreeMap::new();
        let wishes: BTreeSet<FlowId> = verdicts.iter().flatten().map(|flow| flow.id).collect();
        let staying = kept.iter().filter(|(id, _)| !wishes.contains(id));
        let priorities = staying.map(|(_, flow)| flow.priority);
        for priority in priorities.chain(verdicts.iter().flatten().map(|flow| flow.priority)) {
            *users.entry(priority).or_default() += 1;
        }
        let mut refused = false;
        for verdict in verdicts.iter_mut() {
            if verdict.as_ref().is_ok_and(|flow| users[&flow.priority] > 1) {
                *verdict = Err(FlowStatus::MALFORMED);
                refused = true;
            }
        }
        if !refused {
            return;
        }
    }
}

/// Refuses new flow bindings beyond `most`, the last ones first (req FB-20).
fn limit_number(
    verdicts: &mut [Result<FlowBinding, FlowStatus>],
    kept: &BTreeMap<FlowId, &FlowBinding>,
    most: usize,
) {
    let mut room = most.saturating_sub(kept.len());
    for verdict in verdicts {
        if verdict.as_ref().is_ok_and(|flow| !kept.contains_key(&flow.id)) {
            match room.checked_sub(1) {
                Some(left) => room = left,
                None => *verdict = Err(FlowStatus::REASON_UNSPECIFIED),
            }
        }
    }
}
