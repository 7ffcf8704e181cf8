//! Runs commands, and says what is being done and how long it took.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Why a command of this repository failed.
#[derive(Debug)]
pub(crate) struct Failed(String);

impl Failed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Asked for at run time: a build that several checkouts share may have been made in another one.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// Where cargo builds the host.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Says something to the person who waits.
pub(crate) fn say(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a result.
pub(crate) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A command of cargo, in the root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command, saying what it is for.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<(), Failed> {
    say(&format!("==> {what}"));
    let begun = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Failed::new(format!("{what}: cannot run {:?}: {error}", command.get_program())))?;
    let seconds = begun.elapsed().as_secs();
    if !status.success() {
        return Err(Failed::new(format!("{what} failed after {seconds} s ({status}): {command:?}")));
    }
    if seconds >= 5 {
        say(&format!("    done in {seconds} s"));
    }
    Ok(())
}

/// Runs a command and answers with what it printed.
pub(crate) fn read(what: &str, command: &mut Command) -> Result<String, Failed> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failed::new(format!("{what}: cannot run {:?}: {error}", command.get_program())))?;
    if !output.status.success() {
        return Err(Failed::new(format!("{what} failed ({})", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| Failed::new(format!("{what} printed what is no text")))
}

/// Whether a command runs at all and succeeds.
pub(crate) fn works(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
