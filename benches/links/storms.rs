//! Links that come and go fifty times a second, addresses that change ten thousand times, and a
//! router on which nothing happens.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mtun::edge::movement::LinkEvent;
use mtun::edge::netlink::Netlink;
use mtun::lab::namespace::{interrupted, pause};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{INTERVAL, Talk};
use mtun::lab::world::{Plan, World};

use crate::rig::{PATIENCE, Rig, goal};

/// Half a period of 50 Hz.
const HALF: Duration = Duration::from_millis(10);

/// F-08: the carrier of the W-CDMA link at 50 Hz for a minute.
pub fn flapping() -> Result<()> {
    let rig = Rig::start(Plan::default(), &PolicyText::default(), &["wlan0", "wwan0"])?;
    let (flow, probe) = rig.stream(Talk { interval: INTERVAL, pauses: None })?;
    rig.on(&flow, "wlan0")?;
    rig.observatory.follow(&flow);
    let wire = rig.world.wwan_wire().context("the plan has it")?;
    let (mark, before) = (probe.mark(), rig.processor_time()?);
    let known = rig.observatory.updates().len();
    let began = Instant::now();
    let mut next = began;
    while began.elapsed() < Duration::from_secs(60) && !interrupted() {
        for up in [false, true] {
            wire.set_carrier(up)?;
            next += HALF;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    let end = Instant::now();
    let took = (end - began).as_secs_f64();
    let busy = (rig.processor_time()? - before).as_secs_f64();
    rig.mobile.wait_for_links(&["wlan0", "wwan0"], PATIENCE)?;
    let back = end.elapsed();
    let updates: Vec<f64> =
        rig.observatory.updates()[known..].iter().map(|at| *at as f64 / 1e9).collect();
    // The most in any second.
    let most = updates
        .iter()
        .map(|from| updates.iter().filter(|at| (*from..*from + 1.0).contains(*at)).count());
    let tally = probe.tally_since(mark);
    println!(
        "# flapped at 50 Hz for {took:.1} s: {} Binding Updates, {busy:.2} s of processor time, \
         {} packets on the other uplink",
        updates.len(),
        tally.outbound.sent
    );
    goal("flapping-binding-updates-a-second", most.max().unwrap_or(0) as f64, 3.0);
    goal("flapping-percent-of-a-core", 100.0 * busy / took, 20.0);
    goal("flapping-lost-on-other-uplink", (tally.outbound.lost + tally.inbound.lost) as f64, 0.0);
    goal("flapping-registered-again-s", back.as_secs_f64(), 2.0);
    Ok(())
}

/// What somebody knows who was told of each change and of everything.
fn follow(known: &mut BTreeSet<(u32, Ipv6Addr)>, event: &LinkEvent) {
    match event {
        LinkEvent::Everything(events) => {
            known.clear();
            events.iter().for_each(|event| follow(known, event));
        }
        LinkEvent::Address { index, address, .. } => {
            known.insert((*index, *address));
        }
        LinkEvent::AddressGone { index, address } => {
            known.remove(&(*index, *address));
        }
        _ => {}
    }
}

/// F-07: 10,000 changes of addresses past a buffer of 4 KiB.
pub fn addresses() -> Result<()> {
    let world = World::build(Plan { wlan: false, wwan: false, ..Plan::default() })?;
    let path = world.directory().join("storm");
    let change = |verb: &'static str, net: u16, last: &'static str| {
        (0..100).map(move |n| format!("address {verb} 2001:db8:{net}::{n:x}/128 dev lan0{last}\n"))
    };
    let batch: String = (0..50)
        .flat_map(|_| change("add", 5, " nodad").chain(change("del", 5, "")))
        .chain(change("add", 6, " nodad"))
        .collect();
    std::fs::write(&path, batch)?;
    let storm = |path: &std::path::Path| {
        tokio::process::Command::new("ip").args(["-6", "-batch"]).arg(path).spawn()
    };
    let (settled, counts) = world.mr.run(|| -> Result<_> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let netlink = Netlink::open()?;
            let mut events = netlink.events_with_room(4096)?;
            let mut known = BTreeSet::new();
            follow(&mut known, &events.next().await?);
            let mut storm = storm(&path)?;
            loop {
                tokio::select! {
                    event = events.next() => follow(&mut known, &event?),
                    _ = storm.wait() => break,
                }
            }
            let end = Instant::now();
            let mut wanted = BTreeSet::new();
            follow(&mut wanted, &netlink.events()?.next().await?);
            let mut settled = end.elapsed();
            while known != wanted {
                follow(&mut known, &tokio::time::timeout(PATIENCE, events.next()).await??);
                settled = end.elapsed();
            }
            Ok((settled, events.counts()))
        })
    })?;
    println!("# 10,100 changes of addresses past a buffer of 4 KiB: {counts:?}");
    goal("storm-known-after-ms", settled.as_secs_f64() * 1e3, 500.0);
    Ok(())
}

/// A router with three uplinks on which nothing happens, for a minute.
pub fn idle() -> Result<()> {
    let text = PolicyText::default().with_third_uplink();
    let rig = Rig::start(Plan::default(), &text, &["wlan0", "wwan0", "wwan1"])?;
    // What a start leaves to do is done.
    pause(Duration::from_secs(5))?;
    let (began, before) = (Instant::now(), rig.processor_time()?);
    pause(Duration::from_secs(60))?;
    let busy = rig.processor_time()? - before;
    goal("idle-percent-of-a-core", 100.0 * busy.as_secs_f64() / began.elapsed().as_secs_f64(), 0.5);
    goal("idle-memory-mib", rig.memory()?, 30.0);
    Ok(())
}
