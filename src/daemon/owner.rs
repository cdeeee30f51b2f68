//! The owner loop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mtun_dataplane::Registration;
use mtun_policy::steering::Steering;
use mtun_policy::{
    Bid, CareOfAddress, Effective, HomeAddress, HomeName, InterfaceName, Policy, RuleId,
};
use mtun_signaling::agent::AgentEvent;
use mtun_signaling::mobile::route_optimization::RouteOptimizationEvent;
use mtun_signaling::mobile::{MobileEvent, Stay};
use mtun_signaling::time::Timestamp;
use mtun_signaling::wire::iana::mh;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Options;
use super::apply::{Candidate, InForce, Prepared, Purpose, Trial, Wanted, client_left};
use super::correspondent::{Responder, Strangers};
use super::detector::Claims;
use super::facts::Counted;
use super::history::History;
use super::home::MobileHome;
use super::home_link::home_path;
use super::keeping::Keeping;
use super::key_store::KeyStore;
use super::ledger::LedgerKeeper;
use super::links::Access;
use super::mobiles::Added;
use super::mobility::{Changed, Walk};
use super::path_mtu::PathMtusTold;
use super::preview::Preview;
use super::round_trips::RoundTrips;
use super::served::AgentHome;
use super::service::Service;
use super::sources::Facts;
use super::tunnel::Tunnel;
use crate::arrivals::Door;
use crate::control::documents::{Event, EventDocument, TakenBack};
use crate::control::protocol::PolicySource;
use crate::control::{ControlRequest, Listeners};
use mtun_signaling::wire::icmpv6::neighbour_discovery::LinkLayerAddress;

use crate::edge::alarm::Alarm;
use crate::edge::home_link::HomeLinkEdge;
use crate::edge::movement::{Attachment, DownReason};
use crate::edge::neighbours::{Heard, Neighbours};
use crate::edge::netlink::Netlink;
use crate::edge::nft::{Firewall, Guarded};
use crate::edge::routes::{
    AgentRoutes, CorrespondentRoutes, Desired, HomeRoutes, MobileRoutes, PathRoutes, host,
};
use crate::edge::sysctl::Sysctls;
use crate::edge::watch::Watch;
use crate::metrics::Metrics;
use crate::packets::Shared;
use crate::publish::{self, PathFacts};

/// Care-of addresses remembered; a vehicle passes so many networks in minutes, and a packet is on
/// its way for seconds.
pub(super) const ADDRESSES_KEPT: usize = 32;

/// Octets of the Tunnel Encapsulation Limit that a tunnel packet is given in another tunnel.
const NESTED: u32 = mtun_dataplane::wire::tunnel_limit::HEADER as u32;

/// How long packets to and from a care-of address are under way at most: the path across a mobile
/// network with its queues.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// What is shown of a link: its state as last announced, and since when.
#[derive(Clone, Debug)]
pub struct LinkRecord {
    /// Where it is attached, or why it is not.
    pub state: Result<Attachment, DownReason>,
    /// When that began, on the monotonic clock.
    pub since: Duration,
}

/// An uplink that came up.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its BID.
    pub bid: Bid,
    /// BID-PRI.
    pub priority: u8,
    /// Where it is attached.
    pub attachment: Attachment,
}

