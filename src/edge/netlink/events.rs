//! Listens to what changes in the kernel.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::Ipv6Net;
use netlink_packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::time::{Instant, timeout_at};

use super::{Netlink, NetlinkError, name_of};
use crate::edge::movement::{AddressFacts, LinkEvent, LinkFacts, RouteFacts};
use crate::edge::routes::{MAIN, PROTOCOL};

const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Neigh,
];
/// Room for some ten thousand reports, taken only when they come; beyond it the kernel drops them
/// and says so.
pub const RECEIVE_BUFFER: usize = 16 << 20;
/// After reports were dropped everything is asked for as soon as nothing was reported for so long,
const QUIET: Duration = Duration::from_millis(100);
/// and in a storm without a pause after so long: what is asked for in the middle of one is old
/// when it comes, and asking costs more than the storm.
const RESTLESS: Duration = Duration::from_secs(2);
/// `IFA_F_TEMPORARY`; for IPv6 the bit that IPv4 calls secondary.
const TEMPORARY: AddressFlags = AddressFlags::Secondary;

/// Reports of the kernel, one [`LinkEvent`] at a time.
pub struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
    waiting: VecDeque<LinkEvent>,
    missing: Missing,
    counts: Reports,
}

/// How the reports of the kernel came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// How often the kernel had to drop some.
    pub overruns: u64,
    /// How often everything was asked for, the first time included.
    pub listings: u64,
}

/// Whether some reports were not heard.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Nothing,
    /// Everything is to be asked for.
    All,
    /// The kernel dropped some since then.
    Some {
        since: Instant,
        heard: Instant,
    },
}

impl Events {
    pub(super) fn open(room: usize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        // Without CAP_NET_ADMIN there is a limit; too small a buffer costs a listing, not
        // correctness.
        if !force_room(socket.socket_ref(), room) {
            let _ = socket.socket_ref().set_rx_buf_sz(room);
        }
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(64 << 10),
            waiting: VecDeque::new(),
            missing: Missing::All,
            counts: Reports::default(),
        })
    }

    /// How the reports came so far.
    pub fn counts(&self) -> Reports {
        self.counts
    }

    /// The next report. When the kernel had to drop some, it is [`LinkEvent::Everything`] once
    /// the storm is over: 100 ms after the last report, or every two seconds in a storm that has no
    /// end. Until then what is heard is told as it comes. Safe to cancel.
    pub async fn next(&mut self) -> Result<LinkEvent, NetlinkError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let due = match self.missing {
                Missing::Nothing => None,
                Missing::All => Some(Instant::now()),
                Missing::Some { since, heard } => Some((heard + QUIET).min(since + RESTLESS)),
            };
            if due.is_some_and(|due| due <= Instant::now()) {
                // Whatever changes during the listing is reported after it. A listing that is
                // given up half-way blocks the next on its socket, so each has its own.
                let asking = Netlink::open().map_err(NetlinkError::no_socket)?;
                let everything = everything(&asking.handle).await?;
                self.missing = Missing::Nothing;
                self.counts.listings += 1;
                return Ok(LinkEvent::Everything(everything));
            }
            let heard = match due {
                Some(due) => match timeout_at(due, self.receive()).await {
                    Ok(heard) => heard,
                    Err(_) => continue,
                },
                None => self.receive().await,
            };
            let now = Instant::now();
            match heard {
                Ok(()) => {
                    if let Missing::Some { heard, .. } = &mut self.missing {
                        *heard = now;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.counts.overruns += 1;
                    self.missing = match self.missing {
                        Missing::Some { since, .. } => Missing::Some { since, heard: now },
                        Missing::Nothing | Missing::All => {
                            tracing::warn!(
                                "the kernel dropped link reports; asking for everything"
                            );
                            Missing::Some { since: now, heard: now }
                        }
                    };
                }
                Err(error) => {
                    let what = "listen to the kernel".into();
                    return Err(NetlinkError::Refused { what, error });
                }
            }
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        let sender = self.socket.recv_from(&mut self.buffer).await?;
        // Any process may send to a netlink socket; only port 0 is the kernel.
        if sender.port_number() == 0 {
            self.waiting.extend(parse(&self.buffer));
        }
        Ok(())
    }
}

/// Gives a socket room beyond the limit of the system; whether that was allowed.
fn force_room(socket: &impl AsRawFd, room: usize) -> bool {
    let room = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
    // SAFETY: the value is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            std::ptr::from_ref(&room).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    done == 0
}

/// The reports in one datagram; what cannot be read or does not concern us is passed over.
fn parse(mut datagram: &[u8]) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    while let Some(length) = datagram.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some(octets) = datagram.get(..length).filter(|it| it.len() >= 16) else { break };
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(octets) {
            let replaces = message.header.flags & NLM_F_REPLACE != 0;
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                events.extend(event(message, replaces));
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    events
}

fn event(message: RouteNetlinkMessage, replaces: bool) -> Vec<LinkEvent> {
    use RouteNetlinkMessage as M;
    match message {
        M::NewLink(link) => link_facts(&link).map(LinkEvent::Link).into_iter().collect(),
        // The same message with another family says that a bridge port is gone, not the link.
        M::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            vec![LinkEvent::LinkGone(link.header.index)]
        }
        M::NewAddress(message) => address(&message).into_iter().collect(),
        M::DelAddress(message) => match address(&message) {
            Some(LinkEvent::Address { index, address, .. }) => {
                vec![LinkEvent::AddressGone { index, address }]
            }
            _ => vec![],
        },
        M::NewRoute(message) => routes(&message)
            .into_iter()
            .map(|(index, route)| LinkEvent::Route { index, route, replaces })
            .collect(),
        M::DelRoute(message) => routes(&message)
            .into_iter()
            .map(|(index, route)| LinkEvent::RouteGone { index, route })
            .collect(),
        // A neighbour that is forgotten is no better known than before.
        M::NewNeighbour(message) => neighbour(&message).into_iter().collect(),
        _ => vec![],
    }
}

