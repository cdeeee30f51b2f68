//! The control socket against clients that mean no good (T-26).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use mtun::control::protocol::{PolicySource, REQUEST_MAX};
use mtun::control::{
    Access, BindError, Client, ClientError, ErrorCode, Event, Limits, Request, Response, Server,
    Settings,
};
use mtun_policy::steering::Admin;
use serde_json::Value;

use super::documents;
use super::owner::{Owner, Plan, Scratch, example};
use super::users::{READ_GROUP, READER, STRANGER, User, WRITE_GROUP, WRITER, may_change_user};

const STATUS: &[u8] = b"{\"version\":1,\"id\":1,\"request\":{\"command\":\"status\"}}\n";

fn connect(owner: &Owner) -> UnixStream {
    let stream = UnixStream::connect(owner.socket()).unwrap();
    // Only so that a fault fails the test instead of hanging it.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The next line, `None` at the end.
fn line(stream: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = String::new();
    match stream.read_line(&mut line).unwrap() {
        0 => None,
        _ => Some(serde_json::from_str(&line).unwrap()),
    }
}

fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("none")
}

fn refused(result: Result<Response, ClientError>) -> Option<ErrorCode> {
    match result {
        Ok(_) => None,
        Err(ClientError::Refused(error)) => Some(error.code),
        Err(other) => panic!("{other}"),
    }
}

fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        access: Access::default(),
        policy_directory: None,
        limits: Limits::default(),
    }
}

#[test]
fn requests_are_answered_in_order_on_one_connection() {
    let owner = Owner::start(Plan::default());
    let mut stream = connect(&owner);
    let lines = "{\"version\":1,\"id\":7,\"request\":{\"command\":\"steer-list\"}}\n\
                 nonsense\n\
                 {\"version\":9,\"id\":8,\"request\":{\"command\":\"from-the-future\"}}\n\
                 {\"version\":1,\"id\":9,\"request\":{\"command\":\"policy-show\"}}\n";
    stream.write_all(lines.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let replies: Vec<Value> = (0..4).map(|_| line(&mut stream).unwrap()).collect();
    assert_eq!(replies[0]["result"]["kind"], "steer-list");
    assert_eq!((code(&replies[1]), code(&replies[2])), ("usage", "version"));
    assert_eq!(replies[3]["result"]["kind"], "policy");
    let ids: Vec<u64> = replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [7, 0, 8, 9]);
    let oks: Vec<bool> = replies.iter().map(|reply| reply["ok"].as_bool().unwrap()).collect();
    assert_eq!(oks, [true, false, false, true]);
    assert_eq!(owner.asked(), [Request::SteerList {}, Request::PolicyShow {}]);
}

#[test]
fn a_giant_request_is_refused_and_nobody_else_notices() {
    let owner = Owner::start(Plan::default());
    let mut giant = connect(&owner);
    let mut other = Client::connect(&owner.socket()).unwrap();
    // The server may hang up before it has read everything.
    let _ = giant.write_all(&vec![b'x'; 4 * REQUEST_MAX]);
    let mut giant = BufReader::new(giant);
    // Unread octets may cut the reply off; if it comes, it says why.
    let mut reply = String::new();
    match giant.read_line(&mut reply) {
        Ok(0) | Err(_) => {}
        Ok(_) => assert_eq!(code(&serde_json::from_str(&reply).unwrap()), "too-large"),
    }
    assert!(matches!(other.ask(Request::Status {}), Ok(Response::Status(_))));
    assert_eq!(owner.asked().len(), 1);
}

#[test]
fn the_largest_request_is_read_and_one_octet_more_is_not() {
    let owner = Owner::start(Plan::default());
    let head = "{\"version\":1,\"request\":{\"command\":\"flows\",\"filter\":\"";
    let tail = "\"}}\n";
    for (length, want) in [(REQUEST_MAX, "usage"), (REQUEST_MAX + 1, "too-large")] {
        let mut request = head.to_owned();
        request.extend(std::iter::repeat_n('x', length - head.len() - tail.len()));
        request.push_str(tail);
        assert_eq!(request.len(), length);
        let mut stream = connect(&owner);
        stream.write_all(request.as_bytes()).unwrap();
        let reply = line(&mut BufReader::new(stream)).unwrap();
        assert_eq!(code(&reply), want, "{length} octets");
    }
}

