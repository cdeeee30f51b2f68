//! Remembered decisions outside this process: the seam to a fast path of the kernel.
//!
//! ```text
//!   flow (key, generation, epoch) ──► path (generation, ends, interface, room)
//!   one direction of a flow           one binding of one registration
//! ```
//!
//! The engine decides a flow's first packets. What a fast path can hold is then installed there,
//! each direction by itself: a packet that leaves when the same was decided twice, a packet that
//! comes when the second one was admitted by the same binding. Not held are: copies, ways outside
//! the tunnel, flows that share their choice or wait for a move, homes whose rules look at what a
//! fast path cannot see (all but [`SEES`]) or whose packets may go straight past their agent.
//!
//! Before a snapshot is published, paths whose generation it changes are rewritten, so that their
//! flows end at once, however many there are. They are not taken out then, which would hold a million
//! flows on a dead link for seconds: whoever decides one of them anew brings back what it carried
//! first (`Engine::catch_up`), so that it knows when the flow's last packet was, and the next sweep
//! takes out the rest. A handover changes a path and ends nothing. An address that goes from a
//! home that stays to another ends everything, by the epoch. While a snapshot is being published nobody installs, and
//! nobody installs what another snapshot decided.
//!
//! [`Engine::sweep`] brings back what flows carried, takes silent ones and those that ended out, and
//! vouches for the rest until a lease is over. It works in parts, between which others come in.
//!
//! The lock here is held while a flow's line is changed; nothing is locked the other way round.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::{Bid, Field, FieldSet, FlowKey, HomeAddress, Ingress, RuleId, Scope};

use crate::abi::{Course, FastFlow, FastKey, FastRoute};
use crate::admit::Admitted;
use crate::counters::{Direction, Form};
use crate::decide::{Encapsulation, Route, Side};
use crate::engine::Engine;
use crate::hashing::RandomState;
use crate::memory::{Answer, Remembered, Way};
use crate::packet::Inner;
use crate::publication::{Publication, SpareSnapshot};
use crate::registration::{Binding, PathId, Registration};
use crate::snapshot::Snapshot;
use crate::succession::Succession;
use crate::wire::ipv6::HEADER;
use crate::wire::{Header, IPV6, TCP, UDP};

/// The fields that a fast path sees. TCP and UDP packets have no others but a flow label and a user:
/// a home whose rules look at those keeps its flows here.
pub const SEES: FieldSet = FieldSet::NONE
    .with(Field::Source)
    .with(Field::Destination)
    .with(Field::Protocol)
    .with(Field::SourcePort)
    .with(Field::DestinationPort)
    .with(Field::Dscp)
    .with(Field::Ingress)
    .with(Field::Spi)
    .with(Field::IcmpType);

/// How long a fast path goes on by itself when this process is gone.
pub const LEASE: Duration = Duration::from_secs(30);

/// A flow without packets for so long is taken out of the fast path.
const IDLE: Duration = Duration::from_secs(60);

/// So many flows are looked at under one lock: less than a millisecond.
const PART: usize = 512;

/// Where remembered decisions are held besides the flow table.
pub trait FastPath: Debug + Send + Sync {
    /// Nanoseconds of its own clock.
    fn clock(&self) -> u64;
    /// How many flows and paths it holds.
    fn room(&self) -> (usize, u32);
    /// Sets the epoch, and until when it goes on by itself, on its own clock.
    fn configure(&self, epoch: u64, lease_ns: u64) -> io::Result<()>;
    /// How packets of a path leave; `None` if not in a way for a fast path.
    fn exit(&self, path: PathId, ends: (Ipv6Addr, Ipv6Addr)) -> Option<Exit>;
    /// Writes a path.
    fn set_path(&self, path: u32, route: &FastRoute) -> io::Result<()>;
    /// Adds one direction of a flow.
    fn put(&self, key: &FastKey, flow: &FastFlow) -> io::Result<()>;
    /// Takes it out, with what it carried.
    fn take(&self, key: &FastKey) -> io::Result<Option<FastFlow>>;
    /// Shows every flow.
    fn each(&self, show: &mut dyn FnMut(&FastKey, &FastFlow)) -> io::Result<()>;
    /// Says to and from which interfaces the kernel forwards packets of flows: there they may take
    /// the shortcut. Nothing by itself: not every fast path has one.
    fn fronts(&self, _interfaces: &BTreeSet<u32>) {}
    /// Ends what an earlier process left, if that is still there: what is not held has another way by
    /// now. Said with every sweep; nothing by itself, as not every fast path outlives its process.
    fn succeed(&self) {}
}

