//! What a mobile makes of the flow options in an acknowledgement (RFC 6089 §5.2.6).

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_policy::{FlowBinding, FlowId};

use super::update::Told;
use super::{Flows, Known, Refusal, SentFlows};
use crate::flow::{DigestState, FlowDigest, FlowSupport};
use crate::mobile::{MobileNode, MobileNotice};
use crate::wire::option::FlowExtensions;
use crate::wire::{FlowStatus, Options};

impl MobileNode {
    /// The update was accepted, in part at least, and so its flow options were judged.
    pub(in crate::mobile) fn flows_judged(
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
            self.flows.support = FlowSupport::Yes;
        }
        let SentFlows { told, mut before, left_out, registered, .. } = sent;
        for id in left_out {
            self.flows.known.remove(&id);
        }
        let mut refused = Vec::new();
        let mut lost = false;
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
            } else {
                // What it held before, it still holds.
                match before {
                    Some(before) => self.flows.known.insert(wish.id, before),
                    None => self.flows.known.remove(&wish.id),
                };
                refused.push((wish, status));
            }
        }
        let others = |id: &&FlowId| !refused.iter().any(|(wish, _)| wish.id == **id);
        let held = self.flows.known.keys().filter(others).count();
        for (wish, status) in refused {
            self.notice(MobileNotice::FlowRefused { flow: wish.id, status });
            let registered = registered.clone();
            self.flows.refused.insert(wish.id, Refusal { wish, status, registered, held });
        }
        // req FB-10 (RFC 6089 §5.3.3): it does not hold what we thought; who knows what else.
        lost |= sent.summarized && answers.values().any(|it| *it == FlowStatus::FID_NOT_FOUND);
        if lost {
            self.notice(MobileNotice::FlowsUnknown);
            self.flows.doubt(now);
        }
        let extensions = options.flow_extensions();
        if let Some(asked) = sent.asked {
            self.flows.note_extensions(asked, extensions);
        }
        if !lost {
            self.compare(now, extensions.and_then(|it| it.digest));
        }
    }

    /// The update had no effect: what was known before still is.
    pub(in crate::mobile) fn flows_untouched(&mut self, sent: SentFlows) {
        for (id, before) in sent.before {
            // Unless all was forgotten meanwhile.
            if self.flows.known.contains_key(&id) {
                match before {
                    Some(before) => self.flows.known.insert(id, before),
                    None => self.flows.known.remove(&id),
                };
            }
        }
    }

    /// The agent takes no flow bindings: it sends by the priority of the BIDs, as others do.
    fn without_flows(&mut self, sent: &SentFlows) {
        self.flows.support = FlowSupport::No;
        self.flows.forget();
        self.flows.plain = sent.asked.is_some();
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
        self.plain = granted.is_none();
        let granted = granted.unwrap_or_default();
        self.granted = (asked.0 && granted.reflect, asked.1 && granted.copies);
    }
}
