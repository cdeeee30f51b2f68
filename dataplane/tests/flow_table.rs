//! What is remembered, and what is forgotten.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mtun_dataplane::{Answer, Decision, Due, FlowTable, Memory, MoveReason, Way, decide};
use mtun_policy::{FlowKey, Ingress, RuleId};
use support::*;

fn answer(key: &FlowKey) -> Answer {
    let snapshot = mobile();
    let Decision::Forward(route) = decide(&snapshot, key, NOW, Memory::default()) else {
        panic!("forwarded")
    };
    route.answer(key, Memory::default())
}

fn flow(port: u16) -> FlowKey {
    key(HOME, PEER, 17, Some((port, 53)))
}

#[test]
fn both_directions_are_one_flow() {
    let table = FlowTable::new(1000, ahash::RandomState::new());
    let out = flow(1);
    assert_eq!(table.remembered(&out), None);
    assert_eq!(table.received(&out.mirrored(), Some(bid(2)), 300, NOW), None, "no rule asked yet");
    assert_eq!(table.remembered(&out).unwrap().last_verified, Some(bid(2)));
    let later = NOW + Duration::from_secs(1);
    table.sent(&out, answer(&out), 100, later);
    let back = table.received(&out.mirrored(), Some(bid(1)), 300, later);
    assert_eq!(back.and_then(|answer| answer.rule), Some(RuleId(3)));
    let entries = table.entries();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry.key, out);
    assert_eq!(
        (entry.rule, entry.bid_out, entry.bid_in),
        (Some(RuleId(3)), Some(bid(1)), Some(bid(1)))
    );
    assert_eq!((entry.bytes_out, entry.packets_out), (100, 1));
    assert_eq!((entry.bytes_in, entry.packets_in), (600, 2));
    assert_eq!(entry.last_seen, later);
}

#[test]
fn a_flood_of_flows_stays_within_the_table() {
    let table = FlowTable::new(256, ahash::RandomState::new());
    let capacity = table.capacity();
    for port in 0..20_000 {
        let key = flow(port);
        table.received(
            &key.mirrored(),
            Some(bid(1)),
            100,
            NOW + Duration::from_millis(port.into()),
        );
    }
    let entries = table.entries();
    assert_eq!(entries.len(), capacity, "full and not fuller");
    // Each set kept its youngest four, so most of what is left is young.
    let young = entries.iter().filter(|e| e.last_seen > NOW + Duration::from_secs(18)).count();
    assert!(young * 10 > capacity * 9, "{young} of {capacity}");
}

#[test]
fn a_flow_in_use_outlives_a_flood() {
    let table = FlowTable::new(256, ahash::RandomState::new());
    let kept = flow(60_000);
    let answer = answer(&kept);
    for port in 0..20_000 {
        let at = NOW + Duration::from_millis(port.into());
        table.sent(&kept, answer, 100, at);
        table.received(&flow(port).mirrored(), None, 100, at);
    }
    let entry = table.entries().into_iter().find(|entry| entry.key == kept);
    assert_eq!(entry.map(|entry| entry.packets_out), Some(20_000));
}

/// The table of a known hash, so that what is evicted is the same in every run.
fn fixed(capacity: usize) -> FlowTable {
    FlowTable::new(capacity, ahash::RandomState::with_seeds(1, 2, 3, 4))
}

fn glance(table: &FlowTable, key: &FlowKey) -> Option<mtun_dataplane::Glance> {
    let mut found = [None];
    table.glance(&[*key], &mut found);
    found[0]
}

#[test]
fn a_glance_tells_plain_answers_only_and_for_what_they_were_given() {
    let table = fixed(1000);
    let out = flow(7);
    let plain = Answer { generation: 0x7_0000_0009, ..answer(&out) };
    assert_eq!(glance(&table, &out), None, "not known");
    table.received(&out.mirrored(), Some(bid(1)), 100, NOW);
    assert_eq!(glance(&table, &out), None, "nothing decided yet");
    table.sent(&out, plain, 100, NOW);
    let told = glance(&table, &out).expect("a plain answer");
    assert_eq!((told.generation, told.rule, told.bid), (9, plain.rule, plain.bid));
    let cases = [
        ("another code point", FlowKey { dscp: 46, ..out }),
        ("another door", FlowKey { ingress: Ingress(77), ..out }),
        ("another port", flow(8)),
        ("no ports", FlowKey { source_port: None, destination_port: None, ..out }),
        ("port zero is not no port", FlowKey { source_port: Some(0), ..out }),
    ];
    for (what, other) in cases {
        assert_eq!(glance(&table, &other), None, "{what}");
    }
    let due = Due { since: NOW, reason: MoveReason::LeftRule };
    let cases = [
        ("copies", Answer { way: Way::Copies, ..plain }),
        ("outside the tunnel", Answer { way: Way::Breakout { translate: true }, ..plain }),
        ("a move is due", Answer { due: Some(due), ..plain }),
        ("shared with others", Answer { together: Some(1), ..plain }),
    ];
    for (what, answer) in cases {
        table.sent(&out, answer, 100, NOW);
        assert_eq!(glance(&table, &out), None, "{what}");
        assert_eq!(table.remembered(&out).unwrap().answer, Some(answer), "{what}");
    }
}

