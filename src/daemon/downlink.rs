//! The way down: what a mobile tells its agents of its rules, and what an agent makes of that.
//!
//! The policy crate compiles the rules as they stand into flow bindings, the machine tells the
//! agent, and here is only the thread between the two. After everything that may change what rules
//! say, [`Owner::tell_rules`] compiles them again, and what differs is told. A link that dies makes its
//! flow bindings inactive at the agent at once; the present rules without it may then need fewer of
//! them, and that is told after it.
//!
//! What an agent does with a flow is asked of [`decide`](mtun_dataplane::decide()), over a snapshot
//! of what the agent acknowledged: there is no second judgement here.

use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::{Fate, Memory, Remembered, Snapshot, explain};
use mtun_policy::downlink::{AgentDefault, DownlinkTarget, Plan, Unmatched, plan};
use mtun_policy::{Bid, Effective, FlowBinding, FlowId, FlowKey, Policy, RuleName};
use mtun_signaling::binding::{BindingCacheEntry, BindingUpdateList};
use mtun_signaling::flow::{DigestState, FlowState, FlowSupport};
use mtun_signaling::mobile::MobileEvent;
use mtun_signaling::wire::FlowStatus;

use super::home::MobileHome;
use super::owner::Owner;
use crate::control::documents::{
    self, AtAgentDocument, DownlinkDocument, Event, ExplainVerdict, FlowBindingDocument,
    FlowBindingState, FlowBindingsTaken, FlowDownDocument, FlowKeyDocument, FlowPath, HealthReason,
    RuleDownlinkDocument, StatusCode,
};
use crate::publish;

/// Rules that a health reason names.
const RULES_NAMED: usize = 5;

/// What the agent of one home is told of its rules.
#[derive(Debug, Default)]
pub(super) struct Downlink {
    /// What was told last.
    plan: Plan,
    /// What that was made of, and for how many flow bindings at most; `None` for nothing told to
    /// this agent yet.
    of: Option<(Arc<Effective>, DownlinkTarget, u16)>,
    /// How many it was last said to hold and to have refused.
    said: Option<(usize, usize)>,
}

impl Downlink {
    /// Forgets what was told: the agent is another one.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The rule that a flow binding speaks for.
    fn rule(&self, id: FlowId) -> Option<RuleName> {
        let rule = self.plan.rules.iter().find(|rule| rule.entries.contains(&id))?;
        Some(rule.name.clone())
    }
}

/// For whom the rules of a home are compiled: for all bindings there may be.
fn target(policy: &Policy, home: &mtun_policy::Home, reflect: bool) -> DownlinkTarget {
    let bids = policy.interfaces.iter().filter_map(|interface| interface.bid);
    DownlinkTarget { reflect, ..DownlinkTarget::new(policy, home, bids) }
}

/// Whether the agent of a home is told its rules: they name bindings, which a registration of a
/// single care-of address has not.
fn is_told(home: &mtun_policy::Home) -> bool {
    home.register.flow_bindings && home.register.multiple_coa
}

/// What the agents of a policy's homes are told, all links registered and up.
pub(crate) fn preview(policy: &Policy) -> Vec<RuleDownlinkDocument> {
    let homes = policy.homes.iter().filter(|home| is_told(home));
    let rules = homes.flat_map(|home| {
        let plan = mtun_policy::downlink::preview(policy, home);
        plan.rules.into_iter().map(|rule| RuleDownlinkDocument::new(&home.name, &rule))
    });
    rules.collect()
}

impl Owner {
    /// Tells the agent of a home what its rules say, if it was told otherwise.
    pub(super) fn tell_rules(&mut self, home: usize) {
        let now = self.now();
        let it = &self.homes[home];
        if !is_told(&it.home) {
            return;
        }
        let extensions = it.node.update_list().extensions;
        // Before the first answer, as if it would.
        let declined = extensions.flow_bindings == FlowSupport::Yes && !extensions.reflect;
        let wanted = it.home.register.reflect;
        let target = target(&self.policy, &it.home, wanted && !declined);
        let budget = it.home.register.flow_budget;
        let present = it.downlink.of.as_ref();
        if present.is_some_and(|(rules, of, most)| {
            Arc::ptr_eq(rules, &it.effective) && *of == target && *most == budget
        }) {
            return;
        }
        let plan = plan(&it.effective, &target, budget, Some(&it.downlink.plan));
        let plan = plan.as_written(&it.home.rules);
        let first = it.downlink.of.is_none();
        let same = plan.bindings == it.downlink.plan.bindings;
        let flows = plan.bindings.clone();
        let it = &mut self.homes[home];
        it.downlink.plan = plan;
        it.downlink.of = Some((it.effective.clone(), target, budget));
        if same && !first {
            return;
        }
        let event = MobileEvent::FlowsChanged { flows, reflect: wanted, copies: true };
        let outputs = it.handle(now, event);
        self.mobile_outputs(home, outputs);
    }

