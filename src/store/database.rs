//! Records in one file of an embedded database.
//!
//! The database writes beside what it replaces and turns over with one checked page, so that after
//! any crash the file holds the last commit or the one before. At every start all of its checksums
//! are verified: a file that changed while nobody looked is told from a whole one.
//!
//! After a failed write nothing that the kernel has of the file may be trusted to be on the disk,
//! even if it can be read. [`Store::heal`] therefore copies what the file holds into a fresh one
//! and puts that in its place.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Builder, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Change, Key, Sealed, Store, StoreError};

/// The layout of the file that this version writes.
///
/// A file says in which format it was written, and which format a version must know to use it
/// ([`NEEDS`]). A version uses what needs no more than its own format, and its first commit makes the
/// file its own; anything else it leaves as it is. So one goes up and down between neighbours and keeps
/// every binding: what a version adds is a table of its own or an extension of a record that others
/// skip, and only the version after it may need that.
pub const FORMAT: u64 = 1;

/// The oldest format whose versions may use what this one writes: never newer than the one before.
pub const NEEDS: u64 = 1;

/// Octets of pages kept in memory. Records are written once and read at the start.
const CACHE: usize = 16 << 20;

const RECORDS: TableDefinition<'_, &[u8; Key::LENGTH], &[u8]> = TableDefinition::new("records");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The records of one daemon.
pub struct Database {
    path: PathBuf,
    /// Closed while the disk fails.
    open: Option<redb::Database>,
}

impl Database {
    /// Opens the file, or makes it. All of it is verified.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = builder().create(path).map_err(|error| at(path, error))?;
        check_format(&opened, path)?;
        Ok(Self { path: path.to_owned(), open: Some(opened) })
    }

    /// Opens a damaged file: keeps a copy of it, and in its place puts what is whole of it.
    /// Returns also how many records were not, as far as that can be told, and where the copy is.
    pub fn salvage(path: &Path) -> Result<(Self, usize, PathBuf), StoreError> {
        let mut damaged = 0;
        let whole = match builder().open(path).map_err(|error| at(path, error)) {
            Ok(opened) => {
                check_format(&opened, path)?;
                let mut whole = read(&opened, path)?;
                let all = whole.len();
                whole.retain(|(key, sealed)| sealed.open(*key).is_some());
                damaged = all - whole.len();
                whole
            }
            Err(StoreError::Damaged { .. }) => Vec::new(),
            Err(other) => return Err(other),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = beside(path, &format!("damaged-{since}"));
        std::fs::copy(path, &aside).map_err(|error| io_error(path, error))?;
        write_fresh(path, &whole)?;
        Ok((Self::open(path)?, damaged, aside))
    }

    /// Works on something that is not a file.
    #[cfg(test)]
    pub(super) fn on(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        let path = PathBuf::from("a simulated disk");
        let opened = builder().create_with_backend(backend).map_err(|error| at(&path, error))?;
        check_format(&opened, &path)?;
        Ok(Self { path, open: Some(opened) })
    }

    fn opened(&self) -> Result<&redb::Database, StoreError> {
        let closed = || io::Error::other("closed since the last write failed");
        self.open.as_ref().ok_or_else(|| io_error(&self.path, closed()))
    }
}

impl Store for Database {
    fn load(&mut self) -> Result<Vec<(Key, Sealed)>, StoreError> {
        read(self.opened()?, &self.path)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let written = write(self.opened()?, changes.iter().map(|it| (it.key, it.record.as_ref())));
        written.map_err(|error| {
            self.open = None;
            at(&self.path, error)
        })
    }

    fn heal(&mut self) -> Result<(), StoreError> {
        self.open = None;
        let records = {
            let present = builder().open(&self.path).map_err(|error| at(&self.path, error))?;
            read(&present, &self.path)?
        };
        write_fresh(&self.path, &records)?;
        self.open = Some(builder().open(&self.path).map_err(|error| at(&self.path, error))?);
        Ok(())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// A file with exactly these records takes the place of `path`; on the disk when this returns.
fn write_fresh(path: &Path, records: &[(Key, Sealed)]) -> Result<(), StoreError> {
    let fresh = beside(path, "new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&fresh, error));
        }
        _ => {}
    }
    {
        let made = builder().create(&fresh).map_err(|error| at(&fresh, error))?;
        let all = records.iter().map(|(key, sealed)| (*key, Some(sealed)));
        write(&made, all).map_err(|error| at(&fresh, error))?;
    }
    let moved = std::fs::rename(&fresh, path);
    moved.map_err(|error| io_error(path, error))?;
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    let synced = File::open(directory.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
    synced.map_err(|error| io_error(path, error))
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    format: u64,
    needs: u64,
}

/// Refuses a file that needs a newer version before anything is written to it (req PS-09).
fn check_format(database: &redb::Database, path: &Path) -> Result<(), StoreError> {
    match layout_of(database).map_err(|error| at(path, error))? {
        Some(layout) if layout.needs > FORMAT => {
            Err(StoreError::Newer { path: path.to_owned(), found: layout.format })
        }
        _ => Ok(()),
    }
}

fn layout_of(database: &redb::Database) -> Result<Option<Layout>, redb::Error> {
    let about = match database.begin_read()?.open_table(ABOUT) {
        Ok(about) => about,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let number = |word: &str| -> Result<Option<u64>, redb::Error> {
        Ok(about.get(word)?.map(|number| number.value()))
    };
    let Some(format) = number("format")? else { return Ok(None) };
    // A file that does not say it is for versions of its own format.
    Ok(Some(Layout { format, needs: number("needs")?.unwrap_or(format) }))
}

fn read(database: &redb::Database, path: &Path) -> Result<Vec<(Key, Sealed)>, StoreError> {
    let all = || -> Result<Vec<(Key, Sealed)>, redb::Error> {
        let records = match database.begin_read()?.open_table(RECORDS) {
            Ok(records) => records,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut all = Vec::new();
        for record in records.iter()? {
            let (key, octets) = record?;
            all.push((Key::from_octets(key.value()), Sealed(octets.value().to_vec())));
        }
        Ok(all)
    };
    all().map_err(|error| at(path, error))
}

fn write<'r>(
    database: &redb::Database,
    changes: impl Iterator<Item = (Key, Option<&'r Sealed>)>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        for (word, number) in [("format", FORMAT), ("needs", NEEDS)] {
            if about.get(word)?.is_none_or(|written| written.value() != number) {
                about.insert(word, number)?;
            }
        }
        let mut records = transaction.open_table(RECORDS)?;
        for (key, record) in changes {
            match record {
                Some(Sealed(octets)) => records.insert(&key.octets(), &octets[..])?,
                None => records.remove(&key.octets())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, error: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), error }
}

/// Says it in our words, with the file's name.
fn at(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::Io(error) => match error.kind() {
            // Shorter than it says, or not a database at all.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                StoreError::Damaged { path, what: error.to_string() }
            }
            _ => StoreError::Io { path, error },
        },
        redb::Error::DatabaseAlreadyOpen => StoreError::Busy { path },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            StoreError::Io { path, error: io::Error::other("an earlier write failed") }
        }
        other => StoreError::Damaged { path, what: other.to_string() },
    }
}

#[cfg(test)]
#[path = "database/tests.rs"]
mod tests;
