//! When links are asked whether they live, and what their silence means, under a virtual clock.

#[path = "support/lines.rs"]
mod lines;

use std::time::Duration;

use lines::{Agent, TEXT, World, bid};
use mtun_policy::probing::{Order, PROBE_OCTETS, Prober};
use mtun_policy::steering::{LinkReason, LinkState};
use mtun_policy::{CareOfAddress, NoFiles, parse};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn links_are_probed_as_often_as_they_are_needed() {
    let mut world = World::new(3);
    world.lines[2].flows = true;
    world.pass(Duration::from_secs(40));
    assert!(world.pauses(1).iter().all(|pause| *pause == 1000), "it stands by");
    assert_eq!(world.pauses(2), [10_000, 10_000, 10_000], "it stands by and is metered");
    let pauses = world.pauses(3);
    assert!(pauses[1..].iter().all(|pause| *pause == 200), "it carries traffic: {pauses:?}");
    let measured = world.steering.links()[0].measured;
    assert_eq!(measured.rtt, Some(ms(20)));
    assert_eq!(measured.loss, Some(mtun_policy::Ratio(0)));
    assert!(measured.jitter < Some(ms(1)) && measured.rtt_p95 == Some(ms(20)));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
}

#[test]
fn probes_take_a_thousandth_of_a_rate_that_is_known() {
    let slow = TEXT.replace("bid 1;", "bid 1; rate \"64kbit/s\";");
    let Ok(policy) = parse("laptop.kdl", &slow, &NoFiles) else { panic!("rate") };
    let mut prober = Prober::new(&policy, &policy.homes[0]);
    let care_of = "2001:db8:1::7".parse().map(CareOfAddress).ok();
    prober.bound(ms(0), bid(1), care_of);
    let mut sent = 0_u64;
    let hour = Duration::from_secs(3600);
    while let Some(now) = prober.deadline().filter(|at| *at < hour) {
        prober.flowed(now, bid(1));
        prober.handle_deadline(now);
        let mut sequences = Vec::new();
        while let Some(order) = prober.poll() {
            if let Order::Send { sequence, .. } = order {
                sequences.push(sequence);
            }
        }
        for sequence in sequences {
            sent += 1;
            prober.answered(now + ms(30), bid(1), sequence, Some(bid(1)));
        }
    }
    let share = sent * u64::from(PROBE_OCTETS) * 8 * 1000 / (64_000 * 3600);
    assert!(sent > 200 && share <= 1, "{sent} probes are {share} thousandths");
}

#[test]
fn a_link_that_dies_silently_is_known_within_the_time_that_was_promised() {
    for (up, down, what) in
        [(false, false, "both ways"), (false, true, "up"), (true, false, "down")]
    {
        for phase in 0..40 {
            let mut world = World::new(3);
            world.lines[0].flows = true;
            world.lines[0].trip = ms(40);
            world.pass(Duration::from_secs(5) + ms(phase * 5));
            (world.lines[0].up, world.lines[0].down) = (up, down);
            let died = world.now;
            world.pass(ms(700));
            let [(at, of, LinkState::Down, LinkReason::Bad(cause))] = &world.notices[..] else {
                panic!("{what}, {phase}: {:?}", world.notices);
            };
            assert_eq!((*of, *cause), (bid(1), mtun_policy::steering::Cause::ProbesLost));
            assert!(*at - died <= ms(700), "{what}, {phase}: {:?}", *at - died);
            assert!(!world.steering.usable(bid(1)) && world.steering.usable(bid(2)));
        }
    }
}

#[test]
fn it_is_used_again_after_its_hold_and_its_losses_are_forgotten() {
    let mut world = World::new(3);
    world.lines[0].up = false;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.words(), [(1, "down")]);
    world.lines[0].up = true;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.state(1).0.word(), "recovering");
    world.pass(Duration::from_secs(31));
    assert_eq!(world.words(), [(1, "down"), (1, "recovering"), (1, "up")]);
    assert_eq!(world.steering.links()[0].measured.loss, Some(mtun_policy::Ratio(0)));
}

#[test]
fn the_last_link_is_degraded_and_stays() {
    let mut world = World::new(1);
    world.lines[0].down = false;
    world.pass(Duration::from_secs(5));
    let (state, reason) = world.state(1);
    let cause = mtun_policy::steering::Cause::ProbesLost;
    assert_eq!((state, reason), (LinkState::Degraded, LinkReason::LastLink(cause)));
    assert!(world.steering.usable(bid(1)), "packets still try");
    world.lines[0].down = true;
    world.pass(Duration::from_secs(40));
    assert_eq!(world.state(1).0, LinkState::Up);
}

#[test]
fn one_after_the_other_dies_and_the_last_one_is_kept() {
    let mut world = World::new(2);
    world.lines[0].up = false;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.words(), [(1, "down")]);
    world.lines[1].up = false;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.words()[1..], [(2, "degraded")]);
    assert!(world.steering.usable(bid(2)) && !world.steering.usable(bid(1)));
}

