//! The daemon, as the commands see it.

use std::path::PathBuf;

use mtun_signaling::mobility_socket::Filter;

use crate::control::{Client, ControlError, ErrorCode, Request, Response, Subscription};

/// Where the daemon listens.
pub(super) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// The daemon at this socket; nothing is connected yet.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A connection that the caller keeps.
    pub(super) fn connect(&self) -> Result<Client, ControlError> {
        Ok(Client::connect(&self.socket)?)
    }

    /// Asks one thing.
    pub(super) fn ask(&self, request: Request) -> Result<Response, ControlError> {
        Ok(Client::connect(&self.socket)?.ask(request)?)
    }

    /// Listens to messages and events.
    pub(super) fn subscribe(
        &self,
        filter: Filter,
        messages: bool,
        events: bool,
    ) -> Result<Subscription, ControlError> {
        Ok(Client::connect(&self.socket)?.listen(filter, messages, events)?)
    }
}

/// The error for an answer to another question.
pub(super) fn unexpected() -> ControlError {
    ControlError::new(ErrorCode::Internal, "the daemon answered another question")
        .help("is the daemon of the same version as this command?")
}
