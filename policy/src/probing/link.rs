//! The probes of one link.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::figures::Figures;
use super::{BURST, BURST_PAUSE, PROBE_OCTETS, ProbeCounts};
use crate::policy::{Interface, Probe};
use crate::steering::Measurement;
use crate::terms::{Bid, CareOfAddress};

/// A link counts as carrying traffic for so long after a packet: longer than counters of a fast
/// path are apart.
const FLOWING: Duration = Duration::from_millis(1500);

/// A metered link that stands by is probed so many times less often.
const METERED: u32 = 10;

/// The first probes of a binding, which leave at the pace of traffic.
const FIRST: u64 = 3;

/// How often figures are told.
const TOLD: Duration = Duration::from_secs(1);

/// For how long after it left a probe is remembered, so that an answer that is late counts still.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Of the link's rate, one part in so many may be probes.
const BUDGET: u64 = 1000;

/// How far the silence of a link has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Silence {
    /// It answers, or too few were lost.
    #[default]
    No,
    /// A burst was lost in whole. It is not known yet whether it is the link.
    Suspected,
    /// Steering knows.
    Told,
}

/// What a probe that was not answered in time is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Steering is to know.
    Told,
    /// One of a burst, or one that says nothing new.
    Counted,
    /// The last one of a burst that was lost in whole.
    Burst,
}

/// A probe under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sequence: u64,
    sent: Duration,
    until: Duration,
    in_burst: bool,
    /// Whether it was given up.
    lost: bool,
}

/// A time in which a link was answered all that it asked.
#[derive(Clone, Copy, Debug)]
struct Testimony {
    /// When the first probe of it left.
    first: Duration,
    /// When the last one left.
    last: Duration,
}

/// One link.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    pub bid: Bid,
    metered: bool,
    /// Probes are at least so far apart, so that they stay within their budget.
    least: Duration,
    care_of: Option<CareOfAddress>,
    sequence: u64,
    next: Duration,
    sent: Option<Duration>,
    /// Probes of a burst that are to leave still.
    burst: u8,
    flowed: Option<Duration>,
    under_way: VecDeque<UnderWay>,
    /// Since it is bound.
    answers: u64,
    by: Option<Bid>,
    /// When the last of the probes left that were answered, if none was lost after that.
    answered: Option<Duration>,
    /// When the first of the probes left that were lost in a row.
    silent: Option<Duration>,
    /// Whose probes were answered while this one is silent, and in what time none of theirs was lost.
    witnesses: BTreeMap<Bid, Testimony>,
    burst_lost: u8,
    pub silence: Silence,
    figures: Figures,
    told: Option<Duration>,
    pub counts: ProbeCounts,
}

impl Probed {
    pub fn new(bid: Bid, interface: &Interface) -> Self {
        let budget = interface.rate.map(|rate| (rate / BUDGET).max(1));
        let nanoseconds = |budget| u64::from(PROBE_OCTETS) * 8 * 1_000_000_000 / budget;
        Self {
            bid,
            metered: interface.metered,
            least: budget.map_or(Duration::ZERO, |it| Duration::from_nanos(nanoseconds(it))),
            care_of: None,
            sequence: 0,
            next: Duration::ZERO,
            sent: None,
            burst: 0,
            flowed: None,
            under_way: VecDeque::new(),
            answers: 0,
            by: None,
            answered: None,
            silent: None,
            witnesses: BTreeMap::new(),
            burst_lost: 0,
            silence: Silence::No,
            figures: Figures::default(),
            told: None,
            counts: ProbeCounts::default(),
        }
    }

    /// Goes on as the link of this BID did under another policy.
    pub fn adopt(&mut self, before: &Self) {
        let (metered, least) = (self.metered, self.least);
        *self = Self { metered, least, ..before.clone() };
    }

