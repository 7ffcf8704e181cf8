//! Compiling a component, in a child process that can be killed.
//!
//! A file that makes the compiler spin or eat memory is not a defect of the compiler, so the compiler must not share a
//! process with a server. The child is this same program, started again: it limits itself before it looks at the file, reads
//! it from its standard input and writes what it made to its standard output.
//!
//! ```text
//! to the child     8 processor seconds   8 bytes of memory   the component
//! from the child   8 fingerprint of its engine   the compiled component
//! ```
//!
//! Numbers are little-endian. The fingerprint says whether the child is of the same build: a program that was replaced on
//! the disk while the server runs makes code that the server cannot use.

use crate::engine;
use crate::limits::{
    COMPILE_CPU_SECS, COMPILE_MEMORY_BYTES, COMPILE_MESSAGE_BYTES_MAX, COMPILE_NICE, COMPILE_WALL, COMPILED_BYTES_MAX,
    COMPONENT_BYTES_MAX,
};
use bytes::Bytes;
use nodata_log::ErrorKind;
use rustix::process::{Resource, Rlimit, Signal};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// How to start the child: a program that calls [`child_main`], and what that may use.
#[derive(Clone, Debug)]
pub struct Compiler {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub limits: CompileLimits,
}

/// What one compilation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// By the clock.
    pub wall: Duration,
    pub cpu_secs: u64,
    /// Address space.
    pub memory_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { wall: COMPILE_WALL, cpu_secs: COMPILE_CPU_SECS, memory_bytes: COMPILE_MEMORY_BYTES }
    }
}

/// Why a component could not be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error("the compiler refuses the component: {message}")]
    Refused { message: String },
    #[error("compiling takes more than {secs} s of processor time")]
    Cpu { secs: u64 },
    #[error("compiling takes longer than {} s", wall.as_secs_f64())]
    Wall { wall: Duration },
    #[error("compiling takes more than {} MiB of memory", memory_bytes >> 20)]
    Memory { memory_bytes: u64 },
    #[error("the compiled component has more than {} MiB", COMPILED_BYTES_MAX >> 20)]
    TooLarge,
    #[error("the compiler ended with {status}: {message}")]
    Crashed { status: ExitStatus, message: String },
    #[error("the compiler {} is of another build than this process; restart the server", program.display())]
    OtherBuild { program: PathBuf },
    #[error("the compiler {} could not be run: {source}", program.display())]
    Io { program: PathBuf, source: io::Error },
}

impl CompileError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CompileError::Refused { .. }
            | CompileError::Cpu { .. }
            | CompileError::Memory { .. }
            | CompileError::TooLarge => ErrorKind::Invalid,
            // How long it takes by the clock depends on what else the machine does.
            CompileError::Wall { .. } => ErrorKind::Exhausted,
            CompileError::Crashed { .. } | CompileError::OtherBuild { .. } => ErrorKind::Internal,
            CompileError::Io { .. } => ErrorKind::Unavailable,
        }
    }
}

