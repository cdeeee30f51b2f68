//! `mtun0`: one TUN interface with queues for each kind of ingress.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use mtun_policy::{Ingress, Ingresses};

use super::steering::Lot;
use super::vnet::{self, Received, VnetHeader};
use super::{SteeringError, steering, sys};

/// Packets that wait in each queue. A reader that is late by 20 ms at 200,000 packets per second
/// loses nothing; beyond it the kernel drops and counts.
const QUEUE_LENGTH: libc::c_int = 4096;
/// What the kernel need not do before it hands packets out (linux/if_tun.h): finish checksums, and
/// cut TCP and UDP of IPv6. Of UDP it knows only both versions together.
const CHECKSUMS_AND_TCP: libc::c_ulong = 0x01 | 0x04 | 0x08;
const UDP: libc::c_ulong = 0x20 | 0x40;
/// The kernel's own limit, `MAX_TAP_QUEUES`.
const MOST_QUEUES: usize = 256;
/// So many ingresses may have several queues; who names more has one for each of the others.
const WIDE: usize = 8;
/// And at most so many each, so that there is room for all that a policy may name.
const WIDEST: usize = 4;
const _: () =
    assert!(WIDE * WIDEST + Ingresses::MOST + Ingress::FIRST_NAMED as usize - WIDE <= MOST_QUEUES);

/// Why an interface could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// `/dev/net/tun` is missing or may not be opened.
    #[error("/dev/net/tun: {0}")]
    NoTunDevice(io::Error),
    /// Empty, longer than 15 octets, or the kernel does not like it.
    #[error("'{0}' is no interface name")]
    Name(String),
    /// An interface of this name exists; perhaps another daemon serves it.
    #[error("interface {0} exists already")]
    Exists(String),
    /// No ingress, or more than the kernel has queues for.
    #[error("queues for {0} kinds of ingress; there have to be some, and the kernel has 256")]
    Queues(usize),
    /// The kernel refused one of the steps.
    #[error("{step}: {error}")]
    Os {
        /// The call that failed.
        step: &'static str,
        /// What it said.
        error: io::Error,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> TunError {
    move |error| TunError::Os { step, error }
}

/// A TUN interface. It lives until the `Tun` and the last of its queues are dropped.
///
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
    queues: Vec<Arc<TunQueue>>,
    /// Which of them are whose, by ingress.
    lots: Vec<Lot>,
    /// Queues of one of the first ingresses.
    width: usize,
    /// What the kernel leaves to us; the same at all queues.
    offloads: libc::c_ulong,
}

impl Tun {
    /// [`Tun::open_wide`] with one queue for each ingress.
    pub fn open(name: &str, ingresses: usize) -> Result<Self, TunError> {
        Self::open_wide(name, ingresses, 1)
    }

    /// Makes the interface with queues for so many ingresses, down and without addresses; or takes over
    /// the one of this name that a killed process left, as it is. The first few ingresses have `width`
    /// queues, at most four, each for a part of their flows.
    ///
    /// The kernel hands out complete packets only, because no offload is asked for (req TN-17) until
    /// [`Self::take_superpackets`]; it accepts superpackets and partial checksums as long as their
    /// header says so.
    pub fn open_wide(name: &str, ingresses: usize, width: usize) -> Result<Self, TunError> {
        if sys::interface_request(name).is_none() {
            return Err(TunError::Name(name.to_owned()));
        }
        let left = index_of(name).is_some();
        if left && !is_abandoned(name)? {
            return Err(TunError::Exists(name.to_owned()));
        }
        if ingresses == 0 {
            return Err(TunError::Queues(ingresses));
        }
        let first = TunQueue::attach(name, 0, Ingress::LOCAL).map_err(|error| match error {
            // Of another kind.
            TunError::Os { .. } if left => TunError::Exists(name.to_owned()),
            error => error,
        })?;
        let index = index_of(name).ok_or_else(|| TunError::Name(name.to_owned()))?;
        set_queue_length(name)?;
        let mut tun = Self {
            name: name.to_owned(),
            index,
            queues: vec![Arc::new(first)],
            lots: Vec::new(),
            width: width.clamp(1, WIDEST),
            offloads: 0,
        };
        tun.grow(ingresses)?;
        Ok(tun)
    }

