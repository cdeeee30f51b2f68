//! What the engine does with a fast path, which here is a table that notes what it is asked for:
//! that a publication takes no longer for a million flows, and that nothing they carried is lost.

mod support;

use std::collections::HashMap;
use std::io;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mtun_dataplane::abi::{FastFlow, FastKey, FastRoute};
use mtun_dataplane::{
    Engine, Exit, FastPath, MoveReason, PathId, Publication, Registration, Verdict,
};
use mtun_policy::{
    Effective, FailbackMode, HomeAddress, HomeName, Ingress, MobileNetworkPrefix, Otherwise,
    Outcome, RuleHead, Says, Scope, Sticky,
};
use support::*;

const MS: Duration = Duration::from_millis(1);
const FLOWS: u16 = 300;

/// The table, and how often flows were read or taken out.
#[derive(Debug, Default)]
struct Noted {
    flows: Mutex<HashMap<FastKey, FastFlow>>,
    paths: Mutex<HashMap<u32, FastRoute>>,
    clock: AtomicU64,
    epoch: AtomicU64,
    looks: AtomicU64,
}

impl Noted {
    fn looks(&self) -> u64 {
        self.looks.swap(0, Ordering::Relaxed)
    }

    fn len(&self) -> usize {
        self.flows.lock().unwrap().len()
    }

    /// How many flows still hold for a packet.
    fn holding(&self) -> usize {
        let paths = self.paths.lock().unwrap();
        let flows = self.flows.lock().unwrap();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let holds = |flow: &&FastFlow| {
            flow.epoch == epoch && paths[&flow.path].generation == flow.generation
        };
        flows.values().filter(holds).count()
    }

