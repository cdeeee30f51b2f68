//! The direct reading of rules and bindings: plain lists, plain loops, no index, no memory of
//! decisions, written without the code it judges.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use mtun_dataplane::{Binding, CopyMark, DropReason, PathId, Registration, Way};
use mtun_policy::{
    Bid, FlowKey, HomeAddress, Ingress, Otherwise, Outcome, RuleHead, RuleId, Says,
    TrafficSelector, bucket,
};

use crate::straight::{Form, Holds, Sent};

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    NotOurs,
    Blocked,
    Dropped(DropReason),
    /// By a binding: how each copy leaves, and the flow's binding.
    By {
        sends: Vec<Sent>,
        bid: Option<Bid>,
    },
    Out {
        path: PathId,
        translate: bool,
        bid: Option<Bid>,
    },
}

/// What a new flow would get.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'r> {
    pub home: &'r Registration,
    pub near: bool,
    /// Whether it is a mobile's that is bound at us as its correspondent.
    pub bound: bool,
    pub rule: Option<(&'r RuleHead, &'r Says)>,
    pub otherwise: bool,
    pub way: Way,
    pub link: Option<Bid>,
}

/// Homes as two plain lists: those of this node and those it serves.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    pub own: Vec<Registration>,
    pub served: Vec<Registration>,
    /// Mobiles that are bound at us as their correspondent, by which address of us is their peer.
    pub bound: Vec<Registration>,
    /// What correspondents hold of our home addresses.
    pub holds: Vec<Holds>,
    /// Doors of further sources and the homes whose rules judge them.
    pub also: Vec<(Ingress, HomeAddress)>,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V6(address) => u128::from(address),
        IpAddr::V4(_) => panic!("no IPv4 in these worlds"),
    }
}

fn inside(address: u128, net: Ipv6Net) -> bool {
    let shift = 128 - u32::from(net.prefix_len());
    shift == 128 || address >> shift == u128::from(net.addr()) >> shift
}

pub fn owner(list: &[Registration], address: IpAddr) -> Option<&Registration> {
    let address = number(address);
    let mut best: Option<(u8, &Registration)> = None;
    for registration in list {
        let mut lengths = Vec::new();
        if u128::from(registration.home_address.0) == address {
            lengths.push(129);
        }
        for prefix in &registration.prefixes {
            if inside(address, prefix.net()) {
                lengths.push(prefix.net().prefix_len());
            }
        }
        for length in lengths {
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, registration));
            }
        }
    }
    best.map(|(_, registration)| registration)
}

fn selected(selector: &TrafficSelector, key: &FlowKey) -> bool {
    let any_net = |nets: &[IpNet], address| {
        nets.is_empty()
            || nets.iter().any(|net| match net {
                IpNet::V6(net) => inside(number(address), *net),
                IpNet::V4(_) => false,
            })
    };
    let any_port = |ranges: &[std::ops::RangeInclusive<u16>], port: Option<u16>| match port {
        _ if ranges.is_empty() => true,
        Some(port) => ranges.iter().any(|range| *range.start() <= port && port <= *range.end()),
        None => false,
    };
    any_net(&selector.sources, key.source)
        && any_net(&selector.destinations, key.destination)
        && (selector.protocols.is_empty() || selector.protocols.contains(&key.protocol))
        && any_port(&selector.source_ports, key.source_port)
        && any_port(&selector.destination_ports, key.destination_port)
        && (selector.dscps.is_empty() || selector.dscps.contains(&key.dscp))
        && (selector.ingresses.is_empty() || selector.ingresses.contains(&key.ingress))
}

pub fn meant(head: &RuleHead, key: &FlowKey) -> bool {
    let taken_out = head.exclude.iter().any(|selector| selected(selector, key));
    let meant =
        head.selectors.is_empty() || head.selectors.iter().any(|selector| selected(selector, key));
    meant && !taken_out
}

pub fn preferred(registration: &Registration) -> Option<&Binding> {
    let mut best: Option<&Binding> = None;
    for binding in &registration.bindings {
        let order = |b: &Binding| (b.priority, b.bid.map_or(0, Bid::get));
        if binding.usable && best.is_none_or(|best| order(binding) < order(best)) {
            best = Some(binding);
        }
    }
    best
}

/// Whether a packet can leave by the binding of this number this way.
pub fn is_open(home: &Registration, way: Way, link: Option<Bid>) -> bool {
    home.bindings.iter().any(|binding| {
        binding.bid == link
            && match way {
                Way::Tunnel | Way::Copies => binding.usable,
                Way::Breakout { .. } => binding.attached,
            }
    })
}

