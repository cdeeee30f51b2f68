//! Whether links have their carrier, at the least cost: two system calls and no message that would
//! have to be read. What a look at every uplink fifty times a second takes is what an idle router
//! takes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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
pub struct Carriers(OwnedFd);

/// `ETHTOOL_GLINK`.
const GET_LINK: u32 = 0x0a;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

impl Carriers {
    /// Opens a socket, which is what such questions are asked of.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_INET6, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    /// Looks at the link of this index.
    pub fn glance(&self, index: u32) -> Glance {
        // SAFETY: plain numbers and pointers, for which all bits may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = index.cast_signed();
        // SAFETY: the index is set, and a name fits into the request.
        if let Err(error) = unsafe { self.ask(libc::SIOCGIFNAME, &mut request) } {
            return without(&error);
        }
        let mut value = Value { command: GET_LINK, data: 0 };
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the name is that of the link, and the kernel writes one number into the value.
        match unsafe { self.ask(libc::SIOCETHTOOL, &mut request) } {
            Ok(()) => Glance::Carrier(value.data != 0),
            Err(error) => without(&error),
        }
    }

    /// # Safety
    ///
    /// The request is what this question wants, its pointer included.
    unsafe fn ask(&self, question: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: as the caller says; the socket is open.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), question as _, &raw mut *request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn without(error: &io::Error) -> Glance {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Glance::Gone,
        _ => Glance::Untold,
    }
}
