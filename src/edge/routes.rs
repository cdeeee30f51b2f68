//! The rules and routes that should exist, as plain data.
//!
//! Pure: [`MobileRoutes`] and [`AgentRoutes`] say what the daemon knows, [`Desired`] what follows
//! from it. [`super::netlink`] compares it with the kernel and makes the difference; since every
//! rule and route carries [`PROTOCOL`], what a killed daemon left behind is found and removed.
//!
//! The rules of a mobile, in order. The first is there with further sources only: answers to
//! them come out of the tunnel interface with the home address as their source, and have to find
//! their network. The next two keep outer packets and sockets bound to an
//! uplink on that uplink, so an encapsulated packet never takes the default route back into the
//! tunnel (req MR-16). The fourth sends what has a home source into the tunnel, and what comes from a further
//! source (`also`), of which the rules say whether it leaves outside. The last two make unbound
//! local sockets choose the home address, after all routes of the main table but its default:
//!
//! ```text
//! 6270  iif <tunnel>             lookup main suppress_prefixlength 0
//! 6271  from <care-of address>   lookup path-N
//! 6272  oif <uplink>             lookup path-N
//! 6273  from <home prefix>       lookup home
//! 6273  iif <further source>     lookup home
//! 6274  iif lo                   lookup main suppress_prefixlength 0
//! 6275  iif lo                   lookup home
//! ```
//!
//! A node that mobiles talk to (`correspondent`) sends what is for a home address that is bound to
//! one of its own addresses into the tunnel interface, where it gets its routing header. Only that
//! address sends so: its sockets, and those without a source that would get this one. What the
//! daemon itself sends does not come by here again:
//!
//! ```text
//! 6269  from <own address> unmarked  lookup correspondent-N
//! ```
//!
//! A killed daemon leaves its tunnel interface behind, so all of that goes on entering it, and is
//! dropped there until the next run takes the interface over. Should the interface vanish as well,
//! the home table ends in an unreachable default, and no packet with a home source leaves by an
//! uplink; but sockets that have no source are then given a care-of address by the kernel, which
//! takes no unreachable route for an answer as long as another source could be tried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use mtun_policy::{HomeAddress, InterfaceName, MobileNetworkPrefix};

/// Marks rules and routes as ours in the kernel (`proto 135`): the number of the Mobility Header,
/// which no routing daemon uses.
pub const PROTOCOL: u8 = 135;
/// The kernel's main table.
pub const MAIN: u32 = 254;
/// Number of the first home's table; further homes count up.
const HOME_TABLES: u32 = 6_275_000;
/// Number of the table of path 0; paths count up by 16-bit numbers.
const PATH_TABLES: u32 = 6_300_000;

/// Number of the table of a correspondent's first address; further addresses count up.
const CORRESPONDENT_TABLES: u32 = 6_280_000;

/// On the daemon's own packets that ordinary routing sends: one bit, so that a rule can be for all
/// others.
pub const MARK_OUTER: u32 = 1 << 21;

const FROM_CORRESPONDENT: u32 = 6269;
const FROM_TUNNEL: u32 = 6270;
const FROM_CARE_OF: u32 = 6271;
const BY_UPLINK: u32 = 6272;
const FROM_HOME: u32 = 6273;
const LOCAL_TO_MAIN: u32 = 6274;
const LOCAL_TO_HOME: u32 = 6275;

/// The metric that beats every other route of a table.
const BEST: u32 = 1;
/// The metric that every other route beats.
const WORST: u32 = u32::MAX;

/// Which packets a rule concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selects {
    /// Those with a source in this prefix.
    From(Ipv6Net),
    /// Those with this source and without [`MARK_OUTER`], and those of sockets that have no source
    /// yet and would get this one by the route that the table has for them.
    Own(Ipv6Addr),
    /// Those that must leave by this interface.
    Oif(String),
    /// Those that came in by this interface.
    Iif(String),
    /// Those of this machine's own sockets.
    Local,
}

