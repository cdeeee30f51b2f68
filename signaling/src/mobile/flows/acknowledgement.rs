//! What a mobile makes of the flow options in an acknowledgement (RFC 6089 §5.2.6).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mtun_policy::{Bid, FlowBinding, FlowId};

use super::super::{MobileNode, MobileNotice};
use super::update::Told;
use super::{Flows, Known, Refusal, SentFlows};
use crate::flow::{DigestState, FlowDigest, FlowSupport};
use crate::registration::{Event, Phase};
use crate::wire::option::FlowExtensions;
use crate::wire::{FlowStatus, Options};

impl MobileNode {
    /// The update was accepted, in part at least, and so its flow options were judged.
    pub(in super::super) fn flows_judged(
        &mut self,
        now: Duration,
        sent: SentFlows,
        options: &Options,
    ) {
        let answers: BTreeMap<FlowId, FlowStatus> =
            options.flows().filter_map(|it| Some((it.flow?, it.status))).collect();
        if !sent.told.is_empty() {
            if answers.is_empty() {
                // req FB-11 (RFC 6089 §5.2.6): it cannot, or will not.
                return self.without_flows(&sent);
            }
            let before = std::mem::replace(&mut self.flows.support, FlowSupport::Yes);
            if before != FlowSupport::Yes && sent.asked.is_none() {
                // One that takes flow bindings after all may speak the rest as well.
                self.flows.speaks = None;
            }
        }
        let SentFlows { told, mut before, left_out, registered, named, .. } = sent;
        for id in left_out {
            self.flows.known.remove(&id);
        }
        let bound =
            |bid: &&Bid| self.registrations.get(bid).is_some_and(|it| it.phase() == Phase::Bound);
        for bid in named.iter().filter(bound) {
            self.flows.lost.remove(bid);
        }
        let mut refused = Vec::new();
        let mut displaced = Vec::new();
        let mut missing = BTreeSet::new();
        let mut lost = false;
        // Whether anything was refused for a reason of its own, and so kept the place it had.
        let mut kept_its_place = false;
        for Told { wish, as_told, whole } in told {
            // req R-MN-31 (RFC 6089 §5.2.6): one that does not come back was not taken.
            let status = answers.get(&wish.id).copied();
            let status = status.unwrap_or(FlowStatus::REASON_UNSPECIFIED);
            let before = before.remove(&wish.id).flatten();
            if status.is_accepted() {
                self.flows.refused.remove(&wish.id);
                self.flows.known.insert(wish.id, Known::certain(&as_told));
            } else if !whole && status == FlowStatus::MALFORMED {
                // Told in part, and perhaps to an agent without the other part: now in full.
                self.flows.known.insert(wish.id, Known::default());
                kept_its_place = true;
            } else {
                // What it held before, it still holds.
                match before {
                    Some(before) => self.flows.known.insert(wish.id, before),
                    None => self.flows.known.remove(&wish.id),
                };
                let unnamed = as_told.bids.iter().copied().filter(|bid| !named.contains(bid));
                let unnamed: Vec<Bid> = unnamed.collect();
                if status == FlowStatus::BID_NOT_FOUND && !unnamed.is_empty() {
                    // The agent has lost bindings that this update did not name: they are
                    // registered anew, and what refers to them is told with that.
                    missing.extend(unnamed);
                    kept_its_place = true;
                } else if status == FlowStatus::MALFORMED {
                    displaced.push((wish, status));
                } else {
                    kept_its_place = true;
                    refused.push((wish, status));
                }
            }
        }
        // Nothing is wrong with what was told in full but for its place, which another one may have
        // had only because it was refused itself: told again without that, or in its new place.
        // What is refused for itself is not told again and again, so neither is this.
        if !kept_its_place {
            refused.append(&mut displaced);
        }
        let others = |id: &&FlowId| !refused.iter().any(|(wish, _)| wish.id == **id);
        let held = self.flows.known.keys().filter(others).count();
        for (wish, status) in refused {
            self.notice(MobileNotice::FlowRefused { flow: wish.id, status });
            let registered = registered.clone();
            self.flows.refused.insert(wish.id, Refusal { wish, status, registered, held });
        }
        for bid in missing {
            self.flows.lost.insert(bid);
            self.apply(bid, Event::RefreshDue);
        }
        // req FB-10 (RFC 6089 §5.3.3): it does not hold what we thought; who knows what else.
        lost |= sent.summarized && answers.values().any(|it| *it == FlowStatus::FID_NOT_FOUND);
        if lost {
            self.notice(MobileNotice::FlowsUnknown);
            self.flows.doubt(now);
        }
        let extensions = options.flow_extensions();
        if sent.asked.is_some() && extensions.is_none() && self.flows.speaks == Some(true) {
            // It does not speak as it did: it is another one, or of another mind.
            self.flows.support = FlowSupport::Unknown;
            self.flows.doubt(now);
        }
        if let Some(asked) = sent.asked {
            self.flows.note_extensions(asked, extensions);
        }
        if !lost {
            self.compare(now, extensions.and_then(|it| it.digest));
        }
    }

    /// The update had no effect: what was known before still is.
    pub(in super::super) fn flows_untouched(&mut self, sent: SentFlows) {
        for (id, before) in sent.before {
            // Unless all was forgotten meanwhile.
            if let Entry::Occupied(mut known) = self.flows.known.entry(id) {
                match before {
                    Some(before) => _ = known.insert(before),
                    None => _ = known.remove(),
                }
            }
        }
    }

    /// The agent takes no flow bindings: it sends by the priority of the BIDs, as others do.
    fn without_flows(&mut self, sent: &SentFlows) {
        let before = std::mem::replace(&mut self.flows.support, FlowSupport::No);
        self.flows.forget();
        if before == FlowSupport::No {
            return;
        }
        // What it refused, it refused when it was of another mind.
        self.flows.refused.clear();
        self.flows.speaks = sent.asked.map(|_| false);
        self.notice(MobileNotice::AgentWithoutFlowBindings);
    }

    /// Compares what the agent says that it holds with what it should.
    fn compare(&mut self, now: Duration, digest: Option<FlowDigest>) {
        let known = self.flows.known.iter();
        let certain: Option<Vec<FlowBinding>> =
            known.map(|(id, known)| known.binding(*id)).collect();
        let (Some(digest), Some(certain)) = (digest, &certain) else {
            self.flows.digest = DigestState::NotCompared;
            if certain.is_some() {
                self.flows.repeats = 0;
            }
            return;
        };
        if digest == FlowDigest::of(certain) {
            self.flows.digest = DigestState::Agrees;
            self.flows.repeats = 0;
        } else {
            self.flows.digest = DigestState::Differs;
            self.notice(MobileNotice::FlowsDiffer);
            self.flows.doubt(now);
        }
    }
}

impl Flows {
    fn note_extensions(&mut self, asked: (bool, bool), granted: Option<FlowExtensions>) {
        self.asked = asked;
        self.speaks = Some(granted.is_some());
        let granted = granted.unwrap_or_default();
        self.granted = (asked.0 && granted.reflect, asked.1 && granted.copies);
    }
}
