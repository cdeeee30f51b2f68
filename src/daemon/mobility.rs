//! What the daemon tells on its mobility socket: the facts it stands on, and what differs.
//!
//! Nothing is told where it happens. After each turn of the owner loop the links, the binding
//! update lists and being at home are said as they are, and of the binding caches what was
//! touched; [`Listeners`](crate::control::Listeners) finds what differs from what was told. So
//! what clients know cannot drift from what is, and while nobody listens nothing is done. Hints
//! are told where they happen: they are no state.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{HomeAddress, InterfaceName, Role};
use mtun_signaling::binding::BindingCacheEntry;
use mtun_signaling::correspondent::Pair;
use mtun_signaling::mobile::Stay;
use mtun_signaling::mobility_socket::{
    BeCause, BeHint, CachedBinding, HomeHint, ListedBinding, MdCommand, MdInfo, MobilityMessage,
    NodetypeInfo, RrHint, Subject,
};
use mtun_signaling::registration::Phase;

use super::owner::{LinkRecord, Owner};
use crate::edge::movement::DownReason;

/// Hints about strangers' packets that are told in one second.
const HINTS_PER_SECOND: u32 = 16;

/// Mobiles of binding caches that are gathered in one turn of the loop: a millisecond's worth.
const AT_A_TIME: usize = 512;

/// How far the binding caches have been gathered: the home's place, and the last mobile.
#[derive(Debug, Default)]
pub(super) struct Walk {
    served: usize,
    last: Option<HomeAddress>,
}

