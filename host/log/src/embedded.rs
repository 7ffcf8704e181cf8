//! The embedded engine: one store, one write-ahead log, one process.
//!
//! Three threads work for it once it is started: the syncer writes and syncs, the preparer keeps empty segments ready, the
//! checkpointer keeps restarts short. None of them is needed for correctness: a test drives the same steps by hand, in one
//! thread, on a disk that crashes between any two of them.

use crate::archive::{ArchiveFile, ArchiveReader, PartitionArchive, Unarchived};
use crate::checkpoint::Checkpoint;
use crate::engine::{
    Append, Appended, Bounds, BoxFuture, Capabilities, Change, Changes, Chunk, Clock, Expect, Log, MetaEntry,
    MetadataStore, Pending, ReadLimits, Room, StateScan, find_time,
};
use crate::error::{LogError, OpenError};
use crate::event::TimestampUs;
use crate::frame::{Lsn, Op};
use crate::fs::{Fs, SyncSite};
use crate::ids::{self, LeftOut, TimedIds};
use crate::limits;
use crate::reclaim::{SegmentUse, Segments};
use crate::recovery::{self, RecoveryReport};
use crate::segment::StoreId;
use crate::sequencer::{Placed, Sequencer, Ticket};
use crate::spares::{Spare, Spares, is_disk_full};
use crate::state::{Dirty, State};
use crate::syncer::{DurableOp, Step, Syncer};
use crate::tables::{self, Tables};
use crate::tail::{PartitionTail, Planned, Ring, SegmentFiles};
use crate::task::{OwnerId, TaskKey, TaskLease, TaskPosition, TaskReset, Transaction};
use crate::topic::{Name, Offset, Topic, TopicChange, TopicConfig, TopicId, Tp};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, watch};

mod checkpointer;

use checkpointer::CheckpointerState;

/// Sizes, and what to do at the end of the world.
#[derive(Clone)]
pub struct Options {
    pub segment_bytes: u64,
    pub first_segment_bytes: u64,
    pub ring_bytes: u64,
    pub room_bytes: u64,
    pub checkpoint_log_bytes: u64,
    pub checkpoint_state_bytes: u64,
    pub checkpoint_interval: Duration,
    /// Bytes of log that are kept although they are not needed.
    pub hot_bytes: u64,
    /// Bytes of log at which publishers wait until the archive has caught up. A log that filled the disk could not be put into
    /// files any more, because files need space too.
    pub log_bytes_max: u64,
    /// Reads the files of the archive. Without one, nothing may be put into it.
    pub archive: Option<Arc<dyn ArchiveReader>>,
    /// Chance: names the store and salts its segments. Another one at every start.
    pub seed: u64,
    /// Called when a write or a sync failed. Nobody knows what is on the disk then, so the process must end: the default
    /// aborts it. A sync is never tried again, because after an error the kernel calls dirty pages clean.
    pub on_failure: Arc<dyn Fn(&io::Error) + Send + Sync>,
}

impl Options {
    /// The defaults of [`limits`], with this chance.
    pub fn new(seed: u64) -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES,
            first_segment_bytes: limits::FIRST_SEGMENT_BYTES,
            ring_bytes: limits::RING_BYTES,
            room_bytes: limits::ROOM_BYTES,
            checkpoint_log_bytes: limits::CHECKPOINT_LOG_BYTES,
            checkpoint_state_bytes: limits::CHECKPOINT_STATE_BYTES,
            checkpoint_interval: Duration::from_secs(limits::CHECKPOINT_INTERVAL_SECS),
            hot_bytes: limits::HOT_BYTES,
            log_bytes_max: u64::MAX,
            archive: None,
            seed,
            on_failure: Arc::new(|error| {
                tracing::error!(%error, "the log could not be written; the process ends now");
                std::process::abort()
            }),
        }
    }
}

/// The embedded engine. Stopping it, or dropping it, ends its threads; what was acknowledged stays.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads have in common.
pub(crate) struct Shared {
    options: Options,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store_id: StoreId,
    epoch: u32,
    sequencer: Mutex<Sequencer>,
    /// Something waits for the syncer, or it should stop.
    work: Condvar,
    syncer: Mutex<Syncer>,
    durable: RwLock<Durable>,
    tables: RwLock<Tables>,
    checkpoint: Mutex<Option<Arc<Checkpoint>>>,
    checkpointer: Mutex<CheckpointerState>,
    checkpoint_due: Condvar,
    ring: Ring,
    files: SegmentFiles,
    pub(crate) spares: Spares,
    room: Arc<Semaphore>,
    /// There is too much log.
    is_over: watch::Sender<bool>,
    changes: broadcast::Sender<Changes>,
    meta_version: watch::Sender<u64>,
    stopping: AtomicBool,
    written_bytes: AtomicU64,
    _lock: Box<dyn Send + Sync>,
}

