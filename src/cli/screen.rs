//! Text for people: aligned, as wide as the terminal, coloured where that helps.
//!
//! A table that does not fit is turned into one block per row, so nothing is ever cut off. What
//! came from elsewhere (names, reasons) is printed without its control characters, so that
//! nobody's text can repaint somebody else's terminal.

use std::fmt::Write;
use std::io::{IsTerminal, stderr, stdout};
use std::os::fd::AsFd;

use super::Color;

/// Where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Screen {
    /// Columns; `None` if nobody counts them.
    width: Option<usize>,
    color: bool,
}

impl Screen {
    pub(super) fn of_stdout(color: Color) -> Self {
        Self::of(color, stdout().is_terminal(), || width_of(stdout().as_fd()))
    }

    pub(super) fn of_stderr(color: Color) -> Self {
        Self::of(color, stderr().is_terminal(), || width_of(stderr().as_fd()))
    }

    pub(super) fn is_colored(self) -> bool {
        self.color
    }

    pub(super) fn width(self) -> Option<usize> {
        self.width
    }

    fn of(color: Color, terminal: bool, width: impl FnOnce() -> Option<usize>) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        };
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        Self { width: columns().or_else(|| terminal.then(width).flatten()), color }
    }
}

fn width_of(terminal: std::os::fd::BorrowedFd<'_>) -> Option<usize> {
    use std::os::fd::AsRawFd;
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and `size` is what this request writes.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// What a text is to the reader; the colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Title,
}