    /// Tells people when the agent has answered all flow bindings, if it holds others than before.
    pub(super) fn rules_answered(&mut self, home: usize) {
        let it = &mut self.homes[home];
        let list = it.node.update_list();
        let (held, pending, refused) = counts(&list);
        if pending > 0 || it.downlink.said == Some((held, refused)) {
            return;
        }
        let first = it.downlink.said.replace((held, refused)).is_none();
        if held + refused > 0 || !first {
            let home = it.home.name.clone();
            self.tell(Event::FlowBindings { home, held, refused });
        }
    }

    /// What is not well with the way down of any home.
    pub(super) fn downlink_reasons(&self) -> Vec<HealthReason> {
        let mut reasons = Vec::new();
        for it in &self.homes {
            let home = &it.home.name;
            let flows = it.node.update_list().flows;
            let refused = flows.iter().filter_map(|flow| match flow.state {
                FlowState::Refused(status) => Some(status),
                FlowState::Pending | FlowState::Held => None,
            });
            if let Some(first) = refused.clone().next() {
                let (home, count) = (home.clone(), refused.count());
                let status = first.to_string();
                reasons.push(HealthReason::FlowBindingsRefused { home, count, status });
            }
            if let Some(refused) = &it.downlink.plan.refused {
                let rules = refused.costliest.iter().map(|(name, _)| name.clone());
                let (home, rules) = (home.clone(), rules.take(RULES_NAMED).collect());
                reasons.push(HealthReason::FlowBindingsTooMany { home, rules });
            }
        }
        reasons
    }

    /// What the agents of all homes were told, in the order in which they are asked.
    pub(super) fn flow_binding_documents(&self) -> Vec<FlowBindingDocument> {
        let each = self.homes.iter().flat_map(|it| {
            let list = it.node.update_list();
            let document = |flow: &_| self.flow_binding_document(it, &list, flow);
            list.flows.iter().map(document).collect::<Vec<_>>()
        });
        each.collect()
    }

    fn flow_binding_document(
        &self,
        home: &MobileHome,
        list: &BindingUpdateList,
        flow: &mtun_signaling::RegisteredFlow,
    ) -> FlowBindingDocument {
        let binding = &flow.binding;
        let registered = |bid: &Bid| {
            list.entries.iter().any(|entry| entry.bid == *bid && entry.expires.is_some())
        };
        let (state, status) = match flow.state {
            FlowState::Pending => (FlowBindingState::Pending, None),
            FlowState::Refused(status) => (FlowBindingState::Refused, Some(status)),
            FlowState::Held if binding.bids.iter().any(registered) => {
                (FlowBindingState::Active, Some(FlowStatus::SUCCESSFUL))
            }
            FlowState::Held => (FlowBindingState::Inactive, Some(FlowStatus::SUCCESSFUL)),
        };
        FlowBindingDocument {
            home: home.home.name.clone(),
            fid: binding.id,
            priority: binding.priority,
            packets: binding.selector.to_string(),
            bids: binding.bids.clone(),
            links: binding.bids.iter().filter_map(|bid| self.link_of(Some(*bid))).collect(),
            rule: home.downlink.rule(binding.id),
            state,
            status: status.map(|status| StatusCode {
                code: status.0,
                name: status.text().unwrap_or("unassigned").to_owned(),
            }),
        }
    }
}

