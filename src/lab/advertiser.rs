//! Sends the Router Advertisements of an access router (RFC 4861 §4.2).
//!
//! radvd is not on every machine, and the lab needs no more than one prefix on one link. It
//! answers each Router Solicitation at once and repeats the advertisement every
//! `INTERVAL`; a link that is down costs nothing but a failed send.

use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::last_error;
use super::namespace::Namespace;

/// Time between two unsolicited advertisements.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often the thread looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What is advertised.
#[derive(Clone, Copy, Debug)]
pub struct Advertisement {
    /// On-link prefix of 64 bits, for address autoconfiguration.
    pub prefix: Ipv6Addr,
    /// MTU of the link.
    pub mtu: u32,
    /// Retransmission timer; hosts wait this long in duplicate address detection.
    pub retransmit: Duration,
    /// How long the sender is a default router.
    pub router_lifetime: Duration,
    /// How long the prefix may be used at all.
    pub valid: Duration,
    /// How long it may be used for new connections.
    pub preferred: Duration,
}

impl Advertisement {
    /// The one of the world's WLAN.
    pub fn wlan(mtu: u32, retransmit: Duration) -> Self {
        Self {
            prefix: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0),
            mtu,
            retransmit,
            router_lifetime: Duration::from_secs(1800),
            valid: Duration::from_secs(86_400),
            preferred: Duration::from_secs(86_400),
        }
    }

    /// What a router of the home link says of the home prefix that is no default router there.
    pub fn home(valid: Duration, preferred: Duration) -> Self {
        Self {
            prefix: Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0),
            mtu: 1500,
            retransmit: Duration::ZERO,
            router_lifetime: Duration::ZERO,
            valid,
            preferred,
        }
    }

    /// The ICMPv6 message; the kernel fills the checksum of a raw ICMPv6 socket.
    fn message(&self) -> Vec<u8> {
        let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
        message.extend((self.router_lifetime.as_secs() as u16).to_be_bytes());
        message.extend(0u32.to_be_bytes());
        message.extend((self.retransmit.as_millis() as u32).to_be_bytes());
        // Prefix Information, on-link and autonomous.
        message.extend([3, 4, 64, 0xc0]);
        message.extend((self.valid.as_secs() as u32).to_be_bytes());
        message.extend((self.preferred.as_secs() as u32).to_be_bytes());
        message.extend([0; 4]);
        message.extend(self.prefix.octets());
        message.extend([5, 1, 0, 0]);
        message.extend(self.mtu.to_be_bytes());
        message
    }
}

/// A running sender; ends when dropped, without a last advertisement.
#[derive(Debug)]
pub struct Advertiser {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Advertiser {
    /// Advertises on `interface` of `namespace`.
    pub fn start(namespace: &Namespace, interface: &str, what: Advertisement) -> Result<Self> {
        namespace.shell().show(&format!(
            "# {}: Router Advertisements for {}/64 on {interface}",
            namespace.name(),
            what.prefix
        ));
        let index = namespace
            .interface_index(interface)
            .with_context(|| format!("no interface {interface} in {}", namespace.name()))?;
        let socket = namespace.run(|| open(index))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("lab-advertiser".into()).spawn({
            let stop = stop.clone();
            move || advertise(&socket, index, &what.message(), &stop)
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(index: u32) -> Result<OwnedFd> {
    // SAFETY: socket makes a descriptor or fails.
    let raw = unsafe {
        libc::socket(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMPV6)
    };
    if raw < 0 {
        return Err(last_error("raw ICMPv6 socket"));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // Hosts ignore neighbour discovery that may have crossed a router (RFC 4861 §6.1).
    set(&socket, libc::IPV6_MULTICAST_HOPS, &255i32)?;
    set(&socket, libc::IPV6_UNICAST_HOPS, &255i32)?;
    set(&socket, libc::IPV6_MULTICAST_IF, &(index as i32))?;
    let all_routers = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr {
            s6_addr: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets(),
        },
        ipv6mr_interface: index,
    };
    set(&socket, libc::IPV6_ADD_MEMBERSHIP, &all_routers)?;
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, option: i32, value: &T) -> Result<()> {
    // SAFETY: `value` is a plain kernel structure of the given size that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(last_error("setsockopt")) } else { Ok(()) }
}

fn advertise(socket: &OwnedFd, index: u32, message: &[u8], stop: &AtomicBool) {
    let mut next = Instant::now();
    let mut buffer = [0u8; 512];
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            send(socket, index, message);
            next = Instant::now() + INTERVAL;
        }
        let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd that outlives the call.
        if unsafe { libc::poll(&mut polled, 1, GLANCE.as_millis() as i32) } > 0 {
            // SAFETY: the buffer is writable for its whole length.
            let length = unsafe {
                libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            };
            if length > 0 && buffer[0] == ROUTER_SOLICITATION {
                next = Instant::now();
            }
        }
    }
}

fn send(socket: &OwnedFd, index: u32, message: &[u8]) {
    // SAFETY: an all-zero sockaddr_in6 is a valid value of the type.
    let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    to.sin6_addr.s6_addr = ALL_NODES.octets();
    to.sin6_scope_id = index;
    // A failed send means that the link is down; the next round tries again.
    // SAFETY: message and address outlive the call and have the lengths given.
    unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        );
    }
}
