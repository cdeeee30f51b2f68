//! The other end of the control socket: what the command line and the tests use.
//!
//! Blocking, because a command asks one thing and prints the answer. `examples/watch_bindings.rs`
//! and `examples/movement_detector.rs` show it at work.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtun_signaling::mobility_socket::{Filter, MobilityMessage};

use super::documents::{EventDocument, SentDocument, SubscriptionBody, SubscriptionLine};
use super::protocol::{
    ControlError, ErrorCode, ReplyLine, Request, RequestLine, Response, VERSION,
};

/// The longest reply that is read, in octets: a full flow table in JSON.
const REPLY_MAX: u64 = 256 << 20;

/// How long a reply may take; longer than the daemon gives itself.
const PATIENCE: Duration = Duration::from_secs(45);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no daemon answers at {path}: {error}")]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file modes keep us out.
    #[error("no permission to talk to the daemon at {0}")]
    NoPermission(PathBuf),
    /// The daemon said no.
    #[error("{0}")]
    Refused(ControlError),
    /// The connection broke, or what came is no reply.
    #[error("the daemon's answer cannot be read: {0}")]
    Broken(String),
}

impl From<ClientError> for ControlError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoDaemon { .. } => Self::new(ErrorCode::NoDaemon, message).help(
                "start it with `mtund --policy FILE` or `systemctl start mtund`, or name its \
                 socket with --socket; `mtun demo` shows everything without a daemon of yours",
            ),
            ClientError::NoPermission(_) => Self::new(ErrorCode::Forbidden, message)
                .help("run the command as root, or as a member of the daemon's read group"),
            ClientError::Refused(error) => error,
            ClientError::Broken(_) => Self::new(ErrorCode::Internal, message)
                .help("the daemon's log may say more; is it of the same version?"),
        }
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NoPermission(path.to_owned()),
            _ => ClientError::NoDaemon { path: path.to_owned(), error },
        })?;
        let broken = |error: io::Error| ClientError::Broken(error.to_string());
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        Ok(Self { stream: BufReader::new(stream), next_id: 1 })
    }

    /// Asks one thing and waits for the answer.
    pub fn ask(&mut self, request: Request) -> Result<Response, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let line = RequestLine { version: VERSION, id, request };
        let mut octets = serde_json::to_vec(&line).expect("requests have text keys only");
        octets.push(b'\n');
        // A daemon that has no place for us says so and closes, perhaps before we have written.
        let written = self.stream.get_mut().write_all(&octets);
        let reply: ReplyLine = match (self.line()?, written) {
            (Some(line), _) => decode(&line)?,
            (None, Err(error)) => return Err(ClientError::Broken(error.to_string())),
            (None, Ok(())) => return Err(ClientError::Broken("it hung up".to_owned())),
        };
        match (reply.result, reply.error) {
            (_, Some(error)) => Err(ClientError::Refused(error)),
            (Some(result), None) if reply.id == id => Ok(result),
            (Some(_), None) => Err(ClientError::Broken("it answers another request".to_owned())),
            (None, None) => Err(ClientError::Broken("neither result nor error".to_owned())),
        }
    }

    /// Subscribes to events.
    pub fn monitor(mut self) -> Result<Monitor, ClientError> {
        match self.ask(Request::Monitor {})? {
            Response::Monitor { .. } => {
                // Events may be hours apart.
                let broken = |error: io::Error| ClientError::Broken(error.to_string());
                self.stream.get_ref().set_read_timeout(None).map_err(broken)?;
                Ok(Monitor { client: self })
            }
            _ => Err(ClientError::Broken("not an answer to `monitor`".to_owned())),
        }
    }

    /// Sends a message of the mobility socket and waits until it is done. A link that it moved is
    /// this connection's from then on, until it is dropped.
    pub fn send(&mut self, message: MobilityMessage) -> Result<SentDocument, ClientError> {
        match self.ask(Request::Send { message: Box::new(message) })? {
            Response::Sent(sent) => Ok(sent),
            _ => Err(ClientError::Broken("not an answer to `send`".to_owned())),
        }
    }

    /// Listens to the messages of the mobility socket that pass the filter, the present state
    /// first.
    pub fn subscribe(self, filter: Filter) -> Result<Subscription, ClientError> {
        self.listen(filter, true, false)
    }

    /// Listens to what passes the filter: messages of the mobility socket, events of
    /// [`Client::monitor`], or both.
    pub fn listen(
        mut self,
        filter: Filter,
        messages: bool,
        events: bool,
    ) -> Result<Subscription, ClientError> {
        match self.ask(Request::Subscribe { filter, messages, events })? {
            Response::Subscribed { .. } => {
                let broken = |error: io::Error| ClientError::Broken(error.to_string());
                self.stream.get_ref().set_read_timeout(None).map_err(broken)?;
                Ok(Subscription { client: self })
            }
            _ => Err(ClientError::Broken("not an answer to `subscribe`".to_owned())),
        }
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(REPLY_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.pop() == Some(b'\n') => Ok(Some(line)),
            Ok(0) => Ok(None),
            Ok(_) => Err(ClientError::Broken("it ends in the middle".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::Broken(format!("none within {} s", PATIENCE.as_secs())))
            }
            Err(error) => Err(ClientError::Broken(error.to_string())),
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(line).map_err(|error| ClientError::Broken(error.to_string()))
}

/// A subscription to events: an iterator that ends when the daemon leaves.
#[derive(Debug)]
pub struct Monitor {
    client: Client,
}

impl Iterator for Monitor {
    type Item = Result<EventDocument, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.client.line() {
            Ok(Some(line)) => Some(decode(&line)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Something heard on a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A line about one of the twelve messages, or about the subscription itself.
    Line(SubscriptionLine),
    /// Another event of the node.
    Event(EventDocument),
    /// What this program does not know, from a newer daemon: to be passed over.
    Unknown(serde_json::Value),
}

impl Heard {
    /// Reads a line of a subscription.
    pub fn parse(line: &[u8]) -> Result<Self, ClientError> {
        let value: serde_json::Value = decode(line)?;
        let read = match value.get("event").is_some() {
            true => serde_json::from_value(value.clone()).map(Self::Event),
            false => serde_json::from_value(value.clone()).map(Self::Line),
        };
        Ok(read.unwrap_or(Self::Unknown(value)))
    }

    /// What a line says, if it is one.
    pub fn body(&self) -> Option<&SubscriptionBody> {
        match self {
            Self::Line(line) => Some(&line.body),
            Self::Event(_) | Self::Unknown(_) => None,
        }
    }
}

/// A subscription to the mobility socket: an iterator that ends when the daemon leaves.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
}

impl Iterator for Subscription {
    type Item = Result<Heard, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.client.line() {
            Ok(Some(line)) => Some(Heard::parse(&line)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
