//! Writes Binding Updates to correspondents (RFC 6275 §11.7.2, RFC 5648 §5.2).

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use super::peer::Peer;
use super::plan::Request;
use super::routability::wait;
use super::{Route, RouteOptimization, RouteOptimizationNotice, RouteOptimizationOutput};
use crate::machine::Envelope;
use crate::return_routability::{BindingManagementKey, MAX_RR_BINDING_LIFETIME};
use crate::sequence::is_newer;
use crate::wire::option::{BindingIdentifier, NonceIndices};
use crate::wire::{self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options};

/// How long an update has for its answer before the next one, about something else, may leave.
pub(super) const HEAD_START: Duration = Duration::from_secs(1);

/// What must be known of an update when its acknowledgement arrives.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub request: Request,
    pub sequence: u16,
    /// Whether it replaces all bindings that the correspondent holds.
    pub replaces: bool,
    pub lifetime: Lifetime,
    /// When it left: lifetimes count from here (RFC 6275 §11.7.3).
    pub at: Duration,
    /// When to give it up.
    pub timer: Duration,
    /// The uplink it left by.
    pub by: Option<Bid>,
    /// Its source: where the answer must arrive.
    pub source: Ipv6Addr,
    /// The address that entered the authenticator.
    pub care_of: Ipv6Addr,
    pub kbm: BindingManagementKey,
}

impl Sent {
    /// Whether this one, once accepted, ends the binding that `earlier` registered.
    pub(super) fn voids(&self, earlier: &Self) -> bool {
        let ends = match self.request {
            Request::DeregisterAll => true,
            Request::Deregister { bid } => earlier.request.bid() == Some(bid),
            Request::Register { .. } | Request::Plain { .. } => {
                self.replaces && self.request.bid() != earlier.request.bid()
            }
        };
        ends && is_newer(self.sequence, earlier.sequence)
    }
}

impl RouteOptimization {
    /// Writes and sends the update for `request`, whose tokens are at hand.
    pub(super) fn send_update(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        request: Request,
    ) {
        let home_address = self.config.home_address;
        let Some((route, source)) = self.way(peer, request) else { return };
        let Some(home) = peer.home_test.token(now) else { return };
        let mut indices = NonceIndices { home: home.index, care_of: 0 };
        let (mut kbm, mut care_of) =
            (BindingManagementKey::deregistering(&home.token), home_address.0);
        let mut lifetime = Lifetime::ZERO;
        if let Some(bid) = request.registers() {
            let (Some(uplink), Some(entry)) = (self.uplinks.get(&bid), peer.entries.get(&bid))
            else {
                return;
            };
            let Some(tested) = entry.test.token(now) else { return };
            indices.care_of = tested.index;
            kbm = BindingManagementKey::registering(&home.token, &tested.token);
            care_of = uplink.care_of;
            // req MN-26 (RFC 6275 §5.2.6, §11.7.2).
            let longest = self.config.lifetime.min(MAX_RR_BINDING_LIFETIME);
            lifetime = Lifetime::from_duration(longest.min(uplink.expires.saturating_sub(now)));
        }
        let envelope = Envelope {
            home_address: (source != home_address.0).then_some(home_address),
            ..Envelope::plain(source, correspondent)
        };
        let message = self.compose(peer, request, indices, lifetime);
        let sequence = peer.next_sequence;
        peer.next_sequence = sequence.wrapping_add(1);
        match wire::emit_authorized(&message, &envelope, care_of, correspondent, &kbm) {
            Ok(message) => {
                let output = RouteOptimizationOutput::Transmit { route, envelope, message };
                self.out.push_back(output);
            }
            Err(error) => self.notice(RouteOptimizationNotice::Unwritable(error)),
        }
        let tries = match request {
            Request::Register { bid } | Request::Plain { bid } => {
                let entry = peer.entries.entry(bid).or_default();
                let until = now + lifetime.duration();
                entry.held_until = Some(entry.held_until.map_or(until, |held| held.max(until)));
                entry.unanswered
            }
            Request::Deregister { bid } => peer.entries.get(&bid).map_or(0, |entry| entry.endings),
            Request::DeregisterAll => peer.endings,
        };
        let by = match route {
            Route::Path(bid) | Route::Tunnel(bid) => Some(bid),
            Route::Home => None,
        };
        peer.update_pace.sent(now);
        peer.last_update = Some(now);
        peer.last_sent = Some(now);
        let timer = now + wait(tries);
        peer.outstanding.push(Sent {
            request,
            sequence,
            replaces: peer.overwrite && matches!(request, Request::Register { .. })
                || matches!(request, Request::Plain { .. }),
            lifetime,
            at: now,
            timer,
            by,
            source,
            care_of,
            kbm,
        });
    }

