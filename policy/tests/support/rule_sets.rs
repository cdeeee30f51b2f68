//! Rule sets of any size, made from a seed and shaped like those that people publish figures for.
//!
//! ClassBench (Taylor, Turner, 2007) describes real filter sets by a few distributions; three of
//! its families are imitated: access control lists, firewalls and IP chains. Its addresses are
//! IPv4; here nine of ten are IPv6 with lengths that play the same part.
//!
//! | | access list | firewall | IP chain |
//! |---|---|---|---|
//! | no source, no destination prefix | 2 %, 1 % | 35 %, 25 % | 15 %, 12 % |
//! | distinct prefixes for 100 rules, each way | 20, 45 | 12, 18 | 25, 30 |
//! | source port: any, exact, range | 100, 0, 0 | 60, 12, 28 | 72, 20, 8 |
//! | destination port: any, exact, range | 25, 60, 15 | 45, 40, 15 | 50, 40, 10 |
//! | TCP, UDP, ICMP, any | 80, 14, 2, 4 | 55, 25, 8, 12 | 45, 35, 8, 12 |
//!
//! Prefixes come from a pool in which each is likely to lie inside an earlier one, and a few are
//! used by many rules. Earlier rules are the narrower ones.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mtun_policy::{FlowKey, Ingress, RuleHead, RuleId, RuleName, TrafficSelector};

use crate::random::Random;

/// A family of rule sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An access control list: narrow prefixes, exact ports.
    Acl,
    /// A firewall: many wildcards and ranges.
    Fw,
    /// An IP chain: in between.
    Ipc,
}

struct Numbers {
    no_source: usize,
    no_destination: usize,
    sources: usize,
    destinations: usize,
    source_port: [usize; 2],
    destination_port: [usize; 2],
    protocols: [usize; 3],
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Acl, Self::Fw, Self::Ipc];

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Fw => "fw",
            Self::Ipc => "ipc",
        }
    }

    fn numbers(self) -> Numbers {
        match self {
            Self::Acl => Numbers {
                no_source: 2,
                no_destination: 1,
                sources: 20,
                destinations: 45,
                source_port: [100, 100],
                destination_port: [25, 85],
                protocols: [80, 94, 96],
            },
            Self::Fw => Numbers {
                no_source: 35,
                no_destination: 25,
                sources: 12,
                destinations: 18,
                source_port: [60, 72],
                destination_port: [45, 85],
                protocols: [55, 80, 88],
            },
            Self::Ipc => Numbers {
                no_source: 15,
                no_destination: 12,
                sources: 25,
                destinations: 30,
                source_port: [72, 92],
                destination_port: [50, 90],
                protocols: [45, 80, 88],
            },
        }
    }
}

const SERVICES: [u16; 16] =
    [80, 443, 22, 25, 53, 123, 143, 161, 389, 445, 993, 1433, 1521, 3306, 3389, 8080];

