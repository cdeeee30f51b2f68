//! Turns what the kernel reports into movements, for as long as the daemon runs.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use mtun_policy::InterfaceName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::looks::{Differing, Looks, Watched};
use super::movement::{DownReason, LinkEvent, Movement, Movements, Said};
use super::netlink::{Events, Netlink, NetlinkError, Reports};

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
    looks: Arc<Looks>,
    /// What is looked at.
    watched: Watched,
    /// Whom the poller asks whether they are there.
    sought: watch::Sender<Vec<Router>>,
    /// What the poller found last.
    found: mpsc::Receiver<Look>,
    /// Routers of which the kernel knows already.
    answers: mpsc::Receiver<LinkEvent>,
    /// When each interface was last reported by the kernel itself.
    reported: HashMap<u32, Instant>,
    /// What the last look still has to say.
    seen: VecDeque<LinkEvent>,
    poller: JoinHandle<()>,
    /// For those who ask for movements one by one.
    waiting: VecDeque<Movement>,
}

/// A router by its interface and address.
type Router = (u32, Ipv6Addr);

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
        let (looks, differing) = Looks::start()?;
        let looks = Arc::new(looks);
        let (sought, asked) = watch::channel(Vec::new());
        // A task of its own, because a look that is given up half-way leaves its answer behind.
        let (seen, found) = mpsc::channel(1);
        let (answering, answers) = mpsc::channel(16);
        let poller = tokio::spawn(poll(netlink, looks.clone(), differing, asked, seen, answering));
        let movements = Movements::new(uplinks, own);
        Ok(Self {
            events,
            movements,
            start: Instant::now(),
            looks,
            watched: Watched::default(),
            sought,
            found,
            answers,
            reported: HashMap::new(),
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
                    Some(look) = self.found.recv() => {
                        self.seen = self.fresh(look);
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

    /// Tells what is worth looking at, and who is to be asked.
    fn follow(&mut self) {
        let watched = self.movements.watched();
        if watched != self.watched {
            self.looks.follow(watched.clone());
            self.watched = watched;
        }
        let sought = self.movements.sought_routers();
        self.sought.send_if_modified(|before| {
            let differs = *before != sought;
            *before = sought;
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
    /// What a look says of interfaces that the kernel has not reported since it began.
    fn fresh(&self, look: Look) -> VecDeque<LinkEvent> {
        let fresh = |index: &u32| self.reported.get(index).is_none_or(|at| *at < look.began);
        look.found.into_iter().filter(|(index, _)| fresh(index)).map(|(_, event)| event).collect()
    }

    fn note_report(&mut self, event: &LinkEvent) {
        self.looks.renew();
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

/// What was found at links that differed.
#[derive(Debug)]
struct Look {
    /// Before the first of them was looked at.
    began: Instant,
    /// By interface index.
    found: Vec<(u32, LinkEvent)>,
}

/// Asks for all that is known of links that differ, and asks lost routers.
async fn poll(
    netlink: Arc<Netlink>,
    looks: Arc<Looks>,
    mut differing: mpsc::Receiver<Differing>,
    mut sought: watch::Receiver<Vec<Router>>,
    seen: mpsc::Sender<Look>,
    answers: mpsc::Sender<LinkEvent>,
) {
    let mut probes = interval(PROBE);
    probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            differing = differing.recv() => {
                let Some(differing) = differing else { return };
                let look = look(&netlink, &looks, differing).await;
                if seen.send(look).await.is_err() {
                    return;
                }
            }
            _ = probes.tick() => ask(&netlink, &sought, &answers).await,
            // At once when there is somebody new to be asked.
            Ok(()) = sought.changed() => ask(&netlink, &sought, &answers).await,
        }
    }
}

async fn look(netlink: &Netlink, looks: &Looks, differing: Differing) -> Look {
    let mut look = Look { began: differing.began, found: Vec::new() };
    for index in differing.interfaces {
        match netlink.link_by_index(index).await {
            Ok(Some(facts)) => look.found.push((index, LinkEvent::Link(facts))),
            Ok(None) => look.found.push((index, LinkEvent::LinkGone(index))),
            Err(error) => {
                tracing::debug!(%error, "could not look at an interface");
                looks.renew();
            }
        }
    }
    look
}

/// Makes neighbour discovery look for the routers that have not answered. One that the kernel
/// knows already is reported from here: it says nothing of its own accord.
async fn ask(
    netlink: &Netlink,
    sought: &watch::Receiver<Vec<Router>>,
    answers: &mpsc::Sender<LinkEvent>,
) {
    let routers = sought.borrow().clone();
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
