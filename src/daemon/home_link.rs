//! The home links of served homes: what their agents want done there, what is heard, and what the
//! kernel has to know, which is where a mobile is that must not be asked (RFC 5648 §6.3).

use std::collections::BTreeMap;

use mtun_dataplane::PathId;
use mtun_dataplane::backend::Uplink;
use mtun_policy::{Bid, HomeAddress, InterfaceName};
use mtun_signaling::agent::{AgentEvent, Detection};
use mtun_signaling::machine::Transmit;
use mtun_signaling::mobility_socket::DadState;

use super::owner::Owner;
use crate::control::documents::{Event, Severity};
use crate::edge::home_link::HomeLinkEdge;
use crate::edge::neighbours::Heard;

/// The path by which packets leave on the home link of a served home, counted in the policy's
/// order: from the end, where no BID of a policy is.
pub fn home_path(served: usize) -> PathId {
    PathId(u16::MAX - served as u16)
}

impl Owner {
    /// The way on the home link for what is to be sent to a mobile that is there: to its home
    /// address without a routing header, which by the tunnel would go where it is not.
    pub(super) fn on_home_link(&self, served: usize, transmit: &Transmit) -> Option<Bid> {
        let it = &self.served[served];
        let envelope = &transmit.envelope;
        let asks = transmit.message.get(2) == Some(&0);
        // req HA-44 (RFC 6275 §10.3.2). A Binding Refresh Request goes to wherever the mobile is.
        let at_home = envelope.routing_header.is_none()
            && it.served.prefix.contains(&envelope.destination)
            && it.allowed(HomeAddress(envelope.destination)).is_some()
            && !asks;
        let open = it.home_link.as_ref().and_then(HomeLinkEdge::index).is_some();
        (at_home && open).then(|| Bid::new(home_path(served).0)).flatten()
    }

    /// Looks whether somebody on the home link has a home address.
    pub(super) fn check_duplicate(
        &mut self,
        served: usize,
        home_address: HomeAddress,
        link_local: bool,
    ) {
        let now = self.now().monotonic;
        self.show_duplicate(served, home_address, DadState::UnderWay);
        let home_link = self.served[served].home_link.as_mut();
        let verdict = match home_link {
            Some(home_link) => home_link.search(now, home_address, link_local),
            None => Some(Detection::Unique),
        };
        if let Some(detection) = verdict {
            self.duplicate_checked(served, home_address, detection);
        }
    }

    fn duplicate_checked(
        &mut self,
        served: usize,
        home_address: HomeAddress,
        detection: Detection,
    ) {
        let (state, refused) = match detection {
            Detection::Unique => (DadState::Unique, None),
            Detection::Duplicate => {
                let why = "(status 134), because another node has it";
                (DadState::Duplicate, Some(("duplicate_home_address", why)))
            }
            Detection::Undone => {
                let why = "(status 128), because nobody could be asked whether another node has it";
                (DadState::Undone, Some(("home_address_not_looked_for", why)))
            }
        };
        self.show_duplicate(served, home_address, state);
        if let Some((code, why)) = refused {
            let it = &self.served[served];
            let (home, link) = (&it.served.name, it.served.on.as_ref());
            let link = link.map_or_else(String::new, |link| format!(" on {link}"));
            self.tell(Event::Notice {
                severity: Severity::Warning,
                code: code.to_owned(),
                text: format!("home {home}: {home_address} is refused {why}{link}"),
            });
        }
        let now = self.now();
        let event = AgentEvent::DuplicateChecked { home_address, detection };
        let outputs = self.served[served].handle(now, event);
        self.agent_outputs(served, outputs);
    }

