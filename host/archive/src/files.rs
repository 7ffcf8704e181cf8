//! The files, for readers: opened when they are asked for, decoded a slice at a time, and each slice once for all who follow
//! each other closely.

use crate::decode::{OpenFile, Slices, footer_checksum};
use crate::limits::{CURSORS_MAX, DECODERS_MAX, OPEN_FILES_MAX, SLICES_BYTES_MAX};
use crate::place;
use nodata_log::engine::BoxFuture;
use nodata_log::fs::Fs;
use nodata_log::{ArchiveFile, ArchiveReader, Chunk, LogError, Offset, ReadLimits, StoredBatch, TimestampUs, Topic};
use parquet::errors::ParquetError;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Reads the files of a store.
pub struct ArchiveFiles {
    inner: Arc<Inner>,
    decoders: Semaphore,
}

struct Inner {
    fs: Arc<dyn Fs>,
    held: Mutex<Held>,
}

/// What is kept between two reads, the last used at the back.
#[derive(Default)]
struct Held {
    files: VecDeque<(String, u64, OpenFile)>,
    /// For each, the path of its file and the offset from which it goes on.
    cursors: VecDeque<(String, Offset, Slices)>,
    slices: VecDeque<Slice>,
    slices_bytes: usize,
}

struct Slice {
    path: String,
    bytes: usize,
    batches: Arc<[StoredBatch]>,
}

/// A file that is read.
#[derive(Clone)]
struct Target {
    path: String,
    file: ArchiveFile,
}

impl Target {
    fn new(topic: &Topic, partition: u32, file: &ArchiveFile) -> Self {
        let path = place::path(topic.name.as_str(), partition, file.append_min_us, file.base);
        Self { path, file: file.clone() }
    }

    fn damaged(&self, what: impl ToString) -> LogError {
        LogError::Damaged { place: self.path.clone(), what: what.to_string() }
    }

    fn wrong(&self, error: ParquetError) -> LogError {
        match error {
            ParquetError::External(source) => match source.downcast::<io::Error>() {
                Ok(source) => self.unreadable(*source),
                Err(other) => self.damaged(other),
            },
            other => self.damaged(other),
        }
    }

    fn unreadable(&self, source: io::Error) -> LogError {
        LogError::Read { place: self.path.clone(), source: Arc::new(source) }
    }
}

impl ArchiveFiles {
    pub fn new(fs: Arc<dyn Fs>) -> Self {
        let inner = Inner { fs, held: Mutex::default() };
        Self { inner: Arc::new(inner), decoders: Semaphore::new(DECODERS_MAX) }
    }

    /// Lets go of a file that is removed. Who is reading it goes on.
    pub fn forget(&self, path: &str) {
        let mut held = self.inner.held();
        held.files.retain(|(known, ..)| known != path);
        held.cursors.retain(|(known, ..)| known != path);
        let Held { slices, slices_bytes, .. } = &mut *held;
        slices.retain(|slice| {
            let stays = slice.path != path;
            *slices_bytes -= if stays { 0 } else { slice.bytes };
            stays
        });
    }

    /// Works on a thread that may wait for the disk, and not on more of them than there are decoders.
    async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let _permit = self.decoders.acquire().await.map_err(|_| LogError::Stopping)?;
        if tokio::runtime::Handle::try_current().is_err() {
            return work(&self.inner);
        }
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or(Err(LogError::Stopping))
    }
}

impl ArchiveReader for ArchiveFiles {
    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        partition: u32,
        file: &'a ArchiveFile,
        from: Offset,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, LogError>> {
        Box::pin(async move {
            let target = Target::new(topic, partition, file);
            let end = file.end;
            let batches = match self.inner.slice(&target.path, from) {
                Some(batches) => batches,
                None => self.decode(move |inner| inner.decode(&target, from)).await?,
            };
            Ok(Chunk::of(batches.iter().filter(|stored| stored.first() < end), from, limits))
        })
    }

