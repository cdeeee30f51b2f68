//! What waits for the owner loop, and whose turn it is.
//!
//! ```text
//!   packet threads ──► Gate ──authentic──► by mobile ──────┐
//!                        │                                 ├─ in turns ──► owner loop
//!                        ├──anything else──► by network ───┘
//!                        └──forged, worthless: counted, and gone
//! ```
//!
//! A Binding Update for a home agent here is authenticated by the thread that received it, in its
//! receive buffer (req T-01). What a mobile's key vouches for waits in that mobile's own room, and
//! mobiles take turns; all else waits by the /64 it came from, and between two mobiles one of those
//! is heard. So a storm of forged updates ends in the receiving thread, a storm of repeated ones
//! fills the room of the mobile that they are copies of, and who floods with good ones waits for
//! himself. Wrong authentication data is answered (RFC 4285 §5.3), so a few of those get through,
//! by budget for each network.
//!
//! The lock is held for the time of one push or one pop, by messages of signaling alone.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_policy::{HomeAddress, HomeName};
use mtun_signaling::agent::{Gate, Standing};
use mtun_signaling::machine::Envelope;
use mtun_signaling::shares::Shares;
use mtun_signaling::turns::{Bounds, Queued, Turns};
use tokio::sync::Notify;

use crate::daemon::ProbeAnswer;

/// Updates of one mobile that may wait: a retransmission and a movement, twice.
const OF_A_MOBILE: usize = 4;
/// Of all mobiles together, beyond the first of each.
const OF_MOBILES: usize = 16_384;
/// Networks of strangers that may have something waiting, messages of one, and of all beyond that.
const NETWORKS: usize = 1_024;
const OF_A_NETWORK: usize = 64;
const OF_NETWORKS: usize = 1_024;
/// Forged updates a second of one network that are handed on, to be answered.
const FORGED_TOLD: u32 = 3;

/// What packet threads hand to the owner loop.
#[derive(Debug)]
pub enum Arrived {
    /// A Mobility Header.
    Message {
        /// Index of the interface it came by; `None` if it entered the tunnel interface here.
        interface: Option<u32>,
        /// Whether it came through the tunnel, from an admitted sender.
        tunnelled: bool,
        /// The addresses around it.
        envelope: Envelope,
        /// The Mobility Header.
        message: Vec<u8>,
    },
    /// A packet came with the Home Address option of somebody who is not bound here.
    UnknownBinding {
        /// Where it came from.
        source: Ipv6Addr,
        /// Our address that it was for.
        destination: Ipv6Addr,
        /// The address of the option.
        home_address: HomeAddress,
    },
    /// An ICMPv6 message of home agent or prefix discovery.
    Discovery {
        /// The addresses around it.
        envelope: Envelope,
        /// The message.
        message: Vec<u8>,
    },
    /// A probe of ours was answered.
    Probed(ProbeAnswer),
    /// An ICMPv6 error says that a Mobility Header of ours did not arrive.
    Failed {
        /// Where ours came from.
        source: Ipv6Addr,
        /// Where it was going.
        destination: Ipv6Addr,
        /// ICMPv6 type.
        kind: u8,
        /// ICMPv6 code.
        code: u8,
    },
}

impl Arrived {
    /// The network that has to wait if there is too much of it.
    fn network(&self) -> u64 {
        let address = match self {
            // A room for each link, which nobody's signaling can fill.
            Self::Probed(answer) => return u64::from(answer.bid.get()),
            Self::Message { envelope, .. } | Self::Discovery { envelope, .. } => envelope.source,
            Self::UnknownBinding { source, .. } => *source,
            Self::Failed { destination, .. } => *destination,
        };
        network(address)
    }
}

fn network(address: Ipv6Addr) -> u64 {
    (u128::from(address) >> 64) as u64
}

/// The home network whose updates one gate judges.
#[derive(Debug)]
pub struct Door {
    /// Its name, for the counters.
    pub home: HomeName,
    /// Who has which key.
    pub gate: Gate,
}

/// The queue in front of the owner loop.
#[derive(Debug)]
pub struct Arrivals {
    waiting: Mutex<Waiting>,
    doors: ArcSwap<Vec<Door>>,
    pushed: Notify,
}

