//! When a process takes over from one that was killed and left its fast path behind.

use std::time::Duration;

use crate::fast_path::LEASE;
use crate::registration::Binding;
use crate::snapshot::Snapshot;

/// Whether what an earlier process left in the kernel may end. Until then its flows go on as it decided
/// them, which is better than no way at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Succession {
    /// Nobody has looked yet.
    #[default]
    Begins,
    /// It may not.
    Waits {
        /// When that was looked at first.
        since: Duration,
        /// Whether there was a way for packets at the last look.
        had_way: bool,
    },
    /// It may.
    Done,
}

impl Succession {
    /// Looks at what is bound now; true from the second look on that finds a way for packets, so that
    /// there is time for more than the first binding, or when the lease is over.
    pub fn is_due(&mut self, snapshot: &Snapshot, now: Duration) -> bool {
        let (since, had_way) = match *self {
            Self::Begins => (now, false),
            Self::Waits { since, had_way } => (since, had_way),
            Self::Done => return true,
        };
        let has_way = has_way(snapshot);
        let is_due = has_way && had_way || now.saturating_sub(since) >= LEASE;
        *self = if is_due { Self::Done } else { Self::Waits { since, had_way: has_way } };
        is_due
    }
}

fn has_way(snapshot: &Snapshot) -> bool {
    let mut registrations = snapshot.updates.iter().chain(snapshot.cache.iter());
    registrations.any(|it| it.bindings.iter().any(Binding::carries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_way_it_waits_for_the_end_of_the_lease() {
        let mut succession = Succession::default();
        let nothing = Snapshot::default();
        let start = Duration::from_secs(7);
        assert!(!succession.is_due(&nothing, start));
        assert!(!succession.is_due(&nothing, start + LEASE - Duration::from_nanos(1)));
        assert!(succession.is_due(&nothing, start + LEASE));
        assert!(succession.is_due(&nothing, start), "once and for all");
    }
}
