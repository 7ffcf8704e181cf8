//! Runs the targets of `host/fuzz` under libFuzzer, on a stable compiler.

use crate::step::{self, Failed, cargo, read, root, run, say, target_dir, works};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of an input, at most.
const INPUT_BYTES_MAX: u32 = 4096;
/// Seconds for one input. Nothing that is read in earnest takes a second.
const INPUT_SECONDS_MAX: u32 = 10;
/// Seconds of each target when all are run, and of one without `--seconds`.
const ALL_SECONDS: u32 = 10;
const SECONDS: u32 = 300;
/// Seconds that a finding may take to be made smaller.
const MINIMIZE_SECONDS: u32 = 30;

/// What `cargo fuzz` gives the compiler too, without a sanitizer: counters at every edge, and the operands of comparisons.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

fn folder() -> PathBuf {
    root().join("host/fuzz")
}

/// Every target has a folder of inputs.
fn targets() -> Result<Vec<String>, Failed> {
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder().join("corpus"))?.collect::<Result<_, _>>()?;
    let mut names: Vec<String> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// libFuzzer is C++ and is compiled here.
fn has_compiler() -> bool {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    works(Command::new(compiler).arg("--version"))
}

/// Builds the program, in which all targets are.
fn build() -> Result<PathBuf, Failed> {
    let about = read("asking rustc for the name of this machine", Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Failed::new("rustc -vV says no host"))?;
    let target = target_dir().join("fuzz-build");
    // With a target that is named, the flags are not for build scripts and macros, which could not be linked with them.
    let build = ["build", "--release", "--locked", "--target", host];
    run(
        "building the fuzz targets; the first time, that takes some minutes",
        cargo(&build)
            .current_dir(folder().join("libfuzzer"))
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", FLAGS.join(" ")),
    )?;
    Ok(target.join(host).join("release/nodata-libfuzzer"))
}

/// The program, for one target.
struct Fuzzer {
    program: PathBuf,
    target: String,
}

impl Fuzzer {
    /// Where what it finds is put.
    fn work(&self) -> PathBuf {
        target_dir().join("fuzz").join(&self.target)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("NODATA_FUZZ_TARGET", &self.target).current_dir(root());
        command.args([format!("-max_len={INPUT_BYTES_MAX}"), format!("-timeout={INPUT_SECONDS_MAX}")]);
        command
    }

    /// Runs for so long. New inputs go to `found`; it begins with those, and with all that are kept.
    fn fuzz(&self, found: &Path, seconds: u32, more: &[&str]) -> Result<(), Failed> {
        let findings = self.work().join("findings");
        fs::create_dir_all(found)?;
        let _ = fs::remove_dir_all(&findings);
        fs::create_dir_all(&findings)?;
        let kept = ["corpus", "regressions"].map(|kind| folder().join(kind).join(&self.target));
        let mut command = self.command();
        command
            .args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={}/", findings.display())])
            .args(["-print_final_stats=1", "-verbosity=0"])
            .args(more)
            .arg(found)
            .args(kept.iter().filter(|dir| dir.exists()));
        let ran = run(&format!("fuzzing {} for {seconds} s", self.target), &mut command);
        let finding = fs::read_dir(&findings)?.next().transpose()?;
        match (ran, finding) {
            (Err(failed), Some(finding)) => Err(self.explain(&finding.path(), failed)),
            (ran, _) => ran,
        }
    }

    /// Makes a finding smaller, and says what to do with it.
    fn explain(&self, finding: &Path, failed: Failed) -> Failed {
        let small = finding.with_file_name("smallest");
        let mut minimize = self.command();
        minimize
            .args(["-minimize_crash=1", "-verbosity=0"])
            .args([format!("-max_total_time={MINIMIZE_SECONDS}"), format!("-exact_artifact_path={}", small.display())])
            .arg(finding);
        say("==> making the finding smaller");
        let _ = step::works(&mut minimize);
        let shown = if small.exists() { small } else { finding.to_owned() };
        Failed::new(format!(
            "{failed}\n\n{} is an input that `{target}` fails on.\nKeep it as host/fuzz/regressions/{target}/WHAT-IS-SO: \
             the test `{target}` of nodata-fuzz then fails on it until it is fixed, and fails again if it comes back.",
            shown.display(),
            target = self.target,
        ))
    }
}

/// One target, for as long as one likes.
pub(crate) fn one(target: &str, seconds: Option<&str>) -> Result<(), Failed> {
    let targets = targets()?;
    if !targets.iter().any(|known| known == target) {
        return Err(Failed::new(format!("no target `{target}`; there are {}", targets.join(", "))));
    }
    let seconds = seconds.map_or(Ok(SECONDS), str::parse);
    let seconds = seconds.map_err(|_| Failed::new("--seconds takes a number"))?;
    if !has_compiler() {
        return Err(Failed::new("libFuzzer needs a C++ compiler: install one (`apt install g++`), or name one in CXX"));
    }
    let fuzzer = Fuzzer { program: build()?, target: target.to_owned() };
    fuzzer.fuzz(&fuzzer.work().join("corpus"), seconds, &[])
}

/// Every target for some seconds, the same inputs each time.
pub(crate) fn all() -> Result<(), Failed> {
    if !has_compiler() {
        say(
            "there is no C++ compiler, which libFuzzer needs: only the inputs that are kept were run, and nothing was fuzzed",
        );
        return Ok(());
    }
    let program = build()?;
    for target in targets()? {
        let fuzzer = Fuzzer { program: program.clone(), target };
        let found = tempfile::tempdir()?;
        fuzzer.fuzz(found.path(), ALL_SECONDS, &["-seed=1"])?;
    }
    Ok(())
}

/// Makes the inputs to begin with anew, as the encoders write them now, and leaves out those that try nothing new.
pub(crate) fn seeds() -> Result<(), Failed> {
    let program = build()?;
    for target in targets()? {
        let fuzzer = Fuzzer { program: program.clone(), target };
        let written = tempfile::tempdir()?;
        let write = &mut fuzzer.command();
        run(&format!("writing seeds for {}", fuzzer.target), write.env("NODATA_FUZZ_SEEDS", written.path()))?;
        let corpus = folder().join("corpus").join(&fuzzer.target);
        fs::remove_dir_all(&corpus)?;
        fs::create_dir_all(&corpus)?;
        let merge = &mut fuzzer.command();
        run("leaving out what tries nothing new", merge.arg("-merge=1").arg(&corpus).arg(written.path()))?;
    }
    Ok(())
}