#[derive(Debug)]
struct Waiting {
    mobiles: Turns<HomeAddress, Arrived>,
    strangers: Turns<u64, Arrived>,
    /// Whether a mobile was heard last.
    mobile_was_heard: bool,
    told: Shares,
    /// What was dropped, by home network and reason.
    dropped: BTreeMap<(Option<HomeName>, &'static str), u64>,
}

impl Waiting {
    fn lose(&mut self, home: Option<&HomeName>, reason: &'static str) {
        *self.dropped.entry((home.cloned(), reason)).or_default() += 1;
    }

    fn count(&mut self, home: Option<&HomeName>, queued: Queued) {
        match queued {
            Queued::Waits => {}
            Queued::Instead => self.lose(home, "displaced"),
            Queued::Again => self.lose(home, "repeated"),
            Queued::Full => self.lose(home, "queue-full"),
            Queued::Crowded => self.lose(home, "crowded"),
        }
    }
}

impl Arrivals {
    /// Nothing waits, and nobody is known. `key` is anything that nobody outside knows.
    pub fn new(key: u64) -> Self {
        let bounds = |parties, each, further| Bounds { parties, each, further };
        Self {
            waiting: Mutex::new(Waiting {
                // No more of them than there are mobiles with keys.
                mobiles: Turns::new(bounds(usize::MAX, OF_A_MOBILE, OF_MOBILES)),
                strangers: Turns::new(bounds(NETWORKS, OF_A_NETWORK, OF_NETWORKS)),
                mobile_was_heard: false,
                told: Shares::new(key, FORGED_TOLD),
                dropped: BTreeMap::new(),
            }),
            doors: ArcSwap::default(),
            pushed: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on these are the home networks served here, and those their mobiles' keys.
    pub fn set_doors(&self, doors: Vec<Door>) {
        self.doors.store(doors.into());
    }

    /// Takes a Mobility Header in, or counts why not. Only what waits is copied.
    pub fn message(
        &self,
        now: Duration,
        interface: Option<u32>,
        tunnelled: bool,
        envelope: Envelope,
        message: &[u8],
    ) {
        let doors = self.doors.load();
        let mut judged = doors.iter().map(|door| (&door.home, door.gate.judge(&envelope, message)));
        let judged = judged.find(|(_, standing)| *standing != Standing::Other);
        let (home, standing) = match judged {
            Some((home, standing)) => (Some(home), standing),
            None => (None, Standing::Other),
        };
        let arrived =
            || Arrived::Message { interface, tunnelled, envelope, message: message.to_vec() };
        let mut waiting = self.waiting();
        let queued = match standing {
            Standing::Authentic { home_address, stamp } => {
                waiting.mobiles.push(home_address, stamp.map(|stamp| stamp.0), arrived)
            }
            Standing::Unprotected(home_address) => {
                waiting.mobiles.push(home_address, None, arrived)
            }
            Standing::Worthless(reason) => return waiting.lose(home, reason.reason()),
            Standing::Forged(_) if !waiting.told.take(now, envelope.source) => {
                return waiting.lose(home, "forged");
            }
            Standing::Forged(_) | Standing::Other => {
                waiting.strangers.push(network(envelope.source), None, arrived)
            }
        };
        waiting.count(home, queued);
        drop(waiting);
        self.pushed.notify_one();
    }

    /// Takes anything else in.
    pub fn other(&self, arrived: Arrived) {
        let mut waiting = self.waiting();
        let queued = waiting.strangers.push(arrived.network(), None, || arrived);
        waiting.count(None, queued);
        drop(waiting);
        self.pushed.notify_one();
    }

    /// What is heard next: a mobile, then a stranger, as long as there are both.
    pub fn take(&self) -> Option<Arrived> {
        let mut waiting = self.waiting();
        let mobile_first = !waiting.mobile_was_heard || waiting.strangers.is_empty();
        let mobile = mobile_first.then(|| waiting.mobiles.pop()).flatten();
        waiting.mobile_was_heard = mobile.is_some();
        let arrived = mobile.map(|(_, arrived)| arrived);
        arrived.or_else(|| waiting.strangers.pop().map(|(_, arrived)| arrived))
    }

    /// Waits until something waits.
    pub async fn ready(&self) {
        loop {
            {
                let waiting = self.waiting();
                if !(waiting.mobiles.is_empty() && waiting.strangers.is_empty()) {
                    return;
                }
            }
            self.pushed.notified().await;
        }
    }

    /// What was dropped, by home network and reason.
    pub fn dropped(&self) -> BTreeMap<(Option<HomeName>, &'static str), u64> {
        self.waiting().dropped.clone()
    }
}

#[cfg(test)]
#[path = "arrivals/tests.rs"]
mod tests;
