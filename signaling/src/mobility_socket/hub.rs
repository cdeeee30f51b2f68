//! Who listens, and what each of them is still to be told.
//!
//! A client is first shown the facts that stand, by key, as fast as it takes them: nothing of that
//! waits in memory, only the key it has come to. What changes meanwhile behind that key waits in
//! the client's queue, and what changes before it will be seen when the key comes there; so nothing
//! is lost between the present state and what follows, and nothing is said twice. A queue that
//! overflows is emptied: the client is told how much it missed and is shown the present state anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Effect, FactKey, Facts, Subject};
use super::filter::{Filter, Scope};
use super::message::MobilityMessage;

/// Facts looked at in one go, so that a client that wants few of many keeps nobody waiting.
const SLICE: usize = 256;

/// What a client listens to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// What of it.
    pub filter: Filter,
    /// Whether to the twelve messages.
    pub messages: bool,
    /// Whether to the node's other events.
    pub events: bool,
}

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(u64);

/// Something for a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery<E> {
    /// A fact that stands.
    State(Arc<MobilityMessage>),
    /// The present state is complete; what follows happens from here on.
    Present {
        /// How many facts it had.
        facts: u64,
    },
    /// A message of this moment.
    Message {
        /// When, on the node's clock.
        at: Duration,
        /// What.
        message: Arc<MobilityMessage>,
    },
    /// Another event of the node.
    Event(Arc<E>),
    /// The client was too slow. To one that listens to messages the present state follows, in place
    /// of what it knew; to others the events that it did not miss.
    Overflow {
        /// How many messages and events it missed.
        lost: u64,
    },
}

/// What there is for a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Next<E> {
    /// This.
    Deliver(Delivery<E>),
    /// Nothing found yet; ask again, after others had their turn.
    Later,
    /// Nothing, until something happens.
    Wait,
}

#[derive(Debug)]
enum Phase {
    /// Nobody has said yet what the present state is.
    Unfilled,
    /// Being shown the present state: the last key, and how many facts so far.
    Showing { last: Option<FactKey>, facts: u64 },
    /// Told what happens.
    Live,
    /// It missed so much.
    Overflown { lost: u64 },
}

#[derive(Debug)]
struct Subscriber<E> {
    interest: Interest,
    phase: Phase,
    /// Events lost of a client that listens to nothing else.
    lost: u64,
    queue: VecDeque<Delivery<E>>,
}

impl<E> Subscriber<E> {
    /// Whether a fact is its business, whatever messages it asked for.
    fn is_concerned(&self, fact: &MobilityMessage) -> bool {
        self.interest.messages && self.interest.filter.passes(&Scope { kind: None, ..fact.scope() })
    }

    /// Whether it was shown the fact of this key, or is to be told of it.
    fn has_passed(&self, key: &FactKey) -> bool {
        match &self.phase {
            Phase::Showing { last, .. } => last.as_ref().is_some_and(|last| key <= last),
            Phase::Live | Phase::Overflown { .. } => true,
            Phase::Unfilled => false,
        }
    }

    /// Puts something into the queue; gives whether somebody may be waiting for it.
    fn push(&mut self, capacity: usize, delivery: Delivery<E>) -> bool {
        match &mut self.phase {
            Phase::Overflown { lost } => *lost += 1,
            // Events are no state that could be told anew: the oldest goes.
            Phase::Live if self.queue.len() >= capacity && !self.interest.messages => {
                self.queue.pop_front();
                self.queue.push_back(delivery);
                self.lost += 1;
            }
            _ if self.queue.len() >= capacity => {
                let lost = self.queue.len() as u64 + 1;
                self.queue.clear();
                self.phase = Phase::Overflown { lost };
            }
            _ => self.queue.push_back(delivery),
        }
        self.queue.len() <= 1
    }
}

/// All clients that listen, and the facts they were told. Without a client that listens to messages
/// nothing is kept.
#[derive(Debug)]
pub struct Hub<E> {
    capacity: usize,
    facts: Option<Facts>,
    /// The present state as far as it has been filled in.
    filling: Option<Facts>,
    subscribers: BTreeMap<SubscriberId, Subscriber<E>>,
    next: u64,
}

impl<E> Hub<E> {
    /// Nobody listens; at most `capacity` messages and events will wait for each client.
    pub fn new(capacity: usize) -> Self {
        let (facts, filling) = (None, None);
        Self { capacity: capacity.max(1), facts, filling, subscribers: BTreeMap::new(), next: 0 }
    }

