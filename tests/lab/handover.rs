//! Figure 11 on figure 10, and what the uplinks do to it.

use mtun::lab::daemons::registered;
use mtun::lab::observe::Way;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin};
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

/// Tunnel interfaces of the router: name, index, MTU.
fn tunnels(lab: &Lab) -> Vec<(String, u64, u64)> {
    let links = lab.world.mr.ip_json("link show").unwrap();
    let mut tunnels: Vec<_> = links
        .as_array()
        .unwrap()
        .iter()
        .filter(|link| {
            !matches!(link["ifname"].as_str().unwrap(), "lo" | "lan0" | "wlan0" | "wwan0" | "wwan1")
        })
        .map(|link| {
            let number = |field: &str| link[field].as_u64().unwrap();
            (link["ifname"].as_str().unwrap().to_owned(), number("ifindex"), number("mtu"))
        })
        .collect();
    tunnels.sort();
    tunnels
}

/// req MR-12, MR-16.
#[test]
fn one_tunnel_carries_ssh_over_wwan_and_bulk_over_wlan_for_router_and_node() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    let status = lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mark = traffic.mark();
    traffic.let_run(500).unwrap();
    let rows = traffic.rows(&mark, &lab.observatory, lab.mobile());
    assert_eq!(rows.len(), 6);
    for row in &rows {
        let what = format!("{} from {}: {row:?}", row.flow, row.from);
        let wanted = Some(figure_11(row.flow, row.from).to_owned());
        assert_eq!((&row.uplink_outbound, &row.uplink_inbound), (&wanted, &wanted), "{what}");
        let rule = match row.flow {
            Name::Ssh => "ssh",
            Name::Bulk => "bulk",
            Name::Probe => "default",
        };
        assert_eq!(row.rule.as_deref(), Some(rule), "{what}");
        assert_eq!((row.total.lost, row.total.duplicated), (0, 0), "{what}");
    }
    // The same rule counter moves for Mobile IPv6 and NEMO: one place judges both.
    for (_, origin, flow) in traffic.keys() {
        let home = if origin == Origin::Router { address::HOME } else { address::NODE };
        assert_eq!(flow.home.0, home, "{flow}");
        assert!(lab.observatory.packets(&flow, Way::Out, figure_11_of(&flow)) > 0, "{flow}");
    }
    let figures = Lab::metrics(lab.mobile());
    for (rule, link) in [("ssh", "wwan0"), ("bulk", "wlan0"), ("default", "wlan0")] {
        let octets: u64 = figures
            .rules
            .iter()
            .filter(|figure| figure.rule.as_str() == rule && figure.link == link)
            .map(|figure| figure.bytes)
            .sum();
        assert!(octets > 0, "rule {rule} over {link}: {:?}", figures.rules);
    }
    let tunnels = tunnels(&lab);
    assert_eq!(tunnels.len(), 1, "{tunnels:?}");
    assert_eq!(status.homes[0].tunnel.name.as_str(), tunnels[0].0);
    lab.assert_clean();
}

fn figure_11_of(flow: &mtun::lab::observe::Flow) -> &'static str {
    if (flow.protocol, flow.peer.1) == (6, 22) { "wwan0" } else { "wlan0" }
}

fn survives_the_wlan(plan: Plan) {
    let lab = Lab::start(plan, PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let before = tunnels(&lab);
    let traffic = lab.traffic();
    for round in 0..2 {
        lab.world.wlan_down().unwrap();
        lab.settled(&traffic, all_wwan);
        lab.registered(&["wwan0"]);
        assert_alive(&traffic);
        let mark = traffic.mark();
        lab.world.wlan_up().unwrap();
        lab.registered(&["wlan0", "wwan0"]);
        lab.settled(&traffic, figure_11);
        assert_alive(&traffic);
        assert_lossless(&traffic, &mark, &format!("failback {round}"));
    }
    assert_eq!(tunnels(&lab), before, "index and MTU of the tunnel");
    lab.assert_clean();
}

/// req TN-14.
#[test]
fn flows_survive_the_death_of_the_wlan_and_fail_back_without_loss() {
    need_lab!();
    survives_the_wlan(Plan::default());
}

#[test]
fn the_same_when_the_kernel_holds_the_link_events() {
    need_lab!();
    survives_the_wlan(Plan { equal_index: true, ..Plan::default() });
}

#[test]
fn flows_survive_the_removal_of_the_care_of_address() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    lab.world.mr.ip(&["link set wlan0 down"]).unwrap();
    lab.settled(&traffic, all_wwan);
    assert_alive(&traffic);
    let mark = traffic.mark();
    lab.world.mr.ip(&["link set wlan0 up"]).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    assert_alive(&traffic);
    assert_lossless(&traffic, &mark, "failback to a new care-of address");
    lab.assert_clean();
}

