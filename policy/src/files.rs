//! Where texts come from: the policy file and what it includes.
//!
//! Names of included files are relative to the directory of the file that names them, and never
//! lead out of it: no `..`, no absolute names, and on disk no symbolic link to elsewhere. The
//! number of files, their depth and their size are capped.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::Code;
use crate::guard;
use crate::reader::{self, Node, Value};
use crate::source::{Sink, Sources, Span, Spanned};

/// How deep includes go.
const DEEPEST: usize = 8;

/// How many files one policy may have.
const MOST_FILES: usize = 128;

/// How many octets all files of a policy may have together.
const LARGEST_SUM: usize = 4 << 20;

/// Gives the texts of included files.
pub trait Files {
    /// The content of the file of this name.
    fn read(&self, name: &Path) -> io::Result<Vec<u8>>;

    /// The names of the files in a directory, without the directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
}

/// A policy that may not include anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Texts by name, for tests and for policies that arrive in one message.
impl Files for BTreeMap<PathBuf, Vec<u8>> {
    fn read(&self, name: &Path) -> io::Result<Vec<u8>> {
        self.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let inside = self.keys().filter(|name| name.parent() == Some(directory));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }
}

/// The top-level nodes of a text and of everything that it includes, includes in their place.
pub(crate) fn gather(
    name: &str,
    text: String,
    files: &dyn Files,
    sources: &mut Sources,
    sink: &mut Sink,
) -> Vec<Node> {
    let octets = text.len();
    let mut gatherer = Gatherer {
        files,
        sources,
        sink,
        open: vec![PathBuf::from(name)],
        octets,
        nodes: Vec::new(),
        seen: Vec::new(),
    };
    gatherer.text(name, text);
    gatherer.nodes
}

struct Gatherer<'g> {
    files: &'g dyn Files,
    sources: &'g mut Sources,
    sink: &'g mut Sink,
    /// The files that are being read, outermost first.
    open: Vec<PathBuf>,
    /// Every file included so far.
    seen: Vec<PathBuf>,
    octets: usize,
    nodes: Vec<Node>,
}

