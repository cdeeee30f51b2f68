//! Policies on trial: what nobody confirms is taken back, whatever becomes of the client, of the
//! clock and of the daemon.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mtun::control::documents::{
    Event, PolicyAppliedDocument, PolicyCause, PolicyEntryState, PolicyHistoryDocument,
};
use mtun::control::protocol::PolicySource;
use mtun::control::{Client, ClientError, ErrorCode, Request, Response};
use mtun::lab::daemons::Daemon;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use mtun_policy::End;

use crate::fixture::{Lab, PATIENCE, assert_lossless, figure_11, programs};
use crate::need_lab;

/// Longer than any test: only what is tested may end such a trial.
const LONG: u64 = 3600;

/// A router without uplinks: policies come and go all the same.
fn lab() -> Lab {
    let plan = Plan { wlan: false, wwan: false, ..Plan::default() };
    Lab::start(plan, PolicyText::default())
}

/// The usual policy under another name.
fn named(name: &str) -> String {
    PolicyText::default().mobile.replace("policy \"figure-11\"", &format!("policy \"{name}\""))
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    let file = lab.mobile().policy().with_file_name(format!("{name}.kdl"));
    std::fs::write(&file, named(name)).unwrap();
    file
}

fn apply(
    client: &mut Client,
    file: PathBuf,
    confirm_seconds: Option<u64>,
) -> Result<PolicyAppliedDocument, ClientError> {
    match client.ask(Request::PolicyApply {
        source: PolicySource::File(file),
        confirm_seconds,
        detached: false,
    })? {
        Response::PolicyApplied(applied) => Ok(applied),
        other => panic!("not an answer to apply: {other:?}"),
    }
}

fn client(daemon: &Daemon) -> Client {
    Client::connect(daemon.socket()).unwrap()
}

fn history(daemon: &Daemon, entry: Option<u64>) -> PolicyHistoryDocument {
    match daemon.ask(Request::PolicyHistory { entry }).unwrap() {
        Response::PolicyHistory(history) => history,
        other => panic!("not a history: {other:?}"),
    }
}

/// Names and states, the present one first.
fn states(daemon: &Daemon) -> Vec<(String, PolicyEntryState)> {
    history(daemon, None).entries.into_iter().map(|it| (it.name, it.state)).collect()
}

