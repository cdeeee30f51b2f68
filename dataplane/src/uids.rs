//! The user of a local socket, asked for when its flow is born.
//!
//! Only flows of this very machine have one, and it is asked for only if some rule looks at it.
//! The answer is kept with the flow; it is asked again when the flow begins anew: with the first
//! packet of a connection, or after a silence in which the ports may have gone to somebody else.

use std::time::Duration;

use mtun_policy::{Field, FlowKey, Ingress};

use crate::memory::Remembered;
use crate::packet::Inner;
use crate::snapshot::Snapshot;

/// Who can tell whose a local flow is. A lookup may take microseconds, never wait.
pub trait Uids: Send + Sync + std::fmt::Debug {
    /// The user whose socket sends with these addresses and ports; `None` if nobody knows.
    fn uid(&self, key: &FlowKey) -> Option<u32>;
}

/// After this silence the ports may be somebody else's.
const ANEW: Duration = Duration::from_secs(10);

/// The user of the flow that `key` belongs to, if a rule of its home asks.
pub(crate) fn of(
    uids: Option<&dyn Uids>,
    snapshot: &Snapshot,
    inner: &Inner,
    key: &FlowKey,
    memory: Option<&Remembered>,
    now: Duration,
) -> Option<u32> {
    let uids = uids.filter(|_| key.ingress == Ingress::LOCAL)?;
    let registration = snapshot.updates.lookup(key.source)?;
    if !registration.consults.contains(Field::Uid) {
        return None;
    }
    let known = memory.filter(|memory| {
        !inner.opens && memory.last_sent.is_some_and(|sent| now.saturating_sub(sent) < ANEW)
    });
    match known.and_then(|memory| memory.answer) {
        Some(answer) if answer.marks.uid().is_some() => answer.marks.uid(),
        // Nobody knew when these rules were first asked, and nobody will.
        Some(answer) if answer.generation == registration.generation => None,
        _ => uids.uid(key),
    }
}
