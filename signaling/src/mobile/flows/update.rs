//! What a Binding Update says of flow bindings (RFC 6089 §5.2.2 to §5.2.4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mtun_policy::{Bid, FlowBinding, FlowId, FlowPriority};

use super::super::plan::Request;
use super::super::{MobileNode, MobileNotice, Mode};
use super::{Known, Step};
use crate::flow::FlowSupport;
use crate::registration::Registration;
use crate::wire::option::{
    self, FlowExtensions, FlowIdentification, FlowSubOption, FlowSummary, TrafficSelector,
};
use crate::wire::{BindingUpdate, Options, iana};

/// An update up to this length fits the least MTU of 1280 octets with an IPv6 header and a Home
/// Address option in front (RFC 8200 §5, RFC 6275 §6.3).
const COMFORTABLE: usize = 1280 - 40 - 24;

/// Room for what protects it: a timestamp and the authentication data of 32 octets, both aligned.
const PROTECTION: usize = 64;

/// The longest a Mobility Header can be without what protects it.
const LONGEST: usize = iana::MAX_MESSAGE - PROTECTION;

/// Where less is left for what is new, because so much has to be named, an update may be longer
/// than comfortable: a list of hundreds would take hundreds of updates to change.
const ELBOW_ROOM: usize = 256;

/// Type, Length and most padding in front of an option of even length.
const FRAME: usize = 3;

/// What an update said of flow bindings.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct SentFlows {
    /// The options 45.
    pub(super) told: Vec<Told>,
    /// Whether any was named in an option 44.
    pub(super) summarized: bool,
    /// What was known of those that were told or left out.
    pub(super) before: BTreeMap<FlowId, Option<Known>>,
    /// Those that the agent may have held and that were left out.
    pub(super) left_out: Vec<FlowId>,
    /// What was asked for beyond RFC 6089: reflect, copies.
    pub(super) asked: Option<(bool, bool)>,
    /// The BIDs that are registered once it is accepted.
    pub(super) registered: BTreeSet<Bid>,
    /// Those of them that it names, with their addresses.
    pub(super) named: Vec<Bid>,
}

/// One flow binding that an update told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// As it is wanted.
    pub(super) wish: FlowBinding,
    /// As the agent holds it once it has accepted: with the BIDs that are registered.
    pub(super) as_told: FlowBinding,
    /// Whether nothing of it was left to what the agent held before.
    pub(super) whole: bool,
}

impl MobileNode {
    /// Adds to `options` what this update says of flow bindings.
    pub(in super::super) fn tell_flows(
        &mut self,
        now: Duration,
        request: &Request,
        options: &mut Options,
    ) -> SentFlows {
        let names = matches!(request, Request::Register { .. } | Request::Deregister { .. });
        if !names || self.mode == Mode::Single {
            return SentFlows::default();
        }
        if self.overwrite {
            // The agent holds nothing of ours that we know of; it may be another by now.
            self.flows.ask_again();
        }
        // req FB-09 (RFC 6089 §5.2.3): whatever this update is about, it says all that is wanted.
        // What else is to be said takes a change along; continuing the last one does not.
        if !self.is_for_flows_alone(now) || self.flows.may_change(now) {
            self.flows.take_up(now);
        }
        let registered = self.registered_bids(Some(request));
        let mut sent = SentFlows { registered, named: request.bids(), ..SentFlows::default() };
        self.ask_for_extensions(options, &mut sent);
        let refreshes = self.refreshes(request) && !self.is_for_flows_alone(now);
        if self.flows.support == FlowSupport::No {
            if refreshes {
                self.ask_for_support(options, &mut sent);
            }
            return sent;
        }
        let news = self.flows.has_news(&sent.registered);
        let asks = sent.asked.is_some_and(|asked| asked != self.flows.asked);
        // One that speaks our extension says by its silence that it takes none any more.
        let silent = refreshes && self.flows.speaks != Some(true);
        self.name_flows(options, &mut sent, silent);
        if news && !asks && sent.told.is_empty() && sent.left_out.is_empty() {
            // There was no room for any of it.
            self.put_flows_off(now);
        }
        sent
    }

