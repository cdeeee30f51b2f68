//! Neighbour discovery by our own packets, for addresses that the kernel does not have.
//!
//! A home agent answers for the home addresses of mobiles that are away, and looks for duplicates
//! of them; a mobile that comes home must stay silent about an address that its kernel has. So
//! neither is left to the kernel. One [`Neighbours`] belongs to one interface; what it hears goes
//! to a channel, solicitations and advertisements only if they are about an address that is
//! [watched](Neighbours::watch), so that nobody else's neighbours cost anything.
//!
//! Standards: RFC 4861, RFC 4862 §5.4, RFC 6275 §10.4.1 and §11.5.5.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mtun_dataplane::backend::{NeighbourSocket, PacketSocketError, Waker, wait};
use mtun_dataplane::wire::ICMPV6;
use mtun_dataplane::wire::ipv6::{HEADER, Header};
use mtun_signaling::wire::icmpv6::IcmpError;
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    self, ALL_NODES, ALL_ROUTERS, HOP_LIMIT, LinkLayerAddress, NeighbourAdvertisement,
    NeighbourMessage, NeighbourSolicitation, RouterSolicitation, solicited_node,
};
use tokio::sync::mpsc;

/// The longest packet that is looked at: a Router Advertisement of an Ethernet link.
const LONGEST: usize = 1500;

/// One message of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Index of the interface.
    pub interface: u32,
    /// IPv6 source address.
    pub source: Ipv6Addr,
    /// IPv6 destination address.
    pub destination: Ipv6Addr,
    /// The link-layer address it came from.
    pub from: LinkLayerAddress,
    /// The message, valid as RFC 4861 §6.1 and §7.1 say.
    pub message: NeighbourMessage,
}

/// What was not handed on, since the interface was opened.
#[derive(Debug, Default)]
pub struct Unheard {
    /// Messages that are not valid.
    pub invalid: AtomicU64,
    /// Messages for which there was no room.
    pub lost: AtomicU64,
}

/// Neighbour discovery on one interface, with a thread that listens; ends when dropped.
#[derive(Debug)]
pub struct Neighbours {
    link: Arc<Link>,
    waker: Waker,
    listener: Option<JoinHandle<()>>,
}

/// Addresses by their solicited-node groups.
type Watched = BTreeMap<Ipv6Addr, BTreeSet<Ipv6Addr>>;

#[derive(Debug)]
struct Link {
    socket: NeighbourSocket,
    stop: AtomicBool,
    /// By the group that each address shares with others of the same end.
    watched: Mutex<Watched>,
    unheard: Unheard,
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.link.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(listener) = self.listener.take() {
            // One that panicked has said so on standard error.
            let _ = listener.join();
        }
    }
}

impl Neighbours {
    /// Listens on the interface of this index; what is heard goes to `heard`.
    pub fn open(interface: u32, heard: mpsc::Sender<Heard>) -> Result<Self, PacketSocketError> {
        let step = |step| move |error| PacketSocketError::Os { step, error };
        let socket = NeighbourSocket::open(interface)?;
        let (watched, unheard) = (Mutex::default(), Unheard::default());
        let link = Arc::new(Link { socket, stop: AtomicBool::new(false), watched, unheard });
        let waker = Waker::new().map_err(step("waker"))?;
        let (ours, told) = (link.clone(), waker.clone());
        let listener = std::thread::Builder::new()
            .name(format!("nd-{interface}"))
            .spawn(move || ours.listen(&told, &heard))
            .map_err(step("thread"))?;
        Ok(Self { link, waker, listener: Some(listener) })
    }

    /// The index of the interface.
    pub fn interface(&self) -> u32 {
        self.link.socket.interface()
    }

    /// The interface's own link-layer address.
    pub fn link_layer(&self) -> LinkLayerAddress {
        LinkLayerAddress(self.link.socket.link_layer())
    }

