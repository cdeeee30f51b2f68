//! Copies of `duplicate` where both ends number them: what waits for its place at the receiver, and
//! that each packet comes once.

use std::collections::VecDeque;
use std::time::Duration;

use mtun_dataplane::CopyMark;
use mtun_policy::HomeAddress;

use crate::forward::Passed;
use crate::network::Origin;
use crate::packet::{self, Label, Mark};
use crate::witness::Invariant;
use crate::world::World;

/// How long it is known what came: longer than copies are under way.
const KNOWN: Duration = Duration::from_secs(1);

/// A node that may receive numbered copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Mobile(usize),
    Agent(usize),
}

/// A packet that its receiver keeps until those before it came.
#[derive(Debug)]
struct Held {
    /// As it was inside the tunnel.
    inner: Vec<u8>,
    mark: Option<Mark>,
    passed: Passed,
    at: Duration,
}

/// What a node knows of copies that reached it.
#[derive(Debug, Default)]
pub struct Arriving {
    held: Vec<Held>,
    /// What came in the last second.
    came: VecDeque<(Duration, Mark, Label)>,
}

impl Arriving {
    /// What was held of a packet that is let go. Its hop limit and its traffic class may be others.
    fn take(&mut self, released: &[u8]) -> Option<Held> {
        let same = |held: &Held| held.inner.get(8..) == released.get(8..);
        self.held.iter().position(same).map(|at| self.held.remove(at))
    }
}

impl World {
    fn arriving(&mut self, who: Receiver) -> &mut Arriving {
        match who {
            Receiver::Mobile(number) => &mut self.mobiles[number].arriving,
            Receiver::Agent(number) => &mut self.agents[number].arriving,
        }
    }

    /// Whether the two ends of the tunnel of this packet have agreed, as the receiver knows.
    fn has_agreed(&self, who: Receiver, inner: &[u8]) -> bool {
        let copies = match who {
            Receiver::Mobile(number) => {
                let it = &self.mobiles[number];
                let published = it.published.load();
                published.updates.get(HomeAddress(it.home_address())).map(|it| it.copies)
            }
            Receiver::Agent(number) => {
                let published = self.agents[number].published.load();
                let source = packet::address(inner, 8);
                source.and_then(|it| published.cache.lookup(it.into())).map(|it| it.copies)
            }
        };
        copies == Some(CopyMark::On)
    }

    /// I9: a copy of ours is delivered; of each packet that was told apart there is one.
    pub fn witness_copy(&mut self, who: Receiver, packet: &[u8], passed: Passed) {
        let mark = packet::mark(packet);
        self.came(who, packet::inner(packet), mark, passed);
    }

    fn came(&mut self, who: Receiver, inner: &[u8], mark: Option<Mark>, passed: Passed) {
        let honest = passed.origin == Origin::Honest;
        let Some(mark) = mark.filter(|_| honest && self.has_agreed(who, inner)) else { return };
        let layers = packet::layers(inner);
        let labelled = layers.first().and_then(|layer| packet::labelled(inner, layer));
        let Some((_, label)) = labelled else { return };
        let now = self.now;
        let came = &mut self.arriving(who).came;
        while came.pop_front_if(|(at, ..)| *at + KNOWN < now).is_some() {}
        if came.iter().any(|(_, known, of)| (known, of) == (&mark, &label)) {
            self.violate(Invariant::CopiesOnce, format!("{who:?} delivers {label:?} again"));
        } else {
            came.push_back((now, mark, label));
        }
    }

    /// A packet waits for those before it.
    pub fn holds_copy(&mut self, who: Receiver, packet: &[u8], passed: Passed) {
        let inner = packet::inner(packet).to_vec();
        match who {
            Receiver::Mobile(number) => {
                self.coverage.count("mobile: copy held");
                self.witness_delivered_to_mobile(number, packet, &inner, passed);
            }
            Receiver::Agent(number) => {
                self.coverage.count("agent: copy held");
                self.witness_delivered_to_agent(number, packet, &inner, passed);
            }
        }
        let (at, mark) = (self.now, packet::mark(packet));
        self.arriving(who).held.push(Held { inner, mark, passed, at });
    }

    /// Delivers what has waited for long enough.
    pub fn copies_released(&mut self, who: Receiver) {
        let mut out = Vec::new();
        loop {
            let (engine, base) = match who {
                Receiver::Mobile(number) => {
                    (&self.mobiles[number].engine, self.mobiles[number].base)
                }
                Receiver::Agent(number) => (&self.agents[number].engine, self.agents[number].base),
            };
            if !engine.released(base + self.now, &mut out) {
                return;
            }
            let Some(held) = self.arriving(who).take(&out) else {
                return self.stuck(format!("{who:?} lets go what it never held"));
            };
            if held.at + KNOWN < self.now {
                return self.stuck(format!("{who:?} held a copy since {:?}", held.at));
            }
            self.came(who, &held.inner, held.mark, held.passed);
            let released = std::mem::take(&mut out);
            match who {
                Receiver::Mobile(number) => self.mobile_delivers(number, released, held.passed),
                Receiver::Agent(number) => self.agent_delivers(number, released, held.passed),
            }
        }
    }
}
