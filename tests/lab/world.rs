//! The world itself, without a daemon: it forwards, delays and drops as drawn.

use std::time::Duration;

use mtun::lab::flows::{Kind, Services, TcpFlow};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::Observatory;
use mtun::lab::probe::{Bound, Echo, INTERVAL, Probe};
use mtun::lab::record::{self, Which};
use mtun::lab::wire::{Direction, Impairment};
use mtun::lab::world::{Access, Plan, World, address};

use crate::need_lab;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn care_of_addresses_reach_the_correspondent_with_the_delay_of_their_wire() {
    need_lab!();
    let plan = Plan {
        wlan_path: Impairment::delayed(Duration::from_millis(3)),
        wwan_path: Impairment::delayed(Duration::from_millis(10)),
        ..Plan::default()
    };
    let world = World::build(plan).unwrap();
    world.wait_for_wlan_address().unwrap();
    let echo = Echo::start(&world.cn).unwrap();
    for (uplink, source, least) in [("wlan0", address::WLAN, 6.0), ("wwan0", address::WWAN, 20.0)] {
        let bound = Bound::Device(uplink.into());
        let probe = Probe::start(&world.mr, &echo, INTERVAL, &bound).unwrap();
        probe.wait_for_echo_after(300, PATIENCE).unwrap();
        let tally = probe.tally_since(0);
        let round_trip = probe.round_trip_ms().unwrap();
        assert!(round_trip >= least, "{uplink}: {round_trip} ms, {least} ms of wire");
        assert_eq!((tally.outbound.lost, tally.outbound.duplicated), (0, 0), "{uplink}");
        assert_eq!((tally.inbound.lost, tally.inbound.duplicated), (0, 0), "{uplink}");
        let sources: Vec<_> = probe.sources().iter().map(|source| *source.ip()).collect();
        assert_eq!(sources, [source], "{uplink}");
    }
    assert_eq!(world.leaked().unwrap(), 0);
}

#[test]
fn access_routers_drop_and_count_foreign_sources() {
    need_lab!();
    let world = World::build(Plan::default()).unwrap();
    world.wait_for_wlan_address().unwrap();
    let echo = Echo::start(&world.cn).unwrap();
    let observatory = Observatory::open(&world).unwrap();
    world.mr.ip(&["address add 2001:db8:dead::1/128 dev lo"]).unwrap();
    let foreign = "2001:db8:dead::1".parse().unwrap();
    for source in [address::LAN, foreign] {
        let mut probe = Probe::start(&world.mr, &echo, INTERVAL, &Bound::Address(source)).unwrap();
        wait_for("50 probes", PATIENCE, || (probe.mark() >= 50).then_some(())).unwrap();
        probe.stop();
        let sent = u64::from(probe.mark());
        let dropped = wait_for("the counter", PATIENCE, || {
            let dropped = world.dropped(Access::Wlan).unwrap();
            let count = if source == address::LAN { dropped.home_source } else { dropped.foreign };
            (count == sent).then_some(dropped)
        });
        assert!(dropped.is_ok(), "{source}: {:?} of {sent}", world.dropped(Access::Wlan));
        assert_eq!(probe.tally_since(0).outbound.received, 0, "{source}");
    }
    let seen = observatory.oddities().plain_home_source;
    assert_eq!(seen, world.dropped(Access::Wlan).unwrap().home_source, "tap and counter agree");
    assert_eq!(world.leaked().unwrap(), seen);
}

