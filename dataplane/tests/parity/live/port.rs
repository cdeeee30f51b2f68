//! Where packets are sent and seen: packet sockets, and the queue of a TUN.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mtun_dataplane::backend::{RECEIVE_BUFFER, TunQueue};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where packets come out, one behind the other.
pub trait Source: AsFd {
    /// The next one, if there is one.
    fn take(&self) -> Option<Vec<u8>>;
}

impl Source for TunQueue {
    fn take(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let received = self.recv(&mut buffer).unwrap()?;
        Some(buffer[received.packet].to_vec())
    }
}

/// The first packet that any of them has, and whose it is.
pub fn first(sources: &[&dyn Source]) -> (usize, Vec<u8>) {
    let until = Instant::now() + PATIENCE;
    loop {
        for (number, source) in sources.iter().enumerate() {
            if let Some(packet) = source.take() {
                return (number, packet);
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it came out nowhere");
        sleep(sources, left);
    }
}

/// Sleeps until one of them may have something.
fn sleep(sources: &[&dyn Source], most: Duration) {
    let watch = |it: &&dyn Source| {
        let fd = it.as_fd().as_raw_fd();
        libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
    };
    let mut watched: Vec<_> = sources.iter().map(watch).collect();
    let (count, most) = (watched.len() as libc::nfds_t, most.as_millis() as libc::c_int);
    // SAFETY: a live array of that length.
    unsafe { libc::poll(watched.as_mut_ptr(), count, most) };
}

/// IPv6 packets of one interface with their link header. What is sent here is not seen here.
pub struct Port(OwnedFd);

impl Port {
    pub fn open(interface: u32) -> Self {
        let protocol = (libc::ETH_P_IPV6 as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just made it, and nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zero is a valid address of this family.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = interface as i32;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is live and of the length given.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(fd)
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the frame is live and of the length given.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }
}

impl Source for Port {
    fn take(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0_u8; RECEIVE_BUFFER];
        let (fd, room) = (self.0.as_raw_fd(), buffer.len());
        // SAFETY: the buffer is live and of the length given.
        let length = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), room, 0) };
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            return None;
        };
        buffer.truncate(length);
        Some(buffer)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
