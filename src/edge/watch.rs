//! Turns what the kernel reports into movements, for as long as the daemon runs.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use mtun_policy::InterfaceName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::carrier::{Carriers, Glance};
use super::movement::{DownReason, LinkEvent, Movement, Movements, Said};
use super::netlink::{Events, Netlink, NetlinkError, Reports};

/// How often carrier is looked at while traffic flows: the kernel may hold a report back for up to
/// 700 ms, and a change of uplink should take no longer than 20 ms.
const POLL: Duration = Duration::from_millis(20);
/// How often a router that does not answer is asked whether it is there.
const PROBE: Duration = Duration::from_secs(1);

/// One report of the kernel, if it was one and not time that passed, with what changes for the
/// uplinks.
pub type Report = (Option<LinkEvent>, Vec<Movement>);

/// Watches the uplinks.
pub struct Watch {
    events: Events,
    movements: Movements,
    /// When the time of the movements began.
    start: Instant,
    /// What the poller looks at.
    active: watch::Sender<Active>,
    /// What the poller saw last.
    looks: watch::Receiver<Look>,
    /// Routers of which the kernel knows already.
    answers: mpsc::Receiver<LinkEvent>,
    /// When each interface was last reported by the kernel itself.
    reported: HashMap<u32, Instant>,
    /// How often one was: what the poller saw before says nothing any more.
    reports: Arc<AtomicU64>,
    /// What the last look still has to say.
    seen: VecDeque<LinkEvent>,
    poller: JoinHandle<()>,
    /// For those who ask for movements one by one.
    waiting: VecDeque<Movement>,
}

/// What is worth looking at without being told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Active {
    interfaces: Vec<u32>,
    sought_routers: Vec<(u32, Ipv6Addr)>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl Watch {
    /// Starts to watch these uplinks; addresses inside `own` are never care-of addresses. The
    /// first reports say what is attached already.
    pub fn start(
        netlink: Arc<Netlink>,
        uplinks: impl IntoIterator<Item = InterfaceName>,
        own: Vec<Ipv6Net>,
    ) -> std::io::Result<Self> {
        let events = netlink.events()?;
        let (active, wanted) = watch::channel(Active::default());
        let (seen, looks) = watch::channel(Look::default());
        // A task of its own, because a look that is given up half-way leaves its answer behind.
        let (answering, answers) = mpsc::channel(16);
        let reports = Arc::new(AtomicU64::new(0));
        let looking = Looking { netlink, known: HashMap::new(), reports: Arc::clone(&reports) };
        let poller = tokio::spawn(poll(looking, wanted, seen, answering));
        let movements = Movements::new(uplinks, own);
        Ok(Self {
            events,
            movements,
            start: Instant::now(),
            active,
            looks,
            answers,
            reported: HashMap::new(),
            reports,
            seen: VecDeque::new(),
            poller,
            waiting: VecDeque::new(),
        })
    }

    /// What is known of the uplinks.
    pub fn movements(&self) -> &Movements {
        &self.movements
    }

    /// How the kernel's reports came so far.
    pub fn reports(&self) -> Reports {
        self.events.counts()
    }

    /// Gives a link to a movement detector outside that says this of it, or takes it back for
    /// `None`; refused where the kernel makes it impossible.
    pub fn claim(
        &mut self,
        uplink: &InterfaceName,
        said: Option<Said>,
    ) -> Result<Vec<Movement>, DownReason> {
        self.movements.claim(uplink, said)
    }

    /// The next movement. Safe to cancel.
    pub async fn next(&mut self) -> Result<Movement, NetlinkError> {
        loop {
            if let Some(movement) = self.waiting.pop_front() {
                return Ok(movement);
            }
            let (_, movements) = self.report().await?;
            self.waiting.extend(movements);
        }
    }

    /// The next report with what it changes for the uplinks. Safe to cancel.
    pub async fn report(&mut self) -> Result<Report, NetlinkError> {
        loop {
            let due = self.movements.deadline().map(|due| self.start + due);
            let (event, looked) = match self.seen.pop_front() {
                Some(event) => (event, true),
                None => tokio::select! {
                    biased;
                    event = self.events.next() => (event?, false),
                    Some(event) = self.answers.recv() => (event, true),
                    Ok(()) = self.looks.changed() => {
                        self.seen = self.fresh_looks();
                        continue;
                    }
                    () = passed(due) => {
                        let movements = self.movements.advance(self.start.elapsed());
                        if movements.is_empty() {
                            continue;
                        }
                        self.follow();
                        return Ok((None, movements));
                    }
                },
            };
            if !looked {
                self.note_report(&event);
            }
            let mut movements = self.movements.advance(self.start.elapsed());
            movements.extend(self.movements.handle(event.clone()));
            self.follow();
            // A look that found what was known is no report.
            if !looked || !movements.is_empty() {
                return Ok((Some(event), movements));
            }
        }
    }

    /// Tells the poller what is worth looking at.
    fn follow(&self) {
        let active = Active {
            interfaces: self.movements.active(),
            sought_routers: self.movements.sought_routers(),
        };
        self.active.send_if_modified(|before| {
            let differs = *before != active;
            *before = active;
            differs
        });
    }
}

