//! Key files: made and read with the care their content needs.
//!
//! A key file that others can read or replace is refused, and the error says which command mends
//! it. What is checked is the opened file, so nobody can exchange it between the check and the
//! reading. Keys never appear in errors, logs or `Debug` output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mtun_signaling::auth::{Algorithm, KeyFault, Secret, emit_key, parse_key};

/// The first SPI that is not reserved (RFC 4285 §8).
pub const FIRST_SPI: u32 = 256;

/// The longest key file that is read, in octets; a file of ours is shorter than 160.
const FILE_MAX: u64 = 4096;

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system said no.
    #[error("cannot {what} the key file {path}: {error}")]
    System {
        /// `read` or `make`.
        what: &'static str,
        /// The file, or its directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A symbolic link, which may be exchanged unseen.
    #[error("the key file {0} is a symbolic link; name the file itself")]
    SymbolicLink(PathBuf),
    /// A directory, a device or a pipe.
    #[error("the key file {0} is not a regular file")]
    NotAFile(PathBuf),
    /// Others can read or write it.
    #[error(
        "the key file {path} has mode {mode:04o}, so others may read it; run: chmod 600 {path}"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("the key file {path} belongs to user id {uid}; run: chown {own} {path}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Who we are.
        own: u32,
    },
    /// Others can replace files in its directory.
    #[error(
        "others may replace files in {path} (mode {mode:04o}, owner {uid}), which holds a key; \
         run: chmod go-w {path}, or keep the key in a directory of your own"
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
        /// Its owner.
        uid: u32,
    },
    /// It is not a key.
    #[error("the key file {path}: {fault}; `mtun key new --out FILE` makes one")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// A credential is named and the service manager has handed none over.
    #[error(
        "the credential {0} was not handed over: CREDENTIALS_DIRECTORY is not set; add \
         LoadCredential={0}:/path/of/the.key to the unit, or name a key-file"
    )]
    NoCredentials(String),
    /// There is a file already.
    #[error("{0} exists; a key is never overwritten: choose another name or remove it first")]
    Exists(PathBuf),
    /// The system has no randomness.
    #[error("the system gives no random octets: {0}")]
    Randomness(getrandom::Error),
}

/// Reads a key file, if nobody else can have read or replaced it.
pub fn read(path: &Path) -> Result<(Algorithm, Secret), KeyFileError> {
    check_directory(path, "read")?;
    let file = open(path)?;
    check_file(path, &file)?;
    content(path, file)
}

fn open(path: &Path) -> Result<File, KeyFileError> {
    // Non-blocking, so that a pipe in the file's place cannot hold the start up.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => KeyFileError::SymbolicLink(path.to_owned()),
        _ => KeyFileError::System { what: "read", path: path.to_owned(), error },
    })
}

fn content(path: &Path, file: File) -> Result<(Algorithm, Secret), KeyFileError> {
    let failed = |error| KeyFileError::System { what: "read", path: path.to_owned(), error };
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(FILE_MAX as usize));
    file.take(FILE_MAX).read_to_end(&mut text).map_err(failed)?;
    parse_key(&text).map_err(|fault| KeyFileError::Content { path: path.to_owned(), fault })
}

/// Reads a key that the service manager hands over as a credential of this name.
///
/// The credentials' directory is the manager's own, made for this service alone. So its mode is
/// taken as it is: a service that does not run as root reads its credentials by an access list,
/// which shows in the mode as if a group could read them.
pub fn read_credential(name: &str) -> Result<(Algorithm, Secret), KeyFileError> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    read_credential_in(directory.as_deref().map(Path::new), name)
}