/// What changed since it was told.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Mobiles of served homes, by the home's place.
    pub mobiles: BTreeSet<(usize, HomeAddress)>,
    /// Mobiles bound to us as a correspondent.
    pub pairs: BTreeSet<Pair>,
    /// The second in which hints were last told, and how many.
    hints: (u64, u32),
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Owner {
    /// Begins to say what stands, if somebody waits for it: at once all but the binding caches,
    /// those by and by, so that a million bindings keep nobody waiting.
    pub(super) fn begin_showing(&mut self) {
        let shown = self.walk.is_some() && self.listeners.is_filling();
        if shown || !self.listeners.is_unfilled() {
            return;
        }
        self.listeners.begin_fill();
        self.listeners.fill_piece(self.standing());
        self.walk = Some(Walk::default());
        self.show_more();
    }

    /// Says a piece of what stands in the binding caches.
    pub(super) fn show_more(&mut self) {
        let Some(mut walk) = self.walk.take() else { return };
        let mut piece = Vec::new();
        let mut room = AT_A_TIME;
        while let Some(it) = self.served.get(walk.served)
            && room > 0
        {
            for entry in it.agent.cache().beyond(walk.last).take(room) {
                piece.extend(self.cached(walk.served, entry));
                (walk.last, room) = (Some(entry.home_address), room - 1);
            }
            if room > 0 {
                walk = Walk { served: walk.served + 1, last: None };
            }
        }
        self.listeners.fill_piece(piece);
        match walk.served < self.served.len() {
            // Who waited for it may have left.
            true => self.walk = Some(walk).filter(|_| self.listeners.is_filling()),
            false => self.listeners.end_fill(),
        }
    }

    /// What stands, but for the binding caches.
    fn standing(&self) -> Vec<MobilityMessage> {
        let mut all = self.nodetypes();
        all.extend(self.links.iter().filter_map(|(name, record)| self.attached(name, record)));
        for home in 0..self.homes.len() {
            all.extend(self.home_hint(home));
            all.extend(self.update_list(home));
        }
        let pairs = self.responder.iter().flat_map(|it| it.bindings());
        all.extend(pairs.flat_map(|(pair, entry)| cached_at_correspondent(pair, entry)));
        all
    }

    /// Tells those who listen what is otherwise than before.
    pub(super) fn show_changes(&mut self) {
        let changed = &mut self.changed;
        let (mobiles, pairs) =
            (std::mem::take(&mut changed.mobiles), std::mem::take(&mut changed.pairs));
        if !self.listeners.is_listened() {
            return;
        }
        self.listeners.show(&Subject::Nodetypes, self.nodetypes());
        for home in 0..self.homes.len() {
            let name = &self.homes[home].home.name;
            self.listeners.show(&Subject::Home(name.clone()), self.home_hint(home));
            self.listeners.show(&Subject::List(name.clone()), self.update_list(home));
        }
        for (served, home_address) in mobiles {
            let Some(it) = self.served.get(served) else { continue };
            let entry = it.agent.cache().get(home_address);
            let present = entry.map_or_else(Vec::new, |entry| self.cached(served, entry));
            let home = Some(it.served.name.clone());
            self.listeners.show(&Subject::Mobile(home, None, home_address), present);
        }
        for pair in pairs {
            let entry = self.responder.as_ref().and_then(|it| it.get(pair));
            let present = entry.map_or_else(Vec::new, |it| cached_at_correspondent(pair, it));
            let subject = Subject::Mobile(None, Some(pair.correspondent), pair.home_address);
            self.listeners.show(&subject, present);
        }
    }

    /// Tells what passes, if anybody listens.
    pub(super) fn hint(&mut self, message: impl FnOnce() -> MobilityMessage) {
        if self.listeners.is_listened() {
            self.listeners.say(message());
        }
    }

    /// The same for what strangers can cause as often as they like.
    pub(super) fn hint_of_strangers(&mut self, hint: BeHint) {
        let second = self.now().monotonic.as_secs();
        let (at, told) = self.changed.hints;
        let told = if at == second { told } else { 0 };
        self.changed.hints = (second, told.saturating_add(1));
        if told < HINTS_PER_SECOND {
            self.hint(|| MobilityMessage::BeHint(hint));
        }
    }

    /// Tells that packets to a correspondent might go straight.
    pub(super) fn show_wanted(&mut self, home: usize, correspondent: Ipv6Addr) {
        let it = &self.homes[home].home;
        let (home, home_address) = (Some(it.name.clone()), it.address);
        self.hint(|| MobilityMessage::RrHint(RrHint { home, home_address, correspondent }));
    }

    /// Tells that packets of ours do not go straight as they should.
    pub(super) fn cut_off(
        &mut self,
        cause: BeCause,
        home_address: HomeAddress,
        peer: Ipv6Addr,
        bid: Option<mtun_policy::Bid>,
    ) {
        let home = self.home_of(home_address).map(|home| self.homes[home].home.name.clone());
        self.hint(|| MobilityMessage::BeHint(BeHint { cause, home_address, peer, home, bid }));
    }

    /// Tells where a link is, or that it is nowhere.
    pub(super) fn show_link(&mut self, name: &InterfaceName, state: Result<(), DownReason>) {
        if !self.listeners.is_listened() {
            return;
        }
        let attached = self.links.get(name).and_then(|record| self.attached(name, record));
        let message = attached.unwrap_or_else(|| {
            let index = self.access.get(name).map(|access| access.index);
            let bid = self.policy.interface(name.as_str()).and_then(|it| it.bid);
            MobilityMessage::MdInfo(MdInfo {
                link: Some(name.clone()),
                index,
                bid,
                reason: state.err().map(|reason| reason.to_string()),
                external: self.watch.movements().is_claimed(name),
                ..MdInfo::new(MdCommand::DeregForeign)
            })
        });
        self.listeners.say(message);
    }

    pub(super) fn nodetypes(&self) -> Vec<MobilityMessage> {
        let role = |role, home, address| {
            let address = Some(address);
            MobilityMessage::NodetypeInfo(NodetypeInfo { role, enabled: true, home, address })
        };
        let moves = match self.policy.role {
            Role::MobileRouter => Role::MobileRouter,
            _ => Role::MobileNode,
        };
        let homes = self.homes.iter().map(|it| {
            // A mobile router is a mobile node in each home without mobile networks.
            let moves = match it.home.mobile_networks.is_empty() {
                true => Role::MobileNode,
                false => moves,
            };
            role(moves, Some(it.home.name.clone()), it.home.address.0)
        });
        let served = self
            .served
            .iter()
            .map(|it| role(Role::HomeAgent, Some(it.served.name.clone()), it.served.agent.0));
        let plans = self.responder.iter().flat_map(|it| &it.plan.addresses);
        let here = plans.map(|address| role(Role::Correspondent, None, *address));
        homes.chain(served).chain(here).collect()
    }

    fn attached(&self, name: &InterfaceName, record: &LinkRecord) -> Option<MobilityMessage> {
        let attachment = record.state.as_ref().ok()?;
        let at_home =
            |it: &&super::home::MobileHome| attachment.home_links.contains(&it.home.address.0);
        let home = self.homes.iter().find(at_home);
        Some(MobilityMessage::MdInfo(MdInfo {
            link: Some(name.clone()),
            index: Some(attachment.index),
            bid: self.policy.interface(name.as_str()).and_then(|it| it.bid),
            care_of: Some(attachment.care_of.into()),
            home: home.map(|it| it.home.name.clone()),
            home_address: home.map(|it| it.home.address),
            external: self.watch.movements().is_claimed(name),
            ..MdInfo::new(match home {
                Some(_) => MdCommand::DeregHome,
                None => MdCommand::ReReg,
            })
        }))
    }

    fn home_hint(&self, home: usize) -> Vec<MobilityMessage> {
        let it = &self.homes[home];
        let hint = it.node.at_home().map(|(bid, stay)| {
            MobilityMessage::HomeHint(HomeHint {
                home: it.home.name.clone(),
                home_address: it.home.address,
                at_home: true,
                link: self.link_of(Some(bid)),
                bid: Some(bid),
                beside: matches!(stay, Stay::Beside { .. }),
            })
        });
        hint.into_iter().collect()
    }

    /// What a home's agent and its correspondents are asked for.
    fn update_list(&self, home: usize) -> Vec<MobilityMessage> {
        let it = &self.homes[home];
        let (name, home_address) = (&it.home.name, it.home.address);
        let list = it.node.update_list();
        let at_agent = list.entries.iter().map(|entry| {
            MobilityMessage::BulAdd(ListedBinding {
                home: name.clone(),
                home_address,
                peer: list.peer.0,
                correspondent: false,
                bid: Some(entry.bid),
                link: self.link_of(Some(entry.bid)),
                care_of: entry.care_of,
                priority: entry.priority,
                phase: entry.phase,
                expires_ms: entry.expires.map(ms),
                status: entry.last_status.map(|status| status.0),
            })
        });
        let machine = it.optimization.iter().map(|it| it.machine());
        let entries = machine.flat_map(|machine| machine.entries());
        let straight = entries.filter_map(|entry| {
            let binding = entry.binding?;
            Some(MobilityMessage::BulAdd(ListedBinding {
                home: name.clone(),
                home_address,
                peer: entry.correspondent,
                correspondent: true,
                bid: Some(entry.bid),
                link: self.link_of(Some(entry.bid)),
                care_of: binding.care_of.into(),
                priority: 0,
                phase: Phase::Bound,
                expires_ms: Some(ms(binding.expires)),
                status: entry.last_status.map(|status| status.0),
            }))
        });
        at_agent.chain(straight).collect()
    }

    fn cached(&self, served: usize, entry: &BindingCacheEntry) -> Vec<MobilityMessage> {
        let home = &self.served[served].served.name;
        let cached = |message| match message {
            MobilityMessage::BcAdd(it) => {
                MobilityMessage::BcAdd(CachedBinding { home: Some(home.clone()), ..it })
            }
            other => other,
        };
        bindings(None, entry).map(cached).collect()
    }
}

fn cached_at_correspondent(pair: Pair, entry: &BindingCacheEntry) -> Vec<MobilityMessage> {
    bindings(Some(pair.correspondent), entry).collect()
}

fn bindings(
    correspondent: Option<Ipv6Addr>,
    entry: &BindingCacheEntry,
) -> impl Iterator<Item = MobilityMessage> {
    entry.bindings.iter().map(move |binding| {
        MobilityMessage::BcAdd(CachedBinding {
            home: None,
            correspondent,
            home_address: entry.home_address,
            bid: binding.bid,
            care_of: binding.care_of,
            priority: binding.priority,
            router: entry.router,
            prefixes: entry.prefixes.clone(),
            expires_ms: ms(binding.expires),
        })
    })
}