/// How outer packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Index of the Ethernet interface.
    pub interface: u32,
    /// The mark they carry.
    pub mark: u32,
}

/// Outer octets that a path carried in a fast path since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// The engine's side of a fast path.
#[derive(Debug)]
pub(crate) struct Fast {
    path: Box<dyn FastPath>,
    kept: Mutex<Kept>,
    /// Whether flows that ended may still be there, with what they carried.
    late: AtomicBool,
}

/// Whose binding a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Whose {
    side: Side,
    home_address: HomeAddress,
    bid: Option<Bid>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    whose: Whose,
    path: PathId,
    route: FastRoute,
}

/// One direction of a flow as it was last read.
#[derive(Clone, Copy, Debug)]
struct Held {
    rule: Option<RuleId>,
    bid: Option<Bid>,
    slot: u32,
    path: PathId,
    packets: u64,
    octets: u64,
    /// When it was installed, on the fast path's clock, and under which generation and epoch.
    since_ns: u64,
    generation: u64,
    epoch: u64,
}

/// What a flow is installed by.
#[derive(Clone, Copy)]
struct By<'s> {
    side: Side,
    registration: &'s Registration,
    binding: &'s Binding,
    rule: Option<RuleId>,
    /// By which binding the flow's last packet must have come for this to hold.
    settled: Option<Bid>,
}

#[derive(Debug, Default)]
struct Kept {
    epoch: u64,
    succession: Succession,
    /// How often flows were ended without being taken out.
    ends: u64,
    /// Whose addresses are whose, as it was published last.
    shape: Option<[u64; 2]>,
    /// The engine's time when it was last told, and what the fast path's clock said then.
    told: (Duration, u64),
    slots: Vec<Option<Slot>>,
    /// The keys of each slot's flows: what a change of one binding ends costs no look at the others.
    members: Vec<HashSet<FastKey, RandomState>>,
    numbers: HashMap<Whose, u32, RandomState>,
    flows: HashMap<FastKey, Held, RandomState>,
    /// The keys of a flow's directions, by its addresses and ports.
    directions: HashMap<FastKey, Vec<FastKey>, RandomState>,
    carried: BTreeMap<PathId, Carried>,
}

impl Kept {
    /// Whether the fast path still goes by this.
    fn holds(&self, held: &Held) -> bool {
        let slot = self.slots.get(held.slot as usize).and_then(Option::as_ref);
        held.epoch == self.epoch
            && slot.is_some_and(|slot| slot.route.generation == held.generation)
    }
}

impl FastKey {
    fn new(key: &FlowKey, course: Course) -> Option<Self> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (key.source, key.destination) else {
            return None;
        };
        let (dscp, ingress) = match course {
            Course::Out => (key.dscp, key.ingress.0),
            Course::In => (0, 0),
        };
        Some(Self {
            source: source.octets(),
            destination: destination.octets(),
            source_port: key.source_port?.to_be_bytes(),
            destination_port: key.destination_port?.to_be_bytes(),
            protocol: key.protocol,
            direction: course as u8,
            dscp,
            ingress,
        })
    }

    fn course(&self) -> Course {
        if self.direction == Course::In as u8 { Course::In } else { Course::Out }
    }

    /// The same for both directions and all marks.
    fn flow(&self) -> Self {
        Self { direction: 0, dscp: 0, ingress: 0, ..*self }
    }

    /// Of a packet that leaves.
    fn key(&self) -> FlowKey {
        FlowKey {
            source: IpAddr::V6(self.source.into()),
            destination: IpAddr::V6(self.destination.into()),
            protocol: self.protocol,
            source_port: Some(u16::from_be_bytes(self.source_port)),
            destination_port: Some(u16::from_be_bytes(self.destination_port)),
            dscp: self.dscp,
            ingress: Ingress(self.ingress),
            flow_label: 0,
            spi: None,
            icmp_type: None,
            uid: None,
        }
    }
}

