//! The way out when the next hop is known: outer packets go to its link-layer address, many by one
//! call, without a walk through routes, firewall and neighbours for each.
//!
//! They still pass the interface's queue, so that an owner's shaping holds, and packet sockets see
//! them like any other. Who sends so has to ask again now and then, and lets the kernel carry a
//! packet itself meanwhile ([`super::Uplink`]): nothing else would confirm the neighbour.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::neighbour_socket::link_layer_address;
use super::route_lookup::{RouteLookup, is_ethernet};
use super::sys;
use super::uplink::{SEND_BUFFER, SendError, reason};
use crate::wire;

/// Packets handed over by one call.
const AT_ONCE: usize = 64;
/// Octets of an address of Ethernet.
const LINK_LAYER: usize = 6;

/// Where packets to one outer destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the Ethernet interface.
    pub interface: u32,
    /// The neighbour's address there.
    pub link_layer: [u8; LINK_LAYER],
}

/// What left, of what was handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Packets.
    pub packets: u64,
    /// And their octets.
    pub octets: u64,
}

/// Sends to link-layer addresses, and asks the kernel for them.
#[derive(Debug)]
pub struct LinkSocket {
    socket: OwnedFd,
    routes: RouteLookup,
}

impl LinkSocket {
    /// Opens one for any interface. Needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // Protocol 0 hears nothing: this one only sends.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
        sys::set_buffer(socket.as_fd(), libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)?;
        Ok(Self { socket, routes: RouteLookup::open()? })
    }

    /// The next hop of packets between these addresses with this mark, by this interface or by
    /// ordinary routing. `None` if it is not known at present, not on an Ethernet, or if the route
    /// does more to packets than leading somewhere.
    pub fn next_hop(
        &self,
        interface: Option<u32>,
        mark: u32,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> io::Result<Option<NextHop>> {
        let Some(way) = self.routes.way(source, destination, mark, interface)? else {
            return Ok(None);
        };
        let Some(gateway) = way.next else { return Ok(None) };
        if !is_ethernet(way.interface) {
            return Ok(None);
        }
        let neighbour = self.routes.neighbour(way.interface, gateway)?;
        Ok(neighbour.map(|link_layer| NextHop { interface: way.interface, link_layer }))
    }

    /// Sends complete IPv6 packets that stand one behind the other, and says of each that does not
    /// leave why. Never blocks.
    pub fn send(&self, hop: &NextHop, octets: &[u8], mut refused: impl FnMut(SendError)) -> Left {
        let mut address = link_layer_address(hop.interface, libc::ETH_P_IPV6);
        address.sll_halen = LINK_LAYER as u8;
        address.sll_addr[..LINK_LAYER].copy_from_slice(&hop.link_layer);
        let mut left = Left::default();
        let mut packets = wire::packets(octets);
        // SAFETY: all zero is a valid `iovec`, a null pointer and a length.
        let mut parts: [libc::iovec; AT_ONCE] = unsafe { std::mem::zeroed() };
        loop {
            let mut count = 0;
            for (part, packet) in parts.iter_mut().zip(packets.by_ref()) {
                part.iov_base = packet.as_ptr().cast_mut().cast();
                part.iov_len = packet.len();
                count += 1;
            }
            match count {
                0 => return left,
                1 => self.send_one(&mut address, &mut parts[0], &mut left, &mut refused),
                _ => self.send_many(&mut address, &mut parts[..count], &mut left, &mut refused),
            }
        }
    }

    fn send_one(
        &self,
        address: &mut libc::sockaddr_ll,
        part: &mut libc::iovec,
        left: &mut Left,
        refused: &mut impl FnMut(SendError),
    ) {
        let message = message(address, part);
        let fd = self.socket.as_raw_fd();
        // SAFETY: the message leads to a live address and a live packet; sending only reads them.
        let result = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT) };
        match sys::check_length(result) {
            Ok(length) => left.count(length),
            Err(error) => refused(of(address, &error)),
        }
    }

    fn send_many(
        &self,
        address: &mut libc::sockaddr_ll,
        parts: &mut [libc::iovec],
        left: &mut Left,
        refused: &mut impl FnMut(SendError),
    ) {
        // SAFETY: all zero is a valid `mmsghdr`: null pointers and zero lengths.
        let mut messages: [libc::mmsghdr; AT_ONCE] = unsafe { std::mem::zeroed() };
        for (to, part) in messages.iter_mut().zip(parts.iter_mut()) {
            to.msg_hdr = message(address, part);
        }
        let mut waiting = &mut messages[..parts.len()];
        while !waiting.is_empty() {
            let (first, length) = (waiting.as_mut_ptr(), waiting.len() as libc::c_uint);
            let fd = self.socket.as_raw_fd();
            // SAFETY: so many messages, each leading to a live address and a live packet; only
            // their lengths are written.
            let result = unsafe { libc::sendmmsg(fd, first, length, libc::MSG_DONTWAIT as _) };
            let sent = match sys::check(result) {
                Ok(sent) => sent as usize,
                Err(error) => {
                    // It is about the first; the others may pass.
                    refused(of(address, &error));
                    waiting = &mut waiting[1..];
                    continue;
                }
            };
            waiting[..sent].iter().for_each(|it| left.count(it.msg_len as usize));
            waiting = &mut waiting[sent..];
        }
    }
}

impl Left {
    fn count(&mut self, octets: usize) {
        self.packets += 1;
        self.octets += octets as u64;
    }
}

fn message(address: &mut libc::sockaddr_ll, part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zero is a valid `msghdr`: null pointers and zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = std::ptr::from_mut(address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

fn of(address: &libc::sockaddr_ll, error: &io::Error) -> SendError {
    let interface = Some(address.sll_ifindex.cast_unsigned());
    reason(interface, error.raw_os_error().unwrap_or(0))
}
