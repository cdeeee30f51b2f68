//! Takes out of a text what looks like a key.
//!
//! Policies name keys and do not hold them, so this finds nothing in an ordinary report; it is for
//! the key that somebody pasted where none belongs.

/// Hexadecimal digits from which on a run of them counts as a key: 128 bits.
const HEX: usize = 32;

/// The same in base64: 192 bits.
const BASE64: usize = 32;

/// What stands in its place.
const INSTEAD: &str = "[taken out]";

/// The text without keys, and how many there were.
pub(super) fn secrets(text: &str) -> (String, usize) {
    let mut kept = String::with_capacity(text.len());
    let mut taken = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.find(|it: char| !in_key(it)).unwrap_or(rest.len());
        if length == 0 {
            let next = rest.find(in_key).unwrap_or(rest.len());
            kept.push_str(&rest[..next]);
            rest = &rest[next..];
            continue;
        }
        let (run, behind) = rest.split_at(length);
        if is_key(run) {
            kept.push_str(INSTEAD);
            taken += 1;
        } else {
            kept.push_str(run);
        }
        rest = behind;
    }
    (kept, taken)
}

fn in_key(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=')
}

fn is_key(run: &str) -> bool {
    let digits = run.strip_prefix("0x").unwrap_or(run);
    if digits.len() >= HEX && digits.chars().all(|it| it.is_ascii_hexdigit()) {
        return true;
    }
    // Paths and long words have letters of one kind, or few digits.
    let has = |kind: fn(&char) -> bool| run.chars().filter(kind).count() >= 3;
    run.len() >= BASE64
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_and_the_rest_stays() {
        let cases = [
            ("key 00112233445566778899aabbccddeeff end", "key [taken out] end", 1),
            ("0x00112233445566778899AABBCCDDEEFF", "[taken out]", 1),
            ("k=\"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=\"", "k=\"[taken out]\"", 1),
            ("token 8f14e45fceea167a5a36dedd4bea2543,", "token [taken out],", 1),
            ("from 2001:db8:100:4200::10 to fe80::1 dev wlan0", "", 0),
            ("/usr/share/doc/mtun/examples/site/something", "", 0),
            ("ImaginaryLongCamelCaseWordsWithoutDigits", "", 0),
            ("20010db8010042000000000000000", "", 0),
        ];
        for (text, want, count) in cases {
            let want = if count == 0 { text } else { want };
            assert_eq!(secrets(text), (want.to_owned(), count), "{text}");
        }
    }
}
