//! The home agent's side of registrations (RFC 6275 §10, RFC 5648 §6, RFC 3963 §6).
//!
//! A [`HomeAgent`] keeps the binding cache of one home network. It is told what arrived and says
//! which acknowledgements to send and for which home addresses the cache changed; whoever
//! forwards packets reads [`HomeAgent::cache`]. What a Binding Update must pass is one list of
//! steps, in the order of RFC 6275, in `accept.rs`.
//!
//! Before an update is authenticated, nothing about it is remembered and nothing is allocated
//! that outlives the call: the records of all mobiles it serves exist from the start, one per
//! configured home address. Refusals are limited per home address, those of forged updates apart
//! from those of genuine ones, so that a stranger can silence neither.
//!
//! Where the home network is a real link, it says for which home addresses its neighbours are to
//! be asked and answered (`home_link.rs`). It answers no correspondent.

mod accept;
mod account;
mod acknowledgement;
mod allowed;
mod extensions;
mod flows;
mod gate;
mod home_agents;
mod home_link;
mod identifiers;
mod lifetime;
mod notice;
mod prefix_advertisement;
mod prefix_delivery;
mod prefixes;
mod record;
mod replay;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::{Bid, Extensions, HomeAddress, HomeAgentAddress, MobileNetworkPrefix};

pub use account::Account;
pub use gate::{Gate, Standing};
pub use home_agents::{
    HomeAgents, HomeAgentsConfig, HomeAgentsEvent, HomeAgentsNotice, HomeAgentsOutput, ListedAgent,
};
pub use home_link::{Defence, Detection, HomeLink, link_local_of};
pub use lifetime::PrefixLifetime;
pub use notice::{AgentNotice, Ignored};
pub use record::{KeptBinding, MobileRecord, RECORD_FORMAT, RecordError};
pub use replay::{MAX_DELETE_BCE_TIMEOUT, TIMESTAMP_TOLERANCE};

use crate::auth::SecurityAssociation;
use crate::binding::{BindingCache, BindingCacheEntry};
use crate::budget::Budget;
use crate::machine::{Envelope, Machine, Transmit};
use crate::shares::Shares;
use crate::time::Timestamp;
use crate::wire::icmpv6::neighbour_discovery::LinkLayerAddress;
use allowed::Left;
use extensions::Tellings;
use home_link::Presence;
use prefix_delivery::Deliveries;
use prefixes::PrefixTable;
use replay::{AgentClock, Replay};

/// Binding Errors a second to one /64 (RFC 6275 §9.3.3).
const BINDING_ERRORS: u32 = 10;

/// What a home agent needs to know about the home network it serves.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The agent's own address.
    pub address: HomeAgentAddress,
    /// The home network; home addresses lie in it or in a mobile's own prefix.
    pub prefix: Ipv6Net,
    /// Where the home addresses are.
    pub home_link: HomeLink,
    /// Longest lifetime that is granted.
    pub max_lifetime: Duration,
    /// When mobiles are advised to refresh their bindings. None where bindings are kept over a
    /// restart (RFC 6275 §10.3.1).
    pub refresh_advice: Option<Duration>,
    /// Whether mobiles are asked for bindings that are about to end (RFC 6275 §9.5.5).
    pub refresh_requests: bool,
    /// Whether several care-of addresses may be registered (else status 166).
    pub multiple_coa: bool,
    /// Whether one update may register several of them (else status 168).
    pub bulk: bool,
    /// Whether mobiles may have flow bindings (RFC 6089); otherwise all their options of it are
    /// skipped, as if this agent did not know them.
    pub flow_bindings: bool,
    /// Messages beyond RFC 6275 that are switched on.
    pub extensions: Extensions,
    /// Another number than in an earlier run says that what was registered then is lost (RFC 5847
    /// §3.4).
    pub restart_counter: u32,
    /// The mobiles that are served, each home address once.
    pub mobiles: Vec<AgentMobile>,
}

/// One mobile that may register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentMobile {
    /// Its home address.
    pub address: HomeAddress,
    /// The prefixes it may have forwarded; empty for a mobile node.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// Key shared with it; `None` only for the policy's `security none`.
    pub protection: Option<SecurityAssociation>,
    /// Most bindings it may have at a time.
    pub max_bindings: u16,
    /// Most flow bindings it may have at a time, at most [`MAX_FLOWS`](crate::flow::MAX_FLOWS);
    /// more are refused (status 129).
    pub max_flows: u16,
    /// Most care-of addresses that one of them may have, so that each packet goes to as many at
    /// most; one with more is refused (status 128).
    pub max_copies: u8,
    /// Whether its downlink may follow its uplink within a flow binding, if it asks.
    pub reflect: bool,
    /// Whether copies may carry a sequence for the receiver, if it asks.
    pub copies: bool,
    /// Whether it may not register for the time being (status 129).
    pub refused: bool,
    /// Bindings that it may not register for the time being (status 129).
    pub refused_bids: Vec<Bid>,
}

