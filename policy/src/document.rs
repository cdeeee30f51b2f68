//! The policy file as it was written: every statement with its place, nothing resolved.
//!
//! Values have their types here (a lifetime is a duration, a prefix has no host bits); names of
//! groups, interfaces and homes are still names. `check` asks whether they fit together
//! and `compile` resolves them.

mod rules;

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::downlink::Unmatched;
use crate::link::{Cost, Quota, Sla, UsableWhen};
use crate::mobility::{ReturningHome, RouteOptimizationStart, StrangerAnswer};
use crate::policy::{Algorithm, Extensions, KeySource, Probe};
use crate::radio::FactSource;
use crate::source::{Span, Spanned};
use crate::terms::{PrefixMode, Role};

pub use rules::*;

/// A value, or the name of a group that holds such values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term<T> {
    /// The value itself.
    Literal(T),
    /// `@name`.
    Group(String),
}

/// Several values or groups, each with its place.
pub type Terms<T> = Vec<Spanned<Term<T>>>;

/// Everything a policy file and its includes say.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// `policy "name"`.
    pub name: Option<Spanned<String>>,
    /// `role "…"`.
    pub role: Option<Spanned<Role>>,
    /// Whether there is a `role` that says none of the roles.
    pub role_is_wrong: bool,
    /// Access links.
    pub interfaces: Vec<InterfaceNode>,
    /// Who tells of the vehicle.
    pub vehicle: Option<Spanned<FactSource>>,
    /// Groups.
    pub groups: Vec<GroupNode>,
    /// Sets.
    pub sets: Vec<SetNode>,
    /// Service levels.
    pub slas: Vec<SlaNode>,
    /// Home networks.
    pub homes: Vec<HomeNode>,
    /// `correspondent …`.
    pub correspondent: Option<CorrespondentNode>,
    /// Security associations.
    pub securities: Vec<SecurityNode>,
    /// Rules.
    pub rule_sets: Vec<RuleSetNode>,
    /// Tests.
    pub tests: Vec<TestNode>,
    /// `flow-budget`.
    pub flow_budget: Option<Spanned<u16>>,
}

/// `interface "wlan0" { … }`.
#[derive(Clone, Debug)]
pub struct InterfaceNode {
    /// Its name.
    pub name: Spanned<String>,
    /// `bid`.
    pub bid: Option<Spanned<u16>>,
    /// `priority`.
    pub priority: Option<Spanned<u8>>,
    /// `class`.
    pub class: Option<String>,
    /// `metered`.
    pub metered: bool,
    /// `cost`.
    pub cost: Option<Spanned<Cost>>,
    /// `quota`.
    pub quota: Option<Spanned<Quota>>,
    /// `rate`, in bits a second.
    pub rate: Option<Spanned<u64>>,
    /// `usable { … }`.
    pub usable: UsableWhen,
    /// `radio …`.
    pub radio: Option<Spanned<FactSource>>,
}

/// `group "name" { … }`.
#[derive(Clone, Debug)]
pub struct GroupNode {
    /// Its name.
    pub name: Spanned<String>,
    /// Interfaces in it.
    pub interfaces: Vec<Spanned<String>>,
    /// Ports in it.
    pub ports: Vec<Spanned<RangeInclusive<u16>>>,
    /// Prefixes in it.
    pub prefixes: Vec<Spanned<IpNet>>,
}

/// `set "name" file=…`, with what the file holds.
#[derive(Clone, Debug)]
pub struct SetNode {
    /// Its name.
    pub name: Spanned<String>,
    /// The prefixes in it; none if the file could not be read, which is a fault of its own.
    pub prefixes: Vec<IpNet>,
}

/// `sla "name" rtt=… jitter=… loss=…`.
#[derive(Clone, Debug)]
pub struct SlaNode {
    /// Its name.
    pub name: Spanned<String>,
    /// What it asks for.
    pub sla: Sla,
}

/// `security` of a home or a mobile: a name, or none on purpose.
pub type SecurityChoice = Spanned<Option<String>>;

/// `home "name" { … }`, on either side.
#[derive(Clone, Debug)]
pub struct HomeNode {
    /// Its name.
    pub name: Spanned<String>,
    /// `tunnel name mtu=…`.
    pub tunnel: Option<(Spanned<String>, Option<u16>)>,
    /// `agent`.
    pub agent: Option<Spanned<Ipv6Addr>>,
    /// `address "a/len"`.
    pub address: Option<Spanned<(Ipv6Addr, u8)>>,
    /// `mobile-network "p" on=…`.
    pub mobile_networks: Vec<(Spanned<Ipv6Net>, Option<Spanned<String>>)>,
    /// `also from=…`.
    pub also: Vec<Spanned<String>>,
    /// `probe …`.
    pub probe: Option<Spanned<Probe>>,
    /// `register …`.
    pub register: Option<RegisterNode>,
    /// `security …`.
    pub security: Option<SecurityChoice>,
    /// `route-optimization …`.
    pub route_optimization: Option<RouteOptimizationNode>,
    /// `returning-home …`.
    pub returning_home: Option<Spanned<ReturningHome>>,
    /// `serve …`, at an agent.
    pub serve: Option<ServeNode>,
    /// `allow …`, at an agent.
    pub allowed: Vec<AllowNode>,
    /// `refuse …`, at an agent.
    pub refused: Vec<RefuseNode>,
    /// `extensions …`.
    pub extensions: Extensions,
}

