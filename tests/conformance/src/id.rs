//! Ids of requirements in running text: `MC-01`, `R-MN-02`, and `tn_08` at the start of a test's
//! name.

/// Every id that the text names, in order, repeated ones as well.
pub(crate) fn ids(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    words.filter_map(id).collect()
}

fn id(word: &str) -> Option<String> {
    if is_id(word) {
        return Some(word.to_owned());
    }
    let (family, rest) = word.split_once('_')?;
    let (number, _) = rest.split_once('_')?;
    let lower = family.bytes().all(|octet| octet.is_ascii_lowercase());
    let name = format!("{}-{number}", family.to_ascii_uppercase());
    (lower && is_id(&name)).then_some(name)
}

/// Whether the word is an id: two or three capitals, a hyphen, two digits; `R-` may come first.
pub(crate) fn is_id(word: &str) -> bool {
    let word = word.strip_prefix("R-").unwrap_or(word);
    let Some((family, number)) = word.split_once('-') else { return false };
    matches!(family.len(), 2..=3)
        && family.bytes().all(|octet| octet.is_ascii_uppercase())
        && number.len() == 2
        && number.bytes().all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn what_is_an_id() {
        let text = "req MC-01, R-MN-02 (RFC 6275) fn tn_08_too_big AES-256 X-1 MC-123 C8";
        assert_eq!(ids(text), ["MC-01", "R-MN-02", "TN-08"]);
    }
}