    /// Returns whether the binding is another than before: what was known is of another path then.
    pub fn bound(&mut self, now: Duration, care_of: Option<CareOfAddress>) -> bool {
        if self.care_of == care_of {
            return false;
        }
        self.care_of = care_of;
        self.next = now;
        self.sent = None;
        self.burst = 0;
        self.flowed = None;
        self.under_way.clear();
        self.answers = 0;
        self.by = None;
        self.answered = None;
        self.silent = None;
        self.witnesses.clear();
        self.burst_lost = 0;
        self.silence = Silence::No;
        self.figures = Figures::default();
        self.told = None;
        true
    }

    pub fn flowed(&mut self, now: Duration, pace: &Probe) {
        self.flowed = Some(now);
        // It may have had its next probe in ten seconds.
        if let Some(sent) = self.sent.filter(|_| self.burst == 0) {
            self.next = self.next.min(sent + self.active_pause(pace)).max(now);
        }
    }

    /// Begins a burst, unless there is nothing to find out. Returns since when it is silent.
    pub fn burst(&mut self, now: Duration) -> Option<Duration> {
        let under_way = self.under_way.iter().any(|it| it.in_burst && !it.lost);
        let known = self.silence != Silence::No || self.burst > 0 || under_way;
        if self.care_of.is_none() || known {
            return None;
        }
        self.burst = BURST;
        self.burst_lost = 0;
        self.next = now;
        self.silent_since()
    }

    /// Another link is silent since then: is this one, too?
    pub fn be_witness(&mut self, now: Duration, since: Duration) {
        let asked = self.under_way.iter().any(|it| it.sent >= since && !it.lost);
        if self.may_answer() && !self.answered_since(since) && !asked {
            self.next = self.next.min(now);
        }
    }

    /// Whether it would be answered if it lived, as far as is known.
    pub fn may_answer(&self) -> bool {
        self.care_of.is_some() && self.answers > 0 && self.silence != Silence::Told
    }

    /// Whether it answered a probe that left since then.
    fn answered_since(&self, since: Duration) -> bool {
        self.answered.is_some_and(|at| at >= since)
    }

    /// Notes that another link was answered in time what left at `sent`.
    pub fn note_witness(&mut self, other: Bid, sent: Duration) {
        if self.silent.is_some_and(|since| since <= sent) {
            let testimony =
                self.witnesses.entry(other).or_insert(Testimony { first: sent, last: sent });
            testimony.last = testimony.last.max(sent);
        }
    }

    /// Another link lost a probe: what it said is no proof any more that the agent was there all the
    /// time.
    pub fn forget_witness(&mut self, other: Bid) {
        self.witnesses.remove(&other);
    }

    /// When the last of its probes left that were answered, if none was lost after that.
    pub fn last_answered(&self) -> Option<Duration> {
        self.answered
    }

    /// Whether it lost two probes while another link lost none: the other was answered what left
    /// before them or with them, and what left when they were overdue. Less would not do. By a link
    /// that is slower an agent seems to be silent earlier than by one that is faster, and one that
    /// was away answers all that waited for it one after the other.
    pub fn is_witnessed(&self) -> bool {
        self.witnesses.values().any(|Testimony { first, last }| {
            let between = |it: &&UnderWay| it.lost && it.sent >= *first && it.until <= *last;
            self.under_way.iter().filter(between).nth(1).is_some()
        })
    }

    pub fn answered_by(&self) -> Option<Bid> {
        self.by
    }

    pub fn silent_since(&self) -> Option<Duration> {
        self.silent
    }

    /// Takes an answer; false if nothing waited for it.
    pub fn answer(&mut self, now: Duration, sequence: u64, by: Option<Bid>) -> bool {
        let place = self.under_way.iter().position(|it| it.sequence == sequence);
        let Some(probe) = place.and_then(|place| self.under_way.remove(place)) else {
            return false;
        };
        self.heard();
        match probe.lost {
            true => self.counts.late += 1,
            false => self.counts.answered += 1,
        }
        self.figures.answered(sequence, now.saturating_sub(probe.sent));
        self.answers += 1;
        // What was late may have waited somewhere, and says nothing of when the way was open.
        if !probe.lost {
            self.answered = self.answered.max(Some(probe.sent));
        }
        self.by = by;
        true
    }

