//! `set` files: long lists of prefixes, one a line, outside KDL.
//!
//! ```text
//! # networks of the content network
//! 2001:db8:c::/48
//! 192.0.2.0/24        # documentation
//! ```
//!
//! Blank lines and what stands behind `#` are skipped; every other line is one prefix or address
//! of either family. A list is read once when the policy is, and counts as part of its text: a
//! policy with another list has another digest.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::diagnostic::Code;
use crate::files::{Files, below, not_utf8};
use crate::guard;
use crate::reader::{Node, Value};
use crate::source::{Sink, Sources, Span};
use crate::value;

/// How many sets one policy may have.
const MOST_SETS: usize = 64;

/// How many octets the files of all sets may have together.
const LARGEST_SUM: usize = 8 << 20;

/// Longest line of a list, in octets; a prefix needs 43.
const LONGEST_LINE: usize = 1024;

/// Reads the files of all `set` nodes; the prefixes by the place of the node's name.
pub(crate) fn read(
    nodes: &[Node],
    files: &dyn Files,
    sources: &mut Sources,
    sink: &mut Sink,
) -> HashMap<Span, Vec<IpNet>> {
    let mut lists = HashMap::new();
    let mut octets = 0;
    for (number, node) in nodes.iter().filter(|node| node.name.value == "set").enumerate() {
        if number >= MOST_SETS {
            sink.error(
                node.name.span,
                Code::Limit,
                format!("more than {MOST_SETS} sets"),
                "join small sets, or write them as groups",
            );
            break;
        }
        if let Some((name, text)) = text(node, files, sources, sink) {
            octets += text.len();
            if octets > LARGEST_SUM {
                sink.error(
                    node.name.span,
                    Code::Limit,
                    format!("the sets have more than {LARGEST_SUM} octets together"),
                    "aggregate prefixes that lie side by side",
                );
                break;
            }
            let source = sources.add(&name, text);
            lists.insert(node.name.span, prefixes(source, sources, sink));
        }
    }
    lists
}

/// The name and the content of a set's file.
fn text(
    node: &Node,
    files: &dyn Files,
    sources: &mut Sources,
    sink: &mut Sink,
) -> Option<(String, String)> {
    let Some(file) = node.property("file") else {
        sink.error(
            node.name.span,
            Code::Missing,
            "this set has no file",
            "add file=\"prefixes.txt\", with one prefix a line",
        );
        return None;
    };
    let Value::Text(name) = &file.value else {
        sink.error(file.span, Code::Value, "a file name is due here", "write file=\"cdn.txt\"");
        return None;
    };
    let Some(path) = below(name, file.span, sources) else {
        sink.error(
            file.span,
            Code::Include,
            format!("`{name}` may lead out of the policy's directory"),
            "name a file in or below the directory of this file, without `..`",
        );
        return None;
    };
    let shown = path.display().to_string();
    let octets = match files.read(&path) {
        Ok(octets) if octets.len() > guard::LARGEST => {
            sink.error(
                file.span,
                Code::Limit,
                format!("`{shown}` has more than {} octets", guard::LARGEST),
                "aggregate prefixes that lie side by side, or make several sets of it",
            );
            return None;
        }
        Ok(octets) => octets,
        Err(error) => {
            sink.error(
                file.span,
                Code::Include,
                format!("`{shown}` cannot be read: {error}"),
                "mend the name or the file's mode",
            );
            return None;
        }
    };
    match String::from_utf8(octets) {
        Ok(text) => Some((shown, text)),
        Err(error) => {
            not_utf8(&shown, &error, sources, sink);
            None
        }
    }
}

/// The prefixes of a list, each once, in order.
fn prefixes(source: u32, sources: &Sources, sink: &mut Sink) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    let mut faultless = true;
    let mut at = 0;
    for line in sources.text(source).split('\n') {
        let begin = at;
        at += line.len() + 1;
        if line.len() > LONGEST_LINE {
            sink.error(
                Span::new(source, begin, 1),
                Code::Limit,
                format!("the line has {} octets; at most {LONGEST_LINE} are read", line.len()),
                "write one prefix on each line",
            );
            faultless = false;
            continue;
        }
        let line = line.split('#').next().unwrap_or_default();
        let word = line.trim_matches([' ', '\t', '\r', '\u{feff}']);
        if word.is_empty() {
            continue;
        }
        match value::prefix(word) {
            Ok(prefix) => prefixes.push(prefix),
            Err(problem) => {
                let start = begin + line.find(word).unwrap_or_default();
                let span = Span::new(source, start, word.len());
                sink.error(span, problem.code, problem.message, problem.help);
                faultless = false;
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    prefixes.retain(|prefix| seen.insert(*prefix));
    // An empty list must not become an empty field, which would match every packet.
    if prefixes.is_empty() && faultless {
        sink.error(
            Span::new(source, 0, 1),
            Code::Missing,
            "this set holds no prefix",
            "write one prefix a line, or remove the set and what names it",
        );
    }
    prefixes
}
