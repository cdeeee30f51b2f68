//! The flow bindings that a mobile wants its agent to hold (RFC 6089 §5.2).
//!
//! ```text
//!   FlowsChanged ──► next ──at most once a second──► wanted ──┐
//!                                                             ├─► each update: told, named, left out
//!   what the agent may hold, as far as it is certain ◄────────┘            │
//!          ▲                                                               │
//!          └── statuses and digest of the acknowledgement ◄────────────────┘
//! ```
//!
//! Every update names every flow binding that is to stay, whatever the update is about
//! (RFC 6089 §5.2.3): by its number if the agent is known to hold it as it is wanted, in full if
//! that is not certain, by what differs otherwise. What an update left out or told counts as
//! uncertain until its acknowledgement. A flow binding is told with those of its BIDs that are
//! registered, and told again when another of them is.
//!
//! What the agent refuses is not asked for again until something changed. An agent that answers no
//! Flow Identification option knows none: it sends by the priority of the BIDs. Agents change their
//! minds: each refresh has one such option in it, or our own extension, which is answered as well,
//! so that neither what is held nor that nothing is held is believed for longer than a lifetime.

mod acknowledgement;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use mtun_policy::{Bid, BinarySelector, FlowBinding, FlowId, FlowPriority};

pub(super) use update::SentFlows;

use super::plan::Request;
use super::{MobileNode, MobileNotice, MobileOutput, Mode};
use crate::flow::{DigestState, FlowState, FlowSupport, MAX_FLOWS, PeerExtensions, RegisteredFlow};
use crate::registration::{MAX_BINDACK_TIMEOUT, Phase, Registration, refusal_wait};
use crate::wire::FlowStatus;
use crate::wire::option::is_writable;

/// How far apart changes of the policy's wishes are begun, if nothing else is to be said.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// Most BIDs in one flow binding: as many as one update registers.
const MAX_COPIES: usize = 32;

/// Why a flow binding cannot be sent, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowFault {
    /// Another one has its number.
    Number,
    /// Another one has its place (RFC 6089 §4.2).
    Place,
    /// It has no BID, or too many.
    Bids,
    /// Its selector has no form on the wire.
    Selector,
    /// There are too many.
    TooMany,
}

impl fmt::Display for FlowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "another one has its number",
            Self::Place => "another one has its place",
            Self::Bids => "it has no BID, or too many",
            Self::Selector => "its selector has no form on the wire",
            Self::TooMany => "there are too many",
        })
    }
}

/// What the policy wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// By rising FID-PRI.
    flows: Vec<FlowBinding>,
    reflect: bool,
    copies: bool,
}

/// What the agent may hold under one FID, as far as it is certain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    priority: Option<FlowPriority>,
    selector: Option<BinarySelector>,
    bids: Option<Vec<Bid>>,
}

impl Known {
    fn certain(flow: &FlowBinding) -> Self {
        Self {
            priority: Some(flow.priority),
            selector: Some(flow.selector.clone()),
            bids: Some(flow.bids.clone()),
        }
    }

    fn is_certain(&self) -> bool {
        self.priority.is_some() && self.selector.is_some() && self.bids.is_some()
    }

    /// The flow binding, if it is certain.
    fn binding(&self, id: FlowId) -> Option<FlowBinding> {
        let (priority, selector) = (self.priority?, self.selector.clone()?);
        Some(FlowBinding { id, priority, selector, bids: self.bids.clone()? })
    }
}

/// A wish that the agent refused.
#[derive(Clone, Debug)]
struct Refusal {
    wish: FlowBinding,
    status: FlowStatus,
    /// The BIDs that were registered then.
    registered: BTreeSet<Bid>,
    /// How many others the agent held then.
    held: usize,
}

/// What is to be done about one wish.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The agent holds it.
    Stays,
    /// It is to be told, its selector or its BIDs only where they are new.
    Tell { selector: bool, bids: Option<Vec<Bid>> },
    /// Nothing can be done: refused, or none of its BIDs is registered.
    Wait,
}

