//! Nodes that are no correspondents, and what they say to mobiles.
//!
//! ```text
//!   m1  2001:db8:1::7 --- core --- 2001:db8:2::7  m2      2001:db8:100::42 and ::43
//!                          |
//!                          ha  2001:db8:100::1
//! ```

use std::net::Ipv6Addr;

use mtun::lab::namespace::wait_for;

use crate::fixture::{PATIENCE, ipv6};
use crate::ground::{Ground, inject};
use crate::need_lab;
use crate::texts::agent;

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);

/// Counted where everything passes.
const COUNTERS: &str = "table ip6 count {
  counter refused { }
  chain forward {
    type filter hook forward priority 0; policy accept;
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

/// A Home Test Init to the agent.
fn home_test_init() -> Vec<u8> {
    let source = "2001:db8:1::7".parse().unwrap();
    ipv6(135, source, AGENT, &[59, 1, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
}

#[test]
fn a_node_that_is_no_correspondent_answers_as_it_is_told() {
    need_lab!();
    const SENT: u64 = 100;
    for (says, answers) in [
        ("", 0..=0),
        ("correspondent off answer=silent\n", 0..=0),
        ("correspondent off answer=parameter-problem\n", 1..=30),
    ] {
        let mut ground = world();
        ground.start("ha", &format!("{}{says}", served()));
        let packet = home_test_init();
        (0..SENT).for_each(|_| inject(ground.at("m1"), &packet));
        wait_for("all of them", PATIENCE, || {
            (ground.counted("ha", "signaling-no-correspondent") >= SENT).then_some(())
        })
        .unwrap();
        let refused = passed(&ground, "refused");
        assert!(answers.contains(&refused), "`{says}`: {refused} of {SENT}");
        let log = ground.daemon("ha").process.log();
        assert!(log.lines().count() < 20, "strangers fill the log:\n{log}");
    }
}
