//! What can go wrong, and what the caller should do about it.

use crate::batch::BatchError;
use crate::event::EventError;
use crate::frame::FrameError;
use crate::producer::ProducerError;
use crate::task::{TaskEpoch, TaskKey};
use crate::topic::{Name, NameError, Offset, TopicConfigError, TopicId, Tp};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// What the caller should do. A kind exists only if a caller would act differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Change the request or the settings.
    Invalid,
    /// Check the name, or create it.
    NotFound,
    /// Read again, then decide.
    Conflict,
    /// Ask for the grant.
    Denied,
    /// Slow down, try later.
    Exhausted,
    /// Try again; [`LogError::outcome`] says whether it may have happened.
    Unavailable,
    /// Stop and look at the disk.
    Corrupt,
    /// Report it.
    Internal,
}

/// Whether something that failed may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not, and it will not.
    NotApplied,
    /// Nobody knows: look before repeating.
    Unknown,
}

/// Why the log refused or failed.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    #[error("topic `{topic}` does not exist")]
    UnknownTopic { topic: Name },
    #[error("topic {} does not exist any more", topic.0)]
    UnknownTopicId { topic: TopicId },
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    UnknownPartition { topic: Name, partition: u32, partitions: u32 },
    #[error("topic `{topic}` exists already")]
    TopicExists { topic: Name },
    #[error("the store has {count} topics, which is the most it takes")]
    TooManyTopics { count: usize },
    #[error(transparent)]
    TopicConfig(#[from] TopicConfigError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("a transaction of {bytes} bytes, at most {bytes_max} are allowed")]
    TransactionTooLarge { bytes: u64, bytes_max: u64 },
    #[error("an append without events")]
    Empty,
    #[error("offset {asked} of partition {} is out of range: the earliest is {earliest}, the end is {end}", tp.partition)]
    OutOfRange { tp: Tp, asked: Offset, earliest: Offset, end: Offset },
    #[error("someone else works for this task since epoch {current}; epoch {epoch} may not commit")]
    Fenced { task: TaskKey, epoch: TaskEpoch, current: TaskEpoch },
    #[error("the position is {actual:?}, the transaction expects {expect:?}")]
    PositionMoved { expect: Option<Offset>, actual: Option<Offset> },
    #[error("a position cannot move back from {from} to {to}")]
    PositionBackwards { from: Offset, to: Offset },
    #[error("a file of partition {tp} from offset {base} to {end} is refused: {what}")]
    FileRefused { tp: Tp, base: Offset, end: Offset, what: &'static str },
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("metadata entry `{key}` was changed by someone else (version {actual:?}, expected {expected:?})")]
    MetaConflict { key: String, expected: Option<u64>, actual: Option<u64> },
    #[error("metadata entry `{key}` has {bytes} bytes, at most {bytes_max} are allowed")]
    MetaTooLarge { key: String, bytes: usize, bytes_max: usize },
    #[error("the disk is full: nothing more is taken until there is space; what was acknowledged is safe")]
    DiskFull,
    #[error("no room in the log for {bytes} bytes after {waited:?}: the disk is slower than the publishers")]
    NoRoom { bytes: u64, waited: Duration },
    #[error("the server is stopping")]
    Stopping,
    /// The process ends right after this.
    #[error("the log failed: {source}")]
    Failed { source: Arc<io::Error> },
    #[error("damaged data in {place}: {what}")]
    Damaged { place: String, what: String },
    #[error("reading {place} failed: {source}")]
    Read { place: String, source: Arc<io::Error> },
    #[error("the state tables could not be read: {what}")]
    State { what: String },
}

