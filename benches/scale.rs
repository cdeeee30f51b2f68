//! What much of everything costs: a million live flows, a million bindings, ever new flows.
//!
//! ```text
//! goal scale.<name> <measured> <op> <limit> met|missed
//! ```
//!
//! and exits 0 whether met or missed; figures without a goal are on lines that begin with `#`. The
//! mobile router of these measurements has two uplinks and ten rules, the agent 333,334 mobiles with
//! three bindings and eight flow bindings each. `MTUN_BENCH_FLOWS` is how many flows are live, 1,000,000
//! by default; `MTUN_BENCH_PARTS` names the parts to run, of `new,decided,handover,bindings`.

#[path = "agent/mod.rs"]
mod agent;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use mtun::publish;
use mtun_dataplane::backend::{Bpf, BpfPath, RECEIVE_BUFFER};
use mtun_dataplane::{Binding, Engine, Exit, PathId, Registration, Settings, Snapshot, Verdict};
use mtun_policy::{
    Bid, CareOfAddress, Effective, HomeAddress, HomeName, Ingress, Otherwise, Outcome, RuleHead,
    RuleId, RuleName, Says, TrafficSelector,
};

use agent::{Machine, Rules, datagram, mobile};

const NOW: Duration = Duration::from_secs(1_000);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x42);
const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const RULES: u16 = 10;
const MOBILES: u32 = 333_334;
const TURNS: usize = 9;

fn main() {
    // `cargo test --benches` passes arguments too; none of them matters here.
    let chosen = std::env::var("MTUN_BENCH_PARTS").ok();
    let flows = std::env::var("MTUN_BENCH_FLOWS").ok().and_then(|flows| flows.parse().ok());
    let flows: u32 = flows.unwrap_or(1_000_000);
    let parts: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("new", &new_flows),
        ("decided", &|| decided_again(flows)),
        ("handover", &|| handover(flows)),
        ("bindings", &bindings),
    ];
    for (name, run) in parts {
        if chosen.as_ref().is_some_and(|chosen| chosen.split(',').all(|part| part != name)) {
            continue;
        }
        if let Err(error) = run() {
            println!("scale bench broke off in {name}: {error:#}");
        }
    }
}

fn goal(name: &str, measured: f64, op: &str, limit: f64) {
    let met = match op {
        ">=" => measured >= limit,
        _ => measured <= limit,
    };
    let met = if met { "met" } else { "missed" };
    println!("goal scale.{name} {measured:.3} {op} {limit} {met}");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A mobile router with two uplinks, the first at `care_of`, whose rules prefer link `first`.
fn router(care_of: u16, first: u16, usable: bool) -> Registration {
    let bid = |number| Bid::new(number).expect("not zero");
    let binding = |number: u16, network: u16| Binding {
        bid: Some(bid(number)),
        priority: number as u8,
        care_of: CareOfAddress::from(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, 7)),
        path: PathId(number),
        usable: number != 1 || usable,
        attached: true,
        metered: false,
        home_link: false,
        mtu: 1500,
        rtt: None,
        jitter: None,
    };
    let rules = (0..RULES).map(|number| {
        // Nine that packets are held against in vain, and one for all.
        let selectors = match number + 1 < RULES {
            true => vec![TrafficSelector {
                protocols: vec![6],
                destination_ports: vec![number + 1..=number + 1],
                ..TrafficSelector::default()
            }],
            false => Vec::new(),
        };
        let head = RuleHead {
            id: RuleId(number),
            name: RuleName::new(format!("rule {number}")),
            selectors,
            exclude: Vec::new(),
            identity: u64::from(number) << 16 | u64::from(first),
            optimize: None,
        };
        let links = vec![bid(first), bid(3 - first)];
        (head, Says::plain(Outcome::Candidates(links), Otherwise::Any))
    });
    Registration::new(
        HomeName::new("acme"),
        HomeAddress(HOME),
        Vec::new(),
        AGENT,
        vec![binding(1, care_of), binding(2, 0xbeef)],
        Arc::new(Effective::new(rules)),
    )
}