/// What may happen to a home agent.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// A Mobility Header arrived.
    Received {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole header.
        message: Vec<u8>,
    },
    /// The policy changed. Bindings that it no longer allows end; what is remembered against
    /// replays stays.
    Reconfigure(AgentConfig),
    /// Whether what mobiles leave behind can be kept over a restart. While it cannot, updates are
    /// refused (status 130) and what is bound stays (req PS-08).
    Keeping(bool),
    /// An ICMPv6 message of type 146 arrived.
    Solicited {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole message.
        message: Vec<u8>,
    },
    /// This mobile may register, with this grant, from here on; others are not concerned. What it
    /// has bound and may not keep ends.
    Allow(AgentMobile),
    /// This mobile is not served any more; others are not concerned.
    Disallow {
        /// Its home address.
        home_address: HomeAddress,
    },
    /// This mobile may register no more, or may again. What it has bound ends.
    Prohibit {
        /// Its home address.
        home_address: HomeAddress,
        /// Whether it is refused (status 129).
        prohibited: bool,
    },
    /// The operator ends what this mobile has bound; it may register again.
    End {
        /// Its home address.
        home_address: HomeAddress,
    },
    /// This mobile is to go to one of these agents, or to whichever it finds if none is named
    /// (RFC 5142). It is refused an extension of its bindings from then on.
    Switch {
        /// Its home address.
        home_address: HomeAddress,
        /// The agents, most preferred first.
        agents: Vec<Ipv6Addr>,
    },
    /// A router on the home link advertised the home prefix.
    PrefixAdvertised {
        /// How long it is valid, in seconds; the highest number is for ever.
        valid: u32,
        /// How long it is preferred.
        preferred: u32,
    },
    /// The home prefix has another lifetime than before; at the start it has no end.
    HomePrefix(PrefixLifetime),
    /// What became of a [`AgentOutput::CheckDuplicate`].
    DuplicateChecked {
        /// The home address.
        home_address: HomeAddress,
        /// What it came to.
        detection: Detection,
    },
    /// Accept nothing more.
    Stop,
}

/// What a home agent wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentOutput {
    /// Send this message.
    Transmit(Transmit),
    /// Send this ICMPv6 message.
    Advertise(Transmit),
    /// The cache changed for this home address. Precedes the acknowledgement that says so.
    Changed {
        /// The home address.
        home_address: HomeAddress,
        /// Whether packets are treated otherwise than before; false when only lifetimes changed.
        effective: bool,
    },
    /// What an authentic update left behind differs from before: see [`HomeAgent::record`]. Who
    /// keeps records over restarts lets the messages that follow wait until this one is safe
    /// (req PS-01); packets need not wait.
    Keep {
        /// The mobile.
        home_address: HomeAddress,
    },
    /// Look whether somebody on the home link has this home address (RFC 6275 §10.3.1) and say by
    /// [`AgentEvent::DuplicateChecked`]; an update waits for it.
    CheckDuplicate {
        /// The home address.
        home_address: HomeAddress,
        /// Whether its [link-local companion](link_local_of) has to be looked for too.
        link_local: bool,
    },
    /// Tell the neighbours that this home address is here, and answer for it from now on.
    Defend {
        /// The home address.
        home_address: HomeAddress,
        /// How.
        defence: Defence,
    },
    /// Answer for it no more.
    Undefend {
        /// The home address.
        home_address: HomeAddress,
    },
    /// Where on the home link a mobile is that must not be asked for by neighbour discovery.
    Neighbour {
        /// The home address.
        home_address: HomeAddress,
        /// Where packets for it go; `None` when it is not there any more, or can be asked.
        link_layer: Option<LinkLayerAddress>,
    },
    /// Something for the log and the counters.
    Notice(AgentNotice),
}

/// What the agent keeps for one configured mobile, bound or not.
#[derive(Debug)]
struct Served {
    mobile: AgentMobile,
    replay: Replay,
    presence: Presence,
    /// Mobile Prefix Advertisements.
    advertisements: Budget,
    account: Account,
    /// Answers to questions whether we are there.
    heartbeats: Budget,
    /// When its entry is looked at for bindings that have run out.
    expiry: Option<Duration>,
    /// When its entry is looked at for bindings that are about to end.
    request: Option<Duration>,
    /// Answers to updates that fail authentication.
    forged: Budget,
    /// Refusals of authenticated updates.
    refusals: Budget,
}

