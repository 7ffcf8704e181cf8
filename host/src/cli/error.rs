//! How a command fails: one sentence, one hint, one exit code.

use crate::cli::out::readable;
use crate::server::ServerError;
use nodata_client::Error as ClientError;
use serde_json::json;
use std::io::{self, Write as _};
use std::process::ExitCode;
use tonic::Status;

/// A failed command.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    hint: Option<String>,
    reason: String,
    exit: Exit,
    json: bool,
}

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success = 0,
    Failed = 1,
    /// The request is wrong: change it.
    Invalid = 2,
    Interrupted = 130,
}

impl CliError {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, reason: "FAILED".to_owned(), exit, json: false }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "INVALID".to_owned(), ..Self::new(Exit::Invalid, message) }
    }

    /// Nothing was done, and nothing is known.
    pub(crate) fn not_run(message: impl Into<String>) -> Self {
        Self { reason: "NOT_RUN".to_owned(), ..Self::new(Exit::Invalid, message) }
    }

    pub(crate) fn interrupted() -> Self {
        Self { reason: "INTERRUPTED".to_owned(), ..Self::new(Exit::Interrupted, "interrupted") }
    }

    /// The same, with what to do about it, unless that is known better already.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same, with something else that can be done about it.
    pub(crate) fn or(mut self, other: &str) -> Self {
        self.hint = Some(self.hint.map_or_else(|| other.to_owned(), |hint| format!("{hint}, or {other}")));
        self
    }

    /// The same, with a word that a program can match.
    pub(crate) fn reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.reason);
        self
    }

    /// The same with more words in front.
    pub(crate) fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same, told as JSON.
    pub(crate) fn told_as_json(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// Says it, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if self.exit != Exit::Success {
            let mut text = String::new();
            if self.json {
                let error = json!({ "error": self.message, "reason": self.reason, "hint": self.hint });
                text.push_str(&error.to_string());
                text.push('\n');
            } else {
                // A component may be among those who speak here.
                text.push_str(&format!("error: {}\n", readable(&self.message)));
                if let Some(hint) = &self.hint {
                    text.push_str(&format!("hint: {}\n", readable(hint)));
                }
            }
            // There is nowhere left to say that this failed.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let exit = match error.kind() {
            nodata_client::ErrorKind::Invalid => Exit::Invalid,
            _ => Exit::Failed,
        };
        let hint = error.hint().map(str::to_owned);
        Self { reason: error.reason().to_owned(), hint, ..Self::new(exit, error.to_string()) }
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        ClientError::from(status).into()
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        let exit = match error.kind() {
            nodata_log::ErrorKind::Invalid => Exit::Invalid,
            _ => Exit::Failed,
        };
        Self { hint: error.hint(), ..Self::new(exit, error.to_string()) }
    }
}

/// Writing to standard output: a reader that went away has what it wanted.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Exit::Success, "")
        } else {
            Self::failed(format!("cannot write to standard output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_never_change() {
        let code = |error: CliError| error.exit as u8;
        assert_eq!(code(CliError::failed("x")), 1);
        assert_eq!(code(CliError::invalid("x")), 2);
        assert_eq!(code(CliError::interrupted()), 130);
        assert_eq!(code(io::Error::from(io::ErrorKind::BrokenPipe).into()), 0);
        assert_eq!(code(io::Error::from(io::ErrorKind::StorageFull).into()), 1);
    }

    #[test]
    fn the_first_hint_is_the_best() {
        assert_eq!(CliError::failed("x").hint("a").hint("b").hint.as_deref(), Some("a"));
    }
}
