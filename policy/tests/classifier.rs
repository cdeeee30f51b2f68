//! The compiled rule table finds what asking every rule in order finds.
//!
//! Random rules and keys come from a seed; a failure names it, and `MTUN_SEED` replays it alone.

#[path = "support/random.rs"]
mod random;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mtun_policy::{FlowKey, Ingress, RuleHead, RuleId, RuleName, RuleTable, TrafficSelector};
use random::Random;

/// What differs between one random world and another, so that every part of the classifier is met.
struct World {
    random: Random,
    prefixes: Vec<IpNet>,
    ports: Vec<RangeInclusive<u16>>,
    words: Vec<RangeInclusive<u32>>,
    /// Percent of lines that look at an address, at ports, at another field.
    looks: [usize; 3],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let prefixes = (0..1 + random.below(60)).map(|_| prefix(&mut random)).collect();
        let ports = (0..1 + random.below(30)).map(|_| range(&mut random)).collect();
        let words = (0..1 + random.below(10))
            .map(|_| {
                let range = range(&mut random);
                if random.percent(10) {
                    u32::from(*range.start())..=u32::MAX
                } else {
                    u32::from(*range.start())..=u32::from(*range.end())
                }
            })
            .collect();
        let percent = [0, 5, 30, 70, 100];
        let looks = [*random.one(&percent), *random.one(&percent), *random.one(&[0, 0, 5, 40])];
        Self { random, prefixes, ports, words, looks }
    }

    fn some<T>(&mut self, percent: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        if !self.random.percent(percent) {
            return Vec::new();
        }
        (0..1 + self.random.below(3)).map(|_| one(self)).collect()
    }

    fn line(&mut self) -> TrafficSelector {
        let [address, port, other] = self.looks;
        let prefix = |w: &mut Self| *w.random.one(&w.prefixes);
        let port_range = |w: &mut Self| w.random.one(&w.ports).clone();
        let word = |w: &mut Self| w.random.one(&w.words).clone();
        TrafficSelector {
            sources: self.some(address, prefix),
            destinations: self.some(address, prefix),
            protocols: self.some(port, |w| *w.random.one(&[6, 17, 58, 0, 255])),
            source_ports: self.some(port / 3, port_range),
            destination_ports: self.some(port, port_range),
            dscps: self.some(other, |w| w.random.below(4) as u8),
            ingresses: self.some(other, |w| Ingress(w.random.below(4) as u8)),
            flow_labels: self.some(other / 2, word),
            spis: self.some(other / 2, word),
            icmp_types: self.some(other / 2, |w| {
                let first = w.random.below(256) as u8;
                first..=first.saturating_add(w.random.below(40) as u8)
            }),
            uids: self.some(other / 2, word),
            of_set: false,
        }
    }

    fn table(&mut self, rules: u16) -> RuleTable {
        let mut heads = Vec::new();
        for number in 0..rules {
            let selectors = match self.random.below(20) {
                0 if number % 10 == 9 => Vec::new(),
                1..=4 => (0..2 + self.random.below(3)).map(|_| self.line()).collect(),
                _ => vec![self.line()],
            };
            let exclude = if self.random.percent(8) { vec![self.line()] } else { Vec::new() };
            heads.push(head(number, selectors, exclude));
        }
        RuleTable::new(heads)
    }

    /// A key that is on an edge of some rule as often as not.
    fn key(&mut self) -> FlowKey {
        let address = |w: &mut Self| match *w.random.one(&w.prefixes) {
            IpNet::V4(net) => {
                let net = *w.random.one(&[net.network().to_bits(), net.broadcast().to_bits()]);
                IpAddr::V4(net.wrapping_add(w.random.below(3) as u32).wrapping_sub(1).into())
            }
            IpNet::V6(net) => {
                let net = *w.random.one(&[net.network().to_bits(), net.broadcast().to_bits()]);
                let by = [0, 0, 1, u128::MAX, 1 << 64, u128::MAX << 64];
                IpAddr::V6(net.wrapping_add(*w.random.one(&by)).into())
            }
        };
        let port = |w: &mut Self| {
            let range = w.random.one(&w.ports).clone();
            let edge = *w.random.one(&[*range.start(), *range.end()]);
            edge.wrapping_add(w.random.below(3) as u16).wrapping_sub(1)
        };
        let word = |w: &mut Self| {
            let range = w.random.one(&w.words).clone();
            let edge = *w.random.one(&[*range.start(), *range.end()]);
            edge.wrapping_add(w.random.below(3) as u32).wrapping_sub(1)
        };
        let (source, destination) = (address(self), address(self));
        let ported = self.random.percent(80);
        FlowKey {
            source,
            destination,
            protocol: *self.random.one(&[6, 17, 58, 0, 255, 132]),
            source_port: ported.then(|| port(self)),
            destination_port: ported.then(|| port(self)),
            dscp: self.random.below(5) as u8,
            ingress: Ingress(self.random.below(5) as u8),
            flow_label: word(self),
            spi: self.random.percent(50).then(|| word(self)),
            icmp_type: self.random.percent(50).then(|| self.random.below(256) as u8),
            uid: self.random.percent(50).then(|| word(self)),
        }
    }
}

