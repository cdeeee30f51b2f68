//! What is known of radios and of the vehicle, from whom, and since when.
//!
//! A source that errs takes nothing back: what it told is believed until it is `lost-after` old.
//! Then it is not known any more, all steerings are told so, and people hear what follows from it.
//! A source that goes on, or comes back, ends that with its next word.

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_policy::steering::{Fact, Steering};
use mtun_policy::{FactSource, Policy, Reading};

use super::owner::Owner;
use crate::control::documents::{
    Event, RadioDocument, Severity, SourceDocument, SourceState, VehicleDocument,
};
use crate::edge::sources::{SourceError, Sources, Told, Whose};
use crate::metrics::{SourceFaultFigures, SourceFigures};

/// What one source told.
#[derive(Debug)]
struct Known {
    source: FactSource,
    reading: Reading,
    /// When it told that.
    at: Option<Duration>,
    state: SourceState,
    /// What it complained of last, as a word and in words, unless it has told all since.
    fault: Option<(&'static str, String)>,
    faults: BTreeMap<&'static str, u64>,
}

impl Known {
    fn new(source: FactSource) -> Self {
        Self {
            source,
            reading: Reading::default(),
            at: None,
            state: SourceState::Waiting,
            fault: None,
            faults: BTreeMap::new(),
        }
    }

    fn document(&self, now: Duration) -> SourceDocument {
        SourceDocument {
            from: self.source.from.to_string(),
            state: self.state,
            told_seconds: self.at.map(|at| now.saturating_sub(at).as_secs()),
            lost_after_seconds: self.source.lost_after.as_secs(),
            fault: self.fault.as_ref().map(|(_, text)| text.clone()),
        }
    }
}

/// The sources, and what they told.
#[derive(Debug)]
pub(super) struct Facts {
    sources: Sources,
    known: BTreeMap<Whose, Known>,
}

impl Facts {
    /// Nothing is known and nobody asked.
    pub fn new(sources: Sources) -> Self {
        Self { sources, known: BTreeMap::new() }
    }

    /// The next that a source tells. Safe to cancel.
    pub async fn told(&mut self) -> Told {
        self.sources.told().await
    }

    /// Asks whom the policy names, and forgets what others told.
    pub fn want(&mut self, policy: &Policy) {
        let radios = policy.interfaces.iter().filter_map(|interface| {
            let source = interface.radio.clone()?;
            interface.bid.map(|_| (Whose::Radio(interface.name.clone()), source))
        });
        let vehicle = policy.vehicle.clone().map(|source| (Whose::Vehicle, source));
        let wanted: BTreeMap<Whose, FactSource> = radios.chain(vehicle).collect();
        self.known.retain(|whose, known| wanted.get(whose) == Some(&known.source));
        for (whose, source) in &wanted {
            self.known.entry(whose.clone()).or_insert_with(|| Known::new(source.clone()));
        }
        self.sources.want(&wanted);
    }

    /// Tells a steering all that is known; of radios without a source, that nothing is.
    pub fn tell_all(&self, steering: &mut Steering, policy: &Policy, now: Duration) {
        for interface in &policy.interfaces {
            if let Some(bid) = interface.bid {
                let known = self.known.get(&Whose::Radio(interface.name.clone()));
                let radio = known.map(|known| known.reading.radio).unwrap_or_default();
                steering.handle(now, Fact::Radio { bid, radio });
            }
        }
        let vehicle = self.known.get(&Whose::Vehicle).map(|known| known.reading);
        steering.handle(now, Fact::Speed(vehicle.and_then(|vehicle| vehicle.speed)));
        steering.handle(now, Fact::Position(vehicle.and_then(|vehicle| vehicle.position)));
    }

    /// What is shown of a link's radio; `None` if nobody is asked.
    pub fn radio(&self, link: &mtun_policy::InterfaceName, now: Duration) -> Option<RadioDocument> {
        let known = self.known.get(&Whose::Radio(link.clone()))?;
        let radio = known.reading.radio;
        Some(RadioDocument {
            source: known.document(now),
            registration: radio.registration,
            technology: radio.technology,
        })
    }

    /// What is shown of the vehicle; `None` if nobody is asked.
    pub fn vehicle(&self, now: Duration) -> Option<VehicleDocument> {
        let known = self.known.get(&Whose::Vehicle)?;
        let degrees = known.reading.position.map(mtun_policy::Position::degrees);
        Some(VehicleDocument {
            source: known.document(now),
            speed_kmh: known.reading.speed.map(|speed| f64::from(speed) * 0.036),
            latitude: degrees.map(|(latitude, _)| latitude),
            longitude: degrees.map(|(_, longitude)| longitude),
        })
    }