    /// The interface's link-local address that may be used, if it has one.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let addresses = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
        addresses.lines().find_map(|line| link_local_of(line, self.interface()))
    }

    /// What was not handed on.
    pub fn unheard(&self) -> &Unheard {
        &self.link.unheard
    }

    /// Hands on what is said about this address, and has the link's switches deliver it.
    pub fn watch(&self, address: Ipv6Addr) -> io::Result<()> {
        let group = solicited_node(address);
        self.link.watched().entry(group).or_default().insert(address);
        self.link.socket.join(group)
    }

    /// Does not any more.
    pub fn forget(&self, address: Ipv6Addr) -> io::Result<()> {
        let group = solicited_node(address);
        let mut watched = self.link.watched();
        let Some(addresses) = watched.get_mut(&group) else { return Ok(()) };
        addresses.remove(&address);
        if !addresses.is_empty() {
            return Ok(());
        }
        watched.remove(&group);
        drop(watched);
        self.link.socket.leave(group)
    }

    /// Asks whether anybody has this address, as one does before using it (RFC 4862 §5.4.2): from
    /// nobody, so that no neighbour learns anything.
    pub fn check_duplicate(&self, target: Ipv6Addr) -> io::Result<()> {
        let message = NeighbourSolicitation { target, source_link_layer: None };
        let group = solicited_node(target);
        self.send(
            Ipv6Addr::UNSPECIFIED,
            group,
            LinkLayerAddress::of_group(group),
            &NeighbourMessage::NeighbourSolicitation(message),
        )
    }

    /// Asks for the link-layer address of a neighbour.
    pub fn solicit(&self, source: Ipv6Addr, target: Ipv6Addr) -> io::Result<()> {
        let source_link_layer = Some(self.link_layer());
        let message = NeighbourSolicitation { target, source_link_layer };
        let group = solicited_node(target);
        self.send(
            source,
            group,
            LinkLayerAddress::of_group(group),
            &NeighbourMessage::NeighbourSolicitation(message),
        )
    }

    /// Asks the routers of the link to say something.
    pub fn solicit_routers(&self, source: Ipv6Addr) -> io::Result<()> {
        let source_link_layer = (!source.is_unspecified()).then(|| self.link_layer());
        let message = RouterSolicitation { source_link_layer };
        self.send(
            source,
            ALL_ROUTERS,
            LinkLayerAddress::of_group(ALL_ROUTERS),
            &NeighbourMessage::RouterSolicitation(message),
        )
    }

    /// Tells all nodes of the link that this interface is where `target` is, whatever they know.
    pub fn announce(&self, source: Ipv6Addr, target: Ipv6Addr, router: bool) -> io::Result<()> {
        let message = self.advertisement(target, router, false, true);
        self.send(source, ALL_NODES, LinkLayerAddress::of_group(ALL_NODES), &message)
    }

    /// Answers a solicitation: its sender, or all nodes when nobody asked, as one who looks for a
    /// duplicate does (RFC 4861 §7.2.4).
    pub fn answer(
        &self,
        asked: &Heard,
        source: Ipv6Addr,
        target: Ipv6Addr,
        router: bool,
    ) -> io::Result<()> {
        if asked.source.is_unspecified() {
            return self.announce(source, target, router);
        }
        let to = match asked.message {
            NeighbourMessage::NeighbourSolicitation(NeighbourSolicitation {
                source_link_layer: Some(address),
                ..
            }) => address,
            _ => asked.from,
        };
        self.send(source, asked.source, to, &self.advertisement(target, router, true, true))
    }

    /// Answers for an address that others on the link have too: who has an answer keeps it
    /// (RFC 4861 §7.2.7).
    pub fn answer_anycast(
        &self,
        asked: &Heard,
        source: Ipv6Addr,
        target: Ipv6Addr,
    ) -> io::Result<()> {
        let message = self.advertisement(target, true, true, false);
        self.send(source, asked.source, asked.from, &message)
    }

    /// Sends any message of neighbour discovery.
    pub fn send(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        link_layer: LinkLayerAddress,
        message: &NeighbourMessage,
    ) -> io::Result<()> {
        let message = neighbour_discovery::emit(message, source, destination);
        let mut packet = Vec::with_capacity(HEADER + message.len());
        Header {
            traffic_class: 0,
            flow_label: 0,
            payload_length: message.len() as u16,
            next_header: ICMPV6,
            hop_limit: HOP_LIMIT,
            source,
            destination,
        }
        .emit(&mut packet);
        packet.extend(message);
        self.link.socket.send(&packet, link_layer.0)
    }

    fn advertisement(
        &self,
        target: Ipv6Addr,
        router: bool,
        solicited: bool,
        overrides: bool,
    ) -> NeighbourMessage {
        let target_link_layer = Some(self.link_layer());
        NeighbourMessage::NeighbourAdvertisement(NeighbourAdvertisement {
            target,
            router,
            solicited,
            overrides,
            target_link_layer,
        })
    }
}

