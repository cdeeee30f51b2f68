//! Planned moves between a path of 5 ms and one of 40 ms, by an operator's word.

use std::time::Duration;

use anyhow::Result;
use mtun::lab::namespace::{pause, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{INTERVAL, Talk};
use mtun::lab::wire::Impairment;
use mtun::lab::world::Plan;

use crate::rig::{PATIENCE, Rig, goal, progress, side_by_side};

const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(40);

/// What became of the packets of some moves, both ways.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    moves: u32,
    lost: u64,
    duplicated: u64,
    /// Out and in.
    reordered: [u64; 2],
}

impl Cost {
    fn and(self, other: Self) -> Self {
        Self {
            moves: self.moves + other.moves,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: [0, 1].map(|way| self.reordered[way] + other.reordered[way]),
        }
    }

    fn reordered_a_move(&self) -> f64 {
        self.reordered.iter().sum::<u64>() as f64 / f64::from(self.moves.max(1))
    }
}

/// F-01: of streams with pauses between words, and of one that has none.
pub fn planned(moves: u32) -> Result<()> {
    let spoken = Talk { interval: INTERVAL * 2, pauses: Some((40, Duration::from_millis(120))) };
    let endless = Talk { interval: INTERVAL * 2, pauses: None };
    let usual = PolicyText::default();
    let at_once = usual
        .clone()
        .with_rule("probe", "match proto=udp dport=4000\n sticky none\n prefer wlan0 wwan0");
    let few = (moves / 20).max(2);
    // A stream without a pause is moved after two seconds each time.
    let fewer = (moves / 50).max(2);
    let several = |what: &str, paths, talk, text: &PolicyText, moves| -> Result<Cost> {
        let costs =
            side_by_side(moves, |world, share| moved(what, (world, share), paths, talk, text))?;
        let cost = costs.into_iter().fold(Cost::default(), Cost::and);
        println!("# {what}: {cost:?}, {:.2} reordered a move", cost.reordered_a_move());
        Ok(cost)
    };
    let immediate = several("moved at once", (FAST, SLOW), spoken, &at_once, few)?;
    let planned = several("planned, with pauses", (FAST, SLOW), spoken, &usual, moves)?;
    let without_pauses = several("planned, without a pause", (FAST, SLOW), endless, &usual, fewer)?;
    let equal = several("planned, equal paths", (FAST, FAST), spoken, &usual, few)?;
    let all = [planned, without_pauses, equal];
    let sum = |of: fn(&Cost) -> u64| all.iter().map(of).sum::<u64>() as f64;
    goal("planned-moves-lost", sum(|it| it.lost), 0.0);
    goal("planned-moves-duplicated", sum(|it| it.duplicated), 0.0);
    let share = planned.reordered_a_move() / immediate.reordered_a_move().max(f64::MIN_POSITIVE);
    goal("planned-moves-reordered-share-of-immediate", share, 0.01);
    goal("planned-moves-reordered-equal-delay", equal.reordered_a_move(), 0.0);
    // A stream without a pause is moved after two seconds all the same: what is under way by the
    // slower path is overtaken on one of two moves. Out once; what came there in another order is
    // answered in that order, and the answers are overtaken themselves.
    let bound = 1.5 * (SLOW - FAST).as_secs_f64() / endless.interval.as_secs_f64();
    goal("moves-without-pause-reordered-a-move", without_pauses.reordered_a_move(), bound);
    Ok(())
}

/// Moves a stream to and fro between paths of these delays, in one world of several.
fn moved(
    what: &str,
    (world, moves): (u32, u32),
    (wlan, wwan): (Duration, Duration),
    talk: Talk,
    text: &PolicyText,
) -> Result<Cost> {
    let plan = Plan {
        wlan_path: Impairment::delayed(wlan),
        wwan_path: Impairment::delayed(wwan),
        ..Plan::default()
    };
    let rig = Rig::start(plan, text, &["wlan0", "wwan0"])?;
    let (flow, probe) = rig.stream(talk)?;
    rig.on(&flow, "wlan0")?;
    wait_for("figures of both links", PATIENCE, || {
        let status = rig.mobile.status().ok()?;
        status.links.iter().all(|link| link.jitter_ms.is_some()).then_some(())
    })?;
    // Until the first, rough ones are smoothed.
    pause(Duration::from_secs(3))?;
    let mark = probe.mark();
    // The word comes at any moment, whatever the stream is at.
    let mut random = u64::from(world);
    let mut any_moment = || {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pause(Duration::from_micros((random >> 33) % 200_000))
    };
    for pair in 0..moves.div_ceil(2) {
        progress(what, world, pair * 2, moves);
        any_moment()?;
        rig.mobile.mtun_ok(&["link", "drain", "wlan0"])?;
        rig.on(&flow, "wwan0")?;
        probe.wait_for_echo_after(probe.mark() + 20, PATIENCE)?;
        any_moment()?;
        rig.mobile.mtun_ok(&["link", "release", "wlan0"])?;
        rig.on(&flow, "wlan0")?;
        probe.wait_for_echo_after(probe.mark() + 20, PATIENCE)?;
    }
    let tally = probe.tally_since(mark);
    let both = [tally.outbound, tally.inbound];
    let sum = |of: fn(&mtun::lab::tally::Tally) -> u64| both.iter().map(of).sum::<u64>();
    Ok(Cost {
        moves: moves.div_ceil(2) * 2,
        lost: sum(|it| it.lost),
        duplicated: sum(|it| it.duplicated),
        reordered: both.map(|it| it.reordered),
    })
}
