//! KDL text to lexemes, comments and line breaks included.
//!
//! Only for text that the guard has let through: every string and comment is closed here, and
//! nothing stands where it may not.

/// One piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lexeme<'t> {
    /// A word, number, keyword or string as it is written.
    Word(&'t str),
    /// `=`
    Equals,
    /// `{`
    Open,
    /// `}`
    Close,
    /// `;`
    Semicolon,
    /// The end of a line.
    Break,
    /// `// …`, without the line's end.
    Line(&'t str),
    /// `/* … */`
    Block(&'t str),
    /// `/-`
    SlashDash,
    /// `\` and the end of its line, with the comment between them.
    Continued(Option<&'t str>),
}

/// The lexemes of a text without `\r`.
pub(super) fn lexemes(text: &str) -> Vec<Lexeme<'_>> {
    let mut lexemes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (lexeme, length) = match first {
            ' ' | '\t' => (None, 1),
            '\n' => (Some(Lexeme::Break), 1),
            '=' => (Some(Lexeme::Equals), 1),
            '{' => (Some(Lexeme::Open), 1),
            '}' => (Some(Lexeme::Close), 1),
            ';' => (Some(Lexeme::Semicolon), 1),
            '/' if rest.starts_with("//") => {
                let length = line_end(rest);
                (Some(Lexeme::Line(rest[..length].trim_end())), length)
            }
            '/' if rest.starts_with("/*") => {
                let length = block_comment(rest);
                (Some(Lexeme::Block(&rest[..length])), length)
            }
            '/' => (Some(Lexeme::SlashDash), 2.min(rest.len())),
            '\\' => {
                let length = line_end(rest);
                let comment = Some(rest[1..length].trim()).filter(|comment| !comment.is_empty());
                (Some(Lexeme::Continued(comment)), (length + 1).min(rest.len()))
            }
            '"' => word(rest, quoted(rest)),
            '#' => word(rest, raw(rest)),
            _ => word(rest, rest.find(ends_word).unwrap_or(rest.len())),
        };
        lexemes.extend(lexeme);
        rest = &rest[length.max(first.len_utf8())..];
    }
    lexemes
}

fn word(rest: &str, length: usize) -> (Option<Lexeme<'_>>, usize) {
    (Some(Lexeme::Word(&rest[..length])), length)
}

fn line_end(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// Length of a comment that begins here; such comments nest.
fn block_comment(rest: &str) -> usize {
    let octets = rest.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(pair) = octets.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth = depth.saturating_sub(1),
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of a string in `"`.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a raw string, or of a keyword such as `#true`.
fn raw(rest: &str) -> usize {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    match rest[hashes..].strip_prefix('"') {
        Some(content) => {
            let closing = format!("\"{}", "#".repeat(hashes));
            let end = content.find(&closing).map(|end| hashes + 1 + end + closing.len());
            end.unwrap_or(rest.len())
        }
        None => hashes + rest[hashes..].find(ends_word).unwrap_or(rest.len() - hashes),
    }
}

fn ends_word(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\\' | '/' | '{' | '}' | ';' | '"' | '#' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use Lexeme::{Block, Break, Close, Continued, Equals, Line, Open, Semicolon, SlashDash, Word};

    #[test]
    fn every_kind_of_lexeme() {
        let text = "a \"b \\\" c\" #\"d \" e\"# #true=0x1f; // f \n/- g { /* h /* i */ */ j }\\ // k\nl \\\n";
        let want = [
            Word("a"),
            Word("\"b \\\" c\""),
            Word("#\"d \" e\"#"),
            Word("#true"),
            Equals,
            Word("0x1f"),
            Semicolon,
            Line("// f"),
            Break,
            SlashDash,
            Word("g"),
            Open,
            Block("/* h /* i */ */"),
            Word("j"),
            Close,
            Continued(Some("// k")),
            Word("l"),
            Continued(None),
        ];
        assert_eq!(lexemes(text), want);
    }

    #[test]
    fn any_text_comes_to_an_end() {
        for text in ["/", "\"", "\"\\", "#", "#\"", "/*", "/*/", "\\", "(", "é\u{1f}", "##\"\"#"] {
            assert!(lexemes(text).len() <= text.len(), "{text}");
        }
    }
}
