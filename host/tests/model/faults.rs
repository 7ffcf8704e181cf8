//! A log that fails at random.

use crate::found::now;
use bytes::Bytes;
use nodata_log::engine::BoxFuture;
use nodata_log::fs::simulated::Chance;
use nodata_log::{
    Append, Appended, Bounds, Capabilities, Changes, Chunk, EmbeddedLog, Expect, Log, LogError, MetaEntry,
    MetadataStore, Name, Offset, OwnerId, PartitionArchive, Pending, ReadLimits, Room, StateScan, TaskKey, TaskLease,
    TaskPosition, TaskReset, TimestampUs, Topic, TopicChange, TopicConfig, TopicId, Tp, Transaction,
};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// A log between the tasks and the real one.
pub(crate) struct FaultyLog {
    pub(crate) log: Arc<EmbeddedLog>,
    chance: Mutex<Chance>,
    is_quiet: AtomicBool,
    /// A component that cannot read its state asks to be tried again. Where that is not done for ever, an event would pay for it.
    pub(crate) state_fails: bool,
    /// Commits of a source say nothing about how much was asked for.
    pub(crate) is_source: bool,
}

impl FaultyLog {
    pub(crate) fn new(log: Arc<EmbeddedLog>, seed: u64, state_fails: bool, is_source: bool) -> Self {
        Self { log, chance: Mutex::new(Chance::new(seed)), is_quiet: AtomicBool::new(true), state_fails, is_source }
    }

    /// From now on nothing fails, or everything may.
    pub(crate) fn set_quiet(&self, is_quiet: bool) {
        self.is_quiet.store(is_quiet, Ordering::Relaxed);
    }

    fn happens(&self, percent: u64) -> bool {
        !self.is_quiet.load(Ordering::Relaxed) && self.chance.lock().unwrap().percent(percent)
    }

    fn below(&self, bound: u64) -> u64 {
        self.chance.lock().unwrap().below(bound)
    }

    fn read_error() -> LogError {
        LogError::Read { place: "a segment".to_owned(), source: Arc::new(io::Error::other("told to")) }
    }

    /// What comes late, now and then, or never comes although it happened.
    fn answer<T: Send + 'static>(&self, pending: Pending<T>) -> Pending<T> {
        let wait = if self.happens(40) { Duration::from_millis(self.below(60)) } else { Duration::ZERO };
        let is_lost = self.happens(4);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            if is_lost {
                drop(pending);
                return Err(LogError::Failed { source: Arc::new(io::Error::other("the answer is lost")) });
            }
            pending.await
        })
    }

    /// Someone else takes a task over.
    fn steal(&self, task: TaskKey) {
        if self.happens(2) {
            drop(self.log.begin_task(task));
        }
    }
}

impl Log for FaultyLog {
    fn begin_task(&self, task: TaskKey) -> Result<Pending<TaskLease>, LogError> {
        if self.happens(5) {
            return Err(LogError::DiskFull);
        }
        let begun = self.log.begin_task(task)?;
        self.steal(task);
        Ok(self.answer(begun))
    }

    fn commit(&self, transaction: Transaction) -> Result<Pending<Appended>, LogError> {
        let task = transaction.task;
        if self.happens(5) {
            return Err(LogError::DiskFull);
        }
        if self.happens(2) {
            return Err(LogError::Stopping);
        }
        // Of one event there cannot be less, and it would be put aside.
        let is_of_several = transaction.expect.is_some_and(|expect| transaction.next > expect + 1);
        if (is_of_several || self.is_source) && self.happens(4) {
            return Err(LogError::TransactionTooLarge { bytes: 2, bytes_max: 1 });
        }
        self.steal(task);
        let committed = self.log.commit(transaction)?;
        self.steal(task);
        Ok(self.answer(committed))
    }

    fn reset_tasks(&self, resets: Vec<TaskReset>) -> Result<Pending<()>, LogError> {
        if self.happens(10) {
            return Err(LogError::DiskFull);
        }
        if let Some(reset) = resets.first() {
            self.steal(reset.task);
        }
        self.log.reset_tasks(resets)
    }

