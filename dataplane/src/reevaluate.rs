//! Flows without packets, decided again after a publication.
//!
//! A flow moves with its next packet. One that is silent would be shown on a link it will never
//! use again; so after each publication everything remembered is decided once more, by the same
//! [`decide`] and with the same memory, in slices so that no caller is held up. What waits for a
//! pause between packets is looked at again when its time is over.
//!
//! A packet that is sent meanwhile wins: the flow table takes the new answer only if the flow is
//! still as it was when it was decided.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mtun_policy::FlowKey;
use mtun_policy::steering::moves::MOVE_BY;

use crate::decide::decide;
use crate::engine::Engine;
use crate::memory::Memory;
use crate::snapshot::Snapshot;

/// Flows of one slice: about a millisecond, a few where a fast path carried them until now.
const SLICE: usize = 2048;

/// How far the work has come.
#[derive(Debug, Default)]
pub(crate) struct Reevaluation(Mutex<Work>);

#[derive(Debug, Default)]
struct Work {
    /// By which it is done; held so that no other can be mistaken for it.
    snapshot: Option<Arc<Snapshot>>,
    left: VecDeque<FlowKey>,
    /// When flows that wait have to be looked at again.
    again: Option<Duration>,
}

impl Engine {
    /// Decides a slice of the remembered flows again after a publication. Returns when to call it
    /// next, `now` if there is more to do; `None` if nothing is left before the next publication.
    pub fn reevaluate(&self, now: Duration) -> Option<Duration> {
        let snapshot = self.snapshot.load_full();
        let mut work = self.reevaluation.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !work.snapshot.as_ref().is_some_and(|held| Arc::ptr_eq(held, &snapshot));
        let is_due = work.left.is_empty() && work.again.is_some_and(|at| at <= now);
        if is_new || is_due {
            *work = Work {
                left: self.flows.keys(|answer| is_new || answer.due.is_some()),
                snapshot: Some(Arc::clone(&snapshot)),
                again: None,
            };
        }
        for _ in 0..SLICE {
            let Some(key) = work.left.pop_front() else { break };
            if let Some(at) = self.reevaluate_one(&snapshot, &key, now) {
                work.again = Some(work.again.map_or(at, |again| again.min(at)));
            }
        }
        if work.left.is_empty() { work.again } else { Some(now) }
    }

    /// Decides one flow again; says until when at most it waits.
    fn reevaluate_one(
        &self,
        snapshot: &Snapshot,
        key: &FlowKey,
        now: Duration,
    ) -> Option<Duration> {
        self.catch_up(key);
        let flow = self.flows.remembered(key)?;
        let before = flow.answer?;
        let memory = Memory { flow: Some(&flow), groups: Some(&self.groups) };
        let decision = decide(snapshot, key, now, memory);
        let answer = decision.answer(key, memory)?;
        let until = answer.due.map(|due| due.since + MOVE_BY);
        if answer == before || !self.flows.resettle(key, &flow, answer) {
            return until;
        }
        if let Some((group, Some(known))) = decision.group() {
            self.groups.resettle(&group, &known, answer);
        }
        self.note_move(&decision, key, &answer);
        until
    }
}
