//! The way down on real packets: the agent follows the rules that the mobile told it.
//!
//! Packets that the correspondent sends out of the blue have no way up to follow: where they come
//! down is what the flow bindings say, and nothing else. The agent's own choice, the lowest
//! BID-PRI, would be W-CDMA for all of them.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mtun::control::documents::{DigestState, FlowBindingState, FlowBindingsTaken, StatusDocument};
use mtun::lab::flows::{BULK, SSH};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe};
use mtun::lab::traffic::{Name, Traffic};
use mtun::lab::wire::Impairment;
use mtun::lab::world::{Plan, address};
use mtun::metrics::Direction;
use serde_json::json;

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, figure_11, ipv6};
use crate::ground::{Ground, KEY, inject, udp};
use crate::need_lab;
use crate::scripted::{self, Peer, need_scapy};
use crate::texts;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Packets of each flow out of the blue.
const COUNT: u64 = 5;
/// The router itself and the node behind it.
const ENDS: [Ipv6Addr; 2] = [address::HOME, address::NODE];
const LINKS: [&str; 2] = ["wlan0", "wwan0"];

/// Packets from a port of the correspondent to one of `to` that nobody listens on: the link on
/// which they come, or that there are two.
fn out_of_the_blue(lab: &Lab, protocol: u8, from: u16, to: Ipv6Addr) -> &'static str {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    // Checksums that are wrong: nobody answers, so nothing goes up.
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&from.to_be_bytes());
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    match protocol {
        TCP => segment[12] = 5 << 4,
        _ => segment[4..6].copy_from_slice(&20_u16.to_be_bytes()),
    }
    let flow = Flow { protocol, home: (to, port), peer: (address::CORRESPONDENT, from) };
    let seen = |link| lab.observatory.packets(&flow, Way::In, link);
    for _ in 0..COUNT {
        inject(&lab.world.cn, &ipv6(protocol, address::CORRESPONDENT, to, &segment));
    }
    wait_for("packets out of the blue", PATIENCE, || {
        (LINKS.map(seen).iter().sum::<u64>() >= COUNT).then_some(())
    })
    .unwrap_or_else(|error| panic!("{flow}: {error:#}\n{}", lab.agent().story()));
    assert_eq!(LINKS.map(|link| lab.observatory.packets(&flow, Way::Out, link)), [0, 0]);
    match LINKS.map(seen) {
        [COUNT, 0] => "wlan0",
        [0, COUNT] => "wwan0",
        _ => "both links",
    }
}

/// Sends so many packets of one flow out of the blue, a kilobyte each, and waits until they have
/// come; how many more each link carried.
fn comes_down(lab: &Lab, flow: &Flow, count: u64) -> [u64; 2] {
    let seen = || LINKS.map(|link| lab.observatory.packets(flow, Way::In, link));
    let before = seen();
    let mut segment = vec![0; 1000];
    segment[..2].copy_from_slice(&flow.peer.1.to_be_bytes());
    segment[2..4].copy_from_slice(&flow.home.1.to_be_bytes());
    segment[4..6].copy_from_slice(&1000_u16.to_be_bytes());
    let packet = ipv6(flow.protocol, flow.peer.0, flow.home.0, &segment);
    for sent in 1..=count {
        inject(&lab.world.cn, &packet);
        // One after the other, so that none is too much for a queue.
        wait_for("a packet", PATIENCE, || {
            let now = seen();
            (now[0] - before[0] >= sent || now[1] - before[1] >= sent).then_some(())
        })
        .unwrap_or_else(|error| panic!("{flow}: {error:#}\n{}", lab.agent().story()));
    }
    let now = seen();
    [now[0] - before[0], now[1] - before[1]]
}

/// Where ssh, bulk and all else come down out of the blue, to router and node.
fn down(lab: &Lab) -> Vec<[&'static str; 3]> {
    let each = |to| {
        [(TCP, SSH), (TCP, BULK), (UDP, PORT)]
            .map(|(protocol, from)| out_of_the_blue(lab, protocol, from, to))
    };
    ENDS.map(each).to_vec()
}

