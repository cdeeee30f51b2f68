//! One binding at one peer, as the mobile sees it.
//!
//! A registration follows one care-of address from the moment its uplink has it until the
//! agent has forgotten it. It knows nothing of messages: its owner tells it when an update that
//! names it left, and what came of it. What it promises to remember is whether the agent *may*
//! hold the binding, because such a binding must be de-registered even when its registration was
//! never acknowledged.
//!
//! The waits of RFC 6275 §11.8 live here too. Back-off is kept per care-of address, so a silent
//! uplink does not slow down the others.

use std::fmt;
use std::time::Duration;

use mtun_policy::CareOfAddress;
use serde::{Deserialize, Serialize};

use crate::wire::Status;

/// First wait for an acknowledgement (RFC 6275 §12).
pub const INITIAL_BINDACK_TIMEOUT: Duration = Duration::from_secs(1);
/// First wait while the agent holds no binding, longer because it may have to probe for a
/// duplicate address (RFC 6275 §13).
pub const INITIAL_BINDACK_TIMEOUT_FIRST_REG: Duration = Duration::from_millis(1500);
/// Longest wait for an acknowledgement (RFC 6275 §12).
pub const MAX_BINDACK_TIMEOUT: Duration = Duration::from_secs(32);
/// First wait after a refusal that the mobile cannot cure by itself.
pub const FIRST_REFUSAL_WAIT: Duration = Duration::from_secs(5);
/// Longest wait after repeated refusals: an operator's correction is noticed within minutes.
pub const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(320);

/// How long to wait for an acknowledgement when `unanswered` updates went before this one.
///
/// `registered` says whether the agent holds a binding of this mobile.
pub fn acknowledgement_wait(unanswered: u32, registered: bool) -> Duration {
    // req R-MN-02, MN-06 (RFC 6275 §11.8): 1.5 s for the first registration, else 1 s, doubled
    // each time up to 32 s.
    let first =
        if registered { INITIAL_BINDACK_TIMEOUT } else { INITIAL_BINDACK_TIMEOUT_FIRST_REG };
    first.saturating_mul(1 << unanswered.min(16)).min(MAX_BINDACK_TIMEOUT)
}

/// How long to wait after the `refusals`th refusal in a row, counted from one.
pub fn refusal_wait(refusals: u32) -> Duration {
    let doublings = refusals.saturating_sub(1).min(16);
    FIRST_REFUSAL_WAIT.saturating_mul(1 << doublings).min(MAX_REFUSAL_WAIT)
}

/// How far a registration has come (protocol states of RFC 6275 §11, one per BID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// To be registered; in single care-of address mode also the uplinks held in reserve.
    Wanted,
    /// Named in a registering update that waits for its acknowledgement.
    Awaiting,
    /// Acknowledged.
    Bound,
    /// Still bound, and named in an update that waits for its acknowledgement.
    Refreshing,
    /// Refused; asked again later. The agent may still hold what it granted before.
    Refused,
    /// The uplink is gone and the agent may hold the binding: to be de-registered.
    Leaving,
    /// Named in a de-registering update that waits for its acknowledgement.
    Deregistering,
    /// On the home link, where no binding is needed.
    AtHome,
    /// Neither here nor there; the owner drops the entry.
    Gone,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Wanted => "wanted",
            Self::Awaiting => "awaiting",
            Self::Bound => "bound",
            Self::Refreshing => "refreshing",
            Self::Refused => "refused",
            Self::Leaving => "leaving",
            Self::Deregistering => "deregistering",
            Self::AtHome => "at home",
            Self::Gone => "gone",
        })
    }
}

/// Why a binding stopped being usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnboundReason {
    /// Its uplink is gone.
    LinkDown,
    /// Its uplink has another address, which is not registered yet.
    CareOfChanged,
    /// Its lifetime ran out unrefreshed.
    Expired,
    /// The agent refused it.
    Refused(Status),
    /// The agent holds no such binding.
    Forgotten,
    /// The agent takes one care-of address only, and bindings with BIDs ended.
    SingleCareOf,
    /// The mobile is on its home link and has ended its bindings.
    ReturnedHome,
    /// The mobile stopped.
    Stopped,
}

