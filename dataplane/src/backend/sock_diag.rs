//! Whose a local socket is: `sock_diag` asked for one pair of addresses and ports.
//!
//! The kernel answers such a question while it is being put, from the tables by which it would
//! find the socket for a packet; so one send and one read that never waits are enough, and the
//! time is bounded whatever the number of sockets. Only TCP and UDP over IPv6 are asked for.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use mtun_policy::FlowKey;

use super::sys;
use crate::uids::Uids;
use crate::wire::{TCP, UDP};

const NETLINK_SOCK_DIAG: libc::c_int = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// Octets of a netlink header, of `struct inet_diag_req_v2` and of `struct inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const ANSWER: usize = 72;
/// Where `inet_diag_msg` keeps the user.
const UID_AT: usize = 64;
/// Any state of a connection.
const ALL_STATES: u32 = u32::MAX;
/// States of connections without a socket: nobody's any more, or not yet anybody's.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

/// Looks up users of local sockets.
#[derive(Debug)]
pub struct SockDiag(Mutex<Asking>);

#[derive(Debug)]
struct Asking {
    socket: OwnedFd,
    sequence: u32,
}

impl SockDiag {
    /// Opens the way to the kernel's tables. Needs no right.
    pub fn open() -> io::Result<Self> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG)?;
        Ok(Self(Mutex::new(Asking { socket, sequence: 0 })))
    }

    /// The user whose socket has these ends; `None` if there is no such socket.
    pub fn user(
        &self,
        protocol: u8,
        local: (Ipv6Addr, u16),
        remote: (Ipv6Addr, u16),
    ) -> io::Result<Option<u32>> {
        let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if protocol != UDP {
            return asking.ask(protocol, local, remote);
        }
        // Of UDP the kernel wants the ends as a packet that arrives has them.
        asking.ask(protocol, remote, local)
    }
}

impl Uids for SockDiag {
    fn uid(&self, key: &FlowKey) -> Option<u32> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (key.source, key.destination) else {
            return None;
        };
        if !matches!(key.protocol, TCP | UDP) {
            return None;
        }
        let (from, to) = (key.source_port?, key.destination_port?);
        self.user(key.protocol, (source, from), (destination, to)).ok()?
    }
}