    /// Lets the interface stay when the process is killed, with its addresses and routes and
    /// nobody to read it: what belongs in the tunnel is dropped there, where without it the kernel
    /// would choose another source and way for sockets that have none. [`Tun::open`] takes it over
    /// if it is switched on, as it should be when this is called.
    pub fn stay_when_killed(&self) -> Result<(), TunError> {
        self.queues[0].set_persistent(true)
    }

    /// Has the kernel hand out superpackets and partial checksums as they are, as far as it can
    /// (req TN-17); [`Received::header`] says of each packet what is left to do.
    pub fn take_superpackets(&mut self) -> Result<(), TunError> {
        // Superpackets of UDP came with Linux 6.2.
        for offloads in [CHECKSUMS_AND_TCP | UDP, CHECKSUMS_AND_TCP] {
            match self.queues[0].set_offloads(offloads) {
                Ok(()) => {
                    self.offloads = offloads;
                    return Ok(());
                }
                Err(TunError::Os { error, .. }) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds queues until so many ingresses have theirs; never takes one away.
    pub fn grow(&mut self, ingresses: usize) -> Result<(), TunError> {
        while self.lots.len() < ingresses {
            let ingress = self.lots.len();
            let count = if ingress < WIDE { self.width } else { 1 };
            // The first queue is there before its lot.
            let first = if ingress == 0 { 0 } else { self.queues.len() };
            if first + count > MOST_QUEUES {
                return Err(TunError::Queues(ingresses));
            }
            while self.queues.len() < first + count {
                let queue = TunQueue::attach(&self.name, self.offloads, Ingress(ingress as u8))?;
                self.queues.push(Arc::new(queue));
            }
            self.lots.push(Lot { first: first as u16, count: count as u16 });
        }
        Ok(())
    }

    /// The interface's name at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, which never changes.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The queues; with steering in place each says whose packets it has ([`TunQueue::ingress`]).
    pub fn queues(&self) -> &[Arc<TunQueue>] {
        &self.queues
    }

    /// Gives packets of local sockets to the queues of ingress 0, those received on the named interface
    /// indices to those of the ingress beside them, and all others to those of ingress 1. Replaces
    /// what was set before; packets under way keep their queue.
    pub fn set_steering(&self, named: &[(u32, u16)]) -> Result<(), SteeringError> {
        let lot = |ingress: u16| {
            let ingresses = self.lots.len();
            let found = self.lots.get(usize::from(ingress)).copied();
            found.ok_or(SteeringError::NoSuchIngress { ingress, ingresses })
        };
        let (local, other) = (lot(0)?, lot(1)?);
        let named = named.iter().map(|(index, ingress)| lot(*ingress).map(|lot| (*index, lot)));
        let named: Vec<_> = named.collect::<Result<_, _>>()?;
        let program = steering::load(&steering::program_for(local, other, &named))?;
        let number = program.as_raw_fd();
        let queue = &self.queues[0];
        // SAFETY: the argument is a pointer to a live int; the kernel keeps its own reference to
        // the program, so closing the descriptor afterwards is right.
        let result = unsafe {
            libc::ioctl(queue.fd.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const number)
        };
        sys::check(result)?;
        Ok(())
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        // A failure leaves an interface behind that drops packets; the next run takes it over.
        let _ = self.queues[0].set_persistent(false);
    }
}

/// One queue of a [`Tun`]. Its methods take `&self`, and the kernel serialises nothing that
/// matters: several threads may send, one should receive to keep packets in order.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    ingress: Ingress,
}

impl TunQueue {
    /// `offloads` are those of the interface, which the last queue says for all of them.
    fn attach(name: &str, offloads: libc::c_ulong, ingress: Ingress) -> Result<Self, TunError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(TunError::NoTunDevice)?;
        let fd = OwnedFd::from(file);
        let mut request =
            sys::interface_request(name).ok_or_else(|| TunError::Name(name.to_owned()))?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the argument is a live `ifreq` with a terminated name.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        sys::check(result).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => TunError::Exists(name.to_owned()),
            _ => TunError::Os { step: "TUNSETIFF", error },
        })?;
        let length = vnet::LENGTH as libc::c_int;
        // SAFETY: the argument is a pointer to a live int.
        let result =
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) };
        sys::check(result).map_err(step("TUNSETVNETHDRSZ"))?;
        let queue = Self { fd, ingress };
        queue.set_offloads(offloads)?;
        Ok(queue)
    }

    fn set_offloads(&self, offloads: libc::c_ulong) -> Result<(), TunError> {
        // SAFETY: the argument is a number, a set of offloads.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
        sys::check(result).map(drop).map_err(step("TUNSETOFFLOAD"))
    }

    /// Whether the interface outlives its queues.
    fn set_persistent(&self, persistent: bool) -> Result<(), TunError> {
        // SAFETY: the argument is a number, zero or one.
        let result = unsafe {
            libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(persistent))
        };
        sys::check(result).map(drop).map_err(step("TUNSETPERSIST"))
    }

    /// Whose packets it has, with steering in place.
    pub fn ingress(&self) -> Ingress {
        self.ingress
    }

    /// Takes the next packet out of the queue; `None` when none waits.
    ///
    /// `buffer` should hold [`super::RECEIVE_BUFFER`] octets; of a packet that does not fit, the
    /// rest is lost.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut header = [0; vnet::LENGTH];
        let parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
        ];
        // SAFETY: both parts are live, writable and of the lengths given.
        let result = unsafe { libc::readv(self.fd.as_raw_fd(), parts.as_ptr(), 2) };
        match sys::check_length(result) {
            Ok(length) => {
                let packet = 0..length.saturating_sub(vnet::LENGTH);
                Ok(Some(Received { header: VnetHeader::parse(&header), packet }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a complete packet to the kernel, as if it had arrived on the interface.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.send_with(VnetHeader::COMPLETE, packet)
    }

    /// The same for a packet with a partial checksum or a superpacket.
    pub fn send_with(&self, header: VnetHeader, packet: &[u8]) -> io::Result<()> {
        let header = header.emit();
        let parts = [
            libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() },
            libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() },
        ];
        // SAFETY: both parts are live and of the lengths given; writing only reads them.
        let result = unsafe { libc::writev(self.fd.as_raw_fd(), parts.as_ptr(), 2) };
        sys::check_length(result).map(drop)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn index_of(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Whether an interface is switched on and nobody holds a queue of it: it has no carrier then.
fn is_abandoned(name: &str) -> Result<bool, TunError> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_GLINK: u32 = 0x0000_000a;
    let mut request =
        sys::interface_request(name).ok_or_else(|| TunError::Name(name.to_owned()))?;
    // `struct ethtool_value`: the command and, in return, its answer.
    let mut value = [ETHTOOL_GLINK, 1];
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).map_err(step("socket"))?;
    let mut flags = request;
    // SAFETY: the argument is a live `ifreq` with a terminated name.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut flags) };
    sys::check(result).map_err(step("SIOCGIFFLAGS"))?;
    // SAFETY: the call above has filled this part of the union.
    if i32::from(unsafe { flags.ifr_ifru.ifru_flags }) & libc::IFF_UP == 0 {
        // Nothing that is switched off tells whether it has a carrier.
        return Ok(false);
    }
    // SAFETY: the argument is a live `ifreq` that leads to a live `ethtool_value`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    // A kind of interface that cannot say is none of ours.
    Ok(sys::check(result).is_ok() && value[1] == 0)
}

fn set_queue_length(name: &str) -> Result<(), TunError> {
    let mut request =
        sys::interface_request(name).ok_or_else(|| TunError::Name(name.to_owned()))?;
    // The length of the transmit queue shares its place in the union with the metric.
    request.ifr_ifru.ifru_metric = QUEUE_LENGTH;
    let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).map_err(step("socket"))?;
    // SAFETY: the argument is a live `ifreq` with a terminated name.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN as _, &raw const request) };
    sys::check(result).map(drop).map_err(step("SIOCSIFTXQLEN"))
}
