//! Why a flow goes where it goes, by the rules, bindings and flows there are.

use std::net::IpAddr;
use std::time::Duration;

use mtun_dataplane::{
    DropReason, Encapsulation, Explained, Fate, NotStraight, PathId, Registration,
};
use mtun_policy::{Bid, CareOfAddress, FlowKey, Given, Origin, Usable};

use super::downlink::AtAgent;
use super::home::MobileHome;
use super::owner::Owner;
use super::tunnel::Tunnel;
use crate::control::documents::{
    ExplainDocument, ExplainVerdict, FlowKeyDocument, FlowPath, MoveDocument, RuleReference,
};

/// Moves of a flow that an explanation shows.
const MOVES_SHOWN: usize = 10;

/// A home's bindings as they are.
struct Registered<'r>(&'r Registration);

impl Usable for Registered<'_> {
    fn usable(&self, bid: Bid) -> bool {
        self.0.binding(Some(bid)).is_some_and(|binding| binding.carries())
    }

    fn preferred(&self) -> Option<Bid> {
        let bindings = self.0.bindings.iter();
        let usable = bindings.filter(|it| it.bid.is_some_and(|bid| self.usable(bid)));
        usable.min_by_key(|it| (it.priority, it.bid)).and_then(|it| it.bid)
    }

    fn attached(&self, bid: Bid) -> bool {
        self.0.binding(Some(bid)).is_some_and(|binding| binding.attached)
    }
}

/// Explains a flow of one of this mobile's homes. Without suppositions the verdict is the packet
/// path's own; with some it is the same walk over a supposed world.
pub(super) fn home(
    owner: &Owner,
    home: &MobileHome,
    key: &FlowKey,
    origin: Origin,
    given: &Given,
) -> ExplainDocument {
    let snapshot = home.tunnel.published.load();
    let Some(registration) = snapshot.updates.get(home.home.address) else {
        return not_ours(owner, key);
    };
    let now = owner.now().monotonic;
    let supposed = home.steering.suppose(given);
    let (policy, rules) = (&owner.policy, &home.home);
    let explanation = if given.is_empty() {
        mtun_policy::explain(policy, rules, &supposed, key, origin, &Registered(registration))
    } else {
        mtun_policy::explain(policy, rules, &supposed, key, origin, &supposed)
    };
    let flow = FlowKeyDocument::new(key, owner.policy.ingresses.name(key.ingress));
    let mut document = ExplainDocument::new(flow, &explanation, given, &owner.policy);
    document.generation = Some(registration.generation);
    document.moves = moves(owner, home, key, now);
    if given.is_empty() {
        let explained = home.tunnel.lane.engine.explain(key, now);
        document.verdict = verdict(owner, &explained);
        document.notes.extend(tunnelled(owner, home, key, &explained));
        let tunnel = matches!(
            document.verdict,
            ExplainVerdict::Forward { .. } | ExplainVerdict::Copies { .. }
        );
        if tunnel {
            let agent = AtAgent::of(owner, home);
            document.at_agent = Some(agent.explain(key, &document.verdict, now));
        }
        return document;
    }
    match &mut document.verdict {
        ExplainVerdict::Forward { bid, care_of, peer, next_hop, .. } => {
            *care_of = registration.binding(*bid).map(|binding| binding.care_of);
            *peer = Some(IpAddr::V6(registration.peer));
            *next_hop = next_hop_of(owner, *bid);
        }
        ExplainVerdict::Breakout { bid, next_hop, .. } => {
            *next_hop = next_hop_of(owner, Some(*bid));
        }
        _ => {}
    }
    document
}

/// The moves of a flow that are remembered, the latest first.
fn moves(owner: &Owner, home: &MobileHome, key: &FlowKey, now: Duration) -> Vec<MoveDocument> {
    let path = |bid: Option<Bid>| FlowPath::tunnel(bid, owner.link_of(bid));
    let own = |known: &FlowKey| {
        (known.source, known.destination, known.protocol, known.destination_port)
            == (key.source, key.destination, key.protocol, key.destination_port)
            // People seldom know it.
            && (key.source_port.is_none() || key.source_port == known.source_port)
    };
    let moves = home.tunnel.lane.engine.moves().into_iter().rev();
    moves
        .filter(|moved| own(&moved.key))
        .take(MOVES_SHOWN)
        .map(|moved| MoveDocument {
            from: path(moved.from),
            to: path(moved.to),
            reason: moved.reason.as_str().to_owned(),
            ago_seconds: now.saturating_sub(moved.at).as_secs_f64(),
        })
        .collect()
}

fn next_hop_of(owner: &Owner, bid: Option<Bid>) -> Option<IpAddr> {
    let record = owner.links.get(&owner.link_of(bid)?)?;
    record.state.as_ref().ok()?.router.map(IpAddr::V6)
}