#[test]
fn steering_moves_one_flow_without_loss_and_undo_returns_it() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mark = traffic.mark();
    let filter = format!("proto udp and src {} and dport 4000", address::NODE);
    let words = ["steer", filter.as_str(), "via", "wwan0", "--for", "10m"];
    let result = lab.mobile().mtun_ok(&words).unwrap();
    lab.settled(&traffic, |name, origin| match (name, origin) {
        (Name::Ssh, _) | (Name::Probe, Origin::Node) => "wwan0",
        _ => "wlan0",
    });
    let list = lab.mobile().mtun_ok(&["steer", "list"]).unwrap();
    assert_eq!(list["overrides"].as_array().unwrap().len(), 1, "{list}");
    let id = result["override"]["id"].as_u64().unwrap().to_string();
    lab.mobile().mtun_ok(&["steer", "undo", &id]).unwrap();
    lab.settled(&traffic, figure_11);
    traffic.let_run(100).unwrap();
    assert_lossless(&traffic, &mark, "steer and undo");
    assert_alive(&traffic);
    lab.assert_clean();
}

#[test]
fn reloading_the_policy_under_traffic_loses_nothing() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let usual = lab.mobile().policy().display().to_string();
    let changed =
        PolicyText::default().with_rule("probe", "match proto=udp dport=4000\n prefer wwan0");
    let file = lab.mobile().policy().with_file_name("changed.kdl");
    std::fs::write(&file, changed.mobile).unwrap();
    let changed = file.display().to_string();
    let mark = traffic.mark();
    for _ in 0..10 {
        for file in [&changed, &usual] {
            lab.mobile().mtun_ok(&["policy", "apply", file]).unwrap();
            traffic.let_run(20).unwrap();
        }
    }
    lab.settled(&traffic, figure_11);
    assert_lossless(&traffic, &mark, "20 reloads");
    assert_alive(&traffic);

    // A broken file changes nothing and says where.
    let mark = traffic.mark();
    std::fs::write(&file, lab.text.mobile.replace("prefer wlan0 wwan0", "prefer wlan9")).unwrap();
    let answer = lab.mobile().mtun(&["policy", "apply", &changed]).unwrap();
    assert_eq!(answer["ok"], false, "{answer}");
    let fault = &answer["error"]["faults"][0];
    assert!(fault["line"].as_u64().unwrap() > 0, "{answer}");
    traffic.let_run(100).unwrap();
    assert_lossless(&traffic, &mark, "a refused policy");
    lab.assert_clean();
}

#[test]
fn an_uplink_that_appears_later_is_registered_and_used() {
    need_lab!();
    let mut lab = Lab::start(Plan { wlan: false, ..Plan::default() }, PolicyText::default());
    lab.registered(&["wwan0"]);
    let traffic = mtun::lab::traffic::Traffic::start(&lab.world, PATIENCE).unwrap();
    lab.settled(&traffic, all_wwan);
    let mark = traffic.mark();
    lab.world.attach_wlan().unwrap();
    lab.observatory.tap_uplink(&lab.world, "wlan0").unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    assert_lossless(&traffic, &mark, "a new uplink");
    assert_alive(&traffic);
    lab.assert_clean();
}

#[test]
fn three_uplinks_up_in_one_second_give_three_bindings() {
    need_lab!();
    let plan = Plan { wlan: false, wwan: false, ..Plan::default() };
    let mut lab = Lab::start(plan, PolicyText::default().with_third_uplink());
    let status = lab.mobile().status().unwrap();
    assert!(registered(&status).is_empty(), "{status:#?}");
    lab.world.attach_wwan().unwrap();
    lab.world.attach_wwan1().unwrap();
    lab.world.attach_wlan().unwrap();
    let status = lab.registered(&["wlan0", "wwan0", "wwan1"]);
    let mut bids: Vec<_> = status.bindings.iter().filter_map(|binding| binding.bid).collect();
    bids.sort();
    assert_eq!(bids.iter().map(|bid| bid.get()).collect::<Vec<_>>(), [1, 2, 3]);
    let held = lab
        .agent()
        .wait_until("three bindings at the agent", PATIENCE, |status| {
            mtun::lab::daemons::cached(status).len() == 3
        })
        .unwrap();
    let mut wanted: Vec<std::net::IpAddr> =
        [address::WLAN, address::WWAN, address::WWAN1].map(Into::into).into();
    wanted.sort();
    assert_eq!(mtun::lab::daemons::cached(&held), wanted);
}
