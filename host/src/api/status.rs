//! Errors as a caller sees them: a gRPC code, a sentence, and what a program can match.

use nodata_archive::ArchiveError;
use nodata_log::{ErrorKind, LogError, Outcome, ProducerError};
use nodata_proto::ERROR_DOMAIN;
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// An error on its way to a caller.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    message: String,
    reason: &'static str,
    metadata: HashMap<String, String>,
}

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code: code(kind), message: message.into(), reason, metadata: HashMap::new() }
    }

    pub(crate) fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, reason, message)
    }

    /// What the transport says about a message: too large, or not protobuf. A client that is gone does not see it.
    pub(crate) fn from_transport(status: &Status) -> Self {
        Self::invalid("MESSAGE", status.message()).code(status.code())
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.with("hint", hint.into())
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same in other words.
    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same with another code, where gRPC has a finer one than our kinds.
    pub(crate) fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        let mut refusal = Refusal::new(error.kind(), error.reason(), error.to_string());
        if error.kind() == ErrorKind::Unavailable {
            let outcome = match error.outcome() {
                Outcome::NotApplied => "not-applied",
                Outcome::Unknown => "unknown",
            };
            refusal = refusal.with("outcome", outcome);
        }
        match error {
            LogError::UnknownTopic { topic } => refusal.hint(format!("create it with `nodata topic create {topic}`")),
            LogError::TopicExists { .. } => refusal.code(Code::AlreadyExists),
            LogError::OutOfRange { earliest, end, .. } => {
                refusal.code(Code::OutOfRange).with("earliest", earliest).with("end", end)
            }
            LogError::Producer(ProducerError::OutOfSequence { expected, .. }) => refusal.with("expected", expected),
            LogError::DiskFull => {
                refusal.hint("free space on the disk of the server, or move its data to a larger one")
            }
            _ => refusal,
        }
    }
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Log(error) => error.into(),
            other => Refusal::new(other.kind(), "ARCHIVE", other.to_string()),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, reason, metadata } = refusal;
        Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata))
    }
}

/// A name that a request gave.
pub(crate) fn name(what: &str, name: &str) -> Result<nodata_log::Name, Refusal> {
    nodata_log::Name::new(name).map_err(|error| Refusal::invalid("NAME", format!("{what}: {error}")))
}

/// The part of a sorted list that a page holds, and where the next one begins.
pub(crate) fn page<T>(items: Vec<T>, page_size: u32, page_token: &str, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let size = match page_size {
        0 => 100,
        size => size.min(1000) as usize,
    };
    let mut rest = items.into_iter().skip_while(|item| !page_token.is_empty() && key(item).as_str() <= page_token);
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next = match (rest.next(), page.last()) {
        (Some(_), Some(last)) => key(last),
        _ => String::new(),
    };
    (page, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_seen_once_and_the_last_one_says_so() {
        let names = || ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let (items, next) = page(names(), 2, &token, Clone::clone);
            seen.push(items.concat());
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, ["ab", "cd", "e"]);
        // An entry that is deleted between two pages does not end the list.
        assert_eq!(page(vec!["a", "c"], 2, "b", |name| (*name).to_owned()).0, ["c"]);
    }

    #[test]
    fn a_caller_is_told_what_it_can_match() {
        let topic = nodata_log::Name::new("orders").unwrap();
        let status = Status::from(Refusal::from(LogError::UnknownTopic { topic }));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "topic `orders` does not exist");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("UNKNOWN_TOPIC", "nodata"));
        assert_eq!(info.metadata["hint"], "create it with `nodata topic create orders`");
    }
}