fn head(
    number: u16,
    selectors: Vec<TrafficSelector>,
    exclude: Vec<TrafficSelector>,
) -> Arc<RuleHead> {
    let name = RuleName::new(format!("r{number}"));
    Arc::new(RuleHead {
        id: RuleId(number),
        name,
        selectors,
        exclude,
        identity: number.into(),
        optimize: None,
    })
}

/// Of any length in a small space, so that they lie inside each other.
fn prefix(random: &mut Random) -> IpNet {
    if random.percent(25) {
        let address = u32::from_be_bytes([
            10,
            random.below(3) as u8,
            random.below(4) as u8,
            random.bits() as u8,
        ]);
        let length = *random.one(&[0, 8, 16, 23, 24, 28, 31, 32]);
        return Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc().into();
    }
    let mut address = 0x2001_0db8_u128 << 96;
    address |= (random.below(3) as u128) << 80 | (random.below(4) as u128) << 64;
    address |= *random.one(&[0, 1, 2, u128::from(u64::MAX), 0x8000]);
    if random.percent(5) {
        address = u128::MAX;
    }
    let length = *random.one(&[0, 1, 32, 47, 48, 63, 64, 65, 96, 127, 128, 128]);
    let net: IpNet = Ipv6Net::new(Ipv6Addr::from(address), length).unwrap().into();
    // Host bits are the parser's business: a head may hold them.
    if random.percent(95) { net.trunc() } else { net }
}

#[allow(clippy::reversed_empty_ranges)]
fn range(random: &mut Random) -> RangeInclusive<u16> {
    match random.below(20) {
        0 => 0..=u16::MAX,
        1 => 9..=3,
        2 => u16::MAX..=u16::MAX,
        _ => {
            let first = random.below(200) as u16;
            first..=first + random.below(20) as u16
        }
    }
}

/// What every rule says for itself.
fn naive(table: &RuleTable, key: &FlowKey) -> Vec<usize> {
    let heads = table.heads().iter().enumerate();
    heads.filter(|(_, head)| head.matches(key)).map(|(place, _)| place).collect()
}

fn seeds(count: u64) -> Box<dyn Iterator<Item = u64>> {
    match std::env::var("MTUN_SEED") {
        Ok(seed) => Box::new(std::iter::once(seed.parse().expect("MTUN_SEED is a number"))),
        Err(_) => Box::new(0..count),
    }
}

/// Compares `keys` walks over the table of `world`; the number of cases, and of those with a rule.
fn compare(seed: u64, world: &mut World, table: &RuleTable, keys: u64) -> (u64, u64) {
    let mut matched = 0;
    for _ in 0..keys {
        let key = world.key();
        let found: Vec<usize> = table.matching(&key).collect();
        assert_eq!(found, naive(table, &key), "MTUN_SEED={seed}: {key:?}");
        matched += u64::from(!found.is_empty());
    }
    (keys, matched)
}

#[test]
fn a_table_finds_what_its_rules_say_one_by_one() {
    const TABLES: u64 = 1_100;
    const KEYS: u64 = 1_000;
    let (mut cases, mut matched) = (0, 0);
    for seed in seeds(TABLES) {
        let mut world = World::new(seed);
        let rules = *world.random.one(&[1, 30, 60, 64, 65, 130, 300]);
        let table = world.table(rules);
        let (all, with_rule) = compare(seed, &mut world, &table, KEYS);
        cases += all;
        matched += with_rule;
    }
    println!("{cases} cases of seeds 0..{TABLES}, {matched} with a rule");
    if std::env::var_os("MTUN_SEED").is_none() {
        assert!(cases >= 1_000_000 && matched > cases / 4 && matched < cases * 19 / 20);
    }
}

#[test]
fn a_large_table_finds_the_same() {
    // More than 64 times 64 lines: several words of summary.
    for seed in seeds(8) {
        let mut world = World::new(seed);
        world.looks = world.looks.map(|percent| percent.max(20));
        let rules = *world.random.one(&[4_095, 4_097, 9_000, 13_000]);
        let table = world.table(rules);
        compare(seed, &mut world, &table, 500);
    }
}

#[test]
fn turned_round_rules_find_turned_round_packets() {
    for seed in seeds(100) {
        let mut world = World::new(seed);
        let rules = *world.random.one(&[20, 100, 300]);
        let heads = world.table(rules).heads().to_vec();
        let mirrorable = |selector: &TrafficSelector| TrafficSelector {
            ingresses: Vec::new(),
            flow_labels: Vec::new(),
            spis: Vec::new(),
            uids: Vec::new(),
            ..selector.clone()
        };
        let each = |turn: &dyn Fn(&TrafficSelector) -> TrafficSelector| {
            let turned = heads.iter().map(|head| {
                let selectors = head.selectors.iter().map(turn).collect();
                let exclude = head.exclude.iter().map(turn).collect();
                Arc::new(RuleHead { selectors, exclude, ..RuleHead::clone(head) })
            });
            RuleTable::new(turned.collect())
        };
        let up = each(&mirrorable);
        let down = each(&|selector| mirrorable(selector).mirrored());
        for _ in 0..1_000 {
            let key = world.key();
            let mirrored = key.mirrored();
            assert!(up.matching(&key).eq(down.matching(&mirrored)), "MTUN_SEED={seed}: {key:?}");
        }
    }
}

