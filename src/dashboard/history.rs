//! The last day, kept in memory: what the links carried, how they were, what moved and why.
//!
//! Two rings: every sample of the last minutes, and one a minute for a day. Nothing else grows:
//! names, samples, moves and events are bounded, so a box that runs for a year keeps as much as
//! one that runs for a day.

use std::collections::{BTreeMap, VecDeque};

use mtun_policy::{HomeName, RuleName};
use serde::{Deserialize, Serialize};

use crate::control::documents::{EventDocument, LinkState, StatusDocument};
use crate::metrics::{Direction, MetricsInput};

/// Samples as they were made: fifteen minutes while somebody watches.
const FINE: usize = 900;
/// Samples of a minute each.
const COARSE: usize = 24 * 60;
const MINUTE_MS: u64 = 60_000;
/// A rate is that of at least this long. Samples are also made at once when something happens, and
/// what the kernel carries is counted by the second: over less, both would be bursts.
const SPAN_MS: u64 = 1_900;
/// Lines of the charts; further links or homes are not drawn.
const LINES: usize = 16;
/// Counters that are kept for rates, though many samples be made at once.
const BASES: usize = 32;
/// Moves and events that are remembered.
const MOVES: usize = 500;
const EVENTS: usize = 500;
/// Cells of the matrix that are sent; the metrics have the rest.
const CELLS: usize = 4000;

/// What the packets did up to one moment, for pages that watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveDocument {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// What the lines of the chart are: links at a mobile, home networks at an agent.
    pub lines: Vec<String>,
    /// Octets by rule and link since the daemon started, of cells that have some: the same counters
    /// as `mtun_rule_bytes_total`.
    pub matrix: Vec<MatrixCell>,
    /// Flows by home and link.
    pub flows: Vec<(HomeName, String, u64)>,
    /// Packets that were not carried, by home and reason, where there are any.
    pub drops: Vec<(String, String, u64)>,
    /// What the lines of the chart are at this moment.
    pub sample: SampleDocument,
    /// What moved since the moment before.
    pub moves: Vec<MoveRecord>,
}

/// One cell of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// The home network.
    pub home: HomeName,
    /// The rule; `steer` for overrides, `none` where none matched.
    pub rule: RuleName,
    /// The link; `none` at a home agent.
    pub link: String,
    /// Octets from the mobile.
    pub up_bytes: u64,
    /// Octets to the mobile.
    pub down_bytes: u64,
}

/// Flows that left a link for another since the sample before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRecord {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// The link before.
    pub from: String,
    /// The link after.
    pub to: String,
    /// Why, one word such as `link-down`.
    pub reason: String,
    /// How many flows.
    pub flows: u64,
}

/// One moment of the lines; the arrays are in the order of `lines`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleDocument {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Octets a second from the mobile, since the sample before.
    pub up: Vec<f64>,
    /// The same to the mobile.
    pub down: Vec<f64>,
    /// The state of the link in one word; `null` where a line is no link.
    pub state: Vec<Option<LinkState>>,
    /// Round trip to the agent in milliseconds; `null` if not known.
    pub rtt_ms: Vec<Option<f64>>,
}

/// What is kept, for a page that opens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryDocument {
    /// What the lines are: links at a mobile, home networks at an agent.
    pub lines: Vec<String>,
    /// The last minutes.
    pub fine: Vec<SampleDocument>,
    /// The last day, a minute a sample.
    pub coarse: Vec<SampleDocument>,
    /// Flows that moved, the oldest first.
    pub moves: Vec<MoveRecord>,
    /// What happened, the oldest first.
    pub events: Vec<EventDocument>,
}

/// Octets of one line when it was last looked at.
type Octets = (u64, u64);

/// The rings.
#[derive(Debug, Default)]
pub(super) struct History {
    lines: Vec<String>,
    fine: VecDeque<SampleDocument>,
    coarse: VecDeque<SampleDocument>,
    minute: Minute,
    moves: VecDeque<MoveRecord>,
    events: VecDeque<EventDocument>,
    /// The counters of the last samples, the oldest first: as far back as a rate needs.
    before: VecDeque<Counters>,
}

/// Flows that moved since the daemon started, by the link before, the one after, and why.
type Moved = BTreeMap<(String, String, String), u64>;

/// The counters at one moment.
#[derive(Debug)]
struct Counters {
    time_ms: u64,
    octets: BTreeMap<String, Octets>,
    moved: Moved,
}

