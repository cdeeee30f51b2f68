//! Words, numbers and strings, as the guard reads them.

use super::{Guard, State};
use crate::diagnostic::Code;
use crate::source::Span;

impl Guard<'_> {
    pub(super) fn quoted(&mut self) {
        let begin = self.at;
        if self.rest().starts_with("\"\"\"") {
            return self.fault(
                begin,
                3,
                "multi-line strings are not used in a policy",
                "write the string on one line, in `\"`",
            );
        }
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = begin + at + 1;
                    return self.word(begin, true);
                }
                '\n' | '\r' => break,
                '\\' => {
                    let rest = &self.rest()[at + 1..];
                    match escape_length(rest) {
                        Some(length) => {
                            for _ in 0..length {
                                chars.next();
                            }
                        }
                        None => {
                            let length = 1 + rest.chars().next().map_or(0, char::len_utf8);
                            return self.fault(
                                begin + at,
                                length,
                                "an escape that KDL does not have",
                                "write a backslash as `\\\\`",
                            );
                        }
                    }
                }
                _ if unseen(c) => {
                    self.at = begin + at;
                    return self.unusual(c);
                }
                _ => {}
            }
        }
        self.fault(begin, 1, "this string is not closed on its line", "add the missing `\"`");
    }

    pub(super) fn hash(&mut self) {
        let begin = self.at;
        let rest = self.rest();
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let body = &rest[hashes..];
        if let Some(content) = body.strip_prefix('"') {
            let closing = format!("\"{}", "#".repeat(hashes));
            let line = content.find('\n').map_or(content, |end| &content[..end]);
            if content.starts_with("\"\"") {
                return self.fault(
                    begin,
                    hashes + 1,
                    "multi-line strings are not used in a policy",
                    "write the string on one line",
                );
            }
            return match line.find(&closing) {
                Some(end) if !line[..end].contains(unseen) => {
                    self.at = begin + hashes + 1 + end + closing.len();
                    self.word(begin, true);
                }
                Some(_) => self.fault(
                    begin,
                    hashes + 1,
                    "a character that is not seen stands in this string",
                    "remove it",
                ),
                None => self.fault(
                    begin,
                    hashes + 1,
                    "this string is not closed on its line",
                    format!("close it with `{closing}`"),
                ),
            };
        }
        let length = 1 + rest[1..].find(ends_word).unwrap_or(rest.len() - 1);
        if matches!(&rest[..length], "#true" | "#false" | "#null") {
            self.at += length;
            return self.word(begin, false);
        }
        self.fault(
            begin,
            length,
            format!("`{}` is not a value", &rest[..length]),
            "values with `#` are #true, #false and #null; comments begin with `//`",
        );
    }

    pub(super) fn bare(&mut self) {
        let begin = self.at;
        let rest = self.rest();
        let length = rest.find(ends_word).unwrap_or(rest.len());
        let word = &rest[..length];
        let behind = &rest[length..];
        if word == "r" && (behind.starts_with('"') || behind.starts_with("#\"")) {
            self.old = Some((
                Span::new(self.source, begin, 1),
                "raw strings begin with `#\"`, not with `r`",
            ));
            return;
        }
        if matches!(word, "true" | "false" | "null") && self.state != State::Begin {
            self.old = Some((
                Span::new(self.source, begin, length),
                "it has true, false or null without `#`",
            ));
            return;
        }
        if matches!(word, "inf" | "-inf" | "nan" | "true" | "false" | "null") {
            return self.fault(
                begin,
                length,
                format!("`{word}` cannot stand here unquoted"),
                "quote it",
            );
        }
        let unsigned = word.trim_start_matches(['+', '-']);
        let digit = unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
        if digit && word.len() - unsigned.len() <= 1 {
            if is_number(word) {
                self.at += length;
                return self.word(begin, false);
            }
            return self.unquoted(begin, word.to_owned());
        }
        self.at += length;
        self.word(begin, true);
    }

    /// Something that begins with a digit and is no number.
    fn unquoted(&mut self, begin: usize, word: String) {
        // An address or prefix goes on behind characters that end a bare word.
        let all = self
            .rest()
            .find([' ', '\t', '\n', '\r', ';', '{', '}', '"'])
            .unwrap_or(self.rest().len());
        let whole = self.rest()[..all].to_owned();
        let number = word.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let radix = ["0x", "0o", "0b"].iter().any(|prefix| word.starts_with(prefix));
        if !radix
            && !number.is_empty()
            && number.len() < word.len()
            && is_number(number)
            && whole == word
        {
            self.fault_of(
                Code::Unit,
                begin,
                word.len(),
                format!("`{word}` is a value with a unit and has to be quoted"),
                format!("write \"{word}\""),
            );
        } else {
            self.fault(
                begin,
                whole.len(),
                format!("`{whole}` begins like a number and is none"),
                if radix {
                    "write digits behind it, as in 0x1001".to_owned()
                } else {
                    format!("write \"{whole}\"")
                },
            );
        }
    }

    pub(super) fn unusual(&mut self, c: char) {
        self.fault(
            self.at,
            c.len_utf8(),
            format!(
                "the character U+{:04X} is not seen on the screen and is not accepted",
                u32::from(c)
            ),
            "type the line again; it was probably copied from a page",
        );
    }
}

/// Length in characters of the escape behind a backslash.
fn escape_length(rest: &str) -> Option<usize> {
    match rest.chars().next()? {
        '\\' | '"' | 'b' | 'f' | 'n' | 'r' | 't' | 's' => Some(1),
        'u' => {
            let (digits, _) = rest.strip_prefix("u{")?.split_once('}')?;
            let valid =
                (1..=6).contains(&digits.len()) && digits.bytes().all(|d| d.is_ascii_hexdigit());
            let number = u32::from_str_radix(digits, 16).ok().filter(|_| valid)?;
            char::from_u32(number).map(|_| digits.len() + 3)
        }
        _ => None,
    }
}

/// Characters that end a bare word.
fn ends_word(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t'
            | '\n'
            | '\r'
            | '\\'
            | '/'
            | '('
            | ')'
            | '{'
            | '}'
            | '['
            | ']'
            | ';'
            | '"'
            | '#'
            | '='
    ) || unseen(c)
}

/// Characters that look like nothing or like another, and line breaks that few tools count.
pub(super) fn unseen(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' | '\u{1680}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
}

/// A number as KDL v2 writes it, short enough for every number type.
fn is_number(word: &str) -> bool {
    if word.len() > 24 {
        return false;
    }
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let digits = |text: &str, radix: u32| {
        text.starts_with(|c: char| c.is_digit(radix))
            && text.chars().all(|c| c == '_' || c.is_digit(radix))
    };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(text) = unsigned.strip_prefix(prefix) {
            return digits(text, radix);
        }
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
        }
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole, 10)
        && fraction.is_none_or(|f| digits(f, 10))
        && exponent.is_none_or(|e| digits(e, 10))
}
