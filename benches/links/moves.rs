//! Planned moves between a path of 5 ms and one of 40 ms, by an operator's word.

use std::time::Duration;

use anyhow::Result;
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{INTERVAL, Talk};
use mtun::lab::wire::Impairment;
use mtun::lab::world::Plan;

use crate::rig::{PATIENCE, Rig, goal};

const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(40);

/// What became of the packets of some moves, both ways.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    moves: u32,
    lost: u64,
    duplicated: u64,
    reordered: u64,
}

impl Cost {
    fn reordered_a_move(&self) -> f64 {
        self.reordered as f64 / f64::from(self.moves.max(1))
    }
}

/// F-01: of streams with pauses between words, and of one that has none.
pub fn planned(moves: u32) -> Result<()> {
    let spoken = Talk { interval: INTERVAL, pauses: Some((60, Duration::from_millis(150))) };
    let endless = Talk { interval: INTERVAL, pauses: None };
    let usual = PolicyText::default();
    let at_once = usual
        .clone()
        .with_rule("probe", "match proto=udp dport=4000\n sticky none\n prefer wlan0 wwan0");
    let few = (moves / 20).max(2);
    let immediate = moved((FAST, SLOW), spoken, &at_once, few)?;
    let planned = moved((FAST, SLOW), spoken, &usual, moves)?;
    let without_pauses = moved((FAST, SLOW), endless, &usual, few)?;
    let equal = moved((FAST, FAST), spoken, &usual, few)?;
    for (what, cost) in [
        ("moved at once", immediate),
        ("planned, with pauses", planned),
        ("planned, without a pause", without_pauses),
        ("planned, equal paths", equal),
    ] {
        println!("# {what}: {cost:?}, {:.2} reordered a move", cost.reordered_a_move());
    }
    let all = [planned, without_pauses, equal];
    let sum = |of: fn(&Cost) -> u64| all.iter().map(of).sum::<u64>() as f64;
    goal("planned-moves-lost", sum(|it| it.lost), 0.0);
    goal("planned-moves-duplicated", sum(|it| it.duplicated), 0.0);
    let share = planned.reordered_a_move() / immediate.reordered_a_move().max(f64::MIN_POSITIVE);
    goal("planned-moves-reordered-share-of-immediate", share, 0.01);
    goal("planned-moves-reordered-equal-delay", equal.reordered as f64, 0.0);
    // A stream without a pause is moved after two seconds all the same: what is under way by the
    // slower path is overtaken, both ways on one of two moves.
    let bound = (SLOW - FAST).as_secs_f64() / INTERVAL.as_secs_f64();
    goal("moves-without-pause-reordered-a-move", without_pauses.reordered_a_move(), bound);
    Ok(())
}

/// Moves a stream to and fro between paths of these delays.
fn moved(
    (wlan, wwan): (Duration, Duration),
    talk: Talk,
    text: &PolicyText,
    moves: u32,
) -> Result<Cost> {
    let plan = Plan {
        wlan_path: Impairment::delayed(wlan),
        wwan_path: Impairment::delayed(wwan),
        ..Plan::default()
    };
    let rig = Rig::start(plan, text, &["wlan0", "wwan0"])?;
    let (flow, probe) = rig.stream(talk)?;
    rig.on(&flow, "wlan0")?;
    // So that both links have figures.
    probe.wait_for_echo_after(probe.mark() + 2000, PATIENCE)?;
    let mark = probe.mark();
    for _ in 0..moves.div_ceil(2) {
        rig.mobile.mtun_ok(&["link", "drain", "wlan0"])?;
        rig.on(&flow, "wwan0")?;
        probe.wait_for_echo_after(probe.mark() + 60, PATIENCE)?;
        rig.mobile.mtun_ok(&["link", "release", "wlan0"])?;
        rig.on(&flow, "wlan0")?;
        probe.wait_for_echo_after(probe.mark() + 60, PATIENCE)?;
    }
    let tally = probe.tally_since(mark);
    let both = [tally.outbound, tally.inbound];
    let sum = |of: fn(&mtun::lab::tally::Tally) -> u64| both.iter().map(of).sum::<u64>();
    Ok(Cost {
        moves: moves.div_ceil(2) * 2,
        lost: sum(|it| it.lost),
        duplicated: sum(|it| it.duplicated),
        reordered: sum(|it| it.reordered),
    })
}
