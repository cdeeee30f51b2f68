//! Signaling: what the machines are told, and what they want done.

use std::net::Ipv6Addr;

use mtun_dataplane::PathId;
use mtun_policy::{Bid, HomeAddress, HomeName};
use mtun_signaling::agent::{AgentNotice, AgentOutput};
use mtun_signaling::machine::{Machine, Transmit};
use mtun_signaling::mobile::{MobileEvent, MobileNotice, MobileOutput, Stay};
use mtun_signaling::wire::iana::mh;

use super::discovery::transmit_discovery;
use super::home::{Granted, MobileHome};
use super::owner::{LinkRecord, Owner};
use crate::arrivals::Arrived;
use crate::control::documents::{Event, Severity};
use crate::packets::Shared;

/// Messages that are heard before rules and routes follow and others are listened to.
const AT_A_TIME: usize = 64;

/// What is to be kept of mobiles, each with the messages that wait until it is.
#[derive(Debug, Default)]
struct Kept(Vec<(HomeAddress, Vec<Transmit>)>);

impl Kept {
    /// What follows waits for this mobile's record.
    fn begin(&mut self, mobile: HomeAddress) {
        self.0.push((mobile, Vec::new()));
    }

    /// Lets a message wait; gives it back if there is nothing to wait for.
    fn follow(&mut self, transmit: Transmit) -> Option<Transmit> {
        match self.0.last_mut() {
            Some((_, answers)) => answers.push(transmit),
            None => return Some(transmit),
        }
        None
    }
}

impl Owner {
    /// Hears what arrived, in turns, until it is time to look at other things.
    pub(super) fn hear(&mut self) {
        for _ in 0..AT_A_TIME {
            let Some(arrived) = self.shared.arrivals.take() else { break };
            self.arrived(arrived);
        }
        self.others_first = true;
        // As long as more arrives, nobody sleeps until a deadline.
        if self.until_deadline().is_zero() {
            self.deadlines();
        }
    }

    fn arrived(&mut self, arrived: Arrived) {
        let now = self.now();
        match arrived {
            Arrived::Message { tunnelled, envelope, message, .. } => {
                self.message_arrived(tunnelled, envelope, message);
            }
            Arrived::Discovery { envelope, message } => self.discovery_arrived(envelope, message),
            Arrived::UnknownBinding { source, destination, home_address } => {
                self.unknown_binding(source, destination, home_address);
            }
            Arrived::Probed(answer) => self.probe_answered(answer),
            Arrived::Failed { source, destination, kind, code } => {
                self.message_refused(destination, kind, code);
                let bid = self.bid_of(source);
                let to = |home: &MobileHome| home.home.agent.0 == destination;
                if let (Some(bid), Some(home)) = (bid, self.homes.iter().position(to)) {
                    let outputs = self.homes[home].handle(now, MobileEvent::Unreachable { bid });
                    self.mobile_outputs(home, outputs);
                }
            }
        }
    }

    /// The uplink that has this care-of address.
    pub(super) fn bid_of(&self, care_of: Ipv6Addr) -> Option<Bid> {
        let mut records = self.links.iter();
        let has = |record: &LinkRecord| {
            record.state.as_ref().is_ok_and(|attachment| attachment.care_of == care_of)
        };
        let (name, _) = records.find(|(_, record)| has(record))?;
        self.policy.interface(name.as_str())?.bid
    }

    pub(super) fn deadlines(&mut self) {
        let now = self.now();
        for home in 0..self.homes.len() {
            let outputs = self.homes[home].handle_deadline(now);
            self.mobile_outputs(home, outputs);
            if let Some(optimization) = &mut self.homes[home].optimization {
                let outputs = optimization.handle_deadline(now);
                self.optimization_outputs(home, outputs);
            }
            self.home_link_due(home);
            self.search_due(home, now);
            self.probes_due(home, now.monotonic);
            let it = &mut self.homes[home];
            if it.steering.deadline().is_some_and(|at| at <= now.monotonic) {
                self.publish_home(home);
            } else if it.reevaluate.is_some_and(|at| at <= now.monotonic) {
                it.reevaluate(now.monotonic);
            }
        }
        for served in 0..self.served.len() {
            let outputs = self.served[served].handle_deadline(now);
            self.agent_outputs(served, outputs);
            for home_address in self.served[served].arrived_home(now.monotonic) {
                self.publish_mobile(served, home_address);
            }
            self.agent_link_due(served);
            self.served[served].home_agents.handle_deadline(now);
            self.home_agents_outputs(served);
        }
        if let Some(responder) = &mut self.responder {
            let outputs = responder.handle_deadline(now);
            self.correspondent_outputs(outputs);
        }
        if !self.homes.is_empty() && self.counted.next <= now.monotonic {
            self.tick();
        }
    }