    fn compose(
        &self,
        peer: &Peer,
        request: Request,
        indices: NonceIndices,
        lifetime: Lifetime,
    ) -> Message {
        let mut options = Options::new();
        options.push(indices);
        // req MN-21, MC-25, R-MN-13, R-MN-24 (RFC 5648 §5.2): one care-of address, inside what is authenticated.
        match request {
            Request::Register { bid } => {
                let uplink = self.uplinks.get(&bid);
                options.push(BindingIdentifier {
                    priority: uplink.map_or(0, |uplink| uplink.priority),
                    care_of: uplink.map(|uplink| uplink.care_of.into()),
                    ..BindingIdentifier::new(bid)
                });
            }
            Request::Deregister { bid } => options.push(BindingIdentifier::new(bid)),
            Request::Plain { .. } | Request::DeregisterAll => {}
        }
        Message::BindingUpdate(BindingUpdate {
            // req MC-15, R-MN-23 (RFC 5648 §4.1): one sequence for all bindings.
            sequence: peer.next_sequence,
            flags: BindingUpdateFlags {
                acknowledge: true,
                overwrite: peer.overwrite && matches!(request, Request::Register { .. }),
                ..BindingUpdateFlags::default()
            },
            lifetime,
            options,
        })
    }

    /// The way an update takes, and its source.
    ///
    /// A care-of address is registered from itself. The end of bindings is told from home when
    /// there, else by the uplink that answers best. Where nothing gets through that carries a
    /// Home Address option, the home address tells it itself, inside the tunnel: for want of the
    /// care-of address as source, which RFC 6275 §11.7.2 asks for, the correspondent would go on
    /// sending to where nothing arrives.
    fn way(&self, peer: &Peer, request: Request) -> Option<(Route, Ipv6Addr)> {
        if let Some(bid) = request.registers() {
            return self.uplinks.get(&bid).map(|uplink| (Route::Path(bid), uplink.care_of));
        }
        let home_address = self.config.home_address.0;
        if self.at_home {
            return Some((Route::Home, home_address));
        }
        let rank = |bid: &Bid| {
            let entry = peer.entries.get(bid);
            entry.map_or((true, 0), |entry| (entry.grant.is_none(), entry.unanswered))
        };
        let eaten = |bid: &Bid| peer.entries.get(bid).is_some_and(|entry| entry.eaten);
        let tries = match request {
            Request::Deregister { bid } => peer.entries.get(&bid).map_or(0, |entry| entry.endings),
            _ => peer.endings,
        };
        let mut up: Vec<_> = self.uplinks.iter().collect();
        up.sort_by_key(|(bid, uplink)| (rank(bid), uplink.priority, **bid));
        let straight: Vec<_> = up.iter().filter(|(bid, _)| !eaten(bid)).collect();
        // Another uplink each time, as one may be silent; at last the tunnel.
        match straight.get(tries as usize) {
            Some((bid, uplink)) => Some((Route::Path(**bid), uplink.care_of)),
            None => {
                let (bid, _) = up.get(tries as usize % up.len().max(1))?;
                Some((Route::Tunnel(**bid), home_address))
            }
        }
    }
}
