//! Facts about radios and the vehicle, from their source to the link a flow takes.
//!
//! The modem and the GPS receiver are the only stand-ins: they speak the real protocols over a bus
//! and a socket of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mtun::control::documents::{LinkDocument, LinkState, SourceState, StatusDocument};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use mtun_policy::{RadioRegistration, Technology};

use crate::fixture::{Lab, PATIENCE, all_wwan, figure_11};
use crate::need_lab;
use crate::stand_ins::{Bus, Gpsd, Modem, ModemManager};

fn link<'s>(status: &'s StatusDocument, name: &str) -> &'s LinkDocument {
    status.links.iter().find(|link| link.interface.as_str() == name).unwrap()
}

/// Waits until a link of the mobile is in a state, with a reason that holds these words.
fn becomes(lab: &Lab, name: &str, state: LinkState, why: &str) -> StatusDocument {
    let what = format!("{name} {state}: {why}");
    let status = lab.mobile().wait_until(&what, PATIENCE, |status| {
        let link = link(status, name);
        link.state == state && link.reason.as_deref().unwrap_or_default().contains(why)
    });
    status.unwrap()
}

/// Puts a file of facts in the place of the one before.
fn write(lab: &Lab, name: &str, text: &str) {
    let directory = lab.world.directory().join("mobile").join("facts");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("fresh"), text).unwrap();
    std::fs::rename(directory.join("fresh"), directory.join(name)).unwrap();
}

fn start(lab: &mut Lab, bus: Option<&Bus>) {
    let facts = lab.world.directory().join("mobile").join("facts");
    let facts = facts.to_str().unwrap().to_owned();
    match bus {
        Some(bus) => lab.start_mobile(&["--facts", &facts, "--bus", &bus.address]),
        None => lab.start_mobile(&["--facts", &facts]),
    }
}

/// K7: flows leave a WLAN whose signal fades and come back when it is strong again; a source that
/// falls silent speaks against nobody, and says so.
#[test]
fn flows_leave_a_link_whose_signal_fades() {
    need_lab!();
    let usable = "signal enter=\"-70dBm\" leave=\"-78dBm\"; hold up=\"0s\"";
    let text = PolicyText::default()
        .with_usable("wlan0", usable)
        .with_statement("wlan0", "radio file=wlan0 every=\"1s\" lost-after=\"3s\"");
    let mut lab = Lab::with_agent(Plan::default(), text);
    write(&lab, "wlan0", "signal -60dBm\n");
    start(&mut lab, None);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    write(&lab, "wlan0", "signal -85dBm\n");
    let status = becomes(&lab, "wlan0", LinkState::Down, "signal is beyond its limit");
    assert_eq!(link(&status, "wlan0").signal_dbm, Some(-85));
    lab.settled(&traffic, all_wwan);
    // Nobody writes it any more: nothing is known, and nothing speaks against the link.
    let status = becomes(&lab, "wlan0", LinkState::Up, "");
    let wlan0 = link(&status, "wlan0");
    let source = &wlan0.radio.as_ref().expect("somebody is asked").source;
    assert_eq!((wlan0.signal_dbm, source.state), (None, SourceState::Lost));
    lab.settled(&traffic, figure_11);
    let log = lab.mobile().story();
    let words =
        "its signal, registration and technology are not known, and limits on them do not count";
    assert!(log.contains(words), "{log}");
    // A text with a fault says where, and nothing of it counts.
    write(&lab, "wlan0", "registration home\nsignal -85\n");
    let fault = wait_for("the fault", PATIENCE, || {
        let status = lab.mobile().status().ok()?;
        link(&status, "wlan0").radio.as_ref()?.source.fault.clone()
    });
    assert!(fault.as_ref().unwrap().contains("line 2: `-85` has no unit"), "{fault:?}");
    // The source comes back.
    write(&lab, "wlan0", "signal -85dBm\n");
    becomes(&lab, "wlan0", LinkState::Down, "signal is beyond its limit");
    let faults = Lab::metrics(lab.mobile()).source_faults;
    let unreadable = faults.iter().find(|it| it.of == "wlan0" && it.reason == "unreadable");
    assert_eq!(unreadable.map(|it| it.count), Some(1), "{faults:#?}");
}