impl Served {
    fn new(mobile: AgentMobile) -> Self {
        Self {
            mobile,
            replay: Replay::default(),
            presence: Presence::default(),
            advertisements: Budget::new(1, Duration::from_secs(1)),
            account: Account::default(),
            heartbeats: Budget::new(2, Duration::from_secs(1)),
            expiry: None,
            request: None,
            forged: Budget::new(3, Duration::from_secs(1)),
            // A mobile may send three updates a second (RFC 6275 §11.8) and gets all answers.
            refusals: Budget::new(8, Duration::from_millis(333)),
        }
    }
}

/// The agent of one home network.
#[derive(Debug)]
pub struct HomeAgent {
    address: HomeAgentAddress,
    home_network: Ipv6Net,
    home_link: HomeLink,
    home_prefix: PrefixLifetime,
    max_lifetime: Duration,
    refresh_advice: Option<Duration>,
    refresh_requests: bool,
    multiple_coa: bool,
    bulk: bool,
    flow_bindings: bool,
    extensions: Extensions,
    restart_counter: u32,
    tellings: Tellings,
    deliveries: Deliveries,
    left: Left,
    served: HashMap<HomeAddress, Served>,
    clock: AgentClock,
    prefixes: PrefixTable,
    cache: BindingCache,
    /// When each entry of the cache is looked at for bindings that have run out: at the next
    /// expiry, or before that. A refresh moves the expiry away and leaves the look where it was.
    expiries: BTreeSet<(Duration, HomeAddress)>,
    /// When mobiles are asked for bindings that are about to end.
    requests: BTreeSet<(Duration, HomeAddress)>,
    /// Home addresses of which it is not known yet whether somebody else has them.
    searching: HashSet<HomeAddress>,
    /// Binding Errors, which go to anybody.
    errors: Shares,
    /// Whether what mobiles leave behind can be kept.
    keeping: bool,
    stopped: bool,
    configured: u64,
    out: VecDeque<AgentOutput>,
}

impl HomeAgent {
    /// An agent without bindings.
    pub fn new(config: AgentConfig) -> Self {
        let prefixes = PrefixTable::new(&config);
        // Something that nobody outside knows, and that a replay of the same events finds again.
        let places_key = config.mobiles.iter().find_map(|it| it.protection.as_ref());
        let places_key = places_key.map_or(0, SecurityAssociation::places_key);
        Self {
            address: config.address,
            home_network: config.prefix,
            home_link: config.home_link,
            home_prefix: PrefixLifetime::default(),
            max_lifetime: config.max_lifetime,
            refresh_advice: config.refresh_advice,
            refresh_requests: config.refresh_requests,
            multiple_coa: config.multiple_coa,
            bulk: config.bulk,
            flow_bindings: config.flow_bindings,
            extensions: config.extensions,
            restart_counter: config.restart_counter,
            tellings: Tellings::default(),
            deliveries: Deliveries::default(),
            served: config
                .mobiles
                .into_iter()
                .map(|mobile| (mobile.address, Served::new(mobile)))
                .collect(),
            clock: AgentClock::default(),
            prefixes,
            cache: BindingCache::default(),
            left: Left::new(),
            expiries: BTreeSet::new(),
            requests: BTreeSet::new(),
            searching: HashSet::new(),
            errors: Shares::new(places_key, BINDING_ERRORS),
            keeping: true,
            stopped: false,
            configured: 0,
            out: VecDeque::new(),
        }
    }

    /// What is registered, as of the last event.
    pub fn cache(&self) -> &BindingCache {
        &self.cache
    }

    /// What has come of a mobile's updates; `None` for one that is not served.
    pub fn account(&self, home_address: HomeAddress) -> Option<&Account> {
        Some(&self.served.get(&home_address)?.account)
    }

    /// The agent's own address.
    pub fn address(&self) -> HomeAgentAddress {
        self.address
    }

    fn notice(&mut self, notice: AgentNotice) {
        self.out.push_back(AgentOutput::Notice(notice));
    }

    fn ignore(&mut self, source: Ipv6Addr, reason: Ignored) {
        self.notice(AgentNotice::Ignored { source, reason });
    }

    /// Makes `entry` what the cache holds for its home address; no bindings, no entry.
    fn replace(&mut self, now: Duration, entry: BindingCacheEntry) {
        let home_address = entry.home_address;
        let old = self.cache.get(home_address);
        let effective = match old {
            Some(old) => old.differs_in_effect(&entry),
            None => !entry.bindings.is_empty(),
        };
        if old.is_none() && entry.bindings.is_empty() {
            return;
        }
        self.plan_expiry(&entry);
        if entry.bindings.is_empty() {
            self.tellings.unbound(home_address);
            self.deliveries.cancel(home_address);
        }
        self.out.push_back(AgentOutput::Changed { home_address, effective });
        self.plan_request(now, &entry);
        self.tell_home_link(&entry);
        self.cache.put(entry);
    }

