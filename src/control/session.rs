//! One client of the control socket, from its first request to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mtun_signaling::mobility_socket::{Delivery, FromClient, Interest, Next};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::documents::{Event, EventDocument, SubscriptionBody, SubscriptionLine};
use super::line::{LineError, Lines};
use super::listeners::Listeners;
use super::peer::{Access, Class, Peer};
use super::protocol::{
    ControlError, ErrorCode, PolicySource, REQUEST_MAX, ReplyLine, Request, Response, VERSION,
};
use super::server::{ControlRequest, Limits, Shared};

/// Octets that are written in one go to a client that listens.
const WRITTEN_AT_ONCE: usize = 16 << 10;

/// How long a connection may be silent that holds a link: it ends when its client does.
const HOLDS_A_LINK: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn forbidden(peer: &Peer, class: Class, access: &Access) -> ControlError {
    let what = match class {
        Class::Reading => "look at this daemon's state",
        Class::Steering => "steer this daemon's flows",
        Class::Movement => "say where this daemon's links are",
        Class::Administration => "change this daemon's state",
    };
    let help = match access.groups(class).next() {
        Some(group) => {
            format!("run the command as root, or become a member of group id {group} and log in")
        }
        None => "run the command as root; no group was given this right".to_owned(),
    };
    ControlError::new(ErrorCode::Forbidden, format!("user id {} may not {what}", peer.uid))
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
    pub(super) listeners: Listeners,
    /// Dropped with the connection: who waits for this client then knows that it has left.
    pub(super) here: watch::Sender<()>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl Session {
    /// Answers until the client leaves, stalls or becomes one that listens and leaves.
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
                Ok(()) => match request {
                    Request::Monitor {} | Request::Subscribe { .. } => {
                        return self.listen(id, request).await;
                    }
                    request => self.ask(request).await,
                },
                Err(error) => Err(error),
            };
            // Who has put a policy on trial may think it over: its connection vouches for it.
            if let Ok(Response::PolicyApplied(applied)) = &answer
                && let Some(seconds) = applied.confirm_within_seconds
            {
                idle = idle.max(self.shared.limits.idle + Duration::from_secs(seconds));
            }
            if let Ok(Response::Sent(sent)) = &answer {
                idle = match sent.claimed {
                    Some(_) => HOLDS_A_LINK,
                    None => idle,
                };
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
        match request {
            Request::Subscribe { filter, .. } => {
                let usage = |error: mtun_signaling::mobility_socket::FilterError| {
                    ControlError::new(ErrorCode::Usage, error.to_string())
                };
                filter.check().map_err(usage)?;
            }
            Request::Send { message } => {
                if let FromClient::Refused(reason) = message.kind().from_client() {
                    let kind = message.kind();
                    let error = format!("{kind} is the node's to tell: {reason}");
                    return Err(ControlError::new(ErrorCode::Refused, error));
                }
            }
            _ => {}
        }
        if class != Class::Reading {
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

    /// Sends what happens until the client leaves.
    async fn listen(mut self, id: u64, request: Request) {
        let Ok(_place) = Arc::clone(&self.shared.monitors).try_acquire_owned() else {
            let count = self.shared.limits.monitors;
            let error = ControlError::new(
                ErrorCode::Busy,
                format!("all {count} places for those who listen are taken"),
            );
            let _ = self.send(&ReplyLine::new(id, Err(error))).await;
            return;
        };
        // Before the owner is asked what is so, so that nothing happens unheard between.
        let waiting_max = self.listeners.capacity();
        let events_alone = Interest { events: true, ..Interest::default() };
        let (interest, as_events, at_once) = match &request {
            Request::Subscribe { filter, messages, events } => {
                let (filter, messages, events) = (filter.clone(), *messages, *events);
                let first = (!messages).then_some(Response::Subscribed { waiting_max });
                (Interest { filter, messages, events }, false, first)
            }
            _ => (events_alone, true, Some(Response::Monitor { waiting_max })),
        };
        let listener = self.listeners.join(interest);
        let first = match at_once {
            Some(first) => Ok(first),
            None => self.ask(request).await,
        };
        let stands = first.is_ok();
        if self.send(&ReplyLine::new(id, first)).await.is_err() || !stands {
            return;
        }
        let mut lines = Vec::new();
        loop {
            // What is taken out here is all that waits outside of the bounded queue.
            let later = loop {
                match listener.next() {
                    Next::Deliver(delivery) => {
                        lines.extend(self.line(delivery, as_events));
                    }
                    Next::Later => break true,
                    Next::Wait => break false,
                }
                if lines.len() >= WRITTEN_AT_ONCE {
                    break true;
                }
            };
            // However long this takes, only this client waits.
            tokio::select! {
                written = self.write.write_all(&lines) => if written.is_err() { return },
                () = self.lines.left() => return,
            }
            lines.clear();
            if later {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = listener.news() => {}
                () = self.lines.left() => return,
            }
        }
    }

    /// The line for something that a client is told; `as_events` to one who asked for `monitor`.
    fn line(&self, delivery: Delivery<EventDocument>, as_events: bool) -> Vec<u8> {
        let now = self.listeners.clock();
        let (at, body) = match delivery {
            Delivery::Event(event) => return encode(&*event),
            Delivery::Overflow { lost } if as_events => {
                return encode(&EventDocument::now(Event::Lost { count: lost }));
            }
            Delivery::Overflow { lost } => (now, SubscriptionBody::Overflow { lost }),
            Delivery::Present { facts } => (now, SubscriptionBody::Present { facts }),
            Delivery::State(fact) => (now, SubscriptionBody::State(Box::new((*fact).clone()))),
            Delivery::Message { at, message } => {
                (at, SubscriptionBody::Message(Box::new((*message).clone())))
            }
        };
        encode(&SubscriptionLine::new(at, now.saturating_sub(at), body))
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
