//! What a judgement costs, as rules and flows grow.
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```
//!
//! and exits 0 whether met or missed. What can be a ratio is one, of figures measured in turn
//! within one run, medians of several turns, so that it holds on any machine; the nanoseconds
//! behind the ratios are on lines that begin with `#`. Rule sets and packets come from a seed; how
//! they are made and what they look like is in `rule_sets`.

#[path = "../policy/tests/support/random.rs"]
mod random;
#[path = "../policy/tests/support/rule_sets.rs"]
mod rule_sets;

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtun_dataplane::{
    Binding, Decision, FlowTable, Memory, PathId, Registration, Snapshot, decide, diff,
};
use mtun_policy::{
    Bid, CareOfAddress, Effective, FlowKey, HomeAddress, HomeName, MobileNetworkPrefix, NoFiles,
    Otherwise, Outcome, RuleHead, RuleTable, Says, parse, parse_document,
};
use rule_sets::{Shape, heads, keys};

const SEED: u64 = 7;
const TURNS: usize = 9;
const NOW: Duration = Duration::from_secs(1_000);

fn main() {
    // `cargo test --benches` passes arguments too; none of them matters here.
    cold();
    build();
    warm();
    bursts();
    reload();
    live_flows();
}

fn goal(name: &str, measured: f64, limit: f64) {
    let met = if measured <= limit { "met" } else { "missed" };
    println!("goal {name} {measured:.2} <= {limit} {met}");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Nanoseconds for each item, of the quickest tenth of short stretches: what else the machine does
/// falls into the others, as does the time until the caches are as they were.
fn each<T>(items: &[T], stretch: usize, mut call: impl FnMut(&[T])) -> f64 {
    let stretches = items.chunks_exact(stretch).map(|items| {
        let start = Instant::now();
        call(items);
        start.elapsed().as_nanos() as f64 / items.len() as f64
    });
    let mut figures: Vec<f64> = stretches.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 10]
}

fn milliseconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64() * 1e3
}

/// The first packet of a flow: the search for its rule.
fn cold() {
    for shape in Shape::ALL {
        let worlds: Vec<_> = [10, 100, 1_000, 10_000]
            .map(|rules| {
                let heads = heads(shape, rules, SEED);
                println!("# {}: {}", shape.name(), rule_sets::statistics(&heads));
                let keys = keys(&heads, 1 << 14, SEED + 1);
                (RuleTable::new(heads), keys)
            })
            .into();
        let mut figures = vec![Vec::new(); worlds.len()];
        for _ in 0..TURNS {
            for ((table, keys), figures) in worlds.iter().zip(&mut figures) {
                figures.push(each(keys, 256, |keys| {
                    for key in keys {
                        black_box(table.matching(key).next());
                    }
                }));
            }
        }
        let figures: Vec<f64> = figures.into_iter().map(median).collect();
        println!("# {} at 10, 100, 1k, 10k rules: {figures:.0?} ns", shape.name());
        goal(&format!("cold-10k-to-10-{}", shape.name()), figures[3] / figures[0], 6.0);
    }
}

fn build() {
    for shape in Shape::ALL {
        let heads = heads(shape, 10_000, SEED);
        let mut octets = 0;
        let mut figures = Vec::new();
        for _ in 0..TURNS {
            let heads = heads.clone();
            figures.push(milliseconds(|| octets = RuleTable::new(heads.clone()).octets()));
        }
        let heads: usize = heads.iter().map(|head| octets_of(head)).sum();
        goal(&format!("build-10k-{}-ms", shape.name()), median(figures), 250.0);
        let total = (octets + heads) as f64 / f64::from(1 << 20);
        println!("# {}: {octets} octets to search, {heads} of rules", shape.name());
        goal(&format!("memory-10k-{}-mib", shape.name()), total, 16.0);
    }
}