    /// What of the sources is counted, with zeros for what may come.
    pub fn figures(&self) -> (Vec<SourceFigures>, Vec<SourceFaultFigures>) {
        let (mut sources, mut faults) = (Vec::new(), Vec::new());
        for (whose, known) in &self.known {
            let of = label(whose);
            sources.push(SourceFigures {
                of: of.clone(),
                telling: known.state == SourceState::Telling,
            });
            for code in SourceError::CODES {
                let count = known.faults.get(code).copied().unwrap_or(0);
                faults.push(SourceFaultFigures { of: of.clone(), reason: code.to_owned(), count });
            }
        }
        (sources, faults)
    }
}

/// The name of what facts are about, for metrics.
fn label(whose: &Whose) -> String {
    match whose {
        Whose::Radio(link) => link.to_string(),
        Whose::Vehicle => "vehicle".to_owned(),
    }
}

/// What follows when nothing is known of somebody any more.
fn consequence(whose: &Whose) -> &'static str {
    match whose {
        Whose::Radio(_) => {
            "its signal, registration and technology are not known, and limits on them do not count"
        }
        Whose::Vehicle => {
            "its speed and position are not known, no rule with `when speed` or `when near` holds, and limits on them do not count"
        }
    }
}

impl Owner {
    /// Takes what a source told.
    pub(super) fn source_told(&mut self, told: Told) {
        let now = self.now().monotonic;
        let Told { whose, said, caution } = told;
        // Of a source that the policy names no more.
        let Some(known) = self.facts.known.get_mut(&whose) else { return };
        let from = known.source.from.to_string();
        let mut events = Vec::new();
        let (reading, error) = match said {
            Ok(reading) => (Some(reading), caution),
            Err(error) => (None, Some(error)),
        };
        let before = known.reading;
        if let Some(reading) = reading {
            if known.state == SourceState::Lost {
                let text = format!("{from} tells of {whose} again");
                events.push(notice(Severity::Info, "source-back", text));
            }
            (known.reading, known.at, known.state) = (reading, Some(now), SourceState::Telling);
        }
        match error {
            Some(error) => {
                *known.faults.entry(error.code()).or_default() += 1;
                // The same again is counted and not told again.
                if known.fault.as_ref().map(|(code, _)| *code) != Some(error.code()) {
                    let text = format!("facts about {whose}: {error}");
                    events.push(notice(Severity::Warning, "source-fault", text));
                }
                known.fault = Some((error.code(), error.to_string()));
            }
            None => known.fault = None,
        }
        let reading = known.reading;
        events.into_iter().for_each(|event| self.tell(event));
        self.facts_changed(&whose, &before, &reading, now);
    }

    /// Forgets what is too old, once a second.
    pub(super) fn age_facts(&mut self, now: Duration) {
        let mut lost = Vec::new();
        for (whose, known) in &mut self.facts.known {
            let old = known.at.is_some_and(|at| now.saturating_sub(at) >= known.source.lost_after);
            if old && known.state == SourceState::Telling {
                known.state = SourceState::Lost;
                let before = std::mem::take(&mut known.reading);
                let from = known.source.from.to_string();
                let seconds = known.source.lost_after.as_secs();
                let text = format!(
                    "{from} has told nothing of {whose} for {seconds} s: {}",
                    consequence(whose)
                );
                lost.push((whose.clone(), before, notice(Severity::Warning, "source-lost", text)));
            }
        }
        for (whose, before, event) in lost {
            self.tell(event);
            self.facts_changed(&whose, &before, &Reading::default(), now);
        }
    }

    /// Tells steering and people what is different now.
    fn facts_changed(&mut self, whose: &Whose, before: &Reading, after: &Reading, now: Duration) {
        if before == after {
            return;
        }
        match whose {
            Whose::Radio(link) => {
                let bid = self.policy.interface(link.as_str()).and_then(|it| it.bid);
                let Some(bid) = bid else { return };
                let (old, radio) = (before.radio, after.radio);
                if (old.registration, old.technology) != (radio.registration, radio.technology) {
                    let link = link.clone();
                    let (registration, technology) = (radio.registration, radio.technology);
                    self.tell(Event::Radio { link, registration, technology });
                }
                self.tell_all_steerings(now, &Fact::Radio { bid, radio });
            }
            Whose::Vehicle => {
                if before.speed != after.speed {
                    self.tell_all_steerings(now, &Fact::Speed(after.speed));
                }
                if before.position != after.position {
                    self.tell_all_steerings(now, &Fact::Position(after.position));
                }
            }
        }
        self.publish_homes();
    }

    /// Asks whom the policy in force names, and tells every steering what is known.
    pub(super) fn want_facts(&mut self) {
        let now = self.now().monotonic;
        self.facts.want(&self.policy);
        for home in &mut self.homes {
            self.facts.tell_all(&mut home.steering, &self.policy, now);
        }
    }
}

fn notice(severity: Severity, code: &str, text: String) -> Event {
    Event::Notice { severity, code: code.to_owned(), text }
}
