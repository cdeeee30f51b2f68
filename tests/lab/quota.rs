//! Quotas: what a link carried is known over kills and restarts, and counts.

use mtun::control::documents::{LinkState, QuotaDocument, QuotaLevel, StatusDocument};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::Traffic;
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

const MEGABYTE: u64 = 1_000_000;

fn quota(status: &StatusDocument) -> &QuotaDocument {
    let link = status.links.iter().find(|link| link.interface.as_str() == "wwan0").unwrap();
    link.quota.as_ref().expect("the file gives it one")
}

/// Waits until wwan0 has carried so many octets, by the daemon's own account.
fn carried(lab: &Lab, octets: u64) -> u64 {
    let what = format!("{octets} octets over wwan0");
    let status = lab
        .mobile()
        .wait_until(&what, 2 * PATIENCE, |status| quota(status).used_octets >= octets)
        .unwrap();
    quota(&status).used_octets
}

/// What the disk has of the octets of wwan0.
fn written(lab: &Lab) -> u64 {
    let file = lab.mobile().policy().with_file_name("state").join("quota.json");
    let text = std::fs::read(file).unwrap_or_default();
    let ledgers: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    ledgers["acme"]["links"]["wwan0"]["octets"].as_u64().unwrap_or_default()
}

#[test]
fn what_was_counted_survives_a_kill() {
    need_lab!();
    let text = PolicyText::default().with_statement("wwan0", "quota \"10GB\" per=month");
    let mut lab = Lab::start(Plan { wlan: false, ..Plan::default() }, text);
    lab.registered(&["wwan0"]);
    let traffic = Traffic::start(&lab.world, PATIENCE).unwrap();
    let before = carried(&lab, 3 * MEGABYTE);
    // It is written down as it is counted, by megabytes and, of what the kernel carries, twice a
    // second; only what is being written while the power goes may be lost.
    wait_for("it is written down", PATIENCE, || (written(&lab) >= before).then_some(())).unwrap();
    lab.mobile.as_mut().unwrap().process.kill().unwrap();
    lab.start_mobile(&[]);
    let after = quota(&lab.mobile().status().unwrap()).used_octets;
    assert!(after >= before, "{before} before the kill, {after} after it");
    let told = lab.mobile().status().unwrap();
    assert_eq!(quota(&told).limit_octets, 10_000 * MEGABYTE);
    assert_eq!(quota(&told).level, QuotaLevel::Free);
    assert!(quota(&told).resets.is_some(), "the date is known");
    // And it goes on counting.
    carried(&lab, before + MEGABYTE);
    drop(traffic);
}

#[test]
fn a_hard_quota_ends_the_use_of_its_link() {
    need_lab!();
    let text = PolicyText::default().with_statement("wwan0", "quota \"2MB\" per=day at-limit=stop");
    let lab = Lab::start(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    // Everything over W-CDMA, until it has carried what it may.
    lab.world.wlan_down().unwrap();
    let stopped = lab.mobile().wait_until("the end of the quota", 2 * PATIENCE, |status| {
        quota(status).level == QuotaLevel::Reached
    });
    let status = stopped.unwrap();
    let link = status.links.iter().find(|link| link.interface.as_str() == "wwan0").unwrap();
    assert_eq!(link.state, LinkState::Down, "{link:#?}");
    assert_eq!(link.reason.as_deref(), Some("its quota is used up"));
    // The WLAN takes everything over, W-CDMA's own flows too.
    lab.world.wlan_up().unwrap();
    lab.settled(&traffic, |_, _| "wlan0");
    lab.assert_clean();
}