    /// A client comes. Unless others listen already, it is told nothing before somebody has
    /// [filled](Self::fill) the present state in.
    pub fn join(&mut self, interest: Interest) -> SubscriberId {
        let id = SubscriberId(self.next);
        self.next += 1;
        let phase = match self.facts {
            _ if !interest.messages => Phase::Live,
            Some(_) => Phase::Showing { last: None, facts: 0 },
            None => Phase::Unfilled,
        };
        let subscriber = Subscriber { interest, phase, lost: 0, queue: VecDeque::new() };
        self.subscribers.insert(id, subscriber);
        id
    }

    /// A client leaves. With the last one the facts are forgotten.
    pub fn leave(&mut self, id: SubscriberId) {
        self.subscribers.remove(&id);
        if !self.is_listened() {
            (self.facts, self.filling) = (None, None);
        }
    }

    /// Whether anybody listens to messages.
    pub fn is_listened(&self) -> bool {
        self.subscribers.values().any(|it| it.interest.messages)
    }

    /// Whether anybody listens to events.
    pub fn is_watched(&self) -> bool {
        self.subscribers.values().any(|it| it.interest.events)
    }

    /// Whether somebody waits for the present state to be filled in.
    pub fn is_unfilled(&self) -> bool {
        self.facts.is_none() && self.is_listened()
    }

    /// Begins to fill the present state in piece by piece, so that much of it keeps nobody waiting.
    /// What changes meanwhile is taken in with it.
    pub fn begin_fill(&mut self) {
        self.filling = self.is_unfilled().then(Facts::default);
    }

    /// Whether pieces are wanted: not if whoever waited for them has left.
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// Fills a piece in.
    pub fn fill_piece(&mut self, piece: impl IntoIterator<Item = MobilityMessage>) {
        if let Some(facts) = &mut self.filling {
            piece.into_iter().for_each(|message| facts.apply(&Arc::new(message)));
        }
    }

    /// That was all; gives the clients that waited for it.
    pub fn end_fill(&mut self) -> Vec<SubscriberId> {
        self.filling.take().map_or_else(Vec::new, |facts| self.fill(facts))
    }

    /// Says what the present state is; gives the clients that waited for it.
    pub fn fill(&mut self, facts: Facts) -> Vec<SubscriberId> {
        if !self.is_unfilled() {
            return Vec::new();
        }
        self.facts = Some(facts);
        let waiting = self.subscribers.iter_mut();
        let waiting = waiting.filter(|(_, it)| matches!(it.phase, Phase::Unfilled));
        let shown = waiting.map(|(id, it)| {
            it.phase = Phase::Showing { last: None, facts: 0 };
            *id
        });
        shown.collect()
    }

    /// What was told and still stands; `None` while nobody listens.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Says what is so of a subject at present; whoever listens is told what differs from before.
    /// Gives the clients that may be waiting.
    pub fn show(
        &mut self,
        at: Duration,
        subject: &Subject,
        present: Vec<MobilityMessage>,
    ) -> Vec<SubscriberId> {
        if let Some(facts) = &mut self.filling {
            let news = facts.news(subject, present);
            news.into_iter().for_each(|message| facts.apply(&Arc::new(message)));
            return Vec::new();
        }
        let Some(facts) = &self.facts else { return Vec::new() };
        let news = facts.news(subject, present);
        let mut woken: Vec<_> = news.into_iter().flat_map(|it| self.say(at, it)).collect();
        woken.sort_unstable();
        woken.dedup();
        woken
    }

    /// Tells everybody whose business it is. Gives the clients that may be waiting.
    pub fn say(&mut self, at: Duration, message: MobilityMessage) -> Vec<SubscriberId> {
        let message = Arc::new(message);
        if let Some(facts) = &mut self.filling {
            facts.apply(&message);
        }
        let Some(facts) = &mut self.facts else { return Vec::new() };
        let mut woken = Vec::new();
        match message.effect() {
            Effect::Passes => {
                for (id, it) in &mut self.subscribers {
                    let interest = &it.interest;
                    let passes = interest.messages && interest.filter.passes(&message.scope());
                    let delivery = || Delivery::Message { at, message: message.clone() };
                    if passes && it.push(self.capacity, delivery()) {
                        woken.push(*id);
                    }
                }
            }
            Effect::Stands(key) | Effect::Ends(key) => {
                let old = facts.get(&key).cloned();
                facts.apply(&message);
                let new = facts.get(&key).cloned();
                for (id, it) in &mut self.subscribers {
                    if it.has_passed(&key)
                        && it.tell_change(self.capacity, at, &message, old.as_ref(), new.as_ref())
                    {
                        woken.push(*id);
                    }
                }
            }
            Effect::EndsAll(keys) => {
                let ended: Vec<_> =
                    facts.within(keys).map(|(key, it)| (key.clone(), it.clone())).collect();
                facts.apply(&message);
                for (id, it) in &mut self.subscribers {
                    if it.tell_flush(self.capacity, at, &message, &ended) {
                        woken.push(*id);
                    }
                }
            }
        }
        woken
    }