    /// Whether this update leaves for nothing but flow bindings.
    fn is_for_flows_alone(&self, now: Duration) -> bool {
        let due = |entry: &Registration| {
            let due = entry.register_due().into_iter().chain(entry.deregister_due()).min();
            due.is_some_and(|due| due <= now)
        };
        !self.registrations.values().any(due)
    }

    /// Whether this update prolongs a binding.
    fn refreshes(&self, request: &Request) -> bool {
        let granted = |bid| self.registrations.get(bid).is_some_and(|it| it.grant().is_some());
        matches!(request, Request::Register { bids, .. } if bids.iter().any(granted))
    }

    /// Tells one wish in full to an agent that took none, to hear whether it does by now.
    fn ask_for_support(&mut self, options: &mut Options, sent: &mut SentFlows) {
        let flows = &self.flows;
        let room = LONGEST.saturating_sub(length(options));
        let question = flows.wanted.flows.iter().find_map(|wish| {
            let Step::Tell { bids: Some(bids), .. } = flows.step(wish, &sent.registered) else {
                return None;
            };
            let option = told_option(wish, true, Some(&bids));
            let told = Told {
                wish: wish.clone(),
                as_told: FlowBinding { bids, ..wish.clone() },
                whole: true,
            };
            (option_length(&option) <= room).then_some((told, option))
        });
        if let Some((told, option)) = question {
            options.push(option);
            sent.told.push(told);
            self.doubt_until_acknowledged(sent);
        }
    }

    fn ask_for_extensions(&self, options: &mut Options, sent: &mut SentFlows) {
        let flows = &self.flows;
        let asks = (flows.wanted.reflect, flows.wanted.copies);
        let flows_of_ours = !flows.wanted.flows.is_empty() || !flows.known.is_empty();
        let answered = flows.speaks != Some(false);
        if answered && (flows_of_ours || asks != (false, false) || asks != flows.asked) {
            let (reflect, copies) = asks;
            options.push(FlowExtensions { reflect, copies, digest: None });
            sent.asked = Some(asks);
        }
    }

    /// Tells what is new, as far as there is room, and names what stays.
    ///
    /// Nothing answers a Flow Summary of known numbers. With `silent`, one of those that stay is
    /// told once more as it is, without sub-options: an agent that takes flow bindings answers
    /// that (RFC 6089 §5.3.5), and who does not, holds none (§5.2.6).
    fn name_flows(&mut self, options: &mut Options, sent: &mut SentFlows, silent: bool) {
        let flows = &self.flows;
        // Known ones first: they take little room, and what does not fit of them is wrong at the
        // agent, where new ones are only missing.
        let mut steps: Vec<(&FlowBinding, Step)> = flows
            .wanted
            .flows
            .iter()
            .map(|wish| (wish, flows.step(wish, &sent.registered)))
            .filter(|(_, step)| *step != Step::Wait)
            .collect();
        steps.sort_by_key(|(wish, _)| !flows.known.contains_key(&wish.id));
        let mut length = length(options) + summary_length(flows.known.len());
        let comfortable = COMFORTABLE - PROTECTION;
        let limit = if length + ELBOW_ROOM <= comfortable { comfortable } else { LONGEST };
        let mut told = Vec::new();
        let mut stay: BTreeMap<FlowId, FlowPriority> = BTreeMap::new();
        let mut question = None;
        for (wish, step) in steps {
            let known = flows.known.get(&wish.id);
            if step == Step::Stays && question.is_none() {
                let bids = known.and_then(|known| known.bids.clone()).unwrap_or_default();
                let as_told = FlowBinding { bids, ..wish.clone() };
                question = Some(Told { wish: wish.clone(), as_told, whole: false });
            }
            if let Step::Tell { selector, bids } = step {
                let option = told_option(wish, selector, bids.as_deref());
                let octets = option_length(&option);
                // One at least, or nothing would ever be said.
                let limit = if told.is_empty() { LONGEST } else { limit };
                if length + octets <= limit {
                    length += octets;
                    let whole = selector && bids.is_some();
                    let bids = bids.or_else(|| known.and_then(|known| known.bids.clone()));
                    let bids = bids.unwrap_or_else(|| wish.bids.clone());
                    let as_told = FlowBinding { bids, ..wish.clone() };
                    told.push((Told { wish: wish.clone(), as_told, whole }, option));
                    continue;
                }
            }
            // What has to wait stays as it is, if the agent is known to hold it.
            if let Some(priority) = known.filter(|it| it.is_certain()).and_then(|it| it.priority) {
                stay.insert(wish.id, priority);
            }
        }
        if let Some(question) = question.filter(|_| silent && told.is_empty()) {
            let option = told_option(&question.wish, false, None);
            let octets = option_length(&option);
            if length + octets <= LONGEST {
                length += octets;
                stay.remove(&question.wish.id);
                told.push((question, option));
            }
        }
        // req FB-02: whose place another one takes is left out until it can be told its own.
        let taken: BTreeSet<FlowPriority> =
            told.iter().map(|(told, _)| told.wish.priority).collect();
        stay.retain(|_, priority| !taken.contains(priority));
        let room = LONGEST.saturating_sub(length.saturating_sub(summary_length(flows.known.len())));
        let mut by_place: Vec<(FlowPriority, FlowId)> =
            stay.into_iter().map(|(id, priority)| (priority, id)).collect();
        by_place.sort_unstable();
        let all = by_place.len();
        while summary_length(by_place.len()) > room {
            by_place.pop();
        }
        let number = all - by_place.len();
        let named: BTreeSet<FlowId> = by_place
            .iter()
            .map(|(_, id)| *id)
            .chain(told.iter().map(|(told, _)| told.wish.id))
            .collect();

        let summary: Vec<u16> = by_place.iter().map(|(_, id)| id.get()).collect();
        for flows in summary.chunks(FlowSummary::MOST) {
            options.push(FlowSummary { flows: flows.to_vec() });
        }
        sent.summarized = !summary.is_empty();
        // req FB-09 (RFC 6089 §5.2.4): what is not named goes.
        sent.left_out = flows.known.keys().copied().filter(|id| !named.contains(id)).collect();
        for (told, option) in told {
            options.push(option);
            sent.told.push(told);
        }
        self.doubt_until_acknowledged(sent);
        if number > 0 {
            self.notice(MobileNotice::FlowsLeftOut { number });
        }
    }

