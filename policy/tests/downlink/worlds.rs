//! Random rules as they stand at a moment, and packets that they are about.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mtun_policy::downlink::DownlinkTarget;
use mtun_policy::{
    Bid, BlockReply, Buckets, Effective, FlowKey, HomeAddress, Ingress, MobileNetworkPrefix,
    Otherwise, Outcome, PortCut, RuleHead, RuleId, RuleName, Says, Spread, TrafficSelector, Usable,
};

use crate::random::Random;

pub const FAR: [&str; 7] = [
    "2001:db8:f::/48",
    "2001:db8:f:1::/64",
    "2001:db8:f:2::/64",
    "2001:db8:f:3::/64",
    "2001:db8:e::7/128",
    "198.51.100.0/24",
    "::/0",
];
const OWN: [&str; 7] = [
    "2001:db8:100:4200::/56",
    "2001:db8:100:4210::/64",
    "2001:db8:100:4211::/64",
    "2001:db8:100::42/128",
    "2001:db8:100::/48",
    "2001:db8:bad::/48",
    "192.0.2.0/29",
];
const PORTS: [u16; 12] = [22, 79, 80, 81, 443, 5060, 8000, 8099, 33_000, 40_000, 50_000, 65_535];
const DSCPS: [u8; 4] = [0, 10, 12, 46];

pub fn bid(number: u16) -> Bid {
    Bid::new(number).expect("not zero")
}

/// Which bindings can be used.
#[derive(Clone, Debug)]
pub struct Links {
    pub usable: Vec<Bid>,
    pub order: Vec<Bid>,
}

impl Usable for Links {
    fn usable(&self, bid: Bid) -> bool {
        self.usable.contains(&bid)
    }

    fn preferred(&self) -> Option<Bid> {
        self.order.iter().copied().find(|bid| self.usable(*bid))
    }
}

/// A mobile router with a home address, a network and some IPv4.
pub fn target(random: &mut Random) -> DownlinkTarget {
    let network: ipnet::Ipv6Net = "2001:db8:100:4200::/56".parse().unwrap();
    let links = 1 + random.below(4) as u16;
    let priority = |number: u16| [20, 10, 20, 30][usize::from(number) - 1];
    DownlinkTarget {
        home_address: HomeAddress("2001:db8:100::42".parse().unwrap()),
        prefixes: random
            .percent(70)
            .then(|| MobileNetworkPrefix::new(network).unwrap())
            .into_iter()
            .collect(),
        ipv4: random.percent(30).then(|| "192.0.2.0/28".parse().unwrap()).into_iter().collect(),
        bids: (1..=links).map(|number| (bid(number), priority(number))).collect(),
        reflect: random.percent(30),
    }
}

/// The BIDs in the order in which an agent without further orders takes them.
pub fn order(target: &DownlinkTarget) -> Vec<Bid> {
    let mut order = target.bids.clone();
    order.sort_by_key(|(bid, priority)| (*priority, *bid));
    order.into_iter().map(|(bid, _)| bid).collect()
}

/// Some of the links, in any order.
fn some_links(random: &mut Random, target: &DownlinkTarget) -> Vec<Bid> {
    let mut links: Vec<Bid> = target.bids.iter().map(|(bid, _)| *bid).collect();
    for at in (1..links.len()).rev() {
        links.swap(at, random.below(at + 1));
    }
    links.truncate(random.below(links.len() + 1));
    links
}

fn some<T>(random: &mut Random, percent: usize, one: impl Fn(&mut Random) -> T) -> Vec<T> {
    let count = if random.percent(percent) { 1 + random.below(3) } else { 0 };
    (0..count).map(|_| one(random)).collect()
}

fn ports(random: &mut Random) -> std::ops::RangeInclusive<u16> {
    let first = *random.one(&PORTS);
    match random.below(4) {
        0 => first..=first.saturating_add(1),
        1 => first..=first.saturating_add(1000),
        _ => first..=first,
    }
}

/// One line; now and then with a word that no agent understands.
fn line(random: &mut Random, odd: bool) -> TrafficSelector {
    let net = |random: &mut Random, nets: &[&str]| -> IpNet { random.one(nets).parse().unwrap() };
    let mut line = TrafficSelector {
        sources: some(random, 30, |random| net(random, &OWN)),
        destinations: some(random, 40, |random| net(random, &FAR)),
        protocols: some(random, 50, |random| *random.one(&[6, 17, 17, 58, 7])),
        source_ports: some(random, 15, ports),
        destination_ports: some(random, 40, ports),
        dscps: some(random, 15, |random| *random.one(&DSCPS)),
        ..TrafficSelector::default()
    };
    if odd && random.percent(20) {
        match random.below(5) {
            0 => line.of_set = true,
            1 => line.ingresses = vec![Ingress::OTHER],
            2 => line.icmp_types = vec![128..=128],
            3 => line.uids = vec![1000..=1001],
            _ => line.flow_labels = vec![1..=5],
        }
    }
    line
}