    /// Tells another event of the node to those who want events and whose business it is.
    pub fn tell(&mut self, scope: &Scope<'_>, event: E) -> Vec<SubscriberId> {
        let event = Arc::new(event);
        let mut woken = Vec::new();
        for (id, it) in &mut self.subscribers {
            if it.interest.events
                && it.interest.filter.passes(scope)
                && it.push(self.capacity, Delivery::Event(event.clone()))
            {
                woken.push(*id);
            }
        }
        woken
    }

    /// What there is for a client.
    pub fn next(&mut self, id: SubscriberId) -> Next<E> {
        let Some(it) = self.subscribers.get_mut(&id) else { return Next::Wait };
        match &mut it.phase {
            Phase::Unfilled => Next::Wait,
            Phase::Overflown { lost } => {
                let lost = *lost;
                it.phase = match self.facts {
                    Some(_) => Phase::Showing { last: None, facts: 0 },
                    None => Phase::Unfilled,
                };
                Next::Deliver(Delivery::Overflow { lost })
            }
            Phase::Live if it.lost > 0 => {
                let lost = std::mem::take(&mut it.lost);
                Next::Deliver(Delivery::Overflow { lost })
            }
            Phase::Live => it.queue.pop_front().map_or(Next::Wait, Next::Deliver),
            Phase::Showing { last, facts: shown } => {
                let Some(facts) = &self.facts else { return Next::Wait };
                let wants = |fact: &MobilityMessage| {
                    it.interest.filter.wants(fact.kind())
                        && it.interest.filter.passes(&Scope { kind: None, ..fact.scope() })
                };
                let mut reached = None;
                let mut found = None;
                for (number, (key, fact)) in facts.beyond(last.as_ref()).enumerate() {
                    if wants(fact) {
                        found = Some((key.clone(), fact.clone()));
                        break;
                    }
                    if number + 1 == SLICE {
                        reached = Some(key.clone());
                        break;
                    }
                }
                if let Some((key, fact)) = found {
                    *last = Some(key);
                    *shown += 1;
                    return Next::Deliver(Delivery::State(fact));
                }
                match reached {
                    Some(key) => {
                        *last = Some(key);
                        Next::Later
                    }
                    None => {
                        let facts = *shown;
                        it.phase = Phase::Live;
                        Next::Deliver(Delivery::Present { facts })
                    }
                }
            }
        }
    }

    /// How much waits for a client.
    pub fn waiting(&self, id: SubscriberId) -> usize {
        self.subscribers.get(&id).map_or(0, |it| it.queue.len())
    }
}

impl<E> Subscriber<E> {
    /// A fact took the place of another, began or ended.
    fn tell_change(
        &mut self,
        capacity: usize,
        at: Duration,
        message: &Arc<MobilityMessage>,
        old: Option<&Arc<MobilityMessage>>,
        new: Option<&Arc<MobilityMessage>>,
    ) -> bool {
        let known = old.is_some_and(|old| self.is_concerned(old));
        let message = match (known, new) {
            (_, Some(new)) if self.is_concerned(new) => message.clone(),
            // It became somebody else's business.
            (true, Some(_)) => match old {
                Some(old) => Arc::new(old.ending()),
                None => return false,
            },
            (true, None) => message.clone(),
            (false, _) => return false,
        };
        self.interest.filter.wants(message.kind())
            && self.push(capacity, Delivery::Message { at, message })
    }

    /// Many facts ended at once.
    fn tell_flush(
        &mut self,
        capacity: usize,
        at: Duration,
        message: &Arc<MobilityMessage>,
        ended: &[(FactKey, Arc<MobilityMessage>)],
    ) -> bool {
        if matches!(self.phase, Phase::Live | Phase::Overflown { .. }) {
            return self.interest.filter.wants(message.kind())
                && ended.iter().any(|(_, fact)| self.is_concerned(fact))
                && self.push(capacity, Delivery::Message { at, message: message.clone() });
        }
        // What it was not shown yet may begin again before it is: so each by itself.
        let mut woken = false;
        for (key, fact) in ended {
            if self.has_passed(key) && self.is_concerned(fact) {
                let message = Arc::new(fact.ending());
                if self.interest.filter.wants(message.kind()) {
                    woken |= self.push(capacity, Delivery::Message { at, message });
                }
            }
        }
        woken
    }
}