/// Sets whose exact records would take far more memory than they may.
fn hostile(random: &mut Random, rules: u16) -> Vec<Arc<RuleHead>> {
    let everything: IpNet = "2001:db8::/33".parse().unwrap();
    let wide = |random: &mut Random| {
        let (one, other) = (random.bits() as u16, random.bits() as u16);
        one.min(other)..=one.max(other)
    };
    let scattered = |random: &mut Random, number: u16| {
        let address = 0x2001_0db8_u128 << 96 | u128::from(random.bits() & 0xffff) << 64;
        // Half of the rules hold everywhere though they look, and the others cut it to pieces.
        if number.is_multiple_of(2) {
            vec![everything]
        } else {
            (0..4)
                .map(|piece| Ipv6Net::new((address | piece << 16).into(), 112).unwrap().into())
                .collect()
        }
    };
    (0..rules)
        .map(|number| {
            let line = TrafficSelector {
                sources: scattered(random, number),
                destinations: scattered(random, number),
                protocols: (0..random.below(9)).map(|_| random.bits() as u8).collect(),
                source_ports: vec![wide(random), wide(random)],
                destination_ports: vec![wide(random)],
                spis: vec![u32::from(random.bits() as u16)..=u32::MAX - random.bits() as u32 / 2],
                uids: vec![random.bits() as u32 / 2..=u32::MAX],
                ..TrafficSelector::default()
            };
            head(number, vec![line], Vec::new())
        })
        .collect()
}

#[test]
fn a_hostile_table_is_bounded_and_finds_the_same() {
    for seed in seeds(2) {
        let mut random = Random::new(seed);
        let table = RuleTable::new(hostile(&mut random, 10_000));
        assert!(table.octets() <= 10 << 20, "{} octets", table.octets());
        let mut matched = 0;
        for number in 0..1_000 {
            // Near a rule, so that some match.
            let line = &random.one(table.heads()).selectors[0];
            let port = |random: &mut Random| random.bits() as u16;
            let key = FlowKey {
                source: line.sources[0].network(),
                destination: line.destinations[0].network(),
                protocol: line.protocols.first().copied().unwrap_or(6),
                source_port: Some(*line.source_ports[0].start()),
                destination_port: Some(port(&mut random.clone())),
                dscp: 0,
                ingress: Ingress::OTHER,
                flow_label: 0,
                spi: Some(u32::MAX / 2),
                icmp_type: None,
                uid: Some(if number % 2 == 0 { u32::MAX } else { 1 << 30 }),
            };
            let found: Vec<usize> = table.matching(&key).collect();
            assert_eq!(found, naive(&table, &key), "MTUN_SEED={seed}: {key:?}");
            matched += usize::from(!found.is_empty());
        }
        assert!(matched > 100, "{matched}");
    }
}

#[test]
fn the_largest_tables_are_built() {
    // Every rule id that a file may use, and a set of very many prefixes.
    let line = |number: u32| TrafficSelector {
        destinations: vec![Ipv4Net::new(Ipv4Addr::from(number << 8), 24).unwrap().into()],
        ..TrafficSelector::default()
    };
    let mut heads: Vec<_> =
        (0..60_000_u16).map(|number| head(number, vec![line(number.into())], Vec::new())).collect();
    let set = TrafficSelector {
        sources: (0..200_000)
            .map(|number| Ipv4Net::new(Ipv4Addr::from(number << 8), 25).unwrap().into())
            .collect(),
        ..TrafficSelector::default()
    };
    heads.push(head(60_000, vec![set], Vec::new()));
    let table = RuleTable::new(heads);
    let mut key = World::new(0).key();
    key.source = "0.3.1.77".parse().unwrap();
    key.destination = "0.2.5.9".parse().unwrap();
    assert_eq!(table.matching(&key).collect::<Vec<_>>(), [2 * 256 + 5, 60_000]);
    key.source = "0.3.1.177".parse().unwrap();
    assert_eq!(table.matching(&key).collect::<Vec<_>>(), [2 * 256 + 5]);
}

#[test]
fn a_rule_is_found_by_its_number() {
    let heads = [3, 1, 2].map(|number| head(number, Vec::new(), Vec::new()));
    let table = RuleTable::new(heads.to_vec());
    assert_eq!([0, 1, 2, 3].map(|id| table.place(RuleId(id))), [None, Some(1), Some(2), Some(0)]);
}