#[test]
fn the_wire_loses_what_it_is_told_to_and_the_probe_sees_it() {
    need_lab!();
    let world = World::build(Plan { wlan: false, ..Plan::default() }).unwrap();
    let echo = Echo::start(&world.cn).unwrap();
    let probe = Probe::start(&world.mr, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(50, PATIENCE).unwrap();
    let wire = world.wwan_wire().unwrap();

    let from = probe.mark();
    wire.set(Direction::Up, |up| up.cut = true);
    wait_for("100 probes", PATIENCE, || (probe.mark() >= from + 100).then_some(())).unwrap();
    wire.set(Direction::Up, |up| up.cut = false);
    let to = probe.mark();
    probe.wait_for_echo_after(to + 50, PATIENCE).unwrap();
    let tally = probe.tally(from.saturating_sub(20), to + 50);
    let lost = wire.counts(Direction::Up).lost;
    assert!(lost >= 95, "{lost}");
    assert_eq!(tally.outbound.lost, lost, "the wire's count and the probe's agree");
    assert_eq!(tally.inbound.lost, 0, "nothing was lost on the way back");
    assert!(tally.outbound.longest_gap_ms >= 90.0, "{tally:?}");

    let from = probe.mark();
    let lost_before = wire.counts(Direction::Down).lost;
    wire.set(Direction::Down, |down| down.loss = 0.2);
    wait_for("500 probes", PATIENCE, || (probe.mark() >= from + 500).then_some(())).unwrap();
    wire.set(Direction::Down, |down| down.loss = 0.0);
    let to = probe.mark();
    probe.wait_for_echo_after(to + 50, PATIENCE).unwrap();
    let tally = probe.tally(from.saturating_sub(50), to + 50);
    assert_eq!(tally.outbound.lost, 0);
    assert_eq!(tally.inbound.lost, wire.counts(Direction::Down).lost - lost_before);
    assert!(tally.inbound.lost > 50, "{tally:?}");
}

#[test]
fn a_care_of_address_is_tentative_until_nobody_objects() {
    need_lab!();
    let plan = Plan { detection: Duration::from_millis(800), ..Plan::default() };
    let world = World::build(plan).unwrap();
    let states = wait_for("the address", PATIENCE, || {
        let links = world.mr.ip_json("-6 address show dev wlan0").ok()?;
        let entry = links[0]["addr_info"]
            .as_array()?
            .iter()
            .find(|entry| entry["local"] == address::WLAN.to_string())?
            .clone();
        Some(entry)
    })
    .unwrap();
    assert_eq!(states["tentative"], true, "{states}");
    world.wait_for_wlan_address().unwrap();
}

#[test]
fn tcp_survives_an_outage_and_the_carrier_follows_the_far_end() {
    need_lab!();
    let world = World::build(Plan { equal_index: true, ..Plan::default() }).unwrap();
    assert_eq!(
        world.mr.interface_index("wlan0"),
        world.wlan.interface_index("sta0"),
        "the variant whose link events the kernel holds"
    );
    world.wait_for_wlan_address().unwrap();
    let _services = Services::start(&world.cn).unwrap();
    let flows =
        [Kind::Ssh, Kind::Bulk].map(|kind| TcpFlow::connect(&world.mr, kind, PATIENCE).unwrap());
    let state = || {
        let links = world.mr.ip_json("link show dev wlan0").unwrap();
        links[0]["operstate"].as_str().unwrap_or_default().to_owned()
    };
    for flow in &flows {
        flow.wait_for_progress(PATIENCE).unwrap();
        assert_eq!(*flow.local().ip(), address::WLAN);
    }
    world.wlan_down().unwrap();
    wait_for("loss of carrier", PATIENCE, || (state() != "UP").then_some(())).unwrap();
    world.wlan_up().unwrap();
    wait_for("the carrier", PATIENCE, || (state() == "UP").then_some(())).unwrap();
    for flow in &flows {
        flow.wait_for_progress(PATIENCE).unwrap();
        assert_eq!(flow.progress().broken, None);
    }
}

#[test]
fn a_third_uplink_appears_later() {
    need_lab!();
    let mut world = World::build(Plan { wlan: false, wwan_mtu: 1280, ..Plan::default() }).unwrap();
    let echo = Echo::start(&world.cn).unwrap();
    assert_eq!(world.mr.interface_index("wwan1"), None);
    world.attach_wwan1().unwrap();
    let bound = Bound::Device("wwan1".into());
    let probe = Probe::start(&world.mr, &echo, INTERVAL, &bound).unwrap();
    probe.wait_for_echo_after(20, PATIENCE).unwrap();
    assert_eq!(*probe.sources()[0].ip(), address::WWAN1);
    let links = world.mr.ip_json("link show dev wwan1").unwrap();
    assert_eq!(links[0]["mtu"], 1280);
}

#[test]
fn a_dropped_world_leaves_nothing_and_a_kept_one_is_removed_by_its_record() {
    need_lab!();
    let exists = |name: &str| std::path::Path::new("/run/netns").join(name).exists();
    let world = World::build(Plan::default()).unwrap();
    let (name, directory) = (world.mr.name().to_owned(), world.directory().to_owned());
    assert!(exists(&name) && directory.exists());
    drop(world);
    assert!(!exists(&name) && !directory.exists());

    let world = World::build(Plan::default()).unwrap();
    let run = world.run().to_owned();
    let names: Vec<String> =
        [&world.mr, &world.ha, &world.cn].map(|namespace| namespace.name().to_owned()).into();
    let directory = world.directory().to_owned();
    let mut command = world.cn.command("sleep");
    command.arg("1000");
    let mut process = world.cn.start(command, &directory.join("sleep.log")).unwrap();
    process.keep();
    world.record().keep().unwrap();
    drop(world);
    assert!(names.iter().all(|name| exists(name)) && process.is_running());
    let removed = record::remove_all(Which::KeptAndStale, &Default::default()).unwrap();
    assert!(removed.contains(&run), "{removed:?}");
    assert!(names.iter().all(|name| !exists(name)) && !directory.exists());
    assert!(!process.is_running());
}
