//! What packets learn of routes past the home agent.

use std::net::Ipv6Addr;
use std::sync::Arc;

use mtun_dataplane::{Binding, Held, Pair, PathId, Registration, Snapshot};
use mtun_policy::{Effective, HomeAddress, HomeName};
use mtun_signaling::binding::BindingCacheEntry;
use mtun_signaling::correspondent;

use crate::publish::Published;

/// The registration of one mobile at a node as its correspondent.
pub fn bound(
    pair: correspondent::Pair,
    entry: &BindingCacheEntry,
    effective: Arc<Effective>,
    mtu: u16,
) -> Registration {
    let binding = |binding: &mtun_signaling::binding::Binding| Binding {
        bid: binding.bid,
        priority: binding.priority,
        care_of: binding.care_of,
        path: PathId::ROUTED,
        usable: true,
        attached: true,
        metered: false,
        home_link: false,
        mtu,
        rtt: None,
        jitter: None,
    };
    Registration::new(
        HomeName::new("correspondent"),
        pair.home_address,
        Vec::new(),
        pair.correspondent,
        entry.bindings.iter().map(binding).collect(),
        effective,
    )
}

/// A pair of the packet path as the correspondent's machine names it.
pub fn pair_here(pair: Pair) -> correspondent::Pair {
    correspondent::Pair { correspondent: pair.correspondent, home_address: pair.home_address }
}

/// Publishes what a correspondent holds of a home address.
pub fn publish_held(
    published: &Published,
    home_address: HomeAddress,
    correspondent: Ipv6Addr,
    held: Held,
) {
    let pair = Pair { home_address, correspondent };
    change(published, |snapshot| {
        snapshot.optimized = match held.bindings.is_empty() {
            true => snapshot.optimized.without(&pair),
            false => snapshot.optimized.with(pair, held),
        };
    });
}

/// Publishes what a mobile bound at a node as its correspondent; `None` for nothing any more.
pub fn publish_correspondent(
    published: &Published,
    pair: correspondent::Pair,
    registration: Option<Registration>,
) {
    let pair = Pair { home_address: pair.home_address, correspondent: pair.correspondent };
    change(published, |snapshot| {
        snapshot.correspondents = match registration {
            Some(registration) => snapshot.correspondents.with(pair, registration),
            None => snapshot.correspondents.without(&pair),
        };
    });
}

fn change(published: &Published, change: impl FnOnce(&mut Snapshot)) {
    let mut next = Snapshot::clone(&published.load());
    next.generation += 1;
    change(&mut next);
    published.store(Arc::new(next));
}
