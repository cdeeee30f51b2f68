//! Uplinks that die without a word: carrier and addresses stay, packets do not come through.

use mtun::control::documents::{LinkDocument, LinkState};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::Way;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::Traffic;
use mtun::lab::wire::{Direction, Impairment};
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

fn link(lab: &Lab, name: &str) -> LinkDocument {
    let status = lab.mobile().status().unwrap();
    status.links.into_iter().find(|it| it.interface.as_str() == name).unwrap()
}

/// Waits until a link is in this state.
fn in_state(lab: &Lab, name: &str, state: LinkState) -> LinkDocument {
    let reached = || {
        let link = link(lab, name);
        (link.state == state).then_some(link)
    };
    wait_for(&format!("{name} to be {state}"), PATIENCE, reached)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.mobile().story()))
}

/// Waits until probes have told how far the agent is by every link.
fn measured(lab: &Lab, names: &[&str]) {
    for name in names {
        wait_for(&format!("figures of {name}"), PATIENCE, || link(lab, name).jitter_ms).unwrap();
    }
}

fn probes(lab: &Lab, name: &str, result: &str) -> u64 {
    let figures = Lab::metrics(lab.mobile());
    let of = |it: &&mtun::metrics::ProbeFigures| it.link.as_str() == name && it.result == result;
    figures.probes.iter().filter(of).map(|it| it.probes).sum()
}

fn deaths(lab: &Lab, name: &str) -> u64 {
    let figures = Lab::metrics(lab.mobile());
    let states = figures.link_states.iter();
    states
        .filter(|it| it.link.as_str() == name && it.reason == "probes-lost")
        .map(|it| it.changes)
        .sum()
}

/// The WLAN loses everything in these directions, and gets over it.
fn dies_and_returns(cut: &[Direction]) {
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    measured(&lab, &["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    assert_eq!(deaths(&lab, "wlan0"), 0);

    let set = |dead| {
        cut.iter().for_each(|way| lab.world.wlan_wire().set(*way, |it| it.cut = dead));
    };
    set(true);
    let dead = in_state(&lab, "wlan0", LinkState::Down);
    let reason = dead.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("probes"), "{reason}");
    lab.settled(&traffic, all_wwan);
    assert_alive(&traffic);
    assert_eq!(link(&lab, "wwan0").state, LinkState::Up, "the other one is not accused");
    let refused = lab.mobile().mtun(&["links"]).unwrap();
    assert!(refused.to_string().contains("probes and a burst of five"), "{refused}");
    assert!(probes(&lab, "wlan0", "lost") >= 7 && deaths(&lab, "wlan0") == 1);

    let mark = traffic.mark();
    set(false);
    in_state(&lab, "wlan0", LinkState::Up);
    lab.settled(&traffic, figure_11);
    assert_alive(&traffic);
    assert_lossless(&traffic, &mark, "the way back");
    assert_eq!(deaths(&lab, "wwan0"), 0);
    lab.assert_clean();
}

#[test]
fn an_uplink_that_falls_silent_is_left_by_its_flows_and_found_again() {
    need_lab!();
    dies_and_returns(&[Direction::Up, Direction::Down]);
}

#[test]
fn so_is_one_that_only_receives() {
    need_lab!();
    dies_and_returns(&[Direction::Up]);
}

#[test]
fn so_is_one_that_only_sends() {
    need_lab!();
    dies_and_returns(&[Direction::Down]);
}

#[test]
fn the_last_link_is_degraded_and_goes_on_trying() {
    need_lab!();
    let lab = Lab::start(Plan { wwan: false, ..Plan::default() }, PolicyText::default());
    lab.registered(&["wlan0"]);
    measured(&lab, &["wlan0"]);
    let traffic = Traffic::start(&lab.world, PATIENCE).unwrap();
    lab.settled(&traffic, |_, _| "wlan0");

    lab.world.wlan_wire().set_both(|it| it.cut = true);
    let last = in_state(&lab, "wlan0", LinkState::Degraded);
    let reason = last.reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("used as the last link in spite of: two probes"), "{reason}");
    // Packets still leave by it: nobody knows better.
    let keys = traffic.keys();
    let sent = || -> u64 {
        keys.iter().map(|(_, _, flow)| lab.observatory.packets(flow, Way::Out, "wlan0")).sum()
    };
    let before = sent();
    wait_for("packets by the last link", PATIENCE, || (sent() > before + 20).then_some(()))
        .unwrap();
    assert_eq!(Lab::drops(lab.mobile(), "no-usable-binding"), 0);
    let flow = keys[0].2;
    let question = format!("tcp {} -> {} dport {}", flow.home.0, flow.peer.0, flow.peer.1);
    let explained = lab.mobile().mtun_ok(&["explain", &question]).unwrap().to_string();
    assert!(explained.contains("last link"), "{explained}");

    lab.world.wlan_wire().set_both(|it| it.cut = false);
    in_state(&lab, "wlan0", LinkState::Up);
    assert_alive(&traffic);
    lab.assert_clean();
}

/// An agent that is away is silent by every link, and no link has to recover from that.
#[test]
fn an_agent_that_restarts_takes_no_link_away() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    measured(&lab, &["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let lost = || probes(&lab, "wlan0", "lost") >= 12 && probes(&lab, "wwan0", "lost") >= 8;
    lab.agent().process.signal(libc::SIGSTOP);
    wait_for("more than a burst to be lost by both", PATIENCE, || lost().then_some(())).unwrap();
    lab.agent().process.signal(libc::SIGCONT);
    let answered = probes(&lab, "wlan0", "answered");
    wait_for("answers", PATIENCE, || {
        (probes(&lab, "wlan0", "answered") > answered + 5).then_some(())
    })
    .unwrap();
    assert_eq!((deaths(&lab, "wlan0"), deaths(&lab, "wwan0")), (0, 0), "{}", lab.mobile().story());
    lab.settled(&traffic, figure_11);
    assert_alive(&traffic);
}

/// Losses by chance are no death.
#[test]
fn a_link_that_loses_one_packet_in_twenty_stays() {
    need_lab!();
    let lossy = |delay| Impairment { loss: 0.05, ..Impairment::delayed(delay) };
    let usual = Plan::default();
    let wlan_path = lossy(usual.wlan_path.delay);
    let lab = Lab::start(Plan { wlan_path, ..usual }, PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    measured(&lab, &["wlan0"]);
    let traffic = lab.traffic();
    wait_for("probes by a link with traffic", PATIENCE, || {
        (probes(&lab, "wlan0", "sent") >= 60).then_some(())
    })
    .unwrap();
    let link = link(&lab, "wlan0");
    assert!(link.loss_ratio.is_some_and(|loss| loss < 0.5), "{link:?}");
    assert_eq!(deaths(&lab, "wlan0"), 0, "{}", lab.mobile().story());
    assert_alive(&traffic);
}

/// Probes are for the agent alone: nobody's rules, flows or counters see them.
#[test]
fn probes_are_no_flows() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    measured(&lab, &["wlan0", "wwan0"]);
    let agent = lab.agent().status().unwrap();
    assert!(!agent.homes.is_empty());
    assert_eq!(lab.mobile().flows().unwrap().len(), 0);
    assert_eq!(lab.agent().flows().unwrap().len(), 0);
    let figures = Lab::metrics(lab.mobile());
    assert_eq!(figures.tunnels.iter().map(|it| it.packets).sum::<u64>(), 0);
    lab.assert_clean();
}
