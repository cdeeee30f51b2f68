//! Worlds and packets for the tests of the data plane.
//!
//! Packets are written by `etherparse`, so that what we read was not written by what reads it.

#![allow(dead_code, reason = "each test file uses its share")]

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use etherparse::PacketBuilder;
use mtun_dataplane::{
    Binding, Engine, Held, HeldBinding, Pair, PathId, Registration, Settings, Snapshot, Verdict,
};
use mtun_policy::{
    Bid, BlockReply, CareOfAddress, Effective, FlowKey, HomeAddress, HomeName, Ingress,
    MobileNetworkPrefix, Optimize, Otherwise, Outcome, RuleHead, RuleId, RuleName, Says,
    TrafficSelector,
};

pub const HOME: &str = "2001:db8:100::42";
pub const PREFIX: &str = "2001:db8:100:4200::/56";
pub const INSIDE: &str = "2001:db8:100:4201::7";
pub const AGENT: &str = "2001:db8:100::1";
pub const PEER: &str = "2001:db8:c::9";
pub const WLAN: &str = "2001:db8:1::7";
pub const WWAN: &str = "2001:db8:2::7";
pub const NOW: Duration = Duration::from_secs(1000);

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect(text)
}

pub fn bid(number: u16) -> Bid {
    Bid::new(number).expect("not zero")
}

/// A UDP packet of `length` octets in all.
pub fn udp(source: &str, destination: &str, ports: (u16, u16), length: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(v6(source).octets(), v6(destination).octets(), 60)
        .udp(ports.0, ports.1)
        .write(&mut packet, &vec![0xa5; length - 48])
        .unwrap();
    packet
}

pub fn tcp(source: &str, destination: &str, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(v6(source).octets(), v6(destination).octets(), 60)
        .tcp(ports.0, ports.1, 7, 1024)
        .syn()
        .write(&mut packet, &[])
        .unwrap();
    packet
}

