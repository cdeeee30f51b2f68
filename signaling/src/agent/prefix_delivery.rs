//! Tells mobiles that are away of changes of their home prefix, without being asked (RFC 6275
//! §10.6.2, §10.6.3).
//!
//! A change is one of the lifetimes as they are advertised; that time passes is none. Each bound
//! mobile is told at a time of its own, so that a change does not end in a burst, and again
//! until it asks for the prefixes, which confirms it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use mtun_policy::HomeAddress;

use super::{AgentOutput, HomeAgent, PrefixLifetime};
use crate::machine::{Envelope, Transmit};
use crate::wire::icmpv6::{self, IcmpMessage, MobilePrefixAdvertisement, PrefixInformation};

/// Further tries (PREFIX_ADV_RETRIES, RFC 6275 §12).
const RETRIES: u32 = 3;
/// First wait for a solicitation, doubled each time (PREFIX_ADV_TIMEOUT, RFC 6275 §12).
const TIMEOUT: Duration = Duration::from_secs(3);
/// Between these two a mobile is told (MinMobPfxAdvInterval, MaxMobPfxAdvInterval, RFC 6275 §13).
const MIN_INTERVAL: Duration = Duration::from_secs(600);
const MAX_INTERVAL: Duration = Duration::from_secs(86_400);
/// Below this no advertisement that proves nothing cuts a lifetime (RFC 4862 §5.5.3).
const TWO_HOURS: Duration = Duration::from_secs(7200);
/// Lifetimes that differ by less are the same, heard a little later.
const SLACK: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct Delivery {
    /// When the next is due; none while it is given up.
    due: Option<Duration>,
    sent: u32,
}

/// What mobiles still have to be told of the home prefix.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pending: BTreeMap<HomeAddress, Delivery>,
    due: BTreeSet<(Duration, HomeAddress)>,
    /// The lifetimes as they were last advertised.
    spans: (Option<Duration>, Option<Duration>),
}

impl Deliveries {
    /// When the next is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    fn plan(&mut self, home_address: HomeAddress, sent: u32, due: Option<Duration>) {
        self.cancel(home_address);
        self.pending.insert(home_address, Delivery { due, sent });
        self.due.extend(due.map(|at| (at, home_address)));
    }

    /// The mobile knows, or is bound no more.
    pub(super) fn cancel(&mut self, home_address: HomeAddress) {
        if let Some(Delivery { due: Some(at), .. }) = self.pending.remove(&home_address) {
            self.due.remove(&(at, home_address));
        }
    }
}

impl HomeAgent {
    /// A router of the home link advertised the home prefix with these lifetimes, in seconds.
    ///
    /// It proves nothing, so that it may prolong and does not cut below two hours what was longer.
    pub(super) fn prefix_advertised(&mut self, now: Duration, valid: u32, preferred: u32) {
        let span = |seconds: u32| {
            (seconds != PrefixInformation::INFINITE)
                .then(|| Duration::from_secs(u64::from(seconds)))
        };
        let until = |span: Option<Duration>| span.map(|span| now + span);
        let (valid, preferred) = (until(span(valid)), until(span(preferred)));
        let least = now + TWO_HOURS;
        let least = self.home_prefix.valid_until.map_or(least, |until| until.min(least));
        let valid_until = valid.map(|until| until.max(least));
        let preferred_until = match (preferred, valid_until) {
            (None, valid) => valid,
            (preferred, None) => preferred,
            (Some(preferred), Some(valid)) => Some(preferred.min(valid)),
        };
        self.set_home_prefix(now, PrefixLifetime { preferred_until, valid_until });
    }

