//! Route optimization on real packets: who goes straight, by which care-of address, and who does
//! not and why.

use mtun::control::documents::{RouteDocument, RouteState, StatusDocument};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Form, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin, Traffic};
use mtun::lab::world::{Plan, address};
use mtun_dataplane::abi::FastOutcome;

use crate::fast_path::{exchange, has_fast_path, outcome};
use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

/// The routes of a status that are in this state: their links, sorted.
fn links_in(status: &StatusDocument, state: RouteState) -> Vec<&str> {
    let of = |route: &&RouteDocument| {
        route.state == state && route.correspondent == address::CORRESPONDENT
    };
    let links = status.routes.iter().filter(of).filter_map(|it| it.link.as_ref());
    let mut links: Vec<_> = links.map(|link| link.as_str()).collect();
    links.sort_unstable();
    links
}

pub fn straight_by(lab: &Lab, links: &[&str]) -> StatusDocument {
    let what = format!("straight routes by {links:?}");
    let found = lab
        .mobile()
        .wait_until(&what, PATIENCE, |status| links_in(status, RouteState::Straight) == links);
    found.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.correspondent().story()))
}

/// The flows of one origin.
fn flows(traffic: &Traffic, origin: Origin) -> Vec<(Name, Flow)> {
    let keys = traffic.keys().into_iter();
    keys.filter(|(_, of, _)| *of == origin).map(|(name, _, flow)| (name, flow)).collect()
}

/// Waits until the latest packets of every flow of the router, both ways, went by this uplink in
/// this form.
pub fn take(lab: &Lab, traffic: &Traffic, form: Form, by: fn(Name, Origin) -> &'static str) {
    let flows = flows(traffic, Origin::Router);
    let now = || {
        let latest = |flow: &Flow, way| lab.observatory.latest(flow, way);
        let rows =
            flows.iter().map(|(name, flow)| (*name, latest(flow, Way::Out), latest(flow, Way::In)));
        rows.collect::<Vec<_>>()
    };
    let settled = wait_for(&format!("all flows {form:?}"), PATIENCE, || {
        let wanted = |name| Some((by(name, Origin::Router).to_owned(), form));
        let fits =
            now().into_iter().all(|(name, out, back)| out == wanted(name) && back == wanted(name));
        fits.then_some(())
    });
    assert!(settled.is_ok(), "{:#?}\n{}", now(), lab.mobile().story());
}

/// Waits until a route to the correspondent rests for this reason; what is said of it.
fn rests(lab: &Lab, reason: &str) -> RouteDocument {
    let is = |route: &&RouteDocument| {
        route.correspondent == address::CORRESPONDENT
            && route.state == RouteState::Resting
            && route.reason.as_deref() == Some(reason)
    };
    let found = lab
        .mobile()
        .wait_until(reason, PATIENCE, |status| status.routes.iter().any(|route| is(&route)));
    let status = found.unwrap_or_else(|error| panic!("{error:#}"));
    status.routes.iter().find(is).expect("it was just there").clone()
}

/// What `mtun explain` says of the router's flow to this port of the correspondent.
fn explained(lab: &Lab, port: u16) -> serde_json::Value {
    let (from, to) = (address::HOME, address::CORRESPONDENT);
    let question = format!("tcp {from} -> {to} dport {port}");
    lab.mobile().mtun_ok(&["explain", &question]).unwrap()
}

/// Failures of a reason that the mobile's metrics count.
fn failures(lab: &Lab, reason: &str) -> u64 {
    let figures = Lab::metrics(lab.mobile()).route_failures;
    figures.iter().filter(|it| it.reason == reason).map(|it| it.failures).sum()
}

/// Packets of the flows that the home agent's link has carried.
pub fn at_agent(lab: &Lab, traffic: &Traffic, origin: Origin) -> u64 {
    flows(traffic, origin).iter().map(|(_, flow)| lab.observatory.at_agent(flow)).sum()
}