/// The minute that is being added up.
#[derive(Debug, Default)]
struct Minute {
    number: u64,
    samples: Vec<SampleDocument>,
}

fn push<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(item);
}

impl History {
    /// Takes a moment in; what those who watch are told of it.
    pub(super) fn take(
        &mut self,
        time_ms: u64,
        status: &StatusDocument,
        figures: &MetricsInput,
    ) -> LiveDocument {
        let octets = octets(figures);
        for name in octets.keys() {
            if !self.lines.contains(name) && self.lines.len() < LINES {
                self.lines.push(name.clone());
            }
        }
        let moved = figures.flow_moves.iter();
        let moved: Moved = moved
            .map(|it| ((it.from.clone(), it.to.clone(), it.reason.clone()), it.moves))
            .collect();
        let ago = |before: &Counters| time_ms.saturating_sub(before.time_ms);
        while self.before.get(1).is_some_and(|second| ago(second) >= SPAN_MS) {
            self.before.pop_front();
        }
        let (sample, moves) = match (self.before.front(), self.before.back()) {
            (Some(base), Some(last)) => {
                let seconds = ago(base).max(1) as f64 / 1000.0;
                let rates = rates(&self.lines, &base.octets, &octets, seconds);
                (self.sample(time_ms, status, rates), moves(time_ms, &last.moved, &moved))
            }
            _ => {
                let nothing = vec![(0.0, 0.0); self.lines.len()];
                (self.sample(time_ms, status, nothing), Vec::new())
            }
        };
        if self.before.len() == BASES {
            self.before.pop_back();
        }
        self.before.push_back(Counters { time_ms, octets, moved });
        for it in &moves {
            push(&mut self.moves, it.clone(), MOVES);
        }
        push(&mut self.fine, sample.clone(), FINE);
        self.add_to_minute(&sample);
        LiveDocument {
            time_ms,
            lines: self.lines.clone(),
            matrix: matrix(figures),
            flows: figures
                .flows
                .iter()
                .map(|it| (it.home.clone(), it.link.clone(), it.flows))
                .collect(),
            drops: figures
                .drops
                .iter()
                .filter(|it| it.packets > 0)
                .map(|it| (it.home.clone(), it.reason.clone(), it.packets))
                .collect(),
            sample,
            moves,
        }
    }

    /// Keeps an event for pages that open later.
    pub(super) fn note(&mut self, event: EventDocument) {
        push(&mut self.events, event, EVENTS);
    }

    /// What is kept.
    pub(super) fn document(&self) -> HistoryDocument {
        HistoryDocument {
            lines: self.lines.clone(),
            fine: self.fine.iter().cloned().collect(),
            coarse: self.coarse.iter().cloned().collect(),
            moves: self.moves.iter().cloned().collect(),
            events: self.events.iter().cloned().collect(),
        }
    }

    fn sample(
        &self,
        time_ms: u64,
        status: &StatusDocument,
        rates: Vec<(f64, f64)>,
    ) -> SampleDocument {
        let link = |name: &String| status.links.iter().find(|link| link.interface.as_str() == name);
        let (up, down) = rates.into_iter().unzip();
        SampleDocument {
            time_ms,
            up,
            down,
            state: self.lines.iter().map(|name| Some(link(name)?.state)).collect(),
            rtt_ms: self.lines.iter().map(|name| link(name)?.rtt_ms).collect(),
        }
    }

    fn add_to_minute(&mut self, sample: &SampleDocument) {
        let number = sample.time_ms / MINUTE_MS;
        if number != self.minute.number && !self.minute.samples.is_empty() {
            let whole = summed(&self.minute.samples);
            push(&mut self.coarse, whole, COARSE);
            self.minute.samples.clear();
        }
        self.minute.number = number;
        self.minute.samples.push(sample.clone());
    }
}

/// The mean rates, the worst states and the longest round trips of some samples.
fn summed(samples: &[SampleDocument]) -> SampleDocument {
    let lines = samples.iter().map(|it| it.up.len()).max().unwrap_or(0);
    let mean = |of: fn(&SampleDocument) -> &Vec<f64>| -> Vec<f64> {
        let sum = |line: usize| samples.iter().filter_map(|it| of(it).get(line)).sum::<f64>();
        (0..lines).map(|line| (sum(line) / samples.len() as f64).round()).collect()
    };
    let states = |line: usize| samples.iter().filter_map(move |it| *it.state.get(line)?);
    let trips = |line: usize| samples.iter().filter_map(move |it| *it.rtt_ms.get(line)?);
    SampleDocument {
        time_ms: samples.first().map_or(0, |it| it.time_ms),
        up: mean(|it| &it.up),
        down: mean(|it| &it.down),
        state: (0..lines).map(|line| states(line).max_by_key(|state| badness(*state))).collect(),
        rtt_ms: (0..lines).map(|line| trips(line).max_by(f64::total_cmp)).collect(),
    }
}

