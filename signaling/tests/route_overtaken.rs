//! Two updates to a correspondent on their way at a time, each of which replaces everything.

mod scene;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use mtun_signaling::{Pair, RouteOptimizationEvent};
use scene::route::{CORRESPONDENT, correspondent_config, optimizer_config};
use scene::route_world::RouteWorld;
use scene::{address, bid, care_of, home};

/// MC-22: what the first one registered is ended by the second, and its acknowledgement is read
/// after that. At no moment may packets go straight that the correspondent would refuse.
#[test]
fn an_acknowledgement_that_a_later_update_made_void_opens_no_route() {
    let delay = Rc::new(Cell::new(20));
    let fate = Rc::clone(&delay);
    let mut world = RouteWorld::new(Box::new(move || vec![Duration::from_millis(fate.get())]));
    world.start_correspondent(&correspondent_config());
    world.start_optimizer(&optimizer_config());
    for number in [1, 2] {
        world.optimizer_event(RouteOptimizationEvent::CareOf {
            bid: bid(number),
            priority: 10,
            care_of: care_of(&format!("2001:db8:{number}::7")),
            expires: Duration::from_secs(1_000_000),
        });
    }
    let correspondent = address(CORRESPONDENT);
    world.optimizer_event(RouteOptimizationEvent::Wanted { correspondent });
    // The tests are quick; what follows them takes so long that the second update leaves before
    // the first one is acknowledged.
    world.run_until(Duration::from_millis(30));
    delay.set(1_200);
    let pair = Pair { correspondent, home_address: home() };
    let mut both = false;
    for step in 1..4_000 {
        world.run_until(Duration::from_millis(30 + 10 * step));
        let held = world.correspondent.as_ref().and_then(|it| it.get(pair));
        let held: Vec<_> = held.map_or(Vec::new(), |entry| {
            entry.bindings.iter().map(|it| (it.bid, it.care_of)).collect()
        });
        let bound: Vec<_> =
            world.optimizer.iter().flat_map(|optimizer| optimizer.bindings()).collect();
        for binding in &bound {
            let here = (Some(binding.bid), binding.care_of.into());
            assert!(held.contains(&here), "{:?}: {bound:?} and {held:?}", world.now);
        }
        both |= bound.len() == 2;
    }
    assert!(both, "{:#?}", world.trace);
}