    /// Sees to it that this entry is looked at when the first of its bindings ends.
    fn plan_expiry(&mut self, entry: &BindingCacheEntry) {
        let home_address = entry.home_address;
        let Some(expiry) = entry.next_expiry() else { return };
        let Some(served) = self.served.get_mut(&home_address) else { return };
        match served.expiry {
            Some(planned) if planned <= expiry => return,
            Some(planned) => drop(self.expiries.remove(&(planned, home_address))),
            None => {}
        }
        served.expiry = Some(expiry);
        self.expiries.insert((expiry, home_address));
    }

    /// Does what is due.
    fn pass_time(&mut self, now: Duration) {
        self.expire(now);
        self.end_with_prefix(now);
        self.request(now);
        self.deliver(now);
    }

    /// Ends the bindings whose lifetime ran out.
    /// req HA-04, MC-18 (RFC 6275 §10.3.2, RFC 5648 §6.2): each binding has its own end.
    fn expire(&mut self, now: Duration) {
        while let Some(&(expiry, home_address)) = self.expiries.first() {
            if expiry > now {
                return;
            }
            self.expiries.pop_first();
            if let Some(served) = self.served.get_mut(&home_address) {
                served.expiry = None;
            }
            let Some(entry) = self.cache.get(home_address) else { continue };
            let mut entry = entry.clone();
            if entry.next_expiry().is_some_and(|expiry| expiry > now) {
                self.plan_expiry(&entry);
                continue;
            }
            let ended: Vec<_> =
                entry.bindings.extract_if(.., |binding| binding.expires <= now).collect();
            for binding in ended {
                self.notice(AgentNotice::Expired { home_address, bid: binding.bid });
            }
            if entry.bindings.is_empty()
                && let Some(served) = self.served.get_mut(&home_address)
            {
                served.replay.expired(now);
            }
            self.replace(now, entry);
        }
    }
}

impl Machine for HomeAgent {
    type Event = AgentEvent;
    type Output = AgentOutput;

    fn handle(&mut self, now: Timestamp, event: AgentEvent) {
        self.pass_time(now.monotonic);
        match event {
            AgentEvent::Received { envelope, .. } if self.stopped => {
                self.ignore(envelope.source, Ignored::Stopped);
            }
            AgentEvent::Received { envelope, message } => self.received(now, &envelope, &message),
            AgentEvent::Reconfigure(config) => self.reconfigure(now.monotonic, config),
            AgentEvent::Keeping(keeping) => self.keeping = keeping,
            AgentEvent::Solicited { envelope, .. } if self.stopped => {
                self.ignore(envelope.source, Ignored::Stopped);
            }
            AgentEvent::Solicited { envelope, message } => {
                self.solicited(now.monotonic, &envelope, &message);
            }
            AgentEvent::Allow(mobile) => self.allow(now.monotonic, mobile),
            AgentEvent::Disallow { home_address } => self.disallow(now.monotonic, home_address),
            AgentEvent::Prohibit { home_address, prohibited } => {
                self.prohibit(now.monotonic, home_address, prohibited);
            }
            AgentEvent::End { home_address } => self.end_by_hand(now.monotonic, home_address),
            AgentEvent::PrefixAdvertised { valid, preferred } => {
                self.prefix_advertised(now.monotonic, valid, preferred);
            }
            AgentEvent::HomePrefix(lifetime) => self.set_home_prefix(now.monotonic, lifetime),
            AgentEvent::DuplicateChecked { home_address, detection } => {
                self.duplicate_checked(now.monotonic, home_address, detection);
            }
            AgentEvent::Switch { home_address, agents } => {
                self.switch(now.monotonic, home_address, agents);
            }
            AgentEvent::Stop => self.stopped = true,
        }
        self.say(now);
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        self.pass_time(now.monotonic);
        self.say(now);
    }

    fn poll(&mut self) -> Option<AgentOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        let first = |times: &BTreeSet<(Duration, HomeAddress)>| times.first().map(|it| it.0);
        let prefix = self.home_prefix.valid_until.filter(|_| !self.cache.is_empty());
        let said = self.tellings.deadline();
        let told = self.deliveries.deadline();
        let all = [first(&self.expiries), first(&self.requests), prefix, said, told];
        all.into_iter().flatten().min()
    }
}
