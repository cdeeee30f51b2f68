//! What a Binding Update must pass, in the order of RFC 6275 §9.2, §9.5.1 to §9.5.3 and
//! RFC 5648 §6.2.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};

use super::{Correspondent, CorrespondentNotice, Ignored, Pair, Record};
use crate::binding::{Binding, BindingCacheEntry, is_routable};
use crate::error::Answer;
use crate::machine::Envelope;
use crate::return_routability::{
    BindingManagementKey, CorrespondentUpdate, MAX_RR_BINDING_LIFETIME, Tested,
};
use crate::sequence::is_newer;
use crate::wire::iana::{binding_error, mh};
use crate::wire::option::BindingIdentifier;
use crate::wire::{self, BindingUpdate, Lifetime, Message, Status};

/// One Binding Update on its way through the steps.
pub(super) struct Claim<'m> {
    pub envelope: &'m Envelope,
    pub message: &'m [u8],
    pub pair: Pair,
    /// Read in place, before anything is believed.
    pub update: CorrespondentUpdate,
    /// The address to be registered, or the home address when de-registering: what enters the
    /// authenticator, of the answer too.
    pub care_of: Ipv6Addr,
    /// Whether it asks for the end of bindings.
    pub deregisters: bool,
}

/// What return routability has shown of an update.
pub(super) struct Authorized {
    pub kbm: BindingManagementKey,
    /// Until when the update could be played again.
    guarded_until: Duration,
    pub update: BindingUpdate,
}

/// How an update fails.
pub(super) enum Objection {
    /// Not worth an answer.
    Ignore(Ignored),
    /// Refused, and the sender is told.
    Refuse(Status),
    /// Refused because its sequence number is not newer than this one.
    Sequence(u16),
}

impl From<Ignored> for Objection {
    fn from(reason: Ignored) -> Self {
        Self::Ignore(reason)
    }
}

impl From<Status> for Objection {
    fn from(status: Status) -> Self {
        Self::Refuse(status)
    }
}

/// What an authorized update leaves, and what its sender is told.
struct Accepted {
    bindings: Vec<Binding>,
    /// The binding that it is about.
    bid: Option<Bid>,
    lifetime: Lifetime,
}

type Step<T = ()> = Result<T, Objection>;

impl Correspondent {
    /// A Mobility Header arrived: reads it, does and says what follows.
    pub(super) fn received(&mut self, now: Duration, envelope: &Envelope, message: &[u8]) {
        let source = envelope.source;
        let undecodable = |error| Ignored::Undecodable(error);
        // req MH-03, MH-04 (RFC 6275 §9.2).
        if !wire::verify_checksum(envelope, message) {
            return self.ignore(source, undecodable(crate::DecodeError::Checksum));
        }
        if !self.addresses.contains(&envelope.upper_destination()) {
            return self.ignore(source, Ignored::NotForUs);
        }
        match wire::check_header(message) {
            Ok(mh::HOME_TEST_INIT) => self.answer_test(now, envelope, message, Tested::Home),
            Ok(mh::CARE_OF_TEST_INIT) => self.answer_test(now, envelope, message, Tested::CareOf),
            Ok(mh::BINDING_UPDATE) => self.update_received(now, envelope, message),
            Ok(other) => self.ignore(source, Ignored::Unexpected(other)),
            Err(error) => {
                self.ignore(source, undecodable(error));
                // req MH-05, R-ALL-04 (RFC 6275 §9.2).
                if error.answer() == Answer::BindingError {
                    let home_address = envelope.home_address.map_or(Ipv6Addr::UNSPECIFIED, |a| a.0);
                    let status = binding_error::UNRECOGNIZED_TYPE;
                    let ours = envelope.upper_destination();
                    self.send_binding_error(now, ours, source, home_address, status);
                }
            }
        }
    }

    fn update_received(&mut self, now: Duration, envelope: &Envelope, message: &[u8]) {
        let claim = match self.read_claim(envelope, message) {
            Ok(claim) => claim,
            Err(reason) => return self.ignore(envelope.source, reason),
        };
        let authorized = match self.authorize(now, &claim) {
            Ok(authorized) => authorized,
            Err(objection) => return self.object(now, &claim, None, &objection),
        };
        match self.examine(now, &claim, &authorized) {
            Ok(accepted) => self.commit(now, &claim, &authorized, accepted),
            Err(objection) => {
                self.remember(now, &claim, &authorized, &objection);
                self.object(now, &claim, Some(&authorized), &objection);
            }
        }
    }

