//! Brings the kernel's rules and routes to what is desired.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::Ipv6Net;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, route};
use rtnetlink::IpVersion;

use super::events::dump_request;
use super::{Netlink, NetlinkError};
use crate::edge::routes::{Action, Desired, MARK_OUTER, PROTOCOL, Route, Rule, Selects};

const OURS: RouteProtocol = RouteProtocol::Other(PROTOCOL);
/// The rule also answers sockets without a source, if its route would give them the rule's own
/// (`FIB_RULE_FIND_SADDR`).
const FIND_SOURCE: RuleFlags = RuleFlags::from_bits_retain(1 << 16);

/// How many rules and routes it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Added, or put in the place of another.
    pub added: usize,
    /// Removed.
    pub removed: usize,
}

/// What the kernel holds of ours: each with the message that removes it, and those that this
/// version of the program would never make.
#[derive(Default)]
struct Present {
    rules: BTreeMap<Rule, RuleMessage>,
    routes: BTreeMap<Route, RouteMessage>,
    strange_rules: Vec<RuleMessage>,
    strange_routes: Vec<RouteMessage>,
}

impl Netlink {
    /// Adds what is missing, then removes what is ours and not desired, wherever it comes from.
    pub async fn reconcile(&self, desired: &Desired) -> Result<Changes, NetlinkError> {
        let present = self.present().await?;
        let mut changes = Changes::default();
        let mut untold = None;
        // Routes before the rules that lead to them, and the other way round when they go.
        for route in desired.routes.iter().filter(|it| !present.routes.contains_key(it)) {
            self.tell_route(route, &mut changes, &mut untold).await;
        }
        for rule in desired.rules.iter().filter(|it| !present.rules.contains_key(it)) {
            self.add_rule(rule).await?;
            changes.added += 1;
        }
        let stale = present.rules.into_iter().filter(|(rule, _)| !desired.rules.contains(rule));
        for message in stale.map(|(_, message)| message).chain(present.strange_rules) {
            changes.removed += self.del_rule(message).await?;
        }
        // The worst first: an unreachable one must not come to answer for a better one that went,
        // when packets have another way.
        let stale = present.routes.into_iter().rev();
        let stale = stale.filter(|(route, _)| !desired.has_in_place_of(route));
        for message in stale.map(|(_, message)| message).chain(present.strange_routes) {
            changes.removed += self.del_route(message).await?;
        }
        untold.map_or(Ok(changes), Err)
    }

    /// The same from what was desired before, without asking the kernel what it holds: for an
    /// agent with many mobiles. What is missing there already is no error.
    pub async fn update(&self, before: &Desired, after: &Desired) -> Result<Changes, NetlinkError> {
        let mut changes = Changes::default();
        let mut untold = None;
        for route in after.routes.difference(&before.routes) {
            self.tell_route(route, &mut changes, &mut untold).await;
        }
        for rule in after.rules.difference(&before.rules) {
            self.add_rule(rule).await?;
            changes.added += 1;
        }
        for rule in before.rules.difference(&after.rules) {
            changes.removed += self.del_rule(rule_message(rule)).await?;
        }
        let stale = before.routes.difference(&after.routes);
        let stale: Vec<_> = stale.filter(|route| !after.has_in_place_of(route)).collect();
        for route in stale.into_iter().rev() {
            changes.removed += self.del_route(route_message(route)).await?;
        }
        untold.map_or(Ok(changes), Err)
    }

    /// Adds a route. One that the kernel refuses, as by an interface that is down, keeps no other
    /// from its place; the first is told at the end.
    async fn tell_route(
        &self,
        route: &Route,
        changes: &mut Changes,
        untold: &mut Option<NetlinkError>,
    ) {
        match self.add_route(route).await {
            Ok(()) => changes.added += 1,
            Err(error) => drop(untold.get_or_insert(error)),
        }
    }

    /// Removes every rule and route of ours.
    pub async fn cleanup(&self) -> Result<Changes, NetlinkError> {
        self.reconcile(&Desired::default()).await
    }

