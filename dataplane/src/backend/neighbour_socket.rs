//! Neighbour discovery on one link, past the kernel's own: who answers for addresses that this
//! machine does not have, it must ask and answer itself.
//!
//! The socket hears what the kernel hears too; neither takes a packet from the other. It sends
//! whole IPv6 packets to link-layer addresses that the caller names.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::packet_socket::{PacketSocketError, attach_filter, bind_to};
use super::sys;

/// Octets of a link-layer address.
pub const LINK_LAYER: usize = 6;

/// Messages that wait while the reader is away.
const RECEIVE_SOCKET_BUFFER: libc::c_int = 1 << 20;

// linux/if_packet.h, linux/if_arp.h
const PACKET_ADD_MEMBERSHIP: libc::c_int = 1;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_MR_ALLMULTI: libc::c_ushort = 2;
const ICMPV6: u32 = 58;
/// Router and neighbour solicitations and advertisements.
const TYPES: [u32; 4] = [133, 134, 135, 136];

/// `struct packet_mreq`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Membership {
    interface: libc::c_int,
    kind: libc::c_ushort,
    length: libc::c_ushort,
    address: [u8; 8],
}
// SAFETY: numbers only, without padding.
unsafe impl sys::Plain for Membership {}

/// Hears and sends neighbour discovery on one link.
#[derive(Debug)]
pub struct NeighbourSocket {
    socket: OwnedFd,
    /// Holds the memberships of the groups that are listened to.
    groups: UdpSocket,
    interface: u32,
    link_layer: [u8; LINK_LAYER],
}

impl NeighbourSocket {
    /// Listens on the interface of this index, which must have a link layer of 48-bit addresses.
    pub fn open(interface: u32) -> Result<Self, PacketSocketError> {
        let step = |step| move |error| PacketSocketError::Os { step, error };
        let socket =
            sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => PacketSocketError::NotPermitted(error),
                    _ => PacketSocketError::Os { step: "packet socket", error },
                }
            })?;
        let fd = socket.as_fd();
        attach_filter(fd, &filter()).map_err(step("SO_ATTACH_FILTER"))?;
        sys::set_option(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            .map_err(step("PACKET_IGNORE_OUTGOING"))?;
        sys::set_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_SOCKET_BUFFER)
            .map_err(step("SO_RCVBUF"))?;
        bind_to(fd, interface, libc::ETH_P_IPV6).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => PacketSocketError::NoInterface(interface),
            _ => PacketSocketError::Os { step: "bind", error },
        })?;
        // Groups of addresses that are not the kernel's: its network card would not pass them.
        let all = Membership {
            interface: interface.cast_signed(),
            kind: PACKET_MR_ALLMULTI,
            length: 0,
            address: [0; 8],
        };
        sys::set_option(fd, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, all)
            .map_err(step("PACKET_ADD_MEMBERSHIP"))?;
        let link_layer = own_address(fd).map_err(step("link-layer address"))?;
        let groups = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).map_err(step("group socket"))?;
        Ok(Self { socket, groups, interface, link_layer })
    }

    /// The index of the interface.
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// The interface's own link-layer address.
    pub fn link_layer(&self) -> [u8; LINK_LAYER] {
        self.link_layer
    }

    /// Tells the switches of the link that this machine listens to a group.
    pub fn join(&self, group: Ipv6Addr) -> io::Result<()> {
        match self.groups.join_multicast_v6(&group, self.interface) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
            other => other,
        }
    }

    /// Tells them that it does not any more.
    pub fn leave(&self, group: Ipv6Addr) -> io::Result<()> {
        match self.groups.leave_multicast_v6(&group, self.interface) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// Takes the next packet, header included, and the link-layer address it came from; an error
    /// of the kind `WouldBlock` when none waits. Longer packets than `buffer` are cut.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, [u8; LINK_LAYER])> {
        // SAFETY: all zero is a valid `sockaddr_ll`: numbers only.
        let mut from: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut size = size_of_val(&from) as libc::socklen_t;
        // SAFETY: buffer and address are live, writable and of the lengths given.
        let result = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut size,
            )
        };
        let length = sys::check_length(result)?;
        let [a, b, c, d, e, f, ..] = from.sll_addr;
        Ok((length, [a, b, c, d, e, f]))
    }

    /// Sends one whole IPv6 packet to a link-layer address. Never blocks.
    pub fn send(&self, packet: &[u8], to: [u8; LINK_LAYER]) -> io::Result<()> {
        let mut address = link_layer_address(self.interface, libc::ETH_P_IPV6);
        address.sll_halen = LINK_LAYER as u8;
        address.sll_addr[..LINK_LAYER].copy_from_slice(&to);
        // SAFETY: packet and address are live and of the lengths given.
        let result = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        sys::check_length(result).map(drop)
    }
}

impl AsFd for NeighbourSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An address of the packet family for this interface and protocol, without a link-layer address.
pub(super) fn link_layer_address(interface: u32, protocol: libc::c_int) -> libc::sockaddr_ll {
    // SAFETY: all zero is a valid `sockaddr_ll`: numbers only.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = interface.cast_signed();
    address
}

/// The link-layer address of the interface that a socket is bound to.
fn own_address(fd: BorrowedFd<'_>) -> io::Result<[u8; LINK_LAYER]> {
    let mut address = link_layer_address(0, 0);
    let mut size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is live, writable and of the size given.
    let result =
        unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut size) };
    sys::check(result)?;
    if usize::from(address.sll_halen) != LINK_LAYER {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("its addresses have {} octets, not {LINK_LAYER}", address.sll_halen),
        ));
    }
    let [a, b, c, d, e, f, ..] = address.sll_addr;
    Ok([a, b, c, d, e, f])
}

/// Passes untagged packets whose first next header is ICMPv6 and whose type is one of [`TYPES`]:
/// neighbour discovery with extension headers or in fragments is not valid anywhere.
fn filter() -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |size: u32, at: libc::c_int| op(libc::BPF_LD | size | libc::BPF_ABS, at as u32);
    let jump = |test: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let tagged = libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT;
    vec![
        load(libc::BPF_W, tagged),
        jump(libc::BPF_JEQ, 0, 0, 6),
        load(libc::BPF_B, libc::SKF_NET_OFF + 6),
        jump(libc::BPF_JEQ, ICMPV6, 0, 4),
        load(libc::BPF_B, libc::SKF_NET_OFF + 40),
        jump(libc::BPF_JGE, TYPES[0], 0, 2),
        jump(libc::BPF_JGT, TYPES[3], 1, 0),
        op(libc::BPF_RET | libc::BPF_K, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0),
    ]
}