/// Waits until packets out of the blue come down so. What goes up shows the way at once; who only
/// sends down is told within a second, which may be in the middle of a few packets.
fn comes_down_by(lab: &Lab, wanted: [&str; 3]) {
    wait_for("the agent to be told", PATIENCE, || (down(lab) == [wanted; 2]).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.mobile().story()));
    told(lab);
    assert_eq!(down(lab), [wanted; 2], "and it stays so");
}

/// Waits until the agent has answered everything it was told.
fn told(lab: &Lab) -> StatusDocument {
    let all = lab.mobile().wait_until("flow bindings at the agent", PATIENCE, |status| {
        let downlink = status.homes[0].downlink.as_ref();
        downlink.is_some_and(|it| it.held > 0 && it.pending == 0 && it.refused == 0)
    });
    all.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.agent().story()))
}

/// Counts packets of every flow for a while: all of them by `wanted`, both ways.
fn only_by(lab: &Lab, traffic: &Traffic, wanted: fn(Name) -> &'static str) {
    let count = || {
        let keys = traffic.keys().into_iter();
        let each = keys.flat_map(|(name, origin, flow)| {
            [Way::Out, Way::In].map(|way| {
                let packets = LINKS.map(|link| lab.observatory.packets(&flow, way, link));
                (name, origin, way, packets)
            })
        });
        each.collect::<Vec<_>>()
    };
    let before = count();
    traffic.let_run(300).unwrap();
    traffic.all_progress(PATIENCE).unwrap();
    for ((name, origin, way, packets), (.., old)) in count().into_iter().zip(before) {
        let more = [packets[0] - old[0], packets[1] - old[1]];
        let (own, other) =
            if wanted(name) == "wlan0" { (more[0], more[1]) } else { (more[1], more[0]) };
        assert!(own > 0 && other == 0, "{name} of the {origin} {way:?}: {LINKS:?} {more:?}");
    }
}

fn by_figure_11(name: Name) -> &'static str {
    if name == Name::Ssh { "wwan0" } else { "wlan0" }
}

/// What `mtun explain` says of the node's flow to this port of the correspondent.
fn explained(lab: &Lab, port: u16) -> serde_json::Value {
    let question = format!("tcp {} -> {} dport {port}", address::NODE, address::CORRESPONDENT);
    lab.mobile().mtun_ok(&["explain", &question, "--at", "agent"]).unwrap()
}

const FIGURE_11: [&str; 3] = ["wwan0", "wlan0", "wlan0"];

