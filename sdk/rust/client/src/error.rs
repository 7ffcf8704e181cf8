//! What can go wrong, and what the caller should do about it.

use std::sync::Arc;
use thiserror::Error as ThisError;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Change the request.
    Invalid,
    /// Check the name, or create it.
    NotFound,
    /// Read again, then decide.
    Conflict,
    /// Ask for the grant.
    Denied,
    /// Slow down, try later.
    Exhausted,
    /// Try again; [`Error::outcome`] says whether it may have happened.
    Unavailable,
    /// The server's data is damaged.
    Corrupt,
    /// Report it.
    Internal,
}

/// Whether something that failed may have happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not: repeating is safe.
    NotApplied,
    /// Nobody knows: look before repeating.
    Unknown,
}

/// A refusal of the server, or a connection that broke. Cheap to clone.
#[derive(Clone, Debug, ThisError)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    outcome: Outcome,
    reason: Arc<str>,
    message: Arc<str>,
    /// The number of the request that a stream ended at.
    pub(crate) sequence: Option<u64>,
    hint: Option<Arc<str>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, outcome: Outcome, reason: &str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { kind, outcome, reason: reason.into(), message: message.into(), sequence: None, hint: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, Outcome::NotApplied, "INVALID", message)
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether it may have happened all the same.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// A word that a program can match, for example `UNKNOWN_TOPIC`; it never changes.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What to do about it, in words, where the server knows.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether it is worth trying again without changing anything.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Exhausted)
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_details_error_info();
        let metadata = |name: &str| details.as_ref().and_then(|info| info.metadata.get(name));
        let kind = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => ErrorKind::Conflict,
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
            Code::ResourceExhausted => ErrorKind::Exhausted,
            Code::DataLoss => ErrorKind::Corrupt,
            // A connection that breaks is one of these, depending on the moment.
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        // Whoever refuses says so; a connection that broke says nothing, and then nobody knows.
        let outcome = match metadata("outcome").map(String::as_str) {
            Some("not-applied") => Outcome::NotApplied,
            Some(_) => Outcome::Unknown,
            None if kind == ErrorKind::Unavailable || kind == ErrorKind::Internal => Outcome::Unknown,
            None => Outcome::NotApplied,
        };
        let reason = details.as_ref().map_or("CONNECTION", |info| info.reason.as_str());
        let message = match (&details, kind) {
            (None, ErrorKind::Unavailable) => format!("the server cannot be reached: {}", innermost(&status)),
            _ => status.message().to_owned(),
        };
        let mut error = Self::new(kind, outcome, reason, message);
        error.sequence = metadata("sequence").and_then(|sequence| sequence.parse().ok());
        error.hint = metadata("hint").map(|hint| hint.as_str().into());
        error
    }
}

impl From<tonic::transport::Error> for Error {
    fn from(error: tonic::transport::Error) -> Self {
        let message = format!("the server cannot be reached: {}", innermost(&error));
        Self::new(ErrorKind::Unavailable, Outcome::NotApplied, "CONNECTION", message)
    }
}

/// The cause of the cause: what a person can do something about.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    match at.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => at.to_string(),
    }
}
