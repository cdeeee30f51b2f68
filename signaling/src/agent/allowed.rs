//! Who may register, and what ends when that changes: one mobile at a time, so that nothing of
//! another's is touched, or the whole configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};

use super::home_link::HomeLink;
use super::prefixes::PrefixTable;
use super::replay::{MAX_DELETE_BCE_TIMEOUT, Replay, TIMESTAMP_TOLERANCE};
use super::{AgentConfig, AgentMobile, AgentNotice, AgentOutput, HomeAgent, Served};
use crate::binding::BindingCacheEntry;

/// How long the replay guard of a mobile that is served no more is remembered: any update of
/// before is too old by then, should the mobile be served again.
pub(super) const GUARDED: Duration =
    TIMESTAMP_TOLERANCE.saturating_mul(2).saturating_add(MAX_DELETE_BCE_TIMEOUT);

/// The guards of mobiles that are served no more, and since when.
pub(super) type Left = BTreeMap<HomeAddress, (Replay, Duration)>;

impl AgentMobile {
    /// Whether this binding may not be registered for the time being.
    pub(super) fn refuses(&self, bid: Option<Bid>) -> bool {
        self.refused || bid.is_some_and(|bid| self.refused_bids.contains(&bid))
    }
}

impl HomeAgent {
    /// The policy changed.
    pub(super) fn reconfigure(&mut self, now: Duration, config: AgentConfig) {
        self.configured += 1;
        self.prefixes = PrefixTable::new(&config);
        let mut before: BTreeMap<_, _> = std::mem::take(&mut self.served).into_iter().collect();
        for mobile in config.mobiles {
            let address = mobile.address;
            let served = match before.remove(&address) {
                Some(known) => Served { mobile, ..known },
                None => Served { replay: self.returned(now, address), ..Served::new(mobile) },
            };
            self.served.insert(address, served);
        }
        // Their mobiles send again.
        self.served.values_mut().for_each(|served| served.presence.forget());
        self.searching.clear();
        let moved = self.address != config.address;
        self.address = config.address;
        self.home_network = config.prefix;
        self.home_link = config.home_link;
        self.max_lifetime = config.max_lifetime;
        self.refresh_advice = config.refresh_advice;
        self.refresh_requests = config.refresh_requests;
        self.multiple_coa = config.multiple_coa;
        self.bulk = config.bulk;
        self.flow_bindings = config.flow_bindings;
        self.extensions = config.extensions;
        self.restart_counter = config.restart_counter;
        let bound: Vec<HomeAddress> = self.cache.iter().map(|entry| entry.home_address).collect();
        for home_address in bound {
            match moved {
                true => self.end(now, home_address),
                false => self.prune(now, home_address),
            }
            // Another link, or other neighbours on it.
            if let Some(entry) = self.cache.get(home_address).cloned() {
                self.tell_home_link(&entry);
            }
        }
        for (home_address, served) in before {
            self.leave_home_link(home_address, &served.presence);
            self.guard(now, home_address, served.replay);
        }
    }

    /// Remembers of a mobile that is served no more what would be a replay should it be served
    /// again: over a restart too, see [`HomeAgent::record`].
    pub(super) fn guard(&mut self, since: Duration, home_address: HomeAddress, mut replay: Replay) {
        self.left.retain(|_, (_, left)| *left + GUARDED > since);
        replay.expired(since);
        self.left.insert(home_address, (replay, since));
    }

    /// What is remembered of a mobile that is served no more, and since when; `None` once no
    /// update of before could be believed.
    pub(super) fn guarded(&self, now: Duration, home_address: HomeAddress) -> Option<Replay> {
        let (replay, since) = self.left.get(&home_address)?;
        (*since + GUARDED > now).then_some(*replay)
    }

    /// The guard of a mobile that is served from here on.
    fn returned(&mut self, now: Duration, home_address: HomeAddress) -> Replay {
        let known = self.guarded(now, home_address);
        self.left.remove(&home_address);
        known.unwrap_or_default()
    }

    /// Serves a mobile that was not served, or serves one under another grant. What it has bound
    /// and may keep, it keeps.
    pub(super) fn allow(&mut self, now: Duration, mobile: AgentMobile) {
        let home_address = mobile.address;
        self.configured += 1;
        self.prefixes.grant(home_address, Some(mobile.prefixes.clone()));
        let replay = self.returned(now, home_address);
        match self.served.get_mut(&home_address) {
            Some(served) => {
                if served.mobile != mobile {
                    // It sends again, and is answered under the present grant.
                    served.presence.forget();
                    self.searching.remove(&home_address);
                }
                served.mobile = mobile;
            }
            None => {
                self.served.insert(home_address, Served { replay, ..Served::new(mobile) });
            }
        }
        self.withdraw(now, home_address);
    }