/// What the world sees.
struct Durable {
    state: State,
    dirty: Dirty,
    tails: HashMap<Tp, Arc<PartitionTail>>,
    lsn: Lsn,
    segments: Segments,
    /// Where the log begins, as the checkpoint says.
    start_lsn: Lsn,
}

impl EmbeddedLog {
    /// Takes a store and reads it. Nothing runs before [`start`](Self::start), and nothing needs to.
    pub fn open(
        options: Options,
        place: &str,
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let found = recovery::recover(&*fs, place, options.seed, &*clock)?;
        // A spare whose size or beginning did not survive a crash is of no use.
        let (ready, useless): (Vec<Spare>, Vec<Spare>) =
            found.spares.into_iter().partition(|spare| spare.bytes >= options.first_segment_bytes);
        for Spare { path, .. } in useless {
            fs.remove(&path).map_err(|source| OpenError::Io { doing: "remove", place: path, source })?;
        }
        for Spare { path, file, .. } in &ready {
            // The process that made it may have been killed before its sync.
            let synced = file.sync_data(SyncSite::Spare);
            synced.map_err(|source| OpenError::Io { doing: "sync", place: path.clone(), source })?;
        }
        let epoch = found.epoch + 1;
        let room_bytes = options.room_bytes.max(limits::FRAME_BYTES_MAX).min(u64::from(u32::MAX));
        let shared = Arc::new(Shared {
            store_id: found.store_id,
            epoch,
            sequencer: Mutex::new(Sequencer::new(found.state.clone(), found.ids)),
            work: Condvar::new(),
            syncer: Mutex::new(Syncer::new(found.next_segment, epoch, options.seed, found.end_lsn, found.last_wall_us)),
            checkpointer: Mutex::new(CheckpointerState {
                log_bytes: found.end_lsn.saturating_sub(found.checkpoint_lsn),
                state_bytes: found.tables.unflushed_bytes(),
                asked: false,
            }),
            meta_version: watch::Sender::new(found.state.version),
            durable: RwLock::new(Durable {
                state: found.state,
                dirty: found.dirty,
                tails: found.tails,
                lsn: found.end_lsn,
                segments: found.segments,
                start_lsn: found.start_lsn,
            }),
            tables: RwLock::new(found.tables),
            checkpoint: Mutex::new(Some(Arc::new(found.checkpoint))),
            checkpoint_due: Condvar::new(),
            ring: Ring::new(options.ring_bytes),
            files: SegmentFiles::new(fs.clone()),
            spares: Spares::new(fs.clone(), place, options.segment_bytes, ready, found.next_spare),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            is_over: watch::Sender::new(false),
            changes: broadcast::Sender::new(limits::WATCH_CHANGES_MAX),
            stopping: AtomicBool::new(false),
            written_bytes: AtomicU64::new(0),
            _lock: found.lock,
            options,
            fs,
            clock,
        });
        let spare = shared.first_spare()?;
        shared.syncer().begin_segment(&shared, spare).map_err(|source| OpenError::Io {
            doing: "begin a segment in",
            place: shared.spares.place(),
            source,
        })?;
        Ok((Self { shared, threads: Mutex::default() }, found.report))
    }

