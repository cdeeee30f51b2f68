//! The words of a filter and where they stand.

/// A word of the text and the octet at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub text: &'t str,
    pub at: usize,
}

/// Words, with `=`, `->` and parentheses as words of their own.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (at, word) in words(text) {
        let mut at = at;
        let mut rest = word;
        while !rest.is_empty() {
            let own = if rest.starts_with("->") {
                2
            } else {
                usize::from(rest.starts_with(['=', '(', ')', '!']))
            };
            let ends = |(at, c): &(usize, char)| {
                matches!(c, '=' | '(' | ')') || rest[*at..].starts_with("->")
            };
            let length = match own {
                0 => rest.char_indices().find(ends).map_or(rest.len(), |(at, _)| at),
                own => own,
            };
            tokens.push(Token { text: &rest[..length], at });
            at += length;
            rest = &rest[length..];
        }
    }
    tokens
}

/// Pieces without white space and the octets at which they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let base = text.as_ptr() as usize;
    text.split_whitespace().map(move |word| (word.as_ptr() as usize - base, word))
}
