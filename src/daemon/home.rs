//! One home of a mobile: its tunnel, its registration machine, its rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, Effective, Home, Override};
use mtun_signaling::machine::Machine;
use mtun_signaling::mobile::{MobileConfig, MobileEvent, MobileNode, MobileOutput};
use mtun_signaling::time::Timestamp;

use super::tunnel::Tunnel;

/// What the last acknowledgement granted, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The care-of address.
    pub care_of: CareOfAddress,
    /// The lifetime granted.
    pub lifetime: Duration,
}

/// One home of a mobile.
#[derive(Debug)]
pub struct MobileHome {
    /// What the policy says of it.
    pub home: Home,
    /// Its home-bound interface and packet loop.
    pub tunnel: Tunnel,
    /// Its registration machine.
    pub node: MobileNode,
    /// Its rules as they stand.
    pub effective: Arc<Effective>,
    /// Overrides by `mtun steer`.
    pub overrides: Vec<Override>,
    /// Lifetimes granted, by BID.
    pub granted: BTreeMap<Option<Bid>, Granted>,
    /// The generation last published.
    pub generation: u64,
    /// Whether the machine has said that it stopped.
    pub stopped: bool,
}

impl MobileHome {
    /// A home that has not registered yet.
    pub fn new(home: Home, tunnel: Tunnel, config: MobileConfig, now: Timestamp) -> Self {
        Self {
            home,
            tunnel,
            node: MobileNode::new(config, now),
            effective: Arc::default(),
            overrides: Vec::new(),
            granted: BTreeMap::new(),
            generation: 0,
            stopped: false,
        }
    }

    /// Hands an event to the machine and takes what it wants done.
    pub fn handle(&mut self, now: Timestamp, event: MobileEvent) -> Vec<MobileOutput> {
        self.node.handle(now, event);
        self.outputs()
    }

    /// Lets the machine do what is due and takes what it wants done.
    pub fn handle_deadline(&mut self, now: Timestamp) -> Vec<MobileOutput> {
        match self.node.deadline() {
            Some(deadline) if deadline <= now.monotonic => {
                self.node.handle_deadline(now);
                self.outputs()
            }
            _ => Vec::new(),
        }
    }

    /// Evaluates the rules for this moment; returns whether an override ended.
    pub fn evaluate(&mut self, now: Duration) -> Vec<Override> {
        let (ended, standing) =
            std::mem::take(&mut self.overrides).into_iter().partition(|it| it.until <= now);
        self.overrides = standing;
        // Attachment is the bindings' affair; no link is drained in this slice.
        let facts = mtun_policy::PathFacts::new();
        let effective = mtun_policy::evaluate(&self.home.rules, &self.overrides, &facts, now);
        if *effective != *self.effective {
            self.effective = effective;
        }
        ended
    }

    /// When something is due: the machine's deadline or the end of an override.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let expiry = mtun_policy::steering::next_expiry(&self.overrides, now);
        [self.node.deadline(), expiry].into_iter().flatten().min()
    }

    fn outputs(&mut self) -> Vec<MobileOutput> {
        std::iter::from_fn(|| self.node.poll()).collect()
    }
}
