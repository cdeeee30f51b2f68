//! Which interface a packet would leave by, and to whom there: questions to the kernel's routes and
//! neighbours, answered while they are being put.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::sys;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MARK: u16 = 16;
const RTA_ENCAP: u16 = 22;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States of a neighbour in which packets are sent to it: reachable, stale, delay, probe, permanent.
const NUD_SENT_TO: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
/// Octets of a netlink header, and of `struct rtmsg` as of `struct ndmsg`.
const HEADER: usize = 16;
const ROUTE: usize = 12;
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
        Ok(self.way(source, destination, mark, None)?.map(|way| way.interface))
    }

    /// The way that such a packet would take, by this interface if one is given; `None` if there is
    /// none.
    pub fn way(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        mark: u32,
        interface: Option<u32>,
    ) -> io::Result<Option<KernelWay>> {
        let head = [libc::AF_INET6 as u8, 128, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let attributes = [
            (RTA_DST, &destination.octets()[..]),
            (RTA_SRC, &source.octets()[..]),
            (RTA_MARK, &mark.to_ne_bytes()[..]),
            (RTA_OIF, &interface.unwrap_or(0).to_ne_bytes()[..]),
        ];
        let answer = self.ask(RTM_GETROUTE, head, &attributes)?;
        Ok(answer.and_then(|answer| read_way(&answer, destination)))
    }

    /// The address of Ethernet to which packets for this neighbour go; `None` if none is known.
    pub fn neighbour(&self, interface: u32, address: Ipv6Addr) -> io::Result<Option<[u8; 6]>> {
        let mut head = [0; ROUTE];
        head[0] = libc::AF_INET6 as u8;
        head[4..8].copy_from_slice(&interface.to_ne_bytes());
        let answer = self.ask(RTM_GETNEIGH, head, &[(NDA_DST, &address.octets()[..])])?;
        Ok(answer.and_then(|answer| read_neighbour(&answer)))
    }

    /// Puts a question and returns the message that answers it; `None` if the kernel refuses.
    fn ask(
        &self,
        kind: u16,
        head: [u8; ROUTE],
        attributes: &[(u16, &[u8])],
    ) -> io::Result<Option<Vec<u8>>> {
        let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asking.sequence = asking.sequence.wrapping_add(1);
        let question = question(asking.sequence, kind, head, attributes);
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
            let answer = &buffer[..sys::check_length(received)?.min(buffer.len())];
            if word(answer, 8) == Some(asking.sequence) {
                let is_told = half(answer, 4) != Some(NLMSG_ERROR);
                return Ok(is_told.then(|| answer.to_vec()));
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// The way that the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelWay {
    /// Index of the interface.
    pub interface: u32,
    /// The neighbour there; `None` if the route does more to packets than leading to one.
    pub next: Option<Ipv6Addr>,
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
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request) };
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
/// | 12 octets, of a route or a neighbour |
/// | length u16 | type u16 | value |    once for each attribute
/// ```
fn question(sequence: u32, kind: u16, head: [u8; ROUTE], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let length = attributes.iter().map(|(_, value)| 4 + value.len()).sum::<usize>();
    let mut question = Vec::with_capacity(HEADER + ROUTE + length);
    question.extend_from_slice(&((HEADER + ROUTE + length) as u32).to_ne_bytes());
    question.extend_from_slice(&kind.to_ne_bytes());
    question.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    question.extend_from_slice(&sequence.to_ne_bytes());
    question.extend_from_slice(&[0; 4]);
    question.extend_from_slice(&head);
    // All values are multiples of four octets, so nothing has to be padded.
    for (kind, value) in attributes {
        question.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        question.extend_from_slice(&kind.to_ne_bytes());
        question.extend_from_slice(value);
    }
    question
}

fn half(answer: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?))
}

fn word(answer: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
}

/// The attributes of an answer with their kinds, as far as they are whole.
fn attributes(answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut at = HEADER + ROUTE;
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(answer, at)?), half(answer, at + 2)?);
        let value = answer.get(at + 4..at + length)?;
        at += length.next_multiple_of(4);
        Some((kind, value))
    })
}