/// `rules` different rules of this shape, the narrower ones first.
pub fn heads(shape: Shape, rules: u16, seed: u64) -> Vec<Arc<RuleHead>> {
    let numbers = shape.numbers();
    let mut random = Random::new(seed ^ u64::from(rules) << 32);
    let sources = prefixes(&mut random, usize::from(rules) * numbers.sources / 100);
    let destinations = prefixes(&mut random, usize::from(rules) * numbers.destinations / 100);
    let (mut seen, mut lines) = (HashSet::new(), Vec::new());
    while lines.len() < usize::from(rules) {
        let family = random.percent(90);
        let pick = |random: &mut Random, missing: usize, pool: &[IpNet]| {
            let wanted: Vec<_> = if random.percent(missing) {
                Vec::new()
            } else {
                // A fifth of the rules share a twentieth of the prefixes.
                let few = (pool.len() / 20).max(1);
                let from = if random.percent(20) { few } else { pool.len() };
                let at = random.below(from);
                let rest = pool[at..].iter().chain(&pool[..at]);
                rest.copied()
                    .find(|net| matches!(net, IpNet::V6(_)) == family)
                    .into_iter()
                    .collect()
            };
            wanted
        };
        let protocol = match random.below(100) {
            n if n < numbers.protocols[0] => Some(6),
            n if n < numbers.protocols[1] => Some(17),
            n if n < numbers.protocols[2] => Some(58),
            _ => None,
        };
        let ported = matches!(protocol, Some(6 | 17));
        let port = |random: &mut Random, [any, exact]: [usize; 2]| match random.below(100) {
            _ if !ported => Vec::new(),
            n if n < any => Vec::new(),
            n if n < exact => {
                let well_known = *random.one(&SERVICES);
                let port = if random.percent(60) { well_known } else { random.bits() as u16 };
                vec![port..=port]
            }
            _ => vec![match random.below(4) {
                0 => 1024..=u16::MAX,
                1 => 0..=1023,
                _ => {
                    let first = 1024 + random.below(50_000) as u16;
                    first..=first + *random.one(&[1, 9, 99, 999])
                }
            }],
        };
        let selector = TrafficSelector {
            sources: pick(&mut random, numbers.no_source, &sources),
            destinations: pick(&mut random, numbers.no_destination, &destinations),
            protocols: protocol.into_iter().collect(),
            source_ports: port(&mut random, numbers.source_port),
            destination_ports: port(&mut random, numbers.destination_port),
            ..TrafficSelector::default()
        };
        if selector != TrafficSelector::default() && seen.insert(format!("{selector:?}")) {
            lines.push(selector);
        }
    }
    lines.sort_by_key(width);
    (0..)
        .zip(lines)
        .map(|(number, line)| {
            Arc::new(RuleHead {
                id: RuleId(number),
                name: RuleName::new(format!("{}-{number}", shape.name())),
                selectors: vec![line],
                exclude: Vec::new(),
                identity: number.into(),
                optimize: None,
            })
        })
        .collect()
}

/// How much a selector lets pass, in steps that keep unlike rules in random order.
fn width(selector: &TrafficSelector) -> u32 {
    let net = |nets: &[IpNet]| {
        nets.first().map_or(64, |net| {
            64 - u32::from(net.prefix_len()) * 64 / u32::from(net.max_prefix_len())
        })
    };
    let port = |ports: &[RangeInclusive<u16>]| {
        ports.first().map_or(16, |range| 16 - (range.end() - range.start()).leading_zeros())
    };
    let bits = net(&selector.sources)
        + net(&selector.destinations)
        + port(&selector.source_ports)
        + port(&selector.destination_ports)
        + if selector.protocols.is_empty() { 8 } else { 0 };
    bits / 16
}

fn prefixes(random: &mut Random, count: usize) -> Vec<IpNet> {
    let mut pool: Vec<IpNet> = vec![
        Ipv6Net::new(Ipv6Addr::from(0x2001_0db8_u128 << 96), 32).expect("a length").into(),
        Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8).expect("a length").into(),
    ];
    while pool.len() < count {
        let inside = match random.percent(50) {
            true => pool[random.below(pool.len())],
            false => pool[random.below(pool.len().min(2))],
        };
        pool.push(match inside {
            IpNet::V6(net) => {
                let length = *random.one(&[40, 48, 48, 56, 64, 64, 64, 128, 128]);
                let bits = u128::from(random.bits()) << 64 | u128::from(random.bits());
                let bits = net.addr().to_bits() | bits & net.hostmask().to_bits();
                Ipv6Net::new(bits.into(), length.max(net.prefix_len())).expect("a length").into()
            }
            IpNet::V4(net) if random.percent(10) => {
                let length = *random.one(&[16, 20, 24, 24, 27, 32, 32]);
                let bits = net.addr().to_bits() | random.bits() as u32 & net.hostmask().to_bits();
                Ipv4Net::new(bits.into(), length.max(net.prefix_len())).expect("a length").into()
            }
            IpNet::V4(_) => continue,
        });
        let last = pool.last_mut().expect("just pushed");
        *last = last.trunc();
    }
    pool
}