    async fn present(&self) -> Result<Present, NetlinkError> {
        let mut present = Present::default();
        // A listing that is given up half-way blocks the next on its socket.
        let asking = Self::open().map_err(NetlinkError::no_socket)?;
        let rules = asking.handle.rule().get(IpVersion::V6).execute().try_collect::<Vec<_>>();
        let rules = rules.await.map_err(|error| NetlinkError::new("list rules", error))?;
        for message in rules {
            if !message.attributes.contains(&RuleAttribute::Protocol(OURS)) {
                continue;
            }
            match rule_of(&message) {
                Some(rule) => drop(present.rules.insert(rule, message)),
                None => present.strange_rules.push(message),
            }
        }
        let mut filter = RouteMessage::default();
        filter.header.address_family = AddressFamily::Inet6;
        let mut filter = dump_request(filter);
        filter.header.protocol = OURS;
        let routes = asking.handle.route().get(filter).execute().try_collect::<Vec<_>>();
        let routes = routes.await.map_err(|error| NetlinkError::new("list routes", error))?;
        // A kernel that does not filter listings gives all of them.
        for message in routes.into_iter().filter(|message| message.header.protocol == OURS) {
            match route_of(&message) {
                Some(route) => drop(present.routes.insert(route, message)),
                None => present.strange_routes.push(message),
            }
        }
        Ok(present)
    }

    async fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let mut request = self.handle.rule().add().v6();
        *request.message_mut() = rule_message(rule);
        match request.execute().await.map_err(|error| refused("add", rule, error)) {
            Err(error) if error.code() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let request = self.handle.route().add(route_message(route)).replace();
        request.execute().await.map_err(|error| refused("add", route, error))
    }

    async fn del_rule(&self, message: RuleMessage) -> Result<usize, NetlinkError> {
        let what = format!("remove rule {:?}", rule_of(&message));
        match self.handle.rule().del(message).execute().await {
            Ok(()) => Ok(1),
            Err(error) => match NetlinkError::new(what, error) {
                error if error.code() == Some(libc::ENOENT) => Ok(0),
                error => Err(error),
            },
        }
    }

    async fn del_route(&self, message: RouteMessage) -> Result<usize, NetlinkError> {
        let what = format!("remove route {:?}", route_of(&message));
        match self.handle.route().del(message).execute().await {
            Ok(()) => Ok(1),
            Err(error) => match NetlinkError::new(what, error) {
                // Gone with its interface, or replaced by the route that was added.
                error if matches!(error.code(), Some(libc::ESRCH | libc::ENODEV)) => Ok(0),
                error => Err(error),
            },
        }
    }
}

fn refused(verb: &str, what: &impl std::fmt::Debug, error: rtnetlink::Error) -> NetlinkError {
    NetlinkError::new(format!("{verb} {what:?}"), error)
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.action = RuleAction::ToTable;
    // The header has room for small table numbers only; the attribute is what counts.
    message.header.table = u8::try_from(rule.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(OURS));
    if rule.suppress_default {
        attributes.push(RuleAttribute::SuppressPrefixLen(0));
    }
    match &rule.selects {
        Selects::From(prefix) => {
            attributes.push(RuleAttribute::Source(IpAddr::V6(prefix.network())));
            message.header.src_len = prefix.prefix_len();
        }
        Selects::Own(address) => {
            attributes.push(RuleAttribute::Source(IpAddr::V6(*address)));
            message.header.src_len = 128;
            message.header.flags = FIND_SOURCE;
            // The mark itself is zero: packets without this bit.
            attributes.push(RuleAttribute::FwMask(MARK_OUTER));
        }
        Selects::Oif(name) => attributes.push(RuleAttribute::Oifname(name.clone())),
        Selects::Iif(name) => attributes.push(RuleAttribute::Iifname(name.clone())),
        Selects::Local => attributes.push(RuleAttribute::Iifname("lo".to_owned())),
    }
    message
}

