//! The form, and that it changes nothing else.

use proptest::prelude::*;

use super::lexeme::{Lexeme, lexemes};
use super::*;

fn formatted(text: &str) -> String {
    format_text("x.kdl", text).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn nodes(text: &str) -> Vec<Read> {
    let mut sink = Sink::default();
    let mut sources = Sources::default();
    let source = sources.add("x.kdl", text.to_owned());
    reader::read(source, text, &mut sink).expect("the text is well-formed")
}

fn comments(text: &str) -> Vec<String> {
    let mut found: Vec<String> = lexemes(text)
        .into_iter()
        .filter_map(|lexeme| match lexeme {
            Lexeme::Line(text) | Lexeme::Block(text) | Lexeme::Continued(Some(text)) => {
                Some(text.to_owned())
            }
            _ => None,
        })
        .collect();
    found.sort();
    found
}

#[test]
fn the_form() {
    // (what, as written, as formatted)
    let cases: &[(&str, &str, &str)] = &[
        ("nothing", "", ""),
        ("empty lines only", "\n\n \n", ""),
        ("spaces", "  role   \"mobile-node\"  ", "role \"mobile-node\"\n"),
        ("several on a line", "role a;bid 1", "role a\nbid 1\n"),
        ("properties", "include a optional = #true", "include a optional=#true\n"),
        ("empty lines", "\n\nrole a\n\n\n\nbid 1\n\n", "role a\n\nbid 1\n"),
        (
            "a block of several lines",
            "interface a {\n\n\tbid 1; class x\n\n\n  priority 2 }",
            "interface a {\n    bid 1\n    class x\n\n    priority 2\n}\n",
        ),
        ("a block on one line", "interface a{bid 1;class x;}", "interface a { bid 1; class x }\n"),
        ("an empty block", "interface a {\n}", "interface a {}\n"),
        ("a comment beside", "role a// b  \n", "role a // b\n"),
        (
            "comments around",
            "// a\nhome b { // c\n// d\nagent e; // f\n/* g */ tunnel h /* i */\n// j\n} // k\n// l",
            "// a\nhome b { // c\n    // d\n    agent e // f\n    /* g */\n    tunnel h /* i */\n    // j\n} // k\n// l\n",
        ),
        (
            "comments where a line goes on",
            "group a { port 1 \\ // b\n  2 /* c */ 3 }",
            "group a {\n    // b\n    port 1 2 /* c */ 3\n}\n",
        ),
        (
            "a comment beside `=`",
            "include a optional /* b */ = #true",
            "include a optional=#true /* b */\n",
        ),
        (
            "what is taken out",
            "/- kdl-version 2\n/-role a\ninterface b { /-bid 1; class /- x y }",
            "/- kdl-version 2\n/- role a\ninterface b { /- bid 1; class /- x y }\n",
        ),
        (
            "a property that is taken out",
            "include a /-optional=#true",
            "include a /- optional=#true\n",
        ),
        ("lines of others", "\u{feff}role a\r\n\r\nbid 1 // b\r\n", "role a\n\nbid 1 // b\n"),
        (
            "strings are left alone",
            "role #\"a  b\"#; bid \" c ; d // e \"",
            "role #\"a  b\"#\nbid \" c ; d // e \"\n",
        ),
        (
            "comments of several lines are left alone",
            "role a\n  /* b\n      c */\nbid 1",
            "role a\n/* b\n      c */\nbid 1\n",
        ),
    ];
    for (what, text, want) in cases {
        // Only the form is looked at; the words need not make sense where they stand.
        let mut printer = Printer { out: String::new() };
        let plain = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        printer.items(&tree::items(&lexemes(&plain)), 0);
        assert_eq!(printer.out, *want, "{what}");
        let mut again = Printer { out: String::new() };
        again.items(&tree::items(&lexemes(&printer.out)), 0);
        assert_eq!(again.out, *want, "{what}, once more");
        assert!(same(&nodes(text), &nodes(want)), "{what}");
        assert_eq!(comments(&plain), comments(want), "{what}");
    }
}

#[test]
fn long_lines_go_on() {
    let prefixes: Vec<String> = (0..9).map(|n| format!("\"2001:db8:100:{n:04x}::/64\"")).collect();
    let text = format!("group work {{ prefix {} }}", prefixes.join(" "));
    let want = r#"group work {
    prefix "2001:db8:100:0000::/64" "2001:db8:100:0001::/64" "2001:db8:100:0002::/64" \
        "2001:db8:100:0003::/64" "2001:db8:100:0004::/64" "2001:db8:100:0005::/64" \
        "2001:db8:100:0006::/64" "2001:db8:100:0007::/64" "2001:db8:100:0008::/64"
}
"#;
    assert_eq!(formatted(&text), want);
    assert_eq!(formatted(want), want);
    let longest = format!("role \"{}\"\n", "x".repeat(300));
    assert_eq!(formatted(&longest), longest, "a string is never broken");
}

