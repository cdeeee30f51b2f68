//! What the daemon puts into the kernel: all of it is gone after a stop, none of it is there
//! twice after a kill -9 and a restart, and in between nothing leaks.

use std::net::{Ipv6Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::cached;
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, address};
use serde_json::Value;

use crate::fixture::{Lab, PATIENCE, assert_alive, figure_11};
use crate::need_lab;

/// Waits until no address of a namespace is tentative: that ends by itself.
fn rest(namespace: &Namespace) {
    wait_for("duplicate address detection", PATIENCE, || {
        let addresses = namespace.ip_json("-6 address show tentative").ok()?;
        let tentative =
            |link: &Value| link["addr_info"].as_array().is_some_and(|it| !it.is_empty());
        (!addresses.as_array()?.iter().any(tentative)).then_some(())
    })
    .unwrap();
}

/// Everything of a namespace that the daemon may change, without what changes by itself.
fn kernel_state(namespace: &Namespace) -> Vec<String> {
    rest(namespace);
    let mut state = Vec::new();
    for line in ["-6 rule show", "-6 route show table all", "-6 address show"] {
        let document = namespace.ip_json(line).unwrap();
        let mut entries: Vec<String> = document
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| format!("{line}: {}", without_clocks(entry)))
            .collect();
        entries.sort();
        state.extend(entries);
    }
    let rules = namespace.exec("nft list ruleset").unwrap();
    state.extend(rules.lines().map(|line| {
        // Counters move by themselves.
        let line = line.split("packets ").next().unwrap_or_default();
        format!("nft: {}", line.trim())
    }));
    state.extend(namespace.run(|| settings(Path::new("/proc/sys/net/ipv4"))));
    state.extend(namespace.run(|| settings(Path::new("/proc/sys/net/ipv6"))));
    state
}

/// Every setting below a directory of the kernel's, but those of `mtun0`, which go with it; sorted.
fn settings(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("mtun0") => {}
            true => found.extend(settings(&path)),
            // Some can only be written.
            false => found.extend(
                std::fs::read_to_string(&path)
                    .map(|value| format!("{} = {}", path.display(), value.trim())),
            ),
        }
    }
    found.sort();
    found
}

/// Lifetimes run down, and indices of a new TUN differ.
fn without_clocks(entry: &Value) -> Value {
    match entry {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(name, _)| {
                    !matches!(
                        name.as_str(),
                        "expires"
                            | "ifindex"
                            | "valid_life_time"
                            | "preferred_life_time"
                            | "txqlen"
                            | "qdisc"
                            | "operstate"
                    )
                })
                .map(|(name, value)| (name.clone(), without_clocks(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_clocks).collect()),
        other => other.clone(),
    }
}

fn assert_same(before: &[String], after: &[String], what: &str) {
    let only = |of: &[String], not_in: &[String]| -> Vec<String> {
        of.iter().filter(|line| !not_in.contains(line)).cloned().collect()
    };
    let (gone, extra) = (only(before, after), only(after, before));
    assert!(
        gone.is_empty() && extra.is_empty() && before.len() == after.len(),
        "{what}\ngone: {gone:#?}\nextra: {extra:#?}\n{} before, {} after",
        before.len(),
        after.len()
    );
}

#[test]
fn a_stop_deregisters_and_leaves_the_kernel_as_it_was() {
    need_lab!();
    let plan = Plan::default();
    let mut lab = Lab::with_agent(plan, PolicyText::default());
    lab.world.wait_for_wlan_address().unwrap();
    let agent_idle = kernel_state(&lab.world.ha);
    let before = kernel_state(&lab.world.mr);
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    assert_ne!(kernel_state(&lab.world.mr), before, "the daemon does change something");
    let mut mobile = lab.mobile.take().unwrap();
    let status = mobile.process.stop().unwrap();
    assert!(status.success(), "{status}\n{}", mobile.story());
    assert_same(&before, &kernel_state(&lab.world.mr), "the router after the stop");
    let held =
        lab.agent().wait_until("an empty cache", PATIENCE, |status| cached(status).is_empty());
    assert!(held.is_ok(), "{:#}", held.unwrap_err());
    assert_same(&agent_idle, &kernel_state(&lab.world.ha), "the agent after the mobile's stop");
    lab.assert_clean();
}

/// Nobody is there to confirm it: a stop ends all the same, and as tidily.
#[test]
fn a_stop_that_nobody_answers_ends_at_its_deadline() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.world.wait_for_wlan_address().unwrap();
    let before = kernel_state(&lab.world.mr);
    lab.start_mobile(&["--stop-deadline", "0.5"]);
    lab.registered(&["wlan0", "wwan0"]);
    lab.agent.take().unwrap().process.kill().unwrap();
    let mut mobile = lab.mobile.take().unwrap();
    let status = mobile.process.stop().unwrap();
    assert!(status.success(), "{status}\n{}", mobile.story());
    let unanswered = "the agent did not acknowledge the de-registration in time";
    assert!(mobile.process.log().contains(unanswered), "{}", mobile.story());
    assert_same(&before, &kernel_state(&lab.world.mr), "the router after the stop");
    lab.assert_clean();
}

