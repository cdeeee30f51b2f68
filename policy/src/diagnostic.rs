//! What is wrong, where, and how to mend it.
//!
//! Every refusal of this crate is a [`Diagnostic`]: a code that a program can match, a sentence,
//! the place with the line's text, and a help. [`Faults`] holds all of them at once, in the order
//! of the files and lines.

use std::fmt;

use serde::Serialize;

/// The kind of a diagnostic; stable, so that scripts and documentation can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Not KDL, or not the part of KDL that a policy uses.
    Syntax,
    /// A unit is missing or does not exist.
    Unit,
    /// A node that the language does not have.
    UnknownNode,
    /// A property that the node does not have.
    UnknownProperty,
    /// A name that nothing in the file has.
    UnknownRef,
    /// Said twice.
    Duplicate,
    /// A rule that can never decide anything, or hardly ever.
    Shadowed,
    /// A rule set without `default`.
    NoDefault,
    /// Limits without room between good and bad, between which a link would flap.
    NoHysteresis,
    /// Something that the home agent cannot be told.
    Downlink,
    /// A default that prefers a link whose octets cost money.
    MeteredDefault,
    /// A prefix with bits set beyond its length.
    HostBits,
    /// A key in the file.
    Secret,
    /// A file that includes itself, directly or by others.
    IncludeCycle,
    /// An included file that cannot be read or may not be.
    Include,
    /// One of the file's own tests does not hold.
    TestFailed,
    /// A value outside its range.
    Range,
    /// A value of the wrong kind.
    Value,
    /// Something that has to be said is not.
    Missing,
    /// Two statements that cannot both hold.
    Conflict,
    /// A word of the full language that this version does not carry out.
    NotSupported,
    /// Larger, deeper or more than is read.
    Limit,
    /// Signaling without protection.
    Unprotected,
}

impl Code {
    /// The code as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Unit => "unit",
            Self::UnknownNode => "unknown-node",
            Self::UnknownProperty => "unknown-property",
            Self::UnknownRef => "unknown-ref",
            Self::Duplicate => "duplicate",
            Self::Shadowed => "shadowed",
            Self::NoDefault => "no-default",
            Self::NoHysteresis => "no-hysteresis",
            Self::Downlink => "downlink",
            Self::MeteredDefault => "metered-default",
            Self::HostBits => "host-bits",
            Self::Secret => "secret",
            Self::IncludeCycle => "include-cycle",
            Self::Include => "include",
            Self::TestFailed => "test-failed",
            Self::Range => "range",
            Self::Value => "value",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::NotSupported => "not-supported",
            Self::Limit => "limit",
            Self::Unprotected => "unprotected",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a diagnostic keeps the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used; a person should look.
    Warning,
}

/// One thing that is wrong, with its place and its mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// What is wrong, in a sentence.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// How many characters are meant; at least 1.
    pub length: usize,
    /// The text of the line; of a long line only the part around the place.
    pub source_line: Box<str>,
    /// How many characters of the line stand before `source_line`.
    pub source_offset: u32,
}

/// `error[unit]: …`, `  --> file:line:column`, the line with carets, and the help.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "{gutter} |")?;
        let text: String =
            self.source_line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
        writeln!(f, "{number} | {text}")?;
        let before = (self.column - 1).saturating_sub(self.source_offset as usize);
        write!(f, "{gutter} | {}{}", " ".repeat(before), "^".repeat(self.length.max(1)))?;
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Everything that is wrong with a policy; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Faults(pub Vec<Diagnostic>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{fault}\n")?;
        }
        match self.0.len() {
            1 => write!(f, "1 fault"),
            count => write!(f, "{count} faults"),
        }
    }
}

impl std::error::Error for Faults {}
