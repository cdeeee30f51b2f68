//! Links that come and go again and again are watched until they stay.
//!
//! That a link went is told at once, always. That it came is told at once too, unless it went
//! often of late: then it has to stay for a while that doubles each time, so that nobody is asked
//! to bind what is gone before the answer comes, and neither the agent nor the kernel's tables are
//! worked by a loose plug. Meanwhile it is asked a few times a second for the number of its falls.
//!
//! ```text
//! times it went of late    up to 3    4        5        6        7        8 and more
//! it has to stay           -          100 ms   200 ms   400 ms   800 ms   1.6 s
//! ```
//!
//! Every ten seconds of rest halve the number. The longest wait is short on purpose: a link that
//! may be the only one is bound again within two seconds of its last fall. How long one that was
//! bad carries nothing while there are others is another question, which its `hold` answers.
//!
//! Another care-of address counts as going and coming; the one before is kept while it still
//! serves. Of smaller changes (a further address, another router) ten a second are told as they
//! come, and the last of the others at the end of their second. What a movement detector outside
//! says of its link is told as it says it.

use std::net::Ipv6Addr;
use std::time::Duration;

/// Times that a link may go of late without being watched.
const FREE: u32 = 3;

/// How long one has to stay that went once more than that.
const FIRST: Duration = Duration::from_millis(100);

/// Beyond this number they are not counted: 100 ms doubled four times are 1.6 s.
const MOST: u32 = FREE + 5;

/// Rest that halves the number.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// Smaller changes that are told as they come, in each [`SECOND`].
const SMALL: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// What one uplink did of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unrest {
    /// Times it went, as they counted at the last of them.
    number: u32,
    /// Times it went since it is watched.
    falls: u64,
    last: Duration,
    /// The care-of address that it could have, and since when without a break.
    coming: Option<(Ipv6Addr, Duration)>,
    /// Whether people know that it is watched.
    told: bool,
    /// When the second of the present small changes began, and how many there were.
    small: (Duration, u32),
    /// When the small change is told that waits.
    small_due: Option<Duration>,
}

impl Unrest {
    /// It went, or what it was about to be is gone.
    pub fn went(&mut self, now: Duration) {
        self.number = (self.number_at(now) + 1).min(MOST);
        self.falls += 1;
        self.last = now;
        self.coming = None;
        self.small_due = None;
    }

    /// Times it went since it is watched, those in which it was not used again between included.
    pub fn falls(&self) -> u64 {
        self.falls
    }

    /// It is not attached, and nothing is there to attach it to.
    pub fn away(&mut self, now: Duration) {
        if self.coming.is_some() {
            self.went(now);
        }
    }

    /// It is attached and as it was told.
    pub fn rests(&mut self) {
        self.coming = None;
        self.small_due = None;
    }

    /// It is told that it is attached.
    pub fn came(&mut self) {
        self.rests();
        self.told = false;
    }

    /// Whether this is what it is about to be already.
    pub fn is_coming(&self, care_of: Ipv6Addr) -> bool {
        self.coming.is_some_and(|(known, _)| known == care_of)
    }

    /// Whether it has stayed for long enough with this care-of address.
    pub fn stays(&mut self, now: Duration, care_of: Ipv6Addr) -> bool {
        if !self.is_coming(care_of) {
            self.coming = Some((care_of, now));
        }
        self.ready_at().is_none_or(|at| at <= now)
    }

    /// Whether it would be told at once that it came.
    pub fn is_calm(&self, now: Duration) -> bool {
        self.number_at(now) <= FREE
    }

    /// Whether nobody was told so far that it is watched.
    pub fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether a small change is told now.
    pub fn changes_a_little(&mut self, now: Duration) -> bool {
        let (began, number) = self.small;
        if now.saturating_sub(began) >= SECOND {
            self.small = (now, 0);
        } else if number >= SMALL {
            self.small_due = Some(began + SECOND);
            return false;
        }
        self.small.1 += 1;
        self.small_due = None;
        true
    }

    /// When there is something to tell of it if nothing else happens.
    pub fn deadline(&self) -> Option<Duration> {
        [self.ready_at(), self.small_due].into_iter().flatten().min()
    }

    fn ready_at(&self) -> Option<Duration> {
        let (_, since) = self.coming?;
        let over = self.number_at(since).saturating_sub(FREE);
        let wait = over.checked_sub(1).map_or(Duration::ZERO, |doublings| FIRST * (1 << doublings));
        Some(since + wait)
    }

    fn number_at(&self, now: Duration) -> u32 {
        let halvings = now.saturating_sub(self.last).as_millis() / HALF_LIFE.as_millis();
        self.number.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);

    /// How long it has to stay after having gone so often, 20 ms apart.
    fn wait_after(times: u64) -> Duration {
        let mut unrest = Unrest::default();
        (0..times).for_each(|time| unrest.went(ms(time * 20)));
        let now = ms(times * 20);
        match unrest.stays(now, CARE_OF) {
            true => Duration::ZERO,
            false => unrest.deadline().expect("it is watched") - now,
        }
    }

    #[test]
    fn each_time_doubles_the_wait_up_to_a_limit() {
        let waits = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3000].map(|times| wait_after(times).as_millis());
        assert_eq!(waits, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 1600, 1600]);
    }

    #[test]
    fn rest_halves_what_is_held_against_it() {
        let mut unrest = Unrest::default();
        (0..20).for_each(|_| unrest.went(ms(0)));
        let waits = [0, 9_999, 10_000, 20_000].map(|at| {
            let mut then = unrest;
            then.stays(ms(at), CARE_OF);
            (then.deadline().expect("watched or ready") - ms(at)).as_millis()
        });
        assert_eq!(waits, [1600, 1600, 100, 0], "8, 8, 4 and 2 times");
        assert_eq!((unrest.number_at(Duration::MAX), unrest.falls()), (0, 20), "none is forgotten");
    }

    #[test]
    fn who_goes_while_it_is_watched_begins_anew() {
        let mut unrest = Unrest::default();
        (0..4).for_each(|_| unrest.went(ms(0)));
        assert!(!unrest.stays(ms(10), CARE_OF));
        assert!(!unrest.stays(ms(109), CARE_OF), "asked again, it is the same stay");
        assert!(unrest.stays(ms(110), CARE_OF));
        unrest.away(ms(111));
        assert!(!unrest.stays(ms(120), CARE_OF));
        assert_eq!(unrest.deadline(), Some(ms(320)), "the fifth time");
        // Being away for longer is no further time.
        unrest.away(ms(130));
        unrest.away(ms(140));
        assert_eq!((unrest.number, unrest.falls()), (6, 6));
        assert!(unrest.tell() && !unrest.tell(), "people are told once");
        unrest.came();
        assert!(unrest.tell());
    }

    #[test]
    fn small_changes_are_told_ten_times_a_second() {
        let mut unrest = Unrest::default();
        let told = (0..100).filter(|at| unrest.changes_a_little(ms(2000 + at))).count();
        assert_eq!((told, unrest.deadline()), (10, Some(ms(3000))));
        assert!(unrest.changes_a_little(ms(3000)));
        assert_eq!(unrest.deadline(), None);
    }
}
