//! Everything that CI runs.

use crate::components;
use crate::fuzz;
use crate::step::{Failed, cargo, root, run, say, target_dir};
use crate::tools;
use std::path::Path;
use std::process::Command;

fn checks() -> Result<(), Failed> {
    let components = root().join("components");
    let components_target = target_dir().join("components-native");
    let in_components = |what: &str, args: &[&str]| {
        run(what, cargo(args).current_dir(&components).env("CARGO_TARGET_DIR", &components_target))
    };

    run("checking the format of the host", &mut cargo(&["fmt", "--all", "--check"]))?;
    in_components("checking the format of the components", &["fmt", "--all", "--check"])?;
    run(
        "checking the format of what is fuzzed",
        cargo(&["fmt", "--check"]).current_dir(root().join("host/fuzz/libfuzzer")),
    )?;

    let python = tools::python(tools::PYTHON_PACKAGES)?;
    tools::link_readers(&python)?;
    tools::image_registry()?;
    run(
        "checking the protocol with buf",
        Command::new(python.join("buf")).args(["lint", "proto"]).current_dir(root()),
    )?;

    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run("checking the host with clippy", &mut cargo(&clippy))?;
    in_components("checking the components with clippy", &clippy)?;

    components::build()?;
    in_components("testing the components on this machine", &["test", "--quiet", "--locked", "--workspace"])?;

    run(
        "checking that the documentation builds",
        cargo(&["doc", "--locked", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    run("testing the documentation", &mut cargo(&["test", "--locked", "--workspace", "--doc", "--quiet"]))
}

pub(crate) fn run_all() -> Result<(), Failed> {
    checks()?;
    // Before the tests: their summary is the last thing that is said.
    fuzz::all()?;
    tests()
}

fn tests() -> Result<(), Failed> {
    if tools::has_nextest() {
        return run("testing", &mut cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]));
    }
    say("cargo-nextest is not installed; the plain test runner does as well, and prints a summary for each file");
    run("testing", &mut cargo(&["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]))
}

/// The crash test on a whole file.
pub(crate) fn flights(file: &str) -> Result<(), Failed> {
    components::build_one("late-flights")?;
    let file = Path::new(file);
    let file = file.canonicalize().map_err(|error| Failed::new(format!("{}: {error}", file.display())))?;
    let test = ["test", "--release", "--locked", "--package", "nodata", "--test", "it", "kill::", "--", "--nocapture"];
    run("publishing, transforming and killing the server ten times", cargo(&test).env("NODATA_FLIGHTS", file))
}
