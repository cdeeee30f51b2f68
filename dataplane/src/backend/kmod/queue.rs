//! What the device does not remember, up and down.
//!
//! Packets that leave come up one by one, superpackets in pieces and checksums complete, in a queue
//! that is bounded in the kernel. Packets that come are read by packet sockets, since where they
//! enter the module takes only what it remembers; if the stack brings one here all the same, it is
//! passed over.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use mtun_policy::Ingress;

use super::super::{Port, VnetHeader};
use super::contract::{Attribute, Command};
use super::message::{Request, messages};
use super::socket::{Family, receive, silent};
use super::{KmodError, step};
use crate::abi::Course;

/// A packet that left and of which nothing is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Where it came from.
    pub ingress: Ingress,
    /// Where it lies in the caller's buffer.
    pub packet: Range<usize>,
}

/// The two ways between a device and this process.
#[derive(Debug)]
pub struct KmodQueue {
    device: u32,
    up: Family,
    down: Mutex<Family>,
}

impl KmodQueue {
    pub(super) fn open(name: &str, device: u32) -> Result<Self, KmodError> {
        let (mut up, down) = (Family::open()?, Mutex::new(Family::open()?));
        match up.ask(Request::new(&up, Command::Listen, device)) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(KmodError::Served(name.to_owned()));
            }
            other => other.map_err(step("cannot listen at the device"))?,
        }
        Ok(Self { device, up, down })
    }

    /// Takes the next packet that leaves; `None` when none waits. The buffer should hold
    /// [`RECEIVE_BUFFER`](super::super::RECEIVE_BUFFER) octets.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Missed>> {
        let length = match receive(self.up.as_fd(), buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // Some were lost, which the module has counted; the rest follows.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Some(Missed { ingress: Ingress::LOCAL, packet: 0..0 }));
            }
            other => other?,
        };
        let read = &buffer[..length];
        let missed = messages(read).find_map(|message| {
            let (command, attributes) = message.generic()?;
            let leaves = attributes.octet(Attribute::Direction) == Some(Course::Out as u8);
            if message.kind != self.up.number() || command != Command::Miss as u8 || !leaves {
                return None;
            }
            let ingress = u8::try_from(attributes.word(Attribute::Ingress)?).ok()?;
            let packet = attributes.get(Attribute::Packet);
            let start = packet.as_ptr().addr() - read.as_ptr().addr();
            Some(Missed { ingress: Ingress(ingress), packet: start..start + packet.len() })
        });
        Ok(Some(missed.unwrap_or(Missed { ingress: Ingress::LOCAL, packet: 0..0 })))
    }
}

impl AsFd for KmodQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.up.as_fd()
    }
}

impl Port for KmodQueue {
    fn send_with(&self, header: VnetHeader, packet: &[u8]) -> io::Result<()> {
        // Whoever panicked here left at worst an answer unread, which belongs to no later question.
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let mut execute = silent(Request::new(&down, Command::Execute, self.device));
        execute.octet(Attribute::Direction, Course::In as u8);
        if header != VnetHeader::COMPLETE {
            execute.octets(Attribute::Vnet, &header.emit());
        }
        let padding = execute
            .open(Attribute::Packet, packet.len())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let socket = down.socket();
        let sequence = socket.send(execute, &[packet, &[0; 3][..padding]])?;
        // What was refused is answered before the call returns, and only that.
        match socket.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(answers) => {
                let refused = messages(answers).find(|it| it.sequence == sequence);
                refused.map_or(Ok(()), |it| Err(io::Error::from_raw_os_error(it.error())))
            }
        }
    }
}
