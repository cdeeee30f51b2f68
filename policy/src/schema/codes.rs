//! Every kind of diagnostic and what it means.

use serde::Serialize;

use crate::diagnostic::Code;

/// A kind of diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiagnosticSchema {
    /// As it is printed.
    pub code: &'static str,
    /// When it is given.
    pub meaning: &'static str,
}

/// Every code, each with the one that follows it, so that none can be forgotten.
fn describe(code: Code) -> (&'static str, Option<Code>) {
    match code {
        Code::Syntax => (
            "the text is not KDL version 2, or uses what a policy does not: type annotations, strings of several lines, unusual spaces",
            Some(Code::Unit),
        ),
        Code::Unit => {
            ("a value lacks its unit, or has one that does not exist", Some(Code::UnknownNode))
        }
        Code::UnknownNode => (
            "a node that the language does not have here; the nearest word is offered",
            Some(Code::UnknownProperty),
        ),
        Code::UnknownProperty => ("a property that the node does not have", Some(Code::UnknownRef)),
        Code::UnknownRef => (
            "a name that nothing in the file has, or that is of another kind",
            Some(Code::Duplicate),
        ),
        Code::Duplicate => {
            ("said twice: a node, a property, a name, a value", Some(Code::Shadowed))
        }
        Code::Shadowed => (
            "an error for a rule that earlier rules hide completely, a warning where they hide most of it",
            Some(Code::NoDefault),
        ),
        Code::NoDefault => (
            "a rule set without `default`; there is never an implicit one",
            Some(Code::NoHysteresis),
        ),
        Code::NoHysteresis => (
            "`enter` and `leave` are equal or reversed, so a link would flap between them",
            Some(Code::Downlink),
        ),
        Code::Downlink => (
            "a warning: the home agent cannot be told this rule as it stands (RFC 6088, 6089); it says what the agent does instead",
            Some(Code::MeteredDefault),
        ),
        Code::MeteredDefault => (
            "a warning: `default` prefers a metered link though there is one that is not",
            Some(Code::HostBits),
        ),
        Code::HostBits => ("a prefix has bits set beyond its length", Some(Code::Secret)),
        Code::Secret => (
            "a key stands in the file; name its file or credential instead",
            Some(Code::IncludeCycle),
        ),
        Code::IncludeCycle => {
            ("a file includes itself, directly or by others", Some(Code::Include))
        }
        Code::Include => {
            ("an included file or a list cannot be read, or may not be", Some(Code::TestFailed))
        }
        Code::TestFailed => ("one of the file's own tests does not hold", Some(Code::Range)),
        Code::Range => ("a value outside its range", Some(Code::Value)),
        Code::Value => ("a value of the wrong kind", Some(Code::Missing)),
        Code::Missing => ("something that has to be said is not", Some(Code::Conflict)),
        Code::Conflict => ("two statements that cannot both hold", Some(Code::NotSupported)),
        Code::NotSupported => (
            "a word of the language that this version does not carry out; nothing is ever ignored silently",
            Some(Code::Limit),
        ),
        Code::Limit => ("larger, deeper or more than is read", Some(Code::Unprotected)),
        Code::Unprotected => ("a warning: `security none`, so signaling can be forged", None),
    }
}

/// All of them.
pub(super) fn all() -> Vec<DiagnosticSchema> {
    let mut all = Vec::new();
    let mut next = Some(Code::Syntax);
    while let Some(code) = next {
        let (meaning, after) = describe(code);
        all.push(DiagnosticSchema { code: code.as_str(), meaning });
        next = after;
    }
    all
}
