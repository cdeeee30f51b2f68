//! The policy in force, those before it, and what another one would change.

use mtun::control::documents::*;
use mtun_policy::{ReturningHome, Role, RouteOptimizationStart};

use super::flows::flows;

pub fn policy() -> PolicyDocument {
    let rule = |name: &str, line, says: &str| RuleDocument {
        home: "acme".into(),
        name: name.into(),
        file: "bus.kdl".to_owned(),
        line,
        says: says.to_owned(),
        links: vec!["wlan0".into(), "wwan0".into()],
        otherwise: Vec::new(),
    };
    PolicyDocument {
        name: "city-bus".to_owned(),
        role: Role::MobileRouter,
        file: Some("/etc/mtun/bus.kdl".into()),
        text: Some("policy \"city-bus\"\n".to_owned()),
        rules: vec![
            rule("ssh", 44, "prefer wwan0 wlan0"),
            rule("default", 50, "prefer wlan0 wwan0, else any"),
        ],
        homes: vec![PolicyHomeDocument {
            home: "acme".into(),
            route_optimization: Some(RouteOptimizationStart::Traffic),
            returning_home: ReturningHome::Home,
        }],
        correspondent: vec!["2001:db8:100::42".parse().unwrap()],
        added: None,
    }
}

/// The present policy of the history, as it waits for being confirmed.
pub fn history_entry() -> PolicyHistoryEntry {
    PolicyHistoryEntry {
        entry: 4,
        name: "city-bus".to_owned(),
        file: Some("/etc/mtun/bus.kdl".into()),
        applied_ms: 1_795_317_258_500,
        uid: Some(0),
        cause: PolicyCause::Apply,
        rules: 2,
        state: PolicyEntryState::Unconfirmed,
        confirm_within_seconds: Some(42),
    }
}

/// The policies that were in force: the present one, its predecessor, one taken back.
pub fn history() -> PolicyHistoryDocument {
    let before = PolicyHistoryEntry {
        entry: 3,
        state: PolicyEntryState::Replaced,
        cause: PolicyCause::Unconfirmed,
        uid: None,
        confirm_within_seconds: None,
        ..history_entry()
    };
    let taken_back = PolicyHistoryEntry {
        entry: 2,
        name: "trial".to_owned(),
        state: PolicyEntryState::RolledBack,
        cause: PolicyCause::Apply,
        uid: Some(1000),
        file: None,
        ..before.clone()
    };
    PolicyHistoryDocument { entries: vec![history_entry(), before, taken_back], text: None }
}

/// What another policy would change: every ssh flow would leave wwan0.
pub fn diff() -> PolicyDiffDocument {
    let rule = |name: &str, line| RuleReference {
        name: name.into(),
        file: Some("new.kdl".to_owned()),
        line: Some(line),
    };
    PolicyDiffDocument {
        from: "city-bus".to_owned(),
        to: "city-bus".to_owned(),
        added: vec![rule("voice", 40)],
        removed: vec![],
        changed: vec![rule("ssh", 44)],
        kept: 1,
        mobiles_added: Vec::new(),
        mobiles_removed: Vec::new(),
        mobiles_changed: Vec::new(),
        beside_the_file: 0,
        flows: 12,
        moving: 3,
        moving_bytes_per_second: Some(1_250_000),
        other_rule: 2,
        moves: vec![DiffMoveDocument {
            home: "acme".into(),
            rule_before: Some("ssh".into()),
            rule: Some("ssh".into()),
            from: mtun_policy::End::Via("wwan0".into()),
            to: mtun_policy::End::Via("wlan0".into()),
            flows: 3,
            bytes_per_second: Some(1_250_000),
            example: flows()[0].key.clone(),
        }],
    }
}