impl fmt::Display for UnboundReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkDown => f.write_str("link down"),
            Self::CareOfChanged => f.write_str("care-of address changed"),
            Self::Expired => f.write_str("expired"),
            Self::Refused(status) => write!(f, "refused: {status}"),
            Self::Forgotten => f.write_str("not known to the agent"),
            Self::SingleCareOf => f.write_str("agent takes a single care-of address"),
            Self::ReturnedHome => f.write_str("returned home"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What the agent granted, counted from when the update was sent (RFC 6275 §11.7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// End of the lifetime.
    pub expires: Duration,
    /// When to ask again.
    pub refresh: Duration,
}

/// What a [`Registration`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The uplink has this address.
    CareOf { care_of: CareOfAddress, priority: u8 },
    /// The uplink is gone.
    PathLost,
    /// A registering update left that names it; the agent may hold it until then.
    Registering { until: Duration },
    /// A de-registering update left that names it.
    Deregistering,
    /// The outstanding update was given up.
    Unanswered,
    /// The agent granted it.
    Granted(Grant),
    /// The agent holds nothing under this BID: removed as asked, or never there.
    Removed,
    /// The agent refused; `kept` when what it granted before stands.
    Refused { status: Status, retry: Duration, kept: bool },
    /// The agent says that it has ended the binding; asked again after `retry`.
    Revoked { status: Status, retry: Duration },
    /// The agent wants to be asked again before the refresh is due.
    RefreshDue,
    /// Time passed.
    Deadline(Duration),
}

/// What follows from an event for the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Usable; `first` unless it was already.
    Up { grant: Grant, first: bool },
    /// Was usable and is not.
    Down(UnboundReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Wanted,
    Awaiting,
    Bound(Grant),
    Refreshing(Grant),
    Refused { retry: Duration, held: Option<Grant> },
    Leaving { retry: Duration },
    Deregistering,
    Gone,
}

/// One care-of address on its way into and out of the agent's cache.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    care_of: CareOfAddress,
    priority: u8,
    state: State,
    /// When it is worth an update of its own, while it is [`Phase::Wanted`].
    wanted_from: Duration,
    /// Until when the agent may hold a binding under this BID, acknowledged or not.
    held_until: Option<Duration>,
    /// Updates sent by this uplink since the agent answered one of them.
    pub(crate) unanswered: u32,
    /// Refusals in a row.
    refusals: u32,
    pub(crate) last_status: Option<Status>,
}

impl Registration {
    /// A care-of address that the agent has not heard of; it joins any update that leaves, and is
    /// worth one of its own from `wanted_from` on.
    pub(crate) fn new(care_of: CareOfAddress, priority: u8, wanted_from: Duration) -> Self {
        Self {
            care_of,
            priority,
            state: State::Wanted,
            wanted_from,
            held_until: None,
            unanswered: 0,
            refusals: 0,
            last_status: None,
        }
    }

    pub(crate) fn care_of(&self) -> CareOfAddress {
        self.care_of
    }

