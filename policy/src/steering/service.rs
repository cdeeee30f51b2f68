//! Whether a link meets a service level class (`sla`), judged window by window.
//!
//! Over its limit in two of three windows: out of the class. Under the limit minus 20 % in every
//! window of a whole recover hold: in it again. A figure that is not measured is not held against
//! the link, and a window without any figure of the class is no window.

use std::time::Duration;

use super::facts::Measurement;
use super::hold::Hold;
use crate::link::Sla;

/// What a link is worth to one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    sla: Sla,
    /// Whether the class was missed, latest window in bit 0.
    windows: u8,
    bad: Option<Spell>,
    hold: Hold,
}

/// Out of the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spell {
    /// Since when every window was under the limit minus 20 %.
    clear_since: Option<Duration>,
}

/// What one window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    /// Nothing of what the class asks for was measured.
    Empty,
    /// Under the limits minus 20 %.
    Clear,
    /// Under the limits.
    Met,
    /// Over a limit.
    Missed,
}

impl Service {
    pub fn new(sla: Sla, hold: Duration) -> Self {
        Self { sla, windows: 0, bad: None, hold: Hold::new(hold) }
    }

    pub fn sla(&self) -> &Sla {
        &self.sla
    }

    /// Takes over what is known of the class of the same limits.
    pub fn adopt(&mut self, old: &Self) {
        let base = self.hold.present();
        *self = old.clone();
        self.hold.rebase(base);
    }

    /// Whether the link is in the class.
    pub fn met(&self) -> bool {
        self.bad.is_none()
    }

    /// When it is in the class again if nothing happens.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.bad?.clear_since?.saturating_add(self.hold.present()))
    }

    /// Lets the hold run out.
    pub fn advance(&mut self, now: Duration) {
        if let Some(at) = self.deadline().filter(|at| *at <= now) {
            self.bad = None;
            self.windows = 0;
            self.hold.recovered(at);
        }
    }

    /// Judges a window.
    pub fn measured(&mut self, now: Duration, measurement: &Measurement) {
        let window = judge(&self.sla, measurement);
        if window == Window::Empty {
            return;
        }
        self.windows = self.windows << 1 | u8::from(window == Window::Missed);
        let missed_twice = (self.windows & 0b111).count_ones() >= 2;
        match &mut self.bad {
            None if missed_twice => {
                self.hold.bad(now);
                self.bad = Some(Spell { clear_since: None });
            }
            None => {}
            Some(spell) if window == Window::Clear => {
                spell.clear_since.get_or_insert(now);
            }
            Some(spell) => spell.clear_since = None,
        }
        self.advance(now);
    }

    /// The path is another one: what was measured says nothing of it.
    pub fn forget(&mut self) {
        self.windows = 0;
        self.bad = None;
    }
}

/// Whether a single window misses the class, without memory.
pub(super) fn misses(sla: &Sla, measurement: &Measurement) -> bool {
    judge(sla, measurement) == Window::Missed
}

fn judge(sla: &Sla, found: &Measurement) -> Window {
    let time = |limit: Option<Duration>, found: Option<Duration>| {
        let (limit, found) = (limit?.as_nanos(), found?.as_nanos());
        Some((found > limit, found * 5 < limit * 4))
    };
    let loss = || {
        let (limit, found) = (u32::from(sla.loss?.0), u32::from(found.loss?.0));
        Some((found > limit, found == 0 || found * 5 < limit * 4))
    };
    let figures = [time(sla.rtt, found.rtt), time(sla.jitter, found.jitter), loss()];
    let worst = figures.into_iter().flatten().map(|(missed, clear)| match (missed, clear) {
        (true, _) => Window::Missed,
        (false, true) => Window::Clear,
        (false, false) => Window::Met,
    });
    worst.max_by_key(|window| *window as u8).unwrap_or(Window::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Ratio;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn voice() -> Sla {
        Sla {
            name: "voice".to_owned(),
            rtt: Some(Duration::from_millis(100)),
            jitter: Some(Duration::from_millis(20)),
            loss: Some(Ratio::percent(1)),
        }
    }

    fn window(rtt: u64, jitter: u64, loss: u16) -> Measurement {
        Measurement {
            rtt: Some(Duration::from_millis(rtt)),
            rtt_p95: None,
            jitter: Some(Duration::from_millis(jitter)),
            loss: Some(Ratio(loss)),
        }
    }

    #[test]
    fn one_window() {
        let none = Measurement::default();
        let cases: &[(&str, Measurement, Window)] = &[
            ("nothing measured", none, Window::Empty),
            ("all good", window(79, 15, 0), Window::Clear),
            ("at the limit minus 20 %", window(80, 15, 0), Window::Met),
            ("at the limits", window(100, 20, 100), Window::Met),
            ("rtt over", window(101, 0, 0), Window::Missed),
            ("jitter over", window(10, 21, 0), Window::Missed),
            ("loss over", window(10, 0, 101), Window::Missed),
            ("loss alone", Measurement { loss: Some(Ratio(79)), ..none }, Window::Clear),
            (
                "the 95th percentile does not count",
                Measurement { rtt_p95: Some(s(9)), ..none },
                Window::Empty,
            ),
        ];
        for (what, measurement, want) in cases {
            assert_eq!(judge(&voice(), measurement), *want, "{what}");
        }
    }

    #[test]
    fn two_of_three_windows_and_a_whole_hold() {
        let (good, fair, bad) = (window(50, 5, 0), window(90, 5, 0), window(150, 5, 0));
        let none = Measurement::default();
        // One letter a second: g(ood), f(air: under the limit, not by 20 %), b(ad), . (nothing);
        // below it whether the class is met then. The hold is 5 s.
        let cases: &[(&str, &str, &str)] = &[
            ("one in three is not enough", "gggbggbggbgg", "++++++++++++"),
            ("two in a row", "bb", "+-"),
            ("two in three", "bgb", "++-"),
            ("two in four", "bggb", "++++"),
            ("an empty window is none", "b.b", "++-"),
            ("back after 5 s of good windows", "bbggggggg", "+------++"),
            ("a fair window starts the hold anew", "bbgggfggggggg", "+----------++"),
            ("a relapse doubles the hold", "bbggggggbbggggggggggg", "+------++-----------+"),
        ];
        for (what, letters, want) in cases {
            let mut service = Service::new(voice(), s(5));
            let judge = |(second, letter): (usize, char)| {
                let now = s(second as u64);
                service.advance(now);
                let window = match letter {
                    'g' => &good,
                    'f' => &fair,
                    'b' => &bad,
                    _ => &none,
                };
                service.measured(now, window);
                if service.met() { '+' } else { '-' }
            };
            let got: String = letters.chars().enumerate().map(judge).collect();
            assert_eq!(got, *want, "{what}: {letters}");
        }
    }
}
