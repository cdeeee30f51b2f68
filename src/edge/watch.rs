//! Turns what the kernel reports into movements, for as long as the daemon runs.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::InterfaceName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::movement::{LinkEvent, Movement, Movements};
use super::netlink::{Events, Netlink, NetlinkError};

/// How often carrier is looked at while traffic flows: the kernel may hold a report back for up to
/// 700 ms, and a change of uplink should take no longer than 20 ms.
const POLL: Duration = Duration::from_millis(20);
/// How often a router that was given up is asked whether it is back.
const PROBE: Duration = Duration::from_secs(1);

/// One report of the kernel with what it changes for the uplinks.
pub type Report = (LinkEvent, Vec<Movement>);

/// Watches the uplinks.
pub struct Watch {
    events: Events,
    movements: Movements,
    /// What the poller looks at.
    active: watch::Sender<Active>,
    /// What the poller saw.
    looks: mpsc::Receiver<Result<LinkEvent, NetlinkError>>,
    poller: JoinHandle<()>,
    /// For those who ask for movements one by one.
    waiting: VecDeque<Movement>,
}

/// What is worth looking at without being told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Active {
    interfaces: Vec<u32>,
    lost_routers: Vec<(u32, Ipv6Addr)>,
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
        let (seen, looks) = mpsc::channel(64);
        // A task of its own, because a look that is given up half-way leaves its answer behind.
        let poller = tokio::spawn(poll(netlink, wanted, seen));
        let movements = Movements::new(uplinks, own);
        Ok(Self { events, movements, active, looks, poller, waiting: VecDeque::new() })
    }

    /// What is known of the uplinks.
    pub fn movements(&self) -> &Movements {
        &self.movements
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
            let (event, looked) = tokio::select! {
                event = self.events.next() => (event?, false),
                Some(event) = self.looks.recv() => (event?, true),
            };
            let movements = self.movements.handle(event.clone());
            let active = Active {
                interfaces: self.movements.active(),
                lost_routers: self.movements.unreachable_routers(),
            };
            self.active.send_if_modified(|before| {
                let differs = *before != active;
                *before = active;
                differs
            });
            // A look that found what was known is no report.
            if !looked || !movements.is_empty() {
                return Ok((event, movements));
            }
        }
    }
}

/// Looks at active interfaces and asks lost routers, each at its pace.
async fn poll(
    netlink: Arc<Netlink>,
    wanted: watch::Receiver<Active>,
    seen: mpsc::Sender<Result<LinkEvent, NetlinkError>>,
) {
    let every = |period| {
        let mut every = interval(period);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every
    };
    let (mut looks, mut probes) = (every(POLL), every(PROBE));
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let interfaces = wanted.borrow().interfaces.clone();
                for index in interfaces {
                    let event = netlink.link_by_index(index).await.map(|link| match link {
                        Some(facts) => LinkEvent::Link(facts),
                        None => LinkEvent::LinkGone(index),
                    });
                    if seen.send(event).await.is_err() {
                        return;
                    }
                }
            }
            _ = probes.tick() => {
                let routers = wanted.borrow().lost_routers.clone();
                for (index, router) in routers {
                    // The link may be gone by now; then its report is on the way.
                    if let Err(error) = netlink.probe_neighbour(index, router).await {
                        tracing::debug!(%error, "could not probe a router");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The daemon's runtime has several threads.
    #[test]
    fn a_watch_may_change_threads() {
        fn moves<A, T: Send>(_: impl FnOnce(A) -> T) {}
        moves(|watch: &'static mut Watch| watch.report());
        moves(|watch: &'static mut Watch| watch.next());
        moves(|netlink: Arc<Netlink>| async move { netlink.cleanup().await.is_ok() });
    }
}
