//! Looks at links again and again, on a thread of its own: a question about a link waits for whoever
//! changes links at that time, which may take the kernel seconds, and nobody else should wait too.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::carrier::{Carriers, Glance};

/// How often: the kernel may hold a report back for up to 700 ms, and a change of uplink should take
/// no longer than 20 ms.
const PERIOD: Duration = Duration::from_millis(20);
/// So many periods from one question about restless links to the next.
const SELDOM: u32 = 10;

/// Links of which all should be asked for, because a glance showed something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// Before the first of them was looked at.
    pub began: Instant,
    /// Their indexes.
    pub interfaces: Vec<u32>,
}

/// The running thread; ends soon after this is dropped.
#[derive(Debug)]
pub struct Looks {
    wanted: Arc<Wanted>,
    thread: Thread,
}

/// What is looked at, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Links of which the carrier is looked at all the time.
    pub calm: Vec<u32>,
    /// Those that come and go: a look would make the kernel settle them each time, which holds up
    /// everybody who changes links. All of them is asked for a few times a second, as that tells how
    /// often they fell.
    pub restless: Vec<u32>,
}

/// What the thread is told.
#[derive(Debug, Default)]
struct Wanted {
    links: Mutex<Watched>,
    /// Another number: what was seen before says nothing any more.
    round: AtomicU64,
    ended: AtomicBool,
}

impl Looks {
    /// Starts to look, in the network namespace of the caller; at nothing yet. Where glances cannot be
    /// had, every link differs at every look.
    pub fn start() -> io::Result<(Self, mpsc::Receiver<Differing>)> {
        let carriers = Carriers::open()
            .inspect_err(|error| tracing::debug!(%error, "looks at interfaces cost more"))
            .ok();
        let wanted = Arc::<Wanted>::default();
        let (told, differing) = mpsc::channel(1);
        let mut looking =
            Looking { carriers, wanted: wanted.clone(), round: 0, turn: 0, known: HashMap::new() };
        let run = move || {
            while !looking.wanted.ended.load(Ordering::Acquire) {
                match told.try_reserve() {
                    Ok(permit) => {
                        let differing = looking.look();
                        if !differing.interfaces.is_empty() {
                            permit.send(differing);
                        }
                    }
                    // What was seen last is being asked for.
                    Err(TrySendError::Full(())) => {}
                    Err(TrySendError::Closed(())) => return,
                }
                let has_nothing = *looking.wanted.links() == Watched::default();
                match has_nothing {
                    true => std::thread::park(),
                    false => std::thread::park_timeout(PERIOD),
                }
            }
        };
        let thread = std::thread::Builder::new().name("looks".into()).spawn(run)?;
        Ok((Self { wanted, thread: thread.thread().clone() }, differing))
    }

    /// Looks at these from now on.
    pub fn follow(&self, links: Watched) {
        *self.wanted.links() = links;
        self.thread.unpark();
    }

    /// Forgets what was seen: every link differs once.
    pub fn renew(&self) {
        self.wanted.round.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.wanted.ended.store(true, Ordering::Release);
        // Not waited for: it may be waiting for the kernel.
        self.thread.unpark();
    }
}

impl Wanted {
    fn links(&self) -> MutexGuard<'_, Watched> {
        // Nobody panics under it.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
struct Looking {
    carriers: Option<Carriers>,
    wanted: Arc<Wanted>,
    /// Of which round that is which is known.
    round: u64,
    turn: u32,
    /// By interface index, what a glance showed when all was last asked for.
    known: HashMap<u32, Glance>,
}

impl Looking {
    fn look(&mut self) -> Differing {
        let began = Instant::now();
        let round = self.wanted.round.load(Ordering::Acquire);
        let Watched { calm: mut interfaces, restless } = self.wanted.links().clone();
        if std::mem::replace(&mut self.round, round) != round {
            self.known.clear();
        }
        self.known.retain(|index, _| interfaces.contains(index));
        interfaces.retain(|&index| {
            let glance = self.carriers.as_ref().map_or(Glance::Untold, |it| it.glance(index));
            self.known.insert(index, glance) != Some(glance) || glance == Glance::Untold
        });
        self.turn = (self.turn + 1) % SELDOM;
        if self.turn == 0 {
            interfaces.extend(restless);
        }
        Differing { began, interfaces }
    }
}
