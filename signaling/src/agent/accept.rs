//! What a Binding Update must pass, in the order of RFC 6275 §9.2, §9.5.1 and §10.3.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::HomeAddress;

use super::flows::FlowAnswers;
use super::gate::{self, Known};
use super::identifiers::{Outcome, deregister_identifiers};
use super::{AgentNotice, AgentOutput, HomeAgent, Ignored, Standing};
use crate::auth;
use crate::binding::{Binding, BindingCacheEntry, is_routable};
use crate::error::Answer;
use crate::machine::{Envelope, Transmit};
use crate::time::{NtpTime, Timestamp};
use crate::wire::iana::{authentication_subtype, binding_error, mh};
use crate::wire::option::BindingIdentifier;
use crate::wire::{self, BindingError, BindingUpdate, Lifetime, Message, Options, Status};

/// One Binding Update on its way through the steps.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub envelope: Envelope,
    /// What its octets proved.
    pub standing: Standing,
    pub update: BindingUpdate,
    /// The home address it claims: that of the Home Address option, else its source.
    pub home_address: HomeAddress,
    /// The care-of address that enters the authentication data, of the answer too.
    pub care_of: Ipv6Addr,
    pub bids: Vec<BindingIdentifier>,
}

/// How an update fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// Not worth an answer.
    Ignore(Ignored),
    /// Refused, and the sender is told; `forged` when it did not prove who it is.
    Refuse { status: Status, forged: bool },
    /// Refused because its timestamp is off: the answer carries this one.
    Clock(NtpTime),
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
        Self::Refuse { status, forged: false }
    }
}

/// An update that passed: what the home address holds from here on, and what its sender is told.
#[derive(Debug)]
pub(super) struct Accepted {
    pub entry: BindingCacheEntry,
    pub lifetime: Lifetime,
    /// Verdicts on the single bindings; empty for an update without Binding Identifiers.
    pub outcome: Option<Outcome>,
    /// What its sender is told of flow bindings.
    pub flows: FlowAnswers,
}

impl Accepted {
    /// Whether anything of the update was accepted.
    pub(super) fn any(&self) -> bool {
        self.outcome.as_ref().is_none_or(Outcome::any)
    }
}

type Step<T = ()> = Result<T, Objection>;

impl HomeAgent {
    /// Every check on a Binding Update, first to last. What fails, ends it; nothing is changed
    /// before the last one passed, except that an authentic timestamp is used up.
    pub(super) fn examine(&mut self, now: Timestamp, claim: &Claim) -> Step<Accepted> {
        self.check_source(&claim.envelope)?;
        self.check_authentic(claim)?;
        self.check_fresh(now, claim)?;
        self.check_sequence(now.monotonic, claim)?;
        self.check_keeping()?;
        self.check_home_registration(claim)?;
        self.check_nonce_indices(claim)?;
        self.check_multiple_care_of(claim)?;
        if self.is_deregistration(claim) {
            return self.deregister(claim);
        }
        self.check_home_subnet(claim)?;
        self.check_permitted(claim)?;
        self.check_router(claim)?;
        let prefixes = self.check_prefixes(claim)?;
        self.register(now.monotonic, claim, prefixes)
    }

    /// RFC 6275 §9.5.4: only a unicast source can be answered.
    fn check_source(&self, envelope: &Envelope) -> Step {
        // req R-ALL-09 (RFC 6275 §9.5.4).
        let source = envelope.source;
        if source.is_multicast() || source.is_unspecified() || source.is_loopback() {
            return Err(Ignored::Source.into());
        }
        // req MH-17: not to us, be it a group or an anycast address.
        if envelope.destination != self.address.0 {
            return Err(Ignored::NotForAgent.into());
        }
        Ok(())
    }

    /// RFC 6275 §5.1, RFC 4285 §5: the security association of this very home address.
    fn check_authentic(&self, claim: &Claim) -> Step {
        match claim.standing {
            Standing::Authentic { .. } => Ok(()),
            Standing::Unprotected(_) => {
                match claim.update.options.authentication(authentication_subtype::MN_HA) {
                    // req SE-02 (RFC 4285 §5.1.1): no association, no answer.
                    Some(_) => Err(Ignored::NoSecurityAssociation.into()),
                    None => Ok(()),
                }
            }
            // req SE-02 (RFC 4285 §5.3).
            Standing::Forged(_) => {
                Err(Objection::Refuse { status: Status::AUTHENTICATION_FAILED, forged: true })
            }
            // req HA-08, SE-01, SE-06 (RFC 6275 §10.3.1, RFC 4285 §5): silence for what is not
            // protected and for keys that are not this home address's.
            Standing::Worthless(reason) => Err(reason.into()),
            Standing::Other => Err(Ignored::Unexpected(mh::BINDING_UPDATE).into()),
        }
    }

