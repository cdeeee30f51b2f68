//! What a fast path has carried comes back, and what ended there or is silent is taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mtun_policy::FlowKey;

use super::{Carried, Exit, Fast, IDLE, Kept, PART, lease};
use crate::abi::{Course, FastFlow, FastKey, FastRoute};
use crate::counters::{Direction, Form};
use crate::engine::Engine;
use crate::notes::RouteNote;
use crate::registration::PathId;

impl Engine {
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
        members.iter().try_for_each(|key| self.end(fast, kept, key).map(drop))
    }

    /// Takes one direction of a flow out, and returns what it was.
    pub(super) fn end(
        &self,
        fast: &Fast,
        kept: &mut Kept,
        key: &FastKey,
    ) -> io::Result<Option<FastFlow>> {
        let taken = fast.path.take(key)?;
        if let Some(flow) = &taken {
            self.credit(kept, key, flow);
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
        Ok(taken)
    }

    /// Takes both directions of a flow out.
    pub(super) fn end_flow(&self, fast: &Fast, key: &FastKey) {
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
        // A slot is there as long as it has members.
        let slot = kept.slots[held.slot as usize];
        let form = match slot.and_then(|slot| slot.whose.pair) {
            Some(pair) => {
                self.notes.say(RouteNote::Used(pair), seen);
                Form::Optimized
            }
            None => Form::Tunnel,
        };
        self.counters.carry_many(rule, held.bid, direction, form, packets, octets);
        let carried = kept.carried.entry(held.path).or_default();
        let overhead = slot.map_or(0, |slot| slot.route.overhead());
        let outer = octets + packets * u64::from(overhead);
        match course {
            Course::Out => carried.sent += outer,
            Course::In => carried.received += outer,
        }
    }
}
