//! What the service manager is told: that the daemon is ready, that its packet loops turn, and that
//! it stops (`sd_notify`).
//!
//! A mobile is ready when its first binding stands, so that what is started after it has its home
//! address; on the road there may be no network for hours, so it is ready without one after
//! [`PATIENCE`], and says so. Everybody else is ready when the sockets are.
//!
//! The watchdog is fed only if **every packet thread** has answered since it was fed last: a daemon
//! whose owner loop turns while its packets stand still is restarted like one that hangs.

use std::time::Duration;

use sd_notify::NotifyState;

use super::owner::Owner;
use crate::packets::PacketThread;

/// How long a mobile waits for its first binding before it says that it is ready without.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often within the manager's period the watchdog is fed.
const FEEDS: u32 = 3;

/// What the service manager knows.
#[derive(Debug)]
pub(super) struct Service {
    /// Until when it is told nothing for want of a binding; `None` once it was told.
    ready_until: Option<Duration>,
    watchdog: Option<Watchdog>,
}

#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every: Duration,
    next: Duration,
    /// Threads that had not answered when it was to be fed; told once.
    silent: usize,
}

impl Service {
    /// Nothing is told yet. `now` is the monotonic clock, in which all of this is counted.
    pub(super) fn new(now: Duration) -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|period| {
            let every = (period / FEEDS).max(Duration::from_millis(1));
            Watchdog { every, next: now + every, silent: 0 }
        });
        Self { ready_until: Some(now + PATIENCE), watchdog }
    }

    /// When it has to be looked at again without anything else having happened.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let next = self.watchdog.map(|watchdog| watchdog.next);
        self.ready_until.into_iter().chain(next).min()
    }
}

/// Tells the manager, if there is one.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

impl Owner {
    /// Tells the service manager what it does not know yet.
    pub(super) fn tell_service(&mut self) {
        let now = self.now().monotonic;
        if let Some(until) = self.service.ready_until {
            let bound = self.homes.iter().filter(|home| {
                let list = home.node.update_list();
                list.entries.iter().any(|entry| entry.is_registered())
            });
            let (bound, homes) = (bound.count(), self.homes.len());
            if bound == homes || now >= until {
                self.service.ready_until = None;
                let status = match (homes, bound) {
                    (0, _) => "ready".to_owned(),
                    (1, 1) => "registered at home".to_owned(),
                    (1, 0) => "ready, and not registered yet".to_owned(),
                    _ => format!("registered at {bound} of {homes} homes"),
                };
                tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
            }
        }
        let Some(mut watchdog) = self.service.watchdog else { return };
        if now < watchdog.next {
            return;
        }
        watchdog.next = now + watchdog.every;
        let silent = self.packet_threads().filter(|thread| !thread.answers()).count();
        if silent == 0 {
            tell(&[NotifyState::Watchdog]);
        } else if watchdog.silent == 0 {
            tracing::error!(silent, "packet threads do not answer; the watchdog is not fed");
        }
        watchdog.silent = silent;
        self.packet_threads().for_each(PacketThread::ask);
        self.service.watchdog = Some(watchdog);
    }

    /// That it is about to end.
    pub(super) fn tell_service_of_the_end(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("de-registering")]);
    }

    fn packet_threads(&self) -> impl Iterator<Item = &PacketThread> {
        let uplinks = self.access.values().map(|access| &access.thread);
        self.tunnels().flat_map(|tunnel| tunnel.threads()).chain(uplinks)
    }
}
