//! The dashboard: what the daemon knows, in a browser on this machine.
//!
//! It judges nothing. A page, a style and a script are in the program; they ask for the documents
//! that `mtun … --json` prints, and are told the events of the control socket as they happen. One
//! task, the `recorder`, asks the owner loop once for all who watch and keeps the last day. With
//! nobody watching it asks every ten seconds, for the history alone.
//!
//! `docs/dashboard.md` is its page.

mod answers;
mod assets;
mod history;
mod recorder;
mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use self::answers::Site;
use self::recorder::Recorder;
use crate::control::{ControlRequest, Listeners};
use crate::http::gate::{Gate, Token};
use crate::http::{self, HttpError, Listener, Place};

pub use history::{HistoryDocument, LiveDocument, MatrixCell, MoveRecord, SampleDocument};

/// Pages that watch at a time: each is a connection that does not end.
const WATCHERS: usize = 32;

/// What a dashboard is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub place: Place,
    /// Further names under which a proxy passes requests on.
    pub hosts: Vec<String>,
    /// The file with the token that lets a page steer; without it nothing can be changed.
    pub token: Option<PathBuf>,
}

/// The listener of the dashboard.
#[derive(Debug)]
pub struct Dashboard {
    listener: Listener,
    gate: Gate,
}

impl Dashboard {
    /// Listens, and reads the token.
    pub async fn bind(settings: &Settings) -> Result<Self, HttpError> {
        let token = settings.token.as_deref().map(read_token).transpose()?;
        let gate = Gate { hosts: settings.hosts.clone(), token, posts: true };
        Ok(Self { listener: Listener::bind(&settings.place).await?, gate })
    }

    /// Where it listens; tells the port if the system chose it. `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Serves until this future is dropped. `requests` leads to the owner loop, `listeners` has
    /// what happens.
    pub async fn serve(self, requests: mpsc::Sender<ControlRequest>, listeners: Listeners) {
        let recorder = Recorder::new(requests, listeners);
        let watchers = Arc::new(Semaphore::new(WATCHERS));
        let site = Arc::new(Site { gate: self.gate, recorder: recorder.clone(), watchers });
        tokio::select! {
            () = recorder.record() => {}
            () = http::serve(self.listener, move |request| {
                let site = Arc::clone(&site);
                async move { site.answer(request).await }
            }) => {}
        }
    }
}

/// The first line of a file that only its owner may read.
fn read_token(path: &Path) -> Result<Token, HttpError> {
    use std::os::unix::fs::PermissionsExt;
    let refused = |why: String| HttpError::Token { path: path.to_owned(), why };
    let facts = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refused(format!("mode {mode:04o} lets others read it; `chmod 600` it")));
    }
    let text = zeroize::Zeroizing::new(
        std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?,
    );
    Token::new(text.trim_end()).ok_or_else(|| {
        let least = Token::SHORTEST;
        refused(format!(
            "a token is at least {least} letters and digits; make one with `openssl rand -hex 16`"
        ))
    })
}