    /// Starts the threads.
    pub fn start(&self) -> io::Result<()> {
        self.shared.spares.expect_preparer();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spawn = |name: &str, run: fn(&Shared)| {
            let shared = self.shared.clone();
            threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))?);
            Ok(())
        };
        spawn("nodata-syncer", Shared::run_syncer)?;
        spawn("nodata-prepare", Shared::run_preparer)?;
        spawn("nodata-checkpt", Shared::run_checkpointer)
    }

    /// Takes nothing more, makes durable what was taken, writes a checkpoint, and ends the threads.
    pub fn stop(&self) {
        self.shared.sequencer().close();
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake_all_to_stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    /// The partitions that have events which are in no file.
    pub fn unarchived(&self) -> Vec<Unarchived> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.tails.values().filter_map(|tail| tail.unarchived()).collect()
    }

    /// Makes a file part of the store. When this resolves, readers may be given it, and the log may let go of its events.
    pub fn commit_file(&self, tp: Tp, file: ArchiveFile) -> Result<Pending<()>, LogError> {
        let ticket = self.shared.sequencer().commit_file(tp, file)?;
        Ok(self.shared.pending((), ticket))
    }

    /// Removes what comes before an offset, as far as it is in files. The files can go when this resolves, and not before.
    pub fn trim(&self, tp: Tp, to: Offset) -> Result<Pending<()>, LogError> {
        let ticket = self.shared.sequencer().trim(tp, to)?;
        Ok(self.shared.pending((), ticket))
    }

    /// The id of the store.
    pub fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    /// The partitions that should be put into files although it is not time. There are some when there is more log than half
    /// of what there may be: those that hold on to the older half of it.
    pub fn crowding(&self) -> HashSet<Tp> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = durable.segments.bytes();
        if bytes <= self.shared.options.log_bytes_max / 2 {
            return HashSet::new();
        }
        durable.segments.holders(&durable.state, bytes / 2)
    }

    /// Bytes that were written to the log since the start, everything included.
    pub fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }

    /// Asks for a checkpoint soon.
    pub fn ask_for_checkpoint(&self) {
        self.shared.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).asked = true;
        self.shared.checkpoint_due.notify_all();
    }

    /// The steps of the threads, for a test that takes them one by one.
    #[doc(hidden)]
    pub fn by_hand(&self) -> ByHand<'_> {
        ByHand(&self.shared)
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Steps, one by one.
#[doc(hidden)]
pub struct ByHand<'a>(&'a Shared);

impl ByHand<'_> {
    /// Writes one group. `Ok(true)`: there was one.
    pub fn write_group(&self) -> io::Result<bool> {
        let step = self.0.syncer().step(self.0);
        step.map(|step| step == Step::Wrote).inspect_err(|error| self.0.fail(error))
    }

    /// Writes a mark, as happens when nothing comes for a while.
    pub fn mark(&self) -> io::Result<()> {
        self.0.syncer().mark(self.0).inspect_err(|error| self.0.fail(error))
    }

    /// Makes one spare segment.
    pub fn prepare(&self) {
        if self.0.spares.is_short() {
            self.0.spares.prepare();
            self.0.note_space();
        }
    }

    /// The id of the next topic that is made.
    pub fn next_topic(&self) -> TopicId {
        TopicId(self.0.sequencer().state.next_topic)
    }

    /// Writes a checkpoint.
    pub fn checkpoint(&self) -> Result<(), String> {
        self.0.write_checkpoint()
    }
}

