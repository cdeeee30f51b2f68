//! The shared fixture: a world with both daemons in it.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use mtun::control::documents::StatusDocument;
use mtun::control::{Request, Response};
use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, write_keys};
use mtun::lab::flows::Kind;
use mtun::lab::observe::Observatory;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin, Traffic};
use mtun::lab::world::{Plan, World};
use mtun::metrics::MetricsInput;

/// How long anything may take; only its end is judged.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A world whose router and agent run the daemon.
pub struct Lab {
    // In this order they end: traffic and mobile first, the world last.
    pub mobile: Option<Daemon>,
    pub agent: Option<Daemon>,
    /// Where the correspondent runs one too.
    pub correspondent: Option<Daemon>,
    pub observatory: Observatory,
    pub world: World,
    pub text: PolicyText,
}

pub fn programs() -> Programs {
    Programs {
        mtund: PathBuf::from(env!("CARGO_BIN_EXE_mtund")),
        mtun: PathBuf::from(env!("CARGO_BIN_EXE_mtun")),
    }
}

impl Lab {
    /// Builds the world and starts both daemons.
    pub fn start(plan: Plan, text: PolicyText) -> Self {
        let mut lab = Self::with_agent(plan, text);
        lab.start_mobile(&[]);
        lab
    }

    /// Builds the world and starts the agent's daemon alone.
    pub fn with_agent(plan: Plan, text: PolicyText) -> Self {
        Self::with_agent_prepared(plan, text, |_| {})
    }

    /// The same with something done to the world before.
    pub fn with_agent_prepared(plan: Plan, text: PolicyText, prepare: impl FnOnce(&World)) -> Self {
        let world = World::build(plan).unwrap();
        prepare(&world);
        write_keys(&world).unwrap();
        let observatory = Observatory::open(&world).unwrap();
        let agent =
            Daemon::start(&world, &programs(), Side::Agent, &text, &Arguments::default()).unwrap();
        Self { mobile: None, agent: Some(agent), correspondent: None, observatory, world, text }
    }

    /// Builds the world and starts daemons at the agent, the correspondent and the mobile.
    pub fn optimized(plan: Plan, text: PolicyText) -> Self {
        let mut lab = Self::with_agent(plan, text);
        lab.start_correspondent();
        lab.start_mobile(&[]);
        lab
    }

    /// Starts the correspondent's daemon.
    pub fn start_correspondent(&mut self) {
        let none = Arguments::default();
        let side = Side::Correspondent;
        let daemon = Daemon::start(&self.world, &programs(), side, &self.text, &none).unwrap();
        self.correspondent = Some(daemon);
    }

    pub fn correspondent(&self) -> &Daemon {
        self.correspondent.as_ref().expect("started")
    }

    /// Starts the mobile's daemon.
    pub fn start_mobile(&mut self, arguments: &[&str]) {
        let arguments = Arguments(arguments.iter().map(|word| (*word).to_owned()).collect());
        let mobile =
            Daemon::start(&self.world, &programs(), Side::Mobile, &self.text, &arguments).unwrap();
        self.mobile = Some(mobile);
    }

    pub fn mobile(&self) -> &Daemon {
        self.mobile.as_ref().expect("started")
    }

    pub fn agent(&self) -> &Daemon {
        self.agent.as_ref().expect("started")
    }

    /// Waits until exactly these uplinks are registered.
    pub fn registered(&self, links: &[&str]) -> StatusDocument {
        self.mobile().wait_for_links(links, PATIENCE).unwrap()
    }

    /// Starts the six flows and waits until they use the uplinks of figure 11.
    pub fn traffic(&self) -> Traffic {
        let traffic = Traffic::start(&self.world, PATIENCE).unwrap();
        self.settled(&traffic, figure_11);
        traffic
    }

    /// Waits until every flow, both ways, uses the uplink that `wanted` says.
    pub fn settled(&self, traffic: &Traffic, wanted: fn(Name, Origin) -> &'static str) {
        let settled = traffic.wait_for_uplinks(&self.observatory, PATIENCE, wanted);
        assert!(settled.is_ok(), "{:#}\n{}", settled.unwrap_err(), self.mobile().story());
    }

    /// The figures behind a daemon's metrics.
    pub fn metrics(daemon: &Daemon) -> MetricsInput {
        match daemon.ask(Request::Metrics {}).unwrap() {
            Response::Metrics(figures) => figures,
            other => panic!("not metrics: {other:?}"),
        }
    }

    /// Packets that a daemon dropped for a reason.
    pub fn drops(daemon: &Daemon, reason: &str) -> u64 {
        let figures = Self::metrics(daemon);
        figures.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum()
    }

    /// Nothing plain with a home source, and no Parameter Problem, was seen by anybody.
    pub fn assert_clean(&self) {
        let oddities = self.observatory.oddities();
        let samples = self.observatory.samples();
        assert_eq!(oddities.plain_home_source, 0, "plain packets, home source: {samples:#?}");
        assert_eq!(self.world.leaked().unwrap(), 0, "the same, at the access routers");
        assert_eq!(oddities.parameter_problems, 0, "Parameter Problems: {samples:#?}");
    }
}

/// SSH over W-CDMA, the rest over the WLAN.
pub fn figure_11(name: Name, _: Origin) -> &'static str {
    if name == Name::Ssh { "wwan0" } else { "wlan0" }
}

/// Everything over W-CDMA.
pub fn all_wwan(_: Name, _: Origin) -> &'static str {
    "wwan0"
}

/// Every TCP flow gets through, and none has ever been broken.
pub fn assert_alive(traffic: &Traffic) {
    traffic.all_progress(PATIENCE).unwrap();
    for origin in [Origin::Router, Origin::Node] {
        for kind in [Kind::Ssh, Kind::Bulk] {
            assert_eq!(traffic.tcp(origin, kind).progress().broken, None, "{kind:?} {origin}");
        }
    }
}

/// Both probes of a stretch: nothing lost, nothing twice, either way.
pub fn assert_lossless(traffic: &Traffic, mark: &mtun::lab::traffic::Mark, what: &str) {
    for (origin, tally) in traffic.probe_tallies(mark) {
        for (way, tally) in [("out", tally.outbound), ("in", tally.inbound)] {
            assert!(tally.sent > 0, "{what}: {origin} {way} sent nothing");
            assert_eq!(
                (tally.lost, tally.duplicated),
                (0, 0),
                "{what}: lost and duplicated, {origin} {way}: {tally:?}"
            );
        }
    }
}

/// One UDP packet from the correspondent's side of the world, for crafted tests.
pub fn ipv6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}
