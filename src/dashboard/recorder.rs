//! Asks the owner loop once for all who watch, and keeps the history.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use mtun_signaling::mobility_socket::{Delivery, Interest, Next};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::history::{History, HistoryDocument};
use crate::control::documents::{Event, EventDocument};
use crate::control::protocol::{ReplyLine, VERSION};
use crate::control::{ControlError, ControlRequest, ErrorCode, Listeners, Peer, Request, Response};

/// How often the owner is asked while somebody watches, and while nobody does.
const WATCHED: Duration = Duration::from_secs(1);
const UNWATCHED: Duration = Duration::from_secs(10);

/// How long the owner may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that may wait for one who watches; who is further behind is told all of it anew.
const FRAMES: usize = 64;

/// What those who watch are sent: one frame of server-sent events.
pub(super) type Frame = Bytes;

/// The history and those who watch.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: mpsc::Sender<ControlRequest>,
    listeners: Listeners,
    history: Mutex<History>,
    frames: broadcast::Sender<Frame>,
    /// How many watch.
    watching: AtomicUsize,
    /// Somebody came: what is told next is told at once.
    came: Notify,
}

/// One who watches, until dropped.
#[derive(Debug)]
pub(super) struct Watching {
    shared: Arc<Shared>,
    pub(super) frames: broadcast::Receiver<Frame>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shared.watching.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Recorder {
    pub(super) fn new(requests: mpsc::Sender<ControlRequest>, listeners: Listeners) -> Self {
        let shared = Shared {
            requests,
            listeners,
            history: Mutex::default(),
            frames: broadcast::Sender::new(FRAMES),
            watching: AtomicUsize::new(0),
            came: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What is kept.
    pub(super) fn history(&self) -> HistoryDocument {
        self.lock().document()
    }

    /// Somebody begins to watch.
    pub(super) fn watch(&self) -> Watching {
        let frames = self.shared.frames.subscribe();
        self.shared.watching.fetch_add(1, Ordering::AcqRel);
        self.shared.came.notify_one();
        Watching { shared: Arc::clone(&self.shared), frames }
    }

    /// Records until dropped.
    pub(super) async fn record(&self) {
        let interest = Interest { events: true, ..Interest::default() };
        let events = self.shared.listeners.join(interest);
        let mut asked = Instant::now() - UNWATCHED;
        loop {
            let pause = match self.shared.watching.load(Ordering::Acquire) {
                0 => UNWATCHED,
                _ => WATCHED,
            };
            tokio::select! {
                () = tokio::time::sleep_until(asked + pause) => {}
                () = self.shared.came.notified() => {}
                () = events.news() => {
                    let mut changed = false;
                    while let Next::Deliver(delivery) = events.next() {
                        changed |= self.happened(delivery);
                    }
                    // What changed is shown with what it changed, and not a second later.
                    if !changed || self.shared.watching.load(Ordering::Acquire) == 0 {
                        continue;
                    }
                }
            }
            asked = Instant::now();
            self.sample().await;
        }
    }

    /// Tells an event; whether it may change what is shown.
    fn happened(&self, delivery: Delivery<EventDocument>) -> bool {
        let event = match delivery {
            Delivery::Event(event) => (*event).clone(),
            Delivery::Overflow { lost } => EventDocument::now(Event::Lost { count: lost }),
            Delivery::Present { .. } | Delivery::State(_) | Delivery::Message { .. } => {
                return false;
            }
        };
        self.tell("event", &event);
        // A refresh is what happens when nothing happens.
        if matches!(event.event, Event::Bound { first: false, .. }) {
            return false;
        }
        self.lock().note(event);
        true
    }

    async fn sample(&self) {
        let (status, figures) =
            (self.ask(Request::Overview {}).await, self.ask(Request::Metrics {}).await);
        match (status, figures) {
            (Ok(Response::Status(status)), Ok(Response::Metrics(figures))) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                let live = self.lock().take(time_ms, &status, &figures);
                self.tell("status", &ReplyLine::new(0, Ok(Response::Status(status))));
                self.tell("live", &live);
            }
            (Err(error), _) | (_, Err(error)) => {
                self.tell("status", &ReplyLine::new(0, Err(error)));
            }
            (Ok(_), Ok(_)) => {}
        }
    }

    /// Asks the owner loop as one who may look.
    pub(super) async fn ask(&self, request: Request) -> Result<Response, ControlError> {
        let (reply, answer) = oneshot::channel();
        let left = watch::Sender::new(()).subscribe();
        let request = ControlRequest { request, peer: Peer::daemon(), reply, left };
        let asked = async {
            self.shared.requests.send(request).await.ok()?;
            answer.await.ok()
        };
        let silent = |why: &str| Err(ControlError::new(ErrorCode::Internal, why));
        match timeout(PATIENCE, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => silent("the daemon is stopping and answers no more"),
            Err(_) => silent("the daemon did not answer in time"),
        }
    }

    fn tell(&self, event: &str, document: &impl serde::Serialize) {
        if self.shared.frames.receiver_count() > 0 {
            // Nobody there is no fault.
            let _ = self.shared.frames.send(frame(event, document));
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server-sent event. JSON has no line break of its own, so one `data` line holds it.
fn frame(event: &str, document: &impl serde::Serialize) -> Frame {
    let json = serde_json::to_string(document).expect("documents have text keys only");
    Bytes::from(format!("event: {event}\nid: {VERSION}\ndata: {json}\n\n"))
}
