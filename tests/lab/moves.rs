//! Planned moves between a fast path and a slow one, walked end to end.

use std::time::Duration;

use mtun::lab::namespace::wait_for;
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe, Talk, TwoWay};
use mtun::lab::wire::Impairment;
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(40);

/// Moves a stream to the slow path and back so often, after an operator drains and releases the fast
/// one. Returns what became of its packets.
fn walk(pauses: Option<(u32, Duration)>, times: u32) -> TwoWay {
    let plan = Plan {
        wlan_path: Impairment::delayed(FAST),
        wwan_path: Impairment::delayed(SLOW),
        ..Plan::default()
    };
    let lab = Lab::start(plan, PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let talk = Talk { interval: INTERVAL, pauses };
    let probe = Probe::start_talk(&lab.world.mnn, &echo, talk, &Bound::Nowhere).unwrap();
    let flow = Flow::to_correspondent(17, (address::NODE, probe.port()), PORT);
    let on = |uplink: &str| {
        for way in [Way::Out, Way::In] {
            wait_for(&format!("{flow} {way:?} on {uplink}"), PATIENCE, || {
                let now = lab.observatory.uplink(&flow, way);
                (now.as_deref() == Some(uplink)).then_some(())
            })
            .unwrap_or_else(|error| panic!("{error:#}: {}", lab.mobile().story()));
        }
        probe.wait_for_echo_after(probe.mark() + 200, PATIENCE).unwrap();
    };
    on("wlan0");
    wait_for("figures of both links", PATIENCE, || {
        let status = lab.mobile().status().unwrap();
        status.links.iter().all(|link| link.jitter_ms.is_some()).then_some(())
    })
    .unwrap();
    let mark = probe.mark();
    for _ in 0..times {
        lab.mobile().mtun_ok(&["link", "drain", "wlan0"]).unwrap();
        on("wwan0");
        lab.mobile().mtun_ok(&["link", "release", "wlan0"]).unwrap();
        on("wlan0");
    }
    let tally = probe.tally_since(mark);
    lab.assert_clean();
    tally
}

/// F-01: a stream without a pause is moved at the latest 2 s after the change. It loses nothing; how
/// much of it is overtaken by what takes the faster path is measured by `benches/links`.
#[test]
fn a_stream_without_pauses_loses_nothing() {
    need_lab!();
    let tally = walk(None, 3);
    for (way, tally) in [("out", tally.outbound), ("back", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {tally:?}");
    }
}

/// F-01: one that pauses is moved in a pause.
#[test]
fn a_stream_with_pauses_loses_nothing_either() {
    need_lab!();
    let tally = walk(Some((60, Duration::from_millis(150))), 3);
    for (way, tally) in [("out", tally.outbound), ("back", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {tally:?}");
    }
}