    /// A neighbour on some home link said something.
    pub(super) fn heard(&mut self, heard: &Heard) {
        let now = self.now().monotonic;
        for served in 0..self.served.len() {
            let Some(home_link) = &mut self.served[served].home_link else { continue };
            if home_link.index() != Some(heard.interface) {
                continue;
            }
            match home_link.heard(now, heard) {
                Some(home_address) => {
                    self.duplicate_checked(served, home_address, Detection::Duplicate);
                }
                None => self.router_heard(served, heard),
            }
        }
        // A home that this node is a mobile of may be on a link as well.
        self.heard_at_home(heard);
    }

    /// What is due on the home link of a served home.
    pub(super) fn agent_link_due(&mut self, served: usize) {
        let now = self.now().monotonic;
        let Some(home_link) = &mut self.served[served].home_link else { return };
        for (home_address, detection) in home_link.handle_deadline(now) {
            self.duplicate_checked(served, home_address, detection);
        }
    }

    /// An interface is there; it may be a home link.
    pub(super) fn home_link_present(&mut self, name: &InterfaceName, index: u32) {
        let now = self.now().monotonic;
        let mut opened = false;
        for (number, served) in self.served.iter_mut().enumerate() {
            let Some(home_link) = served.home_link.as_mut().filter(|it| it.name == *name) else {
                continue;
            };
            if home_link.index() == Some(index) {
                continue;
            }
            home_link.open(now, index, self.neighbours_heard.0.clone());
            match Uplink::open(Some(index)) {
                Ok(uplink) => self.shared.paths.open(home_path(number), uplink, None),
                Err(error) => tracing::error!(%name, %error, "cannot send on the home link"),
            }
            opened = true;
        }
        if opened {
            self.routes_dirty = true;
            self.publish_at_home();
        }
    }

    /// Publishes anew what goes by a home link.
    fn publish_at_home(&mut self) {
        for served in 0..self.served.len() {
            let entries = self.served[served].agent.cache().iter();
            let at_home = entries.filter(|entry| entry.is_at_home());
            let at_home: Vec<_> = at_home.map(|entry| entry.home_address).collect();
            at_home.into_iter().for_each(|address| self.publish_mobile(served, address));
        }
    }

    /// Only these interfaces exist.
    pub(super) fn home_links_among(&mut self, present: &[InterfaceName]) {
        let links = self.served.iter().filter_map(|it| it.home_link.as_ref());
        let gone: Vec<_> = links
            .filter(|link| !present.contains(&link.name))
            .filter_map(HomeLinkEdge::index)
            .collect();
        gone.into_iter().for_each(|index| self.home_link_gone(index));
    }

    /// An interface is gone; it may have been a home link.
    pub(super) fn home_link_gone(&mut self, index: u32) {
        let mut closed = false;
        for (number, served) in self.served.iter_mut().enumerate() {
            let home_link = served.home_link.as_mut().filter(|it| it.index() == Some(index));
            if let Some(home_link) = home_link {
                home_link.close();
                self.shared.paths.close(home_path(number));
                closed = true;
            }
        }
        if closed {
            self.routes_dirty = true;
            self.publish_at_home();
        }
    }

    /// Tells the kernel where mobiles are that must not be asked.
    pub(super) async fn settle_neighbours(&mut self) {
        let mut wanted = BTreeMap::new();
        for home_link in self.served.iter().filter_map(|it| it.home_link.as_ref()) {
            let Some(index) = home_link.index() else { continue };
            wanted.extend(home_link.placed().map(|(home, at)| ((index, home.0), at)));
        }
        let placed = std::mem::take(&mut self.neighbours_placed);
        for (&(index, address), _) in placed.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            if let Err(error) = self.netlink.forget_neighbour(index, address).await {
                tracing::warn!(%error, "a neighbour entry is left behind");
            }
        }
        for (key, link_layer) in wanted {
            if placed.get(&key) != Some(&link_layer)
                && let Err(error) = self.netlink.set_neighbour(key.0, key.1, link_layer.0).await
            {
                tracing::warn!(%error, "packets for a mobile at home may not reach it");
                continue;
            }
            self.neighbours_placed.insert(key, link_layer);
        }
    }
}