#[test]
fn ssh_and_bulk_come_down_by_the_uplink_they_go_up_by() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&LINKS);
    told(&lab);
    assert_eq!(down(&lab), [FIGURE_11; 2]);
    let traffic = lab.traffic();
    only_by(&lab, &traffic, by_figure_11);

    // What people are told, at both ends.
    for (port, link) in [(SSH, "wwan0"), (BULK, "wlan0")] {
        let said = explained(&lab, port);
        let at = &said["at_agent"];
        assert_eq!(at["verdict"]["link"], link, "{said}");
        assert_eq!(said["verdict"]["link"], link, "{said}");
        assert_eq!((&at["as_uplink"], &at["taken"]), (&json!(true), &json!("yes")), "{said}");
        assert_eq!(at["digest"], json!(DigestState::Agrees), "{said}");
        let entries = at["entries"].as_array().unwrap();
        let chosen = entries.iter().find(|entry| entry["fid"] == at["fid"]).unwrap();
        assert_eq!((&chosen["state"], &chosen["links"][0]), (&json!("active"), &json!(link)));
        assert_eq!(chosen["status"]["code"], 0, "{said}");
    }
    for flow in lab.mobile().flows().unwrap() {
        // What came out of the blue was never answered.
        if flow.outbound.is_none() {
            continue;
        }
        let down = flow.downlink.unwrap_or_else(|| panic!("{:?} has no way down", flow.key));
        assert_eq!(Some(down.path.bid), flow.outbound.map(|path| path.bid), "{:?}", flow.key);
    }
    let held = lab.agent().status().unwrap().mobiles.remove(0).flow_bindings;
    let own = lab.mobile().status().unwrap().flow_bindings;
    let brief = |flows: &[mtun::control::documents::FlowBindingDocument]| -> Vec<_> {
        flows.iter().map(|it| (it.fid, it.priority, it.packets.clone(), it.bids.clone())).collect()
    };
    assert_eq!(brief(&held), brief(&own), "both ends hold the same");
    assert!(held.iter().all(|flow| flow.state == FlowBindingState::Active), "{held:?}");
    let (from, to) = (address::CORRESPONDENT, address::NODE);
    let question = format!("tcp {from} -> {to} sport {BULK} dport 9");
    let said = lab.agent().mtun_ok(&["explain", &question]).unwrap();
    assert_eq!(said["verdict"]["bid"], 1, "{said}");

    // The WLAN dies: both directions move, and what was told of it is skipped.
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    lab.settled(&traffic, all_wwan);
    assert_eq!(down(&lab), [["wwan0"; 3]; 2]);
    only_by(&lab, &traffic, |_| "wwan0");
    lab.agent()
        .wait_until("no active flow binding without a binding", PATIENCE, |status| {
            let mobile = &status.mobiles[0];
            let registered: Vec<_> = mobile.bindings.iter().filter_map(|it| it.bid).collect();
            mobile.flow_bindings.iter().all(|flow| {
                let reaches = flow.bids.iter().any(|bid| registered.contains(bid));
                reaches == (flow.state == FlowBindingState::Active)
            })
        })
        .unwrap();

    // It comes back, and so do they.
    lab.world.wlan_up().unwrap();
    lab.registered(&LINKS);
    lab.settled(&traffic, figure_11);
    assert_eq!(down(&lab), [FIGURE_11; 2]);
    only_by(&lab, &traffic, by_figure_11);
    assert_alive(&traffic);
    lab.assert_clean();
}

#[test]
fn an_override_and_another_policy_move_both_directions() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&LINKS);
    told(&lab);
    let traffic = lab.traffic();
    let words = ["steer", "proto tcp and dport 22", "via", "wlan0", "--for", "10m"];
    let steered = lab.mobile().mtun_ok(&words).unwrap();
    lab.settled(&traffic, |_, _| "wlan0");
    comes_down_by(&lab, ["wlan0"; 3]);
    only_by(&lab, &traffic, |_| "wlan0");
    let said = explained(&lab, SSH);
    assert_eq!(
        (&said["at_agent"]["as_uplink"], &said["rule"]["name"]),
        (&json!(true), &json!("steer-1"))
    );

    let id = steered["override"]["id"].as_u64().unwrap().to_string();
    lab.mobile().mtun_ok(&["steer", "undo", &id]).unwrap();
    lab.settled(&traffic, figure_11);
    comes_down_by(&lab, FIGURE_11);

    // Another file, and the agent knows.
    let rule = "match proto=udp dport=4000\n        prefer wwan0";
    let other = lab.text.clone().with_rule("probes", rule).mobile;
    let file = lab.mobile().policy().with_file_name("other.kdl");
    std::fs::write(&file, other).unwrap();
    lab.mobile().mtun_ok(&["policy", "apply", &file.display().to_string()]).unwrap();
    lab.settled(&traffic, |name, _| if name == Name::Bulk { "wlan0" } else { "wwan0" });
    comes_down_by(&lab, ["wwan0", "wlan0", "wwan0"]);

    // The same rules with less room than they take: refused by name, and nothing changes.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "\nflow-budget 1\n").unwrap();
    let refused = lab.mobile().mtun_ok(&["policy", "apply", &file.display().to_string()]);
    let refused = format!("{:#}", refused.expect_err("it takes three"));
    assert!(refused.contains("there is room for 1"), "{refused}");
    assert!(told(&lab).homes[0].downlink.as_ref().is_some_and(|it| it.held > 1));
    assert_alive(&traffic);
    lab.assert_clean();
}