#[test]
fn the_families_and_absent_ports_are_told_apart() {
    let table = fixed(1000);
    let keys = [
        key("::a00:1", "::a00:2", 17, Some((1, 2))),
        FlowKey {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            ..key("::", "::", 17, Some((1, 2)))
        },
        key("::a00:1", "::a00:2", 17, Some((0, 0))),
        key("::a00:1", "::a00:2", 17, None),
        key("::a00:1", "::a00:2", 6, None),
        key("::a00:2", "::a00:1", 6, None),
    ];
    for (number, key) in (1..).zip(&keys) {
        table.received(&key.mirrored(), Some(bid(number)), 1, NOW);
    }
    assert_eq!(table.entries().len(), keys.len());
    for (number, key) in (1..).zip(&keys) {
        assert_eq!(table.remembered(key).unwrap().last_verified, Some(bid(number)));
    }
}

#[test]
fn the_table_remembers_as_a_plain_map_does() {
    for seed in 1..=40_u64 {
        let mut bits = seed;
        let mut random = move |below: u64| {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (bits >> 33) % below
        };
        // Few flows for the room there is: nothing has to be forgotten.
        let table = fixed(4096);
        let mut model: HashMap<u16, (u64, u64, Option<Answer>)> = HashMap::new();
        for step in 0..2_000 {
            let port = random(200) as u16;
            let (out, at) = (flow(port), NOW + Duration::from_millis(step));
            let known = model.entry(port).or_default();
            if random(2) == 0 {
                let given = Answer { generation: random(1 << 40), ..answer_of(port) };
                table.sent(&out, given, 100, at);
                *known = (known.0 + 100, known.1, Some(given));
            } else {
                let answer = table.received(&out.mirrored(), Some(bid(1)), 7, at);
                known.1 += 7;
                assert_eq!(answer, known.2, "seed {seed}");
            }
            let port = random(220) as u16;
            let want = model.get(&port).copied();
            let told = table.remembered(&flow(port));
            assert_eq!(told.map(|it| it.answer), want.map(|it| it.2), "seed {seed}");
            let generation = want.and_then(|it| it.2).map(|answer| answer.generation as u32);
            let glanced = glance(&table, &flow(port)).map(|it| it.generation);
            assert_eq!(glanced, generation, "seed {seed}");
        }
        let mut entries = table.entries();
        entries.sort_by_key(|entry| entry.key.source_port);
        let mut wanted: Vec<_> = model.into_iter().collect();
        wanted.sort_by_key(|(port, _)| *port);
        let told = entries.iter().map(|e| (e.key.source_port.unwrap(), (e.bytes_out, e.bytes_in)));
        let wanted = wanted.into_iter().map(|(port, it)| (port, (it.0, it.1)));
        assert!(told.eq(wanted), "seed {seed}");
    }
}

/// An answer that only this flow has, to be recognized by.
fn answer_of(port: u16) -> Answer {
    Answer { rule: Some(RuleId(port)), bid: Some(bid(port + 1)), ..answer(&flow(port)) }
}

#[test]
fn threads_lose_no_packet_and_read_no_half_line() {
    const WRITERS: u16 = 4;
    const ROUNDS: u64 = 20_000;
    let table = fixed(4096);
    let answers: Vec<Answer> = (0..64).map(answer_of).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (table, answers, done) = (&table, &answers, &done);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // All writers meet on the same flows.
                        let port = (round % 64) as u16;
                        let given = Answer { generation: port.into(), ..answers[port as usize] };
                        table.sent(&flow(port), given, 3, NOW + Duration::from_millis(round));
                        if round % 16 == u64::from(writer) {
                            table.received(&flow(port).mirrored(), Some(bid(1)), 5, NOW);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(move || {
                let keys: Vec<FlowKey> = (0..64).map(flow).collect();
                let mut found = vec![None; keys.len()];
                let mut met = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    table.glance(&keys, &mut found);
                    for (port, told) in (0..).zip(&found) {
                        let Some(told) = told else { continue };
                        let whole = (told.generation, told.rule, told.bid);
                        assert_eq!(whole, (port.into(), Some(RuleId(port)), Some(bid(port + 1))));
                        met += 1;
                    }
                    for key in keys.iter().step_by(9) {
                        if let Some(answer) = table.remembered(key).and_then(|it| it.answer) {
                            assert_eq!(answer.rule.map(|rule| rule.0), key.source_port);
                        }
                    }
                }
                assert!(met > 0, "nothing was ever read");
            });
        }
        for writer in writers {
            writer.join().expect("a writer holds");
        }
        // Readers see at least one whole round of what is there in the end.
        while glance(table, &flow(63)).is_none() {
            std::hint::spin_loop();
        }
        done.store(true, Ordering::Relaxed);
    });
    let entries = table.entries();
    assert_eq!(entries.len(), 64);
    let packets: u64 = entries.iter().map(|entry| entry.packets_out).sum();
    assert_eq!(packets, u64::from(WRITERS) * ROUNDS);
    assert!(entries.iter().all(|entry| entry.bytes_out == 3 * entry.packets_out));
}

#[test]
fn a_flood_from_many_threads_stays_within_the_table() {
    const THREADS: u16 = 4;
    let table = fixed(500);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let table = &table;
            scope.spawn(move || {
                for number in 0..10_000 {
                    let key = key(HOME, PEER, thread as u8, Some((number, 1)));
                    let at = NOW + Duration::from_millis(number.into());
                    table.received(&key.mirrored(), None, 1, at);
                }
            });
        }
    });
    let count = table.entries().len();
    // A thread may have given room back with its last packets.
    let full = table.capacity() - usize::from(THREADS)..=table.capacity();
    assert!(full.contains(&count), "{count}");
}
