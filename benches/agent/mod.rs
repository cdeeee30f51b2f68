//! A home agent of many mobiles and one thread of its, for benches.

use std::hint::black_box;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use mtun::lab::namespace::{Namespace, Shell};
use mtun::lab::record::Record;
use mtun::lab::world::address;
use mtun_dataplane::backend::{RECEIVE_BUFFER, Tun, TunQueue, Uplink};
use mtun_dataplane::{Binding, Engine, PathId, Registration, Settings, Snapshot, Verdict};
use mtun_policy::downlink::{Rulebook, Unmatched};
use mtun_policy::{
    Bid, BinarySelector, FlowBinding, FlowId, FlowPriority, HomeAddress, HomeName, Ingress,
    IpVersion,
};

/// Flow bindings of each mobile.
pub const ENTRIES: u16 = 8;
/// Packets that wait in the tunnel interface at a time; it holds 4,096.
const WAITING: usize = 500;

/// What the mobiles of an agent told it.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "not every bench has both")]
pub enum Rules {
    /// All the same, as a fleet with one policy file does.
    Same,
    /// Each others than all others, which only the numbers of their flow bindings tell apart.
    Own,
}

/// An agent of so many mobiles with so many bindings and eight flow bindings each.
pub fn agent(mobiles: u32, bindings: u16, rules: Rules, settings: Settings) -> Engine {
    let binding = |bid: u16| Binding {
        bid: Bid::new(bid),
        priority: bid as u8,
        care_of: Ipv6Addr::new(0x2001, 0xdb8, bid, 0, 0, 0, 0, 7).into(),
        path: PathId::ROUTED,
        usable: true,
        attached: true,
        metered: false,
        home_link: false,
        mtu: 1500,
        rtt: None,
        jitter: None,
    };
    let flow = |first: u16, number: u16| FlowBinding {
        id: FlowId::new(first.wrapping_add(number).max(1)).expect("counted from one"),
        priority: FlowPriority::new(16 * number).expect("counted from one"),
        selector: BinarySelector {
            protocol: Some(17..=17),
            source_port: Some(number..=number),
            ..BinarySelector::everything(IpVersion::V6)
        },
        bids: Bid::new(1 + number % 2).into_iter().collect(),
    };
    let mut rulebook = Rulebook::new(Unmatched::default());
    let registration = |number: u32| {
        let first = match rules {
            Rules::Same => 0,
            Rules::Own => number as u16,
        };
        let flows: Vec<_> = (1..=ENTRIES).map(|it| flow(first, it)).collect();
        let policy = rulebook.rules(HomeAddress(mobile(number)), &flows, true);
        let (name, bindings) = (HomeName::new("acme"), (1..=bindings).map(binding).collect());
        Registration::new(
            name,
            HomeAddress(mobile(number)),
            vec![],
            address::AGENT,
            bindings,
            policy,
        )
    };
    let cache = (0..mobiles).map(registration).collect();
    let snapshot = Snapshot { cache, own: vec![address::AGENT], ..Snapshot::default() };
    Engine::new(Arc::new(ArcSwap::from_pointee(snapshot)), settings)
}

/// The home address of a mobile.
pub fn mobile(number: u32) -> Ipv6Addr {
    let [high, low] = [number >> 16, number & 0xffff].map(|half| half as u16);
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 1 + high, low)
}

/// A datagram to a mobile by one of its flow bindings; its ports make it one of 320,000 flows.
pub fn datagram(number: u32, to: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 72, 17, 64];
    packet.extend(address::CORRESPONDENT.octets());
    packet.extend(to.octets());
    packet.extend((1 + number as u16 % ENTRIES).to_be_bytes());
    packet.extend((20_000 + (number % 40_000) as u16).to_be_bytes());
    packet.extend([0, 72, 0, 0]);
    packet.extend([0; 64]);
    packet
}

/// A network of its own, whose ways are this program's to read: packets for mobiles enter `mtun0`, what
/// is sent to a care-of address enters `out0`.
pub struct Machine {
    inside: Arc<TunQueue>,
    outside: Arc<TunQueue>,
    uplink: Uplink,
    buffer: Vec<u8>,
    out: Vec<u8>,
    _tunnels: [Tun; 2],
    _namespace: Namespace,
}

impl Machine {
    /// Makes it.
    pub fn start() -> Result<Self> {
        let record = Arc::new(Record::start()?);
        let namespace = Namespace::create(&record, "cost", &Shell::default())?;
        let open = |name: &'static str| namespace.run(move || Tun::open(name, 1));
        let tunnels = [open("mtun0")?, open("out0")?];
        namespace.ip(&[
            "link set lo up",
            "link set mtun0 up",
            "link set out0 up",
            "route add 2001:db8:100::/48 dev mtun0",
            "route add default dev out0",
        ])?;
        let uplink = namespace.run(|| Uplink::open(None))?;
        let [inside, outside] = [&tunnels[0], &tunnels[1]].map(|tun| tun.queues()[0].clone());
        let (buffer, out) = (vec![0; RECEIVE_BUFFER], Vec::with_capacity(RECEIVE_BUFFER));
        Ok(Self { inside, outside, uplink, buffer, out, _tunnels: tunnels, _namespace: namespace })
    }

    /// Nanoseconds a packet from the tunnel interface to the exit. Only that is timed: neither how
    /// the packets come to wait in the one nor how they are taken out of the other.
    pub fn round(&mut self, engine: &Engine, packets: &[Vec<u8>]) -> Result<f64> {
        let mut took = Duration::ZERO;
        for waiting in packets.chunks(WAITING) {
            for packet in waiting {
                self.uplink.send(packet).context("a packet for a mobile")?;
            }
            let since = Instant::now();
            let mut sent = 0;
            while let Some(received) = self.inside.recv(&mut self.buffer)? {
                let now = Duration::from_secs(1);
                let packet = &self.buffer[received.packet];
                match engine.outbound(Ingress::OTHER, packet, now, &mut self.out) {
                    Verdict::Send { .. } => {
                        self.uplink.send(&self.out).context("a packet to a care-of address")?;
                        sent += 1;
                    }
                    // The kernel looks for neighbours and routers there.
                    other => drop(black_box(other)),
                }
            }
            took += since.elapsed();
            ensure!(sent == waiting.len(), "{sent} of {} packets came through", waiting.len());
            while self.outside.recv(&mut self.buffer)?.is_some() {}
        }
        Ok(took.as_nanos() as f64 / packets.len() as f64)
    }
}
