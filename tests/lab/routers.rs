//! Mobile routers: explicit and implicit with many prefixes, refused in every way, and what does
//! not belong to the network behind.
//!
//! ```text
//!  n -- lan0 mr wlan0 -- core -- ha, scripted or not
//!                          \---- cn
//! ```

use std::net::Ipv6Addr;

use mtun::control::documents::BindingDocument;
use mtun::lab::namespace::wait_for;
use serde_json::json;

use crate::fixture::{PATIENCE, ipv6};
use crate::ground::{Ground, KEY, converse, inject, udp};
use crate::need_lab;
use crate::scripted::{self, Peer, Tap, need_scapy};
use crate::texts::{agent, mobile, networks};

const CN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);

/// More than ten prefixes (RFC 3963 sets no bound).
const PREFIXES: u16 = 12;

fn inside(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0x4200 + network, 0, 0, 0, host)
}

fn prefixes() -> Vec<String> {
    (0..PREFIXES).map(move |number| format!("{}/64", inside(number, 0))).collect()
}

/// A router with twelve networks on `lan0` and one host in all of them.
fn world() -> Ground {
    let mut ground = Ground::new();
    ground.bystanders(&["n", "cn"], &["core", "ha"]);
    ground.mobiles(&["mr"]);
    ground.cable(("core", "a0", &["2001:db8:1::1/64"]), ("mr", "wlan0", &["2001:db8:1::7/64"]));
    ground.routes("mr", &["default via 2001:db8:1::1 dev wlan0 metric 1024"]);
    let agent = ["2001:db8:f0::2/64", "2001:db8:100::1/128"];
    ground.cable(("core", "h0", &["2001:db8:f0::1/64"]), ("ha", "core0", &agent));
    ground.routes("core", &["2001:db8:100::/48 via 2001:db8:f0::2"]);
    let nowhere = "unreachable 2001:db8:100::/48 metric 4000";
    ground.routes("ha", &["default via 2001:db8:f0::1", nowhere]);
    ground.cable(("core", "c0", &["2001:db8:c::1/64"]), ("cn", "eth0", &["2001:db8:c::9/64"]));
    ground.routes("cn", &["default via 2001:db8:c::1"]);
    let all = |host| (0..PREFIXES).map(move |number| format!("{}/64", inside(number, host)));
    let (lan, eth): (Vec<_>, Vec<_>) = (all(1).collect(), all(0x10).collect());
    let lan: Vec<&str> = lan.iter().map(String::as_str).collect();
    let eth: Vec<&str> = eth.iter().map(String::as_str).collect();
    ground.cable(("mr", "lan0", &lan), ("n", "eth0", &eth));
    ground.routes("n", &[&format!("default via {}", inside(0, 1))]);
    ground.share_key("h.key", &["ha", "mr"]);
    ground
}

/// Its policy; `register` says how it registers.
fn router(register: &str) -> String {
    let says = networks(&prefixes(), "on=lan0") + &format!("    register {register}\n");
    mobile("mobile-router", 0x100, 0x42, &says)
}

/// Every network talks through an agent of ours.
fn every_network_talks(register: &str) {
    let mut ground = world();
    ground.start("ha", &agent(0x100, &[(0x42, &prefixes()[..])]));
    ground.start("mr", &router(register));
    ground.registered("mr", &["wlan0"]);
    let status = ground.daemon("ha").status().unwrap();
    let held: Vec<String> = status.mobiles[0].prefixes.iter().map(ToString::to_string).collect();
    assert_eq!((status.mobiles[0].router, held), (true, prefixes()));
    for number in 0..PREFIXES {
        let (own, port) = (inside(number, 0x10), 7000 + number);
        let there = udp(ground.at("n"), (own, port), (CN, port));
        let here = udp(ground.at("cn"), (CN, port), (own, port));
        converse(&format!("network {number}"), &there, &here, 5);
    }
}

/// req NH-12, NH-15, MR-12.
#[test]
fn twelve_networks_by_name() {
    need_lab!();
    every_network_talks("mode=explicit");
}

/// req NH-10, NH-15.
#[test]
fn twelve_networks_without_a_name() {
    need_lab!();
    every_network_talks("mode=implicit");
}