fn badness(state: LinkState) -> u8 {
    match state {
        LinkState::Up => 0,
        LinkState::Drained | LinkState::Held => 1,
        LinkState::Degraded => 2,
        LinkState::Recovering => 3,
        LinkState::Unknown => 4,
        LinkState::Down => 5,
    }
}

/// Octets up and down of each line: by link, or at an agent by home.
fn octets(figures: &MetricsInput) -> BTreeMap<String, Octets> {
    let mut lines: BTreeMap<String, Octets> = BTreeMap::new();
    for it in figures.tunnels.iter().chain(&figures.straight) {
        // An agent tells homes apart, a mobile links.
        let name = if it.link == "none" { it.home.to_string() } else { it.link.clone() };
        let line = lines.entry(name).or_default();
        match it.direction {
            Direction::Up => line.0 += it.bytes,
            Direction::Down => line.1 += it.bytes,
        }
    }
    lines
}

fn rates(
    lines: &[String],
    before: &BTreeMap<String, Octets>,
    octets: &BTreeMap<String, Octets>,
    seconds: f64,
) -> Vec<(f64, f64)> {
    let rate = |name: &String| {
        let now = octets.get(name).copied().unwrap_or_default();
        // A line that was not there before has no rate yet.
        let then = before.get(name).copied().unwrap_or(now);
        let a_second = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds).round();
        (a_second(now.0, then.0), a_second(now.1, then.1))
    };
    lines.iter().map(rate).collect()
}

fn moves(time_ms: u64, before: &Moved, moved: &Moved) -> Vec<MoveRecord> {
    let further = moved.iter().filter_map(|(key, count)| {
        let flows = count.saturating_sub(before.get(key).copied().unwrap_or(0));
        let (from, to, reason) = key.clone();
        (flows > 0).then_some(MoveRecord { time_ms, from, to, reason, flows })
    });
    further.collect()
}

