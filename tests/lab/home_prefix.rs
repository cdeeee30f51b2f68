//! What a router of the home link says of the home prefix, and what becomes of bindings by it.
//!
//! The host on the home link plays the router: it is no default router, and knows the prefix.

use std::time::Duration;

use mtun::control::documents::StatusDocument;
use mtun::lab::advertiser::{Advertisement, Advertiser};
use mtun::lab::daemons::cached;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;

use crate::beyond::with_extensions;
use crate::fixture::{Lab, PATIENCE};
use crate::home_agent::{count, looking};
use crate::need_lab;

/// What is not authentic does not cut a lifetime below this (RFC 4862 §5.5.3).
const TWO_HOURS: u64 = 7200;

/// Has the host say these lifetimes of the home prefix, and waits until the agent has heard it.
fn advertised(lab: &Lab, valid: u64, preferred: u64) -> Advertiser {
    let heard = count(lab, "prefix-heard");
    let [valid, preferred] = [valid, preferred].map(Duration::from_secs);
    let what = Advertisement::home(valid, preferred);
    let router = Advertiser::start(&lab.world.home, "eth0", what).unwrap();
    lab.agent()
        .wait_until("the agent to hear of it", PATIENCE, |_| count(lab, "prefix-heard") > heard)
        .unwrap();
    router
}

/// How long the bindings were granted, in seconds, by link.
fn granted(status: &StatusDocument) -> Vec<(String, u64)> {
    let mut granted: Vec<_> = status
        .bindings
        .iter()
        .filter_map(|it| Some((it.link.as_ref()?.as_str().to_owned(), it.granted_seconds?)))
        .collect();
    granted.sort();
    granted
}

/// How often the mobile was told the home prefix.
fn told(lab: &Lab) -> u64 {
    Lab::drops(lab.mobile(), "signaling-home-prefixes")
}

/// HA-05, HA-17, HA-76: bindings live no longer than the home prefix, and their mobile hears of it.
#[test]
fn bindings_live_no_longer_than_the_home_prefix() {
    need_lab!();
    let mut text = PolicyText::default().with_lifetime(36_000);
    assert!(text.agent.contains("lifetime=\"1h\""));
    text.agent = text.agent.replace("lifetime=\"1h\"", "lifetime=\"20h\"");
    for of in [&mut text.agent, &mut text.mobile] {
        *of = with_extensions(of, "prefix-discovery=#true");
    }
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, looking);
    let router = advertised(&lab, 9000, 9000);
    lab.start_mobile(&[]);
    let status = lab.registered(&["wlan0", "wwan0"]);
    // Ten hours were asked for. Status 1: the mobile has to ask for the prefixes, and does.
    for (link, seconds) in granted(&status) {
        assert!((TWO_HOURS..=9000).contains(&seconds), "{link}: {seconds}");
    }
    let code = |status: &StatusDocument| {
        status.bindings.iter().filter_map(|it| it.status.as_ref()).map(|it| it.code).max()
    };
    assert_eq!(code(&status), Some(1), "{status:#?}");
    lab.mobile().wait_until("the home prefix", PATIENCE, |_| told(&lab) > 0).unwrap();

    // Withdrawn, but by nobody who proved anything: what is bound stays bound for two hours, and
    // the mobile is told without asking.
    drop(router);
    let before = told(&lab);
    let router = advertised(&lab, 0, 0);
    lab.mobile().wait_until("word of the change", PATIENCE, |_| told(&lab) > before).unwrap();
    assert_eq!(cached(&lab.agent().status().unwrap()).len(), 2);
    // What is granted from here on ends with the two hours.
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    lab.world.wlan_up().unwrap();
    let status = lab.registered(&["wlan0", "wwan0"]);
    let granted = granted(&status);
    let wlan = granted.iter().find(|(link, _)| link == "wlan0").unwrap();
    assert!(wlan.1 <= TWO_HOURS && wlan.1 > TWO_HOURS - 600, "{granted:?}");
    assert_eq!(cached(&lab.agent().status().unwrap()).len(), 2);
    drop(router);

    // A router that speaks of it for long again prolongs what is granted.
    let _router = advertised(&lab, 86_400, 86_400);
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    lab.world.wlan_up().unwrap();
    let status = lab.registered(&["wlan0", "wwan0"]);
    let wlan = self::granted(&status).into_iter().find(|(link, _)| link == "wlan0").unwrap();
    assert!((35_000..=36_000).contains(&wlan.1), "as much as was asked for: {wlan:?}");
    lab.assert_clean();
}

/// HA-76: a mobile that was not told to believe what nothing authenticates does not.
#[test]
fn what_is_not_switched_on_is_not_believed() {
    need_lab!();
    let mut text = PolicyText::default().with_lifetime(36_000);
    text.agent = text.agent.replace("lifetime=\"1h\"", "lifetime=\"20h\"");
    text.agent = with_extensions(&text.agent, "prefix-discovery=#true");
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, looking);
    let _router = advertised(&lab, 9000, 9000);
    lab.start_mobile(&[]);
    // Status 1 has it asked for nothing; the agent tells it all the same, in vain.
    lab.registered(&["wlan0", "wwan0"]);
    let ignored = || Lab::drops(lab.mobile(), "signaling-prefixes-unsolicited");
    lab.mobile().wait_until("a word of the agent", PATIENCE, |_| ignored() > 0).unwrap();
    assert_eq!(told(&lab), 0);
}