impl LogError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LogError::UnknownTopic { .. } | LogError::UnknownTopicId { .. } | LogError::UnknownPartition { .. } => {
                ErrorKind::NotFound
            }
            LogError::TopicConfig(_)
            | LogError::Name(_)
            | LogError::Event(_)
            | LogError::Batch(_)
            | LogError::TransactionTooLarge { .. }
            | LogError::Empty
            | LogError::OutOfRange { .. }
            | LogError::PositionBackwards { .. }
            | LogError::MetaTooLarge { .. } => ErrorKind::Invalid,
            LogError::TopicExists { .. }
            | LogError::Fenced { .. }
            | LogError::PositionMoved { .. }
            | LogError::FileRefused { .. }
            | LogError::Producer(_)
            | LogError::MetaConflict { .. } => ErrorKind::Conflict,
            LogError::TooManyTopics { .. } | LogError::DiskFull | LogError::NoRoom { .. } => ErrorKind::Exhausted,
            LogError::Stopping | LogError::Failed { .. } | LogError::Read { .. } | LogError::State { .. } => {
                ErrorKind::Unavailable
            }
            LogError::Damaged { .. } => ErrorKind::Corrupt,
        }
    }

    /// A word that a program can match; it never changes.
    pub fn reason(&self) -> &'static str {
        match self {
            LogError::UnknownTopic { .. } | LogError::UnknownTopicId { .. } => "UNKNOWN_TOPIC",
            LogError::UnknownPartition { .. } => "UNKNOWN_PARTITION",
            LogError::TopicExists { .. } => "TOPIC_EXISTS",
            LogError::TooManyTopics { .. } => "TOO_MANY_TOPICS",
            LogError::TopicConfig(_) => "TOPIC_CONFIG",
            LogError::Name(_) => "NAME",
            LogError::Event(EventError::TooLarge { .. }) => "EVENT_TOO_LARGE",
            LogError::Event(_) => "EVENT",
            LogError::Batch(_) => "BATCH",
            LogError::TransactionTooLarge { .. } => "TRANSACTION_TOO_LARGE",
            LogError::Empty => "EMPTY",
            LogError::OutOfRange { .. } => "OUT_OF_RANGE",
            LogError::Fenced { .. } => "FENCED",
            LogError::PositionMoved { .. } | LogError::PositionBackwards { .. } => "POSITION",
            LogError::FileRefused { .. } => "FILE_REFUSED",
            LogError::Producer(ProducerError::Repeated { .. }) => "REPEATED",
            LogError::Producer(ProducerError::OutOfSequence { .. }) => "OUT_OF_SEQUENCE",
            LogError::Producer(ProducerError::Unknown { .. }) => "UNKNOWN_PRODUCER",
            LogError::Producer(ProducerError::Fenced { .. }) => "PRODUCER_FENCED",
            LogError::MetaConflict { .. } => "CHANGED_MEANWHILE",
            LogError::MetaTooLarge { .. } => "ENTRY_TOO_LARGE",
            LogError::DiskFull => "DISK_FULL",
            LogError::NoRoom { .. } => "NO_ROOM",
            LogError::Stopping => "STOPPING",
            LogError::Failed { .. } => "LOG_FAILED",
            LogError::Damaged { .. } => "DAMAGED",
            LogError::Read { .. } => "READ_FAILED",
            LogError::State { .. } => "STATE_UNAVAILABLE",
        }
    }

    /// Whether what was asked for may have happened all the same.
    pub fn outcome(&self) -> Outcome {
        match self {
            LogError::Failed { .. } => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }
}

/// Why a store could not be opened. Nothing on the disk was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("another nodata server uses {place} (process {holder})")]
    InUse { place: String, holder: String },
    #[error("{place} is not empty and holds no nodata store; give an empty or a new directory")]
    NotAStore { place: String },
    #[error("{place} is a nodata store of format {found}, this build reads format {known}")]
    Format { place: String, found: String, known: u32 },
    #[error("cannot {doing} {place}: {source}")]
    Io { doing: &'static str, place: String, source: io::Error },
    #[error("the disk is full: {bytes} bytes for the first segment of the log could not be taken in {place}")]
    DiskFull { place: String, bytes: u64 },
    #[error(
        "damaged data that was acknowledged, in {file} from byte {from} to {to}: {what}. Nothing was changed; restore \
         the file from a backup, or see what `nodata fsck` says"
    )]
    Damaged { file: String, from: u64, to: u64, what: String },
    #[error("{file}: {source}. A newer nodata wrote this store")]
    Newer { file: String, source: FrameError },
    #[error(
        "the checkpoint {file} cannot be used ({what}) and the log does not reach back to the beginning. Restore the file from \
         a backup, or see what `nodata fsck` says"
    )]
    Checkpoint { file: String, what: String },
}

impl OpenError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::InUse { .. } => ErrorKind::Unavailable,
            OpenError::NotAStore { .. } | OpenError::Format { .. } | OpenError::Newer { .. } => ErrorKind::Invalid,
            OpenError::Io { .. } => ErrorKind::Unavailable,
            OpenError::DiskFull { .. } => ErrorKind::Exhausted,
            OpenError::Damaged { .. } | OpenError::Checkpoint { .. } => ErrorKind::Corrupt,
        }
    }
}
