//! How long a home agent takes to answer, by link.
//!
//! Every Binding Update is a question and its acknowledgement the answer, so the round trip of each
//! link is known without a packet more. An update that had to be sent again is left out: nobody
//! can say which of the two was answered (Karn's rule).

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_policy::Bid;

/// Updates that wait for their answers, and what the last answers took.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    /// By home and link; `None` for an update that was repeated.
    waiting: BTreeMap<(usize, Bid), Option<Duration>>,
    last: BTreeMap<Bid, Duration>,
}

impl RoundTrips {
    /// A Binding Update of a home left by a link.
    pub fn sent(&mut self, home: usize, bid: Bid, now: Duration) {
        let repeated = self.waiting.contains_key(&(home, bid));
        self.waiting.insert((home, bid), (!repeated).then_some(now));
    }

    /// The binding of a link was acknowledged; what that took, if it can be said.
    pub fn answered(&mut self, home: usize, bid: Bid, now: Duration) -> Option<Duration> {
        let took = now.saturating_sub(self.waiting.remove(&(home, bid))??);
        self.last.insert(bid, took);
        Some(took)
    }

    /// The binding of a link ended: what is known of its path is of the past.
    pub fn ended(&mut self, home: usize, bid: Bid) {
        self.waiting.remove(&(home, bid));
        self.last.remove(&bid);
    }

    /// What the last answer by a link took.
    pub fn last(&self, bid: Bid) -> Option<Duration> {
        self.last.get(&bid).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_repeated_update_says_nothing() {
        let (wlan, wwan) = (Bid::new(1).unwrap(), Bid::new(2).unwrap());
        let mut trips = RoundTrips::default();
        assert_eq!(trips.answered(0, wlan, ms(5)), None, "nothing was asked");
        trips.sent(0, wlan, ms(10));
        trips.sent(0, wwan, ms(11));
        assert_eq!(trips.answered(0, wlan, ms(14)), Some(ms(4)));
        assert_eq!(trips.answered(0, wlan, ms(15)), None, "one answer to one question");
        trips.sent(0, wwan, ms(1011));
        assert_eq!(trips.answered(0, wwan, ms(1031)), None, "of which of the two?");
        assert_eq!((trips.last(wlan), trips.last(wwan)), (Some(ms(4)), None));
        trips.sent(1, wwan, ms(2000));
        assert_eq!(trips.answered(1, wwan, ms(2030)), Some(ms(30)), "homes are told apart");
        trips.ended(1, wwan);
        assert_eq!(trips.last(wwan), None);
    }
}