    /// The link lives. Returns whether it is bound.
    pub fn heard(&mut self) -> bool {
        if std::mem::take(&mut self.silence) == Silence::Told {
            self.figures.forget_losses();
        }
        self.silent = None;
        self.witnesses.clear();
        (self.burst, self.burst_lost) = (0, 0);
        // What is left of a burst are probes like others.
        self.under_way.iter_mut().for_each(|it| it.in_burst = false);
        self.care_of.is_some()
    }

    /// What is to be told of its figures; `None` if that was a moment ago.
    pub fn measured(&mut self, now: Duration) -> Option<Measurement> {
        let due = self.told.is_none_or(|told| now.saturating_sub(told) >= TOLD);
        (due && self.answers > 0).then(|| {
            self.told = Some(now);
            self.figures.measurement()
        })
    }

    pub fn deadline(&self) -> Option<Duration> {
        let next = self.care_of.map(|_| self.next);
        let waiting = self.under_way.iter().filter(|it| !it.lost).map(|it| it.until);
        waiting.chain(next).min()
    }

    /// Gives every probe under way more time.
    pub fn forgive(&mut self, late: Duration) {
        self.under_way.iter_mut().filter(|it| !it.lost).for_each(|it| it.until += late);
    }

    /// Gives up one probe whose answer is overdue; what that says.
    pub fn overdue(&mut self, now: Duration) -> Option<Lost> {
        let probe = self.under_way.iter_mut().find(|it| !it.lost && it.until <= now)?;
        probe.lost = true;
        let UnderWay { sequence, sent, in_burst, .. } = *probe;
        self.answered = None;
        self.counts.lost += 1;
        self.figures.lost(sequence);
        if self.answers == 0 {
            // Nobody has ever answered here.
            return Some(Lost::Counted);
        }
        self.silent = Some(self.silent.map_or(sent, |since| since.min(sent)));
        if in_burst {
            self.burst_lost += 1;
            if self.burst_lost == BURST && self.silence == Silence::No {
                self.silence = Silence::Suspected;
                return Some(Lost::Burst);
            }
            return Some(Lost::Counted);
        }
        Some(if self.silence == Silence::No { Lost::Told } else { Lost::Counted })
    }

    /// A link is suspected: as long as nobody knows whether it is that one or the agent, this one is
    /// asked as if it carried traffic.
    pub fn hurry(&mut self, now: Duration, pace: &Probe) {
        if let Some(sent) = self.sent.filter(|_| self.may_answer()) {
            self.next = self.next.min((sent + self.active_pause(pace)).max(now));
        }
    }

    fn active_pause(&self, pace: &Probe) -> Duration {
        pace.active_every.max(self.least)
    }

    /// The number of the probe that is to leave, if one is due.
    pub fn send(&mut self, now: Duration, pace: &Probe) -> Option<u64> {
        if self.care_of.is_none() || self.next > now {
            return None;
        }
        let in_burst = self.burst > 0;
        let flowing = self.flowed.is_some_and(|at| now.saturating_sub(at) < FLOWING);
        let first = self.answers + (self.under_way.len() as u64) < FIRST;
        let pause = match () {
            () if flowing || first => self.active_pause(pace),
            () if self.metered => self.least.max(pace.every * METERED),
            () => self.least.max(pace.every),
        };
        self.burst = self.burst.saturating_sub(1);
        self.next = now
            + match (in_burst, self.burst) {
                (true, 0) => pause.max(self.least * u32::from(BURST)),
                (true, _) => BURST_PAUSE,
                (false, _) => pause,
            };
        let sequence = self.sequence;
        self.sequence += 1;
        self.sent = Some(now);
        self.counts.sent += 1;
        self.under_way.retain(|it| !it.lost || now.saturating_sub(it.sent) < REMEMBERED);
        let until = now + self.figures.patience();
        self.under_way.push_back(UnderWay { sequence, sent: now, until, in_burst, lost: false });
        Some(sequence)
    }
}
