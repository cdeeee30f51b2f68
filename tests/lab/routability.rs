//! Return routability and bindings at correspondents, with one end written in Python from the text
//! of RFC 6275: tokens, keys and authenticators are computed twice, by people who did not talk.

use std::net::Ipv6Addr;

use mtun::control::documents::RouteState;
use mtun::lab::namespace::wait_for;
use serde_json::{Value, json};

use crate::fixture::PATIENCE;
use crate::ground::{Ground, udp};
use crate::need_lab;
use crate::scripted::{Peer, Tap, need_scapy};
use crate::texts::{agent, mobile};

const CN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x42);
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 8);
const PORT: u16 = 7000;

const CORRESPONDENT: &str = "/- kdl-version 2
policy \"correspondent\" schema=1
role \"correspondent\"
correspondent { tunnel mtun0; address \"2001:db8:c::9\"; lifetime \"7m\"; }
";

/// req CN-10 to CN-13, R-CN-07 (RFC 6275 §5.2, §9.3, §9.5): a scripted mobile goes through all of it
/// with our correspondent, and through what must not work.
#[test]
fn a_scripted_mobile_meets_our_correspondent() {
    need_lab!();
    need_scapy!();
    let mut ground = Ground::new();
    ground.bystanders(&["m", "cn"], &["core"]);
    let router = ["2001:db8:1::1/64", "2001:db8:100::1/64"];
    let addresses = [format!("{HOME}/64"), format!("{CARE_OF}/64"), format!("{STRANGER}/64")];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    ground.cable(("core", "a0", &router), ("m", "eth0", &addresses));
    ground.routes("m", &["default via 2001:db8:1::1"]);
    ground.cable(("core", "c0", &["2001:db8:c::1/64"]), ("cn", "eth0", &["2001:db8:c::9/64"]));
    ground.routes("cn", &["default via 2001:db8:c::1"]);
    ground.start("cn", CORRESPONDENT);
    let settings = json!({
        "interface": "eth0",
        "home": HOME,
        "care_of": CARE_OF,
        "correspondent": CN,
        "stranger": STRANGER,
    });
    let peer = Peer::start(&ground, "m", "mobile", &settings);
    peer.wait_until("the end of the script", |line| line["step"] == "done");
    let refused = |status: u8| json!({ "answered": true, "status": status });
    let unknown = |to| json!({ "answer": "error", "status": 1, "to": to, "home": HOME });
    let expected = [
        ("unbound data", unknown(CARE_OF)),
        ("tests", json!({ "home": true, "care_of": true, "cookies": true })),
        ("spoiled", json!({ "answered": false })),
        ("home nonce", refused(136)),
        ("care-of nonce", refused(137)),
        ("both nonces", refused(138)),
        ("still unbound", unknown(CARE_OF)),
        (
            "bound",
            json!({
                "answered": true, "status": 0, "sequence": true, "lifetime": 100,
                "routed": HOME, "authentic": true,
            }),
        ),
        ("data", json!({ "answer": "reply", "to": CARE_OF, "routed": HOME })),
        ("data of a stranger", unknown(STRANGER)),
        ("old sequence", refused(135)),
        ("ended", json!({ "answered": true, "status": 0, "lifetime": 0, "authentic": true })),
        ("data afterwards", unknown(CARE_OF)),
    ];
    let said = peer.said();
    for (step, expected) in expected {
        let line = said.iter().find(|line| line["step"] == step);
        let line = line.unwrap_or_else(|| panic!("no step {step}: {said:#?}"));
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&line[key], value, "{step}: {key} in {line}");
        }
    }
}

/// A mobile node at home with an agent of ours, and a scripted correspondent.
fn world(answers: &Value) -> (Ground, Peer) {
    let mut ground = Ground::new();
    ground.bystanders(&["cn"], &["core", "ha"]);
    ground.mobiles(&["mn"]);
    ground.cable(("core", "a0", &["2001:db8:1::1/64"]), ("mn", "wlan0", &["2001:db8:1::7/64"]));
    ground.routes("mn", &["default via 2001:db8:1::1 dev wlan0 metric 1024"]);
    let addresses = ["2001:db8:f0::2/64", "2001:db8:100::1/128"];
    ground.cable(("core", "h0", &["2001:db8:f0::1/64"]), ("ha", "core0", &addresses));
    ground.routes("core", &["2001:db8:100::/48 via 2001:db8:f0::2"]);
    let nowhere = "unreachable 2001:db8:100::/48 metric 4000";
    ground.routes("ha", &["default via 2001:db8:f0::1", nowhere]);
    ground.cable(("core", "c0", &["2001:db8:c::1/64"]), ("cn", "eth0", &["2001:db8:c::9/64"]));
    ground.routes("cn", &["default via 2001:db8:c::1"]);
    ground.share_key("h.key", &["ha", "mn"]);
    let settings = json!({ "interface": "eth0", "address": CN, "port": PORT, "answers": answers });
    let peer = Peer::start(&ground, "cn", "correspondent", &settings);
    // The script echoes; the kernel would say that nobody listens.
    let mute = format!(
        "table ip6 echoed {{\n  chain arriving {{\n    \
         type filter hook prerouting priority raw; policy accept;\n    udp dport {PORT} drop\n  }}\n}}\n"
    );
    ground.at("cn").nft(&mute).unwrap();
    ground.start("ha", &agent::<&str>(0x100, &[(0x42, &[])]));
    let says = "    route-optimization traffic\n";
    ground.start("mn", &mobile("mobile-node", 0x100, 0x42, says));
    ground.registered("mn", &["wlan0"]);
    (ground, peer)
}

