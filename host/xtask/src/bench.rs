//! Every benchmark, in a release build, on the disk of the current directory.

use crate::components;
use crate::step::{Failed, cargo, root, run, target_dir};
use std::process::Command;

pub(crate) fn run_all() -> Result<(), Failed> {
    components::build()?;
    run("building nodata for measuring", &mut cargo(&["build", "--release", "--locked", "--package", "nodata"]))?;
    run("the log alone, without a network", &mut cargo(&["bench", "--locked", "--package", "nodata-log"]))?;
    run(
        "a component alone, beside the same function called natively",
        &mut cargo(&["bench", "--locked", "--package", "nodata-runtime"]),
    )?;
    let nodata = target_dir().join("release/nodata");
    let all = ["publish", "consume", "transform", "aggregate", "failures", "upload", "replace", "idle", "neighbours"];
    for what in all {
        run(&format!("nodata bench {what}"), Command::new(&nodata).args(["bench", what]).current_dir(root()))?;
    }
    Ok(())
}
