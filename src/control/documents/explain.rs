//! What `mtun explain` shows: which rule a packet took, and why.

use std::fmt;
use std::net::IpAddr;

use mtun_policy::steering::LinkState;
use mtun_policy::{
    Bid, BlockReply, Candidate, CareOfAddress, End, Explanation, Field, Given, HomeName,
    InterfaceName, LinkFact, Policy, Rule, RuleName, Unmet, Verdict, given_words,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::downlink::AtAgentDocument;
use super::flows::{FlowKeyDocument, MoveDocument};

/// The judgement on one flow, with its grounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainDocument {
    /// The flow asked for.
    pub flow: FlowKeyDocument,
    /// The home network it belongs to; `null` if it is not ours.
    pub home: Option<HomeName>,
    /// The home's generation; `null` offline.
    pub generation: Option<u64>,
    /// What was supposed, as typed; empty for the present state.
    pub given: Vec<String>,
    /// Every link and what is known or supposed of it.
    #[serde(default)]
    pub links: Vec<LinkFactDocument>,
    /// Earlier rules and why they did not decide; of very many those that nearly matched.
    pub passed: Vec<PassedRuleDocument>,
    /// How many earlier rules are not listed: they are about other packets altogether.
    #[serde(default)]
    pub passed_over: usize,
    /// The rule that decided; `null` if none matched.
    pub rule: Option<RuleReference>,
    /// Why its `when` is not met, so that it decides by its `otherwise`; empty if it is.
    #[serde(default)]
    pub unmet: Vec<String>,
    /// What the rule names, in its order, each with its verdict.
    pub candidates: Vec<CandidateDocument>,
    /// What happens to the flow.
    pub verdict: ExplainVerdict,
    /// What else decides where its packets go: stickiness, failback, suppositions.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The last moves of a flow that the data plane remembers, the latest first.
    #[serde(default)]
    pub moves: Vec<MoveDocument>,
    /// What its home agent does with the packets to the mobile; `null` where none is asked.
    #[serde(default)]
    pub at_agent: Option<AtAgentDocument>,
}

/// A link and what is known or supposed of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkFactDocument {
    /// The link.
    pub link: InterfaceName,
    /// Its BID.
    pub bid: Bid,
    /// Its state, one word such as `up` or `recovering`.
    pub state: String,
    /// Why; `null` where the state needs no reason.
    pub reason: Option<String>,
    /// Whether packets can be sent by it.
    pub usable: bool,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleReference {
    /// Its name; that of an override is `steer-` and its number, that of a flow binding at an agent
    /// `flow` and its FID.
    pub name: RuleName,
    /// The file; `null` for what stands in none.
    pub file: Option<String>,
    /// The line, counted from 1; `null` for what stands in no file.
    pub line: Option<usize>,
}

impl From<&Rule> for RuleReference {
    fn from(rule: &Rule) -> Self {
        let (name, file, line) = (rule.name().clone(), rule.file.clone(), rule.line);
        Self { name, file: Some(file), line: Some(line) }
    }
}

impl fmt::Display for RuleReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{} ({file}:{line})", self.name),
            _ if self.name.as_str().starts_with("steer-") => {
                write!(f, "{} (by mtun steer)", self.name)
            }
            _ => write!(f, "{}", self.name),
        }
    }
}

/// A rule that came before the deciding one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassedRuleDocument {
    /// The rule.
    pub rule: RuleReference,
    /// The first field that did not match; `null` if it matched and had nothing usable, or if
    /// its `exclude` took the flow out.
    pub field: Option<Field>,
    /// The same in words.
    pub why: String,
}

/// One binding that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateDocument {
    /// The binding.
    pub bid: Bid,
    /// The access link; `null` at a home agent.
    pub link: Option<InterfaceName>,
    /// Whether it can be used.
    pub usable: bool,
    /// What became of it, one word such as `chosen` or `out-of-class`.
    #[serde(default)]
    pub verdict: String,
    /// The same in words, with the reason.
    pub why: String,
}