impl Tone {
    /// What a terminal is told before the text.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Title => "\x1b[1m",
        }
    }
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl ToString) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(super) fn toned(text: impl ToString, tone: Tone) -> Self {
        Self { text: printable(&text.to_string()), tone }
    }

    /// The value, or the word that says what its absence means.
    pub(super) fn or(value: Option<impl ToString>, absent: &str) -> Self {
        value.map_or_else(|| Self::new(absent), Self::new)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Text that grows line by line.
#[derive(Debug)]
pub(super) struct Page {
    screen: Screen,
    text: String,
}

impl Page {
    pub(super) fn new(screen: Screen) -> Self {
        Self { screen, text: String::new() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// A line as it is.
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(&printable(line));
        self.text.push('\n');
    }

    /// A text of our own making, tabs and all: a file for others to read.
    pub(super) fn verbatim(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// `word: text`, the word in its tone.
    pub(super) fn sentence(&mut self, tone: Tone, word: &str, text: &str) {
        self.toned(tone, &printable(word));
        // A message of several lines keeps them.
        let room = self.screen.width.map(|width| width.saturating_sub(word.chars().count() + 2));
        let lines: Vec<String> =
            text.lines().flat_map(|line| broken(&printable(line), room)).collect();
        writeln!(self.text, ": {}", lines.join("\n  ")).expect("a String takes everything");
    }

    /// A text behind a prefix, broken between words where it does not fit.
    pub(super) fn hanging(&mut self, prefix: &str, text: &str) {
        let indent = prefix.chars().count();
        let room = self.screen.width.map(|width| width.saturating_sub(indent));
        let lines: Vec<String> =
            text.lines().flat_map(|line| broken(&printable(line), room)).collect();
        let lines = lines.join(&format!("\n{}", " ".repeat(indent)));
        writeln!(self.text, "{prefix}{lines}").expect("a String takes everything");
    }

    /// A text in lines that all begin with a prefix, such as the mark of a comment.
    pub(super) fn prefixed(&mut self, prefix: &str, text: &str) {
        let room = self.screen.width.map(|width| width.saturating_sub(prefix.chars().count()));
        for line in text.lines().flat_map(|line| broken(&printable(line), room)) {
            writeln!(self.text, "{prefix}{line}").expect("a String takes everything");
        }
    }

    /// A moment and what happened at it.
    pub(super) fn stamped(&mut self, moment: &str, tone: Tone, text: &str) {
        self.text.push_str(moment);
        self.text.push_str("  ");
        self.toned(tone, &printable(text));
        self.text.push('\n');
    }

    /// Names and values, the values aligned and broken between words where they do not fit.
    pub(super) fn facts(&mut self, facts: &[(&str, Cell)]) {
        let indent = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
        let room = self.screen.width.map(|width| width.saturating_sub(indent));
        for (name, value) in facts {
            self.toned(Tone::Title, name);
            let mut gap = indent - name.len();
            for line in broken(&value.text, room) {
                self.text.push_str(&" ".repeat(gap));
                self.toned(value.tone, &line);
                self.text.push('\n');
                gap = indent;
            }
        }
    }

    /// A table with an empty line before it, or `empty` if it has no rows.
    pub(super) fn table(&mut self, heads: &[&str], rows: &[Vec<Cell>], empty: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        if rows.is_empty() {
            self.line(empty);
            return;
        }
        let width_of = |column: usize| {
            let cells = rows.iter().map(|row| row[column].width());
            cells.max().unwrap_or(0).max(heads[column].len())
        };
        let widths: Vec<usize> = (0..heads.len()).map(width_of).collect();
        let total = widths.iter().sum::<usize>() + 2 * (heads.len() - 1);
        if self.screen.width.is_some_and(|width| total > width) {
            self.blocks(heads, rows);
            return;
        }
        let heads: Vec<Cell> = heads.iter().map(|head| Cell::toned(head, Tone::Title)).collect();
        for row in std::iter::once(&heads).chain(rows) {
            let last = row.len() - 1;
            for (column, cell) in row.iter().enumerate() {
                self.toned(cell.tone, &cell.text);
                if column < last {
                    let gap = " ".repeat(widths[column] - cell.width() + 2);
                    self.text.push_str(&gap);
                }
            }
            self.text.push('\n');
        }
    }

    /// A row as a block of lines, for terminals that are too narrow for the table.
    fn blocks(&mut self, heads: &[&str], rows: &[Vec<Cell>]) {
        for (number, row) in rows.iter().enumerate() {
            if number > 0 {
                self.text.push('\n');
            }
            let facts: Vec<(&str, Cell)> = heads.iter().copied().zip(row.iter().cloned()).collect();
            self.facts(&facts);
        }
    }

    fn toned(&mut self, tone: Tone, text: &str) {
        match tone.code() {
            code if self.screen.color && !code.is_empty() => {
                write!(self.text, "{code}{text}\x1b[0m").expect("a String takes everything");
            }
            _ => self.text.push_str(text),
        }
    }
}

/// Lines of at most `room` characters, except for longer words; the text as it is if it fits. What
/// stands in backticks is to be copied, and stays in one line if that has room for it.
fn broken(text: &str, room: Option<usize>) -> Vec<String> {
    let length = |text: &str| text.chars().count();
    let Some(room) = room.filter(|room| length(text) > *room) else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in words(text, room) {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(&word);
        } else if length(line) + 1 + length(&word) <= room {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

/// The words of a text; what stands in backticks is one, unless it is longer than a line.
fn words(text: &str, room: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    let close = |parts: Vec<&str>, words: &mut Vec<String>| {
        let whole = parts.join(" ");
        match whole.chars().count() <= room {
            true => words.push(whole),
            false => words.extend(parts.into_iter().map(str::to_owned)),
        }
    };
    for word in text.split_whitespace() {
        let turns = word.matches('`').count() % 2 == 1;
        match (open.take(), turns) {
            (None, false) => words.push(word.to_owned()),
            (None, true) => open = Some(vec![word]),
            (Some(mut parts), turns) => {
                parts.push(word);
                match turns {
                    true => close(parts, &mut words),
                    false => open = Some(parts),
                }
            }
        }
    }
    // A backtick that is never closed quotes nothing.
    words.extend(open.into_iter().flatten().map(str::to_owned));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: Option<usize>, color: bool) -> String {
        let mut page = Page::new(Screen { width, color });
        let rows = [
            vec![Cell::new("wlan0"), Cell::toned("up", Tone::Good), Cell::or(Some(1), "none")],
            vec![Cell::new("wwan0\x1b[2J"), Cell::new("down"), Cell::or(None::<u8>, "none")],
        ];
        page.table(&["LINK", "STATE", "BID"], &rows, "no links");
        page.into_text()
    }

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let want = "LINK       STATE  BID\n\
                    wlan0      up     1\n\
                    wwan0\u{fffd}[2J  down   none\n";
        assert_eq!(page(None, false), want);
        assert_eq!(page(Some(22), false), want, "it just fits");
    }

    #[test]
    fn a_narrow_terminal_gets_blocks() {
        let want = "LINK   wlan0\nSTATE  up\nBID    1\n\n\
                    LINK   wwan0\u{fffd}[2J\nSTATE  down\nBID    none\n";
        assert_eq!(page(Some(21), false), want);
    }

    #[test]
    fn long_facts_are_broken_between_words() {
        let mut page = Page::new(Screen { width: Some(16), color: false });
        page.facts(&[("why", Cell::new("one two three")), ("how", Cell::new("averyverylongword"))]);
        assert_eq!(page.into_text(), "why  one two\n     three\nhow  averyverylongword\n");
    }

    #[test]
    fn long_sentences_are_broken_too() {
        let mut page = Page::new(Screen { width: Some(20), color: false });
        page.sentence(Tone::Good, "policy", "one two three four\nfive");
        assert_eq!(page.into_text(), "policy: one two\n  three four\n  five\n");
    }

    #[test]
    fn what_hangs_behind_a_prefix_is_aligned() {
        let mut page = Page::new(Screen { width: Some(16), color: false });
        page.hanging("  = ", "one two three four");
        assert_eq!(page.into_text(), "  = one two\n    three four\n");
    }

    #[test]
    fn what_is_to_be_copied_stays_in_one_line() {
        let said = |text: &str| broken(text, Some(16));
        assert_eq!(said("start it by `mtun demo` or"), ["start it by", "`mtun demo` or"]);
        assert_eq!(
            said("or `mtun demo --keep --verbose`"),
            ["or `mtun demo", "--keep", "--verbose`"]
        );
        assert_eq!(said("a ` that is never closed"), ["a ` that is", "never closed"]);
    }

    #[test]
    fn a_comment_is_one_in_each_of_its_lines() {
        let mut page = Page::new(Screen { width: Some(14), color: false });
        page.prefixed("// ", "one two three four");
        assert_eq!(page.into_text(), "// one two\n// three four\n");
    }

    #[test]
    fn colour_only_where_asked() {
        assert!(page(None, true).contains("\x1b[32mup\x1b[0m"));
        assert!(!page(None, false).contains('\x1b'));
    }

    #[test]
    fn an_empty_table_says_so() {
        let mut page = Page::new(Screen { width: None, color: false });
        page.table(&["LINK"], &[], "no links");
        assert_eq!(page.into_text(), "no links\n");
    }
}
