//! Pages that tell what the program says are held against the program.

use std::path::Path;
use std::process::{Command, Stdio};

use super::owner::Scratch;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a command line of a page at the root of the house.
fn shell(line: &str) -> (bool, String) {
    let line = line.replacen("mtun ", concat!(env!("CARGO_BIN_EXE_mtun"), " "), 1);
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(root())
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_page_of_the_language_is_what_the_program_says() {
    let (done, said) = shell("mtun policy schema --markdown");
    assert!(done, "{said}");
    let written = page("docs/policy.md");
    assert!(
        said == written,
        "docs/policy.md: run `mtun policy schema --markdown > docs/policy.md`"
    );
}

/// Every `$ mtun …` in a page's fenced blocks, with what stands below it up to the next one.
fn sessions(page: &str) -> Vec<(String, String)> {
    let mut sessions: Vec<(String, String)> = Vec::new();
    let mut fenced = false;
    let mut open = false;
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            open = false;
        } else if fenced && line.starts_with("$ mtun ") {
            sessions.push((line[2..].to_owned(), String::new()));
            open = true;
        } else if fenced && open {
            let said = &mut sessions.last_mut().unwrap().1;
            said.push_str(line);
            said.push('\n');
        }
    }
    sessions
}

#[test]
fn every_session_of_the_pages_is_what_the_program_says() {
    let mut explained = 0;
    for name in ["docs/explain.md"] {
        for (line, want) in sessions(&page(name)) {
            let (_, said) = shell(&line);
            assert_eq!(said.trim_end(), want.trim_end(), "{name}: $ {line}");
            explained += usize::from(line.contains(" explain "));
        }
    }
    assert!(explained >= 4, "{explained}");
}

/// The README's commands that need no daemon.
#[test]
fn the_readme_explains_what_can_be_explained() {
    let page = page("README.md");
    let lines = page.lines().filter(|line| line.starts_with("mtun ") && line.contains("examples/"));
    let mut run = 0;
    for line in lines.filter(|line| !line.contains("apply")) {
        let (done, said) = shell(line);
        assert!(done, "{line}: {said}");
        run += 1;
    }
    assert!(run >= 3, "{run}");
}

/// The fenced blocks of KDL in a page, each with what stands behind the word `kdl`.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        if let Some(words) = line.strip_prefix("```kdl") {
            blocks.push((words.trim().to_owned(), String::new()));
            open = true;
        } else if line.starts_with("```") {
            open = false;
        } else if open {
            let text = &mut blocks.last_mut().unwrap().1;
            text.push_str(line);
            text.push('\n');
        }
    }
    blocks
}

/// Each recipe stands on the page's beginning; `home="…"` is a line more in its home.
#[test]
fn every_recipe_is_a_policy_that_passes_its_own_tests() {
    let page = page("docs/cookbook.md");
    let blocks = blocks(&page);
    let (_, beginning) = blocks.iter().find(|(words, _)| words == "beginning").unwrap();
    let scratch = Scratch::new();
    let recipes: Vec<_> = blocks.iter().filter(|(words, _)| words != "beginning").collect();
    for (number, (words, recipe)) in recipes.iter().enumerate() {
        let more = words.strip_prefix("home=\"").map(|rest| rest.trim_end_matches('"'));
        let security = "    security \"acme-sa\"\n";
        let home = format!("{security}{}\n", more.unwrap_or_default());
        let file = scratch.join(&format!("{number}.kdl"));
        std::fs::write(&file, beginning.replacen(security, &home, 1) + recipe).unwrap();
        let (done, said) = shell(&format!("mtun policy check {}", file.display()));
        assert!(done && said.contains("has no faults"), "{recipe}\n{said}");
        assert!(!said.contains(" 0 tests"), "a recipe without a proof: {recipe}\n{said}");
        assert!(!said.contains("warning["), "{recipe}\n{said}");
    }
    assert!(recipes.len() >= 12, "{}", recipes.len());
}

/// Every `.rs` below a directory, with the program's words in it.
fn sources(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // A string goes on behind a backslash, without the blanks of the next line.
            let mut parts = text.split("\\\n");
            into.push_str(parts.next().unwrap_or_default());
            parts.for_each(|it| into.push_str(it.trim_start()));
        }
    }
}

/// Who looks for what the program said finds it on the page, because the page has its words.
#[test]
fn the_page_of_troubles_has_the_programs_own_words() {
    let mut program = String::new();
    for part in ["src", "policy/src", "signaling/src", "dataplane/src"] {
        sources(&root().join(part), &mut program);
    }
    let page = page("docs/troubleshooting.md");
    let said = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut rows = 0;
    for words in said {
        // Names of reasons are joined when they are shown.
        let inside = words.replace('-', "_");
        assert!(program.contains(words) || program.contains(&inside), "nothing says: {words}");
        rows += 1;
    }
    assert!(rows >= 50, "{rows}");
}

/// Who looks for a page finds it in the table of pages.
#[test]
fn the_table_of_pages_has_them_all() {
    let table = page("docs/README.md");
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let listed = table.contains(&format!("]({name})"));
        assert!(listed || !name.ends_with(".md") || name == "README.md", "{name}");
    }
}
