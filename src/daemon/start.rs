//! Starting: everything that can be refused is refused here, with its fix, before a packet moves.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ipnet::Ipv6Net;
use mtun_dataplane::PathId;
use mtun_dataplane::backend::Uplink;
use mtun_policy::probing::Prober;
use mtun_policy::steering::Steering;
use mtun_policy::{
    AllowedMobile, CorrespondentPlan, Fallback, Faults, FieldSet, Home, InterfaceName,
    MobileNetwork, Policy, Role, ServedHome, Verb,
};
use mtun_signaling::agent::{AgentConfig, AgentMobile, HomeLink};
use mtun_signaling::mobile::MobileConfig;
use tokio::sync::mpsc;

use super::Options;
use super::apply::InForce;
use super::chosen::Chosen;
use super::correspondent::{Responder, Strangers};
use super::facts::Counted;
use super::history::History;
use super::home::MobileHome;
use super::keeping;
use super::key_store::{KeyError, KeyStore};
use super::ledger::{self, LedgerKeeper, Ledgers};
use super::mobiles::Added;
use super::optimization::Optimization;
use super::owner::{Owner, SignalingCounts};
use super::roles::{Built, NotBuilt};
use super::round_trips::RoundTrips;
use super::served::AgentHome;
use super::service::Service;
use super::sources::Facts;
use super::tunnel::{Plan, Tunnel};
use crate::arrivals::Arrivals;
use crate::control::server::{self, EVENTS_WAITING, Limits, Server};
use crate::control::{Access, BindError, ControlError, ErrorCode, Listeners};
use crate::edge::alarm::Alarm;
use crate::edge::clock::Clock;
use crate::edge::netlink::Netlink;
use crate::edge::nft::{Firewall, Guarded};
use crate::edge::random;
use crate::edge::routes::{Desired, MARK_OUTER};
use crate::edge::sources::Sources;
use crate::edge::sysctl::Sysctls;
use crate::edge::watch::Watch;

use crate::dashboard::{Dashboard, Settings};
use crate::http::HttpError;
use crate::metrics::{Metrics, Scrapes};
use crate::packets::{Shared, TOLD};
use crate::publish;
use crate::store::StoreError;

