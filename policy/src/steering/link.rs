//! The life of one link: unknown, up, degraded, down, recovering.
//!
//! ```text
//!             registered                    a complaint
//!   unknown ---------------> up, degraded -----------------> down
//!                                  ^                           |
//!                                  |  all complaints cleared   | every complaint
//!                                  |  for the recover hold     v has cleared
//!                                  +--------------------- recovering
//! ```
//!
//! Everything that speaks against a link is a [`Complaint`] with a [`Cause`]. A complaint stands
//! (the link is down), or has cleared at some moment; when all have been cleared for the recover
//! hold, the link is up and they are forgotten. Events (carrier, care-of address, binding)
//! complain at once. A figure complains when it was beyond `leave` for `hold down`, and clears at
//! `enter`. Probes complain after two losses and a burst of five with nothing heard in between.
//! A link that was never up does not wait for the hold.

use std::time::Duration;

use super::facts::{Measurement, ProbeResult};
use super::hold::Hold;
use super::link_state::{Cause, Figure};
use crate::link::{Band, UsableWhen};
use crate::radio::{Circle, Position, Radio};

/// Something that speaks against a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Complaint {
    cause: Cause,
    /// Since when it is over; `None` while it stands.
    clear_since: Option<Duration>,
}

/// Where a link stands by itself, whatever becomes of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Unknown,
    Good,
    Bad { cause: Cause, since: Duration },
    Holding { cause: Cause, until: Duration },
}

/// One link's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    usable: UsableWhen,
    registered: bool,
    /// `None` if nobody said; a registered link is attached.
    attached: Option<bool>,
    was_up: bool,
    complaints: Vec<Complaint>,
    /// When the first of the present complaints came.
    bad_since: Duration,
    /// Since when each figure has been beyond `leave` without a complaint so far.
    beyond_since: [Option<Duration>; Figure::ALL.len()],
    radio: Radio,
    /// The vehicle's speed, in hundredths of a metre per second, and where it is.
    speed: Option<u32>,
    position: Option<Position>,
    measured: Measurement,
    probes_lost: u8,
    burst_lost: u8,
    hold: Hold,
}

impl Link {
    pub fn new(usable: UsableWhen) -> Self {
        Self {
            usable,
            registered: false,
            attached: None,
            was_up: false,
            complaints: Vec::new(),
            bad_since: Duration::ZERO,
            beyond_since: [None; Figure::ALL.len()],
            radio: Radio::default(),
            speed: None,
            position: None,
            measured: Measurement::default(),
            probes_lost: 0,
            burst_lost: 0,
            hold: Hold::new(usable.hold_up),
        }
    }

    /// Another `usable { … }` from a new policy; what the link went through is kept.
    pub fn reconfigure(&mut self, now: Duration, usable: UsableWhen) {
        self.usable = usable;
        self.hold.rebase(usable.hold_up);
        for (figure, place) in Figure::ALL.into_iter().zip(0..) {
            if self.judge(figure).is_none() {
                self.beyond_since[place] = None;
                self.clear(now, Cause::Beyond(figure));
            }
        }
        self.judge_figures(now);
        self.judge_radio(now);
        self.advance(now);
    }

    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Whether packets can leave by it outside the tunnel.
    pub fn is_attached(&self) -> bool {
        self.attached.unwrap_or(self.registered)
    }

    pub fn measured_last(&self) -> &Measurement {
        &self.measured
    }

    pub fn radio(&self) -> &Radio {
        &self.radio
    }

    /// Whether it is known to roam where that is forbidden.
    pub fn roams_in_vain(&self) -> bool {
        self.radio.roams() && !self.usable.roaming
    }

    pub fn hold(&self) -> Duration {
        self.hold.present()
    }

    pub fn standing(&self) -> Standing {
        let standing = self.complaints.iter().filter(|complaint| complaint.clear_since.is_none());
        if let Some(cause) = standing.map(|complaint| complaint.cause).min() {
            return Standing::Bad { cause, since: self.bad_since };
        }
        match (self.recovered_at(), self.last_cleared()) {
            (Some(until), Some(cause)) => Standing::Holding { cause, until },
            _ if self.registered => Standing::Good,
            _ => Standing::Unknown,
        }
    }

    /// Whether the only things that speak against it are verdicts, not events.
    pub fn can_be_sent_by(&self) -> bool {
        let gone =
            |complaint: &Complaint| complaint.clear_since.is_none() && complaint.cause.is_event();
        self.registered && self.is_attached() && !self.complaints.iter().any(gone)
    }

    /// When the machine moves by itself.
    pub fn deadline(&self) -> Option<Duration> {
        let down_at =
            |since: &Option<Duration>| Some((*since)?.saturating_add(self.usable.hold_down));
        self.beyond_since.iter().filter_map(down_at).chain(self.recovered_at()).min()
    }

