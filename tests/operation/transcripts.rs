//! Transcripts of the mobility socket, played against the real server.
//!
//! ```text
//! # what it shows
//! a as mover              a connects, as one of the users (root if nothing is said)
//! a > {"version":1,…}     a sends a line
//! a < {"ok":true,…}       a gets this line; "*" stands for any value
//! a half {"version":      a sends so much and no newline
//! a octets 00ff0a         a sends these octets
//! a giant                 a sends more than a request may have
//! a leaves                a closes its end
//! a end                   the node has closed the connection
//! node says {"type":…}    the node tells a message
//! node event {"event":…}  the node tells an event
//! node has {"type":…}     the node has a fact before anybody listens
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mtun::control::protocol::REQUEST_MAX;
use mtun::control::{Access, EventDocument, Limits};
use mtun_signaling::mobility_socket::{Facts, MobilityMessage};
use serde_json::Value;

use super::owner::{Owner, Plan};
use super::users::{
    MOVE_GROUP, MOVER, READ_GROUP, READER, STEER_GROUP, STEERER, WRITE_GROUP, WRITER,
    may_change_user,
};

struct Connection(BufReader<UnixStream>);

impl Connection {
    fn new(owner: &Owner, user: &str) -> Self {
        let connect = || UnixStream::connect(owner.socket()).unwrap();
        let stream = match user {
            "root" => connect(),
            "reader" => READER.run(connect),
            "steerer" => STEERER.run(connect),
            "mover" => MOVER.run(connect),
            "writer" => WRITER.run(connect),
            other => panic!("no user {other}"),
        };
        // Only so that a fault fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, octets: &[u8]) {
        // The node may have closed the connection already.
        let _ = self.0.get_mut().write_all(octets);
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"))),
        }
    }
}

/// Whether what came is what was wanted.
fn fits(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(want), Value::Object(got)) => {
            want.len() == got.len()
                && want.iter().all(|(key, value)| got.get(key).is_some_and(|it| fits(value, it)))
        }
        (Value::Array(want), Value::Array(got)) => {
            want.len() == got.len() && want.iter().zip(got).all(|(want, got)| fits(want, got))
        }
        (want, got) => want == got,
    }
}

fn octets(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 16).unwrap()).collect()
}

fn play(path: &Path) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let has = text.lines().filter_map(|line| line.strip_prefix("node has "));
    let has = has.map(|it| serde_json::from_str::<MobilityMessage>(it).unwrap());
    let access = Access {
        read_group: Some(READ_GROUP),
        write_group: Some(WRITE_GROUP),
        steer_group: Some(STEER_GROUP),
        move_group: Some(MOVE_GROUP),
    };
    // Of one that never ends a request, the end is waited for.
    let half_request = Duration::from_millis(200);
    let limits = Limits { half_request, ..Limits::default() };
    let events = if text.contains("\"overflow\"") { 4 } else { 1024 };
    let owner =
        Owner::start(Plan { access, limits, events, facts: Facts::new(has), ..Plan::default() });
    let mut connections: BTreeMap<&str, Connection> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let (who, what) = (words.next().unwrap(), words.next().unwrap());
        let rest = words.next().unwrap_or_default();
        if who == "node" {
            match what {
                "has" => {}
                "says" => owner.listeners.say(serde_json::from_str(rest).expect(&at)),
                "event" => {
                    owner
                        .listeners
                        .tell(EventDocument::now(serde_json::from_str(rest).expect(&at)));
                }
                other => panic!("{at}: the node does not {other}"),
            }
            continue;
        }
        let user = if what == "as" { rest } else { "root" };
        let connection = connections.entry(who).or_insert_with(|| Connection::new(&owner, user));
        match what {
            "as" => {}
            ">" => connection.send(format!("{rest}\n").as_bytes()),
            "half" => connection.send(rest.as_bytes()),
            "octets" => connection.send(&octets(rest)),
            "giant" => connection.send(&vec![b'x'; 2 * REQUEST_MAX]),
            "<" => {
                let want: Value =
                    serde_json::from_str(rest).unwrap_or_else(|it| panic!("{at}: {it}"));
                let got = connection.line().unwrap_or_else(|| panic!("{at}: nothing came"));
                assert!(fits(&want, &got), "{at}: there came\n{got}");
            }
            "leaves" => connection.0.get_ref().shutdown(Shutdown::Both).unwrap(),
            "end" => {
                let mut rest = Vec::new();
                let _ = connection.0.read_to_end(&mut rest);
                let rest = String::from_utf8_lossy(&rest).into_owned();
                assert!(rest.is_empty(), "{at}: there came {rest}");
            }
            other => panic!("{at}: nobody can {other}"),
        }
    }
}

#[test]
fn transcripts() {
    if !may_change_user("mobility socket: transcripts with four users") {
        return;
    }
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operation/transcripts");
    let mut played = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "transcript") {
            play(&path);
            played += 1;
        }
    }
    assert!(played >= 8, "{played} transcripts");
}