fn read_credential_in(
    directory: Option<&Path>,
    name: &str,
) -> Result<(Algorithm, Secret), KeyFileError> {
    let directory = directory.filter(|directory| directory.is_absolute());
    let directory = directory.ok_or_else(|| KeyFileError::NoCredentials(name.to_owned()))?;
    let path = directory.join(name);
    let opened = open(&path)?;
    let metadata = opened.metadata().map_err(|error| KeyFileError::System {
        what: "read",
        path: path.clone(),
        error,
    })?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile(path));
    }
    if mode & 0o027 != 0 {
        return Err(KeyFileError::Mode { path, mode });
    }
    content(&path, opened)
}

/// Reads a key file's content from the credential that the service manager makes of it, if it hands
/// over the file's directory: `LoadCredential=keys:/etc/mtun/keys` makes `keys_home.key` of
/// `keys/home.key`. So one policy serves a daemon started by hand and one that may not read the
/// file. `None` if there is no such credential.
pub fn read_handed_over(file: &Path) -> Option<Result<(Algorithm, Secret), KeyFileError>> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    let name = credential_of(file)?;
    let directory = Path::new(&credentials);
    directory.join(&name).exists().then(|| read_credential_in(Some(directory), &name))
}

/// The service manager's name for a file of a directory that it hands over under its own name.
fn credential_of(file: &Path) -> Option<String> {
    let directory = file.parent()?.file_name()?.to_str()?;
    Some(format!("{directory}_{}", file.file_name()?.to_str()?))
}

/// A fresh key of the algorithm's own length.
pub fn generate(algorithm: Algorithm) -> Result<Secret, KeyFileError> {
    let mut octets = vec![0; algorithm.key_len()];
    getrandom::fill(&mut octets).map_err(KeyFileError::Randomness)?;
    Ok(Secret::new(octets).expect("every algorithm's own key length is allowed"))
}

/// A random SPI outside the reserved range, with the upper bit clear so that it reads well.
pub fn random_spi() -> Result<u32, KeyFileError> {
    let random = getrandom::u32().map_err(KeyFileError::Randomness)?;
    Ok(FIRST_SPI + random % (0x8000_0000 - FIRST_SPI))
}

/// Writes a key into a new file that only its owner can read.
pub fn write_new(path: &Path, algorithm: Algorithm, key: &Secret) -> Result<(), KeyFileError> {
    let failed = |error| KeyFileError::System { what: "make", path: path.to_owned(), error };
    check_directory(path, "make")?;
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
        _ => failed(error),
    })?;
    let written = file.write_all(&emit_key(algorithm, key)).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a key is of no use; that it stays is told by the error of the next try.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

/// req SE-11.
fn check_file(path: &Path, file: &File) -> Result<(), KeyFileError> {
    let failed = |error| KeyFileError::System { what: "read", path: path.to_owned(), error };
    let metadata = file.metadata().map_err(failed)?;
    let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
    let (path, own) = (path.to_owned(), own_uid());
    if !metadata.is_file() {
        Err(KeyFileError::NotAFile(path))
    } else if uid != 0 && uid != own {
        Err(KeyFileError::Owner { path, uid, own })
    } else if mode & 0o177 != 0 {
        Err(KeyFileError::Mode { path, mode })
    } else {
        Ok(())
    }
}

fn check_directory(file: &Path, what: &'static str) -> Result<(), KeyFileError> {
    let directory = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(KeyFileError::NotAFile(file.to_owned())),
    };
    let path = directory.to_owned();
    let metadata = std::fs::metadata(directory).map_err(|error| KeyFileError::System {
        what,
        path: path.clone(),
        error,
    })?;
    let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & 0o022 == 0 && (uid == 0 || uid == own_uid()) {
        Ok(())
    } else {
        Err(KeyFileError::Directory { path, mode, uid })
    }
}