/// A flow that is nobody's home here.
pub(super) fn not_ours(owner: &Owner, key: &FlowKey) -> ExplainDocument {
    ExplainDocument::not_ours(FlowKeyDocument::new(key, owner.policy.ingresses.name(key.ingress)))
}

/// A flow to one of an agent's or a correspondent's mobiles: what its packet path says.
pub(super) fn far(owner: &Owner, tunnel: &Tunnel, key: &FlowKey) -> ExplainDocument {
    let explained = tunnel.lane.engine.explain(key, owner.now().monotonic);
    let mut document = not_ours(owner, key);
    document.home = explained.registration.as_ref().map(|found| found.home.clone());
    document.generation = explained.registration.as_ref().map(|found| found.generation);
    let rule = explained.rule.as_ref();
    document.rule =
        rule.map(|(_, name)| RuleReference { name: name.clone(), file: None, line: None });
    document.verdict = verdict(owner, &explained);
    document
}

/// Why a flow of a home that optimizes routes takes the tunnel, if it does.
fn tunnelled(
    owner: &Owner,
    home: &MobileHome,
    key: &FlowKey,
    explained: &Explained,
) -> Option<String> {
    let Fate::Forwarded { bid, not_straight: Some(reason), .. } = &explained.fate else {
        return None;
    };
    home.optimization.as_ref()?;
    let because = match reason {
        NotStraight::NotHomeAddress => {
            "only packets of the home address go straight to a correspondent".to_owned()
        }
        NotStraight::Signalling => "signaling has ways of its own".to_owned(),
        NotStraight::NeighbourDiscovery => "neighbour discovery concerns one link only".to_owned(),
        NotStraight::Authenticated => {
            "an Authentication Header does not go with another source".to_owned()
        }
        NotStraight::Unwanted => "its rule, or the home, says so".to_owned(),
        NotStraight::NothingHeld | NotStraight::OtherBinding => {
            let why = owner.why_not_straight(home, key.destination, *bid);
            why.unwrap_or_else(|| match reason {
                NotStraight::NothingHeld => "the correspondent holds no binding yet".to_owned(),
                _ => "the correspondent does not hold this binding yet".to_owned(),
            })
        }
    };
    Some(format!("takes the tunnel and not the straight way: {because}"))
}

/// How a packet is wrapped, in a word.
fn wrapping(encapsulation: &Encapsulation) -> &'static str {
    match encapsulation {
        Encapsulation::Optimized { home_address: Some(_), routing_header: Some(_), .. } => {
            "home-address-option-and-type-2-routing-header"
        }
        Encapsulation::Optimized { home_address: Some(_), .. } => "home-address-option",
        Encapsulation::Optimized { .. } => "type-2-routing-header",
        other => other.as_str(),
    }
}

/// What the packet path said.
fn verdict(owner: &Owner, explained: &Explained) -> ExplainVerdict {
    match &explained.fate {
        Fate::NotOurs | Fate::Dropped(DropReason::Hairpin) => ExplainVerdict::NotOurs,
        Fate::Refused(reply) => ExplainVerdict::Block { reply: *reply },
        Fate::Dropped(_) => ExplainVerdict::NoUsableBinding,
        Fate::Replicated(copies) => {
            let bids: Vec<_> = copies.iter().filter_map(|copy| copy.bid).collect();
            let links = bids.iter().filter_map(|bid| owner.link_of(Some(*bid))).collect();
            ExplainVerdict::Copies { bids, links, otherwise: explained.otherwise }
        }
        Fate::BrokenOut { bid, translate, .. } => match (*bid, owner.link_of(*bid)) {
            (Some(number), Some(link)) => ExplainVerdict::Breakout {
                bid: number,
                link,
                translate: *translate,
                next_hop: next_hop_of(owner, *bid),
                otherwise: explained.otherwise,
            },
            _ => ExplainVerdict::NoUsableBinding,
        },
        Fate::Forwarded { bid, care_of, encapsulation, path, .. } => {
            let own = *path != PathId::ROUTED;
            ExplainVerdict::Forward {
                bid: *bid,
                link: own.then(|| owner.link_of(*bid)).flatten(),
                care_of: Some(*care_of),
                peer: match encapsulation {
                    Encapsulation::Tunnel { .. } => {
                        explained.registration.as_ref().map(|found| IpAddr::V6(found.peer))
                    }
                    Encapsulation::Optimized { source, destination, .. } => {
                        let own = CareOfAddress::from(*source) == *care_of;
                        Some(IpAddr::V6(if own { *destination } else { *source }))
                    }
                    Encapsulation::Plain => None,
                },
                encapsulation: wrapping(encapsulation).to_owned(),
                next_hop: own.then(|| next_hop_of(owner, *bid)).flatten(),
                otherwise: explained.otherwise,
            }
        }
    }
}
