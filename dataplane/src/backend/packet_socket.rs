//! The way in: outer packets of one uplink, taken before the kernel's own IPv6 sees them.
//!
//! The socket stands beside the kernel's own IPv6 as another receiver of the same packets: what the
//! firewall's prerouting then drops (the kernel would answer with ICMPv6 errors) we still see, and
//! what a fast path takes at the interface's ingress, before either, we do not. A filter in the kernel
//! passes only what can concern us, so that what a router forwards for others is not copied to this process;
//! who a packet is for is the data plane's question all the same.

use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::sys;
use super::vnet::{self, Received, VnetHeader};

/// Packets that wait while the reader is away: a tenth of a second at 1 Gbit/s.
const RECEIVE_SOCKET_BUFFER: libc::c_int = 16 << 20;

// linux/if_packet.h
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_HOST: u32 = 0;

/// Next headers that can concern us, in the fixed IPv6 header.
const NEXT_HEADERS: [u32; 7] = [
    0,   // hop-by-hop options in front of any of these
    41,  // IPv6: a tunnelled packet
    43,  // routing header: type 2
    44,  // fragment of any of these
    60,  // destination options: the home address
    135, // Mobility Header
    58,  // ICMPv6: errors that quote what we sent
];

/// So many destinations are told apart; with more of them packets to anybody pass.
const MOST_DESTINATIONS: usize = 64;

/// Why an uplink cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum PacketSocketError {
    /// `CAP_NET_RAW` is missing.
    #[error("not allowed to open a packet socket: {0}")]
    NotPermitted(io::Error),
    /// No interface has this index.
    #[error("no interface has index {0}")]
    NoInterface(u32),
    /// The kernel refused one of the steps.
    #[error("{step}: {error}")]
    Os {
        /// The step that failed.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What the kernel counted since the last time it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that passed the filter.
    pub packets: u32,
    /// Those of them that found the buffer full.
    pub dropped: u32,
}

/// Sees the packets that arrive on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    interface: u32,
}

impl PacketSocket {
    /// Listens on the interface of this index, to packets for anybody. What leaves by it is not seen.
    pub fn open(interface: u32) -> Result<Self, PacketSocketError> {
        let step = |step| move |error| PacketSocketError::Os { step, error };
        // Protocol 0 hears nothing yet, so that no packet slips in before the filter stands.
        let socket =
            sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => PacketSocketError::NotPermitted(error),
                    _ => PacketSocketError::Os { step: "packet socket", error },
                }
            })?;
        let fd = socket.as_fd();
        attach_filter(fd, &filter(None)).map_err(step("SO_ATTACH_FILTER"))?;
        for (name, option) in [
            ("PACKET_VNET_HDR", PACKET_VNET_HDR),
            ("PACKET_AUXDATA", PACKET_AUXDATA),
            ("PACKET_IGNORE_OUTGOING", PACKET_IGNORE_OUTGOING),
        ] {
            sys::set_option(fd, libc::SOL_PACKET, option, 1).map_err(step(name))?;
        }
        let octets = RECEIVE_SOCKET_BUFFER;
        sys::set_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, octets)
            .map_err(step("SO_RCVBUF"))?;
        bind_to(fd, interface, libc::ETH_P_IPV6).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => PacketSocketError::NoInterface(interface),
            _ => PacketSocketError::Os { step: "bind", error },
        })?;
        Ok(Self { socket, interface })
    }

    /// Hears only what is for one of these addresses from now on, or ends like one of them. What has
    /// arrived before is still heard.
    pub fn hear_only(&self, addresses: &[Ipv6Addr]) -> io::Result<()> {
        let addresses = Some(addresses).filter(|it| it.len() <= MOST_DESTINATIONS);
        attach_filter(self.socket.as_fd(), &filter(addresses))
    }

    /// The index of the interface.
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// Takes the next packet; `None` when none waits.
    ///
    /// A packet that `buffer` cannot hold whole is skipped, so it should have
    /// [`super::RECEIVE_BUFFER`] octets. The error `ENETDOWN` is told once each time the
    /// interface goes down; the socket hears it again when it comes up.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        loop {
            match self.recv_one(buffer) {
                Ok(Some(received)) => return Ok(Some(received)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One packet; `Ok(None)` for one that cannot be used.
    fn recv_one(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut header = [0; vnet::LENGTH];
        let mut parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
        ];
        // 64 octets in units of the alignment that control messages need.
        let mut control = [0u64; 8];
        // SAFETY: all zero is a valid `msghdr`: null pointers and zero lengths.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_iov = parts.as_mut_ptr();
        // Each C library counts these in a type of its own.
        message.msg_iovlen = parts.len() as _;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: everything `message` points at is live, writable and of the length beside it.
        let result =
            unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let length = sys::check_length(result)?;
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Ok(None);
        }
        // SAFETY: `message` is as the kernel left it and `control` is live.
        let Some(link_header) = (unsafe { network_offset(&message) }) else { return Ok(None) };
        let end = length.saturating_sub(vnet::LENGTH);
        if link_header > end {
            return Ok(None);
        }
        let header = VnetHeader::parse(&header).without(link_header);
        Ok(header.map(|header| Received { header, packet: link_header..end }))
    }

    /// What arrived and what was lost since the last call.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let fd = self.socket.as_fd();
        let [packets, dropped] = sys::get_option(fd, libc::SOL_PACKET, PACKET_STATISTICS)?;
        // The kernel counts a dropped packet among the packets too.
        Ok(Statistics { packets, dropped })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Octets of link header before the packet: 14 on Ethernet, none on links without a link layer.
