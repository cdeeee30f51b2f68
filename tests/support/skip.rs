//! How a test says that it could not run.
//!
//! Included by path from the tests of every crate: `#[path = "…/tests/support/skip.rs"] mod skip;`

use std::io::Write;
use std::process::{Command, Stdio};

/// Prints `SKIPPED: <reason>` and adds the reason to the file that `MTUN_SKIPS` names.
///
/// A test that lacks a program or a right calls this and returns; `tests/run.sh` counts the lines.
pub fn skip(reason: &str) {
    // Past the capture of the test harness, so that the line is seen on a passing run too.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
    if let Some(path) = std::env::var_os("MTUN_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("MTUN_SKIPS names a file that can be written");
        // One write per line: several test processes append at once.
        file.write_all(format!("{reason}\n").as_bytes()).expect("the skip file takes a line");
    }
}

/// Whether `command` starts and succeeds; its output is not looked at.
#[allow(dead_code, reason = "not every test that includes this file asks for a program")]
pub fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
