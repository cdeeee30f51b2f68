//! The socket of a real router, used by people with different rights and by people who misuse it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use mtun::control::documents::SubscriptionBody;
use mtun::control::protocol::{PolicySource, REQUEST_MAX};
use mtun::control::{Client, ClientError, ErrorCode, Request, Response};
use mtun::lab::daemons::registered;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use mtun_signaling::mobility_socket::{
    Facts, Filter, MdCommand, MdInfo, MobilityKind, MobilityMessage,
};

use crate::fixture::{Lab, assert_alive};
use crate::need_lab;
use crate::users::{
    MOVE_GROUP, MOVER, READ_GROUP, READER, STEER_GROUP, STEERER, STRANGER, User, WRITE_GROUP,
    WRITER, may_change_user,
};

/// A router with its agent whose socket is open to the groups of these tests.
fn lab() -> Lab {
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let groups = [
        ("--read-group", READ_GROUP),
        ("--write-group", WRITE_GROUP),
        ("--steer-group", STEER_GROUP),
        ("--move-group", MOVE_GROUP),
    ];
    let words = groups.map(|(word, group)| [word.to_owned(), group.to_string()]).concat();
    lab.start_mobile(&words.iter().map(String::as_str).collect::<Vec<_>>());
    // On a real machine the socket is in /run, where everybody may pass.
    for directory in [lab.world.directory(), &lab.world.directory().join("mobile")] {
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o711)).unwrap();
    }
    lab
}

fn ask(user: User, socket: &Path, request: Request) -> Result<Response, ErrorCode> {
    user.run(|| match Client::connect(socket).unwrap().ask(request) {
        Ok(response) => Ok(response),
        Err(ClientError::Refused(error)) => Err(error.code),
        Err(other) => panic!("{user:?}: {other}"),
    })
}

fn steer() -> Request {
    Request::Steer {
        filter: "dport 22".to_owned(),
        via: "wlan0".to_owned(),
        seconds: 600,
        reason: None,
    }
}

fn moves(command: MdCommand) -> Request {
    let link = Some("wlan0".into());
    let message = MobilityMessage::MdInfo(MdInfo { link, ..MdInfo::new(command) });
    Request::Send { message: Box::new(message) }
}

/// J4: who reads changes nothing, who steers moves no link, who moves links steers nothing, and the
/// administrator may all of it; each effect is seen at the router itself.
#[test]
fn each_user_may_what_the_groups_say_and_no_more() {
    need_lab!();
    if !may_change_user("rights at a real daemon") {
        return;
    }
    let lab = lab();
    lab.registered(&["wlan0", "wwan0"]);
    let (socket, policy) = (lab.mobile().socket(), lab.mobile().policy());
    let apply = || Request::PolicyApply {
        source: PolicySource::File(policy.to_owned()),
        confirm_seconds: None,
        detached: false,
    };
    let steered = || match lab.mobile().ask(Request::SteerList {}).unwrap() {
        Response::SteerList(list) => list.overrides.len(),
        other => panic!("{other:?}"),
    };
    let forbidden = Err(ErrorCode::Forbidden);
    for user in [READER, STEERER, MOVER, WRITER] {
        assert!(ask(user, socket, Request::Status {}).is_ok(), "{user:?} reads");
        let listens = user.run(|| Client::connect(socket).unwrap().subscribe(Filter::default()));
        let first = listens.unwrap().next().unwrap().unwrap();
        assert!(matches!(first.body(), Some(SubscriptionBody::State(_))), "{user:?} listens");
    }
    let stranger = STRANGER.run(|| Client::connect(socket).map(drop));
    assert!(matches!(stranger, Err(ClientError::NoPermission(_))), "{stranger:?}");

    // Nothing that they may not has an effect.
    let is_refused = |user: User, request: Request| {
        let what = format!("{user:?}: {request:?}");
        assert_eq!(ask(user, socket, request).map(|_| ()), forbidden, "{what}");
    };
    for user in [READER, MOVER] {
        is_refused(user, steer());
    }
    for user in [READER, STEERER] {
        is_refused(user, moves(MdCommand::DeregForeign));
    }
    for user in [READER, STEERER, MOVER] {
        is_refused(user, apply());
        is_refused(user, Request::PolicyRollback { entry: None });
    }
    assert_eq!(steered(), 0);
    assert_eq!(registered(&lab.mobile().status().unwrap()), ["wlan0", "wwan0"]);

    // What they may has one.
    assert!(ask(STEERER, socket, steer()).is_ok());
    assert_eq!(steered(), 1);
    assert!(ask(WRITER, socket, steer()).is_ok());
    assert_eq!(steered(), 2);
    assert!(ask(WRITER, socket, apply()).is_ok());
    for user in [MOVER, WRITER] {
        // The link is theirs as long as their connection lasts.
        let mut theirs = user.run(|| Client::connect(socket).unwrap());
        let asked = user.run(|| theirs.ask(moves(MdCommand::DeregForeign)).map(|_| ()));
        assert!(asked.is_ok(), "{user:?}: {asked:?}");
        lab.registered(&["wwan0"]);
        drop(theirs);
        lab.registered(&["wlan0", "wwan0"]);
    }
}

