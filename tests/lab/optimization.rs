//! Route optimization on real packets: who goes straight, by which care-of address, and who does
//! not and why.

use mtun::control::documents::{RouteDocument, RouteState, StatusDocument};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Form, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin, Traffic};
use mtun::lab::world::{Plan, address};

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

fn straight_by(lab: &Lab, links: &[&str]) -> StatusDocument {
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
fn take(lab: &Lab, traffic: &Traffic, form: Form, by: fn(Name, Origin) -> &'static str) {
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

/// Packets of the flows that the home agent's link has carried.
fn at_agent(lab: &Lab, traffic: &Traffic, origin: Origin) -> u64 {
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
