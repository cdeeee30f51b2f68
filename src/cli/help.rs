//! Help that was asked for, and what is wrong with a command line: as wide as the terminal.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use clap::error::ErrorKind;

use super::screen::Screen;
use super::{Color, Exit, end, print};
use crate::control::{ControlError, ErrorCode};

/// Tells what is wrong with the command line, or prints the help that was asked for.
pub(super) fn explain(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = arguments.iter().any(|argument| argument == "--json");
    if json && !asked {
        let text = error.render().to_string();
        let mut paragraphs = text.trim().splitn(2, "\n\n");
        let first = paragraphs.next().unwrap_or_default();
        let message = first.strip_prefix("error: ").unwrap_or(first);
        let mut error = ControlError::new(ErrorCode::Usage, message);
        error.help = paragraphs.next().map(str::to_owned);
        return end(Err(error), true, Color::Never);
    }
    let color = color(arguments);
    let screen = if asked { Screen::of_stdout(color) } else { Screen::of_stderr(color) };
    let styled = error.render();
    let text = if screen.is_colored() { styled.ansi().to_string() } else { styled.to_string() };
    let text = fitted(&text, screen.width());
    if asked {
        print(&text);
        return ExitCode::from(Exit::Ok as u8);
    }
    // Nothing can be done about a standard error that is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(Exit::Usage as u8)
}

/// What `--color` says on a command line that may be wrong elsewhere.
fn color(arguments: &[OsString]) -> Color {
    let words = arguments.iter().map(|argument| argument.to_string_lossy());
    let mut follows = false;
    for word in words {
        let value = match word.strip_prefix("--color=") {
            Some(value) => value.to_owned(),
            None if follows => word.clone().into_owned(),
            None => {
                follows = word == "--color";
                continue;
            }
        };
        return Color::from_str(&value, false).unwrap_or(Color::Auto);
    }
    Color::Auto
}

/// The text with lines of at most `width` columns, except for longer words. What does not fit goes on
/// below its description, or below its first word.
fn fitted(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        match seen(line) > width {
            true => out.push_str(&hung(line, width)),
            false => out.push_str(line),
        }
        out.push_str(end);
    }
    out
}

/// A line that is too wide, in several.
fn hung(line: &str, width: usize) -> String {
    let under = hang(line).min(width / 2);
    let (start, rest) = line.split_at(line.len() - line.trim_start_matches(' ').len());
    let mut out = start.to_owned();
    let mut column = start.len();
    // Blanks between name and description stay as they are.
    for (number, word) in rest.split(' ').enumerate() {
        let wide = seen(word);
        if number > 0 && column + 1 + wide > width && !word.is_empty() {
            let kept = out.trim_end_matches(' ').len();
            out.truncate(kept);
            out.push('\n');
            out.push_str(&" ".repeat(under));
            column = under;
        } else if number > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out
}

/// The column in which the description of a line begins, behind two blanks; else where its text does.
fn hang(line: &str) -> usize {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let text = &line[indent..];
    match text.find("  ") {
        Some(gap) => {
            let blanks = text[gap..].len() - text[gap..].trim_start_matches(' ').len();
            indent + seen(&text[..gap]) + blanks
        }
        None if text.contains("Usage:") => indent + "Usage: ".len(),
        None => indent,
    }
}

/// How many columns a text takes: what colours it takes none.
fn seen(text: &str) -> usize {
    let mut columns = 0;
    let mut escape = false;
    for letter in text.chars() {
        match (escape, letter) {
            (false, '\x1b') => escape = true,
            (true, letter) => escape = !letter.is_ascii_alphabetic(),
            (false, _) => columns += 1,
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_go_on_below_themselves() {
        let text = "Usage: mtun links [OPTIONS] --long <LONG>\n\n  \x1b[1mlinks\x1b[0m   side by side, as \
                    far as one can see them\n  a\n";
        let want = "Usage: mtun links [OPTIONS]\n       --long <LONG>\n\n  \x1b[1mlinks\x1b[0m   side by \
                    side, as far\n          as one can see them\n  a\n";
        assert_eq!(fitted(text, Some(30)), want);
        assert_eq!(fitted(text, None), text);
    }

    #[test]
    fn a_description_far_to_the_right_does_not_become_a_column_of_letters() {
        let line = "      --home-address <ADDRESS/LENGTH>  The mobile's home address";
        let text = fitted(line, Some(40));
        assert!(text.lines().all(|line| line.len() <= 40), "{text}");
        assert_eq!(text.split_whitespace().count(), line.split_whitespace().count());
    }

    #[test]
    fn colour_is_heard_on_a_line_that_is_wrong() {
        let of = |words: &[&str]| color(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["mtun", "--color", "never", "--wrong"]), Color::Never);
        assert_eq!(of(&["mtun", "--color=always"]), Color::Always);
        assert_eq!(of(&["mtun", "--color=pink"]), Color::Auto);
        assert_eq!(of(&["mtun", "--colour"]), Color::Auto);
    }
}