/// A modem that roams where its policy forbids it carries nothing, and its link is back when it
/// is home.
#[test]
fn a_link_that_may_not_roam_is_left_abroad() {
    need_lab!();
    if !crate::skip::runs(std::process::Command::new("dbus-daemon").arg("--version")) {
        return crate::skip::skip("dbus-daemon is not installed");
    }
    let text = PolicyText::default()
        .with_usable("wwan0", "roaming #false; hold up=\"0s\"")
        .with_statement("wwan0", "radio modem=auto every=\"1s\"");
    let mut lab = Lab::with_agent(Plan::default(), text);
    let directory = lab.world.directory().join("bus");
    std::fs::create_dir_all(&directory).unwrap();
    let bus = Bus::start(&directory);
    let manager = ModemManager::start(&bus.address, Some(Modem::at_home("wwan0")));
    start(&mut lab, Some(&bus));
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let told = lab.mobile().wait_until("the modem's word", PATIENCE, |status| {
        link(status, "wwan0").signal_dbm == Some(-91)
    });
    let radio = link(&told.unwrap(), "wwan0").radio.clone().expect("somebody is asked");
    let known = (radio.registration, radio.technology);
    assert_eq!(known, (Some(RadioRegistration::Home), Some(Technology::Lte)));
    manager.change(|modem| modem.as_mut().unwrap().registration = 5);
    becomes(&lab, "wwan0", LinkState::Down, "it roams, which its policy forbids");
    lab.settled(&traffic, |_, _| "wlan0");
    manager.change(|modem| modem.as_mut().unwrap().registration = 1);
    becomes(&lab, "wwan0", LinkState::Up, "");
    lab.settled(&traffic, figure_11);
    // What `mtun links` says for people.
    let shown = lab.mobile().mtun_ok(&["links"]).unwrap();
    let shown = shown["links"].as_array().unwrap();
    let wwan0 = shown.iter().find(|link| link["interface"] == "wwan0").unwrap();
    assert_eq!(wwan0["radio"]["registration"], "home", "{wwan0:#}");
}

