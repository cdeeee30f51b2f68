//! Writes a mobile's Binding Updates (RFC 6275 §11.7.1, RFC 5648 §5.2, RFC 3963 §5.2).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, PrefixMode};

use super::plan::Request;
use super::{MobileNode, MobileNotice, MobileOutput, Outstanding};
use crate::auth;
use crate::machine::{Envelope, Transmit};
use crate::registration::{self, acknowledgement_wait};
use crate::time::{NtpTime, Timestamp};
use crate::wire::option::{
    AlternateCareOfAddress, BindingIdentifier, LinkLayerAddress, MobileNetworkPrefixOption,
};
use crate::wire::{self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options};

/// What must be known of an update when its acknowledgement arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub sequence: u16,
    pub lifetime: Lifetime,
    /// When it left: lifetimes count from here (RFC 6275 §11.7.3).
    pub at: Duration,
    /// The uplink it left by.
    pub path: Bid,
    /// The packet's source.
    pub source: Ipv6Addr,
    /// The care-of address that entered the authentication data.
    pub care_of: Ipv6Addr,
    /// Its timestamp, when protected.
    pub message_id: Option<NtpTime>,
}

impl MobileNode {
    /// Writes and sends the update for `request`, which is outstanding from here on.
    pub(super) fn send(&mut self, now: Timestamp, request: Request) {
        let Some(path) = self.path_for(&request) else { return };
        let home_address = self.config.home_address;
        let (source, unanswered) = match self.registrations.get(&path).filter(|it| it.is_up()) {
            Some(entry) => match entry.care_of() {
                CareOfAddress(IpAddr::V6(source)) => (source, entry.unanswered),
                CareOfAddress(IpAddr::V4(_)) => return,
            },
            // On the home link without a binding.
            None => (home_address.0, self.home.patience()),
        };
        let destination = self.config.agent.0;
        // The home address is its own witness where it is the source (RFC 6275 §10.3.2).
        let away = source != home_address.0;
        let envelope = Envelope {
            home_address: away.then_some(home_address),
            ..Envelope::plain(source, destination)
        };
        if !away && request == Request::DeregisterAll {
            self.returning(path);
        }
        let mut update = self.compose(&request, source);
        let flows = self.tell_flows(now.monotonic, &request, &mut update.options);
        let (sequence, lifetime) = (update.sequence, update.lifetime);
        let care_of = auth::care_of_address(&update, &envelope);
        let message = Message::BindingUpdate(update);
        let (written, message_id) = match &self.config.protection {
            Some(association) => {
                let id = self.clock.next(now);
                let written =
                    wire::emit_authenticated(&message, &envelope, care_of, association, Some(id));
                (written, Some(id))
            }
            None => (wire::emit(&message, &envelope), None),
        };
        // A retransmission needs a larger number too, or the agent takes it for a replay.
        self.next_sequence = sequence.wrapping_add(1);
        match written {
            Ok(message) => {
                let transmit = Transmit { envelope, path: Some(path), message };
                self.out.push_back(MobileOutput::Transmit(transmit));
            }
            Err(error) => self.notice(MobileNotice::Unwritable(error)),
        }
        let registered = !request.is_registration()
            || self.registrations.values().any(|entry| entry.grant().is_some());
        let wait = acknowledgement_wait(unanswered, registered);
        let at = now.monotonic;
        let event = match request {
            Request::Register { .. } | Request::Plain { .. } => {
                registration::Event::Registering { until: at + lifetime.duration() }
            }
            Request::Deregister { .. } | Request::DeregisterAll => {
                registration::Event::Deregistering
            }
        };
        for bid in request.bids() {
            self.apply(bid, event);
        }
        self.pace.sent(at);
        self.last_sent = Some(at);
        let update = Sent { sequence, lifetime, at, path, source, care_of, message_id };
        self.outstanding = Some(Outstanding { request, update, flows, timer: at + wait });
    }

    fn compose(&self, request: &Request, source: Ipv6Addr) -> BindingUpdate {
        let router = !self.config.mobile_networks.is_empty();
        let mut options = Options::new();
        // req R-MR-01 (RFC 3963 §5.2): every registering update names every prefix; R-MR-06
        // (RFC 3963 §5.8): a de-registering one names none.
        if request.is_registration() && self.config.prefix_mode == PrefixMode::Explicit {
            for prefix in &self.config.mobile_networks {
                options.push(MobileNetworkPrefixOption::from(*prefix));
            }
        }
        let mut overwrite = false;
        match request {
            Request::Register { bids, overwrite: all } => {
                overwrite = *all;
                for bid in bids {
                    options.push(self.identifier(*bid));
                }
                let home = bids.iter().find(|bid| self.is_home_binding(**bid));
                if let Some(address) = home.and_then(|bid| self.home.link_layer_address(*bid)) {
                    // req MC-20 (RFC 5648 §5.6.3): nobody may be asked for it.
                    options.push(LinkLayerAddress::of_mobile(address));
                }
            }
            Request::Deregister { bids } => {
                for bid in bids {
                    let priority = self.registrations[bid].priority().max(1);
                    options.push(BindingIdentifier { priority, ..BindingIdentifier::new(*bid) });
                }
            }
            // req MN-04, R-MN-01 (RFC 6275 §11.7.1): the care-of address stands inside what is
            // authenticated; never beside a BID (RFC 5648 §5.2).
            Request::Plain { .. } | Request::DeregisterAll => {
                options.push(AlternateCareOfAddress { address: source });
            }
        }
        BindingUpdate {
            // req R-MN-23 (RFC 5648 §4.1): one sequence for all bindings.
            sequence: self.next_sequence,
            // req MR-02 (RFC 6275 §6.1.7): without L, whose link-local address nobody defends.
            flags: BindingUpdateFlags {
                acknowledge: true,
                home: true,
                router,
                overwrite,
                ..BindingUpdateFlags::default()
            },
            lifetime: if request.is_registration() {
                Lifetime::from_duration(self.config.lifetime)
            } else {
                Lifetime::ZERO
            },
            options,
        }
    }

    /// The option that registers or refreshes one binding.
    fn identifier(&self, bid: Bid) -> BindingIdentifier {
        // req R-MN-22 (RFC 5648 §5.1): an address that the agent has need not be repeated. It is
        // all the same: an agent that restarted is told at once, and should both ends ever
        // disagree, by a stray update of an earlier life for one, the next refresh ends it.
        let registration = &self.registrations[&bid];
        BindingIdentifier {
            // req FB-01 (RFC 6089 §5.2.1): zero would say that we know no priorities.
            priority: registration.priority().max(1),
            home: self.is_home(registration),
            care_of: Some(registration.care_of()),
            ..BindingIdentifier::new(bid)
        }
    }
}