/// What is wanted, and what is known of the agent.
#[derive(Debug, Default)]
pub(super) struct Flows {
    wanted: Wanted,
    /// What is wanted since, as the last change is not old enough.
    next: Option<Wanted>,
    /// When the last change was begun.
    changed: Option<Duration>,
    known: BTreeMap<FlowId, Known>,
    refused: BTreeMap<FlowId, Refusal>,
    /// BIDs that the agent had accepted and said it does not know (status 131), until it accepts
    /// them again.
    lost: BTreeSet<Bid>,
    support: FlowSupport,
    /// Whether the agent answers what is asked for beyond RFC 6089, once that is known.
    speaks: Option<bool>,
    /// What was asked for beyond RFC 6089 by the last update that was acknowledged.
    asked: (bool, bool),
    granted: (bool, bool),
    /// What of this was said last.
    said: (bool, bool),
    digest: DigestState,
    /// How often in a row everything had to be told again.
    repeats: u32,
    /// No update for flow bindings alone leaves before.
    hold: Duration,
}

impl Flows {
    /// From when on a change may be begun by an update of its own.
    fn change_due(&self) -> Duration {
        self.changed.map_or(Duration::ZERO, |changed| changed + CHANGE_INTERVAL)
    }

    fn may_change(&self, now: Duration) -> bool {
        self.change_due() <= now
    }

    /// Takes up what is wanted since.
    fn take_up(&mut self, now: Duration) {
        if let Some(next) = self.next.take() {
            self.wanted = next;
            self.changed = Some(now);
            let wanted = &self.wanted.flows;
            self.refused.retain(|_, refusal| wanted.contains(&refusal.wish));
        }
    }

    /// The agent holds nothing.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.lost.clear();
        self.digest = DigestState::NotCompared;
        self.granted = (false, false);
        self.asked = (false, false);
    }

    /// What the agent agrees to, if that is not what was said last.
    pub(super) fn agreement_changed(&mut self) -> Option<MobileOutput> {
        if std::mem::replace(&mut self.said, self.granted) == self.granted {
            return None;
        }
        let (reflect, copies) = self.granted;
        Some(MobileOutput::Agreed { reflect, copies })
    }

    /// Nothing of what the agent holds is certain: all is told again, at once the first time and
    /// ever more rarely if that does not help.
    fn doubt(&mut self, now: Duration) {
        self.known.values_mut().for_each(|known| *known = Known::default());
        self.repeats = self.repeats.saturating_add(1);
        if self.repeats > 1 {
            self.hold = now + refusal_wait(self.repeats - 1);
        }
    }

    /// Asks anew whether the agent takes flow bindings, and for what it refused.
    pub(super) fn ask_again(&mut self) {
        if self.support == FlowSupport::No {
            self.support = FlowSupport::Unknown;
        }
        self.speaks = None;
        self.refused.clear();
        self.hold = Duration::ZERO;
        self.repeats = 0;
    }

    /// The refusal of this wish, unless what was refused has changed.
    fn refusal(&self, wish: &FlowBinding, registered: &BTreeSet<Bid>) -> Option<FlowStatus> {
        let refusal = self.refused.get(&wish.id).filter(|refusal| refusal.wish == *wish)?;
        let stands = match refusal.status {
            FlowStatus::BID_NOT_FOUND => refusal.registered == *registered,
            // Too many: fewer are held by now.
            FlowStatus::REASON_UNSPECIFIED => {
                self.known.keys().filter(|id| **id != wish.id).count() >= refusal.held
            }
            _ => true,
        };
        stands.then_some(refusal.status)
    }

    fn step(&self, wish: &FlowBinding, registered: &BTreeSet<Bid>) -> Step {
        if self.refusal(wish, registered).is_some() {
            return Step::Wait;
        }
        let known = self.known.get(&wish.id);
        // req FB-14 (RFC 6089 §4.3): a BID that is gone stays in its list.
        let whole = known.is_some_and(|known| known.bids.as_ref() == Some(&wish.bids));
        let bids = if whole {
            None
        } else {
            let bids: Vec<Bid> =
                wish.bids.iter().copied().filter(|bid| registered.contains(bid)).collect();
            if bids.is_empty() {
                return Step::Wait;
            }
            Some(bids).filter(|bids| known.is_none_or(|known| known.bids.as_ref() != Some(bids)))
        };
        let selector = known.is_none_or(|known| known.selector.as_ref() != Some(&wish.selector));
        let moved = known.is_none_or(|known| known.priority != Some(wish.priority));
        if selector || moved || bids.is_some() {
            Step::Tell { selector, bids }
        } else {
            Step::Stays
        }
    }

    /// Whether an update would change something at the agent.
    fn has_news(&self, registered: &BTreeSet<Bid>) -> bool {
        let mut stay = 0;
        for wish in &self.wanted.flows {
            match self.step(wish, registered) {
                Step::Tell { .. } => return true,
                Step::Stays => stay += 1,
                Step::Wait => {}
            }
        }
        let asks = (self.wanted.reflect, self.wanted.copies);
        stay < self.known.len() || self.speaks != Some(false) && self.asked != asks
    }

    /// What is wanted last.
    fn latest(&self) -> &Wanted {
        self.next.as_ref().unwrap_or(&self.wanted)
    }
}

