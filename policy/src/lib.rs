//! What should happen to packets: the words, the policy file, the rules.
//!
//! Everything the other crates say to each other is said in the words of [`terms`], [`FlowKey`]
//! and [`TrafficSelector`]; everything a person decides is written in one KDL file. This crate
//! leads from the second to the first and knows no socket, no clock and no packet. Files are read
//! in `disk.rs` only, which the feature `disk` (on unless said otherwise) may leave out.
//!
//! ```text
//! text -- guard -- kdl -- reader --> nodes -- words, read --> Document
//!                                    lists (sets) --^           | check, compile, shadow, lints
//!   links, figures, octets, time                                v
//!           | Fact                 Policy { homes, rules, securities, tests, .. }
//!           v                                                   |
//!       Steering <--------------------- RuleSet -----------------+
//!           |
//!           v
//!       Effective -- choose(key, bindings) --> Use | Copies | Breakout | Block | Nothing
//! ```
//!
//! - **The guard** stands in front of the KDL parser and lets only well-formed text of bounded
//!   size and depth through, because the parser recurses and guesses.
//! - **All faults at once.** Whatever is refused is a [`Diagnostic`] with a code, a place and a
//!   help, and one pass names every one of them. Words of the language that this version does not
//!   carry out are refused by name; nothing is ignored silently.
//! - **Steering** ([`Steering`]) runs on facts and deadlines: it turns rules, what is known of
//!   links and `mtun steer` overrides into the frozen [`Effective`] list of a snapshot. Questions
//!   ([`suppose`]) are answered by the same code, without memory.
//! - **One walk.** [`Effective::choose`] is the only judgement over rules in the system. The data
//!   plane's `decide` calls it for packets, the file's own tests ([`run_tests`]) and
//!   [`explain`](explain()) for people.
//! - **Probing** ([`probing`]) says when links are asked whether they live, and makes facts of the
//!   answers and of the silence.
//!
//! ```
//! use mtun_policy::{NoFiles, explain_offline, parse, parse_question};
//!
//! let text = r#"
//!     role "mobile-node"
//!     interface wlan0 { bid 1; }
//!     interface wwan0 { bid 2; }
//!     home acme {
//!         tunnel mtun0
//!         agent "2001:db8:100::1"
//!         address "2001:db8:100::42/64"
//!         security none
//!     }
//!     rules {
//!         rule ssh { match proto=tcp dport=22; prefer wwan0 wlan0; }
//!         default { prefer wlan0; otherwise any; }
//!     }
//! "#;
//! let policy = parse("laptop.kdl", text, &NoFiles)?;
//! let question = "tcp 2001:db8:100::42 -> 2001:db8:c::9 dport 22 given wwan0=down";
//! let (key, given) = parse_question(question, &policy)?;
//! let (home, origin) = policy.judge_of(&key).expect("the source is the home address");
//! let explanation = explain_offline(&policy, home, &key, origin, &given);
//! assert_eq!(explanation.end.to_string(), "via wlan0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod additions;
mod check;
mod classifier;
mod compile;
mod diagnostic;
mod diff;
#[cfg(feature = "disk")]
mod disk;
pub mod document;
pub mod downlink;
mod effective;
mod end;
mod explain;
mod files;
mod filter;
mod flow_binding;
mod fmt;
mod groups;
mod guard;
mod key;
pub mod link;
mod lints;
mod load;
mod measure;
mod mobility;
mod policy;
mod prefix_table;
pub mod probing;
pub mod radio;
mod read;
mod reader;
pub mod reading;
mod schema;
mod selector;
mod sets;
mod shadow;
mod source;
pub mod steering;
mod stickiness;
mod suite;
mod suppose;
pub mod terms;
mod value;
pub mod verb;
mod words;

pub use additions::{AddedMobile, Additions, Protection, Refusal};
pub use diagnostic::{Code, Diagnostic, Faults, Severity};
pub use diff::{FlowMove, FlowsDiff, LiveFlow, RulesDiff, diff_flows, diff_offline, diff_rules};
#[cfg(feature = "disk")]
pub use disk::{Directory, load, load_tested};
pub use effective::{
    BlockReply, Buckets, Choice, Effective, Origin, Otherwise, Outcome, PortCut, RuleHead,
    RuleTable, Ruling, Says, Spread, Usable,
};
pub use end::{End, Way};
pub use explain::{
    Candidate, CandidateVerdict, Condition, Explanation, FlowText, LinkFact, Mismatch, Note,
    RuleVerdict, Unmet, Verdict, explain, explain_offline,
};
pub use files::{Files, NoFiles};
pub use filter::{
    Filter, filter_text, parse_filter, parse_flow, parse_given, parse_question,
    parse_question_given,
};
pub use flow_binding::{AddressRange, BinarySelector, FlowBinding, IpVersion};
pub use fmt::format_text;
pub use groups::{Group, Groups};
pub use key::{FieldSet, FlowKey, Ingress};
pub use link::{AtLimit, Band, Cost, Period, Quota, Ratio, Sla, UsableWhen};
pub use load::{parse, parse_document, parse_with};
pub use mobility::{
    CorrespondentPlan, LONGEST_OPTIMIZED, Optimize, ReturningHome, RouteOptimizationPlan,
    RouteOptimizationStart, StrangerAnswer,
};
pub use policy::{
    Algorithm, AllowedMobile, Also, Extensions, Home, Ingresses, Interface, KeySource,
    MobileNetwork, Policy, Probe, Register, Rule, RuleSet, Security, ServedHome, Tunnel,
};
pub use prefix_table::{HostBits, PrefixTable};
pub use radio::{
    Circle, FactOrigin, FactSource, GpsdPlace, Position, Radio, RadioRegistration, Technologies,
    Technology,
};
pub use reading::{Reading, ReadingFault, ReadingOf};
pub use schema::{DiagnosticSchema, Meaning, NodeSchema, Schema, schema};
pub use selector::{Field, TrafficSelector};
pub use source::{Sources, Span, Spanned};
pub use steering::{
    Given, GivenLink, GivenState, LinkState, Override, Steering, Supposed, suppose,
};
pub use stickiness::{StickyKey, bucket};
pub use suite::{Expectation, Place, TestCase, TestOutcome, check_tests, run_tests};
pub use suppose::{OfLink, Supposition, given_words};
pub use terms::*;
pub use value::protocol_name;
pub use verb::{
    Days, Failback, FailbackMode, Fallback, Scope, SpeedBound, Sticky, TimeSpan, Verb, When,
};