/// Requests of control clients that wait.
const REQUESTS: usize = 64;
/// Messages of neighbours on home links that may wait.
const NEIGHBOURS_HEARD: usize = 256;
/// The MTU of a link that does not exist yet.
const ETHERNET_MTU: u32 = 1500;
/// What the outer header takes.
const OUTER_HEADER: u32 = 40;
/// The smallest MTU that IPv6 allows on an interface (RFC 8200 §5).
const IPV6_MIN_MTU: u32 = 1280;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy has faults; each is named with its place and a fix.
    #[error("{0}")]
    Policy(Faults),
    /// The file's own tests fail.
    #[error("the policy fails its own tests:\n{0}")]
    Tests(String),
    /// Its rules look at something that no packet path here can tell.
    #[error("{0}")]
    Fields(String),
    /// A role that this program was built without.
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The state directory cannot be made.
    #[error("cannot make the state directory {path}: {error}")]
    State {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// The store of bindings cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine refused something the daemon needs.
    #[error("{0:#}")]
    Machine(#[from] anyhow::Error),
}

impl Owner {
    /// Reads the policy, prepares the machine and registers nothing yet.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let mut history = History::open(&options.state);
        let added = Added::open(&options.state)?;
        let chosen = Chosen::at_start(&options.policy, &history, added.text().as_ref())?;
        let policy = &*chosen.policy;
        super::answers::file_tests(policy).map_err(StartError::Tests)?;
        Built::HERE.carries(policy)?;
        fields_can_be_told(policy).map_err(|error| StartError::Fields(error.message))?;
        let keys = KeyStore::read(policy)?;
        std::fs::create_dir_all(&options.state)
            .map_err(|error| StartError::State { path: options.state.clone(), error })?;
        for warning in &policy.warnings {
            tracing::warn!("{warning}");
        }
        warn_unprotected(policy);
        let server = Server::bind(server::Settings {
            path: options.socket.clone(),
            access: Access {
                read_group: options.read_group,
                write_group: options.write_group,
                steer_group: options.steer_group,
                move_group: options.move_group,
            },
            policy_directory: options.policy.parent().map(PathBuf::from),
            limits: Limits::default(),
        })
        .await?;
        let restarts = match policy.served.is_empty() {
            true => 0,
            false => keeping::restart_counter(&options),
        };
        let store = match policy.served.is_empty() {
            true => None,
            false => Some(keeping::open(&options)?),
        };
        let (refused, in_force) = chosen.note(&mut history);
        let mut owner =
            Self::prepare(options, in_force, history, (keys, added, restarts), server).await?;
        owner.refused = refused;
        if let Some((store, kept)) = store {
            // Routes and tunnels stand before the first message is handled.
            let spent = owner.restore_bindings(&kept);
            owner.keep_in(store, spent)?;
            owner.settle().await;
        }
        Ok(owner)
    }

    async fn prepare(
        options: Options,
        in_force: InForce,
        history: History,
        (keys, added, restarts): (KeyStore, Added, u32),
        server: Server,
    ) -> anyhow::Result<Self> {
        let policy = in_force.policy.clone();
        let clock = Clock::start().shifted(options.clock_offset);
        let now = clock.now();
        let ledger = LedgerKeeper::new(&options.state);
        let netlink = Arc::new(Netlink::open()?);
        let mut sysctls = Sysctls::open(Some(options.state.join("sysctl.json")));
        let firewall = Firewall::install(guarded(&policy, [], &[]))?;
        let arrivals = Arrivals::new(random::u64()?);
        let shared = Shared::new(clock, arrivals, options.fast_path);
        let shared = Arc::new(Shared { pins: options.pins.clone(), ..shared });
        shared.paths.open(PathId::ROUTED, Uplink::open_marked(None, Some(MARK_OUTER))?, None);

        if matches!(policy.role, Role::MobileRouter | Role::HomeAgent) {
            for interface in policy.interfaces.iter().filter(|it| it.bid.is_some()) {
                match sysctls.listen_to_routers(interface.name.as_str()) {
                    // One that does not exist yet is set when it appears.
                    Err(error) if error.is_missing() => {}
                    other => other.context("cannot make Router Advertisements count")?,
                }
            }
            sysctls.forward().context("cannot switch forwarding on")?;
            if policy.role == Role::MobileRouter {
                for interface in policy.interfaces.iter().filter(|it| it.bid.is_some()) {
                    match sysctls.be_host(interface.name.as_str()) {
                        Err(error) if error.is_missing() => {}
                        other => other.context("cannot make the uplinks hosts")?,
                    }
                }
            }
        }
        let mtu = tunnel_mtu(&policy, &netlink).await?;
        let mut ground = Ground {
            policy: &policy,
            keys: &keys,
            restarts,
            ledgers: ledger::read(&options.state),
            mtu,
            shared: &shared,
            netlink: &netlink,
            sysctls: &mut sysctls,
        };
        let mut homes = Vec::new();
        for home in &policy.homes {
            homes.push(open_home(home, &mut ground, now).await?);
        }
        let mut served = Vec::new();
        for home in &policy.served {
            served.push(open_served(home, &mut ground).await?);
        }
        let responder = match &policy.correspondent {
            Some(plan) => Some(open_responder(plan, &mut ground).await?),
            None => None,
        };
        let tunnels = homes.iter().map(|home| &home.tunnel);
        let tunnels = tunnels.chain(served.iter().map(|it| &it.tunnel));
        let tunnels = tunnels.chain(responder.iter().filter_map(|it| it.tunnel.as_ref()));
        shared.lanes.store(Arc::new(tunnels.map(|tunnel| tunnel.lane.clone()).collect()));

        let mut own: Vec<Ipv6Net> = Vec::new();
        for home in &policy.homes {
            own.push(crate::edge::routes::host(home.address.0));
            own.extend(home.mobile_networks.iter().map(|network| network.prefix.net()));
        }
        let uplinks = policy.interfaces.iter().filter(|it| it.bid.is_some());
        let uplinks: Vec<InterfaceName> = uplinks.map(|it| it.name.clone()).collect();
        let watch = Watch::start(netlink.clone(), uplinks, own)?;

        let listeners = Listeners::new(EVENTS_WAITING, shared.clock.started());
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let control = tokio::spawn(server.serve(request_sender.clone(), listeners.clone()));
        let to_owner = request_sender.clone();
        let scrapes = match options.metrics {
            Some(address) => Some(Scrapes::bind(address).await?),
            None => None,
        };
        let dashboard = open_dashboard(options.dashboard.as_ref()).await?;
        let (preparing, ready) = mpsc::channel(REQUESTS);
        let (previewing, previews) = mpsc::channel(REQUESTS);
        let facts = Facts::new(Sources::new(options.facts.clone(), options.bus.clone()));
        let strangers = Strangers::new(policy.strangers);
        let mut owner = Self {
            options,
            policy,
            in_force,
            history,
            keys,
            added,
            trial: None,
            preparing,
            ready,
            previewing,
            previews,
            refused: None,
            started: now.monotonic,
            alarm: Alarm::new()?,
            shared,
            netlink,
            firewall,
            sysctls,
            addresses: Default::default(),
            watch,
            access: Default::default(),
            links: Default::default(),
            ingress_indices: Default::default(),
            fronts: Default::default(),
            homes,
            served,
            keeping: None,
            responder,
            strangers,
            service: Service::new(now.monotonic),
            counts: SignalingCounts::default(),
            round_trips: RoundTrips::default(),
            facts,
            path_mtus_told: Default::default(),
            counted: Counted::default(),
            ledger,
            next_override: 1,
            override_owners: Default::default(),
            listeners,
            changed: Default::default(),
            walk: None,
            claims: Default::default(),
            others_first: false,
            doors: None,
            requests,
            tasks: vec![control],
            metrics: None,
            neighbours_placed: Default::default(),
            attached: Vec::new(),
            neighbourhoods: Default::default(),
            neighbours_heard: mpsc::channel(NEIGHBOURS_HEARD),
            recent: Vec::new(),
            heard: Vec::new(),
            routed: Desired::default(),
            routes_dirty: true,
            rerouted: std::collections::BTreeSet::default(),
        };
        owner.find_ingresses().await;
        owner.watch_octets();
        owner.hear_own();
        owner.want_facts();
        owner.tick();
        if let Some(scrapes) = scrapes {
            let metrics = Arc::new(Metrics::new(&owner.metrics_input()));
            owner.tasks.push(tokio::spawn(scrapes.serve(metrics.clone(), request_sender)));
            owner.metrics = Some(metrics);
        }
        if let Some(dashboard) = dashboard {
            let listeners = owner.listeners.clone();
            owner.tasks.push(tokio::spawn(dashboard.serve(to_owner, listeners)));
        }
        // Rules and routes before the first packet: what a killed run left goes, and the
        // unreachable defaults stand before any uplink is used.
        owner.begin().await?;
        owner.want_named();
        Ok(owner)
    }
}

