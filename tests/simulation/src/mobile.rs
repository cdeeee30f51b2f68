//! A mobile node or router: its machines, its packet loop, its uplinks, as the daemon has them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::{Engine, Settings};
use mtun_policy::steering::{Fact, Steering};
use mtun_policy::{Bid, Effective, Home, MobileNetworkPrefix, Policy};
use mtun_signaling::auth::SecurityAssociation;
use mtun_signaling::binding::BindingUpdateList;
use mtun_signaling::{
    Machine, MobileConfig, MobileNode, NtpTime, Phase, RouteOptimization, RouteOptimizationConfig,
    Timestamp,
};

use crate::copies::Arriving;
use crate::correspondent::{Responder, seed};
use crate::downlink;
use crate::network::Quality;
use crate::publish::{self, PathFacts, Published};
use crate::random::Random;
use crate::straight::Optimizer;
use crate::text::{MobileText, UPLINKS};

/// Flows that an engine of the simulation remembers.
pub const FLOWS: usize = 256;

/// What an uplink is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An access network of the Internet.
    Internet,
    /// The network behind this mobile router.
    Behind(usize),
}

/// Where an uplink is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub care_of: Ipv6Addr,
    pub access: Access,
}

/// One uplink and the link it uses.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    pub attached: Option<Attachment>,
    pub up: Quality,
    pub down: Quality,
    /// It loses what leaves, and what arrives, without saying so.
    pub cut: (bool, bool),
    /// It loses what has a Home Address option or a type 2 routing header, but for the agent's.
    pub eats: bool,
}

/// An acknowledged binding, as the mobile knows it.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub care_of: Ipv6Addr,
    /// On the world's clock.
    pub expires: Duration,
    /// When the acknowledgement came.
    pub at: Duration,
}

/// What steering was told last.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    registered: bool,
    refused: bool,
    attached: bool,
}

/// A mobile.
#[derive(Debug)]
pub struct Mobile {
    pub agent: usize,
    pub text: MobileText,
    pub home: Home,
    policy: Policy,
    pub key: SecurityAssociation,
    pub node: MobileNode,
    steering: Steering,
    told: BTreeMap<Bid, Told>,
    /// What its agent was told of its rules.
    pub told_rules: downlink::Told,
    pub published: Published,
    pub engine: Engine,
    /// Copies that reach it.
    pub arriving: Arriving,
    /// When flows without packets are judged anew, on the node's clock.
    pub reevaluate: Option<Duration>,
    pub uplinks: BTreeMap<Bid, Uplink>,
    /// What the node's monotonic clock said when the world began.
    pub base: Duration,
    /// What its clock of the day said then, in seconds of the Unix clock.
    pub epoch: u64,
    /// When this life began.
    pub born: Duration,
    pub stopped: bool,

    /// The number of the last update, while it must rise.
    pub sequence: Option<u16>,
    /// Number, timestamp and authenticated care-of address of the last update.
    pub outstanding: Option<(u16, Option<NtpTime>, Ipv6Addr)>,
    /// When updates left, the last second's.
    pub sent: VecDeque<Duration>,
    /// Route optimization, if its policy has it.
    pub optimizer: Option<Optimizer>,
    /// Its answers to mobiles that talk to it, if it is to give any.
    pub responder: Option<Responder>,
    pub acknowledged: BTreeMap<Option<Bid>, Acknowledged>,
    /// Every address that was ever had under a BID.
    pub owned: BTreeSet<(Bid, Ipv6Addr)>,
    /// The messages that this life has read.
    pub seen: HashSet<u64>,
}

/// What a start of a node depends on.
#[derive(Clone, Debug)]
pub struct Birth {
    pub now: Duration,
    pub base: Duration,
    pub epoch: u64,
    pub sequence: u16,
}

impl Birth {
    /// This instant on a node's clocks.
    pub fn timestamp(&self) -> Timestamp {
        timestamp(self.now, self.base, self.epoch)
    }
}

/// An instant on a node's clocks.
pub fn timestamp(now: Duration, base: Duration, epoch: u64) -> Timestamp {
    Timestamp {
        monotonic: base + now,
        wall: NtpTime::from_unix(Duration::from_secs(epoch).saturating_add(now)),
    }
}

/// The settings of every engine here.
pub fn settings() -> Settings {
    Settings { flows: FLOWS, ..Settings::default() }
}

