//! Links: from what the kernel reports to care-of addresses, sockets and threads.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_dataplane::PathId;
use mtun_dataplane::backend::{BreakoutLink, PacketSocket, Uplink};
use mtun_policy::{CareOfAddress, InterfaceName, Role};
use mtun_signaling::mobile::MobileEvent;

use super::Gro;
use super::owner::{ADDRESSES_KEPT, Attached, LinkRecord, Owner};
use crate::control::documents::Event;
use crate::edge::ethtool::Ethtool;
use crate::edge::movement::{DownReason, LinkEvent, Movement};
use crate::metrics::HandoverReason;
use crate::packets::{self, PacketThread};

/// An uplink that exists, with the thread that listens to it.
#[derive(Debug)]
pub struct Access {
    /// Its index.
    pub index: u32,
    pub(super) thread: PacketThread,
    pub(super) socket: Arc<PacketSocket>,
}

impl Access {
    /// Hears what is for these addresses and nothing else; whether it does.
    pub(super) fn hear(&self, addresses: &[Ipv6Addr]) -> bool {
        let told = self.socket.hear_only(addresses);
        if let Err(error) = &told {
            tracing::warn!(index = self.index, %error, "cannot listen for other addresses yet");
        }
        told.is_ok()
    }
}

impl Owner {
    pub(super) fn link_event(&mut self, event: Option<&LinkEvent>, movements: Vec<Movement>) {
        if let Some(event) = event {
            self.follow_interfaces(event);
        }
        for movement in movements {
            self.moved(movement);
        }
    }

