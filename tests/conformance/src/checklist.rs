//! The rows, as they are written.

use std::fs;
use std::path::Path;

use crate::id::is_id;

/// How binding a requirement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The standard leaves no choice.
    Must,
    /// The standard recommends it.
    Should,
    /// The standard leaves it open; this is what we decided.
    Policy,
}

/// Where a requirement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Proofs say so.
    Met,
    /// Decided against, for the reason given.
    Refused,
    /// Speaks of signaling or tunnels inside ESP, which is not there.
    NeedsEsp,
    /// Belongs to work that has not begun, in the area named.
    NotYet(String),
    /// Missing.
    Open,
    /// The same requirement as another row, which says where it stands.
    As(String),
}

/// One requirement.
#[derive(Clone, Debug)]
pub struct Row {
    /// `MC-01`.
    pub id: String,
    /// How binding it is.
    pub level: Level,
    /// Whom it binds.
    pub role: String,
    /// `RFC 5648 §6.2`; none for a rule of the house.
    pub standards: Vec<String>,
    /// Where it stands.
    pub state: State,
    /// What it asks for.
    pub what: String,
    /// `name.transcript`, `path/to/file.rs::test` or another file of the tree.
    pub proofs: Vec<String>,
    /// Why it is not met, or a remark.
    pub because: String,
    /// File and line, for complaints.
    pub place: String,
}

/// The rows under one heading.
#[derive(Clone, Debug)]
pub struct Section {
    /// `7. Several care-of addresses`.
    pub title: String,
    /// In the order of the file.
    pub rows: Vec<Row>,
}

impl Section {
    /// `7`, or nothing.
    pub fn number(&self) -> Option<u32> {
        self.title.split('.').next()?.parse().ok()
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Checklist {
    /// In the order of their files' names.
    pub sections: Vec<Section>,
}

impl Checklist {
    /// Reads every `.txt` file of the folder; what cannot be read is told by file and line.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let files =
            fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        paths.sort();
        let mut checklist = Self::default();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
            checklist.parse(&name, &text)?;
        }
        Ok(checklist)
    }

    /// Adds the rows of one file.
    pub fn parse(&mut self, name: &str, text: &str) -> Result<(), String> {
        for (number, line) in (1..).zip(text.lines()) {
            let place = format!("{name}:{number}");
            let complaint = |what: &str| format!("{place}: {what}: {line}");
            if line.trim().is_empty() || line.starts_with("//") {
            } else if let Some(title) = line.strip_prefix("# ") {
                self.sections.push(Section { title: title.to_owned(), rows: Vec::new() });
            } else if let Some(indented) = line.strip_prefix("  ") {
                let row = self.sections.last_mut().and_then(|section| section.rows.last_mut());
                let row = row.ok_or_else(|| complaint("belongs to no row"))?;
                match indented.split_once(' ') {
                    Some(("proof", proof)) => row.proofs.push(proof.trim().to_owned()),
                    Some(("because", reason)) => append(&mut row.because, reason),
                    _ if row.proofs.is_empty() && row.because.is_empty() => {
                        append(&mut row.what, indented);
                    }
                    _ if row.proofs.is_empty() => append(&mut row.because, indented),
                    _ => return Err(complaint("neither `proof` nor `because`")),
                }
            } else {
                let row = head(line, &place).ok_or_else(|| complaint("no head of a row"))?;
                let section = self.sections.last_mut();
                section.ok_or_else(|| complaint("under no heading"))?.rows.push(row);
            }
        }
        Ok(())
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    /// The row of that id.
    pub fn row(&self, id: &str) -> Option<&Row> {
        self.rows().find(|row| row.id == id)
    }

    /// The row itself, or the one that it is the same as.
    pub fn original<'a>(&'a self, row: &'a Row) -> &'a Row {
        match &row.state {
            State::As(id) => self.row(id).unwrap_or(row),
            _ => row,
        }
    }
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(more.trim());
}

fn head(line: &str, place: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [id, level, role, standards, state] = fields[..] else { return None };
    let level = match level {
        "MUST" => Level::Must,
        "SHOULD" => Level::Should,
        "policy" => Level::Policy,
        _ => return None,
    };
    let state = match state.split_once(' ').unwrap_or((state, "")) {
        ("met", "") => State::Met,
        ("refused", "") => State::Refused,
        ("needs-esp", "") => State::NeedsEsp,
        ("open", "") => State::Open,
        ("not-yet", area) if !area.is_empty() => State::NotYet(area.to_owned()),
        ("as", id) if is_id(id) => State::As(id.to_owned()),
        _ => return None,
    };
    let standards = match standards {
        "-" => Vec::new(),
        named => named.split(", ").map(str::to_owned).collect(),
    };
    (is_id(id) && standards.iter().all(|one| one.starts_with("RFC "))).then(|| Row {
        id: id.to_owned(),
        level,
        role: role.to_owned(),
        standards,
        state,
        what: String::new(),
        proofs: Vec::new(),
        because: String::new(),
        place: place.to_owned(),
    })
}
