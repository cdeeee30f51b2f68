//! The kernel's links, addresses, rules and routes, by rtnetlink.
//!
//! [`Netlink`] asks and changes; [`Events`] listens on a socket of its own, so that a burst of
//! reports never delays an answer. Both belong to the network namespace of the thread that opened
//! them.

mod events;
mod forwarding;

use std::net::{IpAddr, Ipv6Addr};

use futures_util::TryStreamExt;
use mtun_policy::InterfaceName;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec};
use tokio::task::JoinHandle;

pub use events::{Events, Reports};
pub use forwarding::Changes;

use super::movement::LinkFacts;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The request was answered with an error.
    #[error("{what}: {error}")]
    Refused {
        /// What was asked.
        what: String,
        /// The answer.
        error: std::io::Error,
    },
    /// The request was not answered, or not in a way that can be understood.
    #[error("{what}: {error}")]
    Broken {
        /// What was asked.
        what: String,
        /// What happened.
        error: rtnetlink::Error,
    },
}

impl NetlinkError {
    fn new(what: impl Into<String>, error: rtnetlink::Error) -> Self {
        let what = what.into();
        match error {
            rtnetlink::Error::NetlinkError(error) => Self::Refused { what, error: error.to_io() },
            error => Self::Broken { what, error },
        }
    }

    fn no_socket(error: std::io::Error) -> Self {
        Self::Refused { what: "open a netlink socket".to_owned(), error }
    }

    /// The error number the kernel answered with.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { error, .. } => error.raw_os_error(),
            Self::Broken { .. } => None,
        }
    }
}

