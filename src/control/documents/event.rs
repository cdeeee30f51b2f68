//! What `mtun monitor` shows, one event a line.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use mtun_policy::steering::Admin;
use mtun_policy::{
    Bid, CareOfAddress, HomeAddress, HomeName, InterfaceName, MobileNetworkPrefix,
    RadioRegistration, Role, RuleName, Technology,
};
use mtun_signaling::mobility_socket::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::QuotaLevel;
use crate::control::protocol::VERSION;

/// One event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventDocument {
    /// [`VERSION`] of the documents.
    pub version: u32,
    /// When, in milliseconds since 1970-01-01 UTC by the machine's clock.
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl EventDocument {
    /// An event of this moment.
    pub fn now(event: Event) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { version: VERSION, time_ms, event }
    }
}

impl From<Event> for EventDocument {
    fn from(event: Event) -> Self {
        Self::now(event)
    }
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// For those who look.
    Info,
    /// Something is not as it should be.
    Warning,
}

/// Why a policy was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TakenBack {
    /// Nobody confirmed it in time.
    TimeOver,
    /// Whoever applied it left without confirming it.
    ClientLeft,
    /// Somebody asked for it.
    ByHand,
}

impl fmt::Display for TakenBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TimeOver => "nobody confirmed it in time",
            Self::ClientLeft => "who applied it left without confirming it",
            Self::ByHand => "by hand",
        })
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A link can carry packets.
    LinkUp {
        /// The link.
        link: InterfaceName,
        /// Our address on it.
        care_of: CareOfAddress,
        /// Its router; `null` on links without.
        router: Option<IpAddr>,
    },
    /// A link can no longer carry packets.
    LinkDown {
        /// The link.
        link: InterfaceName,
        /// Why, one word such as `carrier-lost`.
        reason: String,
    },
    /// Steering sees a link differently: what the rules make of it changed.
    LinkState {
        /// The home network.
        home: HomeName,
        /// The link.
        link: InterfaceName,
        /// Its state before, one word such as `recovering`.
        from: String,
        /// Its state from here on.
        to: String,
        /// Why.
        reason: String,
    },
    /// What a link's modem tells of its network is different.
    Radio {
        /// The link.
        link: InterfaceName,
        /// Where it stands with the networks around it; `null` if not known.
        registration: Option<RadioRegistration>,
        /// By what it reaches its network; `null` if not known.
        technology: Option<Technology>,
    },
    /// The path of a link takes more or less than it did: its interface changed, a router on the
    /// way said that it takes less, or that is forgotten.
    PathMtu {
        /// The link.
        link: InterfaceName,
        /// What its path to the home agent takes, in octets.
        octets: u32,
        /// What its interface takes.
        interface_octets: u32,
    },
    /// A link's quota came to its warning or to its end, or a period began.
    Quota {
        /// The link.
        link: InterfaceName,
        /// How near its end it is.
        level: QuotaLevel,
        /// Octets carried in this period.
        octets: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The copies of a `duplicate` rule used up its cap: metered links carry none until the
    /// period ends.
    CapReached {
        /// The home network.
        home: HomeName,
        /// The rule.
        rule: RuleName,
    },
    /// The agent accepted a binding: the first time, after a change, or again.
    Bound {
        /// The home network.
        home: HomeName,
        /// The binding; `null` is one without BID.
        bid: Option<Bid>,
        /// The link.
        link: Option<InterfaceName>,
        /// The care-of address.
        care_of: CareOfAddress,
        /// The granted lifetime, in seconds.
        granted_seconds: u64,
        /// Whether it was not bound before; `false` for refreshes.
        first: bool,
    },
    /// A binding ended or was refused.
    Unbound {
        /// The home network.
        home: HomeName,
        /// The binding; `null` is one without BID.
        bid: Option<Bid>,
        /// The link.
        link: Option<InterfaceName>,
        /// Why, one word such as `path-lost` or the agent's status.
        reason: String,
    },
    /// The home address is on its home link.
    AtHome {
        /// The home network.
        home: HomeName,
        /// The link.
        link: Option<InterfaceName>,
        /// Whether bindings abroad stand beside it.
        beside: bool,
        /// Whether this node answers neighbours for the home address; otherwise its agent does.
        neighbours: bool,
    },
    /// The home address is on its home link no more.
    LeftHome {
        /// The home network.
        home: HomeName,
    },
    /// What the agent holds of the rules changed: its answer to flow bindings (RFC 6089).
    FlowBindings {
        /// The home network.
        home: HomeName,
        /// How many it holds.
        held: usize,
        /// How many it refused.
        refused: usize,
    },
    /// A correspondent holds a binding: packets that the rules send by it go straight.
    RouteOptimized {
        /// The home network.
        home: HomeName,
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The binding.
        bid: Bid,
        /// The link.
        link: Option<InterfaceName>,
        /// The care-of address.
        care_of: CareOfAddress,
        /// The granted lifetime, in seconds.
        granted_seconds: u64,
        /// Whether it held none before; `false` for refreshes.
        first: bool,
    },
    /// Packets that the rules send by a binding take the tunnel again.
    RouteTunnelled {
        /// The home network.
        home: HomeName,
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The binding.
        bid: Bid,
        /// The link.
        link: Option<InterfaceName>,
        /// Why, such as `headers eaten`.
        reason: String,
    },
    /// A mobile's bindings at this node as its correspondent changed.
    CorrespondentChanged {
        /// Our address.
        correspondent: Ipv6Addr,
        /// The mobile.
        home_address: HomeAddress,
        /// The care-of addresses that are left.
        care_of: Vec<CareOfAddress>,
    },
    /// A home agent's bindings of one mobile changed.
    MobileChanged {
        /// The home network.
        home: HomeName,
        /// The mobile.
        home_address: HomeAddress,
        /// The care-of addresses that are left, by preference.
        care_of: Vec<CareOfAddress>,
        /// The prefixes that follow it.
        prefixes: Vec<MobileNetworkPrefix>,
    },
    /// Effective decisions changed: new packets are judged by this generation.
    Published {
        /// The home network.
        home: HomeName,
        /// Its generation.
        generation: u64,
    },
    /// An operator drained, held or released a link.
    LinkAdministered {
        /// The link.
        link: InterfaceName,
        /// What is wanted of it: `drained`, `held` or `open`.
        admin: Admin,
        /// User id of who asked.
        uid: Option<u32>,
    },
    /// An override was put in force.
    Steered {
        /// Its number.
        id: u16,
        /// Its filter as typed.
        filter: String,
        /// The link.
        via: InterfaceName,
        /// For how long, in seconds.
        seconds: u64,
        /// Why, as the person wrote it.
        reason: Option<String>,
    },
    /// An override ended.
    SteerEnded {
        /// Its number.
        id: u16,
        /// Whether its time was over; `false` if it was undone by hand or by a new policy.
        expired: bool,
    },
    /// A policy was put in force.
    PolicyApplied {
        /// Its name.
        name: String,
    },
    /// A policy is in force for as long as nobody has confirmed it.
    PolicyOnTrial {
        /// Its name.
        name: String,
        /// So many seconds; then it is taken back.
        seconds: u64,
    },
    /// A policy on trial stays.
    PolicyConfirmed {
        /// Its name.
        name: String,
    },
    /// A policy was taken back, and an earlier one is in force again.
    PolicyTakenBack {
        /// Its name; empty if the history does not know it.
        name: String,
        /// The one in force.
        restored: String,
        /// Why.
        why: TakenBack,
    },
    /// A policy was refused; the one before stays in force.
    PolicyRefused {
        /// The first of its faults.
        message: String,
    },
    /// Anything else worth a line.
    Notice {
        /// How much it matters.
        severity: Severity,
        /// One word for programs, such as `authentication-failed`.
        code: String,
        /// For people.
        text: String,
    },
    /// Events this client was too slow to take. Made by the control server.
    Lost {
        /// How many.
        count: u64,
    },
}