impl Mobile {
    /// A mobile whose uplinks are all down.
    pub fn new(agent: usize, text: MobileText, key: SecurityAssociation, birth: &Birth) -> Self {
        let policy = text.policy();
        let home = policy.homes.first().expect("a mobile has a home").clone();
        let (up, down, cut, eats) = (Quality::GOOD, Quality::GOOD, (false, false), false);
        let down = Uplink { attached: None, up, down, cut, eats };
        let bids = (1..=UPLINKS).filter_map(Bid::new);
        let parts = Parts::new(&policy, &home, &key, birth);
        Self {
            agent,
            text,
            home,
            policy,
            key,
            node: parts.node,
            steering: parts.steering,
            told: BTreeMap::new(),
            told_rules: downlink::Told::default(),
            published: parts.published,
            engine: parts.engine,
            arriving: Arriving::default(),
            reevaluate: None,
            uplinks: bids.map(|bid| (bid, down)).collect(),
            base: birth.base,
            epoch: birth.epoch,
            born: birth.now,
            stopped: false,
            sequence: None,
            outstanding: None,
            sent: VecDeque::new(),
            optimizer: None,
            responder: None,
            acknowledged: BTreeMap::new(),
            owned: BTreeSet::new(),
            seen: HashSet::new(),
        }
    }

    /// Starts again with nothing but its policy and its addresses.
    pub fn restart(&mut self, birth: &Birth) {
        let parts = Parts::new(&self.policy, &self.home, &self.key, birth);
        self.node = parts.node;
        self.steering = parts.steering;
        self.published = parts.published;
        self.engine = parts.engine;
        self.arriving = Arriving::default();
        self.told.clear();
        self.told_rules = downlink::Told::default();
        self.reevaluate = None;
        (self.base, self.epoch, self.born) = (birth.base, birth.epoch, birth.now);
        self.sequence = None;
        self.sent.clear();
        self.acknowledged.clear();
        self.seen.clear();
    }

    /// Begins to optimize routes and to answer others, as its text says.
    pub fn begin_straight(&mut self, now: Duration, random: &mut Random) {
        self.optimizer = self.home.route_optimization.map(|plan| {
            let config = RouteOptimizationConfig {
                home_address: self.home.address,
                lifetime: plan.lifetime,
                multiple_coa: self.home.register.multiple_coa,
                max_correspondents: plan.max_correspondents,
            };
            Optimizer::new(RouteOptimization::new(config, seed(random)))
        });
        if let Some(responder) = &mut self.responder {
            responder.restart(now, random);
        }
    }

    /// Goes over to another rule set.
    pub fn adopt(&mut self, now: Duration, rules: usize) {
        self.text.rules = rules;
        self.policy = self.text.policy();
        self.home = self.policy.homes.first().expect("a mobile has a home").clone();
        self.steering.adopt(&self.policy, &self.home, self.base + now);
    }

    /// Its policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// This instant on its clocks.
    pub fn timestamp(&self, now: Duration) -> Timestamp {
        timestamp(now, self.base, self.epoch)
    }

    /// Its home address.
    pub fn home_address(&self) -> Ipv6Addr {
        self.home.address.0
    }

    /// The prefix of a mobile router.
    pub fn prefix(&self) -> Option<MobileNetworkPrefix> {
        self.text.prefix
    }

    /// Whether this address moves with it.
    pub fn owns(&self, address: Ipv6Addr) -> bool {
        self.home_address() == address || self.in_network(address)
    }

    /// Whether this address is in the network behind it.
    pub fn in_network(&self, address: Ipv6Addr) -> bool {
        self.prefix().is_some_and(|prefix| prefix.contains(address))
    }

    /// The addresses at which it takes outer packets.
    pub fn own(&self) -> Vec<Ipv6Addr> {
        self.uplinks.values().filter_map(|it| it.attached.map(|at| at.care_of)).collect()
    }

    /// When something is due, on the world's clock.
    pub fn deadline(&self) -> Option<Duration> {
        let node = self.node.deadline();
        let straight = self.optimizer.as_ref().and_then(Optimizer::deadline);
        let answers = self.responder.as_ref().and_then(|it| it.machine.deadline());
        let held = self.engine.held_until();
        let due = [node, self.steering.deadline(), self.reevaluate, straight, answers, held];
        Some(due.into_iter().flatten().min()?.saturating_sub(self.base))
    }

