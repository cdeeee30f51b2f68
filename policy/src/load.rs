//! The way in: from a file or a text to a [`Policy`], or to everything that is wrong with it.

use std::path::Path;

use crate::diagnostic::{Code, Diagnostic, Faults, Severity};
use crate::document::Document;
use crate::files::{Directory, Files, gather, not_utf8, read_regular};
use crate::policy::Policy;
use crate::source::{Sink, Sources};
use crate::suite::check_tests;
use crate::{check, compile, lints, read, sets, shadow, words};

/// Reads a policy file and what it includes.
///
/// The file's own tests are not run; see [`load_tested`].
pub fn load(path: &Path) -> Result<Policy, Faults> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        Faults(vec![Diagnostic {
            code: Code::Include,
            severity: Severity::Error,
            message: format!("the policy cannot be read: {error}"),
            help: Some("mend the name or the file's mode".to_owned()),
            file: name.clone(),
            line: 1,
            column: 1,
            length: 1,
            source_line: Box::default(),
            source_offset: 0,
        }])
    };
    let octets = read_regular(path).map_err(unreadable)?;
    let files = Directory::new(path.parent().unwrap_or(Path::new(""))).map_err(unreadable)?;
    match String::from_utf8(octets) {
        Ok(text) => parse(&name, &text, &files),
        Err(error) => {
            let (mut sources, mut sink) = (Sources::default(), Sink::default());
            not_utf8(&name, &error, &mut sources, &mut sink);
            Err(sink.finish(&sources).expect_err("an error was just put in"))
        }
    }
}

/// Reads a policy file and runs its tests: what `check` says and what `apply` accepts.
pub fn load_tested(path: &Path) -> Result<Policy, Faults> {
    let policy = load(path)?;
    check_tests(&policy)?;
    Ok(policy)
}

/// Reads a policy from a text; `files` gives what it includes.
///
/// `name` is the file's name in diagnostics; names of included files and of key files are
/// resolved against its directory.
pub fn parse(name: &str, text: &str, files: &dyn Files) -> Result<Policy, Faults> {
    let (mut sources, mut sink) = (Sources::default(), Sink::default());
    let Some(document) = read_all(name, text, files, &mut sources, &mut sink) else {
        return Err(sink.finish(&sources).expect_err("what is unreadable was named"));
    };
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