#[test]
fn an_agent_that_is_away_is_no_fault_of_the_links() {
    let mut world = World::new(3);
    world.lines[0].flows = true;
    world.agent = Agent::Away;
    world.pass(Duration::from_secs(120));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
    world.agent = Agent::There;
    world.pass(Duration::from_secs(20));
    assert!(world.notices.is_empty(), "and nothing has to recover: {:?}", world.notices);
    // Whoever stays silent when the agent is back is dead.
    world.agent = Agent::Away;
    world.pass(Duration::from_secs(20));
    world.agent = Agent::There;
    world.lines[0].up = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.words(), [(1, "down")]);
}

/// What arrives at it late by one link arrived early by another; when it is stopped for a while, all
/// that waits for it is answered, only the faster link's first.
#[test]
fn an_agent_that_stops_is_no_fault_of_the_slower_link() {
    for what in [Agent::Away, Agent::Stopped] {
        for phase in 0..200 {
            let mut world = World::new(2);
            (world.lines[0].trip, world.lines[1].trip) = (ms(10), ms(80));
            world.lines.iter_mut().for_each(|line| line.flows = true);
            world.pass(Duration::from_secs(5) + ms(phase));
            world.agent = what;
            world.pass(ms(1000 + phase * 7));
            world.agent = Agent::There;
            world.pass(Duration::from_secs(5));
            assert!(world.notices.is_empty(), "{what:?}, {phase}: {:?}", world.notices);
        }
    }
}

#[test]
fn who_never_answers_probes_is_not_dead() {
    let mut world = World::new(2);
    world.lines[1].up = false;
    // Another binding, by which nobody ever answered.
    let care_of = "2001:db8:9::7".parse().map(CareOfAddress).ok();
    world.prober.bound(world.now, bid(2), care_of);
    world.pass(Duration::from_secs(300));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
    assert!(world.prober.counts(bid(2)).lost > 10);
}

/// F-03: a day at 5 % loss each way, with traffic on one link.
#[test]
fn random_losses_are_no_death() {
    let mut world = World::new(2);
    world.keeps_sent = false;
    world.lines[0].flows = true;
    for line in &mut world.lines {
        line.loss = 500;
    }
    world.pass(Duration::from_secs(24 * 3600));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
    let counts = world.prober.counts(bid(1));
    assert!(counts.lost > 36_000 && counts.answered > 360_000, "{counts:?}");
    let loss = world.steering.links()[0].measured.loss.expect("it is measured");
    assert!((100..=2_500).contains(&loss.0), "about 9.75 % both ways: {loss}");
}

#[test]
fn an_answer_that_is_late_is_an_answer() {
    let mut world = World::new(2);
    world.lines[0].flows = true;
    world.pass(Duration::from_secs(5));
    // A queue fills up: the round trip grows twentyfold at once.
    world.lines[0].trip = ms(400);
    world.pass(Duration::from_secs(60));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
    assert!(world.prober.counts(bid(1)).late > 0);
    let rtt = world.steering.links()[0].measured.rtt;
    assert!(rtt > Some(ms(390)), "{rtt:?}");
}

/// The node was suspended, or had no time for its machines.
#[test]
fn who_was_late_himself_accuses_nobody() {
    let mut world = World::new(2);
    world.lines[0].flows = true;
    world.pass(Duration::from_secs(5));
    for sleep in [ms(700), ms(5_000), Duration::from_secs(3600)] {
        world.now += sleep;
        // What came meanwhile is heard after what is due.
        world.prober.handle_deadline(world.now);
        world.pass(Duration::from_secs(5));
        assert!(world.notices.is_empty(), "{sleep:?}: {:?}", world.notices);
    }
}

#[test]
fn an_agent_with_one_way_down_for_all() {
    // Answers to all come by the first link.
    let build = || {
        let mut world = World::new(3);
        world.lines[0].flows = true;
        world.lines.iter_mut().for_each(|line| line.by = 1);
        world.pass(Duration::from_secs(30));
        world
    };
    // That link's way down dies, and all are silent: it is that link.
    let mut world = build();
    world.lines[0].down = false;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.words(), [(1, "down")]);
    // Another's way up dies: it is that one.
    let mut world = build();
    world.lines[2].up = false;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.words(), [(3, "down")]);
}

#[test]
fn another_care_of_address_is_another_path() {
    let mut world = World::new(2);
    world.pass(Duration::from_secs(5));
    let care_of = "2001:db8:9::7".parse().map(CareOfAddress).ok();
    world.prober.bound(world.now, bid(1), care_of);
    assert_eq!(world.prober.deadline(), Some(world.now), "asked at once");
    world.sent.clear();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.pauses(1)[..2], [200, 200], "and three times, so that there are figures");
    world.prober.bound(world.now, bid(1), None);
    world.sent.clear();
    world.pass(Duration::from_secs(5));
    assert!(world.sent.iter().all(|it| it.1 == bid(2)), "nothing is sent by what is not bound");
}
