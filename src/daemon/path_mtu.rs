//! What packets tell of the path of each link: how large they may be, and how long people wait.
//!
//! The packet loop believes a Packet Too Big about a packet of its own and lets it grow old
//! (`dataplane/mtu`); here it is shown, and people are told when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_policy::{Bid, InterfaceName};

use super::owner::Owner;
use crate::control::documents::{Event, PathMtuDocument};
use crate::edge::movement::Attachment;

/// What people were last told of each link's path.
#[derive(Debug, Default)]
pub(super) struct PathMtusTold(BTreeMap<InterfaceName, u32>);

impl Owner {
    /// What routers on the way to the home agents said, where that is less than what the
    /// interface takes.
    pub(super) fn path_mtu(&self, at: &Attachment, now: Duration) -> Option<PathMtuDocument> {
        let learned = self.homes.iter().filter_map(|home| {
            home.tunnel.lane.engine.learned_mtu(at.care_of, home.home.agent.0, now)
        });
        let (octets, left) = learned.min()?;
        let forgotten_seconds = left.as_millis().div_ceil(1000) as u64;
        (u32::from(octets) < at.mtu).then_some(PathMtuDocument { octets, forgotten_seconds })
    }

    /// The smoothed round trip of conversations by a link, of the home that had one last.
    pub(super) fn conversation_rtt(
        &self,
        bid: Bid,
        at: &Attachment,
        now: Duration,
    ) -> Option<Duration> {
        let times = self
            .homes
            .iter()
            .filter_map(|home| home.tunnel.lane.engine.conversation_times(bid, at.care_of, now));
        times.max_by_key(|times| times.at).map(|times| times.smoothed)
    }

    /// The largest outer packet that the path takes, in octets.
    pub(super) fn path_takes(&self, at: &Attachment, now: Duration) -> u32 {
        self.path_mtu(at, now).map_or(at.mtu, |learned| u32::from(learned.octets))
    }

    /// Tells people of paths that take less than they did, or are tried with more again.
    pub(super) fn path_mtus(&mut self, now: Duration) {
        let attached = self.links.values().filter_map(|record| record.state.as_ref().ok());
        let present: BTreeMap<_, _> =
            attached.map(|at| (at.interface.clone(), (self.path_takes(at, now), at.mtu))).collect();
        let mut events = Vec::new();
        for (link, (octets, interface_octets)) in &present {
            let known = self.path_mtus_told.0.get(link).copied();
            // A path that begins as its interface says is nothing to tell.
            if known.unwrap_or(*interface_octets) != *octets {
                let (octets, interface_octets) = (*octets, *interface_octets);
                events.push(Event::PathMtu { link: link.clone(), octets, interface_octets });
            }
        }
        let told = present.into_iter().map(|(link, (octets, _))| (link, octets));
        self.path_mtus_told = PathMtusTold(told.collect());
        events.into_iter().for_each(|event| self.tell(event));
    }
}
