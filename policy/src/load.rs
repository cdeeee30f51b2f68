//! The way in: from a text to a [`Policy`], or to everything that is wrong with it.

use crate::diagnostic::Faults;
use crate::document::Document;
use crate::files::{Files, NoFiles, gather};
use crate::policy::Policy;
use crate::source::{Sink, Sources};
use crate::{additions, check, compile, lints, read, sets, shadow, words};

/// Reads a policy from a text; `files` gives what it includes.
///
/// `name` is the file's name in diagnostics; names of included files and of key files are
/// resolved against its directory.
pub fn parse(name: &str, text: &str, files: &dyn Files) -> Result<Policy, Faults> {
    parse_with(name, text, files, None)
}

/// The same with what was added to it while it was in force: the name and the text of
/// [`Additions`](crate::Additions).
pub fn parse_with(
    name: &str,
    text: &str,
    files: &dyn Files,
    added: Option<(&str, &str)>,
) -> Result<Policy, Faults> {
    let (mut sources, mut sink) = (Sources::default(), Sink::default());
    let document = read_all(name, text, files, &mut sources, &mut sink);
    let added = added.map(|(name, text)| read_all(name, text, &NoFiles, &mut sources, &mut sink));
    let (Some(mut document), None | Some(Some(_))) = (document, &added) else {
        return Err(sink.finish(&sources).expect_err("what is unreadable was named"));
    };
    if let Some(Some(added)) = added {
        additions::join(&mut document, added, &sources, &mut sink);
    }
    check::check(&document, &sources, &mut sink);
    let mut policy = compile::compile(&document, &sources, &mut sink);
    if !sink.has_errors() {
        shadow::check(&document, &policy, &mut sink);
        lints::check(&document, &policy, &mut sink);
    }
    policy.warnings = sink.finish(&sources)?;
    Ok(policy)
}

/// Reads a policy as it is written, without asking whether its statements fit together.
pub fn parse_document(name: &str, text: &str, files: &dyn Files) -> Result<Document, Faults> {
    let (mut sources, mut sink) = (Sources::default(), Sink::default());
    let document = read_all(name, text, files, &mut sources, &mut sink);
    sink.finish(&sources)?;
    Ok(document.unwrap_or_default())
}

/// The document of a text and its includes; `None` if a part of it could not even be read, for
/// then what seems missing or unknown may only be unread.
fn read_all(
    name: &str,
    text: &str,
    files: &dyn Files,
    sources: &mut Sources,
    sink: &mut Sink,
) -> Option<Document> {
    let nodes = gather(name, text.to_owned(), files, sources, sink);
    let readable = !sink.has_errors();
    words::conform_file(&nodes, sink);
    // An unreadable set hides no name, so that everything else is still asked.
    let mut lists = sets::read(&nodes, files, sources, sink);
    let document = read::document(&nodes, &mut lists, sources, sink);
    readable.then_some(document)
}
