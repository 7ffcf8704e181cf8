//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodata::cli::run(std::env::args_os())
}
