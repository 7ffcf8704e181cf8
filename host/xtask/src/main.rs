//! The commands of this repository: `cargo xtask demo | test | bench | components | flights | fuzz | seeds`.
//!
//! They install what they need and say what they are doing while they do it.

mod bench; // measure
mod components; // build every component
mod demo; // show it on real data
mod fuzz; // make inputs up
mod step; // run a command and say so
mod test; // everything that CI runs
mod tools; // what the commands need

use std::process::ExitCode;
use step::Failed;

const HELP: &str = "cargo xtask COMMAND

  demo              build everything, run a transform on real flights, show what happened, clean up
  test              everything that CI runs: formatting, lints, documentation, tests
  bench             every benchmark, in a release build; takes about half an hour
  components        build the example components and the guests of the tests into target/components
  flights FILE      the crash test on a whole file of flights (NDJSON, or NDJSON in gzip) in a release build
  fuzz              makes inputs up for every target, ten seconds each
  fuzz TARGET [--seconds N]
                    makes inputs up for what reads bytes, for five minutes or so long; host/fuzz/README.md has the targets
  seeds             writes the inputs that fuzzing begins with anew

The first run on a fresh machine compiles a WebAssembly engine and takes some minutes.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => test::run_all(),
        ["bench"] => bench::run_all(),
        ["components"] => components::build().map(drop),
        ["flights", file] => test::flights(file),
        ["fuzz"] => fuzz::all(),
        ["fuzz", target] => fuzz::one(target, None),
        ["fuzz", target, "--seconds", seconds] => fuzz::one(target, Some(seconds)),
        ["seeds"] => fuzz::seeds(),
        [] | ["help" | "--help" | "-h"] => {
            step::print(HELP);
            Ok(())
        }
        other => Err(Failed::new(format!("unknown command `{}`\n\n{HELP}", other.join(" ")))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            step::say(&format!("error: {failed}"));
            ExitCode::FAILURE
        }
    }
}
