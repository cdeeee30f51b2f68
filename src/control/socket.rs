//! The socket file: made so that others can neither take its place nor be pushed aside by it.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::peer::own_uid;

/// How long a daemon that may still live behind the socket file has to take a connection.
const ANSWER: Duration = Duration::from_secs(1);

/// Mode of the directory, if it is made here.
const DIRECTORY_MODE: u32 = 0o750;

/// Mode of the socket file: its group may connect, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Why there is no control socket. Each kind says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error(
        "another daemon answers at {0}; stop it first, or give this one another socket with \
         --socket"
    )]
    Taken(PathBuf),
    /// The path is a symbolic link, which somebody else may have laid.
    #[error("{0} is a symbolic link; remove it, or name the place it points to")]
    SymbolicLink(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("{0} exists and is not a socket; remove it, or choose another path with --socket")]
    NotASocket(PathBuf),
    /// A stale socket that belongs to another user.
    #[error("the socket {path} belongs to user id {uid}; remove it as that user or as root")]
    Foreign {
        /// The socket file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The directory can be written by others, who could then replace the socket.
    #[error(
        "the directory {path} can be written by others (mode {mode:04o}, owner {uid}); choose one \
         of your own, or run: chmod go-w {path}"
    )]
    SharedDirectory {
        /// The directory.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
        /// Its owner.
        uid: u32,
    },
    /// The path has no directory or no file name.
    #[error("{0} is not a path for a socket; give an absolute path such as /run/mtun/control.sock")]
    NotAPath(PathBuf),
    /// The system said no.
    #[error("cannot make the control socket {path}: {error}")]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A listening socket with its file; the file goes when this is dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl Socket {
    /// Makes the socket file and listens.
    ///
    /// A file in its place is replaced only if it is a socket of ours and nobody answers at it.
    /// Two daemons that start at once are kept apart by a lock on the directory.
    pub(super) async fn bind(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let not_a_path = || BindError::NotAPath(path.to_owned());
        let directory = path.parent().filter(|parent| parent.is_absolute());
        let directory = directory.ok_or_else(not_a_path)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(not_a_path)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| BindError::System { path, error }
        };

        let guard = open_directory(directory, group)?;
        guard.lock().map_err(failed(directory))?;
        may_replace(path).await?;

        // Bound under a name of its own, given its owner and mode, then moved into place in one
        // step: at no time is there a socket at `path` that others may connect to.
        let hidden = directory.join(format!(".{name}.{}", std::process::id()));
        match std::fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&hidden)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&hidden).map_err(failed(path))?;
        let placed = place(&hidden, path, group);
        if placed.is_err() {
            let _ = std::fs::remove_file(&hidden);
        }
        let identity = identity(&placed.map_err(failed(path))?);
        Ok(Self { listener, path: path.to_owned(), identity })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| identity(&metadata) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn place(hidden: &Path, path: &Path, group: Option<u32>) -> io::Result<Metadata> {
    std::os::unix::fs::chown(hidden, None, group)?;
    std::fs::set_permissions(hidden, PermissionsExt::from_mode(SOCKET_MODE))?;
    std::fs::rename(hidden, path)?;
    std::fs::symlink_metadata(path)
}

/// Opens the directory, made if it is missing, and makes sure that only root and we can write it.
fn open_directory(directory: &Path, group: Option<u32>) -> Result<File, BindError> {
    let failed = |error| BindError::System { path: directory.to_owned(), error };
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => {
            // The process's umask may have taken bits away.
            let mode = PermissionsExt::from_mode(DIRECTORY_MODE);
            std::fs::set_permissions(directory, mode).map_err(failed)?;
            std::os::unix::fs::chown(directory, None, group).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let opened = File::open(directory).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
    let trusted = metadata.is_dir() && (uid == 0 || uid == own_uid()) && mode & 0o022 == 0;
    if trusted {
        Ok(opened)
    } else {
        Err(BindError::SharedDirectory { path: directory.to_owned(), mode, uid })
    }
}

async fn may_replace(path: &Path) -> Result<(), BindError> {
    let owned = path.to_owned();
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::System { path: owned, error }),
    };
    if metadata.file_type().is_symlink() {
        return Err(BindError::SymbolicLink(owned));
    }
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(owned));
    }
    if metadata.uid() != own_uid() {
        return Err(BindError::Foreign { path: owned, uid: metadata.uid() });
    }
    match tokio::time::timeout(ANSWER, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Connected, too busy to connect, or not to be told: somebody may live there.
        Ok(_) | Err(_) => Err(BindError::Taken(owned)),
    }
}
