//! `mtun key new`: a key, and what both ends write about it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mtun_signaling::auth::Algorithm;
use schemars::JsonSchema;
use serde::Serialize;

use super::Answer;
use super::screen::{Page, Screen, Tone};
use crate::control::{ControlError, ErrorCode};
use crate::key::{self, FIRST_SPI, KeyFileError};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key for a mobile and its home agent, and print the policy lines for both
    New {
        /// The security parameter index, 256 or more; a random one if left out
        #[arg(long, value_parser = parse_spi, value_name = "NUMBER")]
        spi: Option<u32>,
        /// hmac-sha256 between two of our own; hmac-sha1 for other stacks (RFC 4285)
        #[arg(long, default_value = "hmac-sha256", value_name = "NAME")]
        algorithm: Algorithm,
        /// The key file to make; its mode is 0600
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// What the policies call it; made from the file's name if left out
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// A key that was made; the key itself is in the file only.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KeyDocument {
    kind: &'static str,
    name: String,
    spi: u32,
    algorithm: String,
    key_file: PathBuf,
    /// The `security` node for the policy files of both ends.
    security: String,
}

pub(super) fn run(command: &Command, screen: Screen) -> Result<Answer, ControlError> {
    let Command::New { spi, algorithm, out, name } = command;
    let name = match name {
        Some(name) => name.clone(),
        None => format!("{}-sa", stem(out)?),
    };
    let file = out.file_name().and_then(|file| file.to_str()).ok_or_else(|| no_name(out))?;
    let spi = match spi {
        Some(spi) => *spi,
        None => key::random_spi().map_err(refused)?,
    };
    let secret = key::generate(*algorithm).map_err(refused)?;
    key::write_new(out, *algorithm, &secret).map_err(refused)?;
    // Debug is a string in quotes with its own quotes escaped, as KDL has it.
    let security = format!(
        "security {name:?} {{\n    \
         auth-option spi=0x{spi:x} algorithm={algorithm} key-file={file:?}\n}}"
    );
    let mut page = Page::new(screen);
    page.sentence(Tone::Good, "key", &format!("{} (mode 0600)", out.display()));
    page.line("");
    page.prefixed(
        "// ",
        "In the policy files of both ends, each with its own copy of the key beside it:",
    );
    for line in security.lines() {
        page.line(line);
    }
    page.line("");
    page.prefixed(
        "// ",
        "The mobile names it in its `home`, the home agent in the mobile's `allow`:",
    );
    page.line(&format!("    security {name:?}"));
    page.line("");
    page.hanging(
        "",
        "Carry the file to the other end by a way nobody listens on, such as `scp -p`.",
    );
    let algorithm = algorithm.to_string();
    let key_file = out.clone();
    let document = KeyDocument { kind: "key", name, spi, algorithm, key_file, security };
    Ok(Answer::new(&document, page))
}

fn refused(error: KeyFileError) -> ControlError {
    ControlError::new(ErrorCode::Refused, error.to_string())
}

fn no_name(path: &Path) -> ControlError {
    let message = format!("{} does not name a file", path.display());
    ControlError::new(ErrorCode::Usage, message).help("such as --out acme.key")
}

fn stem(path: &Path) -> Result<&str, ControlError> {
    path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| no_name(path))
}

/// Reads a decimal or `0x` number.
fn parse_spi(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(spi) if spi >= FIRST_SPI => Ok(spi),
        Ok(spi) => Err(format!("SPI {spi} is reserved; the first free one is {FIRST_SPI}")),
        Err(_) => Err("a number from 256 to 4294967295, or 0x100 to 0xffffffff".to_owned()),
    }
}
