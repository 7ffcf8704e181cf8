//! The checkpoint: what the log adds up to, in a redb database, so that a restart need not add it up from the beginning.
//!
//! The log is the truth and this is derived from it. `applied_lsn` says how far; everything after it is replayed. A
//! checkpoint that is lost or unreadable is made anew as long as the log reaches back to its first byte.

use crate::archive::{ArchiveFile, PartitionArchive};
use crate::codec::{Put, Take};
use crate::engine::MetaEntry;
use crate::event::TimestampUs;
use crate::frame::Lsn;
use crate::fs::{Fs, FsFile, SyncSite, read_exact_at, remove_if_there, write_all_at};
use crate::ids::{IdHash, TimedIds};
use crate::limits::{CHECKPOINT_CACHE_BYTES, IDS_MAX};
use crate::producer::{ProducerId, ProducerSequence};
use crate::state::{Dirty, State};
use crate::tables::Flush;
use crate::task::{OwnerId, TaskKey, TaskPosition};
use crate::topic::{Offset, Topic, TopicId, Tp};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use thiserror::Error;

pub(crate) const CHECKPOINT_FILE: &str = "meta.redb";

// Names and layouts of stored tables.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const TOPICS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("topics");
const ENDS: TableDefinition<'_, (u32, u32), u64> = TableDefinition::new("ends");
const ARCHIVES: TableDefinition<'_, (u32, u32), (u64, u64)> = TableDefinition::new("archives");
const FILES: TableDefinition<'_, (u32, u32, u64), &[u8]> = TableDefinition::new("files");
const LOST: TableDefinition<'_, (u32, u32, u64), u64> = TableDefinition::new("lost");
const TASKS: TableDefinition<'_, (u64, u32, u32), &[u8]> = TableDefinition::new("tasks");
const PRODUCERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("producers");
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// Topic, time of the last one, place of the checkpoint in the log: times and hashes of ids.
const IDS: TableDefinition<'_, (u32, i64, u64), &[u8]> = TableDefinition::new("ids");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

const FORMAT: u64 = 1;

/// Where the log was when a checkpoint was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Everything before this is in the checkpoint.
    pub(crate) applied_lsn: Lsn,
    /// Everything before this was durable.
    pub(crate) durable_lsn: Lsn,
    /// Where the log begins.
    pub(crate) start_lsn: Lsn,
    pub(crate) epoch: u32,
    pub(crate) next_topic: u32,
    pub(crate) version: u64,
}

/// What a checkpoint has: where the log was, what it added up to, and the ids that topics remember, oldest first.
pub(crate) type Loaded = (Mark, State, Vec<(TopicId, TimestampUs, IdHash)>);

#[derive(Debug, Error)]
pub(crate) enum CheckpointError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Redb(String),
    #[error("malformed entry in table `{0}`")]
    Malformed(&'static str),
    #[error("format {0}, this build reads {FORMAT}")]
    Format(u64),
}

fn redb_error(error: impl Into<redb::Error>) -> CheckpointError {
    match error.into() {
        // A file that ends too early or begins wrong is damaged; other errors of the disk say nothing about the file.
        redb::Error::Io(error)
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            CheckpointError::Io(error)
        }
        other => CheckpointError::Redb(other.to_string()),
    }
}

/// Checksums of redb cover what it wrote, and not what a mistake of its own or of the memory makes of that: then it panics. That
/// must not end the thread that keeps the log short.
fn guarded<T>(work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(CheckpointError::Redb("redb panicked, as its message above says".to_owned())))
}

pub(crate) struct Checkpoint {
    database: Database,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checkpoint")
    }
}

/// A file of ours as storage of redb.
struct Backend(Arc<dyn FsFile>);

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CHECKPOINT_FILE)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        read_exact_at(&*self.0, out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_size(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data(SyncSite::Checkpoint)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        write_all_at(&*self.0, &mut [IoSlice::new(data)], offset)
    }
}

