//! What is remembered, and what is forgotten.

mod support;

use std::time::Duration;

use mtun_dataplane::{Answer, Decision, FlowTable, Memory, decide};
use mtun_policy::{FlowKey, RuleId};
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
    assert_eq!(table.received(&out.mirrored(), Some(bid(1)), 300, later), Some(RuleId(3)));
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
