//! F-04: registration over a link that loses, doubles and delays messages at random, one way or both.
//!
//! `MTUN_SEEDS=100000 cargo test -p mtun-signaling --test lossy -- --nocapture` is the long run.

mod scene;

use std::time::Duration;

use mtun_signaling::{HomeAgent, MobileEvent, MobileNode};
use scene::world::World;
use scene::{EPOCH, agent_config, at, bid, care_of, home, mobile_config};

/// Numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// What becomes of one message: 30 % are lost, 10 % come twice, and each takes up to 50 ms more than
/// another, so that they overtake each other.
fn fate(random: &mut Random) -> Vec<Duration> {
    let mut delay = || Duration::from_millis(10 + random.below(50));
    let both = [delay(), delay()];
    match random.below(100) {
        0..30 => Vec::new(),
        30..40 => both.to_vec(),
        _ => both[..1].to_vec(),
    }
}

/// One life: when both uplinks were registered, and whether both ends hold the same in the end.
fn life(seed: u64) -> (Option<Duration>, bool) {
    let mut random = Random(seed);
    let mut lossy = move || fate(&mut random);
    let (mobile, agent) = (
        MobileNode::new(mobile_config(), at(Duration::ZERO, EPOCH)),
        HomeAgent::new(agent_config()),
    );
    let mut world = World::new(Some(mobile), Some(agent), EPOCH);
    for (number, address) in [(1, "2001:db8:1::7"), (2, "2001:db8:2::7")] {
        let care_of = care_of(address);
        let up = MobileEvent::CareOfUp { bid: bid(number), priority: 10, care_of };
        world.mobile_event(up, &mut lossy);
    }
    let mut registered = None;
    for tenth in 1..=1200_u32 {
        world.run_until(Duration::from_millis(100) * tenth, &mut lossy);
        let list = world.mobile.as_ref().expect("awake").update_list();
        let all = list.entries.len() == 2 && list.entries.iter().all(|it| it.is_registered());
        if all && registered.is_none() {
            registered = Some(world.now);
        }
    }
    let entries = world.mobile.as_ref().expect("awake").update_list().entries;
    let mut told: Vec<_> = entries.iter().map(|entry| (Some(entry.bid), entry.care_of)).collect();
    let agent = world.agent.as_ref().expect("awake");
    let held = agent.cache().get(home()).map(|it| it.bindings.clone()).unwrap_or_default();
    let mut held: Vec<_> = held.iter().map(|it| (it.bid, it.care_of)).collect();
    told.sort();
    held.sort();
    (registered, told == held)
}

#[test]
fn registration_gets_through() {
    let seeds = std::env::var("MTUN_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let seeds: u64 = seeds.unwrap_or(1000);
    let mut times = Vec::new();
    for seed in 0..seeds {
        let (registered, same) = life(seed);
        assert!(same, "seed {seed}: both ends hold the same after two minutes");
        // The pauses between requests double (RFC 6275 §11.8): one life in a thousand takes longer.
        times.push(registered.unwrap_or(Duration::from_secs(120)));
    }
    let late = times.iter().filter(|time| **time > Duration::from_secs(32)).count();
    times.sort();
    let of = |share: usize| times[(times.len() * share / 10_000).min(times.len() - 1)];
    println!(
        "{seeds} lives: half are registered after {:?}, 99 % after {:?}, {late} later than 32 s",
        of(5000),
        of(9900)
    );
}