    /// When the hold is over; `None` while a complaint stands or without any.
    fn recovered_at(&self) -> Option<Duration> {
        let clear = self.complaints.iter().map(|complaint| complaint.clear_since);
        let latest = clear.reduce(|a, b| Some(a?.max(b?)))??;
        // The hold is for links that were in use; others wait for their binding only.
        let hold = if self.was_up { self.hold.present() } else { Duration::ZERO };
        self.registered.then(|| latest.saturating_add(hold))
    }

    fn last_cleared(&self) -> Option<Cause> {
        let latest = self.complaints.iter().max_by_key(|complaint| complaint.clear_since)?;
        Some(latest.cause)
    }

    /// Lets time pass up to `now`, which is no later than the next deadline.
    pub fn advance(&mut self, now: Duration) {
        for (figure, place) in Figure::ALL.into_iter().zip(0..) {
            let since = self.beyond_since[place];
            if since.is_some_and(|since| since.saturating_add(self.usable.hold_down) <= now) {
                self.beyond_since[place] = None;
                self.complain(now, Cause::Beyond(figure));
            }
        }
        if self.recovered_at().is_some_and(|at| at <= now) {
            self.complaints.clear();
            if self.was_up {
                self.hold.recovered(now);
            }
        }
        self.was_up |= self.standing() == Standing::Good;
    }

    pub fn registered(&mut self, now: Duration, registered: bool) {
        self.registered = registered;
        if registered {
            self.clear(now, Cause::Refused);
            self.clear(now, Cause::NoBinding);
        } else if self.was_up {
            self.complain(now, Cause::NoBinding);
        }
        self.advance(now);
    }

    pub fn refused(&mut self, now: Duration) {
        self.registered = false;
        self.complain(now, Cause::Refused);
    }

    pub fn attached(&mut self, now: Duration, attached: bool) {
        self.attached = Some(attached);
        if attached {
            self.clear(now, Cause::Detached);
            self.advance(now);
            return;
        }
        self.complain(now, Cause::Detached);
        // The next path by this link is another one. The radio and the vehicle are the same.
        self.measured = Measurement::default();
        for (figure, since) in Figure::ALL.into_iter().zip(&mut self.beyond_since) {
            since.take_if(|_| figure.is_of_path());
        }
        self.probes_lost = 0;
        self.burst_lost = 0;
        let of_path = |cause| match cause {
            Cause::Beyond(figure) => figure.is_of_path(),
            other => other == Cause::ProbesLost,
        };
        self.complaints.retain(|complaint| !of_path(complaint.cause));
    }

    pub fn measured(&mut self, now: Duration, measurement: &Measurement) {
        self.measured.update(measurement);
        self.judge_figures(now);
    }

    /// Takes what is known of its radio at present. What is not known any more speaks no longer
    /// against it: the recover hold begins.
    pub fn heard_of_radio(&mut self, now: Duration, radio: Radio) {
        self.radio = radio;
        self.forget_if(now, Figure::Signal, radio.signal.is_none());
        self.judge_figures(now);
        self.judge_radio(now);
        self.advance(now);
    }

    /// Takes the vehicle's speed, or that it is not known.
    pub fn drives(&mut self, now: Duration, speed: Option<u32>) {
        self.speed = speed;
        self.forget_if(now, Figure::Speed, speed.is_none());
        self.judge_figures(now);
    }

    /// Takes where the vehicle is, or that it is not known.
    pub fn is_at(&mut self, now: Duration, position: Option<Position>) {
        self.position = position;
        self.forget_if(now, Figure::Distance, position.is_none());
        self.judge_figures(now);
    }

    /// A figure that is not known speaks against nobody.
    fn forget_if(&mut self, now: Duration, figure: Figure, unknown: bool) {
        if unknown {
            self.beyond_since[figure as usize] = None;
            self.clear(now, Cause::Beyond(figure));
        }
    }

    /// Registration and technology are words and not figures: they count at once.
    fn judge_radio(&mut self, now: Duration) {
        let unfit = match (self.usable.technologies, self.radio.technology) {
            (Some(good), Some(found)) => !good.contains(found),
            _ => false,
        };
        for (cause, bad) in [(Cause::Roaming, self.roams_in_vain()), (Cause::Technology, unfit)] {
            match bad {
                true if !self.has(cause) => self.complain(now, cause),
                true => {}
                false => self.clear(now, cause),
            }
        }
    }

    /// Something authenticated came by this link.
    pub fn heard(&mut self, now: Duration) {
        self.probes_lost = 0;
        self.burst_lost = 0;
        self.clear(now, Cause::ProbesLost);
        self.advance(now);
    }