impl Shared {
    pub(crate) fn sequencer(&self) -> MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn syncer(&self) -> MutexGuard<'_, Syncer> {
        self.syncer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all_to_stop(&self) {
        self.work.notify_all();
        self.spares.stop();
        self.checkpoint_due.notify_all();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn fail(&self, error: &io::Error) {
        self.sequencer().fail(Arc::new(io::Error::new(error.kind(), error.to_string())));
        (self.options.on_failure)(error);
    }

    // The syncer.

    fn run_syncer(&self) {
        let mut syncer = self.syncer();
        loop {
            match syncer.step(self) {
                Ok(Step::Wrote) => {}
                Ok(Step::Full) => {
                    // Without space nothing can be kept, so whoever waits keeps waiting: nothing was promised to them.
                    if self.is_stopping() {
                        return;
                    }
                    self.spares.wait_for_change();
                }
                Ok(Step::Idle) => {
                    let sequencer = self.sequencer();
                    if !sequencer.is_idle() {
                        continue;
                    }
                    if sequencer.is_closing() {
                        drop(sequencer);
                        if let Err(error) = syncer.mark(self) {
                            self.fail(&error);
                        }
                        return;
                    }
                    let has_none = |sequencer: &mut Sequencer| sequencer.is_idle() && !sequencer.is_closing();
                    if syncer.is_marked() {
                        drop(self.work.wait_while(sequencer, has_none));
                        continue;
                    }
                    let waited = self.work.wait_timeout_while(sequencer, MARK_AFTER, has_none);
                    let (sequencer, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    drop(sequencer);
                    if waited.timed_out()
                        && let Err(error) = syncer.mark(self)
                    {
                        self.fail(&error);
                        return;
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    return;
                }
            }
        }
    }

    /// Makes durable operations visible.
    pub(crate) fn publish(&self, ops: Vec<DurableOp>, segment: SegmentUse, wall_us: TimestampUs, lsn: Lsn, bytes: u64) {
        let mut moved: Vec<(Arc<PartitionTail>, Tp, Offset)> = Vec::new();
        let mut changes = Vec::new();
        let watched = self.changes.receiver_count() > 0;
        let mut meta_version = None;
        let mut state_bytes = None;
        let mut has_files = false;
        // Before anyone has to wait for it.
        let ids: Vec<TimedIds> = ops.iter().map(|durable| ids::timed(&durable.op, wall_us)).collect();
        {
            let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
            let durable = &mut *durable;
            if durable.segments.begin(segment) {
                self.note_log_bytes(durable.segments.bytes());
            }
            for (DurableOp { op, place }, ids) in ops.into_iter().zip(&ids) {
                durable.dirty.note(&op, &durable.state, ids);
                if watched && let Op::TopicDelete(id) = &op {
                    let name = durable.state.topics.get(id).map(|topic| topic.name.clone());
                    changes.extend(name.map(|name| Change::TopicDeleted(*id, name)));
                }
                if let Some(forgotten) = durable.state.apply(&op) {
                    durable.dirty.producers.insert(forgotten);
                }
                match op {
                    Op::Append { tp, base_offset, batch } => {
                        let end = base_offset + batch.len() as u64;
                        // The sequencer takes nothing for a topic that was deleted, so the tail is there.
                        let Some(tail) = durable.tails.get(&tp) else { continue };
                        durable.segments.note(tp, end);
                        self.ring.push(tail, place, base_offset, wall_us, batch);
                        match moved.last_mut() {
                            Some((_, last, last_end)) if *last == tp => *last_end = end,
                            _ => moved.push((tail.clone(), tp, end)),
                        }
                    }
                    Op::TopicPut(topic) => {
                        for tp in topic.partitions() {
                            durable.tails.entry(tp).or_insert_with(|| PartitionTail::new(tp, 0));
                        }
                        if watched {
                            changes.push(Change::Topic(topic));
                        }
                    }
                    Op::TopicDelete(id) => durable.tails.retain(|tp, _| tp.topic != id),
                    Op::Trim { tp, .. } | Op::FileCommit { tp, .. } => {
                        has_files = true;
                        if let (Some(tail), Some(archive)) = (durable.tails.get(&tp), durable.state.archives.get(&tp)) {
                            tail.set_archive(archive.start, archive.end);
                        }
                    }
                    Op::State { task, change } => {
                        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
                        tables.apply(task, &change);
                        state_bytes = Some(tables.unflushed_bytes());
                    }
                    Op::TaskReset { task, forget, .. } => {
                        self.tables.write().unwrap_or_else(PoisonError::into_inner).forget(task, &forget);
                    }
                    Op::OwnerForget(owner) => {
                        self.tables.write().unwrap_or_else(PoisonError::into_inner).forget_owner(owner);
                    }
                    Op::Meta { version, .. } => meta_version = Some(version),
                    Op::Producer { .. } | Op::TaskEpoch { .. } | Op::Advance { .. } => {}
                }
            }
            durable.lsn = lsn;
        }
        for (tail, tp, end) in moved {
            tail.set_end(end);
            if watched {
                changes.push(Change::End(tp, end));
            }
        }
        if !changes.is_empty() {
            // Nobody may be listening any more.
            let _ = self.changes.send(changes.into());
        }
        if let Some(version) = meta_version {
            self.meta_version.send_replace(version);
        }
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.spares.note_group(bytes);
        let mut checkpointer = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner);
        checkpointer.log_bytes += bytes;
        checkpointer.state_bytes = state_bytes.unwrap_or(checkpointer.state_bytes);
        // What was put into a file just now may let go of a segment that publishers wait for.
        checkpointer.asked |= has_files && *self.is_over.borrow();
        if self.is_checkpoint_due(&checkpointer) {
            self.checkpoint_due.notify_all();
        }
    }

    // The preparer.

    fn run_preparer(&self) {
        self.spares.run(|| self.note_space());
    }

    /// The file of the first segment: one that is there, or a small one.
    fn first_spare(&self) -> Result<Spare, OpenError> {
        let bytes = self.options.first_segment_bytes;
        self.spares.first(bytes).map_err(|source| {
            let place = self.spares.place();
            if is_disk_full(&source) {
                OpenError::DiskFull { place, bytes }
            } else {
                OpenError::Io { doing: "create a segment in", place, source }
            }
        })
    }

    /// Tells the sequencer how much space there is.
    pub(crate) fn note_space(&self) {
        let space = self.spares.space();
        self.sequencer().space = space;
    }

    fn note_log_bytes(&self, bytes: u64) {
        let is_over = bytes > self.options.log_bytes_max;
        let changed = self.is_over.send_if_modified(|was| std::mem::replace(was, is_over) != is_over);
        if changed && is_over {
            tracing::warn!(mib = bytes >> 20, "there is too much log; publishers wait until more of it is in files");
        } else if changed {
            tracing::info!(mib = bytes >> 20, "the log has room again");
        }
    }

    /// Reads from a file.
    async fn read_archive(&self, tp: Tp, from: Offset, limits: ReadLimits) -> Result<Chunk, LogError> {
        let (topic, file, lost_to) = {
            let durable = self.durable.read().unwrap_or_else(PoisonError::into_inner);
            durable.state.check_partition(tp)?;
            let archive = durable.state.archives.get(&tp);
            let file = archive.and_then(|archive| archive.file_from(from)).cloned();
            let lost = archive.filter(|_| file.is_none()).and_then(|archive| archive.lost.around(from));
            let lost_to = lost.map(|lost| lost.end);
            (durable.state.topic_by_id(tp.topic)?.clone(), file, lost_to)
        };
        // What a repair could not find any more is passed over. Behind the last file nothing else says so.
        if let Some(next) = lost_to {
            return Ok(Chunk { batches: Vec::new(), next });
        }
        let (Some(file), Some(archive)) = (file, &self.options.archive) else {
            let place = format!("topic `{}`, partition {}", topic.name, tp.partition);
            return Err(LogError::Damaged { place, what: format!("offset {from} is in no file and not in the log") });
        };
        let read = archive.read(&topic, tp.partition, &file, from, limits).await;
        // The file may have been removed while it was looked for.
        let Bounds { earliest, end } = self.tail(tp)?.bounds();
        match read {
            Err(_) if from < earliest => Err(LogError::OutOfRange { tp, asked: from, earliest, end }),
            read => read,
        }
    }

    fn tail(&self, tp: Tp) -> Result<Arc<PartitionTail>, LogError> {
        let durable = self.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.state.check_partition(tp)?;
        durable.tails.get(&tp).cloned().ok_or(LogError::UnknownTopicId { topic: tp.topic })
    }

    /// Wakes the syncer for what was queued, and answers with the value when the ticket is told.
    fn pending<T: Send + 'static>(&self, value: T, ticket: Ticket) -> Pending<T> {
        self.work.notify_one();
        Box::pin(async move {
            match ticket.await {
                Ok(Ok(())) => Ok(value),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    let source = io::Error::other("the log ended before it was known");
                    Err(LogError::Failed { source: Arc::new(source) })
                }
            }
        })
    }
}