    pub(super) fn mobile_outputs(&mut self, home: usize, outputs: Vec<MobileOutput>) {
        let name = self.homes[home].home.name.clone();
        let home_address = self.homes[home].home.address;
        let mut changed = false;
        let judged = outputs.clone();
        for output in outputs {
            match output {
                MobileOutput::Transmit(transmit) => {
                    *self.counts.sent.entry(name.clone()).or_default() += 1;
                    self.note_question(home, &transmit);
                    // From the home address itself, and so from the home link.
                    match transmit.envelope.source == home_address.0 {
                        true => self.transmit_from_home(home, transmit),
                        false => self.transmit(&transmit),
                    }
                }
                MobileOutput::Bound { bid, care_of, expires, first } => {
                    changed = true;
                    let now = self.now().monotonic;
                    let lifetime = expires.saturating_sub(now);
                    self.homes[home].granted.insert(bid, Granted { care_of, lifetime });
                    self.acknowledged(&name, bid, "accepted".to_owned());
                    self.note_answer(home, bid);
                    self.tell(Event::Bound {
                        home: name.clone(),
                        bid,
                        link: self.link_of(bid),
                        care_of,
                        granted_seconds: lifetime.as_secs(),
                        first,
                    });
                }
                MobileOutput::Unbound { bid, reason } => {
                    changed = true;
                    self.homes[home].granted.remove(&bid);
                    if let Some(bid) = bid {
                        self.round_trips.ended(home, bid);
                    }
                    self.tell(Event::Unbound {
                        home: name.clone(),
                        bid,
                        link: self.link_of(bid),
                        reason: reason.to_string(),
                    });
                }
                MobileOutput::Returning { bid } => self.returning(home, bid),
                MobileOutput::AtHome { bid, stay } => {
                    changed = true;
                    self.came_home(home, bid, stay);
                    if !matches!(stay, Stay::Beside { .. }) {
                        self.optimization_returned(home);
                    }
                    self.tell(Event::AtHome {
                        home: name.clone(),
                        link: self.link_of(Some(bid)),
                        beside: matches!(stay, Stay::Beside { .. }),
                        neighbours: stay != Stay::Beside { neighbours: false },
                    });
                }
                MobileOutput::Agreed { .. } => changed = true,
                MobileOutput::Switch { agents } => self.sent_away(home, agents),
                MobileOutput::LeftHome => {
                    changed = true;
                    self.left_home(home);
                    self.tell(Event::LeftHome { home: name.clone() });
                }
                MobileOutput::Notice(notice) => {
                    changed |= matches!(
                        notice,
                        MobileNotice::Refused { .. } | MobileNotice::RouterRefused { .. }
                    );
                    self.mobile_notice(&name, &notice);
                }
                MobileOutput::Stopped => self.homes[home].stopped = true,
            }
        }
        if changed {
            self.publish_home(home);
        }
        self.rules_answered(home);
        self.follow_bindings(home);
        self.judge_agent(home, &judged);
    }

    /// Notes when a Binding Update leaves.
    fn note_question(&mut self, home: usize, transmit: &Transmit) {
        let update = transmit.message.get(2) == Some(&mh::BINDING_UPDATE);
        if let Some(bid) = transmit.path.filter(|_| update) {
            self.round_trips.sent(home, bid, self.now().monotonic);
        }
    }

    /// Notes how long its answer took.
    fn note_answer(&mut self, home: usize, bid: Option<Bid>) {
        let Some(bid) = bid else { return };
        let took = self.round_trips.answered(home, bid, self.now().monotonic);
        if let (Some(took), Some(link), Some(metrics)) =
            (took, self.link_of(Some(bid)), &self.metrics)
        {
            metrics.round_trip(&link, took);
        }
    }

    fn acknowledged(&mut self, home: &HomeName, bid: Option<Bid>, status: String) {
        let link = self.link_of(bid).map_or_else(|| "none".to_owned(), |link| link.to_string());
        *self.counts.acknowledged.entry((home.clone(), link, status)).or_default() += 1;
    }

    fn mobile_notice(&mut self, home: &HomeName, notice: &MobileNotice) {
        match notice {
            MobileNotice::Refused { bid, status, .. } => {
                self.acknowledged(home, *bid, status.to_string());
            }
            MobileNotice::RouterRefused { status } => {
                self.acknowledged(home, None, status.to_string());
            }
            _ => {}
        }
        let code = notice.reason();
        *self.counts.notices.entry((home.clone(), code)).or_default() += 1;
        let severity = match notice {
            MobileNotice::Ignored(_) => {
                tracing::debug!(%home, "{notice}");
                return;
            }
            MobileNotice::SequenceAdopted { .. }
            | MobileNotice::UnknownBinding { .. }
            | MobileNotice::BulkProhibited
            | MobileNotice::HomeLinkUnused { .. }
            | MobileNotice::ClockCorrected { .. } => Severity::Info,
            _ => Severity::Warning,
        };
        self.tell(Event::Notice {
            severity,
            code: code.to_owned(),
            text: format!("home {home}: {notice}"),
        });
    }

