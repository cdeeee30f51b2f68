//! Whether links have their carrier, at the least cost: two system calls and no message that would
//! have to be read. What a look at every uplink fifty times a second takes is what an idle router
//! takes.

use std::io;

use super::ethtool::Ethtool;

/// What a glance at a link shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// It is there; whether it is up and has its carrier.
    Carrier(bool),
    /// There is no such link.
    Gone,
    /// Its driver does not tell in this way.
    Untold,
}

/// Asks about the links of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Carriers(Ethtool);

impl Carriers {
    /// Gets ready to ask.
    pub fn open() -> io::Result<Self> {
        Ethtool::open().map(Self)
    }

    /// Looks at the link of this index.
    pub fn glance(&self, index: u32) -> Glance {
        match self.0.name(index).and_then(|link| self.0.has_carrier(link)) {
            Ok(carrier) => Glance::Carrier(carrier),
            Err(error) => without(&error),
        }
    }
}

fn without(error: &io::Error) -> Glance {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Glance::Gone,
        _ => Glance::Untold,
    }
}