/// One routing policy rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Lower is asked first.
    pub priority: u32,
    /// Which packets it concerns.
    pub selects: Selects,
    /// The table that answers.
    pub table: u32,
    /// Default routes of that table do not count.
    pub suppress_default: bool,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Sends by an interface.
    Send {
        /// Its index.
        interface: u32,
        /// The next router, if any.
        router: Option<Ipv6Addr>,
        /// The source address of sockets that have none yet.
        source: Option<Ipv6Addr>,
    },
    /// Leaves the table: later rules decide.
    Throw,
    /// Answers that there is no way.
    Unreachable,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The table it is in.
    pub table: u32,
    /// Where to.
    pub destination: Ipv6Net,
    /// Lower is preferred.
    pub metric: u32,
    /// What it does.
    pub action: Action,
}

/// Every rule and route of ours that should exist; anything else of ours should not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The rules.
    pub rules: BTreeSet<Rule>,
    /// The routes.
    pub routes: BTreeSet<Route>,
}

/// One attached uplink of a mobile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRoutes {
    /// The number that names the path's table; unique among the paths.
    pub path: u16,
    /// The uplink.
    pub interface: InterfaceName,
    /// Its index.
    pub index: u32,
    /// Every address in use on it.
    pub addresses: BTreeSet<Ipv6Addr>,
    /// Its default router; none on a link without a link layer.
    pub router: Option<Ipv6Addr>,
    /// The prefixes that need no router.
    pub on_link: BTreeSet<Ipv6Net>,
    /// Whether everything goes by the router all the same: a home link on which the home agent
    /// answers for the home address (RFC 5648 §5.6.4).
    pub by_router_only: bool,
}

/// What a mobile node or router knows of one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeRoutes {
    /// Index of the home's tunnel interface; none while it does not exist.
    pub tunnel: Option<u32>,
    /// The home address.
    pub address: HomeAddress,
    /// The prefixes of the network behind it.
    pub mobile_networks: Vec<MobileNetworkPrefix>,
    /// The interfaces of further sources that the home's rules judge.
    pub also: Vec<InterfaceName>,
    /// The name of the tunnel interface.
    pub name: InterfaceName,
}

/// What a mobile node or router knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MobileRoutes {
    /// Its homes; sockets without an address use the first.
    pub homes: Vec<HomeRoutes>,
    /// Its attached uplinks.
    pub paths: Vec<PathRoutes>,
}

/// What a home agent knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRoutes {
    /// Per tunnel interface, the home addresses (/128) and mobile network prefixes with a binding.
    pub bound: BTreeMap<u32, BTreeSet<Ipv6Net>>,
    /// Mobile network prefixes of mobiles that are not bound, with the home link's interface and
    /// the home address there: at home a mobile router is a router like others (RFC 3963 §5.8).
    pub at_home: BTreeMap<Ipv6Net, (u32, Ipv6Addr)>,
    /// Mobile network prefixes of all mobiles it serves: without a binding they are nowhere, and
    /// must not follow the default route back to where they came from.
    pub reserved: BTreeSet<Ipv6Net>,
}

/// What a correspondent knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorrespondentRoutes {
    /// Index of the tunnel interface that wraps what it sends.
    pub tunnel: u32,
    /// The home addresses that are bound, by its own address.
    pub bound: BTreeMap<Ipv6Addr, BTreeSet<Ipv6Addr>>,
}

/// The number of the table of a path.
pub fn path_table(path: u16) -> u32 {
    PATH_TABLES + u32::from(path)
}

/// The number of the table of a home, counted from 0 in the order of the policy.
pub fn home_table(home: usize) -> u32 {
    HOME_TABLES + home as u32
}

impl MobileRoutes {
    /// The rules and routes that follow.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        for (number, home) in self.homes.iter().enumerate() {
            home.add_to(&mut desired, home_table(number), number == 0);
        }
        let networks: Vec<Ipv6Net> = self.homes.iter().flat_map(HomeRoutes::networks).collect();
        for path in &self.paths {
            path.add_to(&mut desired, &networks);
        }
        desired
    }
}

