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
//! fast path cannot see (all but [`SEES`]).
//!
//! A flow that goes straight, past the agent, has a path of its pair and its binding, which ends with
//! either. TCP is held only once something of it was acknowledged, so that a way which eats packets is
//! noticed packet by packet. What could go straight and does not yet is not held: it is by such packets
//! that a pair is wanted.
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

mod install;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mtun_policy::{Bid, Field, FieldSet, FlowKey, HomeAddress, Ingress, RuleId};

use crate::abi::{Course, FastFlow, FastKey, FastRoute};
use crate::decide::Side;
use crate::engine::Engine;
use crate::hashing::RandomState;
use crate::pairs::Pair;
use crate::publication::{Publication, SpareSnapshot};
use crate::registration::{Binding, PathId, Registration};
use crate::snapshot::Snapshot;
use crate::succession::Succession;

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
    /// Whether it knows packets that go straight; not every fast path does.
    fn knows_straight(&self) -> bool {
        false
    }
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
    /// The two ends, if it goes straight.
    pair: Option<Pair>,
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
                self.route(fast, &slot.whose, registration, binding, known, kept.told.0)
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

/// The binding of a path, as long as its packets are wrapped as the path says.
fn binding_of<'s>(
    snapshot: &'s Snapshot,
    whose: &Whose,
) -> Option<(&'s Registration, &'s Binding)> {
    let table = match whose.side {
        Side::Near => &snapshot.updates,
        Side::Far => &snapshot.cache,
    };
    let registration = match (whose.side, whose.pair) {
        (Side::Far, Some(pair)) => snapshot.correspondents.get(&pair)?,
        _ => table.get(whose.home_address)?,
    };
    let binding = registration.binding(whose.bid)?;
    let stands = match (whose.side, whose.pair) {
        // With both headers it is the engine's.
        (Side::Near, Some(pair)) => {
            snapshot.optimized.get(&pair).is_some_and(|held| held.takes(binding))
                && snapshot.correspondents.get(&pair.turned()).is_none()
        }
        _ => true,
    };
    stands.then_some((registration, binding))
}
