//! What operators ordered by `mtun steer`: before all rules of the file, and only for a while.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effective::RuleHead;
use crate::mobility::Optimize;
use crate::selector::TrafficSelector;
use crate::terms::{Bid, RuleId, RuleName};

/// A flow that an operator sends by a certain link for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// At or above [`RuleId::OVERRIDES`].
    pub id: RuleId,
    /// Which packets.
    pub selector: TrafficSelector,
    /// By which link.
    pub bid: Bid,
    /// When it ends, on the monotonic clock.
    pub until: Duration,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// The filter as it was typed.
    pub text: String,
}

impl Override {
    /// The name under which it stands among the rules.
    pub fn rule_name(&self) -> RuleName {
        RuleName::new(format!("steer-{}", self.id.0.saturating_sub(RuleId::OVERRIDES)))
    }

    /// Tells it from another that has its number later.
    fn identity(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.id, self.bid, self.until, &self.text).hash(&mut hash);
        hash.finish()
    }

    /// Its place among the rules.
    pub(super) fn head(&self, optimize: Option<Optimize>) -> Arc<RuleHead> {
        Arc::new(RuleHead {
            id: self.id,
            name: self.rule_name(),
            selectors: vec![self.selector.clone()],
            exclude: Vec::new(),
            identity: self.identity(),
            optimize,
        })
    }
}