impl HomeRoutes {
    fn networks(&self) -> impl Iterator<Item = Ipv6Net> {
        self.mobile_networks.iter().map(|prefix| prefix.net())
    }

    fn add_to(&self, desired: &mut Desired, table: u32, first: bool) {
        let mut rule = |priority, selects, table, suppress_default| {
            desired.rules.insert(Rule { priority, selects, table, suppress_default });
        };
        rule(FROM_HOME, Selects::From(host(self.address.0)), table, false);
        for prefix in self.networks() {
            rule(FROM_HOME, Selects::From(prefix), table, false);
        }
        if !self.also.is_empty() {
            let from_tunnel = Selects::Iif(self.name.as_str().to_owned());
            rule(FROM_TUNNEL, from_tunnel, MAIN, true);
        }
        for interface in &self.also {
            rule(FROM_HOME, Selects::Iif(interface.as_str().to_owned()), table, false);
        }
        if first {
            rule(LOCAL_TO_MAIN, Selects::Local, MAIN, true);
            rule(LOCAL_TO_HOME, Selects::Local, table, false);
        }
        let mut route = |table, destination, metric, action| {
            desired.routes.insert(Route { table, destination, metric, action });
        };
        if let Some(interface) = self.tunnel {
            let source = Some(self.address.0);
            route(table, everywhere(), BEST, Action::Send { interface, router: None, source });
        }
        route(table, everywhere(), WORST, Action::Unreachable);
        for prefix in self.networks() {
            route(table, prefix, BEST, Action::Throw);
            // What no interface of ours holds is nowhere: it must not follow the main table's
            // default route out of an uplink.
            route(MAIN, prefix, WORST, Action::Unreachable);
        }
    }
}

impl PathRoutes {
    fn add_to(&self, desired: &mut Desired, mobile_networks: &[Ipv6Net]) {
        let table = path_table(self.path);
        let mut rule = |priority, selects| {
            desired.rules.insert(Rule { priority, selects, table, suppress_default: false });
        };
        for address in &self.addresses {
            rule(FROM_CARE_OF, Selects::From(host(*address)));
        }
        rule(BY_UPLINK, Selects::Oif(self.interface.as_str().to_owned()));
        let mut route = |destination, action| {
            desired.routes.insert(Route { table, destination, metric: BEST, action });
        };
        let send = |router| Action::Send { interface: self.index, router, source: None };
        route(everywhere(), send(self.router));
        let on_link = self.on_link.iter().filter(|it| it.prefix_len() > 0);
        let link_local = |it: &&Ipv6Net| it.addr().is_unicast_link_local();
        for prefix in on_link.filter(|it| !self.by_router_only || link_local(it)) {
            route(*prefix, send(None));
        }
        // Answers from a care-of address to our own network stay at home.
        for prefix in mobile_networks.iter().filter(|it| !self.on_link.contains(it)) {
            route(*prefix, Action::Throw);
        }
    }
}

impl AgentRoutes {
    /// The rules and routes that follow.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        let mut route = |destination, metric, action| {
            desired.routes.insert(Route { table: MAIN, destination, metric, action });
        };
        for (interface, destinations) in &self.bound {
            for destination in destinations {
                let send = Action::Send { interface: *interface, router: None, source: None };
                route(*destination, BEST, send);
                route(*destination, WORST, Action::Unreachable);
            }
        }
        for (destination, (interface, home_address)) in &self.at_home {
            let (interface, router) = (*interface, Some(*home_address));
            route(*destination, BEST, Action::Send { interface, router, source: None });
        }
        for destination in &self.reserved {
            route(*destination, WORST, Action::Unreachable);
        }
        desired
    }
}