impl Link {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, waker: &Waker, heard: &mpsc::Sender<Heard>) {
        let mut buffer = [0; LONGEST];
        let mut ready = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            // An error is told once, when the interface goes down; the socket hears it come back.
            while let Ok((length, from)) = self.socket.recv(&mut buffer) {
                self.received(&buffer[..length], LinkLayerAddress(from), heard);
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
            }
            if wait(&[self.socket.as_fd()], waker, None, &mut ready).is_err() {
                return;
            }
        }
    }

    fn received(&self, packet: &[u8], from: LinkLayerAddress, heard: &mpsc::Sender<Heard>) {
        // A link that throws our own packets back at us is not another neighbour.
        if from.0 == self.socket.link_layer() {
            return;
        }
        match read(packet) {
            Ok((source, destination, message)) if self.concerns(&message) => {
                let interface = self.socket.interface();
                let message = Heard { interface, source, destination, from, message };
                if heard.try_send(message).is_err() {
                    self.unheard.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(_) => {}
            Err(_) => {
                self.unheard.invalid.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn concerns(&self, message: &NeighbourMessage) -> bool {
        let target = match message {
            NeighbourMessage::NeighbourSolicitation(message) => message.target,
            NeighbourMessage::NeighbourAdvertisement(message) => message.target,
            NeighbourMessage::RouterSolicitation(_) | NeighbourMessage::RouterAdvertisement(_) => {
                return true;
            }
        };
        let watched = self.watched();
        watched.get(&solicited_node(target)).is_some_and(|it| it.contains(&target))
    }
}

/// The link-local address in a line of `/proc/net/if_inet6` that is about this interface; none of
/// an address that is tentative or a duplicate.
fn link_local_of(line: &str, interface: u32) -> Option<Ipv6Addr> {
    const NOT_IN_USE: u8 = 0x40 | 0x08;
    let mut fields = line.split_whitespace();
    let address = u128::from_str_radix(fields.next()?, 16).ok()?;
    let index = u32::from_str_radix(fields.next()?, 16).ok()?;
    let flags = u8::from_str_radix(fields.nth(2)?, 16).ok()?;
    let address = Ipv6Addr::from(address);
    let usable = address.is_unicast_link_local() && flags & NOT_IN_USE == 0;
    (index == interface && usable).then_some(address)
}

/// Reads one whole packet, whose ICMPv6 message must follow its header at once.
fn read(packet: &[u8]) -> Result<(Ipv6Addr, Ipv6Addr, NeighbourMessage), IcmpError> {
    let short = IcmpError::Length(packet.len());
    let header = Header::parse(packet).ok_or(short)?;
    let message = packet.get(HEADER..).and_then(|rest| rest.get(..header.payload_length.into()));
    let message = message.ok_or(short)?;
    if header.next_header != ICMPV6 {
        return Err(IcmpError::Type(header.next_header));
    }
    let (source, destination) = (header.source, header.destination);
    let message = neighbour_discovery::receive(source, destination, header.hop_limit, message)?;
    Ok((source, destination, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A solicitation for a duplicate of 2001:db8:100::42, laid out by hand.
    const PACKET: &str = "60000000 00183aff 00000000000000000000000000000000 \
                          ff0200000000000000000001ff000042 \
                          87004b6b00000000 20010db8010000000000000000000042";

    fn octets(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().filter_map(|it| it.to_digit(16)).map(|it| it as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn a_packet_is_read_whole_or_not_at_all() {
        let packet = octets(PACKET);
        let target = "2001:db8:100::42".parse().unwrap();
        let solicitation = NeighbourSolicitation { target, source_link_layer: None };
        let (source, destination, message) = read(&packet).unwrap();
        assert_eq!((source, destination), (Ipv6Addr::UNSPECIFIED, solicited_node(target)));
        assert_eq!(message, NeighbourMessage::NeighbourSolicitation(solicitation));
        for length in 0..packet.len() {
            assert_eq!(read(&packet[..length]), Err(IcmpError::Length(length)));
        }
        // What Ethernet fills a short frame up with is no part of it.
        let mut padded = packet.clone();
        padded.extend([0xaa; 6]);
        assert!(read(&padded).is_ok());
    }

    #[test]
    fn what_crossed_a_router_or_hides_behind_headers_is_no_neighbours() {
        let mut far = octets(PACKET);
        far[7] = 254;
        assert_eq!(read(&far), Err(IcmpError::HopLimit(254)));
        let mut hidden = octets(PACKET);
        hidden[6] = 60;
        assert_eq!(read(&hidden), Err(IcmpError::Type(60)));
    }

    #[test]
    fn the_link_local_address_is_that_of_the_interface_and_in_use() {
        let lines = "\
00000000000000000000000000000001 01 80 10 80       lo
20010db8010000000000000000000001 0a 40 00 80    home0
fe80000000000000000000fffe000001 0a 40 20 80    home0
fe80000000000000000000fffe000002 0b 40 20 c0    core0
fe80000000000000000000fffe000003 0b 40 20 80    core0
";
        let of = |index| lines.lines().find_map(|line| link_local_of(line, index));
        assert_eq!(of(10), Some("fe80::ff:fe00:1".parse().unwrap()));
        assert_eq!(of(11), Some("fe80::ff:fe00:3".parse().unwrap()));
        assert_eq!(of(1), None);
        assert_eq!(link_local_of("fe80 x", 1), None);
    }

    #[test]
    fn no_octets_panic() {
        let packet = octets(PACKET);
        for at in 0..packet.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut spoiled = packet.clone();
                spoiled[at] = value;
                let _ = read(&spoiled);
            }
        }
    }
}