fn engine(flows: usize) -> Engine {
    let registration = Registration { changed_at: NOW, ..router(1, 1, true) };
    let updates = [registration].into_iter().collect();
    let snapshot = Snapshot { generation: 1, updates, ..Snapshot::default() };
    let settings = Settings { flows, ..Settings::default() };
    Engine::new(Arc::new(ArcSwap::from_pointee(snapshot)), settings)
}

/// A datagram from the mobile router, of the flow with this number.
fn sent(number: u32, packet: &mut [u8; 112]) {
    let peer = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, (number >> 16) as u16, 9);
    packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 72, 17, 64]);
    packet[8..24].copy_from_slice(&HOME.octets());
    packet[24..40].copy_from_slice(&peer.octets());
    packet[40..42].copy_from_slice(&(number as u16).to_be_bytes());
    packet[42..44].copy_from_slice(&4000_u16.to_be_bytes());
    packet[44..46].copy_from_slice(&72_u16.to_be_bytes());
}

/// Sends a packet of each flow; seconds that it took.
fn send_all(engine: &Engine, flows: std::ops::Range<u32>) -> Result<f64> {
    let (mut out, mut packet) = (Vec::with_capacity(RECEIVE_BUFFER), [0; 112]);
    let start = Instant::now();
    let mut count = 0;
    for number in flows.clone() {
        sent(number, &mut packet);
        let verdict = engine.outbound(Ingress::LOCAL, &packet, NOW, &mut out);
        count += usize::from(matches!(verdict, Verdict::Send { .. }));
    }
    let took = start.elapsed().as_secs_f64();
    ensure!(count == flows.len(), "{count} of {} packets went", flows.len());
    Ok(took)
}

/// Flows that nobody has seen, by the slow path: in the engine, and at an agent with the system calls.
fn new_flows() -> Result<()> {
    const EACH: u32 = 100_000;
    let mut figures = Vec::new();
    for _ in 0..TURNS {
        figures.push(f64::from(EACH) / send_all(&engine(1 << 20), 0..EACH)?);
    }
    println!("# new flows a second, engine alone: {:.0}", median(figures));
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let mut machine = Machine::start()?;
    let packets: Vec<_> = (0..40_000).map(|number| datagram(number, mobile(0))).collect();
    let mut figures = Vec::new();
    for _ in 0..TURNS {
        let site = agent::agent(1, 3, Rules::Same, Settings::default());
        figures.push(1e9 / machine.round(&site, &packets)?);
    }
    goal("new-flows-per-second", median(figures), ">=", 50_000.0);
    Ok(())
}

/// Another policy over all live flows: those that stay, and those that all move.
fn decided_again(flows: u32) -> Result<()> {
    let engine = engine(flows.next_power_of_two() as usize);
    send_all(&engine, 0..flows)?;
    let live = engine.flows().len();
    ensure!(live > flows as usize / 2, "{live} flows are remembered of {flows}");
    for (what, first) in [("stay", 1), ("move", 2)] {
        let mut figures = Vec::new();
        for turn in 0..5_u16 {
            // Each time rules that are not those of before.
            let first = if what == "move" { 1 + (first + turn) % 2 } else { first };
            let mut registration = router(1, first, true);
            let policy = Effective::clone(&registration.policy);
            registration.policy = Arc::new(policy);
            registration.bindings[1].priority = 10 + turn as u8;
            let later = NOW + Duration::from_secs(3 * u64::from(turn + 1));
            publish::publish_home(&engine, registration, &[], Vec::new(), later);
            let start = Instant::now();
            while engine.reevaluate(later) == Some(later) {}
            figures.push(live as f64 / start.elapsed().as_secs_f64());
        }
        let by = |number| engine.flows().iter().filter(|it| it.bid_out == Bid::new(number)).count();
        println!(
            "# {live} flows that {what}: {} by the first link, {} by the second",
            by(1),
            by(2)
        );
        goal(&format!("decided-again-{what}-per-second"), median(figures), ">=", 1e6);
    }
    Ok(())
}