/// Keys of packets: of ten, nine lie in some rule, any rule alike, and one anywhere.
pub fn keys(heads: &[Arc<RuleHead>], count: usize, seed: u64) -> Vec<FlowKey> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| {
            let line = &random.one(heads).selectors[0];
            let stray = random.percent(10);
            let v4 =
                line.sources.iter().chain(&line.destinations).any(|n| matches!(n, IpNet::V4(_)));
            let address = |random: &mut Random, nets: &[IpNet]| match nets.first() {
                Some(IpNet::V6(net)) if !stray => {
                    let bits = u128::from(random.bits()) << 64 | u128::from(random.bits());
                    let host = bits & net.hostmask().to_bits();
                    IpAddr::V6((net.addr().to_bits() | host).into())
                }
                Some(IpNet::V4(net)) if !stray => {
                    let host = random.bits() as u32 & net.hostmask().to_bits();
                    IpAddr::V4((net.addr().to_bits() | host).into())
                }
                _ if v4 => IpAddr::V4((10 << 24 | random.bits() as u32 >> 8).into()),
                _ => {
                    let high = 0x2001_0db8_u128 << 96 | u128::from(random.bits() as u32) << 64;
                    IpAddr::V6((high | u128::from(random.bits())).into())
                }
            };
            let port = |random: &mut Random, ports: &[RangeInclusive<u16>]| match ports.first() {
                Some(range) if !stray => {
                    let width = usize::from(range.end() - range.start()) + 1;
                    range.start() + random.below(width) as u16
                }
                _ => random.bits() as u16,
            };
            let protocol = line.protocols.first().copied().unwrap_or(if stray { 17 } else { 6 });
            let ported = matches!(protocol, 6 | 17);
            FlowKey {
                source: address(&mut random, &line.sources),
                destination: address(&mut random, &line.destinations),
                protocol,
                source_port: ported.then(|| port(&mut random, &line.source_ports)),
                destination_port: ported.then(|| port(&mut random, &line.destination_ports)),
                dscp: 0,
                ingress: Ingress::OTHER,
                flow_label: random.bits() as u32 & 0x000f_ffff,
                spi: None,
                icmp_type: (protocol == 58).then_some(128),
                uid: None,
            }
        })
        .collect()
}

/// The figures by which rule sets are compared, on one line.
pub fn statistics(heads: &[Arc<RuleHead>]) -> String {
    let lines = || heads.iter().flat_map(|head| &head.selectors);
    let distinct = |field: fn(&TrafficSelector) -> &[IpNet]| {
        lines().flat_map(field).collect::<HashSet<_>>().len()
    };
    let without = |field: fn(&TrafficSelector) -> bool| {
        100 * lines().filter(|line| field(line)).count() / lines().count()
    };
    let sample = keys(heads, 1_000, 1);
    let speaking = |key: &FlowKey| heads.iter().filter(|head| head.matches(key)).count();
    let matches: usize = sample.iter().map(speaking).sum();
    format!(
        "{} rules; {} sources, {} destinations; without source {} %, destination {} %, \
         source port {} %, destination port {} %, protocol {} %; {:.1} rules match a packet",
        heads.len(),
        distinct(|line| &line.sources),
        distinct(|line| &line.destinations),
        without(|line| line.sources.is_empty()),
        without(|line| line.destinations.is_empty()),
        without(|line| line.source_ports.is_empty()),
        without(|line| line.destination_ports.is_empty()),
        without(|line| line.protocols.is_empty()),
        matches as f64 / sample.len() as f64,
    )
}

/// The rules as a policy file; `verb` of a place is what the rule there does.
pub fn kdl(heads: &[Arc<RuleHead>], verb: impl Fn(usize) -> &'static str) -> String {
    let mut text = String::from(
        "role \"mobile-router\"\ninterface wlan0 { bid 1; }\ninterface wwan0 { bid 2; }\n\
         home acme {\n tunnel mtun0\n agent \"2001:db8:100::1\"\n address \"2001:db8:100::42/64\"\n \
         mobile-network \"2001:db8:100:4200::/56\"\n security none\n}\nrules {\n",
    );
    for (place, head) in heads.iter().enumerate() {
        let line = &head.selectors[0];
        let _ = write!(text, "rule r{place} {{ match");
        for (word, nets) in [("src", &line.sources), ("dst", &line.destinations)] {
            if let Some(net) = nets.first() {
                let _ = write!(text, " {word}=\"{net}\"");
            }
        }
        if let Some(protocol) = line.protocols.first() {
            let _ = write!(text, " proto={protocol}");
        }
        for (word, ports) in [("sport", &line.source_ports), ("dport", &line.destination_ports)] {
            if let Some(range) = ports.first() {
                let _ = match range.start() == range.end() {
                    true => write!(text, " {word}={}", range.start()),
                    false => write!(text, " {word}=\"{}-{}\"", range.start(), range.end()),
                };
            }
        }
        let _ = writeln!(text, "; {}; }}", verb(place));
    }
    text + "default { prefer wlan0 wwan0; }\n}\n"
}
