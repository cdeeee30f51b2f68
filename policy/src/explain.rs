//! Why a flow goes where it goes.
//!
//! An [`Explanation`] lists the rules in the order in which they are asked, up to the one that
//! decides: which field kept a rule from matching, which condition of its `when` is not met, which
//! links a matching rule names and what became of each. The verdict is
//! [`Effective::choose`](crate::Effective::choose)'s; nothing is decided here.

mod candidates;
pub(crate) mod mismatch;
mod text;

use std::net::IpAddr;

use serde::Serialize;

use crate::effective::{BlockReply, Choice, Origin, Otherwise, Outcome, Ruling, Usable};
use crate::end::{End, Way, head_of};
use crate::key::FlowKey;
use crate::mobility::Optimize;
use crate::policy::{Home, Ingresses, Policy, Rule};
use crate::steering::{Bar, Given, LinkReason, LinkState, Supposed, suppose};
use crate::terms::{Bid, HomeName, InterfaceName, RuleId, RuleName};
use crate::value::protocol_name;
use crate::verb::{Failback, FailbackMode, Scope, Sticky};

pub use candidates::{Candidate, CandidateVerdict};
pub use mismatch::{Condition, Mismatch, Unmet};

/// So many earlier rules are listed whatever kept them from matching; of more, those that nearly
/// matched.
const LISTED: usize = 16;

/// The way of one flow through the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The flow.
    pub flow: FlowText,
    /// The home network whose rules are asked.
    pub home: HomeName,
    /// Whose packet it is.
    pub origin: Origin,
    /// Every link and what is known or supposed of it.
    pub links: Vec<LinkFact>,
    /// The rules in order, up to the one that decides.
    pub rules: Vec<RuleVerdict>,
    /// How many earlier rules are not listed: they are about other packets altogether.
    pub passed_over: usize,
    /// How many rules were not asked.
    pub not_asked: usize,
    /// The deciding rule; `None` if no rule matched.
    pub rule: Option<RuleName>,
    /// How it ends.
    pub end: End,
    /// The bindings it goes by: one, one for each copy, or none.
    pub bids: Vec<Bid>,
    /// Whether its source becomes the link's own address when it breaks out.
    pub translate: bool,
    /// How a refusal is answered.
    pub reply: Option<BlockReply>,
    /// Whether the deciding rule needed its `otherwise`.
    pub otherwise: bool,
    /// What else decides where its packets go.
    pub notes: Vec<Note>,
}

/// A flow in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowText {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol by name or number.
    pub protocol: String,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// DSCP.
    pub dscp: u8,
    /// The IPv6 flow label; `None` for none.
    pub flow_label: Option<u32>,
    /// Security parameter index of ESP and AH.
    pub spi: Option<u32>,
    /// Type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
    /// The user whose local socket sends it.
    pub uid: Option<u32>,
    /// `local`, the ingress interface if a rule names it, or `other`.
    pub ingress: String,
}

impl FlowText {
    /// The words for a key.
    pub fn new(key: &FlowKey, ingresses: &Ingresses) -> Self {
        Self {
            source: key.source,
            destination: key.destination,
            protocol: protocol_name(key.protocol),
            source_port: key.source_port,
            destination_port: key.destination_port,
            dscp: key.dscp,
            flow_label: Some(key.flow_label).filter(|label| *label != 0),
            spi: key.spi,
            icmp_type: key.icmp_type,
            uid: key.uid,
            ingress: ingresses.name(key.ingress).to_owned(),
        }
    }
}

/// A link and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkFact {
    /// The link.
    pub interface: InterfaceName,
    /// Its BID.
    pub bid: Bid,
    /// Its state.
    pub state: LinkState,
    /// Why.
    pub reason: LinkReason,
    /// What keeps it from ordinary use besides its state.
    pub bar: Option<Bar>,
    /// Whether packets can be sent by it.
    pub usable: bool,
}

/// A rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleVerdict {
    /// Its place.
    pub id: RuleId,
    /// Its name.
    pub name: RuleName,
    /// Where it stands; `None` for an override.
    pub file: Option<String>,
    /// Where it stands, from 1.
    pub line: Option<usize>,
    /// Why its `when` is not met, one reason for each line; empty if it is.
    pub unmet: Vec<Unmet>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It speaks of other packets; one reason for each `match` line.
    NotMatched(Vec<Mismatch>),
    /// It matched, and an `exclude` line took the packet out again.
    Excluded,
    /// It matched, and its verb tunnels, which a further source never is.
    NotForSource,
    /// It matched, no link it names can be used, and the next rule was asked.
    PassedOn(Vec<Candidate>),
    /// It decided.
    Decided(Vec<Candidate>),
}

