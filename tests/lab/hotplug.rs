//! Links that appear while the daemon runs, vanish, come back as another interface, and are renamed.

use mtun::control::documents::LinkState;
use mtun::lab::daemons::cached;
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin, Traffic};
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

fn all_wlan(_: Name, _: Origin) -> &'static str {
    "wlan0"
}

/// K8: a modem that is plugged in late, pulled out with traffic on it, and plugged in again.
#[test]
fn a_modem_that_comes_goes_and_comes_again() {
    need_lab!();
    let plan = Plan { wwan: false, ..Plan::default() };
    let mut lab = Lab::start(plan, PolicyText::default());
    lab.registered(&["wlan0"]);
    let status = lab.mobile().status().unwrap();
    let wwan0 = status.links.iter().find(|it| it.interface.as_str() == "wwan0").unwrap();
    assert_eq!((wwan0.state, wwan0.ifindex), (LinkState::Down, None));
    assert_eq!(wwan0.reason.as_deref(), Some("no such interface"));
    let traffic = Traffic::start(&lab.world, PATIENCE).unwrap();
    lab.settled(&traffic, all_wlan);

    let mut indices = Vec::new();
    for round in 0..2 {
        let mark = traffic.mark();
        lab.world.attach_wwan().unwrap();
        lab.observatory.tap_uplink(&lab.world, "wwan0").unwrap();
        lab.registered(&["wlan0", "wwan0"]);
        lab.settled(&traffic, figure_11);
        assert_lossless(&traffic, &mark, &format!("plugged in, {round}"));
        indices.push(lab.world.mr.interface_index("wwan0").unwrap());

        // The probes are on the WLAN: pulling the modem out takes nothing of them.
        let mark = traffic.mark();
        lab.world.detach_wwan();
        lab.settled(&traffic, all_wlan);
        lab.registered(&["wlan0"]);
        assert_alive(&traffic);
        assert_lossless(&traffic, &mark, &format!("pulled out, {round}"));
        wait_for("the agent to hold the WLAN only", PATIENCE, || {
            let held = cached(&lab.agent().status().unwrap());
            (held == [std::net::IpAddr::from(address::WLAN)]).then_some(())
        })
        .unwrap();
    }
    assert_ne!(indices[0], indices[1], "another interface of the same name");
    lab.assert_clean();
}

/// K8: an uplink that is renamed away is gone, and back when it has its name again. Its address stays
/// on the machine, and what the agent sends there until it is told is refused by the mobile's kernel,
/// as by any host (RFC 4443 §3.4); so the world is not clean of Parameter Problems.
#[test]
fn an_uplink_that_is_renamed() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    lab.world.mr.ip(&["link set wlan0 name other0"]).unwrap();
    lab.registered(&["wwan0"]);
    lab.settled(&traffic, |_, _| "wwan0");
    assert_alive(&traffic);
    lab.world.mr.ip(&["link set other0 name wlan0"]).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    assert_alive(&traffic);
}
