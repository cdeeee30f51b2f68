//! Completions and manual pages: made, read by the programs that they are for, and complete.

use std::path::Path;
use std::process::{Command, Output};

use super::owner::Scratch;

fn mtun(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtun")).args(words).output().unwrap()
}

fn text(octets: Vec<u8>) -> String {
    String::from_utf8(octets).unwrap()
}

/// The names below `Commands:` in the help of a command.
pub fn commands(words: &[&str]) -> Vec<String> {
    let help = mtun(&[words, &["--help"]].concat());
    assert!(help.status.success(), "{words:?}");
    let help = text(help.stdout);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn bash_completes_by_the_script() {
    let script = r#"
        source <("$1" completions bash)
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
                _mtun mtun "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; echo "${COMPREPLY[*]}"; }
        try mtun sta
        try mtun policy ro
        try mtun links --js
        try mtun completions f
    "#;
    let output = Command::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_mtun")])
        .output()
        .unwrap();
    let said = text(output.stdout);
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said, ["status", "rollback", "--json", "fish"], "{}", text(output.stderr));
}

#[test]
fn the_other_shells_get_every_command() {
    let names = commands(&[]);
    assert!(names.len() >= 15, "{names:?}");
    for (shell, first) in [("zsh", "#compdef mtun"), ("fish", "complete -c mtun")] {
        let script = text(mtun(&["completions", shell]).stdout);
        assert!(script.contains(first), "{shell}: {script}");
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} does not know {name}");
        }
        // Where the shell is installed, it reads the script itself.
        let mut reader = Command::new(shell);
        let scratch = Scratch::new();
        let file = scratch.join("script");
        std::fs::write(&file, &script).unwrap();
        if let Ok(output) = reader.arg("-n").arg(&file).output() {
            assert!(output.status.success(), "{shell}: {}", text(output.stderr));
        }
    }
    assert_eq!(mtun(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let scratch = Scratch::new();
    let directory = scratch.join("man1");
    let made = mtun(&["man", directory.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(made.stderr));
    let page = |name: &str| {
        let file = directory.join(name);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("mtun.1").contains("Exit codes"), "{}", page("mtun.1"));
    for name in commands(&[]) {
        let written = page(&format!("mtun-{name}.1"));
        assert!(written.contains(".SH SYNOPSIS") && written.contains(&name), "{name}: {written}");
        for inner in commands(&[&name]) {
            page(&format!("mtun-{name}-{inner}.1"));
        }
    }
    // The policy language: every word that there is.
    let language = page("mtun.kdl.5");
    for node in &mtun_policy::schema().nodes {
        let title = format!(".SS \"{}\"", node.path.join(" / ").replace('-', "\\-"));
        assert!(language.contains(&title), "{title} is not in mtun.kdl(5)");
    }
    // The daemon's, with every option of its help.
    let mtund = |word: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_mtund")).arg(word).output().unwrap();
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout)
    };
    let (help, daemon) = (mtund("--help"), mtund("--man"));
    for option in help.split_whitespace().filter(|word| word.starts_with("--")) {
        let option = option.trim_end_matches([',', '.']).replace('-', "\\-");
        assert!(daemon.contains(&option), "{option} is not in mtund(8)");
    }
    std::fs::write(directory.join("mtund.8"), daemon).unwrap();
    // The formatter has nothing to complain about.
    for name in ["mtun-policy-check.1", "mtun.kdl.5", "mtund.8"] {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(directory.join(name));
        if let Ok(groff) = groff.output() {
            assert_eq!(text(groff.stderr), "", "{name}");
        }
    }
    assert_eq!(mtun(&["man", "/proc/nowhere"]).status.code(), Some(4));
}

/// Whatever a page calls `mtun …` can be called.
#[test]
fn every_command_of_the_table_exists() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = std::fs::read_to_string(file).unwrap();
    let mut tried = 0;
    for span in page.split('`').skip(1).step_by(2).filter(|span| span.starts_with("mtun ")) {
        let plain = |word: &&str| word.chars().all(|it| it.is_ascii_lowercase() || it == '3');
        let words: Vec<&str> = span.split_whitespace().skip(1).take_while(plain).collect();
        let help = mtun(&[words.as_slice(), &["--help"]].concat());
        let said = text([help.stdout, help.stderr].concat());
        assert!(help.status.success(), "`{span}`: {said}");
        let usage = format!("Usage: mtun {}", words.join(" "));
        let line = said.lines().find(|line| line.starts_with(&usage));
        let line = line.unwrap_or_else(|| panic!("`{span}` is no command: {said}"));
        let rest = &line[usage.len()..];
        assert!(rest.is_empty() || rest.starts_with(' '), "`{span}`: {line}");
        for option in span.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(said.contains(option), "`{span}`: {said}");
        }
        tried += 1;
    }
    assert!(tried >= 40, "{tried}");
    // And every command of ours is in the page.
    for name in commands(&[]) {
        assert!(page.contains(&format!("`mtun {name}")), "docs/commands.md does not name {name}");
    }
}