/// What else decides where a flow's packets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// What keeps to a link, and for how long.
    Sticky(Sticky),
    /// These rules share the choice.
    Together {
        /// Their word.
        word: String,
        /// Their names.
        rules: Vec<RuleName>,
    },
    /// When it goes back to a better link.
    Failback(Failback),
    /// Its link is metered: it goes back at least in a gap.
    MeteredGap(InterfaceName),
    /// Whether its packets may go straight to the correspondent, where the home optimizes routes.
    Optimize {
        /// Whether they may.
        optimize: Optimize,
        /// Whether the rule says so itself.
        said: bool,
    },
    /// Its source is no home address, and so its packets always take the tunnel.
    NotHomeAddress,
    /// Its link is used because there is no other.
    LastLink(InterfaceName, LinkReason),
}

/// Explains a flow without a daemon: every link is registered and up, except for what is given.
pub fn explain_offline(
    policy: &Policy,
    home: &Home,
    key: &FlowKey,
    origin: Origin,
    given: &Given,
) -> Explanation {
    let supposed = suppose(policy, home, given);
    explain(policy, home, &supposed, key, origin, &supposed)
}

/// Explains a flow by the rules as they stand or are supposed to, with the bindings there are.
///
/// `supposed` is what the home's [`Steering`](crate::Steering) makes of the question, overrides
/// included.
pub fn explain(
    policy: &Policy,
    home: &Home,
    supposed: &Supposed,
    key: &FlowKey,
    origin: Origin,
    bindings: &impl Usable,
) -> Explanation {
    let effective = &supposed.effective;
    let choice = effective.choose(key, origin, bindings, None);
    let way = Way::of(&choice, bindings);
    let (reply, otherwise, translate) = match &choice {
        Choice::Use { otherwise, .. } | Choice::Copies { otherwise, .. } => {
            (None, *otherwise, false)
        }
        Choice::Breakout { translate, otherwise, .. } => (None, *otherwise, *translate),
        Choice::Block { reply, otherwise, .. } => (Some(*reply), *otherwise, false),
        Choice::Nothing(_) => (None, false, false),
    };
    let head = head_of(&choice);
    let decider = match &choice {
        // The walk ran off the end if the last rule that matched only passed on.
        Choice::Nothing(rule) => {
            let last = rule.filter(|rule| rule.says.otherwise != Otherwise::NextRule);
            last.map(|rule| rule.head.id)
        }
        _ => head.map(|head| head.id),
    };
    let all = effective.rules().count();
    let asked = match decider {
        Some(id) => effective.rules().position(|rule| rule.head.id == id).map_or(0, |at| at + 1),
        None => all,
    };
    let bids = way.bids();
    let context = Context { policy, home, supposed, key, origin, bindings, bids, otherwise };
    let mut rules = Vec::new();
    let mut passed_over = 0;
    for rule in effective.rules().take(asked) {
        let decides = decider == Some(rule.head.id);
        if asked > LISTED && !decides && !context.matches_nearly(rule) {
            passed_over += 1;
        } else {
            rules.push(context.rule(rule, decides));
        }
    }
    let written = decider.and_then(|id| context.written(id));
    Explanation {
        flow: FlowText::new(key, &policy.ingresses),
        home: home.name.clone(),
        origin,
        links: context.links(),
        rules,
        passed_over,
        not_asked: all - asked,
        rule: head.map(|head| head.name.clone()),
        end: way.end(policy),
        notes: written.map_or_else(Vec::new, |rule| context.notes(rule, &way)),
        bids: way.bids().to_vec(),
        translate,
        reply,
        otherwise,
    }
}

struct Context<'c, U> {
    policy: &'c Policy,
    home: &'c Home,
    supposed: &'c Supposed,
    key: &'c FlowKey,
    origin: Origin,
    bindings: &'c U,
    bids: &'c [Bid],
    /// Whether the deciding rule needed its `otherwise`.
    otherwise: bool,
}