    /// Opens sockets on interfaces that appear and closes those of interfaces that went.
    fn follow_interfaces(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Link(facts) => self.interface_present(&facts.name, facts.index),
            LinkEvent::LinkGone(index) => {
                self.home_link_gone(*index);
                self.addresses.retain(|(known, _)| known != index);
                let gone = |access: &Access| access.index == *index;
                let names: Vec<_> = self
                    .access
                    .iter()
                    .filter(|(_, access)| gone(access))
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in names {
                    self.close_access(&name);
                }
                self.fronts.remove(index);
                let before = self.ingress_indices.len();
                self.ingress_indices.retain(|_, known| known != index);
                if self.ingress_indices.len() != before {
                    self.steer_ingress();
                }
            }
            LinkEvent::Route { index, route, .. } => {
                self.network_behind(*index, &route.destination)
            }
            LinkEvent::Address { index, address, .. } => {
                let is_new = self.addresses.insert((*index, *address));
                self.routes_dirty |= is_new && self.is_behind(*address);
            }
            LinkEvent::AddressGone { index, address } => {
                let was_there = self.addresses.remove(&(*index, *address));
                self.routes_dirty |= was_there && self.is_behind(*address);
            }
            LinkEvent::Everything(events) => {
                let present: Vec<_> = events
                    .iter()
                    .filter_map(|event| match event {
                        LinkEvent::Link(facts) => Some(facts.name.clone()),
                        _ => None,
                    })
                    .collect();
                let gone: Vec<_> =
                    self.access.keys().filter(|name| !present.contains(name)).cloned().collect();
                for name in gone {
                    self.close_access(&name);
                }
                self.home_links_among(&present);
                let addresses = events.iter().filter_map(|event| match event {
                    LinkEvent::Address { index, address, .. } => Some((*index, *address)),
                    _ => None,
                });
                let addresses = addresses.collect();
                self.routes_dirty |=
                    std::mem::replace(&mut self.addresses, addresses) != self.addresses;
                for event in events {
                    self.follow_interfaces(event);
                }
            }
            _ => {}
        }
    }

    fn interface_present(&mut self, name: &InterfaceName, index: u32) {
        self.home_link_present(name, index);
        // Renamed: what was known under the old name is gone.
        let old: Vec<_> = self
            .access
            .iter()
            .filter(|(known, access)| access.index == index && *known != name)
            .map(|(known, _)| known.clone())
            .collect();
        for old in old {
            self.close_access(&old);
        }
        if self.policy.ingresses.number(name.as_str()).is_some()
            && self.ingress_indices.get(name) != Some(&index)
        {
            self.ingress_indices.insert(name.clone(), index);
            self.steer_ingress();
        }
        if self.access.get(name).is_some_and(|access| access.index == index) {
            return;
        }
        let Some(path) = self.listens_on(name) else { return };
        self.merge_received(name.as_str());
        if self.policy.role == Role::MobileRouter
            && let Err(error) = self.sysctls.listen_to_routers(name.as_str())
        {
            tracing::warn!(%error, "Router Advertisements on this uplink will not count");
        }
        if self.policy.role == Role::MobileRouter
            && let Err(error) = self.sysctls.be_host(name.as_str())
        {
            tracing::warn!(%error, "this uplink will look like a router's");
        }
        if path != PathId::ROUTED
            && let Err(error) = self.sysctls.announce_addresses(name.as_str())
        {
            tracing::warn!(%error, "neighbours on this uplink may learn late of its address");
        }
        if path != PathId::ROUTED {
            let ways = Uplink::open(Some(index))
                .and_then(|uplink| Ok((uplink, BreakoutLink::open(index)?)));
            match ways {
                Ok((uplink, past)) => self.shared.paths.open(path, uplink, Some(past)),
                Err(error) => {
                    tracing::error!(%name, %error, "cannot send by this interface");
                    return;
                }
            }
        }
        match self.listen_to(index, path) {
            Ok(access) => {
                self.access.insert(name.clone(), access);
                self.tunnels().for_each(|tunnel| tunnel.hear(name, index));
                // The firewall keeps from the kernel what this interface brings.
                self.routes_dirty = true;
            }
            Err(error) => tracing::error!(%name, %error, "cannot listen to this interface"),
        }
    }

    /// Our addresses, about to be published: from now on what is for them is heard, and what is for our
    /// home addresses, as they are at the home link. What cannot be told is told the next time.
    pub(super) fn hear_own(&mut self) -> Vec<Ipv6Addr> {
        let own = self.own_addresses();
        let homes = self.homes.iter().map(|it| it.home.address.0);
        let heard: Vec<_> = own.iter().copied().chain(homes).collect();
        if heard != self.heard {
            let told = self.access.values().filter(|access| access.hear(&heard)).count();
            self.heard = if told == self.access.len() { heard } else { Vec::new() };
        }
        own
    }

    fn listen_to(&self, index: u32, path: PathId) -> anyhow::Result<Access> {
        let socket = Arc::new(PacketSocket::open(index)?);
        let thread = packets::inbound(self.shared.clone(), socket.clone(), path)?;
        let access = Access { index, thread, socket };
        if !self.heard.is_empty() {
            access.hear(&self.heard);
        }
        Ok(access)
    }

    /// The prefixes of the networks behind us.
    fn networks(&self) -> impl Iterator<Item = Ipv6Net> {
        let networks = self.policy.homes.iter().flat_map(|home| &home.mobile_networks);
        networks.map(|network| network.prefix.net())
    }

    /// Whether an address is of one of them.
    pub(super) fn is_behind(&self, address: Ipv6Addr) -> bool {
        self.networks().any(|net| net.contains(&address))
    }

    /// A link that leads to one of our own networks brings what is sent from there. It is told so once: the
    /// kernel answers such words only when nobody changes links.
    fn network_behind(&mut self, index: u32, destination: &Ipv6Net) {
        let is_ours = self.networks().any(|net| net.contains(destination));
        let is_tunnel = self.tunnels().any(|tunnel| tunnel.index() == index);
        if is_ours
            && !is_tunnel
            && !self.fronts.contains(&index)
            && let Ok(link) = Ethtool::open().and_then(|it| it.name(index))
        {
            self.fronts.insert(index);
            self.merge_received(&link.text());
        }
    }

    /// What a link brings costs a fraction if it comes in few large pieces.
    fn merge_received(&mut self, link: &str) {
        if self.options.gro == Gro::On
            && let Err(error) = self.sysctls.merge_received(link)
        {
            tracing::info!(%link, %error, "what this link receives costs more, packet by packet");
        }
    }

    /// Whether outer packets are taken from the interface of this name, and the path it is. An
    /// agent or correspondent whose policy names no interface listens on all but its own tunnels.
    fn listens_on(&self, name: &InterfaceName) -> Option<PathId> {
        if let Some(interface) = self.policy.interface(name.as_str()) {
            return Some(interface.bid.map_or(PathId::ROUTED, |bid| PathId(bid.get())));
        }
        let tunnel = self.tunnels().any(|tunnel| tunnel.name == *name);
        let anywhere = self.policy.interfaces.is_empty() && self.homes.is_empty();
        (anywhere && !tunnel && name.as_str() != "lo").then_some(PathId::ROUTED)
    }

    fn close_access(&mut self, name: &InterfaceName) {
        let Some(closed) = self.access.remove(name) else { return };
        self.tunnels().for_each(|tunnel| tunnel.hear_no_more(closed.index));
        if let Some(bid) = self.policy.interface(name.as_str()).and_then(|it| it.bid) {
            self.shared.paths.close(PathId(bid.get()));
        }
    }

    /// Looks up the interfaces that the rules name.
    pub(super) async fn find_ingresses(&mut self) {
        let names: Vec<_> = self.policy.ingresses.iter().map(|(_, name)| name.clone()).collect();
        self.ingress_indices.clear();
        for name in names {
            if let Ok(Some(link)) = self.netlink.link(name.as_str()).await {
                self.ingress_indices.insert(name, link.index);
            }
        }
        self.steer_ingress();
    }

    pub(super) fn steer_ingress(&self) {
        let named: Vec<_> = self
            .ingress_indices
            .iter()
            .filter_map(|(name, index)| {
                Some((*index, self.policy.ingresses.number(name.as_str())?))
            })
            .collect();
        for tunnel in self.tunnels() {
            if let Err(error) = tunnel.steer_ingress(&named) {
                tracing::error!(%error, "rules with in= will not match");
            }
        }
    }

    pub(super) fn moved(&mut self, movement: Movement) {
        let now = self.now();
        let (name, state) = match &movement {
            Movement::CareOfUp(attachment) => {
                (attachment.interface.clone(), Ok(attachment.clone()))
            }
            Movement::CareOfDown { interface, reason } => (interface.clone(), Err(*reason)),
        };
        let was = self.links.get(&name).is_some_and(|record| record.state.is_ok());
        let cause = match (was, &state) {
            (_, Err(_)) => HandoverReason::LinkDown,
            (true, Ok(_)) => HandoverReason::CareOfChanged,
            (false, Ok(_)) => HandoverReason::LinkUp,
        };
        self.tell(match &state {
            Ok(attachment) => Event::LinkUp {
                link: name.clone(),
                care_of: CareOfAddress::from(attachment.care_of),
                router: attachment.router.map(Into::into),
            },
            Err(reason) => Event::LinkDown { link: name.clone(), reason: reason.to_string() },
        });
        self.links.insert(name.clone(), LinkRecord { state: state.clone(), since: now.monotonic });
        self.show_link(&name, state.clone().map(drop));
        if state == Err(DownReason::Unsteady) && !was {
            // People are told why it stays down. Nothing else changes.
            return;
        }
        self.routes_dirty = true;
        let Some(interface) = self.policy.interface(name.as_str()) else { return };
        let Some(bid) = interface.bid else { return };
        match state {
            // Registered once rules, routes and firewall are ready for the answer.
            Ok(attachment) => {
                let priority = interface.priority;
                if !attachment.home_links.contains(&attachment.care_of) {
                    self.remember_address(attachment.care_of);
                }
                self.attached.retain(|waiting| waiting.bid != bid);
                self.attached.push(Attached { bid, priority, attachment });
            }
            Err(_) => {
                self.attached.retain(|waiting| waiting.bid != bid);
                self.neighbourhoods.remove(&name);
                self.tell_homes(MobileEvent::CareOfDown { bid });
                self.handed_over(cause, now.monotonic);
            }
        }
    }

    /// Registers the uplinks that came up, once the kernel is ready for them; where one is on the
    /// home link, that is told instead.
    pub(super) fn tell_attached(&mut self) {
        for Attached { bid, priority, attachment } in std::mem::take(&mut self.attached) {
            let link_layer_address = self.listen_at_home(&attachment);
            for home in 0..self.homes.len() {
                let is_home = attachment.home_links.contains(&self.homes[home].home.address.0);
                let event = if is_home {
                    let link_layer_address = link_layer_address.clone();
                    MobileEvent::HomeLinkUp { bid, priority, link_layer_address }
                } else if attachment.home_links.contains(&attachment.care_of) {
                    // Some other home's link, where it has no address of its own.
                    MobileEvent::CareOfDown { bid }
                } else {
                    MobileEvent::CareOfUp { bid, priority, care_of: attachment.care_of.into() }
                };
                self.tell_home(home, event);
            }
        }
    }

    /// Hands an event to every home.
    pub(super) fn tell_homes(&mut self, event: MobileEvent) {
        for home in 0..self.homes.len() {
            self.tell_home(home, event.clone());
        }
    }

    fn tell_home(&mut self, home: usize, event: MobileEvent) {
        let now = self.now();
        if self.search_uplink(home, &event) {
            // Registered when there is an agent.
            return self.publish_home(home);
        }
        let outputs = self.homes[home].handle(now, event);
        // The snapshot first: packets leave a dead path before anything else happens.
        self.publish_home(home);
        self.mobile_outputs(home, outputs);
    }

    /// Keeps an address among those that take outer packets, also when its uplink is lost for a
    /// while: what is on its way to it must not reach the kernel, which would answer.
    fn remember_address(&mut self, address: Ipv6Addr) {
        self.recent.retain(|known| *known != address);
        self.recent.push(address);
        if self.recent.len() > ADDRESSES_KEPT {
            self.recent.remove(0);
        }
    }

    /// Notes how long after its cause a change reached the packets.
    pub(super) fn handed_over(&self, cause: HandoverReason, since: Duration) {
        if let Some(metrics) = &self.metrics {
            metrics.handover(cause, self.now().monotonic.saturating_sub(since));
        }
    }
}