    fn create_topic(&self, name: Name, config: TopicConfig) -> Result<Pending<Topic>, LogError> {
        if self.happens(20) {
            return Err(LogError::DiskFull);
        }
        Ok(self.answer(self.log.create_topic(name, config)?))
    }

    fn state_get(&self, task: TaskKey, table: &Name, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, LogError> {
        if self.state_fails && self.happens(2) {
            return Err(LogError::State { what: "told to".to_owned() });
        }
        self.log.state_get(task, table, keys)
    }

    fn state_scan(&self, task: TaskKey, table: &Name, scan: &StateScan) -> Result<Vec<(Bytes, Bytes)>, LogError> {
        if self.state_fails && self.happens(2) {
            return Err(LogError::State { what: "told to".to_owned() });
        }
        self.log.state_scan(task, table, scan)
    }

    fn read(&self, tp: Tp, from: Offset, limits: ReadLimits) -> BoxFuture<'_, Result<Chunk, LogError>> {
        let is_late = self.happens(20);
        let fails = self.happens(4);
        let few = if self.happens(50) { 1 + self.below(6) as usize } else { usize::MAX };
        let limits = ReadLimits { events_max: limits.events_max.min(few), ..limits };
        Box::pin(async move {
            if is_late {
                tokio::time::sleep(Duration::from_millis(self.below(20))).await;
            }
            if fails {
                return Err(Self::read_error());
            }
            // Where there is no runtime around it, the log reads at once. Otherwise the machine would decide what comes first.
            let log = self.log.clone();
            let read = move || now(log.read(tp, from, limits));
            std::thread::spawn(read).join().unwrap()
        })
    }

    // The rest never fails.

    fn capabilities(&self) -> Capabilities {
        self.log.capabilities()
    }

    fn topics(&self) -> Vec<Topic> {
        self.log.topics()
    }

    fn topic(&self, name: &Name) -> Result<Topic, LogError> {
        self.log.topic(name)
    }

    fn topic_by_id(&self, id: TopicId) -> Result<Topic, LogError> {
        self.log.topic_by_id(id)
    }

    fn change_topic(&self, name: &Name, change: &TopicChange) -> Result<Pending<Topic>, LogError> {
        self.log.change_topic(name, change)
    }

    fn delete_topic(&self, name: &Name) -> Result<Pending<()>, LogError> {
        self.log.delete_topic(name)
    }

    fn room(&self, bytes: u64) -> BoxFuture<'_, Result<Room, LogError>> {
        self.log.room(bytes)
    }

    fn append(&self, append: Append) -> Result<Pending<Appended>, LogError> {
        self.log.append(append)
    }

    fn barrier(&self) -> Result<Pending<()>, LogError> {
        self.log.barrier()
    }

    fn task_position(&self, task: TaskKey) -> TaskPosition {
        self.log.task_position(task)
    }

    fn forget_owner(&self, owner: OwnerId) -> Result<Pending<()>, LogError> {
        self.log.forget_owner(owner)
    }

    fn bounds(&self, tp: Tp) -> Result<Bounds, LogError> {
        self.log.bounds(tp)
    }

    fn offset_at(&self, tp: Tp, time_us: TimestampUs) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.log.offset_at(tp, time_us)
    }

    fn archive(&self, tp: Tp) -> Result<Arc<PartitionArchive>, LogError> {
        self.log.archive(tp)
    }

    fn follow(&self, tp: Tp) -> Result<watch::Receiver<Offset>, LogError> {
        self.log.follow(tp)
    }

    fn changes(&self) -> broadcast::Receiver<Changes> {
        self.log.changes()
    }
}

impl MetadataStore for FaultyLog {
    fn meta_get(&self, key: &str) -> BoxFuture<'_, Result<Option<MetaEntry>, LogError>> {
        self.log.meta_get(key)
    }

    fn meta_put(&self, key: &str, expect: Expect, value: Option<Bytes>) -> Result<Pending<u64>, LogError> {
        self.log.meta_put(key, expect, value)
    }

    fn meta_list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, MetaEntry)>, LogError>> {
        self.log.meta_list(prefix)
    }

    fn meta_version(&self) -> watch::Receiver<u64> {
        self.log.meta_version()
    }
}
