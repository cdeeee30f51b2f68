//! Recorded path facts, replayed.
//!
//! A recording is text: facts with their times in seconds, `@47 wlan0 signal -79dBm`; a range
//! `@1..60` stands for one fact a second. What steering tells and says stands in lines with `>`,
//! in order: links with their reasons, and each rule whose links change. A recording whose lines
//! do not agree with the replay fails with the lines that would.

use std::fs;
use std::path::Path;

use mtun_policy::steering::{Day, Fact, LocalTime, Measurement, Notice, ProbeResult};
use mtun_policy::{Bid, NoFiles, Outcome, Policy, Ratio, Says, Steering, parse};

use crate::home::*;

fn millis(text: &str) -> u64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part = format!("{part:0<3}");
    whole.parse::<u64>().expect("seconds") * 1000 + part.parse::<u64>().expect("milliseconds")
}

/// A percentage with at most two digits behind the point.
fn ratio(text: &str) -> Ratio {
    let (whole, part) = text
        .strip_suffix('%')
        .expect("%")
        .split_once('.')
        .unwrap_or((text.trim_end_matches('%'), "0"));
    let part = format!("{part:0<2}");
    Ratio(whole.parse::<u16>().expect("percent") * 100 + part.parse::<u16>().expect("its part"))
}

fn measurement(words: &[&str]) -> Measurement {
    let mut measurement = Measurement::default();
    for word in words {
        let (figure, value) = word.split_once('=').expect("figure=value");
        let time = || Some(ms(value.strip_suffix("ms").expect("ms").parse().expect("a number")));
        match figure {
            "rtt" => measurement.rtt = time(),
            "jitter" => measurement.jitter = time(),
            "loss" => measurement.loss = Some(ratio(value)),
            other => panic!("{other}"),
        }
    }
    measurement
}

fn local_time(date: &str, time: &str) -> LocalTime {
    let number = |text: &str| text.parse::<u16>().expect("a number");
    let date: Vec<u16> = date.split('-').map(number).collect();
    let time: Vec<u64> = time.split(':').map(|part| u64::from(number(part))).collect();
    let day = Day::from_date(date[0], date[1] as u8, date[2] as u8).expect("a date");
    LocalTime { day, time: s((time[0] * 60 + time[1]) * 60 + time[2]) }
}

fn fact(policy: &Policy, words: &[&str]) -> Fact {
    match words {
        ["time", date, time] => return Fact::LocalTime(local_time(date, time)),
        ["speed", speed] => return Fact::Speed(Some(speed.parse().expect("a speed"))),
        _ => {}
    }
    let (link, words) = words.split_first().expect("a link");
    let bid = policy.interface(link).and_then(|link| link.bid).expect("a link of the policy");
    match words {
        ["attached"] => Fact::Attached { bid, attached: true },
        ["detached"] => Fact::Attached { bid, attached: false },
        ["registered"] => Fact::Registered { bid, registered: true },
        ["unregistered"] => Fact::Registered { bid, registered: false },
        ["refused"] => Fact::Refused { bid },
        ["heard"] => Fact::Heard { bid },
        ["probe", "answered"] => Fact::Probed { bid, probe: ProbeResult::Answered },
        ["probe", "lost"] => Fact::Probed { bid, probe: ProbeResult::Lost },
        ["burst", "lost"] => Fact::Probed { bid, probe: ProbeResult::LostInBurst },
        ["signal", dbm] => {
            let dbm = dbm.strip_suffix("dBm").expect("dBm").parse().expect("a number");
            Fact::Signal { bid, dbm }
        }
        ["load", load] => Fact::Load { bid, load: ratio(load) },
        ["carried", octets] => Fact::Carried { bid, octets: octets.parse().expect("a number") },
        ["measured", figures @ ..] => Fact::Measured { bid, measurement: measurement(figures) },
        other => panic!("{other:?}"),
    }
}