fn octets_of(head: &RuleHead) -> usize {
    let lines = head.selectors.iter().map(|line| {
        size_of_val(line)
            + size_of_val(&line.sources[..])
            + size_of_val(&line.destinations[..])
            + size_of_val(&line.protocols[..])
            + size_of_val(&line.source_ports[..])
            + size_of_val(&line.destination_ports[..])
    });
    // The two counts of an `Arc`.
    size_of_val(head) + 2 * size_of::<usize>() + head.name.as_str().len() + lines.sum::<usize>()
}

/// A mobile router with two links and these rules; every third rule prefers the link of `odd`.
fn router(heads: &[Arc<RuleHead>], odd: u16) -> Snapshot {
    let bid = |number| Bid::new(number).expect("not zero");
    let binding = |number: u16| Binding {
        bid: Some(bid(number)),
        priority: number as u8,
        care_of: CareOfAddress::from(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 7)),
        path: PathId(number),
        usable: true,
        attached: true,
        metered: false,
        home_link: false,
        mtu: 1500,
        rtt: None,
        jitter: None,
    };
    let rules = heads.iter().enumerate().map(|(place, head)| {
        let first = if place % 3 == 0 { odd } else { 1 };
        let links = vec![bid(first), bid(3 - first)];
        (RuleHead::clone(head), Says::plain(Outcome::Candidates(links), Otherwise::Any))
    });
    let prefix = "2001:db8:100:4200::/56".parse().expect("a prefix");
    let registration = Registration::new(
        HomeName::new("acme"),
        HomeAddress("2001:db8:100::42".parse().expect("an address")),
        vec![MobileNetworkPrefix::new(prefix).expect("without host bits")],
        "2001:db8:100::1".parse().expect("an address"),
        vec![binding(1), binding(2)],
        Arc::new(Effective::new(rules)),
    );
    Snapshot { generation: 1, updates: [registration].into_iter().collect(), ..Snapshot::default() }
}

/// Different flows from behind the router, otherwise like packets of these rules.
fn flows(heads: &[Arc<RuleHead>], count: usize) -> Vec<FlowKey> {
    let from = |number: usize, key: &FlowKey| {
        let source = 0x2001_0db8_0100_4200_u128 << 64 | (number as u128 + 1);
        let destination = match key.destination {
            IpAddr::V4(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number as u16).into(),
            v6 => v6,
        };
        FlowKey { source: IpAddr::V6(source.into()), destination, ..*key }
    };
    let keys = keys(heads, count, SEED + 2);
    keys.iter().enumerate().map(|(number, key)| from(number, key)).collect()
}

fn remember(table: &FlowTable, snapshot: &Snapshot, keys: &[FlowKey]) {
    for key in keys {
        if let Decision::Forward(route) = decide(snapshot, key, NOW, Memory::default()) {
            table.sent(key, route.answer(key, Memory::default()), 1_000, NOW);
        }
    }
}

/// Later packets of flows: memory and `decide`, as the engine asks them.
fn warm() {
    let worlds: Vec<_> = [10, 10_000]
        .map(|rules| {
            let heads = heads(Shape::Acl, rules, SEED);
            let (snapshot, keys) = (router(&heads, 1), flows(&heads, 1 << 12));
            let table = FlowTable::new(1 << 16, ahash::RandomState::new());
            remember(&table, &snapshot, &keys);
            (snapshot, table, keys)
        })
        .into();
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..2 * TURNS + 1 {
        for ((snapshot, table, keys), figures) in worlds.iter().zip(&mut figures) {
            figures.push(each(keys, 256, |keys| {
                for key in keys {
                    let flow = table.remembered(key).expect("a flow that was sent");
                    black_box(decide(snapshot, key, NOW, Memory::of(&flow)));
                }
            }));
        }
    }
    let [ten, many] = figures.map(median);
    println!("# a later packet at 10 rules {ten:.0} ns, at 10k {many:.0} ns");
    goal("warm-10k-to-10", many / ten, 1.2);
}