impl Compiler {
    /// This program, with these arguments before everything else.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            limits: CompileLimits::default(),
        }
    }

    /// Compiles a component. Dropping the future kills the child.
    pub(crate) async fn compile(&self, wasm: Bytes, fingerprint: u64) -> Result<Vec<u8>, CompileError> {
        let failed = |source| CompileError::Io { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };

        let CompileLimits { wall, cpu_secs, memory_bytes } = self.limits;
        let header = [cpu_secs.to_le_bytes(), memory_bytes.to_le_bytes()].concat();
        let give = async move {
            // A child that ended without reading says why elsewhere.
            let _ = stdin.write_all(&header).await;
            let _ = stdin.write_all(&wasm).await;
        };
        let mut made = Vec::new();
        let take = async {
            // One byte more than is allowed, to see that there is more.
            stdout.take(8 + COMPILED_BYTES_MAX + 1).read_to_end(&mut made).await
        };
        let mut said = Vec::new();
        let listen = async { stderr.take(COMPILE_MESSAGE_BYTES_MAX).read_to_end(&mut said).await };
        let work = async {
            let ((), taken, listened) = tokio::join!(give, take, listen);
            taken.and(listened)?;
            child.wait().await
        };
        let status = match tokio::time::timeout(wall, work).await {
            Ok(status) => status.map_err(failed)?,
            Err(_) => return Err(CompileError::Wall { wall }),
        };

        if made.len() as u64 > 8 + COMPILED_BYTES_MAX {
            return Err(CompileError::TooLarge);
        }
        if !status.success() {
            return Err(self.explain(status, &said));
        }
        let Some(theirs) = made.first_chunk() else {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        };
        if u64::from_le_bytes(*theirs) != fingerprint {
            return Err(CompileError::OtherBuild { program: self.program.clone() });
        }
        made.drain(..8);
        Ok(made)
    }

    /// Why the child failed, from how it ended and what it said.
    fn explain(&self, status: ExitStatus, said: &[u8]) -> CompileError {
        let message = String::from_utf8_lossy(said).trim().to_owned();
        let signal = status.signal();
        // An allocation that cannot fail aborts, and says why.
        let is_out_of_memory = signal == Some(Signal::ABORT.as_raw()) && message.contains("memory allocation");
        if signal == Some(Signal::XCPU.as_raw()) {
            CompileError::Cpu { secs: self.limits.cpu_secs }
        } else if is_out_of_memory || status.code() == Some(EXIT_MEMORY.into()) {
            CompileError::Memory { memory_bytes: self.limits.memory_bytes }
        } else if status.code() == Some(EXIT_REFUSED.into()) {
            CompileError::Refused { message }
        } else {
            CompileError::Crashed { status, message }
        }
    }
}

// Exit codes of the child.
const EXIT_FAILED: u8 = 1;
const EXIT_REFUSED: u8 = 65;
const EXIT_MEMORY: u8 = 71;

/// The child: what the program of a [`Compiler`] has to do, and nothing else. Nothing may be printed before it.
pub fn child_main() -> ExitCode {
    match child() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            // If nobody listens there is nobody to tell.
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::from(code)
        }
    }
}

fn child() -> Result<(), (u8, String)> {
    let failed = |doing: &'static str| {
        move |error: io::Error| {
            let code = if error.kind() == io::ErrorKind::OutOfMemory { EXIT_MEMORY } else { EXIT_FAILED };
            (code, format!("{doing}: {error}"))
        }
    };
    close_inherited().map_err(failed("closing what was inherited"))?;
    let mut stdin = io::stdin().lock();
    let mut number = || {
        let mut bytes = [0; 8];
        stdin.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes)).map_err(failed("reading the limits"))
    };
    let (cpu_secs, memory_bytes) = (number()?, number()?);
    restrain(cpu_secs, memory_bytes).map_err(|error| failed("limiting the compiler")(error.into()))?;

    let mut wasm = Vec::new();
    stdin.take(COMPONENT_BYTES_MAX as u64).read_to_end(&mut wasm).map_err(failed("reading the component"))?;
    let engine = engine::compiling().map_err(|error| (EXIT_FAILED, format!("{error:#}")))?;
    let code = engine.precompile_component(&wasm).map_err(|error| (EXIT_REFUSED, format!("{error:#}")))?;

    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&engine::fingerprint(&engine).to_le_bytes())
        .and_then(|()| stdout.write_all(&code))
        .and_then(|()| stdout.flush())
        .map_err(failed("writing the compiled component"))
}

/// Closes every descriptor but the three streams. The server opens its files so that they close by themselves, but it may
/// have inherited others that do not.
fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        inherited.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()).filter(|&fd| fd > 2));
    }
    for fd in inherited {
        // The one that listed them is closed already.
        if fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok() {
            #[expect(unsafe_code, reason = "this process has only begun: nothing in it owns this descriptor")]
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok(())
}

/// Takes from this process what compiling does not need.
fn restrain(cpu_secs: u64, memory_bytes: u64) -> rustix::io::Result<()> {
    let limit =
        |resource, most| rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::As, memory_bytes)?;
    // At the first number the signal says why, at the second the process just ends.
    rustix::process::setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_secs), maximum: Some(cpu_secs + 1) })?;
    // No file can be written, not even a picture of the memory, and few can be opened.
    limit(Resource::Fsize, 0)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 16)?;
    rustix::process::nice(COMPILE_NICE).map(|_| ())
}
