//! `mtun policy fmt [--check] FILE`.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mtun_policy::format_text;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::Answer;
use super::super::screen::{Page, Tone};
use crate::control::{ControlError, ErrorCode};

/// Largest file that is read, in octets; a policy may have 1 MiB.
const LARGEST: u64 = 1 << 20;

/// The files and what became of them.
#[derive(Serialize, JsonSchema)]
pub(in crate::cli) struct FormatDocument {
    kind: &'static str,
    /// Whether files were only looked at.
    check: bool,
    files: Vec<FormattedFile>,
}

#[derive(Serialize, JsonSchema)]
struct FormattedFile {
    file: PathBuf,
    /// Whether its form was another one.
    changed: bool,
}

/// Brings files into the canonical form; nothing is written before all of them have been read.
pub(super) fn run(files: &[PathBuf], check: bool, mut page: Page) -> Result<Answer, ControlError> {
    let mut formatted = Vec::new();
    for file in files {
        let text = read(file)?;
        let new = format_text(&file.display().to_string(), &text)?;
        formatted.push((file, (new != text).then_some(new)));
    }
    let mut document = FormatDocument { kind: "policy-fmt", check, files: Vec::new() };
    for (file, new) in formatted {
        if let Some(new) = new.as_ref().filter(|_| !check) {
            replace(file, new).map_err(|error| {
                let message = format!("cannot write {}: {error}", file.display());
                ControlError::new(ErrorCode::Refused, message).help("the file is as it was")
            })?;
        }
        let (tone, word) = match (new.is_some(), check) {
            (true, true) => (Tone::Bad, "is in another form"),
            (true, false) => (Tone::Good, "formatted"),
            (false, _) => (Tone::Good, "is in this form already"),
        };
        page.sentence(tone, &file.display().to_string(), word);
        document.files.push(FormattedFile { file: file.clone(), changed: new.is_some() });
    }
    let others = document.files.iter().filter(|file| file.changed).count();
    let answer = Answer::new(&document, page);
    if !check || others == 0 {
        return Ok(answer);
    }
    let message = match others {
        1 => "1 file is in another form".to_owned(),
        others => format!("{others} files are in another form"),
    };
    let error = ControlError::new(ErrorCode::Degraded, message);
    Ok(answer.failed(error.help("`mtun policy fmt` without --check brings them into this form")))
}

fn read(file: &Path) -> Result<String, ControlError> {
    let unreadable = |error: String| {
        let message = format!("cannot read {}: {error}", file.display());
        ControlError::new(ErrorCode::Usage, message)
    };
    let metadata = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unreadable("it is no regular file".to_owned()));
    }
    if metadata.len() > LARGEST {
        return Err(unreadable(format!("it has more than {LARGEST} octets")));
    }
    let octets = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(octets).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|octet| **octet == b'\n').count() + 1;
        unreadable(format!("it is not UTF-8 on line {line}"))
    })
}

/// Puts a new file in the place of the old one, with its mode and owner: whoever reads meanwhile,
/// and whatever fails, finds the one or the other whole.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = std::fs::canonicalize(file)?;
    let metadata = std::fs::metadata(&file)?;
    let directory = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let beside = directory.join(format!(".{}.{}", name.display(), std::process::id()));
    let written =
        write_new(&beside, text, &metadata).and_then(|()| std::fs::rename(&beside, &file));
    if written.is_err() {
        // Perhaps it was never made; the error that counts is the one that stopped us.
        let _ = std::fs::remove_file(&beside);
        return written;
    }
    std::fs::File::open(directory)?.sync_all()
}

fn write_new(file: &Path, text: &str, like: &std::fs::Metadata) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(0o600).open(file)?;
    new.write_all(text.as_bytes())?;
    let own = new.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::fchown(&new, Some(like.uid()), Some(like.gid()))?;
    }
    new.set_permissions(std::fs::Permissions::from_mode(like.mode() & 0o7777))?;
    new.sync_all()
}
