//! Links that a movement detector outside has taken over (RFC 6275 §11.5 leaves open how movement
//! is detected).
//!
//! What it says counts in place of our own judgement of carrier, routers and home prefixes. What
//! is impossible stays so: an interface that does not exist or is switched off carries nothing,
//! and an address that is not the interface's, or not yet, is registered by nobody.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use mtun_policy::InterfaceName;

use super::{Attachment, DownReason, Link, Movement, Movements};

/// What a movement detector says of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has this care-of address, or one of the interface's for `None`.
    CareOf(Option<Ipv6Addr>),
    /// It is the home link of this home address.
    Home(Ipv6Addr),
    /// It leads nowhere.
    Nothing,
}

impl Movements {
    /// Gives a link to a detector that says this, or takes it back for `None`; what it changes.
    /// Refused, and nothing changed, where the kernel makes it impossible.
    pub fn claim(
        &mut self,
        uplink: &InterfaceName,
        said: Option<Said>,
    ) -> Result<Vec<Movement>, DownReason> {
        let before = match said {
            Some(said) => self.claims.insert(uplink.clone(), said),
            None => self.claims.remove(uplink),
        };
        let can_be = match said {
            Some(Said::Nothing) | None => Ok(()),
            Some(Said::CareOf(_) | Said::Home(_)) => self.found(uplink).map(drop),
        };
        if let Err(reason) = can_be {
            match before {
                Some(before) => self.claims.insert(uplink.clone(), before),
                None => self.claims.remove(uplink),
            };
            return Err(reason);
        }
        Ok(self.judge())
    }

    /// Whether a detector outside has the link.
    pub fn is_claimed(&self, uplink: &InterfaceName) -> bool {
        self.claims.contains_key(uplink)
    }
}

impl Link {
    pub(super) fn attachment_as_said(
        &self,
        said: Said,
        own: &[Ipv6Net],
        current: Option<Ipv6Addr>,
    ) -> Result<Attachment, DownReason> {
        let facts = self.facts.as_ref().ok_or(DownReason::NoInterface)?;
        if !facts.up {
            return Err(DownReason::LinkDown);
        }
        let usable = self.care_of(own, current);
        let (care_of, addresses, home_links) = match said {
            Said::Nothing => return Err(DownReason::Detector),
            Said::Home(home_address) => {
                let (care_of, addresses) = usable.unwrap_or((home_address, BTreeSet::new()));
                (care_of, addresses, BTreeSet::from([home_address]))
            }
            Said::CareOf(None) => {
                let (care_of, addresses) = usable?;
                (care_of, addresses, BTreeSet::new())
            }
            Said::CareOf(Some(care_of)) => {
                let (_, addresses) = usable?;
                if !addresses.contains(&care_of) {
                    return Err(match self.addresses.get(&care_of) {
                        Some(facts) if facts.tentative => DownReason::Tentative,
                        Some(facts) if facts.duplicate => DownReason::DuplicateAddress,
                        _ => DownReason::NoAddress,
                    });
                }
                (care_of, addresses, BTreeSet::new())
            }
        };
        // A router that has not answered is the detector's affair, that there is one ours.
        let router = match (self.router(facts.link_layer), said) {
            (Ok(router), _) => router,
            (Err(_), Said::Home(_)) => self.default_routes().find_map(|it| it.router),
            (Err(reason), _) => Some(self.default_routes().find_map(|it| it.router).ok_or(reason)?),
        };
        Ok(Attachment {
            interface: facts.name.clone(),
            index: facts.index,
            care_of,
            home_links,
            addresses,
            router,
            on_link: self.on_link(),
            mtu: facts.mtu,
        })
    }
}
