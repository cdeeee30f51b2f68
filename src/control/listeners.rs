//! Those who listen, as the owner loop and their connections share them.
//!
//! The owner says what happens and never waits; each connection takes what is there for its
//! client at that client's pace. What is between them is a [`Hub`]: bounded, and locked for as
//! long as one message takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mtun_signaling::mobility_socket::{
    Hub, Interest, MobilityMessage, Next, Subject, SubscriberId,
};
use tokio::sync::Notify;

use super::documents::EventDocument;

/// All who listen.
#[derive(Clone, Debug)]
pub struct Listeners {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hub: Mutex<Listening>,
    /// Whether anybody listens to messages; read before anything is built for them.
    listened: AtomicBool,
    start: Instant,
    capacity: usize,
}

#[derive(Debug)]
struct Listening {
    hub: Hub<EventDocument>,
    wake: BTreeMap<SubscriberId, Arc<Notify>>,
}

impl Listening {
    fn wake(&self, woken: &[SubscriberId]) {
        woken.iter().filter_map(|id| self.wake.get(id)).for_each(|it| it.notify_one());
    }
}

impl Listeners {
    /// Nobody listens; `capacity` messages and events may wait for each. The clock of the messages
    /// starts at `start`.
    pub fn new(capacity: usize, start: Instant) -> Self {
        let listening = Listening { hub: Hub::new(capacity), wake: BTreeMap::new() };
        let (hub, listened) = (Mutex::new(listening), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { hub, listened, start, capacity }) }
    }

    /// How much waits for each.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Whether anybody listens to messages.
    pub fn is_listened(&self) -> bool {
        self.shared.listened.load(Ordering::Acquire)
    }

    /// What the messages' clock reads.
    pub fn clock(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Tells an event of the node.
    pub fn tell(&self, event: EventDocument) {
        let mut it = self.lock();
        if it.hub.is_watched() {
            let scope = event.event.clone();
            let woken = it.hub.tell(&scope.scope(), event);
            it.wake(&woken);
        }
    }

    /// Tells a message.
    pub fn say(&self, message: MobilityMessage) {
        let (at, mut it) = (self.clock(), self.lock());
        let woken = it.hub.say(at, message);
        it.wake(&woken);
    }

    /// Says what is so of a subject; whoever listens is told what differs from before.
    pub fn show(&self, subject: &Subject, present: Vec<MobilityMessage>) {
        let (at, mut it) = (self.clock(), self.lock());
        let woken = it.hub.show(at, subject, present);
        it.wake(&woken);
    }

    /// Whether somebody waits to be told what is so.
    pub fn is_unfilled(&self) -> bool {
        self.lock().hub.is_unfilled()
    }

    /// Begins to say what is so, piece by piece.
    pub fn begin_fill(&self) {
        self.lock().hub.begin_fill();
    }

    /// Whether there still is somebody who waits for the pieces.
    pub fn is_filling(&self) -> bool {
        self.lock().hub.is_filling()
    }

    /// Says a piece of what is so.
    pub fn fill_piece(&self, piece: Vec<MobilityMessage>) {
        self.lock().hub.fill_piece(piece);
    }

    /// That was all of it.
    pub fn end_fill(&self) {
        let mut it = self.lock();
        let woken = it.hub.end_fill();
        it.wake(&woken);
    }

    /// Somebody begins to listen. For messages the owner has to be asked for the present state.
    pub(crate) fn join(&self, interest: Interest) -> Listener {
        let mut it = self.lock();
        let id = it.hub.join(interest);
        let wake = Arc::new(Notify::new());
        it.wake.insert(id, wake.clone());
        self.shared.listened.store(it.hub.is_listened(), Ordering::Release);
        Listener { all: self.clone(), id, wake }
    }

    fn lock(&self) -> MutexGuard<'_, Listening> {
        // A panic inside leaves at worst a client with a gap, and no client is worth a second one.
        self.shared.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who listens, until dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    all: Listeners,
    id: SubscriberId,
    wake: Arc<Notify>,
}

impl Listener {
    /// What there is.
    pub(crate) fn next(&self) -> Next<EventDocument> {
        self.all.lock().hub.next(self.id)
    }

    /// Returns when there may be something.
    pub(crate) async fn news(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut it = self.all.lock();
        it.hub.leave(self.id);
        it.wake.remove(&self.id);
        self.all.shared.listened.store(it.hub.is_listened(), Ordering::Release);
    }
}