/// The dashboard, where it can be: a place that somebody else has is no reason not to carry
/// packets, a token that others can read is one not to start.
async fn open_dashboard(settings: Option<&Settings>) -> anyhow::Result<Option<Dashboard>> {
    let Some(settings) = settings else { return Ok(None) };
    match Dashboard::bind(settings).await {
        Ok(dashboard) => Ok(Some(dashboard)),
        Err(error @ HttpError::System { .. }) => {
            tracing::warn!("no dashboard: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the packet guard is told.
pub(super) fn guarded(
    policy: &Policy,
    listening: impl IntoIterator<Item = InterfaceName>,
    ours: &[Ipv6Addr],
) -> Guarded {
    let mut home: std::collections::BTreeSet<Ipv6Net> = Default::default();
    for it in &policy.homes {
        home.insert(crate::edge::routes::host(it.address.0));
        home.extend(it.mobile_networks.iter().map(|network| network.prefix.net()));
    }
    let on = |network: &MobileNetwork| network.on.clone();
    Guarded {
        uplinks: policy.interfaces.iter().map(|it| it.name.clone()).chain(listening).collect(),
        ours: ours.iter().copied().collect(),
        home,
        returned: Default::default(),
        own: policy.homes.iter().map(|it| it.address.0).collect(),
        also: policy.homes.iter().flat_map(|it| &it.also).map(|also| also.from.clone()).collect(),
        ingress: policy.homes.iter().flat_map(|it| &it.mobile_networks).filter_map(on).collect(),
        translates: policy.homes.iter().any(translates),
    }
}

/// Refuses rules that look at what the packet path cannot tell, each with its place.
pub(super) fn fields_can_be_told(policy: &Policy) -> Result<(), ControlError> {
    let mut untold = Vec::new();
    for rule in policy.homes.iter().flat_map(|home| &home.rules.rules) {
        let selectors = rule.head.selectors.iter().chain(&rule.head.exclude);
        let fields = selectors.fold(FieldSet::NONE, |all, one| all.union(one.fields()));
        for field in fields.iter().filter(|field| !TOLD.contains(*field)) {
            let (file, line, name) = (&rule.file, rule.line, rule.name());
            untold.push(format!("{file}:{line}: rule {name} looks at {}", field.word()));
        }
    }
    if untold.is_empty() {
        return Ok(());
    }
    let error = format!("this daemon's packet path cannot tell: {}", untold.join("; "));
    Err(ControlError::new(ErrorCode::Refused, error).help("take these conditions out"))
}

/// Whether some rule breaks out with translation.
fn translates(home: &Home) -> bool {
    let breaks_out = |verb: &Verb| matches!(verb, Verb::Breakout { translate: true, .. });
    home.rules.rules.iter().any(|rule| {
        let otherwise = matches!(&rule.otherwise, Fallback::Then(verb) if breaks_out(verb));
        otherwise || breaks_out(&rule.verb)
    })
}

/// The largest path's MTU less the outer header; fixed from here on.
async fn tunnel_mtu(policy: &Policy, netlink: &Netlink) -> anyhow::Result<u32> {
    let mut largest = 0;
    for interface in &policy.interfaces {
        let link = netlink.link(interface.name.as_str()).await?;
        largest = largest.max(link.map_or(ETHERNET_MTU, |link| link.mtu));
    }
    let path = if largest == 0 { ETHERNET_MTU } else { largest };
    Ok((path - OUTER_HEADER).max(IPV6_MIN_MTU))
}

/// What every home stands on.
struct Ground<'g> {
    policy: &'g Policy,
    keys: &'g KeyStore,
    /// How often this agent has lost what it held.
    restarts: u32,
    /// What earlier runs counted of quotas.
    ledgers: Ledgers,
    /// MTU of tunnels of which the policy says nothing.
    mtu: u32,
    shared: &'g Arc<Shared>,
    netlink: &'g Netlink,
    sysctls: &'g mut Sysctls,
}

impl Ground<'_> {
    async fn open(&mut self, plan: Plan, published: publish::Published) -> anyhow::Result<Tunnel> {
        let (ingresses, shared) = (&self.policy.ingresses, self.shared.clone());
        Tunnel::open(plan, published, ingresses, shared, self.netlink, self.sysctls).await
    }
}

async fn open_home(
    home: &Home,
    ground: &mut Ground<'_>,
    now: mtun_signaling::time::Timestamp,
) -> anyhow::Result<MobileHome> {
    let empty = mtun_signaling::BindingUpdateList::new(home.address, home.agent);
    let known = publish::home(home, &empty, Arc::default(), |_| None);
    let plan = Plan {
        name: home.tunnel.name.clone(),
        mtu: home.tunnel.mtu.map_or(ground.mtu, u32::from),
        agent: Some(home.agent.0).filter(|agent| !agent.is_unspecified()),
        home_address: Some(home.address.0),
    };
    let published = publish::initial([known], true, Vec::new());
    let tunnel = ground.open(plan, published).await?;
    let config = MobileConfig {
        home: home.name.clone(),
        home_address: home.address,
        agent: home.agent,
        mobile_networks: home.mobile_networks.iter().map(|network| network.prefix).collect(),
        prefix_mode: home.prefix_mode,
        lifetime: home.register.lifetime,
        multiple_coa: home.register.multiple_coa,
        bulk: home.register.bulk,
        returning_home: home.returning_home,
        extensions: home.extensions,
        protection: ground.keys.get(home.security.as_ref()),
        initial_sequence: random::u16()?,
    };
    let mut steering = Steering::new(ground.policy, home, now.monotonic);
    if let Some(ledger) = ground.ledgers.get(&home.name) {
        steering.restore(now.monotonic, ledger);
    }
    let optimization = match home.route_optimization {
        Some(plan) => Some(Optimization::new(home, plan, random::seed()?)),
        None => None,
    };
    let prober = Prober::new(ground.policy, home);
    MobileHome::new(home.clone(), tunnel, config, optimization, (steering, prober), now)
}

async fn open_responder(
    plan: &CorrespondentPlan,
    ground: &mut Ground<'_>,
) -> anyhow::Result<Responder> {
    let tunnel = match &plan.tunnel {
        Some(tunnel) => {
            let published = publish::initial([], false, plan.addresses.clone());
            let plan = Plan {
                name: tunnel.name.clone(),
                mtu: tunnel.mtu.map_or(ground.mtu, u32::from),
                agent: None,
                home_address: None,
            };
            Some(ground.open(plan, published).await?)
        }
        None => None,
    };
    Ok(Responder::new(plan.clone(), tunnel, random::seed()?))
}

async fn open_served(served: &ServedHome, ground: &mut Ground<'_>) -> anyhow::Result<AgentHome> {
    let own = std::sync::Arc::new(publish::downlink(None, served.unmatched));
    let outer = u16::try_from(ground.mtu + OUTER_HEADER).unwrap_or(u16::MAX);
    let known = served
        .mobiles
        .iter()
        .map(|allowed| publish::mobile(served, allowed, None, own.clone(), |_| outer, None));
    let plan = Plan {
        name: served.tunnel.name.clone(),
        mtu: served.tunnel.mtu.map_or(ground.mtu, u32::from),
        agent: Some(served.agent.0),
        home_address: None,
    };
    let home_agents = super::discovery::home_agents(served)?;
    let own = vec![served.agent.0, home_agents.anycast()];
    let published = publish::initial(known, false, own);
    let tunnel = ground.open(plan, published).await?;
    let config = agent_config(served, ground.keys, ground.restarts);
    Ok(AgentHome::new(served.clone(), tunnel, config, home_agents))
}

/// What an agent's machine needs of the policy.
pub(super) fn agent_config(served: &ServedHome, keys: &KeyStore, restarts: u32) -> AgentConfig {
    AgentConfig {
        address: served.agent,
        prefix: served.prefix,
        home_link: match served.on {
            Some(_) => HomeLink::Real { only_router: served.only_router },
            None => HomeLink::Virtual,
        },
        refresh_advice: None,
        refresh_requests: true,
        max_lifetime: served.max_lifetime,
        multiple_coa: served.multiple_coa,
        bulk: served.bulk,
        flow_bindings: served.flow_bindings,
        extensions: served.extensions,
        restart_counter: restarts,
        mobiles: served.mobiles.iter().map(|it| agent_mobile(served, it, keys)).collect(),
    }
}

/// What it needs of one mobile.
pub(super) fn agent_mobile(
    served: &ServedHome,
    allowed: &AllowedMobile,
    keys: &KeyStore,
) -> AgentMobile {
    AgentMobile {
        address: allowed.address,
        prefixes: allowed.prefixes.clone(),
        protection: keys.get(allowed.security.as_ref()),
        max_bindings: allowed.max_bindings,
        max_flows: allowed.max_flows,
        max_copies: allowed.max_copies,
        reflect: served.reflect,
        copies: true,
        refused: allowed.refused,
        refused_bids: allowed.refused_bids.clone(),
    }
}

fn warn_unprotected(policy: &Policy) {
    for home in policy.homes.iter().filter(|home| home.security.is_none()) {
        tracing::warn!(
            "home {} runs UNPROTECTED (security none): whoever can send packets can move it",
            home.name
        );
    }
    for served in &policy.served {
        for mobile in served.mobiles.iter().filter(|mobile| mobile.security.is_none()) {
            tracing::warn!(
                "mobile {} of home {} is UNPROTECTED (security none): whoever can send packets \
                 can move it",
                mobile.address,
                served.name
            );
        }
    }
}