    /// Every flow carries a packet at this time.
    fn carry(&self, at: Duration) {
        for flow in self.flows.lock().unwrap().values_mut() {
            (flow.packets, flow.octets) = (flow.packets + 1, flow.octets + 100);
            flow.seen_ns = at.as_nanos() as u64;
        }
        self.clock.store(at.as_nanos() as u64, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Table(Arc<Noted>);

impl FastPath for Table {
    fn clock(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn room(&self) -> (usize, u32) {
        (1 << 12, 16)
    }

    fn configure(&self, epoch: u64, _lease_ns: u64) -> io::Result<()> {
        self.0.epoch.store(epoch, Ordering::Relaxed);
        Ok(())
    }

    fn exit(&self, _path: PathId, _ends: (Ipv6Addr, Ipv6Addr)) -> Option<Exit> {
        Some(Exit { interface: 1, mark: 0 })
    }

    fn set_path(&self, path: u32, route: &FastRoute) -> io::Result<()> {
        self.0.paths.lock().unwrap().insert(path, *route);
        Ok(())
    }

    fn put(&self, key: &FastKey, flow: &FastFlow) -> io::Result<()> {
        self.0.flows.lock().unwrap().insert(*key, *flow);
        Ok(())
    }

    fn take(&self, key: &FastKey) -> io::Result<Option<FastFlow>> {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.flows.lock().unwrap().remove(key))
    }

    fn each(&self, show: &mut dyn FnMut(&FastKey, &FastFlow)) -> io::Result<()> {
        let flows = self.0.flows.lock().unwrap().clone();
        self.0.looks.fetch_add(flows.len() as u64, Ordering::Relaxed);
        flows.iter().for_each(|(key, flow)| show(key, flow));
        Ok(())
    }
}

/// A mobile router whose rules prefer these links, with slow W-CDMA and fast WLAN.
fn router(links: &[u16], wlan: bool) -> mtun_dataplane::Registration {
    let bids: Vec<_> = links.iter().map(|number| bid(*number)).collect();
    let (head, says) = rule(0, Vec::new(), Outcome::Candidates(bids.clone()), Otherwise::NextRule);
    let sticky = Sticky { scope: Scope::Flow, lasts: Duration::from_secs(600) };
    let says = Says { sticky, failback: FailbackMode::Gap, ripe: bids, ..says };
    let head = RuleHead { identity: u64::from(links[0]), ..head };
    let mut bindings = uplinks();
    for (binding, rtt) in bindings.iter_mut().zip([20, 100]) {
        (binding.rtt, binding.jitter) = (Some(rtt * MS), Some(Duration::ZERO));
    }
    bindings[0].usable = wlan;
    registration(bindings, Effective::new([(head, says)]).into())
}

fn publish(engine: &Engine, links: &[u16], wlan: bool, at: Duration) {
    let mut registration = router(links, wlan);
    registration.changed_at = at;
    engine.change(|change| *change.updates = change.updates.with(registration));
}

fn send(engine: &Engine, port: u16, at: Duration) -> Verdict {
    let packet = udp(HOME, PEER, (10_000 + port, 9), 100);
    engine.outbound(Ingress::LOCAL, &packet, at, &mut Vec::new())
}

/// An engine whose flows are all in the table, by the first of these links.
fn carrying(links: &[u16]) -> (Engine, Arc<Noted>) {
    let noted = Arc::new(Noted::default());
    noted.clock.store(NOW.as_nanos() as u64, Ordering::Relaxed);
    let node = Node::new(mobile_with(router(links, true)));
    let engine = node.engine.with_fast_path(Box::new(Table(Arc::clone(&noted))));
    publish(&engine, links, true, NOW);
    engine.sweep(NOW).unwrap();
    for at in [NOW, NOW + MS] {
        for port in 0..FLOWS {
            assert_eq!(send(&engine, port, at), Verdict::Send { path: PathId(links[0]) });
        }
    }
    assert_eq!(noted.holding(), usize::from(FLOWS));
    noted.looks();
    (engine, noted)
}

#[test]
fn the_death_of_a_link_looks_at_no_flow_before_it_holds() {
    let (engine, noted) = carrying(&[1, 2]);
    noted.carry(NOW + 500 * MS);
    publish(&engine, &[1, 2], false, NOW + 501 * MS);
    assert_eq!((noted.looks(), noted.holding()), (0, 0), "all have ended, and none was touched");
    // The first packet of a flow brings back what that carried, and what no other did.
    let at = NOW + 502 * MS;
    assert_eq!(send(&engine, 7, at), Verdict::Send { path: PathId(2) });
    assert_eq!(noted.looks(), 1);
    let moved = engine.moves().pop().expect("it moved");
    assert_eq!((moved.reason, moved.at), (MoveReason::LinkDown, at));
    // The next sweep takes out the rest, and every packet is counted once.
    engine.sweep(NOW + 1000 * MS).unwrap();
    assert_eq!(noted.len(), 0, "what ended is not kept");
    let packets: u64 = engine.flows().iter().map(|flow| flow.packets_out).sum();
    assert_eq!(packets, u64::from(FLOWS) * 3 + 1);
    // From then on nobody looks for what ended.
    noted.looks();
    assert_eq!(send(&engine, 8, NOW + 1001 * MS), Verdict::Send { path: PathId(2) });
    assert_eq!(noted.looks(), 0);
}

/// A planned move waits for a pause of 80 ms: the last packet, 10 ms ago, was the fast path's.
#[test]
fn whoever_decides_next_knows_when_the_last_packet_was() {
    let (engine, noted) = carrying(&[2, 1]);
    noted.carry(NOW + 400 * MS);
    engine.sweep(NOW + 400 * MS).unwrap();
    noted.carry(NOW + 500 * MS);
    publish(&engine, &[1, 2], true, NOW + 501 * MS);
    assert_eq!(send(&engine, 7, NOW + 510 * MS), Verdict::Send { path: PathId(2) }, "it waits");
    assert_eq!(send(&engine, 8, NOW + 581 * MS), Verdict::Send { path: PathId(1) }, "a pause");
    // So does who decides without a packet.
    let again = NOW + 520 * MS;
    while engine.reevaluate(again) == Some(again) {}
    let by = |number| engine.flows().iter().filter(|it| it.bid_out == Some(bid(number))).count();
    assert_eq!((by(2), by(1)), (usize::from(FLOWS) - 1, 1));
}

/// While a sweep reads, a flow may be taken out and installed again: what was read before is not what
/// the new one carried.
#[test]
fn a_flow_that_is_back_is_not_credited_twice() {
    let (engine, noted) = carrying(&[1, 2]);
    noted.carry(NOW + 500 * MS);
    publish(&engine, &[1, 2], false, NOW + 501 * MS);
    for at in [502, 503] {
        assert_eq!(send(&engine, 7, NOW + at * MS), Verdict::Send { path: PathId(2) });
    }
    assert_eq!(noted.holding(), 1, "it is carried by the other link");
    noted.carry(NOW + 600 * MS);
    engine.sweep(NOW + 1000 * MS).unwrap();
    assert_eq!(noted.len(), 1);
    let flows = engine.flows();
    let flow = flows.iter().find(|flow| flow.key.source_port == Some(10_007)).unwrap();
    assert_eq!((flow.packets_out, flow.bytes_out), (6, 600));
}

/// Another mobile at an agent ends nobody's flows, unless it takes an address from somebody.
#[test]
fn a_home_that_comes_ends_only_flows_whose_addresses_it_takes() {
    let (engine, noted) = carrying(&[1, 2]);
    let come = |home_address: &str, prefix: Option<&str>| {
        let prefix = prefix.map(|it| MobileNetworkPrefix::new(it.parse().unwrap()).unwrap());
        let (name, policy) = (HomeName::new(home_address), Effective::reflecting());
        let home_address = HomeAddress(v6(home_address));
        let prefixes = prefix.into_iter().collect();
        let new = Registration::new(name, home_address, prefixes, v6(AGENT), uplinks(), policy);
        engine.change(|change| *change.updates = change.updates.with(new));
    };
    come("3fff:1::1", None);
    come("3fff:2::1", Some("3fff:3::/48"));
    assert_eq!(noted.holding(), usize::from(FLOWS));
    engine.change(|change| {
        *change.updates = change.updates.without(HomeAddress(v6("3fff:2::1")));
    });
    assert_eq!(noted.holding(), usize::from(FLOWS), "nor does one that goes");
    let inside = PREFIX.parse::<ipnet::Ipv6Net>().unwrap().addr();
    come(&Ipv6Addr::from(u128::from(inside) + 9).to_string(), None);
    assert_eq!(noted.holding(), 0);
}