/// What a router says of its prefixes, read by another codec, and that the answers of another
/// codec are understood: accepted with and without R.
#[test]
fn a_scripted_agent_hears_every_prefix() {
    need_lab!();
    need_scapy!();
    for (register, named) in [("mode=explicit", prefixes()), ("mode=implicit", Vec::new())] {
        let mut ground = world();
        let answers = json!([{ "status": 0 }]);
        let peer = Peer::start(&ground, "ha", "agent", &scripted::agent(AGENT, &KEY, &answers));
        let tap = Tap::start(&ground, "core", "a0");
        ground.start("mr", &router(register));
        ground.registered("mr", &["wlan0"]);
        let update = peer.updates().remove(0);
        assert_eq!(update["prefixes"], json!(named), "{register}");
        assert!(update["flags"].as_str().is_some_and(|flags| flags.contains('R')), "{update}");
        assert_eq!((&update["checksum"], &update["authentic"]), (&json!(true), &json!(true)));
        assert_eq!(update["source"], json!(CARE_OF));
        tap.assert_well_formed(2, 0);
    }
}

/// req MR-04, MR-05, MR-06 (RFC 3963 §5.4): whatever the refusal, it is shown with its number,
/// nothing of the network behind leaves, and the router does not ask again at once. What says that
/// the agent does not serve it as a router is told apart.
#[test]
fn every_refusal_of_a_router_is_said() {
    need_lab!();
    need_scapy!();
    let mut ground = world();
    for register in ["mode=explicit", "mode=implicit"] {
        for code in [128, 129, 130, 131, 132, 133, 140, 141, 142, 143] {
            let answers = json!([{ "status": code }]);
            let settings = scripted::agent(AGENT, &KEY, &answers);
            let peer = Peer::start(&ground, "ha", "agent", &settings);
            ground.start("mr", &router(register));
            let refused = ground.daemon("mr").wait_until("the refusal", PATIENCE, |status| {
                let said = |it: &BindingDocument| it.status.as_ref().map(|status| status.code);
                status.bindings.iter().any(|it| !it.usable && said(it) == Some(code))
            });
            refused.unwrap();
            let as_router = (140..=143).contains(&code);
            let counter = ["signaling-refused", "signaling-router-refused"][usize::from(as_router)];
            let before = ground.counted("mr", "no-usable-binding");
            let host = udp(ground.at("n"), (inside(3, 0x10), 7000), (CN, 7000));
            host.send(b"let me out").unwrap();
            let dropped = wait_for("the drop", PATIENCE, || {
                (ground.counted("mr", "no-usable-binding") == before + 1).then_some(())
            });
            dropped.unwrap_or_else(|error| panic!("{register} {code}: {error}"));
            assert_eq!(ground.counted("mr", counter), 1, "{register} {code}");
            assert_eq!(peer.updates().len(), 1, "{register} {code}: asked again at once");
            ground.stop("mr");
        }
    }
}

/// req MR-03 (RFC 3963 §5.3): an agent that accepts without R forwards nothing for a router, which
/// ends what it got.
#[test]
fn an_agent_without_router_support_is_left() {
    need_lab!();
    need_scapy!();
    let mut ground = world();
    let answers = json!([{ "status": 0, "router": false }]);
    let peer = Peer::start(&ground, "ha", "agent", &scripted::agent(AGENT, &KEY, &answers));
    ground.start("mr", &router("mode=explicit"));
    peer.wait_until("the de-registration", |line| line["lifetime"] == 0);
    assert_eq!(ground.counted("mr", "signaling-agent-without-router-support"), 1);
}

/// req MR-13 (RFC 3963 §9): only what has a source in the network behind is forwarded out of it.
#[test]
fn foreign_sources_behind_a_router_go_nowhere() {
    need_lab!();
    let mut ground = world();
    ground.start("ha", &agent(0x100, &[(0x42, &prefixes()[..])]));
    ground.start("mr", &router("mode=explicit"));
    ground.registered("mr", &["wlan0"]);
    let arrivals = udp(ground.at("cn"), (CN, 7000), (inside(0, 0x10), 7000));
    let cases = [
        ("of nobody", "2001:db8:bad::5".parse().unwrap()),
        ("of a network that is not registered", inside(0xff, 5)),
        ("the router's address here", inside(0, 1)),
        ("the router's home address", Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x42)),
        ("the router's care-of address", CARE_OF),
    ];
    for (number, (what, source)) in (1..).zip(cases) {
        // No next header, nothing in it.
        inject(ground.at("n"), &ipv6(59, source, CN, &[]));
        let counted = wait_for(what, PATIENCE, || {
            (ground.counted("mr", "foreign-source") == number).then_some(())
        });
        assert!(counted.is_ok(), "{what}: {:#?}", ground.figures("mr").drops);
    }
    let there = udp(ground.at("n"), (inside(0, 0x10), 7000), (CN, 7000));
    converse("a right source", &there, &arrivals, 5);
    assert_eq!(ground.counted("mr", "foreign-source"), 5, "and nothing else");
}

