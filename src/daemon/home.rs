//! One home of a mobile: its tunnel, its registration machine, its rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mtun_policy::probing::Prober;
use mtun_policy::steering::Steering;
use mtun_policy::{Bid, CareOfAddress, Effective, Home};
use mtun_signaling::machine::Machine;
use mtun_signaling::mobile::discovery::PrefixDiscovery;
use mtun_signaling::mobile::{MobileConfig, MobileEvent, MobileNode, MobileOutput};
use mtun_signaling::time::Timestamp;

use super::agent_search::AgentSearch;
use super::downlink::Downlink;
use super::facts::Told;
use super::homecoming::Homecoming;
use super::optimization::Optimization;
use super::probing::Looked;
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
    /// Its care-of addresses at correspondents, if routes are optimized.
    pub optimization: Option<Optimization>,
    /// What follows for its rules from links, bindings and the time.
    pub steering: Steering,
    /// What that was told last.
    pub(super) told: Told,
    /// When its links are asked whether they live.
    pub prober: Prober,
    /// What they had carried when they were looked at last.
    pub(super) looked: Looked,
    /// What its agent is told of the rules.
    pub(super) downlink: Downlink,
    /// Its rules as they were published.
    pub effective: Arc<Effective>,
    /// When flows without packets are to be judged anew.
    pub reevaluate: Option<Duration>,
    /// Lifetimes granted, by BID.
    pub granted: BTreeMap<Option<Bid>, Granted>,
    /// The generation last published.
    pub generation: u64,
    /// How it stands on its home link.
    pub homecoming: Homecoming,
    /// Whether the machine has said that it stopped.
    pub stopped: bool,
    /// The search for an agent, where the policy names none.
    pub(super) search: Option<AgentSearch>,
    /// What is known of the home link's prefixes.
    pub prefixes: PrefixDiscovery,
}

impl MobileHome {
    /// A home that has not registered yet.
    pub fn new(
        home: Home,
        tunnel: Tunnel,
        config: MobileConfig,
        optimization: Option<Optimization>,
        (steering, prober): (Steering, Prober),
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let search = AgentSearch::of(&home, &config)?;
        let prefixes = super::agent_search::prefixes(&home)?;
        Ok(Self {
            search,
            prefixes,
            home,
            tunnel,
            node: MobileNode::new(config, now),
            optimization,
            effective: steering.effective(),
            steering,
            told: Told::default(),
            prober,
            looked: Looked::default(),
            downlink: Downlink::default(),
            reevaluate: None,
            granted: BTreeMap::new(),
            generation: 0,
            homecoming: Homecoming::default(),
            stopped: false,
        })
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

    /// When something is due: for the machines, for steering, for probes, for flows without packets or on the
    /// home link.
    pub fn deadline(&self) -> Option<Duration> {
        let due = [
            self.node.deadline(),
            self.optimization.as_ref().and_then(Optimization::deadline),
            self.steering.deadline(),
            self.prober.deadline(),
            self.reevaluate,
            self.homecoming.deadline(),
            self.search.as_ref().and_then(AgentSearch::deadline),
            self.prefixes.deadline(),
        ];
        due.into_iter().flatten().min()
    }

    /// Whether no correspondent holds a binding that it could be told to end.
    pub fn is_in_the_tunnel(&self) -> bool {
        self.optimization.as_ref().is_none_or(|optimization| optimization.stopped)
    }

    /// Judges a slice of the flows without packets anew.
    pub fn reevaluate(&mut self, now: Duration) {
        self.reevaluate = self.tunnel.lane.engine.reevaluate(now);
    }

    fn outputs(&mut self) -> Vec<MobileOutput> {
        std::iter::from_fn(|| self.node.poll()).collect()
    }
}
