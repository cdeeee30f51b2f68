//! Prometheus's own programs, as other people's readers of what we write.
//!
//! Included by path: `#[path = "../support/prometheus.rs"] mod prometheus;`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `promtool` or `prometheus`: in the directory that `MTUN_PROMETHEUS` names, or installed.
pub fn program(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("MTUN_PROMETHEUS").map(PathBuf::from);
    let installed = std::env::var_os("PATH").unwrap_or_default();
    let installed: Vec<PathBuf> = std::env::split_paths(&installed).collect();
    named.into_iter().chain(installed).map(|place| place.join(name)).find(|it| it.is_file())
}

/// Runs `promtool` in `directory` with `input`; what it said if it is not content.
#[allow(dead_code, reason = "not every test that includes this file has something to check")]
pub fn promtool(directory: &Path, words: &[&str], input: &str) -> Result<String, String> {
    let program = program("promtool").expect("the test asked for it");
    let mut command = Command::new(program);
    command.args(words).current_dir(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that refuses its arguments reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Ends the calling test with a message where Prometheus's programs are missing.
macro_rules! need_prometheus {
    () => {
        if crate::prometheus::program("promtool").is_none() {
            crate::skip::skip("promtool is missing; it is in Debian's package prometheus");
            return;
        }
    };
}
pub(crate) use need_prometheus;
