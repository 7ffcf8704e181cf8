//! Why a call gave nothing, and whose fault that is.

use nodata_log::LogError;
use nodata_runtime::{CallError, CallErrorReason};

/// What is to be done about a call that failed.
pub(super) enum Blame {
    /// The component asks for more time.
    Later,
    /// What it was given, or what it makes of it.
    Events,
    /// Neither: it could not be called at all.
    Nobody,
    /// A defect of this host, which no event has to pay for.
    Host,
}

impl Blame {
    pub(super) fn of(error: &CallError) -> Self {
        match error.reason() {
            CallErrorReason::Transient(_) => Blame::Later,
            CallErrorReason::OutOfHostMemory { .. } => Blame::Nobody,
            CallErrorReason::Host(_) => Blame::Host,
            _ => Blame::Events,
        }
    }
}

/// Why a call gave nothing.
pub(crate) enum CallFailure {
    Call(CallError),
    /// There was no instance to call.
    Start(CallError),
    Log(LogError),
}

impl From<CallError> for CallFailure {
    fn from(error: CallError) -> Self {
        CallFailure::Call(error)
    }
}

impl From<LogError> for CallFailure {
    fn from(error: LogError) -> Self {
        CallFailure::Log(error)
    }
}

/// Why events could not be processed.
pub(super) struct Trouble {
    pub(super) reason: String,
    pub(super) attempts: u32,
    pub(super) last_lines: Vec<String>,
}

/// What is shown of a call that failed: where, and the last that the component said.
pub(crate) fn last_lines(error: &CallError) -> Vec<String> {
    let frames = error.frames().iter().map(|frame| format!("at {frame}"));
    frames.chain(error.stderr().iter().cloned()).collect()
}