    /// Returns whether a burst is wanted.
    pub fn probed(&mut self, now: Duration, probe: ProbeResult) -> bool {
        match probe {
            ProbeResult::Answered => {
                self.heard(now);
                false
            }
            ProbeResult::Lost => {
                self.probes_lost = self.probes_lost.saturating_add(1);
                self.burst_lost = 0;
                // Asked for again and again: a burst may have been forgotten.
                self.probes_lost.is_multiple_of(PROBES_LOST) && !self.has(Cause::ProbesLost)
            }
            ProbeResult::LostInBurst if self.probes_lost < PROBES_LOST => false,
            ProbeResult::LostInBurst => {
                self.burst_lost = self.burst_lost.saturating_add(1);
                if self.burst_lost == BURST {
                    self.complain(now, Cause::ProbesLost);
                }
                false
            }
        }
    }

    fn judge_figures(&mut self, now: Duration) {
        for (figure, place) in Figure::ALL.into_iter().zip(0..) {
            let cause = Cause::Beyond(figure);
            let complained = self.complaints.iter().any(|complaint| complaint.cause == cause);
            match self.judge(figure) {
                None => {}
                Some(Side::Beyond | Side::Between) if complained => {
                    self.complain(now, cause);
                }
                Some(Side::Good) if complained => self.clear(now, cause),
                Some(Side::Beyond) => {
                    self.beyond_since[place].get_or_insert(now);
                }
                Some(Side::Between | Side::Good) => self.beyond_since[place] = None,
            }
        }
        self.advance(now);
    }

    /// Where a figure is in its band; `None` without a band or a figure.
    fn judge(&self, figure: Figure) -> Option<Side> {
        match figure {
            Figure::Signal => side(self.usable.signal, self.radio.signal, true),
            Figure::Speed => side(self.usable.speed, self.speed, false),
            Figure::Distance => {
                let band = |near: Circle| Band { enter: near.enter, leave: near.leave };
                let metres = self.usable.near.zip(self.position);
                let metres = metres.map(|(near, position)| near.at.metres_to(position));
                side(self.usable.near.map(band), metres, false)
            }
            figure => judge(&self.usable, figure, &self.measured),
        }
    }

    fn complain(&mut self, now: Duration, cause: Cause) {
        if self.standing() == Standing::Good {
            self.hold.bad(now);
        }
        if self.complaints.iter().all(|complaint| complaint.clear_since.is_some()) {
            self.bad_since = now;
        }
        match self.complaints.iter_mut().find(|complaint| complaint.cause == cause) {
            Some(complaint) => complaint.clear_since = None,
            None => self.complaints.push(Complaint { cause, clear_since: None }),
        }
    }

    /// Whether this complaint stands.
    fn has(&self, cause: Cause) -> bool {
        let stands = |known: &Complaint| known.cause == cause && known.clear_since.is_none();
        self.complaints.iter().any(stands)
    }

    fn clear(&mut self, now: Duration, cause: Cause) {
        if let Some(complaint) = self.complaints.iter_mut().find(|known| known.cause == cause) {
            complaint.clear_since.get_or_insert(now);
        }
    }
}

/// Probes lost in a row before a burst is sent.
const PROBES_LOST: u8 = 2;

/// Probes of a burst.
const BURST: u8 = 5;

/// Where a figure is in its band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// At `enter` or better.
    Good,
    Between,
    /// At `leave` or worse.
    Beyond,
}

fn side<T: Ord>(band: Option<Band<T>>, found: Option<T>, more_is_better: bool) -> Option<Side> {
    let (band, found) = (band?, found?);
    let at_least =
        |found: &T, limit: &T| if more_is_better { found >= limit } else { found <= limit };
    Some(match () {
        () if at_least(&found, &band.enter) => Side::Good,
        () if at_least(&band.leave, &found) => Side::Beyond,
        () => Side::Between,
    })
}

/// The same of what is measured of a path.
fn judge(usable: &UsableWhen, figure: Figure, measured: &Measurement) -> Option<Side> {
    match figure {
        Figure::Rtt => side(usable.rtt, measured.rtt, false),
        Figure::Jitter => side(usable.jitter, measured.jitter, false),
        Figure::Loss => side(usable.loss, measured.loss, false),
        Figure::Signal | Figure::Speed | Figure::Distance => None,
    }
}

/// The first figure that is beyond its limit, without memory.
pub(super) fn beyond(usable: &UsableWhen, measured: &Measurement) -> Option<Figure> {
    let beyond = |figure: &Figure| judge(usable, *figure, measured) == Some(Side::Beyond);
    Figure::ALL.into_iter().find(beyond)
}