/// Sends datagrams and counts the echoes until one of them was heard straight.
fn until_straight(ground: &Ground, peer: &Peer) {
    let socket = udp(ground.at("mn"), (HOME, PORT), (CN, PORT));
    let heard = wait_for("a straight datagram", PATIENCE, || {
        socket.send(b"hello").unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 5, "every one is echoed");
        let said = peer.said();
        said.into_iter().find(|line| line["heard"] == "UDP" && line["straight"] == true)
    });
    let heard = heard.unwrap_or_else(|error| panic!("{error}: {:#?}", peer.said()));
    assert_eq!((&heard["source"], &heard["home"]), (&json!(CARE_OF), &json!(HOME)));
    assert_eq!(heard["known"], true, "from a care-of address that it acknowledged");
}

/// req MN-30 (RFC 6275 §11.6): our mobile, which traffic starts, and what a correspondent of another
/// make computes and checks.
#[test]
fn our_mobile_meets_a_scripted_correspondent() {
    need_lab!();
    need_scapy!();
    let (ground, peer) = world(&json!([0]));
    let tap = Tap::start(&ground, "core", "a0");
    until_straight(&ground, &peer);
    let said = peer.said();
    let of = |what: &str| said.iter().filter(|line| line["heard"] == what).collect::<Vec<_>>();
    for (what, source) in [("HoTI", HOME), ("CoTI", CARE_OF)] {
        let tests = of(what);
        let from = json!(source);
        let fine = |line: &&&Value| line["source"] == from && line["sound"] == true;
        assert!(!tests.is_empty() && tests.iter().all(|line| fine(&line)), "{what}: {tests:?}");
    }
    let updates = of("BU");
    assert_eq!(updates.len(), 1, "{updates:?}");
    let update = updates[0];
    assert_eq!((&update["authentic"], &update["sound"]), (&json!(true), &json!(true)), "{update}");
    assert_eq!((&update["source"], &update["home"]), (&json!(CARE_OF), &json!(HOME)));
    assert_eq!(update["nonces"], json!([[7, 7]]), "{update}");
    let status = ground.daemon("mn").status().unwrap();
    let states: Vec<RouteState> = status.routes.iter().map(|route| route.state).collect();
    assert_eq!(states, [RouteState::Straight]);
    // Both tests with their answers, and the update with its own.
    tap.assert_well_formed(6, 0);
}

/// req MH-01, MH-02, MH-03, MH-05 (RFC 6275 §9.2): what nobody can use is answered as the RFC says,
/// by an agent and by a correspondent.
#[test]
fn broken_messages_are_answered_on_the_wire() {
    need_lab!();
    need_scapy!();
    let mut ground = Ground::new();
    ground.bystanders(&["s"], &["ha", "cn"]);
    ground.cable(
        ("s", "eth0", &["2001:db8:9::1/64"]),
        ("ha", "eth0", &["2001:db8:9::2/64", "2001:db8:100::1/128"]),
    );
    ground.cable(("s", "eth1", &["2001:db8:c::1/64"]), ("cn", "eth0", &["2001:db8:c::9/64"]));
    ground.routes("s", &["2001:db8:100::/48 via 2001:db8:9::2"]);
    ground.share_key("h.key", &["ha"]);
    ground.start("ha", &agent::<&str>(0x100, &[(0x42, &[])]));
    ground.start("cn", CORRESPONDENT);
    let agents: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
    let [by_ha, by_cn] = [9, 0xc].map(|net| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, 1));
    for (interface, own, target) in [("eth0", by_ha, agents), ("eth1", by_cn, CN)] {
        let settings =
            json!({ "interface": interface, "own": own, "home": HOME, "target": target });
        let peer = Peer::start(&ground, "s", "stranger", &settings);
        peer.wait_until("the end of the script", |line| line["step"] == "done");
        let problem = |pointer: u8| json!({ "answer": "problem", "code": 0, "pointer": pointer });
        let error = |home: &str| json!({ "answer": "error", "status": 2, "home": home });
        let silence = json!({ "answer": null });
        let expected = [
            ("payload proto, plain", problem(40)),
            ("payload proto, with option", problem(64)),
            ("header length, plain", problem(41)),
            ("header length, with option", problem(65)),
            ("unknown type, plain", error("::")),
            ("unknown type, with option", error("2001:db8:100::42")),
            ("checksum, plain", silence.clone()),
            ("checksum, with option", silence),
        ];
        let said = peer.said();
        for (step, expected) in expected {
            let line = said.iter().find(|line| line["step"] == step).unwrap();
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(&line[key], value, "{target}, {step}: {key} in {line}");
            }
        }
    }
}

/// req MN-31 (RFC 6275 §11.7.3): nonces that the correspondent no longer takes are asked for anew,
/// and meanwhile every packet goes through the tunnel.
#[test]
fn our_mobile_asks_again_for_what_a_scripted_correspondent_refuses() {
    need_lab!();
    need_scapy!();
    for (status, again) in [(136, "HoTI"), (137, "CoTI"), (138, "HoTI")] {
        let (ground, peer) = world(&json!([status, 0]));
        until_straight(&ground, &peer);
        let said = peer.said();
        let count = |what: &str| said.iter().filter(|line| line["heard"] == what).count();
        assert!(count(again) >= 2, "{status}: {again} is not asked for again: {said:#?}");
        let updates: Vec<_> = said.iter().filter(|line| line["heard"] == "BU").collect();
        let authentic = updates.iter().all(|line| line["authentic"] == true);
        assert!(updates.len() == 2 && authentic, "{status}: {updates:#?}");
    }
}
