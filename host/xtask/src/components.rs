//! Builds every component into `target/components/NAME.wasm`.

use crate::step::{Failed, cargo, read, root, run, target_dir};
use crate::tools;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the built components are put.
pub(crate) fn directory() -> PathBuf {
    root().join("target/components")
}

/// Builds all of them, and answers with where they are.
pub(crate) fn build() -> Result<PathBuf, Failed> {
    tools::wasm_targets()?;
    tools::cargo_component()?;
    let out = directory();
    fs::create_dir_all(&out)?;
    let workspace = root().join("components");
    let target = target_dir().join("components-build");

    let release = ["build", "--release", "--locked", "--target", "wasm32-wasip2"];
    run("building the example components", in_dir(&mut cargo(&release), &workspace, &target))?;
    run(
        "building the guests of the tests",
        in_dir(cargo(&release).args(["--package", "guests", "--examples"]), &workspace, &target),
    )?;
    let built = target.join("wasm32-wasip2/release");
    copy(&built, &targets(&workspace, "cdylib")?, &out)?;
    copy(&built.join("examples"), &targets(&workspace, "example")?, &out)?;

    let redact = workspace.join("redact");
    run(
        "building the component that is written without the SDK, with cargo-component",
        in_dir(&mut cargo(&["component", "build", "--release", "--locked"]), &redact, &target),
    )?;
    copy(&target.join("wasm32-wasip1/release"), &["redact".to_owned()], &out)?;
    Ok(out)
}

/// Builds one example only, for those who cannot wait.
pub(crate) fn build_one(name: &str) -> Result<PathBuf, Failed> {
    tools::wasm_targets()?;
    let out = directory();
    fs::create_dir_all(&out)?;
    let target = target_dir().join("components-build");
    let args = ["build", "--release", "--locked", "--target", "wasm32-wasip2", "--package", name];
    run(&format!("building the component {name}"), in_dir(&mut cargo(&args), &root().join("components"), &target))?;
    copy(&target.join("wasm32-wasip2/release"), &[name.to_owned()], &out)?;
    Ok(out.join(format!("{name}.wasm")))
}

fn in_dir<'a>(command: &'a mut Command, dir: &Path, target: &Path) -> &'a mut Command {
    command.current_dir(dir).env("CARGO_TARGET_DIR", target)
}

/// The names of the components of the workspace, as cargo knows them: libraries, or examples.
fn targets(workspace: &Path, kind: &str) -> Result<Vec<String>, Failed> {
    let mut command = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata = read("asking for the components", command.current_dir(workspace))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| Failed::new(error.to_string()))?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let targets = packages.iter().flat_map(|package| package["targets"].as_array().cloned().unwrap_or_default());
    let of_kind = targets.filter(|target| {
        let kinds = target["kind"].as_array().cloned().unwrap_or_default();
        kinds.iter().any(|found| found == kind)
    });
    Ok(of_kind.filter_map(|target| Some(target["name"].as_str()?.to_owned())).collect())
}

/// Copies what was built under the names that scripts rely on: with dashes.
fn copy(from: &Path, names: &[String], out: &Path) -> Result<(), Failed> {
    for name in names {
        let source = from.join(format!("{}.wasm", name.replace('-', "_")));
        let target = out.join(format!("{}.wasm", name.replace('_', "-")));
        fs::copy(&source, &target).map_err(|error| {
            Failed::new(format!("cannot copy {} to {}: {error}", source.display(), target.display()))
        })?;
    }
    Ok(())
}
