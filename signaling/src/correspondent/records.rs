//! What a correspondent holds, per pair of its own address and a mobile's home address.
//!
//! A record begins with an authorized update and outlives its last binding for as long as that
//! update, or one before it, could be played again (RFC 6275 §5.2.8). Both kinds are bounded:
//! bindings by evicting the mobile not heard of for longest, memories of sequence numbers by
//! refusing new mobiles, because forgetting one would let a recorded update in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, HomeAddress};

use crate::binding::{Binding, BindingCacheEntry};

/// How often a binding in use is asked to be refreshed (RFC 6275 §9.5.5).
const MAX_REFRESH_REQUESTS: u32 = 3;
/// The first request leaves this long before the end of the lifetime, or at its last quarter.
const REFRESH_LEAD: Duration = Duration::from_secs(30);
/// A binding counts as in use for this long after its last packet.
const IN_USE: Duration = Duration::from_secs(60);
/// Reports of unreachability that make it persistent, each in a second of its own.
const MAX_UNREACHABLE: u32 = 3;
/// Reports further apart than this have nothing to do with each other.
const UNREACHABLE_MEMORY: Duration = Duration::from_secs(60);

/// One of our addresses and a mobile's home address: nobody changes what another holds (req CN-24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Ours.
    pub correspondent: Ipv6Addr,
    /// The mobile's.
    pub home_address: HomeAddress,
}

/// What is watched of one binding.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    used: Option<Duration>,
    /// When to ask for a refresh next.
    ask_at: Option<Duration>,
    asked: u32,
    unreachable: u32,
    last_unreachable: Option<Duration>,
}

/// All that is held for one pair.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub entry: BindingCacheEntry,
    /// The last accepted sequence number, over all bindings of the home address.
    pub sequence: u16,
    /// Until when the home nonce of some authorized update is good.
    guarded_until: Duration,
    /// When the mobile was last heard of, or a packet last went by a binding.
    used: Duration,
    watches: BTreeMap<Option<Bid>, Watch>,
}

impl Record {
    /// A record without bindings.
    pub(super) fn new(home_address: HomeAddress, sequence: u16) -> Self {
        let entry = BindingCacheEntry::new(home_address);
        let (guarded_until, used) = (Duration::ZERO, Duration::ZERO);
        Self { entry, sequence, guarded_until, used, watches: BTreeMap::new() }
    }

    /// Notes an authorized update that leaves `bindings`; `touched` names the one it is about.
    pub(super) fn accept(
        &mut self,
        now: Duration,
        sequence: u16,
        guarded_until: Duration,
        bindings: Vec<Binding>,
        touched: Option<Bid>,
    ) {
        self.guard(sequence, guarded_until);
        self.used = now;
        self.entry.bindings = bindings;
        self.watches.retain(|bid, _| self.entry.bindings.iter().any(|held| held.bid == *bid));
        if let Some(binding) = self.entry.binding(touched) {
            let lead = lead(now, binding.expires);
            let ask_at = Some(binding.expires - lead);
            self.watches.insert(touched, Watch { ask_at, ..Watch::default() });
        }
    }

    /// Notes the number of an authorized update whose home nonce is good until `guarded_until`.
    pub(super) fn guard(&mut self, sequence: u16, guarded_until: Duration) {
        // req CN-25, R-CN-06 (RFC 6275 §5.2.8, §9.5.3): every update needs its home nonce, so
        // none works twice if the number outlives the nonce.
        self.sequence = sequence;
        self.guarded_until = self.guarded_until.max(guarded_until);
    }

    /// A packet went by this binding, either way.
    pub(super) fn used(&mut self, now: Duration, bid: Option<Bid>) {
        if let Some(watch) = self.watches.get_mut(&bid) {
            watch.used = Some(now);
            self.used = now;
        }
    }

    /// The bindings that are about to end in use; each is asked for a few times only.
    pub(super) fn refreshes_due(&mut self, now: Duration) -> Vec<Option<Bid>> {
        let mut due = Vec::new();
        for (bid, watch) in &mut self.watches {
            let Some(binding) = self.entry.bindings.iter().find(|held| held.bid == *bid) else {
                continue;
            };
            if watch.ask_at.is_none_or(|at| at > now) {
                continue;
            }
            // req CN-44 (RFC 6275 §9.5.5): not for idle bindings, and at most three times.
            let pause = (binding.expires.saturating_sub(now) / 3).max(Duration::from_secs(1));
            let in_use = watch.used.is_some_and(|used| now < used + IN_USE);
            watch.asked += u32::from(in_use);
            let again = watch.asked < MAX_REFRESH_REQUESTS && now + pause < binding.expires;
            watch.ask_at = again.then_some(now + pause);
            if in_use {
                due.push(*bid);
            }
        }
        due
    }