impl MobileNode {
    /// The policy wants these from here on.
    pub(super) fn flows_changed(&mut self, flows: Vec<FlowBinding>, reflect: bool, copies: bool) {
        let flows = self.sendable(flows);
        let wanted = Wanted { flows, reflect, copies };
        if *self.flows.latest() == wanted {
            return;
        }
        self.flows.next = Some(wanted).filter(|wanted| *wanted != self.flows.wanted);
    }

    /// Those that can be sent, by rising FID-PRI (req FB-02; RFC 6089 §4.2).
    fn sendable(&mut self, mut flows: Vec<FlowBinding>) -> Vec<FlowBinding> {
        flows.sort_by_key(|flow| (flow.priority, flow.id));
        let mut numbers = BTreeSet::new();
        let mut last = None;
        let mut sendable: Vec<FlowBinding> = Vec::with_capacity(flows.len());
        for flow in flows {
            let fault = if !numbers.insert(flow.id) {
                FlowFault::Number
            } else if last == Some(flow.priority) {
                FlowFault::Place
            } else if flow.bids.is_empty() || flow.bids.len() > MAX_COPIES {
                FlowFault::Bids
            } else if !is_writable(&flow.selector) {
                FlowFault::Selector
            } else if sendable.len() >= usize::from(MAX_FLOWS) {
                FlowFault::TooMany
            } else {
                last = Some(flow.priority);
                sendable.push(flow);
                continue;
            };
            self.notice(MobileNotice::FlowNotSent { flow: flow.id, fault });
        }
        sendable
    }

    /// The BIDs that are registered once this request is accepted; without one, those that are.
    fn registered_bids(&self, request: Option<&Request>) -> BTreeSet<Bid> {
        let granted = self
            .registrations
            .iter()
            .filter(|(bid, entry)| entry.grant().is_some() && !self.flows.lost.contains(bid));
        let mut registered: BTreeSet<Bid> = granted.map(|(&bid, _)| bid).collect();
        match request {
            Some(Request::Register { bids, overwrite: true }) => bids.iter().copied().collect(),
            Some(Request::Register { bids, overwrite: false }) => {
                registered.extend(bids);
                registered
            }
            Some(Request::Deregister { bids }) => {
                registered.retain(|bid| !bids.contains(bid));
                registered
            }
            Some(Request::Plain { .. } | Request::DeregisterAll) => BTreeSet::new(),
            None => registered,
        }
    }

    /// From when on an update is due for flow bindings alone.
    pub(super) fn flows_due(&self) -> Option<Duration> {
        // One that was refused waits, and what is to be said of flow bindings with it.
        let bound = |entry: &Registration| entry.phase() == Phase::Bound;
        let speaks = self.mode != Mode::Single && self.flows.support != FlowSupport::No;
        if !speaks || !self.registrations.values().any(bound) {
            return None;
        }
        let flows = &self.flows;
        let told = flows.next.is_some().then(|| flows.change_due());
        let news = flows.has_news(&self.registered_bids(None)).then_some(Duration::ZERO);
        told.into_iter().chain(news).min().map(|due| due.max(flows.hold))
    }

    /// The flow bindings that are wanted and how far they have come.
    pub(super) fn registered_flows(&self) -> Vec<RegisteredFlow> {
        let registered = self.registered_bids(None);
        let wanted = self.flows.latest().flows.iter();
        wanted
            .map(|binding| {
                let state = match self.flows.refusal(binding, &registered) {
                    Some(status) => FlowState::Refused(status),
                    None if self.flows.step(binding, &registered) == Step::Stays => FlowState::Held,
                    None => FlowState::Pending,
                };
                RegisteredFlow { binding: binding.clone(), state }
            })
            .collect()
    }

    /// What is known of the agent beyond RFC 5648.
    pub(super) fn peer_extensions(&self) -> PeerExtensions {
        let Flows { support, granted: (reflect, copies), digest, .. } = self.flows;
        PeerExtensions { flow_bindings: support, reflect, copies, digest }
    }

    /// An update for flow bindings alone could say nothing of them: not again soon.
    fn put_flows_off(&mut self, now: Duration) {
        self.flows.hold = now + MAX_BINDACK_TIMEOUT;
    }
}