/// req TN-02 (RFC 3963 §6.5): the other side of it. An agent takes from a mobile's care-of address what belongs to this
/// mobile, and nothing of another one that is registered as well.
/// req NH-17, TN-02.
#[test]
fn foreign_sources_are_dropped_at_the_agent() {
    need_lab!();
    let mut ground = world();
    let other = "2001:db8:100:5200::/64".to_owned();
    ground.start(
        "ha",
        &agent(0x100, &[(0x42, &prefixes()[..]), (0x43, std::slice::from_ref(&other))]),
    );
    ground.start("mr", &router("mode=explicit"));
    ground.registered("mr", &["wlan0"]);
    ground.mobiles(&["mr2"]);
    ground.cable(("core", "a1", &["2001:db8:2::1/64"]), ("mr2", "wlan0", &["2001:db8:2::7/64"]));
    ground.routes("mr2", &["default via 2001:db8:2::1 dev wlan0 metric 1024"]);
    ground.share_key("h.key", &["mr2"]);
    ground.start("mr2", &mobile("mobile-router", 0x100, 0x43, &networks(&[other], "on=lan0")));
    ground.registered("mr2", &["wlan0"]);
    let theirs = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0x5200, 0, 0, 0, 5);
    let nobodys = inside(0xff, 5);
    for (what, source, reason) in [
        ("another's network", theirs, "not-care-of"),
        (
            "another's home address",
            Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x43),
            "not-care-of",
        ),
        ("nobody's network", nobodys, "inner-unknown"),
    ] {
        let before = ground.counted("ha", reason);
        let inner = ipv6(59, source, CN, &[]);
        inject(ground.at("core"), &ipv6(41, CARE_OF, AGENT, &inner));
        let counted =
            wait_for(what, PATIENCE, || (ground.counted("ha", reason) == before + 1).then_some(()));
        assert!(counted.is_ok(), "{what}: {:#?}", ground.figures("ha").drops);
    }
}

/// req MR-09, MR-10 (RFC 3963 §5.6, §5.7): on a foreign link a router is a host among hosts. It
/// advertises nothing, is in no group of routers, and owns its care-of address alone.
#[test]
fn on_a_foreign_link_a_router_is_a_host() {
    need_lab!();
    need_scapy!();
    let mut ground = world();
    ground.start("ha", &agent(0x100, &[(0x42, &prefixes()[..])]));
    ground.start("mr", &router("mode=explicit"));
    ground.registered("mr", &["wlan0"]);
    let groups = |interface: &str| {
        let links = ground.at("mr").ip_json(&format!("maddress show dev {interface}")).unwrap();
        let all = links[0]["maddr"].as_array().unwrap().clone();
        all.into_iter().any(|it| it["address"] == "ff02::2")
    };
    assert_eq!([groups("lan0"), groups("wlan0")], [true, false], "all routers of the link");
    let addresses = ground.at("mr").ip_json("-6 address show dev wlan0").unwrap();
    let links = addresses.as_array().unwrap().iter();
    let infos = links.filter_map(|link| link["addr_info"].as_array()).flatten();
    let mut locals = infos.filter_map(|info| info["local"].as_str());
    let link_local = locals.find(|address| address.starts_with("fe80")).expect("on every link");
    let home = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x42);
    let settings = json!({
        "interface": "a0",
        "own": "2001:db8:1::1",
        "router": link_local,
        "targets": [CARE_OF, home, inside(0, 1), inside(0, 0x10)],
    });
    // Only a listener: the kernel there is the access router and has to hear all.
    let peer = Peer::run(&ground, "core", "neighbour", &settings);
    peer.wait_until("the end of the script", |line| line["step"] == "done");
    let said = peer.said();
    let of = |step: &str| said.iter().filter(|line| line["step"] == step).collect::<Vec<_>>();
    let asked = of("routers");
    assert!(asked.len() == 3 && asked.iter().all(|line| line["heard"] == 0), "{asked:?}");
    for line in of("owner") {
        let own = line["target"] == json!(CARE_OF);
        assert_eq!(line["answers"] != 0, own, "{line}");
        assert_eq!(line["router"], false, "{line}");
    }
    let there = udp(ground.at("n"), (inside(0, 0x10), 7000), (CN, 7000));
    let here = udp(ground.at("cn"), (CN, 7000), (inside(0, 0x10), 7000));
    converse("forwarding all the same", &there, &here, 5);
}