    fn offset_at<'a>(
        &'a self,
        topic: &'a Topic,
        partition: u32,
        file: &'a ArchiveFile,
        from: Offset,
        time_us: TimestampUs,
    ) -> BoxFuture<'a, Result<Option<Offset>, LogError>> {
        let target = Target::new(topic, partition, file);
        Box::pin(self.decode(move |inner| {
            let file = inner.open(&target)?;
            file.offset_at(from, time_us).map_err(|error| target.wrong(error))
        }))
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slice that was decoded before and holds this offset.
    fn slice(&self, path: &str, from: Offset) -> Option<Arc<[StoredBatch]>> {
        let mut held = self.held();
        let holds = |slice: &Slice| {
            let (Some(first), Some(last)) = (slice.batches.first(), slice.batches.last()) else { return false };
            slice.path == path && first.first() <= from && from <= last.last()
        };
        let at = held.slices.iter().rposition(holds)?;
        let slice = held.slices.remove(at)?;
        let batches = slice.batches.clone();
        held.slices.push_back(slice);
        Some(batches)
    }

    /// The slice with the first event from this offset on.
    fn decode(&self, target: &Target, from: Offset) -> Result<Arc<[StoredBatch]>, LogError> {
        // Another reader may have decoded it while this one waited for its turn.
        if let Some(batches) = self.slice(&target.path, from) {
            return Ok(batches);
        }
        let cursor = {
            let mut held = self.held();
            let at = held.cursors.iter().position(|(path, next, _)| *path == target.path && *next == from);
            at.and_then(|at| held.cursors.remove(at)).map(|(_, _, slices)| slices)
        };
        let mut slices = match cursor {
            Some(slices) => slices,
            None => self.begin(target, from)?,
        };
        let mut next = from;
        loop {
            match slices.next() {
                Some(Ok(batches)) => {
                    let Some(last) = batches.last().map(StoredBatch::last) else { continue };
                    next = last + 1;
                    if last < from {
                        continue;
                    }
                    let batches: Arc<[StoredBatch]> = batches.into();
                    self.keep(target, next, slices, batches.clone());
                    return Ok(batches);
                }
                Some(Err(error)) => return Err(target.wrong(error)),
                None if next < target.file.end => slices = self.begin(target, next)?,
                None => return Err(target.damaged(format!("it has no event from offset {from} on"))),
            }
        }
    }

    fn begin(&self, target: &Target, from: Offset) -> Result<Slices, LogError> {
        let slices = self.open(target)?.events_from(from).map_err(|error| target.wrong(error))?;
        slices.ok_or_else(|| target.damaged(format!("it has no event from offset {from} on")))
    }

    fn keep(&self, target: &Target, next: Offset, slices: Slices, batches: Arc<[StoredBatch]>) {
        let bytes = batches.iter().map(|stored| stored.batch.encoded_len()).sum();
        let mut held = self.held();
        held.cursors.push_back((target.path.clone(), next, slices));
        if held.cursors.len() > CURSORS_MAX {
            held.cursors.pop_front();
        }
        held.slices_bytes += bytes;
        held.slices.push_back(Slice { path: target.path.clone(), bytes, batches });
        while held.slices_bytes > SLICES_BYTES_MAX && held.slices.len() > 1 {
            held.slices_bytes -= held.slices.pop_front().map_or(0, |slice| slice.bytes);
        }
    }

    /// The file as it was committed, with its footer checked.
    fn open(&self, target: &Target) -> Result<OpenFile, LogError> {
        let ArchiveFile { bytes, footer_at, footer_crc, .. } = target.file;
        {
            let mut held = self.held();
            let at = held.files.iter().position(|(path, known, _)| *path == target.path && *known == bytes);
            if let Some(known) = at.and_then(|at| held.files.remove(at)) {
                let file = known.2.clone();
                held.files.push_back(known);
                return Ok(file);
            }
        }
        let file = self.fs.open(&target.path).map_err(|error| target.unreadable(error))?;
        let found = footer_checksum(&*file, footer_at, bytes).map_err(|error| target.unreadable(error))?;
        if found != footer_crc {
            let what = format!("footer at {footer_at}: checksum {found:08x}, the log says {footer_crc:08x}");
            return Err(target.damaged(what));
        }
        let opened = OpenFile::open(file, bytes).map_err(|error| target.wrong(error))?;
        let mut held = self.held();
        // Older versions of a file that grew are of no more use.
        held.files.retain(|(path, ..)| *path != target.path);
        held.files.push_back((target.path.clone(), bytes, opened.clone()));
        if held.files.len() > OPEN_FILES_MAX {
            held.files.pop_front();
        }
        Ok(opened)
    }
}
