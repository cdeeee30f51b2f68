//! What a search costs in instructions, which no other load on the machine changes.
//!
//! Valgrind counts them: this very program is run under it, once with searches and once without,
//! and the difference is the searches'. A change that makes them dearer than the budget by more
//! than a tenth fails here; one that makes them cheaper lowers the budget. The numbers are those
//! of the profile that tests are built with.
#![cfg(feature = "disk")]

#[path = "support/random.rs"]
mod random;
#[allow(dead_code, reason = "the text and the statistics are for others")]
#[path = "support/rule_sets.rs"]
mod rule_sets;
#[path = "../../tests/support/skip.rs"]
mod skip;

use std::hint::black_box;
use std::process::Command;

use mtun_policy::RuleTable;
use rule_sets::Shape;

/// Names the shape by its place, the rules and the searches, separated by commas.
const ASKED: &str = "MTUN_COUNTED_SEARCHES";

const SEARCHES: usize = 10_000;

/// Instructions for one search: shape, rules, budget.
const BUDGETS: [(Shape, u16, f64); 5] = [
    (Shape::Acl, 10, 2_245.0),
    (Shape::Acl, 1_000, 1_900.0),
    (Shape::Fw, 1_000, 3_185.0),
    (Shape::Acl, 5_000, 2_490.0),
    (Shape::Fw, 5_000, 4_050.0),
];

/// Does nothing unless asked: the part that is counted.
#[test]
fn searches_to_be_counted() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let numbers: Vec<usize> = asked.split(',').map(|number| number.parse().unwrap()).collect();
    let [shape, rules, searches] = numbers[..] else { panic!("{asked}") };
    let heads = rule_sets::heads(Shape::ALL[shape], rules as u16, 7);
    let keys = rule_sets::keys(&heads, 1_000, 8);
    let table = RuleTable::new(heads);
    for key in keys.iter().cycle().take(searches) {
        black_box(table.matching(black_box(key)).next());
    }
}

fn instructions(shape: Shape, rules: u16, searches: usize) -> f64 {
    let place = Shape::ALL.iter().position(|known| *known == shape).unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "searches_to_be_counted", "--test-threads=1"])
        .env(ASKED, format!("{place},{rules},{searches}"))
        .output()
        .expect("valgrind was started before");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    collected.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_search_stays_within_its_instructions() {
    if !skip::runs(Command::new("valgrind").arg("--version")) {
        return skip::skip("valgrind is not installed: instructions are not counted");
    }
    let mut figures = Vec::new();
    for (shape, rules, budget) in BUDGETS {
        let with = instructions(shape, rules, SEARCHES);
        let without = instructions(shape, rules, 0);
        let each = (with - without) / SEARCHES as f64;
        println!("{} {rules}: {each:.0} instructions a search, budget {budget}", shape.name());
        figures.push((shape, rules, each, budget));
    }
    for (shape, rules, each, budget) in &figures {
        assert!(*each <= budget * 1.1, "{} {rules}: {each:.0} > {budget} + 10 %", shape.name());
    }
    let of = |shape, rules| {
        figures.iter().find(|it| it.0 == shape && it.1 == rules).map(|it| it.2).unwrap()
    };
    println!("5,000 rules to 10: {:.1}", of(Shape::Acl, 5_000) / of(Shape::Acl, 10));
}