#[test]
fn ssh_and_bulk_go_straight_each_by_its_own_care_of_address() {
    need_lab!();
    let mut lab =
        Lab::optimized(Plan::default(), PolicyText::default().with_optimization("traffic"));
    lab.observatory.tap_agent(&lab.world).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    straight_by(&lab, &["wlan0", "wwan0"]);
    take(&lab, &traffic, Form::Straight, figure_11);

    // Past the home agent, both ways; the network behind the router has no such way.
    let (mark, by_agent) = (traffic.mark(), at_agent(&lab, &traffic, Origin::Router));
    let behind = at_agent(&lab, &traffic, Origin::Node);
    traffic.let_run(500).unwrap();
    assert_lossless(&traffic, &mark, "straight");
    assert_eq!(at_agent(&lab, &traffic, Origin::Router), by_agent, "packets at the home agent");
    assert!(at_agent(&lab, &traffic, Origin::Node) > behind);
    for (name, flow) in flows(&traffic, Origin::Router) {
        let uplink = figure_11(name, Origin::Router);
        for way in [Way::Out, Way::In] {
            assert!(lab.observatory.straight(&flow, way, uplink) > 0, "{name} {way:?} by {uplink}");
        }
    }
    let held = lab.correspondent().status().unwrap().correspondent.unwrap();
    let mut held: Vec<_> = held.mobiles.iter().map(|it| it.care_of.0).collect();
    held.sort();
    assert_eq!(held, [address::WLAN, address::WWAN].map(std::net::IpAddr::from));

    // The WLAN dies: everything goes on straight by the other care-of address.
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    lab.settled(&traffic, |_, _| "wwan0");
    take(&lab, &traffic, Form::Straight, |_, _| "wwan0");
    straight_by(&lab, &["wwan0"]);
    assert_alive(&traffic);

    // It comes back: through the tunnel by its BID until the correspondent knows it, then straight.
    let mark = traffic.mark();
    lab.world.wlan_up().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    straight_by(&lab, &["wlan0", "wwan0"]);
    take(&lab, &traffic, Form::Straight, figure_11);
    assert_alive(&traffic);
    assert_lossless(&traffic, &mark, "failback");
    lab.assert_clean();
}

/// The kernel of both ends carries what goes straight by an Ethernet link, whole: large transfers have
/// superpackets, and every octet counts.
#[test]
fn what_goes_straight_is_carried_by_the_kernel_of_both_ends() {
    need_lab!();
    let lab = Lab::optimized(Plan::default(), PolicyText::default().with_optimization("traffic"));
    lab.registered(&["wlan0", "wwan0"]);
    if !has_fast_path(lab.mobile()) {
        return;
    }
    let traffic = lab.traffic();
    straight_by(&lab, &["wlan0", "wwan0"]);
    take(&lab, &traffic, Form::Straight, figure_11);
    // At the correspondent nothing else is carried; at the mobile the network behind it is, too.
    let used = |way| {
        let correspondent = || outcome(lab.correspondent(), way);
        let before = correspondent();
        let carried =
            wait_for("the kernel", PATIENCE, || (correspondent() > before + 500).then_some(()));
        assert!(carried.is_ok(), "{way:?}: {}", lab.correspondent().story());
    };
    used(FastOutcome::Sent);
    used(FastOutcome::Received);
    let mark = traffic.mark();
    traffic.let_run(1000).unwrap();
    assert_lossless(&traffic, &mark, "carried by the kernel");
    assert_alive(&traffic);
    drop(traffic);

    let ends = [lab.mobile(), lab.correspondent()];
    let ways = [FastOutcome::Sent, FastOutcome::Received];
    let carried = || ends.map(|end| ways.map(|way| outcome(end, way)));
    let before = carried();
    exchange(&lab.world.cn, &lab.world.mr, 7011);
    let after = carried();
    for (before, after) in before.into_iter().flatten().zip(after.into_iter().flatten()) {
        assert!(after > before + 100, "{before} {after}\n{}", lab.mobile().story());
    }
    lab.assert_clean();
}

#[test]
fn people_are_told_which_way_a_flow_takes() {
    need_lab!();
    let text = PolicyText::default().with_optimization("traffic").with(
        "        match proto=tcp dport=22\n",
        "        match proto=tcp dport=22\n        optimize never\n",
    );
    let lab = Lab::optimized(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    straight_by(&lab, &["wlan0", "wwan0"]);

    // Bulk and probes go straight, and ssh stays in the tunnel because its rule says so.
    wait_for("bulk and probes straight, ssh in the tunnel", PATIENCE, || {
        let fits = flows(&traffic, Origin::Router).into_iter().all(|(name, flow)| {
            let form = if name == Name::Ssh { Form::Tunnelled } else { Form::Straight };
            let wanted = Some((figure_11(name, Origin::Router).to_owned(), form));
            [Way::Out, Way::In].iter().all(|way| match (name, way) {
                // The correspondent knows nothing of the mobile's rules.
                (Name::Ssh, Way::In) => true,
                _ => lab.observatory.latest(&flow, *way) == wanted,
            })
        });
        fits.then_some(())
    })
    .unwrap();
    let ssh = explained(&lab, 22);
    assert_eq!(ssh["verdict"]["encapsulation"], "ipv6-in-ipv6", "{ssh}");
    let notes = ssh["notes"].to_string();
    assert!(notes.contains("takes the tunnel and not the straight way: its rule"), "{notes}");
    let bulk = explained(&lab, 5001);
    assert_eq!(bulk["verdict"]["encapsulation"], "home-address-option", "{bulk}");
    assert_eq!(bulk["verdict"]["peer"], address::CORRESPONDENT.to_string(), "{bulk}");
    for flow in lab.mobile().flows().unwrap() {
        if flow.key.source != address::HOME {
            continue;
        }
        let straight = flow.outbound.as_ref().is_some_and(|path| path.straight);
        assert_eq!(straight, flow.key.destination_port != Some(22), "{flow:?}");
    }
    let figures = Lab::metrics(lab.mobile());
    let octets = |of: &[mtun::metrics::TunnelFigures]| of.iter().map(|it| it.bytes).sum::<u64>();
    assert!(octets(&figures.straight) > 0 && octets(&figures.tunnels) > 0, "{figures:?}");
    assert_eq!(figures.routes.iter().map(|it| it.bindings).sum::<u64>(), 2);
    assert_eq!(Lab::metrics(lab.correspondent()).correspondent_bindings, Some(2));
    for message in ["home-test-init", "care-of-test-init", "binding-update"] {
        let sent = figures.route_messages.iter().find(|it| it.message == message).unwrap();
        assert!(sent.messages > 0, "{message}: {figures:?}");
    }
    lab.assert_clean();
}

#[test]
fn a_correspondent_that_knows_nothing_of_it_is_reached_through_the_tunnel() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default().with_optimization("traffic"));
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mark = traffic.mark();
    let route = rests(&lab, "unsupported");
    assert!(route.why.unwrap().contains("does not know the Mobility Header"));
    assert!(failures(&lab, "unsupported") > 0);
    traffic.let_run(200).unwrap();
    assert_lossless(&traffic, &mark, "while it is asked");
    take(&lab, &traffic, Form::Tunnelled, figure_11);
    let notes = explained(&lab, 22)["notes"].to_string();
    assert!(notes.contains("does not know the Mobility Header"), "{notes}");
    assert_eq!(lab.world.leaked().unwrap(), 0);
}