fn matrix(figures: &MetricsInput) -> Vec<MatrixCell> {
    let mut cells: BTreeMap<(&HomeName, &RuleName, &String), Octets> = BTreeMap::new();
    for it in &figures.rules {
        let cell = cells.entry((&it.home, &it.rule, &it.link)).or_default();
        match it.direction {
            Direction::Up => cell.0 += it.bytes,
            Direction::Down => cell.1 += it.bytes,
        }
    }
    let carried = cells.into_iter().filter(|(_, (up, down))| up + down > 0);
    let cell = |((home, rule, link), (up_bytes, down_bytes)): (
        (&HomeName, &RuleName, &String),
        Octets,
    )| {
        MatrixCell {
            home: home.clone(),
            rule: rule.clone(),
            link: link.clone(),
            up_bytes,
            down_bytes,
        }
    };
    carried.map(cell).take(CELLS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::documents::{Event, Severity};
    use crate::metrics::{FlowMoveFigures, RuleFigures, TunnelFigures};

    fn figures(bytes: u64, moved: u64) -> MetricsInput {
        let tunnel = |link: &str, direction, bytes| TunnelFigures {
            home: "acme".into(),
            link: link.to_owned(),
            direction,
            bytes,
            packets: 1,
        };
        let rule = |rule: &str, direction, bytes| RuleFigures {
            home: "acme".into(),
            rule: rule.into(),
            link: "wlan0".to_owned(),
            direction,
            bytes,
        };
        MetricsInput {
            tunnels: vec![
                tunnel("wlan0", Direction::Up, bytes),
                tunnel("wlan0", Direction::Down, 2 * bytes),
                tunnel("wwan0", Direction::Up, 0),
            ],
            straight: vec![tunnel("wlan0", Direction::Up, 10 * bytes)],
            rules: vec![
                rule("ssh", Direction::Up, bytes),
                rule("ssh", Direction::Down, 2 * bytes),
                rule("web", Direction::Up, 0),
            ],
            flow_moves: vec![FlowMoveFigures {
                from: "wlan0".to_owned(),
                to: "wwan0".to_owned(),
                reason: "link-down".to_owned(),
                moves: moved,
            }],
            ..MetricsInput::default()
        }
    }

    fn status() -> StatusDocument {
        serde_json::from_value(serde_json::json!({
            "health": { "state": "ok", "reasons": [] },
            "role": "mobile-router",
            "policy": "p",
            "daemon_version": "0",
            "uptime_seconds": 1,
            "homes": [],
            "links": [{
                "interface": "wlan0", "ifindex": 3, "bid": 1, "priority": 10, "state": "up",
                "care_of": null, "router": null, "reason": null, "since_seconds": 1,
                "recovers_in_seconds": null, "metered": false, "rtt_ms": 4.5
            }],
            "bindings": [],
            "overrides": [],
            "mobiles": []
        }))
        .unwrap()
    }

    #[test]
    fn rates_moves_and_the_matrix_come_from_the_counters() {
        let mut history = History::default();
        let first = history.take(1_000_000, &status(), &figures(1000, 3));
        assert_eq!(
            (first.sample.up.clone(), first.moves.len()),
            (vec![0.0, 0.0], 0),
            "no rate yet"
        );
        let next = history.take(1_002_000, &status(), &figures(2000, 5));
        assert_eq!(next.sample.up, [(1000.0 + 10_000.0) / 2.0, 0.0], "straight ones count too");
        assert_eq!(next.sample.down, [1000.0, 0.0]);
        assert_eq!(next.sample.state, [Some(LinkState::Up), None]);
        assert_eq!(next.sample.rtt_ms, [Some(4.5), None]);
        let [moved] = next.moves.as_slice() else { panic!("{:?}", next.moves) };
        assert_eq!((moved.flows, moved.reason.as_str()), (2, "link-down"));
        let [cell] = next.matrix.as_slice() else { panic!("{:?}", next.matrix) };
        assert_eq!((cell.rule.as_str(), cell.up_bytes, cell.down_bytes), ("ssh", 2000, 4000));
        // Counters of a daemon that began anew are no negative rate.
        let anew = history.take(1_003_000, &status(), &figures(10, 0));
        assert_eq!(anew.sample.up, [0.0, 0.0]);
    }

    /// What happens is shown at once; the octets of a moment are no rate.
    #[test]
    fn a_sample_soon_after_another_is_no_burst() {
        let mut history = History::default();
        let status = status();
        // 100,000 octets a second, counted by the second.
        let mut told = Vec::new();
        for (time_ms, counted) in
            [(0, 0), (1000, 1), (2000, 2), (3010, 3), (3050, 3), (4060, 4), (4990, 4), (5010, 5)]
        {
            let live = history.take(1_000_000 + time_ms, &status, &figures(counted * 100_000, 0));
            told.push(live.sample.down[0]);
        }
        let settled = &told[2..];
        assert!(settled.iter().all(|rate| (90_000.0..=310_000.0).contains(rate)), "{told:?}");
        // Many at the same moment take no more room.
        for _ in 0..1000 {
            history.take(1_005_011, &status, &figures(500_000, 0));
        }
        assert!(history.before.len() <= BASES);
        let moved = history.take(1_005_012, &status, &figures(500_000, 2)).moves;
        assert_eq!(moved.iter().map(|it| it.flows).sum::<u64>(), 2, "each move is told once");
        assert!(history.take(1_005_013, &status, &figures(500_000, 2)).moves.is_empty());
    }

    #[test]
    fn a_year_takes_as_much_room_as_a_day() {
        let mut history = History::default();
        let status = status();
        for second in 0..200_000_u64 {
            history.take(second * 1000, &status, &figures(second * 100, second));
        }
        let text = "x".to_owned();
        let notice = Event::Notice { severity: Severity::Info, code: text.clone(), text };
        (0..2000).for_each(|_| history.note(EventDocument::now(notice.clone())));
        let kept = history.document();
        let lengths = (kept.fine.len(), kept.coarse.len(), kept.moves.len(), kept.events.len());
        assert_eq!(lengths, (FINE, COARSE, MOVES, EVENTS));
        // 100 octets in the tunnel and 1000 straight, each second.
        assert_eq!(kept.coarse[7].up[0], 1100.0);
        assert_eq!(kept.coarse[7].time_ms % MINUTE_MS, 0);
        assert!(serde_json::to_string(&kept).unwrap().len() < 1 << 20);
    }
}
