//! What a home agent must not forget: one record per mobile, safe before it is promised.
//!
//! ```text
//!   owner loop ──record, answers──► Keeper ──one commit for all that wait──► Store
//!                                     └──answers leave, once their record is on the disk
//! ```
//!
//! An acknowledgement leaves only when what it promises would outlive the power (req PS-01, PS-02, PS-03).
//! Packets do not wait: they follow a verified update at once, and an update whose acknowledgement
//! was lost is simply sent again. All records that wait while the disk is busy are one commit.
//!
//! A [`Store`] keeps octets by [`Key`] and puts a set of changes down as a whole or not at all;
//! [`Database`] is the one that runs. What the octets of a mobile mean is
//! [`MobileRecord`](mtun_signaling::agent::MobileRecord)'s business. Each is kept with the
//! [`Moment`] at which it was taken, so that lifetimes go on over a restart, and with a checksum
//! over all of it: a record that changed on the disk is told from one that did not (req PS-04).

mod database;
mod keeper;
mod moment;

use std::path::PathBuf;

use mtun_policy::{HomeAddress, HomeAgentAddress};
use sha2::{Digest, Sha256};

pub use database::{Database, FORMAT, NEEDS};
pub use keeper::{Health, Keeper, KeeperFigures};
pub use moment::Moment;

/// Whose record it is: the agent's address and the mobile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The agent that serves it.
    pub agent: HomeAgentAddress,
    /// The mobile.
    pub home_address: HomeAddress,
}

/// One record, or that there is none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub key: Key,
    /// The record; `None` to forget it.
    pub record: Option<Sealed>,
}

/// A record as it lies on the disk.
///
/// ```text
/// | checksum (8) | boot identifier (16) | time since boot, ms (8) | time of day, ms (8) | record |
/// ```
///
/// The checksum is the beginning of SHA-256 over the key and all that follows it: it is there for
/// failing disks, not against people, who would have the keys of the mobiles too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

const CHECKSUM: usize = 8;

impl Key {
    const LENGTH: usize = 32;

    fn octets(self) -> [u8; Self::LENGTH] {
        let mut octets = [0; Self::LENGTH];
        octets[..16].copy_from_slice(&self.agent.0.octets());
        octets[16..].copy_from_slice(&self.home_address.0.octets());
        octets
    }

    fn from_octets(octets: &[u8; Self::LENGTH]) -> Self {
        let address = |half: &[u8]| <[u8; 16]>::try_from(half).expect("half of 32").into();
        Self {
            agent: HomeAgentAddress(address(&octets[..16])),
            home_address: HomeAddress(address(&octets[16..])),
        }
    }
}

impl Sealed {
    /// Seals the record that `emit` appends, taken at `moment`.
    pub fn seal(key: Key, moment: Moment, emit: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut octets = vec![0; CHECKSUM];
        octets.extend_from_slice(&moment.octets());
        emit(&mut octets);
        let sum = checksum(key, &octets[CHECKSUM..]);
        octets[..CHECKSUM].copy_from_slice(&sum);
        Self(octets)
    }

    /// When it was taken, and the record; `None` if its octets are not those that were sealed
    /// under this key.
    pub fn open(&self, key: Key) -> Option<(Moment, &[u8])> {
        let (sum, sealed) = self.0.split_first_chunk::<CHECKSUM>()?;
        if *sum != checksum(key, sealed) {
            return None;
        }
        let (moment, record) = sealed.split_first_chunk::<{ Moment::LENGTH }>()?;
        Some((Moment::from_octets(moment), record))
    }
}

fn checksum(key: Key, sealed: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(key.octets()).chain_update(sealed).finalize();
    *digest.first_chunk().expect("32 octets")
}

/// Keeps records.
pub trait Store: Send {
    /// All records, in the order of their keys.
    fn load(&mut self) -> Result<Vec<(Key, Sealed)>, StoreError>;

    /// Makes all of these changes or none. When it returns well, they outlive the power.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Tries to work again after a failure. What was committed before is there.
    fn heal(&mut self) -> Result<(), StoreError>;
}

impl StoreError {
    /// The words of [`Self::word`].
    pub const WORDS: [&'static str; 6] = ["newer", "busy", "damaged", "full", "read-only", "io"];

    /// The reason in one word, for counters.
    pub fn word(&self) -> &'static str {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Newer { .. } => "newer",
            Self::Busy { .. } => "busy",
            Self::Damaged { .. } => "damaged",
            Self::Io { error, .. } => match error.kind() {
                StorageFull | QuotaExceeded => "full",
                ReadOnlyFilesystem => "read-only",
                _ => "io",
            },
        }
    }
}

/// Why records cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer version has written it in a way that this one does not understand.
    #[error(
        "{path} is of format {found} and this version knows {FORMAT}: run the newer version, or \
         move the file away; the mobiles will then register anew"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Another process uses it.
    #[error("{path} is in use by another process: two daemons cannot share a state directory")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// What is on the disk is not what was written.
    #[error(
        "{path} is damaged: {what}; check the disk, then start once with --salvage-bindings to \
         keep what is whole"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk is full, does not answer, or is read-only.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
}
