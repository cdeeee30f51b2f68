//! Links that die without a word, and links that only lose packets.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use mtun::control::client::Client;
use mtun::control::documents::{Event, LinkState};
use mtun::lab::namespace::{pause, wait_for};
use mtun::lab::observe::Way;
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{INTERVAL, Talk};
use mtun::lab::world::Plan;

use crate::rig::{PATIENCE, Rig, goal, p99, progress, side_by_side};

#[path = "../../policy/tests/support/lines.rs"]
mod lines;

/// F-03: 24 simulated hours at 5 % loss each way, traffic on one link of three.
pub fn a_day_of_losses() {
    let mut world = lines::World::new(3);
    world.keeps_sent = false;
    world.lines[0].flows = true;
    world.lines.iter_mut().for_each(|line| line.loss = 500);
    world.pass(Duration::from_secs(24 * 3600));
    let counts = world.prober.counts(lines::bid(1));
    let down = world.notices.iter().filter(|it| it.2.word() == "down").count();
    println!(
        "# 24 simulated hours: {} probes by the link with traffic, {} lost",
        counts.sent, counts.lost
    );
    goal("false-failovers-in-24-hours", down as f64, 0.0);
}

/// What some deaths took, in milliseconds.
#[derive(Debug, Default)]
struct Deaths {
    detected: Vec<f64>,
    moved: Vec<f64>,
    gaps: Vec<f64>,
}

/// F-03: the link that a stream is on loses everything, at any moment between two probes, 200 ms
/// apart. The stream stays where it went, so that the other link dies next.
pub fn deaths(runs: u32) -> Result<()> {
    let mut all = Deaths::default();
    for some in side_by_side(runs, in_one_world)? {
        all.detected.extend(some.detected);
        all.moved.extend(some.moved);
        all.gaps.extend(some.gaps);
    }
    println!(
        "# silent deaths: {runs}, at 200 ms probes; longest gap out p99 {:.1} ms",
        p99(all.gaps)
    );
    goal("silent-death-detected-p99-ms", p99(all.detected), 700.0);
    // Events are told to the millisecond.
    goal("silent-death-moved-p99-ms", p99(all.moved), 20.0);
    Ok(())
}

fn in_one_world(world: u32, runs: u32) -> Result<Deaths> {
    let says = "match proto=udp dport=4000\n failback never\n prefer wlan0 wwan0";
    let text = PolicyText::default().with_rule("probe", says);
    let rig = Rig::start(Plan::default(), &text, &["wlan0", "wwan0"])?;
    let (flow, probe) = rig.stream(Talk { interval: INTERVAL * 2, pauses: None })?;
    rig.on(&flow, "wlan0")?;
    rig.observatory.follow(&flow);
    let events = link_states(&rig)?;
    let mut deaths = Deaths::default();
    for run in 0..runs {
        progress("deaths", world, run, runs);
        let (dying, other) = match run % 2 {
            0 => ("wlan0", "wwan0"),
            _ => ("wwan0", "wlan0"),
        };
        let wire = match dying {
            "wlan0" => rig.world.wlan_wire(),
            _ => rig.world.wwan_wire().context("the plan has it")?,
        };
        // Until the other one is used again, and its figures are those of a life of its own.
        wait_for(&format!("{other} to be up"), PATIENCE, || {
            let status = rig.mobile.status().ok()?;
            let link = status.links.into_iter().find(|it| it.interface.as_str() == other)?;
            (link.state == LinkState::Up).then_some(())
        })?;
        pause(Duration::from_millis(u64::from(600 + (world * 53 + run * 37) % 200)))?;
        rig.observatory.take_trail(&flow, Way::Out);
        while events.try_recv().is_ok() {}
        let mark = probe.mark();
        let cut = wall_ms();
        wire.set_both(|it| it.cut = true);
        let told = death_of(dying, &events)?;
        rig.on(&flow, other)?;
        let trail = rig.observatory.take_trail(&flow, Way::Out);
        let first = trail.iter().find(|it| it.uplink == other).context("no packet by the other")?;
        deaths.detected.push(told as f64 - cut);
        deaths.moved.push((first.at as f64 / 1e6 - told as f64).max(0.0));
        probe.wait_for_echo_after(probe.mark() + 20, PATIENCE)?;
        deaths.gaps.push(probe.tally_since(mark).outbound.longest_gap_ms);
        wire.set_both(|it| it.cut = false);
    }
    Ok(deaths)
}

/// Links that went down, and when, in milliseconds of the day's clock.
fn link_states(rig: &Rig) -> Result<mpsc::Receiver<(String, u64)>> {
    let (tell, events) = mpsc::channel();
    let monitor = Client::connect(rig.mobile.socket())?.monitor()?;
    std::thread::spawn(move || {
        for event in monitor.flatten() {
            if let Event::LinkState { link, to, .. } = &event.event
                && to == "down"
                && tell.send((link.to_string(), event.time_ms)).is_err()
            {
                return;
            }
        }
    });
    Ok(events)
}

/// When somebody said that this link is dead.
fn death_of(dying: &str, events: &mpsc::Receiver<(String, u64)>) -> Result<u64> {
    wait_for(&format!("somebody to say that {dying} is dead"), PATIENCE, || {
        let (link, at) = events.try_recv().ok()?;
        (link == dying).then_some(at)
    })
}

fn wall_ms() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64() * 1e3
}
