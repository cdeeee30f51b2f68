//! One end of an optimized route without any signaling: what two machines would have agreed on is
//! given on the command line. For trying the packet path against another stack; nothing here is
//! protected, and nothing of it is for use.
//!
//! usage: straight mobile|correspondent DEVICE UPLINK HOME CARE-OF CORRESPONDENT
//!
//! DEVICE is made; addresses and routes are for the caller to set. It runs until it is killed.

use std::net::Ipv6Addr;
use std::sync::Arc;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use mtun::arrivals::Arrivals;
use mtun::edge::clock::Clock;
use mtun::packets::{Lane, Shared, inbound, outbound};
use mtun::tunnel_interface::Choice;
use mtun_dataplane::backend::{PacketSocket, Tun, Uplink};
use mtun_dataplane::{
    Binding, Engine, Held, HeldBinding, Pair, PathId, Registration, Settings, Snapshot,
};
use mtun_policy::{Bid, CareOfAddress, Effective, HomeAddress, HomeName, Ingress, Optimize};

struct Route {
    home: HomeAddress,
    care_of: Ipv6Addr,
    correspondent: Ipv6Addr,
}

impl Route {
    fn pair(&self) -> Pair {
        Pair { home_address: self.home, correspondent: self.correspondent }
    }

    /// The mobile's registration, `peer` being whoever holds it.
    fn registration(&self, peer: Ipv6Addr, path: PathId, policy: Arc<Effective>) -> Registration {
        let binding = Binding {
            bid: Bid::new(1),
            priority: 1,
            care_of: CareOfAddress::from(self.care_of),
            path,
            usable: true,
            attached: true,
            metered: false,
            home_link: false,
            mtu: 1500,
            rtt: None,
            jitter: None,
        };
        Registration::new(HomeName::new("h"), self.home, vec![], peer, vec![binding], policy)
    }

    /// What a mobile knows whose correspondent holds its care-of address. No agent is there.
    fn mobile(&self) -> Snapshot {
        let policy = Effective::clone(&Effective::reflecting());
        let policy = Arc::new(Effective { optimize: Some(Optimize::Allowed), ..policy });
        let registration = self.registration(Ipv6Addr::UNSPECIFIED, PathId(1), policy);
        let held = HeldBinding { bid: Bid::new(1), care_of: self.care_of };
        let mut snapshot = Snapshot { own: vec![self.care_of], ..Snapshot::default() };
        snapshot.updates = [registration].into_iter().collect();
        snapshot.optimized = snapshot.optimized.with(self.pair(), Held { bindings: vec![held] });
        snapshot
    }

    /// What a correspondent knows at which the mobile is bound.
    fn correspondent(&self) -> Snapshot {
        let policy = Effective::reflecting();
        let registration = self.registration(self.correspondent, PathId::ROUTED, policy);
        let mut snapshot = Snapshot { own: vec![self.correspondent], ..Snapshot::default() };
        snapshot.correspondents = snapshot.correspondents.with(self.pair(), registration);
        snapshot
    }
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, device, uplink, home, care_of, correspondent] = &words[..] else {
        bail!("usage: straight mobile|correspondent DEVICE UPLINK HOME CARE-OF CORRESPONDENT");
    };
    let home = HomeAddress(home.parse()?);
    let (care_of, correspondent) = (care_of.parse()?, correspondent.parse()?);
    let route = Route { home, care_of, correspondent };
    let snapshot = match role.as_str() {
        "mobile" => route.mobile(),
        "correspondent" => route.correspondent(),
        _ => bail!("no such end: {role}"),
    };
    let index = std::fs::read_to_string(format!("/sys/class/net/{uplink}/ifindex"))
        .with_context(|| format!("no interface {uplink}"))?;
    let index = index.trim().parse()?;

    let tun = Tun::open(device, usize::from(Ingress::FIRST_NAMED))?;
    let engine = Engine::new(Arc::new(ArcSwap::from_pointee(snapshot)), Settings::default());
    let queue = tun.queues()[0].clone();
    let lane = Lane { engine: Arc::new(engine), queue, agent: None };
    let lane = Arc::new(lane);
    // Nobody is there to take signaling: a bounded room of it waits for ever.
    let shared = Arc::new(Shared::new(Clock::start(), Arrivals::new(0), Choice::Off));
    shared.paths.open(PathId(1), Uplink::open(Some(index))?, None);
    shared.paths.open(PathId::ROUTED, Uplink::open(None)?, None);
    shared.lanes.store(Arc::new(vec![lane.clone()]));
    let mut threads =
        vec![inbound(shared.clone(), Arc::new(PacketSocket::open(index)?), PathId(1))?];
    for queue in tun.queues() {
        threads.push(outbound(shared.clone(), lane.clone(), queue.clone())?);
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}