    /// The home prefix has other lifetimes; whoever is bound is told if they were changed.
    pub(super) fn deliver_prefix(&mut self, now: Duration, before: PrefixLifetime) {
        let left = |until: Option<Duration>| until.map(|until| until.saturating_sub(now));
        let after = self.home_prefix;
        let spans = (left(after.valid_until), left(after.preferred_until));
        let known = std::mem::replace(&mut self.deliveries.spans, spans);
        let same = |one: Option<Duration>, other: Option<Duration>| match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => one.abs_diff(other) <= SLACK,
            _ => false,
        };
        let as_before = same(before.valid_until, after.valid_until)
            && same(before.preferred_until, after.preferred_until);
        let unchanged = as_before || same(known.0, spans.0) && same(known.1, spans.1);
        if unchanged || !self.extensions.prefix_discovery {
            return;
        }
        // req HA-76 (RFC 6275 §10.6.2): spread, and in time.
        let most = spans.1.unwrap_or(MAX_INTERVAL).min(MAX_INTERVAL);
        let network = self.home_network;
        let bound = self.cache.iter().map(|entry| entry.home_address);
        let bound: Vec<HomeAddress> = bound.filter(|it| network.contains(&it.0)).collect();
        for home_address in bound {
            let delay = MIN_INTERVAL.as_secs()
                + place(home_address) % most.as_secs().abs_diff(MIN_INTERVAL.as_secs()).max(1);
            // What ends soon is told sooner than that.
            let delay = Duration::from_secs(delay).min(most / 2);
            self.deliveries.plan(home_address, 0, Some(now + delay));
        }
    }

    /// An update was accepted with the word that prefix discovery is necessary, or its mobile
    /// never confirmed what it was told before.
    pub(super) fn deliver_to(&mut self, now: Duration, home_address: HomeAddress, necessary: bool) {
        let pending = self.deliveries.pending.get(&home_address);
        let given_up = pending.is_some_and(|it| it.due.is_none());
        // It asks by itself if it knows what status 1 means.
        let tells = self.extensions.prefix_discovery;
        if tells && (given_up || necessary && pending.is_none()) {
            self.deliveries.plan(home_address, 0, Some(now + TIMEOUT));
        }
    }

    /// Sends what is due.
    pub(super) fn deliver(&mut self, now: Duration) {
        while let Some(&(at, home_address)) = self.deliveries.due.first() {
            if at > now {
                return;
            }
            self.deliveries.due.pop_first();
            let Some(delivery) = self.deliveries.pending.get(&home_address).copied() else {
                continue;
            };
            let Some(entry) = self.cache.get(home_address) else {
                // req HA-76 (RFC 6275 §10.6.2): not without a binding.
                self.deliveries.pending.remove(&home_address);
                continue;
            };
            let abroad = entry.bindings.iter().filter(|it| it.care_of.0 != home_address.0);
            let mut care_of: Vec<_> = abroad.map(|it| (it.priority, it.care_of.0)).collect();
            care_of.sort_by_key(|(priority, _)| *priority);
            let next = care_of.get(delivery.sent as usize % care_of.len().max(1));
            let wait = TIMEOUT * 2u32.pow(delivery.sent);
            let sent = delivery.sent + 1;
            let again = (sent <= RETRIES).then_some(now + wait);
            let next = next.map(|(_, care_of)| *care_of);
            self.deliveries.plan(home_address, sent, again);
            if let Some(IpAddr::V6(care_of)) = next {
                self.advertise(now, home_address, care_of, 0);
            }
        }
    }

    /// Tells a mobile the home prefix.
    pub(super) fn advertise(
        &mut self,
        now: Duration,
        home_address: HomeAddress,
        care_of: std::net::Ipv6Addr,
        identifier: u16,
    ) {
        let seconds = |until: Option<Duration>| {
            until.map_or(PrefixInformation::INFINITE, |until| {
                let left = until.saturating_sub(now).as_secs();
                u32::try_from(left).unwrap_or(PrefixInformation::INFINITE - 1)
            })
        };
        // req HA-75, NH-19, R-HA-43 (RFC 6275 §6.8, §7.2): with our own address, complete.
        let prefix = PrefixInformation {
            prefix_len: self.home_network.prefix_len(),
            on_link: true,
            autonomous: true,
            router_address: true,
            valid: seconds(self.home_prefix.valid_until),
            preferred: seconds(self.home_prefix.preferred_until),
            address: self.address.0,
        };
        let advertisement = MobilePrefixAdvertisement {
            identifier,
            managed: false,
            other: false,
            prefixes: vec![prefix],
        };
        let envelope = Envelope {
            routing_header: Some(home_address),
            ..Envelope::plain(self.address.0, care_of)
        };
        let message =
            icmpv6::emit(&IcmpMessage::MobilePrefixAdvertisement(advertisement), &envelope);
        let transmit = Transmit { envelope, path: None, message };
        self.out.push_back(AgentOutput::Advertise(transmit));
    }
}

/// A number of a mobile's own, to spread what happens to all: FNV-1a of its address.
fn place(home_address: HomeAddress) -> u64 {
    home_address.0.octets().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