impl CorrespondentRoutes {
    /// The rules and routes that follow.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        for (table, (address, bound)) in (CORRESPONDENT_TABLES..).zip(&self.bound) {
            desired.rules.insert(Rule {
                priority: FROM_CORRESPONDENT,
                selects: Selects::Own(*address),
                table,
                suppress_default: false,
            });
            let send = |home_address: &Ipv6Addr| Route {
                table,
                destination: host(*home_address),
                metric: BEST,
                action: Action::Send {
                    interface: self.tunnel,
                    router: None,
                    source: Some(*address),
                },
            };
            desired.routes.extend(bound.iter().map(send));
        }
        desired
    }
}

impl Desired {
    /// Whether one of these routes stands where the kernel had `route`: it was replaced, and
    /// removing it would take its successor, which the kernel does not tell from it.
    pub fn has_in_place_of(&self, route: &Route) -> bool {
        let first = Action::Send { interface: 0, router: None, source: None };
        let place = |it: &Route| (it.table, it.destination, it.metric);
        let from = Route { action: first, ..route.clone() };
        self.routes.range(from..).next().is_some_and(|it| place(it) == place(route))
    }

    /// Those of the routes of the main table that lead to one of these networks.
    pub fn at(&self, destinations: &BTreeSet<Ipv6Net>) -> Self {
        let first = Action::Send { interface: 0, router: None, source: None };
        let there = destinations.iter().flat_map(|destination| {
            let destination = *destination;
            let from = Route { table: MAIN, destination, metric: 0, action: first.clone() };
            let all = self.routes.range(from..);
            all.take_while(move |it| (it.table, it.destination) == (MAIN, destination))
        });
        Self { rules: BTreeSet::new(), routes: there.cloned().collect() }
    }

    /// Wants these routes instead of those.
    pub fn replace(&mut self, before: &Self, after: Self) {
        for route in before.routes.difference(&after.routes) {
            self.routes.remove(route);
        }
        self.routes.extend(after.routes);
    }

    /// What either of two roles wants.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.routes.extend(other.routes);
        self
    }
}

/// The prefix of one address.
pub fn host(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(address, 128)
}