/// Many flows at once, against the least that a table could do: a hash and one line each.
fn bursts() {
    let heads = heads(Shape::Acl, 10, SEED);
    let snapshot = router(&heads, 1);
    for (name, count) in [("64k", 1 << 16), ("256k", 1 << 18), ("1m", 1 << 20)] {
        let hasher = ahash::RandomState::new();
        let table = FlowTable::new(count, hasher.clone());
        let mut keys = flows(&heads, count);
        remember(&table, &snapshot, &keys);
        let lines: Vec<[AtomicU64; 8]> = (0..4 * count).map(|_| Default::default()).collect();
        // In another order than they were put there.
        let mut random = random::Random::new(SEED);
        for at in (1..keys.len()).rev() {
            keys.swap(at, random.below(at + 1));
        }
        keys.truncate(1 << 16);
        let mut found = vec![None; 1024];
        let (mut hits, mut misses) = (0, 0);
        let (mut glances, mut touches) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            glances.push(each(&keys, 1024, |keys| {
                table.glance(keys, &mut found);
                black_box(&found);
            }));
            hits += found.iter().flatten().count();
            misses += found.iter().filter(|found| found.is_none()).count();
            touches.push(each(&keys, 1024, |keys| {
                for key in keys {
                    let hash = least_hash(&hasher, key);
                    let line = (u128::from(hash) * lines.len() as u128) >> 64;
                    black_box(lines[line as usize][0].load(Ordering::Acquire));
                }
            }));
        }
        assert!(hits > 100 * misses, "{misses} of {hits} flows were not found");
        let (glance, touch) = (median(glances), median(touches));
        println!("# of {name} flows: found in {glance:.0} ns, a hash and a line in {touch:.0} ns");
        goal(&format!("batched-hit-{name}-to-line"), glance / touch, 2.0);
    }
}

fn least_hash(hasher: &ahash::RandomState, key: &FlowKey) -> u64 {
    let mut hasher = hasher.build_hasher();
    for address in [key.source, key.destination] {
        if let IpAddr::V6(address) = address {
            hasher.write_u64((address.to_bits() >> 64) as u64);
            hasher.write_u64(address.to_bits() as u64);
        }
    }
    let port = |port: Option<u16>| u64::from(port.unwrap_or(0));
    let ports = port(key.source_port) << 32 | port(key.destination_port) << 8;
    hasher.write_u64(ports | u64::from(key.protocol));
    hasher.finish()
}

fn reload() {
    let verb = |_| "prefer wlan0";
    let text = |rules| rule_sets::kdl(&heads(Shape::Acl, rules, SEED), verb);
    let small = text(1_000);
    let policy = |text: &str| {
        let faults = |faults| panic!("the rule sets are without fault: {faults}");
        black_box(parse("bench.kdl", text, &NoFiles).unwrap_or_else(faults));
    };
    let figures = (0..5).map(|_| milliseconds(|| policy(&small))).collect();
    goal("reload-1k-ms", median(figures), 500.0);

    // The same text read alone is what compiling stands on; the rest is checks and rules. A file
    // ends at 1 MiB, so fewer rules stand for 10,000.
    const FITTING: u16 = 8_000;
    let large = text(FITTING);
    let (mut whole, mut read) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        whole.push(milliseconds(|| policy(&large)));
        read.push(milliseconds(|| {
            let _ = black_box(parse_document("bench.kdl", &large, &NoFiles));
        }));
    }
    let (whole, read) = (median(whole), median(read));
    let octets = large.len();
    println!("# {FITTING} rules, {octets} octets: read in {read:.0} ms, in all {whole:.0} ms");
    goal("compile-10k-ms", (whole - read) * 10_000.0 / f64::from(FITTING), 250.0);
}

/// What another policy would move of the flows there are.
fn live_flows() {
    let heads = heads(Shape::Acl, 1_000, SEED);
    let (old, new) = (router(&heads, 1), router(&heads, 2));
    let table = FlowTable::new(1 << 16, ahash::RandomState::new());
    remember(&table, &old, &flows(&heads, 1 << 16));
    let entries = table.entries();
    let mut moved = 0;
    let figures = (0..TURNS)
        .map(|_| milliseconds(|| moved = black_box(diff(&old, &new, &entries, NOW)).len()))
        .collect();
    println!("# of {} flows {moved} would move", entries.len());
    goal("diff-65536-flows-1k-rules-ms", median(figures), 50.0);
}
