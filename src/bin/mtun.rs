//! `mtun`, the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    mtun::cli::run(std::env::args_os())
}