/// An IPv6 packet with any payload.
pub fn raw(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A tunnel packet around another.
pub fn wrapped(source: &str, destination: &str, inner: &[u8]) -> Vec<u8> {
    raw(v6(source), v6(destination), 41, inner)
}

pub fn key(source: &str, destination: &str, protocol: u8, ports: Option<(u16, u16)>) -> FlowKey {
    FlowKey {
        source: IpAddr::V6(v6(source)),
        destination: IpAddr::V6(v6(destination)),
        protocol,
        source_port: ports.map(|p| p.0),
        destination_port: ports.map(|p| p.1),
        dscp: 0,
        ingress: Ingress::LOCAL,
        flow_label: 0,
        spi: None,
        icmp_type: None,
        uid: None,
    }
}

pub fn rule(
    id: u16,
    selectors: Vec<TrafficSelector>,
    outcome: Outcome,
    otherwise: Otherwise,
) -> (RuleHead, Says) {
    let head = RuleHead {
        id: RuleId(id),
        name: RuleName::new(format!("rule {id}")),
        selectors,
        exclude: Vec::new(),
        identity: u64::from(id),
        optimize: None,
    };
    (head, Says::plain(outcome, otherwise))
}

pub fn to_port(protocol: u8, port: u16) -> Vec<TrafficSelector> {
    vec![TrafficSelector {
        protocols: vec![protocol],
        destination_ports: vec![port..=port],
        ..TrafficSelector::default()
    }]
}

/// SSH by W-CDMA, telnet refused, everything else by WLAN: figure 11.
pub fn figure_11() -> Arc<Effective> {
    let next = Otherwise::NextRule;
    Arc::new(Effective::new([
        rule(0, to_port(6, 22), Outcome::Candidates(vec![bid(2)]), next.clone()),
        rule(1, to_port(6, 23), Outcome::Block(BlockReply::Reset), next.clone()),
        rule(2, to_port(17, 23), Outcome::Block(BlockReply::Icmp), next),
        rule(3, Vec::new(), Outcome::Candidates(vec![bid(1), bid(2)]), Otherwise::Any),
    ]))
}

pub fn binding(number: Option<u16>, care_of: &str, path: PathId) -> Binding {
    Binding {
        bid: number.map(bid),
        priority: number.unwrap_or(1) as u8,
        care_of: CareOfAddress::from(v6(care_of)),
        path,
        usable: true,
        attached: true,
        metered: false,
        home_link: false,
        mtu: 1500,
        rtt: None,
        jitter: None,
    }
}

pub fn registration(bindings: Vec<Binding>, policy: Arc<Effective>) -> Registration {
    Registration::new(
        HomeName::new("acme"),
        HomeAddress(v6(HOME)),
        vec![MobileNetworkPrefix::new(PREFIX.parse().unwrap()).unwrap()],
        v6(AGENT),
        bindings,
        policy,
    )
}

pub fn uplinks() -> Vec<Binding> {
    vec![binding(Some(1), WLAN, PathId(1)), binding(Some(2), WWAN, PathId(2))]
}

pub fn mobile() -> Snapshot {
    mobile_with(registration(uplinks(), figure_11()))
}

pub fn mobile_with(registration: Registration) -> Snapshot {
    Snapshot {
        generation: 1,
        updates: [registration].into_iter().collect(),
        own: vec![v6(WLAN), v6(WWAN)],
        ..Snapshot::default()
    }
}

pub fn routed(mut bindings: Vec<Binding>) -> Vec<Binding> {
    bindings.iter_mut().for_each(|binding| binding.path = PathId::ROUTED);
    bindings
}

pub fn agent() -> Snapshot {
    agent_with(registration(routed(uplinks()), Effective::reflecting()))
}

pub fn agent_with(registration: Registration) -> Snapshot {
    Snapshot {
        generation: 1,
        cache: [registration].into_iter().collect(),
        own: vec![v6(AGENT)],
        ..Snapshot::default()
    }
}

/// These rules, in a home that lets everything go straight.
pub fn straight(policy: &Effective) -> Arc<Effective> {
    Arc::new(Effective { optimize: Some(Optimize::Allowed), ..policy.clone() })
}

pub fn pair(home_address: &str, correspondent: &str) -> Pair {
    Pair { home_address: HomeAddress(v6(home_address)), correspondent: v6(correspondent) }
}

pub fn held(bindings: &[(u16, &str)]) -> Held {
    let one = |&(number, care_of): &(u16, &str)| HeldBinding {
        bid: Bid::new(number),
        care_of: v6(care_of),
    };
    Held { bindings: bindings.iter().map(one).collect() }
}

/// A mobile whose bindings [`PEER`] holds.
pub fn optimizing() -> Snapshot {
    let mut snapshot = mobile_with(registration(uplinks(), straight(&figure_11())));
    snapshot.optimized = snapshot.optimized.with(pair(HOME, PEER), held(&[(1, WLAN), (2, WWAN)]));
    snapshot
}

/// What a correspondent at `own` knows of the mobile.
pub fn bound(own: &str, home_address: &str, bindings: Vec<Binding>) -> Registration {
    Registration::new(
        HomeName::new("correspondent"),
        HomeAddress(v6(home_address)),
        Vec::new(),
        v6(own),
        bindings,
        Effective::reflecting(),
    )
}

/// The correspondent [`PEER`], at which the mobile is bound.
pub fn correspondent() -> Snapshot {
    let bound = bound(PEER, HOME, routed(uplinks()));
    Snapshot {
        generation: 1,
        correspondents: [(pair(HOME, PEER), bound)].into_iter().collect(),
        own: vec![v6(PEER)],
        ..Snapshot::default()
    }
}

/// An engine and the snapshot it reads.
pub struct Node {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub engine: Engine,
    pub out: Vec<u8>,
}

impl Node {
    pub fn new(snapshot: Snapshot) -> Self {
        Self::with(snapshot, Settings::default())
    }

    pub fn with(snapshot: Snapshot, settings: Settings) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let engine = Engine::new(Arc::clone(&snapshot), settings);
        Self { snapshot, engine, out: Vec::new() }
    }

    pub fn outbound(&mut self, packet: &[u8]) -> Verdict {
        self.engine.outbound(Ingress::LOCAL, packet, NOW, &mut self.out)
    }

    pub fn inbound(&mut self, packet: &[u8]) -> Verdict {
        self.engine.inbound(PathId(1), packet, NOW, &mut self.out)
    }
}
