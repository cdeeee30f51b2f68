//! Which interface a packet would leave by: one question to the kernel's routes, answered while it
//! is being put.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::sys;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_MARK: u16 = 16;
/// Octets of a netlink header and of `struct rtmsg`.
const HEADER: usize = 16;
const ROUTE: usize = 12;
/// Header, route, two addresses, a mark.
const QUESTION: usize = HEADER + ROUTE + 2 * 20 + 8;
/// `struct rtmsg`: a unicast route that leads somewhere.
const UNICAST: u8 = 1;

/// Looks routes up.
#[derive(Debug)]
pub struct RouteLookup(Mutex<Asking>);

#[derive(Debug)]
struct Asking {
    socket: OwnedFd,
    sequence: u32,
}

impl RouteLookup {
    /// Opens the way to the kernel's routes. Needs no right.
    pub fn open() -> io::Result<Self> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        Ok(Self(Mutex::new(Asking { socket, sequence: 0 })))
    }

    /// The index of the interface by which a packet between these addresses, with this mark, would
    /// leave; `None` if no route leads there.
    pub fn interface(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        mark: u32,
    ) -> io::Result<Option<u32>> {
        let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asking.sequence = asking.sequence.wrapping_add(1);
        let question = question(asking.sequence, source, destination, mark);
        let fd = asking.socket.as_raw_fd();
        // SAFETY: the buffer is live and of the length given.
        let sent =
            unsafe { libc::send(fd, question.as_ptr().cast(), question.len(), libc::MSG_DONTWAIT) };
        sys::check_length(sent)?;
        let mut buffer = [0_u8; 2048];
        // An answer to an earlier question may be left over, if its reader was interrupted.
        for _ in 0..4 {
            // SAFETY: the buffer is live and of the length given.
            let received = unsafe {
                libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
            };
            let length = sys::check_length(received)?.min(buffer.len());
            if let Some(interface) = read(&buffer[..length], asking.sequence) {
                return Ok(interface);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Whether an interface has link headers of Ethernet.
pub fn is_ethernet(interface: u32) -> bool {
    name_of_ethernet(interface).is_some()
}

/// The name of an interface that has link headers of Ethernet.
pub(super) fn name_of_ethernet(interface: u32) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::IFNAMSIZ];
    // SAFETY: room for a name of the greatest length with its terminator.
    if unsafe { libc::if_indextoname(interface, name.as_mut_ptr()) }.is_null() {
        return None;
    }
    // SAFETY: all zero is a valid `ifreq`: numbers, and a union of numbers and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name;
    let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).ok()?;
    // SAFETY: the argument is a live `ifreq` with a terminated name.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    // SAFETY: this call fills the address member of the union.
    let family = || unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    if result != 0 || family() != libc::ARPHRD_ETHER {
        return None;
    }
    let octets: Vec<u8> = name.iter().map(|it| *it as u8).take_while(|it| *it != 0).collect();
    String::from_utf8(octets).ok()
}

/// ```text
/// | length u32 | type u16 | flags u16 | sequence u32 | port u32 |
/// | family u8 | destination bits u8 | source bits u8 | 9 octets that are zero |
/// | length u16 | type u16 | value |    destination, source, mark
/// ```
fn question(sequence: u32, source: Ipv6Addr, destination: Ipv6Addr, mark: u32) -> [u8; QUESTION] {
    let mut question = [0; QUESTION];
    let mut at = 0;
    let mut put = |octets: &[u8]| {
        question[at..at + octets.len()].copy_from_slice(octets);
        at += octets.len();
    };
    put(&(QUESTION as u32).to_ne_bytes());
    put(&RTM_GETROUTE.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&[0; 4]);
    put(&[libc::AF_INET6 as u8, 128, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, value) in [
        (RTA_DST, &destination.octets()[..]),
        (RTA_SRC, &source.octets()[..]),
        (RTA_MARK, &mark.to_ne_bytes()[..]),
    ] {
        put(&(4 + value.len() as u16).to_ne_bytes());
        put(&kind.to_ne_bytes());
        put(value);
    }
    question
}

/// Reads an answer; `None` if it belongs to another question.
fn read(answer: &[u8], sequence: u32) -> Option<Option<u32>> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if word(8)? != sequence {
        return None;
    }
    if half(4)? != RTM_NEWROUTE || answer.get(HEADER + 7) != Some(&UNICAST) {
        // An error message, or a route that leads nowhere.
        return Some(None);
    }
    let mut at = HEADER + ROUTE;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == RTA_OIF {
            return Some(word(at + 4));
        }
        if length < 4 {
            break;
        }
        at += usize::from(length).next_multiple_of(4);
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_beyond_the_loopback_interface() {
        let lookup = RouteLookup::open().unwrap();
        // The kernel calls this route local, so no packet leaves.
        let found = lookup.interface(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 0).unwrap();
        assert_eq!(found, None);
        assert!(!is_ethernet(1), "the loopback interface");
        assert!(!is_ethernet(u32::MAX), "no interface");
    }

    #[test]
    fn answers_of_other_questions_and_half_answers_are_none() {
        let mut answer = [0_u8; HEADER + ROUTE + 8];
        answer[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        answer[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        answer[HEADER + 7] = UNICAST;
        let attribute = HEADER + ROUTE;
        answer[attribute..attribute + 2].copy_from_slice(&8_u16.to_ne_bytes());
        answer[attribute + 2..attribute + 4].copy_from_slice(&RTA_OIF.to_ne_bytes());
        answer[attribute + 4..].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(read(&answer, 7), Some(Some(9)));
        assert_eq!(read(&answer, 8), None);
        assert_eq!(read(&answer[..attribute + 6], 7), Some(None), "cut");
        answer[attribute] = 0;
        answer[attribute + 2] = 0;
        assert_eq!(read(&answer, 7), Some(None), "a length that leads nowhere");
        answer[HEADER + 7] = 7;
        assert_eq!(read(&answer, 7), Some(None), "unreachable");
    }
}
