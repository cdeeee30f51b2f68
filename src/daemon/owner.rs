//! The owner loop.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mtun_dataplane::PathId;
use mtun_dataplane::backend::Uplink;
use mtun_policy::{Bid, CareOfAddress, HomeName, InterfaceName, Override, Policy, Role, RuleId};
use mtun_signaling::agent::{AgentEvent, AgentNotice, AgentOutput};
use mtun_signaling::machine::Transmit;
use mtun_signaling::mobile::{MobileEvent, MobileNotice, MobileOutput};
use mtun_signaling::time::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::Options;
use super::home::{Granted, MobileHome};
use super::served::AgentHome;
use crate::control::ControlRequest;
use crate::control::documents::{Event, EventDocument, Severity};
use crate::control::protocol::PolicySource;
use crate::edge::movement::{Attachment, DownReason, LinkEvent, Movement};
use crate::edge::netlink::Netlink;
use crate::edge::nft::Firewall;
use crate::edge::routes::{AgentRoutes, Desired, HomeRoutes, MobileRoutes, PathRoutes};
use crate::edge::sysctl::Sysctls;
use crate::edge::watch::Watch;
use crate::metrics::{HandoverReason, Metrics};
use crate::packets::{self, Arrived, PacketThread, Shared};
use crate::publish::{self, PathFacts};

/// Care-of addresses remembered; a vehicle passes so many networks in minutes, and a packet is on
/// its way for seconds.
const ADDRESSES_KEPT: usize = 32;

/// An uplink that exists, with the thread that listens to it.
#[derive(Debug)]
pub struct Access {
    /// Its index.
    pub index: u32,
    _thread: PacketThread,
}

/// What is shown of a link: its state as last announced, and since when.
#[derive(Clone, Debug)]
pub struct LinkRecord {
    /// Where it is attached, or why it is not.
    pub state: Result<Attachment, DownReason>,
    /// When that began, on the monotonic clock.
    pub since: Duration,
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
    pub link_changes: BTreeMap<(InterfaceName, &'static str, String), u64>,
}

/// Everything the daemon owns.
pub struct Owner {
    pub(super) options: Options,
    pub(super) policy: Arc<Policy>,
    /// Where the policy in force came from.
    pub(super) in_force: PolicySource,
    /// The last policy that was refused, for the health line.
    pub(super) refused: Option<String>,
    pub(super) started: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) netlink: Arc<Netlink>,
    pub(super) firewall: Firewall,
    pub(super) sysctls: Sysctls,
    pub(super) watch: Watch,
    pub(super) access: BTreeMap<InterfaceName, Access>,
    pub(super) links: BTreeMap<InterfaceName, LinkRecord>,
    /// Interfaces that rules name, with their indices at this moment.
    pub(super) ingress_indices: BTreeMap<InterfaceName, u32>,
    pub(super) homes: Vec<MobileHome>,
    pub(super) served: Vec<AgentHome>,
    pub(super) counts: SignalingCounts,
    pub(super) next_override: u16,
    /// Who made each override, by user number.
    pub(super) override_owners: BTreeMap<RuleId, Option<u32>>,
    /// The control socket and the metrics listener; they end with the daemon.
    pub(super) tasks: Vec<JoinHandle<()>>,
    /// What is scraped, if anything is.
    pub(super) metrics: Option<Arc<Metrics>>,
    pub(super) events: broadcast::Sender<EventDocument>,
    pub(super) arrivals: mpsc::Receiver<Arrived>,
    pub(super) requests: mpsc::Receiver<ControlRequest>,
    /// Uplinks that came up and wait for the kernel to be ready for them.
    pub(super) attached: Vec<MobileEvent>,
    /// Care-of addresses of late, the latest last.
    pub(super) recent: Vec<Ipv6Addr>,
    /// The rules and routes that the kernel was last given.
    pub(super) routed: Desired,
    pub(super) routes_dirty: bool,
}

