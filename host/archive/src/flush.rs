//! From the log into a file.
//!
//! The order of the steps is what makes it safe, and each is a point at which the power may go:
//!
//! 1. write the file in `stage/`, and sync it. Before this is done, the next start removes it;
//! 2. make its folders, and sync their names;
//! 3. give it its name. It may be there after a crash, or not: the next start takes it over, or it is made again;
//! 4. sync the name;
//! 5. commit it to the log. From here on it is read, and the log may let go of its events.
//!
//! Only events that were durable and acknowledged are ever in it, so others may see it before it is committed.

use crate::decode::OpenFile;
use crate::encode::{grown_file, new_file};
use crate::error::{ArchiveError, io_error};
use crate::limits::{FLUSH_BYTES, SEAL_BYTES, SEAL_ROW_GROUPS};
use crate::place::{self, DATA_DIR, STAGE_DIR};
use crate::schema::{self, FileOrigin};
use bytes::Bytes;
use nodata_log::engine::BoxFuture;
use nodata_log::fs::{Fs, FsFile, SyncSite, read_exact_at, remove_if_there, write_all_at};
use nodata_log::segment::StoreId;
use nodata_log::{ArchiveFile, EmbeddedLog, Log, Offset, ReadLimits, StoredBatch, TimestampUs, Topic, Tp};
use std::collections::HashSet;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are read from the log at once.
const READ_BYTES: u64 = 4 << 20;

/// Writes files.
pub(crate) struct Flusher {
    fs: Arc<dyn Fs>,
    store: String,
    /// Folders whose names this process has synced.
    durable_dirs: Mutex<HashSet<String>>,
}

/// Events of a partition that are about to become part of a file.
pub(crate) struct Collected {
    topic: Topic,
    tp: Tp,
    batches: Vec<StoredBatch>,
    /// The file that grows; `None` begins one.
    grows: Option<ArchiveFile>,
}

impl Collected {
    pub(crate) fn events(&self) -> u64 {
        self.batches.iter().map(|stored| stored.batch.len() as u64).sum()
    }
}

impl Flusher {
    pub(crate) fn new(fs: Arc<dyn Fs>, store_id: StoreId) -> Self {
        let store = schema::store_text(&store_id);
        Self { fs, store, durable_dirs: Mutex::default() }
    }

