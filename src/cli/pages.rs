//! `mtun completions` and `mtun man`: what the command line says of itself, for shells and for `man`.
//!
//! Both are made from the definition that reads the arguments, and `mtun.kdl(5)` from the tables that
//! policies are held against, so they cannot tell another story.

mod kdl;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;
use schemars::JsonSchema;
use serde::Serialize;

use super::screen::{Page, Screen, Tone};
use super::{Answer, Cli};
use crate::control::{ControlError, ErrorCode};

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct Completions {
    #[arg(value_enum)]
    shell: Known,
}

/// The shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Known {
    /// Into /usr/share/bash-completion/completions/mtun, or `source <(mtun completions bash)`
    Bash,
    /// Into a directory of $fpath, as _mtun
    Zsh,
    /// Into ~/.config/fish/completions/mtun.fish
    Fish,
}

/// Where to.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory; it is made if it is not there. Pages are named NAME.SECTION
    directory: PathBuf,
}

/// A script for a shell.
#[derive(Serialize, JsonSchema)]
pub(super) struct CompletionsDocument {
    kind: &'static str,
    /// `bash`, `zsh` or `fish`.
    shell: String,
    /// What the shell is to read.
    script: String,
}

/// Pages that were written.
#[derive(Serialize, JsonSchema)]
pub(super) struct ManDocument {
    kind: &'static str,
    /// The files: `mtun.1`, one for each command, and `mtun.kdl.5`.
    files: Vec<PathBuf>,
}

pub(super) fn completions(command: &Completions, screen: Screen) -> Answer {
    let shell = match command.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mtun", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let mut page = Page::new(screen);
    page.verbatim(&script);
    let shell = shell.to_string();
    Answer::new(&CompletionsDocument { kind: "completions", shell, script }, page)
}

pub(super) fn man(command: &Man, screen: Screen) -> Result<Answer, ControlError> {
    let refused = |path: &Path, error: std::io::Error| {
        let message = format!("cannot write {}: {error}", path.display());
        ControlError::new(ErrorCode::Refused, message)
            .help("name a directory that you may write to: mtun man ./man")
    };
    let directory = &command.directory;
    std::fs::create_dir_all(directory).map_err(|error| refused(directory, error))?;
    let mut root = Cli::command();
    root.build();
    let mut files = Vec::new();
    write(&root, "mtun", directory, &mut files).map_err(|(path, error)| refused(&path, error))?;
    let language = directory.join("mtun.kdl.5");
    std::fs::write(&language, kdl::page(&mtun_policy::schema()))
        .map_err(|error| refused(&language, error))?;
    files.push(language);
    let mut page = Page::new(screen);
    let count = files.len();
    let place = directory.display();
    page.sentence(Tone::Good, "man", &format!("{count} pages in {place}; man -l {place}/mtun.1"));
    Ok(Answer::new(&ManDocument { kind: "man", files }, page))
}

/// Writes a command's page and those of the commands in it.
fn write(
    command: &clap::Command,
    name: &str,
    directory: &Path,
    files: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, std::io::Error)> {
    let title = name.to_uppercase();
    let file = directory.join(format!("{name}.1"));
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(title)
        .section("1")
        .source(concat!("mtun ", env!("CARGO_PKG_VERSION")))
        .manual("mtun")
        .render(&mut text)
        .and_then(|()| std::fs::write(&file, &text))
        .map_err(|error| (file.clone(), error))?;
    files.push(file);
    let shown = |it: &&clap::Command| !it.is_hide_set() && it.get_name() != "help";
    for inner in command.get_subcommands().filter(shown) {
        write(inner, &format!("{name}-{}", inner.get_name()), directory, files)?;
    }
    Ok(())
}
