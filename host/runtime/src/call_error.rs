//! Why a call of a component failed, in words for its author.

use crate::guest::{Guest, OutOfCpu};
use crate::imports::types::GuestError;
use crate::limits::{ERROR_BYTES_MAX, FUNCTION_NAME_BYTES_MAX, GUEST_STACK_BYTES};
use crate::memory::Refusal;
use crate::rows::cut;
use crate::state::StateError;
use nodata_log::ErrorKind;
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// A call that failed. Nothing of what it did is kept.
#[derive(Clone, Debug)]
pub struct CallError {
    failure: Box<CallFailure>,
}

#[derive(Clone, Debug)]
struct CallFailure {
    reason: CallErrorReason,
    frames: Vec<String>,
    stderr: Vec<String>,
}

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallErrorReason {
    /// The component asks to be called again later. The instance lives on.
    #[error("the component asks to try again later: {0}")]
    Transient(String),
    /// The component says that trying again cannot help. The instance lives on.
    #[error("the component refuses the batch: {0}")]
    Permanent(String),
    /// The component says that an instance cannot work as it is configured, or not yet.
    #[error("the component does not open: {0}")]
    NotOpen(String),
    /// What a call returned is not what it has to be. The instance lives on.
    #[error("the component returned something wrong from `{call}`: {what}")]
    Returned { call: &'static str, what: String },
    /// The code of the component panicked.
    #[error("the component panicked at {place}: {message}")]
    Panic { place: String, message: String },
    /// The component did something that ends it, or the host had to end it.
    #[error("the component failed: {0}")]
    Trap(String),
    /// The component ended itself.
    #[error("the component ended itself with exit code {code}")]
    Exit { code: i32 },
    #[error("the component used more than {} of processor time", seconds(*max))]
    OutOfCpu { max: Duration },
    #[error("the component took longer than {}", seconds(*max))]
    OutOfTime { max: Duration },
    #[error("the component wanted more than {} of memory", mebibytes(*bytes_max))]
    OutOfMemory { bytes_max: u64 },
    #[error("all components together wanted more than {} of memory", mebibytes(*bytes_max))]
    OutOfHostMemory { bytes_max: u64 },
    /// What the host would keep for the component is more than the task may have.
    #[error("the state of the task would have more than {}", mebibytes(*bytes_max))]
    OutOfState { bytes_max: u64 },
    #[error("the component wanted a table of more than {elements_max} elements")]
    OutOfTable { elements_max: usize },
    /// An earlier call ended the instance.
    #[error("the instance has ended; start another one")]
    Ended,
    /// A defect of this host.
    #[error("the host failed: {0}")]
    Host(String),
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes as f64 / f64::from(1 << 20))
}

impl CallError {
    pub(crate) fn new(reason: CallErrorReason) -> Self {
        Self::with_stderr(reason, Vec::new())
    }

    fn with_stderr(reason: CallErrorReason, stderr: Vec<String>) -> Self {
        Self { failure: Box::new(CallFailure { reason, frames: Vec::new(), stderr }) }
    }

    /// What a component returned.
    pub(crate) fn returned(error: GuestError, guest: &Guest) -> Self {
        let cut = |text: String| cut(&text, ERROR_BYTES_MAX).to_owned();
        let reason = match error {
            GuestError::Transient(text) => CallErrorReason::Transient(cut(text)),
            GuestError::Permanent(text) => CallErrorReason::Permanent(cut(text)),
        };
        Self::with_stderr(reason, guest.stderr.tail())
    }

    /// The same, of a call that opens an instance: no batch is refused by it, or to blame for it.
    pub(crate) fn at_open(mut self) -> Self {
        let is_of_host = matches!(self.reason(), CallErrorReason::OutOfHostMemory { .. } | CallErrorReason::Host(_));
        if !is_of_host {
            self.failure.reason = CallErrorReason::NotOpen(self.words());
        }
        self
    }

    /// The same, of a call that gives an instance the memory of another one.
    pub(crate) fn at_restore(self, saved_by: &str) -> Self {
        let mut error = self.at_open();
        if let CallErrorReason::NotOpen(words) = &mut error.failure.reason {
            let by = saved_by.get(..12).unwrap_or(saved_by);
            *words = format!("it cannot go on from the memory that {by} saved: {words}");
        }
        error
    }

    /// What the component said, or what happened to it.
    pub fn words(&self) -> String {
        match self.reason() {
            CallErrorReason::Transient(words) | CallErrorReason::Permanent(words) | CallErrorReason::NotOpen(words) => {
                words.clone()
            }
            other => other.to_string(),
        }
    }

    /// The task would have more state than it may.
    pub fn out_of_state(bytes_max: u64) -> Self {
        Self::new(CallErrorReason::OutOfState { bytes_max })
    }

    /// What was written could not be counted. Nothing is wrong with the component, and later it may be possible.
    pub(crate) fn state(error: StateError) -> Self {
        let what = match error {
            StateError::Denied(what) | StateError::Unavailable(what) => what,
            StateError::QuotaExceeded => "it is full".to_owned(),
        };
        Self::new(CallErrorReason::Transient(format!("the state could not be read: {what}")))
    }

    /// A call that did not return in time.
    pub(crate) fn out_of_time(max: Duration, guest: &Guest) -> Self {
        Self::with_stderr(CallErrorReason::OutOfTime { max }, guest.stderr.tail())
    }

    /// What ended an instance.
    pub(crate) fn ended(error: &wasmtime::Error, cpu_max: Duration, guest: &mut Guest) -> Self {
        let stderr = guest.stderr.tail();
        let reason = reason(error, cpu_max, guest.memory.take_refusal(), &stderr);
        let frames = error.downcast_ref::<WasmBacktrace>().map_or_else(Vec::new, frames);
        Self { failure: Box::new(CallFailure { reason, frames, stderr }) }
    }

