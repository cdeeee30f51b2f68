//! The numbers of packets that leave in copies.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{SWEEP_FROM, Whose};
use crate::wire::CopySequence;
use crate::wire::copy_sequence::STREAMS;

/// Numbers of a registration that sent no copies for so long are forgotten. The other end forgets
/// later, and an epoch of its own tells it that the count begins anew.
const IDLE: Duration = Duration::from_secs(300);

/// The next numbers of every registration that sends copies.
#[derive(Debug)]
pub(crate) struct Numbers {
    senders: Mutex<Senders>,
}

#[derive(Debug)]
struct Senders {
    known: HashMap<Whose, Sender, ahash::RandomState>,
    sweep_at: usize,
    next_epoch: u32,
}

#[derive(Debug)]
struct Sender {
    epoch: u32,
    next: [u32; STREAMS as usize],
    used: Duration,
}

impl Numbers {
    /// Nobody has sent any; `first_epoch` is one that was hardly ever used before.
    pub fn new(hasher: ahash::RandomState, first_epoch: u32) -> Self {
        let known = HashMap::with_hasher(hasher);
        let senders = Senders { known, sweep_at: SWEEP_FROM, next_epoch: first_epoch };
        Self { senders: Mutex::new(senders) }
    }

    /// The place of the next packet of a flow. It has to leave: at the other end a number that
    /// never comes is a packet that was lost.
    ///
    /// `flow` is the same for all packets of a flow.
    pub fn next(&self, whose: Whose, flow: u32, now: Duration) -> CopySequence {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let Senders { known, sweep_at, next_epoch } = &mut *senders;
        if known.len() >= *sweep_at && !known.contains_key(&whose) {
            known.retain(|_, sender| now.saturating_sub(sender.used) < IDLE);
            *sweep_at = SWEEP_FROM.max(known.len() * 2);
        }
        let sender = known.entry(whose).or_insert_with(|| {
            let epoch = *next_epoch;
            *next_epoch = epoch.wrapping_add(1);
            Sender { epoch, next: [0; STREAMS as usize], used: now }
        });
        sender.used = now;
        let stream = (flow % u32::from(STREAMS)) as u16;
        let next = &mut sender.next[usize::from(stream)];
        let sequence = *next;
        *next = sequence.wrapping_add(1);
        CopySequence { stream, epoch: sender.epoch, sequence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Side;
    use mtun_policy::HomeAddress;

    fn whose(number: u16) -> Whose {
        (HomeAddress([0x2001, 0xdb8, 0, 0, 0, 0, 0, number].into()), Side::Near)
    }

    #[test]
    fn each_stream_counts_for_itself() {
        let numbers = Numbers::new(ahash::RandomState::new(), 7);
        let draw = |who: u16, flow: u32| {
            let CopySequence { stream, epoch, sequence } =
                numbers.next(whose(who), flow, Duration::ZERO);
            (stream, epoch, sequence)
        };
        assert_eq!(draw(1, 3), (3, 7, 0));
        assert_eq!(draw(1, 3), (3, 7, 1));
        assert_eq!(draw(1, 16 + 3), (3, 7, 2), "a flow that shares its stream");
        assert_eq!(draw(1, 4), (4, 7, 0), "another stream");
        assert_eq!(draw(2, 3), (3, 8, 0), "another mobile");
        assert_eq!(draw(1, 3), (3, 7, 3));
    }

    #[test]
    fn the_idle_are_forgotten_and_begin_another_epoch() {
        let numbers = Numbers::new(ahash::RandomState::new(), u32::MAX);
        let first = numbers.next(whose(0), 0, Duration::ZERO);
        assert_eq!(first.epoch, u32::MAX);
        for other in 1..SWEEP_FROM as u16 {
            numbers.next(whose(other), 0, IDLE);
        }
        // One more than there is room for: the silent one goes.
        numbers.next(whose(1000), 0, IDLE);
        let known = numbers.senders.lock().unwrap().known.len();
        assert_eq!(known, SWEEP_FROM);
        let again = numbers.next(whose(0), 0, IDLE);
        assert_eq!(again.sequence, 0);
        assert_ne!(again.epoch, first.epoch);
    }
}