    /// RFC 6275 §9.5.1, §9.5.4: addresses that can be bound and answered.
    fn read_claim<'m>(
        &self,
        envelope: &'m Envelope,
        message: &'m [u8],
    ) -> Result<Claim<'m>, Ignored> {
        // req CN-19, CN-20, R-ALL-09 (RFC 6275 §9.5.1, §9.5.4): all of them, whatever is asked.
        let home_address = envelope.upper_source();
        if !self.may_be_bound(home_address) {
            return Err(Ignored::HomeAddress);
        }
        if !is_routable(envelope.source) {
            return Err(Ignored::Source);
        }
        let update = CorrespondentUpdate::read(message).map_err(Ignored::Unauthorized)?;
        let care_of = update.care_of_address(envelope.source);
        if update.alternate.is_some_and(|address| !is_routable(address))
            || care_of.is_none_or(|address| !is_routable(address))
        {
            return Err(Ignored::CareOfAddress);
        }
        // req CN-45, CN-46 (RFC 6275 §9.5.1): no lifetime, or the home address as care-of address.
        let deregisters = update.lifetime.is_zero() || care_of == Some(home_address);
        // req CN-18 (RFC 6275 §6.2.7).
        let care_of = care_of.filter(|_| !deregisters).unwrap_or(home_address);
        let pair = Pair {
            correspondent: envelope.upper_destination(),
            home_address: HomeAddress(home_address),
        };
        Ok(Claim { envelope, message, pair, update, care_of, deregisters })
    }

    /// RFC 6275 §9.5.1: the H flag, the nonces and the authenticator. Changes nothing, and
    /// allocates nothing before the authenticator is found to be right.
    fn authorize(&self, now: Duration, claim: &Claim<'_>) -> Step<Authorized> {
        let update = &claim.update;
        // req CN-17 (RFC 6275 §9.5.1): L and K mean nothing to a correspondent.
        if update.home {
            // req CN-21, CN-22, HA-11 (RFC 6275 §9.5.1, §10.3.1): no home agent here.
            return Err(match (update.indices, self.records.bound(claim.pair)) {
                (Some(_), _) => Ignored::NonceIndices.into(),
                (None, Some(_)) => Status::REGISTRATION_TYPE_CHANGE_DISALLOWED.into(),
                (None, None) => Status::HOME_REGISTRATION_NOT_SUPPORTED.into(),
            });
        }
        // req CN-14, CN-15, R-CN-03 (RFC 6275 §9.5.1).
        let indices = update.indices.ok_or(Ignored::NoNonceIndices)?;
        update.has_authenticator().map_err(Ignored::Unauthorized)?;
        let home = self.nonces.get(now, indices.home);
        let care_of = self.nonces.get(now, indices.care_of);
        // req CN-50, CN-51, CN-52, CN-53, CN-54, R-CN-04 (RFC 6275 §9.5.1): the care-of nonce is not
        // looked at when de-registering.
        let home = match (home, care_of) {
            (None, None) if !claim.deregisters => return Err(Status::EXPIRED_NONCES.into()),
            (None, _) => return Err(Status::EXPIRED_HOME_NONCE_INDEX.into()),
            (Some(_), None) if !claim.deregisters => {
                return Err(Status::EXPIRED_CARE_OF_NONCE_INDEX.into());
            }
            (Some(home), _) => home,
        };
        let Pair { correspondent, home_address } = claim.pair;
        let home_token = home.keygen_token(correspondent, home_address.0, Tested::Home);
        let kbm = match care_of.filter(|_| !claim.deregisters) {
            Some(care_of) => BindingManagementKey::registering(
                &home_token,
                &care_of.keygen_token(correspondent, claim.care_of, Tested::CareOf),
            ),
            None => BindingManagementKey::deregistering(&home_token),
        };
        // req CN-43, CN-55 (RFC 6275 §9.5.1): tokens are good for as long as their nonces.
        let verdict = update.verify(claim.message, claim.care_of, correspondent, &kbm);
        verdict.map_err(Ignored::Unauthorized)?;
        match wire::parse(claim.message) {
            Ok(Message::BindingUpdate(update)) => {
                Ok(Authorized { kbm, guarded_until: home.expires(), update })
            }
            Ok(other) => Err(Ignored::Unexpected(other.mh_type()).into()),
            Err(error) => Err(Ignored::Undecodable(error).into()),
        }
    }

    /// RFC 6275 §9.5.1 to §9.5.3, RFC 5648 §6.2: whether the mobile gets what it may ask for.
    fn examine(&self, now: Duration, claim: &Claim<'_>, authorized: &Authorized) -> Step<Accepted> {
        let record = self.records.get(claim.pair);
        // req CN-31, CN-32, CN-47, MC-15 (RFC 6275 §9.5.1, RFC 5648 §4.1): one number for all
        // bindings, and also for a while after the last one; without a record any will do.
        if let Some(record) = record
            && !is_newer(claim.update.sequence, record.sequence)
        {
            return Err(Objection::Sequence(record.sequence));
        }
        let option = self.check_identifiers(authorized)?;
        let held = record.map(|record| &record.entry);
        if claim.deregisters {
            return deregister(held, option);
        }
        self.register(now, claim, authorized, held, option)
    }

    /// RFC 5648 §6.2: at most one Binding Identifier, and one that is well formed.
    fn check_identifiers(&self, authorized: &Authorized) -> Step<Option<BindingIdentifier>> {
        let options = &authorized.update.options;
        // req MC-01 (RFC 5648 §6.2).
        if options.has_malformed_bid() {
            return Err(Status::MCOA_MALFORMED.into());
        }
        let mut bids = options.bids();
        let Some(option) = bids.next() else { return Ok(None) };
        // req MC-14 (RFC 5648 §4.4).
        if !self.config.multiple_coa {
            return Err(Status::MCOA_PROHIBITED.into());
        }
        // req MC-13, R-CN-10 (RFC 5648 §6.2): one update, one binding.
        if bids.next().is_some() {
            return Err(Status::MCOA_BULK_PROHIBITED.into());
        }
        // req MC-03, MC-04 (RFC 5648 §4.3, §5.2).
        if option.bid.is_none() || options.alternate_care_of().is_some() {
            return Err(Status::MCOA_MALFORMED.into());
        }
        // Only a home agent can have a mobile at home and abroad at once (RFC 5648 §4.3).
        if option.home {
            return Err(Status::MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED.into());
        }
        Ok(Some(*option))
    }

    /// RFC 6275 §9.5.2, RFC 5648 §6.2: the care-of address, and room for it.
    fn register(
        &self,
        now: Duration,
        claim: &Claim<'_>,
        authorized: &Authorized,
        held: Option<&BindingCacheEntry>,
        option: Option<BindingIdentifier>,
    ) -> Step<Accepted> {
        let bid = option.and_then(|option| option.bid);
        // req CN-40, CN-41, R-CN-05 (RFC 6275 §5.2.6, §9.5.2).
        let longest = self.config.max_lifetime.min(MAX_RR_BINDING_LIFETIME);
        let lifetime = claim.update.lifetime.min(Lifetime::from_duration(longest).max(Lifetime(1)));
        let mut bindings = held.map_or_else(Vec::new, |held| held.bindings.clone());
        if let Some(option) = option {
            let overwrite = authorized.update.flags.overwrite;
            // req MC-08 (RFC 5648 §6.2): not beside a binding without BID.
            if held.is_some_and(BindingCacheEntry::is_plain) && !overwrite {
                return Err(Status::MCOA_NON_MCOA_BINDING_EXISTS.into());
            }
            // req MC-05 (RFC 5648 §6.2): without an address it renews the one that the packet
            // comes from, since that is the one that was tested.
            let known = bindings.iter().find(|binding| binding.bid == bid);
            let unchanged = known.is_some_and(|known| known.care_of == claim.care_of.into());
            if option.care_of.is_none() && !unchanged {
                return Err(Status::MCOA_UNKNOWN_COA.into());
            }
            // req MC-07 (RFC 5648 §6.2): in place of everything.
            if overwrite {
                bindings.clear();
            }
            bindings.retain(|binding| binding.bid != bid);
        } else {
            // req MC-09 (RFC 5648 §6.2): a plain update too.
            bindings.clear();
        }
        self.check_circle(claim)?;
        // req MC-26, CN-26 (RFC 6275 §9.5.2, §9.6).
        let is_new = self.records.bound(claim.pair).is_none();
        if bindings.len() >= usize::from(self.config.max_bindings)
            || is_new && !self.has_room(claim.pair)
        {
            return Err(Status::INSUFFICIENT_RESOURCES.into());
        }
        let expires = now + lifetime.duration();
        let priority = option.map_or(0, |option| option.priority);
        bindings.push(Binding { bid, care_of: claim.care_of.into(), priority, expires });
        bindings.sort_by_key(|binding| binding.bid);
        Ok(Accepted { bindings, bid, lifetime })
    }

    /// A care-of address that is bound itself, or ours, would send packets round in a circle.
    fn check_circle(&self, claim: &Claim<'_>) -> Step {
        // req CN-23 (RFC 6275 §6.1.8): whoever closes a circle names an address that is bound.
        let care_of = Pair { home_address: HomeAddress(claim.care_of), ..claim.pair };
        if self.addresses.contains(&claim.care_of) || self.records.bound(care_of).is_some() {
            return Err(Status::INVALID_CARE_OF_ADDRESS.into());
        }
        Ok(())
    }

    /// Whether another mobile can be taken in, if need be in place of one.
    fn has_room(&self, pair: Pair) -> bool {
        // Whoever goes has to be remembered, so that evicting one makes no room in memory.
        self.config.max_mobiles > 0
            && (self.records.get(pair).is_some() || self.records.len() < self.max_records())
    }

    /// Most pairs that take memory, bound or remembered.
    fn max_records(&self) -> usize {
        self.config.max_mobiles.saturating_mul(2)
    }

    /// Whether a pair that is not bound may be remembered.
    fn may_remember(&self) -> bool {
        self.records.len() < self.max_records()
            && self.records.remembered() < self.config.max_mobiles
    }

    /// Changes the record and acknowledges.
    fn commit(
        &mut self,
        now: Duration,
        claim: &Claim<'_>,
        authorized: &Authorized,
        accepted: Accepted,
    ) {
        let pair = claim.pair;
        let registers = !accepted.bindings.is_empty();
        let known = self.records.take(pair);
        if registers && self.records.live() >= self.config.max_mobiles {
            self.evict(now);
        }
        if known.is_some() || registers || self.may_remember() {
            let sequence = claim.update.sequence;
            let mut record = known.unwrap_or_else(|| Record::new(pair.home_address, sequence));
            let before = record.entry.clone();
            let guarded_until = authorized.guarded_until;
            record.accept(now, sequence, guarded_until, accepted.bindings, accepted.bid);
            self.put(now, pair, &before, record);
        }
        // req CN-10, CN-11 (RFC 6275 §9.5.4): an accepted update is answered when it wants to be.
        if authorized.update.flags.acknowledge {
            self.acknowledge(claim, authorized, accepted.lifetime);
        }
    }

    /// An authorized update that was refused must not work later either.
    fn remember(
        &mut self,
        now: Duration,
        claim: &Claim<'_>,
        authorized: &Authorized,
        objection: &Objection,
    ) {
        let Objection::Refuse(_) = objection else { return };
        let (pair, sequence) = (claim.pair, claim.update.sequence);
        let room = self.may_remember();
        let known = self.records.take(pair);
        let new = || room.then(|| Record::new(pair.home_address, sequence));
        if let Some(mut record) = known.or_else(new) {
            // req CN-42: no binding changes, nor does its lifetime.
            record.guard(sequence, authorized.guarded_until);
            self.records.put(now, pair, record);
        }
    }

    fn object(
        &mut self,
        now: Duration,
        claim: &Claim<'_>,
        authorized: Option<&Authorized>,
        objection: &Objection,
    ) {
        let source = claim.envelope.source;
        let (status, sequence) = match *objection {
            Objection::Ignore(reason) => return self.ignore(source, reason),
            Objection::Refuse(status) => (status, claim.update.sequence),
            Objection::Sequence(last) => (Status::SEQUENCE_OUT_OF_WINDOW, last),
        };
        let home_address = claim.pair.home_address;
        let answered = self.refusals.take(now, source);
        self.notice(CorrespondentNotice::Refused { home_address, status, answered });
        // req CN-12, CN-13 (RFC 6275 §9.5.4): refusals are told whatever the A flag says.
        if answered {
            self.refuse(claim, authorized, status, sequence);
        }
    }
}

/// RFC 6275 §9.5.3, RFC 5648 §6.2: ends what is named, or all.
fn deregister(
    held: Option<&BindingCacheEntry>,
    option: Option<BindingIdentifier>,
) -> Step<Accepted> {
    let mut bindings = held.map_or_else(Vec::new, |held| held.bindings.clone());
    let bid = option.and_then(|option| option.bid);
    if option.is_some() {
        let before = bindings.len();
        bindings.retain(|binding| binding.bid != bid);
        // req MC-10 (RFC 5648 §6.2).
        if bindings.len() == before {
            return Err(Status::NOT_HOME_AGENT.into());
        }
    } else {
        bindings.clear();
    }
    Ok(Accepted { bindings, bid, lifetime: Lifetime::ZERO })
}