    /// Notes that a packet to this address came back; gives the binding's BID once that has
    /// happened persistently.
    pub(super) fn unreachable(
        &mut self,
        now: Duration,
        care_of: CareOfAddress,
    ) -> Option<Option<Bid>> {
        let binding = self.entry.bindings.iter().find(|held| held.care_of == care_of)?;
        let watch = self.watches.get_mut(&binding.bid)?;
        match watch.last_unreachable {
            Some(last) if now < last + Duration::from_secs(1) => return None,
            Some(last) if now < last + UNREACHABLE_MEMORY => watch.unreachable += 1,
            _ => watch.unreachable = 1,
        }
        watch.last_unreachable = Some(now);
        (watch.unreachable >= MAX_UNREACHABLE).then_some(binding.bid)
    }

    /// Removes the bindings for which `ends` holds and gives them.
    pub(super) fn end(&mut self, ends: impl FnMut(&mut Binding) -> bool) -> Vec<Binding> {
        let ended: Vec<Binding> = self.entry.bindings.extract_if(.., ends).collect();
        for binding in &ended {
            self.watches.remove(&binding.bid);
        }
        ended
    }

    fn is_live(&self) -> bool {
        !self.entry.bindings.is_empty()
    }

    /// When something is to be done about it.
    fn next(&self) -> Duration {
        let asks = self.watches.values().filter_map(|watch| watch.ask_at);
        asks.chain(self.entry.next_expiry()).min().unwrap_or(self.guarded_until)
    }
}

/// How long before its end a binding of this lifetime is asked for.
fn lead(now: Duration, expires: Duration) -> Duration {
    (expires.saturating_sub(now) / 4).min(REFRESH_LEAD)
}

/// All records, with what is due next and who was idle for longest.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: BTreeMap<Pair, Record>,
    due: BTreeSet<(Duration, Pair)>,
    /// Those with bindings, by their last use.
    live: BTreeSet<(Duration, Pair)>,
}

impl Records {
    pub(super) fn get(&self, pair: Pair) -> Option<&Record> {
        self.all.get(&pair)
    }

    /// The record, if it has bindings.
    pub(super) fn bound(&self, pair: Pair) -> Option<&Record> {
        self.get(pair).filter(|record| record.is_live())
    }

    /// All that are bound, in the order of their pairs.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Pair, &BindingCacheEntry)> {
        let bound = self.all.iter().filter(|(_, record)| record.is_live());
        bound.map(|(pair, record)| (*pair, &record.entry))
    }

    pub(super) fn pairs(&self) -> Vec<Pair> {
        self.all.keys().copied().collect()
    }

    /// How many pairs take memory.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many mobiles have bindings.
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// How many are only remembered.
    pub(super) fn remembered(&self) -> usize {
        self.all.len() - self.live.len()
    }

    /// The mobile that was not heard of for longest.
    pub(super) fn idlest(&self) -> Option<Pair> {
        self.live.first().map(|&(_, pair)| pair)
    }

    /// Takes a record out, to be changed and put back.
    pub(super) fn take(&mut self, pair: Pair) -> Option<Record> {
        let record = self.all.remove(&pair)?;
        self.due.remove(&(record.next(), pair));
        self.live.remove(&(record.used, pair));
        Some(record)
    }

    /// Puts a record in, unless there is nothing left to remember at `now`.
    pub(super) fn put(&mut self, now: Duration, pair: Pair, record: Record) {
        if !record.is_live() && record.guarded_until <= now {
            return;
        }
        self.due.insert((record.next(), pair));
        if record.is_live() {
            self.live.insert((record.used, pair));
        }
        self.all.insert(pair, record);
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Takes out a record about which something is to be done at `now`.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(Pair, Record)> {
        let &(at, pair) = self.due.first()?;
        if at > now {
            return None;
        }
        self.take(pair).map(|record| (pair, record))
    }
}