impl Owner {
    /// Takes in what exists already, so that the packet guard, rules and routes stand before
    /// anybody is told that the daemon is there.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        let (event, movements) =
            self.watch.report().await.context("cannot list what exists in the kernel")?;
        self.link_event(&event, movements);
        self.settle().await;
        self.tell_attached();
        Ok(())
    }

    /// Runs until a signal asks for the end, then tidies up.
    pub async fn run(mut self) {
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be watched");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be watched");
        let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be watched");
        loop {
            let sleep = self.until_deadline();
            tokio::select! {
                biased;
                report = self.watch.report() => match report {
                    Ok((event, movements)) => self.link_event(&event, movements),
                    Err(error) => {
                        tracing::error!(%error, "the kernel's reports about links have ended");
                        break;
                    }
                },
                Some(arrived) = self.arrivals.recv() => self.arrived(arrived),
                Some(request) = self.requests.recv() => self.answer(request).await,
                _ = tokio::time::sleep(sleep) => self.deadlines(),
                _ = hangup.recv() => self.reload().await,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            self.settle().await;
            self.tell_attached();
        }
        self.stop().await;
    }

    /// Registers the uplinks that came up, once the kernel is ready for them.
    fn tell_attached(&mut self) {
        for event in std::mem::take(&mut self.attached) {
            self.tell_homes(event);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn tell(&self, event: Event) {
        tracing::info!("{event}");
        // Nobody listening is no fault.
        let _ = self.events.send(EventDocument::now(event));
    }

    fn until_deadline(&self) -> Duration {
        let now = self.now().monotonic;
        let homes = self.homes.iter().filter_map(|home| home.deadline(now));
        let served = self.served.iter().filter_map(AgentHome::deadline);
        let next = homes.chain(served).min();
        next.map_or(Duration::from_secs(3600), |next| next.saturating_sub(now))
    }

    // ---- links ---------------------------------------------------------------------------------

    fn link_event(&mut self, event: &LinkEvent, movements: Vec<Movement>) {
        self.follow_interfaces(event);
        for movement in movements {
            self.moved(movement);
        }
    }

    /// Opens sockets on interfaces that appear and closes those of interfaces that went.
    fn follow_interfaces(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Link(facts) => self.interface_present(&facts.name, facts.index),
            LinkEvent::LinkGone(index) => {
                let gone = |access: &Access| access.index == *index;
                let names: Vec<_> = self
                    .access
                    .iter()
                    .filter(|(_, access)| gone(access))
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in names {
                    self.close_access(&name);
                }
                let before = self.ingress_indices.len();
                self.ingress_indices.retain(|_, known| known != index);
                if self.ingress_indices.len() != before {
                    self.steer_ingress();
                }
            }
            LinkEvent::Everything(events) => {
                let present: Vec<_> = events
                    .iter()
                    .filter_map(|event| match event {
                        LinkEvent::Link(facts) => Some(facts.name.clone()),
                        _ => None,
                    })
                    .collect();
                let gone: Vec<_> =
                    self.access.keys().filter(|name| !present.contains(name)).cloned().collect();
                for name in gone {
                    self.close_access(&name);
                }
                for event in events {
                    self.follow_interfaces(event);
                }
            }
            _ => {}
        }
    }

    fn interface_present(&mut self, name: &InterfaceName, index: u32) {
        // Renamed: what was known under the old name is gone.
        let old: Vec<_> = self
            .access
            .iter()
            .filter(|(known, access)| access.index == index && *known != name)
            .map(|(known, _)| known.clone())
            .collect();
        for old in old {
            self.close_access(&old);
        }
        if self.policy.ingresses.number(name.as_str()).is_some()
            && self.ingress_indices.get(name) != Some(&index)
        {
            self.ingress_indices.insert(name.clone(), index);
            self.steer_ingress();
        }
        if self.access.get(name).is_some_and(|access| access.index == index) {
            return;
        }
        let Some(path) = self.listens_on(name) else { return };
        if self.policy.role == Role::MobileRouter
            && let Err(error) = self.sysctls.listen_to_routers(name.as_str())
        {
            tracing::warn!(%error, "Router Advertisements on this uplink will not count");
        }
        if path != PathId::ROUTED
            && let Err(error) = self.sysctls.announce_addresses(name.as_str())
        {
            tracing::warn!(%error, "neighbours on this uplink may learn late of its address");
        }
        if path != PathId::ROUTED {
            match Uplink::open(Some(index)) {
                Ok(uplink) => self.shared.paths.open(path, uplink),
                Err(error) => {
                    tracing::error!(%name, %error, "cannot send by this interface");
                    return;
                }
            }
        }
        match packets::inbound(self.shared.clone(), index, path) {
            Ok(thread) => {
                self.access.insert(name.clone(), Access { index, _thread: thread });
                // The firewall keeps from the kernel what this interface brings.
                self.routes_dirty = true;
            }
            Err(error) => tracing::error!(%name, %error, "cannot listen to this interface"),
        }
    }

    /// Whether outer packets are taken from the interface of this name, and the path it is. An
    /// agent whose policy names no interface listens on all but its own tunnels.
    fn listens_on(&self, name: &InterfaceName) -> Option<PathId> {
        if let Some(interface) = self.policy.interface(name.as_str()) {
            return Some(interface.bid.map_or(PathId::ROUTED, |bid| PathId(bid.get())));
        }
        let tunnel = self.served.iter().any(|served| served.tunnel.name == *name);
        let anywhere = self.policy.interfaces.is_empty() && !self.served.is_empty();
        (anywhere && !tunnel && name.as_str() != "lo").then_some(PathId::ROUTED)
    }

    fn close_access(&mut self, name: &InterfaceName) {
        if self.access.remove(name).is_some()
            && let Some(bid) = self.policy.interface(name.as_str()).and_then(|it| it.bid)
        {
            self.shared.paths.close(PathId(bid.get()));
        }
    }

    /// Looks up the interfaces that the rules name.
    pub(super) async fn find_ingresses(&mut self) {
        let names: Vec<_> = self.policy.ingresses.iter().map(|(_, name)| name.clone()).collect();
        self.ingress_indices.clear();
        for name in names {
            if let Ok(Some(link)) = self.netlink.link(name.as_str()).await {
                self.ingress_indices.insert(name, link.index);
            }
        }
        self.steer_ingress();
    }

    pub(super) fn steer_ingress(&self) {
        let named: Vec<_> = self
            .ingress_indices
            .iter()
            .filter_map(|(name, index)| {
                Some((*index, self.policy.ingresses.number(name.as_str())?))
            })
            .collect();
        let homes = self.homes.iter().map(|home| &home.tunnel);
        for tunnel in homes.chain(self.served.iter().map(|served| &served.tunnel)) {
            if let Err(error) = tunnel.steer_ingress(&named) {
                tracing::error!(%error, "rules with in= will not match");
            }
        }
    }

    fn moved(&mut self, movement: Movement) {
        let now = self.now();
        let (name, state) = match &movement {
            Movement::CareOfUp(attachment) => {
                (attachment.interface.clone(), Ok(attachment.clone()))
            }
            Movement::CareOfDown { interface, reason } => (interface.clone(), Err(*reason)),
        };
        let was = self.links.get(&name).is_some_and(|record| record.state.is_ok());
        let cause = match (was, &state) {
            (_, Err(_)) => HandoverReason::LinkDown,
            (true, Ok(_)) => HandoverReason::CareOfChanged,
            (false, Ok(_)) => HandoverReason::LinkUp,
        };
        let word = if state.is_ok() { "up" } else { "down" };
        let why = state.as_ref().map_or_else(ToString::to_string, |_| String::new());
        *self.counts.link_changes.entry((name.clone(), word, why)).or_default() += 1;
        self.tell(match &state {
            Ok(attachment) => Event::LinkUp {
                link: name.clone(),
                care_of: CareOfAddress::from(attachment.care_of),
                router: attachment.router.map(Into::into),
            },
            Err(reason) => Event::LinkDown { link: name.clone(), reason: reason.to_string() },
        });
        self.links.insert(name.clone(), LinkRecord { state: state.clone(), since: now.monotonic });
        self.routes_dirty = true;
        let Some(interface) = self.policy.interface(name.as_str()) else { return };
        let Some(bid) = interface.bid else { return };
        match state {
            // Registered once rules, routes and firewall are ready for the answer.
            Ok(attachment) => {
                let care_of = CareOfAddress::from(attachment.care_of);
                let priority = interface.priority;
                self.remember_address(attachment.care_of);
                self.attached.push(MobileEvent::CareOfUp { bid, priority, care_of });
            }
            Err(_) => {
                self.attached.retain(|event| {
                    !matches!(event, MobileEvent::CareOfUp { bid: waiting, .. } if *waiting == bid)
                });
                self.tell_homes(MobileEvent::CareOfDown { bid });
                self.handed_over(cause, now.monotonic);
            }
        }
    }

    /// Hands an event to every home.
    fn tell_homes(&mut self, event: MobileEvent) {
        let now = self.now();
        for home in 0..self.homes.len() {
            let outputs = self.homes[home].handle(now, event.clone());
            // The snapshot first: packets leave a dead path before anything else happens.
            self.publish_home(home);
            self.mobile_outputs(home, outputs);
        }
    }

    /// Keeps an address among those that take outer packets, also when its uplink is lost for a
    /// while: what is on its way to it must not reach the kernel, which would answer.
    fn remember_address(&mut self, address: Ipv6Addr) {
        self.recent.retain(|known| *known != address);
        self.recent.push(address);
        if self.recent.len() > ADDRESSES_KEPT {
            self.recent.remove(0);
        }
    }

    /// Notes how long after its cause a change reached the packets.
    pub(super) fn handed_over(&self, cause: HandoverReason, since: Duration) {
        if let Some(metrics) = &self.metrics {
            metrics.handover(cause, self.now().monotonic.saturating_sub(since));
        }
    }

    // ---- signaling -----------------------------------------------------------------------------

    fn arrived(&mut self, arrived: Arrived) {
        let now = self.now();
        match arrived {
            Arrived::Message { envelope, message, .. } => {
                let mine = |home: &MobileHome| home.home.agent.0 == envelope.source;
                if let Some(home) = self.homes.iter().position(mine) {
                    let event = MobileEvent::Received { envelope, message };
                    let outputs = self.homes[home].handle(now, event);
                    self.mobile_outputs(home, outputs);
                    return;
                }
                let ours = |served: &AgentHome| served.served.agent.0 == envelope.destination;
                if let Some(served) = self.served.iter().position(ours) {
                    let event = AgentEvent::Received { envelope, message };
                    let outputs = self.served[served].handle(now, event);
                    self.agent_outputs(served, outputs);
                }
            }
            Arrived::Failed { source, destination } => {
                let bid = self.bid_of(source);
                let to = |home: &MobileHome| home.home.agent.0 == destination;
                if let (Some(bid), Some(home)) = (bid, self.homes.iter().position(to)) {
                    let outputs = self.homes[home].handle(now, MobileEvent::Unreachable { bid });
                    self.mobile_outputs(home, outputs);
                }
            }
        }
    }

    /// The uplink that has this care-of address.
    fn bid_of(&self, care_of: Ipv6Addr) -> Option<Bid> {
        let mut records = self.links.iter();
        let has = |record: &LinkRecord| {
            record.state.as_ref().is_ok_and(|attachment| attachment.care_of == care_of)
        };
        let (name, _) = records.find(|(_, record)| has(record))?;
        self.policy.interface(name.as_str())?.bid
    }

    fn deadlines(&mut self) {
        let now = self.now();
        for home in 0..self.homes.len() {
            let outputs = self.homes[home].handle_deadline(now);
            self.mobile_outputs(home, outputs);
            let ended = self.homes[home].evaluate(now.monotonic);
            if !ended.is_empty() {
                self.overrides_ended(&ended, true);
                self.publish_home(home);
            }
        }
        for served in 0..self.served.len() {
            let outputs = self.served[served].handle_deadline(now);
            self.agent_outputs(served, outputs);
        }
    }

    pub(super) fn overrides_ended(&self, ended: &[Override], expired: bool) {
        for steer in ended {
            self.tell(Event::SteerEnded { id: super::answers::override_number(steer.id), expired });
        }
    }

    pub(super) fn mobile_outputs(&mut self, home: usize, outputs: Vec<MobileOutput>) {
        let name = self.homes[home].home.name.clone();
        let mut changed = false;
        for output in outputs {
            match output {
                MobileOutput::Transmit(transmit) => {
                    *self.counts.sent.entry(name.clone()).or_default() += 1;
                    self.transmit(&transmit);
                }
                MobileOutput::Bound { bid, care_of, expires, first } => {
                    changed = true;
                    let now = self.now().monotonic;
                    let lifetime = expires.saturating_sub(now);
                    self.homes[home].granted.insert(bid, Granted { care_of, lifetime });
                    self.acknowledged(&name, bid, "accepted".to_owned());
                    self.tell(Event::Bound {
                        home: name.clone(),
                        bid,
                        link: self.link_of(bid),
                        care_of,
                        granted_seconds: lifetime.as_secs(),
                        first,
                    });
                }
                MobileOutput::Unbound { bid, reason } => {
                    changed = true;
                    self.homes[home].granted.remove(&bid);
                    self.tell(Event::Unbound {
                        home: name.clone(),
                        bid,
                        link: self.link_of(bid),
                        reason: reason.to_string(),
                    });
                }
                MobileOutput::Notice(notice) => self.mobile_notice(&name, &notice),
                MobileOutput::Stopped => self.homes[home].stopped = true,
            }
        }
        if changed {
            self.publish_home(home);
        }
    }

    fn acknowledged(&mut self, home: &HomeName, bid: Option<Bid>, status: String) {
        let link = self.link_of(bid).map_or_else(|| "none".to_owned(), |link| link.to_string());
        *self.counts.acknowledged.entry((home.clone(), link, status)).or_default() += 1;
    }

    fn mobile_notice(&mut self, home: &HomeName, notice: &MobileNotice) {
        if let MobileNotice::Refused { bid, status, .. } = notice {
            self.acknowledged(home, *bid, status.to_string());
        }
        let code = notice.reason();
        *self.counts.notices.entry((home.clone(), code)).or_default() += 1;
        let severity = match notice {
            MobileNotice::Ignored(_) => {
                tracing::debug!(%home, "{notice}");
                return;
            }
            MobileNotice::SequenceAdopted { .. }
            | MobileNotice::UnknownBinding { .. }
            | MobileNotice::BulkProhibited
            | MobileNotice::ClockCorrected { .. } => Severity::Info,
            _ => Severity::Warning,
        };
        self.tell(Event::Notice {
            severity,
            code: code.to_owned(),
            text: format!("home {home}: {notice}"),
        });
    }

    pub(super) fn agent_outputs(&mut self, served: usize, outputs: Vec<AgentOutput>) {
        let name = self.served[served].served.name.clone();
        for output in outputs {
            match output {
                AgentOutput::Transmit(transmit) => {
                    *self.counts.sent.entry(name.clone()).or_default() += 1;
                    self.transmit(&transmit);
                }
                AgentOutput::Changed { home_address, effective } => {
                    if effective {
                        self.publish_mobile(served, home_address);
                    }
                }
                AgentOutput::Notice(notice) => self.agent_notice(&name, &notice),
            }
        }
    }

    fn agent_notice(&mut self, home: &HomeName, notice: &AgentNotice) {
        let code = notice.reason();
        *self.counts.notices.entry((home.clone(), code)).or_default() += 1;
        // What strangers can cause must not fill the log; the counters have it.
        tracing::debug!(%home, "{notice}");
    }

    /// Puts a Mobility Header into its packet and sends it.
    fn transmit(&self, transmit: &Transmit) {
        let Transmit { envelope, path, message } = transmit;
        let packet = mtun_dataplane::wire::signalling_packet(
            envelope.source,
            envelope.destination,
            envelope.home_address.map(|home| home.0),
            envelope.routing_header.map(|home| home.0),
            message,
        );
        let path = path.map_or(PathId::ROUTED, |bid| PathId(bid.get()));
        match self.shared.paths.get(path) {
            Some(uplink) => {
                if let Err(error) = uplink.send(&packet) {
                    // It will be sent again; a lasting fault shows as retries in `mtun status`.
                    tracing::debug!(%error, ?path, "signaling could not be sent");
                }
            }
            None => tracing::debug!(?path, "signaling for a path that is closed"),
        }
    }

    // ---- publication ---------------------------------------------------------------------------

    pub(super) fn link_of(&self, bid: Option<Bid>) -> Option<InterfaceName> {
        Some(self.policy.interface_of(bid?)?.name.clone())
    }

    /// The addresses at which this node takes outer packets.
    fn own_addresses(&self) -> Vec<Ipv6Addr> {
        let mut own = self.recent.clone();
        own.extend(self.served.iter().map(|served| served.served.agent.0));
        own
    }

    pub(super) fn publish_home(&mut self, home: usize) {
        let own = self.own_addresses();
        let now = self.now().monotonic;
        self.homes[home].evaluate(now);
        let it = &self.homes[home];
        let path = |bid: Bid| {
            let name = &self.policy.interface_of(bid)?.name;
            let attachment = self.links.get(name)?.state.as_ref().ok()?;
            let mtu = u16::try_from(attachment.mtu).unwrap_or(u16::MAX);
            Some(PathFacts { attached: true, mtu })
        };
        let registration =
            publish::home(&it.home, &it.node.update_list(), it.effective.clone(), path);
        let (generation, changed) = publish::publish_home(&it.tunnel.published, registration, own);
        self.homes[home].generation = generation;
        if changed {
            let home = self.homes[home].home.name.clone();
            self.tell(Event::Published { home, generation });
        }
    }

    pub(super) fn publish_mobile(&mut self, served: usize, home_address: mtun_policy::HomeAddress) {
        let own = self.own_addresses();
        let it = &self.served[served];
        let Some(allowed) = it.allowed(home_address) else { return };
        let entry = it.agent.cache().get(home_address);
        let mtu = self.agent_mtu();
        let registration = publish::mobile(&it.served, allowed, entry, it.reflecting.clone(), mtu);
        let event = Event::MobileChanged {
            home: it.served.name.clone(),
            home_address,
            care_of: registration.bindings.iter().map(|binding| binding.care_of).collect(),
            prefixes: entry.map_or_else(Vec::new, |entry| entry.prefixes.clone()),
        };
        let (generation, _) = publish::publish_mobile(&it.tunnel.published, registration, own);
        let served = &mut self.served[served];
        served.generation = served.generation.max(generation);
        self.routes_dirty = true;
        self.tell(event);
    }

    /// The MTU towards care-of addresses: the smallest of the agent's links.
    fn agent_mtu(&self) -> u16 {
        let tunnel = self.served.iter().map(|served| served.tunnel.mtu + 40).min();
        u16::try_from(tunnel.unwrap_or(1500)).unwrap_or(u16::MAX)
    }

    // ---- the kernel ----------------------------------------------------------------------------

    /// Brings rules, routes and the packet guard in step, after everything that is more urgent.
    pub(super) async fn settle(&mut self) {
        if !std::mem::take(&mut self.routes_dirty) {
            return;
        }
        let desired = self.desired();
        if desired != self.routed {
            match self.netlink.reconcile(&desired).await {
                Ok(_) => self.routed = desired,
                Err(error) => {
                    // An interface that is just vanishing: the report about it is on its way.
                    tracing::warn!(%error, "rules and routes are not all in place");
                    self.routed = Desired::default();
                }
            }
        }
        let listening = self.access.keys().cloned();
        let guarded = super::start::guarded(&self.policy, listening, &self.own_addresses());
        if let Err(error) = self.firewall.update(guarded) {
            tracing::error!(%error, "the firewall could not be changed");
        }
    }

    pub(super) fn desired(&self) -> Desired {
        if !self.served.is_empty() {
            let mut routes = AgentRoutes::default();
            for served in &self.served {
                let bound = routes.bound.entry(served.tunnel.index()).or_default();
                for entry in served.agent.cache().iter() {
                    bound.insert(crate::edge::routes::host(entry.home_address.0));
                    bound.extend(entry.prefixes.iter().map(|prefix| prefix.net()));
                }
                let prefixes = served.served.mobiles.iter().flat_map(|it| &it.prefixes);
                routes.reserved.extend(prefixes.map(|prefix| prefix.net()));
            }
            return routes.desired();
        }
        let homes = self.homes.iter().map(|home| HomeRoutes {
            tunnel: Some(home.tunnel.index()),
            address: home.home.address,
            mobile_networks: home.home.mobile_networks.iter().map(|it| it.prefix).collect(),
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
            })
        });
        MobileRoutes { homes: homes.collect(), paths: paths.collect() }.desired()
    }

    // ---- the end -------------------------------------------------------------------------------

    /// De-registers, within the deadline, and puts the machine back as it was.
    async fn stop(mut self) {
        let now = self.now();
        let deadline = now.monotonic + self.options.stop_deadline;
        for home in 0..self.homes.len() {
            let outputs = self.homes[home].handle(now, MobileEvent::Stop);
            self.mobile_outputs(home, outputs);
        }
        for served in 0..self.served.len() {
            let outputs = self.served[served].handle(now, AgentEvent::Stop);
            self.agent_outputs(served, outputs);
        }
        while self.homes.iter().any(|home| !home.stopped) {
            let left = deadline.saturating_sub(self.now().monotonic);
            if left.is_zero() {
                tracing::warn!("the agent did not acknowledge the de-registration in time");
                break;
            }
            let sleep = self.until_deadline().min(left);
            tokio::select! {
                biased;
                Ok((event, movements)) = self.watch.report() => self.link_event(&event, movements),
                Some(arrived) = self.arrivals.recv() => self.arrived(arrived),
                _ = tokio::time::sleep(sleep) => self.deadlines(),
            }
        }
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
        if let Err(error) = self.firewall.remove() {
            tracing::error!(%error, "the firewall table is left behind");
        }
        self.sysctls.restore();
        tracing::info!("stopped");
    }

    async fn reload(&mut self) {
        let file: PathBuf = self.options.policy.clone();
        tracing::info!(file = %file.display(), "SIGHUP: reading the policy again");
        if let Err(error) = self.apply(PolicySource::File(file)).await {
            tracing::error!("{error}");
        }
    }
}
