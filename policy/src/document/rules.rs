//! `rules` and `test` as they were written.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{Term, Terms};
use crate::effective::BlockReply;
use crate::link::Ratio;
use crate::mobility::Optimize;
use crate::source::{Span, Spanned};
use crate::suppose::Supposition;
use crate::verb::{Failback, Sticky, When};

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
    /// `when` lines; alternatives.
    pub when: Vec<Spanned<When>>,
    /// The verb.
    pub verb: Option<Spanned<VerbNode>>,
    /// `otherwise`.
    pub otherwise: Option<Spanned<OtherwiseNode>>,
    /// `sticky`.
    pub sticky: Option<Spanned<Sticky>>,
    /// `together`.
    pub together: Option<Spanned<String>>,
    /// `failback`.
    pub failback: Option<Spanned<Failback>>,
    /// `optimize`.
    pub optimize: Option<Spanned<Optimize>>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerbNode {
    /// `prefer a @b`.
    Prefer(Terms<String>),
    /// `balance a=3 @b=1`.
    Balance(Vec<(Spanned<Term<String>>, Spanned<u16>)>),
    /// `overflow a b full=…`.
    Overflow {
        /// The links.
        links: Terms<String>,
        /// `full`.
        full: Ratio,
    },
    /// `fastest a b margin=…`.
    Fastest {
        /// The links.
        links: Terms<String>,
        /// `margin`.
        margin: Ratio,
    },
    /// `cheapest a b sla=…`.
    Cheapest {
        /// The links.
        links: Terms<String>,
        /// `sla`.
        sla: Option<Spanned<String>>,
    },
    /// `duplicate a b copies=… cap=…`.
    Duplicate {
        /// The links.
        links: Terms<String>,
        /// `copies`.
        copies: u8,
        /// `cap`, in octets.
        cap: Option<Spanned<u64>>,
    },
    /// `breakout a translate=…`.
    Breakout {
        /// The links.
        links: Terms<String>,
        /// `translate`.
        translate: bool,
    },
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
    /// `otherwise` and a verb.
    Then(VerbNode),
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
    /// `flow-label`.
    pub flow_labels: Vec<Spanned<RangeInclusive<u32>>>,
    /// `spi`.
    pub spis: Vec<Spanned<RangeInclusive<u32>>>,
    /// `icmp-type`.
    pub icmp_types: Vec<Spanned<RangeInclusive<u8>>>,
    /// `uid`.
    pub uids: Vec<Spanned<RangeInclusive<u32>>>,
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
    /// `flow-label`.
    pub flow_label: u32,
    /// `spi`.
    pub spi: Option<u32>,
    /// `icmp-type`.
    pub icmp_type: Option<u8>,
    /// `uid`.
    pub uid: Option<u32>,
}

/// `expect …`.
#[derive(Clone, Debug)]
pub struct ExpectNode {
    /// Its place.
    pub span: Span,
    /// `rule`.
    pub rule: Option<Spanned<String>>,
    /// `via`: one link, or those that carry copies.
    pub via: Vec<Spanned<String>>,
    /// `breakout`.
    pub breakout: bool,
    /// `blocked`.
    pub blocked: bool,
    /// `unreachable`.
    pub unreachable: bool,
    /// `optimized`.
    pub optimized: Option<Spanned<bool>>,
    /// Everything behind `given`.
    pub given: Vec<GivenNode>,
}

/// One `name=value` of a `given`, with the places of its name and its value.
#[derive(Clone, Debug)]
pub struct GivenNode {
    /// Where its name stands.
    pub span: Span,
    /// What is supposed.
    pub supposition: Supposition,
}