///
/// # Safety
/// `message` was filled by `recvmsg` and its control buffer is live.
unsafe fn network_offset(message: &libc::msghdr) -> Option<usize> {
    /// `struct tpacket_auxdata`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Auxiliary {
        status: u32,
        length: u32,
        captured: u32,
        mac: u16,
        net: u16,
        vlan_tci: u16,
        vlan_tpid: u16,
    }
    let whole = size_of::<Auxiliary>() as _;
    // SAFETY: as the caller promises.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: not null, so it points at a whole control message header in the buffer.
        let head = unsafe { *next };
        if head.cmsg_level == libc::SOL_PACKET
            && head.cmsg_type == PACKET_AUXDATA
            && head.cmsg_len >= whole
        {
            // SAFETY: a control message of this kind holds this struct; it may be unaligned.
            let auxiliary: Auxiliary =
                unsafe { libc::CMSG_DATA(next).cast::<Auxiliary>().read_unaligned() };
            return Some(usize::from(auxiliary.net.saturating_sub(auxiliary.mac)));
        }
        // SAFETY: as the caller promises, and `next` came from this message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    None
}

/// Binds to one interface and protocol.
pub(super) fn bind_to(fd: BorrowedFd<'_>, interface: u32, protocol: libc::c_int) -> io::Result<()> {
    let address = super::neighbour_socket::link_layer_address(interface, protocol);
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is live and of the size given.
    sys::check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) }).map(drop)
}

/// Has the kernel pass only what this filter accepts.
pub(super) fn attach_filter(fd: BorrowedFd<'_>, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let size = size_of_val(&program) as libc::socklen_t;
    // SAFETY: program and filter are live; the kernel copies them and writes to neither.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    sys::check(result).map(drop)
}