    /// What this update changes is not certain until it is acknowledged.
    fn doubt_until_acknowledged(&mut self, sent: &mut SentFlows) {
        let known = &mut self.flows.known;
        for Told { as_told: told, .. } in &sent.told {
            sent.before.insert(told.id, known.get(&told.id).cloned());
            let entry = known.entry(told.id).or_default();
            entry.priority = entry.priority.filter(|it| *it == told.priority);
            entry.selector = entry.selector.take().filter(|it| *it == told.selector);
            entry.bids = entry.bids.take().filter(|it| *it == told.bids);
        }
        for id in &sent.left_out {
            let before = known.insert(*id, Known::default());
            sent.before.insert(*id, before);
        }
    }
}

/// The option that tells a wish; Status is zero in every update.
fn told_option(wish: &FlowBinding, selector: bool, bids: Option<&[Bid]>) -> FlowIdentification {
    let mut option = FlowIdentification::new(wish.id, wish.priority);
    if let Some(bids) = bids {
        option.sub_options.push(FlowSubOption::BindingReference(bids.to_vec()));
    }
    if selector {
        let selector = TrafficSelector::Binary(wish.selector.clone());
        option.sub_options.push(FlowSubOption::TrafficSelector(selector));
    }
    option
}

/// The octets that an option takes at most, wherever it stands.
fn option_length(option: &FlowIdentification) -> usize {
    let mut data = Vec::new();
    option.emit(&mut data);
    // A selector with addresses may have to move up by seven.
    FRAME + data.len() + 7
}

/// The octets that naming so many flow bindings takes at most.
fn summary_length(number: usize) -> usize {
    number * 2 + number.div_ceil(FlowSummary::MOST) * FRAME
}

/// The length of an update with these options and without what protects it.
fn length(options: &Options) -> usize {
    let mut out = vec![0; BindingUpdate::OPTIONS];
    // An option that cannot be written makes the whole update unwritable.
    match option::emit(options, &mut out) {
        Ok(()) => out.len(),
        Err(_) => LONGEST,
    }
}
