//! Turns what the kernel reports into movements, for as long as the daemon runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::InterfaceName;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::movement::{LinkEvent, Movement, Movements};
use super::netlink::{Events, Netlink, NetlinkError};

/// How often carrier is looked at while traffic flows: the kernel may hold a report back for up to
/// 700 ms, and a change of uplink should take no longer than 20 ms.
const POLL: Duration = Duration::from_millis(20);
/// How often a router that was given up is asked whether it is back.
const PROBE: Duration = Duration::from_secs(1);

/// Watches the uplinks.
pub struct Watch {
    netlink: Arc<Netlink>,
    events: Events,
    movements: Movements,
    poll: Interval,
    polling: bool,
    probe: Interval,
    waiting: VecDeque<Movement>,
}

impl Watch {
    /// Starts to watch these uplinks; addresses inside `own` are never care-of addresses. The
    /// first movements say what is attached already.
    pub fn start(
        netlink: Arc<Netlink>,
        uplinks: impl IntoIterator<Item = InterfaceName>,
        own: Vec<Ipv6Net>,
    ) -> std::io::Result<Self> {
        let every = |period| {
            let mut every = interval(period);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        };
        Ok(Self {
            events: netlink.events()?,
            netlink,
            movements: Movements::new(uplinks, own),
            poll: every(POLL),
            polling: true,
            probe: every(PROBE),
            waiting: VecDeque::new(),
        })
    }

    /// What is known of the uplinks.
    pub fn movements(&self) -> &Movements {
        &self.movements
    }

    /// Watches other uplinks from now on.
    pub fn reconfigure(
        &mut self,
        uplinks: impl IntoIterator<Item = InterfaceName>,
        own: Vec<Ipv6Net>,
    ) {
        self.waiting.extend(self.movements.reconfigure(uplinks, own));
    }

    /// Whether carrier is polled, beside being reported; on at the start. Worth switching off
    /// while nothing is sent.
    pub fn set_polling(&mut self, polling: bool) {
        self.polling = polling;
    }

    /// The next movement. Safe to cancel.
    pub async fn next(&mut self) -> Result<Movement, NetlinkError> {
        loop {
            if let Some(movement) = self.waiting.pop_front() {
                return Ok(movement);
            }
            tokio::select! {
                event = self.events.next() => {
                    self.waiting.extend(self.movements.handle(event?));
                }
                _ = self.poll.tick(), if self.polling => self.look().await?,
                _ = self.probe.tick() => self.ask().await,
            }
        }
    }

    async fn look(&mut self) -> Result<(), NetlinkError> {
        for index in self.movements.active() {
            let event = match self.netlink.link_by_index(index).await? {
                Some(facts) => LinkEvent::Link(facts),
                None => LinkEvent::LinkGone(index),
            };
            self.waiting.extend(self.movements.handle(event));
        }
        Ok(())
    }

    async fn ask(&mut self) {
        for (index, router) in self.movements.unreachable_routers() {
            // The link may be gone by now; then its report is on the way.
            if let Err(error) = self.netlink.probe_neighbour(index, router).await {
                tracing::debug!(%error, "could not probe a router");
            }
        }
    }
}