fn first_open(home: &Registration, way: Way, links: &[Bid]) -> Option<Option<Bid>> {
    links.iter().map(|bid| Some(*bid)).find(|link| is_open(home, way, *link))
}

fn tunnels(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Breakout { .. } | Outcome::Block(_) | Outcome::Unmet)
}

/// What one verb comes to.
enum Says1 {
    Leave(Way, Option<Bid>),
    Blocked,
    NotPossible,
}

fn says(
    outcome: &Outcome,
    rule: &Says,
    home: &Registration,
    key: &FlowKey,
    verified: Option<Bid>,
) -> Says1 {
    let by = |way, link: Option<Option<Bid>>| match link {
        Some(link) => Says1::Leave(way, link),
        None => Says1::NotPossible,
    };
    match outcome {
        Outcome::Block(_) => Says1::Blocked,
        Outcome::Unmet => Says1::NotPossible,
        Outcome::Candidates(links) => by(Way::Tunnel, first_open(home, Way::Tunnel, links)),
        Outcome::Copies { links, .. } => by(Way::Copies, first_open(home, Way::Tunnel, links)),
        Outcome::Breakout { links, translate } => {
            let way = Way::Breakout { translate: *translate };
            by(way, first_open(home, way, links))
        }
        Outcome::Reflect => match verified {
            Some(bid) => by(Way::Tunnel, first_open(home, Way::Tunnel, &[bid])),
            None => Says1::NotPossible,
        },
        Outcome::ReflectWithin(links) => {
            // Where the mobile was last heard, if the list names it; else as if the list were
            // all that is said.
            let heard = verified.filter(|bid| links.iter().any(|link| link == bid));
            let back = heard.filter(|bid| is_open(home, Way::Tunnel, Some(*bid)));
            by(Way::Tunnel, back.map(Some).or_else(|| first_open(home, Way::Tunnel, links)))
        }
        Outcome::Balance(buckets) => {
            let place = buckets.places[usize::from(bucket(rule.sticky.scope, key))];
            let own = buckets.links.get(usize::from(place)).copied();
            let own = own.filter(|bid| is_open(home, Way::Tunnel, Some(*bid)));
            let first = || first_open(home, Way::Tunnel, &buckets.links);
            by(Way::Tunnel, own.map(Some).or_else(first))
        }
    }
}

