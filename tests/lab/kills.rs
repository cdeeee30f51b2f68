//! The home agent killed again and again, at random moments, under a steady load of Binding
//! Updates: nothing that it acknowledged is lost, and nothing works twice.

use std::time::{Duration, Instant};

use mtun::lab::daemons::{Arguments, Daemon, Side, write_keys};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World};

use crate::fixture::programs;
use crate::fleet::{Fleet, MOBILES, home};
use crate::need_lab;

/// req PS-01, PS-02, PS-06, F-05. `MTUN_KILLS=1000` is the long run.
#[test]
fn killed_at_any_moment_the_agent_loses_nothing_that_it_acknowledged() {
    need_lab!();
    let kills = std::env::var("MTUN_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(12);
    let mut text = PolicyText::default();
    // A virtual home link: nobody to ask whether an address is taken.
    let allow: String = (0..MOBILES)
        .map(|mobile| format!("    allow \"{}\" {{ security \"acme-sa\"; }}\n", home(mobile).0))
        .collect();
    text.agent = text.agent.replace(" on=home0", "");
    let marker = "    allow \"2001:db8:100::43\"";
    assert!(text.agent.contains(marker));
    text.agent = text.agent.replace(marker, &format!("{allow}{marker}"));
    let world = World::build(Plan::default()).unwrap();
    write_keys(&world).unwrap();
    let start =
        || Daemon::start(&world, &programs(), Side::Agent, &text, &Arguments::default()).unwrap();
    let mut fleet = Fleet::new(&world);
    let mut agent = start();
    let mut moments = 1u64;
    for round in 0..kills {
        // Killed between 0 and 300 ms after the first acknowledgement of this run.
        moments = moments.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wait = Duration::from_micros((moments >> 33) % 300_000);
        let (before, patience) = (fleet.acknowledged, Instant::now());
        let mut first = None;
        fleet.run(|fleet| {
            assert!(patience.elapsed() < Duration::from_secs(30), "round {round}: no answer");
            if fleet.acknowledged > before {
                first.get_or_insert_with(Instant::now);
            }
            first.is_some_and(|at| at.elapsed() >= wait)
        });
        agent.process.kill().unwrap();
        fleet.listen();
        agent = start();
        fleet.check(&agent, round);
    }
    assert!(fleet.acknowledged > u64::from(kills), "{} acknowledged", fleet.acknowledged);
    assert_eq!(fleet.refused, 0, "nobody was refused for what the agent forgot");
    println!("{kills} kills: {} updates acknowledged, 0 lost", fleet.acknowledged);
    // HA-16 (RFC 6275 §10.3.1): where bindings are kept nobody is advised to refresh early.
    assert!(!fleet.advised);
    // What was recorded long ago does not work now, and changes nothing.
    let held = agent.status().unwrap().mobiles;
    for packet in fleet.recorded.values() {
        fleet.uplink.send(packet).unwrap();
    }
    let refused = mtun::lab::namespace::wait_for("refusals", Duration::from_secs(20), || {
        fleet.listen();
        (fleet.refused > 0).then_some(())
    });
    refused.unwrap();
    let after = agent.status().unwrap().mobiles;
    let addresses = |mobiles: &[mtun::control::documents::MobileDocument]| {
        let all = mobiles.iter().flat_map(|it| it.bindings.iter().map(|it| it.care_of));
        all.collect::<Vec<_>>()
    };
    assert_eq!(addresses(&after), addresses(&held));
}