/// What happens to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ExplainVerdict {
    /// It goes through the tunnel.
    Forward {
        /// By this binding; `null` is one without BID.
        bid: Option<Bid>,
        /// Over this link; `null` at a home agent.
        link: Option<InterfaceName>,
        /// With this outer address of the mobile; `null` offline.
        care_of: Option<CareOfAddress>,
        /// To this outer address; `null` offline.
        peer: Option<IpAddr>,
        /// The wrapping, such as `ipv6-in-ipv6`.
        encapsulation: String,
        /// The router the outer packet is given to; `null` offline and on links without routers.
        next_hop: Option<IpAddr>,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// A copy goes by each of several bindings of the tunnel.
    Copies {
        /// The bindings.
        bids: Vec<Bid>,
        /// Their links, in the same order.
        links: Vec<InterfaceName>,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// It leaves by a link directly, outside the tunnel.
    Breakout {
        /// The binding of the link.
        bid: Bid,
        /// The link.
        link: InterfaceName,
        /// Whether its source becomes the link's own address.
        translate: bool,
        /// The router the packet is given to; `null` offline and on links without routers.
        next_hop: Option<IpAddr>,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// A rule refuses it.
    Block {
        /// How the sender is told.
        reply: BlockReply,
    },
    /// Nothing usable: it is refused, never sent outside the tunnel.
    NoUsableBinding,
    /// Neither source nor destination belongs to a home network.
    NotOurs,
}

impl ExplainDocument {
    /// A flow that belongs to no home network.
    pub fn not_ours(flow: FlowKeyDocument) -> Self {
        Self {
            flow,
            home: None,
            generation: None,
            given: Vec::new(),
            links: Vec::new(),
            passed: Vec::new(),
            passed_over: 0,
            rule: None,
            unmet: Vec::new(),
            candidates: Vec::new(),
            verdict: ExplainVerdict::NotOurs,
            notes: Vec::new(),
            moves: Vec::new(),
            at_agent: None,
        }
    }

    /// The document of an explanation by `policy`, for which `given` was supposed.
    ///
    /// The generation, the moves, and of a forwarding verdict the care-of address, the peer and
    /// the next hop, are left out: who knows the bindings and the flows fills them in.
    pub fn new(
        flow: FlowKeyDocument,
        explanation: &Explanation,
        given: &Given,
        policy: &Policy,
    ) -> Self {
        let mut document = Self::not_ours(flow);
        document.home = Some(explanation.home.clone());
        document.given = given_words(given, policy);
        document.links = explanation.links.iter().map(LinkFactDocument::from).collect();
        document.passed_over = explanation.passed_over;
        document.notes = explanation.notes.iter().map(ToString::to_string).collect();
        for rule in &explanation.rules {
            let reference =
                RuleReference { name: rule.name.clone(), file: rule.file.clone(), line: rule.line };
            match &rule.verdict {
                Verdict::Decided(candidates) => {
                    document.candidates = candidates.iter().map(candidate).collect();
                    document.rule = Some(reference);
                    document.unmet = rule.unmet.iter().map(ToString::to_string).collect();
                }
                passed => document.passed.push(passed_over(reference, passed, &rule.unmet)),
            }
        }
        document.verdict = forecast(explanation, policy);
        document
    }
}

/// What an explanation says of the flow, as far as the policy knows it.
fn forecast(explanation: &Explanation, policy: &Policy) -> ExplainVerdict {
    let otherwise = explanation.otherwise;
    match (&explanation.end, explanation.bids.as_slice()) {
        (End::Copies(links), bids) => {
            ExplainVerdict::Copies { bids: bids.to_vec(), links: links.clone(), otherwise }
        }
        (End::Breakout(link), [bid, ..]) => ExplainVerdict::Breakout {
            bid: *bid,
            link: link.clone(),
            translate: explanation.translate,
            next_hop: None,
            otherwise,
        },
        (End::Via(_) | End::Breakout(_), bids) => ExplainVerdict::Forward {
            bid: bids.first().copied(),
            link: bids
                .first()
                .and_then(|bid| policy.interface_of(*bid))
                .map(|link| link.name.clone()),
            care_of: None,
            peer: None,
            encapsulation: "ipv6-in-ipv6".to_owned(),
            next_hop: None,
            otherwise,
        },
        (End::Blocked, _) => {
            ExplainVerdict::Block { reply: explanation.reply.unwrap_or(BlockReply::Silent) }
        }
        (End::Unreachable, _) => ExplainVerdict::NoUsableBinding,
    }
}

impl From<&LinkFact> for LinkFactDocument {
    fn from(fact: &LinkFact) -> Self {
        let reason = match (&fact.bar, fact.state) {
            (Some(bar), _) => Some(bar.to_string()),
            (None, LinkState::Up) => None,
            (None, _) => Some(fact.reason.to_string()),
        };
        Self {
            link: fact.interface.clone(),
            bid: fact.bid,
            state: fact.state.word().to_owned(),
            reason,
            usable: fact.usable,
        }
    }
}

fn candidate(candidate: &Candidate) -> CandidateDocument {
    let why = match candidate.otherwise {
        true => format!("{} (otherwise)", candidate.verdict),
        false => candidate.verdict.to_string(),
    };
    CandidateDocument {
        bid: candidate.bid,
        link: Some(candidate.interface.clone()),
        usable: candidate.usable,
        verdict: candidate.verdict.word().to_owned(),
        why,
    }
}

fn passed_over(rule: RuleReference, verdict: &Verdict, unmet: &[Unmet]) -> PassedRuleDocument {
    fn joined(reasons: &[impl ToString]) -> String {
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        reasons.join("; ")
    }
    let (field, why) = match verdict {
        Verdict::NotMatched(mismatches) => {
            (mismatches.first().map(|mismatch| mismatch.field), joined(mismatches))
        }
        Verdict::Excluded => (None, "matches, and its exclude takes the flow out".to_owned()),
        Verdict::NotForSource => {
            (None, "matches, and tunnels, which this source never is".to_owned())
        }
        Verdict::PassedOn(candidates) => {
            let links = candidates.iter().map(|c| format!("{} {}", c.interface, c.verdict));
            let links: Vec<_> = links.collect();
            let why = match (unmet, links.as_slice()) {
                ([], links) => format!("matches, but no link is usable: {}", links.join(", ")),
                (unmet, []) => format!("matches, but its `when` is not met: {}", joined(unmet)),
                (unmet, links) => format!(
                    "matches, but its `when` is not met ({}) and nothing else is usable: {}",
                    joined(unmet),
                    links.join(", ")
                ),
            };
            (None, why)
        }
        Verdict::Decided(_) => (None, "decides".to_owned()),
    };
    PassedRuleDocument { rule, field, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_no_file_is_an_override_only_by_its_name() {
        let rule = |name: &str| RuleReference { name: RuleName::new(name), file: None, line: None };
        assert_eq!(rule("steer-2").to_string(), "steer-2 (by mtun steer)");
        // As an agent says them, of what a mobile told it and of what is its own.
        assert_eq!(rule("flow 1").to_string(), "flow 1");
        assert_eq!(rule("priority").to_string(), "priority");
    }
}