impl Asking {
    fn ask(
        &mut self,
        protocol: u8,
        first: (Ipv6Addr, u16),
        second: (Ipv6Addr, u16),
    ) -> io::Result<Option<u32>> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.sequence, protocol, first, second);
        let fd = self.socket.as_raw_fd();
        // SAFETY: the buffer is live and of the length given.
        let sent =
            unsafe { libc::send(fd, question.as_ptr().cast(), question.len(), libc::MSG_DONTWAIT) };
        sys::check_length(sent)?;
        let mut buffer = [0_u8; 1024];
        // An answer to an earlier question may be left over, if its reader was interrupted.
        for _ in 0..4 {
            // SAFETY: the buffer is live and of the length given.
            let received = unsafe {
                libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
            };
            let length = sys::check_length(received)?.min(buffer.len());
            if let Some(user) = read(&buffer[..length], self.sequence) {
                return Ok(user);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// ```text
/// | length u32 | type u16 | flags u16 | sequence u32 | port u32 |
/// | family u8 | protocol u8 | extensions u8 | 0 | states u32 |
/// | port be16 | port be16 | address 16 | address 16 | interface u32 | cookie 2 x u32 |
/// ```
fn question(
    sequence: u32,
    protocol: u8,
    first: (Ipv6Addr, u16),
    second: (Ipv6Addr, u16),
) -> [u8; HEADER + REQUEST] {
    let mut question = [0; HEADER + REQUEST];
    let mut at = 0;
    let mut put = |octets: &[u8]| {
        question[at..at + octets.len()].copy_from_slice(octets);
        at += octets.len();
    };
    put(&((HEADER + REQUEST) as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&[0; 4]);
    put(&[libc::AF_INET6 as u8, protocol, 0, 0]);
    put(&ALL_STATES.to_ne_bytes());
    put(&first.1.to_be_bytes());
    put(&second.1.to_be_bytes());
    put(&first.0.octets());
    put(&second.0.octets());
    put(&[0; 4]);
    // No cookie: whichever socket it is.
    put(&[0xff; 8]);
    question
}

/// Reads an answer; `None` if it belongs to another question.
fn read(answer: &[u8], sequence: u32) -> Option<Option<u32>> {
    let word = |at: usize| {
        let octets = answer.get(at..at + 4)?;
        Some(u32::from_ne_bytes(octets.try_into().ok()?))
    };
    if word(8)? != sequence {
        return None;
    }
    let kind = word(4)? as u16;
    if kind != SOCK_DIAG_BY_FAMILY || answer.len() < HEADER + ANSWER {
        // An error message: there is no such socket, or nobody may know.
        return Some(None);
    }
    let state = answer[HEADER + 1];
    if matches!(state, TIME_WAIT | NEW_SYN_RECV) {
        return Some(None);
    }
    Some(word(HEADER + UID_AT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

    fn v6(address: SocketAddr) -> (Ipv6Addr, u16) {
        match address {
            SocketAddr::V6(address) => (*address.ip(), address.port()),
            SocketAddr::V4(address) => panic!("{address}"),
        }
    }

    fn own_user() -> u32 {
        // SAFETY: takes nothing and cannot fail.
        unsafe { libc::getuid() }
    }

    #[test]
    fn sockets_of_this_process_are_its_users() {
        let diag = SockDiag::open().unwrap();
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let there = listener.local_addr().unwrap();
        let stream = TcpStream::connect(there).unwrap();
        let ends = (v6(stream.local_addr().unwrap()), v6(there));
        assert_eq!(diag.user(TCP, ends.0, ends.1).unwrap(), Some(own_user()), "connected");

        let remote = (Ipv6Addr::LOCALHOST, 9);
        let connected = UdpSocket::bind("[::1]:0").unwrap();
        connected.connect("[::1]:9").unwrap();
        let local = v6(connected.local_addr().unwrap());
        assert_eq!(diag.user(UDP, local, remote).unwrap(), Some(own_user()), "UDP");
        let bound = UdpSocket::bind("[::]:0").unwrap();
        let local = (Ipv6Addr::LOCALHOST, bound.local_addr().unwrap().port());
        assert_eq!(diag.user(UDP, local, remote).unwrap(), Some(own_user()), "UDP to anybody");
        // SAFETY: takes numbers only. Whoever may not give sockets away keeps it.
        if unsafe { libc::fchown(bound.as_raw_fd(), 54_321, u32::MAX) } == 0 {
            assert_eq!(diag.user(UDP, local, remote).unwrap(), Some(54_321), "somebody else's");
        }
        drop(bound);
        assert_eq!(diag.user(UDP, local, remote).unwrap(), None, "closed");
    }

    #[test]
    fn what_has_no_socket_has_no_user() {
        let diag = SockDiag::open().unwrap();
        // A documentation address is nobody's here.
        let far: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(diag.user(TCP, (far, 1), (far, 2)).unwrap(), None);
        assert_eq!(diag.user(UDP, (far, 1), (far, 2)).unwrap(), None);
        assert_eq!(diag.user(132, (far, 1), (far, 2)).unwrap(), None, "no such table");
        for _ in 0..100 {
            assert_eq!(diag.user(TCP, (far, 1), (far, 2)).unwrap(), None, "nothing is left over");
        }
    }

    #[test]
    fn answers_of_other_questions_and_half_answers_are_none() {
        let mut answer = [0_u8; HEADER + ANSWER];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        answer[HEADER + UID_AT..HEADER + UID_AT + 4].copy_from_slice(&1000_u32.to_ne_bytes());
        assert_eq!(read(&answer, 7), Some(Some(1000)));
        assert_eq!(read(&answer, 8), None);
        assert_eq!(read(&answer[..HEADER + ANSWER - 1], 7), Some(None));
        assert_eq!(read(&answer[..11], 7), None);
        answer[HEADER + 1] = TIME_WAIT;
        assert_eq!(read(&answer, 7), Some(None));
    }
}
