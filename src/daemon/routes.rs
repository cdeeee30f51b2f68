//! Routes past the home agent, for people.

use mtun_policy::{Bid, CareOfAddress};
use mtun_signaling::mobile::route_optimization::{CorrespondentEntry, Standing};

use super::home::MobileHome;
use super::optimization::{Optimization, Why};
use super::owner::Owner;
use super::tunnel::Tunnel;
use crate::control::documents::{
    BoundMobileDocument, CorrespondentDocument, RouteDocument, RouteState, StatusCode,
    TunnelDocument,
};

impl Owner {
    /// What was asked of correspondents, and how far it came.
    pub(super) fn route_documents(&self) -> Vec<RouteDocument> {
        let mut routes = Vec::new();
        for home in &self.homes {
            let Some(optimization) = &home.optimization else { continue };
            let entries: Vec<_> = optimization.machine().entries().collect();
            routes.extend(entries.iter().map(|entry| self.route(home, optimization, entry)));
            // Those of which nothing but the reason is left.
            let known = |it| entries.iter().any(|entry| entry.correspondent == it);
            for correspondent in optimization.wanted().filter(|it| !known(*it)) {
                let why = optimization.why(correspondent, None);
                routes.push(RouteDocument {
                    home: home.home.name.clone(),
                    correspondent,
                    bid: None,
                    link: None,
                    state: if why.is_some() { RouteState::Resting } else { RouteState::Trying },
                    care_of: None,
                    expires_seconds: None,
                    status: None,
                    reason: why.map(Why::word),
                    why: why.map(ToString::to_string),
                });
            }
        }
        routes
    }

    fn route(
        &self,
        home: &MobileHome,
        optimization: &Optimization,
        entry: &CorrespondentEntry,
    ) -> RouteDocument {
        let now = self.now().monotonic;
        let bound = entry.binding.as_ref();
        let why = match bound {
            Some(_) => None,
            None => optimization.why(entry.correspondent, Some(entry.bid)),
        };
        RouteDocument {
            home: home.home.name.clone(),
            correspondent: entry.correspondent,
            bid: Some(entry.bid),
            link: self.link_of(Some(entry.bid)),
            state: match entry.standing {
                Standing::Bound => RouteState::Straight,
                Standing::Trying => RouteState::Trying,
                Standing::Resting => RouteState::Resting,
                Standing::Ending => RouteState::Ending,
            },
            care_of: bound.map(|binding| CareOfAddress::from(binding.care_of)),
            expires_seconds: bound.map(|it| it.expires.saturating_sub(now).as_secs()),
            status: entry.last_status.map(|status| StatusCode {
                code: status.0,
                name: status.text().unwrap_or("unassigned").to_owned(),
            }),
            reason: why.map(Why::word),
            why: why.map(ToString::to_string),
        }
    }

    /// This node as a correspondent.
    pub(super) fn correspondent_document(&self) -> Option<CorrespondentDocument> {
        let responder = self.responder.as_ref()?;
        let now = self.now().monotonic;
        let mut mobiles = Vec::new();
        for (pair, entry) in responder.bindings() {
            mobiles.extend(entry.bindings.iter().map(|binding| BoundMobileDocument {
                correspondent: pair.correspondent,
                home_address: pair.home_address,
                bid: binding.bid,
                care_of: binding.care_of,
                expires_seconds: binding.expires.saturating_sub(now).as_secs(),
            }));
        }
        Some(CorrespondentDocument {
            addresses: responder.plan.addresses.clone(),
            tunnel: responder.tunnel.as_ref().map(tunnel_document),
            mobiles,
        })
    }

    /// Why the packets of a flow that its rule lets go straight take the tunnel, as far as the
    /// correspondent is to blame.
    pub(super) fn why_not_straight(
        &self,
        home: &MobileHome,
        correspondent: std::net::IpAddr,
        bid: Option<Bid>,
    ) -> Option<String> {
        let std::net::IpAddr::V6(correspondent) = correspondent else { return None };
        let optimization = home.optimization.as_ref()?;
        optimization.why(correspondent, bid).map(ToString::to_string)
    }
}

/// A tunnel interface.
pub(super) fn tunnel_document(tunnel: &Tunnel) -> TunnelDocument {
    TunnelDocument {
        name: tunnel.name.clone(),
        ifindex: tunnel.index(),
        mtu: tunnel.mtu,
        backend: tunnel.backend(),
        no_kmod: tunnel.no_kmod().map(ToString::to_string),
        no_fast_path: tunnel.no_fast_path().map(ToString::to_string),
        no_shortcut: tunnel.no_shortcut(),
        no_pins: tunnel.no_pins(),
    }
}
