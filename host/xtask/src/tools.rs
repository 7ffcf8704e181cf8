//! What the commands need, installed when it is missing.

use crate::step::{self, Failed, cargo, root, run, target_dir, works};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is not ours and comes from Python: it checks the protocol, reads the files, is the table of a sink, and builds components in
/// Python.
pub(crate) const PYTHON_PACKAGES: &[&str] = &[
    "buf-bin==1.75.0",
    "chdb-core-lite==26.5.0",
    "componentize-py==0.25.1",
    "duckdb==2.0.1",
    "polars==2.1.0",
    "pyarrow==26.0.1",
];

/// The targets that components are built for.
pub(crate) fn wasm_targets() -> Result<(), Failed> {
    let targets = ["wasm32-wasip2", "wasm32-wasip1"];
    let installed =
        step::read("asking for the installed targets", Command::new("rustup").args(["target", "list", "--installed"]))?;
    let missing: Vec<&str> =
        targets.into_iter().filter(|target| !installed.lines().any(|line| line == *target)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run(
        &format!("installing the targets {} with rustup", missing.join(" and ")),
        Command::new("rustup").args(["target", "add"]).args(missing),
    )
}

/// cargo-component, for the one example that is built with it.
pub(crate) fn cargo_component() -> Result<(), Failed> {
    if works(&mut cargo(&["component", "--version"])) {
        return Ok(());
    }
    run(
        "installing cargo-component, once; this takes about ten minutes",
        &mut cargo(&["install", "cargo-component", "--version", "0.21.1", "--locked"]),
    )
}

/// A Python environment with these packages, made once and kept beside the build. Answers with the directory of its programs.
pub(crate) fn python(packages: &[&str]) -> Result<PathBuf, Failed> {
    let environment = target_dir().join("python");
    let bin = environment.join("bin");
    let wanted = packages.join("\n");
    let noted = environment.join("packages.txt");
    if std::fs::read_to_string(&noted).is_ok_and(|installed| installed == wanted) {
        return Ok(bin);
    }
    let make = ["-m", "venv", "--clear"];
    run("making a Python environment", Command::new("python3").args(make).arg(&environment))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(
        &format!("installing {} into it", packages.join(", ")),
        Command::new(bin.join("python")).args(install).args(packages),
    )?;
    std::fs::write(noted, wanted)?;
    Ok(bin)
}

/// Programs of these packages from the registry of Node, installed once and kept beside the build. `None`: there is no npm.
pub(crate) fn node(packages: &[&str]) -> Result<Option<PathBuf>, Failed> {
    if !works(Command::new("npm").arg("--version")) {
        return Ok(None);
    }
    let environment = target_dir().join("node");
    let bin = environment.join("node_modules/.bin");
    let wanted = packages.join("\n");
    let noted = environment.join("packages.txt");
    if std::fs::read_to_string(&noted).is_ok_and(|installed| installed == wanted) {
        return Ok(Some(bin));
    }
    std::fs::create_dir_all(&environment)?;
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
    run(
        &format!("installing {} with npm", packages.join(", ")),
        Command::new("npm").args(install).arg(&environment).args(packages),
    )?;
    std::fs::write(noted, wanted)?;
    Ok(Some(bin))
}

/// Puts the Python environment of these programs where the tests look for it.
pub(crate) fn link_readers(bin: &Path) -> Result<(), Failed> {
    let environment = bin.parent().unwrap_or(bin);
    let link = root().join("target/readers");
    std::fs::create_dir_all(root().join("target"))?;
    let _ = std::fs::remove_file(&link);
    Ok(std::os::unix::fs::symlink(environment, link)?)
}

/// Whether cargo-nextest is here; the plain test runner does as well.
pub(crate) fn has_nextest() -> bool {
    works(&mut cargo(&["nextest", "--version"]))
}