/// Passes IPv6 packets to this machine's link-layer address, outside any VLAN, whose next header
/// is one of [`NEXT_HEADERS`], and of these such as are for one of the addresses, told by their last four
/// octets; for anybody if there is no word of them.
fn filter(addresses: Option<&[Ipv6Addr]>) -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |size: u32, at: libc::c_int| op(libc::BPF_LD | size | libc::BPF_ABS, at as u32);
    let fact = |which: libc::c_int| load(libc::BPF_W, libc::SKF_AD_OFF + which);
    let answer = |octets: u32| op(libc::BPF_RET | libc::BPF_K, octets);
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter { code: equals as u16, jt, jf, k };
    // Each skips the comparisons still to come and the refusal behind the last.
    let any_of = |values: &[u32]| -> Vec<_> {
        let rest = (0..values.len() as u8).rev();
        values.iter().zip(rest).map(|(value, rest)| jump(*value, rest + 1, 0)).collect()
    };

    // The refusal follows the load and comparisons of the next header; `before` instructions lie
    // between a comparison and that load.
    let refuse = |before: u8| before + 1 + NEXT_HEADERS.len() as u8;
    let mut program = vec![
        fact(libc::SKF_AD_PROTOCOL),
        jump(libc::ETH_P_IPV6 as u32, 0, refuse(4)),
        fact(libc::SKF_AD_PKTTYPE),
        jump(PACKET_HOST, 0, refuse(2)),
        // A tagged packet belongs to the interface of that VLAN, not to this one.
        fact(libc::SKF_AD_VLAN_TAG_PRESENT),
        jump(0, 0, refuse(0)),
        load(libc::BPF_B, libc::SKF_NET_OFF + 6),
    ];
    program.extend(any_of(&NEXT_HEADERS));
    program.push(answer(0));
    if let Some(addresses) = addresses {
        let ends: Vec<_> = addresses.iter().map(|it| it.to_bits() as u32).collect();
        program.push(load(libc::BPF_W, libc::SKF_NET_OFF + 36));
        program.extend(any_of(&ends));
        program.push(answer(0));
    }
    program.push(answer(u32::MAX));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would tell the filter.
    #[derive(Clone, Copy)]
    struct Told {
        protocol: i32,
        packet_type: u32,
        tagged: u32,
        next_header: u32,
        /// The last four octets of the destination.
        destination: u32,
    }

    const TUNNELLED: Told = Told {
        protocol: libc::ETH_P_IPV6,
        packet_type: PACKET_HOST,
        tagged: 0,
        next_header: 41,
        destination: 7,
    };

    fn passes(told: Told, addresses: Option<&[Ipv6Addr]>) -> bool {
        let (program, mut accumulator, mut at) = (filter(addresses), 0, 0);
        loop {
            let it = program[at];
            at += 1;
            let from = it.k.cast_signed();
            match u32::from(it.code) {
                0x20 if from == libc::SKF_NET_OFF + 36 => accumulator = told.destination,
                0x20 => {
                    accumulator = match from - libc::SKF_AD_OFF {
                        libc::SKF_AD_PROTOCOL => told.protocol as u32,
                        libc::SKF_AD_PKTTYPE => told.packet_type,
                        libc::SKF_AD_VLAN_TAG_PRESENT => told.tagged,
                        other => panic!("unknown fact {other}"),
                    }
                }
                0x30 => {
                    assert_eq!(from, libc::SKF_NET_OFF + 6);
                    accumulator = told.next_header;
                }
                0x15 => at += usize::from(if accumulator == it.k { it.jt } else { it.jf }),
                0x06 => return it.k != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_filter_passes_what_can_concern_us() {
        for next_header in 0..=255 {
            let ours = NEXT_HEADERS.contains(&next_header);
            assert_eq!(passes(Told { next_header, ..TUNNELLED }, None), ours);
        }
        let ours: Vec<Ipv6Addr> = (1..=MOST_DESTINATIONS as u16)
            .map(|end| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, end))
            .collect();
        for addresses in [None, Some(&ours[..])] {
            let passes = |told| passes(told, addresses);
            assert!(passes(TUNNELLED));
            assert!(!passes(Told { protocol: libc::ETH_P_IP, ..TUNNELLED }), "IPv4");
            assert!(!passes(Told { packet_type: 3, ..TUNNELLED }), "to another host's address");
            assert!(!passes(Told { tagged: 1, ..TUNNELLED }), "of a VLAN");
            assert!(!passes(Told { next_header: 17, ..TUNNELLED }), "UDP");
        }
    }

    #[test]
    fn the_filter_passes_what_is_for_us() {
        let ours: Vec<Ipv6Addr> = (1..=MOST_DESTINATIONS as u16)
            .map(|end| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, end))
            .collect();
        for end in 1..=MOST_DESTINATIONS as u32 {
            let to = |destination| Told { destination, ..TUNNELLED };
            assert!(passes(to(1 << 16 | end), Some(&ours)), "{end}");
            assert!(!passes(to(2 << 16 | end), Some(&ours)), "{end}");
        }
        assert!(!passes(TUNNELLED, Some(&[])), "nobody has an address");
    }
}
