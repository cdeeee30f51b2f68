//! What should happen to packets: the words, the policy file, the rules.
//!
//! This crate knows no socket, no clock and no packet. It turns a KDL file into rules
//! (`document`, `check`, `compile`), rules and path facts into the present effective list
//! ([`steering`]), and walks that list for one packet ([`Effective::choose`]). Everything it
//! refuses has a code, a place and a fix (`diagnostic`).

mod check;
mod compile;
mod diagnostic;
pub mod document;
mod effective;
mod explain;
mod files;
mod filter;
mod guard;
mod key;
mod load;
mod policy;
mod prefix_table;
mod read;
mod reader;
mod selector;
mod shadow;
mod source;
pub mod steering;
mod suite;
pub mod terms;
mod value;
mod words;

pub use diagnostic::{Code, Diagnostic, Faults, Severity};
pub use effective::{BlockReply, Choice, Effective, EffectiveRule, Otherwise, Outcome, Usable};
pub use explain::{
    Candidate, CandidateVerdict, Explanation, FlowText, LinkFact, Mismatch, RuleVerdict, Verdict,
    explain, explain_offline,
};
pub use files::{Directory, Files, NoFiles};
pub use filter::{Filter, filter_text, parse_filter, parse_flow, parse_given, parse_question};
pub use key::{FlowKey, Ingress};
pub use load::{load, load_tested, parse, parse_document};
pub use policy::{
    Algorithm, AllowedMobile, Home, Ingresses, Interface, MobileNetwork, Policy, Register, Rule,
    RuleSet, Security, ServedHome, Tunnel, Verb,
};
pub use prefix_table::{HostBits, PrefixTable};
pub use selector::{Field, TrafficSelector};
pub use source::{Sources, Span, Spanned};
pub use steering::{LinkState, Override, PathFacts, evaluate, next_expiry};
pub use suite::{End, Expectation, Place, TestCase, TestOutcome, check_tests, run_tests};
pub use terms::*;
pub use value::protocol_name;
