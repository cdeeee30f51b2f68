//! The sample of fifty rules, and what becomes of it.

use mtun_policy::downlink::{
    DownlinkTarget, Said, USUAL_FLOWS, Untold, cross_product, plan, preview,
};
use mtun_policy::steering::{Given, suppose};
use mtun_policy::{NoFiles, Policy, parse};

fn fleet() -> Policy {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/fleet.kdl");
    let text = std::fs::read_to_string(path).expect("the example is in the tree");
    parse("fleet.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn fifty_mixed_rules_take_less_than_half_of_their_cross_product() {
    let policy = fleet();
    let home = &policy.homes[0];
    assert_eq!(home.rules.rules.len(), 50);
    let target =
        DownlinkTarget::new(&policy, home, policy.interfaces.iter().filter_map(|it| it.bid));
    let rules = suppose(&policy, home, &Given::default()).effective;
    let naive = cross_product(&rules, &target);
    for reflect in [false, true] {
        let target = DownlinkTarget { reflect, ..target.clone() };
        let roomy = plan(&rules, &target, 512, None);
        assert_eq!(roomy.refused, None);
        println!("reflect {reflect}: {} of {naive}", roomy.bindings.len());
        assert!(roomy.bindings.len() * 2 <= naive, "{} of {naive}", roomy.bindings.len());
        let usual = plan(&rules, &target, USUAL_FLOWS, None);
        println!(
            "reflect {reflect}: {} with the usual budget, {:?}",
            usual.bindings.len(),
            usual.refused
        );
    }
    let told = preview(&policy, home);
    assert_eq!(told.refused, None, "the file asks for the room that it needs");
    let says = |name: &str| {
        told.rules.iter().find(|rule| rule.name.as_str() == name).map(|rule| rule.says.clone())
    };
    assert_eq!(says("shell"), Some(Said::Expressed));
    assert_eq!(says("default"), Some(Said::Implied));
    assert_eq!(says("passenger-web"), Some(Said::Expressed));
    assert_eq!(says("pings"), Some(Said::Not(vec![Untold::IcmpType])));
    assert_eq!(says("cameras-live"), Some(Said::Partly(vec![Untold::Fastest])));
}

#[test]
fn each_word_says_what_happens_instead() {
    let policy = fleet();
    let home = &policy.homes[0];
    let mut text = String::new();
    for rule in preview(&policy, home).rules {
        let entries = rule.entries.len();
        let instead = rule.instead.as_deref().unwrap_or("all of it is told");
        text += &format!("{} [{entries}] {:?}: {instead}\n", rule.name, rule.says);
    }
    insta::assert_snapshot!(text);
}