/// A flow whose rule lets it stay where it is, moved to W-CDMA and with the WLAN back; both ends
/// reflect, or not.
fn stays(metered: bool, agent_says: &str) -> (Lab, Echo, Probe, Flow) {
    let rule = "match proto=udp dport=4000\n        prefer wlan0 wwan0\n        failback never";
    let mut text = PolicyText::default().with_rule("stays", rule);
    if !metered {
        // On a metered link no flow stays, whatever its rule says.
        text = text.with("metered #true", "metered #false");
    }
    text.agent = text.agent.replace("bulk=#true", &format!("bulk=#true {agent_says}"));
    let lab = Lab::start(Plan::default(), text);
    lab.registered(&LINKS);
    let status = told(&lab);
    let reflect = status.homes[0].downlink.as_ref().is_some_and(|it| it.reflect);
    assert_eq!(reflect, agent_says != "reflect=#false", "{status:?}");
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    let flow = Flow::to_correspondent(UDP, (address::NODE, probe.port()), PORT);
    ways(&lab, &flow, ["wlan0", "wlan0"]);
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    ways(&lab, &flow, ["wwan0", "wwan0"]);
    lab.world.wlan_up().unwrap();
    lab.registered(&LINKS);
    told(&lab);
    (lab, echo, probe, flow)
}

/// Waits until a flow goes up and comes down by these links.
fn ways(lab: &Lab, flow: &Flow, wanted: [&str; 2]) {
    let now = || [Way::Out, Way::In].map(|way| lab.observatory.uplink(flow, way));
    wait_for("the flow's ways", PATIENCE, || {
        (now() == wanted.map(|link| Some(link.to_owned()))).then_some(())
    })
    .unwrap_or_else(|error| panic!("{flow} {:?}: {error:#}\n{}", now(), lab.mobile().story()));
}

#[test]
fn with_reflect_a_flow_comes_down_by_the_link_it_stays_on() {
    need_lab!();
    let (lab, _echo, probe, flow) = stays(false, "");
    // New flows take the WLAN again; this one stays, in both directions.
    assert_eq!(out_of_the_blue(&lab, UDP, PORT, address::NODE), "wlan0");
    let seen = |way| lab.observatory.packets(&flow, way, "wlan0");
    let before = [Way::Out, Way::In].map(seen);
    // Longer than the two seconds after which what is to move has moved.
    probe.wait_for_echo_after(probe.mark() + 2_500, PATIENCE).unwrap();
    assert_eq!([Way::Out, Way::In].map(seen), before, "packets on the WLAN");
    ways(&lab, &flow, ["wwan0", "wwan0"]);
    lab.assert_clean();
}

#[test]
fn without_reflect_a_flow_comes_down_as_its_rule_says() {
    need_lab!();
    let (lab, _echo, probe, flow) = stays(false, "reflect=#false");
    ways(&lab, &flow, ["wwan0", "wlan0"]);
    let up = lab.observatory.packets(&flow, Way::Out, "wlan0");
    probe.wait_for_echo_after(probe.mark() + 2_500, PATIENCE).unwrap();
    assert_eq!(lab.observatory.packets(&flow, Way::Out, "wlan0"), up, "it stays on its way up");
    ways(&lab, &flow, ["wwan0", "wlan0"]);
    lab.assert_clean();
}

