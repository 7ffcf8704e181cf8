//! Builds every component into `target/components/NAME.wasm`.

use crate::step::{Failed, cargo, read, root, run, say, target_dir};
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
    other_languages(&out)?;
    Ok(out)
}

/// The examples in other languages, and their worlds.
const OTHERS: [(&str, &str); 2] = [("shout", "transform"), ("count", "aggregate")];

/// Builds the examples in Python and JavaScript. Each brings an interpreter along, which takes a while, so what did not change stays.
fn other_languages(out: &Path) -> Result<(), Failed> {
    let wit = root().join("wit/streaming");
    let python = tools::python(tools::PYTHON_PACKAGES)?;
    let node = tools::node(&["@bytecodealliance/componentize-js@0.23.0"])?;
    if node.is_none() {
        say("npm is not installed, so the examples in JavaScript are not built");
    }
    for (name, world) in OTHERS {
        let folder = root().join("components/python").join(name);
        let built = out.join(format!("python-{name}.wasm"));
        if !is_newer(&built, &[&folder.join("app.py"), &wit.join("types.wit"), &wit.join("worlds.wit")]) {
            let mut command = Command::new(python.join("componentize-py"));
            command.current_dir(&folder).arg("--quiet").arg("-d").arg(&wit).args([
                "-w",
                world,
                "componentize",
                "app",
                "-o",
            ]);
            run(&format!("building the example {name} in Python"), command.arg(&built))?;
        }
        let Some(node) = &node else { continue };
        let source = root().join("components/javascript").join(format!("{name}.js"));
        let built = out.join(format!("javascript-{name}.wasm"));
        if !is_newer(&built, &[&source, &wit.join("types.wit"), &wit.join("worlds.wit")]) {
            // It sees the folder that it runs in and nothing else.
            let place = target_dir().join("node").join(name);
            fs::create_dir_all(place.join("wit"))?;
            fs::copy(&source, place.join("app.js"))?;
            for file in ["types.wit", "runtime.wit", "worlds.wit"] {
                fs::copy(wit.join(file), place.join("wit").join(file))?;
            }
            let mut command = Command::new(node.join("componentize-js"));
            command.current_dir(&place).args(["app.js", "--wit", "wit", "--world-name", world]);
            command.args(["-d", "http", "-d", "fetch-event", "-d", "random", "-d", "clocks", "-o"]);
            run(&format!("building the example {name} in JavaScript"), command.arg(&built))?;
        }
    }
    Ok(())
}

/// Whether a file is there and newer than all of these.
fn is_newer(file: &Path, than: &[&Path]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    let built = time(file);
    built.is_some() && than.iter().all(|source| time(source) < built)
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