/// What one mobile told its agent, as the agent holds it.
pub(super) fn held(
    home: &mtun_policy::HomeName,
    entry: &BindingCacheEntry,
) -> Vec<FlowBindingDocument> {
    let document = |flow: &FlowBinding| FlowBindingDocument {
        home: home.clone(),
        fid: flow.id,
        priority: flow.priority,
        packets: flow.selector.to_string(),
        bids: flow.bids.clone(),
        links: Vec::new(),
        rule: None,
        state: match entry.is_active(flow) {
            true => FlowBindingState::Active,
            false => FlowBindingState::Inactive,
        },
        status: None,
    };
    entry.flows.iter().map(document).collect()
}

/// Held, pending and refused.
fn counts(list: &BindingUpdateList) -> (usize, usize, usize) {
    let (mut held, mut pending, mut refused) = (0, 0, 0);
    for flow in &list.flows {
        match flow.state {
            FlowState::Held => held += 1,
            FlowState::Pending => pending += 1,
            FlowState::Refused(_) => refused += 1,
        }
    }
    (held, pending, refused)
}

fn taken(home: &mtun_policy::Home, list: &BindingUpdateList) -> FlowBindingsTaken {
    match list.extensions.flow_bindings {
        _ if !is_told(home) => FlowBindingsTaken::Off,
        FlowSupport::Unknown => FlowBindingsTaken::Unknown,
        FlowSupport::Yes => FlowBindingsTaken::Yes,
        FlowSupport::No => FlowBindingsTaken::No,
    }
}

fn digest(list: &BindingUpdateList) -> documents::DigestState {
    match list.extensions.digest {
        DigestState::NotCompared => documents::DigestState::NotCompared,
        DigestState::Agrees => documents::DigestState::Agrees,
        DigestState::Differs => documents::DigestState::Differs,
    }
}

/// What a home knows of the way down at its agent.
pub(super) fn document(home: &MobileHome) -> DownlinkDocument {
    let list = home.node.update_list();
    let (held, pending, refused) = counts(&list);
    DownlinkDocument {
        taken: taken(&home.home, &list),
        reflect: list.extensions.reflect,
        copies: list.extensions.copies,
        held,
        pending,
        refused,
        digest: digest(&list),
    }
}

/// A home agent as its mobile knows it: what it acknowledged, as a snapshot that packets could read.
pub(super) struct AtAgent<'o> {
    owner: &'o Owner,
    home: &'o MobileHome,
    list: BindingUpdateList,
    snapshot: Snapshot,
}

/// What the agent does with one flow.
struct Judged {
    fate: Fate,
    fid: Option<FlowId>,
    /// The bindings, of copies all of them.
    bids: Vec<Option<Bid>>,
}

impl<'o> AtAgent<'o> {
    /// The agent of a home.
    pub fn of(owner: &'o Owner, home: &'o MobileHome) -> Self {
        let list = home.node.update_list();
        let held = list.flows.iter().filter(|flow| flow.state == FlowState::Held);
        let held: Vec<FlowBinding> = held.map(|flow| flow.binding.clone()).collect();
        // One of ours follows the way up where it was told nothing; of another only the RFC is known.
        let ours = list.extensions.digest != DigestState::NotCompared || list.extensions.reflect;
        let unmatched = if ours { Unmatched::Reflect } else { Unmatched::Preferred };
        let default = AgentDefault { unmatched, reflect: list.extensions.reflect };
        let registration = publish::home_at_agent(&home.home, &list, &held, default);
        let snapshot =
            Snapshot { cache: [registration].into_iter().collect(), ..Snapshot::default() };
        Self { owner, home, list, snapshot }
    }

    /// Asks `decide` what it does with the packets of a flow to the mobile; `key` is that of the
    /// packets up, which go by `up`.
    fn judge(&self, key: &FlowKey, up: Option<Bid>, now: Duration) -> Judged {
        let down = key.mirrored();
        // It will have verified what goes up.
        let memory = Remembered { last_verified: up, ..Remembered::default() };
        let fate = explain(&self.snapshot, &down, now, Memory::of(&memory)).fate;
        let bids: Vec<Option<Bid>> = match &fate {
            Fate::Forwarded { bid, .. } => vec![*bid],
            Fate::Replicated(copies) => copies.iter().map(|copy| copy.bid).collect(),
            Fate::BrokenOut { .. } | Fate::NotOurs | Fate::Dropped(_) | Fate::Refused(_) => vec![],
        };
        // The first that is active and names the binding: those behind it are not asked.
        let decides = self.speaking_of(&down).find(|flow| {
            flow.state == FlowState::Held
                && flow.binding.bids.iter().any(|bid| bids.contains(&Some(*bid)))
        });
        Judged { fid: decides.map(|flow| flow.binding.id), fate, bids }
    }