/// Another care-of address, and the death of a link, under flows that the kernel carries.
fn handover(flows: u32) -> Result<()> {
    let room = flows.next_power_of_two();
    let bpf = Bpf::load(0, room, 0).context("the fast path's programs")?;
    let exit = |_: PathId, _: (Ipv6Addr, Ipv6Addr)| Some(Exit { interface: 1, mark: 0 });
    let bpf = Arc::new(bpf);
    let path = BpfPath::new(Arc::clone(&bpf), Box::new(exit));
    let engine = engine(room as usize).with_fast_path(Box::new(path));
    publish::publish_home(&engine, router(1, 1, true), &[], Vec::new(), NOW);
    engine.sweep(NOW)?;
    // What is decided twice alike is handed to the kernel.
    for _ in 0..2 {
        send_all(&engine, 0..flows)?;
    }
    let held = || -> Result<u32> {
        let mut held = 0;
        bpf.each(&mut |_, _| held += 1)?;
        Ok(held)
    };
    println!("# {} flows in the kernel of {flows}", held()?);
    let mut moves = Vec::new();
    for turn in 0..100 {
        let registration = router(100 + turn, 1, true);
        let start = Instant::now();
        publish::publish_home(&engine, registration, &[], Vec::new(), NOW);
        moves.push(start.elapsed().as_secs_f64() * 1e3);
    }
    ensure!(held()? > flows / 2, "another care-of address ends no flow");
    println!(
        "# the longest of {}: {:.3} ms",
        moves.len(),
        moves.iter().copied().fold(0.0, f64::max)
    );
    goal("care-of-address-ms", median(moves), "<=", 1.0);
    let start = Instant::now();
    publish::publish_home(&engine, router(199, 1, false), &[], Vec::new(), NOW);
    goal("link-death-ms", start.elapsed().as_secs_f64() * 1e3, "<=", 1.0);
    let start = Instant::now();
    let mut packet = [0; 112];
    sent(flows / 2, &mut packet);
    let verdict = engine.outbound(Ingress::LOCAL, &packet, NOW, &mut Vec::new());
    ensure!(verdict == Verdict::Send { path: PathId(2) }, "{verdict:?} after the death");
    println!("# the first packet after it: {:.3} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Packets to random mobiles of all that there are, and as many to one.
fn bindings() -> Result<()> {
    const PACKETS: u32 = 40_000;
    let settings = || Settings { flows: 1 << 17, ..Settings::default() };
    let one = agent::agent(1, 3, Rules::Same, settings());
    let many = agent::agent(MOBILES, 3, Rules::Same, settings());
    println!("# {} bindings", 3 * MOBILES);
    let to = |number: u32| number.wrapping_mul(2_654_435_761) % MOBILES;
    let packets = [
        (0..PACKETS).map(|number| datagram(number, mobile(0))).collect::<Vec<_>>(),
        (0..PACKETS).map(|number| datagram(number, mobile(to(number)))).collect(),
    ];
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let mut machine = Machine::start()?;
    let mut ratios = Vec::new();
    let mut spent = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        let mut round = |at: usize| -> Result<f64> {
            let ns = machine.round([&one, &many][at], &packets[at])?;
            spent[at].push(ns);
            Ok(ns)
        };
        let (one, many) = (round(0)?, round(1)?);
        ratios.push(one / many);
    }
    let [one, many] = spent.map(median);
    println!("# nanoseconds a packet: one mobile {one:.0}, all {many:.0}");
    goal("throughput-million-bindings-of-one", median(ratios), ">=", 0.8);
    Ok(())
}