impl Gatherer<'_> {
    fn text(&mut self, name: &str, text: String) {
        let source = self.sources.add(name, text);
        // The text is kept for the diagnostics; reading needs the sink at the same time.
        let nodes = reader::read(source, self.sources.text(source), self.sink).unwrap_or_default();
        for node in nodes {
            if node.name.value == "include" {
                self.include(&node);
            }
            self.nodes.push(node);
        }
    }

    fn include(&mut self, node: &Node) {
        let optional = match node.property("optional").map(|optional| &optional.value) {
            Some(Value::Bool(optional)) => *optional,
            None => false,
            Some(_) => {
                let span =
                    node.property("optional").map_or(node.name.span, |optional| optional.span);
                self.sink.error(
                    span,
                    Code::Value,
                    "`optional` is #true or #false",
                    "write optional=#true",
                );
                false
            }
        };
        for argument in &node.arguments {
            let Value::Text(pattern) = &argument.value else {
                self.sink.error(
                    argument.span,
                    Code::Value,
                    "`include` takes file names",
                    "write include \"site.kdl\"",
                );
                continue;
            };
            self.pattern(pattern, optional, argument);
        }
    }

    fn pattern(&mut self, pattern: &str, optional: bool, argument: &Spanned<Value>) {
        let span = argument.span;
        let Some(target) = below(pattern, span, self.sources) else {
            self.sink.error(
                span,
                Code::Include,
                format!("`{pattern}` may lead out of the policy's directory"),
                "name a file in or below the directory of this file, without `..`",
            );
            return;
        };
        let Some(file_name) = target.file_name().and_then(|name| name.to_str()).map(str::to_owned)
        else {
            return;
        };
        if target.parent().is_some_and(|parent| has_wildcard(&parent.to_string_lossy())) {
            self.sink.error(
                span,
                Code::Include,
                "a wildcard stands in a directory's name",
                "use `*` and `?` in the last part only",
            );
            return;
        }
        if !has_wildcard(&file_name) {
            self.file(target, optional, span);
            return;
        }
        let directory = target.parent().unwrap_or(Path::new("")).to_owned();
        let mut names = self.files.list(&directory).unwrap_or_default();
        names.retain(|name| !name.starts_with('.') && wildcard_matches(&file_name, name));
        names.sort();
        if names.is_empty() && !optional {
            self.sink.error(
                span,
                Code::Include,
                format!("no file matches `{pattern}`"),
                "mend the name, or add optional=#true",
            );
        }
        for name in names {
            self.file(directory.join(name), optional, span);
        }
    }

    fn file(&mut self, name: PathBuf, optional: bool, span: Span) {
        let shown = name.display().to_string();
        if let Some(at) = self.open.iter().position(|open| *open == name) {
            let mut chain: Vec<String> =
                self.open[at..].iter().map(|file| file.display().to_string()).collect();
            chain.push(shown.clone());
            self.sink.error(
                span,
                Code::IncludeCycle,
                format!("`{shown}` includes itself: {}", chain.join(" -> ")),
                "remove one of these includes",
            );
            return;
        }
        if self.seen.contains(&name) {
            self.sink.error(
                span,
                Code::Duplicate,
                format!("`{shown}` is included twice"),
                "keep one of the includes",
            );
            return;
        }
        if self.open.len() >= DEEPEST {
            self.sink.error(
                span,
                Code::Limit,
                format!("includes go deeper than {DEEPEST}"),
                "include the file from further out",
            );
            return;
        }
        if self.seen.len() >= MOST_FILES {
            self.sink.error(
                span,
                Code::Limit,
                format!("more than {MOST_FILES} files"),
                "join small files",
            );
            return;
        }
        self.seen.push(name.clone());
        let octets = match self.files.read(&name) {
            Ok(octets) => octets,
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.sink.error(
                    span,
                    Code::Include,
                    format!("`{shown}` cannot be read: {error}"),
                    "mend the name or the file's mode, or add optional=#true if it may be absent",
                );
                return;
            }
        };
        self.octets += octets.len();
        if self.octets > LARGEST_SUM {
            self.sink.error(
                span,
                Code::Limit,
                format!("the files have more than {LARGEST_SUM} octets together"),
                "keep long prefix lists out of the policy",
            );
            return;
        }
        match String::from_utf8(octets) {
            Ok(text) => {
                self.open.push(name);
                self.text(&shown, text);
                self.open.pop();
            }
            Err(error) => not_utf8(&shown, &error, self.sources, self.sink),
        }
    }
}

/// The file that a name means, relative to the file that holds the name; `None` if it may lie
/// outside that file's directory.
pub(crate) fn below(name: &str, span: Span, sources: &Sources) -> Option<PathBuf> {
    let outside = name.starts_with('/') || name.split('/').any(|part| part == "..");
    if outside || name.is_empty() || name.contains('\0') {
        return None;
    }
    let here = PathBuf::from(sources.name(span.source));
    let relative =
        Path::new(name).components().filter(|part| !matches!(part, std::path::Component::CurDir));
    Some(here.parent().unwrap_or(Path::new("")).join(relative.collect::<PathBuf>()))
}

/// Names the first octet that is not UTF-8.
pub(crate) fn not_utf8(
    name: &str,
    error: &std::string::FromUtf8Error,
    sources: &mut Sources,
    sink: &mut Sink,
) {
    let valid = error.utf8_error().valid_up_to();
    let octet = error.as_bytes().get(valid).copied().unwrap_or_default();
    let shown = &error.as_bytes()[..error.as_bytes().len().min(guard::LARGEST)];
    let source = sources.add(name, String::from_utf8_lossy(shown).into_owned());
    sink.error(
        Span::new(source, valid.min(guard::LARGEST), 1),
        Code::Syntax,
        format!("the octet 0x{octet:02x} is not UTF-8"),
        "save the file as UTF-8",
    );
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether `name` fits a pattern in which `*` stands for any text and `?` for one character.
fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*' {
            (p, n) = (p + 1, n + 1);
        } else if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
        } else if let Some((star_p, star_n)) = star {
            // The last star takes one more character.
            star = Some((star_p, star_n + 1));
            (p, n) = (star_p + 1, star_n + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::wildcard_matches;

    #[test]
    fn wildcards() {
        let cases = [
            ("*.kdl", "a.kdl", true),
            ("*.kdl", ".kdl", true),
            ("*.kdl", "a.kdl.bak", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("**", "", true),
            ("", "x", false),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(wildcard_matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