    /// Serves a mobile no more: it is unknown from here on, and what it had bound ends.
    pub(super) fn disallow(&mut self, now: Duration, home_address: HomeAddress) {
        if let Some(served) = self.served.get_mut(&home_address) {
            served.mobile.refused = true;
        }
        self.withdraw(now, home_address);
        if let Some(served) = self.served.remove(&home_address) {
            self.configured += 1;
            self.searching.remove(&home_address);
            if let Some(at) = served.expiry {
                self.expiries.remove(&(at, home_address));
            }
            self.guard(now, home_address, served.replay);
            self.leave_home_link(home_address, &served.presence);
            self.tellings.end(home_address);
            if let Some(at) = served.request {
                self.requests.remove(&(at, home_address));
            }
        }
        self.prefixes.grant(home_address, None);
    }

    /// Refuses a mobile from here on, or does not any more.
    pub(super) fn prohibit(&mut self, now: Duration, home_address: HomeAddress, prohibited: bool) {
        let Some(served) = self.served.get_mut(&home_address) else { return };
        served.mobile.refused = prohibited;
        if prohibited {
            served.presence.forget();
        }
        self.withdraw(now, home_address);
    }

    /// Ends what a mobile holds, and has that remembered over a restart.
    pub(super) fn end_by_hand(&mut self, now: Duration, home_address: HomeAddress) {
        if self.cache.get(home_address).is_none() {
            return;
        }
        if let Some(served) = self.served.get_mut(&home_address) {
            served.presence.forget();
        }
        self.end(now, home_address);
        if self.keeping {
            self.out.push_back(AgentOutput::Keep { home_address });
        }
    }

    /// Ends what a mobile may not keep, and says so: to whoever keeps records, so that it does
    /// not return by a restart, and to the mobile where it can be asked.
    fn withdraw(&mut self, now: Duration, home_address: HomeAddress) {
        let Some(before) = self.cache.get(home_address).cloned() else { return };
        self.prune(now, home_address);
        let left = self.cache.get(home_address);
        if left == Some(&before) {
            return;
        }
        let stays = |bid| left.is_some_and(|entry| entry.binding(bid).is_some());
        let ended: Vec<_> = before.bindings.iter().filter(|it| !stays(it.bid)).cloned().collect();
        for binding in &ended {
            self.notice(AgentNotice::Revoked { home_address, bid: binding.bid });
        }
        if self.keeping {
            self.out.push_back(AgentOutput::Keep { home_address });
        }
        let left = self.cache.get(home_address).cloned();
        self.tell_revoked(now, home_address, &ended, left.as_ref());
        if !ended.is_empty() && left.is_some() && self.refresh_requests {
            // It asks, and is told by the answer (status 129).
            self.send_refresh_request(home_address, ended.iter());
        }
    }

    /// Ends what the policy does not allow of what a mobile holds.
    pub(super) fn prune(&mut self, now: Duration, home_address: HomeAddress) {
        let Some(held) = self.cache.get(home_address) else { return };
        let entry = self.permitted(held.clone());
        if entry.bindings.is_empty() {
            return self.end(now, home_address);
        }
        if self.cache.get(home_address) != Some(&entry) {
            self.replace(now, entry);
        }
    }

    /// What the policy allows of what a mobile holds.
    pub(super) fn permitted(&self, mut entry: BindingCacheEntry) -> BindingCacheEntry {
        let home_address = entry.home_address;
        let may_stay = self.multiple_coa || entry.is_plain();
        let served = self.served.get(&home_address);
        let most = match served {
            Some(served) if may_stay => usize::from(served.mobile.max_bindings),
            _ => 0,
        };
        if self.home_link == HomeLink::Virtual {
            entry.bindings.retain(|binding| binding.care_of.0 != home_address.0);
        }
        entry.bindings.retain(|binding| served.is_some_and(|it| !it.mobile.refuses(binding.bid)));
        if entry.bindings.len() > most {
            // The mobile's preferred ones stay.
            entry.bindings.sort_by_key(|binding| (binding.priority, binding.bid));
            entry.bindings.truncate(most);
            entry.bindings.sort_by_key(|binding| binding.bid);
        }
        entry.prefixes.retain(|prefix| self.prefixes.is_granted_to(*prefix, home_address));
        self.limit_flows(&mut entry);
        entry
    }

    /// Ends all that a mobile holds; what is remembered against replays stays.
    pub(super) fn end(&mut self, now: Duration, home_address: HomeAddress) {
        let Some(held) = self.cache.get(home_address) else { return };
        let entry = BindingCacheEntry { bindings: Vec::new(), ..held.clone() };
        if let Some(served) = self.served.get_mut(&home_address) {
            served.replay.expired(now);
        }
        self.replace(now, entry);
    }
}