    /// RFC 4285 §6: the timestamp is near our time of day and later than all before.
    fn check_fresh(&mut self, now: Timestamp, claim: &Claim) -> Step {
        let Some(served) = self.served.get_mut(&claim.home_address) else { return Ok(()) };
        if served.mobile.protection.is_none() {
            return Ok(());
        }
        let timestamp = claim.update.options.message_id().ok_or(Status::MESSAGE_ID_REQUIRED)?;
        let ours = self.clock.read(now);
        if served.replay.accept_timestamp(ours, timestamp) {
            Ok(())
        } else {
            Err(Objection::Clock(ours.with_fraction_of(timestamp)))
        }
    }

    /// RFC 6275 §9.5.1: newer than the last accepted one, over all bindings of the home address.
    fn check_sequence(&self, now: Duration, claim: &Claim) -> Step {
        // req MC-15, HA-30, HA-31, HA-32 (RFC 5648 §4.1, RFC 6275 §9.5.1).
        let served = self.served.get(&claim.home_address);
        match served.and_then(|served| served.replay.out_of_window(now, claim.update.sequence)) {
            Some(last) => Err(Objection::Sequence(last)),
            None => Ok(()),
        }
    }

    /// What could be forgotten is not promised.
    fn check_keeping(&self) -> Step {
        // req PS-08.
        if self.keeping { Ok(()) } else { Err(Status::INSUFFICIENT_RESOURCES.into()) }
    }

    /// RFC 6275 §9.5.1, RFC 3963 §6.2: the H flag, and nobody's proxy.
    fn check_home_registration(&self, claim: &Claim) -> Step {
        let flags = claim.update.flags;
        if flags.proxy {
            return Err(Status::PROXY_REGISTRATION_NOT_ENABLED.into());
        }
        if flags.home {
            return Ok(());
        }
        // req R-HA-11, NH-04, NH-05 (RFC 6275 §9.5.1, RFC 3963 §6.2).
        Err(match (self.cache.get(claim.home_address), flags.router) {
            (Some(_), _) => Status::REGISTRATION_TYPE_CHANGE_DISALLOWED.into(),
            (None, true) => Status::MOBILE_ROUTER_NOT_PERMITTED.into(),
            (None, false) => Ignored::CorrespondentRegistration.into(),
        })
    }

    /// RFC 6275 §9.5.1: Nonce Indices belong to correspondent registrations.
    fn check_nonce_indices(&self, claim: &Claim) -> Step {
        // req HA-09 (RFC 6275 §6.2.6).
        match claim.update.options.nonce_indices() {
            Some(_) => Err(Ignored::NonceIndices.into()),
            None => Ok(()),
        }
    }

    /// RFC 5648 §6.2: options well formed, several care-of addresses allowed, bulk allowed.
    fn check_multiple_care_of(&self, claim: &Claim) -> Step {
        let options = &claim.update.options;
        // req MC-01, R-HA-16 (RFC 5648 §6.2).
        if options.has_malformed_bid() {
            return Err(Status::MCOA_MALFORMED.into());
        }
        if claim.bids.is_empty() {
            return Ok(());
        }
        // req MC-03 (RFC 5648 §5.2): never both.
        if options.alternate_care_of().is_some() {
            return Err(Status::MCOA_MALFORMED.into());
        }
        // req MC-14 (RFC 5648 §4.4).
        if !self.multiple_coa {
            return Err(Status::MCOA_PROHIBITED.into());
        }
        if claim.bids.len() > 1 && !self.bulk {
            return Err(Status::MCOA_BULK_PROHIBITED.into());
        }
        Ok(())
    }

    /// RFC 6275 §10.3.2, RFC 3963 §6.2: no lifetime, or the home address as care-of address.
    fn is_deregistration(&self, claim: &Claim) -> bool {
        // req HA-40, HA-41 (RFC 6275 §10.3.2).
        claim.update.lifetime.is_zero()
            || claim.bids.is_empty() && claim.plain_care_of() == claim.home_address.0
    }