impl Checkpoint {
    /// Opens the checkpoint of a store, or begins one.
    pub(crate) fn open(fs: &dyn Fs) -> Result<Self, CheckpointError> {
        match fs.open(CHECKPOINT_FILE) {
            Ok(file) => Self::of(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::of(fs.create(CHECKPOINT_FILE)?),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the checkpoint of a store with what it has, if there is one.
    pub(crate) fn find(fs: &dyn Fs) -> Result<Option<(Self, Option<Loaded>)>, CheckpointError> {
        let file = match fs.open(CHECKPOINT_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let checkpoint = Self::of(file)?;
        let loaded = checkpoint.load()?;
        Ok(Some((checkpoint, loaded)))
    }

    /// Writes a whole checkpoint under another name, for someone who then gives it its name. Of state tables it has what an
    /// older checkpoint had, with what changed since.
    pub(crate) fn write_anew(
        fs: &dyn Fs,
        path: &str,
        mark: Mark,
        (state, everything): (&State, &Dirty),
        older: Option<&Self>,
        flush: &Flush,
    ) -> Result<(), CheckpointError> {
        remove_if_there(fs, path)?;
        let new = Self::of(fs.create(path)?)?;
        let write = new.database.begin_write().map_err(redb_error)?;
        {
            let mut lost = write.open_table(LOST).map_err(redb_error)?;
            for (tp, archive) in &state.archives {
                for range in archive.lost.iter() {
                    lost.insert((tp.topic.0, tp.partition, range.start), range.end).map_err(redb_error)?;
                }
            }
            let mut to = write.open_table(STATE).map_err(redb_error)?;
            let read = older.map(|older| older.database.begin_read().map_err(redb_error)).transpose()?;
            let from = match read.map(|read| read.open_table(STATE)) {
                None | Some(Err(redb::TableError::TableDoesNotExist(_))) => None,
                Some(table) => Some(table.map_err(redb_error)?),
            };
            if let Some(from) = from {
                for row in from.iter().map_err(redb_error)? {
                    let (key, value) = row.map_err(redb_error)?;
                    to.insert(key.value(), value.value()).map_err(redb_error)?;
                }
            }
        }
        write.commit().map_err(redb_error)?;
        // There are no older ids that could be over.
        new.write(mark, &Changed::new(everything, state, TimestampUs::MIN), flush)
    }

    fn of(file: Arc<dyn FsFile>) -> Result<Self, CheckpointError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CHECKPOINT_CACHE_BYTES);
        // Every page is read and checked: what rotted since is noticed here, and not when it is used.
        builder.set_check_integrity_on_open(true);
        guarded(|| Ok(Self { database: builder.create_with_backend(Backend(file)).map_err(redb_error)? }))
    }

    /// What the checkpoint knows; `None` when it is new.
    pub(crate) fn load(&self) -> Result<Option<Loaded>, CheckpointError> {
        guarded(|| self.load_unguarded())
    }

    fn load_unguarded(&self) -> Result<Option<Loaded>, CheckpointError> {
        let read = self.database.begin_read().map_err(redb_error)?;
        let about = match read.open_table(ABOUT) {
            Ok(about) => about,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(redb_error(error)),
        };
        let number = |name: &'static str| -> Result<u64, CheckpointError> {
            let value = about.get(name).map_err(redb_error)?;
            Ok(value.ok_or(CheckpointError::Malformed("about"))?.value())
        };
        let format = number("format")?;
        if format != FORMAT {
            return Err(CheckpointError::Format(format));
        }
        let mark = Mark {
            applied_lsn: number("applied_lsn")?,
            durable_lsn: number("durable_lsn")?,
            start_lsn: number("start_lsn")?,
            epoch: number("epoch")? as u32,
            next_topic: number("next_topic")? as u32,
            version: number("version")?,
        };
        let mut state = State::default();
        for row in read.open_table(TOPICS).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (id, value) = row.map_err(redb_error)?;
            let topic = Topic::decode(TopicId(id.value()), &mut Take::new(Bytes::copy_from_slice(value.value())));
            state.put_topic(topic.ok_or(CheckpointError::Malformed("topics"))?);
        }
        for row in read.open_table(ENDS).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (tp, end) = row.map_err(redb_error)?;
            let (topic, partition) = tp.value();
            state.set_end(Tp { topic: TopicId(topic), partition }, end.value());
        }
        for row in read.open_table(ARCHIVES).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (tp, range) = row.map_err(redb_error)?;
            let ((topic, partition), (start, end)) = (tp.value(), range.value());
            let archive = PartitionArchive { start, end, ..PartitionArchive::default() };
            state.archives.insert(Tp { topic: TopicId(topic), partition }, Arc::new(archive));
        }
        for row in read.open_table(FILES).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (key, value) = row.map_err(redb_error)?;
            let (topic, partition, base) = key.value();
            let file = ArchiveFile::decode(&mut Take::new(Bytes::copy_from_slice(value.value())));
            let file = file.ok_or(CheckpointError::Malformed("files"))?;
            let archive = state.archives.get_mut(&Tp { topic: TopicId(topic), partition });
            Arc::make_mut(archive.ok_or(CheckpointError::Malformed("files"))?).files.insert(base, file);
        }
        match read.open_table(LOST) {
            // Only a repair writes it.
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(redb_error(error)),
            Ok(lost) => {
                for row in lost.iter().map_err(redb_error)? {
                    let (key, to) = row.map_err(redb_error)?;
                    let (topic, partition, from) = key.value();
                    // Nobody takes out what was trimmed, or deleted with its topic.
                    if let Some(archive) = state.archives.get_mut(&Tp { topic: TopicId(topic), partition }) {
                        let archive = Arc::make_mut(archive);
                        archive.lost.insert(from.max(archive.start)..to.value());
                    }
                }
            }
        }
        for row in read.open_table(TASKS).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (task, value) = row.map_err(redb_error)?;
            let (owner, topic, partition) = task.value();
            let task = TaskKey { owner: OwnerId(owner), source: Tp { topic: TopicId(topic), partition } };
            let position = decode_position(value.value()).ok_or(CheckpointError::Malformed("tasks"))?;
            state.tasks.insert(task, position);
        }
        for row in read.open_table(PRODUCERS).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (producer, value) = row.map_err(redb_error)?;
            let mut take = Take::new(Bytes::copy_from_slice(value.value()));
            let fields = (|| Some((ProducerSequence { epoch: take.u32()?, last: take.u64()? }, take.u64()?)))();
            let (sequence, used) = fields.ok_or(CheckpointError::Malformed("producers"))?;
            state.producers.restore(ProducerId(producer.value()), sequence, used);
        }
        for row in read.open_table(ENTRIES).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (key, value) = row.map_err(redb_error)?;
            let mut take = Take::new(Bytes::copy_from_slice(value.value()));
            let fields = (|| Some(MetaEntry { version: take.u64()?, value: take.bytes()? }))();
            let entry = fields.ok_or(CheckpointError::Malformed("entries"))?;
            state.entries.insert(key.value().to_owned(), entry);
        }
        state.next_topic = mark.next_topic;
        state.version = mark.version;
        Ok(Some((mark, state, self.load_ids()?)))
    }

    fn load_ids(&self) -> Result<Vec<(TopicId, TimestampUs, IdHash)>, CheckpointError> {
        let read = self.database.begin_read().map_err(redb_error)?;
        let table = match read.open_table(IDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(redb_error(error)),
        };
        let mut ids = Vec::new();
        for row in table.iter().map_err(redb_error)? {
            let (key, value) = row.map_err(redb_error)?;
            let topic = TopicId(key.value().0);
            let (entries, rest) = value.value().as_chunks::<ID_BYTES>();
            if !rest.is_empty() {
                return Err(CheckpointError::Malformed("ids"));
            }
            ids.extend(entries.iter().map(|entry| {
                let (time, hash) = entry.split_at(size_of::<i64>());
                let time = time.iter().rev().fold(0u64, |time, byte| time << 8 | u64::from(*byte));
                (topic, time as i64, hash.iter().rev().fold(0, |hash, byte| hash << 8 | u128::from(*byte)))
            }));
        }
        // Those of all topics together are bounded, so they are to be remembered in the order in which they came.
        ids.sort_by_key(|(_, at_us, _)| *at_us);
        Ok(ids)
    }

    /// Writes what changed, as one transaction.
    pub(crate) fn write(&self, mark: Mark, changes: &Changed<'_>, flush: &Flush) -> Result<(), CheckpointError> {
        guarded(|| self.write_unguarded(mark, changes, flush))
    }

    fn write_unguarded(&self, mark: Mark, changes: &Changed<'_>, flush: &Flush) -> Result<(), CheckpointError> {
        let write = self.database.begin_write().map_err(redb_error)?;
        {
            let mut about = write.open_table(ABOUT).map_err(redb_error)?;
            for (name, value) in [
                ("format", FORMAT),
                ("applied_lsn", mark.applied_lsn),
                ("durable_lsn", mark.durable_lsn),
                ("start_lsn", mark.start_lsn),
                ("epoch", u64::from(mark.epoch)),
                ("next_topic", u64::from(mark.next_topic)),
                ("version", mark.version),
            ] {
                about.insert(name, value).map_err(redb_error)?;
            }
            let mut topics = write.open_table(TOPICS).map_err(redb_error)?;
            for (id, topic) in &changes.topics {
                match topic {
                    Some(topic) => drop(topics.insert(id.0, topic.encode().as_slice()).map_err(redb_error)?),
                    None => drop(topics.remove(id.0).map_err(redb_error)?),
                }
            }
            let mut ends = write.open_table(ENDS).map_err(redb_error)?;
            for (tp, end) in &changes.ends {
                let key = (tp.topic.0, tp.partition);
                match end {
                    Some(end) => drop(ends.insert(key, end).map_err(redb_error)?),
                    None => drop(ends.remove(key).map_err(redb_error)?),
                }
            }
            let mut archives = write.open_table(ARCHIVES).map_err(redb_error)?;
            for (tp, range) in &changes.archives {
                let key = (tp.topic.0, tp.partition);
                match range {
                    Some(range) => drop(archives.insert(key, *range).map_err(redb_error)?),
                    None => drop(archives.remove(key).map_err(redb_error)?),
                }
            }
            let mut files = write.open_table(FILES).map_err(redb_error)?;
            for ((tp, base), file) in &changes.files {
                let key = (tp.topic.0, tp.partition, *base);
                match file {
                    Some(file) => drop(files.insert(key, file.encode().as_slice()).map_err(redb_error)?),
                    None => drop(files.remove(key).map_err(redb_error)?),
                }
            }
            let mut tasks = write.open_table(TASKS).map_err(redb_error)?;
            for (task, position) in &changes.tasks {
                let key = (task.owner.0, task.source.topic.0, task.source.partition);
                match position {
                    Some(position) => {
                        drop(tasks.insert(key, encode_position(position).as_slice()).map_err(redb_error)?);
                    }
                    None => drop(tasks.remove(key).map_err(redb_error)?),
                }
            }
            let mut producers = write.open_table(PRODUCERS).map_err(redb_error)?;
            for (producer, known) in &changes.producers {
                match known {
                    Some((sequence, used)) => {
                        let mut value = Vec::new();
                        value.put_u32(sequence.epoch);
                        value.put_u64(sequence.last);
                        value.put_u64(*used);
                        drop(producers.insert(producer.0, value.as_slice()).map_err(redb_error)?);
                    }
                    None => drop(producers.remove(producer.0).map_err(redb_error)?),
                }
            }
            let mut entries = write.open_table(ENTRIES).map_err(redb_error)?;
            for (key, entry) in &changes.entries {
                match entry {
                    Some(entry) => {
                        let mut value = Vec::new();
                        value.put_u64(entry.version);
                        value.put_bytes(&entry.value);
                        drop(entries.insert(key.as_str(), value.as_slice()).map_err(redb_error)?);
                    }
                    None => drop(entries.remove(key.as_str()).map_err(redb_error)?),
                }
            }
            let mut ids = write.open_table(IDS).map_err(redb_error)?;
            for topic in changes.topics.iter().filter(|(_, topic)| topic.is_none()).map(|(id, _)| id.0) {
                ids.retain_in((topic, i64::MIN, 0)..=(topic, i64::MAX, u64::MAX), |_, _| false).map_err(redb_error)?;
            }
            for (topic, from_us, new) in &changes.ids {
                // What is over goes, and what is more than can be remembered.
                let all = (topic.0, i64::MIN, 0)..=(topic.0, i64::MAX, u64::MAX);
                let mut bytes = new.len() * ID_BYTES;
                let mut first_kept = (topic.0, *from_us, 0);
                for row in ids.range(all).map_err(redb_error)?.rev() {
                    let (key, value) = row.map_err(redb_error)?;
                    bytes += value.value().len();
                    if bytes > IDS_MAX * ID_BYTES {
                        first_kept = first_kept.max((topic.0, key.value().1.saturating_add(1), 0));
                        break;
                    }
                }
                ids.retain_in((topic.0, i64::MIN, 0)..first_kept, |_, _| false).map_err(redb_error)?;
                let new = &new[new.len().saturating_sub(IDS_MAX)..];
                let Some((last_us, _)) = new.last() else { continue };
                let mut value = Vec::with_capacity(new.len() * ID_BYTES);
                for (at_us, hash) in new {
                    value.put_u64(*at_us as u64);
                    value.extend_from_slice(&hash.to_le_bytes());
                }
                ids.insert((topic.0, *last_us, mark.applied_lsn), value.as_slice()).map_err(redb_error)?;
            }
            let mut state = write.open_table(STATE).map_err(redb_error)?;
            for (from, to) in flush.forgotten.iter() {
                match to {
                    Some(to) => state.retain_in(from..to, |_, _| false),
                    None => state.retain_in(from.., |_, _| false),
                }
                .map_err(redb_error)?;
            }
            for (key, value) in flush.overlay.iter() {
                match value {
                    Some(value) => drop(state.insert(key.as_slice(), value.as_ref()).map_err(redb_error)?),
                    None => drop(state.remove(key.as_slice()).map_err(redb_error)?),
                }
            }
        }
        write.commit().map_err(redb_error)
    }

    /// Values of state tables by their whole key.
    pub(crate) fn state_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, CheckpointError> {
        let read = self.database.begin_read().map_err(redb_error)?;
        let table = match read.open_table(STATE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(vec![None; keys.len()]),
            Err(error) => return Err(redb_error(error)),
        };
        keys.iter()
            .map(|key| {
                let value = table.get(*key).map_err(redb_error)?;
                Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
            })
            .collect()
    }

    /// Gives the entries of the state tables from a whole key on to `visit`.
    pub(crate) fn state_scan<T>(
        &self,
        from: &[u8],
        visit: impl FnOnce(&mut dyn Iterator<Item = Result<(Vec<u8>, Bytes), CheckpointError>>) -> T,
    ) -> Result<T, CheckpointError> {
        let read = self.database.begin_read().map_err(redb_error)?;
        let table = match read.open_table(STATE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(visit(&mut std::iter::empty())),
            Err(error) => return Err(redb_error(error)),
        };
        let range = table.range(from..).map_err(redb_error)?;
        let mut rows = range.map(|row| {
            let (key, value) = row.map_err(redb_error)?;
            Ok((key.value().to_vec(), Bytes::copy_from_slice(value.value())))
        });
        Ok(visit(&mut rows))
    }
}