/// A rule with `when speed` follows the receiver, and does not hold when that is gone.
#[test]
fn a_rule_follows_the_speed_of_the_vehicle() {
    need_lab!();
    let text = PolicyText::default();
    let mut lab = Lab::with_agent(Plan::default(), text);
    let directory = lab.world.directory().join("gps");
    std::fs::create_dir_all(&directory).unwrap();
    let gpsd = Gpsd::start(&directory);
    let place = gpsd.place.display().to_string();
    // SSH takes the WLAN where the vehicle stands, W-CDMA elsewhere.
    lab.text = lab.text.with(
        "home \"acme\" {",
        &format!("vehicle gpsd=\"{place}\" lost-after=\"10s\"\n\nhome \"acme\" {{"),
    );
    lab.text = lab.text.with(
        "rules home=acme {",
        "rules home=acme {\n    rule \"standing\" { match proto=tcp dport=22; when speed=\"<5km/h\"; prefer wlan0; failback now }",
    );
    start(&mut lab, None);
    // Centimetres a second, told five times a second until it is gone.
    let (speed, gone) = (Arc::new(AtomicU32::new(2000)), Arc::new(AtomicBool::new(false)));
    let receiver = std::thread::spawn({
        let (speed, gone) = (speed.clone(), gone.clone());
        move || {
            let mut caller = gpsd.accept();
            while !gone.load(Ordering::Relaxed) {
                caller.fix(f64::from(speed.load(Ordering::Relaxed)) / 100.0);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let moving = lab.mobile().wait_until("the speed", PATIENCE, |status| {
        status.vehicle.as_ref().is_some_and(|it| it.speed_kmh == Some(72.0))
    });
    let vehicle = moving.unwrap().vehicle.unwrap();
    assert_eq!((vehicle.latitude, vehicle.longitude), (Some(48.137_154), Some(11.576_124)));
    speed.store(30, Ordering::Relaxed);
    lab.settled(&traffic, |_, _| "wlan0");
    // The receiver is gone: a speed that is not known meets no condition.
    gone.store(true, Ordering::Relaxed);
    receiver.join().unwrap();
    let lost = lab.mobile().wait_until("the loss", PATIENCE, |status| {
        status.vehicle.as_ref().is_some_and(|it| it.source.state == SourceState::Lost)
    });
    let vehicle = lost.unwrap().vehicle.unwrap();
    assert_eq!((vehicle.speed_kmh, vehicle.latitude), (None, None));
    lab.settled(&traffic, figure_11);
}

/// A rule with `when near` holds at the depot, and a WLAN with `usable { near … }` is used nowhere
/// else; what nobody knows meets no condition and speaks against no link.
#[test]
fn rules_and_links_follow_the_place_of_the_vehicle() {
    need_lab!();
    let depot = "near=\"48.137154,11.576124\" within=\"300m\"";
    let usable = "near \"48.137154,11.576124\" enter=\"5km\" leave=\"6km\"; hold up=\"0s\"";
    let mut lab =
        Lab::with_agent(Plan::default(), PolicyText::default().with_usable("wlan0", usable));
    let directory = lab.world.directory().join("gps");
    std::fs::create_dir_all(&directory).unwrap();
    let gpsd = Gpsd::start(&directory);
    let place = gpsd.place.display().to_string();
    lab.text = lab.text.with(
        "home \"acme\" {",
        &format!("vehicle gpsd=\"{place}\" lost-after=\"10s\"\n\nhome \"acme\" {{"),
    );
    // SSH takes the WLAN at the depot, W-CDMA elsewhere.
    let rule = format!(
        "rules home=acme {{\n    rule \"depot\" {{ match proto=tcp dport=22; when {depot}; prefer wlan0; failback now }}"
    );
    lab.text = lab.text.with("rules home=acme {", &rule);
    start(&mut lab, None);
    // Millionths of a degree north, told five times a second until it is gone.
    let (north, gone) = (Arc::new(AtomicU32::new(48_150_000)), Arc::new(AtomicBool::new(false)));
    let receiver = std::thread::spawn({
        let (north, gone) = (north.clone(), gone.clone());
        move || {
            let mut caller = gpsd.accept();
            while !gone.load(Ordering::Relaxed) {
                caller.fix_at(f64::from(north.load(Ordering::Relaxed)) / 1e6, 3.0);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    // What stands there, and what would be so at the depot.
    let question = "tcp 2001:db8:100:4200::10 -> 2001:db8:c::9 dport 22";
    let explained = lab.mobile().mtun_ok(&["explain", question]).unwrap().to_string();
    assert!(
        explained.contains("1.4 km away, not within 300 m of 48.137154,11.576124"),
        "{explained}"
    );
    let supposed = format!("{question} given position=48.137154,11.576124");
    let explained = lab.mobile().mtun_ok(&["explain", &supposed]).unwrap();
    assert_eq!(explained["rule"]["name"], "depot", "{explained:#}");

    north.store(48_137_200, Ordering::Relaxed);
    lab.settled(&traffic, |_, _| "wlan0");
    // In the room at the edge: still there.
    north.store(48_140_200, Ordering::Relaxed);
    let there = lab.mobile().wait_until("the edge", PATIENCE, |status| {
        status.vehicle.as_ref().is_some_and(|it| it.latitude == Some(48.140_2))
    });
    there.unwrap();
    lab.settled(&traffic, |_, _| "wlan0");
    // 14 km away the WLAN is nobody's.
    north.store(48_264_000, Ordering::Relaxed);
    becomes(&lab, "wlan0", LinkState::Down, "the vehicle's distance is beyond its limit");
    lab.settled(&traffic, all_wwan);
    gone.store(true, Ordering::Relaxed);
    receiver.join().unwrap();
    becomes(&lab, "wlan0", LinkState::Up, "");
    lab.settled(&traffic, figure_11);
}
