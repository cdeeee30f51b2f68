//! The last policies that were in force, kept in the state directory with all their texts.
//!
//! An index names the entries, newest last; the texts of each are a file of their own, written
//! before the index names it. So after a crash at any moment the index is whole, and what it names
//! is there. At most [`KEPT`] entries are kept.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::texts::PolicyTexts;
use crate::control::documents::{PolicyCause, PolicyEntryState, PolicyHistoryEntry};
use crate::edge::state_file;

/// How many policies are remembered.
pub const KEPT: usize = 10;

/// One policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub entry: u64,
    /// Its name.
    pub name: String,
    /// The file it was read from; `None` if it came as text.
    pub file: Option<PathBuf>,
    /// When it was put in force, in milliseconds since 1970.
    pub applied_ms: u64,
    /// Who asked; `None` for the daemon itself.
    pub uid: Option<u32>,
    /// How it came to be in force.
    pub cause: PolicyCause,
    /// The number of its rules, over all homes.
    pub rules: usize,
    /// What became of it.
    pub state: PolicyEntryState,
    /// The earlier entry whose texts these are, if it was gone back to.
    pub restores: Option<u64>,
}

impl Entry {
    /// As people see it.
    pub fn document(&self) -> PolicyHistoryEntry {
        PolicyHistoryEntry {
            entry: self.entry,
            name: self.name.clone(),
            file: self.file.clone(),
            applied_ms: self.applied_ms,
            uid: self.uid,
            cause: self.cause,
            rules: self.rules,
            state: self.state,
            confirm_within_seconds: None,
        }
    }
}

/// A policy that comes into force.
#[derive(Clone, Debug)]
pub struct Coming<'t> {
    /// Its name.
    pub name: &'t str,
    /// What it was read from.
    pub texts: &'t PolicyTexts,
    /// Who asked.
    pub uid: Option<u32>,
    /// How it comes to be in force.
    pub cause: PolicyCause,
    /// The number of its rules.
    pub rules: usize,
    /// Whether it still has to be confirmed.
    pub on_trial: bool,
    /// The earlier entry whose texts these are.
    pub restores: Option<u64>,
}

/// The history. Changes are on the disk when a method returns `Ok`; an entry that could not be
/// written is not in the history.
#[derive(Debug)]
pub struct History {
    directory: PathBuf,
    /// Newest last.
    entries: Vec<Entry>,
    /// The number of the next entry; numbers are not used twice.
    next: u64,
}

impl History {
    /// Reads what earlier runs left in `state`. A history that cannot be understood is told and
    /// begun anew: it must not keep the daemon from starting.
    pub fn open(state: &Path) -> Self {
        let directory = state.join("policies");
        let index = directory.join("history.json");
        let entries = match state_file::read(&index) {
            Ok(None) => Vec::new(),
            Ok(Some(octets)) => serde_json::from_slice(&octets).unwrap_or_else(|error| {
                tracing::error!(file = %index.display(), %error, "the history of policies is broken and begins anew");
                Vec::new()
            }),
            Err(error) => {
                tracing::error!(file = %index.display(), %error, "the history of policies cannot be read and begins anew");
                Vec::new()
            }
        };
        let entries: Vec<Entry> = entries;
        let left = kept_texts(&directory).into_iter().max().unwrap_or(0);
        let next = entries.iter().map(|it| it.entry).max().unwrap_or(0).max(left) + 1;
        Self { directory, entries, next }
    }

    /// The entries, newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    /// The entry of this number.
    pub fn get(&self, entry: u64) -> Option<&Entry> {
        self.entries.iter().find(|it| it.entry == entry)
    }

    /// The texts of an entry.
    pub fn texts(&self, entry: u64) -> io::Result<PolicyTexts> {
        let octets = std::fs::read(self.texts_file(entry))?;
        serde_json::from_slice(&octets).map_err(io::Error::from)
    }

