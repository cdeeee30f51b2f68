//! `mtun.kdl(5)`: the policy language as a manual page, from the tables that files are held against.

use mtun_policy::{Meaning, NodeSchema, Schema};

/// The page in the language of `man`.
pub(super) fn page(schema: &Schema) -> String {
    let mut page = Page::default();
    page.raw(&format!(".TH MTUN.KDL 5 \"\" \"mtun {}\" \"mtun\"", env!("CARGO_PKG_VERSION")));
    page.section("NAME");
    page.text("mtun.kdl - the policy of a node, router, home agent or correspondent");
    page.section("DESCRIPTION");
    page.text(
        "A policy is one KDL version 2 file and what it includes. One node is one thing; its name is \
         the first argument, options are properties, lists are arguments or nodes in the block. \
         Values with a unit are quoted with the unit: `\"30s\"`, `\"5km/h\"`, `\"20GB\"`. Unknown \
         words are errors, and so is whatever is said twice. `mtun init` writes a file to begin with, \
         `mtun policy check FILE` names every fault with its line and a fix.",
    );
    page.section("NODES");
    schema.nodes.iter().for_each(|node| page.node(node));
    page.section("SUPPOSITIONS");
    page.text("What `given` may suppose, in a file's tests and behind a flow on the command line:");
    schema.suppositions.iter().for_each(|word| page.word(word));
    page.section("MEANING");
    schema.decisions.iter().for_each(|word| page.word(word));
    page.section("DIAGNOSTICS");
    for code in &schema.diagnostics {
        page.tagged(code.code, code.meaning);
    }
    page.section("FILES");
    page.tagged("/etc/mtun/mtun.kdl", "what the service reads");
    page.section("SEE ALSO");
    page.raw(".BR mtun (1),\n.BR mtun-policy (1),\n.BR mtun-init (1),\n.BR mtund (8)");
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn raw(&mut self, lines: &str) {
        self.0.push_str(lines);
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.raw(&format!(".SH {title}"));
    }

    fn text(&mut self, text: &str) {
        self.raw(&escaped(text));
    }

    fn tagged(&mut self, tag: &str, text: &str) {
        self.raw(".TP");
        self.raw(&format!("\\fB{}\\fR", escaped(tag)));
        self.text(text);
    }

    fn word(&mut self, Meaning { name, meaning }: &Meaning) {
        self.tagged(name, meaning);
    }

    fn node(&mut self, node: &NodeSchema) {
        self.raw(&format!(".SS \"{}\"", escaped(&node.path.join(" / "))));
        self.text(node.meaning);
        let mut facts = Vec::new();
        facts.extend(node.argument.as_ref().map(|argument| format!("Takes {argument}.")));
        if node.many {
            facts.push("May stand several times.".to_owned());
        }
        if !node.nodes.is_empty() {
            facts.push(format!("In its block: {}.", node.nodes.join(", ")));
        }
        if !node.not_supported.is_empty() {
            facts.push(format!("Refused by this version: {}.", node.not_supported.join(", ")));
        }
        if !facts.is_empty() {
            self.raw(".PP");
            self.text(&facts.join(" "));
        }
        node.properties.iter().for_each(|property| self.word(property));
    }
}

/// A text as it is; what stands between backticks is bold.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut bold = false;
    // What begins a line like a command of the language is none.
    if text.starts_with(['.', '\'']) {
        plain.push_str("\\&");
    }
    for letter in text.chars() {
        match letter {
            '`' => {
                bold = !bold;
                plain.push_str(if bold { "\\fB" } else { "\\fR" });
            }
            '\\' => plain.push_str("\\e"),
            '-' => plain.push_str("\\-"),
            '"' => plain.push_str("\\(dq"),
            '\n' => plain.push(' '),
            other if other.is_ascii() => plain.push(other),
            other => plain.push_str(&format!("\\[u{:04X}]", u32::from(other))),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_language_of_man_would_read_is_text() {
        for (text, want) in [
            (".TH", "\\&.TH"),
            ("'quoted'", "\\&'quoted'"),
            ("a `b-c` d", "a \\fBb\\-c\\fR d"),
            ("say \"30s\"", "say \\(dq30s\\(dq"),
            ("back\\slash", "back\\eslash"),
            ("rule × link", "rule \\[u00D7] link"),
        ] {
            assert_eq!(escaped(text), want);
        }
    }
}