/// A flow that is to move to a faster link waits for a pause. Its agent was told the new rules at
/// once, and lets the flow come down as it goes up until the mobile has found its moment.
#[test]
fn a_flow_that_waits_for_its_moment_comes_down_as_it_goes_up() {
    need_lab!();
    let slow = Duration::from_millis(40);
    let plan = Plan { wlan_path: Impairment::delayed(slow), ..Plan::default() };
    let rule = "match proto=udp dport=4000\n        prefer wlan0 wwan0";
    let lab = Lab::start(plan, PolicyText::default().with_rule("waits", rule));
    lab.registered(&LINKS);
    told(&lab);
    wait_for("round trips of both links", PATIENCE, || {
        let status = lab.mobile().status().ok()?;
        status.links.iter().all(|link| link.rtt_ms.is_some()).then_some(())
    })
    .unwrap();
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    let flow = Flow::to_correspondent(UDP, (address::NODE, probe.port()), PORT);
    lab.observatory.follow(&flow);
    ways(&lab, &flow, ["wlan0", "wlan0"]);
    let taken = |way| lab.observatory.take_trail(&flow, way);
    for way in [Way::Out, Way::In] {
        taken(way);
    }
    let words = ["steer", "proto udp and dport 4000", "via", "wwan0", "--for", "10m"];
    lab.mobile().mtun_ok(&words).unwrap();
    // The agent has been told when the mobile's answer says so, long before the flow moves.
    told(&lab);
    ways(&lab, &flow, ["wwan0", "wwan0"]);
    let out = taken(Way::Out);
    let up: HashMap<u32, &str> = out.iter().map(|it| (it.number, it.uplink.as_str())).collect();
    let waited = out.iter().filter(|it| it.uplink == "wlan0").count();
    assert!(waited > 1000, "{waited} probes went up before it moved\n{}", lab.mobile().story());
    // Those under way when it moves are overtaken by it.
    let back = taken(Way::In);
    let astray = back.iter().filter(|it| up.get(&it.number).is_some_and(|up| *up != it.uplink));
    let astray = astray.count();
    assert!(astray < waited / 4, "{astray} of {waited}\n{}", lab.agent().story());
    lab.assert_clean();
}

/// `failback never` speaks of links that cost nothing: from a metered one a flow goes back, up and
/// down.
#[test]
fn on_a_metered_link_a_flow_does_not_stay() {
    need_lab!();
    let (lab, _echo, _probe, flow) = stays(true, "");
    ways(&lab, &flow, ["wlan0", "wlan0"]);
    lab.assert_clean();
}