fn rule_of(message: &RuleMessage) -> Option<Rule> {
    let (mut priority, mut table) = (0, u32::from(message.header.table));
    let (mut selects, mut suppress_default) = (None, false);
    for attribute in &message.attributes {
        let found = match attribute {
            RuleAttribute::Priority(number) => {
                priority = *number;
                continue;
            }
            RuleAttribute::Table(number) => {
                table = *number;
                continue;
            }
            RuleAttribute::SuppressPrefixLen(0) => {
                suppress_default = true;
                continue;
            }
            // How the kernel says that nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => continue,
            RuleAttribute::FwMask(MARK_OUTER) if message.header.flags.contains(FIND_SOURCE) => {
                continue;
            }
            RuleAttribute::Source(IpAddr::V6(address))
                if message.header.src_len == 128 && message.header.flags.contains(FIND_SOURCE) =>
            {
                Selects::Own(*address)
            }
            RuleAttribute::Source(IpAddr::V6(address)) => {
                Selects::From(Ipv6Net::new(*address, message.header.src_len).ok()?)
            }
            RuleAttribute::Oifname(name) => Selects::Oif(name.clone()),
            RuleAttribute::Iifname(name) if name == "lo" => Selects::Local,
            RuleAttribute::Iifname(name) => Selects::Iif(name.clone()),
            _ => return None,
        };
        if selects.replace(found).is_some() {
            return None;
        }
    }
    let plain = message.header.action == RuleAction::ToTable;
    plain.then_some(Rule { priority, selects: selects?, table, suppress_default })
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = OURS;
    message.header.scope = RouteScope::Universe;
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    attributes.push(RouteAttribute::Priority(route.metric));
    let address = |address: Ipv6Addr| RouteAddress::Inet6(address);
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(address(route.destination.network())));
    }
    message.header.kind = match &route.action {
        Action::Send { interface, router, source } => {
            attributes.push(RouteAttribute::Oif(*interface));
            attributes.extend(router.map(address).map(RouteAttribute::Gateway));
            attributes.extend(source.map(address).map(RouteAttribute::PrefSource));
            RouteType::Unicast
        }
        Action::Throw => RouteType::Throw,
        Action::Unreachable => RouteType::Unreachable,
    };
    message
}

fn route_of(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let (mut table, mut metric) = (u32::from(header.table), 0);
    let mut destination = Ipv6Addr::UNSPECIFIED;
    let (mut interface, mut router, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = *address,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => router = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => source = Some(*address),
            // What the kernel adds by itself.
            RouteAttribute::CacheInfo(_)
            | RouteAttribute::Preference(_)
            | RouteAttribute::Metrics(_) => {}
            _ => return None,
        }
    }
    let action = match header.kind {
        route::RouteType::Unicast => Action::Send { interface: interface?, router, source },
        route::RouteType::Throw => Action::Throw,
        route::RouteType::Unreachable => Action::Unreachable,
        _ => return None,
    };
    let destination = Ipv6Net::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { table, destination, metric, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_meant() {
        let rule = |selects, suppress_default| Rule {
            priority: 6271,
            selects,
            table: 6_300_001,
            suppress_default,
        };
        let rules = [
            rule(Selects::From("2001:db8:1::7/128".parse().unwrap()), false),
            rule(Selects::From("2001:db8:100:4200::/56".parse().unwrap()), false),
            rule(Selects::Own("2001:db8:c::9".parse().unwrap()), false),
            rule(Selects::Oif("wlan0".to_owned()), false),
            rule(Selects::Iif("br-guest".to_owned()), false),
            Rule { table: 254, ..rule(Selects::Local, true) },
        ];
        for rule in rules {
            assert_eq!(rule_of(&rule_message(&rule)), Some(rule));
        }
        let send = |router: Option<&str>, source: Option<&str>| Action::Send {
            interface: 7,
            router: router.map(|it| it.parse().unwrap()),
            source: source.map(|it| it.parse().unwrap()),
        };
        let actions = [
            send(None, Some("2001:db8:100::42")),
            send(Some("fe80::1"), None),
            Action::Throw,
            Action::Unreachable,
        ];
        for action in actions {
            for destination in ["::/0", "2001:db8::/32"] {
                let destination = destination.parse().unwrap();
                let action = action.clone();
                let route = Route { table: 6_275_000, destination, metric: u32::MAX, action };
                assert_eq!(route_of(&route_message(&route)), Some(route));
            }
        }
    }

    #[test]
    fn what_this_program_never_makes_is_not_understood() {
        let mut rule = rule_message(&Rule {
            priority: 1,
            selects: Selects::Local,
            table: 254,
            suppress_default: false,
        });
        rule.attributes.push(RuleAttribute::FwMark(1));
        assert_eq!(rule_of(&rule), None);
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::BlackHole;
        assert_eq!(route_of(&route), None);
    }
}
