//! Every phase of a registration with every event, as one table.

use std::net::Ipv6Addr;

use super::*;

const OLD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
const NEW: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 8);

const GRANT: Grant = Grant { expires: Duration::from_secs(100), refresh: Duration::from_secs(75) };
const LONGER: Grant =
    Grant { expires: Duration::from_secs(200), refresh: Duration::from_secs(150) };
const RETRY: Duration = Duration::from_secs(60);

fn events() -> Vec<(&'static str, Event)> {
    let care_of = |address: Ipv6Addr, priority| Event::CareOf { care_of: address.into(), priority };
    let refused =
        |kept| Event::Refused { status: Status::INSUFFICIENT_RESOURCES, retry: RETRY, kept };
    vec![
        ("same address", care_of(OLD, 10)),
        ("other address", care_of(NEW, 10)),
        ("other priority", care_of(OLD, 20)),
        ("path lost", Event::PathLost),
        ("registering", Event::Registering { until: Duration::from_secs(150) }),
        ("deregistering", Event::Deregistering),
        ("unanswered", Event::Unanswered),
        ("granted", Event::Granted(LONGER)),
        ("removed", Event::Removed),
        ("refused, kept", refused(true)),
        ("refused, not kept", refused(false)),
        ("revoked", Event::Revoked { status: Status::ADMINISTRATIVELY_PROHIBITED, retry: RETRY }),
        ("refresh due", Event::RefreshDue),
        ("expiry", Event::Deadline(Duration::from_secs(300))),
    ]
}

/// The phases, those twice in which it matters whether the agent may hold the binding.
fn states() -> Vec<(&'static str, Registration)> {
    let registering = Event::Registering { until: GRANT.expires };
    let refused = Event::Refused { status: Status::REASON_UNSPECIFIED, retry: RETRY, kept: true };
    let after = |events: &[Event]| {
        let mut registration = Registration::new(OLD.into(), 10, Duration::ZERO);
        for event in events {
            registration.apply(*event);
        }
        registration
    };
    let granted = Event::Granted(GRANT);
    vec![
        ("wanted", after(&[])),
        ("wanted, perhaps held", after(&[registering, Event::Unanswered])),
        ("awaiting", after(&[registering])),
        ("bound", after(&[registering, granted])),
        ("refreshing", after(&[registering, granted, registering])),
        ("refused", after(&[registering, refused])),
        ("refused, held", after(&[registering, granted, registering, refused])),
        ("leaving", after(&[registering, granted, Event::PathLost])),
        ("deregistering", after(&[registering, granted, Event::PathLost, Event::Deregistering])),
    ]
}

fn cell(mut registration: Registration, event: Event) -> String {
    let effect = match registration.apply(event) {
        Effect::None => String::new(),
        Effect::Up { first: true, .. } => ", up".to_owned(),
        Effect::Up { first: false, .. } => ", prolonged".to_owned(),
        Effect::Down(reason) => format!(", down: {reason}"),
    };
    let held = if registration.may_be_held() { "" } else { ", not held" };
    let due = match registration.register_due().or(registration.deregister_due()) {
        None => String::new(),
        Some(Duration::ZERO) => ", due".to_owned(),
        Some(due) => format!(", due {}", due.as_secs()),
    };
    format!("{}{held}{due}{effect}", registration.phase())
}

#[test]
fn every_phase_with_every_event() {
    let mut table = String::new();
    for (phase, registration) in states() {
        table += &format!("{phase}\n");
        for (event, value) in events() {
            table += &format!("  {event:<18} -> {}\n", cell(registration.clone(), value));
        }
    }
    assert_eq!(table.trim_end(), include_str!("table.txt").trim_end(), "{table}");
}
