//! The table cannot lie: every proof is there, and everything that is required is proven.

use std::path::Path;

use mtun_conformance::{Checklist, Level, State, Tree, faults, requirements_page};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checklist() -> Checklist {
    Checklist::read(&folder().join("checklist")).expect("a table that can be read")
}

#[test]
fn table_and_tree_agree() {
    let faults = faults(&checklist(), &Tree::read(&folder().join("../..")));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_table_that_lies_is_found_out() {
    let rows = "# 1. Lies\n\
        MC-01 | MUST | agent | RFC 5648 §6.2 | met\n  a length\n  proof nowhere.transcript\n\
        MC-02 | MUST | agent | - | met\n  an address\n  proof tests/house.rs::not_a_test\n\
        MC-03 | MUST | agent | - | met\n  nothing shows it\n\
        MC-04 | MUST | agent | - | refused\n  for no reason\n\
        MC-05 | MUST | agent | - | as MC-99\n\
        MC-01 | MUST | agent | - | open\n  twice\n";
    let mut lies = Checklist::default();
    lies.parse("lies", rows).expect("it can be read");
    let faults = faults(&lies, &Tree::read(&folder().join("../..")));
    let told = |words: &str| assert!(faults.iter().any(|it| it.contains(words)), "{words}");
    told("MC-01: tests/conformance/nowhere.transcript is not there");
    told("MC-02: tests/house.rs has no test not_a_test");
    told("MC-03: is met and has no proof");
    told("MC-04: is not met and says no reason");
    told("MC-05: is the same as MC-99, which is nowhere");
    told("MC-01: is at lies:2 as well");
    told("TN-01 is in no table");
    for wrong in ["MC-01 | MUST", "  what of nobody", "MC-01 | MIGHT | agent | - | met"] {
        Checklist::default().parse("wrong", wrong).expect_err(wrong);
    }
}

/// The page for users is what the table says.
#[test]
fn the_page_is_what_the_table_says() {
    let written = folder().join("../../docs/requirements.md");
    let written = std::fs::read_to_string(written).expect("the page");
    assert!(
        written == requirements_page(&checklist()),
        "run: cargo run -p mtun-conformance -- page > docs/requirements.md"
    );
}

/// Sections of the moving side and its peers: nothing that must be is open there.
#[test]
fn no_must_is_open() {
    const OURS: [u32; 7] = [1, 2, 5, 6, 7, 9, 10];
    let checklist = checklist();
    let sections = checklist.sections.iter();
    let ours = sections.filter(|section| section.number().is_some_and(|it| OURS.contains(&it)));
    let open: Vec<&str> = ours
        .flat_map(|section| &section.rows)
        .filter(|row| row.level == Level::Must && row.state == State::Open)
        .map(|row| row.id.as_str())
        .collect();
    assert!(open.is_empty(), "open: {}", open.join(" "));
}
