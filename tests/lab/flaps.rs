//! A plug that is loose: carrier that comes and goes fifty times a second.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtun::control::documents::{LinkDocument, LinkState};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::{Name, Origin};
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

/// Half a period.
const HALF: Duration = Duration::from_millis(10);

fn link(lab: &Lab, name: &str) -> LinkDocument {
    let status = lab.mobile().status().unwrap();
    status.links.into_iter().find(|it| it.interface.as_str() == name).unwrap()
}

/// F-08, MN-37: the agent hears of it a few times, people are told why the link is not used, the
/// other link loses nothing, and once the plug holds the link is used again.
#[test]
fn a_link_that_flaps_is_left_alone_until_it_stays() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let probe = traffic.keys().into_iter().find(|(name, ..)| *name == Name::Probe).unwrap().2;
    lab.observatory.follow(&probe);
    let mark = traffic.mark();
    let known = lab.observatory.updates().len();
    let wire = lab.world.wwan_wire().unwrap();

    let flaps = AtomicU32::new(0);
    let watched = std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let found = wait_for("the link to be watched", PATIENCE, || {
                let link = link(&lab, "wwan0");
                let why = link.reason.unwrap_or_default();
                (link.state == LinkState::Down && why.contains("comes and goes")).then_some(())
            });
            found.and(wait_for("a hundred flaps", PATIENCE, || {
                (flaps.load(Ordering::Relaxed) >= 100).then_some(())
            }))
        });
        while !watched.is_finished() {
            wire.set_carrier(false).unwrap();
            std::thread::sleep(HALF);
            wire.set_carrier(true).unwrap();
            std::thread::sleep(HALF);
            flaps.fetch_add(1, Ordering::Relaxed);
        }
        watched.join().unwrap()
    });
    watched.unwrap_or_else(|error| panic!("{error:#}: {}", lab.mobile().story()));
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    assert_alive(&traffic);
    assert_lossless(&traffic, &mark, "the other link");

    let updates = lab.observatory.updates().split_off(known);
    // One may have been under way for a little longer than another, as a loaded machine has it.
    let in_a_second =
        |from: &u64| updates.iter().filter(|at| (*from..*from + 950_000_000).contains(*at)).count();
    let most = updates.iter().map(in_a_second).max().unwrap_or(0);
    assert!(most <= 3, "{most} Binding Updates in a second: {updates:?}");
    // Falls are counted while it is not used, too; nobody's else are.
    let (fell, other) = (link(&lab, "wwan0").flaps, link(&lab, "wlan0").flaps);
    assert!(fell > 3 && other == 0, "{fell} and {other}");
    let figures = Lab::metrics(lab.mobile()).links;
    let counted = figures.iter().find(|it| it.link.as_str() == "wwan0").and_then(|it| it.flaps);
    assert!(counted >= Some(fell), "{counted:?}");
    let story = lab.mobile().story();
    assert!(story.contains("comes and goes: it is used once it stays"), "{story}");
    lab.assert_clean();
}

/// With the loose plug as the only link packets are lost, and it is bound again once it holds.
#[test]
fn the_only_link_is_bound_again_once_it_stays() {
    need_lab!();
    let lab = Lab::start(Plan { wlan: false, ..Plan::default() }, PolicyText::default());
    lab.registered(&["wwan0"]);
    let traffic = mtun::lab::traffic::Traffic::start(&lab.world, PATIENCE).unwrap();
    let all = |_: Name, _: Origin| "wwan0";
    lab.settled(&traffic, all);
    let wire = lab.world.wwan_wire().unwrap();
    for _ in 0..50 {
        wire.set_carrier(false).unwrap();
        std::thread::sleep(HALF);
        wire.set_carrier(true).unwrap();
        std::thread::sleep(HALF);
    }
    lab.registered(&["wwan0"]);
    lab.settled(&traffic, all);
    assert_alive(&traffic);
    lab.assert_clean();
}
