//! Mobiles that talk to mobiles, and to nodes that are no correspondents.
//!
//! ```text
//!   m1  2001:db8:1::7 --- core --- 2001:db8:2::7  m2      2001:db8:100::42 and ::43
//!                          |
//!                          ha  2001:db8:100::1
//! ```

use std::net::Ipv6Addr;

use mtun::control::documents::{RouteState, StatusDocument};
use mtun::lab::namespace::wait_for;

use crate::fixture::{PATIENCE, ipv6};
use crate::ground::{Ground, converse, inject, udp};
use crate::need_lab;
use crate::texts::{agent, mobile};

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x42);
const SECOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x43);

/// Counted where everything passes. In tunnels what counts is UDP, the conversation: probes and
/// mobility messages go that way too.
const COUNTERS: &str = "table ip6 count {
  counter both { }
  counter tunnelled { }
  counter refused { }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip6 nexthdr 43 rt type 2 rt nexthdr 60 meta l4proto udp counter name both
    meta l4proto 41 @th,48,8 17 counter name tunnelled
    icmpv6 type parameter-problem icmpv6 code 1 counter name refused
  }
}
";

/// The world without daemons.
fn world() -> Ground {
    let mut ground = Ground::new();
    ground.bystanders(&[], &["core", "ha"]);
    ground.mobiles(&["m1", "m2"]);
    for (name, end, network) in [("m1", "a1", "2001:db8:1::"), ("m2", "a2", "2001:db8:2::")] {
        let (near, far) = (format!("{network}1/64"), format!("{network}7/64"));
        ground.cable(("core", end, &[&near]), (name, "wlan0", &[&far]));
        ground.routes(name, &[&format!("default via {network}1 dev wlan0 metric 1024")]);
    }
    let own = ["2001:db8:f0::2/64", "2001:db8:100::1/128"];
    ground.cable(("core", "h0", &["2001:db8:f0::1/64"]), ("ha", "core0", &own));
    ground.routes("core", &["2001:db8:100::/48 via 2001:db8:f0::2"]);
    ground
        .routes("ha", &["default via 2001:db8:f0::1", "unreachable 2001:db8:100::/48 metric 4000"]);
    ground.at("core").nft(COUNTERS).unwrap();
    ground.share_key("h.key", &["m1", "m2", "ha"]);
    ground
}

fn served() -> String {
    agent::<&str>(0x100, &[(0x42, &[]), (0x43, &[])])
}

/// What passed the core.
fn passed(ground: &Ground, counter: &str) -> u64 {
    let text = ground.at("core").exec("nft --json list counters table ip6 count").unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let items = document["nftables"].as_array().unwrap();
    let found = items.iter().find(|item| item["counter"]["name"] == counter).unwrap();
    found["counter"]["packets"].as_u64().unwrap()
}

/// Whether this end sends straight to the other, and the other to it.
fn both_ways(status: &StatusDocument) -> bool {
    let straight = status.routes.iter().any(|route| route.state == RouteState::Straight);
    let bound = status.correspondent.as_ref().is_some_and(|it| !it.mobiles.is_empty());
    straight && bound
}

#[test]
fn two_mobiles_go_straight_to_each_other_with_both_headers() {
    need_lab!();
    let mut ground = world();
    ground.start("ha", &served());
    for (name, host) in [("m1", 0x42), ("m2", 0x43)] {
        let policy = mobile("mobile-node", 0x100, host, "    route-optimization traffic\n");
        ground.start(name, &format!("{policy}correspondent {{ }}\n"));
        ground.registered(name, &["wlan0"]);
    }
    let one = udp(ground.at("m1"), (FIRST, 4000), (SECOND, 4001));
    let other = udp(ground.at("m2"), (SECOND, 4001), (FIRST, 4000));
    wait_for("both ends bound at each other", PATIENCE, || {
        converse("on the way there", &one, &other, 1);
        let at = |name| both_ways(&ground.daemon(name).status().unwrap());
        (at("m1") && at("m2")).then_some(())
    })
    .unwrap_or_else(|error| {
        let [m1, m2] = ["m1", "m2"].map(|name| ground.daemon(name).status());
        panic!("{error:#}\n{m1:#?}\n{m2:#?}\n{}", ground.daemon("m1").story())
    });
    let (both, tunnelled) = (passed(&ground, "both"), passed(&ground, "tunnelled"));
    converse("straight", &one, &other, 100);
    assert_eq!(passed(&ground, "both"), both + 200, "each with both headers");
    assert_eq!(passed(&ground, "tunnelled"), tunnelled, "none by the agent");
    let question = format!("udp {FIRST} -> {SECOND} sport 4000 dport 4001");
    let explained = ground.daemon("m1").mtun_ok(&["explain", &question]).unwrap();
    let verdict = &explained["verdict"];
    let wrapping = "home-address-option-and-type-2-routing-header";
    assert_eq!(verdict["encapsulation"], wrapping, "{verdict}");
    assert_eq!(verdict["peer"], "2001:db8:2::7", "{verdict}");

    // One end stops: it tells the other, and the other's packets take the tunnel again.
    ground.stop("m2");
    let status = ground.daemon("m1").wait_until("no binding of m2", PATIENCE, |status| {
        status.correspondent.as_ref().is_some_and(|it| it.mobiles.is_empty())
    });
    status.unwrap();
    let explained = ground.daemon("m1").mtun_ok(&["explain", &question]).unwrap();
    assert_eq!(explained["verdict"]["encapsulation"], "home-address-option", "{explained}");
}

/// A Home Test Init to the agent.
fn home_test_init() -> Vec<u8> {
    let source = "2001:db8:1::7".parse().unwrap();
    ipv6(135, source, AGENT, &[59, 1, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
}

#[test]
fn a_node_that_is_no_correspondent_answers_as_it_is_told() {
    need_lab!();
    const SENT: u64 = 100;
    const AT_ONCE: usize = 10;
    for (says, answers) in [
        ("", 0..=0),
        ("correspondent off answer=silent\n", 0..=0),
        ("correspondent off answer=parameter-problem\n", 1..=30),
    ] {
        let mut ground = world();
        ground.start("ha", &format!("{}{says}", served()));
        let packet = home_test_init();
        // A few at a time: what waits for the owner loop is bounded, and the rest is counted there.
        for sent in (0..SENT).step_by(AT_ONCE) {
            (0..AT_ONCE).for_each(|_| inject(ground.at("m1"), &packet));
            wait_for("all of them", PATIENCE, || {
                let heard = ground.counted("ha", "signaling-no-correspondent");
                (heard >= sent + AT_ONCE as u64).then_some(())
            })
            .unwrap();
        }
        let refused = passed(&ground, "refused");
        assert!(answers.contains(&refused), "`{says}`: {refused} of {SENT}");
        let log = ground.daemon("ha").process.log();
        assert!(log.lines().count() < 20, "strangers fill the log:\n{log}");
    }
}
