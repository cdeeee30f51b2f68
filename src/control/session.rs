//! One client of the control socket, from its first request to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::documents::{Event, EventDocument};
use super::line::{LineError, Lines};
use super::peer::{Access, Class, Peer};
use super::protocol::{
    ControlError, ErrorCode, PolicySource, REQUEST_MAX, ReplyLine, Request, Response, VERSION,
};
use super::server::{ControlRequest, EVENTS_WAITING, Limits, Shared};

pub(super) fn forbidden(peer: &Peer, class: Class, access: &Access) -> ControlError {
    let (what, group) = match class {
        Class::Read => ("look at", access.read_group.or(access.write_group)),
        Class::Write => ("change", access.write_group),
    };
    let help = match group {
        Some(group) => {
            format!("run the command as root, or become a member of group id {group} and log in")
        }
        None => "run the command as root; no group was given this right".to_owned(),
    };
    ControlError::new(
        ErrorCode::Forbidden,
        format!("user id {} may not {what} this daemon's state", peer.uid),
    )
    .help(help)
}

pub(super) fn encode(line: &impl serde::Serialize) -> Vec<u8> {
    let mut octets = serde_json::to_vec(line).expect("documents have text keys only");
    octets.push(b'\n');
    octets
}

/// An admitted client with its connection.
pub(super) struct Session {
    pub(super) lines: Lines<OwnedReadHalf>,
    pub(super) write: OwnedWriteHalf,
    pub(super) peer: Peer,
    pub(super) shared: Shared,
    pub(super) requests: mpsc::Sender<ControlRequest>,
    pub(super) events: broadcast::Sender<EventDocument>,
    /// Dropped with the connection: who waits for this client then knows that it has left.
    pub(super) here: watch::Sender<()>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl Session {
    /// Answers until the client leaves, stalls or becomes a monitor that leaves.
    pub(super) async fn serve(mut self) {
        let Limits { mut idle, half_request, .. } = self.shared.limits;
        loop {
            let line = match self.lines.next(idle, half_request).await {
                Ok(line) => line,
                Err(error) => {
                    if let Some(error) = explain(error, half_request) {
                        let _ = self.send(&ReplyLine::new(0, Err(error))).await;
                    }
                    return;
                }
            };
            let (id, mut request) = match parse(&line) {
                Ok(request) => request,
                Err((id, error)) => {
                    if self.send(&ReplyLine::new(id, Err(error))).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            drop(line);
            let answer = match self.may(&mut request) {
                Ok(()) if request == (Request::Monitor {}) => return self.monitor(id).await,
                Ok(()) => self.ask(request).await,
                Err(error) => Err(error),
            };
            // Who has put a policy on trial may think it over: its connection vouches for it.
            if let Ok(Response::PolicyApplied(applied)) = &answer
                && let Some(seconds) = applied.confirm_within_seconds
            {
                idle = idle.max(self.shared.limits.idle + Duration::from_secs(seconds));
            }
            if self.send(&ReplyLine::new(id, answer)).await.is_err() {
                return;
            }
        }
    }

    /// Whether the peer may ask this; a file it names is then the one that was judged.
    fn may(&self, request: &mut Request) -> Result<(), ControlError> {
        let (class, peer) = (request.class(), &self.peer);
        let command = request.command();
        if !peer.may(class, &self.shared.access) {
            tracing::info!(uid = peer.uid, pid = peer.pid, command, "control socket: refused");
            return Err(forbidden(peer, class, &self.shared.access));
        }
        if let Request::PolicyApply { source: PolicySource::File(file), .. }
        | Request::PolicyDiff { source: PolicySource::File(file) } = request
        {
            *file = self.may_read(file)?;
        }
        if class == Class::Write {
            tracing::info!(uid = peer.uid, pid = peer.pid, command, "control socket: request");
        }
        Ok(())
    }

    /// The file that the daemon may read for this peer. For one without privilege it is free of
    /// links, so that nothing the peer can change leads elsewhere after it was judged.
    fn may_read(&self, file: &Path) -> Result<PathBuf, ControlError> {
        if !file.is_absolute() {
            return Err(ControlError::new(
                ErrorCode::Usage,
                format!("the policy file {} is not an absolute path", file.display()),
            ));
        }
        if self.peer.is_privileged() {
            return Ok(file.to_owned());
        }
        let directory = self.shared.policy_directory.as_deref();
        let real = std::fs::canonicalize(file).ok().filter(|real| {
            directory
                .and_then(|directory| std::fs::canonicalize(directory).ok())
                .is_some_and(|directory| real.starts_with(directory))
        });
        real.ok_or_else(|| {
            let place = match directory {
                Some(directory) => format!("put the file into {}", directory.display()),
                None => "ask as root".to_owned(),
            };
            let (uid, file) = (self.peer.uid, file.display());
            let message = format!("user id {uid} may not have the daemon read {file}");
            ControlError::new(ErrorCode::Forbidden, message).help(place)
        })
    }

    async fn ask(&self, request: Request) -> Result<Response, ControlError> {
        let (reply, answer) = oneshot::channel();
        let stopping =
            || ControlError::new(ErrorCode::Internal, "the daemon is stopping and answers no more");
        let asked = async {
            let left = self.here.subscribe();
            let request = ControlRequest { request, peer: self.peer.clone(), reply, left };
            self.requests.send(request).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        };
        let limit = self.shared.limits.answer;
        timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(ControlError::new(
                ErrorCode::Internal,
                format!("the daemon did not answer within {} s", limit.as_secs()),
            )
            .help("its log says what it is doing"))
        })
    }

    /// Sends events until the client leaves.
    async fn monitor(mut self, id: u64) {
        let Ok(_place) = Arc::clone(&self.shared.monitors).try_acquire_owned() else {
            let count = self.shared.limits.monitors;
            let error = ControlError::new(
                ErrorCode::Busy,
                format!("all {count} places for monitors are taken"),
            );
            let _ = self.send(&ReplyLine::new(id, Err(error))).await;
            return;
        };
        let mut events = self.events.subscribe();
        let first = Response::Monitor { waiting_max: EVENTS_WAITING };
        if self.send(&ReplyLine::new(id, Ok(first))).await.is_err() {
            return;
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.lines.left() => return,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Lagged(count)) => Event::Lost { count }.into(),
                Err(RecvError::Closed) => return,
            };
            let line = encode(&event);
            // However long this takes, only this client waits: the channel drops what it misses.
            tokio::select! {
                written = self.write.write_all(&line) => if written.is_err() { return },
                () = self.lines.left() => return,
            }
        }
    }

    async fn send(&mut self, line: &ReplyLine) -> Result<(), ()> {
        let octets = encode(line);
        match timeout(self.shared.limits.write, self.write.write_all(&octets)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }
}