/// J3: half a request, a giant and a cut connection cost nobody anything but whoever sent them.
#[test]
fn half_requests_and_giants_are_sent_away() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let socket = lab.mobile().socket();
    let request = b"{\"version\":1,\"id\":1,\"request\":{\"command\":\"status\"}}\n";
    let connect = || UnixStream::connect(socket).unwrap();
    let code = |stream: UnixStream| -> Option<String> {
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).ok().filter(|length| *length > 0)?;
        let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
        Some(reply["error"]["code"].as_str().unwrap().to_owned())
    };
    let mut halves: Vec<_> = (0..16).map(|_| connect()).collect();
    for half in &mut halves {
        half.write_all(&request[..20]).unwrap();
    }
    // Some leave in the middle of it.
    for mut half in (0..64).map(|_| connect()) {
        half.write_all(&request[..30]).unwrap();
    }
    for _ in 0..4 {
        let mut giant = connect();
        // It may hang up before it has read everything, and what is unread may cut the reply off.
        let _ = giant.write_all(&vec![b'x'; 4 * REQUEST_MAX]);
        assert!(matches!(code(giant).as_deref(), None | Some("too-large")));
        assert!(lab.mobile().status().is_ok(), "others are answered");
    }
    for half in halves {
        assert_eq!(code(half).as_deref(), Some("too-slow"));
    }
    let mut nonsense = connect();
    nonsense.write_all(b"\xff\xfe{]\n").unwrap();
    assert_eq!(code(nonsense).as_deref(), Some("usage"));
    assert_alive(&traffic);
    assert_eq!(registered(&lab.mobile().status().unwrap()), ["wlan0", "wwan0"]);
}

/// Octets of the router's daemon that are in memory.
fn resident(lab: &Lab) -> usize {
    let statm = format!("/proc/{}/statm", lab.mobile().process.id());
    let statm = std::fs::read_to_string(statm).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// J3: 63 clients that listen and do not read, beside one that does, while a detector moves a link
/// again and again. Who reads misses nothing; the others are told that they did, and know in the
/// end what stands.
#[test]
fn sixty_three_slow_clients_cost_a_router_nothing() {
    const SLOW: usize = 63;
    const MOVES: usize = 1500;
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let socket = lab.mobile().socket();
    let listen = |filter| Client::connect(socket).unwrap().subscribe(filter).unwrap();
    let slow: Vec<_> = (0..SLOW).map(|_| listen(Filter::default())).collect();
    let filter = Filter { messages: vec![MobilityKind::MdInfo], ..Filter::default() };
    let mut prompt = listen(filter);
    // No place for one more who listens; who asks is answered.
    let more = Client::connect(socket).unwrap().subscribe(Filter::default());
    assert!(matches!(more, Err(ClientError::Refused(_))));
    let before = resident(&lab);

    let mut detector = Client::connect(socket).unwrap();
    let mut moved = |command| {
        let done = detector.ask(moves(command)).unwrap();
        assert!(matches!(done, Response::Sent(_)), "{done:?}");
        loop {
            let heard = prompt.next().unwrap().unwrap();
            match heard.body() {
                Some(SubscriptionBody::Message(message)) => match &**message {
                    MobilityMessage::MdInfo(it) if it.external && it.command == command => return,
                    _ => {}
                },
                Some(SubscriptionBody::Overflow { .. }) => panic!("it reads, and missed some"),
                _ => {}
            }
        }
    };
    for _ in 0..MOVES {
        moved(MdCommand::DeregForeign);
        moved(MdCommand::ReReg);
    }
    lab.registered(&["wlan0", "wwan0"]);
    let grown = resident(&lab).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} octets more for {SLOW} slow clients");

    // Each is told that it missed some, and what stands.
    let stands = |listening: mtun::control::Subscription| -> (Facts, u64) {
        let (mut facts, mut lost, mut shown) = (Facts::default(), 0, false);
        let is_attached = |message: &MobilityMessage| {
            matches!(message, MobilityMessage::MdInfo(it)
            if it.link == Some("wlan0".into()) && it.care_of.is_some())
        };
        for heard in listening {
            match heard.unwrap().body() {
                Some(SubscriptionBody::State(message) | SubscriptionBody::Message(message)) => {
                    facts.apply(&Arc::new((**message).clone()));
                }
                Some(SubscriptionBody::Present { .. }) => shown = true,
                Some(SubscriptionBody::Overflow { lost: missed }) => {
                    lost += missed;
                    (facts, shown) = (Facts::default(), false);
                }
                None => {}
            }
            if shown && lost > 0 && facts.iter().any(|(_, message)| is_attached(message)) {
                break;
            }
        }
        (facts, lost)
    };
    for listening in slow {
        let (facts, lost) = stands(listening);
        assert!(lost > 0, "it did miss some");
        assert!(!facts.is_empty());
    }
    assert!(lab.mobile().status().is_ok());
}
