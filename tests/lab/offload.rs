//! What links do with what they receive while a daemon runs: merged on receipt where they did not,
//! and after a stop as before.

use mtun::edge::ethtool::{Ethtool, Name};
use mtun::lab::daemons::{Arguments, Daemon, Side};
use mtun::lab::namespace::Namespace;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;

use crate::fast_path::exchange;
use crate::fixture::{Lab, assert_alive, assert_lossless, figure_11, programs};
use crate::need_lab;

/// Which of these links merge.
fn merging(namespace: &Namespace, links: &[&'static str]) -> Vec<&'static str> {
    namespace.run(|| {
        let ethtool = Ethtool::open().unwrap();
        let merges = |link: &&str| ethtool.merges_received(Name::new(link).unwrap()).unwrap();
        links.iter().copied().filter(merges).collect()
    })
}

#[test]
fn links_merge_what_they_receive_while_the_daemon_runs() {
    need_lab!();
    const ROUTER: [&str; 3] = ["lan0", "wlan0", "wwan0"];
    const AGENT: [&str; 2] = ["core0", "home0"];
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.agent = None;
    // Cables do not, as they are made; the modem does by itself.
    assert_eq!(merging(&lab.world.mr, &ROUTER), ["wwan0"]);
    assert_eq!(merging(&lab.world.ha, &AGENT), [""; 0]);
    let on = Arguments(["--gro", "on"].map(str::to_owned).to_vec());
    let agent = Daemon::start(&lab.world, &programs(), Side::Agent, &lab.text, &on).unwrap();
    lab.agent = Some(agent);
    lab.start_mobile(&["--gro", "on"]);
    lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(merging(&lab.world.mr, &ROUTER), ROUTER, "{}", lab.mobile().story());
    assert_eq!(merging(&lab.world.ha, &AGENT), AGENT, "{}", lab.agent().story());

    let traffic = lab.traffic();
    let mark = traffic.mark();
    exchange(&lab.world.cn, &lab.world.mnn, 7007);
    exchange(&lab.world.cn, &lab.world.mr, 7008);
    lab.settled(&traffic, figure_11);
    assert_lossless(&traffic, &mark, "large transfers beside it");
    assert_alive(&traffic);
    drop(traffic);

    // Killed: the next one takes them as they are, and knows how they were.
    lab.mobile.take().unwrap().process.kill().unwrap();
    assert_eq!(merging(&lab.world.mr, &ROUTER), ROUTER, "nobody was there to put it back");
    lab.start_mobile(&["--gro", "on"]);
    let story = lab.mobile().story();
    let last = story.rsplit("an earlier run left changed settings").next().unwrap();
    assert!(!last.contains("kernel setting"), "something went to and fro: {story}");
    for side in [&mut lab.mobile, &mut lab.agent] {
        let mut daemon = side.take().unwrap();
        assert!(daemon.process.stop().unwrap().success(), "{}", daemon.story());
    }
    assert_eq!(merging(&lab.world.mr, &ROUTER), ["wwan0"], "as it was");
    assert_eq!(merging(&lab.world.ha, &AGENT), [""; 0], "as it was");
    lab.assert_clean();
}

/// Who is told to keep its hands off does so, and puts back what a killed run has changed.
#[test]
fn what_is_to_be_kept_is_kept() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.start_mobile(&["--gro", "on"]);
    lab.registered(&["wlan0", "wwan0"]);
    lab.mobile.take().unwrap().process.kill().unwrap();
    assert_eq!(merging(&lab.world.mr, &["lan0", "wlan0"]), ["lan0", "wlan0"]);
    lab.start_mobile(&["--gro", "keep"]);
    assert_eq!(merging(&lab.world.mr, &["lan0", "wlan0"]), [""; 0], "{}", lab.mobile().story());
    lab.assert_clean();
}