/// `register lifetime=… multiple-coa=… bulk=… mode=… flow-bindings=…`.
#[derive(Clone, Debug)]
pub struct RegisterNode {
    /// Its place.
    pub span: Span,
    /// `lifetime`.
    pub lifetime: Option<Spanned<Duration>>,
    /// `multiple-coa`.
    pub multiple_coa: Option<bool>,
    /// `bulk`.
    pub bulk: Option<bool>,
    /// `mode`.
    pub mode: Option<Spanned<PrefixMode>>,
    /// `flow-bindings`.
    pub flow_bindings: Option<bool>,
    /// `reflect`.
    pub reflect: Option<bool>,
}

/// `route-optimization traffic|policy|off lifetime=… correspondents=…`.
#[derive(Clone, Debug)]
pub struct RouteOptimizationNode {
    /// Its place.
    pub span: Span,
    /// What starts it; `None` inside for `off`.
    pub start: Option<Spanned<Option<RouteOptimizationStart>>>,
    /// `lifetime`.
    pub lifetime: Option<Spanned<Duration>>,
    /// `correspondents`.
    pub correspondents: Option<Spanned<u16>>,
}

impl RouteOptimizationNode {
    /// Whether it says `off`.
    pub fn is_off(&self) -> bool {
        self.start.as_ref().is_some_and(|start| start.value.is_none())
    }
}

/// `correspondent { … }` or `correspondent off answer=…`.
#[derive(Clone, Debug)]
pub struct CorrespondentNode {
    /// Its place.
    pub span: Span,
    /// Where `off` stands.
    pub off: Option<Span>,
    /// `answer`.
    pub answer: Option<Spanned<StrangerAnswer>>,
    /// `tunnel name mtu=…`.
    pub tunnel: Option<(Spanned<String>, Option<u16>)>,
    /// `address`.
    pub addresses: Vec<Spanned<Ipv6Addr>>,
    /// `lifetime`.
    pub lifetime: Option<Spanned<Duration>>,
    /// `multiple-coa`.
    pub multiple_coa: Option<bool>,
    /// `mobiles`.
    pub mobiles: Option<Spanned<u32>>,
    /// `bindings`.
    pub bindings: Option<Spanned<u16>>,
}

/// `serve "prefix" agent=… on=… lifetime=…`.
#[derive(Clone, Debug)]
pub struct ServeNode {
    /// Its place.
    pub span: Span,
    /// The home link's prefix.
    pub prefix: Option<Spanned<Ipv6Net>>,
    /// `agent`.
    pub agent: Option<Spanned<Ipv6Addr>>,
    /// `on`.
    pub on: Option<Spanned<String>>,
    /// `preference`.
    pub preference: Option<u16>,
    /// `only-router`.
    pub only_router: Option<Spanned<bool>>,
    /// `lifetime`.
    pub lifetime: Option<Spanned<Duration>>,
    /// `multiple-coa`.
    pub multiple_coa: Option<bool>,
    /// `bulk`.
    pub bulk: Option<bool>,
    /// `flow-bindings`.
    pub flow_bindings: Option<bool>,
    /// `reflect`.
    pub reflect: Option<bool>,
    /// `unmatched`.
    pub unmatched: Option<Unmatched>,
}

/// `allow "address" name=… { … }`.
#[derive(Clone, Debug)]
pub struct AllowNode {
    /// Its place.
    pub span: Span,
    /// The home address.
    pub address: Option<Spanned<Ipv6Addr>>,
    /// `name`.
    pub name: Option<Spanned<String>>,
    /// `mobile-network`.
    pub mobile_networks: Vec<Spanned<Ipv6Net>>,
    /// `security`.
    pub security: Option<SecurityChoice>,
    /// `bindings`.
    pub bindings: Option<Spanned<u16>>,
    /// `flows`.
    pub flows: Option<Spanned<u16>>,
    /// `copies`.
    pub copies: Option<Spanned<u8>>,
}

/// `refuse "address" bid=…`.
#[derive(Clone, Debug)]
pub struct RefuseNode {
    /// Its place.
    pub span: Span,
    /// The home address.
    pub address: Option<Spanned<Ipv6Addr>>,
    /// `bid`; all bindings if there is none.
    pub bid: Option<Spanned<u16>>,
}

/// `security "name" { auth-option … }`.
#[derive(Clone, Debug)]
pub struct SecurityNode {
    /// Its name.
    pub name: Spanned<String>,
    /// The authentication option.
    pub auth_option: Option<AuthOptionNode>,
}

/// `auth-option spi=… algorithm=… key-file=…`, or `key-credential=…`.
#[derive(Clone, Debug)]
pub struct AuthOptionNode {
    /// `spi`.
    pub spi: Option<Spanned<u32>>,
    /// `algorithm`.
    pub algorithm: Option<Spanned<Algorithm>>,
    /// Where the key is; file names are already resolved against the file they stand in.
    pub key: Option<Spanned<KeySource>>,
}