/// Reads a route to this destination; `None` if it leads nowhere.
fn read_way(answer: &[u8], destination: Ipv6Addr) -> Option<KernelWay> {
    if half(answer, 4)? != RTM_NEWROUTE || answer.get(HEADER + 7) != Some(&UNICAST) {
        return None;
    }
    let (mut interface, mut next) = (None, Some(destination));
    for (kind, value) in attributes(answer) {
        match kind {
            RTA_OIF => interface = word(value, 0),
            RTA_GATEWAY => next = <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from),
            RTA_ENCAP => next = None,
            _ => {}
        }
    }
    Some(KernelWay { interface: interface?, next })
}

fn read_neighbour(answer: &[u8]) -> Option<[u8; 6]> {
    let state = half(answer, HEADER + 8)?;
    if half(answer, 4)? != RTM_NEWNEIGH || state & NUD_SENT_TO == 0 {
        return None;
    }
    let link = attributes(answer).find(|(kind, _)| *kind == NDA_LLADDR);
    link.and_then(|(_, value)| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const NEXT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn nobody_is_beyond_the_loopback_interface() {
        let lookup = RouteLookup::open().unwrap();
        // The kernel calls this route local, so no packet leaves.
        let found = lookup.interface(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 0).unwrap();
        assert_eq!(found, None);
        assert_eq!(lookup.neighbour(1, FAR).unwrap(), None);
        assert!(!is_ethernet(1), "the loopback interface");
        assert!(!is_ethernet(u32::MAX), "no interface");
    }

    fn answer(kind: u16, head: [u8; ROUTE], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        question(7, kind, head, attributes)
    }

    #[test]
    fn ways_are_read() {
        let head = |kind| [10, 128, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0];
        let nine = 9_u32.to_ne_bytes();
        let (oif, gateway) = ((RTA_OIF, &nine[..]), NEXT.octets());
        let way = |next| Some(KernelWay { interface: 9, next });
        let encapsulates = [oif, (RTA_ENCAP, &[0; 8][..])];
        type Attributes<'a> = &'a [(u16, &'a [u8])];
        let cases: [(&str, u8, Attributes<'_>, Option<KernelWay>); 5] = [
            ("on the link", UNICAST, &[oif], way(Some(FAR))),
            ("by a router", UNICAST, &[(RTA_GATEWAY, &gateway), oif], way(Some(NEXT))),
            ("into a tunnel of the kernel", UNICAST, &encapsulates, way(None)),
            ("unreachable", 7, &[oif], None),
            ("no interface", UNICAST, &[(RTA_GATEWAY, &gateway)], None),
        ];
        for (what, kind, attributes, want) in cases {
            let answer = answer(RTM_NEWROUTE, head(kind), attributes);
            assert_eq!(read_way(&answer, FAR), want, "{what}");
            let cut = &answer[..answer.len() - 5];
            assert!(read_way(cut, FAR).is_none_or(|it| want == Some(it) || it.next.is_some()));
        }
        let mut endless = answer(RTM_NEWROUTE, head(UNICAST), &[oif]);
        endless[HEADER + ROUTE] = 0;
        assert_eq!(read_way(&endless, FAR), None, "a length that leads nowhere");
    }

    #[test]
    fn neighbours_are_read() {
        let head = |state: u8| [10, 0, 0, 0, 3, 0, 0, 0, state, 0, 0, 0];
        let link: &[u8] = &[2, 0, 0, 0, 0, 7];
        for (state, known) in
            [(0x02, true), (0x04, true), (0x80, true), (0x01, false), (0x20, false)]
        {
            let answer =
                answer(RTM_NEWNEIGH, head(state), &[(NDA_DST, &FAR.octets()), (NDA_LLADDR, link)]);
            assert_eq!(read_neighbour(&answer).is_some(), known, "{state:#x}");
        }
        let answer = answer(RTM_NEWNEIGH, head(2), &[(NDA_DST, &FAR.octets())]);
        assert_eq!(read_neighbour(&answer), None, "no address");
    }
}