impl Event {
    /// What it is about, for filters.
    pub fn scope(&self) -> Scope<'_> {
        let mobile = Some(Role::MobileNode);
        let scope = Scope::default();
        match self {
            Self::LinkUp { link, .. }
            | Self::LinkDown { link, .. }
            | Self::LinkAdministered { link, .. }
            | Self::Radio { link, .. }
            | Self::PathMtu { link, .. }
            | Self::Quota { link, .. } => Scope { role: mobile, link: Some(link), ..scope },
            Self::Steered { via: link, .. } => Scope { role: mobile, link: Some(link), ..scope },
            Self::LinkState { home, link, .. } => {
                Scope { role: mobile, home: Some(home), link: Some(link), ..scope }
            }
            Self::Bound { home, bid, link, .. } | Self::Unbound { home, bid, link, .. } => {
                Scope { role: mobile, home: Some(home), link: link.as_ref(), bid: *bid, ..scope }
            }
            Self::RouteOptimized { home, bid, link, .. }
            | Self::RouteTunnelled { home, bid, link, .. } => {
                let (link, bid) = (link.as_ref(), Some(*bid));
                Scope { role: mobile, home: Some(home), link, bid, ..scope }
            }
            Self::AtHome { home, link, .. } => {
                Scope { role: mobile, home: Some(home), link: link.as_ref(), ..scope }
            }
            Self::CapReached { home, .. }
            | Self::LeftHome { home }
            | Self::FlowBindings { home, .. } => Scope { role: mobile, home: Some(home), ..scope },
            Self::MobileChanged { home, home_address, prefixes, .. } => Scope {
                role: Some(Role::HomeAgent),
                home: Some(home),
                home_address: Some(home_address.0),
                prefixes,
                ..scope
            },
            Self::CorrespondentChanged { home_address, .. } => Scope {
                role: Some(Role::Correspondent),
                home_address: Some(home_address.0),
                ..scope
            },
            Self::Published { home, .. } => Scope { home: Some(home), ..scope },
            Self::SteerEnded { .. }
            | Self::PolicyApplied { .. }
            | Self::PolicyOnTrial { .. }
            | Self::PolicyConfirmed { .. }
            | Self::PolicyTakenBack { .. }
            | Self::PolicyRefused { .. }
            | Self::Notice { .. }
            | Self::Lost { .. } => scope,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = |bid: &Option<Bid>, link: &Option<InterfaceName>| match (link, bid) {
            (Some(link), Some(bid)) => format!("{link} (BID {bid})"),
            (Some(link), None) => link.to_string(),
            (None, Some(bid)) => format!("BID {bid}"),
            (None, None) => "the binding without BID".to_owned(),
        };
        match self {
            Self::LinkUp { link, care_of, router: Some(router) } => {
                write!(f, "link {link} is up: care-of address {care_of}, router {router}")
            }
            Self::LinkUp { link, care_of, router: None } => {
                write!(f, "link {link} is up: care-of address {care_of}, no router needed")
            }
            Self::LinkDown { link, reason } => write!(f, "link {link} is down: {reason}"),
            Self::LinkState { link, from, to, reason, .. } if from == to => {
                write!(f, "link {link} is {to} as before: {reason}")
            }
            Self::LinkState { link, from, to, reason, .. } => {
                write!(f, "link {link} was {from} and is {to}: {reason}")
            }
            Self::Radio { link, registration, technology } => {
                let registration = registration.map_or("not known", RadioRegistration::word);
                let technology = technology.map_or("not known", Technology::word);
                write!(f, "radio of {link}: registration {registration}, technology {technology}")
            }
            Self::PathMtu { link, octets, interface_octets } if octets == interface_octets => {
                write!(f, "the path of link {link} carries {octets} octets, like its interface")
            }
            Self::PathMtu { link, octets, interface_octets } => {
                write!(
                    f,
                    "the path of link {link} carries {octets} octets, its interface {interface_octets}"
                )
            }
            Self::Quota { link, level, octets, limit } => {
                write!(f, "link {link} has carried {octets} of {limit} octets: quota {level}")
            }
            Self::CapReached { rule, .. } => {
                write!(f, "rule {rule} has used up its cap: no copies on metered links")
            }
            Self::Bound { home, bid, link, care_of, granted_seconds, first } => {
                let what = if *first { "registered" } else { "refreshed" };
                let over = over(bid, link);
                write!(f, "{over} {what} at home {home}: {care_of} for {granted_seconds} s")
            }
            Self::Unbound { home, bid, link, reason } => {
                write!(f, "{} no longer registered at home {home}: {reason}", over(bid, link))
            }
            Self::AtHome { home, link, beside, neighbours } => {
                let link = link.as_ref().map_or("no link".to_owned(), ToString::to_string);
                let others = if *beside { "beside bindings abroad" } else { "no binding needed" };
                write!(f, "home {home} is reached by {link}: at home, {others}")?;
                if !neighbours {
                    f.write_str(", the agent answers neighbours")?;
                }
                Ok(())
            }
            Self::LeftHome { home } => write!(f, "home {home} is left: its link is used no more"),
            Self::FlowBindings { home, held, refused: 0 } => {
                write!(f, "the agent of home {home} holds {held} flow bindings")
            }
            Self::FlowBindings { home, held, refused } => {
                write!(
                    f,
                    "the agent of home {home} holds {held} flow bindings and refused {refused}"
                )
            }
            Self::RouteOptimized {
                correspondent,
                bid,
                link,
                care_of,
                granted_seconds,
                first,
                ..
            } => {
                let over = over(&Some(*bid), link);
                let what = if *first { "goes straight" } else { "goes on straight" };
                write!(f, "{over} {what} to {correspondent}: {care_of} for {granted_seconds} s")
            }
            Self::RouteTunnelled { correspondent, bid, link, reason, .. } => {
                let over = over(&Some(*bid), link);
                write!(f, "{over} takes the tunnel to {correspondent}: {reason}")
            }
            Self::CorrespondentChanged { correspondent, home_address, care_of } => {
                let count = care_of.len();
                let care_of: Vec<_> = care_of.iter().map(ToString::to_string).collect();
                let bound = bindings(count);
                write!(f, "mobile {home_address} has {bound} at {correspondent}")?;
                if count > 0 {
                    write!(f, ": {}", care_of.join(", "))?;
                }
                Ok(())
            }
            Self::MobileChanged { home, home_address, care_of, prefixes } => {
                let count = care_of.len();
                let care_of: Vec<_> = care_of.iter().map(ToString::to_string).collect();
                let bound = bindings(count);
                write!(f, "mobile {home_address} of home {home} has {bound}")?;
                if count > 0 {
                    write!(f, ": {}", care_of.join(", "))?;
                }
                if !prefixes.is_empty() {
                    let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
                    write!(f, "; prefixes {}", prefixes.join(", "))?;
                }
                Ok(())
            }
            Self::Published { home, generation } => {
                write!(f, "home {home} decides by generation {generation}")
            }
            Self::LinkAdministered { link, admin: Admin::Open, .. } => {
                write!(f, "{link} is released: the rules decide again")
            }
            Self::LinkAdministered { link, admin, .. } => write!(f, "{link} is {admin} by hand"),
            Self::Steered { id, filter, via, seconds, reason } => {
                write!(f, "override {id}: '{filter}' via {via} for {seconds} s")?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
            Self::SteerEnded { id, expired: true } => write!(f, "override {id} expired"),
            Self::SteerEnded { id, expired: false } => write!(f, "override {id} undone"),
            Self::PolicyApplied { name } => write!(f, "policy {name} is in force"),
            Self::PolicyOnTrial { name, seconds } => {
                write!(f, "policy {name} is on trial: taken back in {seconds} s unless confirmed")
            }
            Self::PolicyConfirmed { name } => write!(f, "policy {name} is confirmed"),
            Self::PolicyTakenBack { name, restored, why } => {
                write!(f, "policy {name} is taken back ({why}); in force is {restored} again")
            }
            Self::PolicyRefused { message } => write!(f, "policy refused: {message}"),
            Self::Notice { severity: Severity::Info, text, .. } => f.write_str(text),
            Self::Notice { severity: Severity::Warning, text, .. } => write!(f, "warning: {text}"),
            Self::Lost { count } => write!(f, "{count} events lost: this reader was too slow"),
        }
    }
}

/// So many bindings.
fn bindings(count: usize) -> String {
    if count == 1 { "1 binding".to_owned() } else { format!("{count} bindings") }
}