#[test]
fn half_a_request_does_not_wait_for_ever() {
    let half_request = Duration::from_millis(100);
    let limits = Limits { half_request, ..Limits::default() };
    let owner = Owner::start(Plan { limits, ..Plan::default() });

    let mut stalled = connect(&owner);
    stalled.write_all(&STATUS[..20]).unwrap();
    let start = Instant::now();
    let mut stalled = BufReader::new(stalled);
    assert_eq!(code(&line(&mut stalled).unwrap()), "too-slow");
    assert!(start.elapsed() >= half_request / 2, "not before its time");
    assert_eq!(line(&mut stalled), None, "and the connection is closed");

    let mut cut = connect(&owner);
    cut.write_all(&STATUS[..20]).unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    assert_eq!(code(&line(&mut BufReader::new(cut)).unwrap()), "usage");

    // Dribbling an octet at a time does not move the deadline.
    let mut dribble = connect(&owner);
    let ended = STATUS.iter().cycle().filter(|octet| **octet != b'\n').any(|octet| {
        let gone = dribble.write_all(&[*octet]).is_err();
        if !gone {
            std::thread::yield_now();
        }
        gone
    });
    assert!(ended);
    assert!(owner.asked().is_empty());
}

#[test]
fn an_idle_client_gives_its_place_back() {
    let limits = Limits { clients: 1, idle: Duration::from_millis(50), ..Limits::default() };
    let owner = Owner::start(Plan { limits, ..Plan::default() });
    let mut idle = connect(&owner);
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).unwrap(), 0, "closed without a word");
    let answer = wait_for_place(&owner);
    assert!(matches!(answer, Response::Status(_)));
}

