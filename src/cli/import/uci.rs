//! The form of OpenWrt's configuration files: sections with options and lists.
//!
//! ```text
//! config rule 'https'
//!         option proto 'tcp'
//!         list use_member "wan_m1"
//! ```

/// One section, `config KIND NAME`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: String,
    /// Its name; `None` for one without.
    pub(super) name: Option<String>,
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// Options and items of lists, in their order.
    pub(super) entries: Vec<(String, String)>,
}

impl Section {
    /// The option of this name; of several the last, as OpenWrt has it.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.items(name).last()
    }

    /// The items of a list.
    pub(super) fn items<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> {
        let entries = self.entries.iter().filter(move |(known, _)| known == name);
        entries.map(|(_, value)| value.as_str()).collect::<Vec<_>>().into_iter()
    }

    /// Whether a switch is on; `default` where nothing is said.
    pub(super) fn is_on(&self, name: &str, default: bool) -> bool {
        match self.option(name) {
            Some("1" | "yes" | "on" | "true" | "enabled") => true,
            Some(_) => false,
            None => default,
        }
    }
}

/// Reads a file; an error says the line and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let words = words(line).map_err(|fault| format!("line {number}: {fault}"))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [] | ["package", _] => {}
            ["config", kind] => sections.push(section(kind, None, number)),
            ["config", kind, name] => sections.push(section(kind, Some(name), number)),
            ["option" | "list", name, value] => {
                let Some(section) = sections.last_mut() else {
                    return Err(format!("line {number}: {name} stands before every section"));
                };
                section.entries.push((name.to_owned(), value.to_owned()));
            }
            [word, ..] => {
                return Err(format!("line {number}: {word} begins neither section nor option"));
            }
        }
    }
    Ok(sections)
}

fn section(kind: &str, name: Option<&str>, line: usize) -> Section {
    Section { kind: kind.to_owned(), name: name.map(str::to_owned), line, entries: Vec::new() }
}

/// The words of a line: bare, or in quotes of either kind; `#` begins a comment.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut letters = line.chars().peekable();
    while let Some(&letter) = letters.peek() {
        match letter {
            '#' => break,
            letter if letter.is_whitespace() => {
                letters.next();
            }
            _ => {
                let mut word = String::new();
                while let Some(letter) = letters.next_if(|it| !it.is_whitespace()) {
                    match letter {
                        quote @ ('\'' | '"') => loop {
                            match letters.next() {
                                Some(end) if end == quote => break,
                                Some('\\') if quote == '"' => word.extend(letters.next()),
                                Some(letter) => word.push(letter),
                                None => return Err("a quote is never closed"),
                            }
                        },
                        letter => word.push(letter),
                    }
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_bare_or_quoted() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("# nothing", &[]),
            ("\toption proto 'tcp'  # why", &["option", "proto", "tcp"]),
            ("option a \"it's\" ", &["option", "a", "it's"]),
            ("option a 'one'\"two\"", &["option", "a", "onetwo"]),
            ("list b ''", &["list", "b", ""]),
        ];
        for (line, want) in cases {
            assert_eq!(words(line).unwrap(), *want, "{line}");
        }
        assert!(words("option a 'open").is_err());
    }

    #[test]
    fn faults_name_their_line() {
        let cases = [
            ("option a b\n", "line 1: a stands before every section"),
            ("config rule x\nfoo bar\n", "line 2: foo begins neither section nor option"),
            ("\nconfig rule 'x\n", "line 2: a quote is never closed"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).unwrap_err(), want);
        }
    }

    #[test]
    fn of_two_options_the_last_counts() {
        let sections = parse("config rule\n option a 1\n option a 0\n list l x\n list l y\n");
        let sections = sections.unwrap();
        assert_eq!(sections[0].option("a"), Some("0"));
        assert!(!sections[0].is_on("a", true) && sections[0].is_on("b", true));
        assert_eq!(sections[0].items("l").collect::<Vec<_>>(), ["x", "y"]);
    }
}
