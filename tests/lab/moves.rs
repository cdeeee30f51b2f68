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
/// one. What became of its packets, and by how much the wires were late at most.
fn walk(pauses: Option<(u32, Duration)>, times: u32) -> (TwoWay, Duration) {
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
    let wires = [lab.world.wlan_wire(), lab.world.wwan_wire().unwrap()];
    for wire in wires {
        let _ = wire.lateness();
    }
    let mark = probe.mark();
    for _ in 0..times {
        lab.mobile().mtun_ok(&["link", "drain", "wlan0"]).unwrap();
        on("wwan0");
        lab.mobile().mtun_ok(&["link", "release", "wlan0"]).unwrap();
        on("wlan0");
    }
    let tally = probe.tally_since(mark);
    lab.assert_clean();
    (tally, wires.iter().map(|wire| wire.lateness()).sum())
}

/// F-01: a stream without a pause is moved at the latest 2 s after the change. It loses nothing, and
/// what is overtaken is what was under way by the slower path, once each way back.
#[test]
fn a_stream_without_pauses_loses_nothing_and_is_overtaken_by_a_bounded_number() {
    need_lab!();
    let times = 3;
    let (tally, late) = walk(None, times);
    let under_way = (SLOW - FAST + late).as_micros().div_ceil(INTERVAL.as_micros()) as u64;
    // One more for the packet between, and one for the clock's tick.
    let bound = u64::from(times) * (under_way + 2);
    for (way, tally) in [("out", tally.outbound), ("back", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {tally:?}");
        assert!(tally.reordered <= bound, "{way}: {tally:?}, {bound} at most, wires {late:?} late");
    }
}

/// F-01: one that pauses is moved in a pause.
#[test]
fn a_stream_with_pauses_loses_nothing_either() {
    need_lab!();
    let (tally, _) = walk(Some((60, Duration::from_millis(150))), 3);
    for (way, tally) in [("out", tally.outbound), ("back", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {tally:?}");
    }
}