/// The facts of a recording in the order of their times.
fn facts(policy: &Policy, text: &str) -> Vec<(u64, Fact)> {
    let mut facts = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('@')) {
        let mut words = line[1..].split_whitespace();
        let when = words.next().expect("a time");
        let words: Vec<&str> = words.collect();
        let fact = fact(policy, &words);
        match when.split_once("..") {
            None => facts.push((millis(when), fact)),
            Some((from, until)) => {
                let each = (millis(from)..=millis(until)).step_by(1000);
                facts.extend(each.map(|at| (at, fact.clone())));
            }
        }
    }
    facts.sort_by_key(|(at, _)| *at);
    facts
}

/// The links a rule speaks of, and with `otherwise` if it needs it.
fn links(policy: &Policy, says: &Says) -> String {
    let name = |bid: &Bid| policy.interface_of(*bid).expect("a link").name.to_string();
    let words = |outcome: &Outcome| {
        let links: Vec<String> = outcome.links().iter().map(name).collect();
        match outcome {
            Outcome::Unmet => "unmet".to_owned(),
            Outcome::Block(_) => "block".to_owned(),
            Outcome::Copies { copies, .. } => format!("{copies} copies by {}", links.join(" ")),
            _ if links.is_empty() => "none".to_owned(),
            _ => links.join(" "),
        }
    };
    let text = words(&says.outcome);
    match &says.otherwise {
        mtun_policy::Otherwise::Then(then) if text == "none" || text == "unmet" => {
            format!("{text}, otherwise {}", words(then))
        }
        _ => text,
    }
}

/// What steering tells and says.
struct Listener<'p> {
    policy: &'p Policy,
    said: Vec<String>,
    lines: Vec<String>,
}

impl Listener<'_> {
    fn listen(&mut self, at: u64, steering: &mut Steering) {
        let name = |bid| self.policy.interface_of(bid).expect("a link").name.clone();
        let time = format!("{}.{:03}", at / 1000, at % 1000);
        for notice in notices(steering) {
            self.lines.push(match notice {
                Notice::LinkState { bid, from, to, reason } => {
                    format!("> {time} {}: {from} -> {to}: {reason}", name(bid))
                }
                Notice::Quota { bid, level, octets, limit } => {
                    format!("> {time} {}: quota {level}, {octets} of {limit}", name(bid))
                }
                Notice::BurstWanted { bid } => format!("> {time} {}: burst", name(bid)),
                other => format!("> {time} {other:?}"),
            });
        }
        let effective = steering.effective();
        for (ruling, said) in effective.rules().zip(&mut self.said) {
            let says = links(self.policy, ruling.says);
            if *said != says {
                self.lines.push(format!("> {time} {} by {says}", ruling.head.name));
                *said = says;
            }
        }
    }
}

fn replay(policy: &Policy, text: &str) -> Vec<String> {
    let mut steering = Steering::new(policy, home(policy), s(0));
    let said = vec![String::new(); home(policy).rules.rules.len()];
    let mut listener = Listener { policy, said, lines: Vec::new() };
    let wake = |listener: &mut Listener<'_>, steering: &mut Steering, until: u64| {
        while let Some(at) = steering.deadline().filter(|at| *at <= ms(until)) {
            steering.handle_deadline(at);
            listener.listen(at.as_millis() as u64, steering);
        }
    };
    let mut facts = facts(policy, text).into_iter().peekable();
    let mut last = 0;
    while let Some((at, fact)) = facts.next() {
        wake(&mut listener, &mut steering, at);
        steering.handle(ms(at), fact);
        // Facts of the same moment are told together.
        if facts.peek().is_none_or(|(next, _)| *next != at) {
            listener.listen(at, &mut steering);
        }
        last = at;
    }
    wake(&mut listener, &mut steering, last + 7_200_000);
    listener.lines
}

#[test]
fn recordings_are_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let text = fs::read_to_string(folder.join("bus.kdl")).expect("the policy");
    let policy = parse("bus.kdl", &text, &NoFiles).expect("a policy");
    let mut recordings: Vec<_> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    recordings.sort();
    assert!(recordings.len() >= 5);
    for path in recordings {
        let text = fs::read_to_string(&path).expect("a recording");
        let wanted: Vec<&str> = text.lines().filter(|line| line.starts_with('>')).collect();
        let got = replay(&policy, &text);
        assert!(wanted == got, "{} should say\n{}", path.display(), got.join("\n"));
    }
}