impl Fast {
    pub fn new(path: Box<dyn FastPath>) -> Self {
        let kept = Kept { epoch: 1, ..Kept::default() };
        Self { path, kept: Mutex::new(kept), late: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whoever panicked here left at worst a flow that is not installed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what time it is.
    fn tell(&self, kept: &mut Kept, now: Duration) {
        kept.told = (now, self.path.clock());
    }

    /// Notes that flows have ended that are still there.
    fn leave(&self, kept: &mut Kept) {
        kept.ends += 1;
        self.late.store(true, Ordering::Release);
    }

    /// Vouches for nothing any more: what is installed ends at once.
    fn halt(&self, kept: &mut Kept) {
        kept.epoch += 1;
        // With neither map writable nothing can be done but to let the lease run out.
        let _ = self.path.configure(kept.epoch, 0);
    }
}

/// Whether packets like this one can be held: TCP or UDP right behind the header.
fn is_plain(inner: &Inner) -> bool {
    matches!(inner.header.next_header, TCP | UDP)
}

/// Whether the rules of a home look only at what a fast path sees.
fn is_seen(registration: &Registration) -> bool {
    registration.consults.union(SEES) == SEES
}

/// Whether a home's packets go through the tunnel and nowhere else. What may go straight is
/// wanted, watched and wrapped packet by packet.
fn is_tunnelled(registration: &Registration, side: Side) -> bool {
    side == Side::Far || registration.policy.optimize.is_none()
}

/// Whether the flow keeps to this answer by itself.
fn is_own(answer: &Answer) -> bool {
    answer.way == Way::Tunnel
        && answer.due.is_none()
        && answer.together.is_none()
        && matches!(answer.sticky.scope, Scope::None | Scope::Flow)
}

impl Engine {
    /// Lets this fast path remember decisions too.
    #[must_use]
    pub fn with_fast_path(mut self, path: Box<dyn FastPath>) -> Self {
        self.fast = Some(Fast::new(path));
        self
    }

    fn prepare(&self, fast: &Fast, kept: &mut Kept, next: &Snapshot) -> io::Result<()> {
        // What a home has is ended with its binding. What is judged by a home because of the door it came
        // by (`also`) may be somebody's from now on who was nobody before.
        let shape = [&next.updates, &next.cache].map(|table| match next.also.is_empty() {
            true => table.turnover(),
            false => table.shape(),
        });
        if kept.shape != Some(shape) {
            kept.epoch += 1;
            kept.shape = Some(shape);
            fast.leave(kept);
            fast.path.configure(kept.epoch, lease(fast))?;
        }
        for number in 0..kept.slots.len() {
            let Some(slot) = kept.slots[number] else { continue };
            let found = binding_of(next, &slot.whose);
            let route = found.and_then(|(registration, binding)| {
                let known = (binding.path == slot.path).then_some(&slot.route);
                self.route(fast, slot.whose.side, registration, binding, known, kept.told.0)
            });
            let path = found.map_or(slot.path, |(_, binding)| binding.path);
            let route = route.unwrap_or_default();
            if route != slot.route {
                fast.path.set_path(number as u32, &route)?;
                if route.generation != slot.route.generation {
                    fast.leave(kept);
                }
                kept.slots[number] = Some(Slot { path, route, ..slot });
            }
        }
        Ok(())
    }

    /// Brings back what the fast path carried of a flow that has ended there, before it is decided
    /// anew.
    pub(crate) fn catch_up(&self, key: &FlowKey) {
        let Some(fast) = self.fast.as_ref().filter(|fast| fast.late.load(Ordering::Acquire)) else {
            return;
        };
        if let Some(key) = FastKey::new(key, Course::In) {
            let mut kept = fast.lock();
            let mut directions = kept.directions.get(&key.flow()).cloned().unwrap_or_default();
            directions.retain(|it| kept.flows.get(it).is_some_and(|held| !kept.holds(held)));
            if directions.iter().any(|it| self.end(fast, &mut kept, it).is_err()) {
                fast.halt(&mut kept);
            }
        }
    }

    /// Ends everything that the fast path remembers: what it sees of packets is about to mean
    /// something else.
    pub fn forget_fast(&self) {
        let Some(fast) = &self.fast else { return };
        let ended = {
            let mut kept = fast.lock();
            kept.epoch += 1;
            fast.leave(&mut kept);
            fast.path.configure(kept.epoch, lease(fast))
        };
        if ended.and_then(|()| self.collect(fast)).is_err() {
            fast.halt(&mut fast.lock());
        }
    }

    /// Brings back what the fast path carried, ends what is silent or stale, and vouches for the
    /// rest. To be called about once a second; returns what paths carried since the last time.
    pub fn sweep(&self, now: Duration) -> io::Result<BTreeMap<PathId, Carried>> {
        let Some(fast) = &self.fast else { return Ok(BTreeMap::new()) };
        let may_succeed = {
            let mut kept = fast.lock();
            fast.tell(&mut kept, now);
            kept.succession.is_due(&self.snapshot.load(), now)
        };
        if may_succeed {
            fast.path.succeed();
        }
        let collected = self.collect(fast);
        let mut kept = fast.lock();
        let swept = collected.and_then(|fronts| {
            fast.path.fronts(&fronts);
            self.sweep_paths(fast, &mut kept)
        });
        if swept.is_err() {
            fast.halt(&mut kept);
        }
        swept?;
        Ok(std::mem::take(&mut kept.carried))
    }

    fn sweep_paths(&self, fast: &Fast, kept: &mut Kept) -> io::Result<()> {
        for number in 0..kept.slots.len() {
            let Some(mut slot) = kept.slots[number] else { continue };
            let used = !kept.members[number].is_empty();
            let exit = fast.path.exit(slot.path, slot.route.ends()).filter(|_| used);
            let Some(Exit { interface, mark }) = exit else {
                // Its flows first: whose the slot is next must not find them.
                fast.path.set_path(number as u32, &FastRoute::default())?;
                self.end_members(fast, kept, number)?;
                kept.slots[number] = None;
                kept.numbers.remove(&slot.whose);
                continue;
            };
            if (interface, mark) != (slot.route.interface, slot.route.mark) {
                (slot.route.interface, slot.route.mark) = (interface, mark);
                fast.path.set_path(number as u32, &slot.route)?;
                kept.slots[number] = Some(slot);
            }
        }
        fast.path.configure(kept.epoch, lease(fast))
    }

    /// Counts what the fast path carried up to now.
    pub(crate) fn bring_back(&self) {
        let Some(fast) = &self.fast else { return };
        if self.collect(fast).is_err() {
            fast.halt(&mut fast.lock());
        }
    }

    /// Reads all flows; takes those out that do not hold any more. Returns the interfaces that the
    /// kernel forwards packets of the others from and to.
    fn collect(&self, fast: &Fast) -> io::Result<BTreeSet<u32>> {
        let mut fronts = BTreeSet::new();
        let (ends, known) = {
            let kept = fast.lock();
            (kept.ends, kept.flows.len())
        };
        let began = fast.path.clock();
        let mut read = Vec::with_capacity(known);
        fast.path.each(&mut |key, flow| read.push((*key, *flow)))?;
        for part in read.chunks(PART) {
            let kept = &mut *fast.lock();
            for (key, flow) in part {
                let held = kept.flows.get(key);
                if held.is_some_and(|held| held.since_ns >= began) {
                    // Installed anew since: what was read is not of this one.
                    continue;
                }
                let silent = began.saturating_sub(flow.seen_ns) > IDLE.as_nanos() as u64;
                let slot = kept.slots.get(flow.path as usize).copied().flatten();
                let holds = slot.is_some_and(|slot| slot.route.generation == flow.generation)
                    && flow.epoch == kept.epoch
                    && held.is_some();
                if !holds || silent {
                    self.end(fast, kept, key)?;
                    continue;
                }
                self.credit(kept, key, flow);
                if flow.passed_ns != 0 {
                    fronts.insert(flow.front);
                }
            }
        }
        let kept = fast.lock();
        if kept.ends == ends {
            fast.late.store(false, Ordering::Release);
        }
        Ok(fronts)
    }

    /// Takes every flow of a slot out.
    fn end_members(&self, fast: &Fast, kept: &mut Kept, number: usize) -> io::Result<()> {
        let members = std::mem::take(&mut kept.members[number]);
        members.iter().try_for_each(|key| self.end(fast, kept, key))
    }

    /// Takes one direction of a flow out.
    fn end(&self, fast: &Fast, kept: &mut Kept, key: &FastKey) -> io::Result<()> {
        if let Some(flow) = fast.path.take(key)? {
            self.credit(kept, key, &flow);
        }
        if let Some(held) = kept.flows.remove(key) {
            kept.members[held.slot as usize].remove(key);
        }
        if let Some(keys) = kept.directions.get_mut(&key.flow()) {
            keys.retain(|it| it != key);
            if keys.is_empty() {
                kept.directions.remove(&key.flow());
            }
        }
        Ok(())
    }

    /// Takes both directions of a flow out.
    fn end_flow(&self, fast: &Fast, key: &FastKey) {
        let mut kept = fast.lock();
        let directions = kept.directions.get(&key.flow()).cloned().unwrap_or_default();
        if directions.iter().any(|it| self.end(fast, &mut kept, it).is_err()) {
            fast.halt(&mut kept);
        }
    }

    /// Counts what a flow carried since it was last read, as if the packets had come by here.
    fn credit(&self, kept: &mut Kept, key: &FastKey, flow: &FastFlow) {
        let Some(held) = kept.flows.get_mut(key) else { return };
        let packets = flow.packets.saturating_sub(held.packets);
        let octets = flow.octets.saturating_sub(held.octets);
        if packets == 0 {
            return;
        }
        (held.packets, held.octets) = (flow.packets, flow.octets);
        let held = *held;
        let (now, clock) = kept.told;
        let seen = match flow.seen_ns.checked_sub(clock) {
            Some(since) => now + Duration::from_nanos(since),
            None => now.saturating_sub(Duration::from_nanos(clock - flow.seen_ns)),
        };
        let course = key.course();
        let answer = self.flows.carried(&key.key(), course, packets, octets, seen);
        let (direction, rule) = match course {
            Course::Out => (Direction::Out, held.rule),
            Course::In => (Direction::In, answer.and_then(|answer| answer.rule)),
        };
        self.counters.carry_many(rule, held.bid, direction, Form::Tunnel, packets, octets);
        let carried = kept.carried.entry(held.path).or_default();
        let outer = octets + packets * HEADER as u64;
        match course {
            Course::Out => carried.sent += outer,
            Course::In => carried.received += outer,
        }
    }

    /// Installs the way out of a flow whose packet was just sent, if the same was decided before.
    pub(crate) fn install_out(
        &self,
        snapshot: &Snapshot,
        route: &Route<'_>,
        (inner, key): (&Inner, &FlowKey),
        flow: Option<&Remembered>,
        answer: &Answer,
        now: Duration,
    ) {
        let Some(fast) = &self.fast else { return };
        let before = flow.and_then(|flow| flow.answer);
        if route.side == Side::Far && answer.due.is_some() {
            // The mobile decides when it moves: how it comes is watched packet by packet.
            if before.is_none_or(|before| before.due.is_none())
                && let Some(key) = FastKey::new(key, Course::In)
            {
                self.end_flow(fast, &key);
            }
            return;
        }
        let again = before.is_some_and(|it| (it.bid, it.way) == (answer.bid, answer.way));
        let tunnelled = matches!(route.encapsulation, Encapsulation::Tunnel { .. });
        if !again
            || !tunnelled
            || !is_plain(inner)
            || !is_own(answer)
            || !is_seen(route.registration)
            || !is_tunnelled(route.registration, route.side)
        {
            return;
        }
        let Some(key) = FastKey::new(key, Course::Out) else { return };
        let flow = FastFlow {
            lasts_ns: u64::try_from(answer.sticky.lasts.as_nanos()).unwrap_or(u64::MAX),
            label: self.flow_label(&key.key()).to_be_bytes(),
            ..FastFlow::default()
        };
        let Route { side, registration, binding, .. } = *route;
        let (rule, settled) = (answer.rule, answer.last_verified);
        let by = By { side, registration, binding, rule, settled };
        self.install(fast, snapshot, by, key, flow, now);
    }

    /// Installs the way in of a flow whose packet was just admitted, if it is not the first one by
    /// this binding; otherwise ends what was installed of the flow, as the way out may depend on
    /// which binding that is.
    pub(crate) fn install_in(
        &self,
        snapshot: &Snapshot,
        (admitted, outer): (&Admitted<'_>, &Header),
        inner: &Inner,
        before: Option<&Remembered>,
        now: Duration,
    ) {
        let Some(fast) = &self.fast else { return };
        if !is_plain(inner) {
            return;
        }
        let Some(key) = FastKey::new(&inner.key.mirrored(), Course::In) else { return };
        let Admitted { registration, side, binding } = *admitted;
        if before.is_none_or(|before| before.last_verified != binding.bid) {
            return self.end_flow(fast, &key);
        }
        let waits = before.and_then(|before| before.answer).is_some_and(|it| it.due.is_some());
        if side == Side::Far && waits {
            return;
        }
        // Copies that are marked have a place in a sequence, and no fast path keeps order.
        if outer.next_header == IPV6 && is_tunnelled(registration, side) {
            let by = By { side, registration, binding, rule: None, settled: binding.bid };
            self.install(fast, snapshot, by, key, FastFlow::default(), now);
        }
    }

    fn install(
        &self,
        fast: &Fast,
        snapshot: &Snapshot,
        by: By<'_>,
        key: FastKey,
        flow: FastFlow,
        now: Duration,
    ) {
        let By { side, registration, binding, rule, settled } = by;
        let mut kept = fast.lock();
        let (flows, _) = fast.path.room();
        let known = kept.flows.contains_key(&key);
        let current = std::ptr::eq(&**self.snapshot.load(), snapshot);
        if !current || (!known && kept.flows.len() >= flows) {
            return;
        }
        // A packet that came meanwhile by another binding has ended the flow, or will.
        let verified = self.flows.remembered(&key.key()).and_then(|flow| flow.last_verified);
        if verified != settled {
            return;
        }
        fast.tell(&mut kept, now);
        if known && self.end(fast, &mut kept, &key).is_err() {
            return fast.halt(&mut kept);
        }
        let whose = Whose { side, home_address: registration.home_address, bid: binding.bid };
        let Some(slot) = self.slot(fast, &mut kept, whose, registration, binding) else { return };
        let flow = FastFlow {
            generation: registration.generation,
            epoch: kept.epoch,
            path: slot,
            seen_ns: fast.path.clock(),
            ..flow
        };
        if fast.path.put(&key, &flow).is_ok() {
            let (bid, path) = (binding.bid, binding.path);
            let FastFlow { seen_ns: since_ns, generation, epoch, .. } = flow;
            let (packets, octets) = (0, 0);
            let held = Held { rule, bid, slot, path, packets, octets, since_ns, generation, epoch };
            kept.flows.insert(key, held);
            kept.members[slot as usize].insert(key);
            kept.directions.entry(key.flow()).or_default().push(key);
        }
    }

    /// The number of this binding's path, which is written if it is not yet.
    fn slot(
        &self,
        fast: &Fast,
        kept: &mut Kept,
        whose: Whose,
        registration: &Registration,
        binding: &Binding,
    ) -> Option<u32> {
        let known = kept.numbers.get(&whose).map(|number| *number as usize);
        if let Some(number) = known
            && kept.slots[number].is_some_and(|slot| slot.route.form == FastRoute::TUNNEL)
        {
            return Some(number as u32);
        }
        let (_, most) = fast.path.room();
        let free = || kept.slots.iter().position(Option::is_none);
        let number = known.or_else(free).unwrap_or(kept.slots.len());
        if number >= most as usize {
            return None;
        }
        let route = self.route(fast, whose.side, registration, binding, None, kept.told.0)?;
        fast.path.set_path(number as u32, &route).ok()?;
        if number == kept.slots.len() {
            kept.slots.push(None);
            kept.members.push(HashSet::default());
        }
        kept.slots[number] = Some(Slot { whose, path: binding.path, route });
        kept.numbers.insert(whose, number as u32);
        Some(number as u32)
    }

    /// How packets of a binding are wrapped; `None` if a fast path cannot. `known` tells the
    /// interface, as long as the ends are the same.
    fn route(
        &self,
        fast: &Fast,
        side: Side,
        registration: &Registration,
        binding: &Binding,
        known: Option<&FastRoute>,
        now: Duration,
    ) -> Option<FastRoute> {
        let IpAddr::V6(care_of) = binding.care_of.0 else { return None };
        if binding.home_link {
            return None;
        }
        let (source, destination) = match side {
            Side::Near => (care_of, registration.peer),
            Side::Far => (registration.peer, care_of),
        };
        let known = known.filter(|known| known.ends() == (source, destination));
        let Exit { interface, mark } = match known {
            Some(known) => Exit { interface: known.interface, mark: known.mark },
            None => fast.path.exit(binding.path, (source, destination))?,
        };
        let mtu = self.path_mtus.of(source, destination, binding.mtu, now);
        Some(FastRoute {
            generation: registration.generation,
            source: source.octets(),
            destination: destination.octets(),
            interface,
            mark,
            room: mtu - HEADER as u16,
            hop_limit: self.settings.hop_limit,
            form: FastRoute::TUNNEL,
            turn: 0,
        })
    }

    /// Tells the fast path what a Packet Too Big told of an outer path.
    pub(crate) fn narrow(&self, source: Ipv6Addr, destination: Ipv6Addr, now: Duration) {
        let Some(fast) = &self.fast else { return };
        let mut kept = fast.lock();
        for number in 0..kept.slots.len() {
            let Some(mut slot) = kept.slots[number] else { continue };
            if slot.route.ends() != (source, destination) {
                continue;
            }
            let link_mtu = slot.route.room + HEADER as u16;
            let mtu = self.path_mtus.of(source, destination, link_mtu, now);
            slot.route.room = mtu - HEADER as u16;
            if fast.path.set_path(number as u32, &slot.route).is_err() {
                return fast.halt(&mut kept);
            }
            kept.slots[number] = Some(slot);
        }
    }
}

/// Everything that a fast path remembers holds under the snapshot, or has ended before the first
/// packet is decided by it.
impl Publication for Engine {
    fn present(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    fn publish(&self, next: Arc<Snapshot>) {
        let Some(fast) = &self.fast else { return self.snapshot.store(next) };
        let mut kept = fast.lock();
        if self.prepare(fast, &mut kept, &next).is_err() {
            fast.halt(&mut kept);
        }
        self.snapshot.store(next);
    }

    fn spare(&self) -> Option<&SpareSnapshot> {
        Some(&self.spare)
    }
}

fn lease(fast: &Fast) -> u64 {
    fast.path.clock() + LEASE.as_nanos() as u64
}

fn binding_of<'s>(
    snapshot: &'s Snapshot,
    whose: &Whose,
) -> Option<(&'s Registration, &'s Binding)> {
    let table = match whose.side {
        Side::Near => &snapshot.updates,
        Side::Far => &snapshot.cache,
    };
    let registration = table.get(whose.home_address)?;
    Some((registration, registration.binding(whose.bid)?))
}