#[test]
fn a_broken_file_is_refused_with_every_fault() {
    let text = "role \"mobile-node\"\nfoo 1\ninterface a { bid 1; nonsense 2 }\n";
    let faults = format_text("x.kdl", text).unwrap_err();
    let found: Vec<_> = faults.0.iter().map(|fault| (fault.code, fault.line)).collect();
    assert_eq!(found, [(Code::UnknownNode, 2), (Code::UnknownNode, 3)]);
    let faults = format_text("x.kdl", "role \"a\nbid = 3\n}\n").unwrap_err();
    assert!(faults.0.iter().all(|fault| fault.code == Code::Syntax) && faults.0.len() > 1);
}

const EXAMPLES: [&str; 5] = [
    include_str!("../../../examples/figure-11.kdl"),
    include_str!("../../../examples/mobile-node.kdl"),
    include_str!("../../../examples/home-agent.kdl"),
    include_str!("../../../examples/correspondent.kdl"),
    include_str!("../../../examples/figure-11-optimized.kdl"),
];

#[test]
fn the_examples_are_in_this_form() {
    for text in EXAMPLES {
        assert_eq!(formatted(text), text);
    }
}

/// A rule with anything that rules may say.
fn any_rule() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "match proto=tcp dport=22",
        "match proto=udp dport=\"5060,10000-20000\"",
        "match dscp=ef; exclude dst=\"2001:db8::/32\"",
        "match in=br-guest // guests",
    ]);
    let verb = prop::sample::select(vec![
        "prefer wlan0 wwan0",
        "block reply=icmp",
        "prefer @any-link; otherwise block reply=none",
        "prefer wlan0\notherwise any",
        "prefer wlan0; optimize always // straight",
    ]);
    (line, verb).prop_map(|(line, verb)| format!("rule \"r\" {{\n{line}\n{verb}\n}}\n"))
}

/// A text and how each gap between its lexemes is written.
fn any_text() -> impl Strategy<Value = (String, Vec<u8>)> {
    let rules = prop::collection::vec(any_rule(), 0..4)
        .prop_map(|rules| format!("rules {{\n{}default {{ block }}\n}}\n", rules.concat()));
    let text = prop_oneof![prop::sample::select(EXAMPLES.to_vec()).prop_map(str::to_owned), rules];
    (text, prop::collection::vec(any::<u8>(), 1..64))
}

/// The same lexemes in another form: what `dice` says stands between them.
fn messed_up(text: &str, dice: &[u8]) -> String {
    let mut out = String::new();
    let lexemes = lexemes(text);
    for (at, lexeme) in lexemes.iter().enumerate() {
        let throw = dice[at % dice.len()];
        let gap = ["", " ", "\t ", " /* gap */ ", " \\\n", " \\ // gap\n  "];
        let gap = gap[usize::from(throw) % gap.len()];
        let words = |lexeme: Option<&Lexeme<'_>>| matches!(lexeme, Some(Lexeme::Word(_)));
        match lexeme {
            Lexeme::Word(word) => out.push_str(word),
            Lexeme::Equals => out.push('='),
            Lexeme::Open => {
                out.push_str(if throw.is_multiple_of(3) { "{\n\n" } else { "{" });
                continue;
            }
            Lexeme::Close => out.push('}'),
            Lexeme::Semicolon => out.push_str(if throw.is_multiple_of(2) { ";" } else { "\n\n" }),
            Lexeme::Break => {
                out.push_str(if throw.is_multiple_of(2) { "\n" } else { " // end\n\n\n\t" });
                continue;
            }
            Lexeme::Line(comment) | Lexeme::Block(comment) => out.push_str(comment),
            Lexeme::SlashDash => {
                out.push_str("/- ");
                continue;
            }
            Lexeme::Continued(_) => out.push_str(" \\\n"),
        }
        let next = lexemes.get(at + 1);
        if words(Some(lexeme)) && (words(next) || matches!(next, Some(Lexeme::Open))) {
            out.push_str(if gap.is_empty() { " " } else { gap });
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn formatting_changes_the_form_alone((text, dice) in any_text()) {
        let text = messed_up(&text, &dice);
        let once = formatted(&text);
        prop_assert_eq!(&formatted(&once), &once);
        prop_assert!(same(&nodes(&text), &nodes(&once)), "{}\n{}", text, once);
        prop_assert_eq!(comments(&text), comments(&once));
        for line in once.lines() {
            prop_assert_eq!(line.trim_end(), line);
        }
        prop_assert!(!once.contains("\n\n\n"));
    }

    #[test]
    fn any_octets_are_formatted_or_refused(text in "[ -~\\n]{0,120}") {
        if let Ok(once) = format_text("x.kdl", &text) {
            prop_assert_eq!(&formatted(&once), &once);
        }
    }
}