    /// RFC 6275 §10.3.2, RFC 5648 §6.2: ends what is named, or all. Neither the R flag nor
    /// prefixes matter here (RFC 3963 §6.7).
    fn deregister(&self, claim: &Claim) -> Step<Accepted> {
        // req NH-11 (RFC 3963 §6.7).
        let held = self.cache.get(claim.home_address);
        let mut entry = self.entry(claim);
        let lifetime = Lifetime::ZERO;
        if claim.bids.is_empty() {
            // req R-HA-12, HA-42 (RFC 6275 §10.3.2).
            if held.is_none() {
                return Err(Status::NOT_HOME_AGENT.into());
            }
            // req FB-12 (RFC 6089 §5.3.3): and with the bindings all flow bindings, summary or not.
            entry.bindings.clear();
            let flows = FlowAnswers::default();
            return Ok(Accepted { entry, lifetime, outcome: None, flows });
        }
        let mut judged = deregister_identifiers(held, &claim.bids);
        if judged.status() == Status::NOT_HOME_AGENT {
            return Err(Status::NOT_HOME_AGENT.into());
        }
        entry.bindings = std::mem::take(&mut judged.bindings);
        // req FB-12 (RFC 6089 §5.3.3): flow bindings that are named stay, with whatever BIDs.
        let flows = self.apply_flows(claim, &mut entry);
        Ok(Accepted { entry, lifetime, outcome: Some(judged), flows })
    }

    /// RFC 6275 §10.3.1, RFC 3963 §6.2: the home address is one we serve.
    fn check_home_subnet(&self, claim: &Claim) -> Step {
        // req HA-07, NH-02, R-HA-02 (RFC 6275 §10.3.1): on the home network or in the mobile's prefix.
        let address = claim.home_address.0;
        let own = self.served.get(&claim.home_address).is_some_and(|served| {
            served.mobile.prefixes.iter().any(|prefix| prefix.contains(address))
        });
        if is_routable(address) && (own || self.home_network.contains(&address)) {
            Ok(())
        } else {
            Err(Status::NOT_HOME_SUBNET.into())
        }
    }

    /// RFC 6275 §10.3.1: any other reason of ours.
    fn check_permitted(&self, claim: &Claim) -> Step {
        // req HA-12.
        let served = self.served.get(&claim.home_address);
        // req HS-05 (RFC 5142 §5.3): who is sent away is not kept longer than promised.
        let sent_away = self.tellings.switching(claim.home_address);
        if sent_away || served.is_some_and(|served| served.mobile.refused) {
            return Err(Status::ADMINISTRATIVELY_PROHIBITED.into());
        }
        Ok(())
    }

    /// RFC 3963 §6.2: the R flag stays as it was.
    fn check_router(&self, claim: &Claim) -> Step {
        // req R-HA-27, NH-05 (RFC 3963 §6.2).
        match self.cache.get(claim.home_address) {
            Some(held) if held.router != claim.update.flags.router => {
                Err(Status::REGISTRATION_TYPE_CHANGE_DISALLOWED.into())
            }
            _ => Ok(()),
        }
    }

    /// RFC 3963 §6.2: the prefixes to forward, all that are asked for or a refusal.
    fn check_prefixes(&self, claim: &Claim) -> Step<Vec<mtun_policy::MobileNetworkPrefix>> {
        // req NH-03, R-HA-28, R-HA-29 (RFC 3963 §4.1, §6.2): R says that prefixes are wanted, each
        // update says which.
        if !claim.update.flags.router {
            return Ok(Vec::new());
        }
        let mut listed = claim.update.options.prefixes().peekable();
        let prefixes = if listed.peek().is_some() {
            self.prefixes.explicit(claim.home_address, listed)
        } else {
            self.prefixes.implicit(claim.home_address)
        };
        Ok(prefixes?)
    }

