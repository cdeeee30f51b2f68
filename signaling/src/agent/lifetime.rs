//! How long bindings may live, and the word to mobiles before they end (RFC 6275 §10.3.1, §9.5.5,
//! RFC 5648 §6.4).

use std::time::Duration;

use mtun_policy::HomeAddress;

use super::{AgentNotice, AgentOutput, HomeAgent};
use crate::binding::{Binding, BindingCacheEntry};
use crate::machine::{Envelope, Transmit};
use crate::wire::option::{BindingIdentifier, BindingRefreshAdvice};
use crate::wire::{self, BindingRefreshRequest, Lifetime, Message, Status};

/// A binding that nobody refreshed is asked for so long before it ends, and once again at half
/// of that.
const REQUEST_BEFORE: Duration = Duration::from_secs(8);

/// Until when the home prefix may be used, on the monotonic clock; `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixLifetime {
    /// For new connections.
    pub preferred_until: Option<Duration>,
    /// At all.
    pub valid_until: Option<Duration>,
}

impl HomeAgent {
    /// The longest lifetime granted; never zero, which would mean the opposite.
    pub(super) fn longest_lifetime(
        &self,
        now: Duration,
        home_address: HomeAddress,
    ) -> Result<Lifetime, Status> {
        let longest = Lifetime::from_duration(self.max_lifetime).max(Lifetime(1));
        if !self.home_network.contains(&home_address.0) {
            return Ok(longest);
        }
        let Some(until) = self.home_prefix.valid_until else { return Ok(longest) };
        // req HA-05, R-HA-06 (RFC 6275 §10.3.1): not longer than the home prefix.
        let left = Lifetime::from_duration(until.saturating_sub(now));
        if left.is_zero() { Err(Status::NOT_HOME_SUBNET) } else { Ok(longest.min(left)) }
    }

    /// The status of an update that was accepted with `status` for `granted`.
    pub(super) fn with_prefix_status(
        &self,
        now: Duration,
        home_address: HomeAddress,
        status: Status,
        granted: Lifetime,
    ) -> Status {
        let end = now + granted.duration();
        let ends = |until: Option<Duration>| until.is_some_and(|until| until <= end);
        // The prefix may outlive what is left of it in units of four seconds.
        let soon = |until: Duration| until < end + Lifetime(1).duration();
        let deprecated = ends(self.home_prefix.preferred_until)
            || self.home_prefix.valid_until.is_some_and(soon);
        let concerned = self.home_network.contains(&home_address.0) && !granted.is_zero();
        // req HA-05, R-HA-06 (RFC 6275 §10.3.1).
        if status == Status::ACCEPTED && concerned && deprecated {
            Status::PREFIX_DISCOVERY_NECESSARY
        } else {
            status
        }
    }

    /// The option that advises a mobile when to refresh what it was granted.
    pub(super) fn advice(&self, granted: Lifetime) -> Option<BindingRefreshAdvice> {
        // req HA-16, R-HA-14 (RFC 6275 §6.2.4, §10.3.1): below the lifetime, or not at all.
        let advice = Lifetime::from_duration(self.refresh_advice?);
        let sound = !advice.is_zero() && advice < granted;
        sound.then_some(BindingRefreshAdvice { refresh_interval: advice.0 })
    }

    /// The home prefix has another lifetime.
    pub(super) fn set_home_prefix(&mut self, now: Duration, lifetime: PrefixLifetime) {
        let before = std::mem::replace(&mut self.home_prefix, lifetime);
        self.end_with_prefix(now);
        self.deliver_prefix(now, before);
    }

    /// Ends every binding of a home prefix that is not valid any more.
    pub(super) fn end_with_prefix(&mut self, now: Duration) {
        if self.home_prefix.valid_until.is_none_or(|until| until > now) {
            return;
        }
        // req HA-17 (RFC 6275 §10.3.1).
        let network = self.home_network;
        let of_prefix = |entry: &BindingCacheEntry| network.contains(&entry.home_address.0);
        let ended = self.cache.iter().filter(|entry| of_prefix(entry));
        let ended: Vec<HomeAddress> = ended.map(|entry| entry.home_address).collect();
        for home_address in ended {
            self.notice(AgentNotice::PrefixInvalid { home_address });
            self.end(now, home_address);
        }
    }

    /// Plans when to ask for the bindings of this entry, which the cache holds now.
    pub(super) fn plan_request(&mut self, now: Duration, entry: &BindingCacheEntry) {
        let Some(served) = self.served.get_mut(&entry.home_address) else { return };
        let expiry = entry.next_expiry().filter(|_| self.refresh_requests);
        // A lifetime that short is not worth a word.
        let at = expiry.and_then(|expiry| expiry.checked_sub(REQUEST_BEFORE));
        let at = at.filter(|at| *at > now);
        match (served.request, at) {
            // A refresh leaves the look at it where it was: too early does no harm.
            (Some(planned), Some(at)) if planned <= at => return,
            (Some(planned), _) => drop(self.requests.remove(&(planned, entry.home_address))),
            (None, _) => {}
        }
        served.request = at;
        if let Some(at) = at {
            self.requests.insert((at, entry.home_address));
        }
    }

    /// Asks for the bindings that are about to end.
    pub(super) fn request(&mut self, now: Duration) {
        while let Some(&(at, home_address)) = self.requests.first() {
            if at > now {
                return;
            }
            self.requests.pop_first();
            let Some(served) = self.served.get_mut(&home_address) else { continue };
            served.request = None;
            let Some(entry) = self.cache.get(home_address) else { continue };
            let due = |expires: Duration| expires <= now + REQUEST_BEFORE;
            let due: Vec<Binding> =
                entry.bindings.iter().filter(|it| due(it.expires)).cloned().collect();
            if due.is_empty() {
                let entry = entry.clone();
                self.plan_request(now, &entry);
                continue;
            }
            let again = now + REQUEST_BEFORE / 2;
            if due.iter().any(|binding| binding.expires > again + REQUEST_BEFORE / 4) {
                served.request = Some(again);
                self.requests.insert((again, home_address));
            }
            self.send_refresh_request(home_address, due.iter());
        }
    }

    /// Asks a mobile for these of its bindings.
    pub(super) fn send_refresh_request<'b>(
        &mut self,
        home_address: HomeAddress,
        bindings: impl Iterator<Item = &'b Binding>,
    ) {
        // req MC-19, R-HA-25 (RFC 5648 §6.4): by their numbers.
        let options = bindings.filter_map(|binding| {
            let option = BindingIdentifier::new(binding.bid?);
            Some(BindingIdentifier { priority: binding.priority, ..option }.into())
        });
        let request = BindingRefreshRequest { options: options.collect() };
        let envelope = Envelope::plain(self.address.0, home_address.0);
        match wire::emit(&Message::BindingRefreshRequest(request), &envelope) {
            Ok(message) => {
                let transmit = Transmit { envelope, path: None, message };
                self.out.push_back(AgentOutput::Transmit(transmit));
            }
            Err(error) => self.notice(AgentNotice::Unwritable(error)),
        }
    }
}
