//! The Binding Identifier options of one update, each judged by itself (RFC 5648 §6.2).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::CareOfAddress;

use super::HomeAgent;
use crate::binding::{Binding, BindingCacheEntry, is_routable};
use crate::wire::Status;
use crate::wire::option::BindingIdentifier;

/// One option and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub option: BindingIdentifier,
    /// [`Status::ACCEPTED`], for a home binding perhaps
    /// [`Status::MCOA_RETURN_HOME_WITHOUT_NDP`], or why this binding was refused.
    pub status: Status,
}

/// What the options of one update come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub judged: Vec<Judged>,
    /// All bindings of the home address afterwards, if any option was accepted; otherwise what
    /// is there stays. Taken out into the entry.
    pub bindings: Vec<Binding>,
}

impl Outcome {
    /// Whether any binding was accepted.
    pub(super) fn any(&self) -> bool {
        self.judged.iter().any(|judged| judged.status.is_accepted())
    }

    /// The status of the whole acknowledgement (RFC 5648 §6.2).
    pub(super) fn status(&self) -> Status {
        let statuses = || self.judged.iter().map(|judged| judged.status);
        let first = statuses().next().unwrap_or(Status::ACCEPTED);
        // req R-HA-24, MC-20 (RFC 5648 §6.3): in the acknowledgement as well as in its option.
        if let Some(at_home) = statuses().find(|status| *status != Status::ACCEPTED)
            && statuses().all(Status::is_accepted)
        {
            return at_home;
        }
        // req R-HA-22, MC-11 (RFC 5648 §6.2): a verdict they share is that of the update.
        if statuses().all(|status| status == first) { first } else { Status::MCOA_NOT_COMPLETE }
    }
}

impl HomeAgent {
    /// Judges the options of a registering update and applies the good ones.
    ///
    /// All are judged against the state before the update: with `overwrite`, an option without
    /// an address keeps the one its BID had.
    pub(super) fn register_identifiers(
        &self,
        entry: &BindingCacheEntry,
        options: &[BindingIdentifier],
        overwrite: bool,
        max_bindings: u16,
        expires: Duration,
    ) -> Outcome {
        let mut bindings = if overwrite { Vec::new() } else { entry.bindings.clone() };
        let mut judged = Vec::with_capacity(options.len());
        for option in options {
            let twice = options.iter().filter(|other| other.bid == option.bid).count() > 1;
            // req MC-20 (RFC 5648 §5.6.3): a mobile is at home once.
            let homes = options.iter().filter(|other| other.home).count();
            let verdict = if twice || option.home && homes > 1 {
                Err(Status::MCOA_MALFORMED)
            } else {
                self.judge_identifier(entry, option, expires)
            };
            let status = match verdict {
                Ok((binding, accepted)) => {
                    if option.home {
                        // Another interface is at home now.
                        bindings.retain(|known: &Binding| {
                            known.bid == binding.bid || known.care_of != binding.care_of
                        });
                    }
                    let full = bindings.len() >= usize::from(max_bindings);
                    match bindings.iter_mut().find(|known| known.bid == binding.bid) {
                        // req MC-06, R-HA-15 (RFC 5648 §6.2): same BID, other address: updated.
                        Some(known) => {
                            *known = binding;
                            accepted
                        }
                        // req MC-26: the number of bindings is bounded per home address.
                        None if full => Status::INSUFFICIENT_RESOURCES,
                        None => {
                            // req MC-28: also under an address that another BID has.
                            bindings.push(binding);
                            accepted
                        }
                    }
                }
                Err(status) => status,
            };
            judged.push(Judged { option: *option, status });
        }
        bindings.sort_by_key(|binding| binding.bid);
        Outcome { judged, bindings }
    }

    fn judge_identifier(
        &self,
        entry: &BindingCacheEntry,
        option: &BindingIdentifier,
        expires: Duration,
    ) -> Result<(Binding, Status), Status> {
        // req MC-04 (RFC 5648 §4.3): zero names nothing.
        let bid = Some(option.bid.ok_or(Status::MCOA_MALFORMED)?);
        // req HA-12 (RFC 6275 §10.3.1): this one for a reason of ours, the others as they are.
        if self.served.get(&entry.home_address).is_some_and(|it| it.mobile.refuses(bid)) {
            return Err(Status::ADMINISTRATIVELY_PROHIBITED);
        }
        let binding = |care_of| Binding { bid, care_of, priority: option.priority, expires };
        if option.home {
            let accepted = self.home_binding_status()?;
            // req R-HA-24, MC-20 (RFC 5648 §5.6.3, §6.2): its address is the home address.
            let named = match option.care_of {
                None => entry.binding(bid).ok_or(Status::MCOA_UNKNOWN_COA)?.care_of,
                Some(named) => named,
            };
            let at_home = named.0 == entry.home_address.0;
            return if at_home {
                Ok((binding(named), accepted))
            } else {
                Err(Status::MCOA_MALFORMED)
            };
        }
        let care_of = match option.care_of {
            // req MC-05, R-HA-17 (RFC 5648 §6.2).
            None => match entry.binding(bid) {
                Some(known) if known.care_of.0 != entry.home_address.0 => known.care_of,
                _ => return Err(Status::MCOA_UNKNOWN_COA),
            },
            Some(CareOfAddress(IpAddr::V6(address))) => {
                // req MC-02 (RFC 5648 §6.2).
                if !is_routable(address) {
                    return Err(Status::MCOA_MALFORMED);
                }
                self.check_care_of(entry, address)?;
                address.into()
            }
            // Reached through UDP and NAT only (RFC 5555), which this agent does not do.
            Some(CareOfAddress(IpAddr::V4(_))) => return Err(Status::INVALID_CARE_OF_ADDRESS),
        };
        Ok((binding(care_of), Status::ACCEPTED))
    }

    /// Refuses care-of addresses that would send packets round in a circle.
    ///
    /// An address inside another mobile's prefix is legal: a mobile may visit a mobile network.
    pub(super) fn check_care_of(
        &self,
        entry: &BindingCacheEntry,
        care_of: Ipv6Addr,
    ) -> Result<(), Status> {
        // req HA-13 (RFC 6275 §6.1.8, §15.1).
        let is_home_address = self.prefixes.is_home_address(mtun_policy::HomeAddress(care_of));
        let is_own_network = entry.prefixes.iter().any(|prefix| prefix.contains(care_of));
        if is_home_address || is_own_network || care_of == self.address.0 {
            return Err(Status::INVALID_CARE_OF_ADDRESS);
        }
        Ok(())
    }
}

/// Judges the options of a de-registering update and removes the bindings they name.
pub(super) fn deregister_identifiers(
    entry: Option<&BindingCacheEntry>,
    options: &[BindingIdentifier],
) -> Outcome {
    let held = entry.map_or(&[][..], |entry| &entry.bindings);
    let names = |option: &BindingIdentifier, binding: &Binding| {
        option.bid.is_some() && option.bid == binding.bid
    };
    let judged = options.iter().map(|option| {
        // req MC-10, R-HA-21 (RFC 5648 §6.2).
        let known = held.iter().any(|binding| names(option, binding));
        let status = if known { Status::ACCEPTED } else { Status::NOT_HOME_AGENT };
        Judged { option: *option, status }
    });
    let kept = held.iter().filter(|binding| !options.iter().any(|option| names(option, binding)));
    Outcome { judged: judged.collect(), bindings: kept.cloned().collect() }
}
