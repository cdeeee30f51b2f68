//! Texts that were made to hurt: refused in bounded time and memory, always with a reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[cfg(feature = "disk")]
use mtun_policy::load;
use mtun_policy::{Code, Faults, NoFiles, parse, parse_document};

/// Far above what the slowest case needs, far below what a person or a watchdog waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// Octets of a text that fills the limit.
const LARGEST: usize = 1 << 20;

fn refused(what: &str, text: &str) -> Faults {
    let begin = Instant::now();
    let faults = parse("hostile.kdl", text, &NoFiles).expect_err(what);
    let taken = begin.elapsed();
    assert!(taken < PATIENCE, "{what}: {taken:?}");
    assert!(faults.0.len() <= 65, "{what}: {} faults", faults.0.len());
    for fault in &faults.0 {
        assert!(fault.source_line.chars().count() <= 160, "{what}");
        assert!(fault.message.len() <= 410, "{what}: {}", fault.message);
        assert!(fault.line >= 1 && fault.column >= 1 && fault.help.is_some(), "{what}");
    }
    eprintln!("{what}: {taken:?}, {}", faults.0[0].message);
    faults
}

/// As many pieces as the limit lets in, on lines that are not too long.
fn filled(piece: &str) -> String {
    let mut line = piece.repeat((8000 / piece.len()).max(1));
    line.push('\n');
    line.repeat(LARGEST / line.len())
}

/// A quarter of that, for what is well-formed and therefore read to its end.
fn part(piece: &str) -> String {
    let all = filled(piece);
    let end = all[..LARGEST / 4].rfind('\n').map_or(0, |at| at + 1);
    all[..end].to_owned()
}

#[test]
fn a_text_over_the_limit_is_not_even_looked_at() {
    let faults = refused("one octet too many", &"a".repeat(LARGEST + 1));
    assert_eq!(faults.0.len(), 1);
    assert_eq!(faults.0[0].code, Code::Limit);
}

#[test]
fn depth_bombs() {
    let deepest = [
        ("open blocks", "a {".to_owned()),
        ("open blocks on lines", "a {\n".to_owned()),
        ("open blocks without names", "{".to_owned()),
        ("closed blocks", "}".to_owned()),
        ("closed blocks on lines", "}\n".to_owned()),
        ("comments", "/*".to_owned()),
        ("blocks taken out", "/- a {".to_owned()),
        ("taken out again and again", "/-".to_owned()),
        ("blocks taken out of nodes", "a /- {".to_owned()),
        ("types", "(".to_owned()),
        ("blocks in strings", "a \"{\" {".to_owned()),
        ("quotes and blocks", "a \"{\n".to_owned()),
        ("raw strings and blocks", "a #\"{\n".to_owned()),
        ("line continuations", "\\\n".to_owned()),
        ("continued blocks", "a \\\n{".to_owned()),
    ];
    for (what, piece) in deepest {
        refused(what, &filled(&piece));
    }
}

#[test]
fn a_small_stack_is_enough() {
    let bombs = ["a {\n", "/- a {\n", "a {\n", "/*", "(", "}"].map(filled);
    let thread = std::thread::Builder::new().stack_size(256 * 1024);
    let judge = move || bombs.iter().for_each(|bomb| drop(refused("on a small stack", bomb)));
    thread.spawn(judge).unwrap().join().unwrap();
}

#[test]
fn the_deepest_accepted_nesting_fits_a_small_stack() {
    // Eight blocks are let through to the parser; none of them is a policy.
    let text = format!("{}{}", "a {\n".repeat(8), "}\n".repeat(8));
    let thread = std::thread::Builder::new().stack_size(512 * 1024);
    let faults = thread.spawn(move || refused("eight blocks", &text)).unwrap().join().unwrap();
    assert!(faults.0.iter().any(|fault| fault.code == Code::UnknownNode), "{faults}");
    let text = format!("{}{}", "a {\n".repeat(9), "}\n".repeat(9));
    assert_eq!(refused("nine blocks", &text).0[0].code, Code::Limit);
}