    pub(crate) fn priority(&self) -> u8 {
        self.priority
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Wanted => Phase::Wanted,
            State::Awaiting => Phase::Awaiting,
            State::Bound(_) => Phase::Bound,
            State::Refreshing(_) => Phase::Refreshing,
            State::Refused { .. } => Phase::Refused,
            State::Leaving { .. } => Phase::Leaving,
            State::Deregistering => Phase::Deregistering,
            State::Gone => Phase::Gone,
        }
    }

    /// Whether the uplink has its address: packets can leave by it.
    pub(crate) fn is_up(&self) -> bool {
        !matches!(self.state, State::Leaving { .. } | State::Deregistering | State::Gone)
    }

    /// What the agent granted and still holds.
    pub(crate) fn grant(&self) -> Option<Grant> {
        match self.state {
            State::Bound(grant) | State::Refreshing(grant) => Some(grant),
            State::Refused { held, .. } => held,
            _ => None,
        }
    }

    /// Whether the agent may hold a binding under this BID.
    pub(crate) fn may_be_held(&self) -> bool {
        self.held_until.is_some()
    }

    /// From when on a registering update should name it; `None` while that is not called for.
    pub(crate) fn register_due(&self) -> Option<Duration> {
        match self.state {
            State::Wanted => Some(self.wanted_from),
            State::Bound(grant) => Some(grant.refresh),
            State::Refused { retry, .. } => Some(retry),
            _ => None,
        }
    }

    /// From when on a de-registering update should name it; `None` while that is not called for.
    pub(crate) fn deregister_due(&self) -> Option<Duration> {
        match self.state {
            State::Leaving { retry } => Some(retry),
            _ => None,
        }
    }

    /// When [`Event::Deadline`] has something to do.
    pub(crate) fn expiry(&self) -> Option<Duration> {
        let granted = self.grant().map(|grant| grant.expires);
        granted.into_iter().chain(self.held_until).min()
    }

    /// How long to wait before asking again after one more refusal.
    pub(crate) fn next_refusal_wait(&self) -> Duration {
        refusal_wait(self.refusals + 1)
    }

    pub(crate) fn apply(&mut self, event: Event) -> Effect {
        use State::*;
        if let Event::CareOf { care_of, priority } = event {
            return self.care_of_changed(care_of, priority);
        }
        let (state, effect) = match (self.state, event) {
            (_, Event::CareOf { .. }) => (self.state, Effect::None),

            (Bound(_) | Refreshing(_) | Refused { held: Some(_), .. }, Event::PathLost) => {
                (Leaving { retry: Duration::ZERO }, Effect::Down(UnboundReason::LinkDown))
            }
            (Wanted | Awaiting | Refused { held: None, .. }, Event::PathLost) => {
                let leaving = Leaving { retry: Duration::ZERO };
                (if self.may_be_held() { leaving } else { Gone }, Effect::None)
            }
            (Leaving { .. } | Deregistering | Gone, Event::PathLost) => (self.state, Effect::None),

            (state, Event::Registering { until }) => {
                // From the moment the update leaves, the agent may hold the binding, whatever
                // becomes of the acknowledgement.
                self.held_until = self.held_until.max(Some(until));
                let state = match state {
                    Bound(grant) | Refreshing(grant) | Refused { held: Some(grant), .. } => {
                        Refreshing(grant)
                    }
                    Wanted | Awaiting | Refused { held: None, .. } => Awaiting,
                    Leaving { .. } | Deregistering | Gone => state,
                };
                (state, Effect::None)
            }
            (Leaving { .. }, Event::Deregistering) => (Deregistering, Effect::None),
            (_, Event::Deregistering) => (self.state, Effect::None),

            (Awaiting, Event::Unanswered) => (Wanted, Effect::None),
            (Refreshing(grant), Event::Unanswered) => {
                (Bound(Grant { refresh: Duration::ZERO, ..grant }), Effect::None)
            }
            (Deregistering, Event::Unanswered) => (Leaving { retry: Duration::ZERO }, Effect::None),
            (Wanted | Bound(_) | Refused { .. } | Leaving { .. } | Gone, Event::Unanswered) => {
                (self.state, Effect::None)
            }

            (Awaiting | Refreshing(_), Event::Granted(grant)) => {
                let first = self.state == Awaiting;
                self.held_until = Some(grant.expires);
                self.refusals = 0;
                (Bound(grant), Effect::Up { grant, first })
            }
            // Acknowledges an address that the uplink had before, or a binding on its way out:
            // what the agent holds is still to be changed.
            (_, Event::Granted(_)) => (self.state, Effect::None),

            (state, Event::Removed) => {
                self.held_until = None;
                match state {
                    Bound(_) | Refreshing(_) | Refused { held: Some(_), .. } => {
                        (Wanted, Effect::Down(UnboundReason::Forgotten))
                    }
                    Wanted | Awaiting => (Wanted, Effect::None),
                    Refused { held: None, .. } => (state, Effect::None),
                    Leaving { .. } | Deregistering | Gone => (Gone, Effect::None),
                }
            }

            (Awaiting, Event::Refused { retry, .. }) => {
                self.refusals += 1;
                (Refused { retry, held: None }, Effect::None)
            }
            (Refreshing(grant), Event::Refused { status, retry, kept }) => {
                self.refusals += 1;
                if kept {
                    (Refused { retry, held: Some(grant) }, Effect::None)
                } else {
                    let down = Effect::Down(UnboundReason::Refused(status));
                    (Refused { retry, held: None }, down)
                }
            }
            (Deregistering, Event::Refused { retry, .. }) => {
                self.refusals += 1;
                (Leaving { retry }, Effect::None)
            }
            (Wanted | Bound(_) | Refused { .. } | Leaving { .. } | Gone, Event::Refused { .. }) => {
                (self.state, Effect::None)
            }

            // What is asked for at this moment is judged anew.
            (Awaiting, Event::Revoked { .. }) => (Awaiting, Effect::None),
            (state, Event::Revoked { status, retry }) => {
                self.held_until = None;
                match state {
                    Bound(_) | Refreshing(_) | Refused { held: Some(_), .. } => {
                        self.refusals += 1;
                        let down = Effect::Down(UnboundReason::Refused(status));
                        (Refused { retry, held: None }, down)
                    }
                    Leaving { .. } | Deregistering => (Gone, Effect::None),
                    Wanted | Awaiting | Refused { held: None, .. } | Gone => (state, Effect::None),
                }
            }

            (Bound(grant), Event::RefreshDue) => {
                (Bound(Grant { refresh: Duration::ZERO, ..grant }), Effect::None)
            }
            (_, Event::RefreshDue) => (self.state, Effect::None),

            (state, Event::Deadline(now)) => {
                if self.held_until.is_some_and(|until| until <= now) {
                    self.held_until = None;
                }
                let ended = self.grant().is_some_and(|grant| grant.expires <= now);
                let down = Effect::Down(UnboundReason::Expired);
                match state {
                    Bound(_) if ended => (Wanted, down),
                    Refreshing(_) if ended => (Awaiting, down),
                    Refused { retry, .. } if ended => (Refused { retry, held: None }, down),
                    // The agent's own timer removed what could not be de-registered.
                    Leaving { .. } if !self.may_be_held() => (Gone, Effect::None),
                    _ => (state, Effect::None),
                }
            }
        };
        self.state = state;
        effect
    }

    /// req MN-12 (RFC 6275 §11.7.1): another address is registered at once.
    fn care_of_changed(&mut self, care_of: CareOfAddress, priority: u8) -> Effect {
        let moved = self.care_of != care_of;
        let reordered = self.priority != priority;
        self.care_of = care_of;
        self.priority = priority;
        if moved || !self.is_up() {
            self.unanswered = 0;
        }
        let had_grant = self.grant().is_some();
        let (state, effect) = match self.state {
            // req MC-06 (RFC 5648 §6.2): another address is registered under the same BID. Until
            // then the agent refuses packets from it, so the binding is not usable.
            State::Bound(_) | State::Refreshing(_) | State::Refused { .. }
                if moved && had_grant =>
            {
                (State::Wanted, Effect::Down(UnboundReason::CareOfChanged))
            }
            State::Awaiting if moved || reordered => (State::Wanted, Effect::None),
            State::Bound(grant) | State::Refreshing(grant) if reordered => {
                (State::Bound(Grant { refresh: Duration::ZERO, ..grant }), Effect::None)
            }
            // Another address is a reason to ask again at once; the same one announced twice is not.
            State::Refused { held: None, .. } if moved => (State::Wanted, Effect::None),
            State::Leaving { .. } | State::Deregistering | State::Gone => {
                (State::Wanted, Effect::None)
            }
            state => (state, Effect::None),
        };
        self.state = state;
        effect
    }
}

#[cfg(test)]
mod table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_their_first_value_to_thirty_two_seconds() {
        // R-MN-02, MN-06.
        let waits = |registered| {
            (0..8).map(|n| acknowledgement_wait(n, registered).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(waits(true), [1000, 2000, 4000, 8000, 16000, 32000, 32000, 32000]);
        assert_eq!(waits(false), [1500, 3000, 6000, 12000, 24000, 32000, 32000, 32000]);
        assert_eq!(acknowledgement_wait(u32::MAX, true), MAX_BINDACK_TIMEOUT);
    }

    #[test]
    fn refusals_are_asked_again_ever_more_rarely() {
        let waits: Vec<_> = (1..9).map(|n| refusal_wait(n).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 320]);
    }
}
