//! A netlink socket that asks and waits for the answer, which the kernel gives while it is asked.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::super::sys;
use super::contract::{NAME, VERSION};
use super::message::{ACK, Attributes, DONE, DUMP, ERROR, Request, messages};
use super::{KmodError, step};

/// The family that knows all families.
const CONTROL: u16 = 0x10;
const CONTROL_GET: u8 = 3;
const CONTROL_NUMBER: u16 = 1;
const CONTROL_NAME: u16 = 2;
const CONTROL_VERSION: u16 = 3;

/// Octets of answers read at once: more than one part of a dump has.
const BUFFER: usize = 64 << 10;

/// A socket of one netlink protocol.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens it in this thread's network namespace.
    pub fn open(protocol: libc::c_int) -> io::Result<Self> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        sys::set_buffer(fd.as_fd(), libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, 4 << 20)?;
        // An error does not quote what was asked.
        sys::set_option(fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends a message whose last `more` octets are in `rest`; returns its number.
    pub fn send(&mut self, request: Request, rest: &[&[u8]]) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let more = rest.iter().map(|part| part.len()).sum();
        let head = request.finish(self.sequence, more);
        let part = |octets: &[u8]| libc::iovec {
            iov_base: octets.as_ptr().cast_mut().cast(),
            iov_len: octets.len(),
        };
        let parts: Vec<_> =
            std::iter::once(part(&head)).chain(rest.iter().map(|it| part(it))).collect();
        // SAFETY: all parts are live and of the lengths given; writing only reads them.
        let sent = unsafe {
            libc::writev(self.fd.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int)
        };
        sys::check_length(sent)?;
        Ok(self.sequence)
    }

    /// Asks, shows what comes back, and waits for the end of it.
    pub fn each(&mut self, request: Request, show: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        let sequence = self.send(request, &[])?;
        loop {
            let length = receive(self.fd.as_fd(), &mut self.buffer)?;
            for message in messages(&self.buffer[..length]) {
                if message.sequence != sequence {
                    // Of an earlier question whose reader gave up.
                    continue;
                }
                match (message.kind, message.error()) {
                    (ERROR | DONE, 0) => return Ok(()),
                    (ERROR | DONE, error) => return Err(io::Error::from_raw_os_error(error)),
                    (kind, _) => show(kind, message.body),
                }
            }
        }
    }

    /// Reads what waits, without waiting.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        let length = receive(self.fd.as_fd(), &mut self.buffer)?;
        Ok(&self.buffer[..length])
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads what waits at a socket, without waiting.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is live and of the length given.
    let received = unsafe {
        libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    };
    Ok(sys::check_length(received)?.min(buffer.len()))
}

/// A socket to the module.
#[derive(Debug)]
pub struct Family {
    socket: Socket,
    number: u16,
}

impl Family {
    /// Opens it, and asks for the family's number, which the kernel gives out anew each time.
    pub fn open() -> Result<Self, KmodError> {
        let opening = || step("cannot open a netlink socket");
        let mut socket = Socket::open(libc::NETLINK_GENERIC).map_err(opening())?;
        let mut request = Request::generic(CONTROL, CONTROL_GET, 2);
        request.attribute(CONTROL_NAME, NAME);
        let (mut number, mut version) = (None, None);
        let asked = socket.each(request, &mut |_, body| {
            let attributes = Attributes(body.get(4..).unwrap_or_default());
            number = attributes.find(CONTROL_NUMBER).try_into().ok().map(u16::from_ne_bytes);
            version = attributes.find(CONTROL_VERSION).try_into().ok().map(u32::from_ne_bytes);
        });
        match asked.as_ref().err().and_then(io::Error::raw_os_error) {
            Some(libc::ENOENT) => return Err(KmodError::NoKind),
            _ => asked.map_err(step("cannot ask for the family mtun"))?,
        }
        match version {
            Some(version) if version == u32::from(VERSION) => {}
            other => return Err(KmodError::Version(other.unwrap_or_default())),
        }
        let number = number.ok_or(KmodError::NoKind)?;
        Ok(Self { socket, number })
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// Asks for something to be done.
    pub fn ask(&mut self, request: Request) -> io::Result<()> {
        self.each(request, &mut |_| {})
    }

    /// Asks and shows the attributes of each answer.
    pub fn each(
        &mut self,
        request: Request,
        show: &mut dyn FnMut(Attributes<'_>),
    ) -> io::Result<()> {
        let number = self.number;
        self.socket.each(request, &mut |kind, body| {
            if kind == number
                && let Some(attributes) = body.get(4..)
            {
                show(Attributes(attributes));
            }
        })
    }

    /// The same for all entries of a table. Those that are added or taken out meanwhile may be
    /// missed or shown twice.
    pub fn dump(
        &mut self,
        mut request: Request,
        show: &mut dyn FnMut(Attributes<'_>),
    ) -> io::Result<()> {
        request.flag(DUMP);
        self.each(request, show)
    }

    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

impl AsFd for Family {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What asks without an acknowledgement.
pub fn silent(mut request: Request) -> Request {
    request.unflag(ACK);
    request
}