impl<'c, U: Usable> Context<'c, U> {
    /// The rule as it stands in the file; `None` for overrides.
    fn written(&self, id: RuleId) -> Option<&'c Rule> {
        if id.is_override() { None } else { self.home.rules.get(id) }
    }

    fn links(&self) -> Vec<LinkFact> {
        let fact = |report: &crate::steering::LinkReport| LinkFact {
            interface: report.interface.clone(),
            bid: report.bid,
            state: report.state,
            reason: report.reason.clone(),
            bar: report.bar,
            usable: self.bindings.usable(report.bid),
        };
        self.supposed.links.iter().map(fact).collect()
    }

    /// Whether the rule matches, or would if one field were another.
    fn matches_nearly(&self, rule: Ruling<'_>) -> bool {
        let selectors = &rule.head.selectors;
        selectors.is_empty() || selectors.iter().any(|line| mismatch::nearly(line, self.key))
    }

    fn rule(&self, rule: Ruling<'_>, decides: bool) -> RuleVerdict {
        let head = rule.head;
        let written = self.written(head.id);
        let verdict = if !head.matches(self.key) {
            let lines = head.selectors.iter();
            let mismatches: Vec<_> = lines
                .filter_map(|line| Mismatch::of(line, self.key, &self.policy.ingresses))
                .collect();
            if mismatches.len() < head.selectors.len() || head.selectors.is_empty() {
                Verdict::Excluded
            } else {
                Verdict::NotMatched(mismatches)
            }
        } else if decides {
            Verdict::Decided(self.candidates(rule, written))
        } else if self.origin == Origin::Also && self.tunnels(rule) {
            Verdict::NotForSource
        } else {
            Verdict::PassedOn(self.candidates(rule, written))
        };
        let matched = !matches!(verdict, Verdict::NotMatched(_) | Verdict::Excluded);
        let unmet = rule.says.outcome == Outcome::Unmet && matched;
        let lines = written.filter(|_| unmet).map_or(&[][..], |rule| rule.when.as_slice());
        RuleVerdict {
            id: head.id,
            name: head.name.clone(),
            file: written.map(|written| written.file.clone()),
            line: written.map(|written| written.line),
            unmet: lines.iter().filter_map(|line| Unmet::of(line, &self.supposed.moment)).collect(),
            verdict,
        }
    }

    /// Whether nothing that the rule says is for a further source.
    fn tunnels(&self, rule: Ruling<'_>) -> bool {
        let outside =
            |outcome: &Outcome| matches!(outcome, Outcome::Breakout { .. } | Outcome::Block(_));
        let otherwise = match &rule.says.otherwise {
            Otherwise::Then(outcome) => outside(outcome),
            Otherwise::NextRule | Otherwise::Any => false,
        };
        !outside(&rule.says.outcome) && rule.says.outcome != Outcome::Unmet && !otherwise
    }

    /// Whether the packets may go straight, where the home optimizes routes at all.
    fn route(&self, rule: &Rule) -> Option<Note> {
        self.home.route_optimization?;
        if self.key.source != IpAddr::V6(self.home.address.0) {
            return Some(Note::NotHomeAddress);
        }
        let effective = &self.supposed.effective;
        let optimize = self.home.optimize(self.key, effective, Some(rule.id()));
        // Of a destination that is no correspondent nothing is to be said.
        if optimize != effective.optimize(Some(rule.id())) {
            return None;
        }
        Some(Note::Optimize { optimize, said: rule.head.optimize.is_some() })
    }

    fn notes(&self, rule: &Rule, way: &Way) -> Vec<Note> {
        let Way::Tunnel(bid) = way else { return Vec::new() };
        let mut notes = Vec::new();
        if rule.sticky.scope != Scope::None {
            notes.push(Note::Sticky(rule.sticky));
        }
        if let Some((number, word)) = &rule.together {
            let same = |other: &&Rule| {
                other.id() != rule.id() && other.together.as_ref().is_some_and(|(n, _)| n == number)
            };
            let rules = self.home.rules.rules.iter().filter(same);
            let rules = rules.map(|other| other.name().clone()).collect();
            notes.push(Note::Together { word: word.clone(), rules });
        }
        notes.push(Note::Failback(rule.failback));
        notes.extend(self.route(rule));
        let report = self.supposed.links.iter().find(|report| report.bid == *bid);
        if let Some(link) = self.policy.interface_of(*bid)
            && link.metered
            && matches!(rule.failback.mode, FailbackMode::New | FailbackMode::Never)
        {
            notes.push(Note::MeteredGap(link.name.clone()));
        }
        if let Some(report) = report
            && matches!(report.reason, LinkReason::LastLink(_))
        {
            notes.push(Note::LastLink(report.interface.clone(), report.reason.clone()));
        }
        notes
    }
}
