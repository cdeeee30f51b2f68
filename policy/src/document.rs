//! The policy file as it was written: every statement with its place, nothing resolved.
//!
//! Values have their types here (a lifetime is a duration, a prefix has no host bits); names of
//! groups, interfaces and homes are still names. `check` asks whether they fit together
//! and `compile` resolves them.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::effective::BlockReply;
use crate::policy::Algorithm;
use crate::source::{Span, Spanned};
use crate::steering::StatedLink as LinkState;
use crate::terms::{PrefixMode, Role};

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
    /// Groups.
    pub groups: Vec<GroupNode>,
    /// Home networks.
    pub homes: Vec<HomeNode>,
    /// Security associations.
    pub securities: Vec<SecurityNode>,
    /// Rules.
    pub rule_sets: Vec<RuleSetNode>,
    /// Tests.
    pub tests: Vec<TestNode>,
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
    /// `register …`.
    pub register: Option<RegisterNode>,
    /// `security …`.
    pub security: Option<SecurityChoice>,
    /// `serve …`, at an agent.
    pub serve: Option<ServeNode>,
    /// `allow …`, at an agent.
    pub allowed: Vec<AllowNode>,
}

/// `register lifetime=… multiple-coa=… bulk=… mode=…`.
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
    /// `lifetime`.
    pub lifetime: Option<Spanned<Duration>>,
    /// `multiple-coa`.
    pub multiple_coa: Option<bool>,
    /// `bulk`.
    pub bulk: Option<bool>,
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
}

/// `security "name" { auth-option … }`.
#[derive(Clone, Debug)]
pub struct SecurityNode {
    /// Its name.
    pub name: Spanned<String>,
    /// The authentication option.
    pub auth_option: Option<AuthOptionNode>,
}

/// `auth-option spi=… algorithm=… key-file=…`.
#[derive(Clone, Debug)]
pub struct AuthOptionNode {
    /// `spi`.
    pub spi: Option<Spanned<u32>>,
    /// `algorithm`.
    pub algorithm: Option<Spanned<Algorithm>>,
    /// `key-file`, already resolved against the file it stands in.
    pub key_file: Option<Spanned<PathBuf>>,
}

/// `rules home=… { … }`.
#[derive(Clone, Debug)]
pub struct RuleSetNode {
    /// Its place.
    pub span: Span,
    /// `home`.
    pub home: Option<Spanned<String>>,
    /// The rules in order.
    pub rules: Vec<RuleNode>,
    /// `default`.
    pub default: Option<RuleNode>,
}

/// `rule "name" { … }` or `default { … }`.
#[derive(Clone, Debug)]
pub struct RuleNode {
    /// Its name; `default` for the last.
    pub name: Spanned<String>,
    /// `match` lines; alternatives.
    pub matches: Vec<MatchNode>,
    /// `exclude` lines.
    pub excludes: Vec<MatchNode>,
    /// The verb.
    pub verb: Option<Spanned<VerbNode>>,
    /// `otherwise`.
    pub otherwise: Option<Spanned<OtherwiseNode>>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerbNode {
    /// `prefer a @b`.
    Prefer(Terms<String>),
    /// `block reply=…`.
    Block(BlockReply),
}

/// What happens when that is not possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherwiseNode {
    /// `otherwise next-rule`, and without `otherwise`.
    NextRule,
    /// `otherwise any`.
    Any,
    /// `otherwise prefer a b`.
    Prefer(Terms<String>),
    /// `otherwise block reply=…`.
    Block(BlockReply),
}

/// One `match` or `exclude` line; its fields must all hold.
#[derive(Clone, Debug)]
pub struct MatchNode {
    /// Its place.
    pub span: Span,
    /// `proto`.
    pub protocols: Vec<Spanned<u8>>,
    /// `src`.
    pub sources: Terms<IpNet>,
    /// `dst`.
    pub destinations: Terms<IpNet>,
    /// `sport`.
    pub source_ports: Terms<RangeInclusive<u16>>,
    /// `dport`.
    pub destination_ports: Terms<RangeInclusive<u16>>,
    /// `dscp`.
    pub dscps: Vec<Spanned<u8>>,
    /// `in`.
    pub ingresses: Terms<String>,
}

/// `test "sentence" { … }`.
#[derive(Clone, Debug)]
pub struct TestNode {
    /// The sentence.
    pub name: Spanned<String>,
    /// `flow …`.
    pub flow: Option<FlowNode>,
    /// `expect …`.
    pub expectations: Vec<ExpectNode>,
}

/// `flow src=… dst=… proto=… …`.
#[derive(Clone, Debug)]
pub struct FlowNode {
    /// Its place.
    pub span: Span,
    /// `src`.
    pub source: Option<Spanned<IpAddr>>,
    /// `dst`.
    pub destination: Option<Spanned<IpAddr>>,
    /// `proto`.
    pub protocol: Option<Spanned<u8>>,
    /// `sport`.
    pub source_port: Option<u16>,
    /// `dport`.
    pub destination_port: Option<u16>,
    /// `dscp`.
    pub dscp: u8,
    /// `in`.
    pub ingress: Option<Spanned<String>>,
}

/// `expect …`.
#[derive(Clone, Debug)]
pub struct ExpectNode {
    /// Its place.
    pub span: Span,
    /// `rule`.
    pub rule: Option<Spanned<String>>,
    /// `via`.
    pub via: Option<Spanned<String>>,
    /// `blocked`.
    pub blocked: bool,
    /// `unreachable`.
    pub unreachable: bool,
    /// `given`.
    pub given: Vec<(Spanned<String>, LinkState)>,
}
