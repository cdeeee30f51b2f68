//! Prints where the requirements stand.
//!
//! `mtun-conformance` by section of the checklist, `mtun-conformance rfc` by RFC, `mtun-conformance
//! page` as the page for users; `--all` adds the rows that are met, with their proofs. It ends with 1
//! if table and tree disagree.

use std::path::Path;
use std::process::ExitCode;

use mtun_conformance::{Checklist, Tree, faults, requirements_page, rfc_report, section_report};

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checklist = match Checklist::read(&folder.join("checklist")) {
        Ok(checklist) => checklist,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::from(2);
        }
    };
    let tree = Tree::read(&folder.join("../.."));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let all = words.iter().any(|word| word == "--all");
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|it| *it != "--all").collect();
    match words[..] {
        [] => print!("{}", section_report(&checklist, all)),
        ["rfc"] => print!("{}", rfc_report(&checklist, &tree, all)),
        ["page"] => print!("{}", requirements_page(&checklist)),
        _ => {
            eprintln!("usage: mtun-conformance [rfc | page] [--all]");
            return ExitCode::from(2);
        }
    }
    let faults = faults(&checklist, &tree);
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