    /// RFC 6275 §10.3.1, RFC 5648 §6.2: care-of addresses, room for them, and the bindings.
    fn register(
        &self,
        now: Duration,
        claim: &Claim,
        prefixes: Vec<mtun_policy::MobileNetworkPrefix>,
    ) -> Step<Accepted> {
        let max_bindings =
            self.served.get(&claim.home_address).map_or(0, |served| served.mobile.max_bindings);
        // req HA-03 (RFC 6275 §10.3.1): from this update on, be it shorter.
        let longest = self.longest_lifetime(now, claim.home_address)?;
        let granted = claim.update.lifetime.min(longest);
        let expires = now + granted.duration();
        let held = self.cache.get(claim.home_address);
        let mut entry = BindingCacheEntry {
            home_address: claim.home_address,
            router: claim.update.flags.router,
            prefixes,
            bindings: held.map_or_else(Vec::new, |held| held.bindings.clone()),
            flows: held.map_or_else(Vec::new, |held| held.flows.clone()),
            reflect: held.is_some_and(|held| held.reflect),
            copies: held.is_some_and(|held| held.copies),
        };
        let accepted = |mut entry, outcome: Option<Outcome>| {
            // Refused as a whole, an update changes no flow binding either.
            let any = outcome.as_ref().is_none_or(Outcome::any);
            let flows = match any {
                true => self.apply_flows(claim, &mut entry),
                false => FlowAnswers::default(),
            };
            Ok(Accepted { entry, lifetime: granted, outcome, flows })
        };
        if claim.bids.is_empty() {
            let care_of = claim.plain_care_of();
            // req HA-10 (RFC 6275 §9.5.1).
            if !is_routable(care_of) {
                return Err(Ignored::CareOfAddress.into());
            }
            self.check_care_of(&entry, care_of)?;
            // req HA-12 (RFC 6275 §10.3.1).
            if max_bindings == 0 {
                return Err(Status::INSUFFICIENT_RESOURCES.into());
            }
            // req MC-09, R-HA-20 (RFC 5648 §6.2): in place of everything.
            entry.bindings =
                vec![Binding { bid: None, care_of: care_of.into(), priority: 0, expires }];
            return accepted(entry, None);
        }
        let overwrite = claim.update.flags.overwrite;
        // req MC-21 (RFC 5648 §5.6.5): at home no more, as no option says so.
        if !claim.bids.iter().any(|bid| bid.home) {
            entry.bindings.retain(|binding| binding.care_of.0 != entry.home_address.0);
        }
        // req MC-08, R-HA-19 (RFC 5648 §6.2): not beside a binding without BID.
        if entry.is_plain() && !overwrite {
            return Err(Status::MCOA_NON_MCOA_BINDING_EXISTS.into());
        }
        let mut outcome =
            self.register_identifiers(&entry, &claim.bids, overwrite, max_bindings, expires);
        entry.bindings = std::mem::take(&mut outcome.bindings);
        accepted(entry, Some(outcome))
    }

    /// What is held for the home address, empty when nothing is.
    fn entry(&self, claim: &Claim) -> BindingCacheEntry {
        self.cache.get(claim.home_address).cloned().unwrap_or_else(|| BindingCacheEntry {
            router: claim.update.flags.router,
            ..BindingCacheEntry::new(claim.home_address)
        })
    }

    /// A Mobility Header arrived: reads it, examines it, does and says what follows.
    pub(super) fn received(&mut self, now: Timestamp, envelope: &Envelope, message: &[u8]) {
        // req T-01, SE-01 (RFC 4285 §5.1.1): on its octets in place, so that strangers cost no memory.
        let standing = gate::judge(envelope, message, |home_address| {
            let served = self.served.get(&home_address).map(|it| &it.mobile.protection);
            match served {
                None => Known::Unknown,
                Some(None) => Known::Keyless,
                Some(Some(association)) => Known::Keyed(association),
            }
        });
        match standing {
            Standing::Worthless(reason) => return self.ignore(envelope.source, reason),
            Standing::Forged(home_address) if self.is_deaf_to_forgers(now, home_address) => {
                let notice = match self.check_source(envelope) {
                    Err(Objection::Ignore(reason)) => {
                        AgentNotice::Ignored { source: envelope.source, reason }
                    }
                    _ => AgentNotice::Refused {
                        home_address,
                        status: Status::AUTHENTICATION_FAILED,
                        answered: false,
                    },
                };
                return self.notice(notice);
            }
            _ => {}
        }
        if self.extension(now, envelope, message) {
            return;
        }
        // An update that has a standing has the right checksum.
        let read = match standing {
            Standing::Other => wire::receive(envelope, message),
            _ => wire::parse(message),
        };
        let update = match read {
            Ok(Message::BindingUpdate(update)) => update,
            Ok(other) => {
                return self.ignore(envelope.source, Ignored::Unexpected(other.mh_type()));
            }
            Err(error) => {
                self.ignore(envelope.source, Ignored::Undecodable(error));
                if error.answer() == Answer::BindingError {
                    self.send_binding_error(
                        now.monotonic,
                        envelope,
                        binding_error::UNRECOGNIZED_TYPE,
                    );
                }
                return;
            }
        };
        let claim = Claim {
            envelope: *envelope,
            standing,
            // req HA-14 (RFC 6275 §10.3.1): without Home Address option the source is the home address.
            home_address: HomeAddress(envelope.upper_source()),
            care_of: auth::care_of_address(&update, envelope),
            bids: update.options.bids().copied().collect(),
            update,
        };
        let home_address = claim.home_address;
        let guard = |agent: &Self| agent.served.get(&home_address).map(|it| it.replay.kept());
        let before = guard(self);
        let verdict = self.examine(now, &claim);
        // An authentic timestamp is used up, whatever becomes of the update.
        if self.keeping && (verdict.is_ok() || guard(self) != before) {
            self.out.push_back(AgentOutput::Keep { home_address });
        }
        match verdict {
            // Acknowledged when the home address is known to be nobody else's.
            Ok(accepted) if self.has_to_wait(&claim, &accepted) => self.hold(&claim, accepted),
            Ok(accepted) => self.commit(now.monotonic, &claim, accepted),
            Err(Objection::Ignore(reason)) => self.ignore(envelope.source, reason),
            Err(objection) => {
                self.give_up_waiting(&claim, &objection);
                self.refuse(now.monotonic, &claim, &objection);
            }
        }
    }

