//! What operators want of links: drained, held, released.

use mtun::control::documents::{LinkDocument, LinkState};
use mtun::lab::daemons::cached;
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::Way;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Traffic};
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

fn link(lab: &Lab, name: &str) -> LinkDocument {
    let status = lab.mobile().status().unwrap();
    status.links.into_iter().find(|it| it.interface.as_str() == name).unwrap()
}

/// Packets that this link carried of all flows.
fn carried(lab: &Lab, traffic: &Traffic, link: &str) -> u64 {
    let keys = traffic.keys();
    let out = keys.iter().map(|(_, _, flow)| lab.observatory.packets(flow, Way::Out, link));
    out.sum()
}

#[test]
fn a_drained_link_runs_empty_without_loss_and_is_the_last_choice() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mark = traffic.mark();
    let answer = lab.mobile().mtun_ok(&["link", "drain", "wlan0"]).unwrap();
    assert_eq!((&answer["admin"], &answer["before"]), (&"drained".into(), &"open".into()));
    lab.settled(&traffic, all_wwan);
    assert_lossless(&traffic, &mark, "drained");
    assert_alive(&traffic);
    assert_eq!(link(&lab, "wlan0").state, LinkState::Drained);
    let held = cached(&lab.agent().status().unwrap());
    assert!(held.contains(&address::WLAN.into()), "it stays registered: {held:?}");
    let links = lab.mobile().mtun(&["links"]).unwrap().to_string();
    assert!(links.contains("drained by an operator"), "{links}");

    // The last choice is a choice.
    lab.world.wwan_wire().unwrap().set_carrier(false).unwrap();
    lab.settled(&traffic, |_, _| "wlan0");
    assert_alive(&traffic);
    lab.world.wwan_wire().unwrap().set_carrier(true).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, all_wwan);

    let mark = traffic.mark();
    lab.mobile().mtun_ok(&["link", "release", "wlan0"]).unwrap();
    lab.settled(&traffic, figure_11);
    assert_lossless(&traffic, &mark, "released");
    assert_eq!(link(&lab, "wlan0").state, LinkState::Up);
    lab.assert_clean();
}

#[test]
fn a_held_link_stays_out_over_a_policy_a_flap_and_a_restart() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    lab.mobile().mtun_ok(&["link", "hold", "wlan0"]).unwrap();
    lab.settled(&traffic, all_wwan);
    let is_held = |lab: &Lab| link(lab, "wlan0").state == LinkState::Held;
    assert!(is_held(&lab));
    let flow = traffic.keys().into_iter().find(|(name, ..)| *name == Name::Bulk).unwrap().2;
    let question = format!("tcp {} -> {} dport {}", flow.home.0, flow.peer.0, flow.peer.1);
    let explained = lab.mobile().mtun_ok(&["explain", &question]).unwrap().to_string();
    assert!(explained.contains("held by an operator"), "{explained}");

    // Another version of the policy.
    let usual = lab.mobile().policy().display().to_string();
    lab.mobile().mtun_ok(&["policy", "apply", &usual]).unwrap();
    assert!(is_held(&lab), "after a policy");

    // A flap. A held link is not among those that are registered and usable, so its going has to be
    // seen by itself; it is held again once it is back, and never used in between.
    lab.world.wlan_down().unwrap();
    wait_for("the WLAN to be gone", PATIENCE, || {
        (link(&lab, "wlan0").state == LinkState::Down).then_some(())
    })
    .unwrap();
    lab.world.wlan_up().unwrap();
    wait_for("the WLAN to be back and held", PATIENCE, || {
        let state = link(&lab, "wlan0").state;
        assert!(!matches!(state, LinkState::Up | LinkState::Degraded), "after a flap: {state}");
        is_held(&lab).then_some(())
    })
    .unwrap();
    lab.mobile()
        .wait_until("the WLAN to be registered again", PATIENCE, |status| {
            let binding = status.bindings.iter().find(|it| it.bid.is_some_and(|it| it.get() == 1));
            binding.is_some_and(|binding| binding.expires_seconds.is_some())
        })
        .unwrap();

    // Not even as the last link, and no packet by it.
    let before = carried(&lab, &traffic, "wlan0");
    lab.world.wwan_wire().unwrap().set_carrier(false).unwrap();
    let drops = || Lab::drops(lab.mobile(), "no-usable-binding");
    wait_for("packets to be refused", PATIENCE, || (drops() > 0).then_some(())).unwrap();
    assert_eq!(carried(&lab, &traffic, "wlan0"), before, "packets by a held link");
    lab.world.wwan_wire().unwrap().set_carrier(true).unwrap();
    lab.settled(&traffic, all_wwan);

    // A restart.
    drop(traffic);
    lab.mobile = None;
    lab.start_mobile(&[]);
    wait_for("the WLAN to be held", PATIENCE, || is_held(&lab).then_some(())).unwrap();
    lab.mobile().mtun_ok(&["link", "release", "wlan0"]).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    let refused = lab.mobile().mtun(&["link", "hold", "eth7"]).unwrap();
    assert_eq!(refused["error"]["code"], "not-found", "{refused}");
    let refused = lab.agent().mtun(&["link", "hold", "core0"]).unwrap();
    assert_eq!(refused["ok"], false, "{refused}");
    lab.assert_clean();
}
