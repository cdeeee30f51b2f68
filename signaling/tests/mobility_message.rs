//! Messages that clients send to the mobility socket: any octets, and those of the fuzz target's
//! corpus.

#[path = "support/mobility_message.rs"]
mod oracle;
mod support;

use proptest::prelude::*;

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let (mut read, mut messages) = (0, 0);
    for entry in std::fs::read_dir(support::file("../fuzz/corpus/mobility_message")).expect("there")
    {
        let path = entry.expect("a readable entry").path();
        let octets = std::fs::read(&path).expect("a file of the corpus");
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let refused = name.is_some_and(|name| name.starts_with("refused"));
        assert_eq!(oracle::check(&octets), !refused, "{}", path.display());
        read += 1;
        messages += usize::from(!refused);
    }
    assert!(read >= 30 && messages >= 12, "only {read} files with {messages} messages");
}

/// Pieces of JSON that are nearly messages.
fn pieces() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("type"),
        Just("command"),
        Just("link"),
        Just("bid"),
        Just("home"),
        Just("care_of"),
        Just("home_address"),
        Just("peer"),
        Just("role"),
        Just("prefixes"),
        Just("state"),
    ];
    let value = prop_oneof![
        Just("\"MD_INFO\"".to_owned()),
        Just("\"BC_REMOVE\"".to_owned()),
        Just("\"BUL_FLUSH\"".to_owned()),
        Just("\"REREG\"".to_owned()),
        Just("\"2001:db8::7\"".to_owned()),
        Just("\"192.0.2.7\"".to_owned()),
        Just("\"acme\"".to_owned()),
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("[\"2001:db8::/56\"]".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,12}".prop_map(|text| format!("{text:?}")),
    ];
    prop::collection::vec((key, value), 0..8).prop_map(|fields| {
        let fields: Vec<_> =
            fields.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #[test]
    fn any_octets(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        oracle::check(&octets);
    }

    #[test]
    fn nearly_messages(text in pieces()) {
        oracle::check(text.as_bytes());
    }
}
