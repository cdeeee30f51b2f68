//! Programs beside the daemon: one that drives its links, one that watches its bindings.
//!
//! They are the examples as anybody would run them, at the control sockets of a real router and a
//! real agent.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use mtun::control::documents::{BindingPhase, StatusDocument, SubscriptionBody};
use mtun::control::{Client, ClientError, ErrorCode, Heard};
use mtun::lab::daemons::cached;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use mtun_signaling::mobility_socket::{
    BcFlush, BcRemove, DadState, DuplicateDetection, Filter, MdCommand, MdInfo, MobilityKind,
    MobilityMessage, NodetypeInfo,
};

use crate::fixture::{Lab, PATIENCE, programs};
use crate::need_lab;

/// The latest change of a file, or of any below a directory.
fn changed(path: &Path) -> SystemTime {
    let own = std::fs::metadata(path).and_then(|it| it.modified()).unwrap_or(UNIX_EPOCH);
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    below.map(|entry| changed(&entry.path())).chain([own]).max().unwrap_or(own)
}

/// An example of this house; built if it is not, or not of what it shows.
fn example(name: &str) -> PathBuf {
    let programs = programs();
    let directory = programs.mtund.parent().expect("programs are in a directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = directory.join("examples").join(name);
    let source = format!("examples/{name}.rs");
    let of = [source.as_str(), "src/control", "signaling/src/mobility_socket"];
    if of.iter().all(|it| changed(&root.join(it)) < changed(&program)) {
        return program;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--offline", "--example", name]);
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(root).status().unwrap();
    assert!(built.success(), "the example {name} can be built");
    program
}

/// A running example with its lines.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Program {
    fn start(name: &str, socket: &Path) -> Self {
        let mut command = Command::new(example(name));
        command.arg("--socket").arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        Self { input: child.stdin.take(), child, lines }
    }

    /// The first line from here on of which this holds.
    fn line(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if holds(&line) => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("no line with {what}; there were {before:#?}"),
            }
        }
    }

    /// Says a line and gets the answer.
    fn ask(&mut self, line: &str) -> String {
        let input = self.input.as_mut().expect("not closed yet");
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.line("an answer", |_| true)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn phase(status: &StatusDocument, link: &str) -> Option<BindingPhase> {
    let mut bindings = status.bindings.iter();
    let found = bindings.find(|it| it.link.as_ref().is_some_and(|it| it.as_str() == link));
    found.map(|it| it.phase)
}

fn reason(status: &StatusDocument, link: &str) -> Option<String> {
    let mut links = status.links.iter();
    links.find(|it| it.interface.as_str() == link).and_then(|it| it.reason.clone())
}

const SAYS_SO: &str = "its movement detector says so";

fn refused(sent: Result<mtun::control::documents::SentDocument, ClientError>) -> ErrorCode {
    match sent {
        Err(ClientError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

/// A8, A9, J2: one detector outside moves the router, for all its links, and ours does not fight it.
#[test]
fn a_detector_outside_drives_the_links_until_it_dies() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let agent = Program::start("watch_bindings", lab.agent().socket());
    agent.line("the mark", |line| line.starts_with("2 bindings stand"));
    let filter = Filter { messages: vec![MobilityKind::MdInfo], ..Filter::default() };
    let mut moves = Client::connect(lab.mobile().socket()).unwrap().subscribe(filter).unwrap();
    let mut moved = move |command, external| loop {
        let heard: Heard = moves.next().unwrap().unwrap();
        if let Some(SubscriptionBody::Message(message)) = heard.body()
            && let MobilityMessage::MdInfo(it) = &**message
            && (it.command, it.external) == (command, external)
        {
            return it.clone();
        }
    };
    let mut detector = Program::start("movement_detector", lab.mobile().socket());

    // The carrier is there and the router answers, and yet the link leads nowhere.
    let answer = detector.ask("deregforeign wlan0");
    assert_eq!(answer, "ok wlan0 (BID 1) leads nowhere", "{}", lab.mobile().story());
    lab.registered(&["wwan0"]);
    agent.line("the end of BID 1", |line| line.contains("BC_REMOVE") && line.contains("BID 1"));
    let told = moved(MdCommand::DeregForeign, true);
    assert_eq!(told.reason.as_deref(), Some(SAYS_SO));
    let status = lab.mobile().status().unwrap();
    assert_eq!(reason(&status, "wlan0").as_deref(), Some(SAYS_SO));

    // What makes ours bring a link up does not.
    lab.world.wlan_down().unwrap();
    lab.world.wlan_up().unwrap();
    lab.world.wait_for_wlan_address().unwrap();
    assert_eq!(reason(&lab.mobile().status().unwrap(), "wlan0").as_deref(), Some(SAYS_SO));

    // Another may not, and what cannot be is refused.
    let link = Some("wlan0".into());
    let scan = MdInfo { link, ..MdInfo::new(MdCommand::Scan) };
    let other = Client::connect(lab.mobile().socket()).unwrap().send(MobilityMessage::MdInfo(scan));
    assert_eq!(refused(other), ErrorCode::Conflict);
    let answer = detector.ask("rereg wlan0 2001:db8:dead::1");
    assert!(answer.starts_with("no ") && answer.contains("no global address"), "{answer}");
    assert!(detector.ask("rereg eth9").contains("no uplink of this name"));

    let answer = detector.ask("rereg wlan0");
    assert_eq!(answer, "ok wlan0 (BID 1) is attached", "{}", lab.mobile().story());
    lab.registered(&["wlan0", "wwan0"]);
    assert!(moved(MdCommand::ReReg, true).care_of.is_some());

    // It says that the link is gone and dies: ours looks after it again at once.
    assert!(detector.ask("deregforeign wlan0").starts_with("ok"));
    lab.registered(&["wwan0"]);
    drop(detector);
    lab.registered(&["wlan0", "wwan0"]);
    assert!(moved(MdCommand::ReReg, false).care_of.is_some());

    // Given back in good manners, it is ours as well.
    let mut detector = Program::start("movement_detector", lab.mobile().socket());
    assert!(detector.ask("deregforeign wwan0").starts_with("ok"));
    lab.registered(&["wlan0"]);
    assert_eq!(detector.ask("scan wwan0"), "ok wwan0 is looked at by the daemon again");
    lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(detector.ask("scan"), "ok looked again; 0 links given back");
}

/// J2: the same for the home link.
#[test]
fn a_detector_outside_says_when_the_router_is_home() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default().with_home_uplink("home"));
    lab.registered(&["wlan0", "wwan0"]);
    let mut detector = Program::start("movement_detector", lab.mobile().socket());
    assert!(detector.ask("deregforeign eth0").starts_with("ok"));
    let filter = Filter { messages: vec![MobilityKind::HomeHint], ..Filter::default() };
    let mut hints = Client::connect(lab.mobile().socket()).unwrap().subscribe(filter).unwrap();
    let mut at_home = move || loop {
        let heard: Heard = hints.next().unwrap().unwrap();
        if let Some(SubscriptionBody::Message(message)) = heard.body()
            && let MobilityMessage::HomeHint(it) = &**message
        {
            return it.at_home;
        }
    };

    // Plugged in at home, and not believed.
    lab.world.attach_home().unwrap();
    lab.world.wait_for_wlan_address().unwrap();
    let status = lab.mobile().status().unwrap();
    assert_eq!(reason(&status, "eth0").as_deref(), Some(SAYS_SO));
    assert_ne!(phase(&status, "eth0"), Some(BindingPhase::AtHome));

    let answer = detector.ask("dereghome eth0");
    assert!(answer.ends_with("is the home link"), "{answer}");
    let is_home = |status: &StatusDocument| phase(status, "eth0") == Some(BindingPhase::AtHome);
    lab.mobile().wait_until("the home link to be used", PATIENCE, is_home).unwrap();
    assert!(at_home());
    let agent = lab.agent().wait_until("nothing to be bound", PATIENCE, |it| cached(it).is_empty());
    agent.unwrap();

    assert!(detector.ask("deregforeign eth0").starts_with("ok"));
    assert!(!at_home());
    lab.registered(&["wlan0", "wwan0"]);
}

/// J1, J4, J7: what an operator may end, and what is refused.
#[test]
fn an_operator_ends_bindings_at_the_agent() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let watching = Program::start("watch_bindings", lab.agent().socket());
    watching.line("the mark", |line| line.starts_with("2 bindings stand"));
    let at = |socket: &Path| Client::connect(socket).unwrap();
    let home_address = lab.mobile().status().unwrap().homes[0].home_address.unwrap();
    let home = lab.agent().status().unwrap().homes[0].name.clone();
    let remove = BcRemove { home: None, correspondent: None, home_address, bid: None };

    let sent = at(lab.agent().socket()).send(MobilityMessage::BcRemove(remove.clone())).unwrap();
    assert!(sent.done.starts_with("2 bindings of"), "{}", sent.done);
    for bid in ["BID 1", "BID 2"] {
        watching.line(bid, |line| line.contains("BC_REMOVE") && line.contains(bid));
    }
    // The mobile does not know, and may register again: here, when somebody has it do so.
    let again = at(lab.agent().socket()).send(MobilityMessage::BcRemove(remove.clone()));
    assert_eq!(refused(again), ErrorCode::NotFound);
    lab.world.wlan_down().unwrap();
    lab.world.wlan_up().unwrap();
    watching.line("BID 1 again", |line| line.contains("BC_ADD") && line.contains("BID 1"));
    lab.registered(&["wlan0", "wwan0"]);

    let flush = BcFlush { home: Some(home.clone()), correspondent: None };
    let sent = at(lab.agent().socket()).send(MobilityMessage::BcFlush(flush)).unwrap();
    assert_eq!(sent.done, "the bindings of 1 mobiles ended");
    watching.line("the flush", |line| line.contains("BC_FLUSH"));

    // Neither is a mobile's affair, and neither is an agent's what a mobile does.
    let at_mobile = at(lab.mobile().socket()).send(MobilityMessage::BcRemove(remove));
    assert_eq!(refused(at_mobile), ErrorCode::Refused);
    let scan = MobilityMessage::MdInfo(MdInfo::new(MdCommand::Scan));
    assert_eq!(refused(at(lab.agent().socket()).send(scan)), ErrorCode::Refused);
    // Nobody on the home link has the address of a mobile that is not bound.
    let filter = Filter { messages: vec![MobilityKind::Dad], ..Filter::default() };
    let mut verdicts = at(lab.agent().socket()).subscribe(filter).unwrap();
    let dad = |state| {
        MobilityMessage::Dad(DuplicateDetection {
            address: home_address.0,
            home: Some(home.clone()),
            state,
        })
    };
    at(lab.agent().socket()).send(dad(None)).unwrap();
    for state in [DadState::UnderWay, DadState::Unique] {
        let told = verdicts.by_ref().map(|heard| heard.unwrap()).find_map(|it| match it.body() {
            Some(SubscriptionBody::Message(message)) => Some((**message).clone()),
            _ => None,
        });
        assert_eq!(told, Some(dad(Some(state))));
    }
    assert_eq!(refused(at(lab.mobile().socket()).send(dad(None))), ErrorCode::NotFound);
    let role = |role, enabled| {
        let home = None;
        MobilityMessage::NodetypeInfo(NodetypeInfo { role, enabled, home, address: None })
    };
    let agent = || at(lab.agent().socket());
    let is_so = agent().send(role(mtun_policy::Role::HomeAgent, true)).unwrap();
    assert_eq!(is_so.done, "this node is home-agent already");
    let both = agent().send(role(mtun_policy::Role::MobileNode, true));
    assert_eq!(refused(both), ErrorCode::Conflict);
    let neither = agent().send(role(mtun_policy::Role::HomeAgent, false));
    assert_eq!(refused(neither), ErrorCode::Conflict);
}
