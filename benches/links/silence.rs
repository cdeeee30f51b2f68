//! Links that die without a word, and links that only lose packets.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use mtun::control::client::Client;
use mtun::control::documents::Event;
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::Way;
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{INTERVAL, Talk};
use mtun::lab::world::Plan;

use crate::rig::{PATIENCE, Rig, goal, p99};

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

/// F-03: the WLAN loses everything, at any moment between two probes, 200 ms apart.
pub fn deaths(runs: u32) -> Result<()> {
    let rig = Rig::start(Plan::default(), &PolicyText::default(), &["wlan0", "wwan0"])?;
    let (flow, probe) = rig.stream(Talk { interval: INTERVAL, pauses: None })?;
    rig.on(&flow, "wlan0")?;
    rig.observatory.follow(&flow);
    let (tell, events) = mpsc::channel();
    let monitor = Client::connect(rig.mobile.socket())?.monitor()?;
    std::thread::spawn(move || {
        for event in monitor.flatten() {
            if let Event::LinkState { link, to, .. } = &event.event
                && link.as_str() == "wlan0"
                && to == "down"
                && tell.send(event.time_ms).is_err()
            {
                return;
            }
        }
    });
    let (mut detected, mut moved, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        // Figures of both links, so that probes are waited for as long as usual.
        probe.wait_for_echo_after(probe.mark() + 1500 + run * 37 % 200, PATIENCE)?;
        rig.observatory.take_trail(&flow, Way::Out);
        let mark = probe.mark();
        let cut = wall_ms();
        rig.world.wlan_wire().set_both(|it| it.cut = true);
        let told = events.recv_timeout(PATIENCE).context("nobody said that the WLAN is dead")?;
        rig.on(&flow, "wwan0")?;
        let trail = rig.observatory.take_trail(&flow, Way::Out);
        let first =
            trail.iter().find(|it| it.uplink == "wwan0").context("no packet by the other")?;
        detected.push(told as f64 - cut);
        moved.push((first.at as f64 / 1e6 - told as f64).max(0.0));
        probe.wait_for_echo_after(probe.mark() + 50, PATIENCE)?;
        gaps.push(probe.tally_since(mark).outbound.longest_gap_ms);
        rig.world.wlan_wire().set_both(|it| it.cut = false);
        wait_for("the WLAN to be used again", PATIENCE, || {
            (rig.observatory.uplink(&flow, Way::Out).as_deref() == Some("wlan0")).then_some(())
        })?;
        rig.on(&flow, "wlan0")?;
    }
    println!("# silent deaths: {runs}, at 200 ms probes; longest gap out p99 {:.1} ms", p99(gaps));
    goal("silent-death-detected-p99-ms", p99(detected), 700.0);
    // Events are told to the millisecond.
    goal("silent-death-moved-p99-ms", p99(moved), 20.0);
    Ok(())
}

fn wall_ms() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64() * 1e3
}