/// The values behind what is dirty; `None` where there is nothing any more.
#[derive(Debug, Default)]
pub(crate) struct Changed<'a> {
    topics: Vec<(TopicId, Option<Topic>)>,
    ends: Vec<(Tp, Option<u64>)>,
    archives: Vec<(Tp, Option<(u64, u64)>)>,
    files: Vec<((Tp, Offset), Option<ArchiveFile>)>,
    tasks: Vec<(TaskKey, Option<TaskPosition>)>,
    producers: Vec<(ProducerId, Option<(ProducerSequence, u64)>)>,
    entries: Vec<(String, Option<MetaEntry>)>,
    /// Those of topics that got some: what is older than this time is over, and the new ones.
    ids: Vec<(TopicId, TimestampUs, &'a TimedIds)>,
}

/// A time, and the hash of an id.
const ID_BYTES: usize = size_of::<i64>() + size_of::<IdHash>();

impl<'a> Changed<'a> {
    pub(crate) fn new(dirty: &'a Dirty, state: &State, now_us: TimestampUs) -> Self {
        let end = |tp: &Tp| state.topics.contains_key(&tp.topic).then(|| state.end(*tp));
        let producer = |id: &ProducerId| Some((state.producers.get(*id)?, state.producers.used_at(*id)?));
        let archive = |tp: &Tp| state.archives.get(tp).map(|archive| (archive.start, archive.end));
        let file = |tp: &Tp, base: &Offset| state.archives.get(tp)?.files.get(base).cloned();
        let ids = |(topic, new): (&TopicId, &'a TimedIds)| {
            let window_us = state.topics.get(topic)?.config.deduplicate_us.unwrap_or(0);
            Some((*topic, now_us.saturating_sub_unsigned(window_us), new))
        };
        Self {
            ids: dirty.ids.iter().filter_map(ids).collect(),
            archives: dirty.archives.iter().map(|tp| (*tp, archive(tp))).collect(),
            files: dirty.files.iter().map(|(tp, base)| ((*tp, *base), file(tp, base))).collect(),
            topics: dirty.topics.iter().map(|id| (*id, state.topics.get(id).cloned())).collect(),
            ends: dirty.ends.iter().map(|tp| (*tp, end(tp))).collect(),
            tasks: dirty.tasks.iter().map(|task| (*task, state.tasks.get(task).copied())).collect(),
            producers: dirty.producers.iter().map(|id| (*id, producer(id))).collect(),
            entries: dirty.entries.iter().map(|key| (key.clone(), state.entries.get(key).cloned())).collect(),
        }
    }
}

fn encode_position(position: &TaskPosition) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(position.epoch);
    if let Some(next) = position.next {
        out.put_u64(next);
    }
    out
}

fn decode_position(bytes: &[u8]) -> Option<TaskPosition> {
    let mut take = Take::new(Bytes::copy_from_slice(bytes));
    Some(TaskPosition { epoch: take.u64()?, next: take.u64() })
}