fn wait_for_policy(daemon: &Daemon, name: &str) {
    daemon.wait_until(&format!("policy {name}"), PATIENCE, |it| it.policy == name).unwrap();
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (ErrorCode, String) {
    match result {
        Err(ClientError::Refused(error)) => (error.code, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_trial_ends_with_its_time() {
    need_lab!();
    let lab = lab();
    let daemon = lab.mobile();
    let mut waiting = client(daemon);
    let applied = apply(&mut waiting, file(&lab, "hasty"), Some(1)).unwrap();
    assert_eq!((applied.name.as_str(), applied.confirm_within_seconds), ("hasty", Some(1)));
    wait_for_policy(daemon, "figure-11");
    let entries = history(daemon, None).entries;
    use PolicyEntryState::{InForce, Replaced, RolledBack};
    assert_eq!(
        states(daemon),
        [
            ("figure-11".to_owned(), InForce),
            ("hasty".to_owned(), RolledBack),
            ("figure-11".to_owned(), Replaced)
        ]
    );
    assert_eq!(entries[0].cause, PolicyCause::Unconfirmed);
    assert_eq!((entries[1].cause, entries[1].uid), (PolicyCause::Apply, Some(0)));
    assert_eq!(entries[2].cause, PolicyCause::Start);
    // Too late.
    let late = refused(waiting.ask(Request::PolicyConfirm {}));
    assert_eq!(late.0, ErrorCode::NotFound, "{late:?}");
}

#[test]
fn a_trial_ends_with_its_client() {
    need_lab!();
    let lab = lab();
    let daemon = lab.mobile();
    let mut leaving = client(daemon);
    apply(&mut leaving, file(&lab, "lonely"), Some(LONG)).unwrap();
    assert_eq!(daemon.status().unwrap().policy, "lonely");
    // As when it is killed: the connection ends without a word.
    drop(leaving);
    wait_for_policy(daemon, "figure-11");
    assert_eq!(states(daemon)[1], ("lonely".to_owned(), PolicyEntryState::RolledBack));
}

#[test]
fn a_confirmed_policy_stays_and_another_waits_for_the_verdict() {
    need_lab!();
    let lab = lab();
    let daemon = lab.mobile();
    let mut first = client(daemon);
    apply(&mut first, file(&lab, "good"), Some(LONG)).unwrap();
    let left = history(daemon, None).entries[0].confirm_within_seconds;
    assert!(left.is_some_and(|left| (1..=LONG).contains(&left)), "{left:?}");

    let mut other = client(daemon);
    for confirm in [None, Some(LONG)] {
        let (code, message) = refused(apply(&mut other, file(&lab, "better"), confirm));
        assert_eq!(code, ErrorCode::Refused);
        assert!(message.contains("good is on trial"), "{message}");
    }
    let back_by_number = other.ask(Request::PolicyRollback { entry: Some(1) });
    assert_eq!(refused(back_by_number).0, ErrorCode::Refused);
    let mut events = client(daemon).monitor().unwrap();
    daemon.process.signal(libc::SIGHUP);
    let refusal = events.find_map(|event| match event.unwrap().event {
        Event::PolicyRefused { message } => Some(message),
        _ => None,
    });
    assert!(refusal.is_some_and(|message| message.contains("on trial")), "SIGHUP waits as well");

    match other.ask(Request::PolicyConfirm {}).unwrap() {
        Response::PolicyConfirmed(document) => assert_eq!(document.confirmed.name, "good"),
        other => panic!("not an answer to confirm: {other:?}"),
    }
    drop(first);
    // Whatever the departure of the client does is done before the next request is answered.
    apply(&mut other, file(&lab, "better"), None).unwrap();
    use PolicyEntryState::{InForce, Replaced};
    let wanted = [("better", InForce), ("good", Replaced), ("figure-11", Replaced)]
        .map(|(name, state)| (name.to_owned(), state));
    assert_eq!(states(daemon), wanted);
}

#[test]
fn a_policy_on_trial_is_taken_back_by_hand_and_earlier_ones_return() {
    need_lab!();
    let lab = lab();
    let daemon = lab.mobile();
    let mut client = client(daemon);
    let back = |client: &mut Client, entry| match client.ask(Request::PolicyRollback { entry }) {
        Ok(Response::PolicyRolledBack(document)) => {
            (document.taken_back.name, document.restored.name)
        }
        other => panic!("not rolled back: {other:?}"),
    };
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    apply(&mut client, file(&lab, "a"), None).unwrap();
    apply(&mut client, file(&lab, "b"), Some(LONG)).unwrap();
    assert_eq!(back(&mut client, None), pair("b", "a"));
    assert_eq!(back(&mut client, None), pair("a", "figure-11"), "further back");
    // Nothing of it needs the files any more.
    std::fs::remove_file(daemon.policy().with_file_name("b.kdl")).unwrap();
    let number = history(daemon, None).entries.iter().find(|it| it.name == "b").unwrap().entry;
    assert_eq!(back(&mut client, Some(number)), pair("figure-11", "b"));
    assert_eq!(daemon.status().unwrap().policy, "b");
    assert_eq!(history(daemon, Some(number)).text, Some(named("b")));
    let unknown = refused(client.ask(Request::PolicyRollback { entry: Some(999) }));
    assert_eq!(unknown.0, ErrorCode::NotFound);

    for number in 0..12 {
        apply(&mut client, file(&lab, &format!("p{number}")), None).unwrap();
    }
    assert_eq!(history(daemon, None).entries.len(), 10, "and not more");
}

#[test]
fn a_daemon_killed_in_a_trial_starts_with_what_was_confirmed() {
    need_lab!();
    let mut lab = lab();
    // The usual way: the file itself is changed, and applied.
    lab.text.mobile = named("fatal");
    let usual = lab.mobile().policy().to_owned();
    std::fs::write(&usual, &lab.text.mobile).unwrap();
    let mut waiting = client(lab.mobile());
    apply(&mut waiting, usual.clone(), Some(LONG)).unwrap();
    lab.mobile.as_mut().unwrap().process.kill().unwrap();
    for what in ["after the kill", "and after every further start"] {
        lab.start_mobile(&[]);
        let status = lab.mobile().status().unwrap();
        assert_eq!(status.policy, "figure-11", "{what}");
        assert!(format!("{:?}", status.health).contains("fatal"), "{what}: {:?}", status.health);
        lab.mobile.as_mut().unwrap().process.stop().unwrap();
    }
    lab.start_mobile(&[]);
    apply(&mut client(lab.mobile()), usual, None).unwrap();
    lab.mobile.as_mut().unwrap().process.stop().unwrap();
    lab.start_mobile(&[]);
    assert_eq!(lab.mobile().status().unwrap().policy, "fatal", "somebody meant it");
}

#[test]
fn a_stop_in_a_trial_takes_back_as_well() {
    need_lab!();
    let mut lab = lab();
    lab.text.mobile = named("fatal");
    let usual = lab.mobile().policy().to_owned();
    std::fs::write(&usual, &lab.text.mobile).unwrap();
    let mut waiting = client(lab.mobile());
    apply(&mut waiting, usual, Some(LONG)).unwrap();
    lab.mobile.as_mut().unwrap().process.stop().unwrap();
    lab.start_mobile(&[]);
    assert_eq!(lab.mobile().status().unwrap().policy, "figure-11");
}

#[test]
fn a_comparison_tells_what_would_move_and_moves_nothing() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let other =
        PolicyText::default().with_rule("probe", "match proto=udp dport=4000\n prefer wwan0");
    let file = lab.mobile().policy().with_file_name("other.kdl");
    std::fs::write(&file, other.mobile).unwrap();
    let mark = traffic.mark();
    let source = PolicySource::File(file);
    let diff = match lab.mobile().ask(Request::PolicyDiff { source }).unwrap() {
        Response::PolicyDiff(diff) => diff,
        other => panic!("not a comparison: {other:?}"),
    };
    let added: Vec<_> = diff.added.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!((added, diff.removed.len(), diff.changed.len()), (vec!["probe"], 0, 0));
    assert_eq!((diff.moving, diff.moves.len()), (2, 1), "the probes of router and node: {diff:#?}");
    let moved = &diff.moves[0];
    let rules = [&moved.rule_before, &moved.rule].map(|it| it.as_ref().unwrap().as_str());
    assert_eq!((rules, moved.flows), (["default", "probe"], 2));
    assert_eq!([&moved.from, &moved.to], [&End::Via("wlan0".into()), &End::Via("wwan0".into())]);
    assert!(moved.bytes_per_second.is_some_and(|rate| rate > 0), "{moved:?}");
    assert!(diff.flows >= 6, "all six flows were judged: {diff:#?}");
    // Nothing of it was applied.
    lab.settled(&traffic, figure_11);
    assert_lossless(&traffic, &mark, "a comparison");
    assert_eq!(history(lab.mobile(), None).entries.len(), 1);
}

#[test]
fn a_command_that_is_killed_while_it_asks_takes_its_policy_back() {
    need_lab!();
    let lab = lab();
    let daemon = lab.mobile();
    let (mut terminal, slave) = terminal();
    let mut command = Command::new(programs().mtun);
    command.arg("--socket").arg(daemon.socket()).args(["policy", "apply"]);
    command.arg(file(&lab, "asking")).args(["--confirm", "1h"]);
    command.stdin(slave.try_clone().unwrap()).stderr(slave).stdout(Stdio::null());
    let mut asking = command.spawn().unwrap();
    drop(command);
    let mut asked = Vec::new();
    while !String::from_utf8_lossy(&asked).contains("Keep it?") {
        let mut octets = [0; 256];
        let count = terminal.read(&mut octets).unwrap();
        asked.extend_from_slice(&octets[..count]);
    }
    assert_eq!(daemon.status().unwrap().policy, "asking");
    asking.kill().unwrap();
    asking.wait().unwrap();
    wait_for_policy(daemon, "figure-11");
    assert_eq!(states(daemon)[1], ("asking".to_owned(), PolicyEntryState::RolledBack));

    // Without a terminal nobody can be asked: another command gives the verdict.
    let path = file(&lab, "scripted");
    daemon.mtun_ok(&["policy", "apply", path.to_str().unwrap(), "--confirm", "1h"]).unwrap();
    assert_eq!(daemon.status().unwrap().policy, "scripted");
    daemon.mtun_ok(&["policy", "confirm"]).unwrap();
    assert_eq!(states(daemon)[0], ("scripted".to_owned(), PolicyEntryState::InForce));
}

/// A terminal, from both its ends.
fn terminal() -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let (no_name, no_settings) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: two live numbers to write to, and nothing else.
    let result = unsafe {
        libc::openpty(&raw mut master, &raw mut slave, no_name, no_settings, std::ptr::null())
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the call has just made both.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}