#[test]
fn much_of_everything() {
    let large = [
        ("long words", "a".to_owned()),
        ("nodes", "a\n".to_owned()),
        ("nodes on a line", "a;".to_owned()),
        ("arguments", "a ".to_owned()),
        ("numbers", "a 1\n".to_owned()),
        ("empty blocks", "a{}\n".to_owned()),
        ("comments", "a /**/ b\n".to_owned()),
        ("taken out", "/- a { b }\n".to_owned()),
        ("taken out of nodes", "a /- b\n".to_owned()),
        ("strings", "\"\\u{41}\" ".to_owned()),
        ("raw strings", "a ##\"#\"##\n".to_owned()),
        ("spaces", " ".to_owned()),
        ("backslashes", "\\ ".to_owned()),
        ("slashes", "/ ".to_owned()),
        ("equals signs", "=".to_owned()),
        ("roles", "role home-agent\n".to_owned()),
        ("interfaces", "interface wlan0 { bid 1; }\n".to_owned()),
        ("groups", "group g { prefix \"::/0\"; }\n".to_owned()),
        ("includes", "include a.kdl\n".to_owned()),
        ("misspelt words", "interfaces wlan0\n".to_owned()),
        ("rules", "rules { rule a { match proto=tcp; prefer wlan0; }; }\n".to_owned()),
        ("tests", "test t { flow src=\"::\" dst=\"::\" proto=tcp; expect blocked; }\n".to_owned()),
    ];
    for (what, piece) in large {
        refused(what, &part(&piece));
    }
}

#[test]
fn much_of_what_is_compared() {
    let numbers = || 0..10_000;
    let properties: String = numbers().map(|n| format!("p{n}=1 \\\n")).collect();
    refused("distinct properties", &format!("match {properties}"));
    let home = |inside: &str| {
        format!(
            "role \"mobile-router\"\ninterface wlan0 {{ bid 1; }}\nhome h {{\n tunnel mtun0\n{inside}\n}}\n"
        )
    };
    let networks: String =
        numbers().map(|n| format!("mobile-network \"2001:db8:{n:x}::/48\"\n")).collect();
    refused("mobile networks", &home(&networks));
    let homes: String = numbers().map(|n| format!("home h{n} {{}}\n")).collect();
    let rules: String = numbers().map(|n| format!("rules home=h{n} {{}}\n")).collect();
    refused("homes and rules", &format!("role \"mobile-node\"\n{homes}{rules}"));
    let escapes = "\\u{31},".repeat(1500);
    let line = format!("match dport=\"{escapes}\"\n");
    let rule = format!("rules {{ rule a {{\n{} }}\n }}\n", line.repeat(60));
    refused("escaped lists", &rule);
    let words: String = numbers().map(|n| format!("interfade{n}\n")).collect();
    refused("words to guess", &words);
}

#[test]
fn a_hash_wall_before_a_string() {
    let hashes = "#".repeat(LARGEST / 160);
    refused("hashes", &format!("a {hashes}\"x\"{hashes}"));
    refused("hashes without an end", &format!("a {hashes}\"x\""));
    refused("strings that nearly end", &format!("a ##\"{}", "\"#".repeat(LARGEST / 160)));
}

#[test]
fn a_wide_line_is_cut_around_the_place() {
    let text = format!("{} [ {}", "a ".repeat(3000), "b ".repeat(3000));
    let faults = refused("a wide line", &text);
    let fault = &faults.0[0];
    assert_eq!((fault.line, fault.column), (1, 6002));
    let shown = fault.to_string();
    let caret = shown.lines().nth(4).unwrap().find('^').unwrap();
    assert_eq!(shown.lines().nth(3).unwrap().as_bytes()[caret], b'[', "{shown}");
}

#[test]
fn large_groups_in_many_rules() {
    let mut text = String::from(
        "role \"mobile-node\"\ninterface wlan0 { bid 1; }\nhome h { tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }\n",
    );
    text.push_str("group g {");
    for number in 0..20_000 {
        let node = if number % 100 == 0 { "\n prefix" } else { "" };
        text.push_str(&format!("{node} \"2001:db8:{number:x}::/48\""));
    }
    text.push_str("\n}\nrules {\n");
    for number in 0..2000 {
        text.push_str(&format!(
            "rule r{number} {{ match src=@g dst=@g sport={number}; prefer wlan0; }}\n"
        ));
    }
    text.push_str("default { block; }\n}\n");
    assert!(text.len() < LARGEST, "{}", text.len());
    let faults = refused("large groups", &text);
    assert!(faults.0.iter().all(|fault| fault.code == Code::Limit), "{faults}");
}

