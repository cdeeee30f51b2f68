//! What commands make of files: policies in the one form, keys that nobody else reads.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::cli::{DEGRADED, OK, REFUSED, USAGE, json};
use super::owner::{Scratch, example};

#[test]
fn a_file_is_formatted_in_its_place_or_left_alone() {
    let scratch = Scratch::new();
    let nowhere = Path::new("/nonexistent");
    let wanted = std::fs::read_to_string(example("mobile-node.kdl")).unwrap();
    let file = scratch.join("node.kdl");
    let link = scratch.join("link.kdl");
    let messy = wanted.replace("    ", "\t").replace(" }", "; }");
    std::fs::write(&file, &messy).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("node.kdl", &link).unwrap();
    let names = || -> Vec<_> {
        let entries = std::fs::read_dir(&scratch.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = names().len();
    let link = link.to_str().unwrap();

    let (exit, document) = json(nowhere, &["policy", "fmt", "--check", link]);
    assert_eq!((exit, &document["error"]["code"]), (DEGRADED, &"degraded".into()), "{document}");
    assert_eq!(document["result"]["files"][0]["changed"], true);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), messy, "only looked at");

    for changed in [true, false] {
        let (exit, document) = json(nowhere, &["policy", "fmt", link]);
        assert_eq!(exit, OK, "{document}");
        assert_eq!(document["result"]["files"][0]["changed"], changed);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
    }
    assert_eq!(json(nowhere, &["policy", "fmt", "--check", link]).0, OK);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(std::fs::symlink_metadata(link).unwrap().is_symlink());
    assert_eq!(names().len(), before, "nothing is left beside it");

    // One broken file, and none of them is written.
    std::fs::write(&file, &messy).unwrap();
    let broken = scratch.join("broken.kdl");
    std::fs::write(&broken, "role  \"mobile-node\"\nfoo 1\nbar 2\n").unwrap();
    let words = ["policy", "fmt", file.to_str().unwrap(), broken.to_str().unwrap()];
    let (exit, document) = json(nowhere, &words);
    assert_eq!((exit, &document["error"]["code"]), (REFUSED, &"policy-faults".into()));
    let faults = document["error"]["faults"].as_array().unwrap();
    let lines: Vec<_> = faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), messy);
    let octets = scratch.join("octets.kdl");
    std::fs::write(&octets, b"role a\n\xff").unwrap();
    let (exit, document) = json(nowhere, &["policy", "fmt", octets.to_str().unwrap()]);
    assert_eq!(exit, USAGE);
    assert!(document.to_string().contains("not UTF-8 on line 2"), "{document}");
}

#[test]
fn a_key_pair_entry_for_both_ends() {
    let scratch = Scratch::new();
    let out = scratch.join("bus.key");
    let words = ["key", "new", "--spi", "0x1001", "--out", out.to_str().unwrap()];
    let (exit, document) = json(Path::new("/nonexistent"), &words);
    assert_eq!(exit, OK, "{document}");
    let result = &document["result"];
    assert_eq!((&result["spi"], &result["algorithm"]), (&4097.into(), &"hmac-sha256".into()));
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = std::fs::read_to_string(&out).unwrap();
    let secret = key.trim().rsplit(' ').next().unwrap();
    assert_eq!(secret.len(), 64, "256 bits");
    assert!(!document.to_string().contains(secret), "the key stays in its file");
    assert!(mtun::key::read(&out).is_ok());

    // The printed block is what a policy takes.
    let security = result["security"].as_str().unwrap();
    let policy = std::fs::read_to_string(example("figure-11.kdl")).unwrap();
    let start = policy.find("security \"acme-sa\" {").unwrap();
    let end = start + policy[start..].find("\n}").unwrap() + 2;
    let policy = format!("{}{security}{}", &policy[..start], &policy[end..]);
    let policy = policy.replace("acme-sa", "bus-sa");
    let file = scratch.join("bus.kdl");
    std::fs::write(&file, policy).unwrap();
    let policy = mtun_policy::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let key_source = mtun_policy::KeySource::File(out.clone());
    assert_eq!((policy.securities[0].spi, &policy.securities[0].key), (4097, &key_source));

    let (exit, document) = json(Path::new("/nonexistent"), &words);
    assert_eq!((exit, &document["error"]["code"]), (REFUSED, &"refused".into()));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), key, "never overwritten");
}
