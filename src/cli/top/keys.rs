//! Keys as a terminal sends them.

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    /// Ctrl-C, or the terminal is gone.
    End,
}

/// What a key asks for beyond another picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// The daemon at once.
    Ask,
    Quit,
}

/// Reads the keys of what came at once; what is no key of ours is passed over.
pub(super) fn parse(octets: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let text = String::from_utf8_lossy(octets);
    let mut rest = text.as_ref();
    let sequences = [
        ("\x1b[A", Key::Up),
        ("\x1b[B", Key::Down),
        ("\x1bOA", Key::Up),
        ("\x1bOB", Key::Down),
        ("\x1b[5~", Key::PageUp),
        ("\x1b[6~", Key::PageDown),
    ];
    'keys: while let Some(letter) = rest.chars().next() {
        for (sequence, key) in sequences {
            if let Some(behind) = rest.strip_prefix(sequence) {
                keys.push(key);
                rest = behind;
                continue 'keys;
            }
        }
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\x03' => keys.push(Key::End),
            '\r' | '\n' => keys.push(Key::Enter),
            '\x7f' | '\x08' => keys.push(Key::Backspace),
            '\x1b' => match rest.strip_prefix('[') {
                // Another key's sequence, up to its last letter.
                Some(sequence) => {
                    let end = sequence.find(|it: char| it.is_ascii_alphabetic() || it == '~');
                    rest = end.map_or("", |end| &sequence[end + 1..]);
                }
                None => keys.push(Key::Escape),
            },
            letter if !letter.is_control() => keys.push(Key::Letter(letter)),
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let cases: &[(&[u8], &[Key])] = &[
            (b"q", &[Key::Letter('q')]),
            (b"\x1b[A\x1b[B", &[Key::Up, Key::Down]),
            (b"\x1b", &[Key::Escape]),
            (b"\x1b[15~x", &[Key::Letter('x')]),
            (b"\x03", &[Key::End]),
            (b"22\r\x7f", &[Key::Letter('2'), Key::Letter('2'), Key::Enter, Key::Backspace]),
            (b"\x1b[", &[]),
        ];
        for (octets, want) in cases {
            assert_eq!(parse(octets), *want, "{octets:?}");
        }
    }
}