    /// Whether no answer is left for who signs with wrong keys in the name of this mobile.
    fn is_deaf_to_forgers(&self, now: Timestamp, home_address: HomeAddress) -> bool {
        let served = self.served.get(&home_address);
        served.is_none_or(|served| !served.forged.has(now.monotonic))
    }

    /// Changes the cache and acknowledges.
    pub(super) fn commit(&mut self, now: Duration, claim: &Claim, mut accepted: Accepted) {
        let home_address = claim.home_address;
        let status = accepted.outcome.as_ref().map_or(Status::ACCEPTED, Outcome::status);
        let status = self.with_prefix_status(now, home_address, status, accepted.lifetime);
        if !status.is_accepted() || status == Status::MCOA_NOT_COMPLETE {
            let notice = AgentNotice::Refused { home_address, status, answered: true };
            self.notice(notice);
        }
        if accepted.any() {
            if let Some(served) = self.served.get_mut(&home_address) {
                if accepted.entry.bindings.is_empty() {
                    // req HS-03 (RFC 5142 §6.1): it has heard what it was told.
                    self.tellings.end(home_address);
                    served.replay.deregistered(now, claim.update.sequence);
                } else {
                    served.replay.bound(claim.update.sequence);
                }
            }
            if let Some(served) = self.served.get_mut(&home_address) {
                served.account.accepted(now);
            }
            self.deliver_to(now, home_address, status == Status::PREFIX_DISCOVERY_NECESSARY);
            self.note_presence(claim);
            let nothing = BindingCacheEntry::new(home_address);
            self.replace(now, std::mem::replace(&mut accepted.entry, nothing));
        }
        // req HA-02, R-HA-01 (RFC 6275 §10.3.1): acknowledged whatever the A flag says.
        self.acknowledge(claim, &accepted, status);
    }

    /// req MH-05, MH-16, R-ALL-04 (RFC 6275 §9.2, §9.3.3): an MH Type that we do not know, or a Home
    /// Address option without a binding.
    pub(super) fn send_binding_error(&mut self, now: Duration, to: &Envelope, status: u8) {
        let answerable =
            !(to.source.is_multicast() || to.source.is_unspecified() || to.source.is_loopback());
        if !answerable || to.destination != self.address.0 || !self.errors.take(now, to.source) {
            return;
        }
        let home_address = to.home_address.map_or(Ipv6Addr::UNSPECIFIED, |home| home.0);
        let error = BindingError { status, home_address, options: Options::new() };
        let envelope = Envelope::plain(self.address.0, to.source);
        match wire::emit(&Message::BindingError(error), &envelope) {
            Ok(message) => {
                self.out.push_back(AgentOutput::Transmit(Transmit {
                    envelope,
                    path: None,
                    message,
                }));
            }
            Err(error) => self.notice(AgentNotice::Unwritable(error)),
        }
    }
}

impl Claim {
    /// The care-of address of an update without Binding Identifiers (RFC 6275 §9.5.1).
    fn plain_care_of(&self) -> Ipv6Addr {
        // req R-HA-42 (RFC 4877 §4.3): the one inside what is authenticated goes first.
        self.update.options.alternate_care_of().unwrap_or(self.envelope.source)
    }
}