    /// What comes next for the files of a partition: events of one day, and not more than a file should grow by at once.
    pub(crate) fn collect<'a>(log: &'a EmbeddedLog, tp: Tp) -> BoxFuture<'a, Result<Option<Collected>, ArchiveError>> {
        Box::pin(async move {
            let topic = log.topic_by_id(tp.topic)?;
            let archive = log.archive(tp)?;
            let end = log.bounds(tp)?.end;
            let mut batches: Vec<StoredBatch> = Vec::new();
            let mut next = archive.end;
            let mut bytes = 0;
            let mut day = None;
            'reading: while next < end && bytes < FLUSH_BYTES {
                let limits = ReadLimits { bytes_max: READ_BYTES, events_max: usize::MAX };
                let chunk = log.read(tp, next, limits).await?;
                for stored in chunk.batches {
                    let date = place::date(stored.append_us);
                    if *day.get_or_insert_with(|| date.clone()) != date {
                        break 'reading;
                    }
                    bytes += stored.batch.encoded_len() as u64;
                    batches.push(stored);
                }
                next = chunk.next;
            }
            let Some(first) = batches.first() else { return Ok(None) };
            let is_same_day = |open: &&ArchiveFile| place::date(open.append_min_us) == place::date(first.append_us);
            let grows = archive.open_file().filter(is_same_day).cloned();
            Ok(Some(Collected { topic, tp, batches, grows }))
        })
    }

    /// Writes the file, and gives it its name.
    pub(crate) fn write(&self, collected: &Collected) -> Result<ArchiveFile, ArchiveError> {
        let Collected { topic, tp, batches, grows } = collected;
        let first = &batches[0];
        let append_min_us = grows.as_ref().map_or(first.append_us, |file| file.append_min_us);
        let base = grows.as_ref().map_or(first.first(), |file| file.base);
        let path = place::path(topic.name.as_str(), tp.partition, append_min_us, base);
        let origin = self.origin(topic, *tp, base);
        let wrong = |source| ArchiveError::Parquet { path: path.clone(), source };
        let bytes: Bytes = match grows {
            None => new_file(&origin, batches).map_err(wrong)?,
            Some(known) => grown_file(&self.read_whole(&path, known)?, &origin, batches).map_err(wrong)?,
        }
        .into();

        let file = self.name(topic, tp.partition, append_min_us, base, &bytes, |_| Ok(()))?;
        let opened = OpenFile::open(file, bytes.len() as u64).map_err(wrong)?;
        let payload: u64 = batches.iter().map(|stored| stored.batch.payload_bytes() as u64).sum();
        let before = grows.as_ref().map_or(0, |file| file.payload_bytes);
        describe(&opened, crc32c::crc32c(&bytes[opened.data_bytes() as usize..]), before + payload).map_err(wrong)
    }

    /// Writes these bytes and, if they pass a check, gives them the name of a file.
    pub(crate) fn name(
        &self,
        topic: &Topic,
        partition: u32,
        append_min_us: TimestampUs,
        base: Offset,
        bytes: &[u8],
        check: impl FnOnce(&Arc<dyn FsFile>) -> Result<(), ArchiveError>,
    ) -> Result<Arc<dyn FsFile>, ArchiveError> {
        let path = place::path(topic.name.as_str(), partition, append_min_us, base);
        let staged = format!("{STAGE_DIR}/{}-{partition}-{base}.tmp", topic.id.0);
        self.remove_if_there(&staged)?;
        let file = self.fs.create(&staged).map_err(io_error("create", &staged))?;
        let written = write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)
            .and_then(|()| file.sync_data(SyncSite::ArchiveFile))
            .map_err(io_error("write", &staged));
        if written.is_err() {
            // The space may be needed; the next start would remove it too.
            let _ = self.fs.remove(&staged);
        }
        written?;
        check(&file)?;
        let dirs = place::dirs(topic.name.as_str(), partition, append_min_us);
        self.make_dirs(&dirs)?;
        self.fs.rename(&staged, &path).map_err(io_error("name", &path))?;
        self.fs.sync_dir(&dirs[2], SyncSite::ArchiveName).map_err(io_error("sync", &dirs[2]))?;
        Ok(file)
    }

    /// The id of the store, as files say it.
    pub(crate) fn origin_store(&self) -> &str {
        &self.store
    }

    pub(crate) fn origin(&self, topic: &Topic, tp: Tp, base_offset: Offset) -> FileOrigin {
        let name = topic.name.to_string();
        FileOrigin {
            store: self.store.clone(),
            topic: name,
            topic_id: tp.topic.0,
            partition: tp.partition,
            base_offset,
            values: topic.config.values,
            columns: topic.config.columns.clone(),
        }
    }

    /// The file that grows. Its footer becomes part of a new one with a new checksum, so what rotted in it must be noticed now;
    /// rows keep the checksums that they have.
    fn read_whole(&self, path: &str, known: &ArchiveFile) -> Result<Bytes, ArchiveError> {
        let file = self.fs.open(path).map_err(io_error("open", path))?;
        let mut whole = vec![0; known.bytes as usize];
        read_exact_at(&*file, &mut whole, 0).map_err(io_error("read", path))?;
        let found = whole.get(known.footer_at as usize..).map_or(0, crc32c::crc32c);
        if found != known.footer_crc {
            let what = format!("its footer has the checksum {found:08x}, the log says {:08x}", known.footer_crc);
            let source = parquet::errors::ParquetError::General(what);
            return Err(ArchiveError::Parquet { path: path.to_owned(), source });
        }
        Ok(whole.into())
    }

    pub(crate) fn remove_if_there(&self, path: &str) -> Result<(), ArchiveError> {
        remove_if_there(&*self.fs, path).map_err(io_error("remove", path))
    }

    /// Makes the folders of a file, outermost first, and syncs the name of each in the one around it.
    fn make_dirs(&self, dirs: &[String]) -> Result<(), ArchiveError> {
        let mut durable = self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut around = DATA_DIR;
        for dir in dirs {
            // Once in a process also for those that are there: who made them may have been killed before the sync.
            if !durable.contains(dir) {
                self.fs.create_dir(dir).map_err(io_error("create", dir))?;
                self.fs.sync_dir(around, SyncSite::ArchiveDir).map_err(io_error("sync", around))?;
                durable.insert(dir.clone());
            }
            around = dir;
        }
        Ok(())
    }

    /// A folder was removed.
    pub(crate) fn forget_dir(&self, dir: &str) {
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
    }
}

/// What the log is told about a file.
pub(crate) fn describe(
    file: &OpenFile,
    footer_crc: u32,
    payload_bytes: u64,
) -> Result<ArchiveFile, parquet::errors::ParquetError> {
    let offsets = file.offsets();
    let (timestamp_min_us, timestamp_max_us) = file.timestamps();
    let (append_min_us, append_max_us) = file.append_timestamps()?;
    Ok(ArchiveFile {
        base: offsets.start,
        end: offsets.end,
        rows: file.rows(),
        bytes: file.bytes(),
        payload_bytes,
        row_groups: file.row_groups(),
        is_sealed: file.bytes() >= SEAL_BYTES || file.row_groups() >= SEAL_ROW_GROUPS,
        timestamp_min_us,
        timestamp_max_us,
        append_min_us,
        append_max_us,
        footer_at: file.data_bytes(),
        footer_crc,
    })
}
