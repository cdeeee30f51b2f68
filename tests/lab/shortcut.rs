//! The shortcut past the tunnel interface: what the kernel has forwarded once goes straight from one
//! interface to the other, and whatever the kernel would say differently is heard.

use mtun::lab::daemons::Daemon;
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe};
use mtun::lab::world::Plan;
use mtun_dataplane::abi::FastOutcome;

use crate::fast_path::{exchange, has_fast_path, outcome};
use crate::fixture::{Lab, PATIENCE, all_wwan, figure_11};
use crate::need_lab;

/// More than a flow needs before it takes the shortcut.
const MANY: u32 = 300;

struct Short {
    probe: Probe,
    _echo: Echo,
    lab: Lab,
}

impl Short {
    /// A node behind the router whose packets take the shortcut both ways, at both ends.
    fn start(prepare: impl FnOnce(&Lab)) -> Option<Self> {
        let lab = Lab::start(Plan::default(), PolicyText::default());
        prepare(&lab);
        lab.registered(&["wlan0", "wwan0"]);
        if !has_fast_path(lab.mobile()) {
            return None;
        }
        let echo = Echo::start(&lab.world.cn).unwrap();
        let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
        let short = Self { probe, _echo: echo, lab };
        short.takes_it("at first");
        Some(short)
    }

    fn takes_it(&self, when: &str) {
        for daemon in [self.lab.mobile(), self.lab.agent()] {
            for wanted in [FastOutcome::ShortcutSent, FastOutcome::ShortcutReceived] {
                let before = outcome(daemon, wanted);
                let more = || (outcome(daemon, wanted) > before + 100).then_some(());
                let rises = wait_for("the shortcut", PATIENCE, more);
                let told = || format!("{wanted:?} {when}: {}", story(daemon));
                assert!(rises.is_ok(), "{}", told());
            }
        }
    }

    /// Waits until so many further packets were sent.
    fn let_run(&self, count: u32) {
        let mark = self.probe.mark();
        let sent = || (self.probe.mark() >= mark + count).then_some(());
        wait_for("packets", PATIENCE, sent).unwrap();
    }

    /// Waits until a stretch of packets has ended nowhere.
    fn falls_silent(&self) {
        let silent = || {
            let mark = self.probe.mark();
            self.let_run(MANY);
            (self.probe.tally_since(mark).outbound.received == 0).then_some(())
        };
        wait_for("silence", PATIENCE, silent).unwrap();
    }

    fn comes_back(&self) {
        let mark = self.probe.mark();
        self.probe.wait_for_echo_after(mark + MANY, PATIENCE).unwrap();
    }
}

/// What a failure is to be understood by.
pub fn story(daemon: &Daemon) -> String {
    let status = daemon.status().unwrap();
    let tunnel = &status.homes[0].tunnel;
    format!("{tunnel:?} {:?}\n{}", Lab::metrics(daemon).fast_path, daemon.story())
}

fn no_shortcut(daemon: &Daemon) -> Option<String> {
    daemon.status().unwrap().homes[0].tunnel.no_shortcut.clone()
}

fn rules(namespace: &Namespace, rules: &str) {
    let chain = "type filter hook forward priority 0; policy accept;";
    namespace
        .nft(&format!("table inet owner {{\n chain forward {{\n  {chain}\n  {rules}\n }}\n}}\n"))
        .unwrap();
}

fn no_rules(namespace: &Namespace) {
    namespace.nft("delete table inet owner\n").unwrap();
}

