//! F-09: clocks of the day that are set, and machines that sleep. Time as the machines are told it
//! goes on in a sleep, as the daemon's clock does.

mod scene;

use std::time::Duration;

use mtun_signaling::{HomeAgent, MobileEvent, MobileNode};
use scene::world::World;
use scene::{EPOCH, agent_config, at, bid, care_of, home, mobile_config};

const LIFETIME: u64 = 420;
const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 86_400;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every message arrives after 10 ms.
fn good() -> Vec<Duration> {
    vec![Duration::from_millis(10)]
}

/// A mobile with one uplink, registered since a moment.
fn registered() -> World {
    let (mobile, agent) = (
        MobileNode::new(mobile_config(), at(Duration::ZERO, EPOCH)),
        HomeAgent::new(agent_config()),
    );
    let mut world = World::new(Some(mobile), Some(agent), EPOCH);
    let up = MobileEvent::CareOfUp { bid: bid(1), priority: 10, care_of: care_of("2001:db8:1::7") };
    world.mobile_event(up, &mut good);
    world.run_until(seconds(10), &mut good);
    assert!(is_bound(&world) && is_registered(&world));
    world
}

/// Whether the agent holds the binding.
fn is_bound(world: &World) -> bool {
    world.agent.as_ref().expect("awake").cache().get(home()).is_some()
}

/// Whether the mobile thinks so.
fn is_registered(world: &World) -> bool {
    let list = world.mobile.as_ref().expect("awake").update_list();
    list.entries.iter().any(|entry| entry.is_registered())
}

#[test]
fn a_clock_that_is_set_moves_no_timer() {
    let life = |set: i64| {
        let mut world = registered();
        world.mobile_epoch = world.mobile_epoch.checked_add_signed(set).expect("after 1970");
        for second in 11..2000 {
            world.run_until(seconds(second), &mut good);
            assert!(is_bound(&world) && is_registered(&world), "set by {set}, at {second} s");
        }
        world.sent
    };
    let usual = life(0);
    assert!(usual.len() >= 5, "it refreshes: {usual:?}");
    for set in [HOUR, -HOUR, TEN_YEARS, -TEN_YEARS] {
        assert_eq!(life(set), usual, "set by {set} s");
    }
}

/// The mobile sleeps for less than its binding lives: nothing has to be made good. For longer: the
/// agent has forgotten it on time, and it knows that as soon as it is awake.
#[test]
fn a_mobile_that_slept_knows_what_is_over() {
    for (asleep, survives) in [(30, true), (HOUR as u64, false)] {
        let mut world = registered();
        let mobile = world.mobile.take();
        let end = seconds(10 + asleep);
        world.run_until(end, &mut good);
        assert_eq!(is_bound(&world), survives, "{asleep} s");
        world.mobile = mobile;
        let known = world.sent.len();
        world.run_until(end + Duration::from_millis(5), &mut good);
        assert_eq!(is_registered(&world), survives, "{asleep} s, before an answer could come");
        assert_eq!(world.sent.len() > known, !survives, "{asleep} s: it registers at once");
        world.run_until(end + seconds(1), &mut good);
        assert!(is_bound(&world) && is_registered(&world), "{asleep} s: bound again");
    }
}

/// The agent sleeps: no binding lives for longer than it was granted by that.
#[test]
fn an_agent_that_slept_keeps_nothing_for_longer() {
    let mut world = registered();
    let (agent, mobile) = (world.agent.take(), world.mobile.take());
    world.run_until(seconds(10 + LIFETIME), &mut good);
    world.agent = agent;
    world.run_until(seconds(10 + LIFETIME) + Duration::from_millis(1), &mut good);
    assert!(!is_bound(&world), "its lifetime was over in the sleep");
    world.mobile = mobile;
    world.run_until(seconds(15 + LIFETIME), &mut good);
    assert!(is_bound(&world) && is_registered(&world), "and it is bound again");
}