/// An agent of another hand, written from the texts of the RFCs, that knows nothing of RFC 6089:
/// it accepts both bindings and copies back none of the flow options. The mobile sends by its
/// rules, and asks once more with each refresh. FB-11
#[test]
fn a_scripted_agent_without_flow_bindings_is_registered_at_by_both_links() {
    need_lab!();
    need_scapy!();
    let mut ground = Ground::new();
    ground.bystanders(&["ha"], &["core"]);
    ground.mobiles(&["mn"]);
    for (number, core, link) in [(1, "a0", "wlan0"), (2, "a1", "wwan0")] {
        let [router, own] = [1, 7].map(|host| format!("2001:db8:{number}::{host}/64"));
        ground.cable(("core", core, &[router.as_str()]), ("mn", link, &[own.as_str()]));
        let route = format!("default via 2001:db8:{number}::1 dev {link} metric {}", 1024 + number);
        ground.routes("mn", &[route.as_str()]);
    }
    let agent = ["2001:db8:f0::2/64", "2001:db8:100::1/128"];
    ground.cable(("core", "h0", &["2001:db8:f0::1/64"]), ("ha", "core0", &agent));
    ground.routes("core", &["2001:db8:100::/48 via 2001:db8:f0::2"]);
    ground.routes("ha", &["default via 2001:db8:f0::1"]);
    ground.share_key("h.key", &["ha", "mn"]);
    let answers = json!([{ "status": 0, "lifetime": 2 }]);
    let settings = scripted::agent("2001:db8:100::1".parse().unwrap(), &KEY, &answers);
    let peer = Peer::start(&ground, "ha", "agent", &settings);
    let register = "    register lifetime=\"8s\" multiple-coa=#true bulk=#true\n";
    let text = texts::mobile("mobile-node", 0x100, 0x42, register)
        .replace(
            "home \"h\" {",
            "interface \"wwan0\" { usable { hold up=\"0s\"; }; bid 2; priority 20; }\nhome \"h\" {",
        )
        .replace(
            "default {",
            "rule \"calls\" { match proto=udp dport=4000; prefer wwan0 wlan0; }\n    default {",
        );
    ground.start("mn", &text);
    ground.registered("mn", &LINKS);
    let status = ground.daemon("mn").wait_until("what the agent knows", PATIENCE, |status| {
        let downlink = status.homes[0].downlink.as_ref();
        downlink.is_some_and(|it| it.taken == FlowBindingsTaken::No)
    });
    let status = status.unwrap();
    assert!(status.health.reasons.is_empty(), "{:?}", status.health);
    let own = "2001:db8:100::42".parse().unwrap();
    let socket = udp(ground.at("mn"), (own, 40_000), ("2001:db8:c::9".parse().unwrap(), 4000));
    for _ in 0..5 {
        socket.send(b"up by the rule").unwrap();
    }
    // Told once, and asked for with each refresh.
    let told = |update: &serde_json::Value| {
        update["kinds"].as_array().is_some_and(|kinds| kinds.contains(&json!(45)))
    };
    peer.wait_until("a refresh that asks", |said| {
        said["bids"].as_array().is_some_and(|bids| bids.len() == 2)
            && told(said)
            && peer.updates().iter().filter(|update| told(update)).count() >= 2
    });
    ground.registered("mn", &LINKS);
    for update in peer.updates() {
        assert_eq!((&update["checksum"], &update["authentic"]), (&json!(true), &json!(true)));
    }
    let tunnels = ground.figures("mn").tunnels;
    let by = |link: &str| {
        let sent = tunnels.iter().filter(|it| it.link == link && it.direction == Direction::Up);
        sent.map(|it| it.packets).sum::<u64>()
    };
    assert!(by("wwan0") >= 5, "{tunnels:?}");
}

/// A probe and its copies: nothing lost, nothing twice, on each of these links in both directions.
fn once_each(lab: &Lab, probe: &Probe, flow: &Flow, links: &[&str]) {
    let seen = || {
        let each = links.iter().flat_map(|link| [(Way::Out, *link), (Way::In, *link)]);
        each.map(|(way, link)| lab.observatory.packets(flow, way, link)).collect::<Vec<_>>()
    };
    let (mark, before) = (probe.mark(), seen());
    probe.wait_for_echo_after(mark + 300, PATIENCE).unwrap();
    let tally = probe.tally(mark, mark + 300);
    for (way, tally) in [("out", tally.outbound), ("in", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {tally:?}");
    }
    for (now, before) in seen().into_iter().zip(before) {
        assert!(now - before >= 290, "copies by {links:?}: {now} after {before}");
    }
}

#[test]
fn copies_of_duplicate_go_both_ways_and_arrive_once() {
    need_lab!();
    let rule = "match proto=udp dport=4000\n        duplicate wlan0 wwan0 copies=2 cap=\"200MB\"";
    let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("twice", rule));
    lab.registered(&LINKS);
    let status = told(&lab);
    assert!(status.homes[0].downlink.as_ref().unwrap().copies, "{status:?}");
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(50, PATIENCE).unwrap();
    let flow = Flow::to_correspondent(UDP, (address::NODE, probe.port()), PORT);
    once_each(&lab, &probe, &flow, &LINKS);
    for daemon in [lab.mobile(), lab.agent()] {
        assert!(Lab::drops(daemon, "duplicate") > 0, "{}", daemon.story());
        let figures = Lab::metrics(daemon);
        let copies = |event: &str| {
            figures.copies.iter().find(|it| it.event == event).map_or(0, |it| it.count)
        };
        assert!(copies("removed") > 0 && copies("begun") > 0, "{:?}", figures.copies);
    }
    // One link is left, and one copy of each.
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    ways(&lab, &flow, ["wwan0", "wwan0"]);
    once_each(&lab, &probe, &flow, &["wwan0"]);
    lab.assert_clean();
}