/// Quiet time after which a mark is written.
const MARK_AFTER: Duration = Duration::from_millis(100);

impl Log for EmbeddedLog {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dense_offsets: true,
            transaction_bytes_max: limits::FRAME_BYTES_MAX,
            idempotent_producers: true,
            durability: "local disk, fdatasync of the group",
        }
    }

    fn topics(&self) -> Vec<Topic> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.state.topics_by_name().cloned().collect()
    }

    fn topic(&self, name: &Name) -> Result<Topic, LogError> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.state.topic(name).cloned()
    }

    fn topic_by_id(&self, id: TopicId) -> Result<Topic, LogError> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.state.topic_by_id(id).cloned()
    }

    fn create_topic(&self, name: Name, config: TopicConfig) -> Result<Pending<Topic>, LogError> {
        let now_us = self.shared.clock.now_us();
        let (topic, ticket) = self.shared.sequencer().create_topic(name, config, now_us)?;
        Ok(self.shared.pending(topic, ticket))
    }

    fn change_topic(&self, name: &Name, change: &TopicChange) -> Result<Pending<Topic>, LogError> {
        let (topic, ticket) = self.shared.sequencer().change_topic(name, change)?;
        Ok(self.shared.pending(topic, ticket))
    }

    fn delete_topic(&self, name: &Name) -> Result<Pending<()>, LogError> {
        let ticket = self.shared.sequencer().delete_topic(name)?;
        Ok(self.shared.pending((), ticket))
    }

    fn room(&self, bytes: u64) -> BoxFuture<'_, Result<Room, LogError>> {
        Box::pin(async move {
            let bytes_max = limits::FRAME_BYTES_MAX;
            if bytes > bytes_max {
                return Err(LogError::TransactionTooLarge { bytes, bytes_max });
            }
            if *self.shared.is_over.borrow() {
                let mut is_over = self.shared.is_over.subscribe();
                is_over.wait_for(|is_over| !is_over).await.map_err(|_| LogError::Stopping)?;
            }
            let permit = self.shared.room.clone().acquire_many_owned(bytes as u32).await;
            Ok(Room { _permit: Some(permit.map_err(|_| LogError::Stopping)?) })
        })
    }

    fn append(&self, append: Append) -> Result<Pending<Appended>, LogError> {
        let Append { mut batches, ack, producer, mut room } = append;
        if batches.is_empty() {
            return Err(LogError::Empty);
        }
        let mut left_out = LeftOut::new(batches.len());
        loop {
            let ids: Vec<_> = batches.iter().map(|(_, batch)| ids::hashes(batch)).collect();
            let now_us = self.shared.clock.now_us();
            // Not in the `match`, which would hold the lock for as long as its arms take.
            let placed = self.shared.sequencer().append(batches, &ids, producer, ack, room, now_us)?;
            match placed {
                Placed::Appended { ranges, ticket } => {
                    let appended = Appended { ranges, duplicates: left_out.places(), ack };
                    return Ok(self.shared.pending(appended, ticket));
                }
                Placed::Known { batches: all, room: same, known } => {
                    batches = left_out.leave_out(all, &known)?;
                    room = same;
                }
            }
        }
    }

    fn barrier(&self) -> Result<Pending<()>, LogError> {
        let ticket = self.shared.sequencer().barrier()?;
        Ok(self.shared.pending((), ticket))
    }

    fn begin_task(&self, task: TaskKey) -> Result<Pending<TaskLease>, LogError> {
        let (lease, ticket) = self.shared.sequencer().begin_task(task)?;
        Ok(self.shared.pending(lease, ticket))
    }

    fn commit(&self, transaction: Transaction) -> Result<Pending<Appended>, LogError> {
        let ids: Vec<_> = transaction.appends.iter().map(|(_, batch)| ids::hashes(batch)).collect();
        let now_us = self.shared.clock.now_us();
        let (ranges, ticket) = self.shared.sequencer().commit(transaction, &ids, now_us)?;
        let appended = Appended { ranges, duplicates: Vec::new(), ack: crate::engine::AckLevel::Durable };
        Ok(self.shared.pending(appended, ticket))
    }

    fn task_position(&self, task: TaskKey) -> TaskPosition {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.state.tasks.get(&task).copied().unwrap_or_default()
    }

    fn reset_tasks(&self, resets: Vec<TaskReset>) -> Result<Pending<()>, LogError> {
        let ticket = self.shared.sequencer().reset_tasks(resets)?;
        Ok(self.shared.pending((), ticket))
    }

    fn forget_owner(&self, owner: OwnerId) -> Result<Pending<()>, LogError> {
        let ticket = self.shared.sequencer().forget_owner(owner)?;
        Ok(self.shared.pending((), ticket))
    }

    fn state_get(&self, task: TaskKey, table: &Name, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, LogError> {
        let prefix = tables::table_prefix(task, table);
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| [prefix.as_slice(), key].concat()).collect();
        let mut values: Vec<Option<Option<Bytes>>> = {
            let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
            keys.iter().map(|key| tables.get(key)).collect()
        };
        let missing: Vec<&[u8]> =
            keys.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_slice()).collect();
        if !missing.is_empty() {
            let unavailable = |what: String| LogError::State { what };
            let checkpoint = self.shared.checkpoint().map_err(unavailable)?;
            let stored = checkpoint.state_get(&missing).map_err(|error| unavailable(error.to_string()))?;
            for (value, stored) in values.iter_mut().filter(|value| value.is_none()).zip(stored) {
                *value = Some(stored);
            }
        }
        Ok(values.into_iter().map(Option::flatten).collect())
    }

    fn state_scan(&self, task: TaskKey, table: &Name, scan: &StateScan) -> Result<Vec<(Bytes, Bytes)>, LogError> {
        let prefix = tables::table_prefix(task, table);
        let from = [prefix.as_slice(), &scan.start].concat();
        let unavailable = |what: String| LogError::State { what };
        let checkpoint = self.shared.checkpoint().map_err(unavailable)?;
        // The tables are locked first: what a checkpoint takes from them while the database is read would be seen in neither.
        let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        checkpoint
            .state_scan(&from, |stored| tables.scan(&prefix, scan, stored))
            .and_then(|found| found)
            .map_err(|error| unavailable(error.to_string()))
    }

    fn bounds(&self, tp: Tp) -> Result<Bounds, LogError> {
        Ok(self.shared.tail(tp)?.bounds())
    }

    fn read(&self, tp: Tp, from: Offset, limits: ReadLimits) -> BoxFuture<'_, Result<Chunk, LogError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            loop {
                let tail = shared.tail(tp)?;
                let Planned::Log(plan) = tail.plan(from, limits)? else {
                    return shared.read_archive(tp, from, limits).await;
                };
                let first_segment = plan.first_segment();
                let read = if plan.needs_disk() && tokio::runtime::Handle::try_current().is_ok() {
                    let shared = shared.clone();
                    let read = tokio::task::spawn_blocking(move || plan.run(&shared.files));
                    read.await.unwrap_or(Err(LogError::Stopping))
                } else {
                    plan.run(&shared.files)
                };
                match read {
                    // The segment was let go of, and perhaps written anew, while it was read: the events are in a file now.
                    Err(LogError::Read { .. } | LogError::Damaged { .. })
                        if first_segment.is_some_and(|segment| tail.has_forgotten(segment)) => {}
                    read => return read,
                }
            }
        })
    }

    fn offset_at(&self, tp: Tp, time_us: TimestampUs) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(async move {
            let archive = self.archive(tp)?;
            let topic = self.topic_by_id(tp.topic)?;
            let begins_at = archive.start;
            for file in archive.files.values().filter(|file| file.timestamp_max_us >= time_us) {
                let Some(reader) = &self.shared.options.archive else { break };
                let found = reader.offset_at(&topic, tp.partition, file, begins_at, time_us).await;
                match found {
                    Ok(Some(offset)) => return Ok(offset),
                    Ok(None) => {}
                    // It may have been removed meanwhile, with all that it held.
                    Err(_) if file.end <= self.bounds(tp)?.earliest => {}
                    Err(error) => return Err(error),
                }
            }
            find_time(self, tp, archive.end.max(self.bounds(tp)?.earliest), time_us).await
        })
    }

    fn archive(&self, tp: Tp) -> Result<Arc<PartitionArchive>, LogError> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.state.check_partition(tp)?;
        Ok(durable.state.archives.get(&tp).cloned().unwrap_or_default())
    }

    fn follow(&self, tp: Tp) -> Result<watch::Receiver<Offset>, LogError> {
        Ok(self.shared.tail(tp)?.follow())
    }

    fn changes(&self) -> broadcast::Receiver<Changes> {
        self.shared.changes.subscribe()
    }
}

impl MetadataStore for EmbeddedLog {
    fn meta_get(&self, key: &str) -> BoxFuture<'_, Result<Option<MetaEntry>, LogError>> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        let entry = durable.state.entries.get(key).cloned();
        Box::pin(std::future::ready(Ok(entry)))
    }

    fn meta_put(&self, key: &str, expect: Expect, value: Option<Bytes>) -> Result<Pending<u64>, LogError> {
        let (version, ticket) = self.shared.sequencer().meta_put(key, expect, value)?;
        Ok(self.shared.pending(version, ticket))
    }

    fn meta_list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, MetaEntry)>, LogError>> {
        let durable = self.shared.durable.read().unwrap_or_else(PoisonError::into_inner);
        let entries = durable.state.entries.range(prefix.to_owned()..);
        let found = entries
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn meta_version(&self) -> watch::Receiver<u64> {
        self.shared.meta_version.subscribe()
    }
}