/// Asks the kernel and changes what it holds.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens a socket in this thread's network namespace. Must run inside a tokio runtime.
    pub fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The interface of this name; `None` when there is none.
    pub async fn link(&self, name: &str) -> Result<Option<LinkFacts>, NetlinkError> {
        let request = self.handle.link().get().match_name(name);
        self.one_link(request, format!("look up {name}")).await
    }

    /// The interface of this index; `None` when there is none.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<LinkFacts>, NetlinkError> {
        let request = self.handle.link().get().match_index(index);
        self.one_link(request, format!("look up interface {index}")).await
    }

    async fn one_link(
        &self,
        request: rtnetlink::LinkGetRequest,
        what: String,
    ) -> Result<Option<LinkFacts>, NetlinkError> {
        let skip = vec![LinkExtentMask::SkipStats];
        let request = request.set_filter_mask(AddressFamily::Unspec, skip);
        match request.execute().try_next().await {
            Ok(message) => Ok(message.as_ref().and_then(events::link_facts)),
            Err(error) => match NetlinkError::new(what, error) {
                error if error.code() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Every interface.
    pub async fn links(&self) -> Result<Vec<LinkFacts>, NetlinkError> {
        let asking = Self::open().map_err(NetlinkError::no_socket)?;
        let messages = asking.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let messages = messages.map_err(|error| NetlinkError::new("list interfaces", error))?;
        Ok(messages.iter().filter_map(events::link_facts).collect())
    }

    /// Switches an interface on or off.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index);
        let link = if up { link.up() } else { link.down() };
        self.set_link(link.build(), format!("switch interface {index}")).await
    }

    /// Sets the largest packet of an interface, in octets.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).mtu(mtu).build();
        self.set_link(link, format!("set the MTU of interface {index}")).await
    }

    /// Sets how many packets wait to be sent by an interface.
    pub async fn set_queue_length(&self, index: u32, length: u32) -> Result<(), NetlinkError> {
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).txqueuelen(length).build();
        self.set_link(link, format!("set the queue length of interface {index}")).await
    }

    /// Keeps the kernel from giving an interface a link-local address when it is switched on, and
    /// with it from soliciting routers and joining groups there.
    pub async fn refuse_link_local(&self, index: u32) -> Result<(), NetlinkError> {
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let link = LinkMessageBuilder::<LinkUnspec>::new()
            .index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
            .build();
        self.set_link(link, format!("refuse link-local addresses on interface {index}")).await
    }

    async fn set_link(&self, link: LinkMessage, what: String) -> Result<(), NetlinkError> {
        self.handle.link().set(link).execute().await.map_err(|e| NetlinkError::new(what, e))
    }

    /// Adds an address without duplicate address detection, or refreshes it.
    pub async fn add_address(
        &self,
        index: u32,
        address: Ipv6Addr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut request =
            self.handle.address().add(index, IpAddr::V6(address), prefix_len).replace();
        let message = request.message_mut();
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(
            AddressFlags::Nodad | AddressFlags::Permanent | AddressFlags::Noprefixroute,
        ));
        let what = || format!("add {address}/{prefix_len} to interface {index}");
        request.execute().await.map_err(|error| NetlinkError::new(what(), error))
    }

    /// Removes an address; one that is not there is fine.
    pub async fn del_address(
        &self,
        index: u32,
        address: Ipv6Addr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let message = AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(address, prefix_len)
            .build();
        let what = || format!("remove {address}/{prefix_len} from interface {index}");
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(error) => match NetlinkError::new(what(), error) {
                gone if matches!(gone.code(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Makes a tunnel interface ready: no link-local address, its MTU, up, and with `address` as a
    /// /128 where there is one and no other, which an earlier run may have left.
    pub async fn prepare_tunnel(
        &self,
        index: u32,
        mtu: u32,
        address: Option<Ipv6Addr>,
    ) -> Result<(), NetlinkError> {
        self.refuse_link_local(index).await?;
        self.set_mtu(index, mtu).await?;
        self.set_up(index, true).await?;
        if let Some(address) = address {
            self.add_address(index, address, 128).await?;
        }
        let present = self.handle.address().get().set_link_index_filter(index).execute();
        let present = present.try_collect::<Vec<_>>().await;
        let present = present.map_err(|error| NetlinkError::new("list addresses", error))?;
        for message in present {
            let prefix_len = message.header.prefix_len;
            let held = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V6(held)) => Some(*held),
                _ => None,
            });
            if let Some(held) = held.filter(|held| Some(*held) != address) {
                self.del_address(index, held, prefix_len).await?;
            }
        }
        Ok(())
    }

    /// Whether the kernel has a link-layer address of this neighbour.
    pub async fn knows_neighbour(
        &self,
        index: u32,
        address: Ipv6Addr,
    ) -> Result<bool, NetlinkError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Inet6);
        let known = request.execute().try_collect::<Vec<_>>().await;
        let known = known.map_err(|error| NetlinkError::new("list neighbours", error))?;
        Ok(known.iter().any(|message| events::knows(message, index, address)))
    }

    /// Notes where a neighbour was heard to be, as neighbour discovery would.
    pub async fn note_neighbour(
        &self,
        index: u32,
        address: Ipv6Addr,
        link_layer: [u8; 6],
    ) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(index, IpAddr::V6(address)).replace();
        let request = request.state(NeighbourState::Reachable).link_layer_address(&link_layer);
        let what = || format!("note where {address} was heard on interface {index}");
        request.execute().await.map_err(|error| NetlinkError::new(what(), error))
    }

    /// Makes neighbour discovery ask a neighbour whether it is there.
    pub async fn probe_neighbour(&self, index: u32, address: Ipv6Addr) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(index, IpAddr::V6(address)).replace();
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
        let what = || format!("probe {address} on interface {index}");
        request.execute().await.map_err(|error| NetlinkError::new(what(), error))
    }

    /// Notes where a neighbour is, for as long as nobody says otherwise here: it is not asked.
    pub async fn set_neighbour(
        &self,
        index: u32,
        address: Ipv6Addr,
        link_layer: [u8; 6],
    ) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(index, IpAddr::V6(address)).replace();
        let request = request.state(NeighbourState::Permanent).link_layer_address(&link_layer);
        let what = || format!("note where {address} is on interface {index}");
        request.execute().await.map_err(|error| NetlinkError::new(what(), error))
    }

    /// Forgets where a neighbour is; one that is not known is fine.
    pub async fn forget_neighbour(
        &self,
        index: u32,
        address: Ipv6Addr,
    ) -> Result<(), NetlinkError> {
        let mut request = self.handle.neighbours().add(index, IpAddr::V6(address));
        let message = request.message_mut().clone();
        let what = || format!("forget where {address} is on interface {index}");
        match self.handle.neighbours().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(error) => match NetlinkError::new(what(), error) {
                gone if matches!(gone.code(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Starts to listen. The first event is [`super::movement::LinkEvent::Everything`].
    pub fn events(&self) -> std::io::Result<Events> {
        Events::open(events::RECEIVE_BUFFER)
    }

    /// The same with room for so many octets of reports that nobody has read yet.
    pub fn events_with_room(&self, octets: usize) -> std::io::Result<Events> {
        Events::open(octets)
    }
}

fn name_of(name: &str) -> InterfaceName {
    InterfaceName::from(name)
}
