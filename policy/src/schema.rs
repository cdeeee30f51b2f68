//! The language as a document: every node, property and diagnostic, with what it means.
//!
//! The nodes and properties are those of the tables that files are held against
//! ([`crate::words`]), so nothing can be listed that is refused, or left out that is accepted;
//! a test asks for a meaning of each. `docs/policy.md` is [`Schema::markdown`].

mod codes;
mod markdown;
mod meanings;

use serde::Serialize;

use crate::steering::GivenState;
use crate::suppose;
use crate::words::{Arguments, FILE, Word};

pub use codes::DiagnosticSchema;

/// The whole language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Schema {
    /// What `policy … schema=1` says.
    pub schema: u32,
    /// Every node, outer ones before what stands in their blocks.
    pub nodes: Vec<NodeSchema>,
    /// What may stand behind `given`, in tests and on the command line.
    pub suppositions: Vec<Meaning>,
    /// Every kind of diagnostic.
    pub diagnostics: Vec<DiagnosticSchema>,
    /// What the language means where two readings were possible.
    pub decisions: Vec<Meaning>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeSchema {
    /// The nodes in whose blocks it stands, and its name.
    pub path: Vec<&'static str>,
    /// What stands behind its name; `None` for nothing.
    pub argument: Option<String>,
    /// Whether several may stand side by side.
    pub many: bool,
    /// What it means.
    pub meaning: &'static str,
    /// Its properties.
    pub properties: Vec<Meaning>,
    /// Whether property names are names of the file.
    pub free_properties: bool,
    /// The nodes in its block.
    pub nodes: Vec<&'static str>,
    /// Words that belong to the language and are refused by this version.
    pub not_supported: Vec<&'static str>,
}

/// A word and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Meaning {
    /// The word.
    pub name: String,
    /// What it means, its unit and its default.
    pub meaning: String,
}

impl Meaning {
    fn new(name: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { name: name.into(), meaning: meaning.into() }
    }
}

/// The language that this version reads.
pub fn schema() -> Schema {
    let mut nodes = Vec::new();
    let mut seen: Vec<&'static Word> = Vec::new();
    for child in FILE.children {
        collect(child, &[], &mut seen, &mut nodes);
    }
    let states = GivenState::ALL.map(GivenState::word).join(", ");
    let figure = |(figure, example): (&str, &str)| {
        let name = format!("LINK.{figure}");
        Meaning::new(&name, format!("{}, such as `wlan0.{figure}={example}`", figure_words(figure)))
    };
    let word = |(word, example): (&str, &str)| {
        Meaning::new(word, format!("{}, such as `{word}={example}`", word_words(word)))
    };
    let mut suppositions = vec![Meaning::new("LINK", format!("the link's state: {states}"))];
    suppositions.extend(suppose::FIGURES.into_iter().map(figure));
    suppositions.extend(suppose::WORDS.into_iter().map(word));
    let decisions = meanings::DECISIONS.iter();
    Schema {
        schema: 1,
        nodes,
        suppositions,
        diagnostics: codes::all(),
        decisions: decisions.map(|(name, meaning)| Meaning::new(*name, *meaning)).collect(),
    }
}

fn figure_words(figure: &str) -> &'static str {
    match figure {
        "rtt" => "its smoothed round trip time",
        "jitter" => "its jitter",
        "loss" => "its loss",
        _ => "how much of its `rate` is used",
    }
}

fn word_words(word: &str) -> &'static str {
    match word {
        "speed" => "the vehicle's speed",
        "position" => "where the vehicle is, in degrees north and east",
        "time" => "local time of day",
        _ => "the day of the week",
    }
}

/// A node and what is in its block; words that stand in several blocks are described once.
fn collect(
    word: &'static Word,
    above: &[&'static str],
    seen: &mut Vec<&'static Word>,
    nodes: &mut Vec<NodeSchema>,
) {
    if seen.iter().any(|known| std::ptr::eq(*known, word)) {
        return;
    }
    seen.push(word);
    let path: Vec<_> = above.iter().copied().chain([word.name]).collect();
    let (meaning, properties) = meanings::of(word);
    let argument = match word.arguments {
        Arguments::None => None,
        Arguments::Perhaps(what) => Some(format!("{what}; may be left out")),
        Arguments::One(what) => Some(what.to_owned()),
        Arguments::Some(what) => Some(format!("{what}, or several")),
        Arguments::Any => Some("links, where their names stand alone".to_owned()),
    };
    let property = |name: &&str| {
        let meaning = properties.iter().find(|(known, _)| known == name);
        Meaning::new(*name, meaning.map_or("", |(_, meaning)| meaning))
    };
    nodes.push(NodeSchema {
        path: path.clone(),
        argument,
        many: word.many,
        meaning,
        properties: word.properties.iter().map(property).collect(),
        free_properties: word.free,
        nodes: word.children.iter().map(|child| child.name).collect(),
        not_supported: word.later.iter().chain(word.later_children).copied().collect(),
    });
    for child in word.children {
        collect(child, &path, seen, nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither a word without a meaning, nor a meaning without a word.
    #[test]
    fn every_word_has_its_meaning() {
        fn visit(word: &'static Word, seen: &mut Vec<&'static Word>) {
            if seen.iter().any(|known| std::ptr::eq(*known, word)) {
                return;
            }
            seen.push(word);
            word.children.iter().for_each(|child| visit(child, seen));
        }
        let mut words = Vec::new();
        FILE.children.iter().for_each(|child| visit(child, &mut words));
        for word in &words {
            let (meaning, properties) = meanings::of(word);
            assert!(!meaning.is_empty(), "`{}` has no meaning", word.name);
            let listed: Vec<_> = properties.iter().map(|(name, _)| *name).collect();
            assert_eq!(listed, word.properties, "properties of `{}`", word.name);
            assert!(properties.iter().all(|(_, meaning)| !meaning.is_empty()), "{}", word.name);
        }
        for (word, ..) in meanings::ALL {
            assert!(words.iter().any(|known| std::ptr::eq(*known, *word)), "{}", word.name);
        }
        assert_eq!(words.len(), meanings::ALL.len());
    }

    #[test]
    fn every_code_is_listed_once() {
        let codes = codes::all();
        let mut names: Vec<_> = codes.iter().map(|code| code.code).collect();
        names.dedup();
        assert_eq!(names.len(), codes.len());
        assert!(codes.iter().all(|code| !code.meaning.is_empty()));
    }
}
