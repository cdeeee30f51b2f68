//! What becomes of flows when a link returns: nothing is killed, and nothing stays on the dear one.
//!
//! The first case replays a public complaint (opnsense/core#10684): after an outage of less than
//! a minute long-lived flows stayed on the metered backup for hours, and others had been killed.

use std::net::{Ipv6Addr, UdpSocket};

use mtun::control::documents::LinkState;
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::Way;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin};
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, assert_lossless};
use crate::need_lab;

fn all_wlan(_: Name, _: Origin) -> &'static str {
    "wlan0"
}

/// Everything prefers the WLAN; the metered W-CDMA link is its backup.
fn backup(hold: &str) -> PolicyText {
    PolicyText::default()
        .with("prefer wwan0 wlan0", "prefer wlan0 wwan0")
        .with("    expect rule=ssh via=wlan0 { given wwan0=down }\n", "")
        .with("expect rule=ssh via=wwan0", "expect rule=ssh via=wlan0")
        .with_usable("wlan0", &format!("hold up=\"{hold}\""))
}

/// Packets of every flow, both ways, that an uplink has carried.
fn carried(lab: &Lab, traffic: &mtun::lab::traffic::Traffic, uplink: &str) -> Vec<u64> {
    let keys = traffic.keys();
    let both = keys.iter().flat_map(|(_, _, flow)| [(flow, Way::Out), (flow, Way::In)]);
    both.map(|(flow, way)| lab.observatory.packets(flow, way, uplink)).collect()
}

fn state(lab: &Lab, link: &str) -> LinkState {
    let status = lab.mobile().status().unwrap();
    status.links.iter().find(|it| it.interface.as_str() == link).unwrap().state
}

#[test]
fn nothing_stays_on_the_metered_backup_after_a_short_outage_and_nothing_is_killed() {
    need_lab!();
    let lab = Lab::start(Plan::default(), backup("3s"));
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = mtun::lab::traffic::Traffic::start(&lab.world, PATIENCE).unwrap();
    lab.settled(&traffic, all_wlan);

    // The outage, with a flow born in it that then falls silent.
    lab.world.wlan_down().unwrap();
    lab.settled(&traffic, all_wwan);
    let silent = lab.world.mnn.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    silent.send_to(b"born in the outage", (address::CORRESPONDENT, 7009)).unwrap();
    traffic.let_run(500).unwrap();
    assert_alive(&traffic);

    // The return. While it recovers, the WLAN is registered and carries nothing.
    let mark = traffic.mark();
    let before = carried(&lab, &traffic, "wlan0");
    lab.world.wlan_up().unwrap();
    wait_for("the WLAN to recover", PATIENCE, || {
        (state(&lab, "wlan0") == LinkState::Recovering).then_some(())
    })
    .unwrap();
    loop {
        let now = carried(&lab, &traffic, "wlan0");
        if state(&lab, "wlan0") != LinkState::Recovering {
            break;
        }
        assert_eq!(now, before, "packets on a link that recovers");
        traffic.let_run(20).unwrap();
    }
    assert_eq!(state(&lab, "wlan0"), LinkState::Up);

    // Then everything goes back, and what is left on the metered link is nothing at all.
    lab.settled(&traffic, all_wlan);
    // What was under way on it when its flow left may still arrive, and be answered by it.
    traffic.let_run(200).unwrap();
    let on_backup = carried(&lab, &traffic, "wwan0");
    traffic.let_run(1000).unwrap();
    assert_eq!(carried(&lab, &traffic, "wwan0"), on_backup, "packets on the metered backup");
    wait_for("no flow to be remembered on the backup", PATIENCE, || {
        let flows = lab.mobile().flows().unwrap();
        let stranded = flows.iter().any(|flow| {
            let path = flow.outbound.as_ref();
            path.and_then(|path| path.link.as_ref()).is_some_and(|link| link.as_str() == "wwan0")
        });
        let told = flows.iter().any(|flow| flow.key.source_port == Some(silent_port));
        (!stranded && told).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:#?}", lab.mobile().flows()));
    assert_alive(&traffic);
    assert_lossless(&traffic, &mark, "the way back");
    lab.assert_clean();
}

#[test]
fn every_packet_is_judged_by_one_version_of_the_policy() {
    need_lab!();
    // Two files that differ in the probes only: whatever is in force, SSH is W-CDMA's and bulk
    // the WLAN's.
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let usual = lab.mobile().policy().to_owned();
    let other =
        PolicyText::default().with_rule("probe", "match proto=udp dport=4000\n prefer wwan0");
    let file = usual.with_file_name("other.kdl");
    std::fs::write(&file, other.mobile).unwrap();

    let mark = traffic.mark();
    let keys = traffic.keys();
    let wrong = || -> Vec<u64> {
        let tcp = keys.iter().filter(|(name, ..)| *name != Name::Probe);
        tcp.flat_map(|(name, _, flow)| {
            let never = if *name == Name::Ssh { "wlan0" } else { "wwan0" };
            [Way::Out, Way::In].map(|way| lab.observatory.packets(flow, way, never))
        })
        .collect()
    };
    let before = wrong();
    for number in 0..60 {
        let file = if number % 2 == 0 { &file } else { &usual };
        lab.mobile().mtun_ok(&["policy", "apply", &file.display().to_string()]).unwrap();
    }
    lab.settled(&traffic, crate::fixture::figure_11);
    assert_eq!(wrong(), before, "packets that took a link no version of the policy gives them");
    assert_lossless(&traffic, &mark, "60 reloads");
    assert_alive(&traffic);
    lab.assert_clean();
}