fn own_uid() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory of our own, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mtun-key-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// req SE-11.
    #[test]
    fn a_new_key_can_be_read_by_its_owner_alone() {
        let scratch = Scratch::new("new");
        for (name, algorithm) in [("a.key", Algorithm::HmacSha256), ("b.key", Algorithm::HmacSha1)]
        {
            let path = scratch.0.join(name);
            let key = generate(algorithm).unwrap();
            write_new(&path, algorithm, &key).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
            let (read_algorithm, read_key) = read(&path).unwrap();
            assert!(read_algorithm == algorithm && read_key == key, "{name}");
            let again = write_new(&path, algorithm, &key);
            assert!(matches!(again, Err(KeyFileError::Exists(_))), "never overwritten");
        }
        assert!(generate(Algorithm::HmacSha1).unwrap() != generate(Algorithm::HmacSha1).unwrap());
    }

    /// req SE-11.
    #[test]
    fn a_key_that_others_could_have_is_refused() {
        let scratch = Scratch::new("others");
        let path = scratch.0.join("k");
        write_new(&path, Algorithm::HmacSha256, &generate(Algorithm::HmacSha256).unwrap()).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o700, 0o4600u32 | 0o007] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(KeyFileError::Mode { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path).is_ok(), "stricter is fine");

        let link = scratch.0.join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(read(&link), Err(KeyFileError::SymbolicLink(_))));
        assert!(matches!(read(&scratch.0), Err(KeyFileError::Directory { .. })), "/tmp is shared");
        let inner = scratch.0.join("directory");
        fs::create_dir(&inner).unwrap();
        assert!(matches!(read(&inner), Err(KeyFileError::NotAFile(_))));
        let missing = read(&scratch.0.join("none")).err().unwrap();
        assert!(matches!(missing, KeyFileError::System { .. }));

        fs::set_permissions(&scratch.0, Permissions::from_mode(0o770)).unwrap();
        let error = read(&path).err().unwrap();
        assert!(matches!(error, KeyFileError::Directory { .. }));
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o700)).unwrap();

        if own_uid() == 0 {
            std::os::unix::fs::chown(&path, Some(70_001), None).unwrap();
            assert!(matches!(read(&path), Err(KeyFileError::Owner { uid: 70_001, .. })));
        }
    }

    #[test]
    fn a_credential_is_read_from_the_directory_of_the_service_manager() {
        let scratch = Scratch::new("credential");
        let path = scratch.0.join("acme");
        let key = generate(Algorithm::HmacSha256).unwrap();
        write_new(&path, Algorithm::HmacSha256, &key).unwrap();
        for mode in [0o400, 0o440] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let (algorithm, read) = read_credential_in(Some(&scratch.0), "acme").unwrap();
            assert!(algorithm == Algorithm::HmacSha256 && read == key, "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let error = read_credential_in(Some(&scratch.0), "acme").err().unwrap();
        assert!(matches!(error, KeyFileError::Mode { .. }));
        let error = read_credential_in(Some(&scratch.0), "other").err().unwrap();
        assert!(matches!(error, KeyFileError::System { .. }));
        for directory in [None, Some(Path::new("")), Some(Path::new("relative"))] {
            let error = read_credential_in(directory, "acme").err().unwrap();
            assert!(matches!(error, KeyFileError::NoCredentials(_)));
            assert!(error.to_string().contains("LoadCredential=acme:"), "{error}");
        }
    }

    #[test]
    fn a_key_file_has_the_name_that_the_service_manager_gives_it() {
        let named = |path: &str| credential_of(Path::new(path));
        assert_eq!(named("/etc/mtun/keys/home.key").as_deref(), Some("keys_home.key"));
        assert_eq!(named("home.key"), None, "no directory, no name");
        assert_eq!(named("/"), None);
    }

    #[test]
    fn what_is_no_key_is_refused_without_quoting_it() {
        let scratch = Scratch::new("content");
        let path = scratch.0.join("k");
        for text in ["", "5ec4e7", "mtun-key-1 hmac-sha256 5ec4e7", "mtun-key-2 x 5ec4e7"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = read(&path).err().unwrap();
            assert!(matches!(error, KeyFileError::Content { .. }), "{text}");
            assert!(!error.to_string().contains("5ec4e7"), "{error}");
        }
    }
}
