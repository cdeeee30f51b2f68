//! The texts a policy was read from, and places in them.

use crate::diagnostic::{Code, Diagnostic, Faults, Severity};

/// A piece of one source: which one, from which octet, how many octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index into [`Sources`].
    pub source: u32,
    /// First octet.
    pub start: u32,
    /// How many octets.
    pub length: u32,
}

impl Span {
    /// A piece of source `source` from octet `start`, `length` octets long.
    pub(crate) fn new(source: u32, start: usize, length: usize) -> Self {
        let small = |n: usize| u32::try_from(n).expect("a source is at most 1 MiB long");
        Self { source, start: small(start), length: small(length) }
    }

    /// From the start of `self` to the end of `last`, which stands behind it.
    pub(crate) fn to(self, last: Self) -> Self {
        Self { length: (last.start + last.length).saturating_sub(self.start), ..self }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value at a place.
    pub(crate) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// The same place with another value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: change(self.value), span: self.span }
    }
}

/// One text.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    /// Octet at which each line begins.
    lines: Vec<u32>,
}

/// All texts of one policy, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a text and returns its number.
    pub(crate) fn add(&mut self, name: &str, text: String) -> u32 {
        let breaks = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let lines = [0].into_iter().chain(breaks.map(|(at, _)| Span::new(0, at + 1, 0).start));
        let lines = lines.collect();
        self.0.push(Source { name: name.to_owned(), text, lines });
        u32::try_from(self.0.len() - 1).expect("the number of includes is capped")
    }

    /// The name under which a text was read.
    pub(crate) fn name(&self, source: u32) -> &str {
        &self.0[source as usize].name
    }

    /// The text.
    pub(crate) fn text(&self, source: u32) -> &str {
        &self.0[source as usize].text
    }

    /// The line, from 1, on which a piece begins.
    pub(crate) fn line(&self, span: Span) -> usize {
        self.0[span.source as usize].lines.partition_point(|begin| *begin <= span.start)
    }

    /// Tells two sets of texts apart: 64-bit FNV-1a over all of them.
    pub(crate) fn digest(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for source in &self.0 {
            for octet in source.text.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        format!("{hash:016x}")
    }
}

/// Widest piece of a line that a diagnostic carries, in characters.
const WIDEST: usize = 160;

/// Longest message or help, in octets.
const LONGEST_SENTENCE: usize = 400;

/// Most diagnostics that one policy is given; beyond, only their number matters.
const MOST: usize = 64;

/// Collects diagnostics while a policy is read and checked.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    found: Vec<(Span, Severity, Code, String, String)>,
    errors: usize,
    warnings: usize,
}

impl Sink {
    /// Something for which the file is refused.
    pub(crate) fn error(
        &mut self,
        span: Span,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors += 1;
        if self.errors <= MOST {
            self.found.push((span, Severity::Error, code, clipped(message), clipped(help)));
        }
    }

    /// Something that deserves a look.
    pub(crate) fn warning(
        &mut self,
        span: Span,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.warnings += 1;
        if self.warnings <= MOST {
            self.found.push((span, Severity::Warning, code, clipped(message), clipped(help)));
        }
    }

    /// Whether further errors are only counted, so that nobody would read their help.
    pub(crate) fn is_full(&self) -> bool {
        self.errors >= MOST
    }

    /// Whether anything was found for which the file is refused.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The warnings if nothing worse was found, otherwise the errors; in the order of the texts.
    pub(crate) fn finish(mut self, sources: &Sources) -> Result<Vec<Diagnostic>, Faults> {
        self.found.sort_by_key(|(span, ..)| *span);
        let wanted = if self.errors > 0 { Severity::Error } else { Severity::Warning };
        let mut diagnostics: Vec<Diagnostic> = self
            .found
            .into_iter()
            .filter(|(_, severity, ..)| *severity == wanted)
            .map(|(span, severity, code, message, help)| {
                diagnose(sources, span, severity, code, message, help)
            })
            .collect();
        if wanted == Severity::Warning {
            return Ok(diagnostics);
        }
        if self.errors > MOST
            && let Some(last) = diagnostics.last().cloned()
        {
            diagnostics.push(Diagnostic {
                code: Code::Limit,
                message: format!("{} more faults are not shown", self.errors - MOST),
                help: Some("mend the ones above and check again".to_owned()),
                ..last
            });
        }
        Err(Faults(diagnostics))
    }
}

/// A sentence that is not too long to be read, whatever words of the file it holds.
fn clipped(sentence: impl Into<String>) -> String {
    let mut sentence = sentence.into();
    if sentence.len() > LONGEST_SENTENCE {
        sentence.truncate(floor_boundary(&sentence, LONGEST_SENTENCE));
        sentence.push('…');
    }
    sentence
}

/// A diagnostic with its place looked up.
pub(crate) fn diagnose(
    sources: &Sources,
    span: Span,
    severity: Severity,
    code: Code,
    message: String,
    help: String,
) -> Diagnostic {
    let text = sources.text(span.source);
    let start = floor_boundary(text, span.start as usize);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let end = floor_boundary(text, (span.start + span.length) as usize).clamp(start, line_end);
    let before = text[line_start..start].chars().count();
    let length = text[start..end].trim_end().chars().count().max(1);
    let source_offset = if before + 40 <= WIDEST { 0 } else { before - 40 };
    let source_line: String = line.chars().skip(source_offset).take(WIDEST).collect();
    let shown = source_line.chars().count();
    Diagnostic {
        code,
        severity,
        message,
        help: Some(help),
        file: sources.name(span.source).to_owned(),
        line: sources.line(span),
        column: before + 1,
        length: length.min((shown + source_offset).saturating_sub(before).max(1)),
        source_line: source_line.into(),
        source_offset: u32::try_from(source_offset).expect("a source is at most 1 MiB long"),
    }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