/// What a link message says; `None` for messages about bridge ports.
pub(super) fn link_facts(message: &LinkMessage) -> Option<LinkFacts> {
    let header = &message.header;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mtu, mut falls) = (None, 0, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(name_of(text)),
            LinkAttribute::Mtu(octets) => mtu = *octets,
            LinkAttribute::CarrierDownCount(times) => falls = *times,
            _ => {}
        }
    }
    let flags = header.flags;
    Some(LinkFacts {
        index: header.index,
        name: name?,
        up: flags.contains(LinkFlags::Up),
        // LOWER_UP goes with the carrier at once. RUNNING follows up to a second later, and until
        // then the queue of an interface whose carrier came back swallows what is sent.
        carrier: flags.contains(LinkFlags::LowerUp | LinkFlags::Running)
            && !flags.contains(LinkFlags::Dormant),
        link_layer: !flags.intersects(LinkFlags::Noarp | LinkFlags::Pointopoint),
        mtu,
        falls,
    })
}

fn address(message: &AddressMessage) -> Option<LinkEvent> {
    let header = &message.header;
    if header.family != AddressFamily::Inet6 {
        return None;
    }
    let (mut own, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V6(address)) => own = Some(*address),
            AddressAttribute::Address(IpAddr::V6(address)) => peer = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let has = |flag| flags.contains(flag);
    Some(LinkEvent::Address {
        index: header.index,
        address: own.or(peer)?,
        facts: AddressFacts {
            global: header.scope == AddressScope::Universe,
            tentative: has(AddressFlags::Tentative),
            duplicate: has(AddressFlags::Dadfailed),
            deprecated: has(AddressFlags::Deprecated),
            temporary: has(TEMPORARY),
        },
    })
}

/// The routes of the main table that a message speaks of, one per next hop, ours left out.
fn routes(message: &RouteMessage) -> Vec<(u32, RouteFacts)> {
    let header = &message.header;
    let concerns_us = header.address_family == AddressFamily::Inet6
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Other(PROTOCOL)
        && !header.flags.contains(RouteFlags::Cloned);
    let mut table = u32::from(header.table);
    let (mut destination, mut metric) = (Ipv6Addr::UNSPECIFIED, 0);
    let mut hops = vec![(None, None)];
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = *address,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Oif(index) => hops[0].0 = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet6(router)) => hops[0].1 = Some(*router),
            RouteAttribute::MultiPath(many) => hops.extend(many.iter().map(|hop| {
                let router = hop.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet6(router)) => Some(*router),
                    _ => None,
                });
                (Some(hop.interface_index), router)
            })),
            _ => {}
        }
    }
    let destination = Ipv6Net::new(destination, header.destination_prefix_length);
    match destination {
        Ok(destination) if concerns_us && table == MAIN => hops
            .into_iter()
            .filter_map(|(index, router)| {
                Some((index?, RouteFacts { metric, destination, router }))
            })
            .collect(),
        _ => vec![],
    }
}

/// Whether a neighbour message says that this neighbour can be sent to.
pub(super) fn knows(message: &NeighbourMessage, index: u32, address: Ipv6Addr) -> bool {
    neighbour(message) == Some(LinkEvent::Neighbour { index, address, reachable: true })
}

fn neighbour(message: &NeighbourMessage) -> Option<LinkEvent> {
    let header = &message.header;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(*address),
        _ => None,
    })?;
    // Of one that is being looked for, nothing can be said yet.
    let reachable = match header.state {
        NeighbourState::Failed => false,
        NeighbourState::Incomplete | NeighbourState::None => return None,
        _ => true,
    };
    Some(LinkEvent::Neighbour { index: header.ifindex, address, reachable })
}

async fn everything(handle: &Handle) -> Result<Vec<LinkEvent>, NetlinkError> {
    let refused = |what: &'static str| move |error| NetlinkError::new(what, error);
    let links = handle.link().get().execute().try_collect::<Vec<_>>();
    let links = links.await.map_err(refused("list interfaces"))?;
    let addresses = handle.address().get().execute().try_collect::<Vec<_>>();
    let addresses = addresses.await.map_err(refused("list addresses"))?;
    let table = RouteMessageBuilder::<Ipv6Addr>::new().table_id(MAIN).build();
    let table = handle.route().get(dump_request(table)).execute().try_collect::<Vec<_>>();
    let table = table.await.map_err(refused("list routes"))?;
    let neighbours = handle.neighbours().get().set_address_family(AddressFamily::Inet6);
    let neighbours = neighbours.execute().try_collect::<Vec<_>>();
    let neighbours = neighbours.await.map_err(refused("list neighbours"))?;

    let mut events = Vec::new();
    let mut add = |message| events.extend(event(message, false));
    links.into_iter().map(RouteNetlinkMessage::NewLink).for_each(&mut add);
    addresses.into_iter().map(RouteNetlinkMessage::NewAddress).for_each(&mut add);
    table.into_iter().map(RouteNetlinkMessage::NewRoute).for_each(&mut add);
    neighbours.into_iter().map(RouteNetlinkMessage::NewNeighbour).for_each(&mut add);
    Ok(events)
}

/// A route message that only filters a listing: the kernel refuses other facts in one.
pub(super) fn dump_request(mut message: RouteMessage) -> RouteMessage {
    message.header.protocol = RouteProtocol::Unspec;
    message.header.kind = RouteType::Unspec;
    message.header.scope = netlink_packet_route::route::RouteScope::Universe;
    message
}