impl Reader {
    /// What a new flow would get, or what becomes of the packet whatever is remembered.
    pub fn wish(&self, key: &FlowKey, verified: Option<Bid>) -> Result<Wish<'_>, Fate> {
        let mut bound = None;
        if key.protocol != 135 {
            let pair = |it: &&Registration| {
                (IpAddr::V6(it.home_address.0), IpAddr::V6(it.peer))
                    == (key.destination, key.source)
            };
            bound = self.bound.iter().find(pair);
        }
        let (near, also, home, other) = match owner(&self.own, key.source) {
            Some(own) => (true, false, own, owner(&self.own, key.destination)),
            None => match (owner(&self.served, key.destination), bound) {
                (Some(served), _) => {
                    bound = None;
                    (false, false, served, owner(&self.served, key.source))
                }
                (None, Some(mobile)) => (false, false, mobile, None),
                (None, None) => {
                    let home = self.also.iter().find(|(door, _)| *door == key.ingress);
                    let home = home.and_then(|(_, address)| {
                        self.own.iter().find(|home| home.home_address == *address)
                    });
                    let home = home.ok_or(Fate::NotOurs)?;
                    if owner(&self.own, key.destination).is_some() {
                        return Err(Fate::Dropped(DropReason::Hairpin));
                    }
                    (true, true, home, None)
                }
            },
        };
        let bound = !near && bound.is_some();
        if other.is_some_and(|other| other.home_address == home.home_address) {
            return Err(Fate::Dropped(DropReason::Hairpin));
        }
        let nothing = Fate::Dropped(match also {
            true => DropReason::NeverTunnelled,
            false => DropReason::NoUsableBinding,
        });
        let any = |rule, otherwise| {
            let link = preferred(home).map(|binding| binding.bid).ok_or(nothing.clone())?;
            Ok(Wish { home, near, bound, rule, otherwise, way: Way::Tunnel, link })
        };
        if !near && key.protocol == 135 {
            return any(None, false);
        }
        let mut matched = false;
        for rule in home.policy.rules() {
            if !meant(rule.head, key) {
                continue;
            }
            matched = true;
            let one = |outcome: &Outcome, otherwise| {
                let rule = (rule.head, rule.says);
                match says(outcome, rule.1, home, key, verified) {
                    _ if also && tunnels(outcome) => None,
                    Says1::NotPossible => None,
                    Says1::Blocked => Some(Err(Fate::Blocked)),
                    Says1::Leave(Way::Breakout { .. }, _) if !near => Some(Err(nothing.clone())),
                    Says1::Leave(Way::Breakout { translate: false }, _) if !also => {
                        Some(Err(Fate::Dropped(DropReason::Untranslated)))
                    }
                    Says1::Leave(way, link) => {
                        let rule = Some(rule);
                        Some(Ok(Wish { home, near, bound, rule, otherwise, way, link }))
                    }
                }
            };
            if let Some(found) = one(&rule.says.outcome, false) {
                return found;
            }
            match &rule.says.otherwise {
                Otherwise::NextRule => {}
                Otherwise::Any if also => {}
                Otherwise::Any => return any(Some((rule.head, rule.says)), true),
                Otherwise::Then(outcome) => match one(outcome, true) {
                    Some(found) => return found,
                    None if also && tunnels(outcome) => {}
                    None => return Err(nothing),
                },
            }
        }
        if matched || also { Err(nothing) } else { any(None, false) }
    }

    /// The binding that admits, or `None`.
    pub fn admits(&self, outer: (Ipv6Addr, Ipv6Addr), inner: &FlowKey) -> Option<Option<Bid>> {
        let care_of = |registration: &Registration, address: Ipv6Addr| {
            let here = registration.bindings.iter().find(|b| b.care_of.0 == IpAddr::V6(address));
            here.map(|binding| binding.bid)
        };
        let differ = |a: &Registration, b: Option<&Registration>| {
            b.is_none_or(|b| a.home_address != b.home_address)
        };
        if let Some(mobile) = owner(&self.served, inner.source)
            && outer.1 == mobile.peer
            && differ(mobile, owner(&self.served, inner.destination))
            && let Some(bid) = care_of(mobile, outer.0)
        {
            return Some(bid);
        }
        let home = owner(&self.own, inner.destination)?;
        let from_agent = outer.0 == home.peer && differ(home, owner(&self.own, inner.source));
        if from_agent { care_of(home, outer.1) } else { None }
    }
}

impl Wish<'_> {
    /// The fate of a packet that leaves by this link this way.
    pub fn leaves(
        &self,
        reader: &Reader,
        key: &FlowKey,
        rule: Option<RuleId>,
        way: Way,
        link: Option<Bid>,
    ) -> Fate {
        let binding = |link: Option<Bid>| {
            let bindings = &self.home.bindings;
            bindings.iter().find(|binding| binding.bid == link).expect("an open link")
        };
        let ends = (self.home, self.near, self.bound);
        let send = |binding: &Binding| reader.sends(ends, key, rule, binding);
        match way {
            Way::Tunnel => Fate::By { sends: vec![send(binding(link))], bid: link },
            Way::Breakout { translate } => {
                Fate::Out { path: binding(link).path, translate, bid: link }
            }
            Way::Copies => {
                let (_, says) = self.rule.expect("a rule says so");
                let outcome = match (&says.otherwise, self.otherwise) {
                    (Otherwise::Then(outcome), true) => outcome,
                    _ => &says.outcome,
                };
                let Outcome::Copies { links, copies } = outcome else { panic!("copies") };
                let open = links.iter().filter(|bid| is_open(self.home, way, Some(**bid)));
                let open = open.take(usize::from(*copies));
                if self.home.copies == CopyMark::On {
                    let all = open.map(|bid| {
                        reader.sends_marked((self.home, self.near), key, binding(Some(*bid)))
                    });
                    let mut sends: Vec<Sent> = all.collect();
                    // The home link has no room for a mark: it carries the packet alone, if it is
                    // the rule's first, or none.
                    match sends[0].form {
                        Form::Plain => sends.truncate(1),
                        _ => sends.retain(|sent| sent.form == Form::Marked),
                    }
                    return Fate::By { sends, bid: link };
                }
                Fate::By { sends: open.map(|bid| send(binding(Some(*bid)))).collect(), bid: link }
            }
        }
    }

    /// The fate of a packet of a new flow.
    pub fn fate(&self, reader: &Reader, key: &FlowKey) -> Fate {
        let rule = self.rule.map(|(head, _)| head.id);
        self.leaves(reader, key, rule, self.way, self.link)
    }
}
