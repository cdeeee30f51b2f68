//! The way out: complete outer packets through one uplink.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::sys;

/// Room for outer packets that wait for the interface: 20 ms at 1.6 Gbit/s.
pub(super) const SEND_BUFFER: libc::c_int = 4 << 20;
/// `SO_BINDTOIFINDEX`: binds to an interface by index, so a renamed one stays bound.
const SO_BINDTOIFINDEX: libc::c_int = 62;
const HEADER: usize = 40;

/// Why an outer packet did not leave. One packet is lost, the next may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    /// Larger than the MTU of the interface, which is given when it is known.
    #[error("the packet is larger than the link's MTU")]
    TooBig {
        /// The interface's MTU in octets.
        mtu: Option<u32>,
    },
    /// No route to the destination, none with a usable source address, or none because the
    /// interface is down.
    #[error("no route")]
    NoRoute,
    /// The interface or the socket has no room; the link is slower than what is sent.
    #[error("no buffer")]
    NoBuffer,
    /// The interface itself says that it is down.
    #[error("the link is down")]
    LinkDown,
    /// A firewall, a route or a missing right forbids it.
    #[error("not permitted")]
    NotPermitted,
    /// Shorter than an IPv6 header, or the kernel finds it malformed.
    #[error("malformed packet")]
    Malformed,
    /// Any other error number.
    #[error("error {0}")]
    Os(i32),
}

/// Sends outer packets, optionally by one interface only.
#[derive(Debug)]
pub struct Uplink {
    socket: OwnedFd,
    interface: Option<u32>,
    mark: u32,
}

impl Uplink {
    /// Opens the way out by the interface of this index, or by ordinary routing with `None`.
    ///
    /// Bound to an interface, the next hop comes from the route tables that the interface selects
    /// (`oif` rules), so an outer packet never takes the default route back into the tunnel.
    pub fn open(interface: Option<u32>) -> io::Result<Self> {
        Self::open_marked(interface, None)
    }

    /// The same, and every packet carries this mark through the firewall.
    pub fn open_marked(interface: Option<u32>, mark: Option<u32>) -> io::Result<Self> {
        // IPPROTO_RAW: every packet comes with its own IPv6 header.
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        let fd = socket.as_fd();
        if let Some(index) = interface {
            sys::set_option(fd, libc::SOL_SOCKET, SO_BINDTOIFINDEX, index.cast_signed())?;
        }
        if let Some(mark) = mark {
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, mark)?;
        }
        sys::set_buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)?;
        // Path MTUs are the data plane's to learn, where an ICMPv6 error is first held against
        // what was sent; only the interface's own MTU counts here.
        let probe = libc::IPV6_PMTUDISC_PROBE;
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)?;
        // The kernel would otherwise hand a copy of multicast packets back to this machine.
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0)?;
        Ok(Self { socket, interface, mark: mark.unwrap_or(0) })
    }

    /// The mark that every packet carries; 0 for none.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// The interface that packets leave by, if only one.
    pub fn interface(&self) -> Option<u32> {
        self.interface
    }

    /// Sends one complete IPv6 packet to the destination in its header. Never blocks.
    pub fn send(&self, packet: &[u8]) -> Result<(), SendError> {
        let header = packet.first_chunk::<HEADER>().ok_or(SendError::Malformed)?;
        let destination: [u8; 16] = header[24..].try_into().expect("a header has 40 octets");
        let scope = match Ipv6Addr::from(destination).is_unicast_link_local() {
            true => self.interface.unwrap_or(0),
            false => 0,
        };
        let to = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: destination },
            sin6_scope_id: scope,
        };
        // SAFETY: packet and address are live and of the lengths given.
        let result = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        match sys::check_length(result) {
            Ok(_) => Ok(()),
            Err(error) => Err(reason(self.interface, error.raw_os_error().unwrap_or(0))),
        }
    }
}

/// What an error number means of a packet that was to leave, by this interface if only one.
pub(super) fn reason(interface: Option<u32>, error: i32) -> SendError {
    match error {
        libc::EMSGSIZE => SendError::TooBig { mtu: interface.and_then(mtu_of) },
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL => SendError::NoRoute,
        libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM => SendError::NoBuffer,
        libc::ENETDOWN | libc::ENODEV | libc::ENXIO => SendError::LinkDown,
        libc::EPERM | libc::EACCES => SendError::NotPermitted,
        libc::EINVAL => SendError::Malformed,
        other => SendError::Os(other),
    }
}

fn mtu_of(interface: u32) -> Option<u32> {
    let mut name = [0 as libc::c_char; libc::IFNAMSIZ];
    // SAFETY: room for a name of the greatest length with its terminator.
    let found = unsafe { libc::if_indextoname(interface, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: all zero is a valid `ifreq`: numbers, and a union of numbers and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name;
    let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).ok()?;
    // SAFETY: the argument is a live `ifreq` with a terminated name.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) };
    sys::check(result).ok()?;
    // SAFETY: this call fills the MTU member of the union.
    u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_name() {
        let cases = [
            (libc::EMSGSIZE, SendError::TooBig { mtu: None }),
            (libc::ENETUNREACH, SendError::NoRoute),
            (libc::EHOSTUNREACH, SendError::NoRoute),
            (libc::ENOBUFS, SendError::NoBuffer),
            (libc::EAGAIN, SendError::NoBuffer),
            (libc::ENETDOWN, SendError::LinkDown),
            (libc::ENXIO, SendError::LinkDown),
            (libc::EPERM, SendError::NotPermitted),
            (libc::EINVAL, SendError::Malformed),
            (libc::EPIPE, SendError::Os(libc::EPIPE)),
        ];
        // Any socket will do: nothing is sent.
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).unwrap();
        let uplink = Uplink { socket, interface: None, mark: 0 };
        for (error, want) in cases {
            assert_eq!(reason(None, error), want);
        }
        assert_eq!(uplink.send(&[0x60; 39]), Err(SendError::Malformed), "no whole header");
    }
}