/// Asks until there is a place.
fn wait_for_place(owner: &Owner) -> Response {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Client::connect(&owner.socket()).unwrap().ask(Request::Status {}) {
            Ok(response) => return response,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn the_97th_client_is_told_that_there_is_no_place() {
    let owner = Owner::start(Plan::default());
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..96 {
        let mut client = Client::connect(&owner.socket()).unwrap();
        client.ask(Request::Status {}).unwrap();
        clients.push(client);
    }
    let late = Client::connect(&owner.socket()).unwrap().ask(Request::Status {});
    assert_eq!(refused(late), Some(ErrorCode::Busy));
    for client in &mut clients {
        assert!(client.ask(Request::SteerList {}).is_ok(), "the others go on");
    }
    drop(clients.pop());
    assert!(matches!(wait_for_place(&owner), Response::Status(_)));
}

#[test]
fn monitors_are_fewer_than_clients() {
    let limits = Limits { monitors: 1, ..Limits::default() };
    let owner = Owner::start(Plan { limits, ..Plan::default() });
    let first = Client::connect(&owner.socket()).unwrap().monitor().unwrap();
    let second = Client::connect(&owner.socket()).unwrap().monitor();
    let error = second.err().unwrap();
    assert!(matches!(error, ClientError::Refused(ref e) if e.code == ErrorCode::Busy), "{error}");
    drop(first);
}

fn notice(number: usize) -> Event {
    let text = format!("{number} {}", "x".repeat(4000));
    Event::PolicyApplied { name: text }
}

#[test]
fn a_slow_monitor_loses_events_is_told_and_holds_nobody_up() {
    let owner = Owner::start(Plan { events: 16, ..Plan::default() });
    let mut slow = Client::connect(&owner.socket()).unwrap().monitor().unwrap();
    let mut prompt = Client::connect(&owner.socket()).unwrap();
    // Far more than socket buffers and the channel hold.
    let sent: usize = 2000;
    for number in 0..sent {
        owner.listeners.tell(notice(number).into());
        if number % 100 == 0 {
            // The server has had time to stall: it answers another client meanwhile.
            assert!(prompt.ask(Request::Status {}).is_ok());
        }
    }
    let (mut received, mut lost, mut last) = (0, 0, None);
    while received + lost < sent {
        match slow.next().unwrap().unwrap().event {
            Event::Lost { count } => lost += usize::try_from(count).unwrap(),
            Event::PolicyApplied { name } => {
                let number: usize = name.split(' ').next().unwrap().parse().unwrap();
                assert!(last < Some(number), "in order");
                last = Some(number);
                received += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0, "{received} received");
    assert_eq!((received + lost, last), (sent, Some(sent - 1)), "every event is accounted for");
}

#[test]
fn a_monitor_ends_with_the_daemon_and_frees_its_place_with_its_client() {
    let limits = Limits { monitors: 1, ..Limits::default() };
    let owner = Owner::start(Plan { limits, ..Plan::default() });
    let monitor = || Client::connect(&owner.socket()).unwrap().monitor();
    drop(monitor().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut second = loop {
        match monitor() {
            Ok(monitor) => break monitor,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    owner.listeners.tell(Event::SteerEnded { id: 3, expired: true }.into());
    let event = second.next().unwrap().unwrap();
    assert_eq!((event.version, event.event), (1, Event::SteerEnded { id: 3, expired: true }));
    owner.stop();
    assert!(second.next().is_none());
}

#[test]
fn the_classes_of_three_users_and_root() {
    if !may_change_user("control socket: classes of users") {
        return;
    }
    let access = Access {
        read_group: Some(READ_GROUP),
        write_group: Some(WRITE_GROUP),
        ..Access::default()
    };
    let policies = Scratch::new();
    let inside = policies.join("bus.kdl");
    std::fs::copy(example("figure-11.kdl"), &inside).unwrap();
    let policy_directory = Some(policies.0.clone());
    let owner = Owner::start(Plan { access, policy_directory, ..Plan::default() });
    let socket = owner.socket();

    let named = |file: &Path| PolicySource::File(file.to_owned());
    let apply = |file: &Path| Request::PolicyApply {
        source: named(file),
        confirm_seconds: None,
        detached: false,
    };
    let diff = |file: &Path| Request::PolicyDiff { source: named(file) };
    let steer = || Request::Steer {
        filter: "dport 22".to_owned(),
        via: "wwan0".to_owned(),
        seconds: 60,
        reason: None,
    };
    let hold = || Request::Link { link: "wwan0".to_owned(), admin: Admin::Held };
    let dotted = policies.join("../").join(policies.0.file_name().unwrap()).join("../passwd");
    let link = policies.join("link.kdl");
    symlink(example("figure-11.kdl"), &link).unwrap();
    let home_address = documents::agent_mobile().home_address;
    let forbidden = Some(ErrorCode::Forbidden);
    // (request, answer for readers, for writers, for root)
    type Answer = Option<ErrorCode>;
    let cases: Vec<(Request, Answer, Answer, Answer)> = vec![
        (Request::Status {}, None, None, None),
        (Request::Bindings {}, None, None, None),
        (Request::Flows { filter: None, limit: None }, None, None, None),
        (Request::Explain { flow: "x".to_owned(), given: vec![] }, None, None, None),
        (Request::SteerList {}, None, None, None),
        (Request::PolicyShow {}, None, None, None),
        (Request::Metrics {}, None, None, None),
        (Request::Monitor {}, None, None, None),
        (steer(), forbidden, None, None),
        (Request::SteerUndo { id: 61440 }, forbidden, None, None),
        (hold(), forbidden, None, None),
        (apply(&inside), forbidden, None, None),
        (apply(&example("figure-11.kdl")), forbidden, forbidden, None),
        (apply(&link), forbidden, forbidden, None),
        (apply(&dotted), forbidden, forbidden, Some(ErrorCode::PolicyFaults)),
        (apply(Path::new("bus.kdl")), forbidden, Some(ErrorCode::Usage), Some(ErrorCode::Usage)),
        (Request::PolicyConfirm {}, forbidden, None, None),
        (Request::PolicyRollback { entry: None }, forbidden, None, None),
        (Request::PolicyHistory { entry: None }, None, None, None),
        (Request::AgentList {}, None, None, None),
        (Request::AgentRevoke { home_address, bid: None }, forbidden, None, None),
        (Request::AgentPermit { home_address, bid: None }, forbidden, None, None),
        (Request::AgentRemove { home_address }, forbidden, None, None),
        (diff(&inside), None, None, None),
        (diff(&example("figure-11.kdl")), forbidden, forbidden, None),
    ];
    let ask = |user: User, request: &Request| {
        user.run(|| refused(Client::connect(&socket).unwrap().ask(request.clone())))
    };
    for (request, reader, writer, root) in &cases {
        assert_eq!(ask(READER, request), *reader, "reader: {request:?}");
        assert_eq!(ask(WRITER, request), *writer, "writer: {request:?}");
        let own = refused(Client::connect(&socket).unwrap().ask(request.clone()));
        assert_eq!(own, *root, "root: {request:?}");
    }

    // A link into the directory may be changed at any moment: the daemon gets the file itself.
    let outside = Scratch::new();
    symlink(&inside, outside.join("link.kdl")).unwrap();
    owner.asked();
    assert_eq!(ask(WRITER, &apply(&outside.join("link.kdl"))), None);
    assert_eq!(owner.asked(), [apply(&inside.canonicalize().unwrap())]);

    // The file's mode keeps strangers out; should it ever not, the kernel's word does.
    let stranger = || STRANGER.run(|| Client::connect(&socket));
    assert!(matches!(stranger(), Err(ClientError::NoPermission(_))));
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    owner.asked();
    for (request, ..) in &cases {
        assert_eq!(ask(STRANGER, request), forbidden, "stranger: {request:?}");
    }
    assert!(owner.asked().is_empty(), "nothing of it reached the daemon");
}

#[test]
fn others_cannot_lock_the_administrator_out() {
    if !may_change_user("control socket: reserved places") {
        return;
    }
    let access = Access { read_group: Some(READ_GROUP), ..Access::default() };
    let owner = Owner::start(Plan { access, ..Plan::default() });
    let socket = owner.socket();
    let (clients, refusals): (Vec<_>, Vec<_>) = READER.run(|| {
        let clients = (0..102).map(|_| {
            let mut client = Client::connect(&socket).unwrap();
            let answer = refused(client.ask(Request::Status {}));
            (client, answer)
        });
        clients.partition(|(_, answer)| answer.is_none())
    });
    assert_eq!((clients.len(), refusals.len()), (88, 14));
    assert!(refusals.iter().all(|(_, answer)| *answer == Some(ErrorCode::Busy)));
    assert!(Client::connect(&socket).unwrap().ask(Request::Status {}).is_ok());
}

#[tokio::test]
async fn the_socket_and_its_directory_have_narrow_modes_and_go_again() {
    let scratch = Scratch::new();
    let directory = scratch.join("run");
    let path = directory.join("control.sock");
    let server = Server::bind(settings(&path)).await.unwrap();
    assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
    let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.as_slice(), std::slice::from_ref(&path), "nothing hidden is left");
    drop(server);
    assert!(!path.exists());

    // A successor that took the place keeps it.
    let server = Server::bind(settings(&path)).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a successor").unwrap();
    drop(server);
    assert!(path.exists());
}

#[tokio::test]
async fn a_path_is_taken_only_from_a_dead_socket_of_ours() {
    let scratch = Scratch::new();
    let bind = |name: &str| {
        let settings = settings(&scratch.join(name));
        async move { Server::bind(settings).await }
    };

    drop(UnixListener::bind(scratch.join("stale")).unwrap());
    assert!(scratch.join("stale").exists());
    let server = bind("stale").await.expect("nobody answers at it");
    let error = bind("stale").await.unwrap_err();
    assert!(matches!(error, BindError::Taken(_)), "{error}");
    drop(server);

    // Alive but not accepting: still somebody's.
    let living = UnixListener::bind(scratch.join("living")).unwrap();
    assert!(matches!(bind("living").await, Err(BindError::Taken(_))));
    drop(living);

    symlink(scratch.join("stale"), scratch.join("dangling")).unwrap();
    assert!(matches!(bind("dangling").await, Err(BindError::SymbolicLink(_))));
    drop(UnixListener::bind(scratch.join("target")).unwrap());
    symlink(scratch.join("target"), scratch.join("link")).unwrap();
    assert!(matches!(bind("link").await, Err(BindError::SymbolicLink(_))));
    assert!(scratch.join("target").exists(), "what it points to is left alone");

    std::fs::write(scratch.join("file"), "precious").unwrap();
    assert!(matches!(bind("file").await, Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(scratch.join("file")).unwrap(), b"precious");

    let relative = Server::bind(settings(Path::new("control.sock"))).await;
    assert!(matches!(relative, Err(BindError::NotAPath(_))));
    let long = scratch.join(&"x".repeat(200));
    let error = Server::bind(settings(&long)).await.unwrap_err();
    assert!(matches!(error, BindError::System { .. }), "{error}");

    let shared = scratch.join("shared");
    std::fs::create_dir(&shared).unwrap();
    for mode in [0o777, 0o1777, 0o770] {
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
        let error = Server::bind(settings(&shared.join("s"))).await.unwrap_err();
        assert!(matches!(error, BindError::SharedDirectory { .. }), "{mode:o}: {error}");
    }

    if may_change_user("control socket: a foreign socket file") {
        drop(UnixListener::bind(scratch.join("foreign")).unwrap());
        chown(scratch.join("foreign"), Some(STRANGER.uid), None).unwrap();
        let error = bind("foreign").await.unwrap_err();
        assert!(matches!(error, BindError::Foreign { uid, .. } if uid == STRANGER.uid), "{error}");
    }
}

#[tokio::test]
async fn two_daemons_that_start_at_once_are_kept_apart() {
    let scratch = Scratch::new();
    let path = scratch.join("control.sock");
    let bind = || Server::bind(settings(&path));
    let (first, second) = tokio::join!(bind(), bind());
    let bound = [&first, &second].iter().filter(|server| server.is_ok()).count();
    assert_eq!(bound, 1, "{first:?} {second:?}");
    assert!(UnixStream::connect(&path).is_ok());
}