fn outcome(random: &mut Random, target: &DownlinkTarget) -> Outcome {
    let links = some_links(random, target);
    match random.below(12) {
        0 => Outcome::Block(BlockReply::Icmp),
        1 => Outcome::Unmet,
        2 => Outcome::Breakout { links, translate: true },
        3 | 4 => Outcome::Copies { links, copies: 2 },
        5 | 6 if !links.is_empty() => {
            // Some runs of buckets.
            let edges: Vec<usize> = (0..3).map(|_| random.below(256)).collect();
            let run = |bucket: usize| edges.iter().filter(|edge| bucket >= **edge).count();
            let places: Vec<u8> =
                (0..256).map(|bucket| (run(bucket) % links.len()) as u8).collect();
            let places = Arc::new(places.try_into().expect("256 of them"));
            let cut =
                *random.one(&[PortCut::DYNAMIC, PortCut { first: 5000, last: 5999, round: 1000 }]);
            Outcome::Balance(Buckets { links, places, spread: Spread::Ports(cut) })
        }
        _ => Outcome::Candidates(links),
    }
}

/// Rules in this number, of which some lines may be odd.
pub fn rules(random: &mut Random, target: &DownlinkTarget, count: usize, odd: bool) -> Effective {
    let rule = |place: usize, random: &mut Random| {
        let last = place + 1 == count;
        let selectors = match last && random.percent(70) {
            true => Vec::new(),
            false => (0..1 + random.below(2)).map(|_| line(random, odd)).collect(),
        };
        let exclude = some(random, 25, |random| {
            let odd = odd && random.percent(30);
            line(random, odd)
        });
        let otherwise = match random.below(6) {
            0 => Otherwise::Any,
            1 | 2 => Otherwise::Then(outcome(random, target)),
            _ => Otherwise::NextRule,
        };
        let says = Says::plain(outcome(random, target), otherwise);
        let head = RuleHead {
            id: RuleId(place as u16),
            name: RuleName::new(format!("r{place}")),
            selectors,
            exclude,
            identity: place as u64,
            optimize: None,
        };
        (head, says)
    };
    Effective::new((0..count).map(|place| rule(place, random)).collect::<Vec<_>>())
}

fn inside(random: &mut Random, net: &str) -> IpAddr {
    match net.parse().unwrap() {
        IpNet::V6(net) => {
            let host = u128::from(random.bits()) << 64 | u128::from(random.bits());
            // Near the start, so that longer prefixes are met too.
            let host = host >> [0, 50, 58, 66][random.below(4)];
            IpAddr::V6((u128::from(net.network()) | host & u128::from(net.hostmask())).into())
        }
        IpNet::V4(net) => {
            let host = random.bits() as u32 & u32::from(net.hostmask());
            IpAddr::V4((u32::from(net.network()) | host).into())
        }
    }
}

/// A packet of the mobile's.
pub fn packet(random: &mut Random, target: &DownlinkTarget) -> FlowKey {
    let v4 = !target.ipv4.is_empty() && random.percent(30);
    let (source, destination) = if v4 {
        let far = *random.clone().one(&["198.51.100.0/24", "203.0.113.0/24"]);
        (inside(random, "192.0.2.0/28"), inside(random, far))
    } else {
        let own = match random.below(3) {
            _ if target.prefixes.is_empty() => "2001:db8:100::42/128",
            0 => "2001:db8:100::42/128",
            1 => "2001:db8:100:4200::/56",
            _ => "2001:db8:100:4210::/63",
        };
        let far = *random.one(&["2001:db8:f::/48", "2001:db8:f::/62", "2001:db8:e::7/128", "::/0"]);
        (inside(random, own), inside(random, far))
    };
    let protocol = *random.one(&[6, 6, 17, 17, 58, 7, 50]);
    let has_ports = matches!(protocol, 6 | 17) && random.percent(90);
    let port = |random: &mut Random| {
        let near = random.one(&PORTS).wrapping_add(random.below(3) as u16).wrapping_sub(1);
        if random.percent(25) { random.bits() as u16 } else { near }
    };
    FlowKey {
        source,
        destination,
        protocol,
        source_port: has_ports.then(|| port(random)),
        destination_port: has_ports.then(|| port(random)),
        dscp: *random.one(&DSCPS),
        ingress: Ingress(random.below(3) as u8),
        flow_label: random.below(8) as u32,
        spi: None,
        icmp_type: (protocol == 58).then_some(128),
        uid: random.percent(30).then_some(1000),
    }
}

/// Some of the target's links, most often all.
pub fn links(random: &mut Random, target: &DownlinkTarget) -> Links {
    let order = order(target);
    let all = random.percent(40);
    let usable = order.iter().copied().filter(|_| all || random.percent(60)).collect();
    Links { usable, order }
}