    pub(super) fn agent_outputs(&mut self, served: usize, outputs: Vec<AgentOutput>) {
        let name = self.served[served].served.name.clone();
        let mut kept = Kept::default();
        for output in outputs {
            match output {
                AgentOutput::Transmit(mut transmit) => {
                    *self.counts.sent.entry(name.clone()).or_default() += 1;
                    transmit.path = self.on_home_link(served, &transmit).or(transmit.path);
                    if let Some(transmit) = kept.follow(transmit) {
                        self.transmit(&transmit);
                    }
                }
                AgentOutput::Advertise(transmit) => transmit_discovery(&self.shared, &transmit),
                AgentOutput::Changed { home_address, effective } => {
                    if self.listeners.is_listened() {
                        self.changed.mobiles.insert((served, home_address));
                    }
                    if effective {
                        self.publish_mobile(served, home_address);
                    }
                }
                AgentOutput::Keep { home_address } => kept.begin(home_address),
                AgentOutput::CheckDuplicate { home_address, link_local } => {
                    self.check_duplicate(served, home_address, link_local);
                }
                AgentOutput::Defend { home_address, defence } => {
                    let now = self.now().monotonic;
                    if let Some(home_link) = &mut self.served[served].home_link {
                        home_link.defend(now, home_address, defence);
                    }
                }
                AgentOutput::Undefend { home_address } => {
                    if let Some(home_link) = &mut self.served[served].home_link {
                        home_link.undefend(home_address);
                    }
                }
                AgentOutput::Neighbour { home_address, link_layer } => {
                    if let Some(home_link) = &mut self.served[served].home_link {
                        home_link.place(home_address, link_layer);
                        self.routes_dirty = true;
                    }
                }
                AgentOutput::Notice(notice) => self.agent_notice(&name, &notice),
            }
        }
        for (mobile, answers) in kept.0 {
            self.keep(served, mobile, answers);
        }
    }

    fn agent_notice(&mut self, home: &HomeName, notice: &AgentNotice) {
        let code = notice.reason();
        *self.counts.notices.entry((home.clone(), code)).or_default() += 1;
        let severity = match notice {
            AgentNotice::Revoked { .. } | AgentNotice::RevocationHeard { .. } => Severity::Info,
            AgentNotice::Unheard { .. } | AgentNotice::NotTold { .. } => Severity::Warning,
            // What strangers can cause must not fill the log; the counters have it.
            _ => return tracing::debug!(%home, "{notice}"),
        };
        let text = format!("home {home}: {notice}");
        self.tell(Event::Notice { severity, code: code.to_owned(), text });
    }

    pub(super) fn transmit(&self, message: &Transmit) {
        transmit(&self.shared, message);
    }
}

/// Puts a Mobility Header into its packet and sends it.
pub(super) fn transmit(shared: &Shared, transmit: &Transmit) {
    let Transmit { envelope, path, message } = transmit;
    let packet = mtun_dataplane::wire::signalling_packet(
        envelope.source,
        envelope.destination,
        envelope.home_address.map(|home| home.0),
        envelope.routing_header.map(|home| home.0),
        message,
    );
    let path = path.map_or(PathId::ROUTED, |bid| PathId(bid.get()));
    match shared.paths.send(path, &packet) {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            // It will be sent again; a lasting fault shows as retries in `mtun status`.
            tracing::debug!(%error, ?path, "signaling could not be sent");
        }
        None => tracing::debug!(?path, "signaling for a path that is closed"),
    }
}

#[cfg(test)]
mod tests {
    use mtun_signaling::machine::Envelope;

    use super::*;

    #[test]
    fn messages_wait_for_the_record_that_they_follow_and_no_mobile_is_left_out() {
        let mobile = |host: u16| HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host));
        let message = |octet| Transmit {
            envelope: Envelope::plain(mobile(1).0, mobile(2).0),
            path: None,
            message: vec![octet],
        };
        let mut kept = Kept::default();
        assert_eq!(kept.follow(message(0)), Some(message(0)), "nothing was said to be kept");
        kept.begin(mobile(7));
        assert_eq!(kept.follow(message(1)), None);
        kept.begin(mobile(8));
        kept.begin(mobile(9));
        assert_eq!((kept.follow(message(2)), kept.follow(message(3))), (None, None));
        let want = [
            (mobile(7), vec![message(1)]),
            (mobile(8), Vec::new()),
            (mobile(9), vec![message(2), message(3)]),
        ];
        assert_eq!(kept.0, want);
    }
}
