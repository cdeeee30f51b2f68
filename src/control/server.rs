//! The daemon's end of the control socket.
//!
//! It owns the clients and nothing else: what they ask goes to the owner loop as a
//! [`ControlRequest`], what happened comes from it by [`Listeners`]. A client costs at most one
//! request in memory, what waits for it, and one place in [`Limits::clients`]; it can wait, stall,
//! leave or send nonsense without anyone else noticing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::line::Lines;
use super::listeners::Listeners;
use super::peer::{Access, Class, Peer};
use super::protocol::{ControlError, ErrorCode, REQUEST_MAX, ReplyLine, Request, Response};
use super::session::{Session, encode, forbidden};
use super::socket::{BindError, Socket};
use super::spare::{Spares, is_exhausted};

/// How much may wait for one client: a burst of link, binding and generation changes of a few
/// hundred mobiles fits.
pub const EVENTS_WAITING: usize = 1024;

/// How long a client may stay without a request who was taken in though there was no room.
const TIGHT: Duration = Duration::from_secs(1);

/// What a client asked, for the owner loop to answer.
#[derive(Debug)]
pub struct ControlRequest {
    /// The request; the peer may ask it.
    pub request: Request,
    /// Who asked.
    pub peer: Peer,
    /// Takes the answer. It is gone when the client left; that is no fault of the owner's.
    pub reply: oneshot::Sender<Result<Response, ControlError>>,
    /// Ends when the client's connection has ended. Nothing is ever sent.
    pub left: watch::Receiver<()>,
}

/// Where to listen, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The socket file, an absolute path.
    pub path: PathBuf,
    /// Who may ask what.
    pub access: Access,
    /// The directory whose files may be applied as a policy by others than root and the daemon's
    /// own user; none if `None`.
    pub policy_directory: Option<PathBuf>,
    /// What one client, and all of them, may cost.
    pub limits: Limits,
}

/// What one client, and all of them, may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at a time.
    pub clients: usize,
    /// Places among them kept for root and the daemon's own user, so that others cannot lock an
    /// administrator out.
    pub reserved: usize,
    /// Those who listen at a time, among the clients.
    pub monitors: usize,
    /// A request must end so long after its first octet.
    pub half_request: Duration,
    /// A client without a request is sent away after this time.
    pub idle: Duration,
    /// A client must take its reply in this time.
    pub write: Duration,
    /// The owner loop must answer in this time.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 96,
            reserved: 8,
            monitors: 64,
            half_request: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            // A policy of ten thousand rules is read and tried in a few seconds.
            answer: Duration::from_secs(30),
        }
    }
}

/// The listening control socket.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    shared: Shared,
}

/// What all clients have in common.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) access: Access,
    pub(super) policy_directory: Option<Arc<PathBuf>>,
    pub(super) limits: Limits,
    pub(super) clients: Arc<Semaphore>,
    pub(super) monitors: Arc<Semaphore>,
}

impl Server {
    /// Makes the socket file and listens at it. Needs a tokio runtime.
    pub async fn bind(settings: Settings) -> Result<Self, BindError> {
        let Settings { path, access, policy_directory, limits } = settings;
        let socket = Socket::bind(&path, access.read_group).await?;
        let shared = Shared {
            access,
            policy_directory: policy_directory.map(Arc::new),
            limits,
            clients: Arc::new(Semaphore::new(limits.clients)),
            monitors: Arc::new(Semaphore::new(limits.monitors)),
        };
        Ok(Self { socket, shared })
    }

    /// Serves clients until this future is dropped; then they are cut off and the file removed.
    ///
    /// `listeners` has what they listen to; its capacity is how far one may fall behind.
    pub async fn serve(self, requests: mpsc::Sender<ControlRequest>, listeners: Listeners) {
        let mut clients = JoinSet::new();
        let listener = &self.socket.listener;
        let mut spares = Spares::of(listener);
        // Whether the next client has no place of his own, and whether that was told.
        let (mut tight, mut told) = (false, false);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let shared = if tight { self.shared.tight() } else { self.shared.clone() };
                        if let Some(client) = shared.admit(stream, &requests, &listeners) {
                            clients.spawn(client.serve());
                        }
                        told &= tight;
                        tight = false;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "control socket: cannot accept a client");
                        }
                        tight = is_exhausted(&error) && spares.give_up();
                        if tight {
                            continue;
                        }
                        // Until clients leave.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
            spares.refill(listener);
        }
    }
}

impl Shared {
    /// For a client who is taken in though there is no room: it is one of those for whom places
    /// are kept, asks at once, and does not stay.
    fn tight(&self) -> Self {
        let limits = Limits { idle: TIGHT, reserved: usize::MAX, ..self.limits };
        Self { limits, monitors: Arc::new(Semaphore::new(0)), ..self.clone() }
    }

    /// Takes a client in, or tells it why not.
    fn admit(
        &self,
        stream: UnixStream,
        requests: &mpsc::Sender<ControlRequest>,
        listeners: &Listeners,
    ) -> Option<Session> {
        let peer = match Peer::of(std::os::fd::AsFd::as_fd(&stream)) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "control socket: the kernel does not name the peer");
                return None;
            }
        };
        if !peer.may(Class::Reading, &self.access) {
            tracing::info!(uid = peer.uid, pid = peer.pid, "control socket: client refused");
            turn_away(&stream, forbidden(&peer, Class::Reading, &self.access));
            return None;
        }
        let reserved = if peer.is_privileged() { 0 } else { self.limits.reserved };
        let place = (self.clients.available_permits() > reserved)
            .then(|| Arc::clone(&self.clients).try_acquire_owned().ok())
            .flatten();
        let Some(place) = place else {
            let count = self.limits.clients;
            turn_away(
                &stream,
                ControlError::new(
                    ErrorCode::Busy,
                    format!("all {count} places for clients of the control socket are taken"),
                )
                .help("close other mtun commands, `mtun monitor` above all, and try again"),
            );
            return None;
        };
        let (read, write) = stream.into_split();
        Some(Session {
            lines: Lines::new(read, REQUEST_MAX),
            write,
            peer,
            shared: self.clone(),
            requests: requests.clone(),
            listeners: listeners.clone(),
            here: watch::Sender::new(()),
            _place: place,
        })
    }
}

/// Writes an error to a client that gets no place, as far as its empty socket buffer takes it.
fn turn_away(stream: &UnixStream, error: ControlError) {
    // The first write to a connection always has room for a line of this size.
    let _ = stream.try_write(&encode(&ReplyLine::new(0, Err(error))));
}