    /// Why.
    pub fn reason(&self) -> &CallErrorReason {
        &self.failure.reason
    }

    /// The functions of the component that were running, innermost first. Empty unless it trapped.
    pub fn frames(&self) -> &[String] {
        &self.failure.frames
    }

    /// The last lines that the instance wrote to its standard error.
    pub fn stderr(&self) -> &[String] {
        &self.failure.stderr
    }

    /// Whether the instance can still be called.
    pub fn instance_lives(&self) -> bool {
        matches!(
            self.reason(),
            CallErrorReason::Transient(_)
                | CallErrorReason::Permanent(_)
                | CallErrorReason::Returned { .. }
                | CallErrorReason::OutOfState { .. }
        )
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self.reason() {
            CallErrorReason::Transient(_) | CallErrorReason::NotOpen(_) | CallErrorReason::Ended => {
                ErrorKind::Unavailable
            }
            CallErrorReason::Permanent(_)
            | CallErrorReason::Returned { .. }
            | CallErrorReason::Panic { .. }
            | CallErrorReason::Trap(_)
            | CallErrorReason::Exit { .. } => ErrorKind::Invalid,
            CallErrorReason::OutOfCpu { .. }
            | CallErrorReason::OutOfTime { .. }
            | CallErrorReason::OutOfMemory { .. }
            | CallErrorReason::OutOfHostMemory { .. }
            | CallErrorReason::OutOfState { .. }
            | CallErrorReason::OutOfTable { .. } => ErrorKind::Exhausted,
            CallErrorReason::Host(_) => ErrorKind::Internal,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.reason(), f)
    }
}

impl std::error::Error for CallError {}

fn reason(error: &wasmtime::Error, cpu_max: Duration, refusal: Option<Refusal>, stderr: &[String]) -> CallErrorReason {
    if error.is::<OutOfCpu>() {
        return CallErrorReason::OutOfCpu { max: cpu_max };
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return CallErrorReason::Exit { code: exit.0 };
    }
    // Hardly a guest goes on without the memory it asked for, so this is the reason of what came next.
    match refusal {
        Some(Refusal::Instance { bytes_max }) => return CallErrorReason::OutOfMemory { bytes_max },
        Some(Refusal::Host { bytes_max }) => return CallErrorReason::OutOfHostMemory { bytes_max },
        Some(Refusal::Table { elements_max }) => return CallErrorReason::OutOfTable { elements_max },
        None => {}
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => panic_of(stderr).unwrap_or_else(|| {
            CallErrorReason::Trap(
                "it reached code that cannot be reached, which is how a panic or an abort ends".to_owned(),
            )
        }),
        Some(trap) => CallErrorReason::Trap(explain(*trap)),
        None => CallErrorReason::Trap(cut(&format!("{:#}", error.root_cause()), ERROR_BYTES_MAX).to_owned()),
    }
}

fn explain(trap: Trap) -> String {
    match trap {
        Trap::StackOverflow => {
            format!("its stack is full: calls are nested deeper than {} KiB of stack allow", GUEST_STACK_BYTES >> 10)
        }
        Trap::MemoryOutOfBounds => "it read or wrote outside of its memory".to_owned(),
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
            "it called through a pointer that points to no such function".to_owned()
        }
        Trap::IntegerDivisionByZero => "it divided by zero".to_owned(),
        Trap::IntegerOverflow => "a division overflowed".to_owned(),
        Trap::BadConversionToInteger => "it converted a number that no integer can hold".to_owned(),
        other => other.to_string(),
    }
}

/// What a Rust panic says on standard error: where it happened on one line, and why on those that follow.
fn panic_of(stderr: &[String]) -> Option<CallErrorReason> {
    const MARK: &str = "panicked at ";
    let at = stderr.iter().rposition(|line| line.contains(MARK))?;
    let (_, place) = stderr[at].split_once(MARK)?;
    let message: Vec<&str> =
        stderr[at + 1..].iter().map(String::as_str).take_while(|line| !line.starts_with("note: ")).collect();
    Some(CallErrorReason::Panic {
        place: place.trim_end_matches(':').to_owned(),
        message: cut(message.join("\n").trim(), ERROR_BYTES_MAX).to_owned(),
    })
}

fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        // Without the hash that the compiler adds.
        Some(name) => cut(&format!("{:#}", rustc_demangle::demangle(name)), FUNCTION_NAME_BYTES_MAX).to_owned(),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_panic_is_found() {
        let stderr = lines(
            "hello\n\nthread 'main' (1) panicked at src/lib.rs:3:5:\nfirst\n\nthread '<unnamed>' (1) panicked at \
             src/lib.rs:7:9:\nassertion failed\n  left: 1\n right: 2\nnote: run with `RUST_BACKTRACE=1`",
        );
        let found = panic_of(&stderr).map(|reason| reason.to_string());
        let expected = "the component panicked at src/lib.rs:7:9: assertion failed\n  left: 1\n right: 2";
        assert_eq!(found.as_deref(), Some(expected));
        assert_eq!(panic_of(&lines("all is well")), None);
    }

    #[test]
    fn limits_are_named_in_words() {
        let said = |reason: CallErrorReason| reason.to_string();
        let wanted = "the component wanted more than 256 MiB of memory";
        assert_eq!(said(CallErrorReason::OutOfMemory { bytes_max: 256 << 20 }), wanted);
        let used = "the component used more than 50 ms of processor time";
        assert_eq!(said(CallErrorReason::OutOfCpu { max: Duration::from_millis(50) }), used);
        let took = "the component took longer than 2.5 s";
        assert_eq!(said(CallErrorReason::OutOfTime { max: Duration::from_millis(2500) }), took);
    }
}