    /// Whether steering has something to do.
    pub fn steering_is_due(&self, now: Duration) -> bool {
        self.steering.deadline().is_some_and(|at| at <= self.base + now)
    }

    /// What is known of the uplink of a BID.
    pub fn path(&self, bid: Bid) -> Option<PathFacts> {
        self.uplinks.get(&bid)?.attached?;
        Some(PathFacts {
            usable: self.steering.usable(bid),
            attached: self.steering.breaks_out(bid),
            metered: false,
            mtu: 1500,
            figures: self.steering.figures(bid),
        })
    }

    /// Its rules as they stand.
    pub fn effective(&self) -> Arc<Effective> {
        self.steering.effective()
    }

    /// Its registration as packets are to see it.
    pub fn registration(&self) -> mtun_dataplane::Registration {
        let list = self.node.update_list();
        publish::home(&self.home, &list, self.effective(), |bid| self.path(bid))
    }

    /// Tells steering what changed, publishes what follows and judges flows anew.
    pub fn publish(&mut self, now: Duration) {
        let local = self.base + now;
        self.tell_steering(local);
        let (own, registration) = (self.own(), self.registration());
        let (_, changed) = publish::publish_home(&*self.published, registration, &[], own, local);
        if changed {
            self.reevaluate = self.engine.reevaluate(local);
        }
        while self.steering.poll().is_some() {}
    }

    fn tell_steering(&mut self, now: Duration) {
        self.steering.handle_deadline(now);
        let list = self.node.update_list();
        for (&bid, uplink) in &self.uplinks {
            let entry = list.entries.iter().find(|entry| entry.bid == bid);
            let registered = entry.is_some_and(|it| it.is_registered());
            let present = Told {
                registered,
                refused: !registered && entry.is_some_and(|it| it.phase == Phase::Refused),
                attached: uplink.attached.is_some(),
            };
            let known = self.told.entry(bid).or_default();
            if known.attached != present.attached {
                self.steering.handle(now, Fact::Attached { bid, attached: present.attached });
            }
            if present.refused && !known.refused {
                self.steering.handle(now, Fact::Refused { bid });
            }
            if known.registered != present.registered {
                let registered = present.registered;
                self.steering.handle(now, Fact::Registered { bid, registered });
            }
            *known = present;
        }
    }

    /// What the agent must not lose, take away or add to by anybody's word: care-of address and
    /// end of every binding that counts as held.
    pub fn grants(&self) -> Vec<(Bid, Ipv6Addr, Duration)> {
        let entries = self.node.update_list().entries.into_iter();
        entries.filter_map(|it| Some((it.bid, v6(it.care_of)?, it.expires?))).collect()
    }
}

/// The IPv6 address, if it is one.
pub fn v6(care_of: mtun_policy::CareOfAddress) -> Option<Ipv6Addr> {
    match care_of.0 {
        std::net::IpAddr::V6(address) => Some(address),
        std::net::IpAddr::V4(_) => None,
    }
}

/// What a life of a mobile begins with.
struct Parts {
    node: MobileNode,
    steering: Steering,
    published: Published,
    engine: Engine,
}

impl Parts {
    fn new(policy: &Policy, home: &Home, key: &SecurityAssociation, birth: &Birth) -> Self {
        let now = birth.timestamp();
        let config = MobileConfig {
            extensions: mtun_policy::Extensions::default(),
            home: home.name.clone(),
            home_address: home.address,
            agent: home.agent,
            mobile_networks: home.mobile_networks.iter().map(|it| it.prefix).collect(),
            prefix_mode: home.prefix_mode,
            lifetime: home.register.lifetime,
            multiple_coa: home.register.multiple_coa,
            bulk: home.register.bulk,
            returning_home: home.returning_home,
            protection: Some(key.clone()),
            initial_sequence: birth.sequence,
        };
        let empty = BindingUpdateList::new(home.address, home.agent);
        let known = publish::home(home, &empty, Arc::default(), |_| None);
        let published = publish::initial([known], true, Vec::new());
        Self {
            node: MobileNode::new(config, now),
            steering: Steering::new(policy, home, now.monotonic),
            engine: Engine::new(published.clone(), settings()),
            published,
        }
    }
}