#[test]
fn the_agents_stop_leaves_its_kernel_as_it_was() {
    need_lab!();
    let world = mtun::lab::world::World::build(Plan::default()).unwrap();
    let before = kernel_state(&world.ha);
    mtun::lab::daemons::write_keys(&world).unwrap();
    let mut agent = mtun::lab::daemons::Daemon::start(
        &world,
        &crate::fixture::programs(),
        mtun::lab::daemons::Side::Agent,
        &PolicyText::default(),
        &Default::default(),
    )
    .unwrap();
    agent.wait_until("its status", PATIENCE, |_| true).unwrap();
    let status = agent.process.stop().unwrap();
    assert!(status.success(), "{status}\n{}", agent.story());
    assert_same(&before, &kernel_state(&world.ha), "the agent after its stop");
}

#[test]
fn a_correspondents_stop_and_its_death_leave_its_kernel_as_it_was() {
    need_lab!();
    let text = PolicyText::default().with_optimization("traffic");
    let mut lab = Lab::with_agent(Plan::default(), text);
    let before = kernel_state(&lab.world.cn);
    lab.start_correspondent();
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let bound = |lab: &Lab| {
        let two = |status: &StatusDocument| {
            status.correspondent.as_ref().is_some_and(|it| it.mobiles.len() == 2)
        };
        lab.correspondent().wait_until("two bindings", PATIENCE, two).unwrap();
        // Rules and routes follow what packets know.
        wait_for("a route to the mobile", PATIENCE, || {
            let rules = lab.world.cn.exec("ip -6 rule show").unwrap();
            rules.contains("lookup 6280000").then_some(())
        })
        .unwrap();
    };
    bound(&lab);
    let bound_before = kernel_state(&lab.world.cn);
    assert_ne!(bound_before, before, "the daemon does change something");

    let mut daemon = lab.correspondent.take().unwrap();
    daemon.process.kill().unwrap();
    drop(daemon);
    lab.start_correspondent();
    bound(&lab);
    assert_same(
        &bound_before,
        &kernel_state(&lab.world.cn),
        "the correspondent after kill -9 and restart",
    );
    assert_alive(&traffic);
    drop(traffic);
    let mut daemon = lab.correspondent.take().unwrap();
    let status = daemon.process.stop().unwrap();
    assert!(status.success(), "{status}\n{}", daemon.story());
    assert_same(&before, &kernel_state(&lab.world.cn), "the correspondent after its stop");
}

/// A correspondent that goes on sending, whatever happens: its packets reach a router without a
/// daemon too, and its kernel must not answer them.
struct Downstream {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Downstream {
    fn start(cn: &Namespace) -> Self {
        let socket = cn.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for to in [address::HOME, address::NODE] {
                        let _ = socket.send_to(b"still there?", (to, 9));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().expect("joined once").join();
    }
}

#[test]
fn between_kill_and_restart_nothing_leaks_and_the_restart_leaves_no_double() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let tunnel = |lab: &Lab| lab.mobile().status().unwrap().homes[0].tunnel.clone();
    let (before, tunnel_before) = (kernel_state(&lab.world.mr), tunnel(&lab));
    let downstream = Downstream::start(&lab.world.cn);
    let mut mobile = lab.mobile.take().unwrap();
    mobile.process.kill().unwrap();
    let mark = traffic.mark();
    traffic.let_run(500).unwrap();
    let tallies = traffic.probe_tallies(&mark);
    for (origin, tally) in tallies {
        assert_eq!(tally.outbound.received, 0, "{origin}: nothing goes another way");
    }
    lab.assert_clean();
    drop(mobile);
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    assert_alive(&traffic);
    assert_same(&before, &kernel_state(&lab.world.mr), "the router after kill -9 and restart");
    assert_eq!(tunnel(&lab), tunnel_before, "the same interface, index and MTU");
    let held = cached(&lab.agent().status().unwrap());
    assert_eq!(held.len(), 2, "no double binding: {held:?}");
    drop(downstream);
    lab.assert_clean();
}

/// req MR-12, MR-14.
#[test]
fn with_no_uplink_left_packets_are_refused_not_leaked() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    lab.world.wlan_down().unwrap();
    lab.world.mr.ip(&["link set wwan0 down"]).unwrap();
    lab.registered(&[]);
    let mark = traffic.mark();
    traffic.let_run(200).unwrap();
    for (origin, tally) in traffic.probe_tallies(&mark) {
        assert_eq!(tally.outbound.received, 0, "{origin}");
    }
    lab.assert_clean();
    lab.world.wlan_up().unwrap();
    lab.registered(&["wlan0"]);
    assert_alive(&traffic);
    lab.assert_clean();
}