    /// What was told of packets with this key, to the mobile.
    fn speaking_of(&self, down: &FlowKey) -> impl Iterator<Item = &mtun_signaling::RegisteredFlow> {
        let down = *down;
        self.list.flows.iter().filter(move |flow| flow.binding.selector.matches(&down))
    }

    /// What it does with a flow that goes up by `verdict`.
    pub fn explain(
        &self,
        key: &FlowKey,
        verdict: &ExplainVerdict,
        now: Duration,
    ) -> AtAgentDocument {
        let up: Vec<Bid> = match verdict {
            ExplainVerdict::Forward { bid, .. } => bid.iter().copied().collect(),
            ExplainVerdict::Copies { bids, .. } => bids.clone(),
            _ => Vec::new(),
        };
        let judged = self.judge(key, up.first().copied(), now);
        let down = key.mirrored();
        let entries = self.speaking_of(&down);
        let entries = entries
            .map(|flow| self.owner.flow_binding_document(self.home, &self.list, flow))
            .collect();
        let mut downs: Vec<Bid> = judged.bids.iter().flatten().copied().collect();
        let mut ups = up.clone();
        ups.sort_unstable();
        downs.sort_unstable();
        let mut notes = Vec::new();
        let extensions = self.list.extensions;
        if extensions.reflect && judged.fid.is_some() && up.len() == 1 {
            notes.push(
                "among the bindings of flow bindings for the same packets it takes that of the way \
                 up"
                .to_owned(),
            );
        }
        if judged.fid.is_none() && extensions.flow_bindings != FlowSupport::Yes {
            notes.push("a policy of its own would come before the preferred binding".to_owned());
        }
        AtAgentDocument {
            flow: FlowKeyDocument::new(&down, "other"),
            taken: taken(&self.home.home, &self.list),
            digest: digest(&self.list),
            entries,
            fid: judged.fid,
            verdict: self.verdict(&judged),
            as_uplink: (!up.is_empty()).then(|| ups == downs),
            notes,
        }
    }

    fn verdict(&self, judged: &Judged) -> ExplainVerdict {
        let link = |bid: Option<Bid>| self.owner.link_of(bid);
        match &judged.fate {
            Fate::Forwarded { bid, care_of, .. } => ExplainVerdict::Forward {
                bid: *bid,
                link: link(*bid),
                care_of: Some(*care_of),
                peer: Some(self.home.home.agent.0.into()),
                encapsulation: "ipv6-in-ipv6".to_owned(),
                next_hop: None,
                otherwise: false,
            },
            Fate::Replicated(copies) => ExplainVerdict::Copies {
                bids: copies.iter().filter_map(|copy| copy.bid).collect(),
                links: copies.iter().filter_map(|copy| link(copy.bid)).collect(),
                otherwise: false,
            },
            Fate::Refused(reply) => ExplainVerdict::Block { reply: *reply },
            Fate::Dropped(_) | Fate::BrokenOut { .. } => ExplainVerdict::NoUsableBinding,
            Fate::NotOurs => ExplainVerdict::NotOurs,
        }
    }

    /// How it sends the packets of a flow that goes up by `up`, for the list of flows.
    pub fn of_flow(
        &self,
        key: &FlowKey,
        up: Option<Bid>,
        now: Duration,
    ) -> Option<FlowDownDocument> {
        let judged = self.judge(key, up, now);
        let bid = *judged.bids.first()?;
        let why = match (judged.fid, judged.bids.len()) {
            (Some(_), 1) => "flow-binding",
            (Some(_), _) => "copies",
            (None, _) if bid == up && self.list.extensions.reflect => "follows-uplink",
            (None, _) => "default",
        };
        let path = FlowPath::tunnel(bid, self.owner.link_of(bid));
        Some(FlowDownDocument { path, fid: judged.fid, why: why.to_owned() })
    }
}
