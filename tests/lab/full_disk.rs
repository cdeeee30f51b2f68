//! A home agent whose disk is full: what is bound goes on, nobody is promised anything that could
//! be forgotten, and it heals by itself.

use std::process::Command;

use mtun::control::documents::{HealthReason, StatusDocument};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless};
use crate::fleet::{Fleet, home};
use crate::need_lab;

/// A small disk at a place; unmounted when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m", "mtun-test"]).arg(&at);
        assert!(command.status().unwrap().success(), "mount");
        Self(at)
    }

    /// Fills it to the last octet.
    fn fill(&self) {
        let output = Command::new("dd")
            .args(["if=/dev/zero", "bs=512", "status=none"])
            .arg(format!("of={}", self.0.join("filler").display()))
            .output()
            .unwrap();
        assert!(!output.status.success(), "there was no end to it");
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fails(status: &StatusDocument) -> bool {
    status.health.reasons.iter().any(|it| matches!(it, HealthReason::StoreFailing { .. }))
}

/// req PS-08, F-06.
#[test]
fn a_full_disk_refuses_updates_and_loses_no_packet() {
    need_lab!();
    let mut text = PolicyText::default().with_virtual_home_link();
    let allow: String = (0..crate::fleet::MOBILES)
        .map(|mobile| format!("    allow \"{}\" {{ security \"acme-sa\"; }}\n", home(mobile).0))
        .collect();
    let marker = "    allow \"2001:db8:100::43\"";
    assert!(text.agent.contains(marker));
    text.agent = text.agent.replace(marker, &format!("{allow}{marker}"));
    let mut disk = None;
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, |world| {
        disk = Some(Disk::mount(world.directory().join("agent").join("state")));
    });
    let disk = disk.expect("just mounted");
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mut fleet = Fleet::new(&lab.world);
    let agent = lab.agent();
    let before = agent.status().unwrap();
    assert!(!fails(&before));
    let store = before.store.expect("a home agent has a store");
    assert!(store.commits > 0 && store.records > 0 && store.failing.is_none(), "{store:?}");

    let mark = traffic.mark();
    disk.fill();
    // More than fits into what is left of the file: it fails in the end, and says so.
    let refused = std::time::Instant::now();
    fleet.run(|fleet| {
        assert!(refused.elapsed() < PATIENCE * 3, "never refused: {} accepted", fleet.acknowledged);
        fleet.refused > 0
    });
    assert!(fleet.refusals.iter().all(|status| *status == 130), "{:?}", fleet.refusals);
    let status = agent.wait_until("health says so", PATIENCE, fails).unwrap();
    let store = status.store.as_ref().expect("a store");
    assert!(store.failing.is_some() && store.failures > 0, "{store:?}");
    assert!(store.last_failure.as_deref().is_some_and(|it| it.contains("space")), "{store:?}");
    let figures = Lab::metrics(agent).store.expect("a store");
    assert!(figures.failing, "{figures:?}");
    assert!(figures.failures.iter().any(|(why, count)| why == "full" && *count > 0), "{figures:?}");
    // What is bound goes on as if nothing had happened.
    assert_alive(&traffic);
    assert_eq!(
        mtun::lab::daemons::cached(&status)
            .iter()
            .filter(|it| { ["2001:db8:1::7", "2001:db8:2::7"].contains(&it.to_string().as_str()) })
            .count(),
        2
    );

    // Room again: well by itself, without a restart.
    disk.free();
    let status = agent.wait_until("health is well", PATIENCE, |it| !fails(it)).unwrap();
    assert_eq!(status.store.expect("a store").failing, None);
    let (accepted, waited) = (fleet.acknowledged, std::time::Instant::now());
    fleet.run(|fleet| {
        assert!(waited.elapsed() < PATIENCE, "never accepted again");
        fleet.acknowledged > accepted + 64
    });
    let lossless = traffic.wait_for_uplinks(&lab.observatory, PATIENCE, crate::fixture::figure_11);
    lossless.unwrap();
    assert_lossless(&traffic, &mark, "while the disk was full");
    assert!(!fleet.advised, "HA-16: where bindings are kept nobody is advised to refresh early");
    // And nothing that was promised is forgotten.
    let mut agent = lab.agent.take().unwrap();
    agent.process.kill().unwrap();
    fleet.listen();
    let again = mtun::lab::daemons::Daemon::start(
        &lab.world,
        &crate::fixture::programs(),
        mtun::lab::daemons::Side::Agent,
        &lab.text,
        &mtun::lab::daemons::Arguments::default(),
    );
    let again = again.unwrap();
    fleet.check(&again, 0);
    drop(again);
    drop(disk);
}