/// Ends when an instant has passed; never for none.
async fn passed(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl Watch {
    /// What the last look says of interfaces that the kernel has not reported since it began.
    fn fresh_looks(&mut self) -> VecDeque<LinkEvent> {
        let look = self.looks.borrow_and_update();
        let fresh = |index: &u32| self.reported.get(index).is_none_or(|at| *at < look.began);
        look.found
            .iter()
            .filter(|(index, _)| fresh(index))
            .map(|(_, event)| event.clone())
            .collect()
    }

    fn note_report(&mut self, event: &LinkEvent) {
        self.reports.fetch_add(1, Ordering::Release);
        match event {
            LinkEvent::Link(facts) => {
                self.reported.insert(facts.index, Instant::now());
            }
            LinkEvent::LinkGone(index) => {
                self.reported.remove(index);
            }
            LinkEvent::Everything(events) => {
                self.reported.clear();
                events.iter().for_each(|event| self.note_report(event));
            }
            _ => {}
        }
    }
}

/// One look at all active interfaces.
#[derive(Clone, Debug)]
struct Look {
    /// Before the first was asked for.
    began: Instant,
    /// By interface index, what was found.
    found: Vec<(u32, LinkEvent)>,
}

impl Default for Look {
    fn default() -> Self {
        Self { began: Instant::now(), found: Vec::new() }
    }
}

/// What looks at interfaces need.
struct Looking {
    netlink: Arc<Netlink>,
    /// By interface index, what a glance showed when all was last asked for.
    known: HashMap<u32, Glance>,
    /// [`Watch::reports`].
    reports: Arc<AtomicU64>,
}

impl Looking {
    /// Asks for all that is known of those interfaces at which a glance shows something else than
    /// before, or of all if `anew`.
    async fn look(&mut self, carriers: Option<&Carriers>, interfaces: &[u32], anew: bool) -> Look {
        let mut look = Look::default();
        self.known.retain(|index, _| !anew && interfaces.contains(index));
        for &index in interfaces {
            let glance = carriers.map_or(Glance::Untold, |carriers| carriers.glance(index));
            if glance != Glance::Untold && self.known.get(&index) == Some(&glance) {
                continue;
            }
            let event = match self.netlink.link_by_index(index).await {
                Ok(Some(facts)) => LinkEvent::Link(facts),
                Ok(None) => LinkEvent::LinkGone(index),
                Err(error) => {
                    tracing::debug!(%error, "could not look at an interface");
                    continue;
                }
            };
            self.known.insert(index, glance);
            look.found.push((index, event));
        }
        look
    }
}

/// Looks at active interfaces and asks lost routers, each at its pace.
async fn poll(
    mut looking: Looking,
    mut wanted: watch::Receiver<Active>,
    seen: watch::Sender<Look>,
    answers: mpsc::Sender<LinkEvent>,
) {
    let every = |period| {
        let mut every = interval(period);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every
    };
    let (mut looks, mut probes) = (every(POLL), every(PROBE));
    let carriers = Carriers::open();
    if let Err(error) = &carriers {
        tracing::debug!(%error, "looks at interfaces cost more");
    }
    let mut heard = 0;
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let interfaces = wanted.borrow().interfaces.clone();
                let reports = looking.reports.load(Ordering::Acquire);
                let anew = std::mem::replace(&mut heard, reports) != reports;
                let look = looking.look(carriers.as_ref().ok(), &interfaces, anew).await;
                if !look.found.is_empty() && seen.send(look).is_err() {
                    return;
                }
            }
            _ = probes.tick() => ask(&looking.netlink, &wanted, &answers).await,
            // At once when there is somebody new to be asked.
            Ok(()) = wanted.changed() => ask(&looking.netlink, &wanted, &answers).await,
        }
    }
}

/// Makes neighbour discovery look for the routers that have not answered. One that the kernel
/// knows already is reported from here: it says nothing of its own accord.
async fn ask(
    netlink: &Netlink,
    wanted: &watch::Receiver<Active>,
    answers: &mpsc::Sender<LinkEvent>,
) {
    let routers = wanted.borrow().sought_routers.clone();
    for (index, address) in routers {
        match netlink.knows_neighbour(index, address).await {
            Ok(true) => {
                let event = LinkEvent::Neighbour { index, address, reachable: true };
                // Nobody listening: the watch has ended.
                let _ = answers.send(event).await;
            }
            Ok(false) => {
                // The link may be gone by now; then its report is on the way.
                if let Err(error) = netlink.probe_neighbour(index, address).await {
                    tracing::debug!(%error, "could not probe a router");
                }
            }
            Err(error) => tracing::debug!(%error, "could not look up a router"),
        }
    }
}
