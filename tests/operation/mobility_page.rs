//! The page of the mobility socket is held against the protocol.

use std::collections::BTreeSet;

use mtun::control::protocol::{ReplyLine, Request, RequestLine, VERSION};
use mtun::control::server::EVENTS_WAITING;
use mtun::control::{ErrorCode, Heard, Limits};
use mtun_signaling::mobility_socket::{FILTER_MAX, FromClient, MobilityKind, matrix, read_value};
use serde_json::Value;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mobility-socket.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_line_of_the_page_is_one_of_the_protocol() {
    let page = page();
    let (mut said, mut sent) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some(line) = line.strip_prefix("-> ") {
            let request: RequestLine =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(request.version, VERSION);
            if let Request::Send { message } = request.request {
                sent.insert(message.kind());
            }
        } else if let Some(line) = line.strip_prefix("<- ") {
            let value: Value = serde_json::from_str(line).unwrap();
            if value.get("ok").is_some() {
                let reply: ReplyLine =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(reply.ok, reply.error.is_none());
                continue;
            }
            let heard = Heard::parse(line.as_bytes()).unwrap();
            assert!(!matches!(heard, Heard::Unknown(_)), "{line}");
            let written = match &heard {
                Heard::Line(line) => serde_json::to_value(line).unwrap(),
                Heard::Event(event) => serde_json::to_value(event).unwrap(),
                Heard::Unknown(value) => value.clone(),
            };
            super::schema::check(&written);
            assert_eq!(written, value, "what the page shows is what the node writes");
            let message = value.get("message").or_else(|| value.get("state"));
            if let Some(message) = message {
                // Strictly, as if a client had sent it: so the strict reader knows every field.
                said.insert(read_value(message.clone()).unwrap().kind());
            }
        }
    }
    assert_eq!(said, BTreeSet::from(MobilityKind::ALL), "one of each as the node says it");
    let may = |kind: &MobilityKind| matches!(kind.from_client(), FromClient::Done(_));
    let may: BTreeSet<_> = MobilityKind::ALL.into_iter().filter(may).collect();
    assert_eq!(sent, may, "one of each that a client may send");
}

#[test]
fn the_matrix_of_the_page_is_that_of_the_program() {
    let (page, matrix) = (page(), matrix());
    assert!(page.contains(&matrix), "docs/mobility-socket.md: the matrix is\n{matrix}");
}

#[test]
fn the_page_has_every_error_and_the_limits() {
    let page = page();
    // Those of the socket; the others are the command line's and the policy's.
    let codes = [
        ErrorCode::Usage,
        ErrorCode::Version,
        ErrorCode::TooLarge,
        ErrorCode::TooSlow,
        ErrorCode::Busy,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::Conflict,
        ErrorCode::Refused,
        ErrorCode::Internal,
    ];
    for code in codes {
        let word = serde_json::to_value(code).unwrap();
        assert!(page.contains(&format!("\n| `{}` |", word.as_str().unwrap())), "{code:?}");
    }
    let Limits { clients, reserved, monitors, half_request, idle, .. } = Limits::default();
    let limits = [
        format!("has at most {} octets, a list", mtun::control::protocol::REQUEST_MAX),
        format!("a list of a filter {FILTER_MAX} entries"),
        format!("{clients} clients at\na time, {reserved} of the places"),
        format!("all {clients} places for clients, or all {monitors} for those who listen"),
        format!("; {monitors} may listen"),
        format!("end within {} s of its first", half_request.as_secs()),
        format!("sent away after {} s", idle.as_secs()),
        format!("has {EVENTS_WAITING} messages\nwaiting"),
        format!("This page is version {VERSION}."),
    ];
    for text in limits {
        assert!(page.contains(&text), "docs/mobility-socket.md does not say: {text}");
    }
}
