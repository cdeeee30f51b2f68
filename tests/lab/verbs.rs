//! The verbs on real packets: what each does to flows of the node behind the router.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, UdpSocket};

use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe};
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

/// Where the flows of these tests go; nobody listens, and nobody has to.
const SINK: u16 = 9000;

/// A UDP socket of the node and its flow.
fn flow(lab: &Lab) -> (UdpSocket, Flow) {
    let socket = lab.world.mnn.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, Flow::to_correspondent(17, (address::NODE, port), SINK))
}

fn send(socket: &UdpSocket) {
    socket.send_to(b"bulk", (address::CORRESPONDENT, SINK)).unwrap();
}

/// The link of a flow's only packets; it fails if there were two.
fn only_link(lab: &Lab, flow: &Flow, packets: u64) -> &'static str {
    let seen = |link| lab.observatory.packets(flow, Way::Out, link);
    wait_for("the flow's packets", PATIENCE, || {
        (seen("wlan0") + seen("wwan0") >= packets).then_some(())
    })
    .unwrap_or_else(|error| panic!("{flow}: {error:#}; {}", lab.mobile().story()));
    match (seen("wlan0"), seen("wwan0")) {
        (_, 0) => "wlan0",
        (0, _) => "wwan0",
        both => panic!("{flow} on two links: {both:?}"),
    }
}

#[test]
fn balance_spreads_flows_by_weight_and_keeps_each_on_its_link() {
    need_lab!();
    let rule = "match proto=udp dport=9000\n        balance wlan0=3 wwan0=1";
    let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("spread", rule));
    lab.registered(&["wlan0", "wwan0"]);
    const FLOWS: usize = 1000;
    let flows: Vec<_> = (0..FLOWS).map(|_| flow(&lab)).collect();
    let mut links = BTreeMap::new();
    for round in 1..=2 {
        for chunk in flows.chunks(50) {
            chunk.iter().for_each(|(socket, _)| send(socket));
            for (_, flow) in chunk {
                let link = only_link(&lab, flow, round);
                if round == 1 {
                    *links.entry(link).or_insert(0) += 1;
                }
            }
        }
    }
    // The agent is told the cut, so it is one of ports: 762 expected of those from 32768 to 60999;
    // four standard deviations are 54.
    assert!((705..=819).contains(&links["wlan0"]), "{links:?} of {FLOWS}");
    lab.assert_clean();
}

#[test]
fn duplicate_sends_a_copy_on_each_link() {
    need_lab!();
    let rule = "match proto=udp dport=4000\n        duplicate wlan0 wwan0 copies=2 cap=\"200MB\"";
    let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("twice", rule));
    lab.registered(&["wlan0", "wwan0"]);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(200, PATIENCE).unwrap();
    let flow = Flow::to_correspondent(17, (address::NODE, probe.port()), PORT);
    // Before the agent has agreed, the correspondent sees both copies.
    wait_for("every packet", PATIENCE, || {
        let out = probe.tally(0, 200).outbound;
        (out.sent > 0 && out.lost == 0).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", probe.tally(0, 200)));
    let seen = |link| lab.observatory.packets(&flow, Way::Out, link);
    // The first packets may find one of the links registered alone.
    let both = || [seen("wlan0"), seen("wwan0")];
    let before = both();
    probe.wait_for_echo_after(probe.mark() + 200, PATIENCE).unwrap();
    wait_for("a copy of each packet on each link", PATIENCE, || {
        let after = both();
        before.iter().zip(after).all(|(before, after)| after - before >= 200).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {before:?} {:?}", both()));
    // With one link left there is one copy, and the flow lives.
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    let mark = probe.mark();
    probe.wait_for_echo_after(mark + 200, PATIENCE).unwrap();
    let tally = probe.tally(mark + 50, mark + 150);
    assert_eq!((tally.outbound.lost, tally.outbound.duplicated), (0, 0), "{tally:?}");
    lab.assert_clean();
}

#[test]
fn overflow_sends_new_flows_to_the_next_link_while_the_first_is_full() {
    need_lab!();
    let rule = "match proto=udp dport=9000\n        overflow wlan0 wwan0 full=\"50%\"";
    let text = PolicyText::default()
        .with_rule("spill", rule)
        .with_statement("wlan0", "rate \"1Mbit/s\"")
        .with_statement("wwan0", "rate \"100Mbit/s\"");
    let lab = Lab::start(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let (first, first_flow) = flow(&lab);
    send(&first);
    assert_eq!(only_link(&lab, &first_flow, 1), "wlan0", "an empty link takes the flow");
    // Bulk keeps the WLAN far over half a megabit a second.
    let traffic = lab.traffic();
    wait_for("new flows on the next link", PATIENCE, || {
        let (socket, flow) = flow(&lab);
        send(&socket);
        (only_link(&lab, &flow, 1) == "wwan0").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}; {}", lab.mobile().story()));
    drop(traffic);
    wait_for("new flows on the first link again", PATIENCE, || {
        let (socket, flow) = flow(&lab);
        send(&socket);
        (only_link(&lab, &flow, 1) == "wlan0").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}; {}", lab.mobile().story()));
    lab.assert_clean();
}

#[test]
fn a_used_up_quota_makes_a_link_the_last_resort_and_is_remembered_over_a_kill() {
    need_lab!();
    let quota = "quota \"2MB\" per=month starts=1 warn=\"50%\" at-limit=last-resort";
    let text = PolicyText::default().with_statement("wlan0", &format!("metered #true; {quota}"));
    let mut lab = Lab::start(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = mtun::lab::traffic::Traffic::start(&lab.world, PATIENCE).unwrap();
    // Bulk uses it up; then everything leaves for the other link, without loss.
    lab.settled(&traffic, crate::fixture::all_wwan);
    crate::fixture::assert_alive(&traffic);
    drop(traffic);
    let used = |lab: &Lab| {
        let status = lab.mobile().status().unwrap();
        let link =
            status.links.into_iter().find(|link| link.interface.as_str() == "wlan0").unwrap();
        link.quota.expect("the link has a quota").used_octets
    };
    let before = used(&lab);
    assert!(before >= 2_000_000, "{before}");
    let mut mobile = lab.mobile.take().unwrap();
    mobile.process.kill().unwrap();
    drop(mobile);
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    // At most the last megabyte was not written down.
    let after = used(&lab);
    assert!(after + 1_000_000 >= before, "{after} after {before}");
    let (socket, flow) = flow(&lab);
    send(&socket);
    assert_eq!(only_link(&lab, &flow, 1), "wwan0", "still over quota");
    // The only link is used whatever it costs.
    lab.world.mr.ip(&["link set wwan0 down"]).unwrap();
    lab.registered(&["wlan0"]);
    let (socket, flow) = self::flow(&lab);
    send(&socket);
    assert_eq!(only_link(&lab, &flow, 1), "wlan0", "the last resort");
    lab.assert_clean();
}
