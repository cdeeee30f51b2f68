//! What a client wants to hear.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use mtun_policy::{Bid, HomeName, InterfaceName, MobileNetworkPrefix, Role};
use serde::{Deserialize, Serialize};

use super::message::{MobilityMessage, NodetypeInfo};
use super::names::MobilityKind;

/// The longest list of a filter.
pub const FILTER_MAX: usize = 64;

/// What a client wants to hear. An empty list asks for nothing in particular and lets everything
/// pass; of a list that is not empty one entry has to fit, and all lists have to be content. What
/// lacks the thing a list asks for does not pass: a message without a link is no news of `wlan0`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The messages.
    pub messages: Vec<MobilityKind>,
    /// The roles whose business it is. A mobile router is a mobile node.
    pub roles: Vec<Role>,
    /// The homes.
    pub homes: Vec<HomeName>,
    /// The links.
    pub links: Vec<InterfaceName>,
    /// The bindings.
    pub bids: Vec<Bid>,
    /// The home addresses, and the prefixes in which they or mobile network prefixes lie.
    pub addresses: Vec<Ipv6Net>,
}

/// A list that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter's list of {list} has {length} entries; {FILTER_MAX} is the most")]
pub struct FilterError {
    /// Its name.
    pub list: &'static str,
    /// Its length.
    pub length: usize,
}

/// What something is about, as filters see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'m> {
    /// Which of the twelve it is; `None` for other events of the node.
    pub kind: Option<MobilityKind>,
    /// Whose business it is.
    pub role: Option<Role>,
    /// The home.
    pub home: Option<&'m HomeName>,
    /// The link.
    pub link: Option<&'m InterfaceName>,
    /// The binding.
    pub bid: Option<Bid>,
    /// The home address.
    pub home_address: Option<Ipv6Addr>,
    /// The prefixes behind it.
    pub prefixes: &'m [MobileNetworkPrefix],
}

impl Filter {
    /// Whether its lists are short enough.
    pub fn check(&self) -> Result<(), FilterError> {
        let lists = [
            ("messages", self.messages.len()),
            ("roles", self.roles.len()),
            ("homes", self.homes.len()),
            ("links", self.links.len()),
            ("bids", self.bids.len()),
            ("addresses", self.addresses.len()),
        ];
        match lists.into_iter().find(|(_, length)| *length > FILTER_MAX) {
            Some((list, length)) => Err(FilterError { list, length }),
            None => Ok(()),
        }
    }

    /// Whether this passes.
    pub fn passes(&self, scope: &Scope<'_>) -> bool {
        fn one_of<T: PartialEq>(list: &[T], value: Option<&T>) -> bool {
            list.is_empty() || value.is_some_and(|value| list.contains(value))
        }
        // The messages are asked for by kind; other events of the node are not among them.
        (scope.kind.is_none() || one_of(&self.messages, scope.kind.as_ref()))
            && one_of(&self.homes, scope.home)
            && one_of(&self.links, scope.link)
            && one_of(&self.bids, scope.bid.as_ref())
            && (self.roles.is_empty()
                || scope.role.is_some_and(|role| self.roles.iter().any(|it| same(*it, role))))
            && (self.addresses.is_empty()
                || self.addresses.iter().any(|wanted| {
                    scope.home_address.is_some_and(|address| wanted.contains(&address))
                        || scope.prefixes.iter().any(|prefix| wanted.contains(&prefix.net()))
                }))
    }

    /// The same for facts of which this message is one, whatever a client does with their end: who
    /// asks for `BC_ADD` hears of bindings, and who asks for `BC_REMOVE` of those that end.
    pub(super) fn wants(&self, kind: MobilityKind) -> bool {
        self.messages.is_empty() || self.messages.contains(&kind)
    }
}

fn same(a: Role, b: Role) -> bool {
    let plain = |role| match role {
        Role::MobileRouter => Role::MobileNode,
        other => other,
    };
    plain(a) == plain(b)
}

impl MobilityMessage {
    /// What it is about.
    pub fn scope(&self) -> Scope<'_> {
        let scope = Scope { kind: Some(self.kind()), ..Scope::default() };
        let agent = |home: &Option<HomeName>| match home {
            Some(_) => Some(Role::HomeAgent),
            None => Some(Role::Correspondent),
        };
        let mobile = Some(Role::MobileNode);
        match self {
            Self::NodetypeInfo(NodetypeInfo { role, home, address, .. }) => Scope {
                role: Some(*role),
                home: home.as_ref(),
                home_address: address.filter(|_| same(*role, Role::MobileNode)),
                ..scope
            },
            Self::BcAdd(it) => Scope {
                role: agent(&it.home),
                home: it.home.as_ref(),
                bid: it.bid,
                home_address: Some(it.home_address.0),
                prefixes: &it.prefixes,
                ..scope
            },
            Self::BcRemove(it) => Scope {
                role: agent(&it.home),
                home: it.home.as_ref(),
                bid: it.bid,
                home_address: Some(it.home_address.0),
                ..scope
            },
            Self::BcFlush(it) => Scope { role: agent(&it.home), home: it.home.as_ref(), ..scope },
            Self::BulAdd(it) => Scope {
                role: mobile,
                home: Some(&it.home),
                link: it.link.as_ref(),
                bid: it.bid,
                home_address: Some(it.home_address.0),
                ..scope
            },
            Self::BulRemove(it) => Scope {
                role: mobile,
                home: Some(&it.home),
                bid: it.bid,
                home_address: Some(it.home_address.0),
                ..scope
            },
            Self::BulFlush(it) => Scope { role: mobile, home: Some(&it.home), ..scope },
            Self::MdInfo(it) => Scope {
                role: mobile,
                home: it.home.as_ref(),
                link: it.link.as_ref(),
                bid: it.bid,
                home_address: it.home_address.map(|it| it.0),
                ..scope
            },
            Self::HomeHint(it) => Scope {
                role: mobile,
                home: Some(&it.home),
                link: it.link.as_ref(),
                bid: it.bid,
                home_address: Some(it.home_address.0),
                ..scope
            },
            Self::RrHint(it) => Scope {
                role: mobile,
                home: it.home.as_ref(),
                home_address: Some(it.home_address.0),
                ..scope
            },
            Self::BeHint(it) => Scope {
                role: match it.home {
                    Some(_) => mobile,
                    None => Some(Role::Correspondent),
                },
                home: it.home.as_ref(),
                bid: it.bid,
                home_address: Some(it.home_address.0),
                ..scope
            },
            Self::Dad(it) => Scope {
                role: Some(Role::HomeAgent),
                home: it.home.as_ref(),
                home_address: Some(it.address),
                ..scope
            },
        }
    }
}