#[test]
fn a_rule_that_comes_is_obeyed_and_gone_it_is_forgotten() {
    need_lab!();
    let Some(short) = Short::start(|_| {}) else { return };
    let router = &short.lab.world.mr;
    // No packet of the kind that the rule names passes any more; at the router, out and back.
    for rule in [format!("udp dport {PORT} drop"), format!("udp sport {PORT} drop")] {
        rules(router, &rule);
        match rule.contains("dport") {
            true => short.falls_silent(),
            false => {
                let silent = || {
                    let mark = short.probe.mark();
                    short.let_run(MANY);
                    (short.probe.tally_since(mark).inbound.received == 0).then_some(())
                };
                wait_for("no answers", PATIENCE, silent).unwrap();
            }
        }
        no_rules(router);
        short.comes_back();
        short.takes_it("without the rule");
    }
    short.lab.assert_clean();
}

#[test]
fn rules_that_need_every_packet_switch_it_off_and_say_so() {
    need_lab!();
    let Some(short) = Short::start(|_| {}) else { return };
    let (router, daemon) = (&short.lab.world.mr, short.lab.mobile());
    let cases = [("counter", "`counter`"), ("limit rate 100000/second accept", "`limit`")];
    for (rule, word) in cases {
        rules(router, rule);
        wait_for("a reason", PATIENCE, || no_shortcut(daemon).filter(|it| it.contains(word)))
            .unwrap_or_else(|error| panic!("{rule}: {error}: {}", story(daemon)));
        let before = outcome(daemon, FastOutcome::ShortcutSent);
        short.comes_back();
        assert_eq!(outcome(daemon, FastOutcome::ShortcutSent), before, "{rule}");
        no_rules(router);
        wait_for("no reason", PATIENCE, || no_shortcut(daemon).is_none().then_some(())).unwrap();
        short.takes_it("without the rule");
    }
    // A queue of the owner's at the tunnel interface.
    router.exec("tc qdisc add dev mtun0 root tbf rate 1gbit burst 1mb latency 50ms").unwrap();
    wait_for("a reason", PATIENCE, || no_shortcut(daemon).filter(|it| it.contains("queue")))
        .unwrap_or_else(|error| panic!("{error}: {}", story(daemon)));
    router.exec("tc qdisc del dev mtun0 root").unwrap();
    short.takes_it("without the queue");
}

#[test]
fn a_connection_survives_it_behind_a_strict_firewall() {
    need_lab!();
    let strict = "ct state established,related accept\n  ct state invalid drop\n  \
                  iifname \"lan0\" accept\n  ip6 nexthdr icmpv6 accept\n  drop";
    let Some(short) = Short::start(|lab| rules(&lab.world.mr, strict)) else { return };
    let world = &short.lab.world;
    let before = outcome(short.lab.mobile(), FastOutcome::ShortcutSent);
    exchange(&world.cn, &world.mnn, 7003);
    let after = outcome(short.lab.mobile(), FastOutcome::ShortcutSent);
    assert!(after > before + 100, "{before} {after}: {}", story(short.lab.mobile()));
    short.lab.assert_clean();
}

#[test]
fn a_handover_takes_its_flows_along() {
    need_lab!();
    let Some(short) = Short::start(|_| {}) else { return };
    let (lab, mobile) = (&short.lab, short.lab.mobile());
    lab.world.wlan_down().unwrap();
    short.comes_back();
    lab.world.wlan_up().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    short.takes_it("back on the WLAN");
    assert_eq!(outcome(mobile, FastOutcome::Broken), 0);
    lab.assert_clean();
}