/// A firewall between the access networks and the correspondent.
pub fn firewall(lab: &Lab, eats: &str) {
    lab.world
        .core
        .nft(&format!(
            "table ip6 eats {{\n  chain forward {{\n    type filter hook forward priority 0; \
             policy accept;\n    {eats} counter drop\n  }}\n}}\n"
        ))
        .unwrap();
}

#[test]
fn a_firewall_that_eats_home_address_options_is_noticed_and_said() {
    need_lab!();
    let mut lab =
        Lab::with_agent(Plan::default(), PolicyText::default().with_optimization("traffic"));
    firewall(&lab, &format!("ip6 daddr {} ip6 nexthdr 60", address::CORRESPONDENT));
    lab.start_correspondent();
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mark = traffic.mark();
    let route = rests(&lab, "headers-eaten");
    assert!(route.why.unwrap().contains("eats the Home Address option"));
    assert!(
        failures(&lab, "headers-eaten") + Lab::drops(lab.mobile(), "signaling-headers-eaten") > 0
    );
    take(&lab, &traffic, Form::Tunnelled, figure_11);
    assert_lossless(&traffic, &mark, "nothing ever went straight");
    lab.assert_clean();
}

#[test]
fn a_firewall_that_eats_data_only_costs_two_seconds() {
    need_lab!();
    let lab = Lab::optimized(Plan::default(), PolicyText::default().with_optimization("traffic"));
    // Binding Updates pass; what TCP sends with the same option does not.
    firewall(&lab, "ip6 nexthdr 60 meta l4proto tcp");
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    rests(&lab, "headers-eaten");
    // ssh and bulk each on a link of its own: both find out.
    let both = lab.mobile().wait_until("both links in the tunnel", PATIENCE, |status| {
        let eaten = |it: &&RouteDocument| it.reason.as_deref() == Some("headers-eaten");
        status.routes.iter().filter(eaten).count() == 2
    });
    both.unwrap();
    take(&lab, &traffic, Form::Tunnelled, figure_11);
    assert_alive(&traffic);
    lab.assert_clean();
}

#[test]
fn the_end_of_either_side_leaves_the_other_in_the_tunnel() {
    need_lab!();
    let mut lab =
        Lab::optimized(Plan::default(), PolicyText::default().with_optimization("traffic"));
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    take(&lab, &traffic, Form::Straight, figure_11);

    // The correspondent dies and is started again, and knows nothing: its Binding Errors lead to the
    // tunnel, and new tests out of it.
    let mut daemon = lab.correspondent.take().unwrap();
    daemon.process.kill().unwrap();
    drop(daemon);
    lab.start_correspondent();
    // TCP waits twice as long each time before it tries again.
    traffic.all_progress(3 * PATIENCE).unwrap();
    take(&lab, &traffic, Form::Straight, figure_11);
    assert_alive(&traffic);

    // The mobile's stop ends what it bound.
    straight_by(&lab, &["wlan0", "wwan0"]);
    lab.assert_clean();
    drop(traffic);
    let mut mobile = lab.mobile.take().unwrap();
    assert!(mobile.process.stop().unwrap().success(), "{}", mobile.story());
    let ended = lab.correspondent().wait_until("no binding", PATIENCE, |status| {
        status.correspondent.as_ref().is_some_and(|it| it.mobiles.is_empty())
    });
    assert!(ended.is_ok(), "{:#}\n{}", ended.unwrap_err(), mobile.story());
}