/// Binding Acknowledgements and other countable events of signaling.
#[derive(Clone, Debug, Default)]
pub struct SignalingCounts {
    /// Binding Updates sent, by home.
    pub sent: BTreeMap<HomeName, u64>,
    /// Verdicts of agents, by home, link and status.
    pub acknowledged: BTreeMap<(HomeName, String, String), u64>,
    /// Notices, by home and reason.
    pub notices: BTreeMap<(HomeName, &'static str), u64>,
    /// Changes of state, by link, new state and reason.
    pub link_states: BTreeMap<(InterfaceName, &'static str, &'static str), u64>,
    /// Messages to correspondents, by home and kind.
    pub route_messages: BTreeMap<(HomeName, &'static str), u64>,
    /// Tries that failed and routes that fell back to the tunnel, by home and reason.
    pub route_failures: BTreeMap<(HomeName, String), u64>,
}

impl SignalingCounts {
    /// Counts a message to a correspondent.
    pub(super) fn sent_to_correspondent(&mut self, home: &HomeName, message: &[u8]) {
        let kind = match message.get(2) {
            Some(&mh::HOME_TEST_INIT) => "home-test-init",
            Some(&mh::CARE_OF_TEST_INIT) => "care-of-test-init",
            _ => "binding-update",
        };
        *self.route_messages.entry((home.clone(), kind)).or_default() += 1;
    }

    /// Counts that packets do not go straight, for a reason of one word.
    pub(super) fn fallen_back(&mut self, home: &HomeName, reason: String) {
        *self.route_failures.entry((home.clone(), reason)).or_default() += 1;
    }
}

/// Everything the daemon owns.
pub struct Owner {
    pub(super) options: Options,
    pub(super) policy: Arc<Policy>,
    /// The same with its texts and its place in the history.
    pub(super) in_force: InForce,
    pub(super) history: History,
    /// The keys of the policy in force.
    pub(super) keys: KeyStore,
    /// What was added to it while it was in force.
    pub(super) added: Added,
    /// The policy in force, if it has to be confirmed.
    pub(super) trial: Option<Trial>,
    /// Where policies go that were read in threads of their own, and where they come from.
    pub(super) preparing: mpsc::Sender<Prepared>,
    pub(super) ready: mpsc::Receiver<Prepared>,
    /// The same for policies that are only to be compared.
    pub(super) previewing: mpsc::Sender<Preview>,
    pub(super) previews: mpsc::Receiver<Preview>,
    /// The last policy that was refused, for the health line.
    pub(super) refused: Option<String>,
    pub(super) started: Duration,
    /// Wakes it when something is due.
    pub(super) alarm: Alarm,
    pub(super) shared: Arc<Shared>,
    pub(super) netlink: Arc<Netlink>,
    pub(super) firewall: Firewall,
    pub(super) sysctls: Sysctls,
    /// Every address of this machine, with its interface.
    pub(super) addresses: BTreeSet<(u32, Ipv6Addr)>,
    pub(super) watch: Watch,
    pub(super) access: BTreeMap<InterfaceName, Access>,
    pub(super) links: BTreeMap<InterfaceName, LinkRecord>,
    /// Interfaces that rules name, with their indices at this moment.
    pub(super) ingress_indices: BTreeMap<InterfaceName, u32>,
    /// Links of networks behind us that have been told how to hand on what they receive.
    pub(super) fronts: BTreeSet<u32>,
    pub(super) homes: Vec<MobileHome>,
    pub(super) served: Vec<AgentHome>,
    /// What mobiles left, written down; `None` if no home network is served.
    pub(super) keeping: Option<Keeping>,
    /// This node as a correspondent, if it is one.
    pub(super) responder: Option<Responder>,
    /// How it answers mobiles if it is none.
    pub(super) strangers: Strangers,
    pub(super) counts: SignalingCounts,
    /// How long home agents take to answer.
    pub(super) round_trips: RoundTrips,
    /// What is known of radios and of the vehicle.
    pub(super) facts: Facts,
    /// What people know of the paths of links.
    pub(super) path_mtus_told: PathMtusTold,
    /// What links carried, and who knows of it.
    pub(super) counted: Counted,
    /// Writes down what was counted of quotas.
    pub(super) ledger: LedgerKeeper,
    pub(super) next_override: u16,
    /// Who made each override, by user number.
    pub(super) override_owners: BTreeMap<RuleId, Option<u32>>,
    /// The control socket and the metrics listener; they end with the daemon.
    pub(super) tasks: Vec<JoinHandle<()>>,
    /// What is scraped, if anything is.
    pub(super) metrics: Option<Arc<Metrics>>,
    /// Those who listen to what happens, and what they were not told yet.
    pub(super) listeners: Listeners,
    pub(super) changed: Changed,
    /// How far what stands has been gathered for whoever began to listen, if not all of it.
    pub(super) walk: Option<Walk>,
    /// Links that movement detectors outside drive.
    pub(super) claims: Claims,
    /// Whether others are heard before what arrived, as it was heard last.
    pub(super) others_first: bool,
    /// For which configurations of the agents the receiving threads have the keys.
    pub(super) doors: Option<u64>,
    pub(super) requests: mpsc::Receiver<ControlRequest>,
    /// What the service manager knows.
    pub(super) service: Service,
    /// What the kernel was told of mobiles that must not be asked, by interface and address.
    pub(super) neighbours_placed: BTreeMap<(u32, Ipv6Addr), LinkLayerAddress>,
    /// Uplinks that came up and wait for the kernel to be ready for them.
    pub(super) attached: Vec<Attached>,
    /// The uplinks on home links, with what is said and heard there.
    pub(super) neighbourhoods: BTreeMap<InterfaceName, Neighbours>,
    /// What neighbours on home links say.
    pub(super) neighbours_heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    /// Care-of addresses of late, the latest last.
    pub(super) recent: Vec<Ipv6Addr>,
    /// The addresses whose packets are heard.
    pub(super) heard: Vec<Ipv6Addr>,
    /// The rules and routes that the kernel was last given.
    pub(super) routed: Desired,
    pub(super) routes_dirty: bool,
    /// Mobiles of served homes to which other routes have to lead, by the home's place.
    pub(super) rerouted: BTreeSet<(usize, HomeAddress)>,
}

impl Owner {
    /// Takes in what exists already, so that the packet guard, rules and routes stand before
    /// anybody is told that the daemon is there.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        let (event, movements) =
            self.watch.report().await.context("cannot list what exists in the kernel")?;
        self.link_event(event.as_ref(), movements);
        self.settle().await;
        self.tell_attached();
        self.settle().await;
        self.homeward().await;
        // Every link has been seen: what a killed run needed and this one does not.
        self.sysctls.restore_inherited();
        Ok(())
    }

    /// Runs until a signal asks for the end, then tidies up.
    pub async fn run(mut self) {
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be watched");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be watched");
        let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be watched");
        self.tell_service();
        loop {
            let sleep = self.until_deadline();
            let others_first = std::mem::take(&mut self.others_first);
            tokio::select! {
                biased;
                report = self.watch.report() => match report {
                    Ok((event, movements)) => self.link_event(event.as_ref(), movements),
                    Err(error) => {
                        tracing::error!(%error, "the kernel's reports about links have ended");
                        break;
                    }
                },
                () = self.shared.arrivals.ready(), if !others_first => self.hear(),
                Some(heard) = self.neighbours_heard.1.recv() => self.heard(&heard),
                told = self.facts.told() => self.source_told(told),
                Some(request) = self.requests.recv() => self.answer(request).await,
                Some(prepared) = self.ready.recv() => self.prepared(prepared).await,
                Some(preview) = self.previews.recv() => self.previewed(preview),
                () = self.claims.left() => self.detectors_left(),
                () = client_left(self.trial.as_mut()) => {
                    self.trial_over(TakenBack::ClientLeft).await;
                }
                Some(health) = Keeping::health(&mut self.keeping) => self.store_health(health),
                () = self.shared.paths.carried.notified() => self.carried(),
                () = self.shared.noted.notified() => self.noted(),
                () = self.alarm.after(sleep) => {
                    self.deadlines();
                    self.trial_deadline().await;
                }
                _ = hangup.recv() => self.reload(),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = std::future::ready(()), if self.walk.is_some() => self.show_more(),
                () = self.shared.arrivals.ready(), if others_first => self.hear(),
            }
            self.settle().await;
            self.tell_attached();
            self.settle().await;
            self.homeward().await;
            self.show_changes();
            self.tell_service();
        }
        self.stop().await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn tell(&self, event: Event) {
        tracing::info!("{event}");
        self.listeners.tell(EventDocument::now(event));
    }

    /// The same for what anybody may cause as often as they like: those who watch see it, and the
    /// log is not filled with it.
    pub(super) fn whisper(&self, event: Event) {
        tracing::debug!("{event}");
        self.listeners.tell(EventDocument::now(event));
    }

    pub(super) fn until_deadline(&self) -> Duration {
        let now = self.now().monotonic;
        let homes = self.homes.iter().filter_map(MobileHome::deadline);
        let served = self.served.iter().filter_map(AgentHome::deadline);
        let served = served.chain(self.responder.as_ref().and_then(Responder::deadline));
        let trial = self.trial.as_ref().map(|trial| trial.until);
        let tick = (!self.homes.is_empty()).then_some(self.counted.next);
        let next =
            homes.chain(served).chain(trial).chain(tick).chain(self.service.deadline()).min();
        next.map_or(Duration::from_secs(3600), |next| next.saturating_sub(now))
    }

    // ---- publication ---------------------------------------------------------------------------

    pub(super) fn link_of(&self, bid: Option<Bid>) -> Option<InterfaceName> {
        Some(self.policy.interface_of(bid?)?.name.clone())
    }

    /// The addresses at which this node takes outer packets.
    pub(super) fn own_addresses(&self) -> Vec<Ipv6Addr> {
        let mut own = self.recent.clone();
        // Requests for home agents go to an address that the kernel does not have.
        let agents = self.served.iter();
        own.extend(agents.flat_map(|it| [it.served.agent.0, it.home_agents.anycast()]));
        // A home address takes what comes through its tunnel and by its care-of addresses.
        let addresses = self.responder.iter().flat_map(|responder| &responder.plan.addresses);
        let further = addresses.filter(|it| self.home_of(HomeAddress(**it)).is_none());
        own.extend(further.filter(|it| !self.recent.contains(it)));
        own.dedup();
        own
    }

    pub(super) fn publish_homes(&mut self) {
        for home in 0..self.homes.len() {
            self.publish_home(home);
        }
    }

    /// Tells steering what changed, publishes what follows, judges flows without packets anew and
    /// tells people, in this order: no flow is born under what was, and none is judged by it.
    pub(super) fn publish_home(&mut self, home: usize) {
        let own = self.hear_own();
        let now = self.now().monotonic;
        self.tell_steering(home, now);
        self.tell_prober(home, now);
        let it = &self.homes[home];
        let path = |bid: Bid| self.path_facts(&self.policy, &it.steering, bid);
        let effective = it.steering.effective();
        let registration = publish::home(&it.home, &it.node.update_list(), effective.clone(), path);
        let published = &*it.tunnel.lane.engine;
        let (generation, changed) =
            publish::publish_home(published, registration, &it.home.also, own, now);
        let it = &mut self.homes[home];
        (it.generation, it.effective) = (generation, effective);
        if changed {
            it.reevaluate(now);
            let home = it.home.name.clone();
            self.tell(Event::Published { home, generation });
        }
        self.steering_notices(home);
        self.tell_rules(home);
    }

    /// What packets need of the uplink of a BID, as a policy and its steering see it.
    pub(super) fn path_facts(
        &self,
        policy: &Policy,
        steering: &Steering,
        bid: Bid,
    ) -> Option<PathFacts> {
        let interface = policy.interface_of(bid)?;
        let attachment = self.links.get(&interface.name)?.state.as_ref().ok()?;
        Some(PathFacts {
            usable: steering.usable(bid),
            attached: steering.breaks_out(bid),
            metered: interface.metered,
            mtu: u16::try_from(attachment.mtu).unwrap_or(u16::MAX),
            figures: steering.figures(bid),
        })
    }

    /// Notes that a mobile has ended its bindings by a message from home. What it sent before by
    /// its care-of addresses may be under way longer than that message was, and so may be what was
    /// sent to them: for a moment packets go on counting as if nothing had changed, while the
    /// routes lead home at once.
    pub(super) fn note_return(&mut self, served: usize, home_address: HomeAddress) {
        let now = self.now().monotonic;
        let it = &mut self.served[served];
        let snapshot = it.tunnel.published.load();
        let bound =
            snapshot.cache.get(home_address).is_some_and(|known| !known.bindings.is_empty());
        if bound && it.agent.cache().get(home_address).is_none() {
            it.went_home.entry(home_address).or_insert(now + UNDER_WAY);
        }
    }

    pub(super) fn publish_mobile(&mut self, served: usize, home_address: mtun_policy::HomeAddress) {
        let own = self.hear_own();
        let it = &mut self.served[served];
        let bound = it.agent.cache().get(home_address).is_some();
        if bound {
            it.went_home.remove(&home_address);
        } else if it.went_home.contains_key(&home_address) {
            self.rerouted.insert((served, home_address));
            return;
        }
        let rules = self.served[served].rules(home_address);
        let it = &self.served[served];
        let Some(registration) = self.registration(served, home_address, rules) else { return };
        let entry = it.agent.cache().get(home_address);
        // Routes lead to whoever is bound, wherever that is.
        let routed = |it: &Registration| (!it.bindings.is_empty(), it.prefixes.clone());
        let known = it.tunnel.published.load().cache.get(home_address).map(routed);
        let rerouted = known != Some(routed(&registration));
        let event = Event::MobileChanged {
            home: it.served.name.clone(),
            home_address,
            care_of: registration.bindings.iter().map(|binding| binding.care_of).collect(),
            prefixes: entry.map_or_else(Vec::new, |entry| entry.prefixes.clone()),
        };
        let (engine, now) = (&*it.tunnel.lane.engine, self.now().monotonic);
        let (generation, _) = publish::publish_mobile(engine, registration, own, now);
        if rerouted {
            self.rerouted.insert((served, home_address));
        }
        let served = &mut self.served[served];
        served.generation = served.generation.max(generation);
        self.tell(event);
    }

    /// What packets are to read of a mobile, whether it is bound or not; `None` for one that is
    /// not served.
    fn registration(
        &self,
        served: usize,
        home_address: HomeAddress,
        rules: Arc<Effective>,
    ) -> Option<Registration> {
        let it = &self.served[served];
        let allowed = it.allowed(home_address)?;
        let entry = it.agent.cache().get(home_address);
        let open = it.home_link.as_ref().and_then(HomeLinkEdge::index);
        let home_path = open.map(|_| home_path(served));
        let mtu = |care_of: CareOfAddress| self.mtu_towards(care_of);
        Some(publish::mobile(&it.served, allowed, entry, rules, mtu, home_path))
    }

    /// Publishes many mobiles at once, before anybody is there to be told of each.
    pub(super) fn publish_restored(&mut self, served: usize, mobiles: &[HomeAddress]) {
        let own = self.hear_own();
        let rules: Vec<_> = mobiles.iter().map(|it| self.served[served].rules(*it)).collect();
        let all = mobiles.iter().zip(rules);
        let all = all.filter_map(|(it, rules)| self.registration(served, *it, rules));
        let published = &*self.served[served].tunnel.lane.engine;
        let generation = publish::publish_mobiles(published, all, own, self.now().monotonic);
        let served = &mut self.served[served];
        served.generation = served.generation.max(generation);
        self.routes_dirty = true;
    }

    /// The MTU towards a care-of address: the smallest of the agent's links, and behind a mobile
    /// router of ours what its tunnel takes of tunnel packets.
    pub(super) fn mtu_towards(&self, care_of: CareOfAddress) -> u16 {
        let behind = self.served.iter().find(|served| served.owns(care_of.0));
        let mtu = match behind {
            Some(served) => served.tunnel.mtu - NESTED,
            None => self.tunnels().map(|it| it.mtu + 40).min().unwrap_or(1500),
        };
        u16::try_from(mtu).unwrap_or(u16::MAX)
    }

    // ---- the kernel ----------------------------------------------------------------------------

    /// Brings rules, routes and the packet guard in step, after everything that is more urgent.
    pub(super) async fn settle(&mut self) {
        self.settle_doors();
        let rerouted = std::mem::take(&mut self.rerouted);
        if !std::mem::take(&mut self.routes_dirty) {
            return self.reroute(rerouted).await;
        }
        let desired = self.desired();
        if desired != self.routed {
            match self.netlink.reconcile(&desired).await {
                Ok(_) => {
                    self.routed = desired;
                    self.forget_left();
                }
                Err(error) => {
                    // An interface that is just vanishing: the report about it is on its way.
                    tracing::warn!(%error, "rules and routes are not all in place");
                    self.routed = Desired::default();
                }
            }
        } else {
            self.forget_left();
        }
        self.send_held();
        self.settle_neighbours().await;
        let guarded = self.guarded();
        if let Err(error) = self.firewall.update(guarded) {
            tracing::error!(%error, "the firewall could not be changed");
        }
    }

    /// Brings the routes to these mobiles in step, and looks at no others.
    async fn reroute(&mut self, mobiles: BTreeSet<(usize, HomeAddress)>) {
        let mut after = AgentRoutes::default();
        let mut concerned = BTreeSet::new();
        for (served, home_address) in mobiles {
            let Some(it) = self.served.get(served) else { continue };
            let Some(mobile) = it.allowed(home_address) else {
                // It is being taken out, and the routes with it.
                self.routes_dirty = true;
                continue;
            };
            it.lead_to(mobile, &mut after);
            concerned.insert(host(home_address.0));
            concerned.extend(mobile.prefixes.iter().map(|prefix| prefix.net()));
        }
        let (before, after) = (self.routed.at(&concerned), after.desired());
        if before == after {
            return;
        }
        match self.netlink.update(&before, &after).await {
            Ok(_) => self.routed.replace(&before, after),
            Err(error) => {
                tracing::warn!(%error, "routes to mobiles are not all in place");
                // The next time it is asked what the kernel has.
                self.routed = Desired::default();
                self.routes_dirty = true;
            }
        }
    }

    /// Tells the threads that receive updates who has which key, when that has changed.
    fn settle_doors(&mut self) {
        let configured: u64 = self.served.iter().map(|it| it.agent.configured()).sum();
        if self.doors.replace(configured) == Some(configured) {
            return;
        }
        let door = |it: &AgentHome| Door {
            home: it.served.name.clone(),
            gate: it.agent.gate().responding(self.responder.is_some()),
        };
        self.shared.arrivals.set_doors(self.served.iter().map(door).collect());
    }

    fn guarded(&self) -> Guarded {
        let listening = self.access.keys().cloned();
        let mut ours = self.own_addresses();
        let mut returned = BTreeSet::new();
        for attachment in self.links.values().filter_map(|record| record.state.as_ref().ok()) {
            for home in (0..self.homes.len()).filter(|home| self.is_home_link(*home, attachment)) {
                let home = &self.homes[home].home;
                // What the agent sends to the home address itself is ours to read.
                ours.push(home.address.0);
                let prefixes = home.mobile_networks.iter().map(|network| network.prefix.net());
                let own = crate::edge::routes::host(home.address.0);
                let own = (!prefixes.clone().any(|net| net.contains(&own))).then_some(own);
                let link = &attachment.interface;
                returned.extend(prefixes.chain(own).map(|net| (link.clone(), net)));
            }
        }
        let mut guarded = super::start::guarded(&self.policy, listening, &ours);
        let addresses = self.addresses.iter().map(|(_, address)| *address);
        guarded.own.extend(addresses.filter(|address| self.is_behind(*address)));
        Guarded { returned, ..guarded }
    }

    /// Has the firewall translate what a policy that is about to come wants translated; what the
    /// present one needs stays.
    pub(super) fn translate_for(&mut self, policy: &Policy) -> anyhow::Result<()> {
        let (mut guarded, coming) = (self.guarded(), super::start::guarded(policy, [], &[]));
        guarded.translates |= coming.translates;
        guarded.also.extend(coming.also);
        self.firewall.update(guarded).context("the firewall could not be changed")
    }

    pub(super) fn desired(&self) -> Desired {
        let desired = self.desired_of_homes();
        let Some(responder) = &self.responder else { return desired };
        let Some(tunnel) = self.tunnels().next().map(Tunnel::index) else { return desired };
        let served = |home| self.served.iter().any(|it| it.allowed(home).is_some());
        let bound =
            responder.routed(served, |address| self.home_of(HomeAddress(address)).is_some());
        desired.and(CorrespondentRoutes { tunnel, bound }.desired())
    }

    fn desired_of_homes(&self) -> Desired {
        if !self.served.is_empty() {
            let mut routes = AgentRoutes::default();
            for served in &self.served {
                let mobiles = served.served.mobiles.iter();
                mobiles.for_each(|mobile| served.lead_to(mobile, &mut routes));
            }
            return routes.desired();
        }
        let homes = self.homes.iter().map(|home| HomeRoutes {
            tunnel: Some(home.tunnel.index()),
            address: home.home.address,
            mobile_networks: home.home.mobile_networks.iter().map(|it| it.prefix).collect(),
            also: home.home.also.iter().map(|also| also.from.clone()).collect(),
            name: home.tunnel.name.clone(),
        });
        let paths = self.links.values().filter_map(|record| {
            let attachment = record.state.as_ref().ok()?;
            let bid = self.policy.interface(attachment.interface.as_str())?.bid?;
            Some(PathRoutes {
                path: bid.get(),
                interface: attachment.interface.clone(),
                index: attachment.index,
                addresses: attachment.addresses.clone(),
                router: attachment.router,
                on_link: attachment.on_link.clone(),
                by_router_only: self.homes.iter().any(|home| {
                    let silent = Stay::Beside { neighbours: false };
                    home.node.at_home() == Some((bid, silent))
                }),
            })
        });
        MobileRoutes { homes: homes.collect(), paths: paths.collect() }.desired()
    }

    // ---- the end -------------------------------------------------------------------------------

    /// De-registers, within the deadline, and puts the machine back as it was.
    async fn stop(mut self) {
        self.tell_service_of_the_end();
        if let Some(trial) = self.trial.take() {
            // Nobody has confirmed it, so the next run starts with the one before.
            if let Err(error) = self.history.take_back(trial.entry) {
                tracing::error!(%error, "the history of policies could not be written");
            }
        }
        self.count_octets();
        self.keep_ledgers();
        let now = self.now();
        let deadline = now.monotonic + self.options.stop_deadline;
        // Correspondents first: they are told through the home agent, or from care-of addresses
        // that it has to hold.
        for home in 0..self.homes.len() {
            self.tell_optimization(home, RouteOptimizationEvent::Stop);
        }
        let half = now.monotonic + self.options.stop_deadline / 2;
        if !self
            .wait_until(half, |owner| owner.homes.iter().all(MobileHome::is_in_the_tunnel))
            .await
        {
            tracing::warn!("not every correspondent acknowledged the de-registration in time");
        }
        let now = self.now();
        for home in 0..self.homes.len() {
            let outputs = self.homes[home].handle(now, MobileEvent::Stop);
            self.mobile_outputs(home, outputs);
        }
        for served in 0..self.served.len() {
            let outputs = self.served[served].handle(now, AgentEvent::Stop);
            self.agent_outputs(served, outputs);
        }
        if !self.wait_until(deadline, |owner| owner.homes.iter().all(|home| home.stopped)).await {
            tracing::warn!("the agent did not acknowledge the de-registration in time");
        }
        // What waits is written down, and its acknowledgements leave.
        self.keeping = None;
        for task in &self.tasks {
            task.abort();
        }
        // Sockets and threads first, then what they stand on.
        self.access.clear();
        self.shared.lanes.store(Arc::default());
        if let Err(error) = self.netlink.cleanup().await {
            tracing::error!(%error, "rules or routes are left behind");
        }
        self.homes.clear();
        self.served.clear();
        self.responder = None;
        self.settle_neighbours().await;
        if let Err(error) = self.firewall.remove() {
            tracing::error!(%error, "the firewall table is left behind");
        }
        self.sysctls.restore();
        tracing::info!("stopped");
    }

    /// Goes on with what a stop needs until `done`; false if its time is over before.
    async fn wait_until(&mut self, deadline: Duration, done: impl Fn(&Self) -> bool) -> bool {
        while !done(self) {
            let left = deadline.saturating_sub(self.now().monotonic);
            if left.is_zero() {
                return false;
            }
            let sleep = self.until_deadline().min(left);
            self.homeward().await;
            self.show_changes();
            tokio::select! {
                biased;
                Ok((event, movements)) = self.watch.report() => self.link_event(event.as_ref(), movements),
                () = self.shared.arrivals.ready() => self.hear(),
                Some(heard) = self.neighbours_heard.1.recv() => self.heard(&heard),
                () = self.alarm.after(sleep) => self.deadlines(),
            }
        }
        true
    }

    fn reload(&mut self) {
        let file: PathBuf = self.options.policy.clone();
        tracing::info!(file = %file.display(), "SIGHUP: reading the policy again");
        let purpose = Purpose::Apply(Wanted { uid: None, confirm: None, left: None });
        let added = self.added.text();
        let read = move || Candidate::read(&PolicySource::File(file), added.as_ref());
        self.prepare_policy(purpose, None, read);
    }
}
