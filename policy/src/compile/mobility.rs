//! Routes without the home agent, and what the node is to its correspondents.

use crate::document::{CorrespondentNode, Document, HomeNode};
use crate::mobility::{
    CorrespondentPlan, LONGEST_OPTIMIZED, RouteOptimizationPlan, StrangerAnswer,
};
use crate::policy::Tunnel;
use crate::terms::InterfaceName;

/// Correspondents of a mobile at a time if its home does not say.
const CORRESPONDENTS: usize = 64;

/// Mobiles of a correspondent at a time if it does not say.
const MOBILES: usize = 1024;

/// Bindings of one mobile at a correspondent if it does not say.
const BINDINGS: u16 = 16;

/// What `route-optimization` says; `None` if it is off or absent.
pub(super) fn route_optimization(home: &HomeNode) -> Option<RouteOptimizationPlan> {
    let node = home.route_optimization.as_ref()?;
    let most = node.correspondents.as_ref();
    Some(RouteOptimizationPlan {
        start: node.start.as_ref()?.value?,
        lifetime: node.lifetime.as_ref().map_or(LONGEST_OPTIMIZED, |lifetime| lifetime.value),
        max_correspondents: most.map_or(CORRESPONDENTS, |most| usize::from(most.value)),
    })
}

/// What `correspondent { … }` says; `None` if it is off or absent. Without an `address` it is
/// reached where mobiles know the node from: at its home addresses, or as their agent.
pub(super) fn correspondent(document: &Document) -> Option<CorrespondentPlan> {
    let node = document.correspondent.as_ref().filter(|node| node.off.is_none())?;
    let own = || {
        let homes = document.homes.iter();
        let own = homes.filter_map(|home| match (&home.address, &home.serve) {
            (Some(address), _) => Some(address.value.0),
            (None, Some(serve)) => serve.agent.as_ref().map(|agent| agent.value),
            (None, None) => None,
        });
        own.collect()
    };
    Some(CorrespondentPlan {
        tunnel: node
            .tunnel
            .as_ref()
            .map(|(name, mtu)| Tunnel { name: InterfaceName::new(name.value.as_str()), mtu: *mtu }),
        addresses: match node.addresses.as_slice() {
            [] => own(),
            said => said.iter().map(|address| address.value).collect(),
        },
        max_lifetime: node.lifetime.as_ref().map_or(LONGEST_OPTIMIZED, |lifetime| lifetime.value),
        multiple_coa: node.multiple_coa.unwrap_or(true),
        max_mobiles: node.mobiles.as_ref().map_or(MOBILES, |mobiles| mobiles.value as usize),
        max_bindings: node.bindings.as_ref().map_or(BINDINGS, |bindings| bindings.value),
    })
}

/// How mobiles are answered that take this node for a correspondent which it is not.
pub(super) fn strangers(node: Option<&CorrespondentNode>) -> StrangerAnswer {
    let answer = node.and_then(|node| node.answer.as_ref());
    answer.map_or_else(StrangerAnswer::default, |answer| answer.value)
}