fn explain(error: LineError, half_request: Duration) -> Option<ControlError> {
    match error {
        LineError::Closed | LineError::Idle => None,
        LineError::Half => Some(ControlError::new(
            ErrorCode::Usage,
            "the request was cut off: a request ends with a newline",
        )),
        LineError::TooLarge => Some(
            ControlError::new(
                ErrorCode::TooLarge,
                format!("the request is longer than {REQUEST_MAX} octets"),
            )
            .help("name a policy by its file instead of sending its text"),
        ),
        LineError::TooSlow => Some(ControlError::new(
            ErrorCode::TooSlow,
            format!("the request did not end within {} s", half_request.as_secs_f64()),
        )),
    }
}

/// Reads a request line: first its version and id, so that a request of another version is told
/// so instead of being called malformed.
fn parse(line: &[u8]) -> Result<(u64, Request), (u64, ControlError)> {
    #[derive(serde::Deserialize)]
    struct Head {
        version: u64,
        #[serde(default)]
        id: u64,
        request: serde_json::Value,
    }
    let usage = |id, error: serde_json::Error| {
        let error = ControlError::new(
            ErrorCode::Usage,
            format!("the request cannot be understood: {error}"),
        );
        (id, error)
    };
    let head: Head = serde_json::from_slice(line).map_err(|error| usage(0, error))?;
    let Head { version, id, request } = head;
    if version != u64::from(VERSION) {
        let message = format!("this daemon speaks version {VERSION}, not {version}");
        let error = ControlError::new(ErrorCode::Version, message)
            .help("use the mtun command that came with the daemon");
        return Err((id, error));
    }
    let request = serde_json::from_value(request).map_err(|error| usage(id, error))?;
    Ok((id, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_requests_have_a_code_and_keep_their_id() {
        let cases: &[(&str, &str, u64, ErrorCode)] = &[
            ("nothing", "", 0, ErrorCode::Usage),
            ("not JSON", "status", 0, ErrorCode::Usage),
            ("not UTF-8 JSON", "\"\u{0}\"", 0, ErrorCode::Usage),
            ("no version", r#"{"request":{"command":"status"}}"#, 0, ErrorCode::Usage),
            (
                "another version, another shape",
                r#"{"version":2,"id":5,"request":"status"}"#,
                5,
                ErrorCode::Version,
            ),
            (
                "unknown command",
                r#"{"version":1,"id":5,"request":{"command":"stats"}}"#,
                5,
                ErrorCode::Usage,
            ),
            (
                "unknown field",
                r#"{"version":1,"id":5,"request":{"command":"status","all":true}}"#,
                5,
                ErrorCode::Usage,
            ),
            (
                "missing field",
                r#"{"version":1,"id":5,"request":{"command":"steer","filter":"x"}}"#,
                5,
                ErrorCode::Usage,
            ),
            (
                "number out of range",
                r#"{"version":1,"id":5,"request":{"command":"steer-undo","id":-1}}"#,
                5,
                ErrorCode::Usage,
            ),
        ];
        for (what, line, id, code) in cases {
            let (got, error) = parse(line.as_bytes()).unwrap_err();
            assert_eq!((got, error.code), (*id, *code), "{what}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().1.code, ErrorCode::Usage);
    }

    #[test]
    fn requests_survive_their_line() {
        let requests = [
            Request::Status {},
            Request::Flows { filter: Some("dport 22".to_owned()), limit: None },
            Request::Explain { flow: "tcp".to_owned(), given: vec!["wlan0=down".to_owned()] },
            Request::PolicyApply {
                source: PolicySource::Text("policy".to_owned()),
                confirm_seconds: Some(60),
                detached: true,
            },
            Request::PolicyRollback { entry: None },
            Request::PolicyHistory { entry: Some(3) },
            Request::Monitor {},
        ];
        for request in requests {
            let line = super::super::protocol::RequestLine {
                version: VERSION,
                id: 9,
                request: request.clone(),
            };
            assert_eq!(parse(&encode(&line)).unwrap(), (9, request));
        }
    }
}