/// Nothing goes up here, so it is the copies of the way down that use the cap up; the agent is told,
/// and sends the metered link none any more.
#[test]
fn copies_on_the_way_down_end_at_the_cap_of_a_metered_link() {
    need_lab!();
    let rule = "match proto=udp dport=4000\n        duplicate wlan0 wwan0 copies=2 cap=\"20kB\"";
    let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("twice", rule));
    lab.registered(&LINKS);
    told(&lab);
    let of_agent = || lab.agent().status().unwrap().mobiles[0].flow_bindings.clone();
    let copies = || of_agent().iter().filter(|it| it.bids.len() > 1).count();
    assert_eq!(copies(), 1, "{:?}", of_agent());
    // UDP with a checksum of zero, which nobody answers in IPv6.
    let flow =
        Flow { protocol: UDP, home: (address::NODE, 20_000), peer: (address::CORRESPONDENT, PORT) };
    let [_, wwan] = comes_down(&lab, &flow, 10);
    wait_for("copies on W-CDMA", PATIENCE, || {
        (lab.observatory.packets(&flow, Way::In, "wwan0") >= 10).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {wwan} of 10\n{}", lab.agent().story()));
    assert_eq!(copies(), 1, "10 kB are less than the cap");
    comes_down(&lab, &flow, 15);
    wait_for("the agent sends no copies", PATIENCE, || (copies() == 0).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", of_agent(), lab.mobile().story()));
    told(&lab);
    // What was decided before is decided again: none by W-CDMA, all by the WLAN.
    let [wlan, wwan] = comes_down(&lab, &flow, 20);
    assert_eq!((wlan, wwan), (20, 0), "{:?}", of_agent());
    assert_eq!(LINKS.map(|link| lab.observatory.packets(&flow, Way::Out, link)), [0, 0]);
    lab.assert_clean();
}

#[test]
fn an_agent_that_takes_no_flow_bindings_sends_by_priority() {
    need_lab!();
    let mut text = PolicyText::default();
    text.agent = text.agent.replace("bulk=#true", "bulk=#true flow-bindings=#false");
    let lab = Lab::start(Plan::default(), text);
    lab.registered(&LINKS);
    let status = lab
        .mobile()
        .wait_until("an agent without flow bindings", PATIENCE, |status| {
            let downlink = status.homes[0].downlink.as_ref();
            downlink.is_some_and(|it| it.taken == FlowBindingsTaken::No)
        })
        .unwrap();
    assert_eq!(status.homes[0].downlink.as_ref().map(|it| it.held), Some(0));
    assert_eq!(down(&lab), [["wwan0"; 3]; 2], "the lowest BID-PRI for all");
    let said = explained(&lab, BULK);
    assert_eq!(
        (&said["at_agent"]["fid"], &said["at_agent"]["taken"]),
        (&json!(null), &json!("no"))
    );
    assert_eq!(said["at_agent"]["as_uplink"], false, "{said}");
    assert!(lab.agent().status().unwrap().mobiles[0].flow_bindings.is_empty());
    // What goes up is for the mobile to choose, whatever the agent knows.
    let traffic = Traffic::start(&lab.world, PATIENCE).unwrap();
    wait_for("figure 11 on the way up", PATIENCE, || {
        let fits = |(name, origin, flow): &(Name, _, Flow)| {
            lab.observatory.uplink(flow, Way::Out).as_deref() == Some(figure_11(*name, *origin))
        };
        traffic.keys().iter().all(fits).then_some(())
    })
    .unwrap();
    assert_alive(&traffic);
    lab.assert_clean();
}
