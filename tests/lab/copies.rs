//! `duplicate` between two ends of ours: each packet by both links, once at the other end.

use mtun::lab::daemons::Daemon;
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe};
use mtun::lab::tally::Tally;
use mtun::lab::wire::Direction;
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

/// The stream of the node behind the router, by copies on both links.
struct Stream {
    lab: Lab,
    probe: Probe,
    _echo: Echo,
    flow: Flow,
}

impl Stream {
    fn start() -> Self {
        let rule =
            "match proto=udp dport=4000\n        duplicate wlan0 wwan0 copies=2 cap=\"200MB\"";
        let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("twice", rule));
        lab.registered(&["wlan0", "wwan0"]);
        let echo = Echo::start(&lab.world.cn).unwrap();
        let probe = Probe::start(&lab.world.mnn, &echo, INTERVAL, &Bound::Nowhere).unwrap();
        let flow = Flow::to_correspondent(17, (address::NODE, probe.port()), PORT);
        let stream = Self { lab, probe, _echo: echo, flow };
        wait_for("copies on both links, both ways", PATIENCE, || {
            let all =
                [(Way::Out, "wlan0"), (Way::Out, "wwan0"), (Way::In, "wlan0"), (Way::In, "wwan0")];
            let seen = all.iter().all(|(way, link)| stream.seen(*way, link) > 0);
            // An agent that does not hold the flow binding yet answers by either link, once.
            let ends = [stream.lab.agent(), stream.lab.mobile()];
            let copied = || ends.iter().all(|end| Lab::drops(end, "duplicate") > 0);
            (seen && copied()).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}; {}", stream.lab.mobile().story()));
        // The first copy by the faster link overtakes what left by the slower one alone.
        stream.goes_on(100);
        stream
    }

    fn seen(&self, way: Way, link: &str) -> u64 {
        self.lab.observatory.packets(&self.flow, way, link)
    }

    /// Waits for so many further packets and back.
    fn goes_on(&self, packets: u32) {
        self.probe.wait_for_echo_after(self.probe.mark() + packets, PATIENCE).unwrap();
    }

    /// What became of the packets between two numbers, out and back, when all copies are here.
    fn whole(&self, from: u32, to: u32, what: &str) {
        let judged = || self.probe.tally(from, to);
        let whole = |tally: &Tally| tally.sent > 0 && tally.lost == 0;
        wait_for("every packet", PATIENCE, || {
            let tally = judged();
            (whole(&tally.outbound) && whole(&tally.inbound)).then_some(())
        })
        .unwrap_or_else(|error| {
            panic!("{what}: {error:#}: {:?}; {}", judged(), self.lab.mobile().story())
        });
        // Later packets were answered, so the other copies are here too.
        self.goes_on(100);
        let ends = [("out", judged().outbound, self.lab.agent())].into_iter().chain([(
            "back",
            judged().inbound,
            self.lab.mobile(),
        )]);
        for (way, tally, receiver) in ends {
            assert_eq!(tally.duplicated, 0, "{what}, {way}: {tally:?}");
            // Order waits for 50 ms at most. A machine that stands still for longer makes copies
            // late, and each of them is told.
            let late = late(receiver);
            assert!(tally.reordered <= late, "{what}, {way}: {tally:?}, {late} came late");
        }
    }
}

/// Packets that came after they had been given up.
fn late(receiver: &Daemon) -> u64 {
    let figures = Lab::metrics(receiver);
    figures.copies.iter().filter(|it| it.event == "late").map(|it| it.count).sum()
}

/// req FB-13, FB-21.
#[test]
fn each_packet_arrives_once_and_in_order_though_both_links_carry_it() {
    need_lab!();
    let stream = Stream::start();
    let from = stream.probe.mark();
    stream.goes_on(300);
    stream.whole(from, from + 250, "both links");
    for way in [Way::Out, Way::In] {
        for link in ["wlan0", "wwan0"] {
            assert!(stream.seen(way, link) >= 250, "{link} {way:?}: {}", stream.seen(way, link));
        }
    }
    // What was taken out is counted, at both ends.
    for daemon in [stream.lab.agent(), stream.lab.mobile()] {
        assert!(Lab::drops(daemon, "duplicate") >= 250, "{}", Lab::drops(daemon, "duplicate"));
    }
    stream.lab.assert_clean();
}

/// A link that loses everything, without saying so and for a while, costs no packet.
#[test]
fn a_link_that_dies_silently_loses_nothing() {
    need_lab!();
    let stream = Stream::start();
    let from = stream.probe.mark();
    stream.goes_on(100);
    let wire = stream.lab.world.wlan_wire();
    wire.set_both(|it| it.cut = true);
    stream.goes_on(200);
    let cut = [Direction::Up, Direction::Down].map(|direction| wire.counts(direction).lost);
    assert!(cut.iter().sum::<u64>() > 0, "the link lost packets");
    wire.set_both(|it| it.cut = false);
    stream.goes_on(100);
    stream.whole(from, stream.probe.mark() - 20, "the WLAN dies and comes back");
    stream.lab.assert_clean();
}
