//! The texts of a policy as they were read, so that it can be put in force again when its files
//! have changed or are gone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mtun_policy::{Directory, Faults, Files, NoFiles, Policy};
use serde::{Deserialize, Serialize};

use crate::control::protocol::PolicySource;

/// The name of a policy that came as text.
const UNNAMED: &str = "policy";

/// What was added to a policy while it was in force: the name and the text of it.
pub type AddedText = (String, String);

fn borrowed(added: Option<&AddedText>) -> Option<(&str, &str)> {
    added.map(|(name, text)| (name.as_str(), text.as_str()))
}

/// The text of a policy with all that it includes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTexts {
    /// The file it was read from; `None` if it came as text.
    pub file: Option<PathBuf>,
    /// The text.
    pub text: String,
    /// Included files and sets, by the names under which they were read.
    pub others: BTreeMap<PathBuf, String>,
}

impl PolicyTexts {
    /// Reads and compiles a policy with what was added to it, and keeps what was read of the
    /// policy itself.
    pub fn read(
        source: &PolicySource,
        added: Option<&AddedText>,
    ) -> Result<(Policy, Self), Faults> {
        let added = borrowed(added);
        let file = match source {
            PolicySource::File(file) => file,
            PolicySource::Text(text) => {
                let policy = mtun_policy::parse_with(UNNAMED, text, &NoFiles, added)?;
                let texts = Self { file: None, text: text.clone(), others: BTreeMap::new() };
                return Ok((policy, texts));
            }
        };
        let parent = file.parent().unwrap_or(Path::new(""));
        let directory = Directory::new(parent);
        let (Ok(directory), Some(text)) = (directory, text_of(file)) else {
            // It says what is wrong with a file that is none; should it be there after all, it
            // has appeared this very moment.
            let policy = mtun_policy::load(file)?;
            let text = text_of(file).unwrap_or_default();
            return Ok((policy, Self { file: Some(file.clone()), text, others: BTreeMap::new() }));
        };
        let recording = Recording { files: &directory, read: RefCell::default() };
        let name = file.display().to_string();
        let policy = mtun_policy::parse_with(&name, &text, &recording, added)?;
        let others = recording.read.into_inner();
        Ok((policy, Self { file: Some(file.clone()), text, others }))
    }

    /// Compiles what was read, with what was added to it, without looking at any file.
    pub fn compile(&self, added: Option<&AddedText>) -> Result<Policy, Faults> {
        let name = self.file.as_deref().map(|file| file.display().to_string());
        let name = name.unwrap_or_else(|| UNNAMED.to_owned());
        let octets = |(name, text): (&PathBuf, &String)| (name.clone(), text.clone().into_bytes());
        let others: BTreeMap<PathBuf, Vec<u8>> = self.others.iter().map(octets).collect();
        mtun_policy::parse_with(&name, &self.text, &others, borrowed(added))
    }

    /// Whether both say the same, wherever the files lay.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let others = |texts: &Self| -> Vec<(PathBuf, String)> {
            let directory = texts.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
            let relative = |name: &PathBuf| name.strip_prefix(directory).unwrap_or(name).to_owned();
            texts.others.iter().map(|(name, text)| (relative(name), text.clone())).collect()
        };
        self.text == other.text && others(self) == others(other)
    }
}

/// The text of a regular file of bounded size; `None` for anything else. A link leads where it
/// leads: whoever named the file meant it.
fn text_of(file: &Path) -> Option<String> {
    let real = file.canonicalize().ok()?;
    let octets = Directory::new(real.parent()?).ok()?.read(&real).ok()?;
    String::from_utf8(octets).ok()
}

/// Files that are remembered as they are read.
struct Recording<'f> {
    files: &'f dyn Files,
    read: RefCell<BTreeMap<PathBuf, String>>,
}

impl Files for Recording<'_> {
    fn read(&self, name: &Path) -> io::Result<Vec<u8>> {
        let octets = self.files.read(name)?;
        // What is not UTF-8 is refused by the reader, and then there is nothing to keep.
        if let Ok(text) = std::str::from_utf8(&octets) {
            self.read.borrow_mut().insert(name.to_owned(), text.to_owned());
        }
        Ok(octets)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.files.list(directory)
    }
}
