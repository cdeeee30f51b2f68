//! What flows at this moment: counters of two answers and the time between them.

use std::collections::HashMap;
use std::time::Instant;

use crate::control::documents::{FlowDocument, FlowsDocument};
use crate::metrics::{Direction, MetricsInput};

/// Octets a second.
pub(super) type Rate = f64;

/// Counters of one moment, and how fast they rose up to it.
pub(super) struct Rates {
    at: Instant,
    /// Octets by home, rule and link, both directions.
    cells: HashMap<(String, String, String), Counter>,
    /// Octets by link, up and down.
    links: HashMap<String, [Counter; 2]>,
    /// Octets by flow.
    flows: HashMap<String, Counter>,
}

#[derive(Clone, Copy, Default)]
struct Counter {
    octets: u64,
    rate: Rate,
}

impl Rates {
    /// The rates since `last`; all are 0 without one.
    pub(super) fn new(
        at: Instant,
        metrics: &MetricsInput,
        flows: &FlowsDocument,
        last: Option<&Self>,
    ) -> Self {
        let mut rates =
            Self { at, cells: HashMap::new(), links: HashMap::new(), flows: HashMap::new() };
        for rule in &metrics.rules {
            let key = (rule.home.to_string(), rule.rule.to_string(), rule.link.to_string());
            rates.cells.entry(key).or_default().octets += rule.bytes;
            let way = usize::from(rule.direction == Direction::Down);
            let link = rates.links.entry(rule.link.to_string()).or_default();
            link[way].octets += rule.bytes;
        }
        for flow in &flows.flows {
            rates.flows.entry(key(flow)).or_default().octets = flow.bytes_out + flow.bytes_in;
        }
        let Some(last) = last else { return rates };
        let seconds = at.duration_since(last.at).as_secs_f64().max(0.001);
        // A daemon that started again counts from 0: nothing is known of that moment.
        let rise = |counter: &mut Counter, before: Option<&Counter>| {
            let risen = before.and_then(|before| counter.octets.checked_sub(before.octets));
            counter.rate = risen.map_or(0.0, |risen| risen as f64 / seconds);
        };
        for (key, counter) in &mut rates.cells {
            rise(counter, last.cells.get(key));
        }
        for (key, counters) in &mut rates.links {
            for (way, counter) in counters.iter_mut().enumerate() {
                rise(counter, last.links.get(key).map(|before| &before[way]));
            }
        }
        for (key, counter) in &mut rates.flows {
            rise(counter, last.flows.get(key));
        }
        rates
    }

    /// What a rule sends and gets by a link.
    pub(super) fn cell(&self, home: &str, rule: &str, link: &str) -> Rate {
        let key = (home.to_owned(), rule.to_owned(), link.to_owned());
        self.cells.get(&key).map_or(0.0, |counter| counter.rate)
    }

    /// What a link carries, up and down.
    pub(super) fn link(&self, link: &str) -> [Rate; 2] {
        self.links.get(link).map_or([0.0; 2], |counters| counters.map(|counter| counter.rate))
    }

    /// What a flow carries, both directions.
    pub(super) fn flow(&self, flow: &FlowDocument) -> Rate {
        let known = self.flows.get(&key(flow)).map(|counter| counter.rate);
        flow.bytes_per_second.map_or(known.unwrap_or(0.0), |rate| rate as Rate)
    }
}

fn key(flow: &FlowDocument) -> String {
    format!("{} {}", flow.home, flow.key)
}