/// Who is asked for a neighbour's address keeps the packet meanwhile, and a stored header is not
/// used once its neighbour is forgotten.
#[test]
fn emptied_neighbour_tables_lose_nothing() {
    need_lab!();
    let Some(short) = Short::start(|_| {}) else { return };
    let world = &short.lab.world;
    // What a header without its neighbour would look like on the WLAN.
    let mut tcpdump = world.wlan.command("tcpdump");
    tcpdump.args([
        "-i",
        "sta0",
        "-n",
        "-c",
        "1",
        "ether dst 00:00:00:00:00:00 or ether src 00:00:00:00:00:00",
    ]);
    let log = world.directory().join("nowhere.log");
    let mut nowhere = world.wlan.start(tcpdump, &log).unwrap();
    let listens = || nowhere.log().contains("listening on").then_some(());
    wait_for("tcpdump", PATIENCE, listens).unwrap();

    let mark = short.probe.mark();
    for _ in 0..10 {
        for namespace in world.namespaces() {
            namespace.exec("ip -6 neigh flush all").unwrap();
        }
        short.let_run(MANY);
    }
    let end = short.probe.mark();
    short.probe.wait_for_echo_after(end, PATIENCE).unwrap();
    let tally = short.probe.tally(mark, end);
    for (way, tally) in [("out", tally.outbound), ("in", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {tally:?}");
    }
    assert!(nowhere.is_running(), "{}", nowhere.log());
    for daemon in [short.lab.mobile(), short.lab.agent()] {
        assert_eq!(outcome(daemon, FastOutcome::Broken), 0);
    }
    short.takes_it("after all that");
    short.lab.assert_clean();
}

/// TCP whose segments filled the WLAN goes on by a link that takes less, up and down, from the
/// router and from the node behind it.
#[test]
fn flows_that_move_to_a_smaller_link_go_on() {
    need_lab!();
    for wwan_mtu in [1420, 1280] {
        let plan = Plan { wwan_mtu, ..Plan::default() };
        let lab = Lab::start(plan, PolicyText::default());
        lab.registered(&["wlan0", "wwan0"]);
        if !has_fast_path(lab.mobile()) {
            return;
        }
        let traffic = lab.traffic();
        lab.settled(&traffic, figure_11);
        lab.world.wlan_down().unwrap();
        lab.settled(&traffic, all_wwan);
        traffic.all_progress(PATIENCE).unwrap_or_else(|error| panic!("{wwan_mtu}: {error}"));
        lab.world.wlan_up().unwrap();
        lab.registered(&["wlan0", "wwan0"]);
        lab.settled(&traffic, figure_11);
        traffic.all_progress(PATIENCE).unwrap_or_else(|error| panic!("{wwan_mtu}: {error}"));
        for daemon in [lab.mobile(), lab.agent()] {
            assert_eq!(outcome(daemon, FastOutcome::Broken), 0);
        }
        drop(traffic);
        lab.assert_clean();
    }
}

#[test]
fn without_it_the_fast_path_stays() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.start_mobile(&["--fast-path", "no-shortcut"]);
    lab.registered(&["wlan0", "wwan0"]);
    if !has_fast_path(lab.mobile()) {
        return;
    }
    assert_eq!(no_shortcut(lab.mobile()).as_deref(), Some("switched off"));
    exchange(&lab.world.cn, &lab.world.mnn, 7004);
    assert!(outcome(lab.mobile(), FastOutcome::Sent) > 0);
    assert_eq!(outcome(lab.mobile(), FastOutcome::ShortcutSent), 0);
}

/// Where its interfaces are known already, a connection needs the normal way for its first packets only.
#[test]
fn a_new_connection_takes_it_at_once() {
    need_lab!();
    let Some(short) = Short::start(|_| {}) else { return };
    let ways = |daemon: &Daemon| {
        let of = |ways: [FastOutcome; 2]| ways.map(|way| outcome(daemon, way)).iter().sum::<u64>();
        let normal = of([FastOutcome::Sent, FastOutcome::Received]);
        (normal, of([FastOutcome::ShortcutSent, FastOutcome::ShortcutReceived]))
    };
    let daemons = [short.lab.mobile(), short.lab.agent()];
    let before = daemons.map(ways);
    exchange(&short.lab.world.cn, &short.lab.world.mnn, 7012);
    let after = daemons.map(ways);
    for (before, after) in before.into_iter().zip(after) {
        let (normal, by_it) = (after.0 - before.0, after.1 - before.1);
        assert!(normal * 4 < by_it, "{normal} the normal way, {by_it} by the shortcut");
    }
    short.lab.assert_clean();
}
