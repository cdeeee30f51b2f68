//! The one grammar in which people name flows on the command line.
//!
//! ```text
//! proto tcp and dport 22 and via wwan0
//! tcp 2001:db8::5 -> 2001:db8:c::9 dport 22 given wlan0=down speed=90km/h time=23:10
//! tcp [2001:db8::5]:40000 -> [2001:db8:c::9]:22
//! dport=@web
//! ```
//!
//! A term is a field and its value (`dport 22` or `dport=22`), a protocol alone, or two addresses
//! with `->` between them, each with its port behind it as `mtun flows` shows them; `and` between terms
//! may be left out. Fields and values are those of
//! `match`. A *filter* is any number of terms, with `via` and `rule` besides; a *flow* is one
//! packet's worth: both addresses and the protocol, each exactly one. A *question* is a flow, and
//! behind `given` what is supposed.

mod flow;
mod terms;
mod tokens;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::key::FlowKey;
use crate::policy::{Ingresses, Policy};
use crate::selector::TrafficSelector;
use crate::source::{Sources, Span, diagnose};
use crate::steering::Given;
use crate::terms::{Bid, RuleName};
use crate::value::{Problem, protocol_name};

use tokens::{Token, tokens};

/// Longest text that is read, in octets.
const LONGEST: usize = 8192;

/// Which flows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// By their packets.
    pub selector: TrafficSelector,
    /// By the binding they use, one of these; empty for any.
    pub via: Vec<Bid>,
    /// By the rule that decided them, one of these; empty for any.
    pub rule: Vec<RuleName>,
}

impl Filter {
    /// Whether a flow with this key, binding and rule is meant.
    pub fn matches(&self, key: &FlowKey, via: Option<Bid>, rule: Option<&RuleName>) -> bool {
        (self.via.is_empty() || via.is_some_and(|via| self.via.contains(&via)))
            && (self.rule.is_empty() || rule.is_some_and(|rule| self.rule.contains(rule)))
            && self.selector.matches(key)
    }
}

/// Reads a filter; without a policy, links are BIDs, rules are not looked up and there are no
/// groups.
pub fn parse_filter(text: &str, policy: Option<&Policy>) -> Result<Filter, Diagnostic> {
    let mut reader = Reader::new("filter", text, policy)?;
    let filter = reader.terms()?;
    reader.end()?;
    Ok(filter)
}

/// Reads a flow, as `mtun explain` takes it.
pub fn parse_flow(text: &str, policy: &Policy) -> Result<FlowKey, Diagnostic> {
    let mut reader = Reader::new("flow", text, Some(policy))?;
    let key = reader.flow(policy)?;
    reader.end()?;
    Ok(key)
}

/// Reads a flow and, behind `given`, what is supposed: `… given wwan0=down speed=90km/h`.
pub fn parse_question(text: &str, policy: &Policy) -> Result<(FlowKey, Given), Diagnostic> {
    let mut reader = Reader::new("flow", text, Some(policy))?;
    let key = reader.flow(policy)?;
    let mut given = Given::default();
    if reader.take_if("given") {
        reader.suppositions(&mut given)?;
    }
    reader.end()?;
    Ok((key, given))
}

/// Reads a question and what is supposed besides.
pub fn parse_question_given(
    text: &str,
    besides: &[String],
    policy: &Policy,
) -> Result<(FlowKey, Given), Diagnostic> {
    let (key, mut given) = parse_question(text, policy)?;
    for text in besides {
        let mut reader = Reader::new("given", text, Some(policy))?;
        reader.suppositions(&mut given)?;
    }
    Ok((key, given))
}

/// Reads what is supposed, `wwan0=down wlan0.rtt=80ms speed=90km/h time=23:10 day=sat`.
pub fn parse_given(text: &str, policy: &Policy) -> Result<Given, Diagnostic> {
    let mut reader = Reader::new("given", text, Some(policy))?;
    let mut given = Given::default();
    reader.suppositions(&mut given)?;
    Ok(given)
}

/// A selector as a filter that reads back to it.
pub fn filter_text(selector: &TrafficSelector, ingresses: &Ingresses) -> String {
    fn list<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
        values.iter().map(text).collect::<Vec<_>>().join(",")
    }
    let fields = [
        ("proto", list(&selector.protocols, |protocol| protocol_name(*protocol))),
        ("src", list(&selector.sources, net_text)),
        ("dst", list(&selector.destinations, net_text)),
        ("sport", list(&selector.source_ports, range_text)),
        ("dport", list(&selector.destination_ports, range_text)),
        ("dscp", list(&selector.dscps, u8::to_string)),
        ("in", list(&selector.ingresses, |ingress| ingresses.name(*ingress).to_owned())),
        ("flow-label", list(&selector.flow_labels, range_text)),
        ("spi", list(&selector.spis, range_text)),
        ("icmp-type", list(&selector.icmp_types, range_text)),
        ("uid", list(&selector.uids, range_text)),
    ];
    let terms = fields.into_iter().filter(|(_, value)| !value.is_empty());
    terms.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" and ")
}

/// A prefix as people write it: an address alone if it stands for itself.
pub(crate) fn net_text(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// A range as people write it: a number alone if there is but one in it.
pub(crate) fn range_text<T: std::fmt::Display + PartialEq>(
    range: &std::ops::RangeInclusive<T>,
) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

struct Reader<'t> {
    name: &'static str,
    text: &'t str,
    tokens: Vec<Token<'t>>,
    next: usize,
    policy: Option<&'t Policy>,
}

impl<'t> Reader<'t> {
    fn new(
        name: &'static str,
        text: &'t str,
        policy: Option<&'t Policy>,
    ) -> Result<Self, Diagnostic> {
        let reader = Self { name, text, tokens: tokens(text), next: 0, policy };
        if text.len() > LONGEST {
            let message = format!("longer than {LONGEST} octets");
            return Err(reader.fault(0, 1, Problem::new(Code::Limit, message, "name fewer flows")));
        }
        Ok(reader)
    }

    fn fault(&self, at: usize, length: usize, problem: Problem) -> Diagnostic {
        let mut sources = Sources::default();
        // Only the part that may be shown is kept, so that spans stay small.
        let text = self.text.get(..LONGEST).unwrap_or(self.text);
        let text = if text.len() > LONGEST { "" } else { text };
        let source = sources.add(self.name, text.to_owned());
        let span = Span::new(source, at.min(text.len()), length);
        diagnose(&sources, span, Severity::Error, problem.code, problem.message, problem.help)
    }

    fn fault_at(&self, token: Token<'_>, problem: Problem) -> Diagnostic {
        self.fault(token.at, token.text.len(), problem)
    }

    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Option<Token<'t>> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    fn take_if(&mut self, text: &str) -> bool {
        let here = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(here);
        here
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        match self.peek() {
            None => Ok(()),
            Some(token) => {
                let message = format!("`{}` has no meaning here", token.text);
                Err(self.fault_at(token, Problem::new(Code::Syntax, message, "remove it")))
            }
        }
    }
}
