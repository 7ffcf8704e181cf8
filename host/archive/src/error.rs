//! What can go wrong between the log and the files.

use nodata_log::{ErrorKind, LogError, OpenError};
use parquet::errors::ParquetError;
use std::io;
use thiserror::Error;

/// Why events could not be put into files, or files could not be taken over.
#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: String, source: io::Error },
    #[error("{path}: {source}")]
    Parquet { path: String, source: ParquetError },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "{path} is missing: it holds offsets {from} to {to} of topic `{topic}`, partition {partition}. Restore the file \
         from a backup, or see what `nodata fsck` says"
    )]
    Missing { path: String, topic: String, partition: u32, from: u64, to: u64 },
    #[error(
        "{path} has {found} bytes, it had {expected}. Restore the file from a backup, or see what `nodata fsck` says"
    )]
    Cut { path: String, found: u64, expected: u64 },
    #[error(
        "{path} holds offsets {from} to {to} of topic `{topic}`, partition {partition}, which other files hold too. \
         See what `nodata fsck` says"
    )]
    Overlap { path: String, topic: String, partition: u32, from: u64, to: u64 },
    #[error("{path} is as it was written, and cannot be read: {source}. A newer nodata wrote it; use that one")]
    Unknown { path: String, source: ParquetError },
}

impl ArchiveError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ArchiveError::Log(error) => error.kind(),
            ArchiveError::Open(error) => error.kind(),
            ArchiveError::Io { .. } if self.is_disk_full() => ErrorKind::Exhausted,
            ArchiveError::Io { .. } => ErrorKind::Unavailable,
            ArchiveError::Parquet { .. }
            | ArchiveError::Missing { .. }
            | ArchiveError::Cut { .. }
            | ArchiveError::Overlap { .. }
            | ArchiveError::Unknown { .. } => ErrorKind::Corrupt,
        }
    }

    /// Whether there is no space on the disk.
    fn is_disk_full(&self) -> bool {
        match self {
            ArchiveError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            ArchiveError::Log(LogError::DiskFull) => true,
            _ => false,
        }
    }
}

pub(crate) fn io_error(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { doing, path, source }
}