fn everywhere() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn routes_to_one_mobile_change_alone_as_among_all() {
        // Home addresses and networks of four mobiles; the last has a network in its own.
        let mobile = |number: u16, networks: &[&str]| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, number);
            (address, networks.iter().map(|it| net(it)).collect::<Vec<_>>())
        };
        let mobiles = [
            mobile(2, &["2001:db8:a::/64"]),
            mobile(3, &[]),
            mobile(4, &["2001:db8:b::/64", "2001:db8:b:1::/64"]),
            mobile(5, &["2001:db8:c::/48", "2001:db8:c:1::/64"]),
        ];
        // What each contributes: unbound at a home link, bound with no, one or all networks.
        let add =
            |state: usize, (address, networks): &(Ipv6Addr, Vec<Ipv6Net>), to: &mut AgentRoutes| {
                to.reserved.extend(networks.iter().copied());
                if state == 0 {
                    to.at_home.extend(networks.iter().map(|it| (*it, (9, *address))));
                    return;
                }
                let bound = to.bound.entry(7).or_default();
                bound.insert(host(*address));
                bound.extend(networks.iter().take(state - 1).copied());
            };
        let mut states = [0; 4];
        let mut routed = AgentRoutes::default();
        for mobile in &mobiles {
            add(0, mobile, &mut routed);
        }
        let mut routed = routed.desired();
        for step in 0..200 {
            let which = step * 7 % 4;
            states[which] = step * step / 3 % 4;
            let mut alone = AgentRoutes::default();
            add(states[which], &mobiles[which], &mut alone);
            let networks = mobiles[which].1.iter().copied();
            let concerned = networks.chain([host(mobiles[which].0)]).collect();
            let before = routed.at(&concerned);
            routed.replace(&before, alone.desired());
            let mut all = AgentRoutes::default();
            for (state, mobile) in states.iter().zip(&mobiles) {
                add(*state, mobile, &mut all);
            }
            assert_eq!(text(&routed), text(&all.desired()), "after {step} steps");
        }
    }

    /// In the words of `ip rule` and `ip route`.
    fn text(desired: &Desired) -> String {
        let mut text = String::new();
        for rule in &desired.rules {
            let selects = match &rule.selects {
                Selects::From(prefix) => format!("from {prefix}"),
                Selects::Own(address) => format!("from own {address}"),
                Selects::Oif(name) => format!("oif {name}"),
                Selects::Iif(name) => format!("iif {name}"),
                Selects::Local => "iif lo".to_owned(),
            };
            let suppress = if rule.suppress_default { " suppress_prefixlength 0" } else { "" };
            writeln!(text, "{}: {selects} lookup {}{suppress}", rule.priority, rule.table).unwrap();
        }
        for route in &desired.routes {
            let action = match &route.action {
                Action::Send { interface, router, source } => {
                    let via = router.map(|it| format!("via {it} ")).unwrap_or_default();
                    let src = source.map(|it| format!(" src {it}")).unwrap_or_default();
                    format!("{via}dev {interface}{src}")
                }
                Action::Throw => "throw".to_owned(),
                Action::Unreachable => "unreachable".to_owned(),
            };
            let Route { table, destination, metric, .. } = route;
            writeln!(text, "{table}: {destination} metric {metric} {action}").unwrap();
        }
        text
    }

    #[test]
    fn a_mobile_router_with_two_uplinks() {
        let path =
            |path, name: &str, index, address: &str, router: Option<&str>, on_link: &[&str]| {
                PathRoutes {
                    path,
                    interface: name.into(),
                    index,
                    addresses: BTreeSet::from([address.parse().unwrap()]),
                    router: router.map(|it| it.parse().unwrap()),
                    on_link: on_link.iter().map(|it| net(it)).collect(),
                    by_router_only: false,
                }
            };
        let mut routes = MobileRoutes {
            homes: vec![HomeRoutes {
                tunnel: Some(7),
                address: HomeAddress("2001:db8:100::42".parse().unwrap()),
                mobile_networks: vec![
                    MobileNetworkPrefix::new(net("2001:db8:100:4200::/56")).unwrap(),
                ],
                also: vec!["br-guest".into()],
                name: "mtun0".into(),
            }],
            paths: vec![],
        };
        let no_paths = text(&routes.desired());
        let on_wlan0 = ["2001:db8:1::/64", "fe80::/64"];
        routes.paths = vec![
            path(1, "wlan0", 3, "2001:db8:1::7", Some("fe80::1"), &on_wlan0),
            path(2, "wwan0", 4, "2001:db8:2::7", None, &[]),
        ];
        insta::assert_snapshot!(text(&routes.desired()), @r"
        6270: iif mtun0 lookup 254 suppress_prefixlength 0
        6271: from 2001:db8:1::7/128 lookup 6300001
        6271: from 2001:db8:2::7/128 lookup 6300002
        6272: oif wlan0 lookup 6300001
        6272: oif wwan0 lookup 6300002
        6273: from 2001:db8:100::42/128 lookup 6275000
        6273: from 2001:db8:100:4200::/56 lookup 6275000
        6273: iif br-guest lookup 6275000
        6274: iif lo lookup 254 suppress_prefixlength 0
        6275: iif lo lookup 6275000
        254: 2001:db8:100:4200::/56 metric 4294967295 unreachable
        6275000: ::/0 metric 1 dev 7 src 2001:db8:100::42
        6275000: ::/0 metric 4294967295 unreachable
        6275000: 2001:db8:100:4200::/56 metric 1 throw
        6300001: ::/0 metric 1 via fe80::1 dev 3
        6300001: 2001:db8:1::/64 metric 1 dev 3
        6300001: 2001:db8:100:4200::/56 metric 1 throw
        6300001: fe80::/64 metric 1 dev 3
        6300002: ::/0 metric 1 dev 4
        6300002: 2001:db8:100:4200::/56 metric 1 throw
        ");
        routes.paths.clear();
        assert_eq!(text(&routes.desired()), no_paths);
    }

    #[test]
    fn where_the_agent_answers_neighbours_everything_goes_by_the_router() {
        // RFC 5648 §5.6.4.
        let mut path = PathRoutes {
            path: 3,
            interface: "eth0".into(),
            index: 5,
            addresses: BTreeSet::new(),
            router: Some("fe80::1".parse().unwrap()),
            on_link: ["2001:db8:100::/64", "fe80::/64"].iter().map(|it| net(it)).collect(),
            by_router_only: true,
        };
        let routes = |path: &PathRoutes| {
            text(&MobileRoutes { homes: vec![], paths: vec![path.clone()] }.desired())
        };
        insta::assert_snapshot!(routes(&path), @r"
        6272: oif eth0 lookup 6300003
        6300003: ::/0 metric 1 via fe80::1 dev 5
        6300003: fe80::/64 metric 1 dev 5
        ");
        path.by_router_only = false;
        assert!(routes(&path).contains("6300003: 2001:db8:100::/64 metric 1 dev 5"));
    }

    #[test]
    fn without_a_tunnel_nothing_of_home_leaves() {
        let home = HomeRoutes {
            tunnel: None,
            address: HomeAddress("2001:db8:100::42".parse().unwrap()),
            mobile_networks: vec![],
            also: vec![],
            name: "mtun0".into(),
        };
        let desired = MobileRoutes { homes: vec![home], paths: vec![] }.desired();
        let default = Route {
            table: home_table(0),
            destination: everywhere(),
            metric: u32::MAX,
            action: Action::Unreachable,
        };
        assert_eq!(desired.routes, BTreeSet::from([default]));
    }

    #[test]
    fn an_agent_routes_what_has_a_binding() {
        let mobile = BTreeSet::from([net("2001:db8:100::42/128"), net("2001:db8:100:4200::/56")]);
        let routes = AgentRoutes {
            bound: BTreeMap::from([(9, mobile)]),
            at_home: BTreeMap::from([(
                net("2001:db8:100:4300::/56"),
                (4, "2001:db8:100::43".parse().unwrap()),
            )]),
            reserved: BTreeSet::from([
                net("2001:db8:100:4200::/56"),
                net("2001:db8:100:4300::/56"),
            ]),
        };
        insta::assert_snapshot!(text(&routes.desired()), @r"
        254: 2001:db8:100::42/128 metric 1 dev 9
        254: 2001:db8:100::42/128 metric 4294967295 unreachable
        254: 2001:db8:100:4200::/56 metric 1 dev 9
        254: 2001:db8:100:4200::/56 metric 4294967295 unreachable
        254: 2001:db8:100:4300::/56 metric 1 via 2001:db8:100::43 dev 4
        254: 2001:db8:100:4300::/56 metric 4294967295 unreachable
        ");
    }

    #[test]
    fn a_correspondent_with_two_addresses() {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let mut routes = CorrespondentRoutes { tunnel: 7, ..Default::default() };
        assert_eq!(text(&routes.desired()), "", "nothing is bound");
        let mobiles = ["2001:db8:100::42", "2001:db8:100::43"].map(address);
        routes.bound.insert(address("2001:db8:c::9"), mobiles.into());
        routes.bound.insert(address("2001:db8:c::a"), [mobiles[1]].into());
        insta::assert_snapshot!(text(&routes.desired()), @r"
        6269: from own 2001:db8:c::9 lookup 6280000
        6269: from own 2001:db8:c::a lookup 6280001
        6280000: 2001:db8:100::42/128 metric 1 dev 7 src 2001:db8:c::9
        6280000: 2001:db8:100::43/128 metric 1 dev 7 src 2001:db8:c::9
        6280001: 2001:db8:100::43/128 metric 1 dev 7 src 2001:db8:c::a
        ");
    }
}
