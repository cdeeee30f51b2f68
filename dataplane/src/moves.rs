//! Moves of flows from link to link (req TN-14): why they happen, and a bounded record of the last ones.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mtun_policy::{Bid, FlowKey, RuleId};

/// Why a flow left its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveReason {
    /// The link carries nothing any more: not registered, not attached, or judged down.
    LinkDown,
    /// The flow's rule does not name the link any more: drained, out of its SLA, over a hard
    /// quota, or its `when` ended.
    LeftRule,
    /// Another policy: the flow's rule is gone, changed, or another one comes before it.
    RuleChanged,
    /// An override sends it elsewhere.
    Steered,
    /// A link that its rule likes better is back.
    Failback,
    /// The override that sent it here ended.
    Ended,
    /// Its packets from the mobile come by another binding now (`reflect`).
    Reflected,
}

impl MoveReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::LinkDown,
        Self::LeftRule,
        Self::RuleChanged,
        Self::Steered,
        Self::Failback,
        Self::Ended,
        Self::Reflected,
    ];

    /// The name used in metrics and by `mtun`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinkDown => "link-down",
            Self::LeftRule => "left-rule",
            Self::RuleChanged => "rule-changed",
            Self::Steered => "steered",
            Self::Failback => "failback",
            Self::Ended => "override-ended",
            Self::Reflected => "reflected",
        }
    }
}

impl std::fmt::Display for MoveReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// That a flow left a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The link it left.
    pub from: Option<Bid>,
    /// Why.
    pub reason: MoveReason,
    /// When.
    pub at: Duration,
}

/// One move of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveRecord {
    /// The flow, as its packets leave here.
    pub key: FlowKey,
    /// The rule under which it leaves now.
    pub rule: Option<RuleId>,
    /// The link it left.
    pub from: Option<Bid>,
    /// The link it leaves by now.
    pub to: Option<Bid>,
    /// Why.
    pub reason: MoveReason,
    /// When.
    pub at: Duration,
}

/// Moves that are kept.
pub(crate) const KEPT: usize = 4096;

/// The last moves, oldest first; those before them are forgotten.
#[derive(Debug, Default)]
pub(crate) struct MoveRing(Mutex<VecDeque<MoveRecord>>);

impl MoveRing {
    /// Keeps one more.
    pub fn note(&self, record: MoveRecord) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(record);
    }

    /// Those kept, oldest first.
    pub fn records(&self) -> Vec<MoveRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}
