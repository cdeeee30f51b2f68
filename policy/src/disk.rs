//! Policy files on the disk: the one place of this crate that asks the system for anything.
//!
//! Without the feature `disk` it is left out, and texts come by [`parse`] alone.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Diagnostic, Faults, Severity};
use crate::files::{Files, not_utf8};
use crate::guard;
use crate::load::parse;
use crate::policy::Policy;
use crate::source::{Sink, Sources};
use crate::suite::check_tests;

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

/// Files below one directory of the disk.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Files below `root`; links that lead out of it are refused.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        Ok(Self { root: root.canonicalize()? })
    }

    fn inside(&self, name: &Path) -> io::Result<PathBuf> {
        let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
        let real = name.canonicalize()?;
        if real.starts_with(&self.root) {
            Ok(real)
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it lies outside the policy's directory",
            ))
        }
    }
}

impl Files for Directory {
    fn read(&self, name: &Path) -> io::Result<Vec<u8>> {
        read_regular(&self.inside(name)?)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.inside(directory)?)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

/// Reads a regular file, a little further than the largest text that is accepted.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // A device or a pipe could keep the reader waiting for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut octets = Vec::new();
    let most = guard::LARGEST as u64 + 1;
    std::fs::File::open(path)?.take(most).read_to_end(&mut octets)?;
    Ok(octets)
}
