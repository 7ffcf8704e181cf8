//! What the commands need, installed when it is missing.

use crate::step::{self, Failed, cargo, root, run, say, target_dir, works};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is not ours and comes from Python: it checks the protocol, reads the files, is the table of a sink, pushes images, signs, and builds
/// components in Python.
pub(crate) const PYTHON_PACKAGES: &[&str] = &[
    "buf-bin==1.75.0",
    "chdb-core-lite==26.5.0",
    "componentize-py==0.25.1",
    "duckdb==2.0.1",
    "oras==0.2.43",
    "polars==2.1.0",
    "py-minisign==0.21.1",
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
    link("readers", bin.parent().unwrap_or(bin))
}

/// Has tests find a directory beside the build under a name of its own.
fn link(name: &str, place: &Path) -> Result<(), Failed> {
    let link = root().join("target").join(name);
    if link.canonicalize().is_ok_and(|known| place.canonicalize().is_ok_and(|place| place == known)) {
        return Ok(());
    }
    std::fs::create_dir_all(root().join("target"))?;
    let _ = std::fs::remove_file(&link);
    Ok(std::os::unix::fs::symlink(place, link)?)
}

/// The registry of images that tests pull from, unpacked beside the build and not installed: nothing is started with the machine. Where
/// there is no apt-get, its tests say that they are skipped, unless the program is there anyway.
pub(crate) fn image_registry() -> Result<(), Failed> {
    let place = target_dir().join("registry");
    let program = place.join("usr/bin/docker-registry");
    if !program.exists() {
        if works(Command::new("docker-registry").arg("--version")) {
            return Ok(());
        }
        if !works(Command::new("apt-get").arg("--version")) || !works(Command::new("dpkg-deb").arg("--version")) {
            say("there is no apt-get to bring a registry of images; its tests are skipped");
            return Ok(());
        }
        let packages = place.join("packages");
        std::fs::create_dir_all(&packages)?;
        let download = || {
            let mut download = Command::new("apt-get");
            download.args(["download", "--quiet", "docker-registry"]).current_dir(&packages);
            run("downloading docker-registry with apt-get", &mut download)
        };
        // A new machine does not know what there is, and whoever may not change that goes without.
        let update = || run("asking what there is", Command::new("apt-get").args(["update", "--quiet"]));
        if let Err(failed) = download().or_else(|_| update().and_then(|()| download())) {
            say(&format!("{failed}; the tests of images are skipped"));
            return Ok(());
        }
        for package in std::fs::read_dir(&packages)? {
            let package = package?.path();
            run("unpacking it", Command::new("dpkg-deb").arg("--extract").arg(package).arg(&place))?;
        }
    }
    link("registry", &place)
}

/// Whether cargo-nextest is here; the plain test runner does as well.
pub(crate) fn has_nextest() -> bool {
    works(&mut cargo(&["nextest", "--version"]))
}
