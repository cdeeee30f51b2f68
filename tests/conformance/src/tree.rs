//! Where the sources and the transcripts name an id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::id::ids;

/// The kind of file in which an id is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The program itself.
    Code,
    /// A test or a transcript.
    Proof,
}

/// What is worth knowing of one file.
#[derive(Debug, Default)]
struct Known {
    ids: BTreeSet<String>,
    tests: BTreeSet<String>,
}

/// The sources of the tree, by their path from its root.
#[derive(Debug)]
pub struct Tree {
    files: BTreeMap<PathBuf, Known>,
    places: BTreeMap<String, BTreeMap<Place, BTreeSet<PathBuf>>>,
}

/// Folders that hold sources.
const FOLDERS: [&str; 6] = ["policy", "signaling", "dataplane", "src", "tests", "fuzz"];

/// What a file that may name an id ends in.
const ENDINGS: [&str; 4] = ["rs", "transcript", "sh", "py"];

impl Tree {
    /// Reads the tree under `root`.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self { files: BTreeMap::new(), places: BTreeMap::new() };
        for folder in FOLDERS {
            tree.walk(root, &root.join(folder));
        }
        tree
    }

    fn walk(&mut self, root: &Path, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != "corpus" {
                    self.walk(root, &path);
                }
            } else if path.extension().is_some_and(|it| ENDINGS.iter().any(|ending| it == *ending))
                && let (Ok(text), Ok(from_root)) =
                    (fs::read_to_string(&path), path.strip_prefix(root))
                // This reader explains what ids look like.
                && !from_root.starts_with("tests/conformance/src")
                && !from_root.starts_with("tests/conformance/tests")
            {
                self.add(from_root, &text);
            }
        }
    }

    fn add(&mut self, path: &Path, text: &str) {
        let is_test = |folder| path.iter().any(|part| part == folder);
        let all_proof = is_test("tests") || is_test("fuzz") || path.ends_with("tests.rs");
        let (code, proof) = match text.find("#[cfg(test)]\nmod tests {") {
            _ if all_proof => ("", text),
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        for (place, part) in [(Place::Code, code), (Place::Proof, proof)] {
            for id in ids(part) {
                let places = self.places.entry(id).or_default();
                places.entry(place).or_default().insert(path.to_owned());
            }
        }
        let known = Known {
            ids: ids(proof).into_iter().collect(),
            tests: tests(proof).into_iter().collect(),
        };
        self.files.insert(path.to_owned(), known);
    }

    /// Every id that is named anywhere, with the files that do.
    pub fn named(&self) -> impl Iterator<Item = (&str, Vec<&Path>)> {
        self.places.iter().map(|(id, places)| {
            (id.as_str(), places.values().flatten().map(PathBuf::as_path).collect())
        })
    }

    /// The files of this kind that name the id.
    pub fn places(&self, id: &str, place: Place) -> Vec<&Path> {
        let places = self.places.get(id).and_then(|places| places.get(&place));
        places.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// Why this is no proof for the id, if it is none.
    pub fn objection(&self, proof: &str, id: &str) -> Option<String> {
        let (file, test) = match proof.split_once("::") {
            Some((file, test)) => (PathBuf::from(file), Some(test)),
            None if proof.contains('/') => (PathBuf::from(proof), None),
            None => (Path::new("tests/conformance").join(proof), None),
        };
        let Some(known) = self.files.get(&file) else {
            return Some(format!("{} is not there", file.display()));
        };
        match test {
            Some(test) if !known.tests.contains(test) => {
                Some(format!("{} has no test {test}", file.display()))
            }
            _ if !known.ids.contains(id) => Some(format!("{} does not name it", file.display())),
            _ => None,
        }
    }
}

/// Names of the tests in a source: functions with an attribute that ends in `test`.
fn tests(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut attributed = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributed |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some((before, after)) = line.split_once("fn ")
            && (before.is_empty() || before.ends_with(' '))
        {
            let name = after.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            found.extend(name.filter(|_| attributed).map(str::to_owned));
            attributed = false;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::tests;

    #[test]
    fn which_functions_are_tests() {
        let source = "fn a() {}\n#[test]\n/// Words.\nfn b() {\n}\n\
                      #[tokio::test(flavor = \"x\")]\n#[ignore]\nasync fn c() {}\nfn d() {}";
        assert_eq!(tests(source), ["b", "c"]);
    }
}