#[test]
fn thousands_of_good_rules_are_accepted() {
    let mut text = String::from(
        "role \"mobile-node\"\ninterface wlan0 { bid 1; }\nhome h { tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }\nrules {\n",
    );
    for number in 0..2000 {
        text.push_str(&format!("rule r{number} {{ match proto=tcp dport={number} dst=\"2001:db8:{number:x}::/48\"; prefer wlan0; }}\n"));
    }
    text.push_str("default { block; }\n}\n");
    let begin = Instant::now();
    let policy = parse("many.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policy.homes[0].rules.rules.len(), 2001);
    eprintln!("2000 rules: {:?}", begin.elapsed());
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
#[cfg(feature = "disk")]
fn octets_that_are_not_utf8() {
    let directory =
        std::env::temp_dir().join(format!("mtun-policy-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let main = directory.join("main.kdl");
    std::fs::write(&main, b"role \"home-agent\"\nhome \"\xff\" {}\n").unwrap();
    let fault = load(&main).unwrap_err().0.remove(0);
    assert_eq!((fault.code, fault.line, fault.column), (Code::Syntax, 2, 7));
    assert_eq!(fault.message, "the octet 0xff is not UTF-8");

    std::fs::write(&main, "include \"part.kdl\"\nrole \"home-agent\"\n").unwrap();
    std::fs::write(directory.join("part.kdl"), b"\n\n  \xc3(").unwrap();
    let fault = load(&main).unwrap_err().0.remove(0);
    assert_eq!((fault.code, fault.line, fault.column), (Code::Syntax, 3, 3));
    assert!(fault.file.ends_with("part.kdl"), "{}", fault.file);

    std::fs::write(&main, vec![0xff; LARGEST + 10]).unwrap();
    assert_eq!(load(&main).unwrap_err().0[0].line, 1);
    std::fs::write(&main, vec![b' '; LARGEST + 10]).unwrap();
    assert_eq!(load(&main).unwrap_err().0[0].code, Code::Limit);

    // What is no file, or leads elsewhere, is not opened.
    let fault = load(&directory).unwrap_err().0.remove(0);
    assert_eq!(fault.code, Code::Include);
    assert_eq!(load(&directory.join("none.kdl")).unwrap_err().0[0].code, Code::Include);
    std::fs::remove_file(directory.join("part.kdl")).unwrap();
    std::fs::write(&main, "include \"part.kdl\"\nrole \"home-agent\"\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", directory.join("part.kdl")).unwrap();
    let fault = load(&main).unwrap_err().0.remove(0);
    assert_eq!(fault.code, Code::Include);
    assert!(fault.message.contains("outside"), "{}", fault.message);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn include_chains_and_fans() {
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for number in 0..300 {
        let text = format!("include \"{}.kdl\"\n", number + 1);
        files.insert(PathBuf::from(format!("{number}.kdl")), text.into_bytes());
    }
    let faults = parse("main.kdl", "include \"0.kdl\"\n", &files).unwrap_err();
    assert_eq!(faults.0[0].code, Code::Limit, "{faults}");
    assert!(faults.0[0].message.contains("deeper"), "{faults}");

    for content in files.values_mut() {
        *content = b"// nothing\n".to_vec();
    }
    let faults = parse("main.kdl", "include \"*.kdl\"\n", &files).unwrap_err();
    assert!(faults.0.iter().any(|fault| fault.message.contains("more than 128 files")), "{faults}");

    for content in files.values_mut() {
        *content = vec![b' '; LARGEST];
    }
    let faults = parse("main.kdl", "include \"*.kdl\"\n", &files).unwrap_err();
    assert!(faults.0.iter().any(|fault| fault.message.contains("octets together")), "{faults}");
}

/// A policy around these nodes at the top and these rules.
fn around(top: &str, rules: &str) -> String {
    format!(
        "role \"mobile-router\"\ninterface wlan0 {{ bid 1; }}\ninterface wwan0 {{ bid 2; metered #true; }}\n{top}\n\
         home h {{ tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }}\n\
         rules {{\n{rules}\ndefault {{ prefer wlan0; }}\n}}\n"
    )
}

/// Judges a text whose files are these; it may be accepted.
fn judged(what: &str, text: &str, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Faults> {
    let begin = Instant::now();
    let result = parse("hostile.kdl", text, files).map(drop);
    eprintln!("{what}: {:?}", begin.elapsed());
    assert!(begin.elapsed() < PATIENCE, "{what}: {:?}", begin.elapsed());
    if let Err(faults) = &result {
        assert!(faults.0.len() <= 65, "{what}: {} faults", faults.0.len());
    }
    result
}

#[test]
fn sets_that_fill_every_limit() {
    let line = |number: u32| format!("2001:db8:{:x}:{:x}::/64\n", number >> 16, number & 0xffff);
    let prefixes: String = (0..50_000).map(line).collect();
    assert!(prefixes.len() < LARGEST, "{}", prefixes.len());
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    files.insert("good.txt".into(), prefixes.into_bytes());
    files.insert("words.txt".into(), filled("x ").into_bytes());
    files.insert("lines.txt".into(), "x\n".repeat(LARGEST / 2).into_bytes());
    files.insert("blank.txt".into(), "\n".repeat(LARGEST).into_bytes());
    files.insert("one-line.txt".into(), vec![b'#'; LARGEST]);
    files.insert("octets.txt".into(), vec![0xff; LARGEST]);
    files.insert("zeros.txt".into(), vec![0; LARGEST]);
    files.insert("large.txt".into(), vec![b' '; LARGEST + 1]);
    let used = |count: usize| -> String {
        let rule = |n| format!("rule r{n} {{ match dst=@s proto=tcp sport={n}; prefer wlan0; }}\n");
        (0..count).map(rule).collect()
    };
    let set = |name: &str| format!("set s file=\"{name}\"");
    judged("a full set", &around(&set("good.txt"), &used(4)), &files)
        .unwrap_or_else(|faults| panic!("{faults}"));
    let faults = judged("a set in many rules", &around(&set("good.txt"), &used(2000)), &files);
    let faults = faults.unwrap_err();
    assert_eq!((faults.0.len(), faults.0[0].code), (1, Code::Limit), "{faults}");
    let cases = [
        ("words.txt", Code::Limit),
        ("lines.txt", Code::Value),
        ("blank.txt", Code::Missing),
        ("one-line.txt", Code::Limit),
        ("octets.txt", Code::Syntax),
        ("zeros.txt", Code::Limit),
        ("large.txt", Code::Limit),
    ];
    for (name, code) in cases {
        let faults = judged(name, &around(&set(name), &used(1)), &files).unwrap_err();
        assert_eq!(faults.0[0].code, code, "{name}: {faults}");
    }
    let many: String = (0..200).map(|n| format!("set s{n} file=\"good.txt\"\n")).collect();
    let faults = judged("many sets", &around(&many, ""), &files).unwrap_err();
    assert_eq!(faults.0.len(), 1, "{faults}");
    assert_eq!(faults.0[0].code, Code::Limit);
}

#[test]
#[cfg(feature = "disk")]
fn sets_on_the_disk_that_cannot_be_read() {
    let directory = std::env::temp_dir().join(format!("mtun-policy-sets-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("folder.txt")).unwrap();
    let main = directory.join("main.kdl");
    std::os::unix::fs::symlink("/etc/hostname", directory.join("outside.txt")).unwrap();
    std::os::unix::fs::symlink("loop.txt", directory.join("loop.txt")).unwrap();
    for name in ["absent.txt", "folder.txt", "outside.txt", "loop.txt"] {
        let set = format!("set s file=\"{name}\"");
        let rule = "rule r { match dst=@s; prefer wwan9; }";
        std::fs::write(&main, around(&set, rule)).unwrap();
        let faults = load(&main).unwrap_err();
        let codes: Vec<Code> = faults.0.iter().map(|fault| fault.code).collect();
        // What else is wrong is named all the same.
        assert_eq!(codes, [Code::Include, Code::UnknownRef], "{name}: {faults}");
        assert_eq!(faults.0[0].line, 4, "{faults}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn much_of_every_verb_and_condition() {
    let files = BTreeMap::new();
    let many =
        |count: u32, line: &dyn Fn(u32) -> String| -> String { (0..count).map(line).collect() };
    let links = many(2000, &|n| format!("interface w{n} {{ bid {}; }}\n", n + 10));
    let names = many(2000, &|n| format!(" w{n}"));
    let group = format!("{links}group g {{ interface{names}; }}");
    let weights = many(300, &|n| format!(" w{n}=1"));
    let refused = [
        (
            "a balance of many",
            group.clone(),
            format!("rule r {{ match proto=tcp; balance{weights}; }}"),
        ),
        (
            "a balance of a large group",
            group.clone(),
            "rule r { match proto=tcp; balance @g=1; }".into(),
        ),
        (
            "one BID for all",
            many(5000, &|n| format!("interface w{n} {{ bid 7; }}\n")),
            String::new(),
        ),
        (
            "unknown links",
            group.clone(),
            many(4000, &|n| format!("rule r{n} {{ match sport={n}; fastest x{n}; }}\n")),
        ),
        (
            "unknown service levels",
            many(4000, &|n| format!("sla s{n} rtt=\"1ms\"\n")),
            many(4000, &|n| format!("rule r{n} {{ match sport={n}; cheapest wlan0 sla=t{n}; }}\n")),
        ),
        (
            "unknown rules",
            many(3000, &|n| {
                format!(
                    "test t{n} {{ flow src=\"2001:db8::2\" dst=\"::1\" proto=tcp; expect rule=x{n}; }}\n"
                )
            }),
            many(3000, &|n| format!("rule r{n} {{ match proto=tcp dport={n}; prefer wlan0; }}\n")),
        ),
        (
            "conditions that cannot be",
            String::new(),
            many(3000, &|n| {
                format!(
                    "rule r{n} {{ match sport={n}; when time=\"{n}:00-{n}:01\" days=\"x{n}\" speed=\"{n}\"; prefer wlan0; }}\n"
                )
            }),
        ),
        (
            "words of together with other stickiness",
            String::new(),
            many(3000, &|n| {
                format!(
                    "rule r{n} {{ match sport={n}; prefer wlan0; together w{}; sticky {}; }}\n",
                    n % 1000,
                    ["pair", "host"][n as usize / 1000 % 2]
                )
            }),
        ),
    ];
    for (what, top, rules) in refused {
        judged(what, &around(&top, &rules), &files).expect_err(what);
    }
    let wide = many(200, &|n| format!(" \"2001:db8:{n:x}::/48\""));
    let accepted = [
        (
            "a large group in many verbs",
            format!("{group}\n"),
            many(1000, &|n| format!("rule r{n} {{ match proto=tcp dport={n}; prefer @g; }}\n")),
        ),
        (
            "wide rules side by side",
            format!("group wide {{ prefix{wide}; }}"),
            many(2000, &|n| {
                format!(
                    "rule r{n} {{ match src=@wide dst=@wide proto=tcp dport={n}; prefer wlan0; }}\n"
                )
            }),
        ),
        (
            "conditional rules",
            String::new(),
            many(4000, &|n| {
                format!(
                    "rule r{n} {{ match proto=tcp; when days=mon time=\"0:{:02}-1:00\"; prefer wlan0; }}\n",
                    n % 60
                )
            }),
        ),
    ];
    for (what, top, rules) in accepted {
        judged(what, &around(&top, &rules), &files)
            .unwrap_or_else(|faults| panic!("{what}: {faults}"));
    }
}

#[test]
fn ten_thousand_rules_cost_little_more_than_their_text() {
    let rule = |n: u32| {
        format!(
            "rule r{n} {{ match proto=tcp dport={} dst=\"2001:db8:{n:x}::/48\"; prefer wlan0; }}\n",
            n % 9
        )
    };
    for count in [1000, 10_000] {
        let text = around("", &(0..count).map(rule).collect::<String>());
        assert!(text.len() < LARGEST, "{}", text.len());
        let begin = Instant::now();
        parse_document("many.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
        let read = begin.elapsed();
        let begin = Instant::now();
        let policy = parse("many.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
        let all = begin.elapsed();
        assert_eq!(policy.homes[0].rules.rules.len(), count as usize + 1);
        eprintln!("{count} rules: {all:?}, of which {read:?} to read the text");
        assert!(all < PATIENCE);
    }
}