    /// Notes a policy that comes into force; what was in force is replaced, or taken back if the
    /// new one goes back behind it. Returns its number.
    pub fn put(&mut self, coming: &Coming<'_>) -> io::Result<u64> {
        let number = self.next;
        std::fs::create_dir_all(&self.directory)?;
        let texts = serde_json::to_vec(coming.texts).map_err(io::Error::from)?;
        state_file::replace(&self.texts_file(number), &texts)?;
        let before = match coming.restores {
            Some(_) => PolicyEntryState::RolledBack,
            None => PolicyEntryState::Replaced,
        };
        let mut entries = self.entries.clone();
        for entry in entries.iter_mut().filter(|it| is_present(it)) {
            entry.state = before;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        entries.push(Entry {
            entry: number,
            name: coming.name.to_owned(),
            file: coming.texts.file.clone(),
            applied_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            uid: coming.uid,
            cause: coming.cause,
            rules: coming.rules,
            state: match coming.on_trial {
                true => PolicyEntryState::Unconfirmed,
                false => PolicyEntryState::InForce,
            },
            restores: coming.restores,
        });
        let surplus = entries.len().saturating_sub(KEPT);
        entries.drain(..surplus);
        self.write(entries)?;
        self.next += 1;
        self.forget();
        Ok(number)
    }

    /// Notes that the policy on trial stays.
    pub fn confirm(&mut self, entry: u64) -> io::Result<()> {
        self.set(entry, PolicyEntryState::InForce)
    }

    /// Notes that the policy on trial goes, without another being put in force: the daemon stops.
    pub fn take_back(&mut self, entry: u64) -> io::Result<()> {
        self.set(entry, PolicyEntryState::RolledBack)
    }

    fn set(&mut self, entry: u64, state: PolicyEntryState) -> io::Result<()> {
        let mut entries = self.entries.clone();
        for known in entries.iter_mut().filter(|it| it.entry == entry) {
            known.state = state;
        }
        self.write(entries)
    }

    /// What was in force when the last run ended, confirmed or not.
    pub fn present(&self) -> Option<&Entry> {
        self.entries().find(|it| is_present(it))
    }

    /// The newest policy that needs no confirmation and was not taken back.
    pub fn last_confirmed(&self) -> Option<&Entry> {
        let stood = |it: &&Entry| {
            matches!(it.state, PolicyEntryState::InForce | PolicyEntryState::Replaced)
        };
        self.entries().find(stood)
    }

    /// The newest policy before this entry that was in force and was not taken back.
    pub fn before(&self, entry: u64) -> Option<&Entry> {
        // What went back to an earlier entry stands in that entry's place.
        let at = self.get(entry).and_then(|it| it.restores).unwrap_or(entry);
        let stood = |it: &&Entry| {
            it.entry < at
                && matches!(it.state, PolicyEntryState::Replaced | PolicyEntryState::InForce)
        };
        self.entries().find(stood)
    }

    /// Whether these texts are those of a policy that was taken back, or never confirmed, and not
    /// put in force again since.
    pub fn was_taken_back(&self, texts: &PolicyTexts) -> Option<&Entry> {
        let same = |it: &&Entry| self.texts(it.entry).is_ok_and(|known| known.says_the_same(texts));
        let last = self.entries().find(same)?;
        matches!(last.state, PolicyEntryState::RolledBack | PolicyEntryState::Unconfirmed)
            .then_some(last)
    }

    fn write(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let octets = serde_json::to_vec_pretty(&entries).map_err(io::Error::from)?;
        state_file::replace(&self.directory.join("history.json"), &octets)?;
        self.entries = entries;
        Ok(())
    }

    /// Removes texts that no entry names.
    fn forget(&self) {
        let named: BTreeSet<u64> = self.entries.iter().map(|it| it.entry).collect();
        for number in kept_texts(&self.directory) {
            if !named.contains(&number) {
                // What stays costs some room, and is tried again with the next policy.
                let _ = std::fs::remove_file(self.texts_file(number));
            }
        }
    }

    fn texts_file(&self, entry: u64) -> PathBuf {
        self.directory.join(format!("{entry}.policy.json"))
    }
}

fn is_present(entry: &Entry) -> bool {
    matches!(entry.state, PolicyEntryState::InForce | PolicyEntryState::Unconfirmed)
}

/// The numbers of the texts that lie there.
fn kept_texts(directory: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |file: std::fs::DirEntry| {
        file.file_name().to_str()?.strip_suffix(".policy.json")?.parse().ok()
    };
    files.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use PolicyEntryState::{InForce, Replaced, RolledBack, Unconfirmed};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mtun-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn texts(text: &str) -> PolicyTexts {
        PolicyTexts { file: None, text: text.to_owned(), others: BTreeMap::new() }
    }

    fn put(history: &mut History, text: &str, on_trial: bool, restores: Option<u64>) -> u64 {
        let texts = texts(text);
        let cause = match restores {
            Some(_) => PolicyCause::Rollback,
            None => PolicyCause::Apply,
        };
        let coming =
            Coming { name: text, texts: &texts, uid: Some(0), cause, rules: 1, on_trial, restores };
        history.put(&coming).unwrap()
    }

    fn states(history: &History) -> Vec<(u64, PolicyEntryState)> {
        history.entries().map(|it| (it.entry, it.state)).collect()
    }

    #[test]
    fn a_policy_replaces_is_confirmed_and_is_gone_back_behind() {
        let scratch = Scratch::new("history");
        let mut history = History::open(&scratch.0);
        assert_eq!(history.present(), None);
        let first = put(&mut history, "a", false, None);
        let second = put(&mut history, "b", true, None);
        assert_eq!(states(&history), [(second, Unconfirmed), (first, Replaced)]);
        assert_eq!(history.before(second).unwrap().entry, first);
        history.confirm(second).unwrap();
        let third = put(&mut history, "c", false, None);
        let back = put(&mut history, "b", false, Some(second));
        assert_eq!(
            states(&history),
            [(back, InForce), (third, RolledBack), (second, Replaced), (first, Replaced)]
        );
        assert_eq!(history.before(back).unwrap().entry, first, "back once more goes further back");
        // Another run finds the same.
        let again = History::open(&scratch.0);
        assert_eq!(states(&again), states(&history));
        assert_eq!(again.present().unwrap().entry, back);
        assert_eq!(again.texts(third).unwrap(), texts("c"));
        assert_eq!(again.was_taken_back(&texts("c")).map(|it| it.entry), Some(third));
        assert_eq!(again.was_taken_back(&texts("b")), None);
        assert_eq!(again.was_taken_back(&texts("never seen")), None);
    }

    #[test]
    fn ten_are_kept_and_no_text_stays_behind() {
        let scratch = Scratch::new("history-bounded");
        let mut history = History::open(&scratch.0);
        for number in 0..25 {
            put(&mut history, &format!("policy {number}"), false, None);
        }
        let kept: Vec<u64> = history.entries().map(|it| it.entry).collect();
        assert_eq!(kept, (16..=25).rev().collect::<Vec<_>>());
        assert_eq!(kept_texts(&history.directory).len(), KEPT);
    }

    #[test]
    fn a_broken_index_begins_anew_and_uses_no_number_twice() {
        let scratch = Scratch::new("history-broken");
        let mut history = History::open(&scratch.0);
        let last = put(&mut history, "a", false, None);
        std::fs::write(history.directory.join("history.json"), b"[{").unwrap();
        let mut history = History::open(&scratch.0);
        assert_eq!(history.entries().count(), 0);
        assert_eq!(put(&mut history, "b", false, None), last + 1);
        assert_eq!(states(&history), [(last + 1, InForce)]);
    }
}
